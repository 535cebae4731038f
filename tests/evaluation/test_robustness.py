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


def test_texts_of_personas_replace_neither_none_nor_a_file(tmp_path):
    with pytest.raises(ValueError, match="'none' is no persona"):
        BenchmarkSettings(dataset="x", persona_texts={"none": "You are a cook."}, personas=["none"])
    path = tmp_path / "some.csv"
    path.write_text("text,id\nYou are a cook.,cook\n", encoding="utf-8")
    with pytest.raises(ValueError, match="remove one of the two"):
        BenchmarkSettings(dataset="x", personas=str(path), persona_texts={"cook": "You are a nun."})


PERSONA_FILES = {
    "people.json": '[{"id": "cook", "text": "You are a cook."}, {"id": 7, "text": " You are\\na monk. "}]',
    "people.yaml": "- {id: cook, text: You are a cook.}\n- {id: 7, text: You are a monk.}\n",
    "people.csv": '\ufeffid;text\r\ncook;You are a cook.\r\n7;"You are\r\na monk."\r\n',
    "more.csv": "text,id\nYou are a cook.,cook\nYou are a monk.,7\n",
}


@pytest.mark.parametrize("name", PERSONA_FILES)
def test_personas_come_from_a_file(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(PERSONA_FILES[name].encode())
    settings = BenchmarkSettings(dataset="x", personas=str(path))
    assert settings.personas == ("none", "cook", "7")
    record = EmotionRecord(id="r", image="r.png", split="test", source="x", label_set="labels:positive, negative")
    plain, cook, monk = (
        questions_about(record, Truth(), settings, variant, "likelihood", LABELS)[0].text
        for variant in settings.variants
    )
    assert (cook, monk) == (f"You are a cook. {plain}", f"You are a monk. {plain}")
    assert [one.name for one in settings.variants][1:] == [
        "wording 1, options fixed, persona cook", "wording 1, options fixed, persona 7"
    ]  # fmt: skip
    # Written settings are complete without the file, and other texts are other settings.
    dumped = settings.model_dump(mode="json")
    path.unlink()
    assert BenchmarkSettings.model_validate(dumped) == settings
    other = {**dumped, "persona_texts": {**dumped["persona_texts"], "7": "You are a nun."}}
    assert BenchmarkSettings.model_validate(other).variants[2].opening == "You are a nun. "
    rows = _rows(settings, [["positive", "positive"], ["positive", "positive"], ["negative", "positive"]])
    found = robustness_metrics(rows, settings.variants, LABELS.labels)
    assert found.persona_shift == {"cook": 0.0, "7": 0.5}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("gone.json", None, "gone.json: the file of personas cannot be read (No such file or directory)"),
        ("a.json", "[]", "a.json: the file has no personas"),
        ("a.yaml", "", "a.yaml: the file has no personas"),
        ("a.csv", "id,text\n", "a.csv: the file has no personas"),
        ("a.json", "[{", "a.json: cannot be read"),
        ("a.yaml", "- {id: a", "a.yaml: cannot be read"),
        ("a.json", '{"cook": "You cook."}', "a.json: is no list of personas"),
        ("a.json", '["You are a cook."]', "a.json: entry 0 is no object with id and text"),
        ("a.json", '[{"id": "a", "text": "b"}, {"id": "a", "text": "c"}]', "entry 1: the id 'a' is already used"),
        ("a.json", '[{"id": "a", "id": "b", "text": "c"}]', "the key 'id' is repeated"),
        ("a.csv", "id,text\na,b\na,c\n", "line 3: the id 'a' is already used; ids must be unique"),
        ("a.csv", "id,txt\na,b\n", "line 2: unknown key 'txt' (did you mean 'text'?)"),
        ("a.csv", "id,text\na,b,c\n", "line 2: unknown key None"),
        ("a.csv", 'id,text\na,"b\n', "is no row of a table"),
        ("a.yaml", "- {id: a, text: ' '}", "entry 0: has no text (got ' ')"),
        ("a.yaml", "- {text: You are a cook.}", "entry 0: has no id (got None)"),
        ("a.yaml", "- {id: none, text: You are a cook.}", "the id 'none' must be one line, and not 'none'"),
        ("a.txt", "You are a cook.", "is no file of personas (.json, .yaml, .yml, .csv)"),
    ],
)
def test_a_file_of_personas_that_cannot_be_used(name, content, problem, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError) as caught:
        BenchmarkSettings(dataset="x", personas=str(tmp_path / name))
    assert problem in str(caught.value)
    with pytest.raises(ValueError, match=r"for the persona 'child', write a list: \[none, child\]"):
        BenchmarkSettings(dataset="x", personas="child")


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
