"""What reinforcement learning asks of a model: sampled answers, and the log-probability of each of their tokens.

Legend: `N` image-question pairs, `G` answers to each of them, `M` answers, `T` tokens of the longest answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from lavis_emovit.errors import ConfigError
from lavis_emovit.models.decoder import Decoder
from lavis_emovit.models.growing_cache import CACHE_KEY, growing_cache
from lavis_emovit.models.loss import log_probs_and_entropies
from lavis_emovit.models.protocol import Batch
from lavis_emovit.models.scoring import decoder_of, packed_hidden, packed_layout
from lavis_emovit.models.text import pad
from lavis_emovit.models.token_tree import TokenTree


class Sampling(ABC):
    """Sampled answers for a model with a language model of transformers; families implement the last methods."""

    @torch.no_grad()
    def sample_answers(
        self,
        samples: Batch,
        num_answers: int,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> list[list[int]]:
        """G answers to each question, drawn from the model's own distribution: `model.generation` does not count.

        An image is encoded once for all answers, and so is a question where the family allows it. Mode and random state
        are those of the caller.

        Args:
            samples: as for `generate`.
            num_answers: G.
            top_p, top_k: of each token; 1 and 0 for the whole vocabulary.

        Returns:
            N * G rows of token ids, those of a question next to each other, with the end token unless an answer was cut
            at `max_new_tokens`.
        """
        options = {
            "do_sample": True,
            "num_beams": 1,
            "num_return_sequences": num_answers,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "repetition_penalty": 1.0,
            "suppress_tokens": self._unwritten_ids() or None,
        }
        generated = self._generate_ids(samples, self._questions(samples), options).tolist()
        ends, rows = set(self._end_ids()), [self._written_part(row) for row in generated]
        return [row[: next((step + 1 for step, token in enumerate(row) if token in ends), len(row))] for row in rows]

    @abstractmethod
    def written_log_probs(
        self, samples: Batch, answers: Sequence[list[int]], question_index: Sequence[int], temperature: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each token of given answers, and the entropy of the distribution that it was drawn from.

        Args:
            samples: as for `generate`; questions are not cut, as there.
            answers: M rows of token ids, none of them empty.
            question_index: the question of each answer.
            temperature: divides the logits.

        Returns:
            both float32 [M, T], natural log, 0 behind an answer; the log-probabilities have gradients.
        """

    def decoder(self) -> Decoder:
        """The language model alone, for a program that reads `decoder_inputs`.

        Raises:
            ConfigError: it has an encoder, or needs more than embedded inputs.
        """
        raise ConfigError(["this family has no language model that reads embedded inputs alone"], "the model")

    def decoder_inputs(self, samples: Batch, max_new_tokens: int) -> list[torch.Tensor]:
        """What `decoder` reads before an answer to each of the N questions, embedded, [T, D] each.

        Raises:
            DataError: a question with an answer of `max_new_tokens` does not fit its context.
        """
        raise NotImplementedError

    def _unwritten_ids(self) -> list[int]:
        """Tokens that no answer may contain, because they stand for an image."""
        return []

    @abstractmethod
    def _questions(self, samples: Batch) -> list[str]: ...

    @abstractmethod
    def _generate_ids(self, samples: Batch, questions: list[str], options: dict[str, Any]) -> torch.Tensor: ...

    @abstractmethod
    def _end_ids(self) -> list[int]: ...

    @abstractmethod
    def _written_part(self, row: list[int]) -> list[int]:
        """A generated row without what precedes the answer."""


def packed_log_probs(
    language_model: Any,
    prefix_NQD: torch.Tensor,
    prompts: Sequence[list[int]],
    groups: Sequence[Sequence[list[int]]],
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `written_log_probs` returns, for a decoder-only model that takes packed rows (`takes_packed_rows`).

    A row is `[visual prefix][prompt][tree of its answers]`: tokens that answers have in common are computed once.

    Args:
        groups: the answers to each of the N prompts, at least one; the result has them one group after the other.
    """
    device, num_queries = prefix_NQD.device, prefix_NQD.shape[1]
    trees = [TokenTree(group) for group in groups]
    rows = [[*prompt, *(tree.tokens[node] for node in tree.inner)] for prompt, tree in zip(prompts, trees)]
    embeds_NTD = language_model.get_input_embeddings()(pad(rows, pad_id=0)[0].to(device))
    inputs_NLD = torch.cat([prefix_NQD.to(embeds_NTD.dtype), embeds_NTD], dim=1)
    starts = [num_queries + len(prompt) for prompt in prompts]
    layouts = [packed_layout(tree, [start], inputs_NLD.shape[1]) for tree, start in zip(trees, starts)]
    allowed, positions_NL = (torch.cat(parts) for parts in zip(*layouts))
    hidden_NLD = packed_hidden(language_model, inputs_NLD, allowed, positions_NL)
    # The end of a prompt and the inner nodes behind it predict the tokens of a row, S of all rows.
    read_rows = [row for row, tree in enumerate(trees) for _ in range(len(tree.inner) + 1)]
    columns = [start - 1 + slot for start, tree in zip(starts, trees) for slot in range(len(tree.inner) + 1)]
    logits_SV = language_model.get_output_embeddings()(hidden_NLD[read_rows, columns]).float() / temperature
    log_probs_SV, entropies_S = log_probs_and_entropies(logits_SV)
    begin, places, tokens, lengths = 0, list[int](), list[int](), list[int]()
    for tree in trees:
        slots = {-1: begin} | {node: begin + slot for slot, node in enumerate(tree.inner, start=1)}
        nodes = [node for path in tree.paths for node in path]
        places += [slots[tree.parents[node]] for node in nodes]
        tokens += [tree.tokens[node] for node in nodes]
        lengths += map(len, tree.paths)
        begin += len(tree.inner) + 1
    places_S, tokens_S = torch.tensor(places, device=device), torch.tensor(tokens, device=device)
    return padded_rows(log_probs_SV[places_S, tokens_S], lengths), padded_rows(entropies_S[places_S], lengths)


def generate_read_once(
    language_model: Any, inputs_NTD: torch.Tensor, mask_NT: torch.Tensor, last_ids: Sequence[int], **options: Any
) -> torch.Tensor:
    """Generated tokens of a decoder-only model, whose embedded inputs are read once for all answers to a question.

    Args:
        inputs_NTD: padded on the left.
        last_ids: the token of each last input.
        options: of transformers' `generate`; `num_return_sequences` answers are drawn without beams.
    """
    decoder, cache = decoder_of(language_model), growing_cache(language_model.config)
    decoder(inputs_embeds=inputs_NTD[:, :-1], attention_mask=mask_NT[:, :-1], use_cache=True, **{CACHE_KEY: cache})
    cache.batch_repeat_interleave(options["num_return_sequences"])
    # Of the tokens that are read already, only the number counts.
    ids_NT = torch.zeros_like(mask_NT)
    ids_NT[:, -1] = torch.tensor(last_ids, device=ids_NT.device)
    output = language_model.generate(input_ids=ids_NT, attention_mask=mask_NT, **{CACHE_KEY: cache}, **options)
    return output[:, ids_NT.shape[1] :]


def padded_rows(values_S: torch.Tensor, lengths: Sequence[int], longest: int | None = None) -> torch.Tensor:
    """Values of all tokens, one answer after the other, as rows [M, T] with zeros at the end; T is `longest`."""
    rows_MT = pad_sequence(list(values_S.split(list(lengths))), batch_first=True)
    return rows_MT if longest is None else F.pad(rows_MT, (0, longest - rows_MT.shape[1]))
