"""Every class of fault by name, with streaming off and on.

For each fault: the classes of the attempts in the ledger, the number of calls, and the end of the run. Transient faults
are repeated until the request is answered. Refusals, cut replies, bad JSON and empty replies have their own classes and
are not repeated. Bad requests end the request; quota, key and address end the run. An input that the endpoint flags
ends the request, with whatever status it comes. An error 500 with the same words is permanent. The words of every form
of error are kept. No part of a reply with a key in it is stored. Whatever an endpoint sends becomes a row.
"""

from __future__ import annotations

import json
from functools import cache
from unittest import mock

import pytest
from chat_fixtures import SCHEMA
from chat_server import KEY, Action, ChatServer
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.chat import client
from lavis_emovit.chat.faults import classify_error
from lavis_emovit.chat.ledger import _encode, _Row, decode_row
from lavis_emovit.chat.prices import Usage, load_prices
from lavis_emovit.chat.run import attempt_row, run_requests
from lavis_emovit.chat.settings import ChatSettings


def _error(status, message="scripted", code=None, **more):
    return Action(status=status, error={"message": message, "code": code}, **more)


GOOD = Action(text='{"answer": "A tree."}')
# Name -> (actions of the server, the last one repeated; classes of the attempts; whether the run stops).
FAULTS = {
    "rate_limit_with_pause": ([_error(429, headers={"retry-after": "0.05"}), GOOD], ["rate_limited", "ok"], False),
    "rate_limit_in_ms": ([_error(429, headers={"retry-after-ms": "20"}), GOOD], ["rate_limited", "ok"], False),
    "rate_limit_bare": ([_error(429), _error(429), GOOD], ["rate_limited", "rate_limited", "ok"], False),
    "busy_for_long": ([_error(429)] * 12 + [GOOD], ["rate_limited"] * 12 + ["ok"], False),
    "always_busy": ([_error(429)], ["rate_limited"] * 15, False),
    "rate_limit_for_hours": ([_error(429, headers={"retry-after": "9000"})], ["rate_limited"], True),
    "server_error": ([_error(500), GOOD], ["server_error", "ok"], False),
    "overloaded": ([_error(503, headers={"retry-after": "0.02"}), GOOD], ["server_error", "ok"], False),
    "gateway_page": ([Action(status=502, raw="<html>Bad gateway</html>"), GOOD], ["server_error", "ok"], False),
    "always_server_error": ([_error(500)], ["server_error"] * 3, False),
    "timeout": ([Action(wait_s=3.0), GOOD], ["timeout", "ok"], False),
    "dropped_before_answer": ([Action(drop="before"), GOOD], ["dropped", "ok"], False),
    "dropped_within_answer": ([Action(text="x" * 5000, drop="within"), GOOD], ["dropped", "ok"], False),
    "page_instead_of_json": ([Action(raw="<html>Log in</html>"), GOOD], ["malformed", "ok"], False),
    "no_choices": ([Action(raw='{"id": "x", "choices": []}'), GOOD], ["malformed", "ok"], False),
    "error_inside_of_success": (
        [Action(raw='{"error": {"message": "upstream is down", "code": 503}}'), GOOD],
        ["server_error", "ok"],
        False,
    ),
    "quota": ([_error(429, "You exceeded your current quota", "insufficient_quota")], ["quota"], True),
    "payment_required": ([_error(402)], ["quota"], True),
    "wrong_key": ([_error(401, f"Incorrect API key provided: {KEY}.", "invalid_api_key")], ["authentication"], True),
    "no_such_model": ([_error(404, "The model does not exist", "model_not_found")], ["not_found"], True),
    "bad_request": ([_error(400, "This model's context length is 8192 tokens")], ["bad_request"], False),
    "refusal": ([Action(refusal="I can't help with that.")], ["refused"], False),
    "filtered_reply": ([Action(text="", finish="content_filter")], ["refused"], False),
    "filtered_prompt": ([_error(400, "The prompt triggered the content management policy", "content_filter")],
                        ["refused"], False),
    "flagged_prompt": (
        [_error(403, 'Requires moderation. Your input was flagged for "violence".', 403)], ["refused"], False
    ),
    "flagged_prompt_inside_of_success": (
        [Action(raw='{"error": {"message": "Your input was flagged", "code": 403}}')], ["refused"], False
    ),
    "flagged_prompt_without_a_status": (
        [Action(raw='{"error": {"message": "The image was flagged", "code": "policy"}}')], ["refused"], False
    ),
    "forbidden": ([_error(403, "Your account was blocked", "account_deactivated")], ["authentication"], True),
    "filter_is_down": ([_error(503, "The content filter is not available"), GOOD], ["server_error", "ok"], False),
    "reply_too_deep": ([Action(raw="[" * 100_000), GOOD], ["malformed", "ok"], False),
    "reply_without_object": ([Action(raw='{"choices": [[1]]}'), GOOD], ["malformed", "ok"], False),
    "usage_without_end": (
        [Action(raw='{"choices": [{"message": {"content": "{}"}}], "usage": {"prompt_tokens": 1e400, '
                    '"completion_tokens": 1}}')], ["ok"], False
    ),
    "usage_beyond_floats": (
        [Action(text='{"answer": "A tree."}', usage={"prompt_tokens": 10**400, "completion_tokens": 1})], ["ok"], False
    ),
    "only_thoughts": ([Action(text='<think>Perhaps {"answer": "A draft."}')], ["empty"], False),
    "cut_reply": ([Action(text='{"answer": "A tr', finish="length")], ["cut"], False),
    "newline_flood": ([Action(text='{"answer":' + "\n" * 9000, finish="length")], ["cut"], False),
    "bad_json": ([Action(text='{"answer": A tree}')], ["bad_json"], False),
    "empty_reply": ([Action(text=" \n ")], ["empty"], False),
    "no_schemas": (
        [_error(400, "response_format json_schema is not supported"), GOOD], ["schema_unsupported", "ok"], False
    ),
    "neither_schemas_nor_objects": (
        [_error(400, "Unsupported response_format"), _error(400, "Unsupported response_format"), GOOD],
        ["schema_unsupported", "schema_unsupported", "ok"],
        False,
    ),
    "other_token_parameter": (
        [_error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."), GOOD],
        ["parameter_unsupported", "ok"],
        False,
    ),
}  # fmt: skip
PAID = {"ok", "refused", "cut", "bad_json", "empty"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", FAULTS)
def test_fault(name, stream, make_settings, make_requests, ledger):
    actions, statuses, stops = FAULTS[name]
    with ChatServer(lambda body, number: actions[min(number, len(actions) - 1)]) as server:
        timeout_s = 0.4 if name == "timeout" else 5.0
        settings = make_settings(server, stream=stream, timeout_s=timeout_s, max_attempts=3, max_in_flight=1)
        request = make_requests(settings, 1, schema=SCHEMA)[0]
        progress = run_requests([request], settings, ledger)
        rows = list(ledger.attempts())
        assert [row["status"] for row in rows] == statuses
        assert server.num_requests == len(statuses)
        assert bool(progress.stopped) == stops
        assert (request.fingerprint in ledger) == (statuses[-1] in PAID)
        # A second run sends only what was not paid.
        run_requests([request], settings, ledger)
        assert (server.num_requests == len(statuses)) == (statuses[-1] in PAID)
    if statuses[-1] == "ok":
        assert rows[-1]["reply"] in (GOOD.text, "{}")
        assert progress.done == 1 and not progress.failed
    elif statuses[-1] in PAID:
        assert progress.rejected == {statuses[-1]: 1}
    else:
        assert progress.failed and rows[-1]["reason"]
    assert KEY not in ledger.path.read_text()
    if name == "wrong_key":
        assert KEY not in progress.stopped and "OPENAI_API_KEY" in progress.stopped


def test_schema_fallback_applies_to_all_requests(make_settings, make_requests, ledger):
    """After one error about schemas, no other request uses one."""

    def script(body, number):
        if body.get("response_format", {}).get("type") == "json_schema":
            return _error(400, "json_schema is not supported")
        return GOOD

    with ChatServer(script) as server:
        settings = make_settings(server, max_in_flight=1)
        run_requests(make_requests(settings, 5, schema=SCHEMA), settings, ledger)
        assert [body.get("response_format", {}).get("type") for body in server.bodies] == [
            "json_schema", *["json_object"] * 5
        ]  # fmt: skip
        assert ledger.counts == {"schema_unsupported": 1, "ok": 5}


def test_unreachable_endpoint_ends_the_run(make_settings, make_requests, ledger):
    with ChatServer() as server:
        settings = make_settings(server, max_attempts=2, max_failures=3, max_in_flight=2, prices=None)
    progress = run_requests(make_requests(settings, 50), settings, ledger)
    assert "in a row failed" in progress.stopped
    assert len(ledger) == 0 and ledger.counts["dropped"] <= 10
    # Nothing was sent, so nothing can be billed.
    assert ledger.usd_spent == 0.0


@pytest.mark.parametrize("drop", ["before", "within"])
def test_dropped_calls_count_with_their_worst_case(drop, make_settings, make_requests, ledger):
    """The endpoint may have done the work before the connection broke."""
    with ChatServer(lambda body, number: Action(text="x" * 5000, drop=drop)) as server:
        settings = make_settings(server, max_attempts=2)
        run_requests(make_requests(settings, 1), settings, ledger)
    costs = [row["usd_bound"] for row in ledger.attempts()]
    assert ledger.counts == {"dropped": 2} and ledger.usd_spent == pytest.approx(sum(costs)) and min(costs) > 0


def test_same_error_500_ends_requests_and_then_the_run(make_settings, make_requests, ledger):
    with ChatServer(lambda body, number: _error(500, "out of memory")) as server:
        settings = make_settings(server, max_in_flight=1)
        progress = run_requests(make_requests(settings, 10), settings, ledger)
        assert progress.stopped == "3 requests in a row ended with the same error 500: out of memory"
        assert server.num_requests == 9


@pytest.mark.parametrize(
    ("message", "status", "attempts"), [("crash {}", 500, 6), ("overloaded", 503, 6), ("crash", 500, 3)]
)
def test_other_server_errors_are_repeated(message, status, attempts, make_settings, make_requests, ledger):
    """Errors with other words, or of a busy endpoint, may pass. One request that always fails does not end the run."""

    def script(body, number):
        return (
            _error(status, message.format(number)) if body["messages"][1]["content"] in ("item 1", "item 3") else GOOD
        )

    with ChatServer(script) as server:
        settings = make_settings(server, max_in_flight=1)
        progress = run_requests(make_requests(settings, 6), settings, ledger)
        assert progress.stopped is None and progress.done == 4 and server.num_requests == 4 + 2 * attempts


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"message": "no such thing"}, "no such thing"),
        ({"detail": "Not authenticated"}, "Not authenticated"),
        (
            {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}]},
            "body.seed: Extra inputs are not permitted",
        ),
        ({"detail": ["one", {"msg": "two"}]}, "error: one; error: two"),
        ({"error": {"message": "inner"}}, "inner"),
        ({"error": "plain"}, "plain"),
        ("a page", "a page"),
        (None, "HTTP 422"),
        ({}, "HTTP 422"),
        ({"code": 7}, "{'code': 7}"),
        (["listed"], "error: listed"),
    ],
)
def test_words_of_every_form_of_error_are_kept(error, reason):
    assert classify_error(422, error).reason == reason


def test_detail_of_an_error_is_shown(make_settings, make_requests, ledger):
    page = '{"detail": [{"loc": ["body", "messages"], "msg": "images are not supported"}]}'
    with ChatServer(lambda body, number: Action(status=422, raw=page)) as server:
        settings = make_settings(server)
        progress = run_requests(make_requests(settings, 2), settings, ledger)
    assert progress.nothing_answered() == (
        "none of the 2 requests was answered (bad_request: body.messages: images are not supported)"
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("place", ["id", "model", "finish_reason", "refusal", "content", "error", "detail"])
def test_keys_in_any_part_of_a_reply_are_removed(place, stream, make_settings, make_requests, ledger):
    message = {"role": "assistant", "content": {"content": f"a {KEY}", "refusal": ""}.get(place, "text")}
    message["refusal"] = f"no {KEY}" if place == "refusal" else None
    choice = {
        "index": 0,
        "message": message,
        "delta": message,
        "finish_reason": KEY if place == "finish_reason" else "stop",
    }
    whole = {
        "id": f"id {KEY}" if place == "id" else "c",
        "model": KEY if place == "model" else "m",
        "choices": [choice],
    }
    if place in ("error", "detail"):
        action = Action(status=400, raw=f'{{"{place}": "at http://me:{KEY}@host/v1?sig=5Xk2, {KEY}"}}')
    else:
        body = json.dumps(whole)
        action = Action(raw=f"data: {body}\n\ndata: [DONE]\n\n" if stream else body)
    with ChatServer(lambda body, number: action) as server:
        settings = make_settings(server, stream=stream)
        run_requests(make_requests(settings, 1), settings, ledger)
    row = next(ledger.attempts())
    assert row["status"] == {"error": "bad_request", "detail": "bad_request", "refusal": "refused"}.get(place, "ok")
    text = ledger.path.read_text()
    assert KEY not in text and "5Xk2" not in text and "***" in text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_answers_without_end_are_cut_off(stream, make_settings, make_requests, ledger, monkeypatch):
    """A body larger than any reply is not collected in memory."""
    monkeypatch.setattr(client, "_MAX_REPLY_BYTES", 100_000)
    with ChatServer(lambda body, number: Action(text="x" * 200_000) if number < 2 else GOOD) as server:
        settings = make_settings(server, stream=stream)
        assert run_requests(make_requests(settings, 1), settings, ledger).done == 1
    first = next(ledger.attempts())
    assert first["status"] == "malformed" and "more than 100000 bytes" in first["reason"] and first["usd_bound"] > 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "a draft"}]},
                {"type": "text", "text": "final"},
            ],
            "final",
        ),
        ([{"type": "reasoning", "text": "a draft"}, {"type": "output_text", "text": "final"}], "final"),
        ([{"text": "fin"}, "noise", {"type": "text", "text": "al"}], "final"),
        ([{"type": "reasoning", "text": "a draft"}], None),
        ({"text": "a draft"}, None),
    ],
)
def test_parts_that_are_no_text_are_no_reply(content, reply, stream, make_settings, make_requests, ledger):
    choice = {"index": 0, "message": {"content": content}, "delta": {"content": content}, "finish_reason": "stop"}
    body = json.dumps({"id": "c", "choices": [choice]})
    action = Action(raw=f"data: {body}\n\ndata: [DONE]\n\n" if stream else body)
    with ChatServer(lambda body, number: action) as server:
        settings = make_settings(server, stream=stream)
        run_requests(make_requests(settings, 1), settings, ledger)
        assert server.num_requests == 1
    row = next(ledger.attempts())
    assert (row["status"], row.get("reply") or None) == ("ok" if reply else "empty", reply)


@pytest.mark.parametrize(
    ("chunks", "reply", "status"),
    [
        ([[(0, "A ", None), (1, "No ", None)], [(1, "way.", "stop")], [(0, "tree.", "stop")]], "A tree.", "ok"),
        ([[(1, "No way.", "length")], [(0, "A tree.", "stop")]], "A tree.", "ok"),
        ([[(0, "A tr", "length"), (1, "No way.", "stop")]], "A tr", "cut"),
        ([[(None, "A ", None)], [(None, "tree.", "stop")]], "A tree.", "ok"),
    ],
)
def test_the_first_of_several_streamed_choices_counts(chunks, reply, status, make_settings, make_requests, ledger):
    bodies = [
        {"choices": [{"index": i, "delta": {"content": text}, "finish_reason": end} for i, text, end in chunk]}
        for chunk in chunks
    ]
    raw = "".join(f"data: {json.dumps(body)}\n\n" for body in bodies) + "data: [DONE]\n\n"
    with ChatServer(lambda body, number: Action(raw=raw)) as server:
        settings = make_settings(server, stream=True)
        run_requests(make_requests(settings, 1), settings, ledger)
    row = next(ledger.attempts())
    assert (row["status"], row["reply"]) == (status, reply)


_NAMES = st.sampled_from(
    ["choices", "message", "content", "finish_reason", "id", "model", "error", "code", "type", "usage", "prompt_tokens",
     "completion_tokens", "prompt_tokens_details", "cached_tokens", "refusal", "detail", "loc", "msg", "text"]
)  # fmt: skip
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(_ANYTHING, st.dictionaries(_NAMES, _ANYTHING, max_size=3), st.booleans(), st.sampled_from([200, 403, 422, 500]))
def test_whatever_an_endpoint_sends_becomes_a_row_that_the_ledger_reads(anything, more, demands_json, http):
    message = {"content": anything, **more} if isinstance(anything, str | list) else anything
    with mock.patch.dict("os.environ", {"OPENAI_API_KEY": KEY}):
        endpoint = _endpoint()
    for reply in (anything, {"choices": [{"message": message, **more}], **more}, {"error": anything}):
        text = json.dumps(reply)
        answer = endpoint.read(lambda text=text: endpoint._read(text, demands_json=demands_json), text)
        for outcome in (answer, endpoint.scrubbed(classify_error(http, reply))):
            row = attempt_row({"request": "1" * 64, "about": {}}, Usage(1, 1), outcome, 1, load_prices().find("gpt-4o"))
            _Row.model_validate(decode_row(_encode({"status": "ok", **row})))


@cache
def _endpoint():
    return client.ChatClient(ChatSettings(model="m", base_url="http://127.0.0.1:9/v1"))
