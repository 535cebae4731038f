"""Properties: all generators follow from the parts of a position, whatever happened before; different positions differ;
threads stay within the cores that this process may use."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from lavis_emovit.distributed.cores import usable_cpus
from lavis_emovit.distributed.seeding import limit_threads, seed_everything


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_position_says_it_all() -> None:
    seed_everything("step", 42, 7, 0)
    first = draw()
    draw()
    random.seed(1)
    seed_everything("step", 42, 7, 0)
    assert draw() == first


@pytest.mark.parametrize("other", [("step", 42, 8, 0), ("step", 43, 7, 0), ("step", 42, 7, 1), ("start", 42, 7, 0)])
def test_other_positions_differ_in_every_generator(other: tuple) -> None:
    seed_everything("step", 42, 7, 0)
    first = draw()
    seed_everything(*other)
    assert all(one != two for one, two in zip(first, draw()))


def test_parts_do_not_run_together() -> None:
    seed_everything("step", 1, 23)
    first = draw()
    seed_everything("step", 12, 3)
    assert draw() != first


def test_threads_stay_within_the_usable_cores() -> None:
    before = torch.get_num_threads()
    try:
        assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
        assert limit_threads(None) <= usable_cpus()
        assert limit_threads(1) == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
