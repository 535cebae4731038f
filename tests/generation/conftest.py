"""The fixtures of `tests/chat/chat_fixtures.py`, and the helpers of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chat"))

from chat_fixtures import endpoint_key, ledger, make_requests, make_settings  # noqa: F401
