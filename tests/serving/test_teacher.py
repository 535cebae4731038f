"""A tuned model as a teacher.

- `tuned:RUN` runs as a program that speaks the protocol; its probabilities are those of `predict`, for the whole image.
- Its version is the hash of its weights; labels that are no expressions, a model of two images for a face, and a place
  without a model are errors.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from types import SimpleNamespace

import pytest
from PIL import Image

import lavis_emovit
from lavis_emovit.boxes import BoxSettings
from lavis_emovit.errors import UserError
from lavis_emovit.files import file_sha256
from lavis_emovit.paths import MANIFEST_NAME
from lavis_emovit.serving.teacher import annotator
from lavis_emovit.teachers import catalogue
from lavis_emovit.teachers.catalogue import find_teachers


@pytest.fixture(scope="module")
def of_faces(run, tmp_path_factory):
    """The run with the labels of facial expressions."""
    folder = shutil.copytree(run.folder, tmp_path_factory.mktemp("faces") / "run")
    for path in folder.rglob("questions.json"):
        content = json.loads(path.read_text())
        for question in content["questions"]:
            question["label_set"] = question["label_set"] and "ekman6"
        path.write_text(json.dumps(content))
        if (manifest := path.parent / MANIFEST_NAME).is_file():
            body = json.loads(manifest.read_text())
            del body["sha256"]
            body["files"][path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            stated = json.dumps(body, sort_keys=True, separators=(",", ":"))
            manifest.write_text(json.dumps({**body, "sha256": hashlib.sha256(stated.encode()).hexdigest()}))
    return folder


def test_a_tuned_model_is_a_program(run, of_faces):
    (teacher,) = find_teachers([f"tuned:{of_faces}"])
    tuned = lavis_emovit.load_tuned(of_faces, device="cpu")
    assert teacher.title == f"tuned:{of_faces} {tuned.files.weights_sha256[:12]}" and teacher.is_installed
    (row,) = tuned.predict(run.images[0], ["emotion"])
    with teacher.open() as worker:
        (answer,) = worker.annotate([Image.open(run.images[0]).convert("RGB")])
    (face,) = answer.faces
    assert face.expressions == pytest.approx(row.probabilities, abs=1e-5)
    assert face.box == (0, 0, *Image.open(run.images[0]).size)


def test_a_model_of_two_images_for_a_face():
    tuned = SimpleNamespace(
        labels=("happiness", "sadness"), box=BoxSettings(show="both"), files=SimpleNamespace(location="r")
    )
    with pytest.raises(UserError, match=r"r: cannot be a teacher: .*tuned on two \(`box: both`\)"):
        annotator(tuned)


def test_labels_that_are_no_expressions(run, tuned):
    with pytest.raises(UserError, match="no facial expressions"):
        annotator(tuned)
    (teacher,) = find_teachers([f"tuned:{run.folder}"])
    with (
        teacher.open() as worker,
        pytest.raises(UserError, match=r"does not start.*no facial expressions.*Correct this"),
    ):
        worker.annotate([Image.new("RGB", (32, 32))])
    with pytest.raises(UserError, match="nowhere"):
        find_teachers(["tuned:nowhere"])


def test_a_relative_place_is_found_from_other_working_directories(monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "tuned_version", lambda location: "1")
    monkeypatch.chdir(tmp_path)
    (teacher,) = find_teachers(["tuned:run"])
    assert teacher.name == "tuned:run" and teacher.command(tmp_path)[-1] == str(tmp_path / "run")
