"""What is true about a record, as far as a benchmark needs it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lavis_emovit.emotion.labels import LabelSet, coarser_label
from lavis_emovit.emotion.questions import chooser
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.records import AnsweredQuestion, EmotionRecord, Instruction, Statement


@dataclass(frozen=True)
class Truth:
    """What is true about a record.

    Attributes:
        label: canonical name of the emotion; `labels`: all of them, if an image may have several, or the words and the
            ranking that people gave.
        votes: label -> share.
        values: `valence`, `arousal`, or `AU12` -> intensity.
        occurrence_only: the action units with 1 and 0 instead of an intensity.
        pair: the question of kind `instruction`, or a reference text of an explanation.
        asked: the record's own question or statement, for the kinds that ask it.
        name: of that question within the record.
        parts: the truths of several questions of the record, each of which has a row of its own.
    """

    label: str | None = None
    labels: tuple[str, ...] | None = None
    votes: dict[str, float] | None = None
    values: dict[str, float] | None = None
    occurrence_only: tuple[str, ...] = ()
    pair: Instruction | None = None
    asked: AnsweredQuestion | Statement | None = None
    name: str | None = None
    parts: tuple[Truth, ...] = ()

    @property
    def each(self) -> tuple[Truth, ...]:
        """One truth for every row in one variant of the question."""
        return self.parts or (self,)


def truth_of(record: EmotionRecord, benchmark: BenchmarkSettings, label_set: LabelSet | None) -> Truth | None:
    """What is true about a record, or None if the record does not have it, or not in these labels.

    Votes without a place in the label set (a neutral share beside six emotions) are dropped, and the others scaled to
    the sum 1. Raises as `label_in`.
    """
    if benchmark.kind == "valence_arousal":
        values: dict[str, float] = {axis: getattr(record, axis) for axis in benchmark.axes}
        return Truth(values=values) if None not in values.values() else None
    if benchmark.kind == "action_units":
        if not record.action_units:
            return None
        only = tuple(f"AU{unit}" for unit in sorted(record.occurrence_only & record.action_units.keys()))
        levels = {f"AU{unit}": level for unit, level in sorted(record.action_units.items())}
        return Truth(values=levels, occurrence_only=only)
    if benchmark.kind == "caption":
        return Truth()
    pairs = [item for item in record.instructions if item.kind == benchmark.instruction]
    pair = chooser("instruction", record.id).choice(pairs) if pairs else None
    if benchmark.kind == "instruction":
        return Truth(pair=pair) if pair is not None else None
    if benchmark.kind in ("choice", "vqa", "statement"):
        return _asked_in(record, benchmark.kind)
    if benchmark.kind == "words":
        words = record.words or record.labels or ([record.emotion] if record.emotion is not None else None)
        return Truth(labels=tuple(words)) if words else None
    if benchmark.kind == "ranking":
        return _ranking_in(record, label_set)
    if benchmark.kind == "labels":
        return _labels_in(record, label_set)
    if record.emotion is None or label_set is None:
        return None
    label = _place_of(record, record.emotion, label_set)
    return Truth(label=label, votes=_votes_in(record, label_set), pair=pair) if label is not None else None


def _asked_in(record: EmotionRecord, kind: str) -> Truth | None:
    """The truths of the record's own questions of a kind; None if it has none."""
    parts = []
    for number, statement in enumerate(record.statements if kind == "statement" else ()):
        label = "correct" if statement.is_correct else "incorrect"
        parts.append(Truth(label=label, asked=statement, name=statement.id or str(number)))
    for number, question in enumerate(record.questions if kind != "statement" else ()):
        if (question.options is not None) == (kind == "choice"):
            right = question.answers[0] if kind == "choice" else None
            found = Truth(label=right, labels=tuple(question.answers), asked=question)
            parts.append(replace(found, name=question.id or str(number)))
    return Truth(parts=tuple(parts)) if parts else None


def _ranking_in(record: EmotionRecord, label_set: LabelSet | None) -> Truth | None:
    if record.ranking is None or label_set is None:
        return None
    try:
        # Not `label_in`: in coarser labels, several places of a ranking would be the same label.
        return Truth(labels=tuple(label_set.canonical(name) for name in record.ranking))
    except DataError as error:
        raise DataError(
            f"record '{record.id}': {error}; kind 'ranking' has no coarser labels, so set `label_set` to that of the "
            "rankings"
        ) from None


def _labels_in(record: EmotionRecord, label_set: LabelSet | None) -> Truth | None:
    names = record.labels or ([record.emotion] if record.emotion is not None else [])
    if not names or label_set is None:
        return None
    labels = [_place_of(record, name, label_set) for name in names]
    known = sorted({label for label in labels if label is not None})
    return Truth(labels=tuple(known)) if known else None


def _place_of(record: EmotionRecord, name: str, label_set: LabelSet) -> str | None:
    """A label of a record in another set, as `label_in`; errors name the record."""
    try:
        return label_in(name, record.label_set, label_set)
    except DataError as error:
        raise DataError(f"record '{record.id}': {error}") from None


def label_in(name: str, own: str | None, label_set: LabelSet) -> str | None:
    """A label of the set `own` in another one, which may be coarser; None if it has no place there.

    Raises:
        DataError: neither the label set nor a hierarchy above `own` has it.
    """
    if own is not None and own != label_set.name:
        try:
            return coarser_label(name, own, label_set.name)
        except DataError:
            pass  # no hierarchy connects the sets, but they may share the label
    return label_set.canonical(name)


def _votes_in(record: EmotionRecord, label_set: LabelSet) -> dict[str, float] | None:
    votes = dict.fromkeys(label_set.labels, 0.0)
    for name, share in (record.votes or {}).items():
        try:
            label = label_in(name, record.label_set, label_set)
        except DataError:
            continue
        if label is not None:
            votes[label] += share
    total = sum(votes.values())
    return {label: share / total for label, share in votes.items()} if total > 0 else None
