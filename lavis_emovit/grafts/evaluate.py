"""`python -m lavis.evaluate`: evaluation through the plugin. Python finds this file as `lavis.evaluate`."""

from __future__ import annotations

from lavis_emovit.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
