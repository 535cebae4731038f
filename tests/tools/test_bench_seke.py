"""`tools/bench/seke.py`: its figures by hand, by numpy and scikit-learn, from given answers.

Properties:
- correlation, concordance and AUROC of weighted rows are those of repeated rows; ties of the AUROC count half;
- the calibration error is that of bins counted by hand;
- units that moved are those of the photograph to which the landmarks moved, and their strength is ranked by hand;
- of a face, what is found, kept and right is counted by item, and its confidence is what the answers state.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lavis_emovit.emotion.facial_knowledge import Beliefs, Mixture
from lavis_emovit.generation.seke.levels import Levels
from lavis_emovit.generation.seke.votes import Answer
from lavis_emovit.records import EmotionRecord

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"


def load(name):
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(BENCH))
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    sys.path.remove(str(BENCH))
    return module


@pytest.fixture(scope="module")
def references():
    return load("seke_references")


@pytest.fixture(scope="module")
def tool():
    return load("seke")


def test_weighted_figures_are_those_of_repeated_values(references, tool):
    one, other, weights = (
        np.array([0.1, 0.5, -0.3, 0.9]),
        np.array([0.0, 0.7, -0.2, 0.4]),
        np.array([2.0, 1.0, 3.0, 0.0]),
    )
    x, y = (np.repeat(values, weights.astype(int)) for values in (one, other))
    two = np.stack([weights, np.ones(4)])
    pcc, ccc = (references.weighted(name, one, other, two) for name in ("pcc", "ccc"))
    assert pcc == pytest.approx([np.corrcoef(x, y)[0, 1], np.corrcoef(one, other)[0, 1]])
    expected = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert ccc[0] == pytest.approx(expected)
    assert np.isnan(references.weighted("pcc", one, np.ones(4), two)).all()
    doubts, wrong = np.array([0.2, 0.2, 0.7, 0.1, 0.7]), np.array([True, False, True, False, False])
    weights = np.array([[1.0, 1, 1, 1, 1], [2, 1, 0, 3, 1], [1, 0, 1, 0, 0]])
    areas = tool.auroc(doubts, wrong, weights)
    assert areas[0] == pytest.approx(roc_auc_score(wrong, doubts))
    assert areas[1] == pytest.approx(roc_auc_score(wrong, doubts, sample_weight=weights[1]))
    assert math.isnan(areas[2])


def test_calibration_by_hand(tool):
    # Bins of 1/15: two rows of 0.97 with one right, one of 0.5 that is right.
    confidence, is_right = np.array([0.97, 0.97, 0.5]), np.array([True, False, True])
    found = tool.expected_calibration_error(confidence, is_right, np.array([[1.0, 1, 1], [1, 1, 0]]))
    assert found == pytest.approx([(2 * 0.47 + 0.5) / 3, 0.47])


def test_units_by_hand(references):
    """Four people: strong smiles have the higher probability, but for one."""
    moved, records, outcomes = {}, [], []
    for number, smile in enumerate((0.6, 0.7, 0.9, 0.4)):
        still = dict.fromkeys(("mouth_corner_height", "eye_opening", "lip_gap"), 0.2)
        wide = {**still, "mouth_corner_height": 0.3 + 0.1 * number, "eye_opening": 0.1, "lip_gap": 0.205}
        moved[str(number)] = {"neutral": still, "happiness": wide}
        for emotion, share in (("neutral", 0.1), ("happiness", smile)):
            records.append(
                EmotionRecord(
                    id=f"{number}{emotion}", image="a.jpg", split="test", source="s", group=str(number),
                    emotion=emotion, label_set="expressions7",
                )
            )  # fmt: skip
            beliefs = SimpleNamespace(units={12: share, 6: share, 25: share})
            outcomes.append(SimpleNamespace(answers=[SimpleNamespace(beliefs=beliefs)]))
    # Lips that move by half a hundredth did not move.
    assert references.moved_units(records[1], moved) == {12: True, 25: False, 6: True}
    assert references.moved_units(records[0], moved) == {12: False, 25: False, 6: False}
    stranger = records[0].model_copy(update={"group": "9"})
    assert references.moved_units(stranger, moved) == {}
    found = references.unit_strength(outcomes, records, moved)
    # Ranks of the probabilities 2, 3, 4, 1 and of the movements 1, 2, 3, 4.
    assert found["num_people"] == 4 and found["AU12"]["value"] == pytest.approx(-0.2)
    assert found["AU25"] is None  # all moved alike
    without = references.unit_strength([*outcomes[:1], SimpleNamespace(answers=[]), *outcomes[2:]], records, moved)
    assert without["num_people"] == 3


def test_rows_by_hand(tool):
    def answer(happy, smile, valence):
        point = Mixture(((1.0, valence, 0.2),))
        beliefs = Beliefs({"happiness": happy, "neutral": 1 - happy}, point, point, {12: smile}, {})
        return Answer(Levels("happiness", valence, valence, {12: smile > 0.5}), beliefs=beliefs)

    estimate = SimpleNamespace(levels=Levels("happiness", 0.5, 0.5, {12: True}), total=lambda item: 0.2)
    outcome = SimpleNamespace(
        answers=[answer(0.9, 0.8, 0.4), answer(0.7, 0.6, 0.6)],
        estimate=estimate,
        levels=Levels("happiness", None, 0.5),  # the others were discarded
    )
    truth = Levels("neutral", 0.65, 0.9, {12: True})
    items = ("expression", "unit:12", "unit:6", "valence", "arousal")
    expression, unit, valence, arousal = tool.rows_of(outcome, 3, truth, items)  # nobody knows unit 6
    assert expression[:6] == (3, True, False, True, False, 0.2) and expression.confidence == pytest.approx(0.8)
    assert unit[:6] == (3, True, True, False, False, 0.2) and unit.confidence == pytest.approx(0.7)
    # Within 0.2, and one standard deviation from it on both sides.
    assert valence[:6] == (3, True, True, False, False, 0.2) and valence.confidence == pytest.approx(0.6827, abs=1e-4)
    assert arousal[:5] == (3, True, False, True, False) and (arousal.stated, arousal.truth) == (0.5, 0.9)
    (missing,) = tool.rows_of(SimpleNamespace(estimate=None), 1, Levels("neutral"), ("expression",))
    assert not missing.is_found and not missing.is_kept
