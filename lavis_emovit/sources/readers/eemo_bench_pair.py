"""Reader of EEmo-Bench's pairs of images (Gao et al., ACM MM 2025, arXiv 2504.16405).

    <root>/EEmo-Bench(pair).json            a list of questions
    <root>/images/<image1_url>

An entry has `id`, `image1_url`, `image2_url`, `question`, `options` (a Python dict as text), `correct_answer` (a
letter), `question_type` (`Yes-or-No`, `What/How`, `Open_ended`), `perceptual_dimension` and `question_concern`. Files
with the answers of models (`response(...)`) have the same entries. Open-ended questions have no options, and the
right option of question 815 has no text; they are counted and skipped.

A record has one file, so the two images of a pair are side by side in a new one, the first on the left, and `pair` says
where each is. Its id is the names of both without folders and suffixes; of several pairs with the same ones, the later
have a hash behind.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from lavis_emovit.errors import DataError
from lavis_emovit.images import decode_image, joined
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Entry, checked_entry, read_json
from lavis_emovit.sources.embedded import distinct_name, extract_image
from lavis_emovit.sources.json_entries import OneFileReader
from lavis_emovit.sources.readers.eemo_bench import answered_question

_CATEGORIES = ("question_type", "perceptual_dimension", "question_concern")
_MORE = re.compile(r"image(?![12]_)\d+_url")
# Paths and facts of the images beside the questions, a key of the open-ended ones, and what models answered.
_KNOWN = re.compile(r"image[12]|image[12]_label|describing_dimension|(response|eval_result|if_invalid)\(.*\)")


class _Question(Entry):
    id: int | str
    image1_url: str = Field(min_length=1)
    image2_url: str = Field(min_length=1)
    question: str
    options: str | None = None
    correct_answer: str | None = None
    question_type: str | None = None
    perceptual_dimension: str | None = None
    question_concern: str | None = None


class EEmoPairSettings(Settings):
    """Files below the root; larger images of a pair are scaled down to `max_side_px`."""

    file: str = "EEmo-Bench(pair).json"
    images: str = "images"
    split: str = "test"
    max_side_px: int = Field(default=1024, ge=32)


class EEmoPairReader(OneFileReader, layout="eemo_bench_pair"):
    """One record per pair of images, with all `questions` about it; joined images go to `extract_to`."""

    settings_class = EEmoPairSettings
    settings: EEmoPairSettings

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        # Of records and of joined images, see `distinct_name`.
        self._ids: dict[str, str] = {}
        self._image_names: dict[str, str] = {}

    @property
    def image_root(self) -> Path:
        return self.extract_to if self.extract_to is not None else self.root

    def check(self) -> None:
        if self.extract_to is None:
            raise DataError(f"{self.place}: pairs of images are joined in new files; pass a folder (`extract_to`)")

    def records(self) -> Iterator[EmotionRecord]:
        pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        ids: dict[str, int] = {}
        for number, entry in enumerate(read_json(self.place, list)):
            self.notes.num_rows += 1
            with self.collect_faults(f"entry {number}"):
                one = checked_entry(_Question, entry)
                if more := [key for key in entry if _MORE.fullmatch(key)]:
                    raise DataError(f"has {more[0]}, but a pair has two images, image1_url and image2_url")
                self.notes.unused |= dict.fromkeys(
                    key for key in entry if key not in _Question.model_fields and not _KNOWN.fullmatch(key)
                )
                if one.question_type == "Open_ended":
                    self.notes.skip("open-ended questions, which have no right option", expected=True)
                    continue
                name = str(one.id)
                if ids.setdefault(name, number) != number:
                    raise DataError(f"id {name} is already used in entry {ids[name]}")
                options = _options(one)
                if not all(text.strip() for text in options.values()):
                    self.notes.skip("questions with an option without text", expected=True, example=f"question {name}")
                    continue
                categories = {key: value for key in _CATEGORIES if (value := getattr(one, key))}
                pair = str(PurePosixPath(one.image1_url)), str(PurePosixPath(one.image2_url))
                questions = pairs.setdefault(pair, [])
                questions.append(answered_question(one.question, options, one.correct_answer, categories, name))
        for pair, questions in pairs.items():
            with self.collect_faults(f"images {' and '.join(pair)}"):
                if questions:
                    self.notes.num_joined += len(questions) - 1
                    yield self._record(pair, questions)

    def _record(self, pair: tuple[str, str], questions: list[dict[str, Any]]) -> EmotionRecord:
        assert self.extract_to is not None
        # A joined image shows what it is made of, so none may come from elsewhere.
        if strays := [one for one in pair if one.startswith("/") or ".." in PurePosixPath(one).parts]:
            raise DataError(f"the image {strays[0]} leads out of {self.settings.images}")
        paths = [self.root / self.settings.images / one for one in pair]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise DataError(f"the image {missing[0]} is missing below {paths[0].parent}")
        name = distinct_name("_".join(Path(one).stem for one in pair), "\n".join(pair), self._ids)
        images = [decode_image(path.read_bytes()) for path in paths]
        for image in images:
            image.thumbnail((self.settings.max_side_px, self.settings.max_side_px))
        whole, boxes = joined(images)
        return self.record(
            f"images {' and '.join(pair)}",
            id=name,
            image=extract_image(self.extract_to, name, whole, names=self._image_names),
            split=self.settings.split,
            questions=questions,
            pair=boxes,
        )


def _options(question: _Question) -> dict[str, str]:
    """The options, which the file has as the text of a Python dict."""
    try:
        tree = ast.parse(question.options or "", mode="eval").body
        options = ast.literal_eval(tree)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        options = None
    if isinstance(options, dict) and isinstance(tree, ast.Dict) and len(tree.keys) > len(options):
        raise DataError(f"question {question.id}: several options have the same letter: {question.options!r:.80}")
    if not isinstance(options, dict) or not all(isinstance(one, str) for pair in options.items() for one in pair):
        raise DataError(f"question {question.id}: options are no Python dict of texts: {question.options!r:.80}")
    return options
