"""Answers of a model under LAVIS's method names: generated text, and scores and ranks of candidates.

Legend: `B` images, `N` image-question pairs, `C` candidates.

Questions are never truncated here. (InstructBLIP's Q-Former reads their last `max_txt_len` tokens, as in training.)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, ClassVar, Literal, get_args, overload

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from lavis_emovit.models.constrained import Choices
from lavis_emovit.models.generation_settings import GenerationSettings
from lavis_emovit.models.protocol import Batch, Normalization
from lavis_emovit.models.row_writing import RowChoice, RowSettings, RowWriter
from lavis_emovit.models.sampling import Sampling
from lavis_emovit.models.scoring import CandidateTokens, candidate_tokens, segments_of, string_list
from lavis_emovit.models.settings import BaseModelSettings
from lavis_emovit.models.streaming import stream_text


class Answering(Sampling):
    """Generation and scoring for a model with a language model of transformers; families implement the last methods."""

    RULES: ClassVar[tuple[str, ...]] = get_args(Normalization)

    settings: BaseModelSettings
    llm_tokenizer: Any
    is_seq2seq: bool
    training: bool

    @overload
    def generate(self, samples: Batch, *args: Any, return_ids: Literal[False] = ..., **kw: Any) -> list[str]: ...

    @overload
    def generate(
        self, samples: Batch, *args: Any, return_ids: Literal[True], **kw: Any
    ) -> tuple[list[str], list[list[int]]]: ...

    # The overloads differ in the return type only, so the arguments are spelled out just here.
    @torch.no_grad()  # type: ignore[misc]
    def generate(
        self,
        samples: Batch,
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
        """Generated answers, greedy unless `model.generation` of the configuration or the arguments, which are those of
        `GenerationSettings`, change it.

        Args:
            samples: `image` [B, 3, H, W]; `prompt` (or `text_input`), one string or N; `image_index` [N] optional.
            choices: the only possible answers. They determine the lengths.
            seed: makes sampling repeatable and leaves the state of torch's generators unchanged.
            return_ids: also return the token ids, without start, end and padding.

        Returns:
            N * num_captions strings, those of a question next to each other.

        Raises:
            ValueError: invalid settings (ConfigError), questions that do not fit the context, or invalid choices.
        """
        given = {name: value for name, value in locals().items() if name in GenerationSettings.model_fields}
        options = self.settings.generation.changed(**given).options()
        questions = self._questions(samples)
        constraint = self._constrain(options, choices)
        with self._evaluating(), _seeded(seed, self.device):
            rows = self._generate_ids(samples, questions, options).tolist()
        ids = [self._answer_ids(row) for row in rows]
        if constraint is not None:
            answers = [constraint.choice_of(row) for row in ids]
        else:
            answers = [answer.strip() for answer in self.llm_tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return (answers, ids) if return_ids else answers

    def generate_stream(
        self, samples: Batch, *, choices: Sequence[str] | None = None, seed: int | None = None, **settings: Any
    ) -> Iterator[str]:
        """The answer to one question in pieces, as they are generated; joined, they are the answer of `generate`.

        Generation runs in a separate thread, which starts with the first piece, with the autocast of this call. Closing
        the iterator stops it; its errors are raised in the reader. Arguments are those of `generate` without
        `num_beams` and `num_captions`, because beam search has no text before its end.

        Raises:
            ValueError: more than one question, or what `generate` rejects.
        """
        if forbidden := sorted({"num_beams", "num_captions"} & set(settings)):
            raise ValueError(f"a stream has one answer without beam search; remove {', '.join(forbidden)}")
        chosen = self.settings.generation.changed(**settings, num_beams=1, num_captions=1)
        questions = self._questions(samples)
        if len(questions) != 1:
            raise ValueError(f"a stream answers one question, not {len(questions)}")
        options = chosen.changed(use_nucleus_sampling=False).options()
        self._constrain(options, choices)
        temperature = chosen.temperature if chosen.use_nucleus_sampling else 0.0
        row = RowSettings(options["max_new_tokens"], temperature, chosen.top_p, _integer_seed(seed))
        kind = self.device.type
        autocast = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))

        # Gradients are switched off per thread, and so is autocast.
        @torch.no_grad()
        def write(writer: RowWriter) -> None:
            with autocast:
                self._generate_rows(samples, questions, [writer], options)

        return stream_text(write, row, self.llm_tokenizer)

    @torch.no_grad()
    def write_rows(self, samples: Batch, writers: Sequence[RowWriter], min_length: int | None = None) -> None:
        """Generate the answers to N questions into N writers, each by its own settings, see `RowWriter`.

        Greedy answers are those of `generate` without beams. `min_length` counts as there.

        Raises:
            ValueError: not one writer for each question, or what `generate` rejects.
        """
        questions = self._questions(samples)
        if len(questions) != len(writers):
            raise ValueError(f"{len(questions)} questions need as many writers, not {len(writers)}")
        longest = max(writer.settings.max_tokens for writer in writers)
        least = self.settings.generation.min_length if min_length is None else min_length
        given = {"use_nucleus_sampling": False, "num_beams": 1, "num_captions": 1}
        lengths = {"max_length": longest, "min_length": min(least, longest)}
        options = self.settings.generation.changed(**given, **lengths).options()
        self._generate_rows(samples, questions, writers, options)

    def _generate_rows(
        self, samples: Batch, questions: list[str], writers: Sequence[RowWriter], options: dict[str, Any]
    ) -> None:
        """Let the writers choose each token, and transformers' greedy `generate` follow them."""
        choice = RowChoice(writers, self._end_ids())
        options |= {
            "logits_processor": LogitsProcessorList([choice]),
            "stopping_criteria": StoppingCriteriaList([choice.stopping]),
        }
        with self._evaluating():
            self._generate_ids(samples, questions, options)

    def predict_answers(
        self,
        samples: Batch,
        num_beams: int = 1,
        inference_method: str = "generate",
        max_len: int = 10,
        min_len: int = 1,
        num_ans_candidates: int = 128,
        answer_list: list[str] | None = None,
        prompt: str = "",
        length_penalty: float = 0.0,
        **kwargs: Any,
    ) -> list[str]:
        """LAVIS's question answering: generated, or (`inference_method="rank"`) the best answer of `answer_list`.

        `prompt` may contain one `{}` for the question.
        """
        questions = self._questions(samples)
        if prompt:
            questions = [prompt.format(question) for question in questions]
        prompted = {**samples, "prompt": questions}
        if inference_method == "rank":
            candidates = string_list(answer_list, "answer_list")[:num_ans_candidates]
            return [candidates[int(best)] for best in self.predict_class(prompted, candidates)[:, 0]]
        if inference_method != "generate":
            raise ValueError(f"inference_method is 'generate' or 'rank', not '{inference_method}'")
        return self.generate(
            prompted,
            use_nucleus_sampling=False,
            num_beams=num_beams,
            max_length=max_len,
            min_length=min_len,
            length_penalty=length_penalty,
            num_captions=1,
        )

    def predict_class(
        self, samples: Batch, candidates: list[str], n_segments: int = 1, rule: str = "mean"
    ) -> torch.Tensor:
        """Candidates in order, the best first.

        Args:
            samples: as for `generate`; `answer_prefix`, an optional string before every candidate.
            candidates: C answers.
            n_segments: LAVIS scores candidates in this many parts to save memory. It changes no result here.
            rule: `mean` (the default), `sum` or `calibrated`, see `score_candidates`.

        Returns:
            long [N, C], indices into `candidates`. Of equal ones, the first comes first.
        """
        if rule not in self.RULES:
            raise ValueError(f"unknown rule '{rule}'; rules are {', '.join(self.RULES)}")
        candidates = string_list(candidates, "candidates")
        segments_of(len(candidates), n_segments)  # only to refuse a wrong number
        normalize: Any = rule
        scores = self.score_candidates(samples, candidates, samples.get("answer_prefix", ""), normalize)
        return torch.argsort(scores, dim=-1, descending=True, stable=True)

    @torch.no_grad()
    def score_candidates(
        self, samples: Batch, candidates: Sequence[str], answer_prefix: str = "", normalize: Normalization = "sum"
    ) -> torch.Tensor:
        """Log-likelihood of every candidate answer; what all candidates share is computed once.

        A score depends on its image, question and candidate only: not on the batch, the other candidates or
        `model.scoring_pairs_per_pass`.

        Args:
            samples: `image` [B, 3, H, W]; `prompt` or `text_input`, N strings; `image_index` [N] optional.
            candidates: C answer strings, the same for all pairs.
            answer_prefix: what every answer begins with; its tokens are read, not scored.
            normalize: `sum` of the tokens' log-probabilities; their `mean`, so that long candidates are not at a
                disadvantage; or `calibrated`, the sum less that of the same candidate for a content-free image, one
                that is zero everywhere after normalisation. This removes the score that a candidate gets for its words
                alone. (Content-free input: Zhao et al. 2021, "Calibrate Before Use"; the difference, a pointwise
                mutual information given the question: Holtzman et al. 2021, "Surface Form Competition".)

        Returns:
            float32 [N, C], natural log. The sums divided by `candidate_lengths` are the means.

        Raises:
            ValueError: no candidates, a repeated one, one that tokenises to nothing, an unknown `normalize`, or a
                question that does not fit the context.
        """
        if normalize not in get_args(Normalization):
            raise ValueError(f"unknown normalize '{normalize}'; expected {', '.join(get_args(Normalization))}")
        tokens = self._candidate_tokens(candidates, answer_prefix)
        questions = self._questions(samples)
        scores_NC = self._candidate_sums(samples, questions, tokens)
        if normalize == "mean":
            return scores_NC / torch.tensor(tokens.num_scored(), dtype=torch.float32, device=scores_NC.device)
        if normalize == "calibrated":
            distinct = list(dict.fromkeys(questions))
            content_free = {
                "image": self._blank_images(samples),
                "image_index": torch.zeros(len(distinct), dtype=torch.long),
            }
            free_UC = self._candidate_sums(content_free, distinct, tokens)
            return scores_NC - free_UC[[distinct.index(question) for question in questions]]
        return scores_NC

    def candidate_lengths(self, candidates: Sequence[str], answer_prefix: str = "") -> torch.Tensor:
        """Number of scored tokens of each candidate, float32 [C]."""
        tokens = self._candidate_tokens(candidates, answer_prefix)
        return torch.tensor(tokens.num_scored(), dtype=torch.float32)

    def _constrain(self, options: dict[str, Any], choices: Sequence[str] | None) -> Choices | None:
        """Restrict transformers' `generate` to the choices."""
        if choices is None:
            return None
        listed = string_list(choices, "choices")
        rows = self._choice_tokens(listed)
        constraint = Choices(listed, rows, self._end_ids()[0], num_start_tokens=1 if self.is_seq2seq else 0)
        wanted, available = options["num_return_sequences"], len(constraint.choices)
        if wanted > available and options["num_beams"] > 1:
            raise ValueError(f"beam search cannot return {wanted} of {available} choices")
        options |= {
            "prefix_allowed_tokens_fn": constraint.allowed_tokens,
            "max_new_tokens": constraint.longest + 1,
            "min_new_tokens": 0,
        }
        return constraint

    def _written_part(self, row: list[int]) -> list[int]:
        return row[1:] if self.is_seq2seq else row

    def _answer_ids(self, row: list[int]) -> list[int]:
        answer = self._written_part(row)
        ends = {*self._end_ids(), self.llm_tokenizer.pad_token_id}
        return answer[: next((step for step, token in enumerate(answer) if token in ends), len(answer))]

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Eval mode inside the block, the mode before it afterwards."""
        was_training = self.training
        if was_training:
            self.train(False)
        try:
            yield
        finally:
            if was_training:
                self.train(True)

    # What a family implements

    @abstractmethod
    def train(self, mode: bool = True) -> Any:
        """Train mode or eval mode; returns the model."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the weights are."""

    def _candidate_tokens(self, candidates: Sequence[str], answer_prefix: str) -> CandidateTokens:
        """Token ids of candidates; ValueError as in `score_candidates`."""
        return candidate_tokens(self.llm_tokenizer, candidates, answer_prefix)

    def _choice_tokens(self, choices: list[str]) -> list[list[int]]:
        """Token ids of the only possible answers; ValueError if there are none, or one tokenises to nothing."""
        return candidate_tokens(self.llm_tokenizer, choices).rows

    def _blank_images(self, samples: Batch) -> Any:
        """One image without content, like the first of a batch."""
        return torch.zeros_like(samples["image"][:1])

    def _end_ids(self) -> list[int]:
        """Tokens that end an answer."""
        return [self.llm_tokenizer.eos_token_id]

    @property
    @abstractmethod
    def context_tokens(self) -> int | None:
        """How many tokens of a prompt and its answer the language model reads; None: no limit."""

    @abstractmethod
    def num_prompt_tokens(self, samples: Batch) -> list[int]:
        """Tokens that the language model reads before each of N answers, those of the image among them."""

    @abstractmethod
    def _questions(self, samples: Batch) -> list[str]:
        """The questions of a batch, whose images are checked first (ValueError)."""

    @abstractmethod
    def _generate_ids(self, samples: Batch, questions: list[str], options: dict[str, Any]) -> torch.Tensor:
        """Token ids [N * num_return_sequences, T] of transformers' `generate` with these options."""

    @abstractmethod
    def _candidate_sums(self, samples: Batch, questions: list[str], candidates: CandidateTokens) -> torch.Tensor:
        """Summed log-likelihoods of the candidates, float32 [N, C]."""


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch's generators inside the block and restore their state afterwards; None changes nothing."""
    if seed is None:
        yield
        return
    seed = _integer_seed(seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _integer_seed(seed: int | None) -> int | None:
    """The seed; ValueError if it is not an integer."""
    if seed is not None and not isinstance(seed, Integral):
        raise ValueError(f"seed should be an integer, not {seed!r}")
    return seed
