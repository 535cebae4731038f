"""Contact sheets: images of a dataset with their labels on one page, for inspection before training."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.reading import STRIP_FRAMES, film_strip
from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer
from lavis_emovit.images import data_url, displayed_size_px, open_strictly
from lavis_emovit.paths import RECORDS_NAME
from lavis_emovit.records import EmotionRecord, find_image_root, image_root_of, read_records
from lavis_emovit.sources.checks import open_thumbnail
from lavis_emovit.sources.readers.emoset import EMOSET_SPLITS, read_emoset
from lavis_emovit.sources.statistics import NO_LABEL, labels_of

_CAPTION_PX = 16
_MAX_WORDS_OF_A_TEXT = 24


@dataclass(frozen=True)
class Tile:
    """One image of the sheet, or a film strip of a clip, whose frames are below `root`.

    A frame is drawn at `box`, (left, top, right, bottom) in pixels of an image file.
    """

    image: Path
    note: str
    split: str
    box: tuple[float, float, float, float] | None
    clip: Clip | None
    root: Path


@dataclass(frozen=True)
class Row:
    """The tiles of a label, and how many images have that label, shown or not."""

    tiles: list[Tile]
    num_images: int


def find_records(
    root: Path, images: Path | None = None, *, opens_images: bool = True
) -> tuple[Iterable[EmotionRecord], Path]:
    """Records, and the folder that their image paths are relative to: `images`, or the one that the records' summary
    states, or the one beside the records.

    The records are those of a folder in EmoSet's layout, of a folder with `records.jsonl`, or of such a file (else
    DataError). DataError also if the folder that the summary states no longer exists, unless no image will be opened.
    """
    if not root.exists():
        raise DataError(f"{root}: no such folder or file")
    file = root if root.is_file() else root / RECORDS_NAME
    if file.is_file():
        drawn = root / "drawn"
        if images is None and drawn.is_dir():
            return read_records(file), drawn
        return read_records(file), find_image_root(file, images) if opens_images else image_root_of(file)
    splits = [split for split in EMOSET_SPLITS if (root / f"{split}.json").is_file()]
    if not splits:
        raise DataError(
            f"{root}: neither records.jsonl nor train.json found. Pass a folder in EmoSet's layout, a folder with "
            "records.jsonl, or a records file."
        )
    return read_emoset(root, splits=splits), images or root


def pick_tiles(
    records: Iterable[EmotionRecord], image_root: Path, per_label: int, seed: int = 0, split: str | None = None
) -> dict[str, Row]:
    """Up to `per_label` random images of every row of `rows_of`, rows sorted. DataError without any record"""
    by_row: dict[str, list[EmotionRecord]] = {}
    splits: set[str] = set()
    for record in records:
        splits.add(record.split)
        if split is None or record.split == split:
            for row in rows_of(record):
                by_row.setdefault(row, []).append(record)
    if not by_row:
        wanted = f" of split '{split}' (available: {', '.join(sorted(splits)) or 'none'})" if split else ""
        raise DataError(f"no records{wanted} to show")
    # Not the bare seed: splits are drawn with it, and the same numbers would pick images of one split.
    rng = random.Random(f"contact sheet {seed}")
    rows = {}
    for label, found in sorted(by_row.items()):
        chosen = rng.sample(found, min(per_label, len(found)))
        tiles = [
            Tile(image_root / record.image, note_of(record), record.split, record.box, record.clip, image_root)
            for record in chosen
        ]
        rows[label] = Row(tiles, len(found))
    return rows


def rows_of(record: EmotionRecord) -> list[str]:
    """The rows of the sheet that a record belongs to: its labels, action units, or valence and arousal."""
    labels = labels_of(record)
    if labels:
        return labels
    if record.action_units:
        return [f"AU{unit:02d}" for unit, is_active in record.active_units().items() if is_active] or ["no action unit"]
    if record.valence is not None and record.arousal is not None:
        return [f"valence {'+' if record.valence >= 0 else '-'}, arousal {'+' if record.arousal >= 0 else '-'}"]
    return [NO_LABEL]


def note_of(record: EmotionRecord) -> str:
    """Everything known about an image except its label, in one line."""
    attributes = record.attributes
    parts = [attributes.facial_expression, attributes.human_action, attributes.scene, *(attributes.object or ())]
    for name, value in (("brightness", attributes.brightness), ("colour", attributes.colorfulness)):
        if value is not None:
            parts.append(f"{name} {value:.1f}")
    for name, value in (("V", record.valence), ("A", record.arousal), ("D", record.dominance)):
        if value is not None:
            parts.append(f"{name} {round(value, 2) + 0.0:+.2f}")
    if record.votes is not None:
        most = sorted(record.votes.items(), key=lambda item: -item[1])
        parts.append("votes: " + " ".join(f"{label} {share:.0%}" for label, share in most if share > 0))
    if record.labels is not None and len(record.labels) > 1:
        parts.append("all: " + " ".join(record.labels))
    if record.action_units:
        active = record.active_units()
        present = [f"{unit}:{value:g}" for unit, value in sorted(record.action_units.items()) if active[unit]]
        parts.append("AU " + " ".join(present))
    parts += [f"“{_short(utterance.text)}”" for utterance in record.utterances[:2]]
    if record.caption:
        parts.append(f"“{_short(record.caption)}”")
    return ", ".join(part.strip() for part in parts if part)


def write_contact_sheet(
    rows: dict[str, Row], path: Path, tile_px: int = 128, title: str = "Contact sheet", subtitle: str = ""
) -> list[str]:
    """Write the sheet as HTML, PNG or JPEG, by the suffix of `path`, and return a line for each unreadable image.

    The HTML page embeds its images and shows the notes; the image formats show only labels. An image that cannot be
    read is replaced by a placeholder. DataError for another suffix, or if no image can be read.
    """
    suffix = path.suffix.lower()
    broken: list[str] = []
    if suffix in (".html", ".htm"):
        content = _html_page(rows, tile_px, title, subtitle, broken).encode("utf-8")
    elif suffix in (".png", ".jpg", ".jpeg"):
        buffer = io.BytesIO()
        sheet = _sheet_image(rows, tile_px, broken)
        sheet.save(buffer, "PNG" if suffix == ".png" else "JPEG", quality=80, optimize=True)
        content = buffer.getvalue()
    else:
        raise DataError(f"{path}: the suffix of a contact sheet must be .html, .png or .jpg")
    if broken and len(broken) == sum(len(row.tiles) for row in rows.values()):
        raise DataError(f"no image can be read; pass their folder with `--images`. The first: {broken[0]}")
    with atomic_writer(path, "wb") as file:
        file.write(content)
    return broken


def _thumbnail(tile: Tile, tile_px: int) -> Image.Image:
    if tile.clip is not None:
        try:
            return film_strip(tile.image, tile.clip, tile_px, root=tile.root)
        except OSError as error:
            raise DataError(f"{tile.image}: cannot be read ({error.strerror})") from None
        except DataError as error:
            raise DataError(f"{tile.image}: {error}") from None
    small = open_thumbnail(tile.image, 2 * tile_px)
    if tile.box is not None:
        # The box is in pixels of the displayed image; the decoder may have reduced it.
        with open_strictly(tile.image) as image:
            width, _ = displayed_size_px(image)
        scale = small.width / width
        pen_px = max(2, round(small.width / 100))
        ImageDraw.Draw(small).rectangle([scale * side for side in tile.box], outline=(255, 60, 0), width=pen_px)
    small.thumbnail((tile_px, tile_px), Image.Resampling.LANCZOS)
    return small


def _sheet_image(rows: dict[str, Row], tile_px: int, broken: list[str]) -> Image.Image:
    columns = max(len(row.tiles) for row in rows.values())
    row_px, column_px = tile_px + _CAPTION_PX, tile_px
    if any(tile.clip is not None for row in rows.values() for tile in row.tiles):
        column_px *= STRIP_FRAMES
    sheet = Image.new("RGB", (columns * column_px, len(rows) * row_px), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, (label, row) in enumerate(rows.items()):
        pen.text((4, number * row_px + 2), label, fill=(20, 20, 20), font=font)
        for column, tile in enumerate(row.tiles):
            top = number * row_px + _CAPTION_PX
            try:
                small = _thumbnail(tile, tile_px)
            except DataError as error:
                broken.append(str(error))
                corner = (column * column_px + 2, top + 2)
                pen.rectangle([*corner, corner[0] + tile_px - 5, top + tile_px - 3], outline=(200, 50, 50))
                pen.text((corner[0] + 4, top + 6), "cannot be read", fill=(200, 50, 50), font=font)
                continue
            small.thumbnail((column_px, tile_px))
            left = column * column_px + (column_px - small.width) // 2
            sheet.paste(small, (left, top + (tile_px - small.height) // 2))
    return sheet


def _html_page(rows: dict[str, Row], tile_px: int, title: str, subtitle: str, broken: list[str]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lavis_emovit.sources"), autoescape=True, undefined=jinja2.StrictUndefined
    )

    def embedded(tile: Tile) -> dict[str, str]:
        try:
            small = _thumbnail(tile, 2 * tile_px)
        except DataError as error:
            broken.append(str(error))
            return {"error": str(error)}
        return {"url": data_url(small)}

    template = environment.get_template("contact_sheet.html.jinja")
    return template.render(rows=rows, tile_px=tile_px, title=title, subtitle=subtitle, embedded=embedded)


def _short(text: str) -> str:
    words = text.split()
    return " ".join(words[:_MAX_WORDS_OF_A_TEXT]) + (" …" if len(words) > _MAX_WORDS_OF_A_TEXT else "")
