"""The cost of tokens: a dated table, which a file of the user extends or replaces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, Field

from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.errors import UserError
from lavis_emovit.settings import Settings, read_settings_file

BUILT_IN = Path(__file__).resolve().parent / "prices.json"

# Dated names (`gpt-4o-2024-08-06`) cost the same as the plain name.
_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")
# Roles, separators and the start of the reply; more than any known chat format adds to a message.
_TOKENS_AROUND_MESSAGE = 16
# Of English text, for estimates. The worst case counts every byte as a token.
_CHARACTERS_PER_TOKEN = 4.0
_IMAGE_TOKENS_MAX_UNKNOWN = 4096


class Price(Settings):
    """US dollars per million tokens of one model."""

    # input, output: the list prices.
    input: float = Field(ge=0.0)
    output: float = Field(ge=0.0)
    # Price of input that the endpoint had cached; by default that of input.
    cached_input: float | None = Field(default=None, ge=0.0)
    batch_factor: float = Field(default=0.5, gt=0.0, le=1.0)  # price in the Batch API, as a share of the list price
    image_tokens_max: int = Field(default=_IMAGE_TOKENS_MAX_UNKNOWN, ge=0)  # the most tokens that one image counts for

    def usd(self, usage: Usage, *, batch: bool = False) -> float:
        cached = min(usage.cached, usage.input)
        cached_price = self.input if self.cached_input is None else self.cached_input
        millions = (usage.input - cached) * self.input + cached * cached_price + usage.output * self.output
        return millions / 1e6 * (self.batch_factor if batch else 1.0)


@dataclass(frozen=True)
class Usage:
    """Tokens of one reply; `cached` is the cached part of `input`."""

    input: int
    output: int
    cached: int = 0


class PriceTable(Settings):
    """Prices by model name, and their source."""

    model_config = ConfigDict(extra="ignore")

    date: str = Field(min_length=1)
    source: str = ""
    models: dict[str, Price]

    def find(self, model: str) -> Price | None:
        """The price of a model, also of a dated name or one with `provider/` in front; None if there is none."""
        for name in (model, _DATE.sub("", model), _DATE.sub("", model.rpartition("/")[2])):
            if name in self.models:
                return self.models[name]
        return None


def load_prices(path: str | Path | None = None) -> PriceTable:
    """The built-in table, updated with the models of a user's file."""
    table = read_settings_file(PriceTable, BUILT_IN, "prices")
    if path is None:
        return table
    custom = read_settings_file(PriceTable, Path(path), "prices")
    source = f"{custom.source or path}; else {table.source}"
    return PriceTable(date=custom.date, source=source, models={**table.models, **custom.models})


def price_of(settings: ChatSettings) -> Price | None:
    """The price of the endpoint's model, or None. UserError for a bad price file, or a budget without a price."""
    model = settings.model
    price = load_prices(settings.prices).find(model)
    if price is None and settings.max_usd is not None:
        raise UserError(
            f"no price is known for the model '{model}', so its cost cannot be limited. Give a file with --prices: "
            f'{{"date": "...", "models": {{"{model}": {{"input": 0.0, "output": 0.0}}}}}} (US dollars per million '
            "tokens; 0 for your own model)."
        )
    return price


def worst_case(request: ChatRequest, price: Price | None) -> Usage:
    """The most tokens that a request can use: every byte is a token, and the reply has full length."""
    per_image = price.image_tokens_max if price else _IMAGE_TOKENS_MAX_UNKNOWN
    text = request.num_text_bytes() + _TOKENS_AROUND_MESSAGE * (len(request.messages) + 1)
    return Usage(text + per_image * request.num_images(), int(request.parameters.get("max_output_tokens", 0)))


def likely(request: ChatRequest, price: Price | None, output_tokens: float) -> Usage:
    """Expected tokens of a request, given the length of a typical reply; an image counts a fifth of its maximum."""
    per_image = price.image_tokens_max if price else _IMAGE_TOKENS_MAX_UNKNOWN
    text = request.num_text_bytes() / _CHARACTERS_PER_TOKEN + _TOKENS_AROUND_MESSAGE / 2 * len(request.messages)
    return Usage(round(text + per_image / 5 * request.num_images()), round(output_tokens))
