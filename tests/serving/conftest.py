"""A run of a few steps, and its model behind an endpoint on a free port, for all tests here."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from tuned_run import tuned_run

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for served_questions

import lavis_emovit


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`folder` of the run, `data`, and the drawn `images`."""
    return tuned_run(tmp_path_factory, "served")


@pytest.fixture(scope="session")
def tuned(run: SimpleNamespace) -> Any:
    return lavis_emovit.load_tuned(run.folder, device="cpu")


@pytest.fixture(scope="session")
def serve(tuned: Any) -> Callable[..., Any]:
    """Function (model, settings of `Served` or `Batching`) -> context of a server in a thread, see `running`."""
    return lambda model=tuned, **settings: running(model, **settings)


@pytest.fixture(scope="session")
def server(serve: Callable[..., Any]) -> Iterator[SimpleNamespace]:
    with serve() as found:
        yield found


@contextmanager
def running(
    tuned: Any, *, name: str = "tiny", limits: Any = None, key: Any = None, **settings: Any
) -> Iterator[SimpleNamespace]:
    """`url`, `client` (OpenAI's), `served` and `batching` of a server in a thread."""
    from lavis_emovit.serving.app import Limits, Served, make_app
    from lavis_emovit.serving.batching import Batching
    from lavis_emovit.serving.server import DrainingServer, bind

    batching = Batching(tuned, **settings)
    served = Served(name, "emovit-test", batching, limits or Limits(), key)
    server = DrainingServer(make_app(served), batching)
    bound: socket.socket = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    client = openai.OpenAI(base_url=url, api_key=key.get_secret_value() if key else "none", max_retries=0)
    try:
        yield SimpleNamespace(url=url, client=client, served=served, batching=batching)
    finally:
        client.close()
        batching.drain()
        thread.join(30)
        bound.close()
        assert not thread.is_alive()
