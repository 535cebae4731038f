"""Records with everything that an export must carry, and their images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from lavis_emovit.records import EmotionRecord, Instruction, write_records

sys.path.insert(0, str(Path(__file__).parent))

MORE = {
    "valence": 0.25, "arousal": -0.5, "votes": {"awe": 0.25, "fear": 0.75}, "action_units": {12: 1.0, 4: 0.0},
    "box": (0.0, 1.0, 5.0, 6.0), "words": ["calm", "moved"],
        "questions": [{"question": "?", "answers": ["a"], "options": ["a", "b"], "categories": {"type": "What"}}],
        "statements": [{"text": "It evokes awe.", "is_correct": True}], "ranking": ["awe", "fear"],
        "caption": 'A "hill"\nby the sea', "attributes": {"scene": "park", "object": ["tree"]},
    "utterances": [{"text": "Wow", "emotion": "awe", "score": 2.0}], "extra": {"n": 1, "on": True, "word": "é"},
}  # fmt: skip
PATHS = ["a b/Ä?.jpg", "a_b/__.jpg", "con/x.jpg", "deep/er/X.JPG", "deep/er/x.jpg", "plain"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory, make_records):
    """Folder with records.jsonl and its images: 18 records in three splits, with 1 to 3 instructions."""
    root = tmp_path_factory.mktemp("records")
    records = []
    for number, record in enumerate(make_records(root, 18)):
        changes = {"split": ("train", "val", "test")[number // 6]}
        changes |= MORE if number % 4 == 0 else {}
        changes |= {"emotion": None, "label_set": None} if number == 5 else {}
        changes |= {"group": f"person {number // 3}"} if number % 2 else {}
        if number < len(PATHS):
            (root / PATHS[number]).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (number * 40, 9, 9)).save(root / PATHS[number], "JPEG")
            changes["image"] = PATHS[number]
        if number == 7:
            # Another person in the image of the record before.
            changes |= {"image": records[6].image, "box": (1.0, 1.0, 9.0, 9.0)}
        values = record.model_dump() | changes
        records.append(EmotionRecord(**values))
    spaced = Instruction(kind="description", question=" What\n is it? ", answer="\tA hill. ", provenance="human")
    records[8] = records[8].model_copy(update={"instructions": [*records[8].instructions, spaced]})
    write_records(root / "records.jsonl", records)
    return root


@pytest.fixture(scope="session")
def odd(tmp_path_factory):
    """Folder with records of images that decoders read differently: red above blue, after turns and on white."""
    root = tmp_path_factory.mktemp("odd")
    colours = Image.new("RGB", (28, 28), "red")
    colours.paste("blue", (0, 14, 28, 28))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    colours.rotate(90).save(root / "turned.jpg", exif=turned, quality=95)
    mask = Image.new("L", (28, 28), 255)
    colours.putalpha(mask)
    colours.save(root / "opaque.png")
    mask.paste(0, (0, 0, 14, 28))
    colours.putalpha(mask)
    colours.save(root / "transparent.png")
    Image.new("I;16", (28, 28), 0x4000).save(root / "deep.png")
    colours.convert("CMYK").save(root / "cmyk.jpg", quality=95)
    one = {"kind": "reasoning", "question": "Why?", "answer": "So.", "provenance": "human"}
    write_records(
        root / "records.jsonl",
        [
            EmotionRecord(id=f"odd/{path.stem}", image=path.name, split="test", source="odd", instructions=[one])
            for path in sorted(root.glob("*.*g"))
        ],
    )
    return root
