"""Tables that are estimated from labelled records.

- Shares, means and standard deviations agree with numpy and with values calculated by hand; counts are kept by source.
- What no record has stays as in the base tables, with its citation; generated levels never count, and values of
  programs only on request.
- Estimates approach the truth of simulated faces; SEKE completes levels with the fitted file.
- A smile with a very low valence is a contradiction.
"""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from lavis_emovit.cli.main import main
from lavis_emovit.emotion.facial import FACIAL_UNITS, facial_priors
from lavis_emovit.errors import DataError
from lavis_emovit.generation.seke.fitting import count_faces, fit_priors, smoothed_moments
from lavis_emovit.generation.seke.levels import Levels
from lavis_emovit.generation.seke.rules import contradictions
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.records import EmotionRecord, write_records

PRIORS = facial_priors()


def record(number, *, source="a", **values):
    return EmotionRecord(id=f"{source}/{number}", image=f"{number}.jpg", split="train", source=source, **values)


def happy(number, units, **values):
    return record(number, emotion="happy", label_set="neutral_happy2", action_units=units, **values)


def test_hand_calculated():
    faces = [
        happy(0, {12: 4.0, 6: 0.0}, valence=0.8, arousal=0.2),
        happy(1, {12: 2.0, 6: 3.0}, valence=0.4, arousal=0.0),
        happy(2, {12: 0.5}, source="b"),
        record(3, source="c", action_units={6: 2.0, 12: 3.0}),
        record(4, source="c", action_units={6: 0.0, 12: 0.0}, emotion="other", label_set="aff_wild8"),
        record(5, source="c"),
    ]
    counts = count_faces(faces, PRIORS)
    fitted = fit_priors(counts, PRIORS, smoothing=5)
    assert counts.faces == {"a": 2, "b": 1, "c": 2}
    assert counts.skipped == {"expression 'other' is not in the tables": 1, "faces without a level by people": 1}
    table = fitted.expressions["happiness"]
    # Smoothed by 5 faces: 12 is active in 2 of 3 faces, and in 0.85 of the published ones.
    assert table.units[12].probability == pytest.approx((2 + 5 * 0.85) / 8)
    assert table.units[12].counts == {"a": (2, 2), "b": (0, 1)} and table.units[12].source == "fitted"
    assert table.units[6].probability == pytest.approx((1 + 5 * 0.51) / 7)
    assert table.units[25].source == "du2014" and table.units[25].probability == 0.85
    assert table.share == pytest.approx((3 + 5 / 8) / 8) and table.counts == {"a": 2, "b": 1}
    assert fitted.expressions["fear"].share == pytest.approx((0 + 5 / 8) / 8)
    # Intensities of active units: 4 and 2 in happy faces, smoothed by 5 faces of the same two.
    assert table.units[12].intensity == pytest.approx(3.0) and table.units[12].intensity_sd == pytest.approx(1.0)
    # Means 0.6 and 0.1 of two faces, and 5 faces with the mean of the base region.
    assert table.affect.valence[0] == pytest.approx((2 * 0.6 + 5 * 0.55) / 7)
    assert table.affect.counts == {"a": 2}
    assert fitted.expressions["fear"].affect is None
    assert fitted.expressions["fear"].region == PRIORS.expressions["fear"].region
    (pair,) = fitted.pairs
    assert (pair.units, pair.both, pair.first_only, pair.second_only, pair.neither) == ((6, 12), 2, 0, 1, 1)
    assert "a (2 faces), b (1 faces), c (2 faces)" in fitted.sources["fitted"]
    assert {**fitted.sources, "fitted": ""} == {**PRIORS.sources, "fitted": ""}
    with pytest.raises(DataError, match="themselves estimated"):
        fit_priors(counts, fitted)
    with pytest.raises(DataError, match="no record has an expression"):
        count_faces(faces[-1:], PRIORS)


def test_smoothed_moments():
    values = [0.9, 0.4, -0.2]
    # Four faces with the mean 0.1 and the standard deviation 0.3.
    together = np.array([*values, 0.4, 0.4, -0.2, -0.2])
    mean, sd = smoothed_moments(values, (0.1, 0.3), 4)
    assert (mean, sd) == pytest.approx((together.mean(), together.std()))
    assert smoothed_moments([], (0.1, 0.3), 4) == (0.1, 0.3)


def test_values_that_people_did_not_give():
    imported = happy(0, {12: 0.9}, extra={"units_by": "py_feat", "occurrence_only": "12"})
    generated = happy(1, {12: 1.0}, extra={"seke_given": "unit:12", "seke_units_by": "chat:x"})
    faces = [imported, generated]
    assert count_faces(faces, PRIORS).units == {}
    assert count_faces(faces, PRIORS, programs=True).units == {("happiness", 12, "a"): [True]}
    # A probability is no intensity.
    assert count_faces(faces, PRIORS, programs=True).intensities == {}


def test_estimates_approach_the_truth():
    rng = random.Random(3)
    faces = []
    for number in range(1500):
        name = ("anger", "happiness")[number % 2]
        rates = {4: 0.9, 12: 0.02} if name == "anger" else {4: 0.1, 12: 0.95}
        units = {unit: 5.0 * (rng.random() < rates.get(unit, 0.2)) for unit in FACIAL_UNITS}
        point = {"valence": max(-1, min(1, rng.gauss(-0.5 if name == "anger" else 0.5, 0.2))), "arousal": 0.3}
        faces.append(record(number, emotion=name, label_set="ekman6", action_units=units, **point))
    fitted = fit_priors(count_faces(faces, PRIORS), PRIORS)
    for name, unit, rate in (("anger", 4, 0.9), ("anger", 12, 0.02), ("happiness", 12, 0.95), ("happiness", 7, 0.2)):
        assert fitted.expressions[name].probability(unit) == pytest.approx(rate, abs=0.05)
    assert fitted.expressions["anger"].axis("valence") == pytest.approx((-0.5, 0.2), abs=0.03)
    assert fitted.region("anger").distance(-0.5, 0.3) == 0 and fitted.region("anger").distance(0.5, 0.3) > 0.5
    assert {"units": (4,), "source": "fitted"} in [item.model_dump() for item in fitted.expressions["anger"].prototypes]


def test_a_smile_with_a_very_low_valence_is_a_contradiction():
    units = {unit: unit in (6, 12) for unit in FACIAL_UNITS}
    settings = SekeSettings()

    def rules(valence, known=None):
        generated = Levels(valence=valence, arousal=0.3)
        return [item.rule for item in contradictions(known or Levels(units=units), generated, PRIORS, settings)]

    assert rules(-0.9) == ["units_and_affect"] and rules(0.6) == []
    assert rules(-0.9, Levels(units={6: True, 12: True})) == ["units_and_affect"]
    assert rules(-0.9, Levels(units={unit: unit in (4, 7, 24) for unit in FACIAL_UNITS})) == []
    # Both by people: nothing that this step gave contradicts anything.
    assert contradictions(Levels(valence=-0.9, arousal=0.3, units=units), Levels(), PRIORS, settings) == []


def test_the_commands(tmp_path, capsys):
    faces = [happy(n, {12: 3.0, 6: 0.0, 25: 0.0}, valence=0.7, arousal=0.6) for n in range(60)]
    smile = record(99, action_units={unit: 3.0 * (unit in (6, 12)) for unit in FACIAL_UNITS}, valence=-0.9, arousal=0.3)
    write_records(tmp_path / "r.jsonl", faces)
    write_records(tmp_path / "s.jsonl", [*faces[:2], smile])
    out = tmp_path / "tables" / "fitted.json"
    assert main(["facial", "fit", str(tmp_path / "r.jsonl"), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "a: 60 faces: expression 60, affect 60, units 60" in shown and "fear: no face, stays as in the base" in shown
    fitted = facial_priors(out)
    assert fitted.expressions["happiness"].probability(6) == pytest.approx(5 * 0.51 / 65)
    assert fitted == fit_priors(count_faces(faces, PRIORS), PRIORS)

    # SEKE completes a happy face by the fitted tables.
    write_records(tmp_path / "n.jsonl", [record(0, emotion="happiness", label_set="ekman6")])
    seke = ["generate", "seke", str(tmp_path / "n.jsonl"), "--images", str(tmp_path), "--priors", str(out)]
    assert main([*seke, "--out", str(tmp_path / "completed")]) == 0
    completed = json.loads((tmp_path / "completed" / "records.jsonl").read_text())
    assert completed["action_units"]["12"] == 1.0 and completed["action_units"]["25"] == 0.0
    assert completed["arousal"] == pytest.approx((60 * 0.6 + 5 * 0.35) / 65, abs=1e-4)
    capsys.readouterr()

    assert main(["facial", "check", str(tmp_path / "s.jsonl"), "--out", str(tmp_path / "found.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "a/99: valence -0.90 is implausible with the active units (6+12)" in shown
    assert "3 of 3 faces have several levels, and 1 of them contradict the tables" in shown
    assert json.loads((tmp_path / "found.jsonl").read_text())["rule"] == "units_and_affect"

    infer = ["facial", "infer", "--units", "6:3,AU12:4", "--valence=-0.9", "--arousal", "0.3"]
    assert main([*infer, "--priors", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "contradiction: valence -0.90 is implausible" in shown and "AU4 brow lowerer" in shown
    for bad, message in (
        (["facial", "infer"], "name at least one level"),
        (["facial", "infer", "--units", "12:9"], "an intensity from 0 to 5"),
        (["facial", "infer", "--units", "smile"], "'smile' is not a unit"),
        (["facial", "infer", "--expression", "hapy"], "did you mean 'happiness'"),
        (["facial", "fit", str(tmp_path / "r.jsonl"), "--out", str(out)], "already exists"),
        (["facial", "fit", str(tmp_path / "r.jsonl"), "--out", str(tmp_path / "r.jsonl")], "is an input file"),
        (["facial", "fit", str(tmp_path / "r.jsonl"), "--out", str(tmp_path / "s.jsonl"), "--overwrite"], "s.jsonl"),
    ):
        assert main(bad) == 2
        assert message in capsys.readouterr().err
