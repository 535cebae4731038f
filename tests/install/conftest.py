"""Clean environments made by uv: the built wheel in one, an editable checkout in another.

They get the versions of the environment that runs the tests, so that uv links them from its cache and downloads nothing
twice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The second command of an installation with pip: LAVIS without its pins.
LAVIS_LINE = ("--no-deps", "salesforce-lavis==1.0.2")
SOURCES = ("lavis_configs", "lavis_emovit", "projects")
SOURCE_FILES = ("LICENSE", "MANIFEST.in", "README.md", "lavis_emovit.pth", "pyproject.toml", "setup.py")


@dataclass(frozen=True)
class Environment:
    """A virtual environment with lavis-emovit and LAVIS."""

    python: Path
    work: Path  # an empty folder to run in

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run this environment's Python."""
        hidden = {"LAVIS_PLUGINS", "PYTHONPATH", "VIRTUAL_ENV"}
        inherited = {key: value for key, value in os.environ.items() if key not in hidden}
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.work,
            env={**inherited, "OMP_NUM_THREADS": "1", **variables},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def output(self, *arguments: str, **variables: str) -> str:
        """The output of this environment's Python, which must not fail."""
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="session")
def uv() -> str:
    """The uv that made this environment: the variable UV, the PATH, or the Makefile's copy."""
    found = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".tooling" / "bin" / "uv")
    assert shutil.which(found), "these tests need uv: run them with `make test`"
    return str(Path(shutil.which(found)).absolute())


@pytest.fixture(scope="session")
def environments_root(uv: str) -> Iterator[Path]:
    """A temporary folder on the file system of uv's cache, where hard links work."""
    cache = Path(subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip())
    choices = [Path(tempfile.gettempdir()), ROOT, cache.parent]
    device = next((place.stat().st_dev for place in (cache, *cache.parents) if place.exists()), None)
    parent = next((place for place in choices if place.exists() and place.stat().st_dev == device), choices[0])
    with tempfile.TemporaryDirectory(prefix=".emovit-install-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def checkout(environments_root: Path) -> Path:
    """A copy of the checkout, so that building leaves no files in ours."""
    target = environments_root / "checkout"
    target.mkdir()
    for name in SOURCES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCE_FILES:
        shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="session")
def wheel(uv: str, checkout: Path, environments_root: Path) -> Path:
    """The built wheel."""
    out = environments_root / "dist"
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", str(out), str(checkout)], check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def constraints(uv: str, environments_root: Path) -> Path:
    """The versions of this environment."""
    frozen = subprocess.run(
        [uv, "pip", "freeze", "--python", sys.executable, "--exclude-editable"],
        capture_output=True,
        text=True,
        check=True,
    )
    path = environments_root / "constraints.txt"
    path.write_text("\n".join(line for line in frozen.stdout.splitlines() if "@" not in line))
    return path


@pytest.fixture(scope="session", params=["wheel", "editable"])
def environment(request, uv: str, checkout: Path, constraints: Path, environments_root: Path) -> Environment:
    """A clean environment, once with the wheel and once with an editable checkout, and LAVIS by the documented line."""
    folder = environments_root / request.param
    target = [str(request.getfixturevalue("wheel"))] if request.param == "wheel" else ["--editable", str(checkout)]
    python = folder / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    subprocess.run([*install, "--constraints", str(constraints), *target], check=True)
    subprocess.run([*install, *LAVIS_LINE], check=True)
    work = environments_root / f"{request.param}-work"
    work.mkdir()
    return Environment(python, work)
