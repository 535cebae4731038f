"""`tools/bench/startup.py` measures the processor time of a process; the committed result keeps the promises."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("bench_startup", ROOT / "tools" / "bench" / "startup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_processor_time_is_that_of_the_process(tool, tmp_path):
    idle = tool.processor_s(ROOT, tmp_path, ["-c", "import time; time.sleep(0.5)"], 0)
    busy = tool.processor_s(ROOT, tmp_path, ["-c", "import time\nwhile time.process_time() < 0.5: pass"], 0)
    assert idle < 0.4 < 0.5 <= busy


def test_command_that_ends_unexpectedly_is_an_error(tool, tmp_path):
    with pytest.raises(SystemExit, match="ended with 3:\nno luck"):
        tool.processor_s(ROOT, tmp_path, ["-c", "print('no luck'); raise SystemExit(3)"], 0)


def test_cases_alternate_and_the_least_counts(tool, monkeypatch):
    seconds = iter([5.0, 1.0, 2.0, 4.0])
    order = []

    def measured(checkout, *rest):
        order.append(checkout)
        return next(seconds)

    monkeypatch.setattr(tool, "CASES", {"one": (["-c", ""], 0)})
    monkeypatch.setattr(tool, "processor_s", measured)
    before = Path("before")
    rows = tool.measure(before, rounds=2)
    assert order == [ROOT, before, before, ROOT]
    assert rows == {"one": {"before_s": 1.0, "after_s": 4.0, "faster": 0.25}}


def test_committed_result_keeps_the_promises():
    result = json.loads((ROOT / "benchmarks" / "startup.json").read_text())
    faster = {name: row["faster"] for name, row in result["processor_s"].items()}
    assert result["import_lavis_over_import_torch"]["before"] > 4
    assert result["import_lavis_over_import_torch"]["after"] < 0.1
    assert faster["python -m lavis.train --help"] >= 100
    assert faster["python -m lavis.train, recipe refused"] >= 10
    assert faster["python -m lavis.evaluate, suite refused"] >= 10
    assert faster["emovit --help"] >= 1 and faster["emovit data list"] >= 1
    assert result["command"].startswith("python tools/bench/startup.py --before BEFORE")


def test_one_of_the_two_measurements_is_chosen(tool, capsys):
    for arguments in ([], ["--small", "--before", "x"]):
        with pytest.raises(SystemExit):
            tool.main(arguments)
        assert "--before, or set --small" in capsys.readouterr().err


def test_the_first_answer_is_compared_with_its_parts(tool, monkeypatch):
    seconds = iter([3.0, 5.0, 9.0, 2.0, 6.0, 8.0])
    monkeypatch.setattr(tool, "processor_s", lambda *arguments: next(seconds))
    times = iter(["1.5", "2.0"])
    run = tool.subprocess.run

    def generates(command, **options):
        return run([command[0], "-c", f"print('loaded'); print({next(times)})"], **options)

    monkeypatch.setattr(tool.subprocess, "run", generates)
    found = tool.measure_first_answer(rounds=2)
    assert found.pop("ratio") == round(8 / 3.5, 2)
    assert found == {"import_torch_s": 2.0, "import_llama_s": 5.0, "bare_generation_s": 1.5, "first_answer_s": 8.0}
