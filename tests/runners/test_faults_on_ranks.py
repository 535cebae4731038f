"""Properties, two processes of which one meets with something in the middle of training: both end, soon and with a code
of their own, and rank 0 prints one message that names the rank, what happened, the step and the last shard."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

RANKS = Path(__file__).resolve().parent / "ranks"
sys.path.insert(0, str(RANKS))

from faults import train_until  # noqa: E402
from jobs import Ranks, finish, start_ranks  # noqa: E402

pytestmark = pytest.mark.xdist_group("faults_on_ranks")  # one worker starts the processes, once

# Mode and faulty rank -> seconds without progress that are allowed; exit codes of the two ranks; the message.
CASES = {
    ("error", 1): (60, [71, 2], ["error: rank 1: picture 17 of train/000003.tar cannot be read"]),
    ("bug", 1): (60, [71, 1], ["error: rank 1: KeyError: 'no such thing'"]),
    ("kill", 1): (60, [71, -9], ["error: rank 1 (process ", "in step 3, reading, last shard train/000003.tar"]),
    ("kill", 0): (60, [-9, 71], ["error: rank 0 (process ", "in step 3, reading, last shard train/000003.tar"]),
    ("hang", 1): (
        10,
        [71, 71],
        ["error: the run hangs", "Furthest behind: rank 1: in step 3, reading, last shard train/000003.tar"],
    ),
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], tuple[Path, list[int]]]:
    """All cases at once: folder with the logs, and exit codes."""
    root = tmp_path_factory.mktemp("faults")
    started: dict[tuple[str, int], tuple[Path, Ranks]] = {}
    for (mode, rank), (timeout_s, _, _) in CASES.items():
        folder = root / f"{mode}-{rank}"
        started[mode, rank] = folder, start_ranks(2, train_until, [mode, rank, timeout_s], folder)
    return {case: (folder, finish(ranks)) for case, (folder, ranks) in started.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-on-rank-{case[1]}")
def test_all_ranks_end_with_a_message(
    jobs: dict[tuple[str, int], tuple[Path, list[int]]], case: tuple[str, int]
) -> None:
    folder, codes = jobs[case]
    texts = [(folder / f"rank{rank}.log").read_text() for rank in range(2)]
    _, wanted_codes, parts = CASES[case]
    assert codes == wanted_codes, texts
    teller = 1 if case == ("kill", 0) else 0
    for part in parts:
        assert part in texts[teller], texts
    assert texts[teller].count("error: ") == 1, texts
    assert "Traceback" not in texts[1 - case[1]]
    assert ("Traceback" in texts[case[1]]) == (case[0] == "bug")
