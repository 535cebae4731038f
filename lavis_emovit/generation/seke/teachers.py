"""Teachers as annotators: models that run here and state probabilities of the expressions of a face.

The tables turn the expressions into all other levels. Nothing here knows what a teacher is or how it runs: `Teachers`
is what the step needs of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from lavis_emovit.emotion.facial import FacialPriors
from lavis_emovit.emotion.facial_knowledge import Beliefs, Mixture, infer
from lavis_emovit.emotion.teacher_reliability import require_fitted
from lavis_emovit.generation.seke.annotators import AnnotatorKind, Question, Reply
from lavis_emovit.generation.seke.levels import Case, evidence_of
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.generation.seke.votes import posterior
from lavis_emovit.records import EmotionRecord

# What a teacher says about the face of a record: `ok` or why there are no expressions; label of `expressions8` ->
# probability; the reason of a fault.
Sight = tuple[str, Mapping[str, float] | None, str]


class Teachers(Protocol):
    titles: Sequence[str]  # name and version of each

    def look(self, records: Sequence[EmotionRecord], numbers: Sequence[int]) -> Iterator[Sequence[Sight]]:
        """What the teachers with these numbers say about each record, in their order."""


class TeacherAnnotator:
    """Each answer about a face is that of another teacher, in their order; the reviewer is one more teacher.

    A face whose expression is known is not shown to them: it gets its other levels from the tables. Without the tables
    (`prior`), the expression is the only level. If the tables have the reliability of teachers, their answers count by
    it, else all equally.

    Args:
        teachers: those that answer, and the one that reviews behind them if `settings.teacher_reviewer` names one.

    Raises:
        ConfigError: the tables have the reliability of other teachers only.
    """

    kind: AnnotatorKind = "teachers"
    prompts = ""
    num_wordings = 1
    under_way = 0

    def __init__(self, teachers: Teachers, settings: SekeSettings, priors: FacialPriors):
        self.stopped: str | None = None
        self.faults: dict[str, str] = {}
        self._teachers, self._priors, self._uses_tables = teachers, priors, settings.prior
        self._tables = (f"offline/priors:{priors.version}",) if settings.prior else ()
        if settings.prior:
            require_fitted(priors, teachers.titles)
        self._num_teachers = len(settings.teachers)
        self.name = " + ".join((*self._tables, *teachers.titles[: self._num_teachers]))
        self.reviewer = teachers.titles[-1] if settings.teacher_reviewer is not None else ""

    def num_answers(self, case: Case) -> int | None:
        return 1 if case.known.expression is not None else self._num_teachers

    def ask(self, label: str, questions: Sequence[Question]) -> list[Reply | None]:
        """See `Annotator`; the sample of a question is the number of the teacher."""
        replies: list[Reply | None] = [None] * len(questions)
        asked: dict[int, list[int]] = {}  # number of the teacher -> numbers of the questions
        for number, question in enumerate(questions):
            if question.case.known.expression is not None:
                replies[number] = self._by_tables(question)
            else:
                asked.setdefault(self._num_teachers if question.is_blind else question.sample, []).append(number)
        # Teachers that are asked about the same faces look at each image at the same time.
        together: dict[tuple[str, ...], list[int]] = {}
        for teacher, numbers in asked.items():
            together.setdefault(tuple(questions[number].case.record.id for number in numbers), []).append(teacher)
        for teachers in together.values():
            records = [questions[number].case.record for number in asked[teachers[0]]]
            for place, sights in enumerate(self._teachers.look(records, teachers)):
                for teacher, sight in zip(teachers, sights):
                    number = asked[teacher][place]
                    replies[number] = self._reply(questions[number].case, sight, self._teachers.titles[teacher])
        return replies

    def _by_tables(self, question: Question) -> Reply:
        case = question.case
        evidence = evidence_of(case, self._priors)
        if question.is_blind or not evidence or not self._uses_tables:
            return Reply(status="expression_known" if question.is_blind else "nothing_known", num_calls=0)
        beliefs = infer(self._priors, evidence, classes=case.classes, units=case.units)
        return Reply(beliefs=beliefs, by=self._tables, num_calls=0)

    def _reply(self, case: Case, sight: Sight, title: str) -> Reply:
        status, expressions, reason = sight
        if expressions is None:
            if reason:
                self.faults[status] = reason
            return Reply(status=status)
        by = (*self._tables, title)
        if self._uses_tables and self._priors.teachers:
            votes = {title: expressions}
            return Reply(beliefs=posterior(votes, case, self._priors, case.units), votes=votes, by=by)
        seen = {name: share for name, share in expressions.items() if name in case.classes and share > 0.0}
        if not seen:
            return Reply(status="no_such_expression")
        if self._uses_tables:
            evidence = evidence_of(case, self._priors)
            beliefs = infer(self._priors, evidence, classes=case.classes, units=case.units, seen=seen)
        else:
            total = math.fsum(seen.values())
            nothing = Mixture(())
            beliefs = Beliefs({name: share / total for name, share in seen.items()}, nothing, nothing, {}, {})
        return Reply(beliefs=beliefs, by=by)
