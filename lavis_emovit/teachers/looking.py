"""Teachers as SEKE asks them: each time some of them, about some records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lavis_emovit.records import EmotionRecord
from lavis_emovit.teachers.annotation import Counts, ask_teachers
from lavis_emovit.teachers.answers import AnswerFile
from lavis_emovit.teachers.catalogue import AnyTeacher
from lavis_emovit.teachers.choosing import OK, FaceSettings, choose_face

# Status of `choose_face`; label of `expressions8` -> probability, for `ok`; reason of a fault.
Sight = tuple[str, Mapping[str, float] | None, str]


class Looking:
    """Looks at images with teachers, and keeps all of their answers in a file.

    Attributes:
        titles: name and version of each teacher.
        counts: of the statuses of all answers.
    """

    def __init__(self, image_root: Path, teachers: Sequence[AnyTeacher], answers: AnswerFile, settings: FaceSettings):
        self.titles: Sequence[str] = [teacher.title for teacher in teachers]
        self.counts = Counts()
        self._image_root, self._teachers, self._answers, self._settings = image_root, teachers, answers, settings

    def look(self, records: Sequence[EmotionRecord], numbers: Sequence[int]) -> Iterator[list[Sight]]:
        """What the teachers with these numbers say about each record, in their order. Raises as `ask_teachers`."""
        chosen = [self._teachers[number] for number in numbers]
        asked = ask_teachers(records, self._image_root, chosen, self._answers, self._settings, self.counts)
        for record, answers in asked:
            sights: list[Sight] = []
            for teacher, answer in zip(chosen, answers):
                status, face = choose_face(answer, record.box, self._settings)
                self.counts.add(teacher, record, status, answer.reason)
                sights.append((status, face.expressions if face is not None and status == OK else None, answer.reason))
            yield sights
