"""Properties of a training step of the EmoVIT model, decoder-only and encoder-decoder alike.

- grouping by length changes neither loss nor gradients, and the groups are the cheapest possible;
- logits are computed at supervised positions only, in both kinds of language models;
- the log-probability of each answer is minus its loss alone, and their sum minus the loss, with the same gradients;
- every trained tensor has a gradient except the dead ones; recomputing activations does not change them;
- frozen tensors have no graph and no gradient; parts in half precision work together, with and without autocast;
- truncated texts and empty answers are counted by pair; invalid batches are rejected by name.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.errors import ConfigError
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.models.lengths import length_groups

MIXED = {
    "text_input": ["Is it dark?", "Which emotion is it: amusement, anger, awe or sadness?", "Why?", "Is it dark? " * 4],
    "text_output": ["No.", "Predict emotion: awe", "Because the girl says that it is dark. " * 4, "awe"],
    "image_index": torch.tensor([1, 0, 1, 0]),
}


def settings_for(**changes) -> ModelSettings:
    return ModelSettings(
        **{"arch": "emovit_test", "pretrained": "x", "image_size": 16, "num_query_token": 3, **changes}
    )


@pytest.fixture
def build(build_parts):
    """Function (kind, **settings) -> a random model without dropout in train mode."""

    def made(kind: str, **changes) -> EmoVIT:
        model = EmoVIT(build_parts(kind), settings_for(**changes)).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            for name in ("attention_dropout", "dropout"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
        return model

    return made


@pytest.fixture
def mixed() -> dict:
    return {**MIXED, "image": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))}


def gradients(model: EmoVIT, batch: dict) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    loss = model(batch)["loss_sum"]
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.core.named_parameters() if p.grad is not None}


def assert_same_gradients(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        # The gradients of key biases are rounding.
        assert (gradient - other[name]).norm() <= 1e-4 * gradient.norm() + 1e-4, name


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_grouping_changes_neither_loss_nor_gradients(build, mixed, kind, monkeypatch):
    shapes = []

    def watch(model: EmoVIT) -> EmoVIT:
        model.core.language_model.register_forward_pre_hook(
            lambda module, args, kwargs: shapes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
        )
        return model

    grouped = gradients(watch(build(kind)), mixed)
    split = list(shapes)
    shapes.clear()
    plain = gradients(watch(build(kind, group_by_length=False)), mixed)
    assert len(shapes) == 1 and len(split) > 1
    assert sum(rows for rows, _ in split) == shapes[0][0] == 4
    assert sum(rows * width for rows, width in split) < shapes[0][0] * shapes[0][1]
    assert grouped[0] == pytest.approx(plain[0], rel=1e-5)
    assert_same_gradients(grouped[1], plain[1])


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_log_probs_of_answers_are_the_losses_of_single_pairs(build, mixed, kind):
    model = build(kind)
    log_probs = model.answer_log_probs(mixed)
    assert log_probs.shape == (4,) and log_probs.dtype == torch.float32
    single = torch.stack(
        [
            model.answer_loss(
                {
                    "image": mixed["image"][mixed["image_index"][pair]][None],
                    "text_input": mixed["text_input"][pair : pair + 1],
                    "text_output": mixed["text_output"][pair : pair + 1],
                }
            ).loss_sum
            for pair in range(4)
        ]
    )
    torch.testing.assert_close(-log_probs, single, rtol=1e-5, atol=1e-4)
    by_pair = model.answer_loss(mixed, by_pair=True)
    lengths = [model.num_answer_tokens({"text_output": [answer]}) for answer in mixed["text_output"]]
    torch.testing.assert_close(by_pair.pair_losses * torch.tensor(lengths), single.detach(), rtol=1e-5, atol=1e-4)
    assert by_pair.loss_sum.item() == pytest.approx(single.sum().item(), rel=1e-5)
    assert not by_pair.pair_losses.requires_grad and model.answer_loss(mixed).pair_losses is None
    loss, expected = gradients(model, mixed)
    assert -log_probs.sum().item() == pytest.approx(loss, rel=1e-5)
    model.zero_grad(set_to_none=True)
    (-model.answer_log_probs(mixed).sum()).backward()
    assert_same_gradients({n: p.grad for n, p in model.core.named_parameters() if p.grad is not None}, expected)


def cheapest(lengths: list[tuple[int, int]], cost: int) -> int:
    """Cost of the best split of the sorted rows, by trying every one."""
    rows = sorted(lengths, key=sum)
    best = None
    for count in range(len(rows)):
        for cuts in combinations(range(1, len(rows)), count):
            ends = [0, *cuts, len(rows)]
            runs = [rows[first:last] for first, last in pairwise(ends)]
            total = sum(cost + len(run) * sum(max(column) for column in zip(*run)) for run in runs)
            best = total if best is None else min(best, total)
    return best


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=7),
    st.sampled_from([0, 1, 16, 200]),
)
def test_groups_have_every_row_once_at_the_least_cost(lengths, cost):
    groups = length_groups(lengths, cost)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    runs = [[lengths[row] for row in group] for group in groups]
    assert sum(cost + len(run) * sum(max(column) for column in zip(*run)) for run in runs) == cheapest(lengths, cost)


def test_logits_at_supervised_positions_only(model, batch):
    rows = []
    head = model.core.language_model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, output: rows.append(tuple(output.shape[:-1])))
    counted = model(batch)["num_tokens"]
    assert all(len(shape) == 1 for shape in rows)
    assert sum(shape[0] for shape in rows) == counted
    assert not head._forward_pre_hooks, "scoring and generation need other logits"


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("reads_text", [True, False])
def test_every_trained_tensor_has_a_gradient_except_dead_ones(build, mixed, kind, reads_text):
    model = build(kind, trained_parts="all", qformer_text_input=reads_text)
    _, found = gradients(model, mixed)
    # So data-parallel training does not have to search for unused parameters.
    assert list(found) == model.trained_parameter_names()
    dead = set(model.dead_parameters())
    for name, gradient in found.items():
        if name not in dead:
            assert gradient.abs().max() > 1e-6, name
        else:
            assert gradient.abs().max() < 1e-4, name
    last = "qformer.encoder.layer.1."
    exactly = {name for name in dead if not name.endswith("key.bias")}
    if reads_text:
        assert {name.removeprefix(last) for name in exactly} == {
            *(f"{module}.dense.{kind}" for module in ("intermediate", "output") for kind in ("weight", "bias")),
            "output.LayerNorm.weight",
            "output.LayerNorm.bias",
        }
        assert all(not found[name].any() for name in exactly)
    else:
        assert not exactly
        frozen = {name for name, tensor in model.core.named_parameters() if not tensor.requires_grad}
        assert frozen and all(".intermediate." in n or ".output." in n or "embeddings" in n for n in frozen), frozen
        embeds = model.encode_images(mixed["image"])
        one, other = (model.query_images(embeds, torch.tensor([0]), [question]) for question in ("Why?", "Is it?"))
        assert torch.equal(one, other)


@pytest.mark.parametrize("reads_text", [True, False])
def test_data_parallel_training_has_no_unused_parameters(build, mixed, reads_text, tmp_path):
    """The second step of torch's own wrapper fails if a trained tensor had no gradient in the first."""
    model = build("causal", qformer_text_input=reads_text)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        losses = []
        for _ in range(2):
            losses.append(wrapped(mixed)["loss"])
            losses[-1].backward()
        assert torch.equal(losses[0], losses[1])
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_recomputed_activations_give_the_same_gradients(build, mixed, kind):
    kept = gradients(build(kind), mixed)
    model = build(kind, use_grad_checkpoint=True, grad_checkpoint_parts="language_model, qformer")
    calls = []
    layer = model.core.language_model.get_decoder().block[0] if kind == "seq2seq" else None
    layer = layer or model.core.language_model.model.layers[0]
    watched = layer.mlp if kind == "causal" else layer.layer[-1]
    watched.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    assert not any(module.training for module in model.core.language_model.modules())
    loss = model(mixed)["loss_sum"]
    forward_calls = len(calls)
    loss.backward()
    assert len(calls) == 2 * forward_calls, "a frozen part in eval mode must be recomputed too"
    recomputed = gradients(model, mixed)
    assert recomputed[0] == pytest.approx(kept[0], rel=1e-6)
    assert_same_gradients(recomputed[1], kept[1])
    assert len(model.generate(mixed, max_length=2)) == 4


def test_frozen_parts_have_no_graph(build, mixed):
    model = build("causal")
    read = []
    model.core.vision_model.post_layernorm.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    model(mixed)["loss"].backward()
    assert read[0].grad_fn is None and not read[0].requires_grad
    frozen = [(n, p) for n, p in model.core.named_parameters() if not p.requires_grad]
    assert frozen and all(parameter.grad is None for _, parameter in frozen)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("amp", [False, True])
def test_parts_of_different_precision_work_together(build, mixed, kind, precision, amp):
    exact, model = build(kind), build(kind, frozen_precision=precision)
    half, other = torch.bfloat16, torch.float16
    half, other = (half, other) if precision == "bf16" else (other, half)
    kinds = {n: p.dtype for n, p in model.core.named_parameters()}
    assert {kinds[n] for n in model.trained_parameter_names()} == {torch.float32}
    # float16 overflows in T5's `wo`, which transformers keeps in float32 for that reason.
    assert {kinds[n] for n in kinds if n not in model.trained_parameter_names() and ".wo." not in n} == {half}
    with torch.autocast("cpu", dtype=half, enabled=amp):
        loss = model(mixed)["loss"]
        loss.backward()
        scores = model.score_candidates(mixed, ["awe", "sadness"])
        assert len(model.generate(mixed, max_length=3)) == 4
    assert loss.item() == pytest.approx(exact(mixed)["loss"].item(), rel=0.05)
    torch.testing.assert_close(scores, exact.score_candidates(mixed, ["awe", "sadness"]), atol=1.0, rtol=0.1)
    assert all(p.grad.dtype == torch.float32 for p in model.core.parameters() if p.requires_grad)
    with torch.autocast("cpu", dtype=other), pytest.raises(ConfigError, match=f"run.amp={precision}"):
        model(mixed)


def test_truncated_and_empty_texts_are_noted_by_pair(build, mixed):
    model = build("causal", max_txt_len=12, max_output_txt_len=6)
    loss = model.answer_loss({**mixed, "text_output": ["No.", "It is dark, says the girl.", "", "awe"]})
    count = lambda text: len(model.llm_tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    long = [number for number, text in enumerate(MIXED["text_input"]) if count(text) + 1 > 12]
    assert 0 < len(long) < 4
    assert loss.noted == {
        "num_truncated_questions": long,
        "num_truncated_answers": [1],
        "num_unsupervised": [2],
    }
    assert loss.num_tokens == (count("No.") + 1) + 6 + 1 + (count("awe") + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": torch.zeros(2, 3, 8, 8)}, r"image has shape \[2, 3, 8, 8\], expected \[B, 3, 16, 16\]"),
        ({"image": torch.zeros(3, 16, 16)}, r"image has shape \[3, 16, 16\]"),
        (
            {"image": torch.zeros(0, 3, 16, 16), "image_index": None},
            r"no image: .*\[0, 3, 16, 16\]",
        ),
        ({"image": torch.zeros(2, 3, 16, 16, dtype=torch.uint8)}, r"image has type torch.uint8, expected floats"),
        ({"image": None}, r"samples need 'image', a tensor"),
        ({"image_index": torch.tensor([0, 1, 2, 0])}, r"image_index goes from 0 to 2, images from 0 to 1"),
        ({"image_index": torch.tensor([0, -1, 1, 0])}, r"image_index goes from -1 to 1"),
        ({"image_index": torch.tensor([0.0, 1, 1, 0])}, r"type torch.float32, expected long \[N\]"),
        ({"image_index": torch.tensor([0, 1])}, r"4 questions for 2 image indices"),
        ({"text_output": ["a", "b"]}, r"2 answers for 4 questions"),
        ({"text_output": None}, r"samples need 'text_output', a list of N answers"),
        ({"text_input": [], "text_output": []}, r"no question"),
    ],
)
def test_invalid_batches_are_rejected_by_name(build, mixed, change, message):
    with pytest.raises(ValueError, match=message):
        build("causal")({**mixed, **change})


def test_text_length_beyond_the_qformers_positions_is_a_configuration_problem(build):
    with pytest.raises(ConfigError, match=r"model.max_txt_len: 129 tokens, the Q-Former has 128 positions"):
        build("causal", max_txt_len=129)
