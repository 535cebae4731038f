"""Connections of `emovit serve`."""

from __future__ import annotations

from lavis_emovit.serving.app import Served, make_app
from lavis_emovit.serving.batching import Batching
from lavis_emovit.serving.server import DrainingServer


def test_idle_connections_outlive_those_of_clients(tuned):
    batching = Batching(tuned)
    server = DrainingServer(make_app(Served("tiny", "emovit-test", batching)), batching)
    # By default, uvicorn closes them as early as httpx does, so that requests fail when both happen at once.
    assert server.config.timeout_keep_alive > 60
