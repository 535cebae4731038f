"""Answers beside reference answers.

- ROUGE-L equals hand calculations; it is symmetric, ignores case and punctuation, and is 0 for an empty answer.
- The blind number is the overlap of the references of two images, to the same question where there is one.
- Loss, perplexity and overlap are means over the rows that have them; errors are counted, not measured.
- The token loss of a row is the training loss of the model on the reference, without its end token.
- The question of a record is drawn by its id among those of the kind; records without one are skipped.
- The comparison of two models is paired, and a benchmark needs `instruction` exactly with this kind.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lavis.models import load_model
from PIL import Image
from pydantic import ValidationError

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.adapters.lavis_model import LavisModel
from lavis_emovit.evaluation.benchmarks import RunBenchmarkSettings
from lavis_emovit.evaluation.metrics.instruction_answers import (
    compare_instruction_answers,
    instruction_answer_metrics,
    rouge_l,
)
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.questions import questions_about
from lavis_emovit.evaluation.suite.requests import Prepared, request_rows
from lavis_emovit.evaluation.truths import truth_of
from lavis_emovit.images import jpeg_of
from lavis_emovit.records import EmotionRecord, Instruction

REASONING = RunBenchmarkSettings(dataset="any", kind="instruction", instruction="reasoning")


def _row(name, **values):
    return PredictionRow(
        instance_id=name, record_id=name, label=None, prediction=None, **{"reference": "a b c d", **values}
    )


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("The police killed the gunman", "police kill the gunman", 2 * 3 / 9),  # police, the, gunman
        ("the cat is on the mat", "The cat sat on a mat.", 2 * 4 / 12),  # the, cat, on, mat
        ("b a", "a b", 2 * 1 / 4),
        ("Don't go!", "don't go", 1.0),
        ("", "a b", 0.0),
        ("?!", "a b", 0.0),
    ],
)
def test_rouge_l_by_hand(answer, reference, score):
    assert rouge_l(answer, reference) == pytest.approx(score)
    assert rouge_l(reference, answer) == pytest.approx(score)


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_rouge_l_is_the_longest_common_subsequence(first, second):
    def longest(one, two):
        if not one or not two:
            return 0
        if one[0] == two[0]:
            return 1 + longest(one[1:], two[1:])
        return max(longest(one[1:], two), longest(one, two[1:]))

    total = len(first) + len(second)
    wanted = 2 * longest(first, second) / total if first and second else 0.0
    assert rouge_l(" ".join(first), " ".join(second)) == pytest.approx(wanted)


def test_means_are_over_the_rows_that_have_a_value():
    rows = [
        _row("1", answer="a b c d", values={"token_loss": 1.0}),
        _row("2", answer="", values={"token_loss": 2.0}),
        _row("3", values={"token_loss": 6.0}),
        _row("4", error="no image"),
    ]
    found = instruction_answer_metrics(rows)
    assert (found.num_samples, found.num_errors, found.num_written, found.num_invalid) == (3, 1, 2, 1)
    assert found.rouge_l == pytest.approx(0.5) and found.num_words == pytest.approx(2.0)
    assert (found.num_scored, found.token_loss) == (3, pytest.approx(3.0))
    assert found.perplexity == pytest.approx(math.exp(3.0)) and found.num_reference_words == pytest.approx(4.0)
    assert found.token_loss_interval.low >= 1.0 and found.token_loss_interval.high <= 6.0
    only_scored = instruction_answer_metrics(rows[2:])
    assert only_scored.rouge_l is None and only_scored.rouge_l_interval is None and only_scored.num_words is None
    with pytest.raises(DataError, match="all 1 rows are errors"):
        instruction_answer_metrics(rows[3:])


def test_the_blind_number_takes_the_reference_of_another_image():
    rows = [
        _row("1", question="q", reference="a b", answer="x"),
        _row("2", question="other", reference="a b c d", answer="x"),
        _row("3", question="q", reference="a c", answer="x"),
    ]
    # 1 and 3 share a question; 2 is alone, so the next row takes its place: "a c" for "a b c d".
    assert instruction_answer_metrics(rows).rouge_l_blind == pytest.approx((2 / 4 + 2 * 2 / 6 + 2 / 4) / 3)
    assert instruction_answer_metrics(rows[:1]).rouge_l_blind is None


def test_the_comparison_is_paired():
    before = [_row(str(number), answer="z") for number in range(20)]
    after = [_row(str(number), answer="a b c d" if number % 2 else "a b") for number in range(20)]
    found = compare_instruction_answers(before, after)
    assert found.before == 0.0 and found.after == pytest.approx((1 + 2 * 2 / 6) / 2) == pytest.approx(found.difference)
    assert 0.6 < found.interval.low < found.difference < found.interval.high <= 1.0


def _record(name, *kinds):
    items = [
        Instruction(kind=kind, question=f"Why {place}?", answer=f" Because of {place} things. ", provenance="human")
        for place, kind in enumerate(kinds)
    ]
    return EmotionRecord(id=name, image="a.jpg", split="test", source="any", instructions=items)


def test_one_question_of_the_kind_is_drawn_by_id():
    records = [_record(f"r{number}", "conversation", "reasoning", "reasoning", "reasoning") for number in range(40)]
    drawn = [truth_of(record, REASONING, None).pair for record in records]
    assert {pair.question for pair in drawn} == {"Why 1?", "Why 2?", "Why 3?"}
    assert drawn == [truth_of(record, REASONING, None).pair for record in records]
    assert truth_of(_record("r", "conversation"), REASONING, None) is None


def test_the_token_loss_is_that_of_training(monkeypatch):
    model = load_model("emovit_tiny", "tiny", is_eval=True)
    image_processor, text_processor = model.processors()
    adapter = LavisModel(model, image_processor, text_processor, device=torch.device("cpu"), run=lambda call: call())
    items = []
    for number, colour in enumerate(("navy", "red", "white")):
        record = _record(f"r{number}", *["reasoning"] * (number + 1))
        items.append(Item(record, jpeg_of(Image.new("RGB", (96, 96), colour)), truth_of(record, REASONING, None)))
    batch = [Prepared(item, adapter.prepare(item.image_bytes)) for item in items]
    scored = request_rows(adapter, batch, REASONING, "likelihood", None)
    written = request_rows(adapter, batch, REASONING, "generation", None)
    for prepared, row, answer in zip(batch, scored, written):
        pair = prepared.item.truth.pair
        samples = {"image": prepared.image[None], "text_input": [pair.question], "text_output": [pair.answer.strip()]}
        # Cut just before its end token, an answer has the tokens that are scored.
        num_tokens = len(model.llm_tokenizer(pair.answer.strip(), add_special_tokens=False)["input_ids"])
        monkeypatch.setattr(model, "settings", model.settings.model_copy(update={"max_output_txt_len": num_tokens}))
        with torch.no_grad():
            loss = model.answer_loss(samples)
        assert loss.num_tokens == num_tokens
        assert row.values == {"token_loss": pytest.approx(float(loss.loss_sum) / loss.num_tokens, abs=1e-4)}
        assert (row.question, row.reference, row.answer) == (pair.question, pair.answer.strip(), None)
        assert answer.answer is not None and answer.values is None and answer.reference == row.reference
    assert (
        len(questions_about(items[0].record, items[0].truth, REASONING, REASONING.variants[0], "generation", None)) == 1
    )


@pytest.mark.parametrize(
    "values", [{"kind": "instruction"}, {"instruction": "reasoning"}, {"kind": "instruction", "instruction": "why"}]
)
def test_kind_and_instruction_belong_together(values):
    with pytest.raises(ValidationError):
        RunBenchmarkSettings(dataset="any", **values)


def test_settings_of_other_kinds_are_written_as_before():
    assert "instruction" not in RunBenchmarkSettings(dataset="any").model_dump()
    assert REASONING.model_dump()["instruction"] == "reasoning"
    assert RunBenchmarkSettings.model_validate(REASONING.model_dump()) == REASONING
