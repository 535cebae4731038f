"""The photographs of the London Faces as records, and figures with intervals that resample people."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bench_result import ROOT
from sklearn.metrics import roc_auc_score

from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.metrics.results import Interval
from lavis_emovit.records import EmotionRecord

DATA = "Face Research Lab London Set, 102 people, neutral and smiling, 256 x 256 px"
FOLDER = Path(os.environ.get("EMOVIT_SHARED", ROOT.parent / "shared")) / "data" / "london_faces"
LABELS = {"happy": "happiness", "neutral": "neutral"}


def read_arguments(doc: str | None, result: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """`out`, by default the file of a result, and `work`, the folder of the teachers' answers."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / f"{result}.json")
    parser.add_argument(
        "--work", type=Path, default=Path("output/teachers"), help="folder of the answers, for resuming"
    )
    return parser.parse_args(argv)


def london_faces() -> list[EmotionRecord]:
    """A record for each photograph, with its expression and person; image paths are relative to `FOLDER`."""
    with (FOLDER / "labels.csv").open(encoding="utf-8") as file:
        return [
            EmotionRecord(
                id=row["image"],
                image=row["image"],
                split="test",
                source="london_faces",
                group=row["identity"],
                emotion=LABELS[row["emotion"]],
                label_set="expressions7",
            )
            for row in csv.DictReader(file)
        ]


def person_numbers(records: list[EmotionRecord]) -> np.ndarray:
    """Number of each record's person, from 0."""
    return np.unique([record.group for record in records], return_inverse=True)[1]


def share(is_N: np.ndarray, resamples: Resamples) -> dict[str, float]:
    """Share of the rows that are true."""
    return rounded(float(is_N.mean()), resamples.mean_interval(is_N.astype(float)))


def share_of(is_N: np.ndarray, among_N: np.ndarray, resamples: Resamples) -> dict[str, float] | None:
    """Share of the rows that are true among some of the rows; None without any of these."""
    if not among_N.any():
        return None
    sums_R2 = resamples.sums(np.column_stack([is_N & among_N, among_N]).astype(float))
    defined_R = sums_R2[:, 1] > 0
    point = float(is_N[among_N].mean())
    return rounded(point, resamples.share_interval(sums_R2[defined_R, 0] / sums_R2[defined_R, 1], point))


def auroc(values_N: np.ndarray, is_N: np.ndarray, found_N: np.ndarray, resamples: Resamples) -> dict[str, float]:
    """Area under the curve of `is_N` (errors, smiles) ranked by values, of the found faces."""

    def area(weights_N: np.ndarray) -> float:
        return float(roc_auc_score(is_N[found_N], values_N[found_N], sample_weight=weights_N[found_N]))

    point = area(np.ones(len(values_N)))
    values_R = resamples.per_resample(lambda weights: np.array([area(one) for one in weights]))
    return rounded(point, resamples.share_interval(values_R, point))


def rounded(value: float, interval: Interval) -> dict[str, float]:
    return {"value": round(value, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}
