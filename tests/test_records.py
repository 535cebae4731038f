"""Records.

- A record read from its JSON line equals the original, for any content of its fields.
- A wrong key, value or line is refused with file, line, key and the nearest valid name; so are a right answer that is
  no option, and two questions of a record with one id.
- Ids are unique in files that are written and read. A line that repeats a key is refused, with the key; texts may
  contain anything.
- A records file is written atomically.
- A line of the first schema is read and written unchanged.
- LLaVA-style conversations keep every question and answer in both directions; items with duplicate ids become records
  with unique ids, and a categorical answer gives the emotion.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.errors import DataError
from lavis_emovit.records import (
    INSTRUCTION_KINDS,
    AnsweredQuestion,
    Attributes,
    EmotionRecord,
    Instruction,
    Statement,
    Utterance,
    build_record,
    from_conversations,
    parse_record,
    read_records,
    to_conversations,
    write_records,
)

texts = st.text(min_size=1, max_size=20)
not_blank = texts.filter(str.strip)
shares = st.floats(0, 1)
signed = st.floats(-1, 1)
categories = st.none() | st.dictionaries(texts, texts, max_size=2)
records = st.builds(
    EmotionRecord,
    id=texts,
    image=st.from_regex(r"\A[a-z]{1,5}(/[a-z0-9_]{1,8}){0,2}\.jpg\Z"),
    split=st.sampled_from(["train", "val", "test"]),
    source=texts,
    emotion=st.none() | texts,
    label_set=st.none() | texts,
    votes=st.none() | st.just({"awe": 0.25, "fear": 0.75}),
    attributes=st.builds(
        Attributes,
        brightness=st.none() | shares,
        colorfulness=st.none() | shares,
        scene=st.none() | texts,
        object=st.none() | st.lists(texts, max_size=3),
        facial_expression=st.none() | texts,
        human_action=st.none() | texts,
    ),
    caption=st.none() | st.text(),
    valence=st.none() | signed,
    arousal=st.none() | signed,
    action_units=st.none() | st.dictionaries(st.integers(1, 46), st.floats(0, 5), max_size=3),
    instructions=st.lists(
        st.builds(Instruction, kind=st.sampled_from(INSTRUCTION_KINDS), question=texts, answer=texts, provenance=texts),
        max_size=3,
    ),
    labels=st.none() | st.lists(texts, max_size=3),
    dominance=st.none() | signed,
    box=st.none() | st.just((0.0, 1.5, 20.0, 30.0)),
    utterances=st.lists(
        st.builds(Utterance, text=texts, emotion=st.none() | texts, score=st.none() | st.floats(-9, 9)), max_size=2
    ),
    questions=st.lists(
        st.builds(
            AnsweredQuestion,
            question=not_blank,
            answers=st.just(["yes"]),
            options=st.none() | st.just(["yes", "no"]),
            categories=categories,
        ),
        max_size=2,
    ),
    statements=st.lists(
        st.builds(Statement, text=not_blank, is_correct=st.booleans(), categories=categories), max_size=2
    ),
    words=st.none() | st.just(["calm", "happy"]),
    ranking=st.none() | st.just(["joy", "fear"]),
    group=st.none() | texts,
    extra=st.dictionaries(texts, st.text() | st.integers(-(2**40), 2**40) | st.booleans() | st.floats(-9, 9)),
)


@given(records)
def test_a_record_is_read_as_it_was_written(record):
    line = record.to_json()
    assert "\n" not in line
    assert parse_record(line, "here") == record


def test_lines_of_the_first_schema_stay_unchanged():
    line = (
        '{"id":"a/1","image":"a/1.jpg","split":"test","source":"a","emotion":"awe","label_set":"mikels8",'
        '"votes":{"awe":1.0},"attributes":{"brightness":0.5},"valence":0.1,"arousal":-0.2,"action_units":{"12":2.0},'
        '"instructions":[{"kind":"reasoning","question":"Why?","answer":"So.","provenance":"human"}],'
        '"group":"p1","extra":{"age":"30"}}'
    )
    assert parse_record(line, "old").to_json() == line


CHOICE = {"question": "Which emotion?", "answers": ["joy"], "options": ["joy", "fear"]}


def _record(**changes):
    values = {"id": "a/1", "image": "image/1.jpg", "split": "train", "source": "a"}
    return EmotionRecord(**{**values, **changes})


@pytest.mark.parametrize("split", ["../../x", "/tmp/x", "a/b", "..", ".build", "C:x", "a\\b", "train\n", "x" * 101])
def test_a_split_is_a_plain_name(tmp_path, split):
    values = {"id": "a/9", "image": "1.jpg", "split": split, "source": "a"}
    (tmp_path / "records.jsonl").write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"records.jsonl:1: key 'split': must be a plain name.* \(record 'a/9'\)"):
        list(read_records(tmp_path / "records.jsonl"))
    assert _record(split="Train 1.0 für alle").split == "Train 1.0 für alle"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e999"])
@pytest.mark.parametrize(
    ("field", "key"),
    [
        ('"valence": {}', "valence"),
        ('"action_units": {{"12": {}}}', "action_units.12"),
        ('"box": [0, 0, {}, 4]', "box.2"),
        ('"extra": {{"age": {}}}', "extra.age"),
        ('"votes": {{"awe": {}}}', "votes.awe"),
        ('"attributes": {{"brightness": {}}}', "attributes.brightness"),
        ('"utterances": [{{"text": "!", "score": {}}}]', "utterances.0.score"),
    ],
)
def test_numbers_are_finite(tmp_path, number, field, key):
    line = f'{{"id": "a/9", "image": "1.jpg", "split": "test", "source": "a", {field.format(number)}}}'
    (tmp_path / "records.jsonl").write_text(f"{_record().to_json()}\n{line}\n")
    with pytest.raises(DataError, match=rf"records.jsonl:2: key '{key}': .*finite number.*a/9"):
        list(read_records(tmp_path / "records.jsonl"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"emotoin": "awe"}, r"unknown key 'emotoin' \(did you mean 'emotion'\?\)"),
        ({"attributes": {"brightnes": 1}}, r"unknown key 'attributes.brightnes' \(did you mean 'brightness'\?\)"),
        ({"image": "/abs/1.jpg"}, r"key 'image': must be a path below the image root"),
        ({"image": "a\0b.jpg"}, r"key 'image': has a null byte"),
        ({"image": "../1.jpg"}, r"key 'image': must be a path below the image root"),
        ({"image": "C:/1.jpg"}, r"key 'image': must be a path below the image root"),
        ({"valence": 2}, r"key 'valence': .*less than or equal to 1 \(got 2\)"),
        ({"valence": True}, r"key 'valence': Input should be a valid number \(got True\)"),
        ({"action_units": {"12": True}}, r"key 'action_units.12': Input should be a valid number \(got True\)"),
        ({"votes": {"awe": 0.4, "fear": 0.4}}, r"key 'votes': must be shares"),
        ({"box": [4, 0, 2, 9]}, r"key 'box': must be .left, top, right, bottom."),
        ({"pair": [[0, 0, 1, 1]]}, "key 'pair': must be the boxes of two images, not of 1"),
        ({"pair": [[0, 0, 1, 1]] * 3}, "key 'pair': must be the boxes of two images, not of 3"),
        ({"pair": [[0, 0, 1, 1]] * 2, "box": [0, 0, 1, 1]}, "pair belongs to an image of two whole ones"),
        ({"questions": [{"question": "Why?"}]}, r"key 'questions.0.answers' is missing"),
        ({"questions": [{**CHOICE, "answer": "joy"}]}, r"unknown key .*answer' \(did you mean 'answers'\?\)"),
        ({"questions": [{**CHOICE, "answers": ["Joy"]}]}, r"the answer 'Joy' is none of the options \['joy', 'fear'\]"),
        ({"questions": [{**CHOICE, "options": ["joy", " "]}]}, r"key 'questions.0': has an empty text"),
        ({"questions": [{**CHOICE, "options": ["joy"]}]}, r"key 'questions.0.options': .*at least 2"),
        ({"questions": [{**CHOICE, "id": "1"}, CHOICE]}, r"key 'questions': two of them have the id '1'"),
        ({"statements": [{"text": "It evokes awe."}]}, r"key 'statements.0.is_correct' is missing"),
        ({"words": ["calm", "calm"]}, r"key 'words': must be one or more different words"),
        ({"ranking": []}, r"key 'ranking': must be one or more different words"),
        ({"utterances": [{"txt": "x"}]}, r"unknown key 'utterances.0.txt' \(did you mean 'text'\?\)"),
        ({"instructions": [{"kind": "poem"}]}, r"key 'instructions.0.kind'.*key 'instructions.0.question' is missing"),
    ],
)
def test_a_wrong_line_names_file_line_and_key(tmp_path, changes, expected):
    path = tmp_path / "records.jsonl"
    values = {"id": "a/2", "image": "2.jpg", "split": "train", "source": "a", **changes}
    path.write_text(_record().to_json() + "\n\n" + json.dumps(values) + "\n")
    with pytest.raises(DataError, match=r"records.jsonl:3: .*" + expected):
        list(read_records(path))


@pytest.mark.parametrize(
    ("part", "repeated", "key"),
    [
        ('"emotion":"awe"', '"emotion":"awe","emotion":"fear"', "emotion"),
        ('"emotion":"awe"', '"emotion" : "awe", "emotion"\t:"awe"', "emotion"),
        ('"brightness":0.5', '"brightness":0.5,"brightness":0.6', "brightness"),
        ('"answer":"Awe."', '"answer":"Awe.","answer":"Fear."', "answer"),
        ('"awe":1.0', '"awe":1.0,"awe":1.0', "awe"),
        ('"4":1.0', '"4":1.0,"4":2.0', "4"),
        ('"text":"Oh"', '"text":"Oh","text":"No"', "text"),
        ('"type":"What"', '"type":"What","type":"How"', "type"),
        ('"is_correct":true', '"is_correct":true,"is_correct":false', "is_correct"),
        ('"odd\\\\":1', '"odd\\\\":1,"odd\\\\":2', "odd"),
    ],
)
def test_repeated_keys_are_refused(part, repeated, key, tmp_path):
    values = {
        "id": "a/2", "image": "2.jpg", "split": "train", "source": "a", "emotion": "awe", "label_set": "mikels8",
        "attributes": {"brightness": 0.5}, "votes": {"awe": 1.0}, "action_units": {4: 1.0},
        "utterances": [{"text": "Oh"}], "extra": {"odd\\": 1},
        "questions": [{**CHOICE, "categories": {"type": "What"}}],
        "statements": [{"text": "Awe.", "is_correct": True, "categories": {"class": "context"}}],
        "instructions": [
            {"kind": "reasoning", "question": 'Why "awe" : or "fear":?', "answer": "Awe.", "provenance": "p"}
        ],
    }  # fmt: skip
    line, path = EmotionRecord.model_validate(values).to_json(), tmp_path / "records.jsonl"
    path.write_text(f"{_record().to_json()}\n{line}\n")
    assert [record.id for record in read_records(path)] == ["a/1", "a/2"]
    assert line.count(part) == 1
    path.write_text(f"{_record().to_json()}\n{line.replace(part, repeated)}\n")
    with pytest.raises(
        DataError, match=rf"records.jsonl:2: not JSON \(the key '{key}.*' is repeated in .*record 'a/2'"
    ):
        list(read_records(path))


@given(text=st.text(alphabet='\\":, \t/a', max_size=12))
def test_texts_may_contain_the_end_of_a_key(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "records.jsonl"
    record = _record().model_copy(update={"caption": text, "extra": {f"k{text}": text}})
    write_records(path, [record])
    assert list(read_records(path)) == [record]


def test_other_broken_files_are_refused(tmp_path):
    path = tmp_path / "records.jsonl"
    with pytest.raises(DataError, match="no such records file"):
        list(read_records(path))
    path.write_text('{"id": "a/1", "image"')
    with pytest.raises(DataError, match=r"records.jsonl:1: not one JSON object"):
        list(read_records(path))
    path.write_text(f"{_record().to_json()}\n{_record().to_json()}\n")
    with pytest.raises(DataError, match=r"records.jsonl:2: id 'a/1' is already used in line 1"):
        list(read_records(path))


def test_a_file_is_written_atomically(tmp_path):
    path = tmp_path / "deep" / "records.jsonl"
    assert write_records(path, [_record(), _record(id="a/2")]) == 2
    before = path.read_bytes()
    assert [record.id for record in read_records(path)] == ["a/1", "a/2"]

    def failing():
        yield _record(id="b/1")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_records(path, failing())
    with pytest.raises(DataError, match="two records have the id 'a/1'"):
        write_records(path, [_record(), _record()])
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["records.jsonl"]


def test_conversations_in_both_directions():
    instructions = [
        Instruction(kind="categorical", question="Which?", answer="Predict emotion: awe", provenance="template:x/1"),
        Instruction(kind="reasoning", question="Why?", answer="Because.\nReally.", provenance="model:m"),
    ]
    given_records = [_record(id="a/image/1", emotion="awe", label_set="mikels8", instructions=instructions)]
    items = to_conversations(given_records)
    assert [item["id"] for item in items] == ["a/image/1/categorical/0", "a/image/1/reasoning/1"]
    assert items[0]["conversations"] == [
        {"from": "human", "value": "<image>\nWhich?"},
        {"from": "gpt", "value": "Predict emotion: awe"},
    ]
    assert from_conversations(json.loads(json.dumps(items)), source="a", label_set="mikels8") == given_records


def _turns(*texts, names=("human", "gpt"), keys=("from", "value")):
    return [dict(zip(keys, (names[n % 2], text))) for n, text in enumerate(texts)]


def test_follow_up_questions_contain_the_earlier_turns():
    turns = _turns("Who is there?", "Two men.", "And the left one?", "A boy.", "Why?", "He smiles.")
    (record,) = from_conversations([{"image": "a.jpg", "conversations": turns}])
    past = "Question: Who is there? Answer: Two men."
    assert [one.question for one in record.instructions] == [
        "Who is there?",
        f"{past} Question: And the left one?",
        f"{past} Question: And the left one? Answer: A boy. Question: Why?",
    ]
    system = [{"from": "system", "value": "Be brief."}, *_turns("Who?", "A man.")]
    (record,) = from_conversations([{"image": "a.jpg", "conversations": system}])
    assert record.instructions[0].question == "Be brief. Question: Who?"


def test_items_of_other_tools_are_read_or_counted():
    messages = _turns("<image>What?", "A hill.", names=("user", "assistant"), keys=("role", "content"))
    parts = [{"type": "image"}, {"type": "text", "text": "What?"}]
    skipped = []
    records = from_conversations(
        [
            {"conversations": _turns("Who are you?", "A model.")},
            {"image": None, "conversations": []},
            {"image": ["b.jpg"], "conversations": _turns("<image>\nWhat?", "A hill.")},
            {"images": ["c.jpg"], "messages": messages},
            {"images": ["d.jpg"], "messages": [{"role": "user", "content": parts}, messages[1]]},
            {"image": ["b.jpg", "c.jpg"], "conversations": []},
        ],
        skip=skipped.append,
    )
    assert [record.image for record in records] == ["b.jpg", "c.jpg", "d.jpg"]
    assert {(one.question, one.answer) for record in records for one in record.instructions} == {("What?", "A hill.")}
    assert skipped == ["items without an image", "items without an image", "items with several images"]


def test_a_part_without_text_is_no_text():
    """A table gives every part all keys: the part of an image has an empty text, and so has a broken answer."""
    question = [{"type": "image", "text": None}, {"type": "text", "text": "What?"}, {"image": "a.jpg", "text": None}]

    def item(answer):
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"image": "a.jpg", "messages": turns}

    (record,) = from_conversations([item([{"type": "text", "text": "A hill."}])])
    assert [(one.question, one.answer) for one in record.instructions] == [("What?", "A hill.")]
    for broken in (None, 5, ["A hill."]):
        with pytest.raises(DataError, match="turn 1 must be"):
            from_conversations([item([{"type": "text", "text": broken}])])
    with pytest.raises(DataError, match=r"key 'instructions\.0\.answer'"):
        from_conversations([item([{"type": "image", "text": None}])])


@pytest.mark.parametrize("one", ["Awe", "AWE", "awe", "\u00c9mu"])
@pytest.mark.parametrize("swapped", [False, True])
def test_case_does_not_distinguish_the_emotions_of_an_image(one, swapped):
    other = "E\u0301MU" if one == "\u00c9mu" else "aWe"
    items = [
        {"image": "a.jpg", "conversations": _turns("?", f"Predict emotion: {other}")},
        {"image": "a.jpg", "emotion": one, "conversations": _turns("Why?", "The sky is wide.")},
    ]
    items = items[::-1] if swapped else items
    (record,) = from_conversations(items, label_set="mikels8")
    # The first one stays as it is; answers are lower case.
    assert record.emotion == (one if swapped else other.lower()) and len(record.instructions) == 2
    with pytest.raises(DataError, match=r"item 2 .*: image 'a.jpg' is 'fear' here and '.*' before"):
        from_conversations([*items, {"image": "a.jpg", "emotion": "fear", "conversations": _turns("?", "!")}])


def test_an_image_has_one_split():
    items = [{"image": "a.jpg", "split": split, "conversations": _turns("?", "!")} for split in ("train", "val")]
    with pytest.raises(DataError, match=r"item 1 .*image 'a.jpg' is in 'val' here and in 'train' before"):
        from_conversations(items)


def test_published_items_with_duplicate_ids_become_separate_records():
    def item(image, *turns):
        sides = ("human", "gpt") * (len(turns) // 2)
        return {
            "id": "00001",
            "image": image,
            "conversations": [{"from": side, "value": text} for side, text in zip(sides, turns)],
        }

    items = [
        item("awe_00001.jpg", "<image>\nWhich one?", "Predict emotion: awe"),
        item("fear_00001.jpg", "Who?", "A man.", "Where?", "At home.\n<image>"),
        item("awe_00001.jpg", "What?", "A hill."),
    ]
    first, second = from_conversations(items, source="emovit", label_set="mikels8")
    assert (first.id, first.emotion, first.label_set) == ("emovit/awe_00001", "awe", "mikels8")
    assert [(i.kind, i.question) for i in first.instructions] == [
        ("categorical", "Which one?"),
        ("conversation", "What?"),
    ]
    assert (second.id, second.emotion) == ("emovit/fear_00001", None)
    assert [(i.question, i.answer) for i in second.instructions] == [
        ("Who?", "A man."),
        ("Question: Who? Answer: A man. Question: Where?", "At home."),
    ]
    twins = from_conversations([item("a.jpg", "?", "!"), item("a.png", "?", "!"), item("b.jpg", "?", "!")])
    assert [record.id for record in twins] == [f"conversations/{name}" for name in ("a.jpg", "a.png", "b")]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"id": 7, "image": 3, "conversations": []}, r"item 0 \(id 7\): 'image' must be the path of an image, got 3"),
        ({"image": ["a.jpg", None]}, "must be the path of an image"),
        ({"image": "a.jpg", "messages": [{"role": "system", "content": "Be kind."}]}, "in pairs"),
        ({"image": "a.jpg", "messages": [{"role": "user"}, {"role": "assistant", "content": "!"}]}, "turn 0 must be"),
        ({"image": "a.jpg", "conversations": [{"from": "human", "value": "?"}]}, "in pairs"),
        (
            {"image": "a.jpg", "conversations": [{"from": "gpt", "value": "?"}] * 2},
            "turns 0 and 1 must be from human and gpt",
        ),
        ("text", "expected an object"),
    ],
)
def test_broken_items_are_named(item, expected):
    with pytest.raises(DataError, match="instructions.json: .*" + expected):
        from_conversations([item], place="instructions.json")


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_a_byte_order_mark_is_ignored(tmp_path, lines):
    records = [_record().model_copy(update={"id": f"a/{number}"}) for number in range(lines)]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(record.to_json() + "\n" for record in records), encoding="utf-8-sig")
    assert list(read_records(path)) == records
    assert parse_record("\ufeff" + records[0].to_json(), "here") == records[0]


@pytest.mark.parametrize("image", ["", ".", "./", "/"])
def test_items_whose_image_has_no_name_are_skipped(image):
    turns = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A"}]
    skipped = []
    items = [{"images": [image], "messages": turns}, {"images": ["a.jpg"], "messages": turns}]
    records = from_conversations(items, skip=skipped.append)
    assert [record.image for record in records] == ["a.jpg"] and skipped == ["items without an image"]


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({0: 1.0}, "0 is no action unit"), ({-9: 1.0}, "-9 is no action unit"), ({100: 1.0}, "100 is no action unit"),
        ({12: -0.5}, "unit 12 has the intensity -0.5"), ({12: 9.0}, "unit 12 has the intensity 9"),
    ],
)  # fmt: skip
def test_impossible_action_units_are_refused(units, message):
    with pytest.raises(DataError, match=message):
        build_record({"id": "a", "image": "a", "split": "train", "source": "s", "action_units": units}, "here")
