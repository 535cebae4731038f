"""The fixtures of `fake_fixtures.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fake_fixtures import requests_of, two_fakes  # noqa: F401
