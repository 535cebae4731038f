"""Seconds that all metrics take with 1,000 bootstrap samples on as many predictions as EmoSet has test pictures.

    python tools/bench/metrics.py

Processor time of one thread, so that neighbours on a shared machine count for little; the least of several repeats.
Rows are drawn: their number, the labels and the presence of scores decide the time, not their values. Each family of
metrics is timed from rows in memory to its result; `everything about labels` is what a suite asks of one model on one
benchmark: classification with calibration, levels, soft labels and the comparison with another model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

# One thread, set before numpy is loaded.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402

from lavis_emovit.distributed.machine import machine_facts, package_versions  # noqa: E402
from lavis_emovit.emotion.labels import get_label_set  # noqa: E402
from lavis_emovit.evaluation.metrics import (  # noqa: E402
    action_unit_metrics,
    classification_metrics,
    compare_models,
    dimensional_metrics,
    hierarchy_metrics,
    soft_label_metrics,
)
from lavis_emovit.evaluation.predictions import PredictionRow  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
NUM_ROWS = 17_716
NUM_RESAMPLES = 1000
UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
LABEL_FAMILIES = ("classification", "levels", "soft labels", "comparison of two models")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=NUM_ROWS)
    parser.add_argument("--resamples", type=int, default=NUM_RESAMPLES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "metrics.json")
    arguments = parser.parse_args(argv)
    result: dict[str, Any] = {
        "benchmark": "metrics",
        "num_rows": arguments.rows,
        "num_resamples": arguments.resamples,
        "processor_s": {},
    }
    for name in ("mikels8", "webemo25"):
        seconds = measure(name, arguments.rows, arguments.resamples, arguments.repeats)
        seconds["everything about labels"] = round(sum(seconds[family] for family in LABEL_FAMILIES), 2)
        result["processor_s"][name] = seconds
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    result |= {
        "command": f"python tools/bench/metrics.py --rows {arguments.rows} --resamples {arguments.resamples}",
        "date": date.today().isoformat(),
        "commit": commit,
        "versions": {**package_versions(), **{p: metadata.version(p) for p in ("scikit-learn", "scipy")}},
        "machine": machine_facts(),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["processor_s"], indent=1))
    return 0


def measure(label_set: str, num_rows: int, num_resamples: int, repeats: int) -> dict[str, float]:
    """Family of metrics -> seconds."""
    labels = get_label_set(label_set).labels
    rows, others = make_rows(labels, num_rows, seed=0), make_rows(labels, num_rows, seed=1, like_seed=0)
    size = {"num_resamples": num_resamples}
    families: dict[str, Callable[[], object]] = {
        "classification": lambda: classification_metrics(rows, labels, **size),
        "classification by person": lambda: classification_metrics(rows, labels, group_by="person", **size),
        "levels": lambda: hierarchy_metrics(rows, label_set, **size),
        "soft labels": lambda: soft_label_metrics(rows, labels, **size),
        "comparison of two models": lambda: compare_models(rows, others, labels, **size),
        "valence and arousal": lambda: dimensional_metrics(rows, **size),
        f"{len(UNITS)} action units with intensities": lambda: action_unit_metrics(
            rows, intensity_scale=(0.0, 5.0), **size
        ),
    }
    classification_metrics(rows[:100], labels, num_resamples=2)  # scikit-learn is imported here
    return {name: round(min(seconds_of(measured) for _ in range(repeats)), 2) for name, measured in families.items()}


def seconds_of(call: Callable[[], object]) -> float:
    """Processor time of a call."""
    begin_s = time.process_time()
    call()
    return time.process_time() - begin_s


def make_rows(labels: Sequence[str], num_rows: int, seed: int, like_seed: int | None = None) -> list[PredictionRow]:
    """Rows of every kind at once; `like_seed` takes the truth of that seed's rows."""
    truth = np.random.default_rng(seed if like_seed is None else like_seed)
    true_N = truth.integers(len(labels), size=num_rows)
    votes_NC = truth.dirichlet(np.ones(len(labels)), size=num_rows)
    numbers_N2, units_NU = truth.uniform(-1, 1, size=(num_rows, 2)), truth.integers(0, 6, size=(num_rows, len(UNITS)))
    said = np.random.default_rng([seed, 1])
    scores_NC = said.normal(size=votes_NC.shape)
    scores_NC[np.arange(num_rows), true_N] += 1.5
    best_N = scores_NC.argmax(axis=1)
    said_N2 = np.clip(numbers_N2 + said.normal(scale=0.3, size=numbers_N2.shape), -1, 1)
    said_NU = np.clip(units_NU + said.integers(-1, 2, size=units_NU.shape), 0, 5)
    names = ["valence", "arousal", *(f"AU{unit}" for unit in UNITS)]
    return [
        PredictionRow(
            instance_id=str(n),
            record_id=str(n),
            label=labels[true_N[n]],
            prediction=labels[best_N[n]] if n % 50 else None,
            scores=dict(zip(labels, scores_NC[n].tolist())),
            votes=dict(zip(labels, votes_NC[n].tolist())),
            true_values=dict(zip(names, [*numbers_N2[n].tolist(), *map(float, units_NU[n])])),
            values=dict(zip(names, [*said_N2[n].tolist(), *map(float, said_NU[n])])),
            slices={"person": str(n % 400)},
        )
        for n in range(num_rows)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
