"""Work in this process and on workers of Ray.

Properties, of both engines unless Ray is named:
- results come in the order of the items, also if the first ones take longest; items without work keep their place;
- items are not collected: few are read before the first result;
- work is opened once in each worker, and not without an item, and closed at the end;
- a UserError of the work has its own message, and comes after the results of earlier items;
- Ray: a worker that is killed is replaced and counted, and only its item is tried again; an item that ends every worker
  is lost alone; three of them in a row are an error;
- Ray: more workers than CPUs do not wait for each other;
- without Ray, or without a cluster at the address, the error says what to do.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from lavis_emovit.distributed.engine import Done, Lost, ProcessEngine
from lavis_emovit.distributed.on_ray import INSTALL_LINE, RayEngine
from lavis_emovit.errors import UserError

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason=f"Ray is not installed: {INSTALL_LINE}")


@pytest.fixture(scope="module")
def on_ray():
    """Ray with two CPUs, on any machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lavis_emovit.distributed.on_ray.usable_cpus", lambda: 2)
        with RayEngine(num_workers=2) as engine:
            yield engine


@pytest.fixture(params=["process", pytest.param("ray", marks=needs_ray)])
def engine(request):
    return ProcessEngine() if request.param == "process" else request.getfixturevalue("on_ray")


def works(log, function):
    """Work that notes in a file when it is opened and closed. Local functions, because workers import no test."""

    @contextmanager
    def open_work():
        with log.open("a") as file:
            file.write("opened\n")
        yield function
        with log.open("a") as file:
            file.write("closed\n")

    return open_work


def test_results_are_in_the_order_of_the_items(engine, tmp_path):
    def slow_first(number):
        time.sleep(0.3 if number == 0 else 0.0)
        return number * number

    read = []

    def items():
        for number in range(30):
            read.append(number)
            yield f"item {number}", None if number % 5 == 1 else number

    results = engine.map(works(tmp_path / "log", slow_first), items())
    first = next(results)
    assert first == Done("item 0", 0) and len(read) <= 8
    assert [first, *results] == [Done(f"item {n}", None if n % 5 == 1 else n * n) for n in range(30)]
    lines = (tmp_path / "log").read_text().split()
    assert 1 <= lines.count("opened") == lines.count("closed") <= 2


def test_nothing_is_opened_without_an_item(engine, tmp_path):
    assert list(engine.map(works(tmp_path / "log", str), [("a", None)])) == [Done("a", None)]
    assert not (tmp_path / "log").exists()


def test_an_error_of_the_work_comes_after_earlier_results(engine, tmp_path):
    def refuse_three(number):
        if number == 3:
            raise UserError("three is not a number: use another one")
        return number

    done = []
    with pytest.raises(UserError, match=r"\Athree is not a number: use another one\Z"):
        for item in engine.map(works(tmp_path / "log", refuse_three), ((n, n) for n in range(9))):
            done.append(item.result)
    assert done == [0, 1, 2]


@needs_ray
def test_a_killed_worker_loses_nothing(on_ray, tmp_path):
    mark = tmp_path / "killed"

    def kill_once(number):
        if number == 4 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return -number

    before = on_ray.num_lost_workers
    done = list(on_ray.map(works(tmp_path / "log", kill_once), ((n, n) for n in range(12))))
    assert done == [Done(n, -n) for n in range(12)]
    assert on_ray.num_lost_workers == before + 1


@needs_ray
def test_workers_without_a_cpu_hold_no_item(on_ray, tmp_path):
    with RayEngine(num_workers=5) as engine:
        done = list(engine.map(works(tmp_path / "log", abs), ((n, -n) for n in range(20))))
    assert done == [Done(n, n) for n in range(20)] and engine.num_lost_workers == 0


@needs_ray
def test_an_item_that_ends_every_worker_is_lost_alone(on_ray, tmp_path, monkeypatch):
    monkeypatch.setattr("lavis_emovit.distributed.on_ray._NUM_ATTEMPTS", 2)

    def kill(number):
        if number in (2, 5, 6, 7):
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    before, done = on_ray.num_lost_workers, []
    with pytest.raises(UserError, match=r"3 items in a row ended 2 workers each .*died"):
        for item in on_ray.map(works(tmp_path / "log", kill), ((n, n) for n in range(8))):
            done.append(item.result)
    assert [*done[:2], *done[3:5]] == [0, 1, 3, 4] and len(done) == 7
    assert all(isinstance(done[number], Lost) and "died" in done[number].reason for number in (2, 5, 6))
    assert on_ray.num_lost_workers == before + 8


def test_without_ray_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'lavis-emovit\[ray\]'"):
        RayEngine()
