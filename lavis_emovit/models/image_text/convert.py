"""Conversion of image-text models: a plain transformers folder, an adapter folder of peft, or trained tensors alone.

A transformers folder has the trained tensors in the place of those of its base, in their own precision, and adapters
merged into their layers; processor, tokenizer and configurations are the base's files.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lavis_emovit.errors import WeightsError
from lavis_emovit.files import atomic_folder, atomic_path, obey_umask
from lavis_emovit.models import lora
from lavis_emovit.models.image_text.adapters import CONFIG_NAME, PeftAdapter, is_adapter_folder, write_adapter
from lavis_emovit.models.image_text.parts import part_prefixes
from lavis_emovit.models.image_text.settings import ModelSettings
from lavis_emovit.models.image_text.weights import load_core
from lavis_emovit.models.instructblip.convert import (
    ConversionReport,
    check_target,
    has_run,
    settings_of_run,
    target_kind,
    trained_file,
)
from lavis_emovit.models.part_names import part_of
from lavis_emovit.models.tensors import check_fit, read_tensor_file
from lavis_emovit.paths import expand_home
from lavis_emovit.settings import valid_settings

ARCH = "emovit_image_text"  # of settings for a base that no recipe names
TRAINED = "emovit"  # of `parts`: what the run trained
# Files of a base that hold weights, or name where they are.
_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.index.json")


def reads(location: str) -> bool:
    """Whether a location has the weights of an image-text model, or an adapter of one."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if is_adapter_folder(location):
        return True
    path = expand_home(location)
    if path.suffix in (".pth", ".pt", ".safetensors") or (path.exists() and not (path / "config.json").is_file()):
        return False
    try:
        kind = AutoConfig.from_pretrained(location).model_type
    except Exception:  # whatever it is, it is no model of this family
        return False
    return kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and not kind.startswith("instructblip")


def convert(
    source: str,
    target: str | Path,
    *,
    base: str | None = None,
    parts: str = TRAINED,
    overwrite: bool = False,
    adapter: bool = False,
    **beside: Any,
) -> ConversionReport:
    """Write a transformers folder, an adapter folder or a `.safetensors` file.

    Args:
        source: a checkpoint folder of a run, a `.safetensors` file of trained tensors, an adapter folder of peft, or a
            folder or hub id of an image-text model.
        target: `*.safetensors` for trained tensors alone, else a folder.
        base: folder or hub id that trained tensors or an adapter belong to; by default the one that the run's
            `config.yaml` or the adapter names.
        parts: for a `.safetensors` target, the parts to write, by default what was trained.
        overwrite: replace an existing target.
        adapter: the folder is one of peft, with the adapters and what was trained of the projector.
        beside: options for LAVIS's files, which are rejected.

    Raises:
        WeightsError: the source is missing, damaged or does not fit its base, or the target exists or cannot hold it.
    """
    target = expand_home(target)
    kind = target_kind(target)
    options = [f"--{name.replace('_', '-')}" for name, value in beside.items() if value]
    if kind == "lavis" or options:
        what = f"{target} is LAVIS's format" if kind == "lavis" else f"{', '.join(options)}: for LAVIS's format"
        raise WeightsError(f"{what}, which holds InstructBLIP alone; name a folder, or a .safetensors file")
    if adapter and kind == "trained":
        raise WeightsError(f"--adapter writes a folder, but {target} is a file of trained tensors; name a folder")
    check_target(source, target, overwrite, CONFIG_NAME if adapter else "config.json")
    settings, tensors = _read(source, base)
    core = load_core(settings, "eager")
    prefixes = part_prefixes(core, settings.pretrained)
    config, replaced = _add_trained(core, settings, tensors, source)
    report = ConversionReport(source, str(target), "adapter" if adapter else kind, _counts(core, prefixes))
    if kind == "trained":
        report.left_out = _save_trained(core, tensors, target, parts, prefixes, source)
    elif adapter:
        if config is None:
            raise WeightsError(f"{source} has no adapters; write a whole folder, without --adapter")
        own = {name: value.detach() for name, value in core.named_parameters()}
        wanted = {name: own[name] for name in own if name in tensors or name in replaced or lora.is_adapter(name)}
        with atomic_folder(target) as unfinished:
            write_adapter(unfinished, core, prefixes, wanted, config, settings.pretrained)
            shutil.rmtree(target, ignore_errors=True)
    else:
        report.added = _save_folder(core, settings, target)
    return report


def _read(source: str, base: str | None) -> tuple[ModelSettings, dict[str, torch.Tensor]]:
    """How the base of a source is loaded, and the trained tensors over it."""
    if is_adapter_folder(source):
        return _settings(pretrained=base or PeftAdapter.read(source).base, adapter=source), {}
    file = trained_file(source)
    if file is None:
        return _settings(pretrained=source), {}
    is_alone = base is not None and not has_run(file)
    settings = _settings(pretrained=base) if is_alone else settings_of_run(file, ModelSettings, base)
    return settings, read_tensor_file(file)


def _add_trained(
    core: Any, settings: ModelSettings, tensors: Mapping[str, torch.Tensor], source: str
) -> tuple[Any, list[str]]:
    """Put adapters and trained tensors into a model.

    Returns:
        the settings of peft, None without adapters; names of the weights that `model.adapter` replaced.
    """
    prefixes, config, replaced = part_prefixes(core, settings.pretrained), None, list[str]()
    if settings.adapter is not None:
        adapter = PeftAdapter.read(settings.adapter)
        if problems := adapter.problems(core, prefixes, settings.pretrained, ()):
            raise WeightsError("\n".join(problems))
        config = adapter.config(core)
        replaced = adapter.inject(core)
    elif settings.lora is not None:
        own = settings.lora
        config = lora.load_peft().LoraConfig(r=own.rank, lora_alpha=own.alpha, lora_dropout=own.dropout)  # type: ignore[arg-type]
        lora.inject(core, prefixes, own)
    parameters = dict(core.named_parameters())
    if config is None and any(map(lora.is_adapter, tensors)):
        raise WeightsError(
            f"{source} has adapters, whose settings are in the run's config.yaml; convert the run itself"
        )
    needed = [name for name in parameters if lora.is_adapter(name)] if tensors else []
    check_fit(tensors, parameters, source, needed=needed, target=f"the base {settings.pretrained}")
    for name, tensor in tensors.items():
        parameters[name].data = tensor
    return config, replaced


def _save_folder(core: Any, settings: ModelSettings, target: Path) -> list[str]:
    """Merge the adapters and write the model with the base's other files; returns the names of the latter."""
    before = {name: parameter.dtype for name, parameter in core.named_parameters()}
    for name in lora.merge(core, torch.float32):
        # The sum is rounded once.
        layer = core.get_submodule(name)
        layer.to(before[f"{name}.base_layer.weight"])
    base = _base_files(settings)
    with atomic_folder(target) as unfinished:
        core.save_pretrained(unfinished, max_shard_size="5GB")
        for file in unfinished.glob("*.safetensors"):
            obey_umask(file)
        for file in base:
            shutil.copyfile(file, unfinished / file.name)
        shutil.rmtree(target, ignore_errors=True)
    return [file.name for file in base]


def _base_files(settings: ModelSettings) -> list[Path]:
    """The base's files beside its weights: configurations, processor, tokenizer, templates, licence."""
    folder = expand_home(settings.pretrained)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(settings.pretrained, revision=settings.revision, ignore_patterns=list(_WEIGHT_FILES))
        )
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and not file.name.startswith(".")
        and not any(fnmatch(file.name, one) for one in _WEIGHT_FILES)
    )


def _save_trained(
    core: Any,
    tensors: Mapping[str, torch.Tensor],
    target: Path,
    parts: str,
    prefixes: Mapping[str, tuple[str, ...]],
    source: str,
) -> list[str]:
    """Write the tensors of some parts, adapters as they are; returns what was omitted."""
    state = dict(tensors) or {name: value.detach() for name, value in core.named_parameters()}
    present = _parts_of(state, prefixes)
    if parts == TRAINED and not tensors:
        raise WeightsError(f"{source} is a whole model; name the parts to write with --parts")
    wanted = present if parts == TRAINED else _settings(pretrained="-", trained_parts=parts).trained_parts
    chosen = {name: value.contiguous() for name, value in state.items() if part_of(name, prefixes) in wanted}
    if not chosen:
        raise WeightsError(f"{source} has no tensor of {', '.join(wanted)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        save_file(chosen, str(temporary), metadata={"format": "pt"})
        obey_umask(temporary)
    return [f"{part} (not requested)" for part in present if part not in wanted]


def _counts(core: Any, prefixes: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name, parameter in core.named_parameters():
        counts[part_of(name, prefixes)] += parameter.numel()
    return dict(counts)


def _parts_of(names: Iterable[str], prefixes: Mapping[str, tuple[str, ...]]) -> list[str]:
    return sorted({part_of(name, prefixes) for name in names})


def _settings(**values: Any) -> ModelSettings:
    return valid_settings(ModelSettings, {"arch": ARCH, **values}, "convert", "the conversion")
