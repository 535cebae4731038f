"""`python -m lavis.evaluate`, or `python -m lavis_emovit.evaluate`: evaluate models, tuned or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lavis_emovit.launch import launch
from lavis_emovit.train import run_recipe


def main(argv: Sequence[str] | None = None) -> int:
    return launch(
        argv,
        prog="python -m lavis.evaluate",
        description="Evaluate the models of a suite on its benchmarks. With a training recipe, evaluate its model "
        "on its test splits, with the weights of run.checkpoint.",
        run=run_evaluation,
        resumes_from="after the last answer",
    )


def run_evaluation(cfg_path: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """Run a suite, or evaluate with a training recipe, in this process; returns the content of its metrics.json."""
    from lavis_emovit.evaluation.suite.recipe import load_suite

    suite = load_suite(cfg_path, options, check_names=True)
    if suite is None:
        return run_recipe(cfg_path, options, ["run.evaluate=true"])
    from lavis_emovit.evaluation.suite.suite import run_suite

    return run_suite(suite)


if __name__ == "__main__":
    raise SystemExit(main())
