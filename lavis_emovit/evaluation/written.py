"""What runs and suites write as JSON, as far as it is read again: by themselves, reports, cards and `emovit watch`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from lavis_emovit.own_files import Written, parse_as

Count = Annotated[int, Field(ge=0)]
Number = float | str
"""A number of a log, which has nan and infinity as text."""


class MadeWith(Written):
    """Everything that decides the rows."""

    model: dict[str, Any] | None = None
    labels: list[str] | None = None
    variants: list[str] = Field(default_factory=list)
    versions: dict[str, str] | None = None


class RowsRecord(Written):
    """The record beside the predictions of a suite: what made them.

    Attributes:
        sha256: of the rows, if they are finished.
    """

    made_with: MadeWith
    finished: bool = False
    sha256: str | None = None


class _Interval(Written):
    low: float
    high: float


class RunVersions(Written):
    """A file of a run that names the packages that wrote it."""

    versions: dict[str, str] = Field(default_factory=dict)


class RunMetrics(RunVersions):
    """The file `metrics.json` of a run.

    Attributes:
        splits: split or benchmark -> stage -> metrics.
        parameters: `trained` and `total`.
    """

    checkpoint: str | None = None
    splits: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    parameters: dict[str, Count] | None = None

    @model_validator(mode="after")
    def _metrics_have_their_form(self) -> RunMetrics:
        for split, stages in self.splits.items():
            for stage, metrics in stages.items():
                for key, value in metrics.items():
                    if key.endswith("_interval") and interval_of(value) is None and value is not None:
                        raise ValueError(f"splits.{split}.{stage}.{key} is no interval")
        return self


def interval_of(value: Any) -> tuple[float, float] | None:
    """The ends of an interval in a file; None for anything else."""
    ends = [value.get("low"), value.get("high")] if isinstance(value, dict) else value
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, float | int) for end in ends):
        return None
    return float(ends[0]), float(ends[1])


class _Result(Written):
    """The row of a model and scoring method on a benchmark."""

    model: str
    method: str = ""
    metrics: dict[str, Any] = Field(default_factory=dict)
    num_without_truth: Count | None = None


class _Benchmark(Written):
    results: list[_Result]
    label_set: str | None = None


class SuiteMetrics(Written):
    """The file `metrics.json` of a suite.

    Attributes:
        left_out: benchmark -> model -> scoring method -> why it was skipped.
        absent: benchmark -> why it was skipped.
        endpoints: model -> what its endpoint honours.
    """

    benchmarks: dict[str, _Benchmark] = Field(default_factory=dict)
    left_out: dict[str, dict[str, dict[str, str]]] = Field(default_factory=dict)
    absent: dict[str, str] = Field(default_factory=dict)
    endpoints: dict[str, dict[str, str]] = Field(default_factory=dict)


class _Step(Written):
    """A step; it has more numbers, such as those of each part and reward."""

    step: Count
    epoch: Count | None = None
    loss: Number | None = None
    lr: float | None = None


class _Evaluation(Written):
    """`epoch` is a number of epochs."""

    step: Count = 0
    epoch: float | None = None
    split: str | None = None
    stage: str | None = None
    metrics: dict[str, Any]


class _Answer(Written):
    text: str
    reward: float
    rewards: dict[str, float]
    advantage: float


class _Answers(Written):
    """A group of answers of reinforcement learning, all with the same rewards."""

    step: Count
    record_id: str
    question: str
    answers: list[_Answer] = Field(min_length=1)

    @model_validator(mode="after")
    def _rewards_are_the_same(self) -> _Answers:
        if any(one.rewards.keys() != self.answers[0].rewards.keys() for one in self.answers):
            raise ValueError("the answers have different rewards")
        return self


class _Epoch(Written):
    step: Count
    num_images: dict[str, Count]


class _Dropped(Written):
    step: Count
    num_dropped: dict[str, Count]
    num_samples: dict[str, Count]
    reasons: dict[str, Count]


class _Any(Written):
    """What a row of any event has."""

    event: Any = None
    step: Count = 0


_ROWS: dict[str, type[Written]] = {
    "step": _Step, "eval": _Evaluation, "answers": _Answers, "epoch": _Epoch, "dropped": _Dropped
}  # fmt: skip


def log_row(line: bytes) -> dict[str, Any]:
    """A row of `log.jsonl`; ValueError for a line that is none, or that lacks what a row of its event has."""
    row = any_log_row(line)
    kind = _ROWS.get(row["event"]) if isinstance(row["event"], str) else None
    if kind is not None:
        parse_as(line, kind)
    return row


def any_log_row(line: bytes) -> dict[str, Any]:
    """As `log_row`, of which only the step is checked, so that rows of another runner stay in the log."""
    row = parse_as(line, _Any)
    return {"event": row.event, **row.model_dump(exclude_unset=True)}
