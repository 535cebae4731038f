"""What an EmoVIT model answers, under LAVIS's method names: scores and ranks of candidates, answers to questions.

Legend: `B` images, `N` image-question pairs, `Q` query tokens, `D` width, `C` candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from lavis_emovit.models.instructblip.generating import Generating
from lavis_emovit.models.scoring import CandidateTokens, candidate_tokens, score_causal, score_seq2seq

NORMALIZATIONS = ("sum", "mean", "calibrated")
RULES = (*NORMALIZATIONS, "original")
Normalization = Literal["sum", "mean", "calibrated"]
Rule = Literal["sum", "mean", "calibrated", "original"]


class Answering(Generating):
    """Answers of an EmoVIT model."""

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
        questions = self._asked(samples)
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
            asked,
            use_nucleus_sampling=False,
            num_beams=num_beams,
            max_length=max_len,
            min_length=min_len,
            length_penalty=length_penalty,
            num_captions=1,
        )

    def predict_class(
        self, samples: Mapping[str, Any], candidates: list[str], n_segments: int = 1, rule: Rule = "mean"
    ) -> torch.Tensor:
        """Candidates in order, the best first.

        Args:
            samples: as for `generate`; `answer_prefix`, an optional string in front of every candidate.
            candidates: C answers.
            n_segments: parts that LAVIS scores candidates in to save memory. Here they change nothing, except under
                the rule `original`.
            rule: `mean` (the default), `sum` or `calibrated`, see `score_candidates`; `original` for LAVIS's own
                order, see `original_candidate_losses`, which knows no `answer_prefix`.

        Returns:
            long [N, C], indices into `candidates`. Of equals the first comes first.

        Raises:
            ValueError: an unknown rule, as many segments as cannot be, or what `score_candidates` refuses.
        """
        if rule not in RULES:
            raise ValueError(f"unknown rule '{rule}'; rules are {', '.join(RULES)}")
        if rule == "original":
            if samples.get("answer_prefix"):
                raise ValueError("rule 'original' knows no answer_prefix; write it into the prompt or the candidates")
            return torch.argsort(self.original_candidate_losses(samples, candidates, n_segments), dim=-1, stable=True)
        _segments(len(candidates), n_segments)
        scores = self.score_candidates(samples, candidates, samples.get("answer_prefix", ""), normalize=rule)
        return torch.argsort(scores, dim=-1, descending=True, stable=True)

    @torch.no_grad()
    def score_candidates(
        self,
        samples: Mapping[str, Any],
        candidates: list[str],
        answer_prefix: str = "",
        normalize: Normalization = "sum",
    ) -> torch.Tensor:
        """Log-likelihood of every candidate answer, over one pass of what all candidates share.

        A score depends on its picture, question and candidate only: not on the batch, the other candidates or
        `model.scoring_pairs_per_pass`.

        Args:
            samples: `image` [B, 3, H, W]; `prompt` or `text_input`, N strings; `image_index` [N] optional.
            candidates: C answer strings, the same for all pairs.
            answer_prefix: what every answer begins with; its tokens are read, not scored.
            normalize: `sum` of the tokens' log-probabilities; their `mean`, so that long candidates are not at a
                disadvantage; or `calibrated`, the sum less that of the same candidate behind the same question about
                a content-free picture, one that is zero everywhere after normalisation. What a candidate has for its
                words alone drops out. (Content-free input: Zhao et al. 2021, "Calibrate Before Use"; the difference,
                a pointwise mutual information given the question: Holtzman et al. 2021, "Surface Form Competition".)

        Returns:
            float32 [N, C], natural log. The sums divided by `candidate_lengths` are the means.

        Raises:
            ValueError: no candidates, a repeated one, one that tokenises to nothing, an unknown `normalize`, or a
                question that does not fit the context.
        """
        if normalize not in NORMALIZATIONS:
            raise ValueError(f"unknown normalize '{normalize}'; there are {', '.join(NORMALIZATIONS)}")
        tokens = candidate_tokens(self.llm_tokenizer, candidates, answer_prefix)
        questions = self._asked(samples)
        scores_NC = self._candidate_sums(samples, questions, tokens)
        if normalize == "mean":
            return scores_NC / torch.tensor(tokens.num_scored(), dtype=torch.float32, device=scores_NC.device)
        if normalize == "calibrated":
            distinct = list(dict.fromkeys(questions))
            blank = torch.zeros_like(samples["image"][:1])
            content_free = {"image": blank, "image_index": torch.zeros(len(distinct), dtype=torch.long)}
            free_UC = self._candidate_sums(content_free, distinct, tokens)
            return scores_NC - free_UC[[distinct.index(question) for question in questions]]
        return scores_NC

    @torch.no_grad()
    def original_candidate_losses(
        self, samples: Mapping[str, Any], candidates: list[str], n_segments: int = 1
    ) -> torch.Tensor:
        """The losses that LAVIS ranks candidates by; kept to compare with results of the original code.

        Decoder-only: the summed negative log-likelihood of a candidate's tokens, without an end token, over the padded
        length of its row: query tokens, longest prompt of the batch, longest candidate of its segment, less one. So a
        short candidate has the advantage, and segments of different lengths do not compare. Encoder-decoder: the sum
        with the end token, not divided.

        Args:
            samples: as for `generate`.
            candidates: C answers.
            n_segments: parts of the candidates that LAVIS pads each on its own; the last takes what is left over.

        Returns:
            float32 [N, C], the smaller the better.
        """
        tokens = candidate_tokens(self.llm_tokenizer, candidates, end=self.is_seq2seq)
        segments = _segments(len(candidates), n_segments)
        questions = self._asked(samples)
        sums_NC = self._candidate_sums(samples, questions, tokens)
        if self.is_seq2seq:
            return -sums_NC
        lengths_C = torch.cat(
            [torch.full((end - start,), max(map(len, tokens.rows[start:end]))) for start, end in segments]
        )
        longest_prompt = max(len(row) for row in self._full_prompt_rows(questions))
        # A video's query tokens stand one behind the other, frame by frame.
        num_frames = samples["image"].shape[2] if samples["image"].dim() == 5 else 1
        num_queries = num_frames * self.core.query_tokens.shape[1]
        return -sums_NC / (num_queries + longest_prompt + lengths_C - 1).to(sums_NC)

    def candidate_lengths(self, candidates: list[str], answer_prefix: str = "") -> torch.Tensor:
        """Number of scored tokens of each candidate, float32 [C]."""
        return torch.tensor(
            candidate_tokens(self.llm_tokenizer, candidates, answer_prefix).num_scored(), dtype=torch.float32
        )

    def _candidate_sums(
        self, samples: Mapping[str, Any], questions: list[str], candidates: CandidateTokens
    ) -> torch.Tensor:
        """Summed log-likelihoods [N, C], a few pairs at a time."""
        with self._evaluating():
            prefix_NQD = self._visual_prefix(samples, questions)
            prompts = self._full_prompt_rows(questions)
            self._check_context(questions, prompts, prefix_NQD.shape[1], max(len(row) for row in candidates.rows))
            # Questions of like length go together, so that little padding is computed.
            order = sorted(range(len(prompts)), key=lambda pair: len(prompts[pair]))
            size = self.settings.scoring_pairs_per_pass
            parts = []
            for pairs in (order[start : start + size] for start in range(0, len(order), size)):
                prefix, rows = prefix_NQD[pairs], [prompts[pair] for pair in pairs]
                if self.is_seq2seq:
                    inputs, mask = self._language_inputs(prefix, rows)
                    parts.append(score_seq2seq(self.core.language_model, inputs, mask, candidates))
                else:
                    parts.append(score_causal(self.core.language_model, prefix, rows, candidates))
        places = torch.empty(len(order), dtype=torch.long)
        places[order] = torch.arange(len(order))
        return torch.cat(parts)[places.to(self.device)]


def _segments(num_candidates: int, n_segments: int) -> list[tuple[int, int]]:
    """Where LAVIS's segments begin and end: equally long, the last takes what is left over."""
    if not 1 <= n_segments <= max(num_candidates, 1):
        raise ValueError(f"n_segments is {n_segments}, expected 1 to {num_candidates}, the number of candidates")
    length = num_candidates // n_segments
    ends = [length * segment for segment in range(1, n_segments)] + [num_candidates]
    return list(zip([0, *ends], ends))
