"""`emovit generate synthesis`, with the local server.

- A text stays only if it has the three parts, names every active unit and no other, and concludes the right label.
- The model sees the truth and the face of the record; the provenance of a text names prompt and model.
- Rejected replies are counted by reason and listed; faces without a truth are counted and not sent.
- The same command again sends nothing and writes the same; the next model's texts replace earlier ones, and faces
  without a new text keep theirs, unless the truth has changed.
- With a recipe, one command writes, trains and writes again; it resumes behind a training that failed. A launcher can
  start the trainings on several processes.
- The rounds are over when the acceptance rate no longer rises; then, and for models of earlier rounds, it is an error.
  With a recipe, they are also over after `--rounds`.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from lavis_emovit.cli.main import EXIT_USER_ERROR, main
from lavis_emovit.distributed import children
from lavis_emovit.distributed.signals import RunStopped
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.generation.seke.levels import Levels
from lavis_emovit.generation.synthesis import check_text
from lavis_emovit.records import EmotionRecord, read_records, write_records

_spec = importlib.util.spec_from_file_location("chat_server", Path(__file__).parents[1] / "chat" / "chat_server.py")
chat_server = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("chat_server", chat_server)
_spec.loader.exec_module(chat_server)
Action, ChatServer = chat_server.Action, chat_server.ChatServer

SMILE = """Observation: AU6, the cheek raiser, lifts the cheeks, and AU12, the lip corner puller, draws up both corners.
Interpretation: the two movements together make an open and honest smile that reaches the eyes.
Conclusion: the expression is {label}."""
GOOD = SMILE.format(label="happiness")
TWO_RANKS = f"{shlex.quote(sys.executable)} -m torch.distributed.run --standalone --nproc_per_node=2"
REST = """Observation: no action unit is active, so brows, lids and lips are where they are at rest.
Interpretation: nothing in the face moves, and nothing is held back either.
Conclusion: the expression is neutral."""


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        (GOOD, []),
        (GOOD.replace("\n", "\n\n"), []),
        (GOOD.replace("Interpretation: ", ""), ["format"]),
        (GOOD + "\nConclusion: the expression is happiness.", ["format"]),
        (f"Here it is.\n{GOOD}", ["format"]),
        (GOOD.replace("AU6, the cheek raiser, lifts the cheeks, and ", ""), ["missing_units"]),
        (
            GOOD.replace("AU6, the cheek raiser, lifts", "AU6, the cheek raiser, is not active and lifts"),
            ["missing_units"],
        ),
        (GOOD.replace("AU12, the", "AU4, the brow lowerer, too, and AU12, the"), ["false_units"]),
        (GOOD.replace("AU12, the", "AU9, the nose wrinkler, too, and AU12, the"), ["unverified_units"]),
        (SMILE.format(label="anger"), ["wrong_label"]),
        (SMILE.format(label="clear"), ["no_label"]),
        (GOOD.replace("an open", "according to the given labels an open"), ["mentions_source"]),
        ("Observation: AU6 and AU12.\nInterpretation: a smile.\nConclusion: happiness.", ["too_short"]),
    ],
)
def test_the_gate(text, failed):
    levels = Levels(expression="happiness", units={4: False, 6: True, 12: True})
    assert check_text(text, levels, "happiness", get_label_set("expressions7")) == failed


def test_a_face_at_rest_has_no_unit_to_name():
    levels = Levels(expression="neutral", units={4: False, 12: False})
    assert check_text(REST, levels, "neutral", get_label_set("expressions7")) == []
    assert check_text(GOOD, levels, "happiness", get_label_set("expressions7")) == ["false_units", "unverified_units"]


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """Function (...) -> the exit code of a round; four faces with a truth, and four without."""
    monkeypatch.setenv("OPENAI_API_KEY", chat_server.KEY)
    smile = {"emotion": "happiness", "label_set": "expressions7", "action_units": {4: 0, 6: 2.5, 12: 4}}
    records = [{**smile, "id": f"f/{number}"} for number in range(3)]
    records.append({**smile, "id": "f/rest", "emotion": "neutral", "action_units": {6: 0.0, 12: 0.0}})
    records.append({**smile, "id": "f/bare", "emotion": None})
    records.append({**smile, "id": "f/uncoded", "action_units": None})
    records.append({**smile, "id": "f/empty", "action_units": {}})
    records.append({**smile, "id": "f/generated", "extra": {"seke_given": "units"}})
    for number, record in enumerate(records):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / f"{number}.png")
        record.update(image=f"{number}.png", split="train", source="f")
    records[0]["box"] = (0, 0, 20, 30)
    write_records(tmp_path / "records.jsonl", [EmotionRecord.model_validate(record) for record in records])

    def run(model, server, *more):
        address = ("--model", model, "--base-url", server.url) if server else ("--model", model)
        command = ["generate", "synthesis", str(tmp_path / "records.jsonl"), "--out", str(tmp_path / "out")]
        return main([*command, *address, "--preview", "0", *more])

    return run


def script(body, num_before):
    """Model `m1` is right about faces at rest, `m2` also about smiles at once, `m3` as `m1`."""
    truth = next(part["text"] for part in body["messages"][1]["content"] if part["type"] == "text")
    if "Expression: neutral" in truth:
        return Action(REST)
    return Action(GOOD if body["model"] == "m2" else SMILE.format(label="anger").replace("AU6", "AU4"))


def texts(tmp_path):
    records = {record.id: record for record in read_records(tmp_path / "out" / "records.jsonl")}
    return {name: [(item.answer, item.provenance) for item in record.instructions] for name, record in records.items()}


def test_rounds_until_the_rate_no_longer_rises(faces, tmp_path, capsys):
    with ChatServer(script) as server:
        assert faces("m1", server) == 0
        output = capsys.readouterr().out
        assert "synthesis: 1 of 4 records" in output and "next: train on these records" in output
        assert "without coded units: 2" in output and "with generated levels: 1" in output
        assert "wrong_label 3" in output and "round 1: m1: 1 of 4 faces, 25.0%" in output
        assert server.num_requests == 4
        system, user = next(
            body["messages"] for body in server.bodies if "happiness" in str(body["messages"][1]["content"])
        )
        assert "Observation:" in system["content"]
        image, text = user["content"]
        assert image["type"] == "image_url" and text["text"].splitlines() == [
            "Expression: happiness",
            "Active action units: AU6 (cheek raiser, intensity 2.5 of 5), AU12 (lip corner puller, intensity 4.0 of 5)",
            "Not active: AU4",
        ]
        assert {name: len(found) for name, found in texts(tmp_path).items() if found} == {"f/rest": 1}
        assert texts(tmp_path)["f/rest"] == [(REST, "synthesis/1 chat:m1#0")]
        rows = [
            json.loads(line) for line in (tmp_path / "out" / "rejected" / "synthesis.jsonl").read_text().splitlines()
        ]
        assert rows[0]["reasons"] == ["false_units", "wrong_label"] and "anger" in rows[0]["reply"]
        # Again: nothing is sent, and nothing changes.
        before = (tmp_path / "out" / "records.jsonl").read_bytes()
        assert faces("m1", server) == 0 and server.num_requests == 4
        assert (tmp_path / "out" / "records.jsonl").read_bytes() == before
        assert faces("m2", server) == 0
        assert "round 2: m2: 4 of 4 faces, 100.0%" in capsys.readouterr().out
        assert texts(tmp_path)["f/0"] == [(GOOD, "synthesis/1 chat:m2#0")]
        assert faces("m3", server) == 0
        assert "no longer rises: stop here" in capsys.readouterr().out
        assert texts(tmp_path)["f/0"] == [(GOOD, "synthesis/1 chat:m2#0")]
        assert texts(tmp_path)["f/rest"] == [(REST, "synthesis/1 chat:m3#0")]
        rounds = json.loads((tmp_path / "out" / "rounds.json").read_text())
        assert [(one["model"], one["num_faces"], one["num_accepted"]) for one in rounds] == [
            ("m1", 4, 1), ("m2", 4, 4), ("m3", 4, 1),
        ]  # fmt: skip
        sent = server.num_requests
        assert faces("m4", server) == EXIT_USER_ERROR
        assert "was 1.000, then 0.250, so the rounds are over" in capsys.readouterr().err
        assert faces("m1", server) == EXIT_USER_ERROR
        assert "'m1' wrote round 1 of 3" in capsys.readouterr().err and server.num_requests == sent
        # With another truth, a text of an earlier round is dropped.
        records = list(read_records(tmp_path / "records.jsonl"))
        records[1] = records[1].model_copy(update={"action_units": {4: 0.0, 6: 0.0, 12: 4.0}})
        write_records(tmp_path / "records.jsonl", records)
        assert faces("m3", server) == 0
        assert texts(tmp_path)["f/1"] == [] and texts(tmp_path)["f/2"][0][0] == GOOD


def test_a_stopped_round_is_no_round(faces, tmp_path, capsys):
    def broken(body, num_before):
        return script(body, num_before) if num_before < 2 else Action(status=401, error={"message": "no key"})

    with ChatServer(broken) as server:
        assert faces("m2", server, "--in-flight", "1") == EXIT_USER_ERROR
    assert "stopped early" in capsys.readouterr().err and not (tmp_path / "out" / "rounds.json").exists()
    assert sum(map(bool, texts(tmp_path).values())) == 2
    with ChatServer(script) as server:
        assert faces("m2", server) == 0 and server.num_requests == 2
    assert json.loads((tmp_path / "out" / "rounds.json").read_text())[0]["num_accepted"] == 4


def test_bad_input_says_what_to_do(faces, tmp_path, capsys):
    assert faces("offline", None) == EXIT_USER_ERROR
    assert "synthesis needs a model that sees the images; add --model" in capsys.readouterr().err
    assert faces("m1", None, "--least-rise", "2", "--active-from", "0") == EXIT_USER_ERROR
    errors = capsys.readouterr().err
    assert "synthesis.least_rise" in errors and "synthesis.active_from" in errors
    (tmp_path / "out").mkdir()
    for counts in ("", ', "num_faces": 3, "num_accepted": -1', ', "num_faces": 3, "num_accepted": 4'):
        (tmp_path / "out" / "rounds.json").write_text(f'[{{"model": "m1"{counts}}}]')
        with ChatServer(script) as server:
            assert faces("m1", server) == EXIT_USER_ERROR
        assert "rounds.json: damaged: " in capsys.readouterr().err


@pytest.mark.slow
def test_rounds_with_training_between_them(faces, tmp_path, monkeypatch, capfd):
    """A chat model writes, what passed trains the tiny model, which writes next and cannot do it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    init = ["init", "records.jsonl", "--name", "faces", "--model", "emovit_tiny", "--splits", "train=1"]
    assert main(init) == 0, capfd.readouterr().err
    recipe = yaml.safe_load(Path("faces.yaml").read_text())
    recipe["run"] |= {"max_steps": 2, "warmup_steps": 1, "device": "cpu", "num_threads": 1}
    Path("short.yaml").write_text("chat: {max_output_tokens: 40}")
    options = ("--recipe", "faces.yaml", "--config", "short.yaml", "--device", "cpu")
    with ChatServer(script) as server:
        Path("faces.yaml").write_text(yaml.safe_dump({**recipe, "run": {**recipe["run"], "max_stepps": 2}}))
        assert faces("m2", server, *options) == EXIT_USER_ERROR
        errors = capfd.readouterr().err
        assert "run.max_stepps" in errors and "the training of faces-1 ended with code 2" in errors
        # The same command resumes behind the round, and trains on two processes.
        Path("faces.yaml").write_text(yaml.safe_dump(recipe))
        assert faces("m2", server, *options, "--launcher", TWO_RANKS) == 0, capfd.readouterr().err
        assert server.num_requests == 4
        rounds = json.loads((tmp_path / "out" / "rounds.json").read_text())
        assert [(one["model"], one["num_accepted"]) for one in rounds] == [("m2", 4), ("faces-1", 0)]
        output, errors = capfd.readouterr()
        assert "2 rounds; the highest acceptance rate is 100.0%, of m2" in output
        assert "2 processes (torchrun), device cpu" in output + errors
        run = tmp_path / "out" / "runs" / "faces-1"
        steps = [row for row in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if row["event"] == "step"]
        assert len(steps) == 2
        # It was trained on the accepted texts, which stay.
        prepared = json.loads((tmp_path / "out" / "runs" / "faces-1-shards" / "prepared.json").read_text())
        assert prepared["instructions"]["splits"]["train"]["pairs"]["explanation"] == 4
        assert texts(tmp_path)["f/0"] == [(GOOD, "synthesis/1 chat:m2#0")]
        # Nothing is left to do.
        assert faces("m2", server, *options) == 0 and server.num_requests == 4
        assert "2 rounds" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        ("run: {}", (), "datasets: must name the dataset"),
        ("datasets: {a: {}, b: {}}", (), "datasets: a, b; choose one of them with --dataset"),
        ("datasets: {faces: {}}", ("--dataset", "face"), "no dataset 'face' (did you mean 'faces'?)"),
        ("datasets: {faces: {}}", ("--dry-run",), "--dry-run: does not go with --recipe"),
        ("datasets: {faces: {}}", ("--start", "run"), "--start: writes in place of --model"),
        ("datasets: {faces: {}}", ("--start", "run"), "--start: writes in place of --base-url"),
        (None, ("--rounds", "3"), "--rounds: is for rounds with training; add --recipe"),
        (None, ("--device", "cpu"), "--device: is for rounds with training; add --recipe"),
        (None, ("--launcher", TWO_RANKS), "--launcher: is for rounds with training; add --recipe"),
        (
            "datasets: {faces: {}}",
            ("--launcher", "no-such-program -x"),
            "--launcher: no program 'no-such-program' is installed",
        ),
        ("datasets: {faces: {}}", ("--launcher", "torchrun 'x"), "--launcher: 'torchrun 'x' is no command"),
        ("datasets: {faces: {}}", ("--launcher", " "), "--launcher: is empty"),
    ],
)
def test_rounds_that_cannot_run(faces, tmp_path, capsys, content, more, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(content or "")
    with ChatServer(script) as server:
        assert faces("m2", server, *(("--recipe", str(recipe)) if content else ()), *more) == EXIT_USER_ERROR
        assert message in capsys.readouterr().err and server.num_requests == 0


def test_the_number_of_rounds_is_a_limit(faces, tmp_path, capsys):
    """The rate still rises, so without the limit there would be a training."""
    (tmp_path / "recipe.yaml").write_text("datasets: {faces: {}}")
    (tmp_path / "out").mkdir()
    rounds = [{"model": name, "num_faces": 4, "num_accepted": number} for name, number in (("m1", 1), ("recipe-1", 3))]
    (tmp_path / "out" / "rounds.json").write_text(json.dumps(rounds))
    with ChatServer(script) as server:
        assert faces("m1", server, "--recipe", str(tmp_path / "recipe.yaml"), "--rounds", "2") == 0
        assert server.num_requests == 0
    assert "2 rounds; the highest acceptance rate is 75.0%, of recipe-1" in capsys.readouterr().out
    assert not (tmp_path / "out" / "runs").exists()


def test_a_stopped_training_stops_the_rounds(faces, tmp_path, monkeypatch, capsys):
    (tmp_path / "recipe.yaml").write_text("datasets: {faces: {}}")

    def stop(name, command, key):
        raise RunStopped(f"the training of {name} was stopped")

    monkeypatch.setattr(children, "run_training", stop)
    with ChatServer(script) as server:
        assert faces("m2", server, "--recipe", str(tmp_path / "recipe.yaml")) == 75
    assert "the training of recipe-1 was stopped; run the same command again" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "out" / "rounds.json").read_text())) == 1


def test_a_launcher_that_cannot_be_started(faces, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("datasets: {faces: {}}")
    launcher = tmp_path / "no_program"
    launcher.write_bytes(b"\0" * 8)
    launcher.chmod(0o755)
    with ChatServer(script) as server:
        recipe = ("--recipe", str(tmp_path / "recipe.yaml"))
        assert faces("m2", server, *recipe, "--launcher", str(launcher)) == EXIT_USER_ERROR
    assert f"--launcher: {launcher} cannot be started (Exec format error)" in capsys.readouterr().err


def test_no_training_without_texts(faces, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("datasets: {faces: {}}")
    with ChatServer(lambda body, num_before: Action("I see a face.")) as server:
        assert faces("m1", server, "--recipe", str(tmp_path / "recipe.yaml")) == EXIT_USER_ERROR
        assert "no record got any result" in capsys.readouterr().err
        assert faces("m1", server, "--recipe", str(tmp_path / "recipe.yaml")) == EXIT_USER_ERROR
        assert "no text has passed, so there is nothing to train on" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_a_model_that_cannot_be_served(faces, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("datasets: {faces: {}}")
    (tmp_path / "nothing").mkdir()
    command = ["generate", "synthesis", str(tmp_path / "records.jsonl"), "--out", str(tmp_path / "out")]
    rounds = ["--recipe", str(tmp_path / "recipe.yaml"), "--start", str(tmp_path / "nothing")]
    assert main([*command, *rounds]) == EXIT_USER_ERROR
    errors = capsys.readouterr().err
    assert "nothing: cannot be served, see" in errors and "serve.log" in errors
