"""An answer while it is written: its text, where it stops, and the pieces that a stream consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lavis_emovit.models.row_writing import ChosenToken, RowSettings

_PART_OF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Token:
    """The text of a token with its log-probability, and those of the likeliest tokens in its place."""

    text: str
    log_probability: float
    likeliest: tuple[tuple[str, float], ...]


class TokenTexts:
    """Texts of tokens and of answers."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        # Tokenizers drop the space before the first token of a text.
        self._before = tokenizer("a", add_special_tokens=False)["input_ids"]
        self._length = len(tokenizer.decode(self._before))
        self.of_token = lru_cache(maxsize=65536)(self._of_token)

    def _of_token(self, token_id: int) -> str:
        """The text of a token inside a text, with the space before it if it has one."""
        text: str = self._tokenizer.decode([*self._before, token_id], clean_up_tokenization_spaces=False)
        return text[self._length :]

    def of_answer(self, ids: Sequence[int]) -> str:
        """The text of an answer so far, which may end in white space."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.lstrip()


@dataclass(frozen=True)
class Piece:
    """A part of an answer.

    Attributes:
        text: may be empty.
        tokens: with their log-probabilities, if `RowSettings.num_likeliest` asks for them.
        finish: None before the last piece, then `stop` or `length`.
        num_tokens: of the answer so far.
    """

    text: str
    tokens: tuple[Token, ...]
    finish: str | None
    num_tokens: int


class Writing:
    """The answer to one request; a `RowWriter`.

    Args:
        settings: how tokens are chosen.
        stops: texts that end the answer and do not belong to it.
        texts: of the model's tokens.
        send: gets the pieces; just the last one, with the whole text, unless it `is_stream`.
        is_wanted: whether anybody still waits for the answer.
    """

    def __init__(
        self,
        settings: RowSettings,
        stops: Sequence[str],
        texts: TokenTexts,
        send: Callable[[Piece], None],
        *,
        is_stream: bool,
        is_wanted: Callable[[], bool],
    ):
        self.settings = settings
        self._stops, self._texts, self._send = stops, texts, send
        self._is_stream, self._is_wanted = is_stream, is_wanted
        self._ids: list[int] = []
        self._sent = ""
        # Tokens that no piece has sent, each with the length of the text before it.
        self._unsent: list[tuple[int, Token]] = []
        self._length = 0
        self.has_ended = False

    @property
    def has_sent(self) -> bool:
        """Whether a part of the answer is out, so that it cannot be begun again."""
        return bool(self._sent)

    def add(self, token: ChosenToken) -> bool:
        self._ids.append(token.token_id)
        if not self._is_wanted():
            self.has_ended = True
            return False
        if not (self._is_stream or self._stops or token.log_probability is not None):
            return True
        text = self._texts.of_answer(self._ids)
        if token.log_probability is not None:
            self._unsent.append((self._length, self._with_texts(token, token.log_probability)))
        self._length = len(text)
        if (cut := self._stop_in(text)) is not None:
            self._finish(text[:cut], "stop", self._tokens_before(cut))
            return False
        if self._is_stream:
            settled = self._settled(text)
            if len(settled) > len(self._sent) and settled.startswith(self._sent):
                self._send(Piece(settled[len(self._sent) :], self._tokens_before(len(settled)), None, len(self._ids)))
                self._sent = settled
        return True

    def end(self, reason: str) -> None:
        # All tokens, also those without a text of their own, such as parts of a character.
        self._finish(self._texts.of_answer(self._ids), reason, tuple(token for _, token in self._unsent))

    def _finish(self, text: str, reason: str, tokens: tuple[Token, ...]) -> None:
        self.has_ended = True
        rest = text.rstrip()[len(self._sent) :]
        self._send(Piece(rest, tokens, reason, len(self._ids)))

    def _stop_in(self, text: str) -> int | None:
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        return min(found, default=None)

    def _settled(self, text: str) -> str:
        """The part of the text that cannot change or turn out to be a stop or the white space at the end."""
        text = text.rstrip(_PART_OF_A_CHARACTER)
        begun = (
            length for stop in self._stops for length in range(len(stop) - 1, 0, -1) if text.endswith(stop[:length])
        )
        return text[: len(text) - max(begun, default=0)].rstrip()

    def _tokens_before(self, end: int) -> tuple[Token, ...]:
        """The unsent tokens that begin before a place of the text; they count as sent."""
        found = tuple(token for begin, token in self._unsent if begin < end)
        self._unsent = [(begin, token) for begin, token in self._unsent if begin >= end]
        return found

    def _with_texts(self, token: ChosenToken, value: float) -> Token:
        of_token = self._texts.of_token
        return Token(of_token(token.token_id), value, tuple((of_token(one), share) for one, share in token.likeliest))
