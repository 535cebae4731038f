"""Compare the processor time of imports and short commands with that of another checkout.

    python tools/bench/startup.py --before ../before

Each round runs every case with both versions alternately, in new processes with one thread. The time of a case is the
user and system time of its process, the minimum over all rounds. `faster` is the ratio of the other version's time to
this version's time. With `--steps`, the result also contains the training step, scoring and the loader
(tools/bench/versions.py).

    python tools/bench/startup.py --small

measures the first answer of `emovit_small` instead: a new process that loads the model and generates 20 tokens, beside
`import torch` and the generation alone, by a plain call of transformers on the same language model and as many tokens.
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
    # Without the model's family, which imports transformers.
    "imports of emovit predict": (
        [
            "-c",
            "import lavis_emovit.tuned.processes, lavis_emovit.tuned.output, lavis_emovit.evaluation.adapters",
        ],
        0,
    ),
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


NUM_TOKENS = 20
FIRST_ANSWER = f"""
import torch
from lavis.models import load_model_and_preprocess
model, _, _ = load_model_and_preprocess("emovit_small")
samples = {{"image": torch.zeros(1, 3, 224, 224), "prompt": ["What is in this image?"]}}
_, (ids,) = model.generate(samples, max_length={NUM_TOKENS}, min_length={NUM_TOKENS}, return_ids=True)
assert len(ids) == {NUM_TOKENS}
"""
# The prompt of the plain call is as long as that of the model: turns, query tokens and the question.
BARE_GENERATION = f"""
import time, torch
from lavis.models import load_model_and_preprocess
model, _, _ = load_model_and_preprocess("emovit_small")
language_model, question = model.core.language_model, ["What is in this image?"]
length = model._num_visual_tokens() + len(model._whole_prompts(question)[0])
ids = torch.arange(100, 100 + length)[None]
begin = time.process_time()
found = language_model.generate(
    input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens={NUM_TOKENS}, min_new_tokens={NUM_TOKENS},
    do_sample=False, pad_token_id=2,
)
print(time.process_time() - begin)
assert found.shape[1] == length + {NUM_TOKENS}
"""


def measure_first_answer(rounds: int) -> dict[str, float]:
    """Processor seconds of the first answer of a new process, and of what it cannot do without; minima."""
    imports = {"import_torch": "import torch", "import_llama": "from transformers import LlamaForCausalLM"}
    seconds: dict[str, list[float]] = {name: [] for name in (*imports, "bare_generation", "first_answer")}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, statement in imports.items():
                seconds[name].append(processor_s(ROOT, Path(folder), ["-c", statement], 0))
            command = [sys.executable, "-c", BARE_GENERATION]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
            seconds["bare_generation"].append(float(done.stdout.split()[-1]))
            seconds["first_answer"].append(processor_s(ROOT, Path(folder), ["-c", FIRST_ANSWER], 0))
    least = {name: min(values) for name, values in seconds.items()}
    ratio = least["first_answer"] / (least["import_torch"] + least["bare_generation"])
    return {**{f"{name}_s": round(value, 3) for name, value in least.items()}, "ratio": round(ratio, 2)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of the other version")
    parser.add_argument("--small", action="store_true", help="measure the first answer of emovit_small instead")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", action="store_true", help="also measure the training step, scoring and the loader")
    parser.add_argument("--out", type=Path, help="default: benchmarks/startup.json, or benchmarks/startup_small.json")
    arguments = parser.parse_args(argv)
    if (arguments.before is None) is not arguments.small:
        parser.error("name the other version with --before, or set --small")
    name = "startup_small" if arguments.small else "startup"
    out = arguments.out or ROOT / "benchmarks" / f"{name}.json"
    if arguments.small:
        found = measure_first_answer(arguments.rounds)
        print("  ".join(f"{key} {value}" for key, value in found.items()))
        command = f"python tools/bench/startup.py --small --rounds {arguments.rounds}"
        write_result(out, {"benchmark": name, "processor": found, "command": command, **environment_info()})
        return 0
    rows = measure(arguments.before, arguments.rounds)
    for name, row in rows.items():
        over_torch = row["after_s"] / rows["import torch"]["after_s"]
        print(
            f"{name:40} {row['before_s']:8.3f} s -> {row['after_s']:8.3f} s  {row['faster']:7.2f} times as fast, "
            f"{over_torch:5.2f} times import torch"
        )
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
    write_result(out, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
