"""Compare the processor time of imports and short commands with that of another checkout.

    python tools/bench/startup.py --before ../before

Each round runs every case with both versions alternately, in new processes with one thread. The time of a case is the
user and system time of its process, the minimum over all rounds. `faster` is the ratio of the other version's time to
this version's time. With `--steps`, the result also contains the training step, scoring and the loader
(tools/bench/versions.py).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
import versions
from bench_result import ROOT, commit_of, environment_info, write_result

# Case -> arguments of Python and the expected exit code.
CASES: dict[str, tuple[list[str], int]] = {
    "import torch": (["-c", "import torch"], 0),
    "import lavis": (["-c", "import lavis"], 0),
    "registry.list_models()": (["-c", "from lavis.common.registry import registry; registry.list_models()"], 0),
    "import lavis.models": (["-c", "import lavis.models"], 0),
    "from lavis.models import Blip2OPT": (["-c", "from lavis.models import Blip2OPT"], 0),
    "python -m lavis.train --help": (["-m", "lavis.train", "--help"], 0),
    "python -m lavis.train, recipe refused": (
        ["-m", "lavis.train", "--cfg-path", "projects/emovit/quickstart.yaml", "--options", "run.init_lrr=1"],
        2,
    ),
    "python -m lavis.evaluate, suite refused": (
        ["-m", "lavis.evaluate", "--cfg-path", "projects/emovit/eval/photos.yaml", "--options", "suite.batchsize=1"],
        2,
    ),
    "emovit --help": (["-m", "lavis_emovit.cli.main", "--help"], 0),
    "emovit data list": (["-m", "lavis_emovit.cli.main", "data", "list"], 0),
}


def processor_s(checkout: Path, folder: Path, arguments: Sequence[str], exit_code: int) -> float:
    """User and system seconds of a Python process with the package of a checkout.

    Raises:
        SystemExit: the exit code is not `exit_code`.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
    environment.pop("LAVIS_PLUGINS", None)
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != exit_code:
            output.seek(0)
            text = output.read().decode(errors="replace")
            raise SystemExit(f"{checkout}: python {' '.join(arguments)} ended with {child.returncode}:\n{text}")
    return usage.ru_utime + usage.ru_stime


def measure(before: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Case -> minimum seconds of both versions, `before_s` and `after_s`, and their ratio `faster`."""
    seconds: dict[str, dict[str, list[float]]] = {name: {"before": [], "after": []} for name in CASES}
    sides = [("before", before), ("after", ROOT)]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for name, (arguments, exit_code) in CASES.items():
                for side, checkout in sides if number % 2 else reversed(sides):
                    seconds[name][side].append(processor_s(checkout, Path(folder), arguments, exit_code))
    rows = {}
    for name, times in seconds.items():
        before_s, after_s = min(times["before"]), min(times["after"])
        rows[name] = {
            "before_s": round(before_s, 3),
            "after_s": round(after_s, 3),
            "faster": round(before_s / after_s, 2),
        }
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="checkout of the other version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", action="store_true", help="also measure the training step, scoring and the loader")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "startup.json")
    arguments = parser.parse_args(argv)
    rows = measure(arguments.before, arguments.rounds)
    for name, row in rows.items():
        print(f"{name:40} {row['before_s']:8.3f} s -> {row['after_s']:8.3f} s  {row['faster']:7.2f} times as fast")
    result: dict[str, Any] = {
        "benchmark": "startup",
        "processor_s": rows,
        "import_lavis_over_import_torch": {
            side: round(rows["import lavis"][f"{side}_s"] / rows["import torch"][f"{side}_s"], 3)
            for side in ("before", "after")
        },
    }
    if arguments.steps:
        result["steps"] = versions.measure(arguments.before, arguments.rounds)
    info = environment_info()
    options = f" --rounds {arguments.rounds}{' --steps' if arguments.steps else ''}"
    result |= {
        "command": f"python tools/bench/startup.py --before BEFORE{options}",
        "commits": {"before": commit_of(arguments.before), "after": info.pop("commit")},
        **info,
    }
    write_result(arguments.out, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
