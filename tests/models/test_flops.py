"""Properties of the operations of a training step: they equal a calculation by hand, with and without frozen parts, and
the sizes that they are multiplied with are those of the batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lavis.models import load_model
from torch import nn

from lavis_emovit.models.instructblip.flops import InstructBlipFlops
from lavis_emovit.models.lengths import PassSizes


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


def modules(trained: tuple[str, ...], is_seq2seq: bool = False) -> Any:
    """Sizes that no two parts share: image encoder 1000, Q-Former 10 + 20 + 40 + 80, language model 300, head 7."""
    core = Block(language_projection__weight=3)
    core.query_tokens = nn.Parameter(torch.zeros(1, 4, 1))
    core.config = SimpleNamespace(num_query_tokens=4, use_decoder_only_language_model=not is_seq2seq)
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
    return core


SIZES = PassSizes(
    num_images=2,
    num_reads=3,
    num_question_tokens=5,
    real_positions=(100,),
    run_positions=(120,),
    num_supervised=9,
)


def test_layers_over_time_count_for_the_queries_alone() -> None:
    trained = ("qformer", "query_tokens", "language_projection")
    plain, timed = modules(trained), modules(trained)
    timed.qformer.frames = Block(embedding__weight=99, layers__0__weight=15)
    without, with_layers = InstructBlipFlops.of(plain), InstructBlipFlops.of(timed)
    assert with_layers.read - without.read == 6 * 15 * 4
    assert with_layers.question_token == without.question_token


def test_flops_of_emovit_by_hand() -> None:
    """Q-Former, query tokens and projection are trained: 2N in the encoder, 6N in the Q-Former, 4N after it."""
    flops = InstructBlipFlops.of(modules(("qformer", "query_tokens", "language_projection")))
    image = 2 * 1000 * 17
    own = 6 * (10 + 40 + 40)  # attention, and the feed-forward layer for queries
    features, read = 6 * 20 / 2 * 17, own * 4 + 6 * 20 / 2 * 4
    assert (flops.image, flops.image_features, flops.read, flops.question_token) == (image, features, read, own)
    assert (flops.positions, flops.supervised) == ((4 * 300,), 4 * 7)
    assert flops.total(SIZES) == 2 * (image + features) + 3 * read + 5 * own + 100 * 4 * 300 + 9 * 4 * 7


@pytest.mark.parametrize(
    ("trained", "factor_image", "factor_qformer", "factor_llm"),
    [
        ((), 2, 2, 2),  # nothing is trained: forward only
        (("qformer",), 2, 6, 4),
        (("language_model",), 2, 2, 6),  # no gradient goes into the Q-Former
        (("language_projection",), 2, 2, 4),
        (("query_tokens",), 2, 4, 4),
        (("vision_model", "qformer", "query_tokens", "language_projection", "language_model"), 6, 6, 6),
    ],
)
def test_factors_follow_from_the_trained_parts(
    trained: tuple[str, ...], factor_image: int, factor_qformer: int, factor_llm: int
) -> None:
    flops = InstructBlipFlops.of(modules(trained))
    assert flops.image == factor_image * 1000 * 17
    assert flops.question_token == factor_qformer * 90
    assert flops.positions == (factor_llm * 300,)


def test_encoder_and_decoder_count_their_own_positions() -> None:
    flops = InstructBlipFlops.of(modules(("qformer",), is_seq2seq=True))
    assert flops.positions == (4 * 300, 4 * 500)
    sizes = PassSizes(0, 0, 0, (10, 3), (10, 3), 0)
    assert flops.total(sizes) == 10 * 4 * 300 + 3 * 4 * 500


def test_flops_of_the_tiny_model_follow_from_its_named_weights() -> None:
    """4N for the layers of the frozen language model."""
    tiny: Any = load_model("emovit_tiny")
    layers = sum(p.numel() for n, p in tiny.core.language_model.named_parameters() if ".layers." in n)
    flops = tiny.step_flops()
    assert flops.positions[0] == pytest.approx(4 * layers, rel=0.01)
    tiny.train()
    image = torch.zeros(1, 3, 96, 96)
    questions = ["What?", "Why is that so, and how?"]
    batch = {"image": image, "image_index": torch.tensor([0, 0]), "text_input": questions}
    sizes = tiny.answer_loss({**batch, "text_output": ["A dog.", "No."]}).sizes
    assert (sizes.num_images, sizes.num_reads) == (1, 2)
    assert sum(sizes.run_positions) >= sum(sizes.real_positions) > 2 * tiny.core.query_tokens.shape[1]
    assert sizes.num_supervised < sum(sizes.real_positions)
