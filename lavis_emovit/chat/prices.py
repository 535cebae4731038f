"""What tokens cost: a dated table, which a file of the user replaces or extends."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, Field

from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.settings import Settings, parse_settings

BUILT_IN = Path(__file__).resolve().parent / "prices.json"

# Dated names (`gpt-4o-2024-08-06`) cost what the plain name costs.
_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")
# Roles, separators and the start of the reply; more than any known chat format adds to a message.
_TOKENS_AROUND_MESSAGE = 16
# Characters per token of English text, for estimates; the worst case counts every byte as a token.
_CHARACTERS_PER_TOKEN = 4.0
_IMAGE_TOKENS_MAX_UNKNOWN = 4096


class Price(Settings):
    """US dollars per million tokens of one model.

    Attributes:
        input, output: the list prices.
        cached_input: price of input that the endpoint had in its cache; that of input where left out.
        batch_factor: share of the price that the Batch API asks.
        image_tokens_max: the most tokens that one picture counts for.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    input: float = Field(ge=0.0)
    output: float = Field(ge=0.0)
    cached_input: float | None = Field(default=None, ge=0.0)
    batch_factor: float = Field(default=0.5, gt=0.0, le=1.0)
    image_tokens_max: int = Field(default=_IMAGE_TOKENS_MAX_UNKNOWN, ge=0)

    def usd(self, usage: Usage, *, batch: bool = False) -> float:
        """Cost of a reply."""
        cached = min(usage.cached, usage.input)
        cached_price = self.input if self.cached_input is None else self.cached_input
        millions = (usage.input - cached) * self.input + cached * cached_price + usage.output * self.output
        return millions / 1e6 * (self.batch_factor if batch else 1.0)


@dataclass(frozen=True)
class Usage:
    """Tokens of one reply; `cached` is the part of `input` that was cached."""

    input: int
    output: int
    cached: int = 0


@dataclass(frozen=True)
class PriceTable:
    """Prices by model name, and where they come from."""

    date: str
    source: str
    models: dict[str, Price]

    def find(self, model: str) -> Price | None:
        """The price of a model; dated names and a `provider/` in front don't matter."""
        for name in (model, _DATE.sub("", model), _DATE.sub("", model.rpartition("/")[2])):
            if name in self.models:
                return self.models[name]
        return None

    def require(self, model: str) -> Price:
        """As `find`.

        Raises:
            UserError: the model has no price; says how to give one.
        """
        price = self.find(model)
        if price is None:
            raise UserError(
                f"no price is known for the model '{model}', so its cost cannot be limited. Give a file with --prices: "
                f'{{"date": "...", "models": {{"{model}": {{"input": 0.0, "output": 0.0}}}}}} (US dollars per million '
                "tokens; 0 for a model of your own)."
            )
        return price


def load_prices(path: str | Path | None = None) -> PriceTable:
    """The built-in table, with the models of a user's file over it.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    table = _read(BUILT_IN)
    if path is None:
        return table
    own = _read(Path(path))
    return PriceTable(own.date, f"{own.source}; else {table.source}", {**table.models, **own.models})


def _read(path: Path) -> PriceTable:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: the prices cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("models"), dict) or not content.get("date"):
        raise UserError(f"{path}: expected an object with 'date' and 'models', as in {BUILT_IN}")
    models: dict[str, Price] = {}
    problems: list[str] = []
    for name, values in content["models"].items():
        if not isinstance(values, dict):
            problems.append(f"models.{name}: expected an object with 'input' and 'output'")
            continue
        price, own = parse_settings(Price, values, f"models.{name}")
        problems += own
        if price is not None:
            models[name] = price
    if problems:
        raise ConfigError(problems, str(path))
    return PriceTable(str(content["date"]), str(content.get("source", path)), models)


def worst_case(request: ChatRequest, price: Price | None) -> Usage:
    """The most tokens that a request can use: every byte a token, the longest reply."""
    per_picture = price.image_tokens_max if price else _IMAGE_TOKENS_MAX_UNKNOWN
    text = request.num_text_bytes() + _TOKENS_AROUND_MESSAGE * (len(request.messages) + 1)
    return Usage(text + per_picture * request.num_images(), int(request.parameters.get("max_output_tokens", 0)))


def likely(request: ChatRequest, price: Price | None, output_tokens: float) -> Usage:
    """The tokens that a request will probably use, for estimates.

    Args:
        request: the request.
        price: of its model; a picture counts a fifth of the most that it could.
        output_tokens: of a typical reply.
    """
    per_picture = price.image_tokens_max if price else _IMAGE_TOKENS_MAX_UNKNOWN
    text = request.num_text_bytes() / _CHARACTERS_PER_TOKEN + _TOKENS_AROUND_MESSAGE / 2 * len(request.messages)
    return Usage(round(text + per_picture / 5 * request.num_images()), round(output_tokens))
