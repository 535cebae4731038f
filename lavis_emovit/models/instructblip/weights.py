"""Where a model's weights are; errors about missing ones name the download and its place.

Four kinds of source, given by `model.pretrained` or by the environment variable `EMOVIT_WEIGHTS_<SIZE>` (for example
`EMOVIT_WEIGHTS_VICUNA7B`), which takes precedence:

- `package:<name>`: weights that ship with this package;
- a folder in transformers' InstructBLIP layout (`config.json`, safetensors, tokenizers);
- a LAVIS-format `.pth` file, complete or trimmed, with the language model that it was trained with in
  `model.llm_model`, and for a trimmed one EVA's encoder file in `model.vision_weights`;
- a hub id (`owner/name`), downloaded by transformers into its cache unless `EMOVIT_OFFLINE` or `HF_HUB_OFFLINE` is set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lavis_emovit.errors import WeightsError
from lavis_emovit.models.catalogue import declared_models
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.paths import PACKAGE_ROOT, expand_home, find_checkpoint

PACKAGE_PREFIX = "package:"
CONVERTER = "emovit_convert"  # `arch` in the settings of `emovit convert`; no model has this name
DEFAULT_HUB_ID = "Salesforce/instructblip-vicuna-7b"


@dataclass(frozen=True)
class WeightsSource:
    """A location of weights."""

    kind: Literal["folder", "lavis_file", "hub"]
    location: str  # path or hub id
    present: bool  # on this machine, no download needed
    named_by: str  # the key or variable that named it, for messages


def environment_variable(arch: str) -> str:
    """`emovit_vicuna7b` -> `EMOVIT_WEIGHTS_VICUNA7B`."""
    return "EMOVIT_WEIGHTS_" + arch.removeprefix("emovit_").upper()


def is_offline() -> bool:
    """Whether network access is switched off."""
    return any(
        os.environ.get(name, "0").lower() in {"1", "true", "yes", "on"} for name in ("EMOVIT_OFFLINE", "HF_HUB_OFFLINE")
    )


def find_weights(settings: ModelSettings) -> WeightsSource:
    """The location that settings and environment name; nothing is downloaded or loaded."""
    variable = environment_variable(settings.arch)
    value, named_by = settings.pretrained, "model.pretrained"
    if os.environ.get(variable):
        value, named_by = os.environ[variable], variable
    path = expand_home(value)
    if value.startswith(PACKAGE_PREFIX):
        path = shipped_folder(value)
    elif path.suffix.lower() in {".pth", ".pt", ".bin"} and not path.is_dir():
        return WeightsSource("lavis_file", str(path), path.is_file(), named_by)
    # `weights/name` is a missing folder if `weights/` exists, else a hub id.
    elif value.count("/") == 1 and not (value.startswith((".", "/", "~")) or path.is_dir() or path.parent.is_dir()):
        return WeightsSource("hub", value, _in_hub_cache(value), named_by)
    return WeightsSource("folder", str(path), (path / "config.json").is_file(), named_by)


def shipped_folder(value: str) -> Path:
    """`package:<name>` -> the folder of weights that ships with this package."""
    return PACKAGE_ROOT / "models" / "data" / value.removeprefix(PACKAGE_PREFIX)


def _in_hub_cache(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "config.json"), str)


def check_weights(settings: ModelSettings) -> str | None:
    """See `EmotionModel.check_weights`; weights are downloaded from the hub."""
    source = find_weights(settings)
    if source.present:
        return None
    if source.kind == "hub" and not is_offline():
        return f"the weights {source.location} of {settings.arch} are not on this machine and will be downloaded"
    raise WeightsError(missing_weights_message(settings, source, "which is not on this machine"))


def missing_weights_message(settings: ModelSettings, source: WeightsSource, reason: str) -> str:
    """What to download and where to put it."""
    variable = environment_variable(settings.arch)
    checkpoint = find_checkpoint(Path(source.location)) if source.kind == "folder" else None
    if checkpoint is not None and settings.arch == CONVERTER:
        reason = f"the folder of a run; convert one of its checkpoints, such as {checkpoint}"
    elif checkpoint is not None:
        return (
            f"no weights for {settings.arch}: {source.named_by} is '{source.location}', which a run wrote. Set it to "
            f"the weights that the run began with, model.load_finetuned to True, and model.finetuned to {checkpoint}"
        )
    if settings.arch == CONVERTER:
        return f"no weights at '{source.location}' ({source.named_by}), {reason}"
    declared = declared_models().get(settings.arch)
    hub_id = declared.content["model"]["pretrained"] if declared is not None else DEFAULT_HUB_ID
    if hub_id.startswith(PACKAGE_PREFIX):
        own = shipped_folder(hub_id)
        advice = (
            f"unset {source.named_by}, and the weights that ship with the package are used"
            if source.location != str(own)
            else "they ship with the package, so its installation is damaged: pip install --force-reinstall --no-deps "
            "lavis-emovit"
        )
        return f"no weights for {settings.arch}: {source.named_by} is '{source.location}', {reason}; {advice}"
    return (
        f"no weights for {settings.arch}: {source.named_by} is '{source.location}', {reason}.\n"
        f"Do one of these:\n"
        f"  - on a machine with network access: hf download {hub_id} --local-dir ./weights/{settings.arch}\n"
        f"    then here: export {variable}=./weights/{settings.arch}\n"
        f"  - set model.pretrained or {variable} to a transformers InstructBLIP folder, or to a LAVIS .pth file (then "
        f"set model.llm_model too)\n"
        f"  - to try the package without large weights, use emovit_tiny, which ships with it"
    )
