"""Thresholds fitted on held-back labels.

- The bound of an error rate is scipy's exact binomial interval; persons count, not values.
- Risk, coverage and bounds of a curve agree with values calculated by hand; the highest allowed threshold is chosen.
- With an annotator whose errors come with disagreement, the held-back error stays below the limit; without labels of
  enough persons, or with errors that all answers share, there is no threshold.
- Stopping thresholds save answers, come only from runs that have all answers, and the written file is a valid setting.
"""

from __future__ import annotations

import csv
import json
import random

import pytest
import yaml
from scipy.stats import binomtest

from lavis_emovit.emotion.facial import facial_priors
from lavis_emovit.generation.seke.annotators import Reply
from lavis_emovit.generation.seke.completion import complete
from lavis_emovit.generation.seke.levels import case_of, known_levels
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.generation.seke.thresholds import discard_curve, fit_thresholds, upper_bound, write_fitted
from lavis_emovit.records import EmotionRecord

PRIORS = facial_priors()
ALL_ANSWERS = SekeSettings(adaptive=False, n0=8, verification="off", prior=False)


def test_bound_is_the_exact_interval():
    for errors, count in ((0, 40), (3, 50), (20, 60)):
        interval = binomtest(errors, count).proportion_ci(0.9, method="exact")
        assert upper_bound(errors / count, count, 0.05) == pytest.approx(interval.high)
    assert upper_bound(1.0, 5, 0.05) == 1.0


def test_curve_by_hand():
    # 60 certain faces, all right; 20 doubtful ones, half of them wrong. Two faces of each person.
    rows = [(0.0, False, f"p{n // 2}") for n in range(60)] + [(0.5, n % 2 == 0, f"q{n // 2}") for n in range(20)]
    low, high = discard_curve("expression", rows)
    assert (low.threshold, low.error, low.coverage) == (0.0, 0.0, 0.75)
    assert low.upper == pytest.approx(1 - 0.025 ** (1 / 30))  # 30 persons, two thresholds
    assert (high.threshold, high.error, high.coverage) == (0.5, 10 / 80, 1.0)
    assert high.upper == pytest.approx(upper_bound(10 / 80, 40, 0.025))


class Noisy:
    """Half of the faces are easy; on the others, each answer is wrong with some probability."""

    name, kind, stopped, num_wordings = "noisy", "model", None, 1

    def __init__(self, wrong=0.45, *, shared=False):
        self.wrong, self.shared = wrong, shared

    def num_answers(self, case):
        return None

    def ask(self, label, questions):
        replies = []
        for question in questions:
            record = question.case.record
            is_hard = int(record.id.split("/")[1]) % 2 == 1
            seed = record.id if self.shared else f"{record.id}/{question.sample}"
            is_wrong = is_hard and random.Random(seed).random() < self.wrong
            truth = str(record.emotion)
            replies.append(Reply(json.dumps({"expression": "fear" if is_wrong else truth})))
        return replies


def run(annotator, count=400, settings=ALL_ANSWERS, **changes):
    records = [
        EmotionRecord(
            id=f"a/{n}", image="a.jpg", split="train", source="a", emotion="sadness", label_set="ekman6", **changes
        )
        for n in range(count)
    ]
    cases = [case_of(record, active_from=1.0, hide="expression") for record in records]
    outcomes = complete(cases, annotator, settings, PRIORS)
    truths = [known_levels(record, 1.0) for record in records]
    return fit_thresholds(outcomes, truths, settings, max_error=0.1)


def test_fitted_thresholds(tmp_path):
    fitted = run(Noisy())
    curve = [point for point in fitted.points if point.curve == "discard"]
    allowed = [point.threshold for point in curve if point.upper <= 0.1]
    assert fitted.too_much["expression"] == max(allowed) < max(point.threshold for point in curve)
    held = fitted.held_back["expression"]
    assert held["error_of_all"] > 0.1 > held["error"] and 0.5 < held["coverage"] < 1.0 and held["ece"] < 0.1
    stops = {point.threshold: point for point in fitted.points if point.curve == "stop"}
    chosen = stops[fitted.enough["expression"]]
    assert 4.0 <= chosen.mean_answers < 7.0 and chosen.error <= min(point.error for point in stops.values()) + 0.05
    names = write_fitted(tmp_path, fitted, ALL_ANSWERS)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    written = SekeSettings(**yaml.safe_load((tmp_path / "thresholds.yaml").read_text())["seke"])
    assert written.too_much.expression == pytest.approx(fitted.too_much["expression"], abs=1e-4)
    assert written.too_much.expression >= fitted.too_much["expression"]  # rounding discards nothing more
    assert written.too_much.valence == ALL_ANSWERS.too_much.valence and (written.n0, written.n_max) == (4, 8)
    rows = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert len(rows) == len(fitted.points) == len(json.loads((tmp_path / "curves.json").read_text())["curves"])
    assert {row["curve"] for row in rows} == {"discard", "stop"}


def test_no_threshold():
    assert not run(Noisy(0.9, shared=True)).too_much  # agreement proves nothing
    assert not run(Noisy(0.0), count=40).too_much  # no error at all, but too few faces
    assert run(Noisy(0.0), count=400).too_much == {"expression": 0.0}
    assert not run(Noisy(0.0), count=400, group="one person").too_much
    adaptive = run(Noisy(0.3), settings=SekeSettings(verification="off", prior=False))
    assert adaptive.too_much and not adaptive.enough
