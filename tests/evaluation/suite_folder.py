"""Made-up suite folders for the tests of the report, with the files and keys of a real suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.evaluation.predictions import PredictionRow, write_predictions
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.settings import parse_settings

MIKELS = get_label_set("mikels8").labels
UNITS = ("AU4", "AU6", "AU12")

SUITE: dict[str, Any] = {
    "name": "trial",
    "output_dir": "out",
    "models": {
        "tiny": {"adapter": "lavis", "arch": "emovit_tiny"},
        "majority": {"adapter": "majority"},
        "colours": {"adapter": "colours"},
    },
    "methods": ["likelihood", "generation"],
    "num_pictures": 3,
    "benchmarks": {
        "scenes": {
            "dataset": "emoset",
            "coarser": ["polarity2"],
            "wordings": [1, 2],
            "slices": ["attributes.scene"],
        },
        "affect": {"dataset": "oasis", "kind": "valence_arousal"},
        "units": {"dataset": "disfa", "kind": "action_units"},
    },
}


def make_suite(folder: Path, *, seed: int = 0, num_rows: int = 60, **changes: Any) -> Path:
    """Write the folder of a suite without metrics.json, as one that stopped before its end.

    Args:
        folder: to write.
        seed: of the predictions; the truth is always the same.
        num_rows: records of each benchmark.
        changes: to the settings of the suite; new benchmarks get no rows.
    """
    settings, problems = parse_settings(SuiteSettings, {**SUITE, **changes}, "suite")
    assert not problems
    folder.mkdir(parents=True)
    dumped = {"suite": settings.model_dump(mode="json")}
    (folder / "suite.yaml").write_text(yaml.safe_dump(dumped, sort_keys=False))
    for benchmark in settings.benchmarks:
        for model, method in (
            ("tiny", "likelihood"),
            ("tiny", "generation"),
            ("majority", "direct"),
            ("colours", "direct"),
        ):
            made = {"scenes": scene_rows, "affect": affect_rows, "units": unit_rows}.get(benchmark)
            rows = made(model, method, num_rows, seed) if made is not None and model in settings.models else None
            if rows is not None:
                write_rows(folder, benchmark, model, method, rows)
    return folder


def write_rows(
    folder: Path, benchmark: str, model: str, method: str, rows: list[PredictionRow], **made_with: Any
) -> None:
    """Write the rows of a model, and the record of what they were made with."""
    path = folder / "predictions" / benchmark / f"{model}.{method}.jsonl"
    write_predictions(path, rows)
    record = {
        "model": {"name": model, "weights": "ab" * 32},
        "method": method,
        "labels": list(MIKELS) if benchmark == "scenes" else None,
        "questions": "cd" * 32,
        "data": "ef" * 32,
        "versions": {"torch": "2.15.0"},
        **made_with,
    }
    path.with_suffix(".json").write_text(json.dumps({"finished": True, "made_with": record}))


def scene_rows(model: str, method: str, num_rows: int, seed: int) -> list[PredictionRow]:
    truth = np.random.default_rng(99).integers(len(MIKELS), size=num_rows)
    generator = np.random.default_rng([seed, len(model), len(method)])
    skill = {"tiny": 2.0, "majority": 0.0, "colours": 1.0}[model]
    rows = []
    for variant in (1, 2) if method != "direct" else (None,):
        for n in range(num_rows):
            scores = generator.normal(size=len(MIKELS))
            scores[truth[n]] += skill
            if model == "majority":
                scores = -np.arange(len(MIKELS), dtype=float)
            predicted = MIKELS[int(scores.argmax())]
            name = f"wording {variant}, options fixed"
            is_invalid = method == "generation" and n % 5 == 0
            rows.append(
                PredictionRow(
                    instance_id=f"emoset/{n:03d}" + (f"#{name}" if variant else ""),
                    record_id=f"emoset/{n:03d}",
                    label=MIKELS[truth[n]],
                    prediction=None if is_invalid else predicted,
                    scores=dict(zip(MIKELS, scores.round(4).tolist())) if method != "generation" else None,
                    answer=("it looks dangerous" if is_invalid else f"predict emotion: {predicted}")
                    if method == "generation"
                    else None,
                    status=("invalid" if is_invalid else "ok") if method == "generation" else None,
                    slices={"attributes.scene": ("beach", "street")[n % 2]},
                    variant=name if variant else None,
                )
            )
    return rows


def affect_rows(model: str, method: str, num_rows: int, seed: int) -> list[PredictionRow] | None:
    if method == "generation":
        return None
    truth = np.random.default_rng(7).uniform(-0.9, 0.9, size=(num_rows, 2))
    generator = np.random.default_rng([seed, len(model)])
    noise = {"tiny": 0.8, "majority": 0.0, "colours": 0.3}[model]
    predicted = np.clip(truth * (model != "majority") + noise * generator.normal(size=truth.shape), -1, 1)
    return [_number_row(f"oasis/{n}", ("valence", "arousal"), truth[n], predicted[n]) for n in range(num_rows)]


def unit_rows(model: str, method: str, num_rows: int, seed: int) -> list[PredictionRow] | None:
    if method == "generation":
        return None
    levels = np.random.default_rng(8).integers(0, 6, size=(num_rows, len(UNITS))).astype(float)
    generator = np.random.default_rng([seed, len(model)])
    is_graded = method == "direct"
    truth = levels if is_graded else (levels >= 1).astype(float)
    wrong = generator.random(truth.shape) < {"tiny": 0.2, "majority": 0.0, "colours": 0.4}[model]
    predicted = np.where(wrong, truth.max() - truth, truth) if model != "majority" else np.zeros_like(truth)
    return [_number_row(f"disfa/{n}", UNITS, truth[n], predicted[n]) for n in range(num_rows)]


def _number_row(name: str, keys: tuple[str, ...], true: np.ndarray, predicted: np.ndarray) -> PredictionRow:
    return PredictionRow(
        instance_id=name,
        record_id=name,
        label=None,
        prediction=None,
        true_values=dict(zip(keys, true.tolist())),
        values=dict(zip(keys, predicted.tolist())),
    )
