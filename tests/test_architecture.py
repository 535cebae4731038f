"""The package keeps its layout: rooms on floors, short files, light imports.

The floors are read from the tables in docs/architecture.md.

Properties:
- a room imports only rooms on lower floors (imports inside functions count too); so does a part inside a room;
- no two modules import each other, directly or in a circle;
- the picture of the architecture is the one that the page's tables give;
- no Python file has more than 600 lines, every module of the package opens with a docstring;
- a file registers at most one class in LAVIS, and the plugin knows all of them without importing the files;
- `import lavis_emovit` takes under 0.3 s; modules that need neither torch nor LAVIS do not load them;
- importing a module changes neither the environment, nor a global random state, nor torch's settings.
"""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lavis_emovit.registered import DECLARED_DATASETS, DECLARED_MODELS, registered_names

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lavis_emovit"
MAX_LINES = 600

sys.path.insert(0, str(ROOT / "tools"))
import draw_architecture  # noqa: E402

FLOORS = {"__init__": 6, **draw_architecture.floors()}
# On these floors, neighbours may import each other.
SHARED_FLOORS = {min(FLOORS.values()), max(FLOORS.values())}
# Room -> its parts from the ground up; the first part is the room's files that are not named.
PARTS = {
    room.strip("`"): [part.strip(" `/") for part in parts.split(",")]
    for room, parts in draw_architecture.table("inside")
}

LIGHT_MODULES = (
    "lavis_emovit",
    "lavis_emovit.errors",
    "lavis_emovit.settings",
    "lavis_emovit.paths",
    "lavis_emovit.records",
    "lavis_emovit.emotion.labels",
    "lavis_emovit.sources.readers.emoset",
    "lavis_emovit.emotion.questions",
    "lavis_emovit.evaluation.metrics",
    "lavis_emovit.evaluation.predictions",
    "lavis_emovit.plugin.bootstrap",
    "lavis_emovit.plugin.loading",
    "lavis_emovit.registered",
    "lavis_emovit.runners.config",
    "lavis_emovit.evaluation.suite.recipe",
    "lavis_emovit.train",
    "lavis_emovit.cli.main",
)


def _python_files(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.py"))
    assert files, folder
    return files


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """Names in our package that a file imports, `a.b.c` below `lavis_emovit`, each with the line."""
    for node in _runtime_nodes(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.partition(".")[0] == "lavis_emovit":
                yield name.partition(".")[2], node.lineno


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from _runtime_nodes(child)


def _imported_rooms(path: Path) -> Iterator[tuple[str, int]]:
    for name, line in _imports(path):
        room = name.partition(".")[0]
        yield (room if room in FLOORS else "__init__"), line


def _part(room: str, name: str) -> int:
    """Floor of a module inside its room; `name` is its name below the package."""
    inside = name.split(".")[1:2]
    return PARTS[room].index(inside[0]) if inside and inside[0] in PARTS[room] else 0


def test_every_room_has_a_floor():
    rooms = {_room(path) for path in _python_files(PACKAGE)}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize("room", sorted(FLOORS))
def test_rooms_import_lower_floors_only(room):
    wrong = []
    for path in _python_files(PACKAGE):
        if _room(path) != room:
            continue
        for other, line in _imported_rooms(path):
            is_lower = FLOORS[other] < FLOORS[room]
            is_neighbour = FLOORS[other] == FLOORS[room] and FLOORS[room] in SHARED_FLOORS
            if not (other == room or is_lower or is_neighbour):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {other}")
    assert not wrong


@pytest.mark.parametrize("room", sorted(PARTS))
def test_parts_of_a_room_import_parts_below_them(room):
    folder = PACKAGE / room
    assert [name for name in PARTS[room][1:] if not list(folder.glob(f"{name}*"))] == []
    wrong = []
    for path in _python_files(folder):
        own = _part(room, _module(path).partition(".")[2])
        for name, line in _imports(path):
            if name.partition(".")[0] == room and _part(room, name) > own:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong


def test_modules_do_not_import_in_circles():
    modules = {_module(path): path for path in _python_files(PACKAGE)}
    graph = {
        name: {_nearest(f"lavis_emovit.{imported}", modules) for imported, _ in _imports(path)} - {name}
        for name, path in modules.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _nearest(name: str, modules: dict[str, Path]) -> str:
    """The module that an imported name is, or is in."""
    while name not in modules:
        name = name.rpartition(".")[0]
    return name


def test_image_matches_the_tables():
    assert draw_architecture.IMAGE.read_text(encoding="utf-8") == draw_architecture.draw()


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


def test_one_registered_class_a_file_and_all_are_known():
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
    known = {module for modules in registered_names().values() for module in modules.values()}
    assert {*registering, DECLARED_DATASETS, DECLARED_MODELS} == known


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
    return [name for path in _python_files(PACKAGE) if ".grafts." not in (name := _module(path))]
