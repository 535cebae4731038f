"""What the report shows of a run, gathered from its contents: figures, charts, pictures, settings."""

from __future__ import annotations

import base64
import io
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from lavis_emovit.emotion.answers import read_emotion
from lavis_emovit.emotion.labels import LABEL_SETS, LabelSet
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation import charts
from lavis_emovit.evaluation.metrics import (
    ClassificationMetrics,
    ClassMetrics,
    Interval,
    classification_metrics,
    paired_difference,
    score_matrix,
    softmax,
)
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.run_contents import AFTER, BEFORE, RunContents, finite

MAX_PICTURES = 24
PICTURE_PX = 320
MAX_MISTAKES = 5

# Settings that a reader looks for first; the whole recipe stands below them.
_KEY_SETTINGS = (
    ("model.arch", "Model"),
    ("model.trained_parts", "Trained parts"),
    ("run.max_epoch", "Epochs"),
    ("run.global_batch_size", "Images a step"),
    ("run.init_lr", "Learning rate"),
    ("run.warmup_steps", "Warm-up steps"),
    ("run.weight_decay", "Weight decay"),
    ("run.score_normalisation", "Scores compared by"),
    ("run.amp", "Mixed precision"),
    ("run.seed", "Seed"),
)


@dataclass(frozen=True)
class Candidate:
    """A label of a picture: one of the three best scored, or the true one."""

    label: str
    probability: float
    is_true: bool


@dataclass(frozen=True)
class Verdict:
    """What the model said about one picture at one stage."""

    stage: str
    prediction: str
    is_right: bool
    candidates: list[Candidate]
    answer: str | None
    answer_reads: str | None


@dataclass(frozen=True)
class Picture:
    """A test picture with what the model said before and after tuning."""

    record_id: str
    label: str
    data_url: str | None
    verdicts: list[Verdict]

    @property
    def is_right(self) -> bool:
        """Whether the last verdict is right."""
        return self.verdicts[-1].is_right


@dataclass(frozen=True)
class ClassRow:
    """One emotion before and after tuning."""

    label: str
    before: ClassMetrics | None
    after: ClassMetrics | None

    @property
    def support(self) -> int:
        """Number of pictures with this label."""
        return (self.after or self.before).support  # type: ignore[union-attr]


@dataclass(frozen=True)
class Mistake:
    """Pictures of one emotion that are taken for another."""

    label: str
    answer: str
    count: int
    support: int


@dataclass(frozen=True)
class SplitView:
    """All that the page shows of one evaluated split."""

    name: str
    labels: list[str]
    stages: dict[str, ClassificationMetrics]
    difference: tuple[float, Interval] | None
    class_rows: list[ClassRow]
    mistakes: list[Mistake]
    reliability: Markup | None
    pictures: list[Picture]

    @property
    def latest(self) -> ClassificationMetrics:
        """The figures after tuning, or those before it where there are no others."""
        return self.stages.get(AFTER) or self.stages[BEFORE]


@dataclass(frozen=True)
class RunView:
    """All that the page shows of one run."""

    key: str
    name: str
    model: str | None
    dataset: str | None
    splits: list[SplitView]
    charts: list[tuple[str, Markup]]
    facts: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    config_text: str | None
    versions: dict[str, str]
    notes: list[str] = field(default_factory=list)


def run_view(run: RunContents, key: str) -> RunView:
    """Everything about one run; `key` starts the ids of its parts in the page."""
    splits = [
        _split_view(run, f"{key}-{number}", name, run.predictions[name])
        for number, name in enumerate(run.predictions, 1)
    ]
    datasets = run.config.get("datasets")
    return RunView(
        key=key,
        name=run.name,
        model=_setting(run.config, "model.arch"),
        dataset=", ".join(datasets) if isinstance(datasets, Mapping) else None,
        splits=splits,
        charts=_training_charts(run, key),
        facts=_training_facts(run),
        settings=[(label, value) for path, label in _KEY_SETTINGS if (value := _setting(run.config, path)) is not None],
        config_text=run.config_text,
        versions=run.versions,
        notes=run.notes,
    )


def _split_view(run: RunContents, key: str, name: str, rows_by_stage: Mapping[str, list[PredictionRow]]) -> SplitView:
    labels = _labels_of([row for stage in (AFTER, BEFORE) for row in rows_by_stage.get(stage, [])])
    try:
        stages = {
            stage: classification_metrics(rows_by_stage[stage], labels)
            for stage in (BEFORE, AFTER)
            if stage in rows_by_stage
        }
    except DataError as error:
        raise DataError(f"{run.path}: predictions of split '{name}': {error}") from None
    difference = None
    if len(stages) == 2:
        try:
            difference = paired_difference(rows_by_stage[BEFORE], rows_by_stage[AFTER])
        except DataError as error:
            run.notes.append(f"Split {name}: before and after cannot be compared row by row; {error}.")
    by_label = {stage: {row.label: row for row in metrics.per_class} for stage, metrics in stages.items()}
    calibrations = [(stage, m.calibration) for stage, m in stages.items() if m.calibration is not None]
    return SplitView(
        name=name,
        labels=labels,
        stages=stages,
        difference=difference,
        class_rows=[
            ClassRow(label, by_label.get(BEFORE, {}).get(label), by_label.get(AFTER, {}).get(label)) for label in labels
        ],
        mistakes=_mistakes(stages.get(AFTER) or stages[BEFORE]),
        reliability=charts.reliability_chart(f"{key}-reliability", calibrations) if calibrations else None,
        pictures=_pictures(run, labels, rows_by_stage),
    )


def _mistakes(metrics: ClassificationMetrics) -> list[Mistake]:
    """The confusions that cost most pictures, the costliest first."""
    answers = [*metrics.labels, "an invalid answer"]
    found = [
        Mistake(label, answer, count, sum(counts))
        for label, counts in zip(metrics.labels, metrics.confusion)
        for answer, count in zip(answers, counts)
        if count and answer != label
    ]
    return sorted(found, key=lambda mistake: -mistake.count)[:MAX_MISTAKES]


def _labels_of(rows: Sequence[PredictionRow]) -> list[str]:
    """The labels that the rows were scored on, in that order; without scores, all true labels in alphabetical order."""
    for row in rows:
        if row.scores is not None:
            return list(row.scores)
    return sorted({row.label for row in rows if row.label is not None})


def _pictures(run: RunContents, labels: list[str], rows_by_stage: Mapping[str, list[PredictionRow]]) -> list[Picture]:
    """The first rows that have a picture, with the verdicts of both stages; the wrong ones first."""
    label_set = next((s for s in LABEL_SETS.values() if s.labels == tuple(labels)), LabelSet("", tuple(labels)))
    stages = [stage for stage in (BEFORE, AFTER) if stage in rows_by_stage]
    row_of = {stage: {row.instance_id: row for row in rows_by_stage[stage]} for stage in stages}
    pictures: list[Picture] = []
    for row in rows_by_stage[stages[-1]]:
        if row.image is None or len(pictures) == MAX_PICTURES:
            continue
        rows = [(stage, row_of[stage].get(row.instance_id)) for stage in stages]
        verdicts = [_verdict(stage, r, labels, label_set) for stage, r in rows if r is not None]
        pictures.append(Picture(row.record_id, str(row.label), _data_url(run.path / row.image), verdicts))
    if pictures and not any(picture.data_url for picture in pictures):
        run.notes.append("The sample pictures cannot be read any more, so only the answers are shown.")
    return sorted(pictures, key=lambda picture: picture.is_right)


def _verdict(stage: str, row: PredictionRow, labels: list[str], label_set: LabelSet) -> Verdict:
    candidates: list[Candidate] = []
    if row.scores is not None:
        probabilities = softmax(score_matrix([row], labels))[0]
        ranked = sorted(range(len(labels)), key=lambda c: -probabilities[c])
        shown = [c for rank, c in enumerate(ranked) if rank < 3 or labels[c] == row.label]
        candidates = [Candidate(labels[c], float(probabilities[c]), labels[c] == row.label) for c in shown]
    reads = None
    if row.answer is not None:
        answer = read_emotion(row.answer, label_set)
        reads = answer.label if answer.label is not None else answer.status
    prediction = row.prediction if row.prediction is not None else "no answer"
    return Verdict(stage, prediction, row.prediction == row.label, candidates, row.answer, reads)


def _data_url(path: Path) -> str | None:
    """A picture as a small JPEG inside the page; None where it is missing or no picture."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (PICTURE_PX, PICTURE_PX))
            small = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _training_charts(run: RunContents, key: str) -> list[tuple[str, Markup]]:
    """(heading, chart) of the curves that the log has."""
    found: list[tuple[str, Markup]] = []
    losses = [(row["step"], loss) for row in run.steps if (loss := finite(row.get("loss"))) is not None]
    if len(losses) < len(run.steps):
        run.notes.append(f"{len(run.steps) - len(losses)} steps have no finite loss; they are not in the curve.")
    if losses:
        found.append(("Training loss", charts.loss_chart(f"{key}-loss", *zip(*losses))))
    validations = [
        (float(row["epoch"]), row["metrics"])
        for row in run.evaluations
        if row.get("stage") == "during"
        and row.get("split") == _first_validation_split(run)
        and finite(row.get("epoch")) is not None
        and finite(row["metrics"].get("accuracy")) is not None
    ]
    if validations:
        epochs = [epoch for epoch, _ in validations]
        metrics = [values for _, values in validations]
        chart = charts.validation_chart(
            f"{key}-validation",
            epochs,
            [float(values["accuracy"]) for values in metrics],
            [_interval(values.get("accuracy_interval")) for values in metrics],
            [finite(values.get("macro_f1")) for values in metrics],
            finite(metrics[-1].get("chance")),
        )
        found.append(("Validation", chart))
    rates = [(row["step"], rate) for row in run.steps if (rate := finite(row.get("lr"))) is not None]
    if rates:
        found.append(("Learning rate", charts.learning_rate_chart(f"{key}-rate", *zip(*rates))))
    return found


def _first_validation_split(run: RunContents) -> str | None:
    """The split that chose the best checkpoint."""
    return next((row.get("split") for row in run.evaluations if row.get("stage") == "during"), None)


def _interval(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, Mapping):
        return None
    low, high = finite(value.get("low")), finite(value.get("high"))
    return None if low is None or high is None else (low, high)


def _training_facts(run: RunContents) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if run.steps:
        facts.append(("Steps", f"{len(run.steps):,}"))
        epochs = [epoch for row in run.steps if (epoch := finite(row.get("epoch"))) is not None]
        if epochs:
            facts.append(("Epochs", f"{max(epochs):g}"))
        seconds = [s for row in run.steps if (s := finite(row.get("step_s"))) is not None]
        if seconds:
            facts.append(("Time in training steps", _duration(sum(seconds))))
        rates = [rate for row in run.steps if (rate := finite(row.get("samples_per_s"))) is not None]
        if rates:
            facts.append(("Images a second", f"{statistics.median(rates):,.1f}"))
    parameters = run.summary.get("parameters")
    if isinstance(parameters, Mapping) and {"trained", "total"} <= parameters.keys():
        facts.append(("Parameters that learn", f"{_count(parameters['trained'])} of {_count(parameters['total'])}"))
    if run.summary.get("checkpoint"):
        name = str(run.summary["checkpoint"])
        step = re.fullmatch(r"ckpt-0*(\d+)", name)
        facts.append(("Weights evaluated", f"step {int(step[1]):,}" if step else name))
    return facts


def _setting(config: Mapping[str, Any], path: str) -> str | None:
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    if value is None:
        return None
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _count(count: Any) -> str:
    if count < 100_000:
        return f"{count:,}"
    return f"{count / 1e6:,.{2 if count < 1e8 else 0}f}\u00a0M"
