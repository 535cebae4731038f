"""Which tensors learn: parts by name, freezing, and the state dict that a checkpoint keeps.

Adapters (`model.lora`) learn wherever they stand; the weights beside them belong to their part and are frozen with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from lavis_emovit.errors import WeightsError
from lavis_emovit.models.lora import base_name, is_adapter, set_dropout_mode
from lavis_emovit.models.quantize import num_elements

# Part name -> prefix of its parameters inside transformers' InstructBlipForConditionalGeneration.
PART_PREFIXES = {
    "qformer": "qformer.",
    "query_tokens": "query_tokens",
    "language_projection": "language_projection.",
    "vision_layernorm": "vision_model.post_layernorm.",
    "vision_encoder": "vision_model.",
    "language_model": "language_model.",
}


def part_of(name: str) -> str:
    """The part that a parameter belongs to; the layer norm after the encoder is a part of its own."""
    if name.startswith(PART_PREFIXES["vision_layernorm"]):
        return "vision_layernorm"
    for part, prefix in PART_PREFIXES.items():
        if name.startswith(prefix):
            return part
    raise WeightsError(f"parameter '{name}' belongs to no part of the model; parts are {', '.join(PART_PREFIXES)}")


def freeze_all_but(
    core: nn.Module, parts: Iterable[str], frozen_dtype: torch.dtype, qformer_reads_text: bool = True
) -> list[str]:
    """Freeze every parameter outside `parts`; trained ones are float32 master weights, frozen ones `frozen_dtype`.

    What no gradient reaches is frozen too (`unreached_parameters`), in float32 where its part learns.

    Returns:
        the names of the trained parameters, in the module's order.
    """
    wanted = set(parts)
    unreached = set(unreached_parameters(core, qformer_reads_text))
    kept = _kept_in_float32(core, frozen_dtype)
    trained = []
    for name, parameter in core.named_parameters():
        in_part = part_of(name) in wanted or is_adapter(name)
        learns = in_part and name not in unreached
        parameter.requires_grad_(learns)
        if parameter.is_floating_point():
            full = in_part or kept & set(name.split("."))
            parameter.data = parameter.data.to(torch.float32 if full else frozen_dtype)
        if learns:
            trained.append(name)
    return trained


def _kept_in_float32(core: nn.Module, frozen_dtype: torch.dtype) -> set[str]:
    """Modules of the language model that overflow in float16 (T5's `wo`), as transformers knows them."""
    language_model = core.get_submodule("language_model")
    kept = getattr(language_model, "_keep_in_fp32_modules", None) or ()
    return set(kept) if frozen_dtype == torch.float16 else set()


def unreached_parameters(core: nn.Module, qformer_reads_text: bool = True) -> list[str]:
    """Parameters that take no part in any computation: what the Q-Former keeps for a question that it is not shown."""
    if qformer_reads_text:
        return []
    return [name for name, _ in core.named_parameters() if _reads_question(base_name(name))]


def dead_parameters(core: nn.Module, qformer_reads_text: bool = True) -> list[str]:
    """Parameters whose gradient is zero whatever the data, up to rounding, so that they never learn.

    - The feed-forward layer for text of the Q-Former's last layer: only the query tokens' output is read. Its gradient
      is exactly zero, and the original code carries it along in the same way.
    - Biases of the Q-Former's keys: they shift all scores of a query alike, which the softmax takes out again.
    - `unreached_parameters`, which have no gradient at all and are frozen for that reason.

    All others have a gradient from the first step on, so data-parallel training need not look for unused ones.
    """
    config: Any = core.config
    last = f"qformer.encoder.layer.{config.qformer_config.num_hidden_layers - 1}."
    dead = set(unreached_parameters(core, qformer_reads_text))
    for name, _ in core.named_parameters():
        if name.startswith((f"{last}intermediate.", f"{last}output.")):
            dead.add(name)
        if name.startswith("qformer.") and base_name(name).endswith(".attention.key.bias"):
            dead.add(name)
    return [name for name, _ in core.named_parameters() if name in dead]


def _reads_question(name: str) -> bool:
    if name.startswith(("qformer.embeddings.word_embeddings.", "qformer.embeddings.position_embeddings.")):
        return True
    part = name.split(".")
    return part[:3] == ["qformer", "encoder", "layer"] and part[4] in ("intermediate", "output")


def set_modes(core: nn.Module, parts: Iterable[str], training: bool) -> None:
    """Train mode for the trained modules only: a frozen module keeps its dropout off whatever is asked of the whole."""
    wanted = set(parts)
    core.training = training
    for part, prefix in PART_PREFIXES.items():
        if part == "query_tokens":
            continue
        core.get_submodule(prefix.rstrip(".")).train(training and part in wanted)
    # The layer norm lies inside the encoder, whose mode was set after it.
    core.get_submodule("vision_model.post_layernorm").train(training and "vision_layernorm" in wanted)
    set_dropout_mode(core, training)


def count_parameters(core: nn.Module) -> dict[str, int]:
    """Numbers of parameters, `trained` and `total`."""
    sizes = [(num_elements(parameter), parameter.requires_grad) for parameter in core.parameters()]
    return {"trained": sum(size for size, learns in sizes if learns), "total": sum(size for size, _ in sizes)}


def load_trained(core: nn.Module, trained: list[str], state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy `state` into the trained parameters; names and shapes must be exactly those that learn.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape; the text names each.
    """
    own = dict(core.named_parameters())
    learning = {name: own[name] for name in trained}
    if problems := _misfits(state, learning, needed=trained, unknown="not a trained tensor of this model"):
        raise WeightsError(
            f"{source} does not fit the trained parts of this model:\n{problems}\n"
            "Set model.trained_parts and model.lora as in the run that wrote it."
        )
    with torch.no_grad():
        for name in trained:
            own[name].copy_(state[name])


def load_values(core: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy tensors into a model, whether they learn or not; all parts but encoder and language model must be there.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape; the text names each.
    """
    own = {base_name(name): parameter for name, parameter in core.named_parameters() if not is_adapter(name)}
    needed = [name for name in own if part_of(name) not in ("vision_encoder", "language_model")]
    if problems := _misfits(state, own, needed=needed, unknown="unknown"):
        raise WeightsError(f"{source} does not fit this model:\n{problems}")
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def _misfits(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], needed: Iterable[str], unknown: str
) -> str:
    """What keeps a state dict from going into a model's own tensors, a line each; empty where it fits."""
    problems = [f"missing: {name}" for name in needed if name not in state]
    problems += [f"{unknown}: {name}" for name in state if name not in own]
    problems += [
        f"shape of {name}: {list(tensor.shape)}, expected {list(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and own[name].shape != tensor.shape
    ]
    more = f"\n  ... and {len(problems) - 10} more" if len(problems) > 10 else ""
    return "\n".join(f"  - {problem}" for problem in problems[:10]) + more


def fingerprint(core: nn.Module, trained: Iterable[str]) -> str:
    """sha256 over the names, shapes and a sample of the values of the frozen tensors.

    Values are sampled (64 a tensor, evenly spaced, as float32) so that a 7B model takes a moment, not minutes. Adapters
    learn and do not count; the weights beside them go by the names that they have without any.
    """
    digest = hashlib.sha256()
    learns = set(trained)
    frozen = {base_name(name): parameter for name, parameter in core.named_parameters() if name not in learns}
    for name, parameter in sorted(frozen.items()):
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // 64)
        digest.update(f"{name}{list(parameter.shape)}".encode())
        digest.update(flat[::step][:64].to(device="cpu", dtype=torch.float32).numpy().tobytes())
    return digest.hexdigest()
