"""Captions: from the source, by a vision chat model, by a LAVIS captioner, or from the annotated attributes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from lavis_emovit.chat.images import image_of, load_rgb
from lavis_emovit.chat.ledger import now
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import ChatRequest, Message
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.generation.instructions import make_writer
from lavis_emovit.generation.job import Job, Requests, StepResult
from lavis_emovit.generation.offline import OFFLINE_WRITER, OfflineWriter
from lavis_emovit.generation.reading import read_text
from lavis_emovit.records import EmotionRecord

CAPTION_SCHEMA = {
    "type": "object",
    "properties": {"caption": {"type": "string"}},
    "required": ["caption"],
    "additionalProperties": False,
}
_OUTPUT_TOKENS = 35
_MAX_WORDS = 60
_LAVIS = "lavis:"
_INSTRUCTION = "Say in one sentence what the picture shows."


def write_captions(
    job: Job,
    ids: Iterable[str] | None = None,
    *,
    captioner: str | None = None,
    redo: bool = False,
    device: str = "cpu",
    batch_size: int = 8,
) -> StepResult:
    """Give records a caption where they have none.

    Args:
        job: records, writer and ledger, in which captions are kept by the hash of their picture.
        ids: the records; None is all of the split.
        captioner: `lavis:<model>` or `lavis:<model>/<type>` of LAVIS's registry, for example
            `lavis:blip2_opt/caption_coco_opt2.7b`. None takes the job's chat model, which sees the pictures, or the
            offline writer, which makes captions of the annotated attributes.
        redo: write new ones for records that have a caption, too.
        device: where the LAVIS captioner runs.
        batch_size: pictures at once, for the LAVIS captioner.

    Raises:
        UserError: no such captioner, or LAVIS is missing.
    """
    chosen = job.chosen(ids)
    todo = [record for record in chosen if redo or not record.caption]
    result = StepResult("captions", num_records=len(chosen))
    result.notes["from the source"] = len(chosen) - len(todo)
    captions: dict[str, str] = {}
    if captioner is not None:
        result.writer = captioner
        captions = _by_lavis(job, todo, captioner, device, batch_size, result)
    elif job.chat is None:
        result.writer = OFFLINE_WRITER
        offline = OfflineWriter(job.settings.seed)
        for record in todo:
            text = offline.caption(record)
            if text is None:
                result.missing["nothing_annotated"] += 1
            else:
                captions[record.id] = text
    else:
        captions = _by_chat(job, todo, result)
    job.replace(
        {
            record.id: record.model_copy(update={"caption": captions[record.id]})
            for record in todo
            if record.id in captions
        }
    )
    result.num_done = len(captions) + len(chosen) - len(todo)
    return result


def _by_chat(job: Job, todo: list[EmotionRecord], result: StepResult) -> dict[str, str]:
    assert job.chat is not None
    writer = make_writer(job, job.chat, "caption", CAPTION_SCHEMA, facts=False)
    result.writer, result.prompt = writer.name, f"{writer.prompt.name} sha256:{writer.prompt.sha256}"

    def count(row: dict[str, Any], progress: RunProgress) -> None:
        if row["status"] == "ok" and _usable(row["reply"])[1]:
            progress.rejected[_usable(row["reply"])[1]] += 1

    captions: dict[str, str] = {}
    for sample in range(1 + job.settings.regenerate):
        left = [record for record in todo if record.id not in captions]
        requests = Requests(left, partial(writer.request, sample=sample))
        label = "captions" if sample == 0 else f"captions, again ({sample})"
        progress = job.ask(label, writer, requests, output_tokens=_OUTPUT_TOKENS, on_row=count)
        result.stopped, result.under_way = progress.stopped, progress.in_flight
        if job.dry_run:
            break
        result.missing.clear()
        for number, record in enumerate(left):
            if number in requests.problems:
                result.missing["bad_picture"] += 1
                continue
            row = job.ledger.finished(writer.request(record, sample).fingerprint)
            if row is None:
                result.missing[result.no_reply] += 1
                continue
            text, reason = _usable(row["reply"]) if row["status"] == "ok" else ("", row["status"])
            if reason:
                result.reasons[reason] += 1
                result.num_rejected += 1
            else:
                captions[record.id] = text
        if result.stopped or result.under_way or len(captions) == len(todo):
            break
    return captions


def _usable(reply: str) -> tuple[str, str]:
    """The caption of a reply, or the reason why it cannot be used."""
    reading = read_text(reply, "caption")
    if reading.problems:
        return "", "unreadable"
    caption = re.sub(r"\s+", " ", reading.pairs[0].answer)
    if len(caption.split()) > _MAX_WORDS:
        return "", "too_long"
    return caption, ""


def _by_lavis(
    job: Job, todo: list[EmotionRecord], captioner: str, device: str, batch_size: int, result: StepResult
) -> dict[str, str]:
    """Captions of a registered LAVIS model, kept in the ledger like replies, so that none is made twice."""
    name, model_type = _model_name(captioner)
    captions: dict[str, str] = {}
    waiting: list[tuple[EmotionRecord, ChatRequest]] = []
    for record in todo:
        try:
            request = _lavis_request(captioner, job.image_root / record.image, record)
        except DataError:
            result.missing["bad_picture"] += 1
            continue
        row = job.ledger.finished(request.fingerprint)
        if row is not None:
            captions[record.id] = row["reply"]
        else:
            waiting.append((record, request))
    result.notes["pictures for the captioner"] = len(waiting)
    if not waiting or job.dry_run:
        return captions
    model, processor = _load_captioner(name, model_type, device)
    progress = RunProgress(total=len(waiting))
    with job.display("captions", progress):
        for start in range(0, len(waiting), batch_size):
            for (record, request), text in _caption_batch(
                model, processor, waiting[start : start + batch_size], device, result
            ):
                row = {
                    "request": request.fingerprint,
                    "time": now(),
                    "status": "ok",
                    "model": captioner,
                    "prompt": request.prompt,
                    "about": dict(request.about),
                    "reply": text,
                    "usd": 0.0,
                }
                job.ledger.append_now(row)
                captions[record.id] = text
                progress.done += 1
    return captions


def _caption_batch(
    model: Any, processor: Any, batch: list[tuple[EmotionRecord, ChatRequest]], device: str, result: StepResult
) -> list[tuple[tuple[EmotionRecord, ChatRequest], str]]:
    import torch

    pictures, usable = [], []
    for item in batch:
        path = item[1].messages[0].images[0].path
        try:
            pictures.append(processor(load_rgb(path.read_bytes(), path)))
        except DataError:
            result.missing["bad_picture"] += 1
            continue
        usable.append(item)
    if not usable:
        return []
    samples: dict[str, Any] = {"image": torch.stack(pictures).to(device)}
    # LAVIS's captioners bring their own prompt, which one in the samples would replace; models that follow instructions
    # have none, or an empty one.
    if not hasattr(model, "prompt") or (not model.prompt and "instruct" in type(model).__name__.lower()):
        samples["prompt"] = _INSTRUCTION
    with torch.inference_mode():
        texts = model.generate(samples)
    if len(texts) != len(usable):
        raise UserError(f"the captioner gave {len(texts)} captions for {len(usable)} pictures; it cannot be used here")
    return [(item, " ".join(str(text).split())) for item, text in zip(usable, texts) if str(text).strip()]


def _lavis_request(captioner: str, path: Path, record: EmotionRecord) -> ChatRequest:
    return ChatRequest(
        model=captioner,
        messages=(Message("user", "", (image_of(path),)),),
        parameters={},
        prompt="caption/lavis",
        about={"record": record.id, "kind": "caption"},
    )


def _model_name(captioner: str) -> tuple[str, str | None]:
    if not captioner.startswith(_LAVIS) or captioner == _LAVIS:
        raise UserError(f"'{captioner}' is no captioner; give lavis:<model> or lavis:<model>/<type>")
    name, _, model_type = captioner.removeprefix(_LAVIS).partition("/")
    return name, model_type or None


def _load_captioner(name: str, model_type: str | None, device: str) -> tuple[Any, Any]:
    try:
        from lavis.common.registry import registry
        from lavis.models import load_model_and_preprocess
    except ImportError as error:
        raise UserError(f"captions by LAVIS need LAVIS ({error}); `emovit doctor` says how to install it") from None
    model_class = registry.get_model_class(name)
    if model_class is None:
        raise UserError(f"LAVIS knows no model '{name}' (it knows: {', '.join(sorted(registry.list_models()))})")
    types = list(getattr(model_class, "PRETRAINED_MODEL_CONFIG_DICT", {}))
    if model_type is None and types:
        model_type = types[0]
    elif model_type not in types:
        raise UserError(f"LAVIS's '{name}' has no type '{model_type}' (it has: {', '.join(types)})")
    model, processors, _ = load_model_and_preprocess(name, model_type=model_type, is_eval=True, device=device)
    return model, processors["eval"]
