"""How fast requests are asked and written down, how memory grows, and what kills cost; with the tests' local server.

    python tools/bench/generation.py                      # all four, some ten minutes on two cores
    python tools/bench/generation.py --rows 20000 --kills 10

- `no latency`: rows a second when the server answers at once: what our side can do.
- `one second`: rows a second with 256 calls in flight, each answered after 1 s (256 a second is the most possible).
- `memory`: resident memory after every twentieth of `--rows` rows.
- `kills`: a run is killed (SIGKILL) at random moments and started again, until everything is done. Counted are finished
  requests that were sent again, rows that were reported and are lost, and requests that were under way at a kill and
  had to be asked twice.

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
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "tests" / "chat" / "chat_server.py"
KILLED = ROOT / "tests" / "chat" / "chat_killed.py"
# As long as the prompts of this package with three examples.
SYSTEM_CHARACTERS = 6000
USER_CHARACTERS = 400


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements, write the JSON result, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="requests without latency")
    parser.add_argument("--slow-rows", type=int, default=256 * 40, help="requests with a latency of 1 s")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "generation.json")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("OPENAI_API_KEY", "none")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        fast = ask(place / "fast.jsonl", arguments.rows, latency_s=0.0, in_flight=64)
        slow = ask(place / "slow.jsonl", arguments.slow_rows, latency_s=1.0, in_flight=256)
        kills = kill(place / "killed.jsonl", place / "server.log", arguments.kills)
    result = {
        "benchmark": "generation",
        "no latency": fast,
        "one second": slow,
        "kills": kills,
        **circumstances(arguments),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    return 0


@contextmanager
def server(*options: str) -> Iterator[str]:
    """A server in a process of its own; gives its address."""
    process = subprocess.Popen([sys.executable, str(SERVER), *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def ask(path: Path, count: int, *, latency_s: float, in_flight: int) -> dict[str, Any]:
    """Ask `count` requests and measure time and memory; the clock starts with the client, imports apart."""
    import psutil

    from lavis_emovit.chat.ledger import Ledger
    from lavis_emovit.chat.request import ChatRequest, Message
    from lavis_emovit.chat.run import run_requests
    from lavis_emovit.chat.settings import ChatSettings

    import openai  # noqa: F401  # isort: skip - a second that belongs to no request

    process = psutil.Process()
    memory: list[dict[str, float]] = []
    done = 0

    def seen(row: dict[str, Any]) -> None:
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
        begin, cpu = time.perf_counter(), time.process_time()
        progress = run_requests(requests, settings, ledger, on_row=seen)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        assert progress.done == len(ledger) == count and not progress.failed, progress.note()
    return {
        "rows": count,
        "in_flight": in_flight,
        "latency_s": latency_s,
        "seconds": round(seconds, 2),
        "rows_per_second": round(count / seconds, 1),
        "client_cpu_ms_per_row": round(1000 * cpu / count, 3),
        "memory": memory,
    }


def kill(path: Path, log: Path, num_kills: int) -> dict[str, Any]:
    """Kill a run `num_kills` times at random moments, then let it end; compare ledger, reports and the server's log."""
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
    """Names of the requests that the ledger file has a good reply to; a half-written line counts as none."""
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
    """Names of the requests that the server answered."""
    return Counter(log.read_text().splitlines()) if log.exists() else Counter()


def circumstances(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the numbers were measured with."""
    from importlib.metadata import version

    from lavis_emovit.distributed.machine import machine_facts, package_versions

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    options = f"--rows {arguments.rows} --slow-rows {arguments.slow_rows} --kills {arguments.kills}"
    return {
        "command": f"python tools/bench/generation.py {options}",
        "date": date.today().isoformat(),
        "commit": commit,
        "load_of_the_machine": [round(load, 2) for load in os.getloadavg()],
        "versions": {**package_versions(), "openai": version("openai")},
        "machine": machine_facts(),
    }


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
        f"{kills['asked_twice_since_under_way_at_a_kill']} asked twice since they were under way at a kill."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
