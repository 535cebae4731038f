"""`emovit generate statements`, with the local server, and its review by people.

- Parrott's tree has 25 secondary emotions, and the words of the wheel of the same name.
- Votes and quotas by hand; a word that few models propose, or without a place on the tree, is not kept.
- Each kind of statement has a false one, made in its own way, that contradicts the true one.
- A generated set is evaluated at once by the suite's statement task; a second run sends nothing and writes the same.
- Four of five people decide; others' answers, unknown statements and other words in the table are errors.
- Replies that cannot be read are counted, and the image stays unchanged. Invalid options are reported on one line.
"""

from __future__ import annotations

import base64
import csv
import importlib.util
import io
import json
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from lavis_emovit.cli.main import EXIT_USER_ERROR, main
from lavis_emovit.emotion.parrott import PRIMARY_OF, SECONDARY_OF, TREE, polarity_of
from lavis_emovit.emotion.wheels import emotion_wheels
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.evaluation.suite.suite import run_suite
from lavis_emovit.generation.statements.proposals import Attachment, Proposal, read_proposal
from lavis_emovit.generation.statements.votes import vote
from lavis_emovit.records import EmotionRecord, read_records, write_records

_spec = importlib.util.spec_from_file_location("chat_server", Path(__file__).parents[1] / "chat" / "chat_server.py")
chat_server = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("chat_server", chat_server)
_spec.loader.exec_module(chat_server)
Action, ChatServer = chat_server.Action, chat_server.ChatServer

JOY = {
    "words": [{"word": "Joyful", "reason": "the child laughs."}, {"word": "relief", "reason": "the rain has stopped"}],
    "situation": {"text": "the first day of the holidays", "word": "excitement"},
    "viewer": {"role": "a teacher", "more": "hope", "less": "envy"},
}
FEAR = {
    "words": [{"word": "terror", "reason": "the dog bares its teeth"}, {"word": "dread", "reason": "it is dark"}],
    "situation": {"text": "a walk home at night", "word": "panic"},
    "viewer": {"role": "a dog trainer", "more": "pity", "less": "fear"},
}


@pytest.fixture(autouse=True)
def endpoint_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", chat_server.KEY)


@pytest.fixture
def images(tmp_path):
    """Bright images of joy and dark ones of fear, in all splits."""
    records = []
    for number in range(6):
        Image.new("RGB", (40, 30), (250, 240, 200 + number) if number % 2 else (10, 10, 30 + number)).save(
            tmp_path / f"{number}.png"
        )
        split = ("test", "test", "test", "test", "train", "val")[number]
        records.append(EmotionRecord(id=f"i/{number}", image=f"{number}.png", split=split, source="i"))
    write_records(tmp_path / "records.jsonl", records)
    return tmp_path


def script(body, num_before):
    """What a model says about a bright or a dark image; the third model disagrees about one word."""
    url = next(part for part in body["messages"][-1]["content"] if part["type"] == "image_url")["image_url"]["url"]
    pixels = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("L")
    reply = JOY if pixels.getpixel((5, 5)) > 128 else FEAR
    if body["model"] == "c":
        reply = {**reply, "words": [*reply["words"][:1], {"word": "saudade", "reason": "the sea is far away"}]}
    return Action(json.dumps(reply))


def run(images, out, *more, server=None):
    address = ["--base-url", server.url] if server else []
    models = ["--model", "a", "--proposer", "b", "--proposer", "c"] if server else []
    command = ["generate", "statements", str(images / "records.jsonl"), "--split", "every", "--out", str(out)]
    return main([*command, *models, *address, *more])


def test_tree():
    assert len(TREE) == 6 and len(PRIMARY_OF) == 25
    words = [word for below in TREE.values() for text in below.values() for word in text.split()]
    assert len(words) == len(set(words)) and not set(words) & (set(PRIMARY_OF) - set(words))
    on_wheel = emotion_wheels().wheel("parrott").cluster_of
    assert {word: PRIMARY_OF[place] for word, place in SECONDARY_OF.items() if word in on_wheel} == {
        word: cluster for word, cluster in on_wheel.items() if word in SECONDARY_OF
    }
    assert len(set(SECONDARY_OF) & set(on_wheel)) > 100
    assert polarity_of("zest") == "pleasant" and polarity_of("neglect") == "unpleasant"


def test_votes_by_hand():
    def proposal(model, *words):
        return Proposal(model, tuple((word, "x") for word in words), ("s", "joy"), ("r", "joy", "fear"))

    proposals = [
        proposal("a", "joy", "delight", "grief", "terrified"),
        proposal("b", "joy", "glee", "sadness", "saudade"),
        proposal("c", "delight", "joyful", "hope"),
    ]
    found = vote(proposals, Attachment(), least_share=0.6, num_words=4)
    assert found.votes == {"cheerfulness": 3, "sadness": 2, "horror": 1, "optimism": 1}
    # Of four places, 4 * 3/5 = 2.4 and 4 * 2/5 = 1.6: two each. Joy was proposed by three models, delight by two.
    assert found.words == {"joy": "cheerfulness", "delight": "cheerfulness", "grief": "sadness", "sadness": "sadness"}
    assert found.unattached == ("saudade",) and found.polarity == "mixed"
    placed = vote(proposals, Attachment({"saudade": "longing"}), least_share=0.3, num_words=1)
    assert placed.votes["longing"] == 1 and not placed.unattached
    assert len(placed.words) == 5  # one for each kept emotion
    assert not vote([], Attachment(), least_share=0.5, num_words=4).words


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"words": []}, "no list of words"),
        ({"words": [{"word": "joy"}]}, "lacks a text under word or reason"),
        ({"situation": "night"}, "situation lacks"),
        ({"viewer": {"role": "a", "more": "", "less": "b"}}, "viewer lacks"),
    ],
)
def test_replies_are_read_strictly(change, problem):
    found = read_proposal(json.dumps({**JOY, **change}), "m")
    assert (
        found == problem or (problem is None and found.words[0] == ("Joyful", "the child laughs")) or problem in found
    )
    assert read_proposal("I see joy.", "m") == "not one JSON object"


def test_from_images_to_an_evaluation(images, capsys, monkeypatch):
    out = images / "out"
    with ChatServer(script) as server:
        assert run(images, out, "--dry-run", server=server) == 0 and not server.bodies
        assert run(images, out, "--shards", server=server) == 0
        assert len(server.bodies) == 6 * 3
        first = (out / "records.jsonl").read_bytes()
        assert run(images, out, server=server) == 0
        assert len(server.bodies) == 6 * 3 and (out / "records.jsonl").read_bytes() == first
    shown = capsys.readouterr().out
    assert "words without a place on the tree: saudade 6" in shown and "statements: 6 of 6 records" in shown
    records = list(read_records(out / "records.jsonl"))
    assert records[1].words == ["joy", "relief"] and records[0].words == ["terror", "dread"]
    by_class = {}
    for statement in records[1].statements:
        by_class[statement.categories["class"], statement.is_correct] = statement
    assert len(by_class) == len(records[1].statements) == 8
    texts = {key: statement.text for key, statement in by_class.items()}
    assert texts["interpretation", True] == "The image is likely to evoke joy, because the child laughs."
    # From the image of the other kind.
    assert "dog bares its teeth" in texts["interpretation", False] or "it is dark" in texts["interpretation", False]
    assert texts["context", True].endswith("the image is likely to evoke excitement.")
    word = texts["context", False].split()[-1].rstrip(".")
    assert polarity_of(SECONDARY_OF[word]) == "unpleasant" and texts["context", False].startswith("If the situation is")
    assert texts["subjectivity", True] == "Somebody who is a teacher would feel hope rather than envy."
    assert texts["subjectivity", False] == "Somebody who is a teacher would feel envy rather than hope."
    assert "mainly pleasant" in texts["polarity", True] and "mainly unpleasant" in texts["polarity", False]
    ways = {one.categories["subclass"] for one in records[1].statements if not one.is_correct}
    assert ways == {"other_image", "opposite_word", "reversed_preference", "flipped_polarity"}
    assert json.loads((out / "manifest.json").read_text())["statements"]["models"] == ["a", "b", "c"]

    monkeypatch.setenv("EMOVIT_DATA", str(out))
    suite = {
        "name": "made",
        "output_dir": str(images / "suite"),
        "models": {"tiny": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu"}},
        "benchmarks": {
            "made": {
                "dataset": "emoset",
                "kind": "statement",
                "config": {"build_info": {"images": {"storage": "shards"}}},
            }
        },
        "methods": ["likelihood"],
        "probe": False,
        "report": False,
        "num_threads": 1,
    }
    (images / "suite.yaml").write_text(yaml.safe_dump({"suite": suite}))
    summary = run_suite(load_suite(images / "suite.yaml", ()))
    (found,) = summary["benchmarks"]["made"]["results"]
    assert found["num_samples"] == 4 * 8 and set(found["metrics"]["statements"]["categories"]["class"]) == {
        "interpretation", "context", "subjectivity", "polarity",
    }  # fmt: skip


def test_review_by_people(images, capsys):
    out = images / "out"
    with ChatServer(script) as server:
        assert run(images, out, "--num-reviewed", "8", server=server) == 0
    pack = list(csv.DictReader((out / "review.csv").open()))
    assert len(pack) == 8 and not any(row["answer"] for row in pack) and "is_correct" not in pack[0]
    truth = {one.id: one.is_correct for record in read_records(out / "records.jsonl") for one in record.statements}
    said = [5, 4, 3, 2, 1, 0, 5, 5]  # how many of five people say correct; of the last one, four answer
    for person in range(5):
        with (images / f"p{person}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, pack[0])
            writer.writeheader()
            for place, (row, count) in enumerate(zip(pack, said)):
                answer = "correct" if person < count else "Incorrect "
                writer.writerow({**row, "answer": "" if place == 7 and person == 0 else answer})
    tables = [str(images / f"p{person}.csv") for person in range(5)]
    reviewed = ["generate", "statements-reviewed", str(out / "records.jsonl")]
    assert main([*reviewed, *tables, "--out", str(images / "reviewed.jsonl")]) == 0
    kept = {one.id: one.is_correct for record in read_records(images / "reviewed.jsonl") for one in record.statements}
    names = [row["statement"] for row in pack]
    expected = dict(zip(names, [True, True, None, None, False, False, True, None]))
    assert kept == {name: value for name, value in expected.items() if value is not None}
    changed = sum(truth[name] != value for name, value in kept.items())
    shown = capsys.readouterr().out
    assert f"kept, {changed} of them with another truth; dropped: 2 disputed, {len(truth) - 7} with too few" in shown
    (images / "bad.csv").write_text("statement,answer\ni/9/s0,correct\n")
    (images / "word.csv").write_text(f"statement,answer\n{names[0]},maybe\n")
    (images / "bare.csv").write_text("statement\n")
    for table, message in (
        ("bad.csv", "i/9/s0"),
        ("word.csv", "neither correct nor"),
        ("bare.csv", "no column 'answer'"),
    ):
        assert main([*reviewed, str(images / table), "--out", str(images / "x.jsonl")]) == EXIT_USER_ERROR
        assert message in capsys.readouterr().err and not (images / "x.jsonl").exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("{0},T,correct\n{1},T,correct,\n", None),
        ('{0},"T,correct\n{1},T,correct\n', "close or remove the quote"),
        ('{0},T,correct\n{1},"T"x,correct\n', "close or remove the quote"),
    ],
)
def test_no_row_of_a_filled_table_is_lost(images, capsys, table, message):
    statements = [{"text": "T", "is_correct": True, "id": f"s{number}"} for number in range(2)]
    record = EmotionRecord(id="i", image="0.png", split="test", source="i", statements=statements)
    write_records(images / "r.jsonl", [record])
    rows = table.format("s0", "s1")
    (images / "a.csv").write_text(f"statement,text,answer\n{rows}")
    (images / "b.csv").write_text(f"statement,text,answer\n{rows}".replace(",", ";"))
    (images / "c.csv").write_text("statement,answer,answer\ns0,correct,incorrect\n")
    command = ["generate", "statements-reviewed", str(images / "r.jsonl")]
    for name in ("a", "b"):
        found = main([*command, str(images / f"{name}.csv"), "--out", str(images / f"{name}.jsonl")])
        shown = capsys.readouterr()
        if message is None:
            assert found == 0 and "2 statements of 1 images kept" in shown.out
        else:
            assert found == EXIT_USER_ERROR and message in shown.err
    assert main([*command, str(images / "c.csv"), "--out", str(images / "c.jsonl")]) == EXIT_USER_ERROR
    assert "2 columns 'answer'" in capsys.readouterr().err
    twice = [str(images / "a.csv"), str(images / ".." / images.name / "a.csv")]
    assert main([*command, *twice, "--out", str(images / "d.jsonl")]) == EXIT_USER_ERROR
    assert "a table is given twice" in capsys.readouterr().err


def test_words_and_statements_by_people_stay(images, capsys):
    by_people = [{"words": ["pride"]}, {"statements": [{"text": "People said so.", "is_correct": True, "id": "p"}]}]
    earlier = list(read_records(images / "records.jsonl"))
    records = [
        EmotionRecord.model_validate({**record.model_dump(), **more}) for record, more in zip(earlier, by_people)
    ]
    write_records(images / "records.jsonl", [*records, *earlier[2:]])
    with ChatServer(script) as server:
        assert run(images, images / "out", server=server) == 0
        assert len(server.bodies) == 4 * 3
    assert "with earlier words or statements, which stay 2" in capsys.readouterr().out
    found = list(read_records(images / "out" / "records.jsonl"))
    assert found[:2] == records and all(record.statements for record in found[2:])
    assert not any(row["statement"] == "p" for row in csv.DictReader((images / "out" / "review.csv").open()))


def test_unreadable_replies_and_disagreement(images, capsys):
    def mixed(body, num_before):
        return Action('{"words": []}') if body["model"] == "c" else script(body, num_before)

    with ChatServer(mixed) as server:
        assert run(images, images / "out", server=server) == EXIT_USER_ERROR
    shown = capsys.readouterr()
    assert "without a proposal of every model 6" in shown.out and "unreadable: words is no list of words" in shown.out
    assert not any(record.statements for record in read_records(images / "out" / "records.jsonl"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"saudade": "longing", "saudade": "joy"}', "the key 'saudade' is repeated"),
        ('{"Saudade": "longing", " saudade": "sadness"}', "'saudade' is there 2 times, in other spellings"),
        ('{"saudade": ["longing"]}', "saudade: '['longing']' is no secondary emotion"),
        ('{"saudade": true, " ": "longing"}', "a word is blank"),
    ],
)
def test_a_word_has_one_place_on_the_tree(images, capsys, content, message):
    (images / "places.json").write_text(content)
    more = ["--model", "a", "--base-url", "http://localhost:9/v1", "--attachments", str(images / "places.json")]
    assert run(images, images / "out", *more) == EXIT_USER_ERROR
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "add --model"),
        (["--model", "a", "--base-url", "http://localhost:9/v1", "--proposer", "a"], "every model proposes once"),
        (["--model", "a", "--base-url", "http://localhost:9/v1", "--attachments", "PLACES"], "did you mean 'longing'"),
        (["--model", "a", "--base-url", "http://localhost:9/v1", "--attachments", "gone.json"], "gone.json"),
    ],
)
def test_errors(images, more, message, capsys):
    (images / "places.json").write_text('{"saudade": "longin"}')
    more = [str(images / "places.json") if word == "PLACES" else word for word in more]
    assert run(images, images / "out", *more) == EXIT_USER_ERROR
    assert message in capsys.readouterr().err
