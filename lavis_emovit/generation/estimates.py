"""What requests would cost, counted before any of them is sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.prices import likely, load_prices, worst_case
from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.chat.settings import ChatSettings


@dataclass(frozen=True)
class Estimate:
    """Requests of a step and their expected cost."""

    label: str
    num_requests: int  # all requests; `num_paid` of them are already in the ledger
    num_paid: int
    # input_tokens, output_tokens: expected tokens of the others.
    input_tokens: int
    output_tokens: int
    usd: float | None  # expected cost in US dollars; None if the model has no price
    usd_worst: float | None  # highest possible cost


def estimate(
    label: str, requests: Iterable[ChatRequest], settings: ChatSettings, ledger: Ledger, output_tokens: int, batch: bool
) -> Estimate:
    """Estimate the cost of requests. UserError if the price file is invalid.

    A reply is expected to be as long as the mean reply to its prompt in the ledger, or `output_tokens` without one.
    """
    price = load_prices(settings.prices).find(settings.model)
    means: dict[str, tuple[int, int]] = {}
    for row in ledger.attempts():
        if row["status"] == "ok" and row.get("usage"):
            count, total = means.get(row["prompt"], (0, 0))
            means[row["prompt"]] = (count + 1, total + row["usage"]["output"])
    num_requests = num_paid = num_input = num_output = 0
    usd = usd_worst = 0.0
    for request in requests:
        num_requests += 1
        if request.fingerprint in ledger:
            num_paid += 1
            continue
        count, total = means.get(request.prompt, (1, output_tokens))
        usage = likely(request, price, total / count)
        num_input, num_output = num_input + usage.input, num_output + usage.output
        if price is not None:
            usd += price.usd(usage, batch=batch)
            usd_worst += price.usd(worst_case(request, price), batch=batch)
    costs = (usd, usd_worst) if price is not None else (None, None)
    return Estimate(label, num_requests, num_paid, num_input, num_output, *costs)
