"""The six attributes: kept where the source has them, else measured (light and colour) or named by a vision model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lavis_emovit.chat.images import load_rgb
from lavis_emovit.chat.json_text import find_json
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.generation.instructions import make_writer
from lavis_emovit.generation.job import Job, Requests, StepResult
from lavis_emovit.generation.prompts import with_text
from lavis_emovit.images import brightness, colorfulness
from lavis_emovit.records import EmotionRecord

_NAMED = ("scene", "object", "facial_expression", "human_action")
_MAX_OBJECTS = 6
_MAX_TERM_WORDS = 4
_OUTPUT_TOKENS = 60
# Means over the picture; more pixels than these change nothing that is left after rounding.
_SIDE_PX = 512

# EmoSet's six expressions. Its other vocabularies (254 scenes, 409 objects, 264 actions) come with the dataset.
BUILT_IN_VOCABULARY: Mapping[str, tuple[str, ...]] = {
    "facial_expression": ("angry", "disgust", "fear", "happy", "sad", "surprise")
}

ATTRIBUTES_SCHEMA = {
    "type": "object",
    "properties": {
        "scene": {"type": ["string", "null"]},
        "object": {"type": "array", "items": {"type": "string"}},
        "facial_expression": {"type": ["string", "null"]},
        "human_action": {"type": ["string", "null"]},
    },
    "required": list(_NAMED),
    "additionalProperties": False,
}


def read_vocabulary(path: str | Path | None = None) -> dict[str, tuple[str, ...]]:
    """Terms of each attribute, from EmoSet's `info.json`; without it, only the expressions are limited.

    Raises:
        UserError: the file is not of that form.
    """
    if path is None:
        return dict(BUILT_IN_VOCABULARY)
    try:
        content = json.loads(Path(path).read_bytes())
        return {name: tuple(term.strip() for term in content[name]["label2idx"]) for name in _NAMED}
    except OSError as error:
        raise UserError(f"{path}: the vocabulary cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not EmoSet's info.json ({type(error).__name__}: {error}); it must have 'label2idx' under each of "
            f"{', '.join(_NAMED)}"
        ) from None


def write_attributes(job: Job, ids: Iterable[str] | None = None, *, vocabulary: str | None = None) -> StepResult:
    """Fill in attributes that records lack. What the source has stays as it is.

    Brightness and colourfulness are measured (`lavis_emovit.images`). With a chat model, the other four are named by
    it from the picture; terms outside the vocabulary are left out and counted. Without one they stay unknown.

    Args:
        job: records, writer and ledger.
        ids: the records; None is all of the split.
        vocabulary: see `read_vocabulary`.
    """
    chosen = job.chosen(ids)
    terms = read_vocabulary(vocabulary)
    result = StepResult("attributes", writer="measured", num_records=len(chosen))
    changed: dict[str, EmotionRecord] = {}
    num_measured = 0
    progress = RunProgress(total=len(chosen))
    with job.display("light and colour", progress):
        for record in chosen:
            progress.done += 1
            known = record.attributes
            if known.brightness is not None and known.colorfulness is not None:
                continue
            try:
                light, colour = _measure(job.image_root / record.image)
            except DataError:
                result.missing["bad_picture"] += 1
                continue
            num_measured += 1
            values = {
                "brightness": light if known.brightness is None else known.brightness,
                "colorfulness": colour if known.colorfulness is None else known.colorfulness,
            }
            changed[record.id] = record.model_copy(update={"attributes": known.model_copy(update=values)})
    job.replace(changed)
    result.notes["measured"] = num_measured
    if job.chat is not None:
        _by_chat(job, [record.id for record in chosen], terms, result)
    result.num_done = len(chosen) - result.missing["bad_picture"]
    return result


def _measure(path: Path) -> tuple[float, float]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the picture cannot be read ({error.strerror})") from None
    image = load_rgb(data, path, _SIDE_PX)
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    return brightness(image), colorfulness(image)


def _by_chat(job: Job, ids: list[str], terms: Mapping[str, tuple[str, ...]], result: StepResult) -> None:
    assert job.chat is not None
    # A source that annotates gives what it could find; a gap in it is an answer, too.
    todo = [
        record for record in job.chosen(ids) if all(getattr(record.attributes, name) in (None, []) for name in _NAMED)
    ]
    lists = "\n".join(f"Terms for {name}: {', '.join(terms[name])}" for name in _NAMED if name in terms)
    writer = make_writer(job, job.chat, "attributes", ATTRIBUTES_SCHEMA, facts=False)
    # The lists stand with what is the same for all pictures, which endpoints that cache prefixes charge less for.
    writer = replace(writer, prompt=with_text(writer.prompt, lists))
    result.writer = f"measured, {writer.name}"
    result.prompt = f"{writer.prompt.name} sha256:{writer.prompt.sha256}"
    changed: dict[str, EmotionRecord] = {}
    strange: Counter[str] = Counter()
    num_unanswered = 0
    for sample in range(1 + job.settings.regenerate):
        left = [record for record in todo if record.id not in changed]
        requests = Requests(left, partial(writer.request, sample=sample))
        label = "attributes" if sample == 0 else f"attributes, again ({sample})"
        progress = job.ask(label, writer, requests, output_tokens=_OUTPUT_TOKENS)
        result.stopped, result.under_way = progress.stopped, progress.in_flight
        if job.dry_run:
            break
        num_unanswered = 0
        # Most of these were counted when they were measured.
        result.missing["bad_picture"] = max(result.missing["bad_picture"], len(requests.problems))
        for number, record in enumerate(left):
            if number in requests.problems:
                continue
            row = job.ledger.finished(writer.request(record, sample).fingerprint)
            value = find_json(row.get("reply") or "") if row is not None and row["status"] == "ok" else None
            if isinstance(value, dict):
                found = _known_terms(value, terms, strange)
                known = record.attributes.model_copy(update=found)
                changed[record.id] = record.model_copy(update={"attributes": known})
            elif row is None:
                num_unanswered += 1
            else:
                result.reasons[row["status"] if row["status"] != "ok" else "unreadable"] += 1
                result.num_rejected += 1
        if result.stopped or result.under_way or len(changed) == len(todo):
            break
    job.replace(changed)
    result.missing += Counter()  # without zeros
    if num_unanswered:
        result.missing[result.no_reply] = num_unanswered
    result.notes["terms outside the vocabulary"] = sum(strange.values())
    result.notes["most frequent of them"] = [term for term, _ in strange.most_common(5)]


def _known_terms(
    value: Mapping[str, Any], terms: Mapping[str, tuple[str, ...]], strange: Counter[str]
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
                # Without a list, a term is at least no sentence.
                term = item.strip() if len(item.split()) <= _MAX_TERM_WORDS else None
            else:
                term = allowed.get(_plain(item))
            if term is None:
                strange[f"{name} '{item.strip()[:40]}'"] += 1
            elif term not in good:
                good.append(term)
        if good:
            found[name] = good[:_MAX_OBJECTS] if name == "object" else good[0]
    return found


def _plain(term: str) -> str:
    return " ".join("".join(character if character.isalnum() else " " for character in term.casefold()).split())
