"""A chat model as a teacher, beside one that is a program, with the local server.

- Its probabilities are combined with those of the others; a second run sends nothing, and pays nothing twice; other
  settings ask again.
- An image without a face and a reply that cannot be read have the statuses of teachers, and lose nothing else.
- A wrong key stops the command with what to do; the answers until then are kept.
- Each model has its own ledger, which has the model's rows of one that earlier versions shared.
- SEKE takes it as an annotator, with the address of its options; options without a chat model are errors.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import fake_teacher as fake
import pytest
from PIL import Image

from lavis_emovit.emotion.labels_faces import EXPRESSIONS7
from lavis_emovit.records import EmotionRecord, read_records, write_records

_spec = importlib.util.spec_from_file_location("chat_server", Path(__file__).parents[1] / "chat" / "chat_server.py")
chat_server = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("chat_server", chat_server)
_spec.loader.exec_module(chat_server)
Action, ChatServer = chat_server.Action, chat_server.ChatServer


@pytest.fixture(autouse=True)
def endpoint_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", chat_server.KEY)


@pytest.fixture
def photos(tmp_path):
    """Three images that the fake teachers judge."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate("abc"):
        Image.new("RGB", (64, 60 + number), (fake.ONE, 0, 0)).save(folder / f"{name}.png")
    return folder


def says(has_face=True, **shares):
    values = {**dict.fromkeys(EXPRESSIONS7.labels, 0), **shares}
    return Action(json.dumps({"has_face": has_face, "expressions": values}))


def test_a_chat_model_among_teachers(emovit, tmp_path, photos, two_fakes):
    out = tmp_path / "out"
    command = ("facial", "annotate", photos, "--teacher", "happy-fake", "--teacher", "chat:gpt-4.1-mini", "--out", out)
    replies = [says(sadness=60, neutral=20), says(has_face=False), Action("I would rather not say.")]
    with ChatServer(lambda body, number: replies[number]) as server:
        code, output, errors = emovit(*command, "--base-url", server.url)
        assert code == 0, errors
        assert [body["temperature"] for body in server.bodies] == [0.0] * 3
    assert "happy-fake 1.0: ok 3" in output and "ok 1, no_face 1, error 1" in output
    records = list(read_records(out / "records.jsonl"))
    # Happy 0.8 and neutral 0.2; sad 0.75 and neutral 0.25.
    assert records[0].votes == pytest.approx({"happiness": 0.4, "sadness": 0.375, "neutral": 0.225})
    assert [one.extra["expression_by"].count(" + ") for one in records] == [1, 0, 0]
    ledger = out / "ledger-gpt-4.1-mini.jsonl"
    num_paid = ledger.read_text().count('"request"')
    with ChatServer(lambda body, number: says(fear=1)) as server:
        assert emovit(*command, "--base-url", server.url)[0] == 0
        assert server.num_requests == 0
    assert list(read_records(out / "records.jsonl")) == records and ledger.read_text().count('"request"') == num_paid
    # Answers with other settings are those of another version.
    (tmp_path / "warm.yaml").write_text("chat: {temperature: 0.7}")
    with ChatServer(lambda body, number: says(fear=1)) as server:
        assert emovit(*command, "--base-url", server.url, "--config", tmp_path / "warm.yaml")[0] == 0
        assert [body["temperature"] for body in server.bodies] == [0.7] * 3
    assert next(read_records(out / "records.jsonl")).votes["fear"] == pytest.approx(0.5)


def test_models_with_like_names_have_their_own_ledgers(emovit, tmp_path, photos, two_fakes):
    """`a/b` and `a:b` shared one in earlier versions; what was paid for then is not paid again."""
    out = tmp_path / "out"
    command = ("facial", "annotate", photos, "--out", out)

    def ask(*names):
        with ChatServer(lambda body, number: says(fear=1)) as server:
            models = (option for name in names for option in ("--teacher", f"chat:{name}"))
            code, _, errors = emovit(*command, *models, "--base-url", server.url)
            assert code == 0, errors
        return server.num_requests

    assert ask("a/b") == ask("a-b") == 3
    (own,) = (path for path in out.glob("ledger-a-b-*.jsonl"))
    shared = out / "ledger-a-b.jsonl"
    shared.write_bytes(shared.read_bytes() + own.read_bytes().partition(b"\n")[2])
    own.unlink()
    (out / "answers.jsonl").unlink()
    assert ask("a/b", "a:b", "a-b") == 3
    assert len(list(out.glob("ledger-a-b*.jsonl"))) == 3
    assert {json.loads(line).get("model", "a/b") for line in own.read_text().splitlines()} == {"a/b"}
    (out / "answers.jsonl").unlink()
    assert ask("a/b", "a:b", "a-b") == 0


def test_models_with_like_names_can_be_asked_in_any_order(emovit, tmp_path, photos):
    names = ("--teacher", "chat:a-b", "--teacher", "chat:a/b", "--out", tmp_path / "out")
    with ChatServer(lambda body, number: says(fear=1)) as server:
        code, _, errors = emovit("facial", "annotate", photos, *names, "--base-url", server.url)
        assert code == 0, errors
        assert server.num_requests == 6


def test_a_wrong_key_stops(emovit, tmp_path, photos, two_fakes):
    out = tmp_path / "out"
    command = ("facial", "annotate", photos, "--teacher", "chat:m", "--teacher", "happy-fake", "--out", out)

    def second_fails(body, number):
        return Action(status=401, error={"message": "no such key"}) if number else says(fear=100)

    with ChatServer(second_fails) as server:
        code, _, errors = emovit(*command, "--base-url", server.url)
    assert code != 0 and "teacher 'chat:m' stopped" in errors and "OPENAI_API_KEY" in errors
    assert (out / "answers.jsonl").read_text().count("chat:m") == 1
    with ChatServer(lambda body, number: says(anger=100)) as server:
        assert emovit(*command, "--base-url", server.url)[0] == 0
        assert server.num_requests == 2
    assert [one.votes.get("fear") for one in read_records(out / "records.jsonl")] == [0.5, None, None]


def test_seke_with_a_chat_model_as_teacher(emovit, tmp_path, photos, two_fakes):
    bare = [EmotionRecord(id=name, image=f"{name}.png", split="train", source="s") for name in "abc"]
    write_records(tmp_path / "bare.jsonl", bare)
    command = ("generate", "seke", tmp_path / "bare.jsonl", "--images", photos, "--out", tmp_path / "seke")
    with ChatServer(lambda body, number: says(happiness=100)) as server:
        chat = ("--teacher", "chat:m", "--reviewer", "happy-fake", "--base-url", server.url)
        code, output, errors = emovit(*command, *chat)
        assert code == 0, errors
        assert server.num_requests == 3 and "chat:m" in output
    written = list(read_records(tmp_path / "seke" / "records.jsonl"))
    assert [one.emotion for one in written] == ["happiness"] * 3 and all(one.valence > 0 for one in written)
    assert "chat:m " in written[0].extra["seke_expression_by"]
    assert written[0].extra["seke_reviewed_by"] == "happy-fake 1.0"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--teacher", "happy-fake", "--max-usd", "1"), "are for chat models; add chat:MODEL"),
        (("--teacher", "chat:m", "--engine", "ray"), "--engine: chat models are only asked by this process"),
        (("--teacher", "chat:m", "--max-usd", "1"), "price"),
        (("--teacher", "chat:"), "no teacher 'chat:'"),
    ],
)
def test_errors(emovit, tmp_path, photos, two_fakes, more, message):
    code, _, errors = emovit("facial", "annotate", photos, "--out", tmp_path / "out", *more)
    assert code != 0 and message in errors


@pytest.mark.parametrize("value", ["9" * 400, "1.7e308", "101", "1e400"])
def test_a_number_beyond_its_range_is_a_fault_of_the_reply(emovit, tmp_path, photos, value):
    reply = says(sadness=7).text.replace("7", value)
    with ChatServer(lambda body, number: Action(reply)) as server:
        command = ("facial", "annotate", photos, "--teacher", "chat:m", "--base-url", server.url, "--out")
        code, output, errors = emovit(*command, tmp_path / "out")
    assert code == 2 and "error 3" in output, errors
    assert "does not have a number from 0 to 100 for each expression" in errors


@pytest.mark.parametrize("model", [300 * "m", 300 * "m/", 100 * "\u6587"], ids=["one", "parts", "bytes"])
def test_a_long_name_of_a_model_has_a_ledger_of_its_own(model, tmp_path):
    from lavis_emovit.chat.ledger import Ledger
    from lavis_emovit.teachers.chat_teacher import ledger_of

    path = ledger_of(model, tmp_path)
    Ledger(path).close()
    assert path.is_file() and ledger_of(f"{model}2", tmp_path) != path
