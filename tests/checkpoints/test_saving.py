"""Properties of saving beside the training: the caller waits for the copy only and may change every tensor afterwards;
one save runs at a time; what fails in the thread is raised at the next look, and does not hide what ended a run; at the
end of the context all that was begun is on the disk; copies are taken into the same memory again."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
from saved_states import make_saver, make_state

from lavis_emovit.checkpoints import checkpoint as cp
from lavis_emovit.checkpoints import saving
from lavis_emovit.checkpoints.training_state import read_state


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing a checkpoint waits until this event is set."""
    opened, real = threading.Event(), cp.save_checkpoint

    def waits(*args, **kwargs):
        assert opened.wait(30)
        return real(*args, **kwargs)

    monkeypatch.setattr(saving, "save_checkpoint", waits)
    return opened


def test_tensors_may_change_as_soon_as_save_returns(tmp_path: Path, gate: threading.Event) -> None:
    state = make_state(3, average=True)
    with make_saver(tmp_path) as saver:
        saver.save(state)
        for tensor in (state.trained["weight"], state.average["weight"], state.engine.tensors["exp_avg.weight"]):
            tensor.fill_(99.0)
        state.engine.values["adamw_steps"] = {}
        assert not cp.list_checkpoints(tmp_path), "save returned before anything was written"
        gate.set()
    back = read_state(cp.list_checkpoints(tmp_path)[0])
    assert back.trained["weight"].unique().tolist() == [3.0]
    assert back.average["weight"].unique().tolist() == [1.5]
    assert back.engine.tensors["exp_avg.weight"].unique().tolist() == [-3.0]
    assert back.engine.values["adamw_steps"] == {"weight": 3}


def test_one_save_at_a_time_and_in_their_order(tmp_path: Path, gate: threading.Event) -> None:
    with make_saver(tmp_path) as saver:
        saver.save(make_state(1))
        threading.Timer(0.2, gate.set).start()
        saver.save(make_state(2))  # waits for the first
        assert cp.step_of(cp.list_checkpoints(tmp_path)[0]) == 1
    assert [cp.verify_checkpoint(path).step for path in cp.list_checkpoints(tmp_path)] == [1, 2]


@pytest.mark.parametrize("is_async", [True, False])
def test_the_last_ones_and_the_best_are_kept(tmp_path: Path, is_async: bool) -> None:
    with make_saver(tmp_path, keep_last=2, is_async=is_async) as saver:
        for step in range(1, 7):
            saver.save(make_state(step, best=2 if step > 1 else None))
    assert [cp.step_of(path) for path in cp.list_checkpoints(tmp_path)] == [2, 5, 6]


def full_disk(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_fails_in_the_thread_is_raised_at_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = make_saver(tmp_path)
    saver.save(make_state(1))
    saver.wait()
    with monkeypatch.context() as patched:
        patched.setattr(cp, "_fsync", full_disk)
        saver.save(make_state(2))
        for thread in threading.enumerate():
            if thread.name == "save":
                thread.join()
        with pytest.raises(cp.CheckpointError, match=r"ckpt-00000002 cannot be saved: .*No space left"):
            saver.check()
    saver.check()  # told once
    saver.save(make_state(3))
    saver.wait()
    assert [cp.step_of(path) for path in cp.list_checkpoints(tmp_path)] == [1, 3]


def test_a_failed_save_does_not_hide_what_ended_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cp, "_fsync", full_disk)
    with pytest.raises(ZeroDivisionError), make_saver(tmp_path) as saver:
        saver.save(make_state(2))
        raise ZeroDivisionError
    assert "ckpt-00000002 cannot be saved" in caplog.text
    with pytest.raises(cp.CheckpointError), make_saver(tmp_path) as saver:
        saver.save(make_state(2))


def test_copies_go_into_the_same_memory(tmp_path: Path) -> None:
    with make_saver(tmp_path) as saver:
        saver.save(make_state(1, average=True))
        first = {key: tensor.data_ptr() for key, tensor in saver._copies.items()}
        saver.save(make_state(2, average=True))
        assert {key: tensor.data_ptr() for key, tensor in saver._copies.items()} == first
        saver.save(make_state(3))
        assert set(saver._copies) == {"trained/weight", "engine/exp_avg.weight"}, "what is not saved is not kept"


def test_the_log_is_flushed_before_the_checkpoint(tmp_path: Path) -> None:
    seen = []
    with make_saver(tmp_path) as saver:
        saver.save(make_state(1), before=lambda: seen.append(cp.list_checkpoints(tmp_path)))
    assert seen == [[]]
