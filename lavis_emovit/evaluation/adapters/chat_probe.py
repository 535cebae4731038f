"""What an endpoint honours, found out with a few short requests: servers may ignore a parameter and answer 200.

`transformers serve` 5.24 does so with `response_format`, `logprobs` and, for models that do not sample by default,
`temperature`. Whoever reads numbers of such a server must know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lavis_emovit.chat.json_text import find_json
from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.request import ChatImage, ChatRequest, Message
from lavis_emovit.chat.run import run_requests
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.adapters.chat_likelihood import Form

Finding = Literal["honoured", "ignored", "refused", "not asked"]

_SCHEMA = {
    "type": "object",
    "properties": {"feeling": {"type": "string", "enum": ["awe"]}},
    "required": ["feeling"],
    "additionalProperties": False,
}
# Classes of faults that say that an endpoint does not offer something; others say that it cannot be reached.
_REFUSALS = frozenset({"bad_request", "schema_unsupported", "parameter_unsupported", "server_error", "malformed"})


@dataclass(frozen=True)
class EndpointFacts:
    """What an endpoint does with each of these; `refused`: it answers with an error."""

    log_probabilities: Finding = "not asked"
    schema: Finding = "not asked"
    sampling: Finding = "not asked"
    system_one: Finding = "not asked"

    @property
    def form(self) -> Form | None:
        """How candidates can be scored, or None."""
        if self.log_probabilities == "honoured":
            return "logprobs"
        return "systemone" if self.system_one == "honoured" else None

    def shown(self) -> dict[str, str]:
        """For a table."""
        return {
            "log-probabilities": self.log_probabilities,
            "JSON schema": self.schema,
            "sampling": self.sampling,
            "System One": self.system_one,
        }


def probe_endpoint(settings: ChatSettings, ledger: Ledger, top_logprobs: int, image: ChatImage) -> EndpointFacts:
    """Send what the ledger does not have yet of five requests with 80 tokens of output at most.

    Args:
        image: goes with each of them, because a model may refuse a text alone.

    Raises:
        UserError: the endpoint cannot be used at all.
    """
    probe = _Probe(settings, ledger, image)
    logprobs = probe.finding(
        probe.request("logprobs", "Answer with the letter A alone.", 4, logprobs=True, top_logprobs=top_logprobs),
        lambda row: bool(row.get("logprobs")),
    )
    schema = probe.finding(
        probe.request("schema", "Say hello.", 24, schema=_SCHEMA),
        lambda row: find_json(row.get("reply") or "") == {"feeling": "awe"},
    )
    # At this temperature, equal samples would be a rare coincidence.
    one, other = (
        probe.request("sampling", "Write twelve random digits.", 24, sample=number, temperature=1.5, seed=1)
        for number in (0, 1)
    )
    first = probe.row(one) or {}
    sampling = probe.finding(other, lambda row: row.get("reply") != first.get("reply"))
    system_one: Finding = "not asked"
    if logprobs != "honoured" and not settings.is_official():
        message = Message("user", "Which word is longer?", (image,))
        choice = ChatRequest(settings.model, (message,), {}, "probe/systemone", choices=("awe", "contentment"))
        system_one = probe.finding(choice, lambda row: bool(row.get("logprobs")), may_lack="not_found")
    return EndpointFacts(logprobs, schema, sampling, system_one)


class _Probe:
    """Short requests to one endpoint, each sent once and then taken from the ledger."""

    def __init__(self, settings: ChatSettings, ledger: Ledger, image: ChatImage):
        # A schema must not be replaced by a simpler form, and what is refused now is refused again.
        changes = {"structured": "json_schema", "max_attempts": min(settings.max_attempts, 3)}
        self._settings, self._ledger = settings.model_copy(update=changes), ledger
        self._image = image

    def request(
        self,
        name: str,
        text: str,
        max_tokens: int,
        *,
        sample: int = 0,
        schema: Mapping[str, Any] | None = None,
        **parameters: object,
    ) -> ChatRequest:
        extra = {"extra_body": self._settings.extra_body} if self._settings.extra_body else {}
        values = {**extra, "temperature": 0.0, "max_output_tokens": max_tokens, **parameters}
        message = Message("user", text, (self._image,))
        return ChatRequest(self._settings.model, (message,), values, f"probe/{name}", schema=schema, sample=sample)

    def finding(
        self, request: ChatRequest, is_honoured: Callable[[dict[str, Any]], bool], may_lack: str | None = None
    ) -> Finding:
        row = self.row(request, may_lack)
        if row is None:
            return "refused"
        return "honoured" if is_honoured(row) else "ignored"

    def row(self, request: ChatRequest, may_lack: str | None = None) -> dict[str, Any] | None:
        """The row of a reply, or None if the endpoint refuses the request; `may_lack` is one more such fault."""
        progress = run_requests([request], self._settings, self._ledger)
        row = self._ledger.finished(request.fingerprint)
        if row is None and not progress.failed.keys() <= _REFUSALS | {may_lack}:
            reasons = "; ".join(f"{status}: {reason}" for status, reason in sorted(progress.reasons.items()))
            raise UserError(
                f"{self._settings.model}: {progress.stopped or reasons}. Without an answer it is not known what the "
                "endpoint honours; `probe: false` of the model skips these requests."
            )
        return row
