"""`python -m lavis.evaluate`, or `python -m lavis_emovit.evaluate`: evaluate a model, tuned or not."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_emovit.train import launch


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; exit codes as for training."""
    return launch(
        argv,
        prog="python -m lavis.evaluate",
        description="Evaluate a model on the test splits of a recipe, with the weights that run.checkpoint names.",
        overrides=["run.evaluate=true"],
    )


if __name__ == "__main__":
    raise SystemExit(main())
