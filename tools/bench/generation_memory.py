"""Measure the memory of `emovit generate` with the local server of the tests.

    python tools/bench/generation_memory.py                    # 100,000 records, about ten minutes on two free cores
    python tools/bench/generation_memory.py --records 20000

The command runs in its own process, and the server in another. The resident memory of the command is read from
`/proc/<pid>/status` when the ledger contains a tenth of the replies (`VmRSS`), at the last reply (`VmRSS`), and at the
end (`VmHWM`, the highest value, which includes writing the results).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result
from generation import server

from lavis_emovit.records import Attributes, EmotionRecord, write_records

LABELS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
COMMAND = """
import sys
from pathlib import Path
from lavis_emovit.cli.main import main
code = main(sys.argv[2:])
Path(sys.argv[1]).write_text(Path("/proc/self/status").read_text())
sys.exit(code)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000, help="number of records, one request each")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "generation_memory.json")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("OPENAI_API_KEY", "none")
    with tempfile.TemporaryDirectory() as folder, server() as url:
        measured = measure(Path(folder), url, arguments.records)
    result = {
        "benchmark": "generation_memory",
        **measured,
        "command": f"python tools/bench/generation_memory.py --records {arguments.records}",
        "load_of_the_machine": [round(load, 2) for load in os.getloadavg()],
        **environment_info("lavis_emovit", packages=["openai"]),
    }
    write_result(arguments.out, result)
    print(", ".join(f"{name}: {value}" for name, value in measured.items()))
    return 0


def measure(folder: Path, url: str, count: int) -> dict[str, Any]:
    """Run `emovit generate reasoning` over `count` records, and read its memory."""
    write_records(folder / "records.jsonl", (record(number) for number in range(count)))
    status, out = folder / "status", folder / "out"
    arguments = ["generate", "reasoning", str(folder / "records.jsonl"), "--out", str(out), "--preview", "0"]
    arguments += ["--model", "m", "--base-url", url]
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", COMMAND, str(status), *arguments], stderr=subprocess.DEVNULL)
    num_rows, read = 0, 0
    memory_mib: dict[int, float] = {}
    while process.poll() is None:
        time.sleep(0.02)
        if (out / "ledger.jsonl").exists():
            with (out / "ledger.jsonl").open("rb") as ledger:
                ledger.seek(read)
                new = ledger.read()
            num_rows, read = num_rows + new.count(b'"status":"ok"'), read + len(new)
        for mark in (count // 10, count):
            if num_rows >= mark and mark not in memory_mib:
                memory_mib[mark] = mib("VmRSS", Path(f"/proc/{process.pid}/status").read_text())
                seconds = time.perf_counter() - started
    assert process.returncode == 0 and num_rows == count, (process.returncode, num_rows)
    at_tenth, at_last, highest = memory_mib[count // 10], memory_mib[count], mib("VmHWM", status.read_text())
    return {
        "records": count,
        "rss_mib_at_a_tenth": at_tenth,
        "rss_mib_at_the_last_reply": at_last,
        "highest_rss_mib": highest,
        "highest_to_a_tenth": round(highest / at_tenth, 4),
        "requests_per_second": round(count / seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


def record(number: int) -> EmotionRecord:
    """A record with a caption of its own and usual attributes."""
    return EmotionRecord(
        id=f"bench/{number:06d}",
        image=f"images/{number:06d}.jpg",
        split="train",
        source="bench",
        emotion=LABELS[number % len(LABELS)],
        label_set="mikels8",
        caption=f"a street with {number} people, a market and two dogs beside a fountain",
        attributes=Attributes(brightness=number % 10 / 10, colorfulness=0.4, scene="street", object=["Dog", "Person"]),
    )


def mib(name: str, status: str) -> float:
    """A value of `/proc/<pid>/status` in MiB."""
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found is not None, status
    return round(int(found[1]) / 1024, 1)


if __name__ == "__main__":
    raise SystemExit(main())
