"""Robustness to the question, counted by hand.

- Flips, order bias, persona shift, refusals and the spread of accuracies are what a plain count gives; questions that
  failed in one variant are left out of all, and counted.
- Personas and modes are in the question and in the name of the variant; unknown ones are refused; a mode that needs a
  written answer is not scored.
"""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.metrics.robustness import robustness_metrics
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.questions import questions_about
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import parse_settings

LABELS = get_label_set("labels:positive, negative")


def _rows(settings, predictions, **values):
    """One row for each variant and question; `predictions` are lists in the order of the variants."""
    return [
        PredictionRow(
            instance_id=f"r{n}#{variant.name}", record_id=f"r{n}", label="positive", prediction=said,
            variant=variant.name, status="refused" if said is None else "ok", **values,
        )
        for variant, of_variant in zip(settings.variants, predictions, strict=True)
        for n, said in enumerate(of_variant)
    ]  # fmt: skip


def test_flips_and_bias_are_counted():
    settings = BenchmarkSettings(dataset="x", option_orders=("fixed", "reversed"), personas=("none", "optimist"))
    names = [variant.name for variant in settings.variants]
    assert names == [
        "wording 1, options fixed", "wording 1, options fixed, persona optimist",
        "wording 1, options reversed", "wording 1, options reversed, persona optimist",
    ]  # fmt: skip
    p, n = "positive", "negative"
    predictions = [[p, p, n, n], [p, p, p, p], [n, p, n, None], [p, p, p, None]]
    found = robustness_metrics(_rows(settings, predictions), settings.variants, ("positive", "negative"))
    assert (found.num_questions, found.num_left_out) == (4, 0)
    accuracies = [0.5, 1.0, 0.25, 0.75]
    assert [one.accuracy for one in found.variants.values()] == accuracies and found.accuracy_min == 0.25
    assert found.accuracy_mean == pytest.approx(0.625) and found.accuracy_std == pytest.approx(0.2795, abs=1e-4)
    # Pairs of variants that disagree on each question, of six.
    assert found.flip_rate == pytest.approx((3 + 0 + 4 + 5) / 24)
    # Order alone: variants 0 and 2 differ on questions 0 and 3, variants 1 and 3 on question 3.
    assert found.flips == {"order": pytest.approx((2 + 1) / 8), "persona": pytest.approx((2 + 2) / 8)}
    # First listed: positive in the fixed order, negative in the reversed one.
    assert found.order_bias == pytest.approx((2 + 4 + 2 + 0) / 16 - 0.5)
    # Distributions (positive, negative, unread): fixed 2-2-0 and 4-0-0, reversed 1-2-1 and 3-0-1.
    assert found.persona_shift == {"optimist": pytest.approx((0.5 + 0.5) / 2)}
    assert found.refused == pytest.approx(2 / 16)
    assert found.flip_rate_interval.low <= found.flip_rate <= found.flip_rate_interval.high


def test_a_question_that_failed_once_is_left_out_of_all():
    settings = BenchmarkSettings(dataset="x", wordings=(1, 2))
    rows = _rows(settings, [["positive", "positive"], ["positive", "negative"]])
    failed = rows[3].model_copy(update={"prediction": None, "status": None, "error": "damaged"})
    found = robustness_metrics([*rows[:3], failed], settings.variants, LABELS.labels)
    assert (found.num_questions, found.num_left_out, found.flip_rate) == (1, 1, 0.0)
    assert robustness_metrics(rows[:2], settings.variants, LABELS.labels) is None


def test_personas_and_modes_are_in_the_question():
    values = {"personas": ["none", "child", "You are a sailor."], "modes": ["direct", "caption", "context"]}
    settings = BenchmarkSettings(dataset="x", **values)
    record = EmotionRecord(id="r", image="r.png", split="test", source="x", label_set="labels:positive, negative")
    texts = {}
    for variant in settings.variants:
        (asked,) = questions_about(record, Truth(), settings, variant, "generation", LABELS)
        texts[variant.name] = asked
    plain = texts["wording 1, options fixed"]
    assert texts["wording 1, options fixed, persona child"].text == f"You are a child of eight years. {plain.text}"
    sailor = texts["wording 1, options fixed, persona You are a sailor., caption first"]
    assert sailor.text.startswith("You are a sailor. First describe") and sailor.text.endswith(plain.text)
    assert sailor.max_new_tokens > plain.max_new_tokens == 32
    assert not settings.supports("likelihood") and settings.supports("generation")
    assert BenchmarkSettings(dataset="x", personas=["child"]).supports("likelihood")
    # Settings without these keys are written as before.
    assert not {"personas", "modes", "confidence", "axes", "wheels"} & set(BenchmarkSettings(dataset="x").model_dump())


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"personas": ["optimst"]}, "there is no persona 'optimst' (did you mean 'optimist'?)"),
        ({"modes": ["dance"]}, "modes"),
        ({"kind": "caption", "modes": ["caption"]}, "modes belongs to kind"),
        ({"personas": ["child", "child"]}, "names the same choice twice"),
    ],
)
def test_unknown_ones_are_refused(values, problem):
    settings, problems = parse_settings(BenchmarkSettings, {"dataset": "x", **values}, "b")
    assert settings is None and problem in "; ".join(problems)
