"""Loading for ZeRO stage 3 on two processes, with and without a cast of the frozen weights: until they are spread, each
rank needs at most 0.6 times the bytes of the weights, besides buffers (two copies of the largest tensor, one of them in
the exchange).
The spread weights are those of one process, bit for bit."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

RANKS = Path(__file__).resolve().parent / "ranks"
sys.path.insert(0, str(RANKS))

from jobs import REPOSITORY, finish, load_deepspeed, logs, start_ranks  # noqa: E402

pytest.importorskip("deepspeed")
pytestmark = [
    pytest.mark.xdist_group("spread_loading"),  # one worker starts the processes, once
    pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="the system does not list mapped files"),
]

# The allocator keeps freed memory for small tensors, and gloo its buffers for a moment, whatever the model's size.
ALLOCATOR_BYTES = 80_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("random_weights", REPOSITORY / "tools" / "make_random_weights.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    path = tmp_path_factory.mktemp("weights")
    config = tool.build_config("7b", divide_depth=32)
    for part, sizes in (
        (config.vision_config, {"hidden_size": 256, "intermediate_size": 512}),
        (config.qformer_config, {"encoder_hidden_size": 256, "hidden_size": 48, "intermediate_size": 64}),
        (
            config.text_config,
            {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "vocab_size": 4000},
        ),
    ):
        for key, size in sizes.items():
            setattr(part, key, size)
    config.text_config.head_dim = 32
    tool.write_folder(config, path, shard_bytes=80_000_000)
    return path


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_two_ranks_share_the_weights(folder: Path, tmp_path: Path, precision: str) -> None:
    from spreading import load_and_spread

    load_deepspeed()
    config = tmp_path / "zero3.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 1000}}))
    ranks = start_ranks(2, load_and_spread, [tmp_path, config, folder, precision], tmp_path)
    assert finish(ranks) == [0, 0], logs(tmp_path)
    for rank in range(2):
        facts = json.loads((tmp_path / f"facts{rank}.json").read_text())
        assert facts["different"] == []
        assert facts["weights"] > 400e6
        assert facts["peak"] <= 0.6 * facts["weights"] + 2 * facts["largest"] + ALLOCATOR_BYTES
