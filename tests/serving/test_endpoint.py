"""Properties of `POST /v1/chat/completions`, with OpenAI's own client.

- answers are those of the model itself, in OpenAI's form, with the numbers of tokens;
- 200 requests at once are all answered, and as one by one, though they share batches;
- temperature, seed, lengths and stops count; texts of several messages are one question, system messages first;
- what is wrong, unknown or cannot be followed is refused by name, in OpenAI's form, and so are images that are broken,
  too large, elsewhere, or not there;
- a question that does not fit the model's context is refused with the numbers, before it waits;
- a full queue answers 429 with a time to wait, whether it is full of requests or of bytes; uploads are not kept while
  their requests wait; a client that leaves is not answered; a request that fails does not fail
  the others of its batch; everything is counted;
- a key is needed if there is one, and without one requests for other hosts are refused.
"""

from __future__ import annotations

import gc
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion
from PIL import Image
from pydantic import SecretStr
from served_questions import QUESTION, asked, noise, url_of, wait_for

from lavis_emovit.serving.app import Limits
from lavis_emovit.serving.batching import Batching
from lavis_emovit.serving.wire import CompletionRequest


def answer(server, messages, **settings) -> str:
    done = server.client.chat.completions.create(model="tiny", messages=messages, **settings)
    return done.choices[0].message.content


def generated(tuned, path, text=QUESTION, **settings) -> str:
    """By the model itself, without anything of the endpoint."""
    image = tuned.image_processor(Image.open(path).convert("RGB"))
    return tuned.model.generate({"image": image[None], "prompt": [text]}, **settings)[0]


def refused(server, content, status=400, headers=None) -> dict:
    """The error of a body that is sent as it is."""
    body = content if isinstance(content, (str, bytes)) else json.dumps(content)
    headers = {"Content-Type": "application/json", **(headers or {})}
    reply = httpx.post(f"{server.url}/chat/completions", content=body, headers=headers)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_answers_are_those_of_the_model(server, run, tuned):
    for path in run.images[::20]:
        done = server.client.chat.completions.create(model="tiny", messages=asked(path), max_tokens=8)
        assert done.choices[0].message.content == generated(tuned, path, max_length=8)
        ChatCompletion.model_validate(json.loads(done.model_dump_json()), strict=False)
        assert (done.model, done.choices[0].finish_reason, done.object) == ("tiny", "stop", "chat.completion")
        ids = tuned.model.llm_tokenizer(done.choices[0].message.content, add_special_tokens=False)["input_ids"]
        # Eight query tokens, the token that begins a text, and the question.
        num_prompt = 8 + 1 + len(tuned.model.llm_tokenizer(QUESTION, add_special_tokens=False)["input_ids"])
        assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (num_prompt, len(ids))
        assert done.usage.total_tokens == num_prompt + len(ids)


def test_many_requests_at_once_are_answered_as_one_by_one(server, run, tuned):
    questions = [(QUESTION, 8), ("Is it bright or dark, and why?", 12), ("What is there?", 1)]
    wanted = [(run.images[number % 8], *questions[number % 3]) for number in range(200)]
    batches = []
    write = server.batching._write
    server.batching._write = lambda jobs, writings: (batches.append(len(jobs)), write(jobs, writings))[1]
    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(lambda one: answer(server, asked(*one[:2]), max_tokens=one[2]), wanted))
    del server.batching._write
    assert sum(batches) == 200 and 8 < max(batches) <= 32 and len(batches) < 100
    expected = {one: generated(tuned, *one[:2], max_length=one[2]) for one in set(wanted)}
    assert found == [expected[one] for one in wanted]
    assert len(set(found)) > 5


def test_sampling_follows_temperature_and_seed(server, run):
    settings = {"temperature": 1.5, "max_tokens": 6}
    first = answer(server, asked(run.images[0]), seed=1, **settings)
    with ThreadPoolExecutor(8) as pool:
        again = pool.map(lambda seed: answer(server, asked(run.images[0]), seed=seed, **settings), [1, *range(2, 9)])
        found = list(again)
    assert found[0] == first and len(set(found)) > 4
    greedy = answer(server, asked(run.images[0]), max_tokens=6)
    assert answer(server, asked(run.images[0]), max_tokens=6, temperature=0, seed=5, top_p=0.5) == greedy


def test_length_and_stops_end_an_answer(server, run, tuned):
    path = next(path for path in run.images if " " in generated(tuned, path, max_length=8))
    whole = generated(tuned, path, max_length=8)
    done = server.client.chat.completions.create(model="tiny", messages=asked(path), max_completion_tokens=1)
    assert done.choices[0].finish_reason == "length" and done.usage.completion_tokens == 1
    word = whole.split()[1]
    for stop in (word, ["nothing", word[:2]]):
        done = server.client.chat.completions.create(model="tiny", messages=asked(path), stop=stop)
        assert done.choices[0].message.content == whole[: whole.index(f" {word}")]
        assert done.choices[0].finish_reason == "stop"


def test_texts_of_several_messages_are_one_question(server, run, tuned):
    picture = {"type": "image_url", "image_url": {"url": url_of(run.images[0]), "detail": "low"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Look."}, picture]},
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Which feeling?"},
    ]
    expected = generated(tuned, run.images[0], "Be short.\n\nLook.\n\nWhich feeling?")
    assert answer(server, messages) == expected


def with_part(**part) -> dict:
    return {"messages": [{"role": "user", "content": [part]}]}


BODY = {"model": "tiny", "messages": [{"role": "user", "content": "?"}]}


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"temprature": 1}, "temprature", "temprature: unknown field (did you mean 'temperature'?)"),
        ({"n": 2}, "n", "n: this model cannot follow it"),
        ({"tools": [{}]}, "tools", "tools: this model cannot follow it"),
        ({"response_format": {"type": "json_object"}}, "response_format", "response_format: this model cannot"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 513}, "max_tokens", "max_tokens: 513, but an answer has at most 512 tokens here"),
        ({"max_tokens": 2, "max_completion_tokens": 3}, None, "two names of one limit"),
        ({"top_logprobs": 2}, None, "top_logprobs needs logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"stream_options": {"include_usage": True}}, None, "stream_options needs stream: true"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4 items"),
        ({"stop": ""}, "stop.0", "at least 1 character"),
        ({"model": "gpt"}, "model", "the model 'gpt' is not served here, but 'tiny'"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{"role": "user", "content": "?", "name": "x"}]}, "messages.0.name", "unknown key"),
        ({"messages": [{"role": "assistant", "content": "awe"}]}, "messages.0.role", "reads no earlier answers"),
        (with_part(type="input_audio"), "messages.0.content.0.type", "Input should be 'text' or 'image_url'"),
        (with_part(type="text"), "messages.0.content.0", "a part of type 'text' needs 'text' alone"),
        (with_part(type="image_url", image_url="a"), "messages.0.content.0.image_url", "expected a mapping"),
        (with_part(type="text", txt="a"), "messages.0.content.0.txt", "unknown key (did you mean 'text'?)"),
        ({}, "messages", "a question here is about one image, but the messages have 0"),
        ({"seed": 2**63}, None, "seed is out of range"),
    ],
)
def test_wrong_fields_are_named(server, run, change, param, message):
    has_image = "messages" in change or change == {}
    body = {**BODY, **({} if has_image else {"messages": asked(run.images[0])}), **change}
    error = refused(server, body, 404 if "gpt" in message else 400)
    assert message in error["message"] and error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"] == param


def test_fields_that_ask_for_nothing_are_accepted(server, run):
    nothing = {"n": 1, "frequency_penalty": 0.0, "tools": None, "response_format": {"type": "text"}, "user": "a"}
    assert answer(server, asked(run.images[0]), **nothing) == answer(server, asked(run.images[0]))


def test_wrong_bodies_are_refused(server, run):
    assert "not JSON" in refused(server, "{")["message"]
    assert "not JSON" in refused(server, '{"model": "a", "model": "b"}')["message"]
    assert "should be a JSON object" in refused(server, "[]")["message"]
    assert "Content-Type" in refused(server, BODY, 415, {"Content-Type": "text/plain"})["message"]
    two = [{"role": "user", "content": [*asked(run.images[0])[0]["content"], *asked(run.images[1])[0]["content"]]}]
    assert "have 2" in refused(server, {**BODY, "messages": two})["message"]
    system = [{**asked(run.images[0])[0], "role": "system"}]
    assert "has text only" in refused(server, {**BODY, "messages": system})["message"]
    assert "have no text" in refused(server, {**BODY, "messages": asked(run.images[0], " ")})["message"]
    half = refused(server, {**BODY, "messages": asked(run.images[0], "\ud800?")})
    assert "half of a surrogate pair" in half["message"]
    assert "'?'" in refused(server, {**BODY, "messages": asked(run.images[0]), "model": "\ud800"}, 404)["message"]


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        ("https://example.org/a.jpg", "image_url_not_allowed", "only images inside the request are read"),
        ("file:///etc/passwd", "image_url_not_allowed", "only images inside the request are read"),
        ("data:image/png,abc", "invalid_image", "expected 'data:image/jpeg;base64,'"),
        ("data:image/png;base64,a$bc", "invalid_image", "not base64"),
        ("data:image/png;base64,aGVsbG8=", "invalid_image", "cannot be decoded"),
    ],
)
def test_wrong_images_are_refused(server, url, code, message):
    parts = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
    error = refused(server, {**BODY, "messages": [{"role": "user", "content": parts}]})
    assert error["code"] == code and message in error["message"]
    assert error["param"] == "messages.0.content.1.image_url.url"


def test_cut_and_large_images_are_refused(serve, run):
    whole = run.images[0].read_bytes()
    with serve(limits=Limits(image_bytes=30_000, image_pixels=40_000)) as small:
        cut = refused(small, {**BODY, "messages": asked(whole[: len(whole) // 2])})
        assert "cannot be decoded" in cut["message"]
        pixels = refused(small, {**BODY, "messages": asked(noise(201))})
        assert "201 x 201 pixels, more than 40000" in pixels["message"]
        assert refused(small, {**BODY, "messages": asked(noise(400))})["code"] == "image_too_large"
        error = refused(small, {**BODY, "messages": asked(bytes(2_000_000))}, 413)
        assert "the request has more than" in error["message"]
        wait_for(lambda: small.served.counts == {"refused": 4})


@pytest.fixture
def held(monkeypatch):
    """The model waits until `held.set()`; `held.began` is set once it has requests."""
    event, write = threading.Event(), Batching._write
    event.began = threading.Event()

    def wait(self, *given):
        event.began.set()
        event.wait(30)
        write(self, *given)

    monkeypatch.setattr(Batching, "_write", wait)
    yield event
    event.set()


def test_a_full_queue_answers_429(serve, run, held):
    with serve(max_waiting=2, batch_size=1) as small, ThreadPoolExecutor(3) as pool:
        first = pool.submit(answer, small, asked(run.images[0]))
        assert held.began.wait(30)
        waiting = [pool.submit(answer, small, asked(image)) for image in run.images[1:3]]
        wait_for(lambda: small.batching.num_waiting == 2)
        root = small.url.removesuffix("/v1")
        assert httpx.get(f"{root}/ready").status_code == 503 and httpx.get(f"{root}/health").json()["waiting"] == 2
        with pytest.raises(openai.RateLimitError, match="2 requests wait already") as refusal:
            answer(small, asked(run.images[3]))
        assert 1 <= int(refusal.value.response.headers["retry-after"]) <= 60
        held.set()
        assert all(future.result() for future in [first, *waiting])
        assert httpx.get(f"{root}/ready").status_code == 200
        wait_for(lambda: small.served.counts == {"answered": 3, "refused": 1})


def test_a_queue_that_is_full_of_bytes_answers_429(serve, run, held):
    def image_bytes_of(path):
        return small.batching.prepare(path.read_bytes(), 10**9).nbytes

    # A request that waits alone may have any size.
    with serve(max_waiting_bytes=1, batch_size=1) as small, ThreadPoolExecutor(2) as pool:
        first = pool.submit(answer, small, asked(run.images[0]))
        assert held.began.wait(30)
        waiting = pool.submit(answer, small, asked(run.images[1]))
        wait_for(lambda: len(small.batching._waiting) == 1)
        assert small.batching._num_bytes == image_bytes_of(run.images[1])
        assert not any(type(one) is CompletionRequest for one in gc.get_objects())
        assert httpx.get(f"{small.url.removesuffix('/v1')}/ready").status_code == 503
        body = json.dumps({**BODY, "messages": asked(run.images[2])}).encode()
        headers = {"Content-Type": "application/json"}
        for content in (body, iter([body[:9], body[9:]])):  # with and without an announced length
            reply = httpx.post(f"{small.url}/chat/completions", content=content, headers=headers)
            assert reply.status_code == 429 and reply.json()["error"]["code"] == "queue_full"
            assert f"hold {image_bytes_of(run.images[1]):,} bytes" in reply.text
            assert 1 <= int(reply.headers["retry-after"]) <= 60
        held.set()
        assert first.result() and waiting.result()
        assert answer(small, asked(run.images[2])) and small.batching._num_bytes == 0
        wait_for(lambda: small.served.counts == {"answered": 3, "refused": 2})


def test_a_question_that_does_not_fit_is_refused_before_it_waits(server, run, tuned, monkeypatch):
    context = tuned.model.core.language_model.config.max_position_embeddings
    tokenizer = tuned.model.llm_tokenizer

    def num_tokens(text):  # eight query tokens and the token that begins a text
        return 8 + 1 + len(tokenizer(text, add_special_tokens=False)["input_ids"])

    fitting = next(text for n in range(1, context) if num_tokens(text := " ".join(["awe"] * n)) >= context - 4)
    length = num_tokens(fitting)
    assert answer(server, asked(run.images[0], fitting), max_tokens=context - length) is not None
    put = []
    monkeypatch.setattr(server.batching, "put", lambda *given: put.append(given))
    body = {**BODY, "messages": asked(run.images[0], fitting), "max_tokens": context - length + 1}
    error = refused(server, body)
    assert error["code"] == "context_length_exceeded" and error["param"] == "messages" and not put
    assert error["message"].startswith(
        f"{length} tokens of the image and the question and up to {context - length + 1} of the answer are "
        f"{context + 1}, but the model's context is {context}; shorten"
    )


def test_a_client_that_leaves_is_not_answered(serve, run, held, caplog):
    caplog.set_level(logging.INFO, "lavis_emovit.serving")
    asked_for = []
    with serve(batch_size=1) as small, ThreadPoolExecutor(3) as pool:
        first = pool.submit(answer, small, asked(run.images[0]))
        assert held.began.wait(30)
        put = small.batching.put
        small.batching.put = lambda job, place: (asked_for.append(job), put(job, place))[1]
        for stream in (False, True):
            body = {**BODY, "messages": asked(run.images[1]), "stream": stream}
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{small.url}/chat/completions", json=body, timeout=0.3)
        wait_for(lambda: small.served.counts["dropped"] == 2)
        held.set()
        assert first.result() and [job.is_wanted for job in asked_for] == [False, False]
        wait_for(lambda: small.served.counts == {"answered": 1, "dropped": 2})
    assert "data:" not in caplog.text and "200 answered" in caplog.text and "- dropped" in caplog.text


def test_one_bad_request_does_not_fail_its_batch(serve, run, held, monkeypatch):
    batches = []
    with serve() as small, ThreadPoolExecutor(8) as pool:
        write_rows = small.batching._model.write_rows

        def fail(samples, writers, *given):
            batches.append(len(writers))
            if "explode" in samples["prompt"]:
                raise RuntimeError("out of memory")
            write_rows(samples, writers, *given)

        monkeypatch.setattr(small.batching._model, "write_rows", fail)
        alone = pool.submit(answer, small, asked(run.images[0]))
        assert held.began.wait(30)
        texts = [QUESTION, "explode", "What?", "Why?"]
        futures = [pool.submit(answer, small, asked(run.images[0], text)) for text in texts]
        wait_for(lambda: len(small.batching._waiting) == 4)
        held.set()
        assert alone.result()
        with pytest.raises(openai.InternalServerError, match="the model failed: out of memory"):
            futures.pop(1).result()
        assert all(future.result() for future in futures)
        assert batches == [1, 4, 1, 1, 1, 1]
        wait_for(lambda: small.served.counts == {"answered": 4, "failed": 1})


def test_models_and_unknown_places(server):
    assert [model.id for model in server.client.models.list()] == ["tiny"]
    assert server.client.models.retrieve("tiny").owned_by == "emovit"
    with pytest.raises(openai.NotFoundError, match="'other' is not served here"):
        server.client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError, match="Not Found"):
        server.client.embeddings.create(model="tiny", input="a")
    reply = httpx.get(f"{server.url}/chat/completions")
    assert reply.status_code == 405 and "Method Not Allowed" in reply.json()["error"]["message"]
    assert httpx.get(server.url.replace("/v1", "/docs")).status_code == 404


def test_a_key_is_needed_if_there_is_one(serve, run):
    with serve(key=SecretStr("a-long-secret")) as locked:
        assert answer(locked, asked(run.images[0]))
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "a-long-secret"}):
            error = refused(locked, BODY, 401, headers)
            assert error["code"] == "invalid_api_key" and "a-long-secret" not in error["message"]
        assert httpx.get(f"{locked.url}/models").status_code == 401
        assert httpx.get(locked.url.replace("/v1", "/health")).status_code == 200
        wait_for(lambda: locked.served.counts == {"answered": 1, "refused": 4})


def test_without_a_key_requests_for_other_hosts_are_refused(server):
    # A web page whose name is made to lead to this machine sends its own name.
    error = refused(server, BODY, 403, {"Host": "evil.example.org"})
    assert error["code"] == "wrong_host" and error["type"] == "permission_error"
    for host in ("[::1", "", "a b"):  # no host at all
        assert httpx.get(f"{server.url}/models", headers={"Host": host}).status_code < 500
