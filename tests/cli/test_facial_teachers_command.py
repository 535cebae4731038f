"""`emovit facial teachers`, `annotate` and `detect`, with teachers that are a program of the tests.

Properties:
- combined expressions and their uncertainty go into the records, existing labels stay and are compared;
- every image without an expression is counted by its reason, and listed; a crash loses nothing else;
- a second run requests only what failed;
- SEKE takes the expression as known from a program, or the teachers as annotators, from answers that are there;
- Ray writes the same files byte for byte, although a worker is killed, which is counted;
- tables with the reliability of teachers are fitted from labels and answers, and decide instead of the mean;
- detection writes a record for each face, and crops whose records name the whole image;
- a signal ends the command at once, although a teacher does not answer; what was answered is kept;
- an unknown teacher, one that is not installed, and unusable folders are one error that says what to do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import fake_teacher as fake
import pytest
from fake_fixtures import PROGRAM, make_image
from PIL import Image

from lavis_emovit import records
from lavis_emovit.emotion import facial
from lavis_emovit.emotion.labels_faces import EXPRESSIONS7
from lavis_emovit.records import EmotionRecord, read_records, write_records
from lavis_emovit.teachers import catalogue
from lavis_emovit.teachers.answers import AnswerFile, View

PACKAGED = Path(facial.__file__).with_name("facial_priors.json")
BOTH = ("--teacher", "happy-fake", "--teacher", "sad-fake")


@pytest.fixture
def photos(tmp_path):
    """Function (name=code, ...) -> a folder with these images."""

    def make(**codes):
        folder = tmp_path / "photos"
        folder.mkdir()
        for name, code in codes.items():
            make_image(code, (200, 160)).save(folder / f"{name}.png")
        return folder

    return make


def read(path):
    return {record.id: record for record in read_records(path)}


def test_teachers_annotate_a_folder(emovit, tmp_path, photos, two_fakes, requests_of):
    folder = photos(
        a=fake.ONE, b=fake.NONE, c=fake.TWO, d=fake.CRASH, e=fake.ERROR, f=fake.TINY, g=fake.PROFILE, h=fake.BLIND
    )
    (folder / "i.png").write_bytes(b"no image")
    code, output, errors = emovit("facial", "annotate", folder, *BOTH, "--out", tmp_path / "out")
    assert code == 0, errors
    assert (
        "happy-fake 1.0: ok 1, no_face 1, several_faces 1, crash 1, error 1, too_small 1, profile 1, no_expression 1, "
        "unreadable 1; started again 2 times" in output
    )
    assert "no face that can be judged: 8" in output and "annotated: 1" in output
    records = read(tmp_path / "out" / "records.jsonl")
    assert len(records) == 9 and sum(record.emotion is not None for record in records.values()) == 1
    record = records["photos/a.png"]
    # Happy 0.8 and neutral 0.2; sad 0.5 and neutral 0.3, made to the sum 1.
    assert record.votes == pytest.approx({"happiness": 0.4, "neutral": 0.2875, "sadness": 0.3125})
    assert (record.emotion, record.label_set) == ("happiness", "expressions7")
    assert record.extra["expression_by"] == "happy-fake 1.0 + sad-fake 1.0"
    assert 0 < record.extra["expression_mutual_information"] < record.extra["expression_entropy"] < 1
    summary = json.loads((tmp_path / "out" / "records.summary.json").read_text())
    crashed = "photos/d.png: the process ended with code 1: MemoryError: no more memory"
    assert summary["examples"]["happy-fake 1.0: crash"] == [crashed]
    # Again, into the same folder: only what failed is requested.
    before = len(requests_of("happy"))
    assert emovit("facial", "annotate", folder, *BOTH, "--out", tmp_path / "out")[0] == 0
    assert [line.split()[0] for line in requests_of("happy")[before:]] == [str(fake.CRASH)] * 2 + [str(fake.ERROR)]
    assert read(tmp_path / "out" / "records.jsonl") == records
    # A partial line of a killed run is removed.
    answers = tmp_path / "out" / "answers.jsonl"
    answers.write_bytes(answers.read_bytes()[:-5])
    assert emovit("facial", "annotate", folder, *BOTH, "--out", tmp_path / "out")[0] == 0
    assert read(tmp_path / "out" / "records.jsonl") == records


def test_labels_stay_and_boxes_choose_the_person(emovit, tmp_path, photos, two_fakes, requests_of):
    folder = photos(a=fake.ONE, two=fake.TWO)
    common = {"split": "train", "source": "s"}
    faces = {"label_set": "neutral_happy2", **common}
    write_records(
        tmp_path / "faces.jsonl",
        [
            EmotionRecord(id="right", image="a.png", emotion="happy", **faces),
            EmotionRecord(id="wrong", image="a.png", emotion="neutral", **faces),
            EmotionRecord(id="scene", image="a.png", label_set="mikels8", **common),
            EmotionRecord(id="mood", image="a.png", label_set="labels:calm, tense", emotion="calm", **common),
            EmotionRecord(id="left", image="two.png", box=(0, 0, 60, 160), **common),
            EmotionRecord(id="outside", image="two.png", box=(400, 0, 500, 80), **common),
        ],
    )
    arguments = ("facial", "annotate", tmp_path / "faces.jsonl", "--images", folder, "--teacher", "happy-fake")
    code, output, errors = emovit(*arguments, "--out", tmp_path / "out")
    assert code == 0, errors
    records = read(tmp_path / "out" / "records.jsonl")
    assert records["wrong"].emotion == "neutral" and "expression_by" not in records["wrong"].extra
    for line in ("agrees: 1", "disagrees: 1", "label set of no facial expressions: 2", "annotated: 1", "unreadable 1"):
        assert line in output
    # The box with half of its sides around it: 0 to 90; the face at the left of it is an angry one.
    assert requests_of("happy")[-1] == f"{fake.TWO} 90x160"
    assert records["left"].emotion == "anger" and records["left"].box == (0, 0, 60, 160)
    code, output, _ = emovit(*arguments, "--out", tmp_path / "out", "--max-entropy", "0.1")
    assert "annotated: 1" in output  # the angry face is certain
    uncertain = ("facial", "annotate", folder, *BOTH, "--out", tmp_path / "third", "--max-entropy", "0.1")
    assert "uncertain: 1" in emovit(*uncertain)[1]


def test_seke_knows_the_expression_from_a_program(emovit, tmp_path, photos, two_fakes):
    folder = photos(a=fake.ONE)
    assert emovit("facial", "annotate", folder, "--teacher", "happy-fake", "--out", tmp_path / "out")[0] == 0
    code, _, errors = emovit("generate", "seke", tmp_path / "out" / "records.jsonl", "--out", tmp_path / "seke")
    assert code == 0, errors
    (record,) = read_records(tmp_path / "seke" / "records.jsonl")
    assert record.emotion == "happiness" and record.extra["seke_expression_by"] == "happy-fake 1.0"
    assert record.action_units is not None and record.action_units[12] == 1


def test_seke_takes_teachers_as_annotators(emovit, tmp_path, photos, two_fakes, requests_of):
    folder = photos(a=fake.ONE, b=fake.NONE, c=fake.CRASH)
    out = tmp_path / "out"
    assert emovit("facial", "annotate", folder, "--teacher", "happy-fake", "--out", out)[0] == 0
    num_before = len(requests_of("happy"))
    bare = [
        record.model_copy(update={"emotion": None, "votes": None, "label_set": None, "extra": {}})
        for record in read_records(out / "records.jsonl")
    ]
    write_records(tmp_path / "bare.jsonl", bare)
    command = ("generate", "seke", tmp_path / "bare.jsonl", "--images", folder)
    known = ("--answers", out / "answers.jsonl")
    code, output, errors = emovit(*command, *BOTH, *known, "--out", tmp_path / "seke")
    assert code == 0, errors
    assert "seke: 1 of 3 records" in output and "happy-fake 1.0: ok 1, no_face 1, crash 1" in output
    # Only the crash, tried twice, is asked for again; the other teacher sees every image.
    assert len(requests_of("happy")) == num_before + 2 and len(requests_of("sad")) == 4
    (record,) = (one for one in read_records(tmp_path / "seke" / "records.jsonl") if one.emotion)
    # One of them sees sadness, so nobody knows the valence.
    assert record.emotion == "happiness" and record.valence is None and record.action_units
    assert "valence:uncertain" in record.extra["seke_reasons"]
    assert record.extra["seke_expression_by"] == "offline/priors:2 + happy-fake 1.0 + sad-fake 1.0"
    assert 0.0 < record.extra["seke_expression_uncertainty"] < 1.0
    labelled = [one.model_copy(update={"emotion": "sadness", "label_set": "ekman6"}) for one in bare[:2]]
    write_records(tmp_path / "labelled.jsonl", labelled)
    check = ("generate", "seke", tmp_path / "labelled.jsonl", "--images", folder, "--check", *known)
    code, output, errors = emovit(
        *check, "--teacher", "happy-fake", "--reviewer", "sad-fake", "--out", tmp_path / "check"
    )
    assert code == 0, errors
    assert "expression: accuracy none, completed for 0.0% of 2 faces" in output and "no_face 1" in output
    found = json.loads((tmp_path / "check" / "check.json").read_text())
    assert (
        found["levels"]["expression"]["calls_per_face"] == 1.5 and found["settings"]["teacher_reviewer"] == "sad-fake"
    )


def test_fitted_reliability_counts(emovit, tmp_path, photos, two_fakes, requests_of, monkeypatch):
    folder = photos(a=fake.ONE, b=fake.NONE)
    common = {"label_set": "neutral_happy2", "split": "train", "source": "s"}
    labelled = [EmotionRecord(id=str(n), image="a.png", emotion="happy", **common) for n in range(3)]
    labelled.append(EmotionRecord(id="calm", image="a.png", emotion="neutral", **common))
    labelled.append(EmotionRecord(id="none", image="b.png", emotion="neutral", **common))
    labelled.append(EmotionRecord(id="held", image="a.png", emotion="neutral", **{**common, "split": "test"}))
    write_records(tmp_path / "labelled.jsonl", labelled)
    out = tmp_path / "tables" / "fitted.json"
    fit = ("facial", "fit", tmp_path / "labelled.jsonl", "--smoothing", "4", "--split", "train")
    files_read = []
    with monkeypatch.context() as patch:
        patch.setattr(records, "read_records", lambda path: files_read.append(path) or read_records(path))
        code, output, errors = emovit(*fit, "--images", folder, *BOTH, "--out", out)
    assert code == 0 and files_read == [tmp_path / "labelled.jsonl"], errors
    assert "happy-fake 1.0: 4 labelled faces, 65.0% of its votes are right" in output
    assert "skipped for the teachers: 1 faces that no teacher judges" in output and "together: 1: " in output
    table = json.loads(out.read_text())["teachers"]["happy-fake 1.0"]
    assert table["counts"]["s"]["neutral"] == pytest.approx({"happiness": 0.8, "neutral": 0.2})
    # 2.4 votes of 3 faces, and 4 faces that are right as often as 2.6 of 4 votes and 2 of 4 by chance.
    assert table["confusion"]["happiness"]["happiness"] == pytest.approx((2.4 + 4 * (2.6 + 2) / 8) / 7)
    # No image is shown twice, also by the next commands.
    num_asked = len(requests_of("happy"))
    known = ("--answers", tmp_path / "tables" / "answers.jsonl")
    assert emovit(*fit, "--images", folder, *BOTH, *known, "--out", tmp_path / "again.json")[0] == 0
    assert (tmp_path / "again.json").read_bytes() == out.read_bytes() and len(requests_of("happy")) == num_asked == 2

    annotate = ("facial", "annotate", folder, "--teacher", "happy-fake")
    code, _, errors = emovit(*annotate, "--teacher", "sad-fake", "--out", tmp_path / "faces", "--priors", out)
    assert code == 0, errors
    record = read(tmp_path / "faces" / "records.jsonl")["photos/a.png"]
    # Three of four faces are happy, and the second teacher sees sadness in all of them; the means are 0.4 and 0.3125.
    assert record.emotion == "happiness" and record.votes["happiness"] > 0.45 and record.votes["sadness"] < 0.25
    assert set(record.votes) == set(EXPRESSIONS7.labels)
    assert json.loads((tmp_path / "faces" / "records.summary.json").read_text())["settings"]["priors"] == str(out)
    place = {"split": "train", "source": "s"}
    write_records(tmp_path / "bare.jsonl", [EmotionRecord(id="x", image="a.png", **place)])
    seke = ("generate", "seke", tmp_path / "bare.jsonl", "--images", folder, *BOTH, "--priors", out)
    code, _, errors = emovit(*seke, "--verification", "off", "--out", tmp_path / "seke")
    assert code == 0, errors
    assert next(read_records(tmp_path / "seke" / "records.jsonl")).emotion == "happiness"

    # A labelled record that cannot be compared is not counted as one that disagrees.
    narrow = json.loads(out.read_text())
    del narrow["expressions"]["contempt"]
    for one in narrow["teachers"].values():
        del one["confusion"]["contempt"]
    (tmp_path / "narrow.json").write_text(json.dumps(narrow))
    scornful = EmotionRecord(id="y", image="a.png", emotion="contempt", label_set="labels:contempt, pride", **place)
    write_records(tmp_path / "scornful.jsonl", [scornful])
    compare = ("facial", "annotate", tmp_path / "scornful.jsonl", "--images", folder, *BOTH)
    code, output, errors = emovit(*compare, "--priors", tmp_path / "narrow.json", "--out", tmp_path / "compared")
    assert code == 0 and "label set without an expression of the tables: 1" in output, errors
    assert "disagrees" not in output

    assert emovit(*fit, "--images", folder, "--teacher", "happy-fake", "--out", tmp_path / "one.json")[0] == 0
    for command, message in (
        ((*fit, *known, "--out", tmp_path / "x.json"), "--answers: is for teachers; add --teacher"),
        ((*fit, *BOTH, "--config", "c.yaml", "--out", tmp_path / "x.json"), "--config is for chat models; add"),
        ((*annotate, *BOTH[2:], "--priors", tmp_path / "one.json"), "has no reliability of sad-fake 1.0"),
        ((*seke[:-1], tmp_path / "one.json"), "has no reliability of sad-fake 1.0, only of happy-fake 1.0"),
        ((*annotate, "--priors", PACKAGED), "has no reliability of teachers"),
    ):
        code, _, errors = emovit(*command, *(() if "--out" in command else ("--out", tmp_path / "bad")))
        assert code != 0 and message in errors
    assert not (tmp_path / "bad" / "records.jsonl").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((*BOTH, "--model", "m"), "--model: teachers answer in place of a chat model"),
        ((*BOTH, "--dry-run"), "--dry-run: the requests of teachers are not estimated"),
        ((*BOTH, "--vary", "crop"), "--vary: teachers get no prompt"),
        ((*BOTH, "--blind"), "--blind: no teacher reviews"),
        ((*BOTH, "--reviewer", "sad-fake"), "another teacher than those"),
        (("--teacher", "happy-fake", "--reviewer", "sad-fake", "--verification", "off"), "nothing is reviewed"),
        (("--teacher", "happy-fak"), "no teacher 'happy-fak' (did you mean 'happy-fake'?)"),
        (("--answers", "a.jsonl"), "--answers has the answers of teachers; add --teacher"),
    ],
)
def test_seke_with_options_that_do_not_fit_teachers(emovit, tmp_path, photos, two_fakes, more, message):
    folder = photos(a=fake.ONE)
    write_records(tmp_path / "r.jsonl", [EmotionRecord(id="a", image="a.png", split="train", source="s")])
    code, _, errors = emovit(
        "generate", "seke", tmp_path / "r.jsonl", "--images", folder, "--out", tmp_path / "x", *more
    )
    assert code != 0 and message in errors and not (tmp_path / "x").exists()


def test_detection_writes_a_record_for_each_face(emovit, tmp_path, photos, two_fakes):
    folder = photos(one=fake.ONE, profile=fake.PROFILE, two=fake.TWO, none=fake.NONE)
    options = ("--teacher", "happy-fake", "--crops", "--size-px", "48", "--proxies", "--out", tmp_path / "out")
    code, output, errors = emovit("facial", "detect", folder, *options)
    assert code == 0, errors
    assert "happy-fake 1.0: ok 3, no_face 1" in output and "faces: 4" in output and "profiles: 1" in output
    records = read(tmp_path / "out" / "records.jsonl")
    assert list(records) == ["photos/one.png", "photos/profile.png", "photos/two.png/face0", "photos/two.png/face1"]
    assert records["photos/two.png/face0"].box == (0, 0, 100, 160)
    assert records["photos/two.png/face1"].extra == {"face_by": "happy-fake 1.0"}
    assert records["photos/profile.png"].extra["face_turn"] == 0.9
    assert "proxy_mouth_width" in records["photos/profile.png"].extra
    crops = list(read_records(tmp_path / "out" / "crops.jsonl"))
    assert [crop.extra["context_image"] for crop in crops] == ["one.png", "profile.png", "two.png", "two.png"]
    assert all(Image.open(tmp_path / "out" / crop.image).size == (48, 48) and crop.box is None for crop in crops)
    # A label belongs to one of two people, and nobody knows to whom.
    labelled = EmotionRecord(
        id="x", image="two.png", split="train", source="s", emotion="fear", label_set="expressions7"
    )
    write_records(tmp_path / "labelled.jsonl", [labelled])
    arguments = ("facial", "detect", tmp_path / "labelled.jsonl", "--images", folder, "--teacher", "sad-fake")
    code, output, _ = emovit(*arguments, "--out", tmp_path / "other")
    assert code == 0 and "several_faces 1" in output and not read(tmp_path / "other" / "records.jsonl")


def test_a_face_gets_the_id_of_no_other_record(emovit, tmp_path, photos, two_fakes, requests_of):
    folder = photos(two=fake.TWO, one=fake.ONE)
    common = {"split": "train", "source": "s"}
    records = [
        EmotionRecord(id="x", image="two.png", **common),
        EmotionRecord(id="x/face0", image="one.png", **common),
    ]
    write_records(tmp_path / "both.jsonl", records)
    arguments = ("--images", folder, "--teacher", "happy-fake", "--out", tmp_path / "out")
    code, _, errors = emovit("facial", "detect", tmp_path / "both.jsonl", *arguments)
    assert code == 2 and "record 'x/face0': a face in the image of record 'x' would get the same id" in errors
    assert not requests_of("happy") and not (tmp_path / "out" / "records.jsonl").exists()
    # One person is in question, so the face keeps the id of the record.
    write_records(tmp_path / "both.jsonl", [records[0].model_copy(update={"box": (0, 0, 99, 160)}), records[1]])
    assert emovit("facial", "detect", tmp_path / "both.jsonl", *arguments)[0] == 0
    assert list(read(tmp_path / "out" / "records.jsonl")) == ["x", "x/face0"]


@pytest.mark.parametrize("command", ["annotate", "detect"])
def test_a_run_that_looked_at_no_image_fails_with_the_reason(emovit, tmp_path, photos, two_fakes, command):
    folder = photos(a=fake.ERROR, b=fake.ERROR)
    (folder / "c.png").write_bytes(b"no image")
    arguments = ("facial", command, folder, "--teacher", "happy-fake", "--out", tmp_path / "out")
    code, output, errors = emovit(*arguments)
    assert code == 2 and "no image could be looked at; the first: happy-fake 1.0: error: photos/a.png: " in errors
    assert "happy-fake 1.0: error 2, unreadable 1" in output
    # No face is an answer.
    make_image(fake.NONE).save(folder / "c.png")
    assert emovit(*arguments)[0] == 0


PEOPLES_LABELS = {
    "votes": {"votes": {"sadness": 0.9, "happiness": 0.1}},
    "votes of another set": {"votes": {"awe": 1.0}},
    "labels": {"labels": ["sadness", "anger"], "label_set": "expressions7"},
    "ranking": {"ranking": ["sadness"], "label_set": "expressions7"},
}


def test_labels_by_people_stay_as_they_are(emovit, tmp_path, photos, two_fakes):
    folder = photos(a=fake.ONE)
    records = [
        EmotionRecord(id=name, image="a.png", split="train", source="s", **values)
        for name, values in PEOPLES_LABELS.items()
    ]
    write_records(tmp_path / "r.jsonl", records)
    arguments = ("facial", "annotate", tmp_path / "r.jsonl", "--images", folder, *BOTH)
    code, output, _ = emovit(*arguments, "--out", tmp_path / "out")
    assert code == 0 and "labelled by several labels or votes: 4" in output
    assert list(read_records(tmp_path / "out" / "records.jsonl")) == records


def test_what_is_said_about_an_image_is_given_to_no_one_of_several_people(emovit, tmp_path, photos, two_fakes):
    folder = photos(two=fake.TWO)
    said = {
        "instructions": [{"kind": "conversation", "question": "Why?", "answer": "She cries.", "provenance": "human"}],
        "utterances": [{"text": "He cries."}],
        "questions": [{"question": "Who?", "answers": ["she"]}],
        "statements": [{"text": "She cries.", "is_correct": True}],
        "attributes": {"facial_expression": "smile"},
    }
    records = [
        EmotionRecord(id=name, image="two.png", split="train", source="s", **{name: value})
        for name, value in said.items()
    ]
    write_records(tmp_path / "r.jsonl", [*records, records[0].model_copy(update={"id": "bare", "instructions": []})])
    arguments = ("facial", "detect", tmp_path / "r.jsonl", "--images", folder, "--teacher", "sad-fake")
    code, output, _ = emovit(*arguments, "--out", tmp_path / "out")
    assert code == 0 and "several_faces 5" in output
    assert list(read(tmp_path / "out" / "records.jsonl")) == ["bare/face0", "bare/face1"]


def test_crops_are_no_images_of_the_next_run(emovit, tmp_path, photos, two_fakes):
    folder = photos(a=fake.ONE)
    for out in (folder, folder / "people"):
        code, _, errors = emovit("facial", "detect", folder, "--teacher", "sad-fake", "--out", out, "--crops")
        assert code == 2 and "the next run would look at the crops" in errors
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_a_folder_without_a_name_has_that_of_its_place(emovit, tmp_path, photos, two_fakes, monkeypatch):
    monkeypatch.chdir(photos(a=fake.ONE))
    assert emovit("facial", "annotate", ".", "--teacher", "sad-fake", "--out", tmp_path / "out")[0] == 0
    (record,) = read(tmp_path / "out" / "records.jsonl").values()
    assert (record.id, record.source) == ("photos/a.png", "photos")


def test_errors_say_what_to_do(emovit, tmp_path, photos, two_fakes, monkeypatch):
    folder = photos(a=fake.ONE)
    out = ("--out", tmp_path / "out")
    code, _, errors = emovit("facial", "annotate", folder, "--teacher", "happy-fak", *out)
    assert code == 2 and "no teacher 'happy-fak' (did you mean 'happy-fake'?)" in errors
    code, _, errors = emovit("facial", "annotate", tmp_path / "none.jsonl", "--teacher", "happy-fake", *out)
    assert code == 2 and "no such records file" in errors
    (tmp_path / "empty").mkdir()
    code, _, errors = emovit("facial", "annotate", tmp_path / "empty", "--teacher", "happy-fake", *out)
    assert code == 2 and "has no image" in errors
    assert emovit("facial", "annotate", folder, "--teacher", "happy-fake", *out)[0] == 0
    again = ("facial", "annotate", tmp_path / "out" / "records.jsonl", "--teacher", "happy-fake", *out)
    code, _, errors = emovit(*again, "--images", folder)
    assert code == 2 and "would be replaced" in errors
    (tmp_path / "out" / "answers.jsonl").write_text("{}\n")
    code, _, errors = emovit("facial", "annotate", folder, "--teacher", "happy-fake", *out)
    assert code == 2 and "answers.jsonl:1: damaged: teacher: Field required. Remove the line" in errors
    for name in ("tuned:runs/a", "chat:gpt"):
        code, _, errors = emovit("facial", "detect", folder, "--teacher", name, *out)
        assert code == 2 and f"{name} finds no faces; use it with `emovit facial annotate`" in " ".join(errors.split())


def test_teachers_that_are_not_installed_name_the_command(emovit, tmp_path, photos, monkeypatch):
    monkeypatch.setenv("EMOVIT_TEACHERS", str(tmp_path / "teachers"))
    code, output, _ = emovit("facial", "teachers")
    assert code == 0 and output.count("not installed") == len(catalogue.TEACHERS) == 4
    assert f"npm install --prefix {tmp_path}/teachers/human" in output and "mediapipe==0.10.21" in output
    folder = photos(a=fake.ONE)
    code, _, errors = emovit("facial", "annotate", folder, "--teacher", "fer", "--out", tmp_path / "out")
    assert code == 2 and "Run `emovit facial teachers --install fer`" in errors
    code, _, errors = emovit("facial", "annotate", folder, "--teacher", "mediapipe", "--out", tmp_path / "out")
    assert code == 2 and "mediapipe only finds faces; use it with `emovit facial detect`" in errors
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, errors = emovit("facial", "teachers", "--install", "human")
    assert code == 2 and "needs the program 'npm'" in errors


@pytest.fixture
def ray_runs():
    """Ray on this machine, which the commands of a test join instead of starting it each time."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'lavis-emovit[ray]'")
    from lavis_emovit.distributed.on_ray import RayEngine

    with RayEngine(num_workers=2):
        yield


def test_ray_writes_the_same_files_although_a_worker_is_killed(
    emovit, tmp_path, photos, two_fakes, requests_of, ray_runs
):
    codes = (fake.ONE, fake.KILL_ONCE, fake.NONE, fake.TWO, fake.ERROR, fake.PROFILE, fake.CRASH_ONCE)
    folder = photos(**{f"{number}{letter}": code for letter in "ab" for number, code in enumerate(codes)})
    (folder / "z.png").write_bytes(b"no image")
    options = (folder, "--teacher", "happy-fake", "--out")
    ray = ("--engine", "ray", "--workers", "2")
    code, output, errors = emovit("facial", "annotate", *options, tmp_path / "ray", *ray)
    assert code == 0 and "workers of Ray that ended and were replaced: 1" in output, errors
    assert (
        "happy-fake 1.0: ok 6, no_face 2, several_faces 2, error 2, profile 2, unreadable 1; started again 1 times"
        in output
    )
    assert json.loads((tmp_path / "ray" / "records.summary.json").read_text())["lost_workers"] == 1
    # In this process, nothing but the errors is left to ask.
    before = len(requests_of("happy"))
    assert emovit("facial", "annotate", *options, tmp_path / "ray")[0] == 0
    assert len(requests_of("happy")) == before + 2
    for command, more in (("annotate", ()), ("detect", ("--crops", "--size-px", "32"))):
        for name, engine in (("one", ()), ("other", ray)):
            out = tmp_path / command / name
            assert emovit("facial", command, *options, out, *more, *engine)[0] == 0
        one = tmp_path / command / "one"
        files = sorted(path.relative_to(one) for path in one.rglob("*") if path.suffix in (".jsonl", ".jpg"))
        assert len(files) == (2 if command == "annotate" else 3 + 12)
        assert all((one / name).read_bytes() == (one.parent / "other" / name).read_bytes() for name in files)


def test_options_of_ray_need_ray(emovit, tmp_path, photos, two_fakes):
    arguments = ("facial", "annotate", photos(a=fake.ONE), *BOTH, "--out", tmp_path / "out")
    code, _, errors = emovit(*arguments, "--workers", "2", "--ray-address", "auto")
    assert code == 2 and "--workers applies to --engine ray" in errors and "--ray-address applies" in errors


@pytest.mark.parametrize("command", ["annotate", "detect"])
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_although_a_teacher_hangs(command, sent, tmp_path):
    (tmp_path / "images").mkdir()
    for number, code in enumerate((fake.ONE, fake.HANG)):
        make_image(code).save(tmp_path / "images" / f"{number}.png")
    code = f"""
import sys
from lavis_emovit.cli.main import main
from lavis_emovit.teachers.catalogue import Teacher, register_teacher
command = [sys.executable, {str(PROGRAM)!r}, "happy", "requests.log"]
register_teacher(Teacher("hanging", "1.0", "happy", True, lambda folder: command))
sys.exit(main(["facial", {command!r}, "images", "--teacher", "hanging", "--out", "out"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        answers = tmp_path / "out" / "answers.jsonl"
        wait_until(lambda: answers.is_file() and answers.read_bytes().count(b"\n") == 1)
        time.sleep(1.0)
        # A terminal sends Ctrl-C to the teacher too.
        os.killpg(process.pid, sent) if sent == signal.SIGINT else os.kill(process.pid, sent)
        _, errors = process.communicate(timeout=40)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == (143 if sent == signal.SIGTERM else 130), errors.decode()
    assert b"Traceback" not in errors
    assert answers.read_bytes().count(b"\n") == 1 and not (tmp_path / "out" / "records.jsonl").exists()


def test_a_full_disk_is_named_and_keeps_the_answers(tmp_path):
    code = """
import resource
from pathlib import Path
from lavis_emovit.teachers.answers import AnswerFile, AnswerRow, View
from lavis_emovit.teachers.faces import Answer
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
with AnswerFile(Path("out/answers.jsonl")) as answers:
    for number in range(100):
        answers.put(AnswerRow(teacher="t 1", image=str(number), view=View(str(number)), answer=Answer()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "UserError: out cannot be written: File too large. Free some space and run" in done.stderr
    with AnswerFile(tmp_path / "out" / "answers.jsonl") as answers:
        assert answers.get("t 1", View("0")) is not None


def wait_until(is_true, limit_s=60.0):
    end = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)
