"""Conversion of small models: a folder that `model.pretrained` loads, or trained tensors alone.

A folder has the trained tensors in the place of those of its base, and adapters merged into their layers.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from lavis_emovit.errors import WeightsError
from lavis_emovit.files import atomic_folder, load_json, read_file, write_json
from lavis_emovit.models.instructblip.convert import (
    ConversionReport,
    check_target,
    count_parts,
    fold_adapters,
    has_run,
    read_convertible,
    settings_of_run,
    target_kind,
    trained_file,
)
from lavis_emovit.models.instructblip.export import save_trained
from lavis_emovit.models.instructblip.loading import RawWeights
from lavis_emovit.models.small.architecture import (
    CONFIG_NAME,
    LLM_TOKENIZER,
    QFORMER_TOKENIZER,
    WEIGHTS_NAME,
    read_config,
)
from lavis_emovit.models.small.build import write_weights
from lavis_emovit.models.small.model import PACKAGES, EmoVITSmall
from lavis_emovit.models.small.settings import ModelSettings
from lavis_emovit.models.tensors import check_fit, read_tensor_file
from lavis_emovit.paths import expand_home
from lavis_emovit.settings import valid_settings

ARCH = "emovit_small"  # of settings for a base that no recipe names


def reads(location: str) -> bool:
    """Whether a location has the weights of a small model."""
    if location == PACKAGES:
        return True
    try:
        read_config(expand_home(location))
    except WeightsError:
        return False
    return True


def convert(
    source: str,
    target: str | Path,
    *,
    base: str | None = None,
    parts: str = "emovit",
    trimmed: bool = False,
    overwrite: bool = False,
    **beside: Any,
) -> ConversionReport:
    """Write a folder of a small model or a `.safetensors` file.

    Args:
        source: a checkpoint folder of a run, a `.safetensors` file of trained tensors, or a folder of a small model.
        target: `*.safetensors` for trained tensors alone, else a folder.
        base: `packages` or the folder that trained tensors belong to, in place of the one that the `config.yaml` of
            their run names.
        parts: for a `.safetensors` target, the parts to write.
        overwrite: replace an existing target.
        trimmed, beside: options for LAVIS's files, which are rejected.

    Raises:
        WeightsError: the source is missing, damaged or does not fit its base, or the target exists or cannot hold it.
    """
    target = expand_home(target)
    options = [f"--{name.replace('_', '-')}" for name, value in {"trimmed": trimmed, **beside}.items() if value]
    kind = target_kind(target)
    if kind == "lavis" or options:
        what = f"{target} is LAVIS's format" if kind == "lavis" else f"{', '.join(options)}: for LAVIS's format"
        raise WeightsError(
            f"{what}, which has no image encoder of this kind and no chat template; name a folder, or a .safetensors "
            "file"
        )
    check_target(source, target, overwrite)
    if kind == "transformers" and (target / CONFIG_NAME).is_file() and not reads(str(target)):
        raise WeightsError(
            f"{target} has a model of another kind. transformers' InstructBLIP has no image encoder of this kind and "
            "no chat template, so it cannot hold a small model; name another folder"
        )
    folder, state = _read(source, base)
    if kind == "trained":
        wanted = _settings(trained_parts=parts)
        left_out = save_trained(RawWeights(state, None, None, None, source), target, wanted.trained_parts)
        return ConversionReport(source, str(target), "trained", count_parts(state), left_out)
    with atomic_folder(target) as unfinished:
        write_weights(unfinished, state)
        for name in (LLM_TOKENIZER, QFORMER_TOKENIZER):
            shutil.copytree(folder / name, unfinished / name)
        write_json(unfinished / CONFIG_NAME, load_json(read_file(folder / CONFIG_NAME)))
        shutil.rmtree(target, ignore_errors=True)
    return ConversionReport(source, str(target), "folder", count_parts(state))


def _read(source: str, base: str | None) -> tuple[Path, dict[str, torch.Tensor]]:
    """The folder with sizes and tokenizers, and all tensors with the trained ones among them."""
    file = trained_file(source)
    if file is None:
        folder = EmoVITSmall.folder(_settings(pretrained=source))
        return folder, read_tensor_file(folder / WEIGHTS_NAME)
    is_alone = base is not None and not has_run(file)
    settings = _settings(pretrained=base) if is_alone else settings_of_run(file, ModelSettings, base)
    folder = EmoVITSmall.folder(settings)
    state, tensors = read_tensor_file(folder / WEIGHTS_NAME), read_convertible(file)
    if settings.lora is not None:
        raw = RawWeights(state, None, None, None, str(folder))
        tensors = fold_adapters(raw, tensors, settings.lora, str(file))
    check_fit(tensors, state, str(file), needed=(), target=f"the base in {folder}")
    return folder, {**state, **tensors}


def _settings(**values: Any) -> ModelSettings:
    return valid_settings(ModelSettings, {"arch": ARCH, **values}, "convert", "the conversion")
