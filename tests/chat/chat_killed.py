"""A run that tests kill. It sends `count` requests to a server and prints one line for each finished request.

python tests/chat/chat_killed.py URL LEDGER COUNT
"""

from __future__ import annotations

import sys
from typing import IO

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.request import ChatRequest, Message
from lavis_emovit.chat.run import run_requests
from lavis_emovit.chat.settings import ChatSettings


def run(url: str, path: str, count: int, report: IO[str]) -> None:
    """Send all requests. Writes a line into `report` for each finished request, and "end" as the last line."""
    settings = ChatSettings(model="m", base_url=url, max_in_flight=16)
    parameters = settings.parameters()
    requests = (
        ChatRequest("m", (Message("user", f"item {n}"),), parameters, "test/1", about={"record": f"item {n}"})
        for n in range(count)
    )
    with Ledger(path) as ledger:
        run_requests(
            requests, settings, ledger, on_row=lambda row: print(row["about"]["record"], file=report, flush=True)
        )
    print("end", file=report, flush=True)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.stdout)
