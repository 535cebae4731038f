"""`tools/bench/training_step.py` at a toy size: both sides compute the same loss, batches are of EmoVIT's mix,
counts and operations are those worked out by hand, and the path of a GPU run is walked on the CPU."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("bench_training_step", ROOT / "tools" / "bench" / "training_step.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_run_at_a_toy_size(tool, tmp_path, capsys):
    out = tmp_path / "result.json"
    threads = torch.get_num_threads()
    options = ["--shapes", "toy", "--images", "8", "--rounds", "2", "--plain-batch-sizes", "2", "--peak-tflops", "0.5"]
    assert tool.main([*options, "--threads", str(threads), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert list(result["sides"]) == ["ours", "plain", "plain, 2 at a time"]
    assert result["largest_loss_difference"] < 1e-3
    assert result["sides"]["ours"]["padding_share"] < result["sides"]["plain"]["padding_share"]
    for side in result["sides"].values():
        assert len(side["seconds_by_round"]) == 2
        assert side["mfu"] == pytest.approx(side["useful_tflops"] / 0.5)
    ours, plain = (result["sides"][name]["samples_per_s"] for name in ("ours", "plain"))
    assert result["ratio"] == pytest.approx(ours / plain)
    assert {"command", "commit", "versions", "machine", "date"} <= set(result)
    assert f"| {ours:.2f} |" in capsys.readouterr().out


def test_batches_are_of_the_mix(tool):
    batches = tool.make_batches(10, 30, 8, seed=1)
    kinds = [kind for batch in batches for kind in batch["kind"]]
    assert kinds.count("categorical") == 300
    assert kinds.count("complex") == 21 and kinds.count("conversation") == 42 and kinds.count("reasoning") == 2
    assert kinds.count("categorical") / len(kinds) == pytest.approx(0.82, abs=0.01)
    for batch in batches:
        for kind, question, answer in zip(batch["kind"], batch["text_input"], batch["text_output"]):
            (shortest, longest), (least, most) = tool.LENGTHS[kind]
            assert shortest <= len(question.split()) <= longest
            assert least <= len(answer.split()) <= most


def test_operations_by_hand(tool):
    model = tool.build_model("toy", torch.device("cpu"), torch.float32, 0)
    batch = {
        "image": torch.zeros(1, 3, 28, 28),
        "text_input": ["w1 w2 w3", "w4"],
        "text_output": ["w5 w6", "w7"],
    }
    assert tool._real_tokens(model, [batch]) == (2 * 4 + (1 + 3) + (1 + 1) + 3 + 2, 3 + 2)
    layer = 4 * 64 * 64 + 3 * 64 * 128 + 2 * 64
    language = 4 * (2 * layer + 64) * 19 + 4 * 64 * 9000 * 5
    vision_layer = 3 * 32 * 32 + 3 * 32 + 32 * 32 + 32 + 2 * 32 * 64 + 64 + 32 + 4 * 32
    vision = 2 * 2 * vision_layer * 5
    attention, feed_forward = 4 * (32 * 32 + 32) + 64, 2 * 32 * 64 + 64 + 32 + 64
    # Two layers, the first of which looks at the picture; 2 x 4 query tokens and 4 words, and 5 patches once.
    qformer = 6 * 2 * (attention + feed_forward) * (8 + 4) + 6 * attention / 2 * (4 * 2 + 5)
    assert tool.useful_flops(model, [batch]) == pytest.approx(language + vision + qformer)
