"""Blinded sheets on which people choose one of two captions, and the win rate from filled sheets.

A sheet shows each image with two captions, A and B, in an order that the seed decides; a separate file, the key, has
their authors. Raters fill in a CSV file.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image
from pydantic import Field

from lavis_emovit.emotion.questions import chooser
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.adjudication import DecidedRate, adjudicate
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.files import atomic_writer, regular_file, write_json
from lavis_emovit.images import data_url, decode_image
from lavis_emovit.outside import table_rows
from lavis_emovit.own_files import Written, read_own
from lavis_emovit.records import EmotionRecord

HUMAN = "human"
"""In place of a model: the human caption of the dataset with the highest score."""

SHEET_NAME, ENTRIES_NAME, CHOICES_NAME, KEY_NAME = "sheet.html", "sheet.json", "choices.csv", "key.json"
COLUMNS = ("sheet", "number", "rater", "choice")
_CHOICES = {"a": "A", "b": "B", "tie": "tie", "=": "tie", "equal": "tie", "both": "tie"}
_IMAGE_SIDE_PX = 512
QUESTION = "Which caption is funnier?"


@dataclass(frozen=True)
class CaptionPair:
    """Two captions of one image; `a_is_first` is whether A is by the first of the two authors."""

    record_id: str
    a: str
    b: str
    a_is_first: bool


@dataclass(frozen=True)
class CaptionPairs:
    """The pairs of a sheet, in its order, and the two authors: names of models, or `HUMAN`."""

    first: str
    second: str
    pairs: list[CaptionPair]
    left_out: dict[str, str]  # skipped records -> the reason


class WinRate(Result):
    """The result of filled sheets.

    Attributes:
        win_rate: share of choices for the first, a tie counted as half.
        interval: resamples whole raters, because the choices of one person are not independent; None for one rater.
        num_wins, num_losses, num_ties, num_blank: choices for the first, for the second, for neither; rows without one.
        missing: rater -> numbers of the images for which their files have no row, not even a blank one.
        num_pairs: images with at least one choice.
        agreement: of the raters, see `nominal_alpha`.
        decided: with one outcome for each image, see `adjudicate`; None if there is no adjudicator.
        share_of_a: choices for A among those for A or B; far from one half, raters chose by place and not by caption.
    """

    first: str
    second: str
    win_rate: float
    interval: Interval | None
    num_wins: int
    num_losses: int
    num_ties: int
    num_blank: int
    missing: dict[str, list[int]]
    num_raters: int
    num_pairs: int
    agreement: float | None
    share_of_a: float | None
    decided: DecidedRate | None = None


def make_pairs(
    first: tuple[str, Mapping[str, str]], second: tuple[str, Mapping[str, str]], seed: int, limit: int | None = None
) -> CaptionPairs:
    """Pair the captions of two authors (name, and record -> caption) of at most `limit` images.

    The seed and the record decide the order. DataError if both authors are the same, or no image has two captions that
    differ.
    """
    (first_name, firsts), (second_name, seconds) = first, second
    if first_name == second_name:
        raise DataError(f"'{first_name}' cannot be compared with itself; use two models, or one and '{HUMAN}'")
    pairs: list[CaptionPair] = []
    left_out: dict[str, str] = {}
    for record_id in sorted({*firsts, *seconds}, key=lambda name: chooser("sheet order", name, seed).random()):
        captions = [" ".join(captions.get(record_id, "").split()) for captions in (firsts, seconds)]
        missing = [name for name, caption in zip((first_name, second_name), captions) if not caption]
        if missing:
            left_out[record_id] = f"no caption of {' and '.join(missing)}"
        elif captions[0].casefold() == captions[1].casefold():
            left_out[record_id] = "both captions are the same"
        elif limit is None or len(pairs) < limit:
            a_is_first = chooser("sheet side", record_id, seed).random() < 0.5
            a, b = captions if a_is_first else captions[::-1]
            pairs.append(CaptionPair(record_id, a, b, a_is_first))
    if not pairs:
        raise DataError(f"no image has two different captions of '{first_name}' and '{second_name}' to compare")
    return CaptionPairs(first_name, second_name, pairs, left_out)


def human_caption(record: EmotionRecord) -> str | None:
    """The human caption of a record with the highest score, the first of several; None if it has none."""
    written = [(one.text, -np.inf if one.score is None else one.score) for one in record.utterances if one.text.strip()]
    return max(written, key=itemgetter(1), default=(None, 0.0))[0]


def write_sheet(
    folder: str | os.PathLike[str], made: CaptionPairs, images: Mapping[str, bytes], seed: int, question: str = QUESTION
) -> str:
    """Write sheet.html, sheet.json with the same for `emovit judge page`, choices.csv, and key.json, which records the
    seed and the question that people answer.

    Returns:
        the name of the sheet, which connects filled choices with their key.

    Raises:
        DataError: the folder already has a sheet, or an image cannot be decoded.
    """
    folder = Path(folder)
    if (folder / KEY_NAME).exists():
        raise DataError(f"{folder}: already has a sheet, which people may be filling in; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    content = [asdict(pair) for pair in made.pairs]
    digest = hashlib.sha256(json.dumps([made.first, made.second, question, content]).encode()).hexdigest()
    sheet = f"s{digest[:10]}"  # spreadsheets would read 0123 and 12e345 as numbers
    entries = [
        {"number": number, "image": _embedded(images[pair.record_id], pair.record_id), "a": pair.a, "b": pair.b}
        for number, pair in enumerate(made.pairs, start=1)
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lavis_emovit.evaluation"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    write_json(folder / ENTRIES_NAME, {"sheet": sheet, "question": question, "entries": entries})
    html = environment.get_template("sheet.html.jinja").render(
        sheet=sheet, entries=entries, choices=CHOICES_NAME, question=question
    )
    with atomic_writer(folder / SHEET_NAME) as file:
        file.write(html)
    with atomic_writer(folder / CHOICES_NAME) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([sheet, entry["number"], "", ""] for entry in entries)
    key = {
        "sheet": sheet,
        "first": made.first,
        "second": made.second,
        "seed": seed,
        "question": question,
        "pairs": content,
        "left_out": made.left_out,
    }
    write_json(folder / KEY_NAME, key, indent=1)
    return sheet


def score_sheets(
    key_path: str | os.PathLike[str],
    filled: Sequence[str | os.PathLike[str]],
    seed: int = 0,
    adjudicator: str | None = None,
) -> WinRate:
    """The win rate from the key.json of a sheet and filled copies of choices.csv, with choices `A`, `B` or `tie`.

    The default name of a rater is that of the file, with its folders if several files have the same name.

    Args:
        adjudicator: the rater who decides images on which others disagree, see `adjudicate`.

    Raises:
        DataError: a file cannot be read or belongs to another sheet, or rows cannot be used; all of them are named.
            Or the adjudicator has no choice.
    """
    key = read_own(Path(key_path), _Key, f"Use the {KEY_NAME} of the sheet's folder.")
    pairs = key.pairs
    chosen: dict[tuple[str, int], str] = {}
    blank: list[tuple[str, int]] = []
    files_of: dict[str, set[str]] = {}
    problems: list[str] = []
    for file_name, path in _file_names(filled).items():
        rows = _read_choices(path)
        # Rows without a rater are those of all raters of the file.
        for rater in {row["rater"] for _, row, _ in rows} - {""} or {file_name}:
            files_of.setdefault(rater, set()).add(file_name)
        for line, row, further in rows:
            place, number, choice = f"{path}:{line}", row["number"], row["choice"].casefold()
            rater = row["rater"] or file_name
            if further:
                problems.append(f"{place}: has {', '.join(map(repr, further))} after the last column; remove it")
            elif row["sheet"] != key.sheet:
                problems.append(f"{place}: belongs to sheet '{row['sheet']}', the key to '{key.sheet}'")
            elif not (number.isdecimal() and 1 <= int(number[:9]) <= len(pairs)):
                problems.append(f"{place}: no image '{number[:20]}', the sheet has 1 to {len(pairs)}")
            elif not choice:
                blank.append((rater, int(number)))
            elif choice not in _CHOICES:
                problems.append(f"{place}: choice '{row['choice']}', expected A, B or tie")
            elif (rater, int(number)) in chosen:
                problems.append(f"{place}: rater '{rater}' already has a choice for image {number}")
            else:
                chosen[rater, int(number)] = _CHOICES[choice]
                files_of.setdefault(rater, set()).add(file_name)
    if problems:
        raise DataError("filled sheets cannot be used:\n" + "\n".join(f"  - {problem}" for problem in problems[:20]))
    if not chosen:
        raise DataError("the files have no choices; fill in the column 'choice' with A, B or tie")
    missing: dict[str, list[int]] = {}
    for rater, files in files_of.items():
        found = {*chosen, *((rater, number) for name, number in blank if name in {rater, *files})}
        lacking = [number for number in range(1, len(pairs) + 1) if (rater, number) not in found]
        if lacking:
            missing[rater] = lacking
    first_of = {number: "A" if pair.a_is_first else "B" for number, pair in enumerate(pairs, start=1)}
    decided = adjudicate(chosen, first_of, adjudicator, seed) if adjudicator is not None else None
    if adjudicator is not None:
        # The choices of the others give the agreement and the rate of all raters.
        chosen = {place: choice for place, choice in chosen.items() if place[0] != adjudicator}
        missing.pop(adjudicator, None)
        if not chosen:
            raise DataError(f"only the adjudicator '{adjudicator}' has choices; add the files of the raters")
    return _win_rate(key, chosen, len(blank), missing, seed).model_copy(update={"decided": decided})


def _win_rate(
    key: _Key,
    chosen: Mapping[tuple[str, int], str],
    num_blank: int,
    missing: dict[str, list[int]],
    seed: int,
) -> WinRate:
    raters, groups_N = np.unique([rater for rater, _ in sorted(chosen)], return_inverse=True)
    outcomes: list[str] = []
    of_pair: dict[int, list[str]] = {}
    for (_, number), choice in sorted(chosen.items()):
        won = choice == ("A" if key.pairs[number - 1].a_is_first else "B")
        outcomes.append("tie" if choice == "tie" else "first" if won else "second")
        of_pair.setdefault(number, []).append(outcomes[-1])
    values_N = np.array([{"first": 1.0, "tie": 0.5, "second": 0.0}[outcome] for outcome in outcomes])
    counts = Counter(outcomes)
    sides = Counter(choice for choice in chosen.values() if choice != "tie")
    return WinRate(
        first=key.first,
        second=key.second,
        win_rate=float(values_N.mean()),
        interval=Resamples(len(values_N), groups_N, seed=seed).mean_interval(values_N) if len(raters) > 1 else None,
        num_wins=counts["first"],
        num_losses=counts["second"],
        num_ties=counts["tie"],
        num_blank=num_blank,
        missing=missing,
        num_raters=len(raters),
        num_pairs=len(of_pair),
        agreement=nominal_alpha(list(of_pair.values())),
        share_of_a=sides["A"] / sides.total() if sides else None,
    )


def nominal_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Krippendorff's alpha of nominal data: 1 - observed / expected disagreement, over units with at least two values.

    Krippendorff, "Content Analysis", 2004, chapter 11. 1 is full agreement and 0 is chance; None if no unit has two
    values or all values are the same.
    """
    paired = [unit for unit in units if len(unit) > 1]
    totals = Counter(value for unit in paired for value in unit)
    count = sum(totals.values())
    expected = count * count - sum(number * number for number in totals.values())
    if not expected:
        return None
    unequal = [len(unit) ** 2 - sum(number * number for number in Counter(unit).values()) for unit in paired]
    observed = sum(number / (len(unit) - 1) for number, unit in zip(unequal, paired))
    return 1.0 - (count - 1) * observed / expected


class _Key(Written):
    """The file `key.json`, as far as it is read."""

    sheet: str
    first: str
    second: str
    pairs: tuple[CaptionPair, ...] = Field(min_length=1)


def _file_names(filled: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """The files by name without suffix, or by path where several have that name; DataError for a file given twice."""
    paths = list(map(Path, filled))
    places = Counter(path.resolve() for path in paths)
    if twice := [path for path in paths if places[path.resolve()] > 1]:
        raise DataError(f"{twice[0]}: is given twice; name each file once")
    stems = Counter(path.stem for path in paths)
    return {path.stem if stems[path.stem] == 1 else path.as_posix(): path for path in paths}


def _read_choices(path: Path) -> list[tuple[int, dict[str, str], list[str]]]:
    """Line number, columns, and cells without a column of each row; blank lines are skipped."""
    try:
        # Spreadsheets write a byte order mark.
        text = regular_file(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    reader = table_rows(text)
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path}: no column '{missing[0]}'; fill in a copy of {CHOICES_NAME} and keep its first line"
            )
        twice = [name for name in COLUMNS if (reader.fieldnames or ()).count(name) > 1]
        if twice:
            raise DataError(f"{path}: two columns '{twice[0]}'; keep one of them")
        return [
            (
                reader.line_num,
                {name: (row[name] or "").strip() for name in COLUMNS},
                [cell for cell in row.get(None, ()) if cell.strip()],  # type: ignore[call-overload]
            )
            for row in reader
        ]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV ({error}); close or remove the quote") from None


def _embedded(data: bytes, record_id: str) -> str:
    try:
        image = decode_image(data, min_side_px=_IMAGE_SIDE_PX)
    except DataError as error:
        raise DataError(f"'{record_id}': {error}; limit the sheet to other images") from None
    image.thumbnail((_IMAGE_SIDE_PX, _IMAGE_SIDE_PX), Image.Resampling.LANCZOS)
    return data_url(image)
