"""Any image-text model of transformers (LLaVA, Qwen-VL, Gemma, ...) through `AutoModelForImageTextToText`.

Models of the family `image_text` are asked as that family asks them. Models whose question is read apart from the
answer, by an encoder or by a Q-Former (InstructBLIP, BLIP-2 on T5), have an adapter of their own here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from lavis_emovit.clips.clip import FrameSettings
from lavis_emovit.errors import UserError, first_line
from lavis_emovit.evaluation.adapters.base import Failure, LanguageModel, ModelPlace, register_adapter
from lavis_emovit.evaluation.adapters.lavis_model import LavisModel, with_frames
from lavis_emovit.evaluation.benchmarks import Method
from lavis_emovit.evaluation.questions import Question
from lavis_emovit.files import regular_file
from lavis_emovit.images import decode_image
from lavis_emovit.settings import Settings, added_field

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class TransformersModelSettings(Settings):
    """`adapter: transformers`.

    Attributes:
        path: folder of the model and its processor, or its name on the hub (downloaded by transformers).
        revision: of the hub's repository.
        device: `auto` takes the GPU if there is one.
        prompt: for models without a chat template: text with `{question}` and the model's image token in it. BLIP-2 and
            InstructBLIP need none, and their processors add the image tokens.
        max_side_px: larger images are scaled down before the model's own processor gets them.
        rows_per_pass: questions of one forward pass; of a model that reads a question without its answer, questions
            with one candidate each.
        frames: which frames of clips a model of the family `image_text` gets; null: clips are errors in their rows.
    """

    adapter: Literal["transformers"]
    path: str = Field(min_length=1)
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    prompt: str | None = None
    max_side_px: int = Field(default=1024, ge=32)
    rows_per_pass: int = Field(default=8, ge=1)
    frames: FrameSettings | None = added_field(None)


class ImageTextModel(LavisModel):
    """A model of the family `image_text`: candidates of all questions of an image in one pass over it."""

    def __init__(self, settings: TransformersModelSettings):
        import torch
        from lavis.common.registry import registry

        from lavis_emovit.distributed.devices import choose_device

        node = {
            "arch": "emovit_image_text",
            "pretrained": settings.path,
            "revision": settings.revision,
            "template": settings.prompt,
            "max_side_px": settings.max_side_px,
            "frozen_precision": PRECISIONS[settings.dtype],
            "trained_parts": "none",
            "scoring_pairs_per_pass": settings.rows_per_pass,
            "scoring_rows_per_pass": settings.rows_per_pass,
        }
        model = registry.get_model_class(node["arch"]).from_config(node)
        device = choose_device(settings.device)

        def run(function: Any) -> Any:
            with torch.inference_mode():
                return function()

        images, texts = model.processors()
        if settings.frames is not None:
            images = with_frames(images, settings.frames)
        super().__init__(model.to(device), images, texts, run=run, device=device)
        self.settings = settings

    def identity(self) -> dict[str, Any]:
        return {**_identity(self.settings, self._model.core), "family": "image_text"}

    def write(
        self, images: Sequence[Any], image_index: Sequence[int], questions: Sequence[Question]
    ) -> list[str | Failure]:
        """See `LanguageModel.write`; greedy, unless a prompt asks for beams."""
        answers: list[str | Failure] = []
        for start in range(0, len(questions), self.settings.rows_per_pass):
            part = slice(start, start + self.settings.rows_per_pass)
            answers += super().write(images, image_index[part], questions[part])
        return answers


class QuestionAloneModel(LanguageModel):
    """A model whose encoder or Q-Former reads the question without the answer, which is tokenised by itself.

    Every row encodes its image again; models of this plugin encode an image once.

    Raises:
        UserError: the model cannot be loaded, or `prompt` is wrong.
    """

    methods: frozenset[Method] = frozenset({"likelihood", "likelihood_sum", "generation"})
    decoding = frozenset({"num_beams", "repetition_penalty", "length_penalty"})

    def __init__(self, settings: TransformersModelSettings):
        import torch
        import transformers

        from lavis_emovit.distributed.devices import choose_device
        from lavis_emovit.models.image_text.parts import has_encoder

        if settings.frames is not None:
            raise UserError(f"{settings.path}: its model reads one image; remove `frames`")
        self.settings, self._torch = settings, torch
        device = choose_device(settings.device)
        with explain_loading(settings.path, "image-text"):
            self.processor = transformers.AutoProcessor.from_pretrained(settings.path, revision=settings.revision)
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
                settings.path, revision=settings.revision, dtype=getattr(torch, settings.dtype)
            )
        self.model = model.to(device).eval()
        self._is_seq2seq = has_encoder(self.model.config)
        self._template = settings.prompt or "{question}"
        if "{question}" not in self._template:
            raise UserError("`prompt` must have {question} in it, where the question goes")
        if getattr(self.processor, "num_query_tokens", None) is not None:
            # transformers passes a side in the saved settings on to the Q-Former's tokenizer too, whose positions are
            # absolute: padded on the left, it would read every shorter question differently.
            self.processor.tokenizer.init_kwargs.pop("padding_side", None)
            if "<image>" in self._template:
                raise UserError(f"{settings.path}: its processor adds the image tokens; remove <image> from `prompt`")

    def identity(self) -> dict[str, Any]:
        return _identity(self.settings, self.model)

    def prepare(self, image_bytes: bytes) -> Image.Image:
        """An upright RGB image."""
        image = decode_image(image_bytes)
        image.thumbnail((self.settings.max_side_px, self.settings.max_side_px))
        return image

    def score(
        self, images: Sequence[Image.Image], image_index: Sequence[int], questions: Sequence[Question], method: Method
    ) -> list[list[float]]:
        rows: list[Any] = []
        for place, question in zip(image_index, questions):
            prompt = self._template.replace("{question}", question.text)
            rows += [(images[place], prompt, *answer) for answer in self._answers(question)]
        scores: list[float] = []
        for start in range(0, len(rows), self.settings.rows_per_pass):
            part = rows[start : start + self.settings.rows_per_pass]
            scores += self._score_answers(part, mean=method == "likelihood")
        width = len(questions[0].candidates)
        return [scores[start : start + width] for start in range(0, len(scores), width)]

    def write(
        self, images: Sequence[Image.Image], image_index: Sequence[int], questions: Sequence[Question]
    ) -> list[str | Failure]:
        """See `LanguageModel.write`; greedy, unless a prompt asks for beams."""
        answers: list[str | Failure] = []
        for start in range(0, len(questions), self.settings.rows_per_pass):
            part = range(start, min(start + self.settings.rows_per_pass, len(questions)))
            shown = [images[image_index[number]] for number in part]
            side = "right" if self._is_seq2seq else "left"
            inputs = self._inputs(
                shown, [self._template.replace("{question}", questions[number].text) for number in part], side
            )
            with self._torch.inference_mode():
                settings = {**dict(questions[start].decoding), "max_new_tokens": questions[start].max_new_tokens}
                output = self.model.generate(**inputs, **settings, do_sample=False)
            new = output if self._is_seq2seq else output[:, inputs["input_ids"].shape[1] :]
            answers += [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]
        return answers

    def _answers(self, question: Question) -> list[tuple[list[int], int]]:
        """For each candidate, the token ids of the answer, and how many of them are the answer prefix."""
        from lavis_emovit.models.scoring import candidate_tokens

        tokenizer = self.processor.tokenizer
        begin = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"])[0][0]
        # Tokenizers of sentencepiece mark the beginning of a word at the beginning of a text; others need the space.
        prefix = question.answer_prefix if begin in "▁Ġ" else f" {question.answer_prefix}"
        try:
            tokens = candidate_tokens(tokenizer, question.candidates, prefix)
        except ValueError as error:
            raise UserError(str(error)) from None
        return list(zip(tokens.rows, tokens.num_given))

    def _score_answers(self, rows: Sequence[tuple[Image.Image, str, list[int], int]], *, mean: bool) -> list[float]:
        from lavis_emovit.models.instructblip.loading import LLM_ROWS_KEY
        from lavis_emovit.models.text import pad

        torch, pad_id = self._torch, 0
        inputs = self._inputs([row[0] for row in rows], [row[1] for row in rows], "right")
        inputs.pop("token_type_ids", None)
        answers, starts = [row[2] for row in rows], [0] * len(rows)
        if self._is_seq2seq:
            begin = self.model.config.get_text_config().decoder_start_token_id
            inputs["decoder_input_ids"] = pad([[begin, *answer[:-1]] for answer in answers], pad_id)[0]
        else:
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
            prompts = [ids[:length] for ids, length in zip(inputs["input_ids"].tolist(), lengths)]
            joined = pad([prompt + answer for prompt, answer in zip(prompts, answers)], pad_id)
            inputs["input_ids"], inputs["attention_mask"] = joined
            starts = [length - 1 for length in lengths]
        with torch.inference_mode():
            logits = self.model(**inputs.to(self.model.device)).logits
        logits = logits[..., : getattr(self.model.config, LLM_ROWS_KEY, None)]  # without an added placeholder
        found = []
        for logits_TV, (_, _, answer, given), start in zip(logits, rows, starts):
            targets = torch.tensor(answer[given:], device=logits.device)
            found.append(_log_likelihood(logits_TV[start + given : start + len(answer)], targets, mean))
        return found

    def _inputs(self, images: Sequence[Image.Image], texts: Sequence[str], padding_side: str) -> Any:
        self.processor.tokenizer.padding_side = padding_side
        inputs = self.processor(images=list(images), text=list(texts), padding=True, return_tensors="pt")
        moved = inputs.to(self.model.device)
        for name, value in moved.items():
            if self._torch.is_tensor(value) and value.is_floating_point():
                moved[name] = value.to(self.model.dtype)
        return moved


def open_transformers_model(entry: TransformersModelSettings, place: ModelPlace | None = None) -> LanguageModel:
    """The model of an entry; UserError if it cannot be loaded or asked."""
    from transformers import AutoConfig

    from lavis_emovit.models.image_text.parts import has_encoder

    with explain_loading(entry.path, "image-text"):
        config = AutoConfig.from_pretrained(entry.path, revision=entry.revision)
    if has_encoder(config) or config.model_type == "instructblip":
        return QuestionAloneModel(entry)
    return ImageTextModel(entry)


register_adapter(TransformersModelSettings, open_transformers_model)


def _identity(settings: TransformersModelSettings, model: Any) -> dict[str, Any]:
    return {
        "adapter": "transformers",
        **weights_identity(settings.path, model),
        "dtype": settings.dtype,
        "prompt": settings.prompt,
        "max_side_px": settings.max_side_px,
        **({} if settings.frames is None else {"clip_frames": settings.frames.model_dump()}),
    }


def _log_likelihood(logits_TV: Any, targets_T: Any, mean: bool) -> float:
    tokens = logits_TV.float().log_softmax(dim=-1).gather(1, targets_T[:, None])
    return float(tokens.mean() if mean else tokens.sum())


@contextmanager
def explain_loading(path: str, noun: str) -> Iterator[None]:
    """Raise a UserError instead of the errors with which transformers refuses to load a model."""
    try:
        yield
    except Exception as error:  # a damaged file can raise anything, such as SafetensorError or RuntimeError
        reason = first_line(error)
        raise UserError(f"{path}: no {noun} model that transformers can load ({reason})") from error


def weights_identity(path: str, model: Any) -> dict[str, Any]:
    """Name and sha256 of a folder, over names and bytes of weights and configuration; name and commit on the hub."""
    folder = Path(path)
    if not folder.is_dir():
        return {"path": path, "weights": getattr(model.config, "_commit_hash", None)}
    digest = hashlib.sha256()
    for file_path in sorted(folder.glob("*")):
        if file_path.suffix in (".safetensors", ".bin", ".json", ".model", ".jinja"):
            digest.update(file_path.name.encode())
            with regular_file(file_path).open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return {"path": folder.name, "weights": digest.hexdigest()}
