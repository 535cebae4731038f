#!/usr/bin/env bash
# openai: with the aiohttp transport, a connection that the server closes is reported as a timeout while connecting.
#
# The server reads the whole request and closes the connection without an answer. The default client reports this as
# APIConnectionError, caused by httpx2.RemoteProtocolError. With `DefaultAioHttpClient`, the same event becomes
# APITimeoutError, caused by httpx2.ConnectTimeout, at once and long before the timeout: the transport maps
# aiohttp.ServerDisconnectedError, a ClientConnectionError, to ConnectTimeout. ConnectTimeout normally means that no
# request was sent. Here the server has received the request and may have run and billed it.
#
# Run: bash findings/openai_aiohttp_disconnect_is_connect_timeout.sh      (exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openai==3.57.0 aiohttp==3.14.5 httpx2==2.16.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import json
import time
from importlib.metadata import version

import httpx2
import openai

TIMEOUT = 60
received = []


async def close_without_answer(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    lines = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    received.append(json.loads(await reader.readexactly(int(lines[0].split(b":")[1]))))
    writer.close()


async def error_of(http_client, port):
    client = openai.AsyncOpenAI(
        api_key="none", base_url=f"http://127.0.0.1:{port}/v1", http_client=http_client, timeout=TIMEOUT, max_retries=0
    )
    async with client:
        try:
            await client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hello"}])
        except openai.APIConnectionError as error:
            return error
    raise AssertionError("the request did not fail")


async def main():
    print(", ".join(f"{name} {version(name)}" for name in ("openai", "aiohttp", "httpx2")))
    server = await asyncio.start_server(close_without_answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    errors = []
    for name, http_client in (("default client", None), ("aiohttp client", openai.DefaultAioHttpClient())):
        start = time.monotonic()
        error = await error_of(http_client, port)
        seconds = time.monotonic() - start
        cause = error.__cause__
        print(f"{name}: {type(error).__name__} from {type(cause).__name__} ({cause}), {len(received)} request received")
        assert len(received) == 1 and received.pop()["messages"][0]["content"] == "Hello", "the request did not arrive"
        assert seconds < TIMEOUT / 2, "a real timeout"
        errors.append(error)
    server.close()
    default, aiohttp = errors
    assert not isinstance(default, openai.APITimeoutError), "the behaviour of the default client has changed"
    assert isinstance(default.__cause__, httpx2.RemoteProtocolError), "the behaviour of the default client has changed"
    assert isinstance(aiohttp, openai.APITimeoutError), "the behaviour has changed"
    assert isinstance(aiohttp.__cause__, httpx2.ConnectTimeout), "the behaviour has changed"


asyncio.run(main())
PYTHON
