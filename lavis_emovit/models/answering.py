"""What an EmoVIT model answers: text, ranks and scores of candidates, under LAVIS's method names.

Legend: `B` images, `N` image-question pairs, `Q` query tokens, `T` text tokens, `D` width, `C` candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch

from lavis_emovit.models import text
from lavis_emovit.models.perception import Perception
from lavis_emovit.models.scoring import candidate_token_ids, score_causal, score_seq2seq


class Answering(Perception):
    """Answers of an EmoVIT model."""

    @torch.no_grad()
    def generate(
        self,
        samples: Mapping[str, Any],
        use_nucleus_sampling: bool = False,
        num_beams: int = 1,
        max_length: int = 64,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        length_penalty: float = 1.0,
        num_captions: int = 1,
        temperature: float = 1.0,
    ) -> list[str]:
        """Answers in words; greedy unless beams or sampling are asked for.

        Args:
            samples: `image` [B, 3, H, W]; `prompt` (or `text_input`), one string or N; `image_index` [N] optional.
            max_length: most new tokens.
            num_captions: answers for each question.

        Returns:
            N * num_captions strings.
        """
        questions = self._questions(samples)
        options: dict[str, Any] = {
            "do_sample": use_nucleus_sampling,
            "num_beams": num_beams,
            "max_new_tokens": max_length,
            "min_new_tokens": min_length,
            "repetition_penalty": repetition_penalty,
            "num_return_sequences": num_captions,
            "pad_token_id": self.llm_tokenizer.pad_token_id,
            "eos_token_id": self.llm_tokenizer.eos_token_id,
        }
        if use_nucleus_sampling:
            options |= {"top_p": top_p, "temperature": temperature}
        if num_beams > 1:
            options["length_penalty"] = length_penalty
        with self._evaluating():
            prefix_NQD = self._visual_prefix(samples, questions)
            if self.is_seq2seq:
                inputs, mask = self._seq2seq_inputs(prefix_NQD, questions)
            else:
                ids, prompt_mask = text.pad(self._prompt_rows(questions), self.llm_tokenizer.pad_token_id, side="left")
                embeds = self._embed(ids.to(self.device))
                query_mask = torch.ones(prefix_NQD.shape[:2], dtype=torch.long, device=self.device)
                inputs = torch.cat([prefix_NQD.to(embeds.dtype), embeds], dim=1)
                mask = torch.cat([query_mask, prompt_mask.to(self.device)], dim=1)
            ids = self.core.language_model.generate(inputs_embeds=inputs, attention_mask=mask, **options)
        return [answer.strip() for answer in self.llm_tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def predict_answers(
        self,
        samples: Mapping[str, Any],
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
        """LAVIS's question answering: in words, or (`inference_method="rank"`) the best of `answer_list`.

        `prompt` may hold one `{}` for the question.
        """
        questions = self._questions(samples)
        if prompt:
            questions = [prompt.format(question) for question in questions]
        asked = {**samples, "prompt": questions}
        if inference_method == "rank":
            if not answer_list:
                raise ValueError("inference_method 'rank' needs answer_list")
            candidates = answer_list[:num_ans_candidates]
            return [candidates[int(best)] for best in self.predict_class(asked, candidates)[:, 0]]
        if inference_method != "generate":
            raise ValueError(f"inference_method is 'generate' or 'rank', not '{inference_method}'")
        return self.generate(
            asked, num_beams=num_beams, max_length=max_len, min_length=min_len, length_penalty=length_penalty
        )

    def predict_class(self, samples: Mapping[str, Any], candidates: list[str], n_segments: int = 1) -> torch.Tensor:
        """Candidates in the order of their mean log-likelihood per token, the likeliest first.

        Args:
            samples: as for `generate`; `answer_prefix`, an optional string in front of every candidate.
            candidates: C answers.
            n_segments: accepted for LAVIS's sake; segments change nothing, the prefix is computed once.

        Returns:
            long [N, C], indices into `candidates`.
        """
        scores = self.score_candidates(samples, candidates, answer_prefix=samples.get("answer_prefix", ""))
        lengths = self.candidate_lengths(candidates, answer_prefix=samples.get("answer_prefix", ""))
        return torch.argsort(scores / lengths.to(scores.device), dim=-1, descending=True, stable=True)

    @torch.no_grad()
    def score_candidates(
        self, samples: Mapping[str, Any], candidates: list[str], answer_prefix: str = ""
    ) -> torch.Tensor:
        """Log-likelihood of every candidate answer, over one pass of what all candidates share.

        Args:
            samples: `image` [B, 3, H, W]; `prompt` or `text_input`, N strings; `image_index` [N] optional.
            candidates: C answer strings, the same for all pairs.
            answer_prefix: what every answer begins with; its tokens are read, not scored.

        Returns:
            float32 [N, C], sum of token log-probabilities (natural log). Divide by `candidate_lengths` for the mean.

        Raises:
            ValueError: no candidates, or one that tokenises to nothing.
        """
        questions = self._questions(samples)
        shared, rows = candidate_token_ids(self.llm_tokenizer, candidates, answer_prefix)
        with self._evaluating():
            prefix_NQD = self._visual_prefix(samples, questions)
            if self.is_seq2seq:
                inputs, mask = self._seq2seq_inputs(prefix_NQD, questions)
                return score_seq2seq(self.core.language_model, inputs, mask, shared, rows)
            prompts = [[*prompt, *shared] for prompt in self._prompt_rows(questions)]
            ids, mask = text.pad(prompts, self.llm_tokenizer.pad_token_id)
            return score_causal(
                self.core.language_model, prefix_NQD, self._embed(ids.to(self.device)), mask.to(self.device), rows
            )

    def candidate_lengths(self, candidates: list[str], answer_prefix: str = "") -> torch.Tensor:
        """Number of scored tokens of each candidate, float32 [C]."""
        _, rows = candidate_token_ids(self.llm_tokenizer, candidates, answer_prefix)
        return torch.tensor([len(row) for row in rows], dtype=torch.float32)

    def _evaluating(self) -> Any:
        return _EvalMode(self) if self.training else nullcontext()


class _EvalMode:
    """Eval mode inside the block, the mode before it afterwards."""

    def __init__(self, model: torch.nn.Module):
        self.model = model

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *exception: object) -> None:
        self.model.train()
