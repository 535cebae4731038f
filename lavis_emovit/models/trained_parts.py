"""Trained and frozen tensors of a model by part: freezing, train mode, and the state dict of a checkpoint.

Adapters (`model.lora`) are trained in any part; the weights under them belong to their part and are frozen with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from lavis_emovit.models.lora import base_name, is_adapter, set_dropout_mode
from lavis_emovit.models.mapped_files import MappedFiles, are_casts_later, wanted_dtype
from lavis_emovit.models.part_names import Prefixes, part_of
from lavis_emovit.models.tensors import num_elements


def freeze_all_but(
    core: nn.Module,
    prefixes: Prefixes,
    parts: Collection[str],
    frozen_dtype: torch.dtype,
    unused: Collection[str] = (),
    float32_modules: Collection[str] = (),
) -> list[str]:
    """Freeze every parameter outside `parts`; trained ones are float32 master weights, frozen ones `frozen_dtype`.

    Args:
        prefixes: part -> prefixes of its parameters.
        unused: parameters without a gradient: frozen too, in float32 if their part is trained.
        float32_modules: names of modules that stay float32.

    Returns:
        names of the trained parameters, in the module's order.
    """
    trained, files = [], MappedFiles()
    for name, parameter in core.named_parameters():
        in_part = part_of(name, prefixes) in parts or is_adapter(name)
        learns = in_part and base_name(name) not in unused
        parameter.requires_grad_(learns)
        if parameter.is_floating_point():
            full = in_part or not set(float32_modules).isdisjoint(name.split("."))
            dtype = torch.float32 if full else frozen_dtype
            if are_casts_later() and not learns:
                files.cast_later(parameter, dtype)
            else:
                # A trained weight must not be a view on a file, which may change.
                parameter.data = files.cast(parameter.data, dtype, own=learns)
        if learns:
            trained.append(name)
    for module in core.modules():
        # The statistics of a batch norm must have the type of its weight.
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.weight is not None:
            for statistic in filter(torch.is_tensor, (module.running_mean, module.running_var)):
                statistic.data = statistic.to(wanted_dtype(module.weight))
    return trained


def set_modes(core: nn.Module, prefixes: Prefixes, parts: Collection[str], training: bool) -> None:
    """Train mode for trained modules only: dropout in a frozen module stays off in training."""
    core.training = training
    # Outer parts first, because setting a mode includes the parts inside. Without a dot, a part is a single parameter.
    places = [(prefix, part) for part, some in prefixes.items() for prefix in some]
    for prefix, part in sorted(places, key=lambda place: len(place[0])):
        if prefix.endswith("."):
            core.get_submodule(prefix.rstrip(".")).train(training and part in parts)
    set_dropout_mode(core, training)


def count_parameters(core: nn.Module) -> dict[str, int]:
    """Numbers of parameters, `trained` and `total`."""
    sizes = [(num_elements(parameter), parameter.requires_grad) for parameter in core.parameters()]
    return {"trained": sum(size for size, learns in sizes if learns), "total": sum(size for size, _ in sizes)}


def load_values(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors into parameters of the same names."""
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


@contextmanager
def values_in_place(own: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside the block, parameters have other values; afterwards exactly those before.

    Values are copied, because an engine may refer to the storages.
    """
    kept = {name: tensor.detach().clone() for name, tensor in own.items()}
    try:
        load_values(own, values)
        yield
    finally:
        load_values(own, kept)


def fingerprint(core: nn.Module, trained: Iterable[str]) -> str:
    """sha256 over the names, shapes and a sample of the values of the frozen tensors.

    64 values of each tensor, evenly spaced, as float32, so that a 7B model takes a moment instead of minutes. Adapters
    are trained and do not count; the weights under them count by the names that they have without adapters.
    """
    digest = hashlib.sha256()
    learns = set(trained)
    frozen = {base_name(name): parameter for name, parameter in core.named_parameters() if name not in learns}
    for name, parameter in sorted(frozen.items()):
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // 64)
        digest.update(f"{name}{list(parameter.shape)}".encode())
        sample = flat[::step][:64].to(wanted_dtype(parameter))
        digest.update(sample.to(device="cpu", dtype=torch.float32).numpy().tobytes())
    return digest.hexdigest()
