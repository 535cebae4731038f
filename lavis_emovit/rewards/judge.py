"""A judge of rewards behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.errors import UserError
from lavis_emovit.rewards.registry import Ask, Question

_PROMPT = "reward/1"


def chat_judge(settings: ChatSettings, ledger: Path) -> Ask:
    """Ask a chat model; every reply is kept in the ledger, so no question is paid for twice.

    Questions about images are refused: no reward of this package asks a judge about one. The judge raises UserError
    if it does not answer every question.
    """

    def ask(questions: Sequence[Question]) -> list[str]:
        from lavis_emovit.chat.ledger import Ledger
        from lavis_emovit.chat.request import ChatRequest, Message
        from lavis_emovit.chat.run import run_requests

        if any(question.with_image for question in questions):
            raise UserError("this judge only reads texts; pass a judge of your own for questions about images")
        requests = [
            ChatRequest(
                settings.model,
                (Message("user", question.text),),
                settings.parameters(),
                _PROMPT,
                about={"record": question.record.id},
            )
            for question in questions
        ]
        with Ledger(ledger) as paid:
            # Answers of a group may be equal, and are then one request.
            progress = run_requests({one.fingerprint: one for one in requests}.values(), settings, paid)
            rows = [paid.finished(request.fingerprint) for request in requests]
        replies = [row.get("reply") if row is not None else None for row in rows]
        given = [reply for reply in replies if isinstance(reply, str)]
        if len(given) < len(questions):
            why = progress.stopped or "; ".join(f"{status}: {reason}" for status, reason in progress.reasons.items())
            raise UserError(
                f"the judge {settings.model} did not answer {len(questions) - len(given)} of {len(questions)} "
                f"questions, so their rewards are unknown ({why or 'no reply'})"
            )
        return given

    return ask
