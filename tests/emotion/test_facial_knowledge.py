"""Conclusions from known levels of a face.

- Any level informs the other two, also a single one; the packaged tables give what their sources state.
- Probabilities of expressions are those of naive Bayes in scikit-learn, plausibilities those of scipy's distributions.
- Pairs change a unit only by what the expressions do not explain, and without counts not at all.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.naive_bayes import BernoulliNB, GaussianNB

from lavis_emovit.emotion import facial
from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors, facial_priors
from lavis_emovit.emotion.facial_knowledge import Evidence, infer, own_association

PRIORS = facial_priors()
# Du, Tao and Martinez 2014, table 1: units of fewer than 70 % of the people, with their share in percent.
PUBLISHED = {
    "happiness": {6: 51}, "sadness": {1: 60, 6: 50, 11: 26, 17: 67}, "fear": {2: 57, 5: 63, 26: 33},
    "anger": {10: 26, 17: 52, 23: 29}, "surprise": {5: 66}, "disgust": {4: 31, 24: 26},
}  # fmt: skip
CONSISTENT = {
    "happiness": {12, 25}, "sadness": {4, 15}, "fear": {1, 4, 20, 25}, "anger": {4, 7, 24}, "surprise": {1, 2, 25, 26},
    "disgust": {9, 10, 17},
}  # fmt: skip


def coded(*active):
    return {unit: unit in active for unit in FACIAL_UNITS}


def test_the_packaged_probabilities_are_the_published_ones():
    for name, shares in PUBLISHED.items():
        table = PRIORS.expressions[name].units
        assert {unit: round(100 * one.probability) for unit, one in table.items() if one.probability < 0.7} == shares
        assert {unit for unit, one in table.items() if one.probability > 0.7} == CONSISTENT[name]
        assert {one.source for one in table.values()} == {"du2014"}


def test_any_level_informs_the_other_two():
    smile = infer(PRIORS, Evidence(units=coded(6, 12, 25)))
    assert smile.likeliest()[0][0] == "happiness" and smile.valence.mean > 0.4 and not smile.units
    happy = infer(PRIORS, Evidence(expression="happiness"))
    assert happy.valence.mean == pytest.approx(0.55) and happy.units[12] == pytest.approx(0.85)
    low = infer(PRIORS, Evidence(valence=-0.7, arousal=-0.6))
    assert low.likeliest()[0][0] == "sadness" and low.units[15] > 0.5 > low.units[12]
    # Valence alone, and a single unit.
    assert infer(PRIORS, Evidence(valence=0.8)).units[12] > 0.6
    assert infer(PRIORS, Evidence(units={12: True})).units[6] > infer(PRIORS, Evidence(units={12: False})).units[6]
    nothing = infer(PRIORS, Evidence())
    assert set(nothing.expressions.values()) == {1 / 8} and not Evidence()


def test_probabilities_of_expressions_are_those_of_naive_bayes():
    names = list(PRIORS.expressions)
    tables = [PRIORS.expressions[name] for name in names]
    bernoulli, gaussian = BernoulliNB(), GaussianNB()
    bernoulli.fit(np.eye(8, len(FACIAL_UNITS)), range(8))
    bernoulli.feature_log_prob_ = np.log([[table.probability(unit) for unit in FACIAL_UNITS] for table in tables])
    bernoulli.class_log_prior_ = np.full(8, math.log(1 / 8))
    gaussian.fit(np.random.default_rng(0).normal(size=(16, 2)), [*range(8), *range(8)])
    gaussian.theta_ = np.array([[table.axis(axis)[0] for axis in ("valence", "arousal")] for table in tables])
    gaussian.var_ = np.array([[table.axis(axis)[1] ** 2 for axis in ("valence", "arousal")] for table in tables])
    for active in ((), (6, 12), (1, 2, 5, 26), (4, 9, 24)):
        row = [[unit in active for unit in FACIAL_UNITS]]
        found = infer(PRIORS, Evidence(units=coded(*active))).expressions
        assert [found[name] for name in names] == pytest.approx(bernoulli.predict_proba(row)[0], rel=1e-9)
        for point in ((0.5, 0.2), (-0.9, 0.8)):
            both = bernoulli.predict_log_proba(row) + gaussian.predict_log_proba([point])
            expected = np.exp(both - np.logaddexp.reduce(both, axis=1))[0]
            found = infer(PRIORS, Evidence(valence=point[0], arousal=point[1], units=coded(*active))).expressions
            assert [found[name] for name in names] == pytest.approx(expected, rel=1e-9)


def test_plausibility_of_a_value():
    beliefs = infer(PRIORS, Evidence(units=coded(6, 12)))
    means, sds = zip(*(PRIORS.expressions[name].axis("valence") for name in beliefs.expressions))
    weights = list(beliefs.expressions.values())
    for value in (-0.9, 0.0, 0.55, 1.0):
        below = np.average(norm.cdf(value, means, sds), weights=weights)
        assert beliefs.valence.plausibility(value) == pytest.approx(2 * min(below, 1 - below), rel=1e-6)
    draws = np.random.default_rng(1).choice(8, size=200_000, p=np.array(weights) / sum(weights))
    values = np.random.default_rng(2).normal(np.array(means)[draws], np.array(sds)[draws])
    assert beliefs.valence.mean == pytest.approx(values.mean(), abs=0.01)
    assert beliefs.valence.sd == pytest.approx(values.std(), abs=0.01)


def changed(**changes):
    content = json.loads(facial._PACKAGED.read_text())
    return FacialPriors.model_validate(content | changes)


def test_pairs_that_the_expressions_do_not_explain():
    # With one expression, units are independent: the odds ratio of the smoothed counts is the whole association.
    region = {"valence": [-1, 1], "arousal": [-1, 1], "source": "rest"}
    stated = {str(unit): {"probability": 0.5, "source": "rest"} for unit in (1, 2, 4)}
    only = {"neutral": {"prototypes": [{"units": [], "source": "rest"}], "region": region, "units": stated}}
    counts = {"units": [1, 2], "both": 38, "first_only": 3, "second_only": 3, "neither": 38}
    priors = changed(expressions=only, pairs=[counts], smoothing=8.0)
    association = math.log(40 * 40 / (5 * 5))  # 8 faces spread evenly over four cells
    assert own_association(priors, priors.pairs[0]) == pytest.approx(association)
    seen, unseen = (infer(priors, Evidence(units={1: active})).units for active in (True, False))
    assert seen[2] == pytest.approx(1 / (1 + math.exp(-association / 2)))
    assert unseen[2] == pytest.approx(1 - seen[2])
    assert seen[4] == unseen[4] == 0.5
    # Counts that follow the expressions, and no counts, change nothing.
    empty = changed(pairs=[{"units": [6, 12], "both": 0, "first_only": 0, "second_only": 0, "neither": 0}])
    assert infer(empty, Evidence(units={12: True})).units == pytest.approx(
        infer(PRIORS, Evidence(units={12: True})).units
    )


def test_intensities():
    content = json.loads(facial._PACKAGED.read_text())["expressions"]
    content["happiness"]["units"]["12"] |= {"intensity": 3.5, "intensity_sd": 0.5}
    content["contempt"]["units"] = {
        "12": {"probability": 0.85, "source": "rest", "intensity": 1.5, "intensity_sd": 0.5}
    }
    priors = changed(expressions=content)
    units = dict.fromkeys((12,), True)
    strong, weak = (infer(priors, Evidence(units=units, intensities={12: value})).expressions for value in (3.5, 1.5))
    # Four standard deviations apart: the ratio of the two densities is exp(16 / 2) each way.
    assert strong["happiness"] / strong["contempt"] == pytest.approx(math.exp(8))
    assert weak["happiness"] / weak["contempt"] == pytest.approx(math.exp(-8))
    expected = infer(priors, Evidence(expression="happiness")).intensities
    assert expected == {12: 3.5}
    mixed = infer(priors, Evidence(), classes=("happiness", "contempt")).intensities[12]
    assert mixed == pytest.approx(2.5)
