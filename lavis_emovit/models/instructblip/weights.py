"""Where a model's weights lie; what is missing is named together with where to put it.

Four kinds of source, all given as `model.pretrained` or by the environment variable `EMOVIT_WEIGHTS_<SIZE>` (for
example `EMOVIT_WEIGHTS_VICUNA7B`), which wins:

- `package:<name>`: weights that ship with this package;
- a folder in transformers' InstructBLIP layout (`config.json`, safetensors, tokenizers);
- a LAVIS-format `.pth` file, full or trimmed, with `model.llm_model` naming the language model that it was trained
  with, and for a trimmed one `model.vision_weights` naming EVA's encoder file;
- a hub id (`owner/name`), fetched by transformers into its cache unless `EMOVIT_OFFLINE` or `HF_HUB_OFFLINE` is set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lavis_emovit.errors import WeightsError
from lavis_emovit.models.catalogue import declared_models
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.paths import PACKAGE_ROOT

PACKAGE_PREFIX = "package:"
CONVERTER = "emovit_convert"  # the name that `emovit convert` asks for weights under; no model is called so
DEFAULT_HUB_ID = "Salesforce/instructblip-vicuna-7b"


@dataclass(frozen=True)
class WeightsSource:
    """One place that weights come from."""

    kind: Literal["folder", "lavis_file", "hub"]
    location: str  # path or hub id
    present: bool  # on this machine, ready to load without a network
    named_by: str  # the key or variable that named it, for messages


def environment_variable(arch: str) -> str:
    """`emovit_vicuna7b` -> `EMOVIT_WEIGHTS_VICUNA7B`."""
    return "EMOVIT_WEIGHTS_" + arch.removeprefix("emovit_").upper()


def is_offline() -> bool:
    """Whether the user forbade network access."""
    return any(
        os.environ.get(name, "0").lower() in {"1", "true", "yes", "on"} for name in ("EMOVIT_OFFLINE", "HF_HUB_OFFLINE")
    )


def find_weights(settings: ModelSettings) -> WeightsSource:
    """Look where the settings and the environment point, without a network and without loading anything."""
    variable = environment_variable(settings.arch)
    value, named_by = settings.pretrained, "model.pretrained"
    if os.environ.get(variable):
        value, named_by = os.environ[variable], variable
    if value.startswith(PACKAGE_PREFIX):
        folder = PACKAGE_ROOT / "models" / "data" / value.removeprefix(PACKAGE_PREFIX)
        return WeightsSource("folder", str(folder), (folder / "config.json").is_file(), named_by)
    path = Path(value).expanduser()
    if path.is_dir():
        return WeightsSource("folder", str(path), (path / "config.json").is_file(), named_by)
    if path.suffix in {".pth", ".pt", ".bin"}:
        return WeightsSource("lavis_file", str(path), path.is_file(), named_by)
    # `weights/name` is a forgotten folder where `weights/` is there, and a hub id where it is not.
    if value.count("/") == 1 and not value.startswith((".", "/", "~")) and not path.parent.is_dir():
        return WeightsSource("hub", value, _in_hub_cache(value), named_by)
    return WeightsSource("folder", str(path), False, named_by)


def _in_hub_cache(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "config.json"), str)


def check_weights(settings: ModelSettings) -> str | None:
    """A look at the weights before anything expensive is done.

    Returns:
        what will have to be fetched from the hub, or None where all is on this machine.

    Raises:
        WeightsError: the weights are not here and cannot be fetched.
    """
    source = find_weights(settings)
    if source.present:
        return None
    if source.kind == "hub" and not is_offline():
        return (
            f"the weights {source.location} of {settings.arch} are not on this machine; they are fetched at first use"
        )
    raise WeightsError(missing_weights_message(settings, source, "which is not on this machine"))


def missing_weights_message(settings: ModelSettings, source: WeightsSource, reason: str) -> str:
    """What to fetch and where to put it."""
    variable = environment_variable(settings.arch)
    if settings.arch == CONVERTER:
        return f"no weights at '{source.location}' ({source.named_by}), {reason}"
    declared = declared_models().get(settings.arch)
    hub_id = declared.content["model"]["pretrained"] if declared is not None else DEFAULT_HUB_ID
    return (
        f"no weights for {settings.arch}: {source.named_by} names '{source.location}', {reason}.\n"
        f"Do one of these:\n"
        f"  - on a machine with a network: hf download {hub_id} --local-dir ./weights/{settings.arch}\n"
        f"    then here: export {variable}=./weights/{settings.arch}\n"
        f"  - name a local transformers InstructBLIP folder, or a LAVIS .pth file together with model.llm_model, in "
        f"model.pretrained or {variable}\n"
        f"  - for a first look without large weights, use emovit_tiny, which ships with the package"
    )
