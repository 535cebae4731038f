"""Contact sheets: pictures of a dataset with their labels on one page, to look at before anything is trained."""

from __future__ import annotations

import base64
import html
import io
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer
from lavis_emovit.records import EmotionRecord, read_records
from lavis_emovit.sources.emoset import EMOSET_SPLITS, read_emoset

NO_LABEL = "no label"
_CAPTION_PX = 16
_NUMBER_FORMAT = "{:.1f}"


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet: its file, its label, and a line of what else is known."""

    image: Path
    label: str
    note: str


def find_records(root: Path, images: Path | None = None) -> tuple[Iterable[EmotionRecord], Path]:
    """The records of a folder in EmoSet's layout, of a folder with `records.jsonl`, or of such a file.

    Args:
        root: the folder or the file.
        images: where the picture paths start, if not at the folder of the records.

    Returns:
        the records and the folder where their picture paths start.

    Raises:
        DataError: nothing of the kind is there.
    """
    if root.is_file():
        return read_records(root), images or root.parent
    if not root.is_dir():
        raise DataError(f"{root}: no such folder or file")
    if (root / "records.jsonl").is_file():
        drawn = root / "drawn"
        return read_records(root / "records.jsonl"), images or (drawn if drawn.is_dir() else root)
    splits = [split for split in EMOSET_SPLITS if (root / f"{split}.json").is_file()]
    if not splits:
        raise DataError(
            f"{root}: neither records.jsonl nor train.json is there. Give a folder in EmoSet's layout, a folder with "
            "records.jsonl, or a records file."
        )
    return read_emoset(root, splits=splits), images or root


def pick_tiles(
    records: Iterable[EmotionRecord], image_root: Path, per_label: int, seed: int = 0, split: str | None = None
) -> dict[str, list[Tile]]:
    """Up to `per_label` random pictures of every label, labels in alphabetical order.

    Raises:
        DataError: there is no record (of that split).
    """
    by_label: dict[str, list[Tile]] = {}
    splits: set[str] = set()
    for record in records:
        splits.add(record.split)
        if split is None or record.split == split:
            label = record.emotion or NO_LABEL
            by_label.setdefault(label, []).append(Tile(image_root / record.image, label, note_of(record)))
    if not by_label:
        wanted = f" of split '{split}' (there are: {', '.join(sorted(splits)) or 'none'})" if split else ""
        raise DataError(f"no records{wanted} to show")
    rng = random.Random(seed)
    return {label: rng.sample(tiles, min(per_label, len(tiles))) for label, tiles in sorted(by_label.items())}


def note_of(record: EmotionRecord) -> str:
    """What is known about a picture beside its label, in one line."""
    attributes = record.attributes
    parts = [attributes.facial_expression, attributes.human_action, attributes.scene, *(attributes.object or ())]
    for name, value in (("brightness", attributes.brightness), ("colour", attributes.colorfulness)):
        if value is not None:
            parts.append(f"{name} {_NUMBER_FORMAT.format(value)}")
    return ", ".join(part.strip() for part in parts if part)


def write_contact_sheet(tiles: dict[str, list[Tile]], path: Path, tile_px: int = 128) -> None:
    """Write the sheet as HTML, PNG or JPEG, by the ending of `path`; one row a label.

    The HTML page holds its pictures and shows the notes; the picture formats show labels only.

    Raises:
        DataError: another ending, or a picture that cannot be read.
    """
    ending = path.suffix.lower()
    if ending in (".html", ".htm"):
        content = _html_page(tiles, tile_px).encode("utf-8")
    elif ending in (".png", ".jpg", ".jpeg"):
        buffer = io.BytesIO()
        _sheet_image(tiles, tile_px).save(buffer, "PNG" if ending == ".png" else "JPEG", quality=80, optimize=True)
        content = buffer.getvalue()
    else:
        raise DataError(f"{path}: a contact sheet ends in .html, .png or .jpg")
    with atomic_writer(path, "wb") as file:
        file.write(content)


def _thumbnail(tile: Tile, tile_px: int) -> Image.Image:
    try:
        with Image.open(tile.image) as picture:
            picture.draft("RGB", (tile_px, tile_px))
            small = picture.convert("RGB")
    except OSError as error:
        raise DataError(f"{tile.image}: the picture cannot be read ({error})") from None
    small.thumbnail((tile_px, tile_px), Image.Resampling.BICUBIC)
    return small


def _sheet_image(tiles: dict[str, list[Tile]], tile_px: int) -> Image.Image:
    columns = max(len(row) for row in tiles.values())
    row_px = tile_px + _CAPTION_PX
    sheet = Image.new("RGB", (columns * tile_px, len(tiles) * row_px), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for row, (label, pictures) in enumerate(tiles.items()):
        pen.text((4, row * row_px + 2), label, fill=(20, 20, 20), font=font)
        for column, tile in enumerate(pictures):
            small = _thumbnail(tile, tile_px)
            left = column * tile_px + (tile_px - small.width) // 2
            sheet.paste(small, (left, row * row_px + _CAPTION_PX + (tile_px - small.height) // 2))
    return sheet


def _html_page(tiles: dict[str, list[Tile]], tile_px: int) -> str:
    sections = []
    for label, pictures in tiles.items():
        figures = []
        for tile in pictures:
            buffer = io.BytesIO()
            _thumbnail(tile, tile_px).save(buffer, "JPEG", quality=85)
            data = base64.b64encode(buffer.getvalue()).decode("ascii")
            name, note = html.escape(tile.image.name), html.escape(tile.note)
            source = f"data:image/jpeg;base64,{data}"
            figures.append(
                f'<figure><img src="{source}" alt="{name}" title="{name}"><figcaption>{note}</figcaption></figure>'
            )
        sections.append(f"<h2>{html.escape(label)}</h2>\n<div>{''.join(figures)}</div>")
    style = (
        "body{font-family:sans-serif;margin:1rem}div{display:flex;flex-wrap:wrap;gap:.5rem}"
        f"figure{{margin:0;width:{tile_px}px}}figcaption{{font-size:.7rem;color:#444}}"
    )
    body = "\n".join(sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Contact sheet</title>'
        f"<style>{style}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
