"""Which tensors learn: parts by name, freezing, and the state dict that a checkpoint keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from lavis_emovit.errors import WeightsError

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


def freeze_all_but(core: nn.Module, parts: Iterable[str], frozen_dtype: torch.dtype) -> list[str]:
    """Freeze every parameter outside `parts`; trained ones are float32 master weights, frozen ones `frozen_dtype`.

    Returns:
        the names of the trained parameters, in the module's order.
    """
    wanted = set(parts)
    trained = []
    for name, parameter in core.named_parameters():
        learns = part_of(name) in wanted
        parameter.requires_grad_(learns)
        parameter.data = parameter.data.to(torch.float32 if learns else frozen_dtype)
        if learns:
            trained.append(name)
    return trained


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


def load_trained(core: nn.Module, trained: list[str], state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy `state` into the trained parameters; names and shapes must be exactly those that learn.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape; the text names each.
    """
    own = dict(core.named_parameters())
    problems = [f"missing: {name}" for name in trained if name not in state]
    problems += [f"not a trained tensor of this model: {name}" for name in state if name not in set(trained)]
    problems += [
        f"shape of {name}: {list(state[name].shape)}, expected {list(own[name].shape)}"
        for name in trained
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems[:10])
        more = f"\n  ... and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise WeightsError(
            f"{source} does not fit the trained parts of this model:\n{shown}{more}\n"
            "Set model.trained_parts as in the run that wrote it."
        )
    with torch.no_grad():
        for name in trained:
            own[name].copy_(state[name])


def fingerprint(core: nn.Module, trained: Iterable[str]) -> str:
    """sha256 over the names, shapes and a sample of the values of the frozen tensors.

    Values are sampled (64 a tensor, evenly spaced, as float32) so that a 7B model takes a moment, not minutes.
    """
    digest = hashlib.sha256()
    learns = set(trained)
    for name, parameter in sorted(core.named_parameters()):
        if name in learns:
            continue
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // 64)
        digest.update(f"{name}{list(parameter.shape)}".encode())
        digest.update(flat[::step][:64].to(device="cpu", dtype=torch.float32).numpy().tobytes())
    return digest.hexdigest()
