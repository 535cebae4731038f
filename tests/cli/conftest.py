"""The command line as the tests of its commands run it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from lavis_emovit import registered
from lavis_emovit.cli.main import main

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "teachers"))

from fake_fixtures import requests_of, two_fakes  # noqa: F401


@pytest.fixture
def emovit(capsys):
    """Function (arguments) -> (exit code, output, errors) of the command `emovit ...`."""

    def run(*arguments):
        code = main([*map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def init(emovit):
    """The same of `emovit init ...`."""
    return partial(emovit, "init")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory, in which no datasets of recipes and no folders of the environment are known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registered, "_beside_recipes", [])
    monkeypatch.delenv("EMOVIT_DATASETS", raising=False)
    monkeypatch.delenv("EMOVIT_DATA", raising=False)
    return tmp_path
