"""Properties of answers, decoder-only and encoder-decoder alike.

- greedy, beams and choices do not depend on the rest of the batch; greedy takes the likeliest token at each step;
- settings come from the configuration, calls can change them, and invalid ones are rejected by name;
- a seed makes sampling repeatable and leaves torch's generators unchanged;
- with choices, the answer is always one of them;
- the pieces of a stream are the answer; its errors reach the reader, closing it stops the
  generation, and it has the autocast of its call;
- questions are never truncated: those that do not fit the context are rejected;
- candidates are ranked by the documented rules under LAVIS's names.
"""

from __future__ import annotations

import threading
import time

import pytest
import torch

from lavis_emovit.errors import ConfigError
from lavis_emovit.models.constrained import Choices
from lavis_emovit.models.generation_settings import GenerationSettings
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.models.scoring import candidate_tokens

CANDIDATES = ["amusement", "anger", "awe", "sadness", "it is dark"]
# One is the beginning of another, one shares its beginning with others.
CHOICES = ["awe", "awe and sadness", "amusement", "it is dark", "sad"]


def alone(batch: dict, pair: int) -> dict:
    return {"image": batch["image"][batch["image_index"][pair]][None], "prompt": batch["text_input"][pair]}


@pytest.mark.parametrize(
    "how", [{}, {"num_beams": 3, "length_penalty": 0.5}, {"repetition_penalty": 5.0}, {"choices": CHOICES}]
)
def test_generation_does_not_depend_on_the_batch(model, batch, how):
    answers, ids = model.generate(batch, max_length=8, return_ids=True, **how)
    assert len(answers) == len(ids) == 3
    for pair in range(3):
        assert model.generate(alone(batch, pair), max_length=8, return_ids=True, **how) == (
            [answers[pair]],
            [ids[pair]],
        )
    assert answers == [model.llm_tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids]


def test_greedy_takes_the_likeliest_token(model, batch, naive_score):
    (row,) = model.generate(alone(batch, 1), max_length=2, min_length=2, return_ids=True)[1]
    assert len(row) == 2
    question = batch["text_input"][1]
    for step in range(2):
        image = batch["image"][batch["image_index"][1]]
        scores = [naive_score(model, image, question, [*row[:step], token], step) for token in range(3, 30)]
        taken = naive_score(model, image, question, row[: step + 1], step)
        assert taken >= max(scores) - 1e-4


def test_settings_come_from_the_configuration(build_parts, batch):
    sizes = {"arch": "emovit_test", "pretrained": "none", "image_size": 16, "num_query_token": 3}
    settings = ModelSettings(**sizes, generation=GenerationSettings(max_length=3, num_beams=2, num_captions=2))
    tuned = EmoVIT(build_parts("causal"), settings).eval()
    answers, ids = tuned.generate(batch, min_length=3, return_ids=True)
    assert len(answers) == 6 and {len(row) for row in ids} == {3}
    plain = EmoVIT(build_parts("causal"), ModelSettings(**sizes)).eval()
    assert tuned.generate(batch, num_beams=1, num_captions=1) == plain.generate(batch, max_length=3)


def test_the_generation_config_of_the_weights_has_no_influence(model, batch):
    before = model.generate(batch, max_length=6)
    loaded = model.core.language_model.generation_config
    loaded.do_sample, loaded.temperature, loaded.repetition_penalty, loaded.num_beams = True, 9.0, 7.0, 3
    assert model.generate(batch, max_length=6) == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_beams": 0}, "num_beams"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_length": 9, "max_length": 4}, "min_length 9 is more than max_length 4"),
        ({"use_nucleus_sampling": True, "temperature": 0}, "temperature should be above 0"),
        ({"num_captions": 3}, "num_captions 3 needs use_nucleus_sampling or as many num_beams"),
    ],
)
def test_invalid_settings_are_rejected_by_name(model, batch, values, message):
    with pytest.raises(ConfigError, match=message):
        model.generate(batch, **values)


def test_a_seed_repeats_sampling_and_leaves_the_generators_unchanged(model, batch):
    how = {"use_nucleus_sampling": True, "top_p": 0.95, "temperature": 2.0, "max_length": 6, "num_captions": 4}
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    first = model.generate(batch, seed=7, **how)
    assert torch.equal(torch.rand(3), untouched)
    assert len(first) == 12 and len(set(first)) > 6
    assert model.generate(batch, seed=7, **how) == first
    assert model.generate(batch, seed=8, **how) != first
    # A nucleus of a tiny probability has the likeliest token only.
    assert model.generate(batch, seed=1, use_nucleus_sampling=True, top_p=1e-6, max_length=6) == model.generate(
        batch, max_length=6
    )


@pytest.mark.parametrize("seed", [1.5, "7", torch.ones(1)])
def test_seeds_that_are_not_integers_are_rejected(model, batch, seed):
    with pytest.raises(ValueError, match="seed should be an integer, not "):
        model.generate(batch, seed=seed, use_nucleus_sampling=True)
    with pytest.raises(ValueError, match="seed should be an integer, not "):
        list(model.generate_stream(alone(batch, 0), seed=seed))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": None}, "questions should be a string or a list of N strings, not None"),
        ({"prompt": [1, 2, 3]}, r"not \[1, 2, 3\]"),
    ],
)
def test_questions_that_are_not_strings_are_rejected(model, batch, change, reason):
    with pytest.raises(ValueError, match=reason):
        model.generate({**batch, **change})


@pytest.mark.parametrize(
    ("rest", "keys"),
    [
        ({"promt": "Is it dark?"}, "'image', 'promt'"),
        ({}, "'image'"),
        ({"question": ["Why?"] * 2, "image_id": [1, 2]}, "'image', 'question', 'image_id'"),
    ],
)
def test_samples_without_a_question_are_rejected(model, batch, rest, keys):
    asked = {"image": batch["image"], **rest}
    message = f"no question: samples have {keys}; add 'prompt' or 'text_input', or set model.prompt$"
    for call in (model.generate, model.predict_answers, model.forward):
        with pytest.raises(ValueError, match=message):
            call(asked)
    for call in (model.score_candidates, model.predict_class):
        with pytest.raises(ValueError, match=message):
            call(asked, ["awe", "fear"])


def test_an_empty_question_and_the_prompt_of_the_model_count_as_questions(model, batch):
    image = {"image": batch["image"]}
    empty = model.score_candidates({**image, "prompt": ""}, CANDIDATES)
    assert torch.equal(model.score_candidates({**image, "text_input": ["", ""]}, CANDIDATES), empty)
    asked = model.score_candidates({**image, "prompt": "Is it dark?"}, CANDIDATES)
    assert not torch.equal(asked, empty)
    model.prompt = "Is it dark?"
    assert torch.equal(model.score_candidates(image, CANDIDATES), asked)


def test_choices_and_image_index_as_lists(model, batch):
    with pytest.raises(ValueError, match="choices should be a list of strings, not 'awe'"):
        model.generate(batch, choices="awe")
    listed = {**batch, "image_index": batch["image_index"].tolist()}
    assert torch.equal(model.score_candidates(listed, ["awe"]), model.score_candidates(batch, ["awe"]))


@pytest.mark.parametrize(
    "how", [{"num_beams": 4}, {"num_beams": 4, "num_captions": 3}, {"use_nucleus_sampling": True, "num_captions": 8}]
)
def test_chosen_answers_are_choices(model, batch, how):
    answers = model.generate(batch, choices=CHOICES, seed=3, **how)
    assert len(answers) == 3 * how.get("num_captions", 1)
    assert set(answers) <= set(CHOICES)
    if "use_nucleus_sampling" in how:
        assert len(set(answers)) > 1


def test_enough_beams_find_the_likeliest_choice(model, batch):
    found = model.generate(batch, choices=CHOICES, num_beams=len(CHOICES), length_penalty=0.0)
    tokens = candidate_tokens(model.llm_tokenizer, CHOICES, end=True)
    with torch.no_grad():
        likelihoods = model._candidate_sums(batch, batch["text_input"], tokens)
    assert found == [CHOICES[index] for index in likelihoods.argmax(dim=1)]


def test_choices_with_the_same_tokens_are_rejected():
    with pytest.raises(ValueError, match="'awe' and 'fear' have the same tokens"):
        Choices(["awe", "fear"], [[7], [7]], 2)


@pytest.mark.parametrize(("choices", "message"), [([], "no candidates"), (["awe", "awe"], "'awe' is repeated")])
def test_invalid_choices_are_rejected_by_name(model, batch, choices, message):
    with pytest.raises(ValueError, match=message):
        model.generate(batch, choices=choices)


@pytest.mark.parametrize(
    "how", [{}, {"choices": CHOICES}, {"use_nucleus_sampling": True, "temperature": 2.0, "seed": 4}]
)
def test_the_pieces_of_a_stream_are_the_answer(model, batch, how):
    question = alone(batch, 0)
    pieces = list(model.generate_stream(question, max_length=12, **how))
    assert "".join(pieces) == model.generate(question, max_length=12, **how)[0]
    assert all(pieces)


def test_closing_a_stream_stops_the_generation(build_parts, batch):
    settings = ModelSettings(arch="emovit_test", pretrained="none", image_size=16, num_query_token=3)
    tuned = EmoVIT(build_parts("causal"), settings).train()
    forward, steps = tuned.core.language_model.forward, []

    def counted(*args, **inputs):
        steps.append(torch.is_grad_enabled())
        time.sleep(0.005)
        return forward(*args, **inputs)

    tuned.core.language_model.forward = counted
    stream = tuned.generate_stream(alone(batch, 0), min_length=1500, max_length=1500)
    assert not steps, "generation must start with the first piece"
    next(stream)
    stream.close()
    assert len(steps) < 300 and not any(steps)
    assert not any(thread.name == "emovit-generation" for thread in threading.enumerate())
    assert tuned.training


def test_an_error_in_a_stream_reaches_the_reader(model, batch):
    def broken(*args, **inputs):
        raise MemoryError("out of it")

    model.core.language_model.forward = broken
    with pytest.raises(MemoryError, match="out of it"):
        list(model.generate_stream(alone(batch, 0)))
    with pytest.raises(ValueError, match="answers one question, not 3"):
        model.generate_stream(batch)
    with pytest.raises(ValueError, match="remove num_beams"):
        model.generate_stream(alone(batch, 0), num_beams=2)


def test_questions_are_not_truncated(build_parts, batch, naive_score):
    sizes = {"arch": "emovit_test", "pretrained": "none", "image_size": 16, "num_query_token": 3}
    tuned = EmoVIT(build_parts("causal"), ModelSettings(**sizes, max_txt_len=8)).eval()
    question = "Is it dark, says the girl, or is it awe?"
    asked = {"image": batch["image"][:1], "prompt": question}
    row = tuned.llm_tokenizer("awe", add_special_tokens=False)["input_ids"]
    assert len(tuned.llm_tokenizer(question)["input_ids"]) > 8
    expected = naive_score(tuned, batch["image"][0], question, row, 0)
    assert tuned.score_candidates(asked, ["awe"]).item() == pytest.approx(expected, abs=1e-4)

    tuned.core.language_model.config.max_position_embeddings = 40
    assert tuned.generate({**asked, "prompt": ["Why?"]}, max_length=2)
    length = len(tuned._whole_prompts([question])[0])
    message = rf"question 1 \('{question[:20]}.*3 visual tokens, {length} of the question and up to 30.*context is 40"
    with pytest.raises(ValueError, match=message):
        tuned.generate({"image": batch["image"], "prompt": ["Why?", question]}, max_length=30)
    with pytest.raises(ValueError, match="does not fit"):
        tuned.score_candidates(asked, ["it is dark " * 9])


@pytest.mark.parametrize("rule", ["mean", "sum", "calibrated"])
def test_predict_class_ranks_by_the_documented_rule(model, batch, rule):
    scores = model.score_candidates(batch, CANDIDATES, normalize=rule)
    ranks = model.predict_class(batch, CANDIDATES, n_segments=2, rule=rule)
    assert ranks.tolist() == scores.argsort(dim=1, descending=True).tolist()
    if rule == "mean":
        assert ranks.tolist() == model.predict_class(batch, CANDIDATES).tolist()
        best = model.predict_answers(batch, inference_method="rank", answer_list=CANDIDATES)
        assert best == [CANDIDATES[index] for index in ranks[:, 0]]


def test_predict_answers_puts_questions_into_the_prompt(model, batch):
    answers = model.predict_answers(batch, prompt="Question: {} Answer:", max_len=5)
    asked = [f"Question: {question} Answer:" for question in batch["text_input"]]
    assert answers == model.generate({**batch, "prompt": asked}, max_length=5)
    with pytest.raises(ValueError, match="'generate' or 'rank', not 'guess'"):
        model.predict_answers(batch, inference_method="guess")
    with pytest.raises(ValueError, match="answer_list should be a list of strings, not None"):
        model.predict_answers(batch, inference_method="rank")


def test_invalid_questions_are_rejected_by_name(model, batch):
    with pytest.raises(ValueError, match="no question"):
        model.generate({"image": batch["image"], "prompt": []})
    with pytest.raises(ValueError, match="2 questions for 3"):
        model.generate({**batch, "prompt": ["a", "b"]})
    with pytest.raises(ValueError, match="no image"):
        model.generate({"image": torch.zeros(0, 3, 16, 16), "prompt": "Why?"})


def test_a_stream_has_the_autocast_of_its_call(model, batch, monkeypatch):
    seen, generate = [], model._generate_ids

    def watched(*arguments):
        seen.append(torch.is_autocast_enabled("cpu"))
        return generate(*arguments)

    monkeypatch.setattr(model, "_generate_ids", watched)
    one = {"image": batch["image"][:1], "prompt": "Why?"}
    with torch.autocast("cpu", torch.bfloat16):
        stream = model.generate_stream(one, max_length=2)
    list(stream)
    list(model.generate_stream(one, max_length=2))
    assert seen == [True, False]
