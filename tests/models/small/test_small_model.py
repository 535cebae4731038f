"""Properties of the small model, on random weights.

- the language model reads `<|im_start|>user`, the query tokens, the question, the start of the assistant's turn, the
  answer and `<|im_end|>`: the loss is that of a plain pass of transformers' Llama over these embeddings;
- a question that is too long keeps its end and the turns around it; cut texts are counted exactly;
- scores and own log-probabilities equal plain passes, alone or in a batch, and in every position of it;
- generated tokens are the likeliest of a loop of plain passes, and end at the end token; streams give the same text;
- clips have the query tokens of their frames in a row; the question reaches the Q-Former unless it is switched off;
- the attention of query tokens is that of transformers, on the grid of cells without the rows for names;
- wrong images, paths and file formats are refused by name.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from eager_attention import eager_weights
from small_folder import IMAGE_PX, NUM_QUERIES, WIDTH, load, settings_of
from torch.nn import functional as F

from lavis_emovit.errors import ConfigError, DataError, WeightsError
from lavis_emovit.models.protocol import EmotionModel
from lavis_emovit.models.small.model import EmoVITSmall

CANDIDATES = ["amusement", "awe", "sad", "sadness"]


def words(model: EmoVITSmall, text: str) -> list[int]:
    return model.llm_tokenizer(text, add_special_tokens=False)["input_ids"]


def first_queries(core: Any, embeds: torch.Tensor) -> torch.Tensor:
    """Query tokens before the Q-Former, [1, Q, D]; behind those for names the mean of an image's cells is added."""
    weight = core.query_tokens_of_image.weight.view(NUM_QUERIES - 8, WIDTH, -1)
    own = torch.cat([torch.zeros(8, WIDTH), weight @ embeds[0, :-8, : weight.shape[2]].mean(dim=0)])
    return core.query_tokens + own


def queries_of(model: EmoVITSmall, image: torch.Tensor, question: str | None) -> torch.Tensor:
    """Query tokens of one image and its question, [1, Q, D], by the modules themselves."""
    core, ids, mask = model.core, None, None
    if question is not None:
        ids = torch.tensor([model.qformer_tokenizer(question)["input_ids"]])
        mask = torch.ones(1, NUM_QUERIES + ids.shape[1], dtype=torch.long)
    embeds = core.vision_model(image[None])
    hidden = core.qformer(
        input_ids=ids,
        attention_mask=mask,
        query_embeds=first_queries(core, embeds),
        encoder_hidden_states=embeds,
    ).last_hidden_state
    return core.language_projection(hidden[:, :NUM_QUERIES])


def logits_of(model: EmoVITSmall, prefix: torch.Tensor, ids_before: list[int], ids_behind: list[int]) -> torch.Tensor:
    """Logits [T, V] of a plain pass over `ids_before`, the embedded prefix, and `ids_behind`."""
    embed = model.core.language_model.get_input_embeddings()
    before, behind = (embed(torch.tensor([ids], dtype=torch.long)) for ids in (ids_before, ids_behind))
    return model.core.language_model(inputs_embeds=torch.cat([before, prefix, behind], dim=1)).logits[0]


def plain_log_prob(
    model: EmoVITSmall, image: torch.Tensor, question: str, answer: list[int], prompt: list[int] | None = None
) -> float:
    """Log-probability of the answer's tokens in the chat template; `prompt` are the question's tokens if it was cut."""
    asked = words(model, question) if prompt is None else prompt
    behind = [*asked, *words(model, "<|im_end|>\n<|im_start|>assistant\n"), *answer]
    with torch.no_grad():
        logits = logits_of(model, queries_of(model, image, question), words(model, "<|im_start|>user\n"), behind)
    predicted = logits[-len(answer) - 1 : -1]
    return -float(F.cross_entropy(predicted, torch.tensor(answer), reduction="sum"))


def test_the_template_has_the_special_tokens(model: EmoVITSmall) -> None:
    assert isinstance(model, EmotionModel)
    begin, between = model._turn
    assert begin == [1, *words(model, "user\n")] and between[:1] == [2] and 1 in between
    assert model.llm_tokenizer.decode(between) == "<|im_end|>\n<|im_start|>assistant\n"


def test_the_loss_is_that_of_a_plain_pass(model: EmoVITSmall, batch: dict[str, Any]) -> None:
    loss = model.answer_loss(batch)
    expected, num_tokens = 0.0, 0
    for number, (question, answer) in enumerate(zip(batch["text_input"], batch["text_output"])):
        ids = [*words(model, answer), 2]
        num_tokens += len(ids)
        expected -= plain_log_prob(model, batch["image"][int(batch["image_index"][number])], question, ids)
    assert loss.loss_sum.item() == pytest.approx(expected, rel=1e-5)
    assert loss.num_tokens == model.num_answer_tokens(batch) == num_tokens
    assert not any(loss.noted.values())
    torch.testing.assert_close(-model.answer_log_probs(batch).sum(), loss.loss_sum)
    lengths = torch.tensor([len(words(model, answer)) + 1 for answer in batch["text_output"]])
    by_pair = model.answer_loss(batch, by_pair=True).pair_losses
    torch.testing.assert_close(by_pair * lengths, -model.answer_log_probs(batch))


def test_the_reading_loss(small, model: EmoVITSmall, batch: dict[str, Any]) -> None:
    """By hand: the query tokens after eight for names, beside the embeddings of the answer's first words."""
    found = load(small, reading_loss=0.5).eval().answer_loss(batch).loss_sum - model.answer_loss(batch).loss_sum
    table = model.core.language_model.get_input_embeddings().weight
    expected = 0.0
    for number, (question, answer) in enumerate(zip(batch["text_input"], batch["text_output"])):
        prefix = queries_of(model, batch["image"][int(batch["image_index"][number])], question)[0]
        for vector, token in zip(prefix[8:], words(model, answer)):
            cosines = F.cosine_similarity(vector[None], table)
            expected -= (20 * cosines).log_softmax(0)[token]
            expected += (vector - table[token]).pow(2).mean() / table.var()
    torch.testing.assert_close(found, 0.5 * expected, rtol=1e-3, atol=1e-3)
    assert found > 1


def test_each_frame_reads_as_the_first_words(small, batch: dict[str, Any]) -> None:
    """A clip of one image twice has the image's loss: the query tokens for names are in no frame those for answers."""
    model = load(small, reading_loss=0.5, reading_epochs=1).train()
    clips = batch["image"][:, :, None].expand(-1, -1, 2, -1, -1)
    of_images, of_clips = (
        model.answer_loss({**batch, "epoch": 0, "image": images}) for images in (batch["image"], clips)
    )
    torch.testing.assert_close(of_clips.loss_sum, of_images.loss_sum)


def test_epochs_of_reading_do_without_the_language_model(
    small, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(small, reading_loss=0.5, reading_epochs=2).train()
    whole, plain = (load(small, reading_loss=weight).eval().answer_loss(batch) for weight in (0.5, 0.0))
    for given in (batch, {**batch, "epoch": 2}):
        torch.testing.assert_close(model.answer_loss(given).loss_sum, whole.loss_sum)
    torch.testing.assert_close(model.eval().answer_loss({**batch, "epoch": 0}).loss_sum, whole.loss_sum)
    monkeypatch.setattr(type(model.core.language_model), "forward", None)
    found = model.train().answer_loss({**batch, "epoch": 1})
    torch.testing.assert_close(found.loss_sum, whole.loss_sum - plain.loss_sum)
    assert found.num_tokens == whole.num_tokens
    assert found.sizes.real_positions == (0,) and found.sizes.padding_share == 0.0
    assert found.sizes.num_reads == whole.sizes.num_reads


def test_epochs_of_reading_need_the_reading_loss(small) -> None:
    with pytest.raises(ValueError, match="reading_epochs is 2, and reading_loss is 0: nothing would be learned"):
        settings_of(small, reading_loss=0.0, reading_epochs=2)


def test_the_image_encoder_alone_has_the_same_features(small, batch: dict[str, Any]) -> None:
    """Without language model and Q-Former; a linear model gets mean and largest value of the cells, and no words."""
    model = load(small).eval()
    alone = EmoVITSmall.image_encoder(settings_of(small).model_dump(exclude_none=True))
    assert {name.split(".")[0] for name, _ in alone.core.named_parameters()} == {"vision_model"}
    found = alone.encode_images(batch["image"])
    torch.testing.assert_close(found, model.encode_images(batch["image"]), rtol=0, atol=0)
    cells = found[:, :4, :1920]  # of 64 pixels; eight words follow
    expected = torch.cat([cells.sum(dim=1) / 4, cells.max(dim=1).values], dim=1)
    torch.testing.assert_close(alone.pool(found), expected)
    torch.testing.assert_close(model.pool(found), expected)
    assert alone.identity()["pooled"] == "mean and largest of the cells"


def test_the_sizes_are_counted(model: EmoVITSmall, batch: dict[str, Any]) -> None:
    sizes = model.answer_loss(batch).sizes
    around = len(words(model, "<|im_start|>user\n")) + len(words(model, "<|im_end|>\n<|im_start|>assistant\n"))
    texts = sum(len(words(model, text)) for text in [*batch["text_input"], *batch["text_output"]])
    assert sizes is not None and sizes.real_positions == (3 * (NUM_QUERIES + around + 1) + texts,)
    assert (sizes.num_images, sizes.num_reads) == (2, 3)


@pytest.mark.parametrize("room", [12, 4, 0])
def test_a_long_question_keeps_its_end(small, batch: dict[str, Any], room: int) -> None:
    between = len(words(load(small), "<|im_end|>\n<|im_start|>assistant\n"))
    limits = {"max_txt_len": between + room, "max_output_txt_len": 7}
    cut = load(small, reading_loss=0.0, qformer_text_input=False, **limits).eval()
    longer = "What do the people in this image feel, and why?"
    samples = {**batch, "text_input": ["Dark?"[: room // 2], longer, longer]}
    samples["text_output"] = ["a", "", "It is dark, says the girl."]
    assert len(words(cut, longer)) > room
    loss = cut.answer_loss(samples)
    assert loss.noted == {
        "num_truncated_questions": [1, 2], "num_truncated_answers": [2], "num_unsupervised": [1]
    }  # fmt: skip
    expected = 0.0
    for number, (question, answer) in enumerate(zip(samples["text_input"], samples["text_output"])):
        ids, prompt = [*words(cut, answer), 2][:7], words(cut, question)
        prompt = prompt[max(0, len(prompt) - room) :]
        image = batch["image"][int(batch["image_index"][number])]
        with torch.no_grad():
            prefix = queries_of(cut, image, None)
            behind = [*prompt, *words(cut, "<|im_end|>\n<|im_start|>assistant\n"), *ids]
            logits = logits_of(cut, prefix, words(cut, "<|im_start|>user\n"), behind)
        expected += float(F.cross_entropy(logits[-len(ids) - 1 : -1], torch.tensor(ids), reduction="sum"))
    assert loss.loss_sum.item() == pytest.approx(expected, rel=1e-5)
    lengths = cut.text_lengths(samples["text_input"], samples["text_output"])
    assert lengths[1] == (len(words(cut, longer)) + between, 1)
    assert [length > between + room for length, _ in lengths] == [False, True, True]


def test_a_question_of_exactly_the_limit_is_not_cut(small, batch: dict[str, Any]) -> None:
    model = load(small).eval()
    length = len(words(model, batch["text_input"][1])) + len(model._turn[1])
    letters = len(model.qformer_tokenizer(batch["text_input"][1])["input_ids"])
    for limit, counted in ((length, []), (length - 1, [1])):
        bounded = load(small, max_txt_len=limit, qformer_text_input=False)
        assert bounded.answer_loss(batch).noted["num_truncated_questions"] == counted
    for limit, counted in ((letters, []), (letters - 1, [1])):  # the Q-Former reads letters here, so it cuts first
        assert load(small, max_txt_len=limit).answer_loss(batch).noted["num_truncated_questions"] == counted


@pytest.mark.parametrize("prefix", ["", "Predict emotion: "])
def test_scores_are_those_of_plain_passes(model: EmoVITSmall, batch: dict[str, Any], prefix: str) -> None:
    scores = model.score_candidates(batch, CANDIDATES, prefix)
    means = model.score_candidates(batch, CANDIDATES, prefix, "mean")
    assert scores.shape == (3, 4) and scores.std() > 0.5
    given = words(model, prefix.rstrip()) if prefix else []
    for (number, question), (column, candidate) in product(enumerate(batch["text_input"]), enumerate(CANDIDATES)):
        ids = words(model, prefix + candidate)
        assert ids[: len(given)] == given
        image = batch["image"][int(batch["image_index"][number])]
        expected = plain_log_prob(model, image, question, ids)
        expected -= plain_log_prob(model, image, question, given) if given else 0.0
        assert float(scores[number, column]) == pytest.approx(expected, abs=1e-3)
        assert float(means[number, column]) == pytest.approx(expected / (len(ids) - len(given)), abs=1e-3)


def test_nothing_depends_on_the_batch(model: EmoVITSmall, batch: dict[str, Any]) -> None:
    scores, answers = model.score_candidates(batch, CANDIDATES), model.generate(batch, max_length=8)
    turned = {
        **batch,
        "image": batch["image"].flip(0),
        "image_index": 1 - batch["image_index"].flip(0),
        "text_input": batch["text_input"][::-1],
        "text_output": batch["text_output"][::-1],
    }
    torch.testing.assert_close(model.score_candidates(turned, CANDIDATES), scores.flip(0), rtol=1e-4, atol=1e-3)
    assert model.generate(turned, max_length=8) == answers[::-1]
    torch.testing.assert_close(model.answer_loss(turned).loss_sum, model.answer_loss(batch).loss_sum)
    for number in range(3):
        one = {
            "image": batch["image"][int(batch["image_index"][number])][None],
            "prompt": [batch["text_input"][number]],
        }
        torch.testing.assert_close(model.score_candidates(one, CANDIDATES)[0], scores[number], rtol=1e-4, atol=1e-3)
        assert model.generate(one, max_length=8) == [answers[number]]


def test_generated_tokens_are_the_likeliest(model: EmoVITSmall, batch: dict[str, Any]) -> None:
    _, found = model.generate(batch, max_length=6, return_ids=True)
    for number, question in enumerate(batch["text_input"]):
        prefix = queries_of(model, batch["image"][int(batch["image_index"][number])], question)
        behind = [*words(model, question), *words(model, "<|im_end|>\n<|im_start|>assistant\n")]
        expected: list[int] = []
        with torch.no_grad():
            for _ in range(6):
                logits = logits_of(model, prefix, words(model, "<|im_start|>user\n"), behind + expected)
                expected.append(int(logits[-1].argmax()))
        assert found[number] == expected[: expected.index(2) if 2 in expected else 6]


def test_an_answer_ends_at_the_end_token(model: EmoVITSmall, batch: dict[str, Any]) -> None:
    """With this head every token is followed by the next one of a chain, and the chain ends at the end token."""
    chain = [10, 11, 12, 2]

    class Chain(torch.nn.Module):
        weight = model.core.language_model.lm_head.weight
        step = 0

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            logits = hidden.new_zeros(*hidden.shape[:-1], len(self.weight))
            logits[..., chain[self.step]] = 1.0
            self.step = min(self.step + 1, 3)
            return logits

    model.core.language_model.lm_head = Chain()
    one = {"image": batch["image"][:1], "prompt": ["Why?"]}
    _, ids = model.generate(one, max_length=30, return_ids=True)
    assert ids == [[10, 11, 12]]


def test_streams_and_choices(model: EmoVITSmall, batch: dict[str, Any]) -> None:
    one = {"image": batch["image"][:1], "prompt": ["Why?"]}
    pieces = list(model.generate_stream(one, max_length=8))
    assert "".join(pieces).strip() == model.generate(one, max_length=8)[0]
    assert set(model.generate(batch, choices=CANDIDATES)) <= set(CANDIDATES)
    ranked = model.predict_class(batch, CANDIDATES, rule="sum")
    assert torch.equal(ranked[:, 0], model.score_candidates(batch, CANDIDATES).argmax(dim=1))


def test_clips_have_the_query_tokens_of_their_frames(model: EmoVITSmall) -> None:
    frames = torch.randn(1, 3, 2, IMAGE_PX, IMAGE_PX)
    clip = {"image": frames, "text_input": ["Why?"], "text_output": ["awe"]}
    assert model.encode_images(frames).shape[:2] == (1, 2)
    parts = [queries_of(model, frames[0, :, number], "Why?") for number in range(2)]
    behind = [*words(model, "Why?"), *words(model, "<|im_end|>\n<|im_start|>assistant\n"), *words(model, "awe"), 2]
    num = len(words(model, "awe")) + 1
    with torch.no_grad():
        logits = logits_of(model, torch.cat(parts, dim=1), words(model, "<|im_start|>user\n"), behind)
    expected = F.cross_entropy(logits[-num - 1 : -1], torch.tensor(behind[-num:]), reduction="sum")
    torch.testing.assert_close(model.answer_loss(clip).loss_sum, expected, rtol=1e-4, atol=1e-4)
    still = {**clip, "image": frames[:, :, :1]}
    plain = {**clip, "image": frames[:, :, 0]}
    torch.testing.assert_close(model.answer_loss(still).loss_sum, model.answer_loss(plain).loss_sum)


def test_the_question_reaches_the_qformer_unless_it_is_switched_off(small, batch: dict[str, Any]) -> None:
    for reads in (True, False):
        model = load(small, qformer_text_input=reads).eval()
        embeds = model.encode_images(batch["image"][:1])
        first, second = (model.query_images(embeds, torch.tensor([0]), [text]) for text in ("Is it dark?", "Why?"))
        assert torch.equal(first, second) is not reads


def test_another_image_size_is_another_grid(small) -> None:
    model = load(small, image_size=97).eval()
    assert model.encode_images(torch.randn(1, 3, 97, 97)).shape[1] == 4 * 4 + 8
    with pytest.raises(ValueError, match=r"\[1, 3, 64, 64\], expected \[B, 3, 97, 97\]"):
        model.encode_images(torch.randn(1, 3, 64, 64))


def test_wrong_input_is_refused_by_name(small, model: EmoVITSmall, batch: dict[str, Any], tmp_path) -> None:
    broken = batch["image"].clone()
    broken[1, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="image 1 of the batch"):
        model.encode_images(broken)
    (tmp_path / "old.pth").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"old\.pth is not a \.safetensors file; emovit_small has no other format"):
        model.load_checkpoint(str(tmp_path / "old.pth"))
    with pytest.raises(ConfigError, match="max_txt_len: 129 tokens, the Q-Former has 128 positions"):
        load(small, max_txt_len=129)
    long = "Is it dark? " * 400
    with pytest.raises(DataError, match="does not fit"):
        model.check_question(long, ["awe"], 20)


def test_attention_is_shown_on_the_grid_of_cells(model, batch):
    one = {"image": batch["image"][:1], "prompt": "Which emotion is it?"}
    given = model.query_attention(one)
    rows = eager_weights(model, lambda: model.generate(one, max_length=1))
    torch.testing.assert_close(given.flatten(), rows[:-8])
    assert given.shape == (IMAGE_PX // 32, IMAGE_PX // 32)
