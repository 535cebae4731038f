"""`emovit doctor`.

Properties:
- on a working machine all checks pass, including the training step, and the exit code is 0;
- missing and outdated packages are reported with the command that fixes them, and the exit code is 1;
- missing optional parts are notes; a check that raises is a finding, not a crash;
- `--json` prints one JSON object and nothing else.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lavis_emovit.cli import doctor
from lavis_emovit.cli.main import main
from lavis_emovit.models.catalogue import declared_models


def _finding(name, **changes):
    return doctor.Finding(**{"name": name, "state": "ok", "detail": "fine", **changes})


@pytest.fixture
def fake_checks(monkeypatch):
    """Function that replaces the real checks by findings."""

    def replace(**findings):
        monkeypatch.setattr(doctor, "CHECKS", {name: lambda f=f: iter([f]) for name, f in findings.items()})

    return replace


def test_working_machine():
    # In its own process, because other tests register models.
    command = [str(Path(sys.executable).with_name("emovit")), "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert set(findings) >= set(doctor.CHECKS)
    assert f"{27 + len(declared_models())} models" in findings["lavis"]["detail"]
    limits = [finding["detail"] for finding in report["findings"] if finding["name"] == "models"]
    assert any(limit.startswith("gpt_dialogue: LAVIS builds a plain GPT-2") for limit in limits)
    assert "trained tensors changed" in findings["step"]["detail"]
    assert [finding for finding in report["findings"] if finding["state"] == "failed"] == []


def test_failure_prints_the_fix(fake_checks, capsys):
    fake_checks(one=_finding("one"), two=_finding("two", state="failed", detail="too old", fix="pip install two"))
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ok", "one", "fine"]
    assert lines[1].split() == ["failed", "two", "too", "old"]
    assert lines[2].strip() == "fix: pip install two"
    assert lines[-1] == "1 of 2 checks failed: two."


def test_warning_and_note_do_not_fail(fake_checks, capsys):
    fake_checks(one=_finding("one", state="warning", fix="look"), two=_finding("two", state="note"))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Training can run on this machine."


def test_training_step_is_skipped_after_a_failure(monkeypatch):
    failing = {"one": lambda: iter([_finding("one", state="failed")]), "step": doctor.check_training_step}
    monkeypatch.setattr(doctor, "CHECKS", failing)
    assert [finding.state for finding in doctor.run_checks()] == ["failed", "note"]


def test_check_that_raises_is_a_finding(monkeypatch):
    def broken():
        yield _finding("one")
        raise RuntimeError("no driver")

    monkeypatch.setattr(doctor, "CHECKS", {"one": broken})
    first, second = doctor.run_checks()
    assert (first.state, second.state, second.detail) == ("ok", "failed", "RuntimeError: no driver")


def test_requirements(monkeypatch):
    real = metadata.version
    installed = {"timm": "0.8", "psutil": None}

    def version(name):
        if installed.get(name, "") is None:
            raise metadata.PackageNotFoundError(name)
        return installed.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    (finding,) = doctor.check_packages()
    assert finding.state == "failed"
    assert "timm 0.8" in finding.detail and "psutil missing" in finding.detail
    assert finding.fix.startswith("pip install 'psutil>=") and "'timm>=" in finding.fix


def test_missing_lavis(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (finding,) = doctor.check_lavis()
    assert (finding.state, finding.fix) == ("failed", "pip install --no-deps salesforce-lavis==1.0.2")


def test_lavis_that_needs_another_package(monkeypatch):
    def activate():
        raise ModuleNotFoundError("No module named 'omegaconf'", name="omegaconf")

    monkeypatch.setattr("lavis_emovit.plugin.activate", activate)
    (finding,) = doctor.check_lavis()
    assert (finding.state, finding.fix) == ("failed", "pip install omegaconf")


def test_python_version(monkeypatch):
    assert [finding.state for finding in doctor.check_python()] == ["ok"]
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert [finding.state for finding in doctor.check_python()] == ["failed"]


def test_hook(monkeypatch):
    assert [finding.state for finding in doctor.check_hook()] == ["ok"]
    monkeypatch.setenv("LAVIS_PLUGINS", "0")
    (off,) = doctor.check_hook()
    assert (off.state, off.fix) == ("warning", "unset LAVIS_PLUGINS")
    monkeypatch.delenv("LAVIS_PLUGINS")
    monkeypatch.setattr(sys, "meta_path", [])
    assert [finding.state for finding in doctor.check_hook()] == ["warning"]


@pytest.mark.parametrize(("free_gb", "state"), [(100, "ok"), (3, "warning"), (0.1, "failed")])
def test_disk(free_gb, state, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free_gb * 1e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert {finding.state for finding in doctor.check_disk()} == {state}
