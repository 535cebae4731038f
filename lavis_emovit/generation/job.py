"""A generation job: its records, folder, settings and endpoints, and the result of each step."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import InitVar, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from lavis_emovit.chat.batch import open_submissions, run_batches
from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.prices import likely, load_prices, worst_case
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import ChatImage, ChatRequest, Message, image_of
from lavis_emovit.chat.run import run_requests
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.clips.clip import FrameSettings
from lavis_emovit.emotion.labels import Subject
from lavis_emovit.emotion.questions import CATEGORICAL_WORDINGS, OPEN_WORDINGS, OptionOrder
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.generation.clip_frames import clip_images
from lavis_emovit.generation.facts import ALL_FACTS, FactName, facts_text
from lavis_emovit.generation.job_records import JobRecords
from lavis_emovit.generation.kinds import KINDS
from lavis_emovit.generation.prompts import Prompt, load_prompt
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings, nearest_name

logger = logging.getLogger(__name__)

# Further bad images are counted but not listed.
_MAX_LISTED_PROBLEMS = 20
CLIP_FRAMES = FrameSettings(num_frames=6)
_PURPOSES = [*KINDS, "caption", "attributes", "synthesis", "judge"]


class JobSettings(Settings):
    """How instructions are written, apart from the endpoint."""

    seed: int = 0  # seed of wordings, examples and mixes
    split: str | None = "train"  # only records of this split get instructions. None: all records.
    vision: bool = False  # send the image to the writer along with the facts
    frames: FrameSettings = CLIP_FRAMES  # which frames of clips are sent, each as an image
    # Most images that a job may send; requests that would need more are not sent. None: no limit.
    max_images: int | None = Field(default=None, ge=1)
    facts: tuple[FactName, ...] = ALL_FACTS  # facts that the writer gets
    num_examples: int = Field(default=3, ge=0)  # worked examples in each prompt, each with another emotion
    prompt_files: dict[str, str] = Field(default_factory=dict)  # kind -> file with a custom prompt
    # Number of further attempts for replies that cannot be used in full.
    regenerate: int = Field(default=0, ge=0, le=20)
    # `dataset` rejects pairs like any earlier one of the kind, `image` like one of the same image. None: `dataset` for
    # chat models, `image` for the offline writer, which repeats itself.
    near_duplicates: str | None = Field(default=None, pattern="^(dataset|image|off)$")
    wordings: tuple[int, ...] = Field(default=(1,), min_length=1)  # wordings of the categorical question to choose from
    option_order: OptionOrder = "fixed"  # order of its options: `fixed`, `shuffled` or `rotated`
    open_set: bool = False  # ask the categorical question without a list of options
    # What valence and arousal describe. None: decided by label set, action units and box of each record.
    about: Subject | None = None

    @field_validator("prompt_files")
    @classmethod
    def _prompts_exist(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name not in _PURPOSES:
                raise ValueError(f"unknown prompt '{name}'{nearest_name(name, _PURPOSES)}")
        return value

    @model_validator(mode="after")
    def _wordings_exist(self) -> JobSettings:
        available = len(OPEN_WORDINGS["picture"] if self.open_set else CATEGORICAL_WORDINGS)
        unknown = [number for number in self.wordings if not 1 <= number <= available]
        if unknown:
            kind = "open" if self.open_set else "categorical"
            raise ValueError(f"{kind} wording {unknown[0]} does not exist; there are 1 to {available}")
        return self


@dataclass
class StepResult:
    """Result of one step; `summary.json` contains all attributes."""

    step: str  # `captions`, `attributes`, `seke` or a kind
    writer: str = ""  # name of the writer, as in provenance
    prompt: str = ""  # name, version and hash of the prompt; empty without a prompt
    num_records: int = 0  # records that the step processes
    num_done: int = 0  # records that have the output of the step
    num_pairs: int = 0
    num_read: int = 0  # readable pairs, accepted or not
    # Rejected pairs and replies by reason; one may have several reasons.
    reasons: Counter[str] = field(default_factory=Counter)
    num_rejected: int = 0  # rejected pairs and replies
    missing: Counter[str] = field(default_factory=Counter)  # records without any reply, by class of fault
    faults: dict[str, str] = field(default_factory=dict)  # class of fault of a request -> the last reason
    under_way: int = 0  # requests in batches that are not finished
    stopped: str | None = None  # why the run ended early, or None
    notes: dict[str, Any] = field(default_factory=dict)  # further counts, by name

    def reject(self, *reasons: str) -> None:
        """Count a pair or a reply that is rejected."""
        self.reasons.update(reasons)
        self.num_rejected += 1

    @property
    def leak_rate(self) -> float | None:
        """Share of readable questions that reveal the label."""
        return self.reasons["label_leak"] / self.num_read if self.num_read else None


@dataclass(frozen=True)
class ChatWriter:
    settings: ChatSettings
    prompt: Prompt
    purpose: str  # purpose of the requests (`conversation`, `caption`, ...)
    schema: Mapping[str, Any] | None = None  # JSON schema of the reply
    image_root: Path | None = None  # folder that image paths are relative to; None sends no images
    facts: Sequence[FactName] = ALL_FACTS  # facts in the request; empty for captions and attributes
    frames: FrameSettings = CLIP_FRAMES

    @property
    def name(self) -> str:  # in provenance
        return f"chat:{self.settings.model}"

    def request(self, record: EmotionRecord, sample: int = 0, more: str = "") -> ChatRequest:
        """The request for a record, with `more` after the facts. DataError if the image cannot be read."""
        known = facts_text(record, self.facts)
        text = f"Known about the picture:\n{known}" if known else "What does this picture show?"
        images: tuple[ChatImage, ...] = ()
        if self.image_root is not None:
            chat = self.settings
            sizes = (chat.image_max_side_px, chat.image_quality, chat.image_detail)
            if record.clip is not None:
                times_s, images = clip_images(self.image_root, record.image, record.clip, self.frames, sizes)
                text = f"{_about_frames(times_s)}\n{text}"
            else:
                whole = image_of(self.image_root / record.image, *sizes)
                images = (whole,)
                if record.box is not None:
                    text = f"The second picture is a part of the first one: the person that this is about.\n{text}"
                    images = (whole, replace(whole, box=record.box))
        return ChatRequest(
            model=self.settings.model,
            messages=(
                Message("system", self.prompt.text),
                Message("user", f"{text}\n\n{more}" if more else text, images),
            ),
            parameters=self.settings.parameters(),
            prompt=self.prompt.name,
            schema=self.schema,
            sample=sample,
            about={"record": record.id, "kind": self.purpose},
        )


def _about_frames(times_s: Sequence[float]) -> str:
    times = ", ".join(f"{time_s:.1f}" for time_s in times_s)
    return (
        f"The pictures are {len(times_s)} frames of one clip in the order of time, at {times} seconds. Write about the "
        "clip: what happens, how the emotion changes, and why."
    )


@dataclass(frozen=True)
class Estimate:
    """Requests of a step and their expected cost."""

    label: str
    num_requests: int  # all requests; `num_paid` of them are already in the ledger
    num_paid: int
    # input_tokens, output_tokens: expected tokens of the others.
    input_tokens: int
    output_tokens: int
    usd: float | None  # expected cost in US dollars; None if the model has no price
    usd_worst: float | None  # highest possible cost


def estimate(
    label: str, requests: Iterable[ChatRequest], settings: ChatSettings, ledger: Ledger, output_tokens: int, batch: bool
) -> Estimate:
    """Estimate the cost of requests. UserError if the price file is invalid.

    A reply is expected to be as long as the mean reply to its prompt in the ledger, or `output_tokens` without one.
    """
    price = load_prices(settings.prices).find(settings.model)
    means: dict[str, tuple[int, int]] = {}
    for row in ledger.attempts():
        if row["status"] == "ok" and row.get("usage"):
            count, total = means.get(row["prompt"], (0, 0))
            means[row["prompt"]] = (count + 1, total + row["usage"]["output"])
    num_requests = num_paid = num_input = num_output = 0
    usd = usd_worst = 0.0
    for request in requests:
        num_requests += 1
        if request.fingerprint in ledger:
            num_paid += 1
            continue
        count, total = means.get(request.prompt, (1, output_tokens))
        usage = likely(request, price, total / count)
        num_input, num_output = num_input + usage.input, num_output + usage.output
        if price is not None:
            usd += price.usd(usage, batch=batch)
            usd_worst += price.usd(worst_case(request, price), batch=batch)
    costs = (usd, usd_worst) if price is not None else (None, None)
    return Estimate(label, num_requests, num_paid, num_input, num_output, *costs)


Display = Callable[[str, RunProgress], AbstractContextManager[None]]
OnRow = Callable[[dict[str, Any], RunProgress], None]


@dataclass
class Job:
    """State that all steps share. Steps put records with more content into `records`."""

    source: InitVar[Iterable[EmotionRecord]]  # all records of the input, including those that get no instructions
    image_root: Path  # folder that image paths are relative to
    folder: Path  # folder of ledger, rejected pairs and results
    ledger: Ledger
    settings: JobSettings = field(default_factory=JobSettings)
    chat: ChatSettings | None = None  # endpoint. None: the offline writer.
    judge: ChatSettings | None = None
    batch: bool = False  # submit batches instead of single requests
    wait: bool = True
    abandon_batches: bool = False  # send requests again whose batch the endpoint no longer has
    dry_run: bool = False  # send nothing, only estimate
    display: Display = lambda label, progress: contextlib.nullcontext()  # shows the progress of requests
    estimates: list[Estimate] = field(default_factory=list)  # estimated requests of a dry run
    num_images: int = 0  # images of requests so far, counted if `max_images` limits them
    records: JobRecords = field(init=False)
    processed: bytearray = field(init=False)  # by number: 1 for records that a step has written, changed or not
    # Purpose of requests -> by number: 1 for records that were asked for, 2 for those with a reply.
    replied: dict[str, bytearray] = field(default_factory=dict)

    def __post_init__(self, source: Iterable[EmotionRecord]) -> None:
        self.records = JobRecords.store(source, self.folder)
        self.processed = bytearray(len(self.records))

    def chosen(self, ids: Collection[str] | None = None) -> JobRecords:
        """The records of the split, optionally limited to these ids."""
        of_split = self.records if self.settings.split is None else self.records.of_split(self.settings.split)
        return of_split if ids is None else of_split.where(lambda record: record.id in ids)

    def put(self, number: int, record: EmotionRecord) -> None:
        """Replace a record by what a step has written."""
        self.processed[number] = 1
        self.records.put(number, record)

    def writer(
        self, chat: ChatSettings, purpose: str, schema: Mapping[str, Any] | None = None, *, facts: bool = True
    ) -> ChatWriter:
        """The chat writer of a step, with the prompt that the settings choose. Without facts it sees the image."""
        settings = self.settings
        custom = settings.prompt_files.get(purpose)
        prompt = load_prompt(
            purpose,
            file=Path(custom) if custom else None,
            num_examples=settings.num_examples if purpose in KINDS and not custom else 0,
            facts=settings.facts,
            seed=settings.seed,
        )
        image_root = self.image_root if settings.vision or not facts else None
        return ChatWriter(chat, prompt, purpose, schema, image_root, settings.facts if facts else (), settings.frames)

    def send(
        self,
        label: str,
        writer: ChatWriter,
        requests: Requests,
        *,
        output_tokens: int,
        on_row: OnRow | None = None,
    ) -> RunProgress:
        """Send requests, singly or in batches; in a dry run, estimate them with the tokens of a typical reply.

        `on_row` is called with every row of the ledger that finishes a request. UserError for single requests while
        batches are under way, which could pay for a request twice.
        """
        progress = RunProgress(total=len(requests))
        if self.settings.max_images is not None:
            self._reserve_images(label, requests, self.settings.max_images)
        if self.dry_run:
            self.estimates.append(estimate(label, requests, writer.settings, self.ledger, output_tokens, self.batch))
            return progress
        submissions = open_submissions(self.ledger)
        if submissions and not self.batch:
            count = sum(entry.get("requests", 0) for entry in submissions.values())
            raise UserError(
                f"{self.ledger.path}: batches with {count} requests are under way, so single requests could be paid "
                "twice. Collect the batches first with --batch, or choose another folder."
            )
        report = None if on_row is None else lambda row: on_row(row, progress)
        with self.display(label, progress):
            if self.batch:
                run_batches(
                    requests, writer.settings, self.ledger, wait=self.wait, abandon_lost=self.abandon_batches,
                    progress=progress, on_row=report,
                )  # fmt: skip
            else:
                run_requests(requests, writer.settings, self.ledger, progress=progress, on_row=report)
        return progress

    def _reserve_images(self, label: str, requests: Iterable[ChatRequest], limit: int) -> None:
        """Count the images of requests that are not paid yet; UserError if there are too many for the job."""
        num_new = sum(one.num_images() for one in requests if one.fingerprint not in self.ledger)
        if self.num_images + num_new > limit:
            before = f" after {self.num_images} of earlier requests" if self.num_images else ""
            raise UserError(
                f"{label}: needs {num_new} images{before}, and job.max_images allows {limit}. None of these was sent. "
                "Choose fewer frames (job.frames) or records, or allow more."
            )
        self.num_images += num_new

    def request_replies(
        self,
        records: JobRecords,
        writer: ChatWriter,
        result: StepResult,
        *,
        label: str,
        output_tokens: int,
        use: Callable[[int, EmotionRecord, dict[str, Any], int], bool],
        is_done: bytearray | None = None,
        on_row: OnRow | None = None,
        after_round: Callable[[], None] = lambda: None,
    ) -> None:
        """Send one request per record, and up to `regenerate` more for records that are not done.

        `result` gets the names of writer and prompt, and the counts of missing replies. `use` gets the number of each
        record, the record, its row in the ledger and the number of the attempt; it returns whether the record is done.
        `is_done` stores that by number, for callers that change it.
        """
        is_done = bytearray(len(self.records)) if is_done is None else is_done
        result.writer = f"{result.writer}, {writer.name}" if result.writer else writer.name
        result.prompt = writer.prompt.identity
        replied = bytearray(len(self.records))
        for sample in range(1 + self.settings.regenerate):
            left = records.numbered(lambda number: not is_done[number])
            if not left or result.stopped or result.under_way:
                return
            requests = Requests(left.__iter__, len(left), partial(writer.request, sample=sample))
            title = label if sample == 0 else f"{label}, again ({sample})"
            progress = self.send(title, writer, requests, output_tokens=output_tokens, on_row=on_row)
            if self.dry_run:
                return
            result.stopped, result.under_way = progress.stopped, progress.in_flight
            result.faults |= progress.reasons
            num_missing = 0
            for number in records.numbers:
                replied[number] = replied[number] or 1
            for place, (number, record) in enumerate(left.items()):
                if place in requests.problems:
                    continue
                row = self.ledger.finished(writer.request(record, sample).fingerprint)
                if row is not None:
                    replied[number] = 2
                    is_done[number] = use(number, record, row, sample)
                elif replied[number] != 2:
                    num_missing += 1
            bad_images = max(result.missing["bad_picture"], len(requests.problems))
            counts = {"bad_picture": bad_images, "under_way" if result.under_way else "no_reply": num_missing}
            result.missing = Counter({name: count for name, count in counts.items() if count})
            self.replied[writer.purpose] = replied
            if 2 not in replied:
                result.stopped = result.stopped or progress.nothing_answered()
            after_round()


class Requests:
    """Requests that `make` creates on each iteration, so memory stays small, from `count` items that `items` yields.

    Items with an unreadable image are skipped and listed in `problems`.
    """

    def __init__(self, items: Callable[[], Iterable[Any]], count: int, make: Callable[[Any], ChatRequest]):
        self._items, self._count, self._make = items, count, make
        self.problems: dict[int, str] = {}

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ChatRequest]:
        for number, item in enumerate(self._items()):
            try:
                yield self._make(item)
            except DataError as error:
                if number not in self.problems and len(self.problems) < _MAX_LISTED_PROBLEMS:
                    logger.warning("%s", error)
                self.problems[number] = str(error)
