"""What linear models read from the image encoder of emovit_small, by depth: faces, sentiment, valence and arousal.

    python tools/bench/small_probe.py      # about two minutes; needs ../shared/data or EMOVIT_SHARED

A cell of the encoder's grid has features of three depths; here their mean and their largest value over the cells are
read. London Faces: logistic regression, five folds by person. OASIS: the split of labels.csv, whose test themes are not
in training; ridge regression for valence and arousal, logistic regression with balanced classes for sentiment. The
strength of regularisation is chosen on the training data alone.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import recall_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

STRENGTHS = np.logspace(-4, 0, 9)
PENALTIES = np.logspace(1, 6, 16)
FOLDS = 5


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "small_probe.json")
    arguments = parser.parse_args(argv)
    data = Path(os.environ.get("EMOVIT_SHARED", ROOT.parent / "shared")) / "data"
    faces, oasis = (read(data / name) for name in ("london_faces", "oasis"))
    result = {
        "benchmark": "small_probe",
        "london_faces": {depth: smiles(found, faces[1]) for depth, found in faces[0].items()},
        "oasis": {depth: affect(found, oasis[1]) for depth, found in oasis[0].items()},
        "num_images": {"london_faces": len(faces[1]), "oasis": len(oasis[1])},
        "command": "python tools/bench/small_probe.py",
        **environment_info("lavis_emovit/models/small", "tools/bench/small_probe.py"),
    }
    write_result(arguments.out, result)
    for name in ("london_faces", "oasis"):
        for depth, numbers in result[name].items():
            print(name, depth, {key: round(value, 3) for key, value in numbers.items()})
    return 0


def read(folder: Path) -> tuple[dict[str, np.ndarray], list[dict[str, str]]]:
    """Features by depth, and the rows of labels.csv."""
    from lavis_emovit.models.small import vision
    from lavis_emovit.models.small.model import EmoVITSmall

    model = EmoVITSmall.from_config({"arch": "emovit_small", "num_query_token": 16}).eval()
    processor, _ = model.processors()
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    grids = []
    with torch.no_grad():
        for first in range(0, len(rows), 16):
            images = [processor(Image.open(folder / row["image"])) for row in rows[first : first + 16]]
            grid, _ = model.core.vision_model.encoder(torch.stack(images))
            grids.append(torch.cat([grid.mean(dim=1), grid.amax(dim=1)], dim=1).numpy())
    found = np.concatenate(grids)
    ends = np.cumsum([vision.HEAD_WIDTH, 4 * vision.STAGES[vision.FINE_STAGE].width])
    mean_and_largest = np.split(found, 2, axis=1)
    depths = [
        np.concatenate(pair, axis=1) for pair in zip(*(np.split(half, ends, axis=1) for half in mean_and_largest))
    ]
    named = dict(zip(("last layer", "fine stage", "coarse stage"), depths))
    named["both stages"] = np.concatenate(depths[1:], axis=1)
    return {**named, "all": found}, rows


def smiles(found: np.ndarray, rows: list[dict[str, str]]) -> dict[str, float]:
    """Accuracy over five folds by person; chance is 0.5."""
    truth, people = np.array([row["emotion"] for row in rows]), np.array([row["identity"] for row in rows])
    model = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=STRENGTHS, cv=FOLDS, max_iter=2000))
    predicted = cross_val_predict(model, found, truth, groups=people, cv=GroupKFold(FOLDS))
    return {"accuracy": float((predicted == truth).mean())}


def affect(found: np.ndarray, rows: list[dict[str, str]]) -> dict[str, float]:
    """Correlation and concordance of valence and arousal, and macro recall of three sentiments, on the test split."""
    from lavis_emovit.evaluation.metrics.dimensional import agreement_features, agreements

    is_test = np.array([row["split"] == "test" for row in rows])
    scaled = StandardScaler().fit(found[~is_test]).transform(found)
    numbers: dict[str, float] = {}
    for axis in ("valence", "arousal"):
        truth = np.array([float(row[f"{axis}_norm"]) for row in rows])
        predicted = RidgeCV(PENALTIES).fit(scaled[~is_test], truth[~is_test]).predict(scaled[is_test])
        sums = agreement_features(truth[is_test], predicted).sum(axis=0)
        numbers |= {f"{axis}_{name}": float(agreements(sums[None])[name][0]) for name in ("pcc", "ccc")}
    sentiment = np.array([row["sentiment3"] for row in rows])
    model: Any = LogisticRegressionCV(
        Cs=STRENGTHS, cv=FOLDS, class_weight="balanced", scoring="balanced_accuracy", max_iter=2000
    )
    predicted = model.fit(scaled[~is_test], sentiment[~is_test]).predict(scaled[is_test])
    return {**numbers, "sentiment_macro_recall": float(recall_score(sentiment[is_test], predicted, average="macro"))}


if __name__ == "__main__":
    raise SystemExit(main())
