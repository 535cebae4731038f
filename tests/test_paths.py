"""Paths that users write.

- `~` and `~name` are home folders; one that does not exist is an error, unless a file has this very name.
"""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from lavis_emovit.cli.main import main
from lavis_emovit.errors import UserError
from lavis_emovit.paths import cache_root, expand_home

NOBODY = "~no-such-user-here"


def test_home_folders(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/me")
    assert expand_home("~/run") == Path("/home/of/me/run") and expand_home("a/~") == Path("a/~")


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "run", f"{NOBODY}/x.png"),
        ("report", f"{NOBODY}/run", "--out", "x.html"),
        ("watch", f"{NOBODY}/run"),
        ("doctor", "--recipe", f"{NOBODY}/recipe.yaml"),
    ],
)
def test_an_unknown_home_folder_is_refused_by_name(command, capsys):
    assert main([*command]) == 2
    assert f"{NOBODY}/" in (errors := capsys.readouterr().err) and "no such home folder" in errors


def test_an_account_without_a_home_folder(monkeypatch):
    """A container may run as a user whom its system does not know."""

    def unknown(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("EMOVIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(UserError, match="no such home folder; set HOME"):
        cache_root()


def test_a_file_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(f"./{NOBODY}.jpg").touch()
    assert expand_home(f"{NOBODY}.jpg").samefile(tmp_path / f"{NOBODY}.jpg")
