"""What a training step has to compute at least, and how much of a machine's peak that uses.

Model FLOPs utilisation (MFU; Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B) counts what the
samples need, whatever was computed: no padding, no picture twice, no recomputed activations. A matrix of N weights
takes 2N operations for a token forward, 2N for the gradient of its input where something before it learns, and 2N for
its own gradient where it learns. So a frozen language model behind a Q-Former that learns counts 4N a token, not the 6N
of full training. Attention scores are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from lavis_emovit.models.lengths import PassSizes
from lavis_emovit.models.quantize import num_elements

PEAKS_PATH = Path(__file__).with_name("gpu_peaks.json")


@dataclass(frozen=True)
class StepFlops:
    """Operations of a training step for each thing that it runs over.

    Attributes:
        image: of the image encoder.
        read: of the Q-Former's queries, for a picture and a question.
        question_token: of the Q-Former.
        positions: of the language model; of encoder and decoder, where it has both.
        supervised: of the output head.
    """

    image: float
    read: float
    question_token: float
    positions: tuple[float, ...]
    supervised: float

    @classmethod
    def of(cls, model: Any) -> StepFlops | None:
        """The operations of an EmoVIT model, or None for a model of another make."""
        core = getattr(model, "core", None)
        if core is None:
            return None
        language_model = core.language_model
        head = language_model.get_output_embeddings()
        sides = (language_model.encoder, language_model.decoder) if model.is_seq2seq else (language_model.base_model,)
        learns_before_qformer = _learns(core.vision_model.parameters())
        learns_before_llm = learns_before_qformer or any(
            _learns(part)
            for part in (core.qformer.parameters(), [core.query_tokens], core.language_projection.parameters())
        )
        table = id(core.get_input_embeddings().weight)
        body = [_count(side.parameters(), learns_before_llm, lambda p: id(p) != table) for side in sides]
        encoder = core.vision_model.encoder
        patches, queries = core.vision_model.embeddings.num_positions, core.config.num_query_tokens
        qformer = core.qformer
        words = {id(parameter) for parameter in qformer.embeddings.parameters()}
        crossed = {id(p) for name, p in qformer.named_parameters() if ".crossattention." in name}
        # A position goes through one of two feed-forward layers, that for queries or that for text.
        for_text = {
            id(p)
            for name, p in qformer.named_parameters()
            if ".intermediate." in name or (".output." in name and "attention" not in name)
        }
        before = learns_before_qformer or core.query_tokens.requires_grad
        parts = {
            name: _count(qformer.parameters(), before, wanted)
            for name, wanted in (
                ("own", lambda p: id(p) not in words | crossed | for_text),
                ("crossed", lambda p: id(p) in crossed),
            )
        }
        return cls(
            image=_count(encoder.parameters(), learns_before=False) * patches,
            # Of cross-attention, half the weights (query and output) act on the queries and half on the patches.
            read=parts["own"] * queries + parts["crossed"] / 2 * (queries + patches),
            question_token=parts["own"],
            positions=tuple(body),
            supervised=_count(head.parameters(), learns_before_llm or any(map(_learns_in, sides))),
        )

    def total(self, sizes: PassSizes) -> float:
        """Operations of a step over all that it ran over."""
        return (
            self.image * sizes.num_images
            + self.read * sizes.num_reads
            + self.question_token * sizes.num_question_tokens
            + sum(flops * count for flops, count in zip(self.positions, sizes.real_positions))
            + self.supervised * sizes.num_supervised
        )


def peak_flops(device_name: str, *, is_half: bool) -> float | None:
    """Peak of a GPU in operations a second, by its name; None where it is not in gpu_peaks.json.

    Args:
        device_name: as `torch.cuda.get_device_name` gives it.
        is_half: bf16 or fp16, else float32.
    """
    for gpu in _peaks():
        if gpu["name"] in device_name:
            return gpu["half" if is_half else "fp32"] * 1e12
    return None


@cache
def _peaks() -> list[dict[str, Any]]:
    return json.loads(PEAKS_PATH.read_text(encoding="utf-8"))["gpus"]


def _learns(parameters: Iterable[nn.Parameter]) -> bool:
    return any(parameter.requires_grad for parameter in parameters)


def _learns_in(module: nn.Module) -> bool:
    return _learns(module.parameters())


def _count(
    parameters: Iterable[nn.Parameter],
    learns_before: bool,
    wanted: Callable[[nn.Parameter], bool] = lambda parameter: True,
) -> float:
    """Operations for a token: 2 forward, 2 backward where a gradient comes through, 2 where the weight learns."""
    chosen = [parameter for parameter in parameters if wanted(parameter)]
    learns = _learns(chosen)
    total = 0.0
    for parameter in chosen:
        factor = 2 + 2 * (learns_before or learns) + 2 * parameter.requires_grad
        # Weights that are spread over ranks are empty here and know their whole size.
        total += factor * (getattr(parameter, "ds_numel", None) or num_elements(parameter))
    return total
