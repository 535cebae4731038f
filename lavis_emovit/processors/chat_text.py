"""The text around a question and an answer, as the processor of an image-text model writes it.

A text is `[beginning with the images][tail][question][after][lead][answer][end]`. All but question and answer are
constant and come from the processor's chat template, or from a template of ours. The beginning ends with the last token
of the last image. That token is special, so no tokenizer joins it with what follows: the text behind it can be
tokenised by itself, with the same result as in the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

from PIL import Image

from lavis_emovit.errors import WeightsError, first_line
from lavis_emovit.processors.prepared import PreparedImage

# Stand for a question and an answer while the text around them is looked for.
_QUESTION, _ANSWER = "Whatzz", "Thatzz"
# What processors call the kinds of tokens.
_KINDS_KEYS = ("mm_token_type_ids", "token_type_ids")
_TEXT_KEYS = ("input_ids", "attention_mask", "labels", *_KINDS_KEYS)
QUESTION_PLACE = "{question}"


class ChatText:
    """Texts of a processor of transformers.

    Args:
        processor: from `AutoProcessor`.
        image_token_id: the token that stands for a part of an image.
        end_ids: tokens that end an answer, that of the tokenizer first.
        template: text with `{question}` in it for a processor without a chat template; None: the chat template.
        system: the system's turn; None: what the template writes by itself.
        name: of the model, for errors.

    Attributes:
        kinds_key: what the model calls the kinds of tokens, None if it is not told.

    Raises:
        WeightsError: there is no template, or the text cannot be taken apart.
    """

    def __init__(
        self,
        processor: Any,
        image_token_id: int,
        end_ids: Sequence[int],
        *,
        template: str | None = None,
        system: str | None = None,
        name: str = "the model",
    ):
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.image_token_id, self.end_ids = image_token_id, tuple(end_ids)
        self._system, self._name = system, name
        self._image_token = self.tokenizer.convert_ids_to_tokens(image_token_id)
        if self._image_token is None:
            raise WeightsError(
                f"{name}: its config.json says that token {image_token_id} stands for an image, but its tokenizer has "
                f"{len(self.tokenizer)} tokens; its configuration and tokenizer do not fit together"
            )
        self._template = self._checked(template)
        asked = self._render(_QUESTION)
        if system is not None and system.strip() not in asked:
            raise WeightsError(
                f"{name}: the system's turn (model.system) would have no effect, because its chat template, or your "
                "template, leaves it out; write it into model.template, or remove it"
            )
        self._asked = {1: asked}  # number of images -> text
        try:
            found = self._process(asked, [Image.new("RGB", (56, 56))])  # of any size
        except Exception as error:  # processors raise anything
            advice = f"is the image token {self._image_token!r} in model.template?"
            raise WeightsError(
                f"{name}: its processor refuses the text {asked!r} ({first_line(error)}); {advice}"
            ) from error
        self.kinds_key = next((key for key in _KINDS_KEYS if key in found), None)
        whole = found["input_ids"][0].tolist()
        if image_token_id not in whole:
            raise WeightsError(
                f"{name}: its processor writes no image token {self._image_token!r} (id {image_token_id}) into a text; "
                "set model.template to a text that contains the image's place, such as '<image>\\n{question}'"
            )
        last = len(whole) - 1 - whole[::-1].index(image_token_id)
        written = self.tokenizer.decode(whole[last:], clean_up_tokenization_spaces=False)
        if written.count(_QUESTION) != 1 or not written.startswith(self._image_token):
            raise WeightsError(f"{name}: the text behind its image cannot be taken apart: {written!r}")
        self._tail, self._after = written.removeprefix(self._image_token).split(_QUESTION)
        self._lead, self._end = self._around_answer(asked)
        # Some templates remove spaces around texts.
        self._keeps_spaces = f" {_QUESTION} " in self._render(f" {_QUESTION} ")
        if self._tokens(self._tail + _QUESTION + self._after) != whole[last + 1 :]:
            raise WeightsError(
                f"{name}: the text behind its image, {written!r}, is tokenised differently by itself; its processor "
                "and tokenizer do not fit together"
            )

    def read(self, images: Sequence[Image.Image]) -> PreparedImage:
        """RGB images with the beginning of the text; WeightsError if the model cannot read as many."""
        found = self._process(self.asked_of(len(images)), images)
        ids = found["input_ids"][0]
        last = int((ids == self.image_token_id).nonzero()[-1]) + 1
        kinds = found[self.kinds_key] if self.kinds_key is not None else None
        features = {name: value for name, value in found.items() if name not in _TEXT_KEYS}
        sizes_px = tuple(image.size for image in images)
        return PreparedImage(ids[:last], None if kinds is None else kinds[0][:last], features, sizes_px)

    @cached_property
    def reads_two(self) -> bool:
        """Whether the model can read two images."""
        try:
            return bool(self.asked_of(2))
        except WeightsError:
            return False

    def asked_of(self, num_images: int) -> str:
        """The text with the places of some images, of which all behind the last one is as in that with one.

        WeightsError if the model cannot read as many images.
        """
        if (known := self._asked.get(num_images)) is not None:
            return known
        advice = (
            "as `box: both` and the frames of clips show them; set `box` of the vis_processor to crop or whole, and "
            "its frames.num_frames to 1"
        )
        if self._template is not None:
            reason = f"its template has the place of one image and not of {num_images}"
            raise WeightsError(f"{self._name}: {reason}, {advice}")
        asked, image = self._render(_QUESTION, num_images=num_images), Image.new("RGB", (56, 56))
        try:
            one, several = (
                self._process(text, images)["input_ids"][0].tolist()
                for text, images in ((self._asked[1], [image]), (asked, [image] * num_images))
            )
        except Exception as error:  # processors raise anything
            reason = f"it cannot read {num_images} images ({first_line(error)})"
            raise WeightsError(f"{self._name}: {reason}, {advice}") from error
        behind_one, behind_all = (ids[::-1].index(self.image_token_id) for ids in (one, several))
        has_all = several.count(self.image_token_id) == num_images * one.count(self.image_token_id)
        if not has_all or one[len(one) - behind_one :] != several[len(several) - behind_all :]:
            reason = f"its chat template does not write {num_images} images before a question"
            raise WeightsError(f"{self._name}: {reason}, {advice}")
        self._asked[num_images] = asked
        return asked

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        """Token ids behind the image up to the place of the answer, for each question; ValueError if a question
        contains the token of an image."""
        return [self._prompt_ids(question) for question in questions]

    def answered(self, question: str, answers: Sequence[str], *, end: bool = True) -> list[tuple[list[int], int]]:
        """For each answer, all tokens behind the image, and how many of them belong to the prompt.

        A tokenizer may join the beginning of an answer with the end of the prompt; the joined token counts as the
        answer's. With `end`, the token that ends an answer belongs to it.
        """
        prompt = self._prompt_ids(question)
        question = self._as_written(question)
        rows = []
        for answer in map(self._as_written, answers):
            row = self._tokens(self._tail + question + self._after + self._lead + answer + (self._end if end else ""))
            if end and row[-1] not in self.end_ids:
                row = [*row, self.end_ids[0]]
            rows.append((row, _common(prompt, row)))
        return rows

    def answer_alone(self, answer: str) -> list[int]:
        """Token ids of an answer that is not joined with the prompt."""
        return self.tokenizer(self._lead + answer, add_special_tokens=False)["input_ids"]

    def question_length(self, question: str) -> int:
        """Tokens of a question by itself."""
        return len(self.tokenizer(question, add_special_tokens=False)["input_ids"])

    def cut_question(self, question: str, max_tokens: int) -> str:
        """The question without its beginning, so that it has at most `max_tokens`, as in InstructBLIP's training."""
        if len(question.encode()) <= max_tokens:  # a token covers a byte or more
            return question
        ids = self.tokenizer(question, add_special_tokens=False)["input_ids"]
        if len(ids) <= max_tokens:
            return question
        rest = self.tokenizer.decode(ids[len(ids) - max_tokens :], clean_up_tokenization_spaces=False)
        return rest.lstrip("\N{REPLACEMENT CHARACTER}")  # what is left of a character that was cut apart

    def _prompt_ids(self, question: str) -> list[int]:
        row = self._tokens(self._tail + self._as_written(question) + self._after)
        if self.image_token_id in row:
            raise ValueError(f"the question {question[:60]!r} contains {self._image_token!r}, the place of an image")
        return row

    def _as_written(self, text: str) -> str:
        return text if self._keeps_spaces else text.strip()

    def _tokens(self, text: str) -> list[int]:
        """Tokens of a text that follows the image."""
        row = self.tokenizer(self._image_token + text, add_special_tokens=False)["input_ids"]
        if row[:1] != [self.image_token_id]:
            raise WeightsError(f"{self._name}: {self._image_token!r} is not a token of its own")
        return row[1:]

    def _checked(self, template: str | None) -> str | None:
        if template is not None:
            if QUESTION_PLACE not in template:
                raise WeightsError(f"the template must have {QUESTION_PLACE} in it, where the question goes")
            if self._adds_image_tokens() and self._image_token in template:
                raise WeightsError(
                    f"{self._name}: its processor adds the image tokens; remove {self._image_token} from the template"
                )
            return template
        if getattr(self.processor, "chat_template", None):
            return None
        if self._adds_image_tokens():
            return QUESTION_PLACE
        raise WeightsError(
            f"{self._name}: its processor has no chat template; set a template, `prompt` in a suite and "
            f"model.template in a recipe, such as '<image>\\n{QUESTION_PLACE}'"
        )

    def _adds_image_tokens(self) -> bool:
        """Processors of models with a Q-Former do."""
        return getattr(self.processor, "num_query_tokens", None) is not None

    def _render(self, question: str, answer: str | None = None, as_list: bool = True, num_images: int = 1) -> str:
        if self._template is not None:
            return self._template.replace(QUESTION_PLACE, question)
        turns: list[dict[str, Any]] = []
        if self._system is not None:
            turns.append({"role": "system", "content": [{"type": "text", "text": self._system}]})
        images = [{"type": "image"}] * num_images
        turns.append({"role": "user", "content": [*images, {"type": "text", "text": question}]})
        if answer is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}] if as_list else answer})
        try:
            return self.processor.apply_chat_template(turns, add_generation_prompt=answer is None, tokenize=False)
        except Exception as error:  # a template can refuse a turn, or be wrong
            roles = ", ".join(turn["role"] for turn in turns)
            other = " or remove model.system" if self._system is not None else ""
            raise WeightsError(
                f"{self._name}: its chat template cannot write the turns {roles} ({first_line(error)}); set "
                f"model.template to a text with {QUESTION_PLACE} in it{other}"
            ) from error

    def _around_answer(self, asked: str) -> tuple[str, str]:
        """The text between prompt and answer, and from the answer to its end token."""
        if self._template is not None:
            return "" if self._after[-1:].isspace() else " ", ""
        answered = self._render(_QUESTION, _ANSWER)
        if answered.count(_ANSWER) != 1:
            answered = self._render(_QUESTION, _ANSWER, as_list=False)
        before, found, after = answered.partition(_ANSWER)
        if not found:
            raise WeightsError(f"{self._name}: its chat template writes no answer of the assistant")
        lead = before.removeprefix(asked) if before.startswith(asked) else ""
        marks = [self.tokenizer.convert_ids_to_tokens(number) for number in self.end_ids]
        ends = [after.index(mark) + len(mark) for mark in marks if mark and mark in after]
        return lead, after[: min(ends)] if ends else ""

    def _process(self, text: str, images: Sequence[Image.Image]) -> Any:
        # A chat template may already write the token that begins a text.
        begin = self.tokenizer.bos_token
        return self.processor(
            # One list per text: some processors (Gemma's) take a flat list as the images of one text.
            images=[list(images)],
            text=[text],
            return_tensors="pt",
            add_special_tokens=not (begin and text.startswith(begin)),
        )


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second)))
