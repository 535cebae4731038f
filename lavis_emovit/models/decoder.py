"""A decoder-only language model by itself: what another program needs to run it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from lavis_emovit.models import lora


@dataclass(frozen=True)
class Decoder:
    """A language model of transformers.

    Attributes:
        config: its configuration, with `architectures`.
        tensors: function () -> its tensors under the names of that architecture, adapters merged, one at a time.
        learns: whether a tensor of it is trained.
    """

    config: Any
    tensors: Callable[[], Iterator[tuple[str, torch.Tensor]]]
    dtype: torch.dtype
    learns: bool


def whole_decoder(language_model: Any) -> Decoder:
    """The decoder of a model that has its output head."""
    head, embedding = language_model.get_output_embeddings(), language_model.get_input_embeddings()
    tied = _name_of(language_model, head) if head.weight is embedding.weight else None

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        return lora.merged_tensors(language_model, lambda name: name != f"{tied}.weight")

    return _decoder(language_model.config, type(language_model), tensors, [language_model], head, tied is not None)


def joined_decoder(core: Any, body: Any) -> Decoder | None:
    """The decoder that `body` is with the output head of `core`; None if transformers has no class of that kind."""
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(body.config), None)
    if kind is None:
        return None
    head, embedding = core.get_output_embeddings(), core.get_input_embeddings()
    with torch.device("meta"):
        alone = kind(copy.deepcopy(body.config))
    is_tied, head_name = head.weight is embedding.weight, _name_of(alone, alone.get_output_embeddings())
    prefixes = {f"{_name_of(core, body)}.": f"{kind.base_model_prefix}."}
    if not is_tied:
        prefixes[f"{_name_of(core, head)}."] = f"{head_name}."

    names = {
        name: other + name.removeprefix(prefix)
        for name in lora.merged_names(core)
        for prefix, other in prefixes.items()
        if name.startswith(prefix)
    }

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        return ((names[name], tensor) for name, tensor in lora.merged_tensors(core, names.__contains__))

    expected = set(alone.state_dict()) - ({f"{head_name}.weight"} if is_tied else set())
    if set(names.values()) != expected:
        return None
    return _decoder(body.config, kind, tensors, [body, head], head, is_tied)


def _decoder(config: Any, kind: type, tensors: Any, modules: list[nn.Module], head: Any, is_tied: bool) -> Decoder:
    config = copy.deepcopy(config)
    config.architectures, config.tie_word_embeddings = [kind.__name__], is_tied
    config.vocab_size = len(head.weight)  # tokens may have been added
    learns = any(parameter.requires_grad for module in modules for parameter in module.parameters())
    return Decoder(config, tensors, next(modules[0].parameters()).dtype, learns)


def _name_of(core: nn.Module, module: nn.Module) -> str:
    return next(name for name, one in core.named_modules() if one is module)
