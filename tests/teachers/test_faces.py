"""Faces, the choice of one, several teachers together, and crops.

Properties:
- probabilities get our names and the sum 1; what is not a probability is refused;
- the turn of a face is that of a hand calculation;
- of several faces only a box or `largest` chooses; small faces and profiles are named;
- entropy and mutual information are those of scipy, and 0 and 1 in the limits;
- proxies are those of a hand calculation, and do not depend on the size and the rotation of the face;
- a crop is centred, square and turned so that the eyes are level.
"""

from __future__ import annotations

import math

import pytest
from PIL import Image, ImageDraw
from pydantic import ValidationError
from scipy.stats import entropy

from lavis_emovit.teachers.choosing import FaceSettings, choose_face
from lavis_emovit.teachers.combining import combine
from lavis_emovit.teachers.crops import cut_out, square_of
from lavis_emovit.teachers.faces import Answer, Face
from lavis_emovit.teachers.proxies import PROXIES, proxies_of

HAPPY = {"happy": 1.0}


def face(*box, eyes=None, nose=None, expressions=HAPPY):
    points = [(0.0, 0.0)] * 68
    if eyes is not None:
        points[36], points[45] = eyes
        points[30] = nose or eyes[0]
    return Face(box=box, expressions=expressions, landmarks=points if eyes is not None else ())


def test_probabilities_get_our_names_and_the_sum_one():
    # `human` cuts its numbers to two digits, so they have the sum 0.98.
    found = face(0, 0, 9, 9, expressions={"happy": 0.49, "surprised": 0.49, "angry": 0.0})
    assert found.expressions == {"happiness": 0.5, "surprise": 0.5, "anger": 0.0}
    for wrong in ({"happy": -0.1, "sad": 1.1}, {"happy": 0.0}, {"happy": math.nan}, {"bored": 1.0}, {}):
        with pytest.raises(ValidationError):
            face(0, 0, 9, 9, expressions=wrong)


def test_boxes_end_at_the_edges_of_the_image():
    assert face(-5, 3, 40, 60).inside((30, 50)).box == (0, 3, 30, 50)
    with pytest.raises(ValueError, match=r"outside of the image of 30 x 50 pixels"):
        face(31, 3, 40, 60).inside((30, 50))


@pytest.mark.parametrize(("nose", "turn"), [((50, 60), 0.0), ((70, 55), 1.0), ((40, 90), 0.5), ((90, 0), 2.0)])
def test_the_turn_is_where_the_nose_is_between_the_eyes(nose, turn):
    assert face(0, 0, 99, 99, eyes=((30, 40), (70, 40)), nose=nose).turn == pytest.approx(turn)
    assert face(0, 0, 99, 99).turn is None


LEFT, RIGHT = face(0, 0, 40, 40), face(50, 0, 100, 50)


@pytest.mark.parametrize(
    ("faces", "box", "settings", "expected"),
    [
        ((), None, {}, ("no_face", None)),
        ((LEFT,), None, {}, ("ok", LEFT)),
        ((LEFT, RIGHT), None, {}, ("several_faces", None)),
        ((LEFT, RIGHT), None, {"faces": "largest"}, ("ok", RIGHT)),
        ((LEFT, RIGHT), (0, 0, 45, 200), {}, ("ok", LEFT)),
        ((LEFT, RIGHT), (200, 0, 300, 50), {}, ("no_face", None)),
        ((LEFT,), None, {"min_face_px": 41}, ("too_small", LEFT)),
        ((LEFT, RIGHT), None, {"min_face_px": 41}, ("ok", RIGHT)),
        ((LEFT, RIGHT), None, {"min_face_px": 51}, ("too_small", RIGHT)),
        ((face(0, 0, 40, 40, expressions=None),), None, {}, ("no_expression", face(0, 0, 40, 40, expressions=None))),
    ],
)
def test_the_face_in_question(faces, box, settings, expected):
    assert choose_face(Answer(faces=faces), box, FaceSettings(**settings)) == expected


def test_a_profile_and_a_fault_are_named():
    profile = face(0, 0, 99, 99, eyes=((30, 40), (70, 40)), nose=(66, 50))
    assert choose_face(Answer(faces=(profile,)), None, FaceSettings()) == ("profile", profile)
    assert choose_face(Answer(faces=(profile,)), None, FaceSettings(max_turn=0.9)) == ("ok", profile)
    assert choose_face(Answer(fault="crash"), None, FaceSettings()) == ("crash", None)


def test_disagreement_and_doubt_are_apart():
    first, second = {"happiness": 0.7, "neutral": 0.2, "surprise": 0.1}, {"happiness": 0.1, "neutral": 0.9}
    found = combine([first, second])
    mean = {"happiness": 0.4, "neutral": 0.55, "surprise": 0.05}
    assert {name: share for name, share in found.votes.items() if share} == pytest.approx(mean)
    assert found.label == "neutral"
    total = entropy(list(mean.values()), base=7)
    within = (entropy([0.7, 0.2, 0.1], base=7) + entropy([0.1, 0.9], base=7)) / 2
    assert (found.entropy, found.mutual_information) == pytest.approx((total, total - within))
    alone = combine([first])
    assert alone.mutual_information == 0 and alone.entropy == pytest.approx(entropy([0.7, 0.2, 0.1], base=7))
    opposite = combine([{"happiness": 1.0}, {"sadness": 1.0}])
    assert opposite.entropy == opposite.mutual_information == pytest.approx(math.log(2) / math.log(7))
    assert opposite.label == "happiness"
    # Contempt is an eighth label.
    assert combine([{"contempt": 0.5, "anger": 0.5}]).entropy == pytest.approx(math.log(2) / math.log(8))


# Eyes 100 apart, so that proxies are per cent of pixels.
DRAWN = {
    36: (0, 0), 39: (30, 2), 42: (70, 4), 45: (100, 0), 37: (15, -4), 41: (15, 4), 44: (85, -4), 46: (85, 4),
    21: (35, -20), 22: (65, -20), 18: (5, -15), 25: (95, -25), 48: (25, 60), 54: (75, 64), 51: (50, 60), 57: (50, 70),
    62: (50, 64), 66: (50, 67),
}  # fmt: skip


@pytest.mark.parametrize(("scale", "degrees"), [(1, 0), (2.5, 0), (0.5, 30), (1, -170)])
def test_proxies_are_distances_on_the_axes_of_the_eyes(scale, degrees):
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points = [(0.0, 0.0)] * 68
    for number, (x, y) in DRAWN.items():
        points[number] = (7 + scale * (x * cos - y * sin), 9 + scale * (x * sin + y * cos))
    expected = {
        "inner_brow_height": (22 + 24) / 200, "outer_brow_height": (15 + 25) / 200, "brow_gap": 0.3,
        "eye_opening": 0.08, "mouth_corner_height": 0.65 - 0.62, "mouth_width": 0.5, "lip_gap": 0.03,
    }  # fmt: skip
    assert proxies_of(Face(box=(0, 0, 9, 9), landmarks=points)) == pytest.approx(expected)
    assert list(PROXIES) == list(expected)


def test_faces_without_landmarks_have_no_proxies():
    assert proxies_of(face(0, 0, 9, 9)) == proxies_of(face(0, 0, 9, 9, eyes=((3, 3), (3, 3)))) == {}


@pytest.mark.parametrize("size", [200, 1600])
def test_a_crop_is_centred_with_level_eyes(size):
    scale = size / 200
    image = Image.new("RGB", (size, size))
    draw = ImageDraw.Draw(image)
    eyes = tuple((x * scale, y * scale) for x, y in ((80, 80), (120, 120)))  # turned by 45 degrees
    for (x, y), colour in zip(eyes, ("red", "blue")):
        draw.ellipse((x - 6 * scale, y - 6 * scale, x + 6 * scale, y + 6 * scale), fill=colour)
    found = face(*(value * scale for value in (60, 60, 140, 140)), eyes=eyes)
    crop = cut_out(image, square_of(found, size_px=160, margin=0.5))
    # One pixel of the crop is one of 200; the distance of the eyes is 40 * sqrt(2).
    assert crop.size == (160, 160)
    assert crop.getpixel((80 - 28, 80))[0] > 200 and crop.getpixel((80 + 28, 80))[2] > 200
    assert crop.getpixel((60, 60)) == (0, 0, 0)
    upright = cut_out(image, square_of(face(*found.box), size_px=160, margin=0.5))
    assert upright.getpixel((60, 60))[0] > 200 and upright.getpixel((100, 100))[2] > 200
