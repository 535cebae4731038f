"""The teachers themselves, where they are installed: `make test-teachers`.

Properties:
- each teacher with expressions tells a smile from a neutral face, of people whose photographs are clear to people;
- an empty image, a drawing, a face of 12 px and several faces are named;
- mesh and 68 landmarks put the eyes where people see them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from lavis_emovit.images import decode_image
from lavis_emovit.sample_set.draw import render
from lavis_emovit.sample_set.write import scene_for
from lavis_emovit.teachers.catalogue import TEACHERS
from lavis_emovit.teachers.choosing import FaceSettings, choose_face
from lavis_emovit.teachers.proxies import proxies_of

FACES = Path(os.environ.get("EMOVIT_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data" / "london_faces"
EXPRESSIVE = [name for name, teacher in TEACHERS.items() if teacher.names_expressions]

pytestmark = [
    pytest.mark.skipif("EMOVIT_TEST_TEACHERS" not in os.environ, reason="slow; run `make test-teachers`"),
    pytest.mark.skipif(not FACES.is_dir(), reason="the photographs of the London set are not here"),
]


@pytest.fixture(scope="module", params=list(TEACHERS))
def worker(request):
    """The process of each teacher, which all tests of this teacher share."""
    teacher = TEACHERS[request.param]
    if not teacher.is_installed:
        pytest.skip(f"{teacher.name} is not installed: {'; '.join(teacher.install_lines)}")
    with teacher.open() as opened:
        yield opened


def photo(name):
    return decode_image((FACES / "images" / f"{name}.jpg").read_bytes())


def test_a_smile_and_a_neutral_face(worker):
    answers = worker.annotate([photo(f"{number:03d}_{mood}") for number in (1, 2) for mood in ("happy", "neutral")])
    assert [len(answer.faces) for answer in answers] == [1, 1, 1, 1]
    if worker.name in EXPRESSIVE:
        chosen = [max(face.expressions, key=face.expressions.get) for answer in answers for face in answer.faces]
        assert chosen == ["happiness", "neutral"] * 2


def test_the_mouth_is_wider_in_a_smile(worker):
    answers = worker.annotate([photo(f"{number:03d}_{mood}") for number in (1, 2) for mood in ("happy", "neutral")])
    found = [proxies_of(answer.faces[0]) for answer in answers]
    if worker.name == "fer":
        assert found == [{}] * 4
        return
    for name in ("mouth_width", "mouth_corner_height"):
        assert found[0][name] > found[1][name] and found[2][name] > found[3][name]


def test_the_eyes_are_where_people_see_them(worker):
    # Read off the photograph by eye, hence the 8 px.
    (face,) = worker.annotate([photo("001_neutral")])[0].faces
    if worker.name == "fer":
        assert face.eyes is None and face.turn is None
        return
    (left, right) = face.eyes
    assert left == pytest.approx((96, 120), abs=8) and right == pytest.approx((159, 120), abs=8)
    assert face.turn < 0.25


def test_images_without_a_usable_face_are_named(worker):
    grey = Image.new("RGB", (256, 256), (128, 128, 128))
    tiny = Image.new("RGB", (256, 256), (128, 128, 128))
    tiny.paste(photo("001_happy").resize((25, 25), Image.Resampling.LANCZOS), (100, 100))  # its face is about 12 px
    pair = Image.new("RGB", (512, 256))
    pair.paste(photo("001_happy"), (0, 0))
    pair.paste(photo("002_neutral"), (256, 0))
    drawing = render(scene_for("anger", 0, 0), 256)
    empty, small, several, drawn = worker.annotate([grey, tiny, pair, drawing])
    settings = FaceSettings()
    assert choose_face(empty, None, settings)[0] == "no_face"
    assert choose_face(small, None, settings)[0] in ("no_face", "too_small")
    assert choose_face(several, None, settings)[0] == "several_faces" and len(several.faces) == 2
    assert choose_face(drawn, None, settings)[0] == "no_face"
    status, face = choose_face(several, (256.0, 0.0, 512.0, 256.0), settings)
    assert status == ("ok" if worker.name in EXPRESSIVE else "no_expression")
    assert face.centre[0] > 256
