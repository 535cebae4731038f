"""`emovit generate` as a command.

- Offline by default: records, manifest with correct hashes, summary, preview with images, LLaVA-style JSON and shards
  that verify; single steps give the same as all steps at once.
- A dry run sends nothing and prints the cost. A budget ends the run with exit code 2 and keeps all paid replies; the
  same command resumes. A batch is submitted, and collected by a later call.
- A run that was killed leaves no temporary files; the same command finishes it with the bytes of an uninterrupted run.
- Options take precedence over the settings file; all problems are reported at once, by name; bad input names the file.
- A command that produced nothing ends with exit code 2 and the reason, and what an earlier run wrote stays: after a
  dead endpoint, refused requests, and replies that cannot be used. Edited results are named.
- Images of a test set are rejected.
- Offline, neither `openai` nor torch is loaded.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lavis_emovit.cli.main import EXIT_USER_ERROR, main
from lavis_emovit.records import Attributes, from_conversations, read_records, write_records
from lavis_emovit.sample_set.write import write_sketch
from lavis_emovit.shards.verify import verify_shards
from lavis_emovit.sources.readers.emoset import read_emoset

_spec = importlib.util.spec_from_file_location("chat_server", Path(__file__).parents[1] / "chat" / "chat_server.py")
chat_server = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("chat_server", chat_server)
_spec.loader.exec_module(chat_server)


# Nothing listens there.
NOWHERE = ("--model", "gpt-4.1-mini", "--base-url", "http://127.0.0.1:9/v1")


@pytest.fixture(scope="module")
def sketch(tmp_path_factory):
    root = tmp_path_factory.mktemp("sketch") / "sketch"
    write_sketch(root, images_per_class=10, size_px=48, label_noise=0.0)
    write_records(root / "records.jsonl", read_emoset(root))
    return root


@pytest.fixture(autouse=True)
def endpoint_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", chat_server.KEY)


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_offline(sketch, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["generate", "all", str(sketch / "records.jsonl"), "--out", str(out)]
    assert (
        main([*arguments, "--mix", "small", "--allow-short", "--conversations", "--shards", "--images", str(sketch)])
        == 0
    )
    shown = capsys.readouterr().out
    assert "conversation: 16 of 16 records; 48 pairs" in shown and "No paid request was made." in shown
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["input"]["sha256"] == _sha256(sketch / "records.jsonl")
    assert {name: entry["sha256"] for name, entry in manifest["output"].items()} == {
        name: _sha256(out / name)
        for name in ("records.jsonl", "conversations-test.json", "conversations-train.json", "conversations-val.json")
    }
    assert manifest["mix"]["name"] == "small"
    assert manifest["instructions"]["conversation"] == dict.fromkeys(manifest["instructions"]["conversation"], 6)
    assert sum(manifest["instructions"]["categorical"].values()) == 40  # 5 of 7 per class
    records = list(read_records(out / "records.jsonl"))
    assert len(records) == 80
    parts = {split: json.loads((out / f"conversations-{split}.json").read_text()) for split in ("train", "val", "test")}
    assert all(item["split"] == split for split, part in parts.items() for item in part)
    items = [item for part in parts.values() for item in part]
    assert all(item["conversations"][0]["value"].startswith("<image>\n") for item in items)
    assert len(items) == sum(map(len, (record.instructions for record in records)))
    assert len(from_conversations(items, label_set="mikels8")) == sum(bool(record.instructions) for record in records)
    assert verify_shards(out / "shards" / "train").ok
    page = (out / "preview.html").read_text()
    images = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(images) == 24 and base64.b64decode(images[0])[:2] == b"\xff\xd8"
    assert "http" not in re.sub(r"<meta[^>]*>", "", page).replace("https://platform", "")


def test_single_steps_give_the_same_as_all(sketch, tmp_path, capsys):
    together, apart = tmp_path / "together", tmp_path / "apart"
    images = ["--images", str(sketch), "--preview", "0"]
    assert main(["generate", "all", str(sketch / "records.jsonl"), "--out", str(together), *images]) == 0
    source = sketch / "records.jsonl"
    for step in ("captions", "attributes", "categorical", "conversation", "reasoning", "description", "explanation"):
        assert main(["generate", step, str(source), "--out", str(apart), *images]) == 0
        source = apart / "records.jsonl"
    assert (apart / "records.jsonl").read_bytes() == (together / "records.jsonl").read_bytes()
    steps = json.loads((apart / "summary.json").read_text())["steps"]
    assert [step["step"] for step in steps][-1] == "explanation" and len(steps) == 7
    assert not (apart / "preview.html").exists()
    # A run on its result changes nothing.
    before = (apart / "records.jsonl").read_bytes()
    assert main(["generate", "reasoning", str(source), "--out", str(apart), *images]) == 0
    assert (apart / "records.jsonl").read_bytes() == before


def test_dry_run_budget_and_resuming(sketch, tmp_path, capsys):
    out = tmp_path / "out"
    with chat_server.ChatServer() as server:
        arguments = ["generate", "reasoning", str(sketch / "records.jsonl"), "--out", str(out), "--images", str(sketch)]
        arguments += ["--model", "gpt-4.1-mini", "--base-url", server.url, "--preview", "0", "--in-flight", "4"]
        assert main([*arguments, "--dry-run"]) == 0
        shown = capsys.readouterr().out
        assert server.num_requests == 0 and not (out / "records.jsonl").exists()
        assert "reasoning: 56 requests" in shown and "prices of 20" in shown
        about, worst = map(float, re.search(r"total about \$([\d.]+), at most \$([\d.]+)", shown).groups())
        assert about < worst
        assert main([*arguments, "--max-usd", "0.006"]) == EXIT_USER_ERROR
        captured = capsys.readouterr()
        assert "could exceed the limit of $0.006" in captured.err and "Run the same command again" in captured.err
        assert re.search(r"reasoning \d+/56 .* tokens", captured.err)  # the progress, in plain lines
        paid = server.num_requests
        written = [record for record in read_records(out / "records.jsonl") if record.instructions]
        assert 10 < paid == len(written) < 56
        assert main(arguments) == 0
        assert server.num_requests == 56
        provenance = next(iter(read_records(out / "records.jsonl"))).instructions[0].provenance
        assert provenance == "chat:gpt-4.1-mini:reasoning/1#0"
    assert chat_server.KEY not in "".join(path.read_text() for path in out.rglob("*.json*"))


def test_killed_run_resumes_with_the_same_bytes(sketch, tmp_path):
    def arguments(out, url):
        common = ["--images", str(sketch), "--preview", "0", "--model", "m", "--base-url", url, "--in-flight", "2"]
        return ["generate", "reasoning", str(sketch / "records.jsonl"), "--out", str(tmp_path / out), *common]

    with chat_server.ChatServer() as server:
        assert main(arguments("whole", server.url)) == 0
        server.latency_s = 0.1
        code = f"from lavis_emovit.cli.main import main; main({arguments('killed', server.url)!r})"
        run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        ledger = tmp_path / "killed" / "ledger.jsonl"
        while not ledger.exists() or ledger.read_bytes().count(b"\n") < 12:
            assert run.poll() is None
            time.sleep(0.02)
        run.kill()
        run.wait()
        names = {path.name for path in (tmp_path / "killed").iterdir()}
        assert names == {"ledger.jsonl", "ledger.jsonl.lock"}
        server.latency_s = 0.0
        sent = server.num_requests
        assert main(arguments("killed", server.url)) == 0
        assert server.num_requests - sent < 50  # of 56
    for name in ("records.jsonl", "rejected/reasoning.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.fixture
def few(sketch, tmp_path):
    """Twelve records, fewer than `max_failures`, without captions and names, but each with another light."""
    records = [record for record in read_records(sketch / "records.jsonl") if record.split == "train"][:12]
    lights = [Attributes(brightness=number % 10 / 10, colorfulness=number // 10 / 10) for number in range(12)]
    bare = [record.model_copy(update={"caption": None, "attributes": light}) for record, light in zip(records, lights)]
    write_records(tmp_path / "few.jsonl", bare)
    return [str(tmp_path / "few.jsonl"), "--images", str(sketch), "--out", str(tmp_path / "out"), "--preview", "0"]


def test_results_of_other_records_are_not_replaced(few, tmp_path, capsys):
    assert main(["generate", "reasoning", *few]) == 0
    before = (tmp_path / "out" / "records.jsonl").read_bytes()
    records = list(read_records(tmp_path / "few.jsonl"))
    others = [record.model_copy(update={"id": f"other/{record.id}"}) for record in records]
    write_records(tmp_path / "few.jsonl", others)
    assert main(["generate", "reasoning", *few]) == 2
    assert f"has the results of other records, such as '{records[0].id}'" in capsys.readouterr().err
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == before
    # Records may come and go.
    write_records(tmp_path / "few.jsonl", [*records[1:], *others[:1]])
    assert main(["generate", "reasoning", *few]) == 0


def _refuse(body, number):
    return chat_server.Action(status=400, error={"message": "images are not supported"})


@pytest.mark.parametrize("command", ["all", "captions", "attributes", "reasoning", "explanation"])
@pytest.mark.parametrize("fault", ["refused", "dead"])
def test_nothing_answered_keeps_what_an_earlier_run_wrote(fault, command, few, tmp_path, capsys, monkeypatch):
    from lavis_emovit.chat import limits

    monkeypatch.setattr(limits, "_FIRST_PAUSE_S", 0.001)
    out = tmp_path / "out" / "records.jsonl"
    with chat_server.ChatServer() as server:
        assert main(["generate", "all", *few, "--model", "first", "--base-url", server.url]) == 0
    before = list(read_records(out))
    assert all(record.caption and len(record.instructions) == 7 for record in before)
    capsys.readouterr()
    with chat_server.ChatServer(_refuse) as server:
        url = server.url if fault == "refused" else NOWHERE[-1]
        assert main(["generate", command, *few, "--model", "second", "--base-url", url]) == EXIT_USER_ERROR
    shown = capsys.readouterr().err
    reason = "bad_request: images are not supported" if fault == "refused" else "dropped: "
    assert "stopped early: " in shown and reason in shown.replace("with ", "")
    after = list(read_records(out))
    assert [sorted(map(str, record.instructions)) for record in after] == [
        sorted(map(str, record.instructions)) for record in before
    ]
    # `attributes` measures light and colour before it asks.
    assert [(record.caption, record.attributes) for record in after] == [
        (record.caption, record.attributes) for record in before
    ]


def test_replies_replace_what_an_earlier_run_wrote(few, tmp_path):
    """Half of the requests get a reply: these records have the new texts, the others keep the earlier ones."""
    out = tmp_path / "out" / "records.jsonl"

    def half(body, number):
        return chat_server.Action() if number < 6 else _refuse(body, number)

    with chat_server.ChatServer() as server:
        assert main(["generate", "reasoning", *few, "--model", "first", "--base-url", server.url]) == 0
        server.script, server.num_requests = half, 0
        arguments = ["generate", "reasoning", *few, "--model", "second", "--base-url", server.url, "--in-flight", "1"]
        assert main(arguments) == 0
        writers = [record.instructions[0].provenance.split(":")[1] for record in read_records(out)]
        assert writers == ["second"] * 6 + ["first"] * 6
        # A reply that cannot be used replaces an earlier pair too.
        server.script = lambda body, number: chat_server.Action(text='{"question": "Why?", "answer": "No."}')
        assert main(arguments) == 0
        assert sum(bool(record.instructions) for record in read_records(out)) == 6


@pytest.mark.parametrize(
    ("command", "reply", "message"),
    [
        (
            "reasoning",
            '{"text": "of no use"}',
            "no record got any result. reasoning: 0 of 12 records; 12 rejected (unreadable 12); unreadable: ",
        ),
        (
            "captions",
            '{"caption": "' + "word " * 90 + '"}',
            "no record got any result. captions: 0 of 12 records; 12 rejected (too_long 12)",
        ),
        ("conversation", "", "no record got any result. conversation: 0 of 12 records; 12 rejected (empty 12)"),
    ],
)
def test_command_without_any_usable_reply_fails_with_the_reason(command, reply, message, few, capsys):
    with chat_server.ChatServer(lambda body, number: chat_server.Action(text=reply)) as server:
        assert main(["generate", command, *few, "--model", "m", "--base-url", server.url]) == EXIT_USER_ERROR
    assert message in capsys.readouterr().err


def test_offline_command_without_any_result_fails_with_the_reason(few, tmp_path, capsys):
    assert main(["generate", "captions", *few]) == EXIT_USER_ERROR
    assert "captions: 0 of 12 records; without: nothing_annotated 12" in capsys.readouterr().err
    bare = [record.model_copy(update={"emotion": None}) for record in read_records(tmp_path / "few.jsonl")]
    write_records(tmp_path / "few.jsonl", bare)
    for command in ("categorical", "affect", "explanation"):
        assert main(["generate", command, *few]) == EXIT_USER_ERROR
        assert f"no record got any result. {command}: 0 of " in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        '{"steps": [{"step": "reasoning"}]}',
        '{"steps": [{"step": ["a"]}]}',
        '{"steps": 5}',
        "[" * 100_000,
        "{}",
        "\ud800",
    ],
)
def test_edited_summary_is_refused_by_name(content, few, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert main(["generate", "categorical", *few[:-2]]) == EXIT_USER_ERROR
    assert "summary.json: damaged: " in capsys.readouterr().err


@pytest.mark.parametrize("line", ["x", "[]", '{"reasons": 5}', '{"record": "a", "kind": "b"}', "[" * 100_000])
def test_edited_rejections_are_left_out_of_the_preview(line, few, tmp_path, capsys):
    folder = tmp_path / "out" / "rejected"
    folder.mkdir(parents=True)
    (folder / "reasoning.jsonl").write_text(line + "\n")
    assert main(["generate", "categorical", *few[:-2]]) == 0
    assert (tmp_path / "out" / "preview.html").is_file()


def test_batch_without_waiting(sketch, tmp_path, capsys):
    with chat_server.ChatServer() as server:
        arguments = [
            "generate",
            "description",
            str(sketch / "records.jsonl"),
            "--out",
            str(tmp_path),
            "--batch",
            "--no-wait",
        ]
        arguments += ["--images", str(sketch), "--model", "gpt-4.1-mini", "--base-url", server.url]
        server.batch_script = lambda batch, lines: {"status": "in_progress"}
        assert main(arguments) == 0
        assert "0 of 56 records" in capsys.readouterr().out
        alone = [word for word in arguments if word not in ("--batch", "--no-wait")]
        assert main(alone) == EXIT_USER_ERROR and server.num_requests == 0
        assert "batches with 56 requests are under way" in capsys.readouterr().err
        # The endpoint loses the batch.
        del server.batches["batch-1"]
        server.batch_script = chat_server.complete_batch
        assert main(arguments) == EXIT_USER_ERROR
        assert "the batch batch-1 with 56 requests" in capsys.readouterr().err and not server.batches
        assert main([*arguments, "--abandon-batches"]) == 0
        assert main(arguments) == 0
        assert "56 of 56 records" in capsys.readouterr().out
        assert len(server.batches) == 1 and server.num_requests == 0


def test_batches_of_all_steps_without_waiting(sketch, tmp_path, capsys):
    records = [
        record.model_copy(update={"caption": None, "attributes": Attributes()})
        for record in read_records(sketch / "records.jsonl")
        if record.split == "train"
    ][:6]
    write_records(tmp_path / "records.jsonl", records)
    arguments = ["generate", "all", str(tmp_path / "records.jsonl"), "--images", str(sketch), "--regenerate", "2"]
    arguments += ["--preview", "0", "--model", "gpt-4.1-mini"]
    with chat_server.ChatServer() as server:
        arguments += ["--base-url", server.url, "--batch", "--no-wait"]
        # Captions and attributes first, since the other steps use them; nothing is requested twice.
        for num_batches, num_under_way in ((2, 12), (6, 24), (6, 0)):
            assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
            assert (f"{num_under_way} requests are under way" in capsys.readouterr().out) == bool(num_under_way)
            assert len(server.batches) == num_batches
        assert server.num_requests == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    requests = [row["request"] for row in rows if "request" in row]
    assert len(requests) == len(set(requests)) == 36
    written = list(read_records(tmp_path / "out" / "records.jsonl"))
    assert all(record.caption and len(record.instructions) == 7 for record in written)


def test_settings_file(sketch, tmp_path, capsys):
    config = tmp_path / "generate.yaml"
    with chat_server.ChatServer() as server:
        config.write_text(
            f"chat: {{model: m, base_url: '{server.url}', temperature: 0.5, extra_body: {{min_p: 0.1}}}}\n"
            "job: {facts: [emotion, caption], num_examples: 0}\n"
            "mix: {parts: [{kinds: [reasoning], per_class: 1}]}\n"
        )
        arguments = [
            "generate",
            "all",
            str(sketch / "records.jsonl"),
            "--out",
            str(tmp_path / "out"),
            "--config",
            str(config),
        ]
        assert main([*arguments, "--images", str(sketch), "--model", "other", "--preview", "0"]) == 0
        body = server.bodies[-1]
        assert (body["model"], body["temperature"], body["min_p"]) == ("other", 0.5, 0.1)
        assert "place" not in body["messages"][1]["content"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["mix"]["name"] == "own" and manifest["chat"]["model"] == "other"
    config.write_text("chat: {modle: m, temperature: 9}\njob: {sead: 1}\n")
    assert main(arguments) == EXIT_USER_ERROR
    shown = capsys.readouterr().err
    for problem in ("chat.modle: unknown key (did you mean 'model'?)", "temperature", "job.sead: unknown key"):
        assert problem in shown or "need a chat model" in shown
    assert "job.sead" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--mix", "papr"], "unknown mix 'papr' (did you mean 'paper'?)"),
        (["--base-url", "http://x/v1"], "base_url need a chat model"),
        (["--model", "m", "--base-url", "x"], "chat.base_url: must be an address"),
        (["--split", "dev"], "no records of split 'dev' (available: test, train, val)"),
        (["--mix", "released"], "the mix needs more images than there are"),
        (["--config", "gone.yaml"], "gone.yaml"),
        (["--captioner", "blip"], "'blip' is not a captioner"),
        (["--vocabulary", "gone.json", *NOWHERE], "gone.json: cannot read the vocabulary"),
        (["--vocabulary", "open"], "--vocabulary needs a chat model"),
        (["--images", "gone"], "--images gone: no such folder"),
        (["--images", ".", "--shards"], "none of the 56 images is in .. Pass the folder"),
        (["--images", ".", "--vision", *NOWHERE], "with --images. They are needed for the model."),
        (["--out", "taken"], "taken: this is a file; pass a folder"),
        (["--out", "other"], "summary.json: damaged: "),
        (["--out", "full"], "records.jsonl: this is a folder, but a file must be written here"),
        (["--out", "blocked"], "ledger.jsonl: the ledger cannot be opened"),
        (["--judge", "m", *NOWHERE, "--max-usd", "1"], "no price is known for the model 'm'"),
        (["--prices", "other/summary.json", *NOWHERE], "summary.json:\n  - expected one JSON object with date"),
        (["--config", "reasoning.yaml", *NOWHERE], "empty.txt: the prompt is empty"),
        (["--config", "caption.yaml", *NOWHERE], "empty.txt: the prompt is empty"),
        (["--config", "attributes.yaml", *NOWHERE], "empty.txt: the prompt is empty"),
        (["--config", "judge.yaml", "--judge", "gpt-4.1", *NOWHERE], "empty.txt: the prompt is empty"),
        (["--examples", "99", *NOWHERE], "has 6 examples; 99 were requested"),
        (["--max-usd", "nan", *NOWHERE], "chat.max_usd: Input should be a finite number"),
        (["--wording", "9"], "categorical wording 9 does not exist; there are 1 to 4"),
        (["--wording", "4", "--open-set"], "open wording 4 does not exist; there are 1 to 3"),
        (["--open-set", "--option-order", "shuffled"], "--option-order needs a list of options"),
        (["--allow-short"], "--allow-short applies to mixes"),
        (["--device", "cuda"], "--device applies to the LAVIS captioner"),
        (["--vision", "--examples", "1"], "--vision needs a chat model"),
        (["--batch"], "--batch needs a chat model"),
        (["--batch", "--stream", *NOWHERE], "--batch cannot stream replies"),
        (["--no-wait", *NOWHERE], "--no-wait applies to batches"),
        (["--abandon-batches", *NOWHERE], "--abandon-batches applies to batches"),
    ],
)
def test_user_errors(changes, message, sketch, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "summary.json").write_text("[]")
    (tmp_path / "full" / "records.jsonl").mkdir(parents=True)
    (tmp_path / "blocked" / "ledger.jsonl").mkdir(parents=True)
    (tmp_path / "empty.txt").write_text(" \n")
    for name in ("reasoning", "judge", "caption", "attributes"):
        (tmp_path / f"{name}.yaml").write_text(f"job: {{prompt_files: {{{name}: empty.txt}}}}")
    arguments = ["generate", "all", str(sketch / "records.jsonl"), "--out", "out"]
    images = [] if "--images" in changes else ["--images", str(sketch)]
    assert main([*arguments, *images, *changes]) == EXIT_USER_ERROR
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown
    assert "done" not in shown  # no step has started


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emotion": "joyness"}, "record '{id}': unknown emotion 'joyness'"),
        ({"label_set": "mikels9"}, "record '{id}': unknown label set 'mikels9'"),
        ({"label_set": None}, "have an emotion but no label set (first: '{id}')"),
    ],
)
def test_labels_are_checked_before_any_request(changes, message, sketch, tmp_path, capsys):
    records = [record for record in read_records(sketch / "records.jsonl") if record.split == "train"]
    records[-1] = records[-1].model_copy(update=changes)
    write_records(tmp_path / "records.jsonl", records)
    with chat_server.ChatServer() as server:
        arguments = ["generate", "all", str(tmp_path / "records.jsonl"), "--out", str(tmp_path / "out"), "--vision"]
        arguments += ["--images", str(sketch), "--model", "m", "--base-url", server.url, "--redo-captions"]
        assert main(arguments) == EXIT_USER_ERROR
        assert message.format(id=records[-1].id) in capsys.readouterr().err and server.num_requests == 0


SECRET = "sk-0123456789abcdefghij"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (f"chat: {{model: m, base_url: 'http://me:{SECRET}@localhost/v1'}}", "base_url must hold neither a password"),
        (f"chat: {{model: m, base_url: 'me:{SECRET}@localhost/v1'}}", "base_url must hold neither a password"),
        (f"chat: {{model: m, base_url: 'http://localhost/v1?key={SECRET}'}}", "base_url must hold neither a password"),
        (f"chat: {{model: m, api_key_env: {SECRET}}}", "api_key_env must be the name of an environment variable"),
        (f"chat: {{model: {SECRET}}}", "model must be a name"),
        (f"chat: {{model: m, extra_body: {{user: {SECRET}}}}}", "extra_body must hold no key"),
        ("chat: {model: m, extra_body: {a: {Api-Key: 0123}}}", "extra_body must hold no key"),
        ("chat: {model: m, extra_body: {a: .nan}}", "extra_body must be plain JSON"),
        ("chat: {model: m, extra_body: {a: [1, {b: -.inf}]}}", "extra_body must be plain JSON"),
        ("chat: {model: m, extra_body: {a: !!binary aGk=}}", "extra_body must be plain JSON"),
        (f"chat: {{model: m, api_key: {SECRET}}}", "chat.api_key: unknown key (did you mean 'api_key_env'?)"),
    ],
)
def test_keys_in_wrong_places_are_rejected_and_not_shown(config, message, sketch, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(config)
    arguments = ["generate", "reasoning", str(sketch / "records.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--config", str(tmp_path / "c.yaml")]) == EXIT_USER_ERROR
    captured = capsys.readouterr()
    assert message in captured.err and not (tmp_path / "out").exists()
    assert SECRET not in captured.err + captured.out and "0123" not in captured.err


@pytest.mark.parametrize("key", ["sk-\u0444\u00fc-0123456789", "sk-0123456789\nabc", "a b"])
def test_invalid_keys_are_rejected_and_not_shown(key, sketch, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    arguments = ["generate", "reasoning", str(sketch / "records.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--images", str(sketch), *NOWHERE]) == EXIT_USER_ERROR
    shown = capsys.readouterr().err
    assert "OPENAI_API_KEY holds blanks, line ends" in shown and "0123" not in shown and key not in shown
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://me:{SECRET}@localhost/v1")
    assert main([*arguments, "--images", str(sketch), "--model", "m"]) == EXIT_USER_ERROR
    shown = capsys.readouterr().err
    assert "OPENAI_BASE_URL must hold neither a password" in shown and SECRET not in shown


def test_shards_with_a_missing_image(sketch, tmp_path, capsys):
    records = [record for record in read_records(sketch / "records.jsonl") if record.split == "train"][:3]
    records[1] = records[1].model_copy(update={"image": "gone.jpg"})
    write_records(tmp_path / "records.jsonl", records)
    arguments = ["generate", "categorical", str(tmp_path / "records.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--images", str(sketch), "--shards"]) == EXIT_USER_ERROR
    shown = capsys.readouterr().err
    assert "records.jsonl, but not the shards of 'train'" in shown and "--skip-bad" in shown
    assert all(record.instructions for record in read_records(tmp_path / "out" / "records.jsonl"))


def test_missing_records_and_missing_key(sketch, tmp_path, capsys, monkeypatch):
    assert (
        main(["generate", "reasoning", str(tmp_path / "gone.jsonl"), "--out", str(tmp_path / "out")]) == EXIT_USER_ERROR
    )
    assert "gone.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    arguments = ["generate", "reasoning", str(sketch / "records.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--images", str(sketch), "--model", "gpt-4.1-mini"]) == EXIT_USER_ERROR
    assert "OPENAI_API_KEY holds no key for https://api.openai.com/v1" in capsys.readouterr().err


def test_overlap_is_rejected(sketch, tmp_path, capsys):
    records = list(read_records(sketch / "records.jsonl"))
    train = next(record for record in records if record.split == "train")
    folder = tmp_path / "other"
    folder.mkdir()
    shutil.copy(sketch / train.image, folder / "copy.jpg")
    held_out = train.model_copy(update={"id": "other/1", "image": "copy.jpg", "split": "test", "source": "other"})
    write_records(folder / "records.jsonl", [held_out])
    arguments = ["generate", "categorical", str(sketch / "records.jsonl"), "--out", str(tmp_path / "out")]
    arguments += ["--images", str(sketch), "--held-out", str(folder / "records.jsonl"), "--preview", "0"]
    assert main(arguments) == EXIT_USER_ERROR
    assert f"'other/1' (test) is the same image as '{train.id}'" in capsys.readouterr().err
    assert main([*arguments, "--no-check-overlap"]) == 0


def test_offline_loads_neither_openai_nor_torch(sketch, tmp_path):
    code = (
        "import sys; from lavis_emovit.cli.main import main;"
        f"code = main(['generate', 'all', {str(sketch / 'records.jsonl')!r}, '--out', {str(tmp_path / 'o')!r},"
        f" '--images', {str(sketch)!r}, '--preview', '0', '--mix', 'small', '--allow-short']);"
        "print(code, {'openai', 'torch', 'lavis', 'httpx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "0 set()"
