"""`tools/bench/seke_levels.py`: its figures by hand and by numpy, from given answers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lavis_emovit.records import EmotionRecord

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("bench_seke_levels", BENCH / "seke_levels.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(BENCH))
    spec.loader.exec_module(module)
    sys.path.remove(str(BENCH))
    return module


def test_weighted_figures_are_those_of_repeated_values(tool):
    one, other, weights = (
        np.array([0.1, 0.5, -0.3, 0.9]),
        np.array([0.0, 0.7, -0.2, 0.4]),
        np.array([2.0, 1.0, 3.0, 0.0]),
    )
    x, y = (np.repeat(values, weights.astype(int)) for values in (one, other))
    assert tool.correlation(one, other, weights) == pytest.approx(np.corrcoef(x, y)[0, 1])
    ccc = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert tool.concordance(one, other, weights) == pytest.approx(ccc)
    assert np.isnan(tool.correlation(one, np.ones(4), weights)) and np.isnan(tool.concordance(*[np.ones(4)] * 3))


def test_units_by_hand(tool):
    """Four people: three probabilities rise with the smile, one falls; strong smiles have the higher probability."""
    moved, records, outcomes = {}, [], []
    for number, (calm, smile) in enumerate([(0.1, 0.6), (0.1, 0.7), (0.1, 0.9), (0.5, 0.4)]):
        still = dict.fromkeys(("mouth_corner_height", "eye_opening", "lip_gap"), 0.2)
        wide = {**still, "mouth_corner_height": 0.3 + 0.1 * number, "eye_opening": 0.1, "lip_gap": 0.2}
        moved[str(number)] = {"neutral": still, "happiness": wide}
        for emotion, share in (("neutral", calm), ("happiness", smile)):
            records.append(
                EmotionRecord(
                    id=f"{number}{emotion}", image="a.jpg", split="test", source="s", group=str(number),
                    emotion=emotion, label_set="expressions7",
                )
            )  # fmt: skip
            beliefs = SimpleNamespace(units={12: share, 6: share, 25: share})
            outcomes.append(SimpleNamespace(answers=[SimpleNamespace(beliefs=beliefs)]))
    found = tool.measure_units(outcomes, records, moved)
    assert found["num_people"] == 4
    assert found["AU12"]["paired"]["value"] == found["AU6"]["paired"]["value"] == 0.75
    # Ranks of the probabilities 2, 3, 4, 1 and of the movements 1, 2, 3, 4.
    assert found["AU12"]["among_smiles"]["value"] == pytest.approx(-0.2)
    # Lips that never move: a tie counts half, and there is no correlation.
    assert found["AU25"]["paired"]["value"] == 0.5 and found["AU25"]["among_smiles"] is None
    without = tool.measure_units([SimpleNamespace(answers=[]), *outcomes[1:]], records, moved)
    assert without["num_people"] == 3
