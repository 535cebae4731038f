"""Weights from one format into another: LAVIS `.pth`, transformers folder, and the checkpoints of our runs.

What a thing is follows from its name: a `.pth` file is LAVIS's, a `.safetensors` file holds trained tensors, a folder
with `MANIFEST.json` is a checkpoint of a run, any other folder is transformers'.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models.instructblip.export import save_lavis, save_trained, save_transformers
from lavis_emovit.models.instructblip.loading import RawWeights, read_weights
from lavis_emovit.models.instructblip.parts import part_of
from lavis_emovit.models.instructblip.settings import LoraSettings, ModelSettings
from lavis_emovit.models.instructblip.weights import CONVERTER
from lavis_emovit.models.lora import base_name, is_adapter
from lavis_emovit.models.tensors import read_tensor_file
from lavis_emovit.settings import parse_settings

Kind = Literal["lavis", "transformers", "trained"]
CHECKPOINT_MARK = "MANIFEST.json"


@dataclass
class ConversionReport:
    """What a conversion did."""

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
    llm_model: str | None = None,
    qformer_tokenizer: str | None = None,
    vision_weights: str | None = None,
    vision_heads: int | None = None,
    qformer_heads: int | None = None,
    parts: str = "emovit",
    trimmed: bool = False,
    overwrite: bool = False,
) -> ConversionReport:
    """Read weights in one format and write them in another, bit for bit.

    Args:
        source: a LAVIS `.pth` file, a transformers folder or hub id, a checkpoint folder of a run, or a `.safetensors`
            file of trained tensors.
        target: `*.pth` for LAVIS's format, `*.safetensors` for trained tensors alone, else a transformers folder.
        base: what trained tensors belong to, where no run's `config.yaml` lies beside them: a folder, hub id, `.pth`
            file or `package:emovit_tiny`.
        llm_model, qformer_tokenizer, vision_weights, vision_heads, qformer_heads: what a LAVIS file lacks; see
            `ModelSettings`.
        parts: for a `.safetensors` target, the parts to write, as `model.trained_parts` names them.
        trimmed: for a `.pth` target, without image encoder and language model, as LAVIS publishes its files.
        overwrite: replace an existing target.

    Raises:
        WeightsError: the source is missing, damaged or incomplete, or the target exists or cannot hold it.
    """
    target = Path(target).expanduser()
    kind = target_kind(target)
    if target.exists() and not overwrite:
        raise WeightsError(f"{target} exists; --overwrite replaces it")
    if target.resolve() == Path(source).expanduser().resolve():
        raise WeightsError(f"{target} is the source itself; name another target")
    beside = {
        "llm_model": llm_model, "qformer_tokenizer": qformer_tokenizer, "vision_weights": vision_weights,
        "vision_heads": vision_heads, "qformer_heads": qformer_heads,
    }  # fmt: skip
    wanted = settings_for(source, trained_parts=parts, **beside)
    tensors = trained_file(source)
    raw = read_weights(wanted) if tensors is None else _trained_over_base(tensors, base, beside)
    report = ConversionReport(source, str(target), kind, dict(_count(raw)), list(raw.left_out))
    if kind == "transformers":
        if target.is_dir() and any(target.iterdir()):
            if not (target / "config.json").is_file():
                raise WeightsError(f"{target} is a folder of something else; name an empty or new one")
            shutil.rmtree(target)
        elif target.is_dir():
            target.rmdir()
        report.added = save_transformers(raw, target)
    elif kind == "lavis":
        report.left_out += save_lavis(raw, target, trimmed)
    else:
        report.left_out += save_trained(raw, target, wanted.trained_parts)
    return report


def target_kind(target: Path) -> Kind:
    """The format that a target's name asks for; WeightsError for the name of a file in no format of ours."""
    if target.suffix in (".pth", ".pt"):
        return "lavis"
    if target.suffix in (".bin", ".ckpt", ".pkl", ".safetensor", ".json"):
        raise WeightsError(
            f"{target}: no format is called {target.suffix}; *.pth is LAVIS's, *.safetensors holds trained tensors, "
            "any other name is a transformers folder"
        )
    return "trained" if target.suffix == ".safetensors" else "transformers"


def trained_file(source: str) -> Path | None:
    """The file of trained tensors that a source is or holds; None for a complete model."""
    path = Path(source).expanduser()
    if (path / CHECKPOINT_MARK).is_file():
        return path / "model.safetensors"
    return path if path.suffix == ".safetensors" else None


def settings_for(pretrained: str, **changes: Any) -> ModelSettings:
    """Model settings that name one source of weights; ConfigError for values that cannot be."""
    values = {"arch": CONVERTER, "pretrained": pretrained, **changes}
    settings, problems = parse_settings(ModelSettings, values, "convert")
    if settings is None:
        raise ConfigError(problems, "the conversion")
    return settings


def _trained_over_base(file: Path, base: str | None, beside: dict[str, Any]) -> RawWeights:
    if not file.is_file():
        raise WeightsError(f"no trained tensors at {file}")
    config = file.parent / "config.yaml"
    adapters = None
    if base is not None:
        settings = settings_for(base, **beside)
    elif config.is_file():
        node: Any = OmegaConf.to_container(OmegaConf.load(config), resolve=True)
        parsed, problems = parse_settings(ModelSettings, node.get("model", {}), "model")
        if parsed is None:
            raise ConfigError(problems, str(config))
        settings, adapters = parsed, parsed.lora
    else:
        raise WeightsError(
            f"{file} holds trained tensors alone, and no config.yaml of a run lies beside it: name what they belong to "
            "with --base"
        )
    raw = read_weights(settings)
    raw.source = f"{file} over {raw.source}"
    if adapters is not None:
        fold_adapters(raw, read_tensor_file(file), adapters, str(file))
    else:
        overlay(raw, read_tensor_file(file), str(file))
    return raw


def overlay(raw: RawWeights, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Put trained tensors in the place of the base's; each must be there already, in the same shape (WeightsError)."""
    problems = [f"unknown: {name}" for name in tensors if name not in raw.state]
    problems += [
        f"shape of {name}: {list(tensor.shape)}, the base has {list(raw.state[name].shape)}"
        for name, tensor in tensors.items()
        if name in raw.state and raw.state[name].shape != tensor.shape
    ]
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems[:10])
        raise WeightsError(f"{source} does not belong to this base ({len(problems)} tensors do not fit):\n{shown}")
    raw.state.update(tensors)


def fold_adapters(raw: RawWeights, tensors: Mapping[str, torch.Tensor], adapters: LoraSettings, source: str) -> None:
    """Add low-rank adapters to the weights that they stand beside: W + alpha / rank * B A, summed in float32.

    Args:
        raw: the base, changed in place; a weight keeps its precision, and one without an adapter its bits.
        tensors: adapters (`<layer>.lora_A...` [rank, in], `<layer>.lora_B...` [out, rank]) and other trained tensors.
        adapters: as they were trained.
        source: for messages.

    Raises:
        WeightsError: half an adapter, or one of another base.
    """
    down = {name.split(".lora_A.")[0]: tensor for name, tensor in tensors.items() if ".lora_A." in name}
    up = {name.split(".lora_B.")[0]: tensor for name, tensor in tensors.items() if ".lora_B." in name}
    if down.keys() != up.keys():
        raise WeightsError(
            f"{source}: only one half of the adapter of {', '.join(sorted(down.keys() ^ up.keys())[:5])}"
        )
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
    overlay(raw, folded, source)


def _count(raw: RawWeights) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, tensor in raw.state.items():
        counts[part_of(name)] += tensor.numel()
    return counts
