"""Where the weights of an image-text model are, and what is wrong with them, before any is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lavis_emovit.errors import WeightsError, first_line
from lavis_emovit.models.base import FoundWeights
from lavis_emovit.models.image_text.settings import ModelSettings
from lavis_emovit.models.instructblip.loading import quiet
from lavis_emovit.models.instructblip.weights import is_offline
from lavis_emovit.paths import expand_home


def find_weights(settings: ModelSettings) -> FoundWeights:
    """See `BaseEmotionModel.find_weights`."""
    place = settings.pretrained
    if not place:
        return FoundWeights(False, "any model of transformers that reads images and writes text", "set model.path")
    if (folder := _folder(place)) is not None:
        present = (folder / "config.json").is_file()
        return FoundWeights(present, str(folder) if present else f"{folder}, without config.json", "set model.path")
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(place, "config.json", revision=settings.revision), str):
        return FoundWeights(True, place)
    return FoundWeights(False, f"{place}, not on this machine, downloaded on first use", f"hf download {place}")


def missing_weights(settings: ModelSettings) -> str | None:
    """What will be downloaded, None if everything is here; WeightsError if it cannot be."""
    if not settings.pretrained:
        raise WeightsError("set model.path to a folder that transformers can load, or to a hub id")
    found = find_weights(settings)
    if found.is_present:
        return None
    if _folder(settings.pretrained) is None and not is_offline():
        return f"the weights {settings.pretrained} of {settings.arch} are not on this machine and will be downloaded"
    raise WeightsError(
        f"no weights for {settings.arch}: {found.detail}. On a machine with network access: hf download "
        f"{settings.pretrained} --local-dir ./weights/{settings.arch}; then here: model.path=./weights/{settings.arch}"
    )


def load_core(settings: ModelSettings, attention: str) -> Any:
    """The model of transformers in the precision of its files; WeightsError if it cannot be loaded."""
    from transformers import AutoModelForImageTextToText

    try:
        with quiet():
            return AutoModelForImageTextToText.from_pretrained(
                settings.pretrained, revision=settings.revision, dtype="auto", attn_implementation=attention
            )
    except Exception as error:  # a damaged file can raise anything
        raise WeightsError(load_fault(settings, error)) from error


def load_fault(settings: ModelSettings, error: Exception) -> str:
    """Why transformers cannot load a model, in one line."""
    reason = first_line(error)
    if "attention implementation" in reason:
        reason = f"it has no attention of the kind {settings.attention}; set model.attention=eager"
    return f"{settings.pretrained}: no image-text model that transformers can load ({reason})"


def _folder(place: str) -> Path | None:
    """The folder that a setting names; None for a hub id. `weights/name` is a folder if `weights/` exists."""
    path = expand_home(place)
    is_hub = place.count("/") == 1 and not (place.startswith((".", "/", "~")) or path.is_dir() or path.parent.is_dir())
    return None if is_hub else path
