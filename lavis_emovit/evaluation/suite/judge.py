"""Judging the explanations of a suite; only replies that are not on the ledger yet cost anything.

judgements/<benchmark>/<model>.<method>.jsonl    one judgement a line, with judge, prompt, score and raw reply
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.adapters.chat_model import ImageFiles, send_requests
from lavis_emovit.evaluation.judging import (
    JudgedPart,
    Judgement,
    JudgeSettings,
    judge_request,
    read_judgement,
    read_reason,
    reason_request,
)
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.suite.benchmark_data import OpenBenchmark
from lavis_emovit.files import atomic_writer

logger = logging.getLogger(__name__)


def judge_explanations(
    settings: JudgeSettings,
    benchmark: OpenBenchmark,
    rows: Mapping[tuple[str, str], Sequence[PredictionRow]],
    folder: Path,
    ledger_path: Path,
) -> dict[tuple[str, str], list[Judgement]]:
    """Judge every answered explanation in the rows of each (model, method); judgements have the order of the rows.

    Args:
        folder: of the suite.
        ledger_path: where replies are kept.

    Raises:
        UserError: the endpoint stopped; paid replies are kept, and a new start resumes after them.
    """
    judged: dict[tuple[str, str], list[Judgement]] = {}
    with Ledger(ledger_path) as ledger:
        for (model, method), of_model in rows.items():
            found = [one for part in settings.parts for one in _judge(settings, part, benchmark, of_model, ledger)]
            judged[model, method] = found
            with atomic_writer(folder / "judgements" / benchmark.name / f"{model}.{method}.jsonl") as file:
                file.writelines(json.dumps(vars(one), ensure_ascii=False) + "\n" for one in found)
            logger.info("%s on %s: %d judgements of explanations", model, benchmark.name, len(found))
    return judged


def _judge(
    settings: JudgeSettings, part: JudgedPart, benchmark: OpenBenchmark, rows: Sequence[PredictionRow], ledger: Ledger
) -> Iterator[Judgement]:
    chat, prompt, label_set = settings.endpoint(), settings.load_prompt(part), benchmark.label_set
    assert label_set is not None
    judged = [row for row in rows if row.error is None and (row.answer or "").strip()][: settings.limit]
    waiting: dict[str, list[PredictionRow]] = {}
    for row in judged:
        waiting.setdefault(row.record_id, []).append(row)
    items: Iterator[Item] = (item for item in benchmark.items() if item.record.id in waiting)
    with closing(ImageFiles(chat)) as files:
        while some := list(islice(items, 2 * chat.max_in_flight)):
            pairs = [(row, files.put(item.shown())) for item in some for row in waiting[item.record.id]]
            requests = [
                judge_request(row, image, prompt, chat)
                if part == "quality"
                else reason_request(row, image, part, prompt, chat, label_set)
                for row, image in pairs
            ]
            progress = send_requests(requests, chat, ledger, f"judge {chat.model}")
            files.clear()
            for (row, _), request in zip(pairs, requests):
                reply = ledger.finished(request.fingerprint)
                text = reply.get("reply") if reply is not None else None
                why = "; ".join(f"no reply, {status}: {reason}" for status, reason in sorted(progress.reasons.items()))
                why = why if reply is None else ""
                if part == "quality":
                    yield read_judgement(row, text, prompt, chat, why)
                else:
                    yield read_reason(row, text, part, prompt, chat, label_set, why)
