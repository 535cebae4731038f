"""Properties of streams and log-probabilities, with OpenAI's own client.

- the pieces of a stream are the answer; they come while it is written; role, end and usage are in their places;
- whatever the tokens, no piece has a part of a character, of a stop, or white space that the answer does not have;
- log-probabilities are those of scoring, their tokens are the answer, and a stream has the same ones;
- an error in the middle of a stream is an error for the client, and is counted.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import openai
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from served_questions import QUESTION, asked, wait_for

from lavis_emovit.models.row_writing import ChosenToken, RowSettings
from lavis_emovit.models.writing import TokenTexts, Writing

SAMPLED = {"model": "tiny", "temperature": 2.0, "seed": 5, "max_tokens": 24}


@pytest.fixture(scope="module")
def wordy(tuned) -> Any:
    """The model as one that writes at least 16 tokens."""
    return replace(tuned, questions=tuned.questions.model_copy(update={"min_length": 16}))


def test_the_pieces_of_a_stream_are_the_answer(serve, run, wordy):
    wanted = {"messages": asked(run.images[0]), **SAMPLED}
    with serve(wordy) as small:
        whole = small.client.chat.completions.create(**wanted)
        with_usage = {"stream": True, "stream_options": {"include_usage": True}}
        *chunks, end, usage = small.client.chat.completions.create(**with_usage, **wanted)
        *_, last = small.client.chat.completions.create(stream=True, **wanted)
    pieces = [chunk.choices[0].delta.content for chunk in chunks]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len(pieces) > 3 and all(pieces)
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert end.choices[0].finish_reason == whole.choices[0].finish_reason
    assert usage.choices == [] and usage.usage == whole.usage
    assert len({chunk.id for chunk in [*chunks, end, usage]}) == 1
    assert last.choices[0].finish_reason is not None and last.usage is None


def test_pieces_come_while_the_answer_is_written(serve, run, wordy, monkeypatch):
    go_on, calls = threading.Event(), []
    add = Writing.add

    def wait_after_some(self, token):
        calls.append(token)
        return add(self, token) if len(calls) < 8 else (go_on.wait(30), add(self, token))[1]

    monkeypatch.setattr(Writing, "add", wait_after_some)
    with serve(wordy) as small:
        stream = small.client.chat.completions.create(messages=asked(run.images[0]), stream=True, **SAMPLED)
        first = next(stream).choices[0].delta.content
        assert first and not go_on.is_set() and len(calls) <= 8
        go_on.set()
        rest = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert len(calls) > 8 and len("".join(rest)) > len(first)
        wait_for(lambda: small.served.counts == {"answered": 1})


WORDS = st.text(st.sampled_from("ab é☃\n😀x"), max_size=12)


@settings(max_examples=150)
@given(text=WORDS, stop=st.text("ab é☃", min_size=1, max_size=4), is_stream=st.booleans())
@example(text="ab é ab", stop="é a", is_stream=True)
@example(text="aa aab", stop="aab", is_stream=True)
@example(text="a☃", stop="b", is_stream=True)
@example(text="a  ", stop="b", is_stream=False)
def test_pieces_never_have_what_the_answer_does_not_have(tuned, text, stop, is_stream):
    tokenizer = tuned.model.llm_tokenizer
    pieces = []
    writing = Writing(
        RowSettings(99), [stop], TokenTexts(tokenizer), pieces.append, is_stream=is_stream, is_wanted=lambda: True
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if all(writing.add(ChosenToken(number, -1.0)) for number in ids):
        writing.end("length")
        assert sum(len(piece.tokens) for piece in pieces) == len(ids)
    assert pieces[-1].finish == ("stop" if stop in text.lstrip() else "length")
    assert all(piece.finish is None and piece.text for piece in pieces[:-1])
    assert "".join(piece.text for piece in pieces) == text.lstrip().partition(stop)[0].rstrip()
    assert not any("\N{REPLACEMENT CHARACTER}" in piece.text for piece in pieces)


def test_log_probabilities_are_those_of_scoring(server, run, tuned):
    images = [tuned.image_processor(Image.open(path).convert("RGB")) for path in run.images]
    answers = tuned.model.generate({"image": torch.stack(images), "prompt": [QUESTION] * len(images)}, max_length=8)
    place = next(place for place, answer in enumerate(answers) if len(answer.split()) > 2)
    wanted = {"model": "tiny", "messages": asked(run.images[place]), "logprobs": True, "top_logprobs": 5}
    choice = server.client.chat.completions.create(**wanted).choices[0]
    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens).strip() == choice.message.content == answers[place]
    assert bytes(number for token in tokens for number in token.bytes).decode().strip() == answers[place]
    # The answer's words one by one: what a longer candidate scores less than a shorter one is the share of its tokens.
    samples = {"image": images[place][None], "prompt": [QUESTION]}
    words = answers[place].split()
    begins = [" ".join(words[:count]) for count in range(1, len(words) + 1)]
    scores = tuned.model.score_candidates(samples, begins)[0].tolist()
    for count in range(1, len(words)):
        taken = [
            len(tuned.model.llm_tokenizer(begins[n], add_special_tokens=False)["input_ids"]) for n in (count - 1, count)
        ]
        own = sum(token.logprob for token in tokens[slice(*taken)])
        assert own == pytest.approx(scores[count] - scores[count - 1], abs=1e-3)
    for token in tokens:
        values = [one.logprob for one in token.top_logprobs]
        assert len(values) == 5 and values == sorted(values, reverse=True) and max(values) < 0
        assert (token.token, token.logprob) == (token.top_logprobs[0].token, values[0])
    plain = server.client.chat.completions.create(**{**wanted, "top_logprobs": 0}).choices[0]
    assert [token.top_logprobs for token in plain.logprobs.content] == [[]] * len(tokens)


def test_a_stream_has_the_same_log_probabilities_up_to_its_stop(serve, run, wordy):
    with serve(wordy) as small:
        complete = small.client.chat.completions.create
        wanted = {"messages": asked(run.images[0]), "logprobs": True, "top_logprobs": 3, **SAMPLED}
        choice = complete(**wanted).choices[0]
        tokens = choice.logprobs.content
        for stop in (None, choice.message.content.split()[5]):
            whole = complete(stop=stop, **wanted).choices[0]
            kept = whole.logprobs.content
            chunks = [chunk.choices[0] for chunk in complete(stop=stop, stream=True, **wanted)]
            streamed = [token for chunk in chunks if chunk.logprobs for token in chunk.logprobs.content]
            assert [token.token for token in streamed] == [token.token for token in kept]
            assert [one.logprob for one in streamed] == pytest.approx([one.logprob for one in kept], abs=1e-4)
            assert [token.token for token in kept] == [token.token for token in tokens[: len(kept)]]
            assert "".join(chunk.delta.content or "" for chunk in chunks) == whole.message.content
            # The last token may contain the beginning of the stop, and sampled bytes need not be characters.
            text = "".join(token.token for token in kept).split()
            assert text[:5] == whole.message.content.split()[:5] and len(kept) > 4
        assert len(kept) < len(tokens) and whole.finish_reason == "stop"


def test_an_error_within_a_stream_reaches_the_client(serve, run, wordy, monkeypatch):
    add = Writing.add

    def fail_late(self, token):
        more = add(self, token)
        if self.has_sent:
            raise RuntimeError("the device is lost")
        return more

    monkeypatch.setattr(Writing, "add", fail_late)
    with serve(wordy) as small:
        stream = small.client.chat.completions.create(messages=asked(run.images[0]), stream=True, **SAMPLED)
        assert next(stream).choices[0].delta.content
        with pytest.raises(openai.APIError, match="the model failed: the device is lost"):
            list(stream)
        monkeypatch.setattr(Writing, "add", lambda self, token: 1 / 0)
        with pytest.raises(openai.InternalServerError, match="division by zero"):
            small.client.chat.completions.create(messages=asked(run.images[0]), stream=True, **SAMPLED)
    assert small.served.counts == {"failed": 2}
