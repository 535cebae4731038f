"""`emovit generate seke` as a command, with the local server and offline.

- With a server, records get the missing levels with their source and uncertainty; labels by people stay; the trail
  contains every attempt. A second run sends nothing and writes the same; it completes levels of an earlier run again.
- Instructions go from coarse to fine, name the source of their level, and replace only those of an earlier run.
- Batches: each call with `--no-wait` resumes all faces and adds one round. Records, conversations and shards are those
  of single requests. The manifest contains the settings; the preview shows only processed faces.
- `--check` hides one known level at a time, and never sends it. A dry run sends nothing.
- Offline, the tables alone answer. Invalid options are reported on one line.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from lavis_emovit.cli.main import EXIT_USER_ERROR, main
from lavis_emovit.emotion.facial import FACIAL_UNITS
from lavis_emovit.records import EmotionRecord, Instruction, read_records, write_records
from lavis_emovit.shards.verify import verify_shards

_spec = importlib.util.spec_from_file_location("chat_server", Path(__file__).parents[1] / "chat" / "chat_server.py")
chat_server = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("chat_server", chat_server)
_spec.loader.exec_module(chat_server)
Action, ChatServer, words_of = chat_server.Action, chat_server.ChatServer, chat_server.words_of

SMILE = {"expression": "happiness", "valence": 0.6, "arousal": 0.3, "units": [6, 12]}
REVIEWED = ("expression_verdict", "valence_verdict", "arousal_verdict", "units_verdict")
VERDICTS = {**dict.fromkeys(REVIEWED, "keep"), "unclear_units": [], "reason": "it is so"}


@pytest.fixture(autouse=True)
def endpoint_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", chat_server.KEY)


@pytest.fixture
def faces(tmp_path):
    """Four faces: one unlabelled, one with an expression, one with some units, one with all levels."""
    human = Instruction(kind="conversation", question="Who is it?", answer="A person.", provenance="human")
    known = [
        {},
        {"emotion": "happy", "label_set": "neutral_happy2", "instructions": [human]},
        {"action_units": {6: 3.0, 12: 4.0, 4: 0.0}, "valence": 0.5},
        {"emotion": "happiness", "label_set": "ekman6", "valence": 0.7, "arousal": 0.2,
         "action_units": {unit: 2.0 * (unit in (6, 12)) for unit in FACIAL_UNITS}},
    ]  # fmt: skip
    records = []
    for number, values in enumerate(known):
        Image.new("RGB", (40, 40), (40 * number, 90, 120)).save(tmp_path / f"{number}.png")
        records.append(EmotionRecord(id=f"f/{number}", image=f"{number}.png", split="train", source="f", **values))
    write_records(tmp_path / "records.jsonl", records)
    return tmp_path


def script(body, num_before):
    schema = body["response_format"]["json_schema"]["schema"]["properties"]
    values = {**SMILE, **VERDICTS}
    if "units" in schema:
        values["units"] = [unit for unit in SMILE["units"] if unit in schema["units"]["items"]["enum"]]
    return Action(json.dumps({name: values[name] for name in schema}))


def run(faces, out, *more, server=None):
    address = ["--model", "gpt-4.1-mini", "--base-url", server.url] if server else []
    return main(["generate", "seke", str(faces / "records.jsonl"), "--out", str(out), *address, *more])


def test_with_a_server(faces, capsys):
    out = faces / "out"
    with ChatServer(script) as server:
        assert run(faces, out, "--dry-run", server=server) == 0 and not server.bodies
        assert "further answers at most" in capsys.readouterr().out
        assert run(faces, out, server=server) == 0
        assert len(server.bodies) == 3 * (4 + 1)
        first = (out / "records.jsonl").read_bytes()
        trail = [json.loads(line) for line in (out / "seke.jsonl").read_text().splitlines()]
        assert run(faces, out, server=server) == 0
        # The result as input of another run: generated levels are missing again, and already paid.
        write_records(faces / "records.jsonl", read_records(out / "records.jsonl"))
        assert run(faces, out, server=server) == 0
        assert len(server.bodies) == 3 * (4 + 1) and (out / "records.jsonl").read_bytes() == first
    bare, smile, coded, full = read_records(out / "records.jsonl")
    assert (bare.emotion, bare.label_set, bare.valence) == ("happiness", "expressions8", 0.6)
    assert bare.extra["seke_expression_by"] == "chat:gpt-4.1-mini" and bare.extra["seke_expression_uncertainty"] == 0.0
    assert (smile.emotion, smile.label_set) == ("happy", "neutral_happy2")
    assert smile.extra["seke_expression_by"] == "person" and smile.extra["seke_units_by"] == "chat:gpt-4.1-mini"
    assert smile.instructions[0].provenance == "human"
    assert coded.action_units[12] == 4.0 and len(coded.action_units) == 17 and coded.action_units[1] == 0.0
    assert coded.extra["seke_units_by"] == "person + chat:gpt-4.1-mini" and (coded.valence, coded.arousal) == (0.5, 0.3)
    assert not any(name.startswith("seke_") for name in full.extra)
    assert [item.provenance.split()[0].split("/")[0] for item in full.instructions] == [
        "seke:expression", "seke:affect", "seke:units", "seke:reasoning",
    ]  # fmt: skip
    assert all(item.provenance.endswith(" person") for item in full.instructions)
    assert full.instructions[0].answer == "Predict emotion: happiness"
    assert "AU6+AU12 is the prototype of happiness" in full.instructions[-1].answer
    assert bare.instructions[1].provenance.endswith("chat:gpt-4.1-mini uncertainty=0")
    assert [len(row["attempts"]) for row in trail] == [4, 4, 4] and all(row["review"]["verdicts"] for row in trail)
    assert all(re.fullmatch("[0-9a-f]{64}", item["request"]) for row in trail for item in row["attempts"])


def test_batches_and_exports(faces, tmp_path, capsys):
    other = EmotionRecord(id="f/other", image="0.png", split="val", source="f", emotion="fear", label_set="ekman6")
    human = Instruction(kind="conversation", question="Not of this run?", answer="No.", provenance="human")
    records = [*read_records(faces / "records.jsonl"), other.model_copy(update={"instructions": [human]})]
    write_records(faces / "records.jsonl", records)

    def batched(batch, lines):
        bodies = [line["body"] for line in lines]
        replies = [json.loads(chat_server.render(script(body, 0), body)[1]) for body in bodies]
        output = [
            {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": reply}, "error": None}
            for line, reply in zip(lines, replies)
        ]
        return {"status": "completed", "output": output}

    single, batches = faces / "single", faces / "batches"
    more = ["--conversations", "--shards", "--no-check-overlap"]
    with ChatServer(script) as server:
        server.batch_script = batched
        assert run(faces, single, "--no-check-overlap", server=server) == 0
        num_single = server.num_requests
        for unfinished in (3, 3, 0):  # submit answers; collect them and submit reviews; collect reviews
            assert run(faces, batches, "--batch", "--no-wait", *more, server=server) == 0
            assert (f"unfinished {unfinished}" in capsys.readouterr().out) == bool(unfinished)
        assert server.num_requests == num_single and len(server.batches) == 2
        waited = faces / "waited"
        assert run(faces, waited, "--batch", *more, server=server) == 0 and len(server.batches) == 4
    expected = (single / "records.jsonl").read_bytes()
    assert (batches / "records.jsonl").read_bytes() == (waited / "records.jsonl").read_bytes() == expected
    written = list(read_records(waited / "records.jsonl"))
    items = [item for path in sorted(waited.glob("conversations-*.json")) for item in json.loads(path.read_text())]
    assert len(items) == sum(len(record.instructions) for record in written) > 10
    assert verify_shards(waited / "shards" / "train").ok and (waited / "shards" / "val" / "index.json").exists()
    manifest = json.loads((waited / "manifest.json").read_text())
    assert manifest["seke"]["n_max"] == 8 and manifest["seke"]["enough"]["units"] == 0.75
    assert set(manifest["output"]) == {"records.jsonl", "conversations-train.json", "conversations-val.json"}
    page = (waited / "preview.html").read_text()
    assert "f/3" in page and "f/other" not in page and "Not of this run?" not in page
    assert (
        "<dt>affect by</dt><dd>chat:gpt-4.1-mini</dd>" in page and "<dt>action units</dt><dd>6, 12, of 17</dd>" in page
    )
    assert "levels: arousal kept 3" in page


def test_check_hides_the_requested_level(faces, capsys):
    with ChatServer(script) as server:
        assert run(faces, faces / "checked", "--check", server=server) == 0
        sent = [(words_of(body).split("Wanted:")[0], body["response_format"]) for body in server.bodies]
    shown = capsys.readouterr().out
    assert "expression: accuracy 1.000" in shown and "of 2 faces" in shown
    report = json.loads((faces / "checked" / "check.json").read_text())["levels"]
    assert report["units"]["value"] == 1.0 and report["expression"]["calls_per_face"] == 5.0
    assert len(sent) == 5 * (2 + 1 + 2)
    for text, form in sent:
        known = text.split("Proposal:")[0].split("Usual")[0]
        wanted = set(form["json_schema"]["schema"]["properties"]) & set(SMILE)
        assert not [name for name in wanted if f"- {name}" in known]
    assert not (faces / "checked" / "records.jsonl").exists()


def test_another_model_reviews_blindly(faces, capsys):
    with ChatServer(script) as server:
        more = ["--reviewer", "critic-1", "--blind", "--resamples", "1"]
        assert run(faces, faces / "out", *more, "--dry-run", server=server) == 0 and not server.bodies
        assert "resampled answers at most" in capsys.readouterr().out
        assert run(faces, faces / "out", *more, server=server) == 0
        reviews = [body for body in server.bodies if body["model"] == "critic-1"]
    assert len(reviews) == 3 and all("Proposal" not in words_of(body) for body in reviews)
    assert all(body["temperature"] == 0.0 for body in reviews) and len(server.bodies) == 3 * 5
    record = next(iter(read_records(faces / "out" / "records.jsonl")))
    assert record.extra["seke_reviewed_by"] == "chat:critic-1"


def test_offline(faces, capsys):
    assert run(faces, faces / "offline") == 0
    bare, smile, coded, _ = read_records(faces / "offline" / "records.jsonl")
    assert bare.emotion is None and not bare.instructions
    assert smile.action_units[6] == 1.0 and smile.extra["seke_units_by"] == "offline/priors:2"
    assert coded.emotion == "happiness" and coded.valence == 0.5
    assert "nothing_known 1" in capsys.readouterr().out


MODEL = ["--model", "m", "--base-url", "http://localhost:9/v1"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--n0", "9"], "n0 (9) must not be above n_max (8)"),
        (["--priors", "gone.json"], "gone.json"),
        (["--split", "test"], "no records of split 'test'"),
        (["--config", "CONFIG", "--model", "m", "--base-url", "http://localhost:9/v1"], "temperature 0"),
        (["--config", "WRONG"], "did you mean 'n_max'"),
        (["--batch"], "--batch needs a chat model"),
        (["--no-wait"], "--no-wait applies to batches"),
        (["--check", "--shards"], "--check writes no records"),
        (["--check", "--no-wait"], "--check needs all answers"),
        (["--reviewer", "m"], "--reviewer needs a model"),
        (["--blind"], "--blind: nothing is reviewed without --model"),
        (
            ["--reviewer", "r", "--verification", "off", *MODEL],
            "--reviewer: nothing is reviewed with verification 'off'",
        ),
        (["--blind", "--verification", "rules", *MODEL], "--blind: nothing is reviewed with verification 'rules'"),
        (["--max-error", "0.2", *MODEL], "--max-error is for the thresholds that --check fits"),
    ],
)
def test_errors(faces, more, message, capsys):
    (faces / "config.yaml").write_text("chat: {temperature: 0}\n")
    (faces / "wrong.yaml").write_text("seke: {nmax: 3}\n")
    named = {"CONFIG": str(faces / "config.yaml"), "WRONG": str(faces / "wrong.yaml")}
    assert run(faces, faces / "out", *(named.get(word, word) for word in more)) == EXIT_USER_ERROR
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--no-instructions"], ["--check"], []])
def test_labels_are_checked_before_any_request(more, faces, capsys):
    last = EmotionRecord(
        id="f/5", image="1.png", split="train", source="f", label_set="labels:one", valence=0, arousal=0
    )
    write_records(faces / "records.jsonl", [*read_records(faces / "records.jsonl"), last])
    (faces / "bare.yaml").write_text("seke: {instructions: false}\n")
    more = ["--config", str(faces / "bare.yaml")] if more == ["--no-instructions"] else more
    with ChatServer(script) as server:
        assert run(faces, faces / "out", *more, server=server) == EXIT_USER_ERROR
        assert "label set 'labels:one'" in capsys.readouterr().err and server.num_requests == 0


def test_labels_are_written_in_the_words_of_their_set(faces):
    records = list(read_records(faces / "records.jsonl"))
    sets = ["labels:happy, sad", "neutral_happy2", "aff_wild8", "ekman6"]
    bare = [record.model_copy(update={"emotion": None, "label_set": name}) for record, name in zip(records, sets)]
    write_records(faces / "records.jsonl", bare)
    with ChatServer(script) as server:
        assert run(faces, faces / "out", server=server) == 0
    written = list(read_records(faces / "out" / "records.jsonl"))
    assert [record.emotion for record in written] == ["happy", "happy", "happiness", "happiness"]


@pytest.mark.parametrize("more", [[], ["--check"]])
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ('{"expression": "awe"}', "unreadable: "),
        ("I cannot see it.", "bad_json"),
        ('{"expression": "fear", "valence": 60, "arousal": 0, "units": []}', "unreadable: "),
    ],
)
def test_reason_of_unreadable_answers_is_printed(reply, reason, more, faces, capsys):
    with ChatServer(lambda body, number: Action(reply)) as server:
        run(faces, faces / "out", *more, server=server)
    shown = capsys.readouterr()
    assert reason in shown.out + shown.err


@pytest.mark.parametrize("fault", ["refused", "dead", "flagged"])
def test_levels_of_an_earlier_run_stay_if_no_face_gets_a_reply(fault, faces, tmp_path, capsys, monkeypatch):
    from lavis_emovit.chat import limits

    monkeypatch.setattr(limits, "_FIRST_PAUSE_S", 0.001)
    arguments = ["generate", "seke", str(faces / "records.jsonl"), "--out", str(tmp_path / "out"), "--no-sampling"]
    with ChatServer(script) as server:
        assert main([*arguments, "--model", "first", "--base-url", server.url]) == 0
    before = list(read_records(tmp_path / "out" / "records.jsonl"))
    assert before[0].emotion == "happiness" and before[0].instructions
    message = "Your input was flagged" if fault == "flagged" else "images are not supported"
    action = Action(status=403 if fault == "flagged" else 400, error={"message": message})
    with ChatServer(lambda body, number: action) as server:
        url = "http://127.0.0.1:9/v1" if fault == "dead" else server.url
        code = main([*arguments, "--model", "second", "--base-url", url])
    after = list(read_records(tmp_path / "out" / "records.jsonl"))
    if fault == "flagged":  # an answer, so the levels of the earlier run are replaced; the run goes on
        assert code == 0 and after[0].emotion is None and after[3] == before[3]
    else:
        assert code == EXIT_USER_ERROR and after == before
        assert "none of the 3 requests was answered" in capsys.readouterr().err
