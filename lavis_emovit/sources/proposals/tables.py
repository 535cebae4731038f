"""A table of images: which columns have the image, the label, the ratings, the votes, the split and the person."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_emovit.emotion.label_set import LabelSet, spelling
from lavis_emovit.emotion.labels import LABEL_SETS
from lavis_emovit.errors import DataError
from lavis_emovit.files import images_below, load_json
from lavis_emovit.settings import nearest_name
from lavis_emovit.sources.base import Notes, parse_number
from lavis_emovit.sources.proposals.labels import NUMBERED_LABELS, choose_labels, known_labels, renamed_counts
from lavis_emovit.sources.proposals.proposal import Proposal, split_in_path, split_names, typed
from lavis_emovit.sources.table_files import has_embedded_images, read_rows
from lavis_emovit.sources.table_settings import TableColumns, TableSettings

# Usual names of columns, the likeliest first; compared without case, with `_` for everything but letters and digits.
_NAMES = {
    "image": "image file_name filename file image_path path img photo picture image_name name image_id image_file",
    "emotion": "emotion emotion_label expression mood feeling affect sentiment",
    # May be of anything; in a table with ratings they rarely are emotions.
    "class": "label class class_name category target",
    "split": "split set partition usage subset",
    "group": "group person person_id identity identity_id subject subject_id participant participant_id actor actor_id "
    "individual user user_id speaker video video_id session session_id",
    "caption": "caption description",
}
_RATINGS = ("valence", "arousal", "dominance")
_SCALES = ((0, 1), (1, 5), (0, 5), (1, 7), (1, 9), (0, 10), (1, 10), (0, 100))
_VOID = {"unknown", "nf", "no face", "noface", "not a face", "invalid"}
_SPREAD = re.compile(r"(^|_)(sd|std|se|sem|var|n|count|ci|min|max)(_|$)")
_MAX_LABELS = 64
_MAX_VALUES = 5000
_MAX_SAMPLE = 400
_MAX_EXTRA_CHARS = 200


@dataclass
class Column:
    """The cells of a column, as far as a proposal needs them."""

    name: str
    num_filled: int = 0
    values: Counter[str] = field(default_factory=Counter)  # the first _MAX_VALUES different cells
    sample: list[str] = field(default_factory=list)
    longest: int = 0
    numbers: int = 0  # cells that are numbers
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, cell: Any) -> None:
        if cell is None or isinstance(cell, (dict, bytes, list)) or not (text := str(cell).strip()):
            return
        self.num_filled += 1
        if text in self.values or len(self.values) < _MAX_VALUES:
            self.values[text] += 1
        if len(self.sample) < _MAX_SAMPLE:
            self.sample.append(text)
        self.longest = max(self.longest, len(text))
        try:
            number = parse_number(text)
        except ValueError:
            return
        self.numbers += 1
        self.low, self.high = min(self.low, number), max(self.high, number)

    @property
    def key(self) -> str:
        return re.sub(r"[^0-9a-z]+", "_", self.name.casefold()).strip("_")

    @property
    def is_numeric(self) -> bool:
        return 0 < self.num_filled == self.numbers


def propose_table(files: Sequence[Path], root: Path, given: dict[str, Any], labels: str | None) -> Proposal:
    """How to read one table, or one table for each split; `given` are settings of the layout that the user chose.

    DataError if no column has the images below `root`, or none has labels or ratings.
    """
    root = root.resolve()
    parts = [file.resolve().relative_to(root).as_posix() for file in files]
    node: dict[str, Any] = {"file": parts[0]} if len(parts) == 1 else {"files": _files(parts)}
    columns, num_rows = _read_columns(files, node, given)
    if not num_rows:
        raise DataError(f"{files[0]}: contains no rows")
    reasons = [f"layout: a table with {num_rows} rows"]
    warnings: list[str] = []
    chosen: dict[str, Any] = dict(given.get("columns", {}))
    _check_given(files[0], chosen, columns)
    used = {name for value in chosen.values() for name in ([value] if isinstance(value, str) else value)}
    if "image" not in given and "pixels" not in given:
        _choose_image(files, root, node, chosen, columns, num_rows, reasons)
        used.add(chosen.get("image", ""))
    for name in ("split", "group", "caption"):
        if name not in chosen and (column := _by_name(name, columns, used)) is not None:
            if name == "split" and split_names(column.values) is None:
                continue
            if name == "group" and not 1 < len(column.values) < num_rows:
                continue
            chosen[name] = column.name
            used.add(column.name)
            reasons.append(f"{name}: column '{column.name}', with {_num(column)} values")
    if "split" in chosen:
        splits = split_names(columns[chosen["split"]].values) or {}
        changed = {name: split for name, split in splits.items() if name != split}
        node |= {"split_names": changed} if changed and "split_names" not in given else {}
    elif "files" in node:
        names = {item["split"]: 1 for item in node["files"] if "split" in item}
        for item in node["files"]:
            if "split" in item:
                item["split"] = (split_names(names) or {}).get(item["split"], item["split"])
    _choose_ratings(node, chosen, columns, used, given, reasons)
    given = {**_class_names(files[0], chosen.get("emotion"), columns), **given}
    label_set = _choose_labels(node, chosen, columns, used, given, labels, num_rows, reasons, warnings)
    has_ratings = {"valence", "arousal"} <= set(chosen)
    if label_set is None and not has_ratings:
        raise DataError(
            f"{files[0]}: no column has labels, votes, or valence and arousal (columns: {', '.join(columns)}). Name it "
            "with --column emotion=COLUMN, or add such a column"
        )
    rest = [one for one in columns.values() if one.name and one.name not in used]
    kept = [one.name for one in rest if one.num_filled > 0 and one.longest <= _MAX_EXTRA_CHARS]
    ignored = [one.name for one in rest if one.name not in kept]
    if "extra" not in chosen and kept:
        chosen["extra"] = kept
        reasons.append(f"other columns, kept in the records: {', '.join(kept)}")
    if "ignore" not in chosen and ignored:
        chosen["ignore"] = ignored
        reasons.append(f"columns without use: {', '.join(ignored)}")
    node["columns"] = chosen
    node |= {key: value for key, value in given.items() if key not in ("columns", "label_set")}
    kind = "emotion" if label_set is not None else "valence_arousal"
    return Proposal("table", root, node, kind=kind, labels=label_set, reasons=reasons, warnings=warnings)


def image_columns(file: Path, root: Path) -> bool:
    """Whether a table has a column with images below a folder, or contains images."""
    try:
        columns, num_rows = _read_columns([file], {"file": file.name}, {})
        if _embedded(file, columns):
            return True
        return bool(num_rows) and _best_image_column(columns, root)[0] >= 0.5
    except DataError:
        return False


def _files(parts: Sequence[str]) -> list[dict[str, Any]]:
    """The tables of several splits, each named after its split or in a folder of that name."""
    found = []
    for part in parts:
        path = PurePosixPath(part)
        split = split_in_path(path)
        images = {"images": path.parent.as_posix()} if path.parent.name and path.suffix != ".parquet" else {}
        found.append({"path": part, **({"split": split} if split else {}), **images})
    return found


def _read_columns(
    files: Sequence[Path], node: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Column], int]:
    read = {key: value for key, value in given.items() if key in ("format", "delimiter", "quote", "encoding", "header")}
    columns: dict[str, Column] = {}
    num_rows = 0
    for file in files:
        settings = typed(TableSettings, {"file": file.name, **read})
        notes = Notes()
        if file.suffix.lower() == ".parquet":
            # Without the images themselves.
            import pyarrow.parquet

            schema = pyarrow.parquet.read_schema(file)
            for name in schema.names:
                columns.setdefault(name, Column(name))
            plain = [one.name for one in schema if not str(one.type).startswith(("struct", "binary", "large_binary"))]
            rows = read_rows(file, settings, plain, notes)
        else:
            rows = read_rows(file, settings, [], notes)
        for _, row in rows:
            if not isinstance(row, dict):
                continue
            num_rows += 1
            for name, cell in row.items():
                columns.setdefault(name, Column(name)).add(cell)
    return columns, num_rows


def _check_given(file: Path, chosen: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
    named = [name for value in chosen.values() for name in ([value] if isinstance(value, str) else value)]
    missing = [f"'{name}'{nearest_name(name, list(columns))}" for name in named if name not in columns]
    if missing:
        raise DataError(f"{file}: the table has no column {'; no column '.join(missing)}")


def _by_name(field_name: str, columns: Mapping[str, Column], used: set[str]) -> Column | None:
    """The column with the likeliest name of a field, among the unused ones with values."""
    for wanted in _NAMES[field_name].split():
        for column in columns.values():
            if column.key == wanted and column.name not in used and column.num_filled:
                return column
    return None


def _embedded(file: Path, columns: Mapping[str, Column]) -> str | None:
    """The column of a Parquet file that contains images."""
    for name in columns:
        if has_embedded_images(file, TableSettings(file=file.name, columns=TableColumns(image=name))):
            return name
    return None


def _choose_image(
    files: Sequence[Path],
    root: Path,
    node: dict[str, Any],
    chosen: dict[str, Any],
    columns: Mapping[str, Column],
    num_rows: int,
    reasons: list[str],
) -> None:
    """Add the column of the images, and the pattern of their paths, to the settings."""
    if embedded := _embedded(files[0], columns):
        chosen["image"] = chosen.get("image") or embedded
        reasons.append(f"image: column '{chosen['image']}', which contains the images")
        return
    if "image" not in chosen and "pixels" in columns and columns["pixels"].longest > _MAX_EXTRA_CHARS:
        node["pixels"] = "pixels"
        reasons.append("image: column 'pixels', which contains the images")
        return
    folder = root
    if "files" in node and "images" in node["files"][0]:
        folder = root / node["files"][0]["images"]
    among = {chosen["image"]: columns[chosen["image"]]} if "image" in chosen else columns
    share, column, prefix, suffix = _best_image_column(among, folder)
    if column is None or share < 0.5:
        shown = ", ".join(f"{one.name} ({one.sample[0]})" for one in columns.values() if one.sample)
        raise DataError(
            f"{files[0]}: no column names the images below {folder} (columns with their first values: {shown}). Put "
            "the table beside its images, or name the column with --column image=COLUMN and the path with "
            "--set 'image=photos/{COLUMN}.jpg'"
        )
    chosen["image"] = column.name
    path = f"{prefix}{{{column.name}}}{suffix}"
    if prefix or suffix:
        node["image"] = path
    reasons.append(f"image: column '{column.name}', {share:.0%} of whose cells are images below {folder} ({path})")
    if share < 1:
        node["missing"] = "leave_out"
    if len({PurePosixPath(text).stem for text in column.values}) < len(column.values):
        node["id_from"] = "path"


def _best_image_column(columns: Mapping[str, Column], folder: Path) -> tuple[float, Column | None, str, str]:
    """(share of the cells that are images, column, part of the path before the cell, part behind it)."""
    paths = [path.relative_to(folder).as_posix() for path in images_below(folder)]
    by_name: dict[str, list[str]] = {}
    for path in paths:
        name = PurePosixPath(path).name
        for key in {name, PurePosixPath(path).stem}:
            by_name.setdefault(key, []).append(path)
    usual = {name: place for place, name in enumerate(_NAMES["image"].split())}
    best: tuple[tuple[float, int], Column, str, str] | None = None
    for column in columns.values():
        ways: Counter[tuple[str, str]] = Counter()
        for text in column.sample:
            for path in by_name.get(PurePosixPath(text).name, ()):
                if text in path:
                    prefix, _, suffix = path.rpartition(text)
                    ways[prefix, suffix] += 1
        if not ways:
            continue
        (prefix, suffix), count = max(ways.items(), key=lambda item: (item[1], -len("".join(item[0]))))
        rank = (count / len(column.sample), -usual.get(column.key, len(usual)))
        if best is None or rank > best[0]:
            best = (rank, column, prefix, suffix)
    if best is None:
        return 0.0, None, "", ""
    return best[0][0], best[1], best[2], best[3]


def _choose_ratings(
    node: dict[str, Any],
    chosen: dict[str, Any],
    columns: Mapping[str, Column],
    used: set[str],
    given: Mapping[str, Any],
    reasons: list[str],
) -> None:
    for rating in _RATINGS:
        if rating in chosen:
            continue
        fitting = [
            one for one in columns.values()
            if rating in one.key and not _SPREAD.search(one.key) and one.is_numeric and one.name not in used
        ]  # fmt: skip
        if fitting:
            column = min(fitting, key=lambda one: (one.key != rating, "mean" not in one.key))
            chosen[rating] = column.name
            used.add(column.name)
            also = [one.name for one in fitting if one is not column]
            hint = f" (--column {rating}=... for {' or '.join(also)})" if also else ""
            reasons.append(f"{rating}: column '{column.name}', {column.low:g} to {column.high:g}{hint}")
    rated = [columns[chosen[rating]] for rating in _RATINGS if rating in chosen]
    if not rated or "scales" in given:
        return
    low, high = min(one.low for one in rated), max(one.high for one in rated)
    if -1 <= low < 0 and high <= 1:
        return
    scale: tuple[float, float] | None = next((one for one in _SCALES if one[0] <= low and high <= one[1]), None)
    if scale is None:
        scale = (-max(abs(low), abs(high)), max(abs(low), abs(high))) if low < 0 else (low, high)
    node["scales"] = {rating: list(scale) for rating in _RATINGS if rating in chosen}
    reasons.append(
        f"scale of the ratings: {scale[0]:g} to {scale[1]:g}, the smallest usual one with all values; if it is "
        "another, --set scales='{valence: [1, 9], arousal: [1, 9]}'"
    )


def _choose_labels(
    node: dict[str, Any],
    chosen: dict[str, Any],
    columns: Mapping[str, Column],
    used: set[str],
    given: Mapping[str, Any],
    labels: str | None,
    num_rows: int,
    reasons: list[str],
    warnings: list[str],
) -> LabelSet | None:
    """Add the label column, or the columns of votes, to the settings; None without labels."""
    wanted = labels or given.get("label_set")
    if "votes" in given or "label_pattern" in given:
        choice = choose_labels({}, wanted) if wanted else None
        if choice is not None:
            node["label_set"] = choice.setting
        return choice.label_set if choice is not None else None
    if "emotion" not in chosen:
        candidates = [
            one for one in columns.values()
            if one.name not in used and 2 <= len(one.values) <= _MAX_LABELS and _may_be_labels(one)
        ]  # fmt: skip
        by_name = {one.name: one for one in candidates}
        known = next((one for one in candidates if known_labels(set(one.values)) is not None), None)
        column = _by_name("emotion", by_name, used) or known
        if column is None and "valence" not in chosen:
            column = _by_name("class", by_name, used)
        if column is None:
            return _choose_votes(node, columns, used, reasons)
        chosen["emotion"] = column.name
    column = columns[chosen["emotion"]]
    used.add(column.name)
    counts = renamed_counts(column.values, given.get("label_names", {}))
    try:
        choice = choose_labels(counts, wanted)
    except DataError as error:
        raise DataError(f"column '{column.name}': {error}") from None
    node["label_set"] = choice.setting
    reasons.append(f"emotion: column '{column.name}'; labels: {choice.reason}")
    if column.is_numeric:
        warnings.append(NUMBERED_LABELS)
    if column.num_filled < num_rows:
        warnings.append(f"{num_rows - column.num_filled} rows have no label; they are kept without a question")
    image = columns.get(chosen.get("image", ""))
    if image is not None and image.values and image.num_filled > 1.3 * len(image.values) < _MAX_VALUES:
        node["gather"] = True
        reasons.append("several rows for an image: each counts as a vote, and images with tied votes are skipped")
    return choice.label_set


def _may_be_labels(column: Column) -> bool:
    """Whether cells are names or codes of classes: short, and not fractions of a scale."""
    if column.longest > 40:
        return False
    return not column.numbers or (column.is_numeric and column.key in f"{_NAMES['emotion']} {_NAMES['class']}".split())


def _class_names(file: Path, emotion: str | None, columns: Mapping[str, Column]) -> dict[str, Any]:
    """The setting `label_names` of a Parquet file of Hugging Face, whose schema has the names of its class numbers."""
    if file.suffix.lower() != ".parquet":
        return {}
    import pyarrow.parquet

    stored = (pyarrow.parquet.read_schema(file).metadata or {}).get(b"huggingface", b"{}")
    features = (load_json(stored).get("info") or {}).get("features") or {}
    named = [emotion] if emotion is not None else [*_NAMES["emotion"].split(), *_NAMES["class"].split()]
    for name in named:
        names = features.get(name, {}).get("names") if isinstance(features.get(name), dict) else None
        if names and name in columns:
            return {"label_names": {str(code): str(label) for code, label in enumerate(names)}}
    return {}


def _choose_votes(
    node: dict[str, Any], columns: Mapping[str, Column], used: set[str], reasons: list[str]
) -> LabelSet | None:
    """Add the columns that count votes for the labels of a published set to the settings; None without any."""
    numeric = {spelling(one.name): one for one in columns.values() if one.is_numeric and one.name not in used}
    counted = {name: column for name, column in numeric.items() if column.low >= 0}
    best = max(LABEL_SETS.values(), key=lambda one: (len(set(counted) & set(one.by_spelling)), -len(one)))
    found = {best.by_spelling[name]: column for name, column in counted.items() if name in best.by_spelling}
    if len(found) < 3 or len(found) < len(best) * 3 / 4:
        return None
    void = [column.name for name, column in counted.items() if name in _VOID]
    node["label_set"] = best.name
    node["votes"] = {"columns": {label: column.name for label, column in sorted(found.items())}}
    node["votes"] |= {"void": void} if void else {}
    used.update(node["votes"]["columns"].values(), void)
    reasons.append(f"votes: {len(found)} columns with the labels of {best.name}; the label is the one with the most")
    return best


def _num(column: Column) -> str:
    return f"{len(column.values)}{' or more' if len(column.values) == _MAX_VALUES else ''}"
