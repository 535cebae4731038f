"""The package keeps its layout: rooms on floors, short files, light imports.

Properties:
- a room imports only rooms of lower floors (imports inside functions count too);
- no Python file has more than 600 lines, every module of the package opens with a docstring;
- a file registers at most one class in LAVIS, and every registering module is in the plugin's list;
- `import lavis_emovit` takes under 0.3 s; what needs neither torch nor LAVIS does not load them;
- importing a module changes neither the environment, nor a global random state, nor torch's settings.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lavis_emovit.plugin.registration import REGISTERING_MODULES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lavis_emovit"
MAX_LINES = 600

# Room -> floor. What stands on one floor does not know its neighbours, save on the two top floors.
FLOORS = {
    **dict.fromkeys(["distributed", "errors", "files", "images", "paths", "progress", "settings"], 0),
    **dict.fromkeys(["chat", "checkpoints", "emotion", "models", "processors", "records", "sample_set"], 1),
    **dict.fromkeys(["generation", "recipes", "shards", "sources"], 2),
    **dict.fromkeys(["datasets", "evaluation"], 3),
    **dict.fromkeys(["tasks"], 4),
    **dict.fromkeys(["runners"], 5),
    **dict.fromkeys(["__init__", "cli", "evaluate", "grafts", "launch", "plugin", "train"], 6),
}
SHARED_FLOORS = {0, 6}

LIGHT_MODULES = (
    "lavis_emovit",
    "lavis_emovit.errors",
    "lavis_emovit.settings",
    "lavis_emovit.paths",
    "lavis_emovit.records",
    "lavis_emovit.emotion.labels",
    "lavis_emovit.sources.emoset",
    "lavis_emovit.emotion.questions",
    "lavis_emovit.evaluation.metrics",
    "lavis_emovit.evaluation.predictions",
    "lavis_emovit.plugin.bootstrap",
    "lavis_emovit.cli.main",
)


def _python_files(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.py"))
    assert files, folder
    return files


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_rooms(tree: ast.Module, path: Path) -> Iterator[tuple[str, int]]:
    """Rooms of ours that a file imports, each with the line."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            if node.module == "lavis_emovit":
                names = [f"lavis_emovit.{alias.name}" for alias in node.names]
            else:
                names = [node.module or ""]
        for name in names:
            parts = name.split(".")
            if parts[0] == "lavis_emovit":
                yield (parts[1] if len(parts) > 1 and parts[1] in FLOORS else "__init__"), node.lineno


def test_every_room_has_a_floor():
    rooms = {_room(path) for path in _python_files(PACKAGE)}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize("room", sorted(FLOORS))
def test_rooms_import_lower_floors_only(room):
    wrong = []
    for path in _python_files(PACKAGE):
        if _room(path) != room:
            continue
        for other, line in _imported_rooms(ast.parse(path.read_text()), path):
            is_lower = FLOORS[other] < FLOORS[room]
            is_neighbour = FLOORS[other] == FLOORS[room] and FLOORS[room] in SHARED_FLOORS
            if not (other == room or is_lower or is_neighbour):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {other}")
    assert not wrong


def test_files_are_short():
    folders = [ROOT / name for name in ("lavis_emovit", "tests", "tools") if (ROOT / name).is_dir()]
    long = {
        str(path.relative_to(ROOT)): count
        for folder in folders
        for path in _python_files(folder)
        if (count := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not long


def test_modules_open_with_a_docstring():
    without = [
        str(path.relative_to(ROOT))
        for path in _python_files(PACKAGE)
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not without


def test_one_registered_class_a_file_and_all_in_the_list():
    registering = {}
    for path in _python_files(PACKAGE):
        classes = [
            node.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ClassDef)
            for decorator in node.decorator_list
            if ast.unparse(decorator).startswith("registry.register_")
        ]
        assert len(classes) <= 1, f"{path} registers {classes}"
        if classes:
            registering[".".join(path.relative_to(ROOT).with_suffix("").parts)] = classes[0]
    # This one makes its classes from YAML files.
    declared = "lavis_emovit.datasets.builders.declared"
    assert sorted([*registering, declared]) == sorted(REGISTERING_MODULES)


def _run(code: str, **environment: str) -> str:
    variables = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_package_import_is_quick_and_light():
    code = (
        "import sys, time; begin = time.perf_counter(); import lavis_emovit;"
        "print(time.perf_counter() - begin, 'torch' in sys.modules, 'pydantic' in sys.modules)"
    )
    seconds, *loaded = min(_run(code).split() for _ in range(3))
    assert float(seconds) < 0.3
    assert loaded == ["False", "False"]


def test_light_modules_load_neither_torch_nor_lavis():
    code = f"""
import importlib, sys
for name in {LIGHT_MODULES}:
    importlib.import_module(name)
    heavy = {{"torch", "lavis", "transformers"}} & set(sys.modules)
    assert not heavy, (name, heavy)
print("light")
"""
    assert _run(code) == "light"


@pytest.mark.slow
def test_imports_have_no_side_effects():
    code = f"""
import importlib, os, random
import numpy, rich.progress, torch  # rich draws a random number itself
from lavis_emovit.plugin import loading
loading.load_with_shims(lambda: importlib.import_module("lavis"))
def state():
    numbers = random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()
    return dict(os.environ), numbers, torch.get_num_threads(), torch.get_default_dtype()
before = state()
modules = {_all_modules()}
for name in modules:
    importlib.import_module(name)
    assert state() == before, name
print(len(modules))
"""
    assert int(_run(code, LAVIS_PLUGINS="0")) > 50


def _all_modules() -> list[str]:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in _python_files(PACKAGE)]
    return [name.removesuffix(".__init__") for name in names if ".grafts." not in name]
