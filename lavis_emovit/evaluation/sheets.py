"""Blinded sheets on which people choose the funnier of two captions, and what filled sheets say.

A sheet shows each picture with two captions, A and B, in an order that the seed decides; who wrote which stands in a
file of its own, the key. Raters write into a CSV. The win rate counts a tie as half a win, and its interval draws
whole raters, since one person's choices are no independent evidence.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from lavis_emovit.emotion.questions import chooser
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.files import atomic_writer
from lavis_emovit.images import decode_image
from lavis_emovit.records import EmotionRecord

HUMAN = "human"
"""In the place of a model: the caption of the dataset's people with the highest score."""

SHEET_NAME, CHOICES_NAME, KEY_NAME = "sheet.html", "choices.csv", "key.json"
_COLUMNS = ("sheet", "number", "rater", "choice")
_CHOICES = {"a": "A", "b": "B", "tie": "tie", "=": "tie", "equal": "tie", "both": "tie"}
_PICTURE_SIDE_PX = 512


@dataclass(frozen=True)
class CaptionPair:
    """Two captions of one picture.

    Attributes:
        record_id: the picture's record.
        a, b: the captions as the sheet names them.
        a_is_first: whether A is the first of the two that are compared.
    """

    record_id: str
    a: str
    b: str
    a_is_first: bool


@dataclass(frozen=True)
class CaptionPairs:
    """What a sheet is made of.

    Attributes:
        first, second: the two that are compared: names of models, or `HUMAN`.
        pairs: in the order of the sheet.
        left_out: record -> why there is no pair of it.
    """

    first: str
    second: str
    pairs: list[CaptionPair]
    left_out: dict[str, str]


class WinRate(Result):
    """What filled sheets say.

    Attributes:
        first, second: the two that were compared.
        win_rate, interval: share of choices for the first, a tie counted as half; the interval draws raters. None for
            one rater, of whom no other draw can be made.
        num_wins, num_losses, num_ties: choices for the first, for the second, for neither.
        num_blank: rows without a choice.
        num_raters, num_pairs: people, and pictures with at least one choice.
        agreement: Krippendorff's alpha of nominal data (Krippendorff, "Content Analysis", 2004, chapter 11): 1 for full
            agreement, 0 for that of chance; None where no picture has two choices or all choices are one.
        share_of_a: choices for A among those for A or B; far from one half, the place decided and not the caption.
    """

    first: str
    second: str
    win_rate: float
    interval: Interval | None
    num_wins: int
    num_losses: int
    num_ties: int
    num_blank: int
    num_raters: int
    num_pairs: int
    agreement: float | None
    share_of_a: float | None


def make_pairs(
    first: tuple[str, Mapping[str, str]], second: tuple[str, Mapping[str, str]], seed: int, limit: int | None = None
) -> CaptionPairs:
    """Pair the captions of two writers, in an order that the seed and the record decide.

    Args:
        first, second: name, and record -> caption, of each.
        seed: of the order of pictures and of A and B.
        limit: only so many pictures.

    Raises:
        DataError: one is compared with itself, or no picture has two different captions.
    """
    (first_name, firsts), (second_name, seconds) = first, second
    if first_name == second_name:
        raise DataError(f"'{first_name}' cannot be compared with itself; name two models, or one and '{HUMAN}'")
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
        raise DataError(f"no picture has two different captions of '{first_name}' and '{second_name}' to compare")
    return CaptionPairs(first_name, second_name, pairs, left_out)


def human_caption(record: EmotionRecord) -> str | None:
    """The record's caption by a person with the highest score, the first of equals; None where it has none."""
    written = [utterance for utterance in record.utterances if utterance.text.strip()]
    if not written:
        return None
    return max(written, key=lambda one: one.score if one.score is not None else float("-inf")).text


def write_sheet(folder: str | os.PathLike[str], made: CaptionPairs, pictures: Mapping[str, bytes], seed: int) -> str:
    """Write sheet.html, choices.csv and key.json.

    Args:
        folder: where they go; a key that is there is never overwritten.
        made: the pairs.
        pictures: record -> bytes of its picture.
        seed: noted in the key.

    Returns:
        the sheet's name, by which filled choices find their key.

    Raises:
        DataError: the folder holds a sheet already, or a picture cannot be decoded.
    """
    folder = Path(folder)
    if (folder / KEY_NAME).exists():
        raise DataError(f"{folder}: a sheet lies here already, and people may be filling it in; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    content = [asdict(pair) for pair in made.pairs]
    sheet = hashlib.sha256(json.dumps([made.first, made.second, content]).encode()).hexdigest()[:10]
    entries = [
        {"number": number, "picture": _data_url(pictures[pair.record_id], pair.record_id), "a": pair.a, "b": pair.b}
        for number, pair in enumerate(made.pairs, start=1)
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lavis_emovit.evaluation"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("sheet.html.jinja").render(sheet=sheet, entries=entries, choices=CHOICES_NAME)
    with atomic_writer(folder / SHEET_NAME) as file:
        file.write(html)
    with atomic_writer(folder / CHOICES_NAME) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows([sheet, entry["number"], "", ""] for entry in entries)
    key = {"sheet": sheet, "first": made.first, "second": made.second, "seed": seed, "pairs": content}
    with atomic_writer(folder / KEY_NAME) as file:
        json.dump({**key, "left_out": made.left_out}, file, indent=1, ensure_ascii=False)
        file.write("\n")
    return sheet


def score_sheets(key_path: str | os.PathLike[str], filled: Sequence[str | os.PathLike[str]], seed: int = 0) -> WinRate:
    """The win rate out of filled sheets.

    Args:
        key_path: key.json of the sheet.
        filled: copies of choices.csv with choices `A`, `B` or `tie`; a rater without a name is called like the file.
        seed: of the bootstrap.

    Raises:
        DataError: a file cannot be read, belongs to another sheet, or has a row that cannot be used; all are named.
    """
    key = _read_key(Path(key_path))
    pairs = [CaptionPair(**pair) for pair in key["pairs"]]
    chosen: dict[tuple[str, int], str] = {}
    problems: list[str] = []
    num_blank = 0
    for path in map(Path, filled):
        for line, row in _read_choices(path):
            place = f"{path}:{line}"
            number, choice = (row["number"] or "").strip(), (row["choice"] or "").strip().casefold()
            rater = (row["rater"] or "").strip() or path.stem
            if (row["sheet"] or "").strip() != key["sheet"]:
                problems.append(f"{place}: belongs to sheet '{row['sheet']}', the key is of '{key['sheet']}'")
            elif not number.isdigit() or not 1 <= int(number) <= len(pairs):
                problems.append(f"{place}: no picture '{number}', the sheet has 1 to {len(pairs)}")
            elif not choice:
                num_blank += 1
            elif choice not in _CHOICES:
                problems.append(f"{place}: choice '{row['choice']}', expected A, B or tie")
            elif (rater, int(number)) in chosen:
                problems.append(f"{place}: rater '{rater}' has chosen for picture {number} already")
            else:
                chosen[rater, int(number)] = _CHOICES[choice]
    if problems:
        raise DataError("filled sheets cannot be used:\n" + "\n".join(f"  - {problem}" for problem in problems[:20]))
    if not chosen:
        raise DataError("no choice in any of the files; fill in the column 'choice' with A, B or tie")
    return _win_rate(key, pairs, chosen, num_blank, seed)


def _win_rate(
    key: Mapping[str, Any],
    pairs: Sequence[CaptionPair],
    chosen: Mapping[tuple[str, int], str],
    num_blank: int,
    seed: int,
) -> WinRate:
    raters = sorted({rater for rater, _ in chosen})
    values_N: list[float] = []
    groups_N: list[int] = []
    of_pair: dict[int, list[str]] = {}
    for (rater, number), choice in sorted(chosen.items()):
        won = choice == ("A" if pairs[number - 1].a_is_first else "B")
        outcome = "tie" if choice == "tie" else "first" if won else "second"
        values_N.append({"first": 1.0, "tie": 0.5, "second": 0.0}[outcome])
        groups_N.append(raters.index(rater))
        of_pair.setdefault(number, []).append(outcome)
    values, groups = np.array(values_N), np.array(groups_N)
    interval = None
    if len(raters) > 1:
        resamples = Resamples(len(values), groups, seed=seed)
        interval = resamples.share_interval(resamples.means(values[:, None])[:, 0], float(values.mean()))
    counts = Counter(outcome for outcomes in of_pair.values() for outcome in outcomes)
    sides = Counter(chosen.values())
    num_sided = sides["A"] + sides["B"]
    return WinRate(
        first=key["first"],
        second=key["second"],
        win_rate=float(values.mean()),
        interval=interval,
        num_wins=counts["first"],
        num_losses=counts["second"],
        num_ties=counts["tie"],
        num_blank=num_blank,
        num_raters=len(raters),
        num_pairs=len(of_pair),
        agreement=nominal_alpha(list(of_pair.values())),
        share_of_a=sides["A"] / num_sided if num_sided else None,
    )


def nominal_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Krippendorff's alpha of nominal data: 1 - observed by expected disagreement, over units with two values or more.

    Args:
        units: the values that were given to each unit, by however many raters.

    Returns:
        at most 1; None where no unit has two values, or all values are one.
    """
    paired = [unit for unit in units if len(unit) > 1]
    totals = Counter(value for unit in paired for value in unit)
    count = sum(totals.values())
    expected = count * count - sum(number * number for number in totals.values())
    if not expected:
        return None
    observed = 0.0
    for unit in paired:
        in_unit = Counter(unit)
        unequal = len(unit) ** 2 - sum(number * number for number in in_unit.values())
        observed += unequal / (len(unit) - 1)
    return 1.0 - (count - 1) * observed / expected


def _read_key(path: Path) -> dict[str, Any]:
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        return {name: key[name] for name in ("sheet", "first", "second", "pairs")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no key of a sheet ({type(error).__name__}: {error}); give the sheet's folder"
        ) from None


def _read_choices(path: Path) -> list[tuple[int, dict[str, str | None]]]:
    """Line number and columns of each row; blank lines are passed over."""
    try:
        # Spreadsheets write a byte order mark, and semicolons in some countries.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    head = text.splitlines()[0] if text.strip() else ""
    reader = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in head else ",")
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path}: no column '{missing[0]}'; fill in a copy of {CHOICES_NAME}, with its first line")
    return [(reader.line_num, row) for row in reader]


def _data_url(data: bytes, record_id: str) -> str:
    try:
        image = decode_image(data, min_side_px=_PICTURE_SIDE_PX)
    except DataError as error:
        raise DataError(f"'{record_id}': {error}; it cannot be on the sheet") from None
    image.thumbnail((_PICTURE_SIDE_PX, _PICTURE_SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
