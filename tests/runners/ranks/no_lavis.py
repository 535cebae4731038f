"""Stands in for LAVIS, which the rooms of datasets and runners load first and which takes its time to load: the engines
and the batching need nothing of it. To be imported before any of them."""

from __future__ import annotations

import sys
from types import ModuleType

sys.modules.setdefault("lavis", ModuleType("lavis"))
