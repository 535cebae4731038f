"""Any image-text model of transformers (LLaVA, Qwen-VL, Gemma, ...) through `AutoModelForImageTextToText`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from lavis_emovit.errors import UserError, first_line
from lavis_emovit.evaluation.adapters.base import Failure, LanguageModel, register_adapter
from lavis_emovit.evaluation.benchmarks import Method
from lavis_emovit.evaluation.questions import Question
from lavis_emovit.images import decode_image
from lavis_emovit.settings import Settings


class TransformersModelSettings(Settings):
    """`adapter: transformers`.

    Attributes:
        path: folder of the model and its processor, or its name on the hub (downloaded by transformers).
        revision: of the hub's repository.
        device: `auto` takes the GPU if there is one.
        prompt: for models without a chat template: text with `{question}` and the model's image token in it. BLIP-2 and
            InstructBLIP need none, and their processors add the image tokens.
        max_side_px: larger images are scaled down before the model's own processor gets them.
        rows_per_pass: question-candidate rows of one forward pass.
    """

    adapter: Literal["transformers"]
    path: str = Field(min_length=1)
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    prompt: str | None = None
    max_side_px: int = Field(default=1024, ge=32)
    rows_per_pass: int = Field(default=8, ge=1)


class TransformersModel(LanguageModel):
    """A model that transformers loads.

    A candidate's tokens are those after the longest common prefix of the token rows with and without it, so the
    tokenizer may join words across the boundary. A model with a Q-Former or an encoder reads the question alone, and
    the answer is tokenised separately, as in training. Every row encodes its image again; models of this plugin encode
    an image once.

    Raises:
        UserError: the model cannot be loaded, or has no chat template and `prompt` is not set.
    """

    methods: frozenset[Method] = frozenset({"likelihood", "likelihood_sum", "generation"})
    decoding = frozenset({"num_beams", "repetition_penalty", "length_penalty"})

    def __init__(self, settings: TransformersModelSettings):
        import torch
        import transformers

        from lavis_emovit.distributed.devices import choose_device

        self.settings, self._torch = settings, torch
        device = choose_device(settings.device)
        with explain_loading(settings.path, "image-text"):
            self.processor = transformers.AutoProcessor.from_pretrained(settings.path, revision=settings.revision)
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
                settings.path, revision=settings.revision, dtype=getattr(torch, settings.dtype)
            )
        self.model = model.to(device).eval()
        text_config = self.model.config.get_text_config()
        self._is_seq2seq = self.model.config.is_encoder_decoder or text_config.is_encoder_decoder
        has_qformer = getattr(self.processor, "num_query_tokens", None) is not None
        self._reads_question_alone = self._is_seq2seq or has_qformer
        if has_qformer:
            # transformers passes a side in the saved settings on to the Q-Former's tokenizer too, whose positions are
            # absolute: padded on the left, it would read every shorter question differently.
            self.processor.tokenizer.init_kwargs.pop("padding_side", None)
        self._template = settings.prompt
        if settings.prompt is None and not getattr(self.processor, "chat_template", None):
            if not has_qformer:
                raise UserError(
                    f"{settings.path}: its processor has no chat template; set `prompt`, such as "
                    "'<image>\\n{question}'"
                )
            self._template = "{question}"
        if settings.prompt is not None and "{question}" not in settings.prompt:
            raise UserError("`prompt` must have {question} in it, where the question goes")
        if has_qformer and "<image>" in (settings.prompt or ""):
            raise UserError(f"{settings.path}: its processor adds the image tokens; remove <image> from `prompt`")

    def identity(self) -> dict[str, Any]:
        return {
            "adapter": "transformers",
            **weights_identity(self.settings.path, self.model),
            "dtype": self.settings.dtype,
            "prompt": self.settings.prompt,
            "max_side_px": self.settings.max_side_px,
        }

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
            prompt = self._prompt(question.text)
            if self._reads_question_alone:
                rows += [(images[place], prompt, *answer) for answer in self._answers(question)]
                continue
            prompt += question.answer_prefix
            rows += [(images[place], prompt, prompt + candidate) for candidate in question.candidates]
        scores: list[float] = []
        score_rows = self._score_answers if self._reads_question_alone else self._score_rows
        for start in range(0, len(rows), self.settings.rows_per_pass):
            scores += score_rows(rows[start : start + self.settings.rows_per_pass], mean=method == "likelihood")
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
            inputs = self._inputs(shown, [self._prompt(questions[number].text) for number in part], side)
            with self._torch.inference_mode():
                settings = {**dict(questions[start].decoding), "max_new_tokens": questions[start].max_new_tokens}
                output = self.model.generate(**inputs, **settings, do_sample=False)
            new = output if self._is_seq2seq else output[:, inputs["input_ids"].shape[1] :]
            answers += [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]
        return answers

    def _score_rows(self, rows: Sequence[tuple[Image.Image, str, str]], *, mean: bool) -> list[float]:
        inputs = self._inputs([image for image, _, _ in rows], [full for _, _, full in rows], "right")
        # The candidates of a question share their prompt, so it is tokenised once.
        prompts = {(id(image), prompt): (image, prompt) for image, prompt, _ in rows}
        place_of = {key: place for place, key in enumerate(prompts)}
        shown, texts = zip(*prompts.values())
        without = self._inputs(shown, texts, "right")
        with self._torch.inference_mode():
            logits = self.model(**inputs).logits
        ids, lengths = inputs["input_ids"], inputs["attention_mask"].sum(dim=1).tolist()
        found = []
        for number, length in enumerate(lengths):
            place = place_of[id(rows[number][0]), rows[number][1]]
            shared = min(int(without["attention_mask"][place].sum()), length)
            same = ids[number, :shared] == without["input_ids"][place, :shared]
            begin = int(same.long().cumprod(dim=0).sum())
            if begin >= length:
                raise UserError(f"a candidate has no token of its own after '{rows[number][1][-40:]}'")
            found.append(_log_likelihood(logits[number, begin - 1 : length - 1], ids[number, begin:length], mean))
        return found

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

    def _prompt(self, question: str) -> str:
        if self._template is not None:
            return self._template.replace("{question}", question)
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        return self.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)

    def _inputs(self, images: Sequence[Image.Image], texts: Sequence[str], padding_side: str) -> Any:
        self.processor.tokenizer.padding_side = padding_side
        if self.processor.tokenizer.pad_token is None:
            self.processor.tokenizer.pad_token = self.processor.tokenizer.eos_token
        # A chat template already writes the token that begins a text.
        begin = self.processor.tokenizer.bos_token
        inputs = self.processor(
            # One list per text: some processors (Gemma's) take a flat list as the images of one text.
            images=[[image] for image in images],
            text=list(texts),
            padding=True,
            return_tensors="pt",
            add_special_tokens=not (begin and texts[0].startswith(begin)),
        )
        moved = inputs.to(self.model.device)
        for name, value in moved.items():
            if self._torch.is_tensor(value) and value.is_floating_point():
                moved[name] = value.to(self.model.dtype)
        return moved


register_adapter(TransformersModelSettings, lambda entry, place: TransformersModel(entry))


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
            with file_path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return {"path": folder.name, "weights": digest.hexdigest()}
