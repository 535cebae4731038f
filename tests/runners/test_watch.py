"""Properties of what is measured beside a step: FLOPs are those worked out by hand, with and without frozen parts; the
padding that is told is that of the rectangles which really ran; spikes are flagged by the stated rule and nothing else;
MFU, tokens and memory are of all ranks together; the table of GPUs is well formed."""

from __future__ import annotations

import json
import random
import statistics
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lavis_emovit.models.lengths import PassSizes, add_sizes, length_groups, positions_of
from lavis_emovit.runners.flops import PEAKS_PATH, StepFlops, peak_flops
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.runners.watch import MIN_STEPS, LossWatch, RankStep, StepMeter

RUN = {"output_dir": "out", "max_epoch": 1, "global_batch_size": 1, "init_lr": 1e-3}


def settings(**more: Any) -> RunSettings:
    return RunSettings(**RUN, **more)


class Block(nn.Module):
    """Weights under the names that transformers gives them."""

    def __init__(self, **sizes: int):
        super().__init__()
        for name, size in sizes.items():
            module: nn.Module = self
            *path, last = name.split("__")
            for part in path:
                if part not in module._modules:
                    module.add_module(part, Block())
                module = module._modules[part]
            module.register_parameter(last, nn.Parameter(torch.zeros(size)))


def model(trained: tuple[str, ...], is_seq2seq: bool = False) -> Any:
    """Sizes that no two parts share: image encoder 1000, Q-Former 10 + 20 + 40 + 80, language model 300, head 7."""
    core = Block(language_projection__weight=3)
    core.query_tokens = nn.Parameter(torch.zeros(1, 4, 1))
    core.config = SimpleNamespace(num_query_tokens=4)
    vision = Block(encoder__weight=1000, post_layernorm__weight=2)
    vision.embeddings = Block(patch=5)
    vision.embeddings.num_positions = 17
    core.vision_model = vision
    core.qformer = Block(
        embeddings__word=50,
        encoder__layer__attention__output__w=10,
        encoder__layer__crossattention__w=20,
        encoder__layer__intermediate__w=40,
        encoder__layer__output__w=40,
        encoder__layer__intermediate_query__w=40,
        encoder__layer__output_query__w=40,
    )
    language_model = Block(base__embed=11, base__layers=300, head__weight=7)
    language_model.base_model = language_model._modules["base"]
    if is_seq2seq:
        language_model = Block(encoder__embed=11, encoder__layers=300, decoder__layers=500, head__weight=7)
    language_model.get_output_embeddings = lambda: language_model._modules["head"]
    core.language_model = language_model
    table = language_model._modules["encoder" if is_seq2seq else "base"].embed
    core.get_input_embeddings = lambda: SimpleNamespace(weight=table)
    for name, parameter in core.named_parameters():
        parameter.requires_grad_(name.startswith(trained) if trained else False)
    return SimpleNamespace(core=core, is_seq2seq=is_seq2seq)


SIZES = PassSizes(
    num_images=2,
    num_reads=3,
    num_question_tokens=5,
    real_positions=(100,),
    run_positions=(120,),
    num_supervised=9,
)


def test_flops_of_emovit_by_hand() -> None:
    """Q-Former, query tokens and projection learn: 2N through the encoder, 6N in the Q-Former, 4N behind it."""
    flops = StepFlops.of(model(("qformer", "query_tokens", "language_projection")))
    image = 2 * 1000 * 17
    own = 6 * (10 + 40 + 40)  # attention, and the feed-forward layer for queries
    read = own * 4 + 6 * 20 / 2 * (4 + 17)
    assert (flops.image, flops.read, flops.question_token) == (image, read, own)
    assert (flops.positions, flops.supervised) == ((4 * 300,), 4 * 7)
    assert flops.total(SIZES) == 2 * image + 3 * read + 5 * own + 100 * 4 * 300 + 9 * 4 * 7


@pytest.mark.parametrize(
    ("trained", "factor_image", "factor_qformer", "factor_llm"),
    [
        ((), 2, 2, 2),  # nothing learns: forward only
        (("qformer",), 2, 6, 4),
        (("language_model",), 2, 2, 6),  # a gradient into the Q-Former leads nowhere
        (("language_projection",), 2, 2, 4),
        (("query_tokens",), 2, 4, 4),
        (("vision_model", "qformer", "query_tokens", "language_projection", "language_model"), 6, 6, 6),
    ],
)
def test_factors_follow_what_learns(
    trained: tuple[str, ...], factor_image: int, factor_qformer: int, factor_llm: int
) -> None:
    flops = StepFlops.of(model(trained))
    assert flops.image == factor_image * 1000 * 17
    assert flops.question_token == factor_qformer * 90
    assert flops.positions == (factor_llm * 300,)


def test_encoder_and_decoder_count_their_own_positions() -> None:
    flops = StepFlops.of(model(("qformer",), is_seq2seq=True))
    assert flops.positions == (4 * 300, 4 * 500)
    sizes = PassSizes(0, 0, 0, (10, 3), (10, 3), 0)
    assert flops.total(sizes) == 10 * 4 * 300 + 3 * 4 * 500


def test_the_benchmark_of_the_step_counts_the_same() -> None:
    """On the shipped tiny model, against the sum over its named weights: 4N for the frozen language model's layers."""
    from lavis.models import load_model

    tiny: Any = load_model("emovit_tiny")
    layers = sum(p.numel() for n, p in tiny.core.language_model.named_parameters() if ".layers." in n)
    flops = StepFlops.of(tiny)
    assert flops.positions[0] == pytest.approx(4 * layers, rel=0.01)
    tiny.train()
    image = torch.zeros(1, 3, 96, 96)
    questions = ["What?", "Why is that so, and how?"]
    batch = {"image": image, "image_index": torch.tensor([0, 0]), "text_input": questions}
    sizes = tiny.answer_loss({**batch, "text_output": ["A dog.", "No."]}).sizes
    assert (sizes.num_images, sizes.num_reads) == (1, 2)
    assert sum(sizes.run_positions) >= sum(sizes.real_positions) > 2 * tiny.core.query_tokens.shape[1]
    assert sizes.num_supervised < sum(sizes.real_positions)


def test_padding_is_that_of_the_rectangles() -> None:
    real, run = positions_of([(3,), (10,), (4,), (9,)], [[0, 2], [1, 3]])
    assert (real, run) == ((26,), (2 * 4 + 2 * 10,))
    assert PassSizes(0, 0, 0, real, run, 0).padding_share == pytest.approx(1 - 26 / 28)
    rng = random.Random(3)
    for _ in range(50):
        lengths = [(rng.randint(1, 60), rng.randint(1, 20)) for _ in range(rng.randint(1, 12))]
        groups = length_groups(lengths, 16)
        real, run = positions_of(lengths, groups)
        by_hand = [sum(len(g) * max(lengths[row][side] for row in g) for g in groups) for side in (0, 1)]
        assert run == tuple(by_hand) and real == tuple(map(sum, zip(*lengths)))


def test_losses_out_of_line_by_the_stated_rule() -> None:
    rng = random.Random(0)
    earlier = [1.0 + rng.gauss(0, 0.1) for _ in range(60)]
    watch = LossWatch(8.0, earlier)
    median = statistics.median(earlier)
    limit = median + 8 * 1.4826 * statistics.median(abs(loss - median) for loss in earlier)
    assert watch.limit() == pytest.approx(limit)
    assert not watch.is_spike(limit * 0.999)
    assert LossWatch(8.0, earlier).is_spike(limit * 1.001)
    assert not LossWatch(None, earlier).is_spike(1e9)


def test_a_normal_run_is_not_flagged_and_a_new_level_only_at_first() -> None:
    rng = random.Random(1)
    watch = LossWatch(8.0)
    falling = [3.0 * 0.98**step + 0.3 + abs(rng.gauss(0, 0.05)) for step in range(400)]
    assert not any(watch.is_spike(loss) for loss in falling)
    flags = [watch.is_spike(2.0 + rng.gauss(0, 0.05)) for _ in range(200)]
    assert flags[0] and not any(flags[100:])
    few = LossWatch(8.0)
    assert not any(few.is_spike(loss) for loss in [*[1.0] * (MIN_STEPS - 1), 50.0])
    even = LossWatch(8.0, [1.0] * 50)
    assert not even.is_spike(1.01), "rounding noise around a loss that stands still is no spike"


def test_meter_adds_up_ranks() -> None:
    meter = StepMeter(nn.Module(), settings(peak_tflops=1e-6), torch.device("cpu"))
    meter._flops = StepFlops(image=10, read=0, question_token=0, positions=(2,), supervised=0)
    step = meter.take(4, add_sizes(SIZES, SIZES))
    assert step.num_images == 4 and step.sizes == SIZES + SIZES and step.gpu_memory_gib is None
    assert 0.01 < step.memory_gib < 100
    assert meter.take(0, None).sizes is None
    assert add_sizes(None, SIZES) == add_sizes(SIZES, None) == SIZES
    row = meter.fields([step, RankStep(3, SIZES, 1e6, None)], step_s=2.0)
    assert row["tokens_per_s"] == 300 / 2.0
    assert row["padding_share"] == pytest.approx(1 - 300 / 360)
    # 6 images at 10 and 300 positions at 2, in 2 s, over twice a million a second.
    assert row["mfu"] == pytest.approx((60 + 600) / 2.0 / 2e6)
    assert row["memory_gib"] == 1e6
    assert "gpu_memory_gib" not in row


def test_no_mfu_without_a_peak() -> None:
    meter = StepMeter(nn.Module(), settings(), torch.device("cpu"))
    assert "mfu" not in meter.fields([RankStep(1, SIZES, 1.0, None)], 1.0)


@pytest.mark.parametrize(
    ("device", "half", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 66.9),
        ("NVIDIA H100 PCIe", 756.5, 51.2),
        ("NVIDIA H200", 989.4, 66.9),
        ("NVIDIA A100-SXM4-80GB", 312.0, 19.5),
        ("NVIDIA L40S", 362.05, 91.6),
        ("NVIDIA L4", 121.0, 30.3),
        ("Tesla V100-SXM2-32GB", 125.0, 15.7),
    ],
)
def test_peaks_by_the_names_that_drivers_give(device: str, half: float, fp32: float) -> None:
    assert peak_flops(device, is_half=True) == half * 1e12
    assert peak_flops(device, is_half=False) == fp32 * 1e12


def test_an_unknown_gpu_has_no_peak_and_every_entry_a_source() -> None:
    assert peak_flops("Radeon 9700", is_half=True) is None
    entries = json.loads(PEAKS_PATH.read_text())["gpus"]
    assert all(entry["source"] and entry["half"] >= entry["fp32"] > 1 for entry in entries)
    for entry in entries:  # no earlier entry takes what belongs to this one
        assert peak_flops(entry["name"], is_half=True) == entry["half"] * 1e12
