"""Properties of the save protocol: a checkpoint reads back as written; each kind of damage is found and named; the
newest whole one is taken and each rejection has its reason; a save that stops anywhere leaves no folder under a final
name that is not whole; purging never takes the newest or the best."""

from __future__ import annotations

import errno
import io
import json
import pickletools
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from lavis_emovit.checkpoints import checkpoint as cp
from lavis_emovit.checkpoints.training_state import (
    CONFIG_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    QUESTIONS_FILE,
    STATE_FILE,
    Best,
    EngineState,
    Position,
    TrainingState,
    read_state,
    writers_of,
)

FILES = (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, CONFIG_FILE, QUESTIONS_FILE, cp.MANIFEST_NAME)


def make_state(step: int = 7) -> TrainingState:
    generator = torch.Generator().manual_seed(step)
    return TrainingState(
        trained={"weight": torch.randn(3, 4, generator=generator), "half": torch.randn(5).to(torch.bfloat16)},
        engine=EngineState({"exp_avg.weight": torch.randn(3, 4)}, {"adamw_steps": {"weight": step}, "scaler": {}}),
        position=Position(step=step, epoch=1, step_in_epoch=2, best=Best(4, "accuracy", 0.1 + 0.2)),
        config_yaml="run:\n  seed: 1\n",
    )


def save(root: Path, step: int = 7, writers=None) -> Path:
    return cp.save_checkpoint(
        root,
        cp.CheckpointFacts("i" * 64, "c" * 64, "f" * 64, {"lavis-emovit": "0.1.0"}),
        step=step,
        epoch=1,
        writers=writers or writers_of(make_state(step)),
    )


def test_reads_back_bit_for_bit(tmp_path: Path) -> None:
    state = make_state()
    path = save(tmp_path, writers=writers_of(state))
    assert path.name == "ckpt-00000007"
    manifest = cp.verify_checkpoint(path)
    assert (manifest.step, manifest.epoch, manifest.index_hash) == (7, 1, "i" * 64)
    assert set(manifest.files) == set(FILES) - {cp.MANIFEST_NAME}
    back = read_state(path)
    assert back.position == state.position
    assert back.config_yaml == state.config_yaml
    assert back.engine.values == state.engine.values
    for saved, loaded in ((state.trained, back.trained), (state.engine.tensors, back.engine.tensors)):
        assert saved.keys() == loaded.keys()
        for name, tensor in saved.items():
            assert loaded[name].dtype == tensor.dtype
            assert torch.equal(loaded[name], tensor)


def test_nothing_in_it_is_pickled(tmp_path: Path) -> None:
    path = save(tmp_path)
    for file in path.iterdir():
        assert not zipfile.is_zipfile(file), f"{file.name} is a torch.save archive"
        with pytest.raises((ValueError, IndexError)):
            pickletools.dis(file.read_bytes(), out=io.StringIO())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.5, 0.99])
def test_one_flipped_byte_is_found_and_named(tmp_path: Path, name: str, where: float) -> None:
    path = save(tmp_path)
    content = bytearray((path / name).read_bytes())
    content[int(where * len(content))] ^= 0x01
    (path / name).write_bytes(content)
    with pytest.raises(cp.CheckpointError, match=name.replace(".", r"\.")):
        cp.verify_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0.0, 0.5])
def test_a_cut_file_is_found_and_named(tmp_path: Path, name: str, left: float) -> None:
    path = save(tmp_path)
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[: int(left * len(content))])
    with pytest.raises(cp.CheckpointError, match=name.replace(".", r"\.")):
        cp.verify_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found_and_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path)
    (path / name).unlink()
    with pytest.raises(cp.CheckpointError, match=rf"{name}.*missing".replace(".", r"\.", 1)):
        cp.verify_checkpoint(path)


def test_a_manifest_edited_by_hand_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path)
    manifest = json.loads((path / cp.MANIFEST_NAME).read_text())
    manifest["step"] = 8
    (path / cp.MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(cp.CheckpointError, match="does not match its own sha256"):
        cp.verify_checkpoint(path)


def test_a_manifest_of_a_later_version_is_refused_by_its_format(tmp_path: Path) -> None:
    """Whatever keys that version has."""
    path = save(tmp_path)
    (path / cp.MANIFEST_NAME).write_text(json.dumps({"format": 9, "weights": "elsewhere"}))
    with pytest.raises(cp.CheckpointError, match=f"format 9, this version reads {cp.FORMAT_VERSION}"):
        cp.verify_checkpoint(path)


def test_newest_that_verifies_is_taken_and_the_rest_explained(tmp_path: Path) -> None:
    for step in (3, 20, 100):
        save(tmp_path, step)
    (tmp_path / "ckpt-00000100" / cp.MANIFEST_NAME).unlink()
    (tmp_path / "ckpt-00000020" / MODEL_FILE).write_bytes(b"")
    (path, manifest), rejected = cp.newest_checkpoint(tmp_path)
    assert path.name == "ckpt-00000003"
    assert manifest.step == 3
    assert [path.name for path in rejected] == ["ckpt-00000100", "ckpt-00000020"]
    first, second = rejected.values()
    assert "not finished" in first and MODEL_FILE in second


def test_an_empty_or_absent_folder_has_none(tmp_path: Path) -> None:
    assert cp.newest_checkpoint(tmp_path) == (None, {})
    assert cp.newest_checkpoint(tmp_path / "absent") == (None, {})


def test_leftovers_of_cut_saves_are_not_seen_and_are_cleaned(tmp_path: Path) -> None:
    whole = save(tmp_path, 5)
    stale = tmp_path / "ckpt-00000009.tmp-0a1b2c3d"
    shutil.copytree(whole, stale)
    aside = tmp_path / "ckpt-00000004.old-0a1b2c3d"
    shutil.copytree(whole, aside)
    (tmp_path / "my-notes").mkdir()
    assert cp.newest_checkpoint(tmp_path)[0][0] == whole
    assert cp.remove_leftovers(tmp_path) == [aside, stale]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt-00000005", "my-notes"]


def test_a_full_disk_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    earlier = save(tmp_path, 5)

    def disk_full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(cp.CheckpointError, match=r"ckpt-00000006 cannot be saved: .*No space left"):
        save(tmp_path, 6, {**writers_of(make_state(6)), STATE_FILE: disk_full})
    assert list(tmp_path.iterdir()) == [earlier]
    assert cp.newest_checkpoint(tmp_path)[0][0] == earlier


@pytest.mark.parametrize("stop_at", ["rename", "sync_folder", "_fsync"])
def test_a_save_that_stops_at_a_file_operation_falls_back(tmp_path: Path, monkeypatch, stop_at: str) -> None:
    """The machine stops before each single operation in turn; the loader must find a whole checkpoint every time."""

    class MachineStops(BaseException):
        pass

    reached_the_end = False
    for survive in range(20):
        root = tmp_path / f"{survive}"
        earlier = save(root, 5)
        calls = 0

        def counted(real, limit=survive):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls > limit:
                    raise MachineStops
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patched:
            owner = Path if stop_at == "rename" else cp
            patched.setattr(owner, stop_at, counted(getattr(owner, stop_at)))
            patched.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # a dead process cleans nothing
            try:
                save(root, 6)
                reached_the_end = True
            except MachineStops:
                pass
        (path, manifest), rejected = cp.newest_checkpoint(root)
        assert not rejected
        assert manifest.step in (5, 6)
        assert path == earlier or manifest.step == 6
        if reached_the_end:
            assert manifest.step == 6
            break
    assert reached_the_end


def test_a_damaged_folder_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    (save(tmp_path, 6) / MODEL_FILE).write_bytes(b"")
    path = save(tmp_path, 6)
    assert cp.verify_checkpoint(path).step == 6
    assert list(tmp_path.iterdir()) == [path]


def test_purge_keeps_the_last_k_and_the_best(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        save(tmp_path, step)
    gone = cp.purge_checkpoints(tmp_path, newest_step=50, keep_last=2, keep_steps={10})
    assert [cp.step_of(path) for path in gone] == [20, 30]
    assert [cp.step_of(path) for path in cp.list_checkpoints(tmp_path)] == [10, 40, 50]


def test_purge_leaves_later_steps_and_the_newest_alone(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step)
    cp.purge_checkpoints(tmp_path, newest_step=20, keep_last=1, keep_steps=set())
    assert [cp.step_of(path) for path in cp.list_checkpoints(tmp_path)] == [20, 30]


def test_other_folders_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(cp.CheckpointError, match="no such checkpoint folder"):
        cp.verify_checkpoint(tmp_path / "ckpt-1")
    with pytest.raises(cp.CheckpointError, match="not a checkpoint folder"):
        cp.step_of(tmp_path / "best")
