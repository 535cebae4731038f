"""`python -m lavis.train`: training through the plugin. Python finds this file as `lavis.train`."""

from __future__ import annotations

from lavis_emovit.train import main

if __name__ == "__main__":
    raise SystemExit(main())
