"""The six attributes: from the source, else measured (light and colour) or named by a vision model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image

from lavis_emovit.chat.json_text import find_json, object_schema
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import load_rgb
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.clips.reading import read_frames
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.files import load_json, read_file
from lavis_emovit.generation.job import Job, StepResult
from lavis_emovit.generation.job_records import JobRecords
from lavis_emovit.images import brightness, colorfulness
from lavis_emovit.records import EmotionRecord

_NAMED = ("scene", "object", "facial_expression", "human_action")
_MAX_OBJECTS = 6
_MAX_TERM_WORDS = 4
_OUTPUT_TOKENS = 60
# Both measures are means over the image, so a larger image gives the same rounded value.
_SIDE_PX = 512

# EmoSet's six expressions. Its other vocabularies (254 scenes, 409 objects, 264 actions) come with the dataset.
BUILT_IN_VOCABULARY: Mapping[str, tuple[str, ...]] = {
    "facial_expression": ("angry", "disgust", "fear", "happy", "sad", "surprise")
}

_TERM = {"type": ["string", "null"]}
_SCHEMA = object_schema(
    scene=_TERM, object={"type": "array", "items": {"type": "string"}}, facial_expression=_TERM, human_action=_TERM
)


def read_vocabulary(path: str | Path | None = None) -> dict[str, tuple[str, ...]]:
    """Terms of each attribute, from EmoSet's `info.json` (else UserError); None limits only the expressions."""
    if path is None:
        return dict(BUILT_IN_VOCABULARY)
    try:
        content = load_json(read_file(path))
        return {name: tuple(term.strip() for term in content[name]["label2idx"]) for name in _NAMED}
    except OSError as error:
        raise UserError(f"{path}: cannot read the vocabulary ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not EmoSet's info.json ({type(error).__name__}: {error}). It must contain 'label2idx' under each "
            f"of {', '.join(_NAMED)}."
        ) from None


def write_attributes(job: Job, ids: Collection[str] | None = None, *, vocabulary: str | None = None) -> StepResult:
    """Add missing attributes to records; attributes of the source stay unchanged.

    Brightness and colorfulness are measured, of clips as the mean of some frames. A chat model, if any, names the other
    four from the image; terms outside the vocabulary (see `read_vocabulary`) are dropped and counted.
    """
    chosen = job.chosen(ids)
    terms = read_vocabulary(vocabulary)
    result = StepResult("attributes", writer="measured", num_records=len(chosen))
    num_measured = 0
    progress = RunProgress(total=len(chosen))
    with job.display("light and colour", progress):
        for number, record in chosen.items():
            progress.done += 1
            known = record.attributes
            if known.brightness is not None and known.colorfulness is not None:
                continue
            try:
                images = [*_images(job, record)]
            except (DataError, OSError):
                result.missing["bad_picture"] += 1
                continue
            measured = {
                "brightness": round(fmean(map(brightness, images)), 1),
                "colorfulness": round(fmean(map(colorfulness, images)), 1),
            }
            values = {name: value for name, value in measured.items() if getattr(known, name) is None}
            job.put(number, record.model_copy(update={"attributes": known.model_copy(update=values)}))
            num_measured += 1
    result.notes["measured"] = num_measured
    if job.chat is not None:
        _by_chat(job, job.chat, chosen, terms, result)
    result.num_done = len(chosen) - result.missing["bad_picture"]
    return result


def _images(job: Job, record: EmotionRecord) -> Iterator[Image.Image]:
    """The image of a record, or the frames of its clip that requests would have, small; DataError, OSError."""
    path = job.image_root / record.image
    if record.clip is None:
        images = iter([load_rgb(read_file(path), path, _SIDE_PX)])
    else:
        frames = read_frames(path, record.clip, job.settings.frames, root=job.image_root, min_side_px=_SIDE_PX)
        images = (image for _, image in frames)
    for image in images:
        image.thumbnail((_SIDE_PX, _SIDE_PX))
        yield image


def _by_chat(
    job: Job, chat: ChatSettings, records: JobRecords, terms: Mapping[str, tuple[str, ...]], result: StepResult
) -> None:
    # A source that annotates any attribute annotates all that it can find, so its gaps stay.
    todo = records.where(lambda record: all(getattr(record.attributes, name) in (None, []) for name in _NAMED))
    lists = "\n".join(f"Terms for {name}: {', '.join(terms[name])}" for name in _NAMED if name in terms)
    writer = job.writer(chat, "attributes", _SCHEMA, facts=False)
    # The lists are part of the constant prompt: endpoints that cache prefixes charge less for it.
    writer = replace(writer, prompt=replace(writer.prompt, text=f"{writer.prompt.text}\n\n{lists}"))
    unknown: Counter[str] = Counter()

    def use(number: int, record: EmotionRecord, row: dict[str, Any], sample: int) -> bool:
        value = find_json(row.get("reply") or "") if row["status"] == "ok" else None
        if isinstance(value, dict):
            attributes = record.attributes.model_copy(update=_known_terms(value, terms, unknown))
            job.put(number, record.model_copy(update={"attributes": attributes}))
        else:
            result.reject(row["status"] if row["status"] != "ok" else "unreadable")
        return isinstance(value, dict)

    job.request_replies(
        todo,
        writer,
        result,
        label="attributes",
        output_tokens=_OUTPUT_TOKENS,
        use=use,
    )
    result.notes["terms outside the vocabulary"] = sum(unknown.values())
    result.notes["most frequent of them"] = [term for term, _ in unknown.most_common(5)]


def _known_terms(
    value: Mapping[str, Any], terms: Mapping[str, tuple[str, ...]], unknown: Counter[str]
) -> dict[str, str | list[str]]:
    found: dict[str, str | list[str]] = {}
    for name in _NAMED:
        given = value.get(name)
        items = [item for item in (given if isinstance(given, list) else [given]) if isinstance(item, str)]
        allowed = {_plain(term): term for term in terms[name]} if name in terms else None
        good: list[str] = []
        for item in items:
            if _plain(item) in ("", "none", "null", "unknown", "n a"):
                continue
            if allowed is None:
                # Without a vocabulary, only reject sentences.
                term = item.strip() if len(item.split()) <= _MAX_TERM_WORDS else None
            else:
                term = allowed.get(_plain(item))
            if term is None:
                unknown[f"{name} '{item.strip()[:40]}'"] += 1
            elif term not in good:
                good.append(term)
        if good:
            found[name] = good[:_MAX_OBJECTS] if name == "object" else good[0]
    return found


def _plain(term: str) -> str:
    return " ".join("".join(character if character.isalnum() else " " for character in term.casefold()).split())
