"""The content of the wheel.

Properties:
- it contains every file of the package, of `lavis_configs/` and of the recipes in its place, and nothing else;
- it contains the start-up hook, the entry points and the licence;
- its requirements resolve without this project's uv settings, as for pip: LAVIS, whose pins exclude them, is only in an
  extra.
"""

from __future__ import annotations

import configparser
import email
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("install")]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _files(checkout: Path, folder: str) -> set[str]:
    return {str(path.relative_to(checkout)) for path in (checkout / folder).rglob("*") if path.is_file()}


def test_files(contents, checkout):
    recipes = {name.replace("projects/emovit", "lavis_emovit/recipes") for name in _files(checkout, "projects/emovit")}
    expected = {"lavis_emovit.pth"} | _files(checkout, "lavis_emovit") | _files(checkout, "lavis_configs") | recipes
    assert {name for name in contents if ".dist-info/" not in name} == expected
    assert len(_files(checkout, "lavis_configs")) >= 8
    assert "lavis_emovit/grafts/train.py" in contents
    assert "lavis_emovit/recipes/quickstart.yaml" in contents
    assert any(name.endswith(".safetensors") for name in contents)


def test_hook_is_one_guarded_line(contents):
    hook = contents["lavis_emovit.pth"].decode()
    assert hook == (ROOT / "lavis_emovit.pth").read_text()
    (line,) = hook.strip().splitlines()
    assert line.startswith("import ") and "except Exception" in line


def test_metadata(contents):
    (name,) = [name for name in contents if name.endswith("/METADATA")]
    metadata = email.message_from_string(contents[name].decode())
    assert metadata["Requires-Python"] == "<3.14,>=3.10"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    requirements = metadata.get_all("Requires-Dist")
    lavis = [line for line in requirements if "lavis" in line]
    assert lavis == ['salesforce-lavis==1.0.2; extra == "lavis"']
    assert {"torch>=2.4", "transformers<6,>=4.56"} <= set(requirements)
    entry_points = configparser.ConfigParser()
    entry_points.read_string(contents[name.replace("METADATA", "entry_points.txt")].decode())
    assert dict(entry_points["console_scripts"]) == {"emovit": "lavis_emovit.cli.main:main"}
    assert dict(entry_points["lavis.plugins"]) == {"emovit": "lavis_emovit.plugin.registration:register"}


@pytest.mark.parametrize(("python_version", "resolution"), [("3.10", "lowest-direct"), ("3.13", "highest")])
def test_requirements_resolve(uv, wheel, environments_root, python_version, resolution):
    """Without this project's uv settings, as for pip."""
    requirements = environments_root / f"requirements-{python_version}-{resolution}.in"
    requirements.write_text(f"lavis-emovit @ {wheel.as_uri()}\n")
    command = [uv, "pip", "compile", "--quiet", "--no-config", "--python-version", python_version]
    done = subprocess.run(
        [*command, "--python", sys.executable, "--resolution", resolution, str(requirements)],
        cwd=environments_root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "\ntorch==" in done.stdout and "salesforce-lavis" not in done.stdout
