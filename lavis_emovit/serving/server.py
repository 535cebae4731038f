"""The server process: its socket, and its end."""

from __future__ import annotations

import ipaddress
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from lavis_emovit.errors import UserError
from lavis_emovit.serving.batching import Batching

_SLOW_CLIENTS_S = 30  # time to read what is answered, at the end
# A client that sends a request on a connection that is being closed gets an error. Clients of aiohttp and httpx close
# idle connections after 15 and 5 seconds themselves.
_IDLE_CONNECTION_S = 75
MOST_CONNECTIONS = 2048  # that wait to be accepted


def is_local(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet; port 0 takes a free one. UserError if it cannot be used."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        raise UserError(f"{host}, port {port}: cannot be used ({error}); choose another --host or --port") from None
    return found


class DrainingServer(uvicorn.Server):
    """Ends on the first SIGTERM or Ctrl-C when all accepted requests are answered, on the second one at once."""

    def __init__(self, app: FastAPI, batching: Batching):
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            backlog=MOST_CONNECTIONS,
            timeout_keep_alive=_IDLE_CONNECTION_S,
            timeout_graceful_shutdown=_SLOW_CLIENTS_S,
        )
        super().__init__(config)
        self._batching = batching
        batching.on_drained = self._end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._batching.is_draining:
            super().handle_exit(sig, frame)
            self.force_exit = True
        else:
            self._batching.drain()

    def _end(self) -> None:
        self.should_exit = True
