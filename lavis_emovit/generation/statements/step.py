"""The step over a job's records: several models propose words, votes decide, statements are written."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from lavis_emovit.chat.request import load_rgb
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.emotion.parrott import PRIMARY_OF
from lavis_emovit.errors import ConfigError
from lavis_emovit.files import atomic_writer, load_json, read_file
from lavis_emovit.generation.job import Job, StepResult
from lavis_emovit.generation.job_records import JobRecords
from lavis_emovit.generation.statements.proposals import SCHEMA, Attachment, Proposal, read_proposal, tidy
from lavis_emovit.generation.statements.review import write_pack
from lavis_emovit.generation.statements.votes import vote
from lavis_emovit.generation.statements.writing import Judged, write_statements
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings, nearest_name

TRAIL = "statements.jsonl"
PACK = "review.csv"
_OUTPUT_TOKENS = 350
_COLOURS_PX = 4
_MOST_OTHERS = 200  # images among which the most similar one is searched


class StatementSettings(Settings):
    """How words become statements."""

    least_share: float = Field(default=0.5, gt=0.0, le=1.0)  # share of the models that must propose an emotion
    num_words: int = Field(default=5, ge=1, le=50)  # words that an image keeps
    attachments: str | None = None  # JSON file: word -> secondary emotion of Parrott's tree, for words without a place
    num_reviewed: int = Field(default=100, ge=0)  # statements in the table for people


def make_statements(job: Job, models: Sequence[ChatSettings], settings: StatementSettings) -> StepResult:
    """Write `words` and `statements` of the job's records, from the proposals of all models.

    Records that have words or statements, perhaps by people, stay unchanged and are counted. An image needs a readable
    proposal of every model; the others stay unchanged, too, and are counted. `statements.jsonl` has the votes of each
    image, `review.csv` a table for people. ConfigError for invalid attachments.
    """
    attach = Attachment(_attachments(settings.attachments))
    everything = job.chosen()
    chosen = everything.where(lambda record: not record.statements and record.words is None)
    result = StepResult("statements", num_records=len(everything))
    if len(chosen) < len(everything):
        result.missing["with earlier words or statements, which stay"] = len(everything) - len(chosen)
    proposals: dict[int, list[Proposal]] = {}
    for model in models:
        _ask(job, chosen, model, proposals, result)
        if result.stopped or result.under_way:
            break
    if job.dry_run:
        return result
    judged: dict[int, Judged] = {}
    unattached: Counter[str] = Counter()
    for number, record in chosen.items():
        found = proposals.get(number, [])
        if len(found) < len(models):
            result.missing["without a proposal of every model"] += 1
            continue
        verdict = vote(found, attach, least_share=settings.least_share, num_words=settings.num_words)
        unattached.update(verdict.unattached)
        if not verdict.words:
            result.reject("no_agreement")
            continue
        judged[number] = Judged(record.id, found, verdict, _colours(job.image_root / record.image))
    kinds: Counter[str] = Counter()
    with atomic_writer(job.folder / TRAIL) as file:
        for number, image in judged.items():
            others = _others(number, judged, job.settings.seed)
            statements = write_statements(image, others, attach, job.settings.seed)
            kinds.update((one.categories or {}).get("subclass", (one.categories or {})["class"]) for one in statements)
            record = job.records.get(number)
            new = {"statements": statements, "words": list(image.verdict.words)}
            job.put(number, EmotionRecord.model_validate({**record.model_dump(), **new}))
            result.num_done += 1
            file.write(json.dumps(_story(image), ensure_ascii=False) + "\n")
    pack = write_pack(job.folder / PACK, chosen, settings.num_reviewed, job.settings.seed)
    result.notes = {
        "statements": dict(sorted(kinds.items())),
        "words without a place on the tree": dict(unattached.most_common(20)),
        "statements to review": pack,
    }
    return result


def _ask(
    job: Job, records: JobRecords, model: ChatSettings, proposals: dict[int, list[Proposal]], result: StepResult
) -> None:
    """Add the proposals of one model."""

    def use(number: int, record: EmotionRecord, row: dict[str, Any], sample: int) -> bool:
        if row["status"] != "ok":
            result.reject(row["status"])
            return False
        proposal = read_proposal(row["reply"], model.model)
        if isinstance(proposal, str):
            result.reject("unreadable")
            result.faults["unreadable"] = proposal
            return False
        proposals.setdefault(number, []).append(proposal)
        return True

    asked = StepResult("statements")
    job.request_replies(
        records, job.writer(model, "statements", SCHEMA, facts=False), asked,
        label=f"proposals of {model.model}", output_tokens=_OUTPUT_TOKENS, use=use,
    )  # fmt: skip
    result.writer = ", ".join(filter(None, (result.writer, asked.writer)))
    result.prompt, result.stopped = asked.prompt, asked.stopped
    result.under_way += asked.under_way
    result.faults |= asked.faults


def _attachments(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        content = load_json(read_file(path), unique_keys=True)
    except (OSError, ValueError) as error:
        raise ConfigError([f"the file cannot be read as JSON ({error})"], path) from None
    if not isinstance(content, dict):
        raise ConfigError(["expected an object: word -> secondary emotion"], path)
    wrong = [
        f"{word}: '{place}' is no secondary emotion of Parrott's tree{nearest_name(str(place), list(PRIMARY_OF))}"
        for word, place in content.items()
        if not isinstance(place, str) or place not in PRIMARY_OF
    ]
    named = Counter(map(tidy, content))
    wrong += [f"'{word}' is there {count} times, in other spellings" for word, count in named.items() if count > 1]
    wrong += ["a word is blank"] if "" in named else []
    if wrong:
        raise ConfigError(wrong, path)
    return content


def _colours(path: Path) -> list[float]:
    pixels = load_rgb(read_file(path), path).resize((_COLOURS_PX, _COLOURS_PX))
    return [value / 255 for value in pixels.tobytes()]


def _others(number: int, judged: dict[int, Judged], seed: int) -> list[Judged]:
    numbers = [other for other in judged if other != number]
    if len(numbers) > _MOST_OTHERS:
        numbers = random.Random(f"others/{seed}/{number}").sample(numbers, _MOST_OTHERS)
    return [judged[other] for other in numbers]


def _story(image: Judged) -> dict[str, Any]:
    return {
        "record": image.record_id,
        "models": [proposal.model for proposal in image.proposals],
        "proposed": [[word for word, _ in proposal.words] for proposal in image.proposals],
        "votes": image.verdict.votes,
        "words": image.verdict.words,
        "unattached": list(image.verdict.unattached),
    }
