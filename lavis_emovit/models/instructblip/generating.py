"""Answers in words: greedy, by beams, drawn, chosen among given ones, or as a stream.

Legend: `B` images, `N` image-question pairs, `Q` query tokens, `T` text tokens, `D` width.

Questions are never cut here: one that does not fit the language model's context is refused. (The Q-Former reads their
last `max_txt_len` tokens, as in training.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, overload

import torch

from lavis_emovit.models.instructblip import text
from lavis_emovit.models.instructblip.constrained import Choices
from lavis_emovit.models.instructblip.perception import Perception
from lavis_emovit.models.instructblip.streaming import stream_text


class Generating(Perception):
    """Generation with an EmoVIT model, and the language model's inputs for answers of all kinds."""

    @overload
    def generate(
        self, samples: Mapping[str, Any], *args: Any, return_ids: Literal[False] = ..., **kw: Any
    ) -> list[str]: ...

    @overload
    def generate(
        self, samples: Mapping[str, Any], *args: Any, return_ids: Literal[True], **kw: Any
    ) -> tuple[list[str], list[list[int]]]: ...

    # The overloads tell the return types apart; the arguments are written out here only.
    @torch.no_grad()  # type: ignore[misc]
    def generate(
        self,
        samples: Mapping[str, Any],
        use_nucleus_sampling: bool | None = None,
        num_beams: int | None = None,
        max_length: int | None = None,
        min_length: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        length_penalty: float | None = None,
        num_captions: int | None = None,
        temperature: float | None = None,
        *,
        choices: Sequence[str] | None = None,
        seed: int | None = None,
        return_ids: bool = False,
    ) -> list[str] | tuple[list[str], list[list[int]]]:
        """Answers in words. What is left out comes from `model.generation` of the configuration: greedy by default.

        Args:
            samples: `image` [B, 3, H, W]; `prompt` (or `text_input`), one string or N; `image_index` [N] optional.
            use_nucleus_sampling, num_beams, max_length, min_length, top_p, repetition_penalty, length_penalty,
                num_captions, temperature: see `GenerationSettings`.
            choices: the only answers there may be. Lengths follow from them.
            seed: makes sampling repeatable; the state of torch's generators stays as it was.
            return_ids: give the token ids too.

        Returns:
            N * num_captions strings, those of a question one behind the other; with `return_ids` a pair of them and
            their token ids, without start, end and padding.

        Raises:
            ValueError: settings that cannot be (ConfigError), questions that do not fit, or bad choices.
        """
        settings = self.settings.generation.changed(
            use_nucleus_sampling=use_nucleus_sampling,
            num_beams=num_beams,
            max_length=max_length,
            min_length=min_length,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            length_penalty=length_penalty,
            num_captions=num_captions,
            temperature=temperature,
        )
        questions = self._asked(samples)
        options = settings.options()
        constraint = self._constrain(options, choices)
        with self._evaluating(), _seeded(seed, self.device):
            inputs, mask = self._generation_inputs(samples, questions, options["max_new_tokens"])
            rows = self._generate_ids(inputs, mask, options).tolist()
        ids = [self._answer_ids(row) for row in rows]
        if constraint is not None:
            answers = [constraint.choice_of(row) for row in ids]
        else:
            answers = [answer.strip() for answer in self.llm_tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return (answers, ids) if return_ids else answers

    def generate_stream(
        self,
        samples: Mapping[str, Any],
        use_nucleus_sampling: bool | None = None,
        max_length: int | None = None,
        min_length: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        temperature: float | None = None,
        *,
        choices: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The answer to one question, in pieces as they come; joined, they are what `generate` gives.

        Generation runs in a thread of its own from the first piece asked for. Closing the iterator ends it, and an
        error in it is raised to the reader.

        Args:
            samples: one question about one image, as for `generate`; the settings too. Beam search has no text before
                its end and is left out.

        Raises:
            ValueError: more than one question, or what `generate` refuses.
        """
        settings = self.settings.generation.changed(
            use_nucleus_sampling=use_nucleus_sampling,
            max_length=max_length,
            min_length=min_length,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            temperature=temperature,
            num_beams=1,
            num_captions=1,
        )
        questions = self._asked(samples)
        if len(questions) != 1:
            raise ValueError(f"a stream answers one question, not {len(questions)}")
        options = settings.options()
        self._constrain(options, choices)

        # Gradients are switched off for each thread on its own.
        @torch.no_grad()
        def run(**streaming: Any) -> None:
            with self._evaluating(), _seeded(seed, self.device):
                inputs, mask = self._generation_inputs(samples, questions, options["max_new_tokens"])
                self._generate_ids(inputs, mask, {**options, **streaming})

        return stream_text(run, self.llm_tokenizer, self._end_ids())

    def _asked(self, samples: Mapping[str, Any]) -> list[str]:
        """The questions of a batch that holds pictures."""
        image = samples.get("image")
        if not isinstance(image, torch.Tensor):
            raise ValueError("samples have no 'image', a tensor [B, 3, H, W]")
        if not len(image):
            raise ValueError(f"image holds no picture: its shape is {list(image.shape)}")
        return self._questions(samples)

    def _generation_inputs(
        self, samples: Mapping[str, Any], questions: list[str], max_new_tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        prefix_NQD = self._visual_prefix(samples, questions)
        prompts = self._full_prompt_rows(questions)
        self._check_context(questions, prompts, prefix_NQD.shape[1], max_new_tokens)
        return self._language_inputs(prefix_NQD, prompts, "right" if self.is_seq2seq else "left")

    def _generate_ids(self, inputs: torch.Tensor, mask: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        if self.in_step:
            # A process whose answers have ended goes on until those of all others have.
            options = {**options, "synced_gpus": True}
        return self.core.language_model.generate(
            inputs_embeds=inputs,
            attention_mask=mask,
            pad_token_id=self.llm_tokenizer.pad_token_id,
            eos_token_id=self._end_ids(),
            **options,
        )

    def _constrain(self, options: dict[str, Any], choices: Sequence[str] | None) -> Choices | None:
        """Make transformers' `generate` choose, where there is something to choose from."""
        if choices is None:
            return None
        constraint = Choices(self.llm_tokenizer, choices, num_start_tokens=1 if self.is_seq2seq else 0)
        if options["num_return_sequences"] > len(constraint.choices) and options["num_beams"] > 1:
            raise ValueError(
                f"beam search cannot give {options['num_return_sequences']} of {len(constraint.choices)} choices"
            )
        options |= {
            "prefix_allowed_tokens_fn": constraint.allowed_tokens,
            "max_new_tokens": constraint.longest + 1,
            "min_new_tokens": 0,
        }
        return constraint

    def _end_ids(self) -> list[int]:
        """Tokens that end an answer. InstructBLIP takes id 0, Llama's token for what is unknown, for an end too."""
        tokenizer = self.llm_tokenizer
        unknown = [0] if tokenizer.convert_ids_to_tokens(0) == "<unk>" else []
        return [tokenizer.eos_token_id, *unknown]

    def _answer_ids(self, row: list[int]) -> list[int]:
        answer = row[1:] if self.is_seq2seq else row
        ends = {*self._end_ids(), self.llm_tokenizer.pad_token_id}
        return answer[: next((step for step, token in enumerate(answer) if token in ends), len(answer))]

    def _full_prompt_rows(self, questions: list[str]) -> list[list[int]]:
        return text.encode_prompts(self.llm_tokenizer, questions, None, self.is_seq2seq)

    def _check_context(self, questions: list[str], prompts: list[list[int]], num_visual: int, num_answer: int) -> None:
        """Refuse what positions of the language model do not reach to; an encoder's are relative and have no end."""
        context = getattr(self.core.language_model.config, "max_position_embeddings", None)
        if self.is_seq2seq or context is None:
            return
        for index, (question, row) in enumerate(zip(questions, prompts)):
            total = num_visual + len(row) + num_answer
            if total > context:
                shown = question if len(question) <= 60 else question[:57] + "..."
                raise ValueError(
                    f"question {index} ({shown!r}) does not fit: {num_visual} visual tokens, {len(row)} of the "
                    f"question and up to {num_answer} of the answer are {total}, "
                    f"the language model's context is {context}; shorten the question or the answer"
                )

    def _evaluating(self) -> Any:
        return _EvalMode(self) if self.training else nullcontext()


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Torch's generators as the seed makes them inside the block, as they were afterwards."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class _EvalMode:
    """Eval mode inside the block, the mode before it afterwards."""

    def __init__(self, model: torch.nn.Module):
        self.model = model

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *exception: object) -> None:
        self.model.train()
