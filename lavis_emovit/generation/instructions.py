"""Conversation, reasoning, description and explanation: asked for, read, checked, and written into the records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lavis_emovit.chat.json_text import find_json
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.emotion.answer_phrases import REFUSALS, SOFT_REFUSALS
from lavis_emovit.emotion.labels import LabelSet, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer
from lavis_emovit.generation.checks import NearDuplicates, check_pair
from lavis_emovit.generation.job import Job, Requests, StepResult
from lavis_emovit.generation.kinds import KINDS, Kind
from lavis_emovit.generation.offline import OfflineWriter
from lavis_emovit.generation.prompts import load_prompt
from lavis_emovit.generation.reading import Pair
from lavis_emovit.generation.writers import ChatWriter
from lavis_emovit.records import EmotionRecord, Instruction

# What provenance of instructions written by us begins with; running a kind again replaces those and no others.
GENERATED = ("chat:", "offline/", "template:")

_JUDGE_SCHEMA = {
    "type": "object",
    "properties": {"keep": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["keep", "reason"],
    "additionalProperties": False,
}
_JUDGE_OUTPUT_TOKENS = 30


@dataclass
class _Rejected:
    """A pair or a whole reply that is not used."""

    reasons: list[str]
    sample: int
    pair: Pair | None = None
    text: str | None = None
    detail: str | None = None


@dataclass
class _Outcome:
    """What a record has of one kind so far."""

    pairs: list[Pair] = field(default_factory=list)
    sample: int = 0
    rejected: list[_Rejected] = field(default_factory=list)
    complete: bool = False
    answered: bool = False
    num_read: int = 0


def write_kind(job: Job, name: str, ids: Iterable[str] | None = None) -> StepResult:
    """Write one kind of instruction into the records.

    Args:
        job: records, writer and ledger.
        name: `conversation`, `reasoning`, `description` or `explanation`.
        ids: the records that get it; None is all of the split. An explanation needs a picture with an emotion.

    Returns:
        the counts. Rejected pairs are in `rejected/<kind>.jsonl` in the job's folder.

    Raises:
        DataError: a record has an emotion of no label set, or of an unknown one.
    """
    kind = KINDS[name]
    chosen = [record for record in job.chosen(ids) if record.emotion is not None or not kind.needs_emotion]
    label_sets = check_labels(chosen)
    result = StepResult(name, num_records=len(chosen))
    outcomes = {record.id: _Outcome() for record in chosen}
    if job.chat is None:
        offline = OfflineWriter(job.settings.seed)
        result.writer = offline.name
        for sample in range(1 + job.settings.regenerate):
            for record in chosen:
                if not outcomes[record.id].complete:
                    _take(
                        outcomes[record.id], kind, record, label_sets, "ok", offline.reply(record, name, sample), sample
                    )
    else:
        _ask_rounds(job, job.chat, kind, chosen, outcomes, label_sets, result)
    if job.dry_run:
        return result
    if job.chat is None:
        _drop_duplicates(chosen, outcomes, job.settings.near_duplicates or "image")
        if job.judge is not None:
            _judge(job, job.judge, kind, chosen, outcomes, result)
    _write_into(job, kind, chosen, outcomes, result)
    _write_rejected(job.folder / "rejected" / f"{name}.jsonl", chosen, outcomes, kind)
    return result


def make_writer(job: Job, chat: ChatSettings, purpose: str, schema: Any = None, *, facts: bool = True) -> ChatWriter:
    """The writer of a step, with the prompt that the job's settings choose."""
    settings = job.settings
    own = settings.prompt_files.get(purpose)
    prompt = load_prompt(
        purpose,
        file=Path(own) if own else None,
        num_examples=settings.num_examples if purpose in KINDS and not own else 0,
        facts=settings.facts,
        seed=settings.seed,
    )
    image_root = job.image_root if settings.vision or not facts else None
    return ChatWriter(chat, prompt, purpose, schema, image_root, settings.facts if facts else ())


def check_labels(records: Sequence[EmotionRecord]) -> dict[str, LabelSet]:
    """The label sets of records by name, every emotion being a member of its own.

    Raises:
        DataError: an emotion of no label set, of an unknown one, or not in it; the record is named.
    """
    without = [record.id for record in records if record.emotion is not None and record.label_set is None]
    if without:
        raise DataError(
            f"{len(without)} of {len(records)} records have an emotion and name no label set (first: '{without[0]}'); "
            "set `label_set` (`emovit data import ... --label-set`)"
        )
    found: dict[str, LabelSet] = {}
    for record in records:
        if record.label_set is None:
            continue
        try:
            if record.label_set not in found:
                found[record.label_set] = get_label_set(record.label_set)
            if record.emotion is not None:
                found[record.label_set].canonical(record.emotion)
        except DataError as error:
            raise DataError(f"record '{record.id}': {error}") from None
    return found


# ---- Asking and reading -----------------------------------------------------------------------------------------


def _ask_rounds(
    job: Job,
    chat: ChatSettings,
    kind: Kind,
    chosen: list[EmotionRecord],
    outcomes: dict[str, _Outcome],
    label_sets: dict[str, LabelSet],
    result: StepResult,
) -> None:
    writer = make_writer(job, chat, kind.name, kind.schema)
    result.writer, result.prompt = writer.name, f"{writer.prompt.name} sha256:{writer.prompt.sha256}"
    by_id = {record.id: record for record in chosen}
    for sample in range(1 + job.settings.regenerate):
        todo = [record for record in chosen if not outcomes[record.id].complete]
        if not todo or result.stopped or result.under_way:
            break

        def count(row: dict[str, Any], progress: RunProgress) -> None:
            record = by_id.get(row["about"].get("record", ""))
            if row["status"] == "ok" and record is not None:
                trial = _Outcome()
                _take(trial, kind, record, label_sets, "ok", row["reply"], 0)
                progress.rejected.update({reason for rejected in trial.rejected for reason in rejected.reasons})

        requests = Requests(todo, partial(writer.request, sample=sample))
        label = kind.name if sample == 0 else f"{kind.name}, again ({sample})"
        progress = job.ask(label, writer, requests, output_tokens=kind.output_tokens, on_row=count)
        result.stopped, result.under_way = progress.stopped, progress.in_flight
        if job.dry_run:
            if job.judge is not None:
                _estimate_judge(job, job.judge, kind, todo)
            return
        for number, record in enumerate(todo):
            if number in requests.problems:
                result.missing["bad_picture"] += sample == 0
                continue
            row = job.ledger.finished(writer.request(record, sample).fingerprint)
            if row is not None:
                _take(outcomes[record.id], kind, record, label_sets, row["status"], row.get("reply"), sample)
            elif not outcomes[record.id].answered:
                result.missing[result.no_reply] += 1
        _drop_duplicates(chosen, outcomes, job.settings.near_duplicates or "dataset")
        if job.judge is not None:
            _judge(job, job.judge, kind, chosen, outcomes, result)


def _take(
    outcome: _Outcome,
    kind: Kind,
    record: EmotionRecord,
    label_sets: dict[str, LabelSet],
    status: str,
    text: str | None,
    sample: int,
) -> None:
    """Read and check a reply; it becomes the record's where it has more good pairs than the earlier ones."""
    outcome.answered = True
    rejected: list[_Rejected] = []
    pairs: list[Pair] = []
    if status in ("ok", "bad_json") and text is not None:
        reading = kind.read(text, record)
        for problem in reading.problems:
            reason = _why_unreadable(status, text) if not reading.pairs else "unreadable"
            rejected.append(_Rejected([reason], sample, text=text, detail=problem))
        outcome.num_read += len(reading.pairs)
        for number, pair in enumerate(reading.pairs):
            failed = check_pair(pair, kind, record.emotion, label_sets.get(record.label_set or ""))
            if number >= kind.num_pairs:
                failed.append("extra_pair")
            if failed:
                rejected.append(_Rejected(failed, sample, pair))
            else:
                pairs.append(pair)
        if not reading.problems and len(reading.pairs) < kind.num_pairs:
            rejected.append(_Rejected(["missing_pair"], sample, text=text))
    else:
        rejected.append(_Rejected([status], sample, text=text))
    outcome.rejected += rejected
    outcome.complete = not rejected
    if len(pairs) > len(outcome.pairs):
        outcome.pairs, outcome.sample = pairs, sample


def _why_unreadable(status: str, text: str) -> str:
    """Whether a reply that holds no pair is a refusal in words, bad JSON, or something else."""
    if any(pattern.search(text.lower().replace("\u2019", "'")) for pattern in (*REFUSALS, SOFT_REFUSALS)):
        return "refused"
    return "unreadable" if status == "ok" else status


def _drop_duplicates(chosen: list[EmotionRecord], outcomes: dict[str, _Outcome], mode: str) -> None:
    """Take pairs out that are nearly the same as an earlier one, in the order of the records: always the same ones."""
    if mode == "off":
        return
    found = NearDuplicates()
    for record in chosen:
        outcome = outcomes[record.id]
        if mode == "image":
            found = NearDuplicates()
        kept = []
        for pair in outcome.pairs:
            if found.seen(f"{pair.question} {pair.answer}"):
                outcome.rejected.append(_Rejected(["near_duplicate"], outcome.sample, pair))
                outcome.complete = False
            else:
                kept.append(pair)
        outcome.pairs = kept


def _judge(
    job: Job,
    chat: ChatSettings,
    kind: Kind,
    chosen: list[EmotionRecord],
    outcomes: dict[str, _Outcome],
    result: StepResult,
) -> None:
    """Ask the judge about every pair that passed so far. What it does not say is not taken for a no."""
    writer = make_writer(job, chat, "judge", _JUDGE_SCHEMA)
    items = [(record, pair) for record in chosen for pair in outcomes[record.id].pairs]
    requests = Requests(items, lambda item: _judge_request(writer, *item))
    progress = job.ask(f"{kind.name}, judged", writer, requests, output_tokens=_JUDGE_OUTPUT_TOKENS)
    result.stopped = result.stopped or progress.stopped
    result.under_way += progress.in_flight
    num_silent = 0
    for record, pair in items:
        row = job.ledger.finished(_judge_request(writer, record, pair).fingerprint)
        verdict = find_json(row["reply"]) if row and row["status"] == "ok" else None
        if not isinstance(verdict, dict) or not isinstance(verdict.get("keep"), bool):
            num_silent += 1
        elif not verdict["keep"]:
            outcome = outcomes[record.id]
            outcome.pairs = [other for other in outcome.pairs if other != pair]
            outcome.rejected.append(_Rejected(["judge"], outcome.sample, pair, detail=str(verdict.get("reason"))))
            outcome.complete = False
    result.notes["judged"] = {"pairs": len(items), "without verdict": num_silent, "model": chat.model}


def _estimate_judge(job: Job, chat: ChatSettings, kind: Kind, chosen: list[EmotionRecord]) -> None:
    """For a dry run: the judge would see as many pairs as asked for, each of the usual length."""
    writer = make_writer(job, chat, "judge", _JUDGE_SCHEMA)
    items = [
        (record, Pair("?" * 80, f"{number}" + "." * (4 * kind.output_tokens // kind.num_pairs)))
        for record in chosen
        for number in range(kind.num_pairs)
    ]
    requests = Requests(items, lambda item: _judge_request(writer, *item))
    job.ask(f"{kind.name}, judged", writer, requests, output_tokens=_JUDGE_OUTPUT_TOKENS)


def _judge_request(writer: ChatWriter, record: EmotionRecord, pair: Pair) -> Any:
    return writer.request(record, more=f"Question: {pair.question}\nAnswer: {pair.answer}")


# ---- Writing down -----------------------------------------------------------------------------------------------


def _write_into(
    job: Job, kind: Kind, chosen: list[EmotionRecord], outcomes: dict[str, _Outcome], result: StepResult
) -> None:
    prompt = result.prompt.partition(" ")[0] or f"{kind.name}/1"
    changed = {}
    for record in chosen:
        outcome = outcomes[record.id]
        new = [
            Instruction(
                kind=kind.name,
                question=pair.question,
                answer=pair.answer,
                provenance=f"{result.writer}:{prompt}#{outcome.sample}",
            )
            for pair in outcome.pairs
        ]
        changed[record.id] = with_instructions(record, kind.name, new)
        result.num_done += bool(new)
        result.num_pairs += len(new)
        result.num_read += outcome.num_read
        result.num_rejected += len(outcome.rejected)
        for rejected in outcome.rejected:
            result.reasons.update(rejected.reasons)
    job.replace(changed)


def with_instructions(record: EmotionRecord, kind: str, new: list[Instruction]) -> EmotionRecord:
    """The record with new instructions of a kind in the place of those that we wrote before, or at the end.

    People's and imported ones stay.
    """
    old = [item.kind == kind and item.provenance.startswith(GENERATED) for item in record.instructions]
    place = old.index(True) if any(old) else len(old)
    kept = [item for item, is_old in zip(record.instructions, old) if not is_old]
    return record.model_copy(update={"instructions": [*kept[:place], *new, *kept[place:]]})


def _write_rejected(path: Path, chosen: list[EmotionRecord], outcomes: dict[str, _Outcome], kind: Kind) -> None:
    with atomic_writer(path) as file:
        for record in chosen:
            for rejected in outcomes[record.id].rejected:
                row = {
                    "record": record.id,
                    "kind": kind.name,
                    "reasons": rejected.reasons,
                    "sample": rejected.sample,
                    "question": rejected.pair.question if rejected.pair else None,
                    "answer": rejected.pair.answer if rejected.pair else None,
                    "reply": rejected.text,
                    "detail": rejected.detail,
                }
                row = {name: value for name, value in row.items() if value is not None}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
