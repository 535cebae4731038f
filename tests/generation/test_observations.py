"""Instructions about attributes and expressions, from the facts of records.

Properties:
- each known attribute gets its question, and so do the expression of the face and its units; values are the record's;
- a clip is called one; units and labels over time are expressions, but labels of what viewers feel are not;
- the same record and seed give the same words; without facts there is no instruction;
- the steps write them in place of their earlier ones, count them, and keep those of other steps;
- light and colour of a clip are the mean of its frames; damaged clips are counted;
- a mix gives them to the images that it draws for them, and training can ask for them.
"""

from __future__ import annotations

import json

import pytest
from clip_traces import SMILE, clip_record, stretch
from PIL import Image

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.cli.main import main
from lavis_emovit.clips.clip import Clip
from lavis_emovit.generation.attributes import write_attributes
from lavis_emovit.generation.job import Job, JobSettings
from lavis_emovit.generation.observations import attribute_instructions, expression_instructions
from lavis_emovit.generation.pipeline import write_template
from lavis_emovit.records import build_record, read_records, write_records

ATTRIBUTES = {
    "scene": "formal_garden", "object": ["cat", "teapot"], "human_action": "reading book", "facial_expression": "happy",
    "brightness": 0.9, "colorfulness": 0.1,
}  # fmt: skip


def image(id_="e/1", **fields):
    values = {"image": "a.png", "split": "train", "source": "e", "emotion": "awe", "label_set": "mikels8", **fields}
    return build_record({"id": id_, **values}, id_)


def answers(instructions):
    return {one.provenance.rpartition("/")[2]: one.answer for one in instructions}


def test_attributes_of_an_image():
    found = attribute_instructions(image(attributes=ATTRIBUTES))
    assert {(one.kind, one.provenance.rpartition("/")[0]) for one in found} == {("attribute", "template:attribute")}
    assert answers(found) == {
        "scene": "It is a formal garden.", "object": "One can see cat and teapot.",
        "human_action": "The action is reading book.", "brightness": "It is very bright.",
        "colorfulness": "The colours are almost without colour.",
    }  # fmt: skip
    assert not any("clip" in one.question for one in found)
    assert attribute_instructions(image()) == [] == expression_instructions(image())


def test_the_expression_and_the_units_of_a_face():
    face = image(attributes=ATTRIBUTES, action_units={"6": 2, "12": 3.5, "4": 0}, label_set="ekman6", emotion="joy")
    found = expression_instructions(face)
    assert {one.kind for one in found} == {"expression"}
    assert answers(found) == {
        "facial_expression": "The face is bright, with a smile.",
        "units": "AU6 (cheek raiser), AU12 (lip corner puller).",
    }
    (asked,) = [one.question for one in found if one.provenance.endswith("/units")]
    assert "AU4 (brow lowerer), AU6 (cheek raiser), AU12 (lip corner puller)" in asked
    rest = expression_instructions(image(action_units={"4": 0.5}))
    assert answers(rest) == {"units": "None of them."}


def test_clips_have_their_changes():
    units = SMILE.clip.trace.model_copy(update={"action_units": {12: tuple(stretch((0, 24), (3, 27), (0, 9)))}})
    smile = SMILE.model_copy(update={"clip": SMILE.clip.model_copy(update={"trace": units})})
    found = answers(expression_instructions(smile))
    assert found["change-2"] == "Happiness begins at 2.4 s, is strongest at 3.0 s and ends at 5.1 s."
    assert "2.4 s" in found["change-1"] and "neutral" in found["change-1"] and "happiness" in found["change-1"]
    assert found["change-3"] == "AU12 (lip corner puller) is active from 2.4 s to 5.1 s." and len(found) == 3
    seeds = {str(expression_instructions(smile, seed=seed)) for seed in range(8)}
    assert len(seeds) > 1 and seeds == {str(expression_instructions(smile, seed=seed)) for seed in range(8)}
    # What viewers feel is no expression.
    mood = clip_record(emotion=stretch(("awe", 20), ("fear", 20))).model_copy(update={"label_set": "mikels8"})
    assert expression_instructions(mood) == []
    shown = image(attributes=ATTRIBUTES, clip={})
    texts = {one.question for seed in range(20) for one in attribute_instructions(shown, seed=seed)}
    assert "How bright is the clip?" in texts and not any("picture" in text for text in texts)


@pytest.fixture
def job(tmp_path):
    for shade in range(4):
        Image.new("RGB", (40, 30), (51 * shade,) * 3).save(tmp_path / f"{shade}.png")
    frames = {"frames": [f"{shade}.png" for shade in range(4)], "rate_fps": 2}
    person = {"kind": "attribute", "question": "Who?", "answer": "A cat.", "provenance": "human"}
    records = [
        image("e/clip", image="1.png", clip=frames, attributes={"scene": "lake"}, instructions=[person]),
        image("e/lost", image="lost.png", clip={"frames": ["lost.png"], "rate_fps": 1}),
        image("e/image", image="3.png"),
    ]
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        yield Job(records, tmp_path, tmp_path, ledger, JobSettings())


def test_steps_measure_clips_and_write(job):
    result = write_attributes(job)
    assert (result.num_done, result.missing["bad_picture"]) == (2, 1)
    clip, lost, plain = job.records
    # Frames 0, 1, 1, 2, 3, 3 of six parts, each a fifth brighter than the one before: 10 / 6 fifths.
    assert (clip.attributes.brightness, clip.attributes.colorfulness) == (0.3, 0.0)
    assert lost.attributes.brightness is None and plain.attributes.brightness == 0.6
    for _ in range(2):
        result = write_template(job, "attribute")
        assert (result.num_records, result.num_done, result.num_pairs) == (3, 2, 5)
    write_template(job, "categorical")
    written = [(one.kind, one.answer) for one in next(iter(job.records)).instructions]
    assert written == [
        ("attribute", "A cat."), ("attribute", "It is a lake."), ("attribute", "It is rather dark."),
        ("attribute", "The colours are almost without colour."), ("categorical", "Predict emotion: awe"),
    ]  # fmt: skip
    assert write_template(job, "expression").num_done == 0


def test_a_mix_gives_them_to_the_images_that_it_draws(tmp_path):
    Image.new("RGB", (40, 30), "navy").save(tmp_path / "a.png")
    clip = Clip(frames=("a.png",), rate_fps=1)
    records = [image(f"e/{number}", attributes=ATTRIBUTES) for number in range(4)]
    write_records(tmp_path / "r.jsonl", [record.model_copy(update={"clip": clip}) for record in records])
    parts = [{"kinds": ["attribute", "expression"], "per_class": 1}, {"kinds": ["categorical"], "per_class": 2}]
    (tmp_path / "mix.yaml").write_text(json.dumps({"mix": {"parts": parts}}))
    command = ["generate", "all", str(tmp_path / "r.jsonl"), "--out", str(tmp_path / "out"), "--preview", "0"]
    assert main([*command, "--config", str(tmp_path / "mix.yaml")]) == 0
    kinds = [
        sorted({one.kind for one in record.instructions}) for record in read_records(tmp_path / "out/records.jsonl")
    ]
    assert sorted(kinds) == [[], ["attribute", "expression"], ["categorical"], ["categorical"]]
