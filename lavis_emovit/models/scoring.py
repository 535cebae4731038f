"""Log-likelihood of candidate answers: all candidates of a question in one row, after one copy of what they share.

Legend: `N` image-question pairs, `Q` query tokens, `T` text tokens, `C` candidates, `K` tokens of candidates that have
to be read, `L` length of a packed row, `D` width, `V` vocabulary.

A decoder-only model reads `[Q query tokens][prompt][tree of the candidates]` in a single pass. An attention mask lets
a candidate's token see the prefix, the prompt and the earlier tokens of its own candidate; its position is the one
that it would have directly after the prompt. Keys and values of the prefix exist once; nothing is copied per candidate.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch.nn import functional as F

from lavis_emovit.models.text import pad
from lavis_emovit.models.token_tree import TokenTree

# Attention of transformers that takes a mask of any pattern.
MASKED_ATTENTION = ("sdpa", "eager")
# Tokens of candidates in one row, more than any label set has. A list of thousands of answers takes several passes,
# because attention and logits of a single row would not fit into memory.
MAX_CANDIDATE_TOKENS = 256


@dataclass(frozen=True)
class CandidateTokens:
    """Token ids of C candidate answers.

    Attributes:
        rows: all tokens of each answer, its prefix included.
        num_given: leading tokens of each row that are read and not scored.
    """

    rows: list[list[int]]
    num_given: list[int]

    def num_scored(self) -> list[int]:
        """Number of scored tokens of each candidate."""
        return [len(row) - given for row, given in zip(self.rows, self.num_given)]

    def take(self, columns: Sequence[int]) -> CandidateTokens:
        """Some of the candidates."""
        return CandidateTokens([self.rows[c] for c in columns], [self.num_given[c] for c in columns])

    def groups(self, max_tokens: int) -> list[list[int]]:
        """Columns of at most `max_tokens` tokens together, or a single longer one; sorted by their tokens."""
        groups: list[list[int]] = []
        num_tokens = 0
        for column in sorted(range(len(self.rows)), key=lambda column: self.rows[column]):
            if not groups or num_tokens + len(self.rows[column]) > max_tokens:
                groups.append([])
                num_tokens = 0
            groups[-1].append(column)
            num_tokens += len(self.rows[column])
        return groups


def candidate_tokens(
    tokenizer: Any, candidates: Sequence[str], answer_prefix: str = "", end: bool = False
) -> CandidateTokens:
    """Tokenise candidates together with the prefix, as in training: a tokenizer may join the space between them to
    either side. Tokens that a candidate shares with the prefix alone are given, the others are scored. With `end`, the
    end token belongs to the answer.

    Raises:
        ValueError: no candidates, two equal ones, or one that tokenises to nothing.
    """
    candidates = distinct_candidates(candidates)
    start = _ids(tokenizer, answer_prefix.rstrip()) if answer_prefix.strip() else []
    rows, num_given = [], []
    for candidate in candidates:
        row = _ids(tokenizer, answer_prefix + candidate)
        given = num_common(start, row)
        if len(row) == given or not candidate.strip():
            raise ValueError(f"candidate {candidate!r} tokenises to nothing")
        rows.append([*row, tokenizer.eos_token_id] if end else row)
        num_given.append(given)
    return CandidateTokens(rows, num_given)


def distinct_candidates(candidates: Any) -> list[str]:
    """Candidates as a list; ValueError if there are none, or two are equal."""
    candidates = string_list(candidates, "candidates")
    if not candidates:
        raise ValueError("no candidates to score")
    repeated = {candidate for candidate in candidates if candidates.count(candidate) > 1}
    if repeated:
        raise ValueError(f"candidate {sorted(repeated)[0]!r} is repeated")
    return candidates


def num_common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second)))


def string_list(values: Any, name: str) -> list[str]:
    """A list, a tuple or another sequence of strings as a list; ValueError for anything else."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(isinstance(one, str) for one in values):
        raise ValueError(f"{name} should be a list of strings, not {reprlib.repr(values)}")
    return list(values)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def original_losses(
    sums_NC: torch.Tensor, candidates: CandidateTokens, segments: list[tuple[int, int]], num_before: int
) -> torch.Tensor:
    """The loss of a decoder-only model by which LAVIS ranks candidates, float32 [N, C], the smaller the better.

    It is the negative log-likelihood of a candidate's tokens, without an end token, divided by the padded length of its
    row: query tokens and longest prompt of the batch (`num_before`), longest candidate of its segment, minus one. So
    short candidates have an advantage, and segments of different lengths are not comparable.
    """
    lengths_C = torch.cat(
        [torch.full((end - start,), max(map(len, candidates.rows[start:end]))) for start, end in segments]
    )
    return -sums_NC / (num_before + lengths_C - 1).to(sums_NC)


def segments_of(num_candidates: int, n_segments: int) -> list[tuple[int, int]]:
    """Starts and ends of LAVIS's segments: equally long; the last one also takes the remainder."""
    if not 1 <= n_segments <= max(num_candidates, 1):
        raise ValueError(f"n_segments is {n_segments}, expected 1 to {num_candidates}, the number of candidates")
    length = num_candidates // n_segments
    ends = [length * segment for segment in range(1, n_segments)] + [num_candidates]
    return list(zip([0, *ends], ends))


def score_causal(
    language_model: Any, prefix_NQD: torch.Tensor, prompts: list[list[int]], candidates: CandidateTokens
) -> torch.Tensor:
    """Summed log-probabilities, float32 [N, C], of C candidates after each of N rows `[visual prefix][prompt]`."""
    longest_row = prefix_NQD.shape[1] + max(len(row) for row in prompts) + max(len(row) for row in candidates.rows)
    score = _score_packed if takes_packed_rows(language_model, longest_row) else _score_repeated
    return _group_by_group(lambda group: score(language_model, prefix_NQD, prompts, group), candidates)


def _group_by_group(score: Callable[[CandidateTokens], torch.Tensor], candidates: CandidateTokens) -> torch.Tensor:
    groups = candidates.groups(MAX_CANDIDATE_TOKENS)
    scores = torch.cat([score(candidates.take(columns)) for columns in groups], dim=1)
    places = {column: place for place, column in enumerate(column for columns in groups for column in columns)}
    return scores[:, [places[column] for column in range(len(places))]]


def decoder_of(language_model: Any) -> Any:
    """The module that computes hidden states, without the output head."""
    decoder = language_model.get_decoder()
    # Older transformers return the whole model for some classes.
    return getattr(language_model, language_model.base_model_prefix) if decoder is language_model else decoder


def takes_packed_rows(language_model: Any, longest_row: int) -> bool:
    """Whether a decoder-only model can read several candidates in one row: it needs attention with any mask, positions
    as an input, and no window shorter than the row."""
    config = language_model.config
    positions = "position_ids" in inspect.signature(decoder_of(language_model).forward).parameters
    window = getattr(config, "sliding_window", None)
    return positions and config._attn_implementation in MASKED_ATTENTION and (window is None or longest_row <= window)


def _score_packed(
    language_model: Any, prefix_NQD: torch.Tensor, prompts: list[list[int]], candidates: CandidateTokens
) -> torch.Tensor:
    device, num_queries = prefix_NQD.device, prefix_NQD.shape[1]
    tree = TokenTree(candidates.rows)
    inner_tokens = [tree.tokens[node] for node in tree.inner]
    ids, _ = pad([[*prompt, *inner_tokens] for prompt in prompts], pad_id=0)
    embeds_NTD = language_model.get_input_embeddings()(ids.to(device))
    inputs_NLD = torch.cat([prefix_NQD.to(embeds_NTD.dtype), embeds_NTD], dim=1)
    starts = [num_queries + len(prompt) for prompt in prompts]
    allowed, positions_NL = packed_layout(tree, starts, inputs_NLD.shape[1])
    hidden_NLD = packed_hidden(language_model, inputs_NLD, allowed, positions_NL)

    # Slot 0 is the end of the prompt, slot i + 1 the inner node i: they predict the nodes after them.
    slots = {-1: 0} | {node: slot + 1 for slot, node in enumerate(tree.inner)}
    scored_paths = [path[given:] for path, given in zip(tree.paths, candidates.num_given)]
    nodes = sorted({node for path in scored_paths for node in path})
    parents = sorted({slots[tree.parents[node]] for node in nodes})
    where_NM = torch.tensor(starts, device=device)[:, None] - 1 + torch.tensor(parents, device=device)
    hidden_NMD = hidden_NLD[torch.arange(len(prompts), device=device)[:, None], where_NM]
    logits_NMV = language_model.get_output_embeddings()(hidden_NMD).float()
    columns = {slot: column for column, slot in enumerate(parents)}
    node_columns = torch.tensor([columns[slots[tree.parents[node]]] for node in nodes], device=device)
    node_tokens = torch.tensor([tree.tokens[node] for node in nodes], device=device)
    scores_N_nodes = logits_NMV[:, node_columns, node_tokens] - logits_NMV.logsumexp(dim=-1)[:, node_columns]
    order = {node: index for index, node in enumerate(nodes)}
    path_CT, mask_CT = (t.to(device) for t in pad([[order[node] for node in path] for path in scored_paths], pad_id=0))
    return (scores_N_nodes[:, path_CT] * mask_CT).sum(dim=-1)


def packed_hidden(
    language_model: Any, inputs_NLD: torch.Tensor, allowed: torch.Tensor, positions_NL: torch.Tensor
) -> torch.Tensor:
    """Hidden states [N, L, D] of embedded rows in the layout of `packed_layout`."""
    return decoder_of(language_model)(
        inputs_embeds=inputs_NLD,
        attention_mask=_additive(allowed, inputs_NLD.dtype, inputs_NLD.device),
        position_ids=positions_NL.to(inputs_NLD.device),
        use_cache=False,
    ).last_hidden_state


def packed_layout(tree: TokenTree, starts: list[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Allowed attention, bool [N, 1, L, L], and positions, long [N, L], of rows whose candidates begin at `starts`."""
    ancestry_KK = tree.inner_ancestry()
    depths_K = torch.tensor([tree.depths[node] for node in tree.inner], dtype=torch.long)
    num_inner = len(tree.inner)
    distinct = sorted(set(starts))
    allowed = torch.ones(length, length, dtype=torch.bool).tril().repeat(len(distinct), 1, 1)
    positions = torch.arange(length).repeat(len(distinct), 1)
    for row, start in enumerate(distinct):
        # What padding at the end attends to does not matter: nothing attends to it.
        end = start + num_inner
        allowed[row, start:end, start:end] = ancestry_KK
        positions[row, start:end] = start - 1 + depths_K
        positions[row, end:] = 0
    if len(distinct) == 1:
        return allowed[None].expand(len(starts), -1, -1, -1), positions.expand(len(starts), -1)
    pick = torch.tensor([distinct.index(start) for start in starts])
    return allowed[pick][:, None], positions[pick]


def _additive(allowed: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """0 where attention is allowed, elsewhere the smallest finite number; every kind of attention adds it."""
    same = allowed.stride(0) == 0
    rows = allowed[:1] if same else allowed
    mask = torch.zeros(rows.shape, dtype=dtype, device=device)
    mask.masked_fill_(~rows.to(device), torch.finfo(dtype).min)
    return mask.expand(allowed.shape) if same else mask


def _score_repeated(
    language_model: Any, prefix_NQD: torch.Tensor, prompts: list[list[int]], candidates: CandidateTokens
) -> torch.Tensor:
    """The same with one row per candidate over a repeated cache, for attention that does not support any mask."""
    device, num_pairs, num_candidates = prefix_NQD.device, len(prompts), len(candidates.rows)
    embed, decoder = language_model.get_input_embeddings(), decoder_of(language_model)
    takes_positions = "position_ids" in inspect.signature(decoder.forward).parameters
    # Padding comes first: between a prompt and its answer it would count as distance in windowed attention.
    ids, prompt_mask = (tensor.to(device) for tensor in pad(prompts, pad_id=0, side="left"))
    embeds = embed(ids)
    rows = [
        torch.cat([padded[: len(padded) - len(prompt)], prefix.to(padded.dtype), padded[len(padded) - len(prompt) :]])
        for padded, prefix, prompt in zip(embeds, prefix_NQD, prompts)
    ]
    mask_NT = torch.cat([prompt_mask, prompt_mask.new_ones(prefix_NQD.shape[:2])], dim=1)
    positions_NT = mask_NT.cumsum(dim=1) - 1
    prefill = decoder(
        inputs_embeds=torch.stack(rows),
        attention_mask=mask_NT,
        use_cache=True,
        **({"position_ids": positions_NT.clamp(min=0)} if takes_positions else {}),
    )
    head = language_model.get_output_embeddings()
    last_ND = prefill.last_hidden_state[:, -1]
    rows_CT, mask_CT = (tensor.to(device) for tensor in pad(candidates.rows, pad_id=0))
    scored_CT = _scored(candidates, mask_CT)
    first_NV = F.log_softmax(head(last_ND).float(), dim=-1)
    scores_NC = first_NV[:, rows_CT[:, 0]] * scored_CT[:, 0]
    if rows_CT.shape[1] == 1:
        return scores_NC

    cache = prefill.past_key_values
    cache.batch_repeat_interleave(num_candidates)
    read = rows_CT[:, :-1].repeat(num_pairs, 1)
    steps = torch.arange(1, read.shape[1] + 1, device=device)
    positions = positions_NT[:, -1:].repeat_interleave(num_candidates, dim=0) + steps
    hidden = decoder(
        inputs_embeds=embed(read),
        attention_mask=torch.cat(
            [mask_NT.repeat_interleave(num_candidates, dim=0), mask_CT[:, :-1].repeat(num_pairs, 1)], dim=1
        ),
        past_key_values=cache,
        use_cache=True,
        **({"position_ids": positions} if takes_positions else {}),
    ).last_hidden_state
    log_probs = F.log_softmax(head(hidden).float(), dim=-1)
    targets = rows_CT[:, 1:].repeat(num_pairs, 1)
    token_scores = log_probs.gather(-1, targets[..., None])[..., 0] * scored_CT[:, 1:].repeat(num_pairs, 1)
    return scores_NC + token_scores.sum(dim=1).view(num_pairs, num_candidates)


def _scored(candidates: CandidateTokens, mask_CT: torch.Tensor) -> torch.Tensor:
    """1 at the tokens that count, [C, T]."""
    steps = torch.arange(mask_CT.shape[1], device=mask_CT.device)
    return mask_CT * (steps >= torch.tensor(candidates.num_given, device=mask_CT.device)[:, None])


def score_seq2seq(
    language_model: Any, inputs_NTD: torch.Tensor, mask_NT: torch.Tensor, candidates: CandidateTokens
) -> torch.Tensor:
    """Summed log-probabilities, float32 [N, C], of C candidates with an encoder-decoder, whose encoder runs once over
    the embedded inputs, visual prefix and prompt; the mask is 1 for real positions."""
    encoded = language_model.get_encoder()(inputs_embeds=inputs_NTD, attention_mask=mask_NT)
    score = _score_answers_packed if _takes_packed_answers(language_model) else _score_answers_repeated
    return _group_by_group(lambda group: score(language_model, encoded, mask_NT, group), candidates)


def _takes_packed_answers(language_model: Any) -> bool:
    """Whether a decoder can read several answers in one row: its positions must be relative, as in T5."""
    config = language_model.config
    return hasattr(config, "relative_attention_num_buckets") and config._attn_implementation in MASKED_ATTENTION


def _score_answers_packed(
    language_model: Any, encoded: Any, mask_NT: torch.Tensor, candidates: CandidateTokens
) -> torch.Tensor:
    # Answers follow each other and attend to themselves only. Distances inside an answer are the same as in a separate
    # row, so relative positions stay correct; a tree would change them.
    device, num_pairs = mask_NT.device, mask_NT.shape[0]
    lengths = [len(row) for row in candidates.rows]
    total = sum(lengths)
    labels_C = [torch.tensor([row], device=device) for row in candidates.rows]
    read = torch.cat([language_model.prepare_decoder_input_ids_from_labels(labels=row) for row in labels_C], dim=1)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    allowed = (owner[:, None] == owner) & torch.ones(total, total, dtype=torch.bool).tril()
    dtype = encoded.last_hidden_state.dtype
    logits = language_model(
        encoder_outputs=encoded,
        attention_mask=mask_NT,
        decoder_input_ids=read.expand(num_pairs, -1),
        decoder_attention_mask=_additive(allowed.expand(num_pairs, 1, total, total), dtype, device),
        use_cache=False,
    ).logits.float()
    targets = torch.cat(labels_C, dim=1).expand(num_pairs, -1)
    scores = logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(dim=-1)
    scored = [step >= given for row, given in zip(candidates.rows, candidates.num_given) for step in range(len(row))]
    scores = scores * torch.tensor(scored, device=device)
    return torch.stack([part.sum(dim=1) for part in scores.split(lengths, dim=1)], dim=1)


def _score_answers_repeated(
    language_model: Any, encoded: Any, mask_NT: torch.Tensor, candidates: CandidateTokens
) -> torch.Tensor:
    num_pairs, num_candidates = mask_NT.shape[0], len(candidates.rows)
    repeated = type(encoded)(last_hidden_state=encoded.last_hidden_state.repeat_interleave(num_candidates, dim=0))
    rows_CT, mask_CT = (tensor.to(mask_NT.device) for tensor in pad(candidates.rows, pad_id=0))
    labels = rows_CT.repeat(num_pairs, 1)
    logits = language_model(
        encoder_outputs=repeated,
        attention_mask=mask_NT.repeat_interleave(num_candidates, dim=0),
        decoder_input_ids=language_model.prepare_decoder_input_ids_from_labels(labels=labels),
        use_cache=False,
    ).logits
    token_scores = F.log_softmax(logits.float(), dim=-1).gather(-1, labels[..., None])[..., 0]
    scored = _scored(candidates, mask_CT).repeat(num_pairs, 1)
    return (token_scores * scored).sum(dim=1).view(num_pairs, num_candidates)
