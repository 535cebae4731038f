"""Fixtures of tests that use the local chat server: the key, quick settings, plain requests and an open ledger."""

from __future__ import annotations

import pytest
from chat_server import KEY

from lavis_emovit.chat import limits
from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.request import ChatRequest, Message
from lavis_emovit.chat.settings import ChatSettings

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


@pytest.fixture(autouse=True)
def endpoint_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(limits, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(limits, "_LONGEST_PAUSE_S", 0.02)


@pytest.fixture
def make_settings():
    """Settings for a server, with short timeouts."""

    def make(server, **changes):
        values = {"model": "gpt-4.1-mini", "base_url": server.url, "timeout_s": 5.0, "max_in_flight": 8, **changes}
        return ChatSettings(**values)

    return make


@pytest.fixture
def make_requests():
    """`count` requests that differ in one word."""

    def make(settings, count, *, schema=None, prompt="test/1", first=0, samples=1):
        return [
            ChatRequest(
                model=settings.model,
                messages=(Message("system", "Say what you see."), Message("user", f"item {number}")),
                parameters=settings.parameters(),
                prompt=prompt,
                schema=schema,
                sample=sample,
                about={"record": f"a/{number}"},
            )
            for number in range(first, first + count)
            for sample in range(samples)
        ]

    return make


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.jsonl") as opened:
        yield opened
