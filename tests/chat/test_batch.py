"""Batch mode on the ledger of single calls.

- Submit, wait, collect: every request is answered once, at the batch's price. Single calls find what batches paid for.
- The answers of an expired batch are kept; only the other requests are submitted again.
- If a run is killed between planning and collecting, the next run finds its batches and sends nothing twice.
- A broken image or a refused request ends the request, not the batch, and is tried once. Any id survives. Rows of
  another step's batch are recorded, but not passed on.
- File ids that are absent in any form, results in any of the files and answers of any form are collected; a flagged
  request does not end the run. An edited list of requests is refused by line.
- A batch, or its results, that the endpoint no longer has is reported with the way out. Abandoned, its requests count
  at their highest cost and are sent again; other batches are collected.
- An interrupted run returns at once, and the next call collects.
- Large inputs are split. The budget includes batches under way. A failed batch ends the run with its reason.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace

import pytest
from chat_fixtures import SCHEMA
from chat_server import KEY, Action, ChatServer, complete_batch, render
from chat_server import _http as http

from lavis_emovit.chat import batch
from lavis_emovit.chat.batch import run_batches
from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.request import Message, image_of
from lavis_emovit.chat.run import run_requests
from lavis_emovit.errors import DataError, UserError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(batch, "POLL_S", 0.01)


def test_submit_wait_collect(make_settings, make_requests, ledger, monkeypatch):
    monkeypatch.setattr(batch, "MAX_REQUESTS", 3)
    with ChatServer() as server:
        settings = make_settings(server, stream=True)
        requests = make_requests(settings, 7, schema=SCHEMA)
        progress = run_batches(requests, settings, ledger)
        assert (progress.done, len(ledger), len(server.batches)) == (7, 7, 3)
        # 100 tokens in and 20 out, 0.4 and 1.6 dollars a million, half of it in a batch.
        assert progress.usd == pytest.approx(7 * (100 * 0.4 + 20 * 1.6) / 1e6 / 2)
        assert all(json.loads(row["reply"])["answer"] for row in ledger.attempts())
        # Nothing is left to send, neither as single calls nor in a batch.
        run_requests(requests, settings, ledger)
        again = run_batches(requests, settings, ledger)
        assert server.num_requests == 0 and len(server.batches) == 3 and again.from_ledger == 7


def test_partial_expiry(make_settings, make_requests, ledger):
    def expire(batch, lines):
        if batch["id"] != "batch-1":
            return complete_batch(batch, lines)
        done = complete_batch(batch, lines[:3])["output"]
        error = {"code": "batch_expired", "message": "This request could not be executed before the window expired."}
        missed = [{"id": "e", "custom_id": line["custom_id"], "response": None, "error": error} for line in lines[3:6]]
        filtered = {"custom_id": lines[6]["custom_id"], "error": None, "response": {"status_code": 400}}
        filtered["response"]["body"] = {"error": {"code": "content_filter", "message": "filtered"}}
        # The last request is in neither file.
        return {"status": "expired", "output": done, "error": [*missed, filtered]}

    with ChatServer() as server:
        server.batch_script = expire
        settings = make_settings(server)
        requests = make_requests(settings, 8)
        progress = run_batches(requests, settings, ledger)
        second = [
            json.loads(line)["custom_id"]
            for line in server.files[server.batches["batch-2"]["input_file_id"]].splitlines()
        ]
        assert second == [request.fingerprint for request in (*requests[3:6], requests[7])]
        assert ledger.counts == {"ok": 7, "refused": 1, "expired": 4}
        assert progress.done == 8 and progress.rejected == {"refused": 1}


@pytest.mark.parametrize("moment", ["upload", "create", "submitted", "collect"])
def test_killed_at_any_moment(moment, make_settings, make_requests, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    path = tmp_path / "ledger.jsonl"
    with ChatServer() as server:
        settings = make_settings(server)
        requests = make_requests(settings, 4)
        append_now = Ledger.append_now

        def dying(self, row):
            stage = {"batch_planned": "upload", "batch_submitted": "submitted", "batch_ended": "collect"}
            reached = stage.get(row.get("event"))
            if moment == "create" and reached == "submitted":
                raise Killed  # the batch exists, but is not recorded
            append_now(self, row)
            if reached == moment:
                raise Killed

        if moment == "collect":
            # All rows are recorded, but not the end of the batch.
            def dying(self, row):
                if row.get("event") == "batch_ended":
                    raise Killed
                append_now(self, row)

        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "append_now", dying)
            with pytest.raises(Killed), Ledger(path) as ledger:
                run_batches(requests, settings, ledger)
        with Ledger(path) as ledger:
            progress = run_batches(requests, settings, ledger)
            assert progress.done == 4 and ledger.counts == {"ok": 4}
        assert len(server.batches) == 1


def test_without_waiting(make_settings, make_requests, tmp_path):
    with ChatServer() as server:
        settings = make_settings(server)
        requests = make_requests(settings, 3)
        server.batch_script = lambda batch, lines: {"status": "in_progress"}
        for _ in range(2):  # a second call neither waits nor submits again
            with Ledger(tmp_path / "ledger.jsonl") as ledger:
                progress = run_batches(requests, settings, ledger, wait=False)
                assert progress.done == 0 and progress.in_flight == 3
        server.batch_script = complete_batch
        with Ledger(tmp_path / "ledger.jsonl") as ledger:
            assert run_batches(requests, settings, ledger, wait=False).done == 3
        assert len(server.batches) == 1


def test_budget_and_failed_batch(make_settings, make_requests, ledger):
    with ChatServer() as server:
        settings = make_settings(server, max_usd=0.003)
        requests = make_requests(settings, 100)
        # One request costs at most about 0.00083 dollars in a batch.
        progress = run_batches(requests, settings, ledger, wait=False)
        assert "could exceed the limit of $0.003" in progress.stopped
        assert len(server.files["file-1"].splitlines()) == 3
        server.batch_script = lambda batch, lines: {"status": "failed"}
        progress = run_batches(requests, make_settings(server), ledger)
        assert progress.stopped == "the batch batch-1 failed: no reason given"


@pytest.mark.parametrize(
    ("errors", "shown"),
    [
        ({"data": [{"message": f"bad key {KEY}"}, {"code": 3}]}, "bad key ***; "),
        ({"data": None}, "no reason given"),
        ("", "no reason given"),
        (["text"], "no reason given"),
    ],
)
def test_reason_of_a_failed_batch_has_any_form(errors, shown, make_settings, make_requests, ledger):
    def fail(batch, lines):
        batch["errors"] = errors
        return {"status": "failed"}

    with ChatServer() as server:
        server.batch_script = fail
        settings = make_settings(server)
        progress = run_batches(make_requests(settings, 2), settings, ledger)
        assert progress.stopped.startswith(f"the batch batch-1 failed: {shown}") and KEY not in progress.stopped


@pytest.mark.parametrize("page", [b"<html>Log in</html>", b"[" * 100_000, b'{"id": 5, "status": {"a": 1}}', b"{}"])
def test_page_in_place_of_a_batch_ends_the_run_with_a_message(page, make_settings, make_requests, ledger, monkeypatch):
    with ChatServer() as server:
        settings = make_settings(server)
        requests = make_requests(settings, 2)
        run_batches(requests, settings, ledger, wait=False)

        async def other(self, writer, method, path, data):
            writer.write(http(200, "application/json", page, {}))
            await writer.drain()
            return True

        with monkeypatch.context() as patch:
            patch.setattr(ChatServer, "_files_and_batches", other)
            with pytest.raises(UserError, match="did not take the batch"):
                run_batches(requests, settings, ledger)
        assert run_batches(requests, settings, ledger).done == 2 and len(server.batches) == 1


def test_replies_in_batches_have_the_same_classes(make_settings, make_requests, ledger):
    actions = [Action(refusal="no"), Action(finish="length"), Action(text="{bad"), Action(text="")]

    def script(batch, lines):
        output = complete_batch(batch, lines)
        for line, action, source in zip(output["output"], actions, lines):
            line["response"]["body"] = json.loads(render(action, source["body"])[1])
        return output

    with ChatServer() as server:
        server.batch_script = script
        settings = make_settings(server)
        progress = run_batches(make_requests(settings, 4, schema=SCHEMA), settings, ledger)
        assert progress.rejected == {"refused": 1, "cut": 1, "bad_json": 1, "empty": 1}


def test_unusable_requests(make_settings, make_requests, ledger, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no image")

    def refuse_second(batch, lines):
        done = complete_batch(batch, [lines[0], *lines[2:]])["output"]
        bad = {"custom_id": lines[1]["custom_id"], "error": None, "response": {"status_code": 400}}
        bad["response"]["body"] = {"error": {"code": "invalid_value", "message": "no"}}
        return {"status": "completed", "output": [*done, bad]}

    with ChatServer() as server:
        server.batch_script = refuse_second
        settings = make_settings(server)
        requests = make_requests(settings, 4)
        requests[0] = replace(requests[0], about={"record": "line\u2028and\x85paragraph\u2029"})
        broken = Message("user", "look", (image_of(tmp_path / "broken.jpg"),))
        requests[3] = replace(requests[3], messages=(broken,))
        progress = run_batches(requests, settings, ledger)
        assert len(server.batches) == 1 and progress.done == 2
        assert progress.failed == {"bad_picture": 1, "bad_request": 1}
        assert ledger.finished(requests[0].fingerprint)["about"]["record"] == "line\u2028and\x85paragraph\u2029"


@pytest.mark.parametrize("absent", ["", None], ids=["empty", "null"])
@pytest.mark.parametrize("place", ["output", "error"])
def test_results_in_one_file_are_collected(place, absent, make_settings, make_requests, ledger):
    other = "error" if place == "output" else "output"

    def script(batch, lines):
        batch[f"{other}_file_id"] = absent
        return {"status": "completed", place: complete_batch(batch, lines)["output"]}

    with ChatServer() as server:
        server.batch_script = script
        settings = make_settings(server)
        progress = run_batches(make_requests(settings, 3), settings, ledger)
        assert progress.done == 3 and len(server.batches) == 1


def test_all_results_are_errors(make_settings, make_requests, ledger):
    """Flagged by the endpoint, in the forms that are seen; the rest is collected."""
    flagged = {"message": "Your input was flagged", "code": 403}
    forms = [
        {"response": {"status_code": 403, "body": {"error": flagged}}, "error": None},
        {"response": {"status_code": 200, "body": {"error": flagged}}, "error": None},
        {"response": None, "error": flagged},
        {"response": None, "error": "The prompt was flagged"},
        {"response": {"status_code": 422, "body": {"detail": "images are not supported"}}},
    ]

    def script(batch, lines):
        return {
            "status": "completed",
            "error": [{"custom_id": line["custom_id"], **form} for line, form in zip(lines, forms)],
        }

    with ChatServer() as server:
        server.batch_script = script
        settings = make_settings(server)
        progress = run_batches(make_requests(settings, 5), settings, ledger)
        assert progress.rejected == {"refused": 4} and progress.failed == {"bad_request": 1}
        assert progress.stopped is None and progress.reasons == {"bad_request": "images are not supported"}
        assert len(server.batches) == 1


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"output": []},
        {"output": [{"custom_id": "f" * 64, "response": {"status_code": 200, "body": {}}}]},
    ],
    ids=["no_file", "empty_file", "other_requests"],
)
def test_batch_without_any_answer_is_not_sent_again(results, make_settings, make_requests, ledger):
    with ChatServer() as server:
        server.batch_script = lambda batch, lines: {"status": "completed", **results}
        settings = make_settings(server)
        progress = run_batches(make_requests(settings, 3), settings, ledger)
        assert progress.stopped == "the batch batch-1 completed without an answer to any of its 3 requests"
        assert len(server.batches) == 1 and progress.failed == {"expired": 3}


@pytest.mark.parametrize("code", ["200", 200.0, "0200"])
def test_status_codes_as_text(code, make_settings, make_requests, ledger):
    def script(batch, lines):
        output = complete_batch(batch, lines)["output"]
        for line in output:
            line["response"]["status_code"] = code
        busy = {"status_code": "429", "body": {"error": {"message": "slow down"}}}
        return {"status": "completed", "output": [{**output[0], "response": busy}, *output[1:]]}

    with ChatServer() as server:
        server.batch_script = script
        settings = make_settings(server)
        progress = run_batches(make_requests(settings, 4), settings, ledger)
        assert progress.done == 3 and ledger.counts == {"ok": 3, "rate_limited": 5} and len(server.batches) == 5
        # Each request counts once, however often it was sent.
        assert progress.failed == {"rate_limited": 1} and progress.retries == {"rate_limited": 5}
        assert progress.reasons == {"rate_limited": "slow down"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace('"body": {', '"body": ' + "[" * 100_000 + "{"),
        lambda line: line.replace('"prompt_tokens": 100', '"prompt_tokens": 1e400'),
        lambda line: line.replace('"status_code": 200', '"status_code": "many"'),
        lambda line: line.replace('"response": {', '"response": [{'),
        lambda line: line.replace('"choices"', '"none"'),
    ],
    ids=["deep", "endless_usage", "no_number", "no_json", "no_choices"],
)
def test_damaged_results_get_their_row(damage, make_settings, make_requests, ledger, monkeypatch):
    with ChatServer() as server:

        def script(batch, lines):
            done = complete_batch(batch, lines)
            if batch["id"] == "batch-1":
                rows = [json.dumps(row) for row in done["output"]]
                server.files["damaged"] = "\n".join([damage(rows[0]), *rows[1:]]).encode()
                batch["output_file_id"] = "damaged"
                return {"status": "completed"}
            return done

        server.batch_script = script
        settings = make_settings(server)
        requests = make_requests(settings, 3)
        progress = run_batches(requests, settings, ledger)
        assert progress.done == 3 and ledger.counts["ok"] == 3
        # The damaged one was paid, so it has a row and a cost.
        first = next(row for row in ledger.attempts() if row["request"] == requests[0].fingerprint)
        assert first["status"] in ("malformed", "ok") and (first.get("usd") or first["usd_bound"]) > 0.0


@pytest.mark.parametrize(
    "line", ["x", "[]", '{"head": {"request": "1"}, "worst": [1]}', '{"head": 3, "worst": [1, 2]}']
)
def test_edited_list_of_requests_is_refused_by_line(line, make_settings, make_requests, ledger):
    with ChatServer() as server:
        settings = make_settings(server)
        requests = make_requests(settings, 2)
        run_batches(requests, settings, ledger, wait=False)
        path = next((ledger.path.parent / "ledger.jsonl.batches").glob("*.requests.jsonl"))
        path.write_text(path.read_text() + line + "\n")
        with pytest.raises(DataError, match=r"requests\.jsonl:3: not a request of this batch"):
            run_batches(requests, settings, ledger)


@pytest.mark.parametrize("gone", ["batch-1", "output-batch-1"])
def test_batch_that_the_endpoint_no_longer_has(gone, make_settings, make_requests, ledger):
    with ChatServer() as server:
        settings = make_settings(server)
        lost, other = make_requests(settings, 3), make_requests(settings, 2, first=10)
        server.batch_script = lambda batch, lines: {"status": "in_progress"}
        for requests in (lost, other):
            run_batches(requests, settings, ledger, wait=False)
        assert len(server.batches) == 2 and len(ledger) == 0

        def complete_without_file(batch, lines):
            outcome = complete_batch(batch, lines)
            if f"output-{batch['id']}" == gone:
                batch["output_file_id"] = "file-0"
                return {"status": "completed"}
            return outcome

        server.batch_script = complete_without_file
        if gone in server.batches:
            del server.batches[gone]
        for _ in range(2):  # nothing is sent or paid again without permission
            with pytest.raises(UserError, match=r"no longer has the batch batch-1 with 3 requests") as error:
                run_batches(lost, settings, ledger)
            assert str(ledger.path) in str(error.value) and "add --abandon-batches" in str(error.value)
            assert len(server.files) == 3 and ledger.counts == {"ok": 2}
        paid = ledger.usd_spent
        server.batch_script = complete_batch
        progress = run_batches(lost, settings, ledger, abandon_lost=True)
        assert progress.done == 3 and ledger.counts == {"ok": 5, "expired": 3}
        rows = [row for row in ledger.attempts() if row["status"] == "expired"]
        assert [row["request"] for row in rows] == [request.fingerprint for request in lost]
        # 1024 output tokens at 1.6 dollars a million and the input at its bytes; half of it in a batch.
        assert all(row["usd_bound"] > 1024 * 1.6e-6 / 2 and row["http"] == 404 for row in rows)
        assert ledger.usd_spent == pytest.approx(
            paid + sum(row["usd_bound"] for row in rows) + 3 * (100 * 0.4 + 20 * 1.6) / 1e6 / 2
        )
        assert run_batches([*lost, *other], settings, ledger).from_ledger == 5


def test_another_steps_batch(make_settings, make_requests, ledger):
    with ChatServer() as server:
        settings = make_settings(server)
        first, second = make_requests(settings, 3), make_requests(settings, 2, first=10)
        run_batches(first, settings, ledger, wait=False)
        rows = []
        progress = run_batches(second, settings, ledger, on_row=rows.append)
        assert [row["request"] for row in rows] == [request.fingerprint for request in second]
        assert progress.done == 2 and len(ledger) == 5 and len(server.batches) == 2


def test_interrupted_while_waiting(make_settings, make_requests, ledger, monkeypatch):
    monkeypatch.setattr(batch, "POLL_S", 60.0)
    with ChatServer() as server:
        settings = make_settings(server)
        requests = make_requests(settings, 3)

        def interrupt(batch, lines):
            server.batch_script = lambda batch, lines: {"status": "in_progress"}
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            return {"status": "in_progress"}

        server.batch_script = interrupt
        progress = run_batches(requests, settings, ledger)
        assert progress.stopped.startswith("interrupted") and progress.done == 0
        server.batch_script = complete_batch
        assert run_batches(requests, settings, ledger).done == 3 and len(server.batches) == 1
