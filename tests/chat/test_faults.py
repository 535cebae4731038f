"""Every class of fault by name, with streaming off and on.

For each fault: the classes of the attempts in the ledger, the number of calls, and the end of the run. Transient faults
are repeated until the request is answered. Refusals, cut replies, bad JSON and empty replies have their own classes and
are not repeated. Bad requests end the request; quota, key and address end the run.
"""

from __future__ import annotations

import pytest
from chat_fixtures import SCHEMA
from chat_server import KEY, Action, ChatServer

from lavis_emovit.chat.run import run_requests


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
        assert rows[-1]["reply"] == GOOD.text
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
