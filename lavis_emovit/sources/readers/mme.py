"""Reader of MME, two yes-or-no questions about each image of 14 categories (Fu et al., 2023, arXiv 2306.13394).

    <root>/<category>/images/<name>.jpg and <root>/<category>/questions_answers_YN/<name>.txt
    <root>/<category>/<name>.jpg        and <root>/<category>/<name>.txt                         in other categories

A line of a text file is a question and its answer (Yes or No) with a tab between them.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.files import IMAGE_SUFFIXES, read_file
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Reader

_TEXTS, _IMAGES = "questions_answers_YN", "images"


class MmeSettings(Settings):
    """The split of all records."""

    split: str = "test"


class MmeReader(Reader, layout="mme"):
    """One record per image with its two `questions`, whose category `category` is the folder."""

    settings_class = MmeSettings
    settings: MmeSettings

    def annotations(self) -> Iterable[Path]:
        return (path for _, path in self._texts())

    def is_present(self) -> bool:
        return next(self._texts(), None) is not None

    def records(self) -> Iterator[EmotionRecord]:
        for category, path in self._texts():
            self.notes.num_rows += 1
            with self.collect_faults(self.relative(path)):
                yield self._record(category, path)

    def _texts(self) -> Iterator[tuple[str, Path]]:
        """Category and text file of every image."""
        for folder in sorted(path for path in self.root.iterdir() if path.is_dir()) if self.root.is_dir() else ():
            for path in sorted([*folder.glob("*.txt"), *(folder / _TEXTS).glob("*.txt")]):
                yield folder.name, path

    def _record(self, category: str, path: Path) -> EmotionRecord:
        folder = path.parent.parent / _IMAGES if path.parent.name == _TEXTS else path.parent
        # `a.*` also has `a.b.jpg`, the image of `a.b.txt`.
        named = [one for one in sorted(folder.glob(f"{glob.escape(path.stem)}.*")) if one.stem == path.stem]
        images = [one for one in named if one.suffix.lower() in IMAGE_SUFFIXES]
        if len(images) != 1:
            found = f"{len(images)} images" if images else "no image"
            raise DataError(f"{found} {self.relative(folder / path.stem)} with the ending of an image, expected one")
        questions = []
        try:
            lines = read_file(path).decode("utf-8-sig").splitlines()
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 text (byte {error.start})") from None
        for number, line in enumerate(lines, start=1):
            question, _, answer = (part.strip() for part in line.partition("\t"))
            if not line.strip():
                continue
            if not question or answer.casefold() not in ("yes", "no"):
                raise DataError(f"line {number}: expected a question, a tab, and Yes or No, got {line!r:.80}")
            questions.append(
                {"question": question, "answers": [answer.casefold()], "options": ["yes", "no"],
                 "categories": {"category": category}}
            )  # fmt: skip
        if not questions:
            raise DataError("has no question")
        return self.record(
            self.relative(path),
            id=f"{category}/{path.stem}",
            image=self.require_image(self.relative(images[0])),
            split=self.settings.split,
            questions=questions,
        )
