"""The family `image_text`: one pass over an image for all its questions computes what a row for each question does.

Properties, for eight families of transformers:
- loss, gradients, log-probabilities, candidate scores and written answers with a shared beginning equal those without;
- the loss is transformers' own, of the text that its chat template writes;
- the tokens of a pair are those of the whole text, however its question begins;
- a score depends on neither the batch, the pass, nor other candidates;
- recomputed layers, a short window and bidirectional image tokens change nothing;
- what cannot share says so and computes the same.
"""

from __future__ import annotations

import logging
import shutil

import pytest
import torch
from tiny_batches import ANSWERS, NEEDED, QUESTIONS, SHARING, batch_of, model_of, picture_of
from tiny_families import FAMILIES

from lavis_emovit.errors import WeightsError

CANDIDATES = ["awe", "anger and sadness", "fear"]


def _gradients(model) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in model.core.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("family", SHARING)
def test_loss_and_gradients_equal_the_plain_way(build, family):
    found = {}
    for share in (True, False):
        # Dropout draws other numbers for other shapes.
        model = build(family, share_prefix=share, trained_parts="all").eval()
        assert model.shares_prefix == share
        result = model.answer_loss(batch_of(model))
        result.loss_sum.backward()
        found[share] = result, _gradients(model)
    (shared, gradients), (plain, expected) = found[True], found[False]
    assert shared.num_tokens == plain.num_tokens
    assert shared.loss_sum.item() == pytest.approx(plain.loss_sum.item(), rel=1e-6)
    assert shared.noted == plain.noted
    assert gradients.keys() == expected.keys()
    largest = max(value.abs().max() for value in expected.values())
    for name, value in expected.items():
        assert (gradients[name] - value).abs().max() <= 1e-5 * largest, name
    # One row without padding, each image once.
    assert shared.sizes.num_images == 3 and plain.sizes.num_images == 6
    assert shared.sizes.real_positions == shared.sizes.run_positions
    assert shared.sizes.run_positions[0] < plain.sizes.real_positions[0]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_loss_is_that_of_transformers(build, family):
    model = build(family).eval()
    processor, tokenizer = model.chat.processor, model.llm_tokenizer
    question, answer = "Which feeling is it?", "because of the blue sky"
    image = picture_of(1)
    images = model.processors()[0]
    batch = {"image": images.stack([images(image)]), "text_input": [question], "text_output": [answer]}
    ours = model.answer_loss(batch)
    if family == "paligemma2":
        inputs = processor(images=image, text=f"<image>{question}", suffix=answer, return_tensors="pt")
        theirs = model.core(**inputs).loss
        num_tokens = int((inputs["labels"] != -100).sum())
    else:
        if family == "blip2_opt":
            asked, answered, begins = question, f"{question} {answer}</s>", False
        else:
            turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
            reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
            asked = processor.apply_chat_template([turn], add_generation_prompt=True)
            answered = processor.apply_chat_template([turn, reply]).rstrip()
            end = tokenizer.convert_ids_to_tokens(model.chat.end_ids[-1])
            answered += "" if answered.endswith(end) else end
            begins = bool(tokenizer.bos_token) and asked.startswith(tokenizer.bos_token)
        options = {"images": [[image]], "return_tensors": "pt", "add_special_tokens": not begins}
        inputs = processor(text=[answered], **options)
        num_prompt = processor(text=[asked], **options)["input_ids"].shape[1]
        labels = inputs["input_ids"].clone()
        labels[:, :num_prompt] = -100
        theirs, num_tokens = model.core(**inputs, labels=labels).loss, int((labels != -100).sum())
    assert ours.num_tokens == num_tokens
    assert ours.loss_sum.item() / ours.num_tokens == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_tokens_are_those_of_the_whole_text(build, family):
    model = build(family)
    chat, image = model.chat, picture_of(2)
    read = chat.read([image])
    for question in QUESTIONS:
        whole = chat._process(chat._render(question), [image])["input_ids"][0].tolist()
        (prompt,) = chat.prompts([question])
        assert [*read.ids.tolist(), *prompt] == whole, question


@pytest.mark.parametrize("family", SHARING)
def test_answers_equal_the_plain_way(build, family):
    found = {}
    for share in (True, False):
        model = build(family, share_prefix=share).eval()
        batch = batch_of(model) | {"prompt": QUESTIONS}
        log_probs, loss = model.answer_log_probs(batch).detach(), model.answer_loss(batch, by_pair=True)
        lengths = [
            model.num_answer_tokens(batch | {"text_input": [question], "text_output": [answer]})
            for question, answer in zip(batch["text_input"], batch["text_output"])
        ]
        torch.testing.assert_close(loss.pair_losses * torch.tensor(lengths), -log_probs, atol=1e-4, rtol=1e-5)
        assert loss.loss_sum.item() == pytest.approx(model.answer_loss(batch).loss_sum.item(), rel=1e-5)
        found[share] = (
            log_probs,
            model.score_candidates(batch, CANDIDATES, "Predict emotion: "),
            model.score_candidates(batch, CANDIDATES, normalize="calibrated"),
            model.score_candidates(batch, CANDIDATES, normalize="mean"),
            [
                model.generate(batch, max_length=8),
                model.generate(batch, max_length=8, num_beams=3, num_captions=2),
                model.generate(batch, max_length=8, use_nucleus_sampling=True, num_captions=3, seed=5),
                model.generate(batch, max_length=8, repetition_penalty=1.5),
                model.generate(batch, choices=CANDIDATES),
            ],
        )
    for shared, plain in zip(found[True][:4], found[False][:4]):
        torch.testing.assert_close(shared, plain, atol=1e-4, rtol=1e-5)
    assert found[True][4] == found[False][4]


def test_a_score_is_that_of_the_candidate_as_an_answer(build):
    model = build("qwen25vl").eval()
    batch = batch_of(model)
    scores = model.score_candidates(batch, CANDIDATES)
    for column, candidate in enumerate(CANDIDATES):
        whole = model.answer_log_probs({**batch, "text_output": [candidate] * 6})
        prompts = [len(model.chat.prompts([question])[0]) for question in QUESTIONS]
        assert len(set(prompts)) > 1  # questions of several lengths
        # Less the token that ends the answer, which is no part of a candidate.
        ends = model.score_candidates(batch, [f"{candidate}<|im_end|>"])[:, 0]
        torch.testing.assert_close(ends, whole, atol=1e-4, rtol=1e-5)
        assert (scores[:, column] > ends).all()


@pytest.mark.parametrize("family", ["llava15", "gemma3"])
def test_scores_depend_on_nothing_else(build, family):
    model = build(family).eval()
    batch = batch_of(model)
    scores = model.score_candidates(batch, CANDIDATES)
    one = {"image": batch["image"][2:], "image_index": torch.tensor([0]), "text_input": ["Why so"]}
    alone = model.score_candidates(one, ["fear"])
    torch.testing.assert_close(alone[0, 0], scores[2, 2], atol=1e-4, rtol=1e-5)
    split = build(family, scoring_pairs_per_pass=2).eval()
    torch.testing.assert_close(split.score_candidates(batch, CANDIDATES), scores, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("family", ["llava15", "qwen3vl", "gemma3"])
def test_recomputed_layers_change_nothing(build, family):
    found = []
    for recompute in (False, True):
        model = build(family, trained_parts="all", use_grad_checkpoint=recompute).eval()
        model.answer_loss(batch_of(model)).loss_sum.backward()
        found.append(_gradients(model))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=name)


def test_a_family_that_cannot_share_says_so(build, caplog):
    with caplog.at_level(logging.INFO):
        model = build("paligemma2")
    assert not model.shares_prefix
    assert "its image tokens see the question" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        eager = build("llava15", attention="eager").eval()
    assert "model.attention=eager" in caplog.text
    batch = batch_of(eager)
    expected = build("llava15").eval().answer_loss(batch).loss_sum
    torch.testing.assert_close(eager.answer_loss(batch).loss_sum, expected, atol=1e-3, rtol=1e-5)


def test_long_texts_are_cut_and_counted(build):
    model = build("qwen25vl", max_txt_len=3, max_output_txt_len=4).eval()
    result = model.answer_loss(batch_of(model))
    lengths = model.text_lengths(QUESTIONS, ANSWERS)
    assert result.noted["num_truncated_questions"] == [n for n, (asked, _) in enumerate(lengths) if asked > 3]
    assert result.noted["num_truncated_answers"] == [n for n, (_, written) in enumerate(lengths) if written > 4]
    assert result.noted["num_unsupervised"] == [3]
    assert result.num_tokens == sum(min(4, written) for _, written in lengths)
    assert model.num_answer_tokens(batch_of(model)) == result.num_tokens
    assert model.chat.question_length(model.chat.cut_question(QUESTIONS[1], 3)) == 3
    # A character of several bytes may be several tokens.
    faces = "\N{GRINNING FACE}" * 5
    assert model.chat.question_length(faces) > 6
    assert model.chat.question_length(model.chat.cut_question(faces, 6)) <= 6


def test_lavis_calls_with_one_image(build):
    model = build("llava_next").eval()
    read, _ = model.processors()
    samples = {"image": read(picture_of(0)).unsqueeze(0).to("cpu"), "prompt": "How?"}
    assert isinstance(model.generate(samples, max_length=4)[0], str)
    order = model.predict_class(samples, CANDIDATES)
    assert sorted(order[0].tolist()) == [0, 1, 2]
    assert model({**samples, "text_input": ["How?"], "text_output": ["awe"]})["loss"] > 0


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("blip2_opt", {"template": "no place"}, "must have {question}"),
        ("llava15", {"template": "{question}"}, "refuses the text"),
        (
            "paligemma2",
            {"template": None, "attention": "eager"},
            "has no chat template; set a template, `prompt` in a suite",
        ),
        ("paligemma2", {"attention": "sdpa"}, "set model.attention=eager"),
        ("llava15", {"path": ""}, "set model.path to a folder"),
        ("llava15", {"processor": {"do_resise": False}}, "model.processor.do_resise: .*did you mean 'do_resize'"),
        ("llava15", {"processor": {"max_pixels": 1024}}, "model.processor.max_pixels: CLIPImageProcessor has no such"),
        ("llava15", {"processor": {"trust_remote_code": True}}, "model.processor.trust_remote_code"),
        ("paligemma2", {"system": "Be brief."}, "the system's turn .* would have no effect"),
        ("llava15", {"path": "./nowhere"}, "nowhere, without config.json"),
        (
            "llava15",
            {"lora": {"parts": ["language_model"], "target_modules": ["nothing"]}},
            "no linear layer 'nothing'",
        ),
    ],
)
def test_wrong_settings_are_refused_by_name(build, family, settings, message):
    with pytest.raises(Exception, match=message.replace("{", r"\{").replace("}", r"\}")):
        build(family, **{**NEEDED.get(family, {}), **settings})


def test_a_question_with_the_image_token_is_refused(build):
    model = build("llava15").eval()
    with pytest.raises(ValueError, match=r"'Is <image> good\?' contains '<image>'"):
        model.generate(batch_of(model) | {"prompt": ["Is <image> good?"] * 6})


def test_an_image_that_does_not_fit_is_refused(build):
    model = build("qwen25vl").eval()
    read, _ = model.processors()
    model.core.config.get_text_config().max_position_embeddings = 70
    batch = {"image": read.stack([read(picture_of(number)) for number in (0, 2)]), "prompt": ["How?", "How?"]}
    with pytest.raises(Exception, match=r"image 1 of the batch does not fit: 94 tokens .* context is 70"):
        model.generate(batch, max_length=4)
    training = {**batch, "text_input": ["How?", "How?"], "text_output": ["awe", "awe"], "record_id": ["a", "b/7"]}
    with pytest.raises(Exception, match=r"image 1 of the batch \(b/7\) does not fit"):
        model.answer_loss(training)


@pytest.mark.parametrize(
    ("family", "options", "num_tokens"),
    [
        ("qwen25vl", {"max_pixels": 1024}, 40),
        ("smolvlm", {"size": {"longest_edge": 16}}, 11),
        (
            "gemma3",
            {
                "do_pan_and_scan": True,
                "pan_and_scan_min_crop_size": 8,
                "pan_and_scan_max_num_crops": 4,
                "pan_and_scan_min_ratio_to_activate": 1.0,
            },
            75,
        ),
    ],
)
def test_options_of_the_processor_change_the_tokens_of_an_image(build, family, options, num_tokens):
    wide = picture_of(2).resize((96, 48))
    losses = []
    for share in (True, False):
        model = build(family, processor=options, share_prefix=share).eval()
        read, _ = model.processors()
        images = read.stack([read(wide), read(picture_of(0))])
        if share:
            assert len(images.images[0].ids) == num_tokens != len(build(family).processors()[0](wide).ids)
        batch = {**batch_of(model), "image": images, "image_index": torch.tensor([0, 0, 1, 1, 1, 0])}
        losses.append(model.answer_loss(batch).loss_sum.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_features_of_an_image_are_its_own(build, family):
    """A vector of an image does not depend on the images beside it, which may have more tokens."""
    model = build(family).eval()
    images = batch_of(model)["image"]
    with torch.no_grad():
        embeds = model.encode_images(images)
        vectors = model.pool(embeds)
        for number in range(3):
            alone = model.encode_images(images[number : number + 1])
            assert alone.shape[1] == (images.images[number].ids == model.chat.image_token_id).sum()
            torch.testing.assert_close(model.pool(alone)[0], vectors[number], atol=1e-5, rtol=1e-4)
    assert vectors.isfinite().all() and not torch.allclose(vectors[0], vectors[1], atol=1e-3)


DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}<image>\nQ: {{ m.content[-1].text }} {% endfor %}A:"
REFUSES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + DROPS_SYSTEM
)


@pytest.mark.parametrize(
    ("chat_template", "system", "message"),
    [
        (DROPS_SYSTEM, "Be brief.", "the system's turn .* would have no effect"),
        (REFUSES_SYSTEM, "Be brief.", "cannot write the turns system, user .no system role.*remove model.system"),
        ("{{ messages[0].role", None, "cannot write the turns user"),
        ("{{ nothing.at.all }}", None, "cannot write the turns user .'nothing' is undefined"),
    ],
)
def test_a_chat_template_that_loses_or_refuses_a_turn_is_named(folder_of, tmp_path, chat_template, system, message):
    folder = tmp_path / "llava15"
    shutil.copytree(folder_of("llava15"), folder)
    (folder / "chat_template.jinja").write_text(chat_template)
    with pytest.raises(WeightsError, match=message):
        model_of(folder, system=system)
