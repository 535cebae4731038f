"""Reader of ScienceQA, school questions with options, many of them about an image (Lu et al., NeurIPS 2022).

    <root>/problems.json                    id -> problem
    <root>/<split>/<id>/image.png

A problem has `question`, `choices`, `answer` (number of the right choice), `hint`, `image` (a file name, or null),
`subject`, `topic`, `grade` and `split` (train, val or test); `lecture` and `solution` are not imported.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Entry, checked_entry, read_json
from lavis_emovit.sources.json_entries import OneFileReader

_CATEGORIES = ("subject", "topic", "grade")


class _Problem(Entry):
    question: str = Field(min_length=1)
    choices: list[str] = Field(min_length=2)
    answer: int = Field(ge=0)
    split: str
    hint: str | None = None
    image: str | None = None
    subject: str | None = None
    topic: str | None = None
    grade: str | None = None


class ScienceQASettings(Settings):
    """Files below the root."""

    file: str = "problems.json"


class ScienceQAReader(OneFileReader, layout="scienceqa"):
    """One record per problem with an image; the hint is part of its question."""

    settings_class = ScienceQASettings
    settings: ScienceQASettings

    def records(self) -> Iterator[EmotionRecord]:
        for name, entry in read_json(self.place, dict).items():
            self.notes.num_rows += 1
            with self.collect_faults(f"problem {name}"):
                problem = checked_entry(_Problem, entry)
                if problem.image is None:
                    self.notes.skip("problems without an image", expected=True)
                    continue
                yield self._record(name, problem)

    def _record(self, name: str, problem: _Problem) -> EmotionRecord:
        if problem.answer >= len(problem.choices):
            raise DataError(f"answer {problem.answer} is none of the {len(problem.choices)} choices, from 0")
        hint = f"{problem.hint.strip()} " if problem.hint and problem.hint.strip() else ""
        choices = [choice.strip() for choice in problem.choices]
        return self.record(
            f"problem {name}",
            id=f"{problem.split}/{name}",
            image=self.require_image(f"{problem.split}/{name}/{problem.image}"),
            split=problem.split,
            questions=[
                {
                    "question": hint + problem.question.strip(),
                    "answers": [choices[problem.answer]],
                    "options": choices,
                    "categories": {key: value for key in _CATEGORIES if (value := getattr(problem, key))},
                    "id": name,
                }
            ],
        )
