"""Contact sheets and their command.

- Records are found in a folder in EmoSet's layout, beside `records.jsonl`, and in a records file.
- A sheet has one row per label with the requested number of images, in the format of its suffix.
- The page escapes its texts.
- A broken image leaves a placeholder; if none can be read, nothing is written.
- Records without an emotion are sorted by several labels, action units, or valence and arousal.
- Unknown suffixes, empty selections and missing folders are refused by name.
- `emovit data draw` and `emovit data preview` work on the command line.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lavis_emovit.cli.data import app
from lavis_emovit.errors import DataError
from lavis_emovit.records import Attributes, EmotionRecord, write_records
from lavis_emovit.sample_set.write import write_sketch
from lavis_emovit.sources.contact_sheet import NO_LABEL, find_records, note_of, pick_tiles, rows_of, write_contact_sheet
from lavis_emovit.sources.readers.emoset import read_emoset


@pytest.fixture(scope="module")
def sketch_root(tmp_path_factory) -> Path:
    return write_sketch(tmp_path_factory.mktemp("sheet") / "set", images_per_class=10, seed=1, size_px=48)


def _record(name: str, emotion: str | None, **fields) -> EmotionRecord:
    label_set = "mikels8" if emotion else None
    return EmotionRecord(
        id=name, image=f"{name}.png", split="train", source="test", emotion=emotion, label_set=label_set, **fields
    )


def test_records_are_found_in_three_forms(sketch_root, tmp_path):
    records, images = find_records(sketch_root)
    assert (len(list(records)), images) == (80, sketch_root)
    file = tmp_path / "stored" / "records.jsonl"
    write_records(file, read_emoset(sketch_root))
    assert [len(list(find_records(place)[0])) for place in (file, file.parent)] == [80, 80]
    assert find_records(file, sketch_root)[1] == sketch_root
    assert find_records(file)[1] == find_records(file.parent)[1] == file.parent
    (file.parent / "drawn").mkdir()
    assert find_records(file.parent)[1] == file.parent / "drawn"


def test_sheet_has_a_row_for_each_label(sketch_root, tmp_path):
    records, images = find_records(sketch_root)
    tiles = pick_tiles(records, images, per_label=3)
    assert list(tiles) == sorted(tiles)
    assert [len(row.tiles) for row in tiles.values()] == [3] * 8
    assert all(tile.image.parent.name == label for label, row in tiles.items() for tile in row.tiles)
    write_contact_sheet(tiles, tmp_path / "sheet.png", tile_px=40)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (sheet.format, sheet.size) == ("PNG", (120, 8 * 56))
        # The first image of the second row is below the captions of two rows and one image.
        assert sheet.crop((0, 72, 40, 112)).getextrema() != ((255, 255),) * 3
    write_contact_sheet(tiles, tmp_path / "sheet.jpg", tile_px=40)
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
    write_contact_sheet(tiles, tmp_path / "sheet.html", tile_px=40)
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("<img ") == 24
    assert page.count("<h2>") == 8


def test_the_selection_depends_on_seed_and_split(sketch_root):
    def names(**options) -> list[str]:
        records, images = find_records(sketch_root)
        return [tile.image.name for row in pick_tiles(records, images, 4, **options).values() for tile in row.tiles]

    assert names(seed=1) == names(seed=1) != names(seed=2)
    assert len(names(split="val")) == 8


def test_notes_and_labels_are_escaped(tmp_path):
    attributes = Attributes(brightness=0.3, scene="<b>alley</b>", object=["Cat", "Dog"], human_action="boxing ")
    record = _record("one", None, attributes=attributes)
    assert note_of(record) == "boxing, <b>alley</b>, Cat, Dog, brightness 0.3"
    Image.new("RGB", (10, 20), (200, 0, 0)).save(tmp_path / "one.png")
    tiles = pick_tiles([record], tmp_path, 5)
    assert list(tiles) == [NO_LABEL]
    write_contact_sheet(tiles, tmp_path / "sheet.html")
    page = (tmp_path / "sheet.html").read_text()
    assert "&lt;b&gt;alley" in page
    assert "<b>" not in page


def test_broken_images_and_wrong_arguments(sketch_root, tmp_path):
    records, images = find_records(sketch_root)
    tiles = pick_tiles(records, images, 1)
    with pytest.raises(DataError, match=r"sheet\.pdf"):
        write_contact_sheet(tiles, tmp_path / "sheet.pdf")
    with pytest.raises(DataError, match=r"'dev' \(available: test, train, val\)"):
        pick_tiles(find_records(sketch_root)[0], images, 1, split="dev")
    with pytest.raises(DataError, match="nowhere"):
        find_records(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"neither records\.jsonl"):
        find_records(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"not an image")
    bad = pick_tiles([_record("bad", "awe")], tmp_path, 1)
    with pytest.raises(DataError, match=r"no image can be read.*`--images`.*bad\.png"):
        write_contact_sheet(bad, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
    Image.new("CMYK", (30, 10), (200, 0, 0, 0)).save(tmp_path / "good.jpg")
    good = _record("good", "awe").model_copy(update={"image": "good.jpg", "box": (2, 2, 20, 8)})
    for ending in ("png", "html"):
        both = pick_tiles([_record("bad", "awe"), good], tmp_path, 2)
        (broken,) = write_contact_sheet(both, tmp_path / f"sheet.{ending}")
        assert "bad.png: the image cannot be read" in broken
    assert "bad.png: the image cannot be read" in (tmp_path / "sheet.html").read_text()


def test_rows_without_emotions():
    assert rows_of(_record("a", None, labels=["fear", "pain"])) == ["fear", "pain"]
    assert rows_of(_record("a", None, valence=-0.5, arousal=0.2)) == ["valence -, arousal +"]
    assert rows_of(_record("a", None, action_units={12: 2.0, 1: 0.0})) == ["AU12"]
    assert rows_of(_record("a", None, action_units={1: 0.0})) == ["no action unit"]
    note = note_of(_record("a", "awe", votes={"awe": 0.75, "fear": 0.25}, valence=-0.5, caption="Hills. " * 30))
    assert note.startswith("V -0.50, votes: awe 75% fear 25%, “Hills.") and note.endswith("Hills. …”")


def test_the_commands_draw_and_preview(tmp_path):
    run = CliRunner().invoke
    drawn = run(app, ["draw", "--out", str(tmp_path / "set"), "--images-per-class", "10", "--size-px", "32"])
    assert drawn.exit_code == 0, drawn.output
    assert "80 images" in drawn.output
    shown = run(app, ["preview", str(tmp_path / "set"), "--out", str(tmp_path / "sheet.png"), "--per-label", "2"])
    assert shown.exit_code == 0, shown.output
    assert "16 images of 8 labels" in shown.output
    assert (tmp_path / "sheet.png").exists()
    refused = run(app, ["draw", "--out", str(tmp_path / "set"), "--images-per-class", "11"])
    assert isinstance(refused.exception, DataError)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_box_is_drawn_where_it_is_in_the_displayed_image(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (400, 200)).save(tmp_path / "a.png", exif=exif)
    width, height = (200, 400) if orientation in (6, 8) else (400, 200)
    box = (width * 0.25, height * 0.25, width * 0.75, height * 0.75)
    write_contact_sheet(pick_tiles([_record("a", "awe", box=box)], tmp_path, 1), tmp_path / "sheet.png", tile_px=100)
    sheet = Image.open(tmp_path / "sheet.png").convert("RGB")
    red, green, _ = (np.asarray(band, int) for band in sheet.split())
    rows, columns = np.nonzero(red - green > 40)
    # Tiles are 100 px, boxes half as wide and high as their image.
    assert (np.ptp(columns), np.ptp(rows)) == pytest.approx((width / 8, height / 8), abs=3)
