"""`tools/contribute_configs.py`, on a copy of the installed LAVIS.

Properties:
- every file of `lavis_configs/` arrives at its place, byte for byte, and LAVIS's own config code loads it from there;
- a second run changes nothing; a file that differs is refused, nothing is copied then, and `--force` replaces it;
- a folder that is no LAVIS tree, and a file that LAVIS cannot load, are errors that name it.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from lavis_emovit.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("contribute_configs", ROOT / "tools" / "contribute_configs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path):
    """A LAVIS tree that has configs only."""
    (tmp_path / "lavis" / "configs").mkdir(parents=True)
    return tmp_path


def _ours() -> dict[str, bytes]:
    root = ROOT / "lavis_configs"
    files = [path for folder in ("datasets", "models") for path in (root / folder).rglob("*.yaml")]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def _copied(tree: Path) -> dict[str, bytes]:
    root = tree / "lavis" / "configs"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.yaml")}


def test_copies_every_file(tool, tree):
    lines = tool.copy(ROOT / "lavis_configs", tree)
    assert len(_ours()) >= 8
    assert _copied(tree) == _ours()
    assert {line.split()[0] for line in lines} == {"added"}
    assert {line.split()[0] for line in tool.copy(ROOT / "lavis_configs", tree)} == {"unchanged"}


def test_differing_file_is_refused(tool, tree):
    place = tree / "lavis/configs/models/emovit/emovit_tiny.yaml"
    place.parent.mkdir(parents=True)
    place.write_text("their: own")
    with pytest.raises(DataError, match=r"emovit_tiny\.yaml: exists with other content"):
        tool.copy(ROOT / "lavis_configs", tree)
    assert len(_copied(tree)) == 1
    lines = tool.copy(ROOT / "lavis_configs", tree, force=True)
    assert "replaced  lavis/configs/models/emovit/emovit_tiny.yaml" in lines
    assert _copied(tree) == _ours()


def test_folder_that_is_no_lavis_tree(tool, tmp_path, capsys):
    assert tool.main(["--lavis", str(tmp_path)]) == 2
    assert "not a LAVIS source tree" in capsys.readouterr().err


@pytest.mark.slow
def test_lavis_loads_every_file(tool, tmp_path, capfd):
    installed = Path(importlib.util.find_spec("lavis").origin).parent
    shutil.copytree(installed, tmp_path / "lavis", ignore=shutil.ignore_patterns("__pycache__"))
    assert tool.main(["--lavis", str(tmp_path)]) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("loads")]
    assert sorted(line.split()[1].rstrip(":") for line in lines) == sorted(f"lavis/configs/{name}" for name in _ours())
    broken = tmp_path / "lavis/configs/models/emovit/emovit_tiny.yaml"
    broken.write_text(broken.read_text().replace("emovit_image_train", "image_train_of_nobody"))
    assert tool.check_in_own_process(tmp_path) == 2
    assert f"{broken}: LAVIS cannot load it" in capfd.readouterr().err


def test_paths_in_the_files_are_relative():
    for name, content in _ours().items():
        for line in content.decode().splitlines():
            value = line.partition("#")[0].partition(": ")[2].strip().strip("\"'")
            assert not value.startswith(("/", "~")), f"{name}: {line}"
