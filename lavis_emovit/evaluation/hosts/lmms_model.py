"""Every model that suites can evaluate, as the model `emovit` of lmms-eval 0.7.3.

    lmms-eval --model emovit --model_args arch=emovit_tiny,checkpoint=RUN --include_path OUT --tasks emovit_emoset

`--model_args` are the keys of an entry of `suite.models`; `adapter` is `lavis` unless given, and keys with dots, such
as `config.path`, are inside others. Answers are greedy; one process asks.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from PIL import Image, ImageOps

from lavis_emovit.emotion.questions import PAIR_NOTE
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.evaluation.adapters.base import Failure, Item, LanguageModel, ModelPlace, adapters
from lavis_emovit.evaluation.questions import ANY_RECORD, Question
from lavis_emovit.evaluation.suite.requests import prepare
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.files import read_file
from lavis_emovit.images import decode_image, joined
from lavis_emovit.settings import nearest_name, valid_settings

try:
    from lmms_eval.api.model import lmms
except ImportError:  # every module of the package can be imported, also without this host
    lmms = object

_DEFAULT_NEW_TOKENS = 128


class EmovitModel(lmms):
    """A model of this package, or of any adapter of suites, that answers the questions of lmms-eval."""

    is_simple = True

    def __init__(
        self, batch_size: int | str = 1, max_batch_size: int | None = None, device: str | None = None, **args: Any
    ):
        super().__init__()
        if lmms is object:
            raise UserError("lmms-eval is not installed; this model is only for it (pip install lmms-eval==0.7.3)")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("the model emovit runs in one process; start lmms-eval without accelerate or torchrun")
        nested = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}" for key, value in args.items()]))
        assert isinstance(nested, dict)
        values = {"adapter": "lavis", **nested}
        known = adapters()
        if values["adapter"] not in known:
            hint = nearest_name(str(values["adapter"]), list(known))
            raise ConfigError([f"adapter: unknown adapter '{values['adapter']}'{hint}"], "--model_args")
        adapter = known[str(values["adapter"])]
        if device is not None and "device" in adapter.settings.model_fields:
            values["device"] = device
        entry = valid_settings(adapter.settings, values, "--model_args", "--model_args")
        self._folder = tempfile.TemporaryDirectory(prefix="emovit-lmms-eval-")
        folder = Path(self._folder.name)
        model = adapter.open(entry, ModelPlace("emovit", folder, folder))
        if not isinstance(model, LanguageModel):
            raise ConfigError([f"adapter: '{values['adapter']}' answers no questions"], "--model_args")
        self._model = model
        self._batch_size = max(1, int(batch_size), model.images_at_once)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Greedy answers to all requests, in their order. UserError for sampling, or more than two images."""
        answers: list[str] = [""] * len(requests)
        groups: dict[tuple[int, tuple[tuple[str, float], ...]], list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(_decoding(request.args[1]), []).append(number)
        for (max_new_tokens, decoding), numbers in groups.items():
            for start in range(0, len(numbers), self._batch_size):
                part = numbers[start : start + self._batch_size]
                found = self._answers([requests[number] for number in part], max_new_tokens, decoding)
                for number, answer in zip(part, found):
                    answers[number] = _until(answer, requests[number].args[1].get("until") or [])
        return answers

    def _answers(
        self, requests: Sequence[Any], max_new_tokens: int, decoding: tuple[tuple[str, float], ...]
    ) -> list[str]:
        images, questions = [], []
        for request in requests:
            text, _, doc_to_visual, doc_id, task, split = request.args
            visuals = doc_to_visual(self.task_dict[task][split][doc_id])
            if len(visuals) not in (1, 2):
                count = f"{len(visuals)} images, and the model emovit takes one or two"
                raise UserError(f"{task}: question {doc_id} has {count}")
            prepared = prepare(_item([_image_bytes(visual) for visual in visuals]), self._model)
            if prepared.problem is not None:
                raise UserError(f"{task}: question {doc_id}: {prepared.problem}")
            images.append(prepared.image)
            text = (PAIR_NOTE if prepared.is_joined else "") + text.replace("<image>", "").strip()
            questions.append(Question("answer", text, max_new_tokens=max_new_tokens, decoding=decoding))
        found = self._model.write(images, range(len(images)), questions)
        if failed := [answer.reason for answer in found if isinstance(answer, Failure)]:
            # lmms-eval has no error for one question; an empty answer would count as a wrong one.
            raise UserError(f"{len(failed)} of {len(found)} questions failed, the first with: {failed[0]}")
        return [str(answer) for answer in found]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: tasks of this package are of `generate_until`; suites score candidates."""
        raise UserError("the model emovit answers tasks of output_type generate_until; for likelihoods, run a suite")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered."""
        raise UserError("the model emovit answers one question at a time, not rounds of them")


def _decoding(settings: dict[str, Any]) -> tuple[int, tuple[tuple[str, float], ...]]:
    """Longest answer and decoding of a request. UserError if it asks for samples."""
    if settings.get("do_sample") or (settings.get("temperature") or 0.0) > 0.0:
        raise UserError("the model emovit answers greedily; set temperature 0 and do_sample false (--gen_kwargs)")
    names = ("num_beams", "repetition_penalty", "length_penalty")
    chosen = tuple((name, settings[name]) for name in names if settings.get(name) not in (None, 1, 1.0))
    return int(settings.get("max_new_tokens") or _DEFAULT_NEW_TOKENS), chosen


def _until(answer: str, ends: str | Sequence[str]) -> str:
    for end in [ends] if isinstance(ends, str) else ends:
        if end:
            answer = answer.partition(end)[0]
    return answer


def _item(images: Sequence[bytes]) -> Item:
    """One image, or a pair."""
    if len(images) == 1:
        return Item(ANY_RECORD, images[0], Truth())
    whole, boxes = joined([decode_image(data) for data in images])
    buffer = io.BytesIO()
    whole.save(buffer, "PNG", compress_level=1)
    return Item(ANY_RECORD.model_copy(update={"pair": boxes}), buffer.getvalue(), Truth())


def _image_bytes(image: Image.Image) -> bytes:
    """The bytes of the image's file, if it has one, so that every model decodes it as in a suite; else as PNG."""
    name = getattr(image, "filename", "")
    if name and Path(name).is_file():
        return read_file(Path(name))
    buffer = io.BytesIO()
    ImageOps.exif_transpose(image).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
