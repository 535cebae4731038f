"""Floating-point operations that a training step of an InstructBLIP model needs at least.

Model FLOPs utilisation (MFU; Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B) counts what the
samples need, whatever was computed: no padding, no image twice, no recomputed activations. A matrix of N weights takes
2N operations for a token forward, 2N for the gradient of its input if something before it is trained, and 2N for its
own gradient if it is trained. So a frozen language model behind a trained Q-Former counts 4N a token, not the 6N of
full training. Attention scores are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from lavis_emovit.models.lengths import PassSizes
from lavis_emovit.models.tensors import num_elements


@dataclass(frozen=True)
class InstructBlipFlops:
    """Operations of a training step for each thing that it runs over.

    Attributes:
        image: of the image encoder.
        image_features: of what the Q-Former computes once for an image, its keys and values.
        read: of the Q-Former's queries, for an image and a question.
        question_token: of the Q-Former.
        positions: of the language model; of encoder and decoder, if it has both.
        supervised: of the output head.
    """

    image: float
    image_features: float
    read: float
    question_token: float
    positions: tuple[float, ...]
    supervised: float

    @classmethod
    def of(cls, core: Any, image: float | None = None, num_patches: int | None = None) -> InstructBlipFlops:
        """The operations of transformers' InstructBLIP modules.

        Args:
            image, num_patches: of an image encoder of another kind.
        """
        language_model = core.language_model
        head = language_model.get_output_embeddings()
        is_causal = core.config.use_decoder_only_language_model
        sides = (language_model.base_model,) if is_causal else (language_model.encoder, language_model.decoder)
        learns_before_qformer = _learns(core.vision_model.parameters())
        learns_before_llm = learns_before_qformer or any(
            _learns(part)
            for part in (core.qformer.parameters(), [core.query_tokens], core.language_projection.parameters())
        )
        table = id(core.get_input_embeddings().weight)
        queries = core.config.num_query_tokens
        if image is None or num_patches is None:
            num_patches = core.vision_model.embeddings.num_positions
            image = _count(core.vision_model.encoder.parameters(), learns_before=False) * num_patches
        qformer = core.qformer
        words = {
            id(p) for name, p in qformer.named_parameters() if name.startswith(("embeddings.", "frames.embedding."))
        }
        crossed = {id(p) for name, p in qformer.named_parameters() if ".crossattention." in name}
        over_time = {id(p) for name, p in qformer.named_parameters() if name.startswith("frames.layers.")}
        # A position passes one of two feed-forward layers: the one for queries or the one for text.
        for_text = {
            id(p)
            for name, p in qformer.named_parameters()
            if ".intermediate." in name or (".output." in name and "attention" not in name)
        }
        before = learns_before_qformer or core.query_tokens.requires_grad
        own = _count(qformer.parameters(), before, lambda p: id(p) not in words | crossed | for_text | over_time)
        crossing = _count(qformer.parameters(), before, lambda p: id(p) in crossed)
        comparing = _count(qformer.parameters(), before, lambda p: id(p) in over_time)
        return cls(
            image=image,
            # Half the weights of cross-attention (query and output) act on the queries, half on the patches.
            image_features=crossing / 2 * num_patches,
            read=(own + comparing + crossing / 2) * queries,
            question_token=own,
            positions=tuple(_count(side.parameters(), learns_before_llm, lambda p: id(p) != table) for side in sides),
            supervised=_count(
                head.parameters(), learns_before_llm or any(_learns(side.parameters()) for side in sides)
            ),
        )

    def total(self, sizes: PassSizes) -> float:
        """Operations of a step that ran over `sizes`."""
        return (
            (self.image + self.image_features) * sizes.num_images
            + self.read * sizes.num_reads
            + self.question_token * sizes.num_question_tokens
            + sum(flops * count for flops, count in zip(self.positions, sizes.real_positions))
            + self.supervised * sizes.num_supervised
        )


def _learns(parameters: Iterable[nn.Parameter]) -> bool:
    return any(parameter.requires_grad for parameter in parameters)


def _count(
    parameters: Iterable[nn.Parameter],
    learns_before: bool,
    wanted: Callable[[nn.Parameter], bool] = lambda parameter: True,
) -> float:
    """Operations per token: 2 forward, 2 backward if a gradient passes through, 2 if the weight is trained."""
    chosen = [parameter for parameter in parameters if wanted(parameter)]
    learns = _learns(chosen)
    total = 0.0
    for parameter in chosen:
        factor = 2 + 2 * (learns_before or learns) + 2 * parameter.requires_grad
        total += factor * num_weights(parameter)
    return total


def num_weights(parameter: nn.Parameter) -> int:
    """Numbers in a parameter. If it is spread over ranks, it is empty here, and `ds_numel` is its whole size."""
    return getattr(parameter, "ds_numel", None) or num_elements(parameter)
