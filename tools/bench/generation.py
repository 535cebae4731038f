"""Measure speed, memory and crash safety of chat requests with the local server of the tests.

    python tools/bench/generation.py                      # all parts, about ten minutes on two cores
    python tools/bench/generation.py --rows 20000 --kills 10

- `no latency`: rows per second if the server replies at once, the limit of the client.
- `one second`: rows per second with 256 requests in flight and a latency of 1 s (at most 256 per second are possible).
- `memory`: resident memory after each twentieth of `--rows` rows.
- `kills`: a run is killed (SIGKILL) at random times and restarted until all requests are finished. The result counts
  finished requests that were sent again, reported rows that were lost, and requests in flight at a kill, which were
  sent twice.

Server and client share the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

SERVER = ROOT / "tests" / "chat" / "chat_server.py"
KILLED = ROOT / "tests" / "chat" / "chat_killed.py"
# The length of the package's prompts with three examples.
SYSTEM_CHARACTERS = 6000
USER_CHARACTERS = 400


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the result and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="number of requests without latency")
    parser.add_argument("--slow-rows", type=int, default=256 * 40, help="number of requests with a latency of 1 s")
    parser.add_argument("--kills", type=int, default=50, help="number of kills")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "generation.json")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("OPENAI_API_KEY", "none")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fast = measure_requests(folder / "fast.jsonl", arguments.rows, latency_s=0.0, in_flight=64)
        slow = measure_requests(folder / "slow.jsonl", arguments.slow_rows, latency_s=1.0, in_flight=256)
        kills = measure_kills(folder / "killed.jsonl", folder / "server.log", arguments.kills)
    options = f"--rows {arguments.rows} --slow-rows {arguments.slow_rows} --kills {arguments.kills}"
    result = {
        "benchmark": "generation",
        "no latency": fast,
        "one second": slow,
        "kills": kills,
        "command": f"python tools/bench/generation.py {options}",
        "load_of_the_machine": [round(load, 2) for load in os.getloadavg()],
        **environment_info(packages=["openai"]),
    }
    write_result(arguments.out, result)
    print(table(result))
    return 0


@contextmanager
def server(*options: str) -> Iterator[str]:
    """Start a server in a new process; yields its URL."""
    process = subprocess.Popen([sys.executable, str(SERVER), *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def measure_requests(path: Path, count: int, *, latency_s: float, in_flight: int) -> dict[str, Any]:
    """Send `count` requests; return their speed and the memory of the client. Imports are not part of the time."""
    import psutil

    from lavis_emovit.chat.ledger import Ledger
    from lavis_emovit.chat.request import ChatRequest, Message
    from lavis_emovit.chat.run import run_requests
    from lavis_emovit.chat.settings import ChatSettings

    import openai  # noqa: F401  # isort: skip - takes a second, which is not part of any request

    process = psutil.Process()
    memory: list[dict[str, float]] = []
    done = 0

    def on_row(row: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        if done % (count // 20) == 0:
            memory.append({"rows": done, "rss_mib": round(process.memory_info().rss / 2**20, 1)})

    with server("--latency", str(latency_s)) as url, Ledger(path) as ledger:
        settings = ChatSettings(model="m", base_url=url, max_in_flight=in_flight, timeout_s=60)
        system = Message("system", "x" * SYSTEM_CHARACTERS)
        requests = (
            ChatRequest(
                "m", (system, Message("user", f"item {number} " + "y" * USER_CHARACTERS)), settings.parameters(), "b/1"
            )
            for number in range(count)
        )
        clock_start, cpu_start = time.perf_counter(), time.process_time()
        progress = run_requests(requests, settings, ledger, on_row=on_row)
        seconds, cpu_s = time.perf_counter() - clock_start, time.process_time() - cpu_start
        assert progress.done == len(ledger) == count and not progress.failed, progress.note()
    return {
        "rows": count,
        "in_flight": in_flight,
        "latency_s": latency_s,
        "seconds": round(seconds, 2),
        "rows_per_second": round(count / seconds, 1),
        "client_cpu_ms_per_row": round(1000 * cpu_s / count, 3),
        "memory": memory,
    }


def measure_kills(path: Path, log: Path, num_kills: int) -> dict[str, Any]:
    """Kill a run `num_kills` times at random, then let it finish. Compare ledger, reported rows and server log."""
    rng = random.Random(0)
    count = 400 * num_kills
    sent_again = lost = 0
    with server("--latency", "0.02", "--log", str(log)) as url:
        for attempt in range(num_kills + 1):
            before, sent_before = finished(path), sent(log)
            command = [sys.executable, str(KILLED), url, str(path), str(count)]
            run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert run.stdout is not None
            first = run.stdout.readline()
            if attempt < num_kills:
                time.sleep(rng.uniform(0.0, 0.8))
                run.kill()
            *reported, _ = [first.strip(), *run.stdout.read().split("\n")]
            run.wait()
            after, sent_now = finished(path), sent(log)
            lost += len((set(reported) | set(before)) - {"end", ""} - set(after))
            sent_again += sum(sent_now[name] > sent_before[name] for name in before)
    return {
        "kills": num_kills,
        "requests": count,
        "finished_at_the_end": len(after),
        "finished_requests_sent_again": sent_again,
        "rows_lost": lost,
        "rows_twice": sum(number > 1 for number in after.values()),
        "asked_twice_since_under_way_at_a_kill": sum(sent_now.values()) - len(sent_now),
        "in_flight": 16,
    }


def finished(path: Path) -> Counter[str]:
    """Names of the requests with a valid reply in the ledger file; a truncated line does not count."""
    names: Counter[str] = Counter()
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.get("status") == "ok":
            names[row["about"]["record"]] += 1
    return names


def sent(log: Path) -> Counter[str]:
    """Names of the requests in the server's log."""
    return Counter(log.read_text().splitlines()) if log.exists() else Counter()


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = ["| | rows | in flight | rows/s | CPU ms/row | memory, first and last |", "|---|---:|---:|---:|---:|---|"]
    for name in ("no latency", "one second"):
        part = result[name]
        memory = [item["rss_mib"] for item in part["memory"]]
        lines.append(
            f"| {name} | {part['rows']} | {part['in_flight']} | {part['rows_per_second']} | "
            f"{part['client_cpu_ms_per_row']} | {memory[0]} MiB, {memory[-1]} MiB |"
        )
    kills = result["kills"]
    lines.append("")
    lines.append(
        f"{kills['kills']} kills over {kills['requests']} requests: {kills['finished_requests_sent_again']} finished "
        f"requests sent again, {kills['rows_lost']} rows lost, {kills['rows_twice']} rows twice, "
        f"{kills['asked_twice_since_under_way_at_a_kill']} requests in flight at a kill sent twice."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
