"""Candidate scores from chat endpoints.

- Log-probabilities of tokens become scores of marks as calculated by hand; a mark that is not listed gets the most that
  it can have. Long candidates are asked for by letters, short ones by themselves, and both as the endpoint gets them.
- An answer that names no mark is invalid: it counts as wrong, with all labels alike, and is in every denominator. A
  refusal is one, too; an endpoint that stops returning log-probabilities gives errors.
- Replies on the ledger are not requested again, streamed or not. More candidates than letters are refused.
- System One: probabilities become scores; a probability of 0 is a finite score; a broken answer is an error.
- The probe finds what is honoured, ignored and refused, once; an endpoint that cannot be reached is an error that says
  so, and settings choose the form without it.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chat"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tiny"))

from chat_server import Action, ChatServer, words_of
from tiny_models import item, picture

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import SCALE, YES_NO
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.adapters.base import Failure
from lavis_emovit.evaluation.adapters.chat_likelihood import marks_of, scores_from_tokens
from lavis_emovit.evaluation.adapters.chat_model import ChatModel, ChatModelSettings
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.metrics.classification import classification_metrics
from lavis_emovit.evaluation.questions import Question
from lavis_emovit.evaluation.suite.requests import Prepared, request_rows
from lavis_emovit.evaluation.truths import Truth

LABELS = ("amusement", "awe", "fear", "sadness")
QUESTION = Question("emotion", "Which emotion is it?", LABELS, "Predict emotion: ")
TOKENS = [("B", math.log(0.5)), (" a", math.log(0.2)), ("A.", math.log(0.05)), ("The", math.log(0.15))]
# Shares of A and B are sums over their tokens. C and D are not listed: the listed tokens leave 0.1, less than any of
# the listed ones but the last, which has 0.05.
EXPECTED = [math.log(0.25), math.log(0.5), math.log(0.05), math.log(0.05)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    from lavis_emovit.chat import limits

    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setattr(limits, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(limits, "_LONGEST_PAUSE_S", 0.01)


def chat(server, path, **entry):
    of_chat = {"model": "m", "base_url": server.url, "max_in_flight": 1, "max_attempts": 2, **entry.pop("chat", {})}
    return ChatModel(ChatModelSettings(adapter="chat", chat=of_chat, **entry), path)


def ask(model, questions, images=1):
    shown = [model.prepare(picture(seed, size_px=8)) for seed in range(images)]
    return model.score(shown, [n % images for n in range(len(questions))], questions, "likelihood")


def test_scores_of_tokens_are_those_by_hand():
    assert scores_from_tokens(TOKENS, "ABCD") == pytest.approx(EXPECTED)
    # Here the listed tokens leave less than the last of them has.
    assert scores_from_tokens([("A", math.log(0.6)), ("B", math.log(0.3))], "ABC")[2] == pytest.approx(math.log(0.1))
    # Rounding may leave nothing, or less.
    assert math.isfinite(scores_from_tokens([("A", 0.0), ("x", math.log(0.5))], "AB")[1])
    assert scores_from_tokens([("The", -0.1), ("\n", -2.0)], "ABCD") is None
    assert scores_from_tokens([("Yes", math.log(0.7)), ("no", math.log(0.2)), ("nothing", -3.0)], YES_NO) == (
        pytest.approx([math.log(0.7), math.log(0.2)])
    )
    assert marks_of(LABELS) == ("A", "B", "C", "D") and marks_of(SCALE) == SCALE and marks_of(YES_NO) == YES_NO


@pytest.mark.parametrize("stream", [False, True])
def test_candidates_are_scored_by_the_first_token(tmp_path, stream):
    tokens = [*TOKENS, ("D", -math.inf)]  # which the ledger could not hold
    with ChatServer(lambda body, number: Action(text="B", finish="length", logprobs=tokens)) as server:
        for _ in range(2):
            model = chat(server, tmp_path / "l.jsonl", likelihood="logprobs", probe=False, chat={"stream": stream})
            assert model.methods == {"generation", "likelihood"}
            assert ask(model, [QUESTION, QUESTION], images=2) == [pytest.approx(EXPECTED)] * 2
            model.close()
        assert server.num_requests == 2
        body = server.bodies[0]
    assert body["logprobs"] is True and body["top_logprobs"] == 20 and body["max_tokens"] == 4
    assert words_of(body) == (
        " Which emotion is it?\n\nOptions:\nA. amusement\nB. awe\nC. fear\nD. sadness\n\n"
        "Whatever form the question asks for, answer with one letter alone, A to D."
    )


def test_short_candidates_are_asked_for_themselves(tmp_path):
    with ChatServer(lambda body, number: Action(text="7", logprobs=[("7", -0.1), ("6", -3.0)])) as server:
        model = chat(server, tmp_path / "l.jsonl", likelihood="logprobs", probe=False)
        (scores,) = ask(model, [Question("valence", "How pleasant?", SCALE)])
        model.close()
        assert words_of(server.bodies[0]).endswith("Answer with one of these alone: 1, 2, 3, 4, 5, 6, 7, 8, 9.")
    assert len(scores) == 9 and max(scores) == scores[6] == pytest.approx(-0.1) and scores[5] == pytest.approx(-3.0)


def rows_of(model, images, settings, truth):
    prepared = [
        Prepared(replace(item(n, picture(n, size_px=8)), truth=truth), model.prepare(picture(n, size_px=8)))
        for n in range(images)
    ]
    label_set = get_label_set(f"labels:{', '.join(LABELS)}") if settings.kind == "emotion" else None
    return request_rows(model, prepared, settings, "likelihood", label_set)


def test_an_answer_without_a_mark_is_invalid_and_stays_in_the_denominator(tmp_path):
    actions = [
        Action(text="A", logprobs=[("A", -0.1)]),
        Action(text="The emotion", logprobs=[("The", -0.1), ("I", -3.0)]),
        Action(refusal="I cannot look at people."),
        Action(text="A"),
    ]
    with ChatServer(lambda body, number: actions[number]) as server:
        model = chat(server, tmp_path / "l.jsonl", likelihood="logprobs", probe=False)
        rows = rows_of(model, 4, BenchmarkSettings(dataset="x"), Truth(label="amusement"))
        model.close()
    assert [(row.prediction, row.status) for row in rows[:3]] == [
        ("amusement", None), (None, "invalid"), (None, "invalid"),
    ]  # fmt: skip
    assert rows[1].answer == "The emotion" and rows[2].answer == "I cannot look at people."
    assert set(rows[1].scores.values()) == {-math.log(4)}
    assert rows[3].error == "the endpoint returned no log-probabilities"
    metrics = classification_metrics(rows, LABELS)
    assert (metrics.num_samples, metrics.num_invalid, metrics.num_errors) == (3, 2, 1)
    assert metrics.accuracy == pytest.approx(1 / 3)
    # A tie of four: the true label is among two of them with probability 1/2.
    assert metrics.top_k[2] == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_numbers_without_a_mark_are_invalid(tmp_path):
    actions = [Action(text="9", logprobs=[("9", -1e-6)]), Action(text="Hm", logprobs=[("Hm", -0.1)])]
    with ChatServer(lambda body, number: actions[number]) as server:
        model = chat(server, tmp_path / "l.jsonl", likelihood="logprobs", probe=False)
        truth = Truth(values={"valence": 1.0, "arousal": 0.0})
        (row,) = rows_of(model, 1, BenchmarkSettings(dataset="x", kind="valence_arousal"), truth)
        model.close()
    assert row.status == "invalid" and row.values == {"valence": None, "arousal": None}


def test_more_candidates_than_letters_are_refused(tmp_path):
    with ChatServer() as server:
        model = chat(server, tmp_path / "l.jsonl", likelihood="systemone", probe=False)
        with pytest.raises(UserError, match=r"27 candidates.*coarser label_set"):
            ask(model, [Question("emotion", "?", tuple(f"label {n}" for n in range(27)))])
        model.close()
        assert server.num_requests == 0 and not server.decisions


def test_system_one_gives_probabilities(tmp_path):
    def decide(body, question):
        given = (0.5, 0.25, 0.25, 0.0) if len(question["criteria"]) == 4 else (0.75, 0.25)
        shares = dict(zip(question["criteria"], given))
        return shares if question["instructions"] == QUESTION.text else {"awe": 2.0}

    with ChatServer() as server:
        server.decide = decide
        model = chat(server, tmp_path / "l.jsonl", likelihood="systemone", probe=False)
        other = Question("emotion", "Broken?", LABELS)
        scored, broken = ask(model, [QUESTION, other])
        again = chat(server, tmp_path / "other.jsonl", likelihood="systemone", probe=False)
        ask(again, [QUESTION])
        twice = Question("choice", QUESTION.text, ("awe and joy", "fear", "awe and joy"))
        assert ask(again, [twice]) == [pytest.approx([math.log(0.75), math.log(0.25), math.log(0.75)])]
        for one in (model, again):
            one.close()
        body = server.decisions[0]
    assert scored[:3] == pytest.approx([math.log(0.5), math.log(0.25), math.log(0.25)])
    assert math.isfinite(scored[3]) and scored[3] < -700
    assert isinstance(broken, Failure) and "no probability of each choice" in broken.reason
    assert body["state"] == "<image-1>" and list(body["assets"]) == ["<image-1>"]
    assert body["questions"]["answer"]["criteria"] == dict.fromkeys(LABELS)
    Ledger(tmp_path / "l.jsonl").close()  # a ledger with scores can be read again


HONOURS = {
    "logprobs": Action(text="A", logprobs=[("A", -0.1)]),
    "schema": Action(text='{"feeling": "awe"}'),
}
IGNORES = {"logprobs": Action(text="A"), "schema": Action(text="Hello."), "sampling": Action(text="123")}
REFUSES = dict.fromkeys(("logprobs", "schema", "sampling"), Action(status=400, error={"message": "unsupported"}))


def prober(actions):
    def script(body, number):
        name = "logprobs" if "logprobs" in body else "schema" if "response_format" in body else "sampling"
        return actions.get(name) or Action(text=f"{number} 4 7")

    return script


@pytest.mark.parametrize(
    ("actions", "offers", "found", "methods"),
    [
        (HONOURS, False, ["honoured", "honoured", "honoured", "not asked"], {"generation", "likelihood"}),
        (IGNORES, True, ["ignored", "ignored", "ignored", "honoured"], {"generation", "likelihood"}),
        (REFUSES, False, ["refused", "refused", "refused", "refused"], {"generation"}),
    ],
    ids=["honours", "ignores", "refuses"],
)
def test_the_probe_finds_what_is_honoured(tmp_path, actions, offers, found, methods):
    with ChatServer(prober(actions)) as server:
        if offers:
            server.decide = lambda body, question: {"awe": 0.1, "contentment": 0.9}
        for _ in range(2):
            model = chat(server, tmp_path / "l.jsonl")
            assert list(model.facts().values())[:4] == found and model.methods == methods
            model.close()
        # What was answered is not asked again; a refusal costs nothing, so it is.
        assert actions is REFUSES or server.num_requests == 4
        assert all(body["max_tokens"] <= 24 for body in server.bodies)
        chosen = chat(server, tmp_path / "l.jsonl", likelihood="none")
        assert chosen.methods == {"generation"} and "likelihood" not in chosen.identity()
        chosen.close()


def test_an_endpoint_that_cannot_be_probed_is_an_error(tmp_path):
    for action in (Action(status=401), Action(status=404), Action(drop="before")):
        with ChatServer(lambda body, number, action=action: action) as server:
            model = chat(server, tmp_path / "l.jsonl")
            with pytest.raises(UserError, match=r"probe: false"):
                model.methods  # noqa: B018
            model.close()
            unprobed = chat(server, tmp_path / "l.jsonl", probe=False)
            assert unprobed.methods == {"generation"} and unprobed.facts() == {}
            unprobed.close()
