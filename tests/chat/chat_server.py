"""A local server for the chat protocol with scripted faults; as a program, for tests that kill the client.

A script is a function (body of the request, number of earlier requests) -> `Action`. For requests with a JSON schema,
replies are made from the schema, so that every step of a pipeline can read them.

    python tests/chat/chat_server.py --latency 0.05 --log requests.log      # prints its address
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY = "sk-test-0123456789abcdef-secret"


@dataclass
class Action:
    """The reaction of the server to one request."""

    text: str | None = None  # None: made from the schema, or a plain sentence
    status: int = 200
    finish: str = "stop"
    refusal: str | None = None
    usage: dict[str, Any] | None = field(default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 20})
    headers: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] | None = None  # the `error` of the body
    raw: str | None = None  # the whole body
    logprobs: list[tuple[str, float]] | None = None  # of the first token, sent to requests with `logprobs`
    drop: str | None = None  # close the connection "before" the answer or "within" it
    wait_s: float = 0.0


Script = Callable[[dict[str, Any], int], Action]


_NOUNS = """apple basket bench bird boat book bottle bridge brush bucket candle carpet chair clock cloud coat corner
cup curtain desk door fence field floor garden gate glass hall hat hill hut kettle lake lamp leaf letter market meadow
mirror mountain path pillow pond porch road roof rope shelf shoe shore spoon stairs stone stove table tent tower train
tray tree tunnel valley vase village wagon wall window wood yard""".split()


def fill(schema: dict[str, Any], words: str) -> Any:
    """A value that matches a JSON schema."""
    if "enum" in schema:
        return schema["enum"][len(words) % len(schema["enum"])]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return {name: fill(part, f"{words} {name}") for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [fill(schema["items"], f"{words} {number}") for number in range(schema.get("minItems", 2))]
    if kind in ("number", "integer"):
        return schema.get("minimum", 0)
    if kind == "boolean":
        return True
    # Different words for every request and key, in English sentences that pass the checks of generated pairs.
    rng = random.Random(words)
    one, two, three, *more = rng.sample(_NOUNS, 12)
    if words.endswith("question"):
        return f"What could the {one} have to do with the {two} and the {three} of this scene?"
    listed = ", ".join(f"a {noun}" for noun in more)
    return (
        f"There is a {one} in front of the {two}, and behind the {three} one can see {listed} and nothing else of note."
    )


def words_of(body: dict[str, Any]) -> str:
    """The text of the last message."""
    content = body["messages"][-1]["content"]
    if isinstance(content, list):
        content = " ".join(part.get("text", "") for part in content)
    return content


def good(body: dict[str, Any], num_before: int) -> Action:
    """Every request is answered."""
    return Action()


class ChatServer:
    """The server, in its own thread. Use it as a context manager; `url` is its address up to `/v1`."""

    def __init__(self, script: Script = good, *, latency_s: float = 0.0, log: Path | None = None, keep: bool = True):
        self.script = script
        self.latency_s = latency_s
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.answered: list[dict[str, Any]] = []
        self.decisions: list[dict[str, Any]] = []
        # (body, question) -> probability of each choice, for `/systemone`; None: the server has no such path.
        self.decide: Callable[[dict[str, Any], dict[str, Any]], dict[str, float]] | None = None
        self.num_requests = 0
        self.in_flight = self.max_in_flight = 0
        self.keep = keep
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.batch_script: Callable[[dict[str, Any], list[dict[str, Any]]], dict[str, Any]] = complete_batch
        self._log = log.open("ab", buffering=0) if log else None
        self._ready = threading.Event()

    def __enter__(self) -> ChatServer:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.run(self._run_until_end())

    async def _run_until_end(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        await self.listen()
        self._ready.set()
        await self._end.wait()
        self._server.close()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2048, limit=1 << 24)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
                data = await reader.readexactly(int(length.group(1))) if length else b""
                method, path, _ = head.split(" ", 2)
                self.in_flight += 1
                self.max_in_flight = max(self.max_in_flight, self.in_flight)
                try:
                    path = path.partition("?")[0]
                    if path.endswith("/systemone"):
                        keep_open = await self._decide(writer, json.loads(data))
                    elif path.endswith("/chat/completions"):
                        keep_open = await self._chat(writer, head, json.loads(data))
                    else:
                        keep_open = await self._files_and_batches(writer, method, path, data)
                finally:
                    self.in_flight -= 1
                if not keep_open:
                    break
        writer.close()

    async def _chat(self, writer: asyncio.StreamWriter, head: str, body: dict[str, Any]) -> bool:
        number = self.num_requests
        self.num_requests += 1
        if self.keep:
            self.bodies.append(body)
            self.heads.append(head)
        action = self.script(body, number)
        wait_s = self.latency_s + action.wait_s
        if wait_s:
            await asyncio.sleep(wait_s)
        if action.drop == "before":
            writer.transport.abort()
            return False
        if self._log:
            self._log.write(words_of(body).encode()[:60].replace(b"\n", b" ") + b"\n")
        if self.keep:
            self.answered.append(body)
        kind, payload = render(action, body)
        if action.drop == "within":
            writer.write(_http(action.status, kind, payload, action.headers)[: -len(payload) // 2])
            await writer.drain()
            writer.transport.abort()
            return False
        writer.write(_http(action.status, kind, payload, action.headers))
        await writer.drain()
        return True

    async def _decide(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> bool:
        self.decisions.append(body)
        if self.decide is None:
            status, answer = 404, {"detail": "Not Found"}
        else:
            shares = {name: self.decide(body, question) for name, question in body["questions"].items()}
            answers = {
                name: {"type": "choice", "choice": max(of, key=of.get), "confidence": 0.5, "probabilities": of}
                for name, of in shares.items()
            }
            usage = {"input_tokens": 50, "output_tokens": 0}
            status, answer = 200, {"model": body["model"], "answers": answers, "usage": usage}
        writer.write(_http(status, "application/json", json.dumps(answer).encode(), {}))
        await writer.drain()
        return True

    async def _files_and_batches(self, writer: asyncio.StreamWriter, method: str, path: str, data: bytes) -> bool:
        """Files and batches."""
        parts = path.strip("/").split("/")[1:]
        if len(parts) > 1 and parts[1] not in {**self.files, **self.batches}:
            error = {"error": {"message": f"No such {parts[0]}: {parts[1]}", "type": "invalid_request_error"}}
            writer.write(_http(404, "application/json", json.dumps(error).encode(), {}))
            await writer.drain()
            return True
        if parts == ["files"] and method == "POST":
            name = f"file-{len(self.files) + 1}"
            start = data.find(b"{")
            self.files[name] = data[start : data.rfind(b"}") + 1]
            answer: Any = {"id": name, "object": "file", "bytes": len(data), "created_at": 1, "filename": "b.jsonl"}
            answer |= {"purpose": "batch", "status": "processed"}
        elif parts[0] == "files":
            writer.write(_http(200, "application/octet-stream", self.files[parts[1]], {}))
            await writer.drain()
            return True
        elif parts == ["batches"] and method == "POST":
            requested = json.loads(data)
            name = f"batch-{len(self.batches) + 1}"
            answer = {"id": name, "object": "batch", "endpoint": requested["endpoint"], "status": "in_progress"}
            answer |= {"input_file_id": requested["input_file_id"], "completion_window": "24h", "created_at": 1}
            answer["metadata"] = requested.get("metadata")
            self.batches[name] = answer
        elif parts == ["batches"]:
            answer = {"object": "list", "data": list(self.batches.values()), "has_more": False}
        else:
            answer = self.batches[parts[1]]
            lines = [json.loads(line) for line in self.files[answer["input_file_id"]].splitlines()]
            if answer["status"] == "in_progress":
                outcome = self.batch_script(answer, lines)
                for name in ("output", "error"):
                    if outcome.get(name):
                        self.files[f"{name}-{answer['id']}"] = "\n".join(map(json.dumps, outcome[name])).encode()
                        answer[f"{name}_file_id"] = f"{name}-{answer['id']}"
                answer["status"] = outcome["status"]
        writer.write(_http(200, "application/json", json.dumps(answer).encode(), {}))
        await writer.drain()
        return True


def complete_batch(batch: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Every request of a batch is answered."""
    output = [
        {
            "id": f"r{number}",
            "custom_id": line["custom_id"],
            "response": {"status_code": 200, "body": json.loads(render(Action(), line["body"])[1])},
            "error": None,
        }
        for number, line in enumerate(lines)
    ]
    return {"status": "completed", "output": output}


def render(action: Action, body: dict[str, Any]) -> tuple[str, bytes]:
    """Content type and body of an answer."""
    if action.raw is not None:
        return "text/html", action.raw.encode()
    if action.status != 200:
        return "application/json", json.dumps({"error": action.error or {"message": "scripted"}}).encode()
    text = action.text
    if text is None and action.refusal is None:
        form = body.get("response_format") or {}
        words = f"{json.dumps(body['messages'])}/{body.get('seed')}"
        plain = re.sub(r"\s+", " ", words_of(body))[:40]
        text = json.dumps(fill(form["json_schema"]["schema"], words)) if "json_schema" in form else f"{plain}."
    message = {"role": "assistant", "content": text, "refusal": action.refusal}
    common = {"id": "c1", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        choices = [{"index": 0, "message": message, "finish_reason": action.finish, **_logprobs(action, body)}]
        whole = {**common, "object": "chat.completion", "choices": choices, "usage": action.usage}
        return "application/json", json.dumps(whole).encode()
    has_surrogates = bool(re.search("[\ud800-\udfff]", text or ""))  # UTF-8 cannot encode them
    chunks: list[dict[str, Any]] = []
    pieces = [text[i : i + 7] for i in range(0, len(text), 7)] if text else []
    deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces)]
    if action.refusal:
        deltas.append({"refusal": action.refusal})
    for delta in deltas:
        chunks.append({**common, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]})
    end = {"index": 0, "delta": {}, "finish_reason": action.finish, **_logprobs(action, body)}
    chunks.append({**common, "choices": [end]})
    chunks.append({**common, "choices": [], "usage": action.usage})
    events = "".join(f"data: {json.dumps(chunk, ensure_ascii=has_surrogates)}\n\n" for chunk in chunks)
    return "text/event-stream", (": hello\n\n" + events + "data: [DONE]\n\n").encode()


def _logprobs(action: Action, body: dict[str, Any]) -> dict[str, Any]:
    if action.logprobs is None or not body.get("logprobs"):
        return {}
    top = [{"token": token, "logprob": value} for token, value in action.logprobs[: body["top_logprobs"]]]
    blank = {"token": "\n", "logprob": 0.0, "top_logprobs": [{"token": "\n", "logprob": 0.0}]}
    return {"logprobs": {"content": [blank, {**top[0], "top_logprobs": top}]}}


def _http(status: int, kind: str, payload: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(payload)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + payload


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()

    async def serve() -> None:
        server = ChatServer(latency_s=arguments.latency, log=arguments.log, keep=False)
        await server.listen()
        print(server.url, flush=True)
        while True:
            await asyncio.sleep(3600)

    asyncio.run(serve())


if __name__ == "__main__":
    main()
