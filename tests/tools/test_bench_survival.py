"""`tools/bench/soak.py`, `saving.py` and `training_memory.py`: the comparison of two runs finds each kind of difference
and no other, a soak that finds one ends with 1, and figures of a small measurement are worked out from its times."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "tools" / "bench" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, Path]:
    """Two finished runs that differ in nothing but clock times."""
    soak = load("soak")
    for number, name in enumerate(("straight", "disturbed0")):
        run = tmp_path / name
        last = run / "checkpoints" / "ckpt-00000004"
        last.mkdir(parents=True)
        for file in soak.COMPARED_FILES:
            (last / file).write_text(file)
        (run / "predictions").mkdir()
        (run / "predictions" / "test-after.jsonl").write_text("{}\n")
        (run / "metrics.json").write_text("{}")
        rows = [{"event": "step", "step": 4, "loss": 0.5, "step_s": 1.0 + number}]
        (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "straight", tmp_path / "disturbed0"


def test_equal_runs_are_equal(finished: tuple[Path, Path]) -> None:
    assert load("soak").compare(*finished) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("checkpoints/ckpt-00000004/model.safetensors", "x"),
        ("checkpoints/ckpt-00000004/optimizer.safetensors", "x"),
        ("checkpoints/ckpt-00000004/state.json", "x"),
        ("predictions/test-after.jsonl", "[]"),
        ("metrics.json", "[]"),
        ("log.jsonl", '{"event": "step", "step": 4, "loss": 0.5000001}\n'),
    ],
)
def test_each_difference_is_found(finished: tuple[Path, Path], file: str, text: str) -> None:
    (finished[1] / file).write_text(text)
    (difference,) = load("soak").compare(*finished)
    assert str(finished[1]) in difference


def test_a_soak_that_finds_a_difference_ends_with_one(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs are made up here: the command is replaced by one that has finished at once."""
    soak = load("soak")
    place = tmp_path / "place"
    place.mkdir()
    shutil.copytree(finished[0], place / "straight")
    shutil.copytree(finished[1], place / "disturbed0")
    monkeypatch.setattr(soak.tempfile, "TemporaryDirectory", lambda prefix: FixedFolder(place))
    monkeypatch.setattr(soak, "start", lambda folder, name: Finished())
    monkeypatch.setattr(soak, "SHARE_EARLY", 1.0)
    (place / "disturbed0" / "metrics.json").write_text("[]")
    out = tmp_path / "soak.json"
    assert soak.main(["--minutes", "0.01", "--longest-wait-s", "0.01", "--out", str(out)]) == 1
    result = json.loads(out.read_text())
    assert result["runs"] == result["starts"] == 1 and len(result["differences"]) == 1


class FixedFolder:
    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> str:
        return str(self.path)

    def __exit__(self, *exception: object) -> None:
        pass


class Finished:
    def poll(self) -> int:
        return 0

    def wait(self) -> int:
        return 0


def test_a_small_measurement_of_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, threads = tmp_path / "saving.json", torch.get_num_threads()
    options = ["--parameters-m", "2", "--steps", "4", "--every", "2", "--step-s", "0.02", "--no-resume"]
    try:
        assert load("saving").main([*options, "--place", str(tmp_path), "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    saves = json.loads(out.read_text())["saves"]
    assert saves["trained_parameters"] == 2 * 1024 * 1024
    assert saves["checkpoint_bytes"] == 3 * 4 * saves["trained_parameters"], "weights and AdamW's two moments"
    for way in ("waited for", "beside"):
        assert len(saves[way]["stall_s"]) == 2
        assert saves[way]["median_stall_steps"] == pytest.approx(saves[way]["median_stall_s"] / saves["step_s"])


def test_growth_of_memory_compares_one_tenth_with_the_end() -> None:
    rising = [step / 1000 for step in range(1, 1001)]
    early, end = load("training_memory").growth(rising)
    assert (early, end) == (pytest.approx(0.101), pytest.approx(0.990))
    spikes = [9.0 if step % 5 == 0 else 2.0 for step in range(1000)]
    assert load("training_memory").growth(spikes) == (2.0, 2.0)
