"""A generation job: the records, the folder that it works in, who writes, and what came of every step."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from lavis_emovit.chat.batch import open_submissions, run_batches
from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.prices import likely, load_prices, worst_case
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.chat.run import run_requests
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.emotion.questions import CATEGORICAL_WORDINGS, OPEN_WORDINGS, OptionOrder
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.generation.facts import ALL_FACTS, FactName
from lavis_emovit.generation.prompts import LATEST
from lavis_emovit.generation.writers import ChatWriter
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings, nearest_name

logger = logging.getLogger(__name__)

# More faulty pictures than this are counted, not listed.
_LISTED_PROBLEMS = 20


class JobSettings(Settings):
    """How instructions are written, apart from the endpoint.

    Attributes:
        seed: of wordings, examples and mixes.
        split: only records of this split get instructions; None is all of them.
        vision: send the picture along with what is known.
        facts: what the writer is told.
        num_examples: worked examples in each prompt, each of another emotion.
        prompt_files: kind -> file with a prompt of one's own.
        regenerate: how many more times a reply that cannot be used in full is asked for.
        near_duplicates: `dataset` rejects pairs like any earlier one of the kind, `image` like one of the same picture.
            None is `dataset` for chat models and `image` for the offline writer, which repeats itself.
        wordings: wordings of the categorical question to choose from.
        option_order: order of its options: `fixed`, `shuffled` or `rotated`.
        open_set: ask the categorical question without a list of options.
    """

    seed: int = 0
    split: str | None = "train"
    vision: bool = False
    facts: tuple[FactName, ...] = ALL_FACTS
    num_examples: int = Field(default=3, ge=0)
    prompt_files: dict[str, str] = Field(default_factory=dict)
    regenerate: int = Field(default=0, ge=0, le=20)
    near_duplicates: str | None = Field(default=None, pattern="^(dataset|image|off)$")
    wordings: tuple[int, ...] = Field(default=(1,), min_length=1)
    option_order: OptionOrder = "fixed"
    open_set: bool = False

    @field_validator("prompt_files")
    @classmethod
    def _prompts_exist(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name not in LATEST:
                raise ValueError(f"no prompt '{name}'{nearest_name(name, list(LATEST))}")
        return value

    @model_validator(mode="after")
    def _wordings_exist(self) -> JobSettings:
        available = len(OPEN_WORDINGS if self.open_set else CATEGORICAL_WORDINGS)
        strange = [number for number in self.wordings if not 1 <= number <= available]
        if strange:
            kind = "open" if self.open_set else "categorical"
            raise ValueError(f"{kind} wording {strange[0]} does not exist; there are 1 to {available}")
        return self


@dataclass
class StepResult:
    """What came of one step.

    Attributes:
        step: `captions`, `attributes` or a kind.
        writer: who wrote, as provenance has it.
        prompt: name and version of the prompt, with its hash; empty without one.
        num_records: records that the step was for.
        num_done: records that have what the step makes.
        num_pairs: pairs that were accepted.
        num_read: pairs that could be read, accepted or not.
        reasons: pairs and replies that were rejected, by reason; one may have several.
        num_rejected: pairs and replies that were rejected.
        missing: records without any reply, by class of fault.
        under_way: requests that are in batches which nobody waited for.
        stopped: why asking ended early, or None.
        notes: further counts, by name.
    """

    step: str
    writer: str = ""
    prompt: str = ""
    num_records: int = 0
    num_done: int = 0
    num_pairs: int = 0
    num_read: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    num_rejected: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    stopped: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def no_reply(self) -> str:
        """Why a record has no reply yet, as a key of `missing`."""
        return "under_way" if self.under_way else "no_reply"

    @property
    def leak_rate(self) -> float | None:
        """Share of the questions that gave the label away, among all that could be read."""
        return self.reasons["label_leak"] / self.num_read if self.num_read else None


Display = Callable[[str, RunProgress], AbstractContextManager[None]]


@contextlib.contextmanager
def _no_display(label: str, progress: RunProgress) -> Iterator[None]:
    yield


@dataclass
class Job:
    """Everything that the steps share. The steps replace `records` by records that know more.

    Attributes:
        records: all records of the input, also those that get nothing.
        image_root: where picture paths start.
        folder: where ledger, rejected pairs and results lie.
        ledger: open.
        settings: how to write.
        chat: endpoint; None is the offline writer.
        judge: endpoint of the judge, or None.
        batch: submit batches instead of single calls.
        wait: wait for batches.
        dry_run: ask nothing, only estimate.
        display: shows the progress of a run.
        estimates: what the steps of a dry run would ask.
        processed: ids of the records that a step has written, be it the same as before.
    """

    records: list[EmotionRecord]
    image_root: Path
    folder: Path
    ledger: Ledger
    settings: JobSettings = field(default_factory=JobSettings)
    chat: ChatSettings | None = None
    judge: ChatSettings | None = None
    batch: bool = False
    wait: bool = True
    dry_run: bool = False
    display: Display = _no_display
    estimates: list[Estimate] = field(default_factory=list)
    processed: set[str] = field(default_factory=set)

    def chosen(self, ids: Iterable[str] | None = None) -> list[EmotionRecord]:
        """The records of the split, or those of them with these ids."""
        wanted = None if ids is None else set(ids)
        return [
            record
            for record in self.records
            if (self.settings.split is None or record.split == self.settings.split)
            and (wanted is None or record.id in wanted)
        ]

    def replace(self, changed: dict[str, EmotionRecord]) -> None:
        """Put changed records in the place of those with the same id."""
        self.processed.update(changed)
        self.records = [changed.get(record.id, record) for record in self.records]

    def ask(
        self,
        label: str,
        writer: ChatWriter,
        requests: Requests,
        *,
        output_tokens: int,
        on_row: Callable[[dict[str, Any], RunProgress], None] | None = None,
    ) -> RunProgress:
        """Ask requests, singly or in batches; in a dry run, estimate them.

        Raises:
            UserError: requests would go out singly while batches are under way, so that some could be paid twice.
        """
        progress = RunProgress(total=len(requests))
        if self.dry_run:
            self.estimates.append(estimate(label, requests, writer.settings, self.ledger, output_tokens, self.batch))
            return progress
        under_way = open_submissions(self.ledger)
        if under_way and not self.batch:
            count = sum(entry.get("requests", 0) for entry in under_way.values())
            raise UserError(
                f"{self.ledger.path}: batches with {count} requests are under way, and asking now would pay twice. "
                "Collect them first with --batch, or give this run another folder."
            )

        def seen(row: dict[str, Any]) -> None:
            if on_row is not None:
                on_row(row, progress)

        with self.display(label, progress):
            if self.batch:
                run_batches(requests, writer.settings, self.ledger, wait=self.wait, progress=progress, on_row=seen)
            else:
                run_requests(requests, writer.settings, self.ledger, progress=progress, on_row=seen)
        return progress


class Requests:
    """Requests for records, made anew each time that they are read, so that none is kept.

    Args:
        items: what each request is made of.
        make: the request of an item. An item whose picture cannot be read is left out and counted in `problems`.
    """

    def __init__(self, items: list[Any], make: Callable[[Any], ChatRequest]):
        self._items = items
        self._make = make
        self.problems: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[ChatRequest]:
        for number, item in enumerate(self._items):
            try:
                yield self._make(item)
            except DataError as error:
                if number not in self.problems and len(self.problems) < _LISTED_PROBLEMS:
                    logger.warning("%s", error)
                self.problems[number] = str(error)


@dataclass(frozen=True)
class Estimate:
    """What a step would ask and cost.

    Attributes:
        label: the step.
        num_requests: all of them; `num_paid` are in the ledger already.
        input_tokens, output_tokens: probably.
        usd: probably, in US dollars; None where the model has no price.
        usd_worst: at most.
    """

    label: str
    num_requests: int
    num_paid: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    usd_worst: float | None


def estimate(
    label: str, requests: Iterable[ChatRequest], settings: ChatSettings, ledger: Ledger, output_tokens: int, batch: bool
) -> Estimate:
    """Count what requests would cost. Replies are taken to be as long as those that the ledger has for the same prompt.

    Raises:
        UserError: the file with prices cannot be used.
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


def check_endpoint(settings: ChatSettings, *, needs_key: bool = True) -> None:
    """Look whether an endpoint could be asked, before anything is: its key, the prices, the price where one is needed.

    Raises:
        UserError: no key, a file with prices that cannot be used, or a limit on costs for a model without a price.
    """
    if needs_key:
        settings.api_key()
    table = load_prices(settings.prices)
    if settings.max_usd is not None:
        table.require(settings.model)


def find_image_root(records: Path, images: Path | None) -> Path:
    """Where picture paths start: the folder given, else that of the records.

    Raises:
        UserError: no such folder.
    """
    root = images if images is not None else records.parent
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of pictures; name it with --images")
    return root
