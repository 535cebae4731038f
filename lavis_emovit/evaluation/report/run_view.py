"""What the report shows of a run, gathered from its contents: figures, charts, pictures, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from lavis_emovit.emotion.answers import read_emotion
from lavis_emovit.emotion.labels import LABEL_SETS, LabelSet
from lavis_emovit.errors import DataError
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
from lavis_emovit.evaluation.report import charts
from lavis_emovit.evaluation.report.pictures import data_url
from lavis_emovit.evaluation.report.run_contents import AFTER, BEFORE, RunContents
from lavis_emovit.evaluation.report.training import training_charts, training_facts

MAX_PICTURES = 24
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
    is_suite: bool = False


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
        charts=training_charts(run, key),
        facts=training_facts(run),
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
        pictures.append(Picture(row.record_id, str(row.label), data_url(run.path / row.image), verdicts))
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


def _setting(config: Mapping[str, Any], path: str) -> str | None:
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    if value is None:
        return None
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
