"""Tiny copies of published datasets in their published layouts, with the expected records.

A drawer writes the files below a folder and returns `Expected`: the number of records, and the fields of one record,
chosen by hand from the files that the drawer wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy
import pytest
import scipy.io
from PIL import Image

MIKELS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
SIX = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
PARROTT = ("anger", "fear", "joy", "love", "sadness", "surprise")
FER = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


class Expected(NamedTuple):
    """The expected result of reading."""

    total: int
    record_id: str
    fields: dict[str, Any]


def _image_file(path: Path, number: int, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, number * 53 % 256))
    image.putpixel((number % size[0], number % size[1]), (255, 255, 255))
    image.save(path)


def _text(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _emoset(root: Path) -> Expected:
    entries: dict[str, list[list[str]]] = {"train": [], "val": [], "test": []}
    for number in range(24):
        label = MIKELS[number % 8]
        image, annotation = f"image/{label}/{label}_{number:05d}.jpg", f"annotation/{label}/{label}_{number:05d}.json"
        _image_file(root / image, number)
        _text(root / annotation, [json.dumps({"emotion": label, "brightness": 0.5, "object": ["Cat"]})])
        entries[("train", "val", "test")[number // 8]].append([label, image, annotation])
    for split, items in entries.items():
        _text(root / f"{split}.json", [json.dumps(items)])
    return Expected(24, "emoset/anger_00009", {"emotion": "anger", "split": "val"})


def _by_folder(pattern: str, labels: tuple[str, ...], expected: Expected) -> Callable[[Path], Expected]:
    def draw(root: Path) -> Expected:
        for number in range(expected.total):
            split = ("train", "validation", "test")[number // len(labels) % 3]
            label = labels[number % len(labels)]
            place = pattern.format(label=label, split=split, thing=("cat", "hill")[number % 2], number=number)
            _image_file(root / place, number)
        return expected

    return draw


_webemo = _by_folder(
    "{split}/{label}/{number}.jpg", ("cheerfullness", "irritabilty", "rage", "zest"),
    Expected(12, "webemo/validation/cheerfullness/4", {
        "emotion": "cheerfulness", "label_set": "webemo25", "split": "val"}),
)  # fmt: skip
_fi = _by_folder("{label}/{number}.jpg", MIKELS, Expected(24, "fi/awe/2", {"emotion": "awe", "image": "awe/2.jpg"}))
_emotionroi = _by_folder(
    "images/{label}/{number}.jpg", SIX, Expected(18, "emotionroi/images/joy/3", {"emotion": "joy"})
)
_unbiasedemo = _by_folder(
    "images/{label}/{thing}/{number}.jpg", PARROTT,
    Expected(12, "unbiasedemo/images/love/hill/3", {"emotion": "love", "extra": {"object": "hill"}}),
)  # fmt: skip
_artphoto = _by_folder(
    "{label}_{number:04d}.jpg", ("amusement", "sad"), Expected(8, "artphoto/sad_0001", {"emotion": "sadness"})
)


def _emotion6(root: Path) -> Expected:
    lines = ["[image_filename] [valence] [arousal] [prob. anger] [prob. disgust] [prob. fear] [prob. joy] "
             "[prob. sadness] [prob. surprise] [prob. neutral]"]  # fmt: skip
    for number in range(12):
        name = f"{SIX[number % 6]}/{number}.jpg"
        _image_file(root / "images" / name, number)
        lines.append(f"{name}\t2.5\t9\t0.25\t0.5\t0\t0\t0\t0\t0.25")
    _text(root / "ground_truth.txt", lines)
    return Expected(12, "emotion6/images/joy/3", {
        # The class comes from the folder, not from the votes.
        "emotion": "joy", "votes": {"anger": 0.25, "disgust": 0.5, "neutral": 0.25}, "valence": -0.625, "arousal": 1.0,
    })  # fmt: skip


def _abstract(root: Path) -> Expected:
    lines = ["'','Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'"]
    for number in range(10):
        votes = [2] * 8
        votes[number % 8] += 4
        votes[3] += 4 if number == 9 else 0  # a tie of anger and contentment
        _image_file(root / f"abstract_{number:04d}.jpg", number)
        lines.append(f"'abstract_{number:04d}.jpg'," + ",".join(map(str, votes)))
    _text(root / "ABSTRACT_groundTruth.csv", lines)
    return Expected(9, "abstract/abstract_0003", {
        "emotion": "contentment", "votes": {name: (0.3 if name == "contentment" else 0.1) for name in MIKELS},
    })  # fmt: skip


def _artemis(root: Path) -> Expected:
    lines = ["art_style,painting,emotion,utterance,repetition"]
    for number in range(6):
        painting = f"painter_work-{number}"
        _image_file(root / "wikiart" / "Cubism" / f"{painting}.jpg", number)
        for emotion, words in (("awe", "The light, so wide"), ("awe", "Endless"), ("something else", "A riddle")):
            lines.append(f'Cubism,{painting},{emotion},"{words}",3')
    lines += ["Cubism,painter_work-0,fear,Dark,5", "Cubism,painter_work-0,fear,Cold,5", "Cubism,gone,awe,Nothing,1"]
    _text(root / "artemis_dataset_release_v0.csv", lines)
    return Expected(6, "artemis/wikiart/Cubism/painter_work-0", {
        "emotion": None, "votes": {"awe": 0.4, "something else": 0.2, "fear": 0.4}, "extra": {"art_style": "Cubism"},
        "utterances": [{"text": text, "emotion": emotion} for text, emotion in (
            ("The light, so wide", "awe"), ("Endless", "awe"), ("A riddle", "something else"), ("Dark", "fear"),
            ("Cold", "fear"))],
    })  # fmt: skip


def _oasis(root: Path) -> Expected:
    lines = [",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N"]
    for number in range(5):
        _image_file(root / "images" / f"Acorns {number}.jpg", number)
        # Some themes of the published table end in a space, and its lines in a carriage return.
        theme = f"Acorns {number}{' ' if number == 3 else ''}"
        lines.append(f"I{number},{theme},Object,Pixabay,{number + 1},0.95,102,4,1.6,101")
    (root / "OASIS.csv").write_bytes("\r".join(lines).encode() + b"\r")
    return Expected(5, "oasis/Acorns 0", {"valence": -1.0, "arousal": 0.0, "emotion": None})


def _bass(root: Path) -> Expected:
    lines = ["image,concept,keywords,valence_us,arousal_us,valence_sd_us,arousal_sd_us,valence_cn,arousal_cn"]
    for number in range(6):
        _image_file(root / "images" / f"thing{number}.png", number)
        lines.append(f'images/thing{number}.png,thing,"a, b",{number + 4},5,1,2,3,4')
    _text(root / "labels.csv", lines)
    return Expected(
        6, "bass/thing5", {"valence": 1.0, "arousal": 0.0, "extra": {"concept": "thing", "keywords": "a, b"}}
    )


def _emotic(root: Path) -> Expected:
    def person(number: int, several: bool) -> dict[str, Any]:
        chosen = numpy.array(["Happiness", "Doubt/Confusion"], dtype=object) if number == 0 else "Peace"
        rated = {"valence": 10.0, "arousal": 1.0, "dominance": 5.5}
        fields: dict[str, Any] = {"body_bbox": [2.0, 1.0, 18.0, 15.0], "gender": "Female", "age": "Adult"}
        if several:
            one = {"categories": "Anger"}
            return {**fields, "annotations_categories": one, "annotations_continuous": rated,
                    "combined_categories": chosen, "combined_continuous": rated}  # fmt: skip
        return {**fields, "annotations_categories": {"categories": chosen}, "annotations_continuous": rated}

    content: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        entries = []
        for number in range(2):
            name = f"{split}_{number}.jpg"
            _image_file(root / "emotic" / "mscoco" / "images" / name, number)
            people = [person(n, split != "train") for n in range(2)] if number == 0 else person(0, split != "train")
            entries.append({"filename": name, "folder": "mscoco/images", "person": people})
        content[split] = numpy.array(entries, dtype=object)
    (root / "Annotations").mkdir(parents=True)
    scipy.io.savemat(root / "Annotations" / "Annotations.mat", content)
    return Expected(9, "emotic/mscoco/images/test_0#0", {
        "labels": ["doubt/confusion", "happiness"], "label_set": "emotic26", "valence": 1.0, "arousal": -1.0,
        "dominance": 0.0, "box": [2.0, 1.0, 18.0, 15.0], "split": "test",
        "extra": {"gender": "Female", "age": "Adult", "person": 0},
    })  # fmt: skip


def _raf(name: str, classes: int, expected: dict[str, Any]) -> Callable[[Path], Expected]:
    def draw(root: Path) -> Expected:
        lines = []
        for number in range(2 * classes):
            part = ("train", "test")[number >= classes + 4]
            _image_file(root / "Image" / "aligned" / f"{part}_{number:04d}_aligned.jpg", number)
            lines.append(f"{part}_{number:04d}.jpg {number % classes + 1}")
        _text(root / "EmoLabel" / "list_patition_label.txt", lines)
        return Expected(2 * classes, f"{name}/train_0003_aligned", expected)

    return draw


def _affectnet(root: Path) -> Expected:
    head = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    for name, count in (("training", 12), ("validation", 9)):
        lines = [head]
        for number in range(count):
            valence = -2 if number >= 8 else 0.5
            shade = number + 100 * (name == "validation")
            _image_file(root / "Manually_Annotated_Images" / str(number) / f"{name}{number}.jpg", shade)
            lines.append(f"{number}/{name}{number}.jpg,1,2,9,9,1.0;2.0,{min(number, 10)},{valence},{valence}")
        _text(root / f"{name}.csv", lines)
    return Expected(16, "affectnet/validation7", {"emotion": "contempt", "valence": 0.5, "split": "test"})


def _fer2013(root: Path) -> Expected:
    lines = ["emotion,pixels,Usage"]
    for number in range(21):
        usage = ("Training", "PublicTest", "PrivateTest")[number // 7]
        lines.append(f"{number % 7},{' '.join(str((number * 7 + n) % 256) for n in range(48 * 48))},{usage}")
    _text(root / "fer2013.csv", lines)
    return Expected(21, "fer2013/fer2013_0000010", {"emotion": "happiness", "split": "val"})


def _ferplus(root: Path) -> Expected:
    lines = ["Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"]
    folders = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
    for number, usage in enumerate(["Training"] * 4 + ["PublicTest"] * 2 + ["PrivateTest"] * 2):
        _image_file(root / "data" / folders[usage] / f"fer{number:07d}.png", number)
        lines.append(f"{usage},fer{number:07d}.png,1,{6 if number else 0},0,0,2,0,0,0,{1 if number else 7},0")
    lines.append("Training,,0,0,0,0,0,0,0,0,0,10")
    # As in the published table: a name twice with the same votes, and a name again for an image without a face.
    lines += [lines[3], "PrivateTest,fer0000007.png,0,0,0,0,0,0,0,0,0,10"]
    _text(root / "fer2013new.csv", lines)
    return Expected(7, "ferplus/fer0000005", {
        "emotion": "happiness", "split": "val",
        "votes": {"neutral": pytest.approx(1 / 9), "happiness": pytest.approx(6 / 9), "anger": pytest.approx(2 / 9)},
    })  # fmt: skip


def _ck_plus(root: Path) -> Expected:
    for person in range(6):
        for sequence in range(1, 4):
            place, stem = f"S{person:03d}/{sequence:03d}", f"S{person:03d}_{sequence:03d}"
            for frame in range(1, 4):
                _image_file(root / "cohn-kanade-images" / place / f"{stem}_{frame:08d}.png", person * 9 + frame)
            # One sequence of each person has no label, like most of CK+.
            if sequence < 3:
                code = (person * 2 + sequence) % 7 + 1
                _text(root / "Emotion" / place / f"{stem}_00000003_emotion.txt", [f"   {code}.0000000e+00"])
                _text(root / "FACS" / place / f"{stem}_00000003_facs.txt",
                      ["   4.0000000e+00   0.0000000e+00", "   1.2000000e+01   3.0000000e+00"])  # fmt: skip
    return Expected(12, "ck_plus/S002_001", {
        "emotion": "sadness", "group": "S002", "action_units": {4: 1.0, 12: 3.0},
        "image": "cohn-kanade-images/S002/001/S002_001_00000003.png",
        "extra": {"frame": 3, "ungraded_action_units": "4"},
    })  # fmt: skip


def _disfa(root: Path) -> Expected:
    for person in ("SN001", "SN002", "SN003"):
        for unit in (1, 12):
            lines = [f"{frame},{frame % 6 if unit == 12 else 0}" for frame in range(1, 42)]
            _text(root / "ActionUnit_Labels" / person / f"{person}_au{unit}.txt", lines)
        for frame in range(1, 42, 20):
            _image_file(root / "frames" / person / f"{frame:05d}.jpg", frame + 50 * int(person[2:]))
    return Expected(9, "disfa/SN002/00021", {
        "action_units": {1: 0.0, 12: 3.0}, "group": "SN002", "image": "frames/SN002/00021.jpg", "extra": {"frame": 21},
    })  # fmt: skip


def _bp4d(root: Path) -> Expected:
    for number, person in enumerate(("F001", "F002", "M001")):
        _text(root / "AUCoding" / "AU_OCC" / f"{person}_T1.csv",
              ["0,1,2,6,12,27", *(f"{frame},1,0,1,9,1" for frame in range(3, 54))])  # fmt: skip
        _text(root / "AUCoding" / "AU_INT" / "AU06" / f"{person}_T1_AU06.csv",
              [f"{frame},{frame % 5}" for frame in range(3, 54)])  # fmt: skip
        for frame in range(1, 54):
            if frame % 25 == 3:
                _image_file(root / "2D+3D" / person / "T1" / f"{frame:03d}.jpg", frame + 60 * number)
    return Expected(9, "bp4d/M001_T1/00028", {
        # Unit 6 has an intensity, unit 12 is not coded in this frame, unit 27 is not one of the twelve.
        "action_units": {1: 1.0, 2: 0.0, 6: 3.0}, "group": "M001", "extra": {"frame": 28, "occurrence_only": "1,2"},
    })  # fmt: skip


def _aff_wild2(root: Path) -> Expected:
    files = {
        "EXPR_Classification_Challenge": (["Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"],
                                          lambda n: "4" if n % 2 else "-1"),
        "VA_Estimation_Challenge": (["valence,arousal"], lambda n: "0.5,-0.25" if n < 40 else "-5,-5"),
        "AU_Detection_Challenge": (["AU1,AU2,AU12"], lambda n: "1,-1,0"),
    }  # fmt: skip
    for task, (head, line) in files.items():
        videos = (("1-30-1280x720", "Train"), ("2-30_left", "Train"), ("2-30_right", "Validation"))
        for number, (video, split) in enumerate(videos):
            lines = head + [line(frame) for frame in range(1, 62)]
            _text(root / "annotations" / f"Third {task}" / f"{split}_Set" / f"{video}.txt", lines)
            for frame in (1, 31, 61):
                _image_file(root / "cropped_aligned" / video / f"{frame:05d}.jpg", frame + 70 * number)
    return Expected(9, "aff_wild2/2-30_left/00031", {
        "emotion": "happiness", "valence": 0.5, "arousal": -0.25, "action_units": {1: 1.0, 12: 0.0}, "group": "2-30",
        # The other person of this video is in the validation set.
        "split": "val",
    })  # fmt: skip


def _london_faces(root: Path) -> Expected:
    lines = ["image,emotion,identity,age,gender,ethnicity,split"]
    for number in range(10):
        label = ("neutral", "happy")[number % 2]
        _image_file(root / "images" / f"{number // 2:03d}_{label}.jpg", number)
        lines.append(f"images/{number // 2:03d}_{label}.jpg,{label},{number // 2:03d},24,female,white,train")
    _text(root / "labels.csv", lines)
    return Expected(10, "london_faces/003_happy", {"emotion": "happy", "group": "003"})


def _oxford_hic(root: Path) -> Expected:
    lines = ["image_id,caption,funny_score"]
    for number in range(4):
        _image_file(root / "images" / f"i{number}.jpg", number)
        lines += [f'i{number},"Me, on Monday",{number}.5', f"i{number},Again,12"]
    _text(root / "oxford_hic_data.csv", [*lines, "vanished,Gone,1"])
    return Expected(4, "oxford_hic/i2", {
        "utterances": [{"text": "Me, on Monday", "score": 2.5}, {"text": "Again", "score": 12.0}],
    })  # fmt: skip


EXPRESSIONS = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
HECO = ("Anger", "Disgust", "Excitement", "Fear", "Happiness", "Peace", "Sadness", "Surprise")


def _in_splits(name: str, labels: tuple[str, ...], splits: tuple[str, ...], first: str) -> Callable[[Path], Expected]:
    """Two images of each label in each split; `first` is the first label as records have it."""

    def draw(root: Path) -> Expected:
        for number in range(2 * len(labels) * len(splits)):
            label, split = labels[number // 2 % len(labels)], splits[number // (2 * len(labels))]
            _image_file(root / split / label / f"{number:04d}.png", number)
        fields = {"emotion": first, "split": "train", "image": f"train/{labels[0]}/0001.png"}
        return Expected(2 * len(labels) * len(splits), f"{name}/train/{labels[0]}/0001", fields)

    return draw


def _artelingo(root: Path) -> Expected:
    lines = ["art_style,painting,emotion,utterance,language,split"]
    for number in range(24):
        _image_file(root / "wikiart" / "Cubism" / f"work-{number}.jpg", number)
        lines.append(f'Cubism,work-{number},awe,"The light, so wide",english,train')
        lines.append(f"Cubism,work-{number},sadness,Leer,chinese,test")
    lines += ["Cubism,work-0,fear,Dark,english,test", "Cubism,gone,awe,Nothing,english,train"]
    _text(root / "raw" / "artelingo.csv", lines)
    return Expected(24, "artelingo/wikiart/Cubism/work-0", {
        "emotion": None, "votes": {"awe": 0.5, "fear": 0.5}, "extra": {"art_style": "Cubism"},
        "utterances": [{"text": "The light, so wide", "emotion": "awe"}, {"text": "Dark", "emotion": "fear"}],
    })  # fmt: skip


def _emoart(root: Path) -> Expected:
    entries = []
    for number in range(24):
        _image_file(root / "Images" / "Gongbi" / f"{number:03d}.jpg", number)
        entries.append({
            "request_id": f"Gongbi_request-{number}", "image_path": f"Images\\Gongbi\\{number:03d}.jpg",
            "description": {
                "first_section": {"description": f"Lotus {number} on silk"},
                "second_section": {"visual_attributes": {"color": "pale"}, "emotional_impact": "calm"},
                "third_section": {
                    "dominant_emotion": "Calm" if number % 2 else "Sad", "emotional_valence": "Positive",
                    "emotional_arousal_level": "Low",
                },
            },
        })  # fmt: skip
    entries.append({**entries[0], "request_id": "gone", "image_path": "Images\\Gongbi\\gone.jpg"})
    _text(root / "Annotation.json", [json.dumps(entries)])
    return Expected(24, "emoart/Gongbi_request-3", {
        "emotion": "calm", "caption": "Lotus 3 on silk", "image": "Images/Gongbi/003.jpg",
        "extra": {"description.third_section.emotional_valence": "Positive",
                  "description.third_section.emotional_arousal_level": "Low"},
    })  # fmt: skip


def _mvei(root: Path) -> Expected:
    entries = []
    for number in range(4):
        image = f"awe/awe_{number:05d}.jpg"
        _image_file(root / "images" / image, number)
        statement = {"statement": f"Viewers feel awe {number}.", "label": ("correct", "incorrect")[number % 2],
                     "class": "sentiment polarity", "subclass": "none"}  # fmt: skip
        other = {"statement": "Upon viewing the image, a monk feels calm.", "label": "correct",
                 "class": "perception subjectivity", "subclass": "role"}  # fmt: skip
        entries.append({"image_id": image, "ov_emotion": ["awe", "calm", "awe"], "statement_list": [statement, other]})
    _text(root / "MVEI_metadata.json", [json.dumps(entries)])
    return Expected(4, "mvei/awe/awe_00001", {
        "words": ["awe", "calm"], "split": "test", "emotion": None,
        "statements": [
            {"text": "Viewers feel awe 1.", "is_correct": False, "categories": {"class": "sentiment polarity"},
             "id": None},
            {"text": "Upon viewing the image, a monk feels calm.", "is_correct": True,
             "categories": {"class": "perception subjectivity", "subclass": "role"}, "id": None},
        ],
    })  # fmt: skip


def _eemo_bench(root: Path) -> Expected:
    entries = []
    for number in range(1, 4):
        _image_file(root / "images" / f"{number}.jpg", number)
        entries.append({
            "image_name": f"{number}.jpg", "category": "Animal",
            "emotion_list": [["joy", 39], ["neutral", 37], ["surprise", 33]],
            "Valence": [6.0, 0.8, 1.0], "Arousal": [4.0, 1.1, 1.7], "Dominance": [9.0, 0.6, 1.4],
            "judge_Q": "Is it a positive emotion?", "judge_A": {"A": "No", "B": "Yes"}, "judge_answer": "B",
            "choose_Q": "Which is not evoked?", "choose_A": {"A": "Joy", "B": "Fear", "C": "Surprise"},
            "choose_answer": "B", **({"open_ended_Q": "Why?"} if number == 1 else {}),
        })  # fmt: skip
    _text(root / "Ebench_1_data(jac_en_check).json", [json.dumps(entries)])
    return Expected(3, "eemo_bench/2", {
        "ranking": ["joy", "neutral", "surprise"], "valence": 0.25, "arousal": -0.25, "dominance": 1.0,
        "questions": [
            {"question": "Is it a positive emotion?", "answers": ["Yes"], "options": ["No", "Yes"],
             "categories": {"question_type": "Yes-or-No"}, "id": "judge"},
            {"question": "Which is not evoked?", "answers": ["Fear"], "options": ["Joy", "Fear", "Surprise"],
             "categories": {"question_type": "What/How"}, "id": "choose"},
        ],
        "extra": {"category": "Animal"},
    })  # fmt: skip


def _eemo_bench_pair(root: Path) -> Expected:
    entries: list[dict[str, Any]] = []
    for number in range(1, 4):
        _image_file(root / "images" / f"{number}.jpg", number, (20, 10 * number))
    for number, (first, second) in enumerate(((1, 2), (1, 2), (2, 3))):
        label = "Ranking:{'Joy': 60}     category:Animal     Valence:7.44  Arousal:6.67  Dominance:6.56"
        entries.append({
            "id": number, "image1_url": f"{first}.jpg", "image1": f"images\\{first}.jpg", "image1_label": label,
            "image2_url": f"{second}.jpg", "image2": f"images\\{second}.jpg", "image2_label": label,
            "question": f"Which image is happier, {number}?",
            "options": "{'A': 'The first picture.', 'B': 'The second picture.'}", "correct_answer": "B",
            "question_type": "What/How", "perceptual_dimension": "Valence perception",
            "question_concern": "Differences comparison",
        })  # fmt: skip
    opened = {"id": 3, "question": "Why?", "question_type": "Open_ended", "correct_answer": "Because."}
    entries.append({**{key: entries[0][key] for key in ("image1_url", "image2_url")}, **opened})
    _text(root / "EEmo-Bench(pair).json", [json.dumps(entries)])
    categories = {"question_type": "What/How", "perceptual_dimension": "Valence perception",
                  "question_concern": "Differences comparison"}  # fmt: skip
    return Expected(2, "eemo_bench_pair/1_2", {
        "pair": [[0, 0, 20, 10], [28, 0, 48, 20]],
        "questions": [
            {"question": f"Which image is happier, {number}?", "answers": ["The second picture."],
             "options": ["The first picture.", "The second picture."], "categories": categories, "id": str(number)}
            for number in (0, 1)
        ],
    })  # fmt: skip


def _faba(kind: str, question: str, answer: str = "Answer.", **fields: Any) -> Callable[[Path], Expected]:
    def draw(root: Path) -> Expected:
        for split, count in (("train", 4), ("eval", 2)):
            items = []
            for number in range(count):
                image = f"FABAInstruct/{split}/images/AffectNet/{number}.jpg"
                _image_file(root / image, number + 10 * count)
                items.append({
                    "source": "AffectNet", "image": image, "id": f"AffectNet/{number}",
                    "landmark": f"FABAInstruct/{split}/landmarks/AffectNet/{number}.npy",
                    "conversations": [{"from": "human", "value": f"{question}\n<image>"},
                                      {"from": "gpt", "value": f"{answer} Face {number}."}],
                })  # fmt: skip
            _text(root / "FABAInstruct" / split / f"{split}_{kind}_anno.json", [json.dumps(items)])
        return Expected(6, f"faba_{kind}/FABAInstruct/eval/images/AffectNet/1", {
            "split": "test", "instructions": [{"kind": "conversation", "question": question,
                                               "answer": f"{answer} Face 1.", "provenance": f"import:faba_{kind}"}],
            **fields,
        })  # fmt: skip

    return draw


def _pope(root: Path) -> Expected:
    for number in (1, 2):
        _image_file(root / "val2014" / f"COCO_{number}.jpg", number)
    for setting in ("random", "popular", "adversarial"):
        lines = [
            json.dumps({"question_id": n, "image": f"COCO_{1 + n % 2}.jpg", "text": f"Is there a dog in {n}?",
                        "label": ("yes", "no")[n % 2]})
            for n in range(1, 5)
        ]  # fmt: skip
        _text(root / f"coco_pope_{setting}.json", lines)
    return Expected(2, "pope/COCO_1", {"split": "test", "questions": [
        {"question": f"Is there a dog in {n}?", "answers": ["yes"], "options": ["yes", "no"],
         "categories": {"setting": setting}, "id": f"{setting}-{n}"}
        for setting in ("random", "popular", "adversarial") for n in (2, 4)
    ]})  # fmt: skip


def _mme(root: Path) -> Expected:
    text = ["Is there a cat? Please answer yes or no.\tYes", "Is there a cow? Please answer yes or no.\tNo"]
    for category in ("existence", "posters"):
        folders = (
            (category, category)
            if category == "existence"
            else (f"{category}/images", f"{category}/questions_answers_YN")
        )
        for number in (1, 2):
            _image_file(root / folders[0] / f"{number}.jpg", number)
            _text(root / folders[1] / f"{number}.txt", text)
    return Expected(4, "mme/posters/2", {"image": "posters/images/2.jpg", "questions": [
        {"question": f"Is there a {animal}? Please answer yes or no.", "answers": [answer], "options": ["yes", "no"],
         "categories": {"category": "posters"}, "id": None}
        for animal, answer in (("cat", "yes"), ("cow", "no"))
    ]})  # fmt: skip


def _scienceqa(root: Path) -> Expected:
    problems = {}
    for number in range(1, 5):
        split = "test"
        _image_file(root / split / str(number) / "image.png", number)
        problems[str(number)] = {
            "question": "Which season is it?", "choices": ["summer", "winter "], "answer": 1, "hint": "Snow lies.",
            "image": "image.png", "task": "closed choice", "grade": "grade2", "subject": "natural science",
            "topic": "earth-science", "category": "Seasons", "skill": "Name", "lecture": "", "solution": "",
            "split": split,
        }  # fmt: skip
    problems["7"] = {**problems["1"], "image": None}
    _text(root / "problems.json", [json.dumps(problems)])
    return Expected(4, "scienceqa/test/2", {"split": "test", "questions": [
        {"question": "Snow lies. Which season is it?", "answers": ["winter"], "options": ["summer", "winter"],
         "categories": {"subject": "natural science", "topic": "earth-science", "grade": "grade2"}, "id": "2"},
    ]})  # fmt: skip


def _vqav2(root: Path) -> Expected:
    answers = ["2"] * 6 + ["3"] * 4
    entries = []
    for number in range(4):
        image = f"val2014/COCO_{number // 2}.jpg"
        _image_file(root / "images" / image, number)
        entries.append({"question_id": number, "question": "How many dogs?", "answer": answers, "image": image,
                        "dataset": "vqa"})  # fmt: skip
    _text(root / "annotations" / "vqa_val.json", [json.dumps(entries)])
    return Expected(2, "vqav2/val2014/COCO_1", {"questions": [
        {"question": "How many dogs?", "answers": answers, "options": None, "categories": None, "id": str(number)}
        for number in (2, 3)
    ]})  # fmt: skip


def _emoverse(root: Path) -> Expected:
    (root / "data").mkdir(parents=True)
    features = datasets.Features({
        "image": datasets.Image(), "description": datasets.Value("string"),
        "emotion_category": datasets.Value("string"),
        "confidence_score": datasets.Value("int32"), "background": datasets.Value("string"),
        "attribute": datasets.Value("string"), "subject": datasets.Value("string"),
        "DES_representation": datasets.List(datasets.Value("float32")),
        "bounding_box": datasets.List(datasets.Value("int32")), "source": datasets.Value("string"),
    })  # fmt: skip
    for name, numbers in (("train-00000-of-00002", range(10)), ("train-00001-of-00002", range(10, 20)),
                          ("test-00000-of-00001", range(20, 24))):  # fmt: skip
        rows: dict[str, list[Any]] = {
            "image": [Image.new("RGB", (20, 16), (number * 9, 0, 0)) for number in numbers],
            "description": [f"Hikers on ridge {number}" for number in numbers],
            "emotion_category": [MIKELS[number % 8].capitalize() for number in numbers],
            "confidence_score": [8 for _ in numbers], "background": ["a ridge" for _ in numbers],
            "attribute": ["tired" for _ in numbers], "subject": ["hikers" for _ in numbers],
            "DES_representation": [[0.5] * 4 for _ in numbers], "bounding_box": [[1, 2, 9, 12] for _ in numbers],
            "source": ["web" for _ in numbers],
        }  # fmt: skip
        datasets.Dataset.from_dict(rows, features=features).to_parquet(root / "data" / f"{name}.parquet")
    return Expected(24, "emoverse/test_0000001", {
        "emotion": MIKELS[21 % 8], "caption": "Hikers on ridge 21", "split": "test",
        "extra": {"confidence_score": "8", "background": "a ridge", "attribute": "tired", "subject": "hikers",
                  "bounding_box": "[1, 2, 9, 12]", "source": "web"},
    })  # fmt: skip


DRAWERS: dict[str, Callable[[Path], Expected]] = {
    "emoset": _emoset, "webemo": _webemo, "fi": _fi, "emotion6": _emotion6, "emotionroi": _emotionroi,
    "unbiasedemo": _unbiasedemo, "abstract": _abstract, "artphoto": _artphoto, "artemis": _artemis, "oasis": _oasis,
    "bass": _bass, "emotic": _emotic, "affectnet": _affectnet, "fer2013": _fer2013, "ferplus": _ferplus,
    "ck_plus": _ck_plus, "disfa": _disfa, "bp4d": _bp4d, "aff_wild2": _aff_wild2, "london_faces": _london_faces,
    "oxford_hic": _oxford_hic,
    "caer_s": _in_splits("caer_s", EXPRESSIONS, ("train", "test"), "anger"),
    "heco": _in_splits("heco", HECO, ("train", "val", "test"), "anger"),
    "emo8": _in_splits("emo8", MIKELS, ("train", "val", "test"), "amusement"),
    "ube": _in_splits("ube", PARROTT, ("train", "val", "test"), "anger"),
    "artelingo": _artelingo, "emoart": _emoart, "emoverse": _emoverse, "mvei": _mvei, "eemo_bench": _eemo_bench,
    "eemo_bench_pair": _eemo_bench_pair, "faba_emotion": _faba("emotion", "What is the emotion of this face?"),
    "pope": _pope, "mme": _mme, "scienceqa": _scienceqa, "vqav2": _vqav2,
    "faba_au": _faba(
        "au", "Which action units are there?", "The lip corner puller (AU12) and AU6 are active, AU4 is not.",
        action_units={unit: float(unit in (6, 12)) for unit in (1, 2, 4, 5, 6, 10, 12, 17, 24, 25, 26, 43)},
        extra={"units_by": "gpt-4v", "units_scale": "presence", "occurrence_only": "1,2,4,5,6,10,12,17,24,25,26,43"},
    ),
    "raf_db": _raf("raf_db", 7, {"emotion": "happiness", "split": "train"}),
    "raf_db_compound": _raf("raf_db_compound", 11, {"emotion": "sadly angry", "split": "train"}),
}  # fmt: skip
