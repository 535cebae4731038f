"""The ledger, also of runs that were killed or failed.

- A row is on disk, and flushed, before the run uses it. A finished request is never sent again.
- kill -9 at random moments, then resume: no finished request is sent again, no row is lost, all requests are finished.
- A partial last line is moved aside. Damage in the middle, another kind of file and a second process are refused.
- Ledgers of the first release are read.
- A changed prompt, model, parameter, schema, image or sample is a new request; old rows stay. `about` does not count.
- A full disk ends the run with a message, and leaves the ledger intact.
- A row that an edit made unusable is refused with its line number and key, before any request.
- The key is in no ledger, log, message or traceback.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import time
import traceback
from collections import Counter

import chat_killed
import pytest
from chat_server import KEY, Action, ChatServer
from PIL import Image

from lavis_emovit.chat import ledger as ledger_module
from lavis_emovit.chat.batch import open_submissions
from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.request import ChatRequest, Message, image_of
from lavis_emovit.chat.run import run_requests
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.errors import DataError, UserError


def test_finished_requests_are_never_sent_again(make_settings, make_requests, tmp_path):
    path = tmp_path / "ledger.jsonl"
    with ChatServer() as server:
        settings = make_settings(server)
        for _ in range(2):
            with Ledger(path) as ledger:
                # The same request twice in one run is one request.
                progress = run_requests(make_requests(settings, 30) * 2, settings, ledger)
                assert len(ledger) == 30
        assert server.num_requests == 30
        assert progress.from_ledger == 60 and progress.tokens == {}
        with Ledger(path) as ledger:
            run_requests(make_requests(settings, 30, samples=3), settings, ledger)
            assert server.num_requests == 90
            assert ledger.finished(make_requests(settings, 1)[0].fingerprint)["reply"] == "item 0."


def test_rows_are_flushed_before_they_are_used(make_settings, make_requests, ledger, monkeypatch):
    """`fsync` returns before the run sees a reply. Rows that wait at the same time share a flush."""
    on_disk, num_seen, num_flushes = [""], 0, 0
    fsync = os.fsync

    def recording_fsync(handle):
        nonlocal num_flushes
        fsync(handle)
        if handle == ledger._file:
            num_flushes += 1
            on_disk[0] = ledger.path.read_text()

    def check(row):
        nonlocal num_seen
        num_seen += 1
        assert row["request"] in on_disk[0]

    monkeypatch.setattr(ledger_module.os, "fsync", recording_fsync)
    with ChatServer(latency_s=0.02) as server:
        settings = make_settings(server, max_in_flight=20)
        run_requests(make_requests(settings, 60), settings, ledger, on_row=check)
    assert num_seen == 60
    assert 3 <= num_flushes < 60


@pytest.mark.parametrize("seed", range(2))
def test_killed_and_resumed(seed, tmp_path):
    path, report, count, num_kills = tmp_path / "ledger.jsonl", tmp_path / "report", 300, 4
    rng = random.Random(seed)
    with ChatServer(latency_s=0.01) as server:
        for attempt in range(num_kills + 1):
            before = _finished(path)
            sent_before = _sent(server)
            run = multiprocessing.get_context("fork").Process(target=_run, args=(server.url, path, count, report))
            run.start()
            if attempt < num_kills:
                time.sleep(0.05 + rng.random() * 0.15)
                run.kill()
            run.join(60)
            after, sent = _finished(path), _sent(server)
            # Everything that the run reported is on disk, and nothing that was on disk was sent again.
            *reported, _ = report.read_text().split("\n")
            assert set(reported) - {"end"} <= set(after) and set(before) <= set(after)
            assert all(sent[name] == sent_before[name] for name in before)
        assert run.exitcode == 0 and reported[-1] == "end"
        assert len(after) == count and max(after.values()) == 1
        # Only calls under way at a kill can have been sent twice.
        assert sum(sent.values()) - count <= num_kills * 16
        assert sum(sent.values()) >= count


def _run(url, path, count, report):
    with report.open("a") as file:
        chat_killed.run(url, str(path), count, file)


def _sent(server):
    return Counter(body["messages"][0]["content"] for body in server.bodies)


def _finished(path):
    if not path.exists():
        return Counter()
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return Counter(row["about"]["record"] for row in rows if row.get("status") == "ok")


@pytest.mark.parametrize("cut", [1, 2, 30, 200])
def test_partial_line_is_moved_aside(cut, make_settings, make_requests, tmp_path):
    path = tmp_path / "ledger.jsonl"
    with ChatServer() as server:
        settings = make_settings(server, max_in_flight=1)
        requests = make_requests(settings, 3)
        with Ledger(path) as ledger:
            run_requests(requests, settings, ledger)
        data = path.read_bytes()
        rows = [line for line in data.splitlines(keepends=True) if b'"request"' in line]
        whole = data[: data.index(rows[-1])]
        path.write_bytes(whole + rows[-1][:-cut])
        with Ledger(path) as ledger:
            assert len(ledger) == 2
            run_requests(requests, settings, ledger)
        assert server.num_requests == 4
    assert path.with_name("ledger.jsonl.cut").read_bytes() == rows[-1][:-cut] + b"\n"
    assert path.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        for number in range(3):
            ledger.append_now({"request": f"{number + 1:x}".ljust(64, "0"), "status": "ok"})
        with pytest.raises(UserError, match="another run is using this ledger"):
            Ledger(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])
    with pytest.raises(DataError, match=r"ledger\.jsonl:2: this line is damaged"):
        Ledger(path)
    # A power cut leaves zeros at the end.
    path.write_bytes(b"".join(lines) + b"\0" * 100)
    with Ledger(path) as ledger:
        assert len(ledger) == 3
    # A run that was killed within the first line has paid nothing yet.
    path.write_bytes(lines[0][:9])
    with Ledger(path) as ledger:
        assert len(ledger) == 0
    for other in ("some text\nof a user", '{"id": "a"}', "x"):
        path.write_text(other)
        with pytest.raises(DataError, match="not a ledger"):
            Ledger(path)
        assert path.read_text() == other
    records = tmp_path / "records.jsonl"
    records.write_text('{"id": "a", "image": "a.jpg"}\n' * 200)
    with pytest.raises(DataError, match="not a ledger"):
        Ledger(records)
    assert records.stat().st_size == 200 * 30


def test_first_release_is_read(tmp_path):
    """Rows as they were written in the first release; the run was killed while a call was under way."""
    path = tmp_path / "ledger.jsonl"
    names = [f"{number:x}".ljust(64, "0") for number in range(1, 5)]
    head = {"model": "m", "prompt": "p/1", "sample": 0, "time": "2026-11-20T10:00:00.000Z", "attempt": 1}
    usage = {"input": 100, "cached": 40, "output": 20}
    rows = [
        {"event": "ledger", "version": 1},
        {"event": "reserved", "usd": 0.01},
        {"request": names[0], **head, "about": {}, "status": "ok", "reply": "r", "usage": usage, "usd": 0.5},
        {"request": names[1], **head, "status": "timeout", "reason": "no answer", "usd_bound": 0.25},
        {"request": names[2], **head, "status": "refused", "usage": usage, "usd": 0.125, "batch": "b"},
        {"event": "batch_planned", "submission": "s", "requests": 1, "usd_bound": 0.1},
        {"request": names[0], **head, "status": "ok", "reply": "later", "usd": 0.0},
    ]
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    with Ledger(path) as ledger:
        assert len(ledger) == 2 and names[1] not in ledger and names[3] not in ledger
        assert ledger.finished(names[0]) == rows[2] and ledger.finished(names[2]) == rows[4]
        assert ledger.usd_spent == 0.885 and ledger.usd_in_doubt == 0.01
        assert ledger.counts == {"ok": 2, "timeout": 1, "refused": 1}
        assert ledger.tokens == {"input": 200, "cached": 80, "output": 40}
        assert open_submissions(ledger) == {"s": rows[5]}


_PAID = {"request": "1".ljust(64, "0"), "status": "ok", "reply": "r", "usage": {"input": 1, "output": 1}, "usd": 0.1}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"usd": float("nan")}, "'usd'"),
        ({"usd": -5.0}, "'usd'"),
        ({"usd": "0.1"}, "'usd'"),
        ({"usd": True}, "'usd'"),
        ({"usd": None, "usd_bound": float("inf")}, "'usd_bound'"),
        ({"usage": {"input": "many"}}, "'usage.input'"),
        ({"usage": {"input": -1}}, "'usage.input'"),
        ({"usage": [1, 2]}, "'usage'"),
        ({"usage": {"input": 10**400}}, "'usage.input'"),
        ({"request": "not a hash"}, "'request'"),
        ({"request": 17}, "'request'"),
        ({"status": ["ok"]}, "'status'"),
        ({"status": None}, "'status' is missing"),
        ({"reply": {"text": "r"}}, "'reply'"),
        ({"about": "a/1"}, "'about'"),
        ({"about": {"record": 3}}, "'about.record'"),
        ({"event": "reserved", "usd": None}, "'usd' is missing"),
        ({"event": "reserved", "usd": float("nan")}, "'usd'"),
        ({"event": "closed", "in_doubt_usd": -1}, "'in_doubt_usd'"),
        ({"event": "batch_planned"}, "'submission' is missing"),
        ({"event": "batch_planned", "submission": "s", "requests": "4"}, "'requests'"),
        ({"event": "batch_submitted", "submission": "s", "batch": None}, "'batch' is missing"),
        ({"event": 5}, "'event'"),
        ({"event": None, "request": None}, "'request' is missing"),
    ],
)
@pytest.mark.parametrize("is_last", [False, True], ids=["middle", "end"])
def test_edited_rows_are_refused_by_number(changes, named, is_last, tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append_now(_PAID)
    edited = json.dumps({**_PAID, **changes}) + "\n"
    rest = "" if is_last else json.dumps({**_PAID, "request": "2".ljust(64, "0")}) + "\n"
    path.write_text(path.read_text() + edited + rest)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"ledger\.jsonl:3: ") as caught:
        Ledger(path)
    assert named in str(caught.value) and path.read_bytes() == before


@pytest.mark.parametrize("line", ["[" * 100_000, '{"request": "1', "\ud800", "NaN", '["event"]'])
def test_damaged_lines_in_the_middle_are_refused_by_number(line, tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append_now(_PAID)
    path.write_bytes(
        path.read_bytes() + line.encode("utf-8", "surrogatepass") + b"\n" + json.dumps(_PAID).encode() + b"\n"
    )
    with pytest.raises(DataError, match=r"ledger\.jsonl:3: this line is damaged"):
        Ledger(path)


def test_second_process_is_refused(tmp_path):
    with Ledger(tmp_path / "ledger.jsonl"):
        run = subprocess.run(
            [sys.executable, chat_killed.__file__, "http://127.0.0.1:9/v1", str(tmp_path / "ledger.jsonl"), "1"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert run.returncode != 0 and "another run is using this ledger" in run.stderr


def test_fingerprint(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())

    def request(
        name="a.png", model="m", system="s", temperature=1.0, prompt="p/1", schema=None, sample=0, about="x", choices=()
    ):
        messages = (Message("system", system), Message("user", "u", (image_of(tmp_path / name),)))
        return ChatRequest(
            model, messages, {"temperature": temperature}, prompt, schema, sample, {"record": about}, choices
        )

    changes = [
        {}, {"name": "b.png"}, {"model": "n"}, {"system": "t"}, {"temperature": 0.5}, {"prompt": "p/2"},
        {"schema": {"type": "object"}}, {"sample": 1}, {"choices": ("awe", "fear")},
    ]  # fmt: skip
    assert len({request(**change).fingerprint for change in changes}) == len(changes)
    # A copy of the image and `about` make no difference.
    assert request(name="c.png", about="y").fingerprint == request().fingerprint


def test_changed_prompt_is_sent_again_and_old_rows_stay(make_settings, make_requests, ledger):
    with ChatServer() as server:
        settings = make_settings(server)
        run_requests(make_requests(settings, 4), settings, ledger)
        run_requests(make_requests(settings, 4, prompt="test/2"), settings, ledger)
        run_requests(make_requests(settings, 4), settings, ledger)
        assert server.num_requests == 8 and len(ledger) == 8


def test_any_text_survives(make_settings, make_requests, tmp_path):
    """Line ends of all kinds, zeros, and a lone surrogate, whole and streamed."""
    text = 'a\u2028b\x85c\x0bd\r\ne\x00f "q" \\ \ud83d\ude00 \U0001f600'
    for stream in (False, True):
        path = tmp_path / f"{stream}.jsonl"
        with ChatServer(lambda body, number: Action(text=text + "\ud800")) as server, Ledger(path) as ledger:
            settings = make_settings(server, stream=stream)
            run_requests(make_requests(settings, 1), settings, ledger)
        with Ledger(path) as ledger:
            row = ledger.finished(make_requests(settings, 1)[0].fingerprint)
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16")
            assert row["reply"] == whole + "\ufffd"


def test_full_disk(make_settings, make_requests, tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    write = os.write
    budget = [4000]

    def limited(handle, data):
        if len(data) > budget[0]:
            write(handle, bytes(data)[:50])  # part of a row reaches the disk
            raise OSError(28, "No space left on device")
        budget[0] -= len(data)
        return write(handle, data)

    with ChatServer() as server:
        settings = make_settings(server, max_in_flight=2)
        requests = make_requests(settings, 50)
        with Ledger(path) as ledger:
            monkeypatch.setattr(ledger_module.os, "write", limited)
            with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
                run_requests(requests, settings, ledger)
            monkeypatch.undo()
        os.environ["OPENAI_API_KEY"] = KEY
        with Ledger(path) as ledger:
            num_written = len(ledger)
            assert 5 < num_written < 50
            run_requests(requests, settings, ledger)
            assert len(ledger) == 50
        assert server.num_requests <= 50 + 2
    del os.environ["OPENAI_API_KEY"]


def test_key_stays_secret(make_settings, make_requests, ledger, caplog, capsys):
    """Servers that echo the key in replies and errors, debug logs, and a traceback with all local variables."""
    caplog.set_level(logging.DEBUG)
    actions = [
        Action(status=500, error={"message": f"Bearer {KEY}"}),
        Action(text=f"your key is {KEY}"),
        Action(raw=f"<html>{KEY}"),
        Action(status=401, error={"message": f"bad key {KEY}"}),
    ]
    with ChatServer(lambda body, number: actions[min(number, 3)]) as server:
        settings = make_settings(server, max_in_flight=1)
        progress = run_requests(make_requests(settings, 5), settings, ledger)
        assert all(KEY in head for head in server.heads)
    assert progress.stopped
    shown = repr(settings) + settings.model_dump_json() + repr(settings.api_key()) + progress.stopped + caplog.text
    with pytest.raises(UserError, match="NO_SUCH_KEY"):
        settings.model_copy(update={"base_url": None, "api_key_env": "NO_SUCH_KEY"}).api_key()
    # An error in our own code, with all local variables of its frames.
    try:
        run_requests(iter([make_requests(settings, 1)[0], None]), settings, ledger)
    except AttributeError as error:
        frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), capture_locals=True)
        shown += "".join(
            frame for name, frame in zip(frames, frames.format()) if "/lavis_emovit/chat/" in name.filename
        )
    assert KEY not in shown + ledger.path.read_text() + "".join(capsys.readouterr())
    for address in (f"http://me:{KEY}@host/v1", f"http://host/v1?key={KEY}", "host/v1"):
        with pytest.raises(ValueError, match="must"):
            ChatSettings(model="m", base_url=address)
