"""What all tests of suites share."""

from __future__ import annotations

import pytest

from lavis_emovit.evaluation.suite import suite as suite_module


@pytest.fixture(autouse=True)
def no_garbage_collection(monkeypatch):
    """It takes long in a process with many modules, and these models are small."""
    monkeypatch.setattr(suite_module.gc, "collect", lambda: 0)
