"""LAVIS's own model classes on current transformers.

LAVIS 1.0.2 has its own BERTs, which rely on transformers 4: its classes could generate, kept their caches as tuples,
and had attributes that transformers 5 computes in `post_init`. Their base classes get what they miss. The copies of OPT
and T5 are replaced by transformers' own: that of T5 would scale Flan-T5's logits, because transformers 5 declares every
T5 tied.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import make_dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

# The heads of LAVIS's BERTs share their weights with the word embeddings, which transformers 4 did by itself.
_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
MODELS = "lavis.models."
# What LAVIS's models cannot do on any current installation, for `emovit doctor`.
LIMITS = {
    "gpt_dialogue": "LAVIS builds a plain GPT-2 without the layers for video, whose constructor fails in every version",
    "blip2_opt": "trains on a GPU only: LAVIS holds OPT in half precision and feeds it float32 outside autocast",
    "blip2_t5": "runs on a GPU only: LAVIS holds T5 in half precision and feeds it float32 outside autocast",
}


def limits() -> dict[str, str]:
    """Name of a model -> what it cannot do here, and why."""
    from importlib.util import find_spec

    found = dict(LIMITS)
    if find_spec("spacy") is None or find_spec("en_core_web_sm") is None:
        found["img2prompt_vqa"] = (
            "needs spacy and its model: pip install spacy; python -m spacy download en_core_web_sm"
        )
    return found


def mend(module: ModuleType) -> None:
    """Adapt the classes of a module of LAVIS that has just run; a module of another package stays as it is."""
    modeling = sys.modules.get("transformers.modeling_utils")
    if not module.__name__.startswith(MODELS) or modeling is None:
        return
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    for value in own:
        if isinstance(value, type) and modeling.PreTrainedModel in value.__bases__:
            _mend_base(value)
        elif hasattr(value, "get_output_embeddings") and value.__name__ in ("BertLMHeadModel", "BertForMaskedLM"):
            value._tied_weights_keys = dict(_TIED)
    replacement = _REPLACED.get(module.__name__.removeprefix(MODELS))
    if replacement is not None:
        name, make = replacement
        setattr(module, name, make(getattr(module, name)))


def mend_all() -> None:
    """`mend` for all modules of LAVIS that are loaded."""
    for module in list(sys.modules.values()):
        mend(module)


def _mend_base(base: Any) -> None:
    """Give a base class of LAVIS what transformers 4 gave it."""
    from transformers import GenerationMixin

    if GenerationMixin not in base.__mro__:
        base.__bases__ = (*base.__bases__, GenerationMixin)
    base._init_weights = _keeping_loaded(base._init_weights)
    base.init_weights = _init_weights
    base.get_head_mask = _get_head_mask
    base.invert_attention_mask = _invert_attention_mask
    base.generate = _generate
    base.can_generate = classmethod(_can_generate)


def _keeping_loaded(initialize: Any) -> Any:
    """LAVIS's initialisation of one module, which transformers 5 also calls for modules whose weights were loaded."""

    def initialize_missing(self: Any, module: Any) -> None:
        import torch

        parameters = list(module.parameters(recurse=False))
        if not parameters or not all(getattr(one, "_is_hf_initialized", False) for one in parameters):
            initialize(self, module)
        if isinstance(getattr(module, "position_ids", None), torch.Tensor):  # in no file, and built without values
            module.position_ids.copy_(torch.arange(module.position_ids.shape[-1]).expand_as(module.position_ids))

    return initialize_missing


def _init_weights(self: Any) -> None:
    from transformers import PreTrainedModel

    if "all_tied_weights_keys" in vars(self):
        PreTrainedModel.init_weights(self)
    else:
        self.post_init()  # which calls this function again


def _get_head_mask(self: Any, head_mask: Any, num_hidden_layers: int) -> Any:
    """A mask for each layer; None: no head is masked."""
    if head_mask is None:
        return [None] * num_hidden_layers
    per_layer = head_mask.expand(num_hidden_layers, -1) if head_mask.dim() == 1 else head_mask
    return per_layer[:, None, :, None, None].to(self.dtype)


def _invert_attention_mask(self: Any, mask: Any) -> Any:
    """A mask [N, T] or [N, T, S] of ones to what is added to attention scores."""
    import torch

    mask = mask[:, None] if mask.dim() == 3 else mask[:, None, None]
    return (1.0 - mask.to(self.dtype)) * torch.finfo(self.dtype).min


def _can_generate(cls: Any) -> bool:
    return any("prepare_inputs_for_generation" in vars(one) for one in cls.__mro__ if one.__module__.startswith(MODELS))


def _generate(self: Any, input_ids: Any, **kwargs: Any) -> Any:
    """transformers' `generate` without a cache, because its caches are no tuples any more: every step reads the whole
    text. LAVIS repeats inputs for each beam, as transformers now does itself."""
    from transformers import GenerationMixin

    for name in ("encoder_hidden_states", "encoder_attention_mask", "query_embeds"):
        if name in kwargs:
            kwargs[name] = _once(kwargs[name], input_ids)
    return GenerationMixin.generate(self, input_ids, **{**kwargs, "use_cache": False})


def _once(repeated: Any, input_ids: Any) -> Any:
    """One row for each row of `input_ids`, of rows that are repeated next to each other."""
    return repeated[:: len(repeated) // len(input_ids)]


def _old_numpy(numpy: Any) -> Any:
    """numpy with the name that LAVIS uses and numpy 2 removed."""
    return SimpleNamespace(**{**vars(numpy), "Inf": numpy.inf})


def _with_encoder_output_m(output: Any) -> Any:
    """The dataclass with the field that `blip_classification` sets and LAVIS forgot."""
    return make_dataclass(output.__name__, [("encoder_output_m", Any, None)], bases=(output,))


def _own_t5(copy: Any) -> Any:
    from transformers import T5ForConditionalGeneration

    return T5ForConditionalGeneration


def _opt_with_query_embeds(copy: Any) -> Any:
    """transformers' OPT with the argument of LAVIS's copy: embeddings that `generate` reads before the prompt."""
    import torch
    from transformers import OPTForCausalLM

    class OPTWithQueryEmbeds(OPTForCausalLM):
        def generate(self, input_ids: Any, query_embeds: Any, attention_mask: Any, **options: Any) -> Any:
            embeds = self.get_input_embeddings()(input_ids)
            embeds = torch.cat([_once(query_embeds, input_ids).to(embeds.dtype), embeds], dim=1)
            new = super().generate(inputs_embeds=embeds, attention_mask=attention_mask, **options)
            return torch.cat([input_ids.repeat_interleave(len(new) // len(input_ids), dim=0), new], dim=1)

    return OPTWithQueryEmbeds


def _fid_encoder(wrapper: Any) -> Any:
    """LAVIS's encoder of several contexts, without names that T5 no longer has, and with an output that it expects."""
    from torch import nn
    from transformers.modeling_outputs import BaseModelOutput

    class EncoderOfContexts(wrapper):
        def __init__(self, encoder: Any):
            nn.Module.__init__(self)
            self.encoder, self.block = encoder, encoder.block
            self.main_input_name = encoder.main_input_name

        def forward(self, input_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:
            states = super().forward(input_ids, attention_mask, **options)[0]
            return BaseModelOutput(last_hidden_state=states)

    return EncoderOfContexts


# Module -> a name in it, and what makes its replacement from what LAVIS has there.
_REPLACED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "albef_models.albef_pretrain": ("np", _old_numpy),
    "alpro_models.alpro_retrieval": ("np", _old_numpy),
    "blip_models.blip_classification": ("BlipIntermediateOutput", _with_encoder_output_m),
    "blip2_models.blip2_opt": ("OPTForCausalLM", _opt_with_query_embeds),
    "pnp_vqa_models.pnp_unifiedqav2_fid": ("T5EncoderWrapper", _fid_encoder),
    "blip2_models.blip2_t5": ("T5ForConditionalGeneration", _own_t5),
}
