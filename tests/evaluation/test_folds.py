"""WAR and UAR over folds.

Properties:
- they are scikit-learn's accuracy and balanced accuracy, averaged over the folds; so are those of resamples, whose
  quantiles are the interval;
- resamples that are all equal have the exact binomial bound;
- rows of one group, also in several folds, are resampled together, which widens the interval of repeated rows;
- a record in two folds, a single fold, and a fold of errors are refused;
- a report of runs that differ in the tested fold shows each fold with its errors, and the means, and only then;
- two runs of a fold are named in place of the means, and so is a run without predictions, also if it is the first.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from report_page import page_of
from sklearn.metrics import accuracy_score, recall_score

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.folds import fold_metrics
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.report.page import write_comparison

LABELS = ("anger", "fear", "joy")


def _rows(name: str, size: int, seed: int, *, groups: int | None = None) -> list[PredictionRow]:
    draw = np.random.default_rng(seed)
    true = draw.choice(LABELS, size, p=[0.6, 0.3, 0.1])
    guess = np.where(draw.random(size) < 0.6, true, draw.choice([*LABELS, ""], size))
    return [
        PredictionRow(
            instance_id=f"{name}{n}", record_id=f"{name}{n}", label=str(true[n]), prediction=str(guess[n]) or None,
            slices=None if groups is None else {"group": f"film {n % groups}"},
        )
        for n in range(size)
    ]  # fmt: skip


def _sklearn(rows, weights=None):
    true, predicted = [row.label for row in rows], [row.prediction or "invalid" for row in rows]
    present = sorted({label for n, label in enumerate(true) if weights is None or weights[n] > 0})
    recalls = recall_score(true, predicted, labels=present, average="macro", sample_weight=weights, zero_division=0)
    return accuracy_score(true, predicted, sample_weight=weights), recalls


def test_means_and_intervals_are_those_of_scikit_learn():
    folds = {"1": _rows("a", 40, 1), "2": _rows("b", 31, 2), "3": _rows("c", 35, 3)}
    metrics = fold_metrics(folds, LABELS, num_resamples=60)
    expected = np.array([_sklearn(rows) for rows in folds.values()])
    assert [(one.war, one.uar) for one in metrics.folds.values()] == [pytest.approx(tuple(row)) for row in expected]
    assert (metrics.war, metrics.uar) == pytest.approx(tuple(expected.mean(axis=0)))
    assert metrics.num_samples == 106 and metrics.groups is None
    resampled = []
    for weights in np.concatenate(list(Resamples(106, num_resamples=60).weights())):
        parts = np.split(weights, [40, 71])
        resampled.append(np.mean([_sklearn(rows, part) for rows, part in zip(folds.values(), parts)], axis=0))
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    assert (metrics.war_interval.low, metrics.uar_interval.low) == pytest.approx(tuple(low))
    assert (metrics.war_interval.high, metrics.uar_interval.high) == pytest.approx(tuple(high))


def test_groups_are_resampled_as_a_whole():
    folds = {"1": _rows("a", 60, 1, groups=6), "2": _rows("b", 60, 2, groups=6)}
    grouped = fold_metrics(folds, LABELS, group_by="group")
    assert grouped.groups == 6
    assert grouped.war == fold_metrics(folds, LABELS).war
    # A film is all right or all wrong, so there are six observations and not 120.
    alike = {
        fold: [
            row.model_copy(update={"prediction": row.label if row.slices == {"group": "film 0"} else None})
            for row in rows
        ]
        for fold, rows in folds.items()
    }
    widths = [
        interval.high - interval.low
        for interval in (fold_metrics(alike, LABELS, group_by=by).war_interval for by in ("group", None))
    ]
    assert widths[0] > 2 * widths[1]


def test_no_mistake_in_few_rows_is_no_certainty():
    folds = {name: [row.model_copy(update={"prediction": row.label}) for row in _rows(name, 10, 1)] for name in "ab"}
    metrics = fold_metrics(folds, LABELS)
    # Clopper and Pearson: with 20 of 20 right, the lower end is 0.025 ** (1 / 20).
    assert metrics.war == 1.0 and metrics.war_interval.high == 1.0
    assert metrics.war_interval.low == pytest.approx(0.025 ** (1 / 20))


def test_folds_that_cannot_be_compared_are_refused():
    rows = _rows("a", 20, 1)
    with pytest.raises(DataError, match="at least two folds, got 1"):
        fold_metrics({"1": rows}, LABELS)
    with pytest.raises(DataError, match="record 'a0' is tested in the folds 1 and 2"):
        fold_metrics({"1": rows, "2": rows}, LABELS)
    failed = [row.model_copy(update={"prediction": None, "error": "broken"}) for row in _rows("b", 3, 2)]
    with pytest.raises(DataError, match="all 3 rows are errors"):
        fold_metrics({"1": rows, "2": failed}, LABELS)


def _runs_of_folds(make_run, folds):
    """A run for each of the folds; the records of each are its own."""
    small = {"num_rows": 30, "num_images": 0, "with_scores": False, "validate": False}
    runs = [make_run(f"run-{number}", seed=number, num_epochs=2, **small) for number in range(1, len(folds) + 1)]
    for run, fold in zip(runs, folds):
        config = yaml.safe_load((run / "config.yaml").read_text())
        for dataset in config["datasets"].values():
            dataset.setdefault("build_info", {}).setdefault("prepare", {})["test_fold"] = fold
        config["run"]["output_dir"] = f"out/{run.name}"
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        path = run / "predictions" / "test-after.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["instance_id"] = row["record_id"] = f"{fold}/{row['record_id']}"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return runs


def test_a_report_shows_the_folds(make_run, tmp_path):
    runs = _runs_of_folds(make_run, (1, 2))
    expected = []
    for fold, run in enumerate(runs, start=1):
        path = run / "predictions" / "test-after.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows[:fold]:
            row |= {"prediction": None, "error": "broken"}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        expected.append(_sklearn([PredictionRow.model_validate(row) for row in rows[fold:]]))
    text = page_of(write_comparison(runs, tmp_path / "all.html")).text
    assert "Over folds" in text
    for fold, (war, uar) in enumerate(expected, start=1):
        assert f"Fold {fold} {30 - fold} {fold} {100 * war:.1f} % {100 * uar:.1f} %" in text
    war, uar = np.mean(expected, axis=0)
    assert f"Mean 57 3 {100 * war:.1f} %" in text and f"{100 * uar:.1f} %" in text
    assert "Over folds" not in page_of(write_comparison([runs[0], runs[0]], tmp_path / "two.html")).text


def test_a_fold_with_two_runs_or_without_predictions_is_named(make_run, tmp_path):
    first, again, second = _runs_of_folds(make_run, (1, 1, 2))
    text = page_of(write_comparison([first, again, second], tmp_path / "twice.html")).text
    assert "test over folds: fold 1 has 2 runs (run-1, run-2); report only one run of each fold" in text
    assert "Over folds" not in text
    for path in (first / "predictions").iterdir():
        path.unlink()
    text = page_of(write_comparison([first, second], tmp_path / "none.html")).text
    assert "test over folds: fold 1 (run-1) has no predictions; evaluate this run, too" in text
