"""Conversion of weights between LAVIS `.pth`, transformers folders, and checkpoints of our runs.

The name determines the format: a `.pth` file is LAVIS's, a `.safetensors` file has trained tensors, a folder with
`MANIFEST.json` is a checkpoint of a run, any other folder is transformers'.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf

from lavis_emovit.errors import WeightsError
from lavis_emovit.models.instructblip.export import save_lavis, save_trained, save_transformers
from lavis_emovit.models.instructblip.loading import RawWeights, read_weights
from lavis_emovit.models.instructblip.parts import FRAMES, part_of
from lavis_emovit.models.instructblip.settings import LoraSettings, ModelSettings
from lavis_emovit.models.instructblip.weights import CONVERTER
from lavis_emovit.models.lora import base_name, is_adapter
from lavis_emovit.models.tensors import check_fit, read_tensor_file
from lavis_emovit.paths import MANIFEST_NAME, expand_home
from lavis_emovit.settings import Settings, plain_values, valid_settings

_OPTIONS = re.compile(r"model\.(llm_model|qformer_tokenizer|vision_weights)")
Kind = Literal["lavis", "transformers", "trained", "folder", "adapter"]


@dataclass
class ConversionReport:
    """Results of a conversion."""

    source: str
    target: str
    kind: Kind
    parameters: dict[str, int]  # by part of the model
    left_out: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)


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
    """Read weights in one format and write them in another, bit for bit.

    Args:
        source: a LAVIS `.pth` file, a transformers folder or hub id, a checkpoint folder of a run, or a `.safetensors`
            file of trained tensors.
        target: `*.pth` for LAVIS's format, `*.safetensors` for trained tensors alone, else a transformers folder.
        base: the model that trained tensors belong to, in place of the one that the `config.yaml` of their run names: a
            folder, hub id, `.pth` file or `package:emovit_tiny`.
        parts: for a `.safetensors` target, the parts to write, as `model.trained_parts` names them.
        trimmed: for a `.pth` target, without image encoder and language model, as LAVIS publishes its files.
        overwrite: replace an existing target.
        beside: settings for what a LAVIS file lacks: `llm_model`, `qformer_tokenizer`, `vision_weights`,
            `vision_heads`, `qformer_heads`.

    Raises:
        WeightsError: the source is missing, damaged or incomplete, or the target exists or cannot hold it.
    """
    target = expand_home(target)
    kind = target_kind(target)
    check_target(source, target, overwrite)
    wanted = settings_for(source, trained_parts=parts, **beside)
    tensors = trained_file(source)
    raw = _read(wanted) if tensors is None else _trained_over_base(tensors, base, beside)
    report = ConversionReport(source, str(target), kind, count_parts(raw.state), list(raw.left_out))
    if kind == "transformers":
        shutil.rmtree(target, ignore_errors=True)
        report.added = save_transformers(raw, target)
    elif kind == "lavis":
        report.left_out += save_lavis(raw, target, trimmed)
    else:
        report.left_out += save_trained(raw, target, wanted.trained_parts)
    return report


def check_target(source: str, target: Path, overwrite: bool, marker: str = "config.json") -> None:
    """WeightsError if a target exists and must not be replaced, is the source, or is a folder without `marker`."""
    if target.exists() and not overwrite:
        raise WeightsError(f"{target} exists; --overwrite replaces it")
    if target.resolve() == expand_home(source).resolve():
        raise WeightsError(f"{target} is the source itself; name another target")
    if target.is_dir() and any(target.iterdir()) and not (target / marker).is_file():
        raise WeightsError(f"{target} is a folder of something else; name an empty or new one")


def count_parts(state: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Parameters of each part of the model."""
    counts: Counter[str] = Counter()
    for name, tensor in state.items():
        counts[part_of(name)] += tensor.numel()
    return dict(counts)


def target_kind(target: Path) -> Kind:
    """The format of a target by its name; WeightsError for file names without a format."""
    suffix = target.suffix.lower()
    if suffix in (".pth", ".pt"):
        return "lavis"
    if suffix in (".bin", ".ckpt", ".pkl", ".safetensor", ".json"):
        raise WeightsError(
            f"{target}: {target.suffix} is not a format; *.pth is LAVIS's, *.safetensors has trained tensors, any "
            "other name is a transformers folder"
        )
    return "trained" if suffix == ".safetensors" else "transformers"


def trained_file(source: str) -> Path | None:
    """The file of trained tensors of a source; None for a complete model."""
    path = expand_home(source)
    if (path / MANIFEST_NAME).is_file():
        return path / "model.safetensors"
    return path if path.suffix.lower() == ".safetensors" else None


def settings_for(pretrained: str, **changes: Any) -> ModelSettings:
    """Model settings for one source of weights; ConfigError for invalid values."""
    values = {"arch": CONVERTER, "pretrained": pretrained, **changes}
    return valid_settings(ModelSettings, values, "convert", "the conversion")


def _read(settings: ModelSettings) -> RawWeights:
    """As `read_weights`; for a conversion, errors name options of the command in place of keys of a recipe."""
    try:
        return read_weights(settings)
    except WeightsError as error:
        if settings.arch != CONVERTER:
            raise
        text = _OPTIONS.sub(lambda found: f"--{found[1].replace('_', '-')}", str(error))
        raise WeightsError(text) from error


def has_run(file: Path) -> bool:
    """Whether the settings of a run are beside a file of trained tensors."""
    return (file.parent / "config.yaml").is_file()


def settings_of_run(file: Path, settings_class: type[Settings], base: str | None = None) -> Any:
    """Model settings of the run that wrote trained tensors; WeightsError if there is no `config.yaml` beside them.

    `base` is where the weights that the run tuned are now; None: where it had them.
    """
    config = file.parent / "config.yaml"
    if not has_run(file):
        raise WeightsError(
            f"{file} has trained tensors only, and its folder has no config.yaml of a run; name the model that they "
            "belong to with --base"
        )
    settings = valid_settings(settings_class, plain_values(OmegaConf.load(config).model), "model", str(config))
    return settings if base is None else settings.model_copy(update={"pretrained": base})


def _trained_over_base(file: Path, base: str | None, beside: dict[str, Any]) -> RawWeights:
    if not file.is_file():
        raise WeightsError(f"no trained tensors at {file}")
    settings: Any
    if base is not None and not has_run(file):
        settings = settings_for(base, **beside)
    else:
        settings = settings_of_run(file, ModelSettings, base)
        settings = settings.model_copy(update={name: value for name, value in beside.items() if value is not None})
    adapters = settings.lora
    raw = _read(settings)
    raw.source = f"{file} over {raw.source}"
    tensors: Mapping[str, torch.Tensor] = read_convertible(file)
    if adapters is not None:
        tensors = fold_adapters(raw, tensors, adapters, str(file))
    check_fit(tensors, raw.state, str(file), needed=(), target="this base")
    raw.state.update(tensors)
    return raw


def read_convertible(file: Path) -> dict[str, torch.Tensor]:
    """Trained tensors of a run; WeightsError if they belong to `model.frames`, which no other format has."""
    tensors = read_tensor_file(file)
    if any(name.startswith(FRAMES) for name in tensors):
        raise WeightsError(
            f"{file} was tuned with model.frames, which neither LAVIS nor transformers has; use the run as it is, or "
            "make an archive of it with emovit pack"
        )
    return tensors


def fold_adapters(
    raw: RawWeights, tensors: Mapping[str, torch.Tensor], adapters: LoraSettings, source: str
) -> dict[str, torch.Tensor]:
    """Trained tensors of the base `raw`, with low-rank adapters merged into the weights of their layers.

    W + alpha / rank * B A is summed in float32 and keeps the precision of W. Adapters are `<layer>.lora_A...` [rank,
    in] and `<layer>.lora_B...` [out, rank]; WeightsError if one is incomplete or belongs to another base.
    """
    down = {name.split(".lora_A.")[0]: tensor for name, tensor in tensors.items() if ".lora_A." in name}
    up = {name.split(".lora_B.")[0]: tensor for name, tensor in tensors.items() if ".lora_B." in name}
    if down.keys() != up.keys():
        raise WeightsError(f"{source}: incomplete adapters of {', '.join(sorted(down.keys() ^ up.keys())[:5])}")
    folded = {base_name(name): tensor for name, tensor in tensors.items() if not is_adapter(name)}
    for layer, narrow in down.items():
        name = f"{layer}.weight"
        delta = adapters.alpha / adapters.rank * (up[layer].float() @ narrow.float())
        weight = raw.state.get(name)
        if weight is None or weight.shape != delta.shape:
            raise WeightsError(
                f"{source}: the adapter of {layer} has shape {list(delta.shape)}, the base has no such layer"
            )
        folded[name] = (weight.float() + delta).to(weight.dtype)
    return folded
