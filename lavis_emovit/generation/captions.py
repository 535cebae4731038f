"""Captions: from the source, a chat model that sees the image, a LAVIS captioner, or annotated attributes."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from lavis_emovit.chat.json_text import object_schema
from lavis_emovit.chat.ledger import now
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import ChatRequest, Message, image_of
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.distributed.engine import Engine, Lost, ProcessEngine
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.files import read_file
from lavis_emovit.generation import offline
from lavis_emovit.generation.job import Job, StepResult
from lavis_emovit.generation.job_records import JobRecords
from lavis_emovit.generation.reading import read_text
from lavis_emovit.images import decode_image
from lavis_emovit.records import EmotionRecord

_OUTPUT_TOKENS = 35
_MAX_WORDS = 60
_LAVIS = "lavis:"
_INSTRUCTION = "Say in one sentence what the picture shows."
_BATCH_SIZE = 8


def write_captions(
    job: Job,
    ids: Collection[str] | None = None,
    *,
    captioner: str | None = None,
    redo: bool = False,
    device: str = "cpu",
    engine: Engine | None = None,
) -> StepResult:
    """Caption records that have no caption, or all with `redo`.

    `captioner` is a registered LAVIS model (else UserError): `lavis:<model>` or `lavis:<model>/<type>`, for example
    `lavis:blip2_opt/caption_coco_opt2.7b`. None: the job's chat model, which sees the images, or the offline writer,
    which uses the annotated attributes. The captioner runs on the engine, by default in this process.
    """
    chosen = job.chosen(ids)
    todo = chosen.where(lambda record: redo or not record.caption)
    result = StepResult("captions", num_records=len(chosen))
    result.notes["from the source"] = len(chosen) - len(todo)
    if captioner is not None:
        result.writer = captioner
        _by_lavis(job, todo, captioner, device, result, ProcessEngine() if engine is None else engine)
    elif job.chat is not None:
        _by_chat(job, job.chat, todo, result)
    else:
        result.writer = offline.WRITER
        for number, record in todo.items():
            if (text := offline.caption(record)) is not None:
                _put(job, number, record, text, result)
        if result.num_done < len(todo):
            result.missing["nothing_annotated"] = len(todo) - result.num_done
    result.num_done += len(chosen) - len(todo)
    return result


def _put(job: Job, number: int, record: EmotionRecord, caption: str, result: StepResult) -> None:
    job.put(number, record.model_copy(update={"caption": caption}))
    result.num_done += 1


def _by_chat(job: Job, chat: ChatSettings, todo: JobRecords, result: StepResult) -> None:
    def use(number: int, record: EmotionRecord, row: dict[str, Any], sample: int) -> bool:
        text, reason = _read_caption(row)
        if reason:
            result.reject(reason)
        else:
            _put(job, number, record, text, result)
        return not reason

    def count(row: dict[str, Any], progress: RunProgress) -> None:
        if row["status"] == "ok" and (reason := _read_caption(row)[1]):
            progress.rejected[reason] += 1

    job.request_replies(
        todo,
        job.writer(chat, "caption", object_schema(caption={"type": "string"}), facts=False),
        result,
        label="captions",
        output_tokens=_OUTPUT_TOKENS,
        use=use,
        on_row=count,
    )


def _read_caption(row: dict[str, Any]) -> tuple[str, str]:
    """The caption of a reply, or an empty text and the reason why it cannot be used."""
    if row["status"] != "ok":
        return "", row["status"]
    reading = read_text(row["reply"], "caption")
    if reading.problems:
        return "", "unreadable"
    caption = re.sub(r"\s+", " ", reading.pairs[0].answer)
    return ("", "too_long") if len(caption.split()) > _MAX_WORDS else (caption, "")


def _by_lavis(job: Job, todo: JobRecords, captioner: str, device: str, result: StepResult, engine: Engine) -> None:
    """Captions by a LAVIS model. The ledger stores them like replies, so no image is captioned twice."""
    if not captioner.startswith(_LAVIS) or captioner == _LAVIS:
        raise UserError(f"'{captioner}' is not a captioner; use lavis:<model> or lavis:<model>/<type>")

    def request_of(record: EmotionRecord) -> ChatRequest:
        message = Message("user", "", (image_of(job.image_root / record.image),))
        about = {"record": record.id, "kind": "caption"}
        return ChatRequest(captioner, (message,), {}, prompt="caption/lavis", about=about)

    waiting = array("I")
    for number, record in todo.items():
        try:
            row = job.ledger.finished(request_of(record).fingerprint)
        except DataError:
            result.missing["bad_picture"] += 1
            continue
        if row is not None:
            _put(job, number, record, row["reply"], result)
        else:
            waiting.append(number)
    result.notes["images for the captioner"] = len(waiting)
    if not waiting or job.dry_run:
        return
    name, _, model_type = captioner.removeprefix(_LAVIS).partition("/")
    progress = RunProgress(total=len(waiting))

    def batches() -> Iterator[tuple[list[int], list[bytes]]]:
        for start in range(0, len(waiting), _BATCH_SIZE):
            numbers = list(waiting[start : start + _BATCH_SIZE])
            yield numbers, [read_file(job.image_root / job.records.get(number).image) for number in numbers]

    with job.display("captions", progress):
        for numbers, texts in engine.map(partial(_captioning, name, model_type or None, device), batches()):
            if texts is None or isinstance(texts, Lost):
                result.missing["worker_lost"] += len(numbers)
                continue
            for number, text in zip(numbers, texts):
                if not text:
                    if text is None:
                        result.missing["bad_picture"] += 1
                    else:
                        result.reject("empty")
                    continue
                record = job.records.get(number)
                request = request_of(record)
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
                _put(job, number, record, text, result)
                progress.done += 1
    if engine.num_lost_workers:
        result.notes["replaced workers"] = engine.num_lost_workers


@contextmanager
def _captioning(
    name: str, model_type: str | None, device: str
) -> Iterator[Callable[[Sequence[bytes]], list[str | None]]]:
    """A worker: the loaded captioner, which gives a caption for each image, or None for one that cannot be decoded."""
    model, processor = _load_captioner(name, model_type, device)
    yield partial(_caption_batch, model, processor, device)


def _caption_batch(model: Any, processor: Any, device: str, files: Sequence[bytes]) -> list[str | None]:
    import torch

    from lavis_emovit.models.base import BaseEmotionModel

    captions: list[str | None] = [None] * len(files)
    images = {}
    for place, data in enumerate(files):
        with suppress(DataError):
            images[place] = processor(decode_image(data))
    if not images:
        return captions
    samples: dict[str, Any] = {"image": torch.stack(list(images.values())).to(device)}
    # A prompt in the samples would replace the prompt of a LAVIS captioner. Instruction-following models, such as
    # LAVIS's `Blip2VicunaInstruct` and those of this plugin, have no prompt or an empty one.
    follows = isinstance(model, BaseEmotionModel) or "instruct" in type(model).__name__.lower()
    if not hasattr(model, "prompt") or (not model.prompt and follows):
        samples["prompt"] = _INSTRUCTION
    with torch.inference_mode():
        texts = model.generate(samples)
    if len(texts) != len(images):
        raise UserError(f"the captioner returned {len(texts)} captions for {len(images)} images; use another captioner")
    for place, text in zip(images, texts):
        captions[place] = " ".join(str(text).split())
    return captions


def _load_captioner(name: str, model_type: str | None, device: str) -> tuple[Any, Any]:
    try:
        from lavis.common.registry import registry
        from lavis.models import load_model_and_preprocess
    except ImportError as error:
        raise UserError(f"LAVIS captioners need LAVIS ({error}); `emovit doctor` shows how to install it") from None
    model_class = registry.get_model_class(name)
    if model_class is None:
        raise UserError(f"LAVIS has no model '{name}' (available: {', '.join(sorted(registry.list_models()))})")
    types = list(getattr(model_class, "PRETRAINED_MODEL_CONFIG_DICT", {}))
    if model_type is None and types:
        model_type = types[0]
    elif model_type not in types:
        raise UserError(f"LAVIS's '{name}' has no type '{model_type}' (available: {', '.join(types)})")
    model, processors, _ = load_model_and_preprocess(name, model_type=model_type, is_eval=True, device=device)
    return model, processors["eval"]
