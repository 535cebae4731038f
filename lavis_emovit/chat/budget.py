"""The hard limit on cost: a call is made only when even its worst case fits."""

from __future__ import annotations

import asyncio

from lavis_emovit.chat.ledger import Ledger


class BudgetReached(Exception):  # noqa: N818 - an end, not an error
    """Nothing is under way any more and the next call does not fit."""


class Budget:
    """What may still be spent, with what calls under way may cost.

    Args:
        ledger: knows what was spent, by earlier runs too.
        max_usd: the limit, or None for none.
    """

    def __init__(self, ledger: Ledger, max_usd: float | None):
        self._ledger = ledger
        self.max_usd = max_usd
        self.usd_under_way = 0.0
        self._num_under_way = 0
        self._settled = asyncio.Event()

    async def reserve(self, usd: float) -> None:
        """Take the worst-case cost of a call. Where it does not fit, wait for calls under way, which cost less mostly.

        Raises:
            BudgetReached: nothing is under way and it does not fit.
        """
        if self.max_usd is not None:
            while self._ledger.usd_spent + self.usd_under_way + usd > self.max_usd:
                if not self._num_under_way:
                    raise BudgetReached
                self._settled.clear()
                await self._settled.wait()
        self.usd_under_way += usd
        self._num_under_way += 1
        if usd > 0.0:
            self._ledger.reserve(self.usd_under_way)

    def settle(self, usd: float) -> None:
        """Give back the worst-case cost of a call whose row is in the ledger."""
        self._num_under_way -= 1
        self.usd_under_way = max(0.0, self.usd_under_way - usd) if self._num_under_way else 0.0
        self._settled.set()
