"""Readers of benchmarks with questions and statements, beyond what `test_published_datasets.py` reads.

- Entries that are not as published are refused, all together, each with its number and what is wrong: unknown labels of
  statements, right answers that are no option, repeated images and ids, ratings outside the scale, missing images.
- The two images of a pair are side by side, the first on the left, each as it is and at its place in `pair`.
- All 2,012 pair questions with options of EEmo-Bench but the broken one are read, with the published right answers
  (shared data).
- The same for questions of POPE, MME, ScienceQA and LAVIS's VQAv2.
- Keys of nested objects are columns of a table; a missing one names the row.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageColor

from lavis_emovit.boxes import images_of_pair, pair_bytes
from lavis_emovit.errors import DataError
from lavis_emovit.images import decode_image
from lavis_emovit.sources.base import Notes
from lavis_emovit.sources.embedded import extract_image
from lavis_emovit.sources.readers.eemo_bench import EEmoBenchReader
from lavis_emovit.sources.readers.eemo_bench_pair import EEmoPairReader, EEmoPairSettings
from lavis_emovit.sources.readers.lavis_vqa import LavisVqaReader
from lavis_emovit.sources.readers.mme import MmeReader
from lavis_emovit.sources.readers.pope import PopeReader
from lavis_emovit.sources.readers.scienceqa import ScienceQAReader
from lavis_emovit.sources.readers.statements import StatementReader
from lavis_emovit.sources.readers.table import TableReader
from lavis_emovit.sources.table_settings import TableSettings

SHARED = os.environ.get("EMOVIT_SHARED")


def picture(path, color="red", size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def problems_of(reader):
    with pytest.raises(DataError) as caught:
        list(reader.read())
    return str(caught.value)


def test_statements_that_are_not_as_published(tmp_path):
    picture(tmp_path / "images" / "awe" / "1.png")
    good = {"image_id": "awe/1.png", "statement_list": [{"statement": "Awe.", "label": "correct"}]}
    entries = [
        good,
        good,
        {**good, "image_id": "awe/2.png"},
        {"image_id": "awe/1.png", "statement_list": [{"statement": "Awe.", "label": "Correct?"}]},
        {"image_id": "awe/1.png", "statement_list": []},
        {"image_id": "awe/1.png", "statement_list": [{"statement": " ", "label": "correct"}]},
        ["awe/1.png"],
        {**good, "image_id": "./awe//1.png"},
    ]
    (tmp_path / "MVEI_metadata.json").write_text(json.dumps(entries))
    text = problems_of(StatementReader(tmp_path, source="mvei"))
    for problem in (
        "entry 1: the image 'awe/1.png' is already in entry 0",
        "entry 2: the image images/awe/2.png is missing",
        "entry 3: statement_list.0.label: Input should be 'correct' or 'incorrect' (got 'Correct?')",
        "entry 4: statement_list: List should have at least 1 item",
        "entry 5: image 'awe/1.png': key 'statements.0.text' is blank",
        "entry 6: expected an object with image_id",
        "entry 7: the image './awe//1.png' is already in entry 0",
    ):
        assert problem in text, problem
    assert "7 faults" in text


def test_truths_in_doubt_are_kept_and_named(tmp_path):
    picture(tmp_path / "images" / "1.png")
    statements = [("Awe.", "correct"), ("awe. ", "incorrect"), ("Calm.", "correct"), ("Calm.", "correct")]
    entry = {
        "image_id": "1.png", "statement_list": [{"statement": text, "label": label} for text, label in statements],
    }  # fmt: skip
    (tmp_path / "MVEI_metadata.json").write_text(json.dumps([entry]))
    notes = Notes()
    (record,) = StatementReader(tmp_path, source="mvei", notes=notes).read()
    assert len(record.statements) == 4
    assert notes.lines == ["1 statements are both correct and incorrect (first: 'awe. ' of mvei/1)"]
    image = {
        "image_name": "1.png", "emotion_list": [["fear", 3], ["joy", 30], ["anger", 9]], "Valence": [5.0],
        "Arousal": [5.0], "Dominance": [5.0], "judge_Q": "Joy?", "judge_A": {"A": "Yes", "B": "yes "},
        "judge_answer": "A",
    }  # fmt: skip
    (tmp_path / "Ebench_1_data(jac_en_check).json").write_text(json.dumps([image]))
    notes = Notes()
    (record,) = EEmoBenchReader(tmp_path, source="eemo", notes=notes).read()
    assert record.ranking == ["joy", "anger", "fear"]
    assert notes.lines == [
        "some emotions are not in the order of their points; their points decide",
        "1 questions have the same option twice, either of which counts (first: question judge of eemo/1)",
    ]


def test_entries_of_single_images_that_are_not_as_published(tmp_path):
    for number in range(1, 6):
        picture(tmp_path / "images" / f"{number}.jpg")
    good = {
        "image_name": "1.jpg", "emotion_list": [["joy", 9], ["fear", 5], ["anger", 1]], "Valence": [5.0, 1, 1],
        "Arousal": [5.0, 1, 1], "Dominance": [5.0, 1, 1], "judge_Q": "Joy?", "judge_A": {"A": "Yes", "B": "No"},
        "judge_answer": "A",
    }  # fmt: skip
    entries = [
        {**good, "judge_answer": "C"},
        {**good, "image_name": "2.jpg", "Valence": [9.5, 1, 1]},
        {**good, "image_name": "3.jpg", "emotion_list": [["hope", 9]]},
        {key: value for key, value in {**good, "image_name": "4.jpg"}.items() if key != "Arousal"},
        {**good, "image_name": "5.jpg", "judge_Q": " "},
    ]
    file = tmp_path / "Ebench_1_data(jac_en_check).json"
    file.write_text(json.dumps(entries))
    text = problems_of(EEmoBenchReader(tmp_path, source="eemo"))
    for problem in (
        "the answer 'C' is none of the options",
        "valence 9.5 is outside the scale 1 to 9",
        "hope",
        "Arousal",
        "key 'questions.0.question' is blank",
    ):
        assert problem in text, problem
    file.write_text(json.dumps([good, {**good, "new_key": 1}]))
    assert "the image '1.jpg' is already in entry 0" in problems_of(EEmoBenchReader(tmp_path, source="eemo"))
    file.write_text(json.dumps([{**good, "new_key": 1}]))
    notes = Notes()
    (record,) = EEmoBenchReader(tmp_path, source="eemo", notes=notes).read()
    assert record.valence == 0.0 and list(notes.unused) == ["new_key"] and len(record.questions) == 1


def test_pairs_that_are_not_as_published(tmp_path):
    picture(tmp_path / "images" / "1.jpg")
    good = {"id": 1, "image1_url": "1.jpg", "image2_url": "1.jpg", "question": "Which?", "correct_answer": "A",
            "options": "{'A': 'Both.', 'B': 'Neither.'}", "question_type": "What/How"}  # fmt: skip
    entries = [
        good,
        good,
        {**good, "id": 2, "options": "__import__('os')"},
        {**good, "id": 3, "correct_answer": "E"},
        {**good, "id": 4, "image2_url": "gone.jpg"},
        {**good, "id": 5, "options": "{'A': 'Both.', 'B': 'One.', 'A': 'Neither.'}"},
        {**good, "id": 6, "image3_url": "1.jpg"},
        {key: value for key, value in {**good, "id": 7}.items() if key != "image2_url"},
    ]
    (tmp_path / "EEmo-Bench(pair).json").write_text(json.dumps(entries))
    text = problems_of(EEmoPairReader(tmp_path, source="pair", extract_to=tmp_path / "out"))
    for problem in (
        "id 1 is already used in entry 0",
        "question 2: options are no Python dict",
        "question '3': the answer 'E' is none of the options",
        "the image gone.jpg is missing",
        "question 5: several options have the same letter",
        "entry 6: has image3_url, but a pair has two images, image1_url and image2_url",
        "entry 7: image2_url",
    ):
        assert problem in text, problem
    with pytest.raises(DataError, match="joined in new files"):
        EEmoPairReader(tmp_path, source="pair").read()


def test_the_first_image_of_a_pair_is_on_the_left(tmp_path):
    red, blue = Image.effect_noise((40, 80), 50).convert("RGB"), Image.effect_noise((600, 200), 50).convert("RGB")
    (tmp_path / "images").mkdir()
    red.save(tmp_path / "images" / "red.png")
    blue.save(tmp_path / "images" / "blue.png")
    entry = {"id": 1, "image1_url": "red.png", "image2_url": "blue.png", "question": "Which?", "correct_answer": "A",
             "options": "{'A': 'x', 'B': 'y'}"}  # fmt: skip
    (tmp_path / "EEmo-Bench(pair).json").write_text(json.dumps([entry]))
    settings = EEmoPairSettings(max_side_px=300)
    (record,) = EEmoPairReader(tmp_path, settings, source="pair", extract_to=tmp_path / "out").read()
    assert record.pair == [(0, 0, 40, 80), (48, 0, 348, 100)]
    data = (tmp_path / "out" / record.image).read_bytes()
    first, second = images_of_pair(decode_image(data), record.pair)
    assert ImageChops.difference(first, red).getbbox() is None  # as it is
    assert ImageChops.difference(second, blue.resize((300, 100))).getextrema()[0][1] < 128  # smaller
    one = decode_image(pair_bytes(data, record.pair))
    assert one.size == (50 + 8 + 300, 100) and one.getpixel((53, 50)) == (255, 255, 255)


@pytest.mark.skipif(SHARED is None, reason="EMOVIT_SHARED is not set")
def test_all_pair_questions_are_read(tmp_path):
    with gzip.open(Path(SHARED) / "reference" / "eemo_bench" / "pair_questions.json.gz", "rt") as file:
        questions = json.load(file)
    entries = [
        {
            **{key: value for key, value in one.items() if not key.startswith("image")},
            "image1_url": one["image1"], "image2_url": one["image2"], "options": repr(one["options"]),
        }
        for one in questions
    ]  # fmt: skip
    for name in {one[key] for one in questions for key in ("image1", "image2")}:
        picture(tmp_path / "images" / name, size=(4, 4))
    (tmp_path / "EEmo-Bench(pair).json").write_text(json.dumps(entries))
    notes = Notes()
    settings = EEmoPairSettings(max_side_px=32)
    reader = EEmoPairReader(tmp_path, settings, source="pair", notes=notes, extract_to=tmp_path / "out")
    records = list(reader.read())
    found = {question.id: question for record in records for question in record.questions}
    # The right option of question 815 is empty.
    assert len(found) == len(questions) - 1 == 2011 and notes.num_rows == 2012 and not notes.unused
    assert notes.skipped == {"questions with an option without text": 1} and "815" not in found
    (line,) = notes.lines
    assert line.startswith("1 questions have the same option twice") and "question 1838" in line
    assert len(records) == len({(one["image1"], one["image2"]) for one in questions})
    for one in questions:
        if one["id"] == 815:
            continue
        question = found[str(one["id"])]
        assert question.answers == [one["options"][one["correct_answer"]].strip()]
        assert question.options == [text.strip() for text in one["options"].values()]
        assert question.categories["question_type"] == one["question_type"]


def test_keys_of_nested_objects_are_columns(tmp_path):
    picture(tmp_path / "a.png")
    rows = [{"file": "a.png", "about": {"mood": {"name": "calm"}}}, {"file": "a.png", "about": {"mood": "calm"}}]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows[:1])))
    columns = {"image": "file", "emotion": "about.mood.name"}
    settings = TableSettings(file="labels.jsonl", columns=columns, label_set=["calm", "tense"])
    notes = Notes()
    (record,) = TableReader(tmp_path, settings, source="x", notes=notes).read()
    assert record.emotion == "calm" and not notes.unused
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "line 2: no key 'about.mood.name'" in problems_of(TableReader(tmp_path, settings, source="x"))
    (tmp_path / "labels.jsonl").write_text(json.dumps({**rows[0], "text": {"en": "A lake."}}))
    columns = {**columns, "caption": "text"}
    settings = settings.model_copy(update={"columns": settings.columns.model_copy(update=columns)})
    assert "column 'text': expected a text, got a dict" in problems_of(TableReader(tmp_path, settings, source="x"))


@pytest.mark.parametrize("outside", ["../secret.png", "a/../../secret.png", "/secret.png"])
def test_no_image_of_a_pair_comes_from_outside(tmp_path, outside):
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "secret.png")
    name = str(tmp_path / "secret.png") if outside.startswith("/") else outside
    entry = {
        "id": 1,
        "image1_url": "a.png",
        "image2_url": name,
        "question": "Which?",
        "options": "{'A': 'x', 'B': 'y'}",
    }
    (tmp_path / "EEmo-Bench(pair).json").write_text(json.dumps([{**entry, "correct_answer": "A"}]))
    assert "leads out of images" in problems_of(EEmoPairReader(tmp_path, source="pair", extract_to=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_pairs_with_like_names_keep_their_own_images_and_ids(tmp_path):
    """Names that are equal when joined, without their suffix or folder, or in the characters that a file may have."""
    colours = {"a_b.png": "red", "c.png": "white", "a.png": "blue", "b_c.png": "black", "x/a.png": "green",
               "\u00e9.png": "cyan", "\u00fc.png": "magenta"}  # fmt: skip
    for name, colour in colours.items():
        picture(tmp_path / "images" / name, colour)
    pairs = [("a_b.png", "c.png"), ("a.png", "b_c.png"), ("a.png", "c.png"), ("x/a.png", "c.png"),
             ("\u00e9.png", "c.png"), ("\u00fc.png", "c.png"), ("./a.png", "c.png")]  # fmt: skip
    entry = {"question": "Which?", "options": "{'A': 'x', 'B': 'y'}", "correct_answer": "A"}
    entries = [{**entry, "id": n, "image1_url": a, "image2_url": b} for n, (a, b) in enumerate(pairs)]
    (tmp_path / "EEmo-Bench(pair).json").write_text(json.dumps(entries))
    records = list(EEmoPairReader(tmp_path, source="pair", extract_to=tmp_path / "out").read())
    assert [[int(question.id) for question in one.questions] for one in records] == [[0], [1], [2, 6], [3], [4], [5]]
    assert len({one.id for one in records}) == len({one.image for one in records}) == 6
    assert records[0].id == "pair/a_b_c"
    for record, (first, _) in zip(records, pairs):
        with Image.open(tmp_path / "out" / record.image) as joined:
            assert joined.convert("RGB").getpixel((1, 1)) == ImageColor.getrgb(colours[first])


def test_general_questions_that_are_not_as_published(tmp_path):
    picture(tmp_path / "val2014" / "1.jpg")
    good = {"question_id": 1, "image": "1.jpg", "text": "Is there a dog?", "label": "yes"}
    lines = [good, good, {**good, "question_id": 2, "label": "maybe"}, {**good, "question_id": 3, "image": "2.jpg"}]
    for name in ("random", "popular", "adversarial"):
        some = lines if name == "random" else lines[:1]
        (tmp_path / f"coco_pope_{name}.json").write_text("\n".join(map(json.dumps, some)))
    text = problems_of(PopeReader(tmp_path, source="pope"))
    for problem in ("question_id 1 is already in entry 0", "label: Input should be 'yes' or 'no'", "2.jpg is missing"):
        assert problem in text
    (tmp_path / "coco_pope_random.json").write_text(json.dumps([good]))  # a list is read as well
    (record,) = PopeReader(tmp_path, source="pope").read()
    assert [one.id for one in record.questions] == ["random-1", "popular-1", "adversarial-1"]

    picture(tmp_path / "count" / "a.png")
    (tmp_path / "count" / "a.txt").write_text("Are there two?\tyes\n\nAre there three? No\n")
    (tmp_path / "count" / "b.txt").write_text("Are there two?\tYes\n")
    text = problems_of(MmeReader(tmp_path, source="mme"))
    assert "line 3: expected a question, a tab, and Yes or No, got 'Are there three? No'" in text
    assert "no image count/b" in text

    problem = {"question": "Which?", "choices": ["a", "b"], "answer": 2, "image": "image.png", "split": "test"}
    (tmp_path / "problems.json").write_text(json.dumps({"1": problem, "2": {**problem, "choices": ["a"]}}))
    text = problems_of(ScienceQAReader(tmp_path, source="scienceqa"))
    assert "problem 1: answer 2 is none of the 2 choices, from 0" in text and "problem 2: choices" in text

    (tmp_path / "annotations").mkdir()
    question = {"question_id": 5, "question": "Which?", "image": "1.jpg"}
    (tmp_path / "annotations" / "vqa_val.json").write_text(json.dumps([question, {**question, "answer": []}]))
    text = problems_of(LavisVqaReader(tmp_path, source="vqav2"))
    assert "entry 0: answer" in text and "entry 1: answer" in text


def test_questions_of_an_image_are_about_this_image(tmp_path):
    folder = tmp_path / "count"
    for name in ("a.png", "a.b.png", "c.png", "c.jpg", "d.png", "e.f.png"):
        picture(folder / name)
    for name in ("a", "a.b"):
        (folder / f"{name}.txt").write_text("\ufeffAre there two?\tYes\n")
    records = {record.id: record for record in MmeReader(tmp_path, source="mme").read()}
    assert {name: record.image for name, record in records.items()} == {
        "mme/count/a": "count/a.png", "mme/count/a.b": "count/a.b.png",
    }  # fmt: skip
    assert records["mme/count/a"].questions[0].question == "Are there two?"
    for name, text in (("c", "Is it?\tNo\n"), ("d", "\n"), ("e", "Is it?\tNo\n")):
        (folder / f"{name}.txt").write_text(text)
    text = problems_of(MmeReader(tmp_path, source="mme"))
    for problem in ("2 images count/c", "count/d.txt: has no question", "no image count/e"):
        assert problem in text


def test_a_byte_order_mark_is_no_part_of_a_list(tmp_path):
    picture(tmp_path / "val2014" / "1.jpg")
    good = {"question_id": 1, "image": "1.jpg", "text": "Is there a dog?", "label": "yes"}
    for name in ("random", "popular", "adversarial"):
        text = json.dumps([good], indent=1) if name == "random" else json.dumps(good)
        (tmp_path / f"coco_pope_{name}.json").write_text(f"\ufeff{text}\n")
    (record,) = PopeReader(tmp_path, source="pope").read()
    assert len(record.questions) == 3


@pytest.mark.parametrize("name", ["a" * 300, "https://example.org/" + "b" * 300, "\u6f22" * 300])
def test_images_of_tables_have_names_that_file_systems_allow(name, tmp_path):
    names: dict[str, str] = {}
    paths = {extract_image(tmp_path, one, Image.new("RGB", (8, 8)), names=names) for one in (name, f"{name}c")}
    assert len(paths) == 2 and all((tmp_path / path).is_file() for path in paths)
