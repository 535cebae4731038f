"""Tiny copies of published datasets of clips; see `published_copies.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published_copies import EXPRESSIONS, SIX, Expected, _image_file, _text

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clips"))
COMPOUND = ("Fearfully", "Happily", "Sadly", "Disgustedly", "Angrily")


def _frames(folder: Path, number: int, name: str = "{:05d}.jpg", numbers: tuple[int, ...] = (1, 2, 3)) -> None:
    for frame in numbers:
        _image_file(folder / name.format(frame), 7 * number + frame)


def _video(path: Path, number: int) -> None:
    """A video that differs from those of other numbers."""
    pytest.importorskip("av", reason="the extra `clips` is not installed")
    from video_files import write_video

    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [0.0, 0.2 + number / 100, 0.6], codec="mpeg4", size=(32, 32))


def _clip(**fields: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("start_s", "end_s", "frames", "rate_fps", "times_s", "key_s"))
    return {**empty, **fields}


def _dfew(root: Path) -> Expected:
    for fold in range(1, 6):
        names = [fold + 5 * row for row in range(3)]
        lines = ["video_name,label", *(f"{name},{name % 7 + 1}" for name in names)]
        _text(root / "EmoLabel_DataSplit" / "test(single-labeled)" / f"set_{fold}.csv", lines)
        for name in names:
            # A frame is missing in one clip.
            numbers = (1, 2, 4) if name == 7 else (1, 2, 3)
            _frames(root / "Clip" / "jpg_256" / f"{name:05d}", name, f"{name:05d}_{{:05d}}.jpg", numbers)
    folder = "Clip/jpg_256/00007/00007"
    return Expected(15, "dfew/00007", {
        "emotion": "happiness", "extra": {"fold": 2}, "image": f"{folder}_00002.jpg",
        "clip": _clip(frames=[f"{folder}_{n:05d}.jpg" for n in (1, 2, 4)], times_s=[0.0, 0.04, 0.12]),
    })  # fmt: skip


def _ferv39k(root: Path) -> Expected:
    for split, scenes in (("train", ("Action", "Crime")), ("test", ("School",))):
        lines = []
        for number, label in enumerate(EXPRESSIONS):
            for scene in scenes:
                _frames(root / "2_ClipsforFaceCrop" / scene / label / "0010", number + 9 * len(scene), "{}.jpg")
                lines.append(f"{scene}/{label}/0010 {label}")
        _text(root / "4_setups" / "All_scenes" / f"{split}_All.csv", lines)
    folder = "2_ClipsforFaceCrop/Crime/Sad/0010"
    return Expected(21, f"ferv39k/{folder}", {
        "emotion": "sadness", "split": "train", "image": f"{folder}/2.jpg",
        "clip": _clip(frames=[f"{folder}/{n}.jpg" for n in (1, 2, 3)], rate_fps=25.0),
    })  # fmt: skip


def _mafw(root: Path) -> Expected:
    labels = ("anger", "anxiety", "helplessness")
    for fold in range(1, 6):
        lines = []
        for row, label in enumerate(labels):
            name = f"{fold + 5 * row:05d}.mp4"
            _video(root / "data" / "clips" / name, fold + 5 * row)
            lines.append(f"{name} {label}")
        _text(root / "Train & Test Set" / "single" / "no_caption" / f"set_{fold}" / "test.txt", lines)
    return Expected(15, "mafw/00008", {
        "emotion": "anxiety", "label_set": "mafw11", "extra": {"fold": 3}, "image": "data/clips/00008.mp4",
        "clip": _clip(),
    })  # fmt: skip


def _mafw_compound(root: Path) -> Expected:
    lines = []
    for number in range(20):
        name = f"{20000 + number}.mp4"
        _video(root / "clips" / name, number)
        labels = ("anger_disgust_anxiety", "happiness_surprise")[number % 2]
        lines.append(f'{name}\t{labels}\t一个女人\tA woman says "no", number {number}.')
    _text(root / "caption-label" / "multi_label.txt", lines)
    return Expected(20, "mafw_compound/20002", {
        "emotion": "anger and anxiety and disgust", "caption": 'A woman says "no", number 2.', "clip": _clip(),
        "label_set": "labels: anger and anxiety and disgust, happiness and surprise",
    })  # fmt: skip


def _caer(root: Path) -> Expected:
    for place, split in enumerate(("train", "validation", "test")):
        for number, label in enumerate(EXPRESSIONS):
            _video(root / split / label / "0001.avi", 8 * place + number)
    return Expected(21, "caer/validation/Happy/0001", {"emotion": "happiness", "split": "val", "clip": _clip()})


def _vce(root: Path) -> Expected:
    names = ("Anger", "Awe (or Wonder)", "Fear")
    every = (
        "Admiration;Adoration;Aesthetic Appreciation;Amusement;Anger;Anxiety;Awe (or Wonder);Awkwardness;Boredom;"
        "Calmness;Confusion;Craving;Disgust;Empathic Pain;Entrancement;Excitement;Fear;Horror;Interest;Joy;Nostalgia;"
        "Relief;Romance;Sadness;Satisfaction;Sexual Desire;Surprise"
    ).split(";")
    for split, numbers in (("train", range(12)), ("test", range(12, 18))):
        entries = {}
        for number in numbers:
            name, rated = f"{number:05d}", dict.fromkeys(every, 0.0)
            rated |= {names[number % 3]: 0.6, "Joy": 0.2}
            if number == 3:
                rated["Admiration"] = 0.6  # as strong as anger, and before it in the alphabet
            _video(root / "videos" / f"{name}.mp4", number)
            entries[name] = {
                "emotions": rated,
                "file": f"videos/{name}.mp4",
                "topK": [names[number % 3], "Joy", "Fear"],
            }
        _text(root / f"{split}_labels.json", [json.dumps(entries)])
    return Expected(18, "vce/00013", {
        "emotion": "awe", "label_set": "cowen27", "split": "test", "clip": _clip(),
        "votes": {"awe": pytest.approx(0.75), "joy": pytest.approx(0.25)},
    })  # fmt: skip


def _ve8(root: Path) -> Expected:
    for split, count, code in (("train", 6, " 3"), ("test", 2, "")):
        lines = []
        for number in range(count):
            for label in ("Anger", "Trust"):
                name = f"{label}/Park,PA.{split}{number}"
                _video(root / f"{name}.mp4", number + 9 * (label == "Trust") + 20 * (split == "test"))
                lines.append(f"{name}{code}")
        _text(root / f"{split}list01.txt", lines)
    return Expected(16, "ve8/Trust/Park,PA.test1", {"emotion": "trust", "split": "test", "clip": _clip()})


def _yf_e6(root: Path) -> Expected:
    for place, split in enumerate(("train", "test")):
        lines = []
        for number, label in enumerate(SIX, start=1):
            _video(root / label / f"{1000 + place}.mp4", 7 * place + number)
            lines.append(f"{label}/{1000 + place} {number}")
        _text(root / f"{split}list01.txt", lines)
    return Expected(12, "yf_e6/joy/1001", {"emotion": "joy", "label_set": "emotion6", "split": "test", "clip": _clip()})


def _meld(root: Path) -> Expected:
    head = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
    places = (("train/train", "train/train_splits"), ("dev", "dev/dev_splits_complete"),
              ("test", "test/output_repeated_splits_test"))  # fmt: skip
    for place, (table, folder) in enumerate(places):
        lines = [head]
        for number, emotion in enumerate(("neutral", "joy", "anger", "fear")):
            lines.append(f'{number},"Oh, no.",Joey,{emotion},neutral,{number // 2},{number % 2},4,7,"00:20:57,256",x')
            _video(root / folder / f"dia{number // 2}_utt{number % 2}.mp4", 5 * place + number)
        lines.append('9,"No video.",Joey,joy,positive,9,0,4,7,"0:00:01,000",x')
        _text(root / f"{table}_sent_emo.csv", lines)
    folder = places[1][1]
    return Expected(12, f"meld/{folder}/dia1_utt0", {
        "emotion": "anger", "split": "val", "group": f"{folder}/dia1", "image": f"{folder}/dia1_utt0.mp4",
        "extra": {"Utterance": "Oh, no.", "Speaker": "Joey", "Sentiment": "neutral"}, "clip": _clip(),
    })  # fmt: skip


def _c_expr_db(root: Path) -> Expected:
    for fold in range(5):
        lines = []
        for number, first in enumerate(COMPOUND):
            name = f"{first}-Surprised/{fold:02d}_{first}-Surprised_{number}"
            _video(root / "trimmed_videos" / f"{name}.mp4", 6 * fold + number)
            lines.append(f"{name},{number}")
        _text(root / "folds" / f"split-{fold}" / "test.txt", lines)
    name = "Sadly-Surprised/03_Sadly-Surprised_2"
    return Expected(25, "c_expr_db/03_Sadly-Surprised_2", {
        "emotion": "sadly surprised", "group": "03", "extra": {"fold": 3}, "image": f"trimmed_videos/{name}.mp4",
    })  # fmt: skip


CLIP_DRAWERS: dict[str, Callable[[Path], Expected]] = {
    "dfew": _dfew, "ferv39k": _ferv39k, "mafw": _mafw, "mafw_compound": _mafw_compound, "caer": _caer, "vce": _vce,
    "ve8": _ve8, "yf_e6": _yf_e6, "meld": _meld, "c_expr_db": _c_expr_db,
}  # fmt: skip
