"""Conversation, reasoning, description and explanation: request replies, read and check them, write the pairs."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_emovit.chat.json_text import find_json, object_schema
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.chat.scratch import Scratch
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.emotion.answer_phrases import is_refusal
from lavis_emovit.emotion.labels import LabelSet, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer
from lavis_emovit.generation import offline
from lavis_emovit.generation.categorical import AFFECT_PROVENANCE
from lavis_emovit.generation.checks import NearDuplicates, check_pair
from lavis_emovit.generation.job import Job, Requests, StepResult
from lavis_emovit.generation.kinds import KINDS, Kind
from lavis_emovit.generation.reading import Pair
from lavis_emovit.records import EmotionRecord, Instruction

logger = logging.getLogger(__name__)

# Provenance of generated instructions begins with these. A new run replaces only instructions with such a provenance.
GENERATED = ("chat:", "offline/", "template:")

_JUDGE_SCHEMA = object_schema(keep={"type": "boolean"}, reason={"type": "string"})
_JUDGE_OUTPUT_TOKENS = 30


@dataclass
class _Rejected:
    reasons: list[str]
    sample: int
    pair: Pair | None = None
    text: str | None = None
    detail: str | None = None


@dataclass
class _Outcome:
    pairs: list[Pair] = field(default_factory=list)
    sample: int = 0
    rejected: list[_Rejected] = field(default_factory=list)
    num_read: int = 0


def write_kind(job: Job, name: str, ids: Collection[str] | None = None) -> StepResult:
    """Write one kind of instruction, and the rejected pairs into `rejected/<kind>.jsonl`; raises as `check_labels`."""
    step = _Step(job, KINDS[name], ids)
    if job.chat is None:
        step.write_offline()
    else:
        step.write_by_chat(job.chat)
    if not job.dry_run:
        step.store()
    return step.result


def check_labels(records: Sequence[EmotionRecord]) -> dict[str, LabelSet]:
    """The label sets of records by name. DataError names a record whose emotion is not in its label set."""
    without = [record.id for record in records if record.emotion is not None and record.label_set is None]
    if without:
        raise DataError(
            f"{len(without)} of {len(records)} records have an emotion but no label set (first: '{without[0]}'). Set "
            "`label_set` (`emovit data import ... --label-set`)."
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


def with_instructions(record: EmotionRecord, step: str, new: list[Instruction]) -> EmotionRecord:
    """The record with new instructions in place of earlier ones of the step, or at the end.

    Instructions by people and imported ones stay.
    """
    old = [step_of(item) == step for item in record.instructions]
    place = old.index(True) if any(old) else len(old)
    kept = [item for item, is_old in zip(record.instructions, old) if not is_old]
    return record.model_copy(update={"instructions": [*kept[:place], *new, *kept[place:]]})


def step_of(instruction: Instruction) -> str | None:
    """The step that wrote an instruction, `affect` or a kind; None if it comes from people or a file."""
    if instruction.provenance.startswith(AFFECT_PROVENANCE):
        return "affect"
    return instruction.kind if instruction.provenance.startswith(GENERATED) else None


class _Outcomes:
    """The outcomes of records by number, on disk."""

    def __init__(self, folder: Path):
        self._table = Scratch("number INTEGER PRIMARY KEY, outcome BLOB", folder)

    def __getitem__(self, number: int) -> _Outcome:
        found = self._table.execute("SELECT outcome FROM scratch WHERE number = ?", (number,)).fetchone()
        return pickle.loads(found[0]) if found else _Outcome()

    def __setitem__(self, number: int, outcome: _Outcome) -> None:
        self._table.execute("INSERT OR REPLACE INTO scratch VALUES (?, ?)", (number, pickle.dumps(outcome)))


class _Step:
    def __init__(self, job: Job, kind: Kind, ids: Collection[str] | None):
        self.job, self.kind = job, kind
        self.records = job.chosen(ids)
        if kind.needs_emotion:
            self.records = self.records.where(lambda record: record.emotion is not None)
        self.label_sets = check_labels(self.records)
        self.outcomes = _Outcomes(job.folder)
        self.is_complete = bytearray(len(job.records))
        self.result = StepResult(kind.name, num_records=len(self.records))

    def write_offline(self) -> None:
        settings = self.job.settings
        self.result.writer = offline.WRITER
        num_bare = sum(not offline.knows_more_than_the_label(record) for record in self.records)
        if num_bare:
            self.result.notes["stock sentences only"] = num_bare
            logger.warning(
                "%s: %d of %d records have no caption, no attributes and no values over time, so the offline writer "
                "writes only stock sentences about their label. Run the steps captions and attributes first, or add "
                "--model.",
                self.kind.name, num_bare, len(self.records),
            )  # fmt: skip
        for sample in range(1 + settings.regenerate):
            for number, record in self.records.items():
                if not self.is_complete[number]:
                    reply = self.kind.offline_reply(record, sample, settings.seed)
                    self.is_complete[number] = self._add(number, record, "ok", reply, sample)
        if not self.job.dry_run:
            self._check_all("image")

    def write_by_chat(self, chat: ChatSettings) -> None:
        def use(number: int, record: EmotionRecord, row: dict[str, Any], sample: int) -> bool:
            return self._add(number, record, row["status"], row.get("reply"), sample)

        def count(row: dict[str, Any], progress: RunProgress) -> None:
            number = self.records.find(row["about"].get("record", ""))
            if row["status"] == "ok" and number is not None:
                trial = _Outcome()
                self._take(trial, self.records.get(number), "ok", row["reply"], 0)
                progress.rejected.update({reason for rejected in trial.rejected for reason in rejected.reasons})

        self.job.request_replies(
            self.records,
            self.job.writer(chat, self.kind.name, self.kind.schema),
            self.result,
            label=self.kind.name,
            output_tokens=self.kind.output_tokens,
            use=use,
            is_done=self.is_complete,
            on_row=count,
            after_round=lambda: self._check_all("dataset"),
        )
        if self.job.dry_run and self.job.judge is not None and self.records:
            self._judge(self.job.judge)

    def _add(self, number: int, record: EmotionRecord, status: str, text: str | None, sample: int) -> bool:
        outcome = self.outcomes[number]
        is_complete = self._take(outcome, record, status, text, sample)
        self.outcomes[number] = outcome
        return is_complete

    def _take(self, outcome: _Outcome, record: EmotionRecord, status: str, text: str | None, sample: int) -> bool:
        """Read and check a reply; returns whether all of it can be used. The outcome keeps the most good pairs."""
        rejected: list[_Rejected] = []
        pairs: list[Pair] = []
        if status in ("ok", "bad_json") and text is not None:
            reading = self.kind.read(text, record)
            for problem in reading.problems:
                reason = _why_unreadable(status, text) if not reading.pairs else "unreadable"
                rejected.append(_Rejected([reason], sample, text=text, detail=problem))
            outcome.num_read += len(reading.pairs)
            for number, pair in enumerate(reading.pairs):
                failed = check_pair(pair, self.kind, record.emotion, self.label_sets.get(record.label_set or ""))
                if number >= self.kind.num_pairs:
                    failed.append("extra_pair")
                if failed:
                    rejected.append(_Rejected(failed, sample, pair))
                else:
                    pairs.append(pair)
            if not reading.problems and len(reading.pairs) < self.kind.num_pairs:
                rejected.append(_Rejected(["missing_pair"], sample, text=text))
        else:
            rejected.append(_Rejected([status], sample, text=text))
        outcome.rejected += rejected
        if len(pairs) > len(outcome.pairs):
            outcome.pairs, outcome.sample = pairs, sample
        return not rejected

    def _check_all(self, near_duplicates: str) -> None:
        self._drop_duplicates(self.job.settings.near_duplicates or near_duplicates)
        if self.job.judge is not None:
            self._judge(self.job.judge)

    def _drop_duplicates(self, mode: str) -> None:
        """Drop pairs that are nearly the same as an earlier one. The order of the records decides which pair stays."""
        if mode == "off":
            return
        found = NearDuplicates(self.job.folder)

        def reject(number: int, outcome: _Outcome) -> Iterator[_Rejected]:
            if mode == "image":
                found.clear()
            for pair in outcome.pairs:
                if found.seen(f"{pair.question} {pair.answer}"):
                    yield _Rejected(["near_duplicate"], outcome.sample, pair)

        self._drop(reject)

    def _judge(self, chat: ChatSettings) -> None:
        """Request a verdict on every pair that passed so far. A pair without a verdict stays."""
        writer = self.job.writer(chat, "judge", _JUDGE_SCHEMA)
        # For an estimate: as many pairs as requested, each of the usual length.
        reply = "." * (4 * self.kind.output_tokens // self.kind.num_pairs)
        usual = [Pair("?" * 80, f"{place}{reply}") for place in range(self.kind.num_pairs)]

        def items() -> Iterator[tuple[EmotionRecord, Pair]]:
            for number, record in self.records.items():
                for pair in usual if self.job.dry_run else self.outcomes[number].pairs:
                    yield record, pair

        def request(item: tuple[EmotionRecord, Pair]) -> ChatRequest:
            record, pair = item
            return writer.request(record, more=f"Question: {pair.question}\nAnswer: {pair.answer}")

        label, num_pairs = f"{self.kind.name}, judged", sum(1 for _ in items())
        requests = Requests(items, num_pairs, request)
        progress = self.job.send(label, writer, requests, output_tokens=_JUDGE_OUTPUT_TOKENS)
        if self.job.dry_run:
            return
        self.result.stopped = self.result.stopped or progress.stopped or progress.nothing_answered()
        self.result.under_way += progress.in_flight
        num_silent = 0

        def reject(number: int, outcome: _Outcome) -> Iterator[_Rejected]:
            nonlocal num_silent
            record = self.records.get(number)
            for pair in outcome.pairs:
                row = self.job.ledger.finished(request((record, pair)).fingerprint)
                verdict = find_json(row["reply"]) if row and row["status"] == "ok" else None
                if not isinstance(verdict, dict) or not isinstance(verdict.get("keep"), bool):
                    num_silent += 1
                elif not verdict["keep"]:
                    yield _Rejected(["judge"], outcome.sample, pair, detail=str(verdict.get("reason")))

        self._drop(reject)
        self.result.notes["judged"] = {"pairs": num_pairs, "without verdict": num_silent, "model": chat.model}

    def _drop(self, reject: Callable[[int, _Outcome], Iterable[_Rejected]]) -> None:
        """Drop the pairs of all records that `reject` yields."""
        for number in self.records.numbers:
            outcome = self.outcomes[number]
            if new := list(reject(number, outcome)):
                outcome.pairs = [pair for pair in outcome.pairs if not any(pair is item.pair for item in new)]
                outcome.rejected += new
                self.outcomes[number] = outcome
                self.is_complete[number] = False

    def store(self) -> None:
        """Write pairs into the records and rejected pairs into a file, and count both."""
        result, name = self.result, self.kind.name
        prompt = result.prompt.partition(" ")[0] or f"{name}/1"
        with atomic_writer(self.job.folder / "rejected" / f"{name}.jsonl") as file:
            for number, record in self.records.items():
                outcome = self.outcomes[number]
                provenance = f"{result.writer}:{prompt}#{outcome.sample}"
                new = [Instruction(kind=name, provenance=provenance, **vars(pair)) for pair in outcome.pairs]
                self.job.put(number, with_instructions(record, name, new))
                result.num_done += bool(new)
                result.num_pairs += len(new)
                result.num_read += outcome.num_read
                for rejected in outcome.rejected:
                    result.reject(*rejected.reasons)
                    if rejected.detail is not None and "unreadable" in rejected.reasons:
                        result.faults["unreadable"] = rejected.detail
                    row = {
                        "record": record.id,
                        "kind": name,
                        "reasons": rejected.reasons,
                        "sample": rejected.sample,
                        **(vars(rejected.pair) if rejected.pair else {}),
                        **({"reply": rejected.text} if rejected.text is not None else {}),
                        **({"detail": rejected.detail} if rejected.detail is not None else {}),
                    }
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _why_unreadable(status: str, text: str) -> str:
    """Whether a reply without pairs is a refusal in words, bad JSON, or something else."""
    if is_refusal(text.lower().replace("\u2019", "'")):
        return "refused"
    return "unreadable" if status == "ok" else status
