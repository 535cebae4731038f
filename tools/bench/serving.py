"""Measure `emovit serve`: 32 clients against one request at a time, and the latency at half load.

    python tools/bench/serving.py --models output/emovit/quickstart output/small
    python tools/bench/serving.py --models RUN --rounds 1 --requests 64 --out /tmp/serving.json

The server is a process of its own; the clients are one more, which sends prepared bodies and reads whole replies, so
they take little of the machine. In each round the three loads take turns on the same server:

- `alone`: one client, which sends its next request when it has its answer;
- `clients`: 32 such clients;
- `half`: requests at random times (a Poisson process), half as many a second as `clients` were answered.

`processor_ms` is the processor time of the server for one answer, which other work on the machine changes less
than the rates. The images are drawn, 640 x 640 pixels, as JPEG; the answers are greedy. Every answer must be that of
`alone`. The printed table is that of docs/speed.md.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import torch

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

CLIENTS = 32
NUM_IMAGES = 16
SIZE_PX = 640
QUESTION = "Which emotion does this picture evoke?"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", required=True, help="tuned models, as `emovit serve` takes them")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5, help="after one that does not count")
    parser.add_argument("--requests", type=int, default=256, help="of each load in a round; `alone` sends a quarter")
    parser.add_argument("--tokens", type=int, default=16, help="longest answer")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "serving.json")
    arguments = parser.parse_args(argv)
    bodies = request_bodies(arguments.tokens)
    models = {}
    for model in arguments.models:
        with started(model, arguments.device) as (url, server):
            rounds = asyncio.run(measure(url, server, bodies, arguments.requests, arguments.rounds))
        models[base_model(model)] = {**summary(rounds), "rounds": rounds}
    result = {
        "benchmark": "serving",
        "models": models,
        "device": arguments.device,
        "clients": CLIENTS,
        "tokens": arguments.tokens,
        "image_px": SIZE_PX,
        "requests": arguments.requests,
        "threads": torch.get_num_threads(),
        "command": " ".join(["python tools/bench/serving.py", *(sys.argv[1:] if argv is None else argv)]),
        **environment_info("lavis_emovit/serving", "lavis_emovit/models", packages=("fastapi", "uvicorn")),
    }
    write_result(arguments.out, result)
    print(table(result))
    return 0


def base_model(location: str) -> str:
    """The name of the model that a tuned model was made from."""
    from lavis_emovit.checkpoints.tuned_files import find_tuned

    return str(find_tuned(location).model["arch"])


def table(result: dict[str, Any]) -> str:
    """The rows of docs/speed.md."""
    lines = [
        f"| model | one at a time, answers/s | {result['clients']} clients | ratio | of processor time | "
        "p95 alone, ms | p95 at half load | ratio |",
        f"|---|{'---:|' * 7}",
    ]
    for name, row in result["models"].items():
        rates = f"{row['alone_per_s']:.1f} | {row['clients_per_s']:.1f} | {row['rate_ratio']:.2f}"
        latencies = f"{1000 * row['alone_p95_s']:.0f} | {1000 * row['half_p95_s']:.0f} | {row['p95_ratio']:.2f}"
        lines.append(f"| `{name}` | {rates} | {row['processor_ratio']:.2f} | {latencies} |")
    return "\n".join(lines)


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Medians over the rounds; ratios are of values of the same round."""

    def median(value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(map(value, rounds))

    return {
        "alone_per_s": median(lambda one: one["alone"]["per_s"]),
        "clients_per_s": median(lambda one: one["clients"]["per_s"]),
        "rate_ratio": median(lambda one: one["clients"]["per_s"] / one["alone"]["per_s"]),
        "processor_ratio": median(lambda one: one["alone"]["processor_ms"] / one["clients"]["processor_ms"]),
        "alone_p95_s": median(lambda one: one["alone"]["p95_s"]),
        "half_p95_s": median(lambda one: one["half"]["p95_s"]),
        "p95_ratio": median(lambda one: one["half"]["p95_s"] / one["alone"]["p95_s"]),
    }


def request_bodies(tokens: int) -> list[dict[str, Any]]:
    """One request about each of some drawn images."""
    from lavis_emovit.sample_set.draw import render
    from lavis_emovit.sample_set.scene import sample_scene

    bodies = []
    for number in range(NUM_IMAGES):
        buffer = io.BytesIO()
        render(sample_scene(random.Random(number)), SIZE_PX).save(buffer, "JPEG", quality=90)
        url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
        bodies.append({"model": "served", "messages": [{"role": "user", "content": parts}], "max_tokens": tokens})
    return bodies


@contextmanager
def started(model: str, device: str) -> Iterator[tuple[str, int]]:
    """The address and the id of a server process with `model`, which ends with the block."""
    arguments = ["serve", model, "--name", "served", "--device", device, "--port", "0"]
    command = [sys.executable, "-m", "lavis_emovit.cli.main", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "EMOVIT_SERVE_KEY"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"serving 'served' at (\S+)", line):
                break
            print(line, end="", file=sys.stderr)
        else:
            raise SystemExit("the server did not start")
        # Nobody reads its log, which would fill the pipe.
        reader = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        try:
            yield found[1], process.pid
        finally:
            process.terminate()
            process.wait(60)
            reader.wait()


async def measure(
    url: str, server: int, bodies: Sequence[dict[str, Any]], requests: int, rounds: int
) -> list[dict[str, Any]]:
    """Rates, latencies and processor times of the loads in each round; `server` is the id of its process."""
    found, rng, process = [], random.Random(0), psutil.Process(server)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as session:
        answers: dict[int, str] = {}

        async def ask(number: int) -> float:
            begin = time.perf_counter()
            place = number % len(bodies)
            async with session.post(f"{url}/chat/completions", json=bodies[place]) as reply:
                content = await reply.json()
            if reply.status != 200:
                raise SystemExit(f"status {reply.status}: {content}")
            text = content["choices"][0]["message"]["content"]
            if answers.setdefault(place, text) != text:
                raise SystemExit(f"image {place}: {text!r}, but {answers[place]!r} before")
            return time.perf_counter() - begin

        for number in range(rounds + 1):
            alone = await with_processor_time(process, in_turn(ask, 1, requests // 4 if number else len(bodies)))
            clients = await with_processor_time(process, in_turn(ask, CLIENTS, requests))
            half = await with_processor_time(process, at_random_times(ask, clients["per_s"] / 2, requests, rng))
            if number:
                found.append({"alone": alone, "clients": clients, "half": half})
    return found


async def with_processor_time(process: psutil.Process, load: Awaitable[dict[str, float]]) -> dict[str, float]:
    """What a load found, and the processor time that the server took for an answer."""
    begin = sum(process.cpu_times()[:2])
    found = await load
    seconds = sum(process.cpu_times()[:2]) - begin
    return {**found, "processor_ms": 1000 * seconds / found["requests"]}


async def in_turn(ask: Callable[[int], Awaitable[float]], num_clients: int, requests: int) -> dict[str, float]:
    """Clients that send their next request when they have their answer."""
    numbers = iter(range(requests))
    latencies: list[float] = []

    async def client() -> None:
        for number in numbers:
            latencies.append(await ask(number))

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(num_clients)))
    return facts(latencies, time.perf_counter() - begin)


async def at_random_times(
    ask: Callable[[int], Awaitable[float]], per_s: float, requests: int, rng: random.Random
) -> dict[str, float]:
    """Requests of a Poisson process, whether or not earlier ones are answered."""
    begin = time.perf_counter()
    tasks, due = [], begin
    for number in range(requests):
        due += rng.expovariate(per_s)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(number)))
    latencies = await asyncio.gather(*tasks)
    return facts(latencies, time.perf_counter() - begin)


def facts(latencies: Sequence[float], seconds: float) -> dict[str, float]:
    """Number of answers, answers a second, median and 95th percentile of the latencies in seconds."""
    middle, high = np.percentile(latencies, [50, 95]).tolist()
    return {"requests": len(latencies), "per_s": len(latencies) / seconds, "p50_s": middle, "p95_s": high}


if __name__ == "__main__":
    raise SystemExit(main())
