"""When a free model of `emovit serve` starts a batch: at once with as many requests as the last batch had, whatever is
being read, else after a quarter of the time that the last batch took."""

from __future__ import annotations

from time import monotonic
from types import SimpleNamespace

import pytest

from lavis_emovit.serving.app import Served, make_app
from lavis_emovit.serving.batching import Batching
from lavis_emovit.serving.server import DrainingServer


def job():
    return SimpleNamespace(image=SimpleNamespace(nbytes=1), is_wanted=True)


def next_batch(batching: Batching, num_waiting: int, *, last: int, last_s: float) -> tuple[int, float]:
    """The size of the next batch, and the seconds until it starts."""
    batching._waiting.extend(job() for _ in range(num_waiting))
    batching._num_answered, batching._batch_s = last, last_s
    begin = monotonic()
    return len(batching._next_batch()), monotonic() - begin


def test_a_batch_waits_only_for_as_many_requests_as_the_last_one_had(tuned):
    batching = Batching(tuned, batch_size=4)
    with batching.place():  # a request is being read meanwhile
        for num_waiting, last in ((1, 1), (2, 2), (3, 2), (4, 4)):
            size, seconds = next_batch(batching, num_waiting, last=last, last_s=400.0)
            assert size == num_waiting and seconds < 50
    size, seconds = next_batch(batching, 1, last=2, last_s=0.8)
    assert size == 1 and seconds == pytest.approx(0.2, abs=0.15) and seconds > 0.15
    assert next_batch(batching, 6, last=4, last_s=400.0)[0] == 4 and len(batching._waiting) == 2


def test_idle_connections_outlive_those_of_clients(tuned):
    batching = Batching(tuned)
    server = DrainingServer(make_app(Served("tiny", "emovit-test", batching)), batching)
    # By default, uvicorn closes them as early as httpx does, so that requests fail when both happen at once.
    assert server.config.timeout_keep_alive > 60
