"""Properties: the formula for the memory of the trained state is within 5 % of the bytes that two processes hold, under
every engine, with the tensors of the tiny model; a hand calculation for the published sizes; offloading moves bytes and
makes none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lavis_emovit.runners.state_memory import state_bytes

RANKS = Path(__file__).resolve().parent / "ranks"
sys.path.insert(0, str(RANKS))

from jobs import finish, load_deepspeed, logs, start_ranks  # noqa: E402
from memory import count_bytes  # noqa: E402

pytestmark = pytest.mark.xdist_group("engine_memory")  # one worker starts the processes, once

STAGES = {"torch": 0, "zero0": 0, "zero1": 1, "zero2": 2, "zero3": 3}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    pytest.importorskip("deepspeed")
    load_deepspeed()
    root = tmp_path_factory.mktemp("memory")
    for stage in range(4):
        # Buckets and what stays whole have fixed sizes, beside which so small a model would be nothing.
        zero = {"stage": stage, "reduce_bucket_size": 20_000, "allgather_bucket_size": 20_000}
        if stage == 3:
            zero["stage3_param_persistence_threshold"] = 0
        (root / f"zero{stage}.json").write_text(json.dumps({"zero_optimization": zero}))
    assert finish(start_ranks(2, count_bytes, [root, root], root)) == [0, 0], logs(root)
    return [json.loads((root / f"bytes{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", STAGES)
def test_the_formula_is_within_five_percent(measured: list[dict], name: str) -> None:
    for rank in measured:
        facts = rank[name]
        wanted = state_bytes(facts["trained"], 4 * facts["frozen"], stage=STAGES[name], num_ranks=2)
        assert facts["with_gradients"] == pytest.approx(wanted.device, rel=0.05)


def test_a_hand_calculation() -> None:
    # EmoVIT on Vicuna-7B: 188 million parameters learn, 7.7 billion are frozen in bf16; eight GPUs.
    trained, frozen = 188_000_000, 15_400_000_000
    assert state_bytes(trained, frozen).device == 16 * trained + frozen
    assert state_bytes(trained, frozen, stage=2, num_ranks=8).device == 6 * trained + frozen
    assert state_bytes(trained, frozen, stage=3, num_ranks=8).device == trained * 5 // 2 + frozen // 8


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_offloading_moves_bytes(stage: int) -> None:
    plain = state_bytes(1000, 500, stage=stage, num_ranks=2)
    moved = state_bytes(1000, 500, stage=stage, num_ranks=2, offload_optimizer=True)
    assert (plain.host, moved.host) == (0, 8000)
    assert moved.device + moved.host == plain.device
    if stage == 3:
        assert state_bytes(1000, 500, stage=3, num_ranks=2, offload_optimizer=True, offload_param=True).device == 0
