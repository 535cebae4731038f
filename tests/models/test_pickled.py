"""Reading `.pth` files.

- a state dict, one under a key, and a whole pickled module of a missing class have the same tensors, in torch's zip
  format and in its old one;
- no code in a file is executed, however it is hidden;
- a truncated file, and one of another kind, is rejected by name.
"""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from lavis_emovit.errors import WeightsError
from lavis_emovit.models.instructblip.pickled import read_state_dict

FORMATS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


class Trap:
    """Its pickle creates a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def whole_module(tmp_path):
    """A module of a class that no longer exists when the file is read, with a trap among its attributes."""
    gone = types.ModuleType("code_that_is_gone")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.query = nn.Parameter(torch.randn(2).half())
            self.inner = nn.Sequential(nn.LayerNorm(3), nn.ModuleList([nn.Linear(1, 1)]))
            self.register_buffer("positions", torch.arange(3))
            self.register_buffer("scratch", torch.arange(3), persistent=False)
            self.trap = Trap(tmp_path / "sprung")
            self.activation = nn.functional.gelu
            self.precision = torch.float16

    Net.__module__, Net.__qualname__ = gone.__name__, "Net"
    gone.Net = Net
    sys.modules[gone.__name__] = gone
    yield Net()
    sys.modules.pop(gone.__name__, None)


@FORMATS
def test_whole_module_has_its_state_dict_and_runs_nothing(whole_module, tmp_path, is_zip):
    path = tmp_path / "whole.pth"
    torch.save(whole_module, path, _use_new_zipfile_serialization=is_zip)
    expected = whole_module.state_dict()
    sys.modules.pop("code_that_is_gone")
    state = read_state_dict(path)
    assert not (tmp_path / "sprung").exists()
    assert state.keys() == expected.keys() and "scratch" not in state
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor) and state[name].dtype == tensor.dtype, name


@FORMATS
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state, "epoch": 3}])
def test_state_dicts(tmp_path, is_zip, wrap):
    state = {"a.weight": torch.randn(2, 3), "b": torch.arange(4)}
    torch.save(wrap(state), tmp_path / "state.pth", _use_new_zipfile_serialization=is_zip)
    read = read_state_dict(tmp_path / "state.pth")
    assert read.keys() == state.keys() and all(torch.equal(read[name], state[name]) for name in state)


def test_trap_instead_of_weights_is_rejected_and_runs_nothing(tmp_path):
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match=r"trap\.pth"):
        read_state_dict(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


@FORMATS
def test_truncated_files_are_rejected_by_name(whole_module, tmp_path, is_zip):
    torch.save(whole_module, tmp_path / "whole.pth", _use_new_zipfile_serialization=is_zip)
    content = (tmp_path / "whole.pth").read_bytes()
    for length in (0, 3, 10, 100, len(content) // 2, len(content) - 5):
        (tmp_path / "cut.pth").write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"cut\.pth"):
            read_state_dict(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("content", "reason"),
    [([1, 2], "has a list"), ({}, "no tensors"), ({"a": torch.zeros(1), "epoch": 3}, "epoch"), (3, "has a int")],
)
def test_other_contents_are_rejected(tmp_path, content, reason):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=reason):
        read_state_dict(tmp_path / "other.pth")
