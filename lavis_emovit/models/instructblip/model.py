"""EmoVIT: a frozen image encoder, an instruction-aware Q-Former that is trained, a frozen language model.

Legend: `B` images, `F` frames of an image that is a clip, `N` image-question pairs, `P` image patches (with the class
token), `Q` query tokens (of all frames, if an image has several), `T` text tokens, `D` width, `C` candidates.

The modules are transformers' InstructBLIP. This class adds what LAVIS expects of a model, a loss on answers only, one
encoding per image for all of its questions, and candidate scoring. Every module runs in its own precision and its
inputs are cast to it, so frozen weights in half precision work beside trained float32 ones, with and without autocast.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import InstructBlipConfig

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models import text, trained_parts
from lavis_emovit.models.answering import Answering
from lavis_emovit.models.base import BaseEmotionModel, FoundWeights, blank_batch
from lavis_emovit.models.decoder import Decoder, whole_decoder
from lavis_emovit.models.instructblip import image_encoder, parts, shapes
from lavis_emovit.models.instructblip.attention import attention_means, reading_images, share_keys_and_values
from lavis_emovit.models.instructblip.checks import check_context, check_images, image_index_of, num_images_of
from lavis_emovit.models.instructblip.flops import InstructBlipFlops
from lavis_emovit.models.instructblip.frames import FrameReader
from lavis_emovit.models.instructblip.lavis_format import from_lavis
from lavis_emovit.models.instructblip.loading import LLM, LoadedParts, empty_core, load_parts, load_vision
from lavis_emovit.models.instructblip.pickled import read_state_dict
from lavis_emovit.models.instructblip.settings import TRAINED_PARTS, ModelSettings, QFormerSettings
from lavis_emovit.models.instructblip.weights import check_weights, environment_variable, find_weights
from lavis_emovit.models.lengths import PassSizes, in_given_order, longer_than, positions_of
from lavis_emovit.models.loss import answer_log_probs, answer_loss, answer_losses, sampled_log_probs
from lavis_emovit.models.protocol import AnswerLoss, Batch
from lavis_emovit.models.sampling import generate_read_once, packed_log_probs, padded_rows
from lavis_emovit.models.scoring import (
    CandidateTokens,
    candidate_tokens,
    original_losses,
    score_causal,
    score_seq2seq,
    segments_of,
    takes_packed_rows,
)
from lavis_emovit.models.step_memory import StepLoad, StepMemory
from lavis_emovit.models.tensors import check_fit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pairs:
    """The pairs of a training batch, up to the language model.

    Attributes:
        questions: N strings.
        prompts, answers: N rows of token ids, answers with their end token.
        prefix: [N, Q, D], what the language model reads before the prompts.
        lengths: positions of each pair in the language model; (encoder, decoder) if it has both.
        groups: numbers of the pairs that run together.
    """

    questions: list[str]
    prompts: list[list[int]]
    answers: list[list[int]]
    prefix: torch.Tensor
    lengths: list[tuple[int, ...]]
    groups: list[list[int]]

    @property
    def num_answer_tokens(self) -> int:
        return sum(map(len, self.answers))


class EmoVIT(BaseEmotionModel):
    """The InstructBLIP family: the model behind every registered `emovit_*` name."""

    PART_NAMES = TRAINED_PARTS
    PART_PREFIXES = parts.PART_PREFIXES
    ANSWER_SETTINGS = ("image_size", "max_txt_len", "prompt", "qformer_text_input", "frozen_precision")
    RULES = (*Answering.RULES, "original")
    pool = staticmethod(image_encoder.pool)
    settings_class: ClassVar[type[QFormerSettings]] = ModelSettings
    settings: QFormerSettings

    def __init__(self, loaded: LoadedParts, settings: QFormerSettings):
        room = loaded.core.config.qformer_config.max_position_embeddings
        if settings.qformer_text_input and settings.max_txt_len > room:
            raise ConfigError(
                [f"model.max_txt_len: {settings.max_txt_len} tokens, the Q-Former has {room} positions for text"],
                "the model configuration",
            )
        if settings.frames is not None:
            # Inside the Q-Former: it is trained, saved and loaded with it.
            loaded.core.qformer.frames = FrameReader(settings.frames, loaded.core.config.qformer_config)
        share_keys_and_values(loaded.core.qformer)
        is_seq2seq = not loaded.core.config.use_decoder_only_language_model
        super().__init__(loaded.core, settings, loaded.llm_tokenizer, is_seq2seq)
        self.qformer_tokenizer = loaded.qformer_tokenizer

    @classmethod
    def check_weights(cls, settings: ModelSettings) -> str | None:
        return check_weights(settings)

    @classmethod
    def find_weights(cls, settings: ModelSettings) -> FoundWeights:
        source = find_weights(settings)
        if source.present:
            return FoundWeights(True, source.location)
        if source.kind == "hub":
            detail = f"{source.location}, not on this machine, downloaded on first use"
            return FoundWeights(False, detail, f"hf download {source.location}")
        return FoundWeights(False, f"{source.location}, missing", f"set {environment_variable(settings.arch)}")

    @classmethod
    def from_settings(cls, settings: ModelSettings) -> EmoVIT:
        """Load the weights that the settings name."""
        return cls(load_parts(settings), settings)

    @classmethod
    def image_encoder_of(cls, settings: ModelSettings) -> image_encoder.InstructBlipImageEncoder | None:
        if cls.encode_images is not EmoVIT.encode_images:
            return None  # a family with another encoder
        return image_encoder.InstructBlipImageEncoder(load_vision(settings), settings)

    @classmethod
    def step_memory(cls, settings: ModelSettings, load: StepLoad, amp: str) -> StepMemory:
        return shapes.step_memory(cls, settings, load, amp)

    @classmethod
    def sizes_json(cls, settings: Any) -> str:
        """Sizes of the parts as JSON, without weights; ConfigError if they are unknown."""
        return shapes.find_config(settings).to_json_string()

    @classmethod
    def empty_core(cls, sizes_json: str, settings: Any) -> Any:
        """The modules without values."""
        return empty_core(InstructBlipConfig.from_dict(json.loads(sizes_json)), settings.attention)

    # Training: from a batch to its loss

    def answer_loss(self, samples: Batch, by_pair: bool = False) -> AnswerLoss:
        """Loss on the answers' tokens.

        Pairs of similar length run together (`model.group_by_length`), which changes the loss by rounding only.

        Args:
            samples: `image` float [B, 3, H, W] or [B, 3, F, H, W]; `image_index` long [N] (default: one question per
                image); `text_input` and `text_output`, N strings each.
            by_pair: also return `pair_losses`.

        Returns:
            the sum over supervised tokens. Its `noted` has `num_truncated_questions` (cut to `max_txt_len` for the
            language model or the Q-Former), `num_truncated_answers` (cut to `max_output_txt_len`) and
            `num_unsupervised` (an empty answer: only its end token is learned).

        Raises:
            ValueError: the batch is empty, or shapes, types or numbers of images, questions and answers are wrong.
        """
        pairs = self._read_pairs(samples)
        loss_sum = self._prefix_loss(pairs)
        of_groups = []
        for group in pairs.groups:
            inputs = self._answer_inputs(pairs, group)
            if by_pair:
                lengths = [len(pairs.answers[pair]) for pair in group]
                group_loss, means = answer_losses(self.core.language_model, lengths=lengths, **inputs)
                of_groups.append(means)
            else:
                group_loss = answer_loss(self.core.language_model, **inputs)
            loss_sum = loss_sum + group_loss
        pair_losses = in_given_order(of_groups, pairs.groups) if by_pair else None
        sizes = self._sizes(pairs, samples)
        return AnswerLoss(loss_sum, pairs.num_answer_tokens, self._note_texts(pairs), sizes, pair_losses)

    def _prefix_loss(self, pairs: _Pairs) -> torch.Tensor:
        """A loss on the visual prefix alone, summed as that of the answers is; none here."""
        return pairs.prefix.new_zeros((), dtype=torch.float32)

    def answer_log_probs(self, samples: Batch) -> torch.Tensor:
        """Summed log-probability of each pair's own answer with its end token, float32 [N]; arguments as `answer_loss`.

        An answer is cut to `max_output_txt_len`, as in training. Minus the sum of the result is `loss_sum`.
        """
        pairs = self._read_pairs(samples)
        language_model = self.core.language_model
        log_probs = [answer_log_probs(language_model, **self._answer_inputs(pairs, group)) for group in pairs.groups]
        return in_given_order(log_probs, pairs.groups)

    def written_log_probs(
        self, samples: Batch, answers: Sequence[list[int]], question_index: Sequence[int], temperature: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        questions = self._questions(samples)
        prompts, prefix_NQD = self._whole_prompts(questions), self._visual_prefix(samples, questions)
        longest_row = prefix_NQD.shape[1] + max(map(len, prompts)) + sum(map(len, answers))
        language_model = self.core.language_model
        if not self.is_seq2seq and takes_packed_rows(language_model, longest_row):
            shown = sorted(set(question_index))
            places = [[n for n, place in enumerate(question_index) if place == question] for question in shown]
            found = packed_log_probs(
                language_model,
                prefix_NQD[shown],
                [prompts[question] for question in shown],
                [[answers[number] for number in group] for group in places],
                temperature,
            )
            order = [number for group in places for number in group]
            log_probs, entropies = (in_given_order([values], [order]) for values in found)
            return log_probs, entropies
        of_answers = [prompts[place] for place in question_index]
        pairs = self._join_pairs(questions, of_answers, list(answers), prefix_NQD[list(question_index)])
        longest, parts = max(map(len, answers)), []
        for group in pairs.groups:
            inputs = self._answer_inputs(pairs, group)
            places = (inputs.pop("labels_NT") != text.IGNORED).nonzero().tolist()
            tokens = [token for pair in group for token in pairs.answers[pair]]
            found = sampled_log_probs(language_model, places, tokens, temperature, (), **inputs)
            lengths = [len(pairs.answers[pair]) for pair in group]
            parts.append([padded_rows(values_S, lengths, longest) for values_S in found])
        log_probs, entropies = (in_given_order(some, pairs.groups) for some in zip(*parts))
        return log_probs, entropies

    def num_answer_tokens(self, samples: Batch) -> int:
        answers = list(samples["text_output"])
        return sum(map(len, text.encode_answers(self.llm_tokenizer, answers, self.settings.max_output_txt_len)))

    def _read_pairs(self, samples: Batch) -> _Pairs:
        questions = self._questions(samples)
        wanted = text.read_answers(samples, len(questions))
        prompts = self._encode_prompts(questions, self.settings.max_txt_len)
        answers = text.encode_answers(self.llm_tokenizer, wanted, self.settings.max_output_txt_len)
        return self._join_pairs(questions, prompts, answers, self._visual_prefix(samples, questions))

    def _join_pairs(
        self, questions: list[str], prompts: list[list[int]], answers: list[list[int]], prefix_NQD: torch.Tensor
    ) -> _Pairs:
        sides = [(prefix_NQD.shape[1] + len(prompt), len(answer)) for prompt, answer in zip(prompts, answers)]
        lengths: list[tuple[int, ...]] = list(sides) if self.is_seq2seq else [(sum(pair),) for pair in sides]
        return _Pairs(questions, prompts, answers, prefix_NQD, lengths, self._groups(lengths))

    def _visual_prefix(self, samples: Batch, questions: list[str]) -> torch.Tensor:
        """Images read with their questions, [N, Q, D]: the prefix of the text in the language model."""
        index = image_index_of(samples, len(questions))
        return self.query_images(self.encode_images(samples["image"].to(self.device)), index, questions)

    def encode_images(self, image: torch.Tensor) -> torch.Tensor:
        """Image features after the layer norm.

        Positional embeddings are interpolated (bicubic) if `model.image_size` differs from the size of the weights.

        Args:
            image: float [B, 3, H, W], normalised; or clips [B, 3, F, H, W], whose frames are encoded separately.

        Returns:
            [B, P, D of the encoder], or [B, F, P, D].

        Raises:
            ValueError: the tensor is not a batch of images of the model's size, or, in evaluation, contains NaN.
        """
        # In training the loss is checked, and checking pixels would make the host wait for the device in every step.
        check_images(image, self.settings.image_size, finite=not self.training)
        self._check_autocast(image.device.type)
        return image_encoder.encode_images(self.core.vision_model, image, self.settings.image_size)

    def query_images(self, embeds: torch.Tensor, image_index: torch.Tensor, questions: list[str]) -> torch.Tensor:
        """The Q-Former's output for each pair of image and question, projected to the language model.

        Args:
            embeds: from `encode_images`, [B, P, D] or [B, F, P, D].
            image_index: long [N], the image of each question.

        Returns:
            [N, Q, D of the language model]; the query tokens of all frames in a row, unless `model.frames` pools them.
        """
        embeds_BFPD = (embeds if embeds.dim() == 4 else embeds[:, None]).to(self.core.qformer.dtype)
        rows: list[list[int]] = [[] for _ in questions]
        if self.settings.qformer_text_input:
            cut: dict[str, Any] = {"truncation": True, "max_length": self.settings.max_txt_len}
            rows = self.qformer_tokenizer(questions, **cut)["input_ids"]
        num_queries = self.core.query_tokens.shape[1]
        groups = self._groups([[num_queries + len(row)] for row in rows])
        image_of, outputs = image_index.tolist(), []
        for group in groups:
            shown = sorted({image_of[number] for number in group})
            embeds_SFPD = embeds_BFPD if len(shown) == len(embeds_BFPD) else embeds_BFPD[shown]
            index = [shown.index(image_of[number]) for number in group]
            outputs.append(self._run_qformer(embeds_SFPD, index, [rows[number] for number in group]))
        projection = self.core.language_projection
        return projection(in_given_order(outputs, groups).to(projection.weight.dtype))

    def _run_qformer(self, embeds_BFPD: torch.Tensor, index: list[int], rows: list[list[int]]) -> torch.Tensor:
        """Query tokens of N questions, each read with its clip, of which `index` has the number: [N, Q, D]."""
        num_clips, num_frames = embeds_BFPD.shape[:2]
        # Every frame is read separately, with the question of its clip.
        embeds = embeds_BFPD.flatten(0, 1)
        frames_BF = torch.arange(num_clips * num_frames).view(num_clips, num_frames)
        image_of_row = frames_BF[index].flatten().to(embeds.device)
        queries = self._queries(embeds)[image_of_row]
        ids = mask = None
        if self.settings.qformer_text_input:
            ids, text_mask = (
                tensor.repeat_interleave(num_frames, dim=0).to(embeds.device)
                for tensor in text.pad(rows, self.qformer_tokenizer.pad_token_id)
            )
            mask = torch.cat([text_mask.new_ones(queries.shape[:2]), text_mask], dim=1)
        with reading_images(image_of_row):
            hidden = self.core.qformer(
                input_ids=ids, attention_mask=mask, query_embeds=queries, encoder_hidden_states=embeds
            ).last_hidden_state[:, : queries.shape[1]]
        read_NFQD = hidden.unflatten(0, (len(index), num_frames))
        return self.core.qformer.frames(read_NFQD) if self.settings.frames is not None else read_NFQD.flatten(1, 2)

    @torch.no_grad()
    def query_attention(self, samples: Batch) -> torch.Tensor:
        """See `EmotionModel.query_attention`; the mean over layers, heads and query tokens."""
        questions = self._questions(samples)
        if len(questions) != 1:
            raise ValueError(f"attention is shown for one question, not {len(questions)}")
        with self._evaluating(), attention_means(self.core.qformer) as found:
            self._visual_prefix(samples, questions)
        patches_P = self._of_patches(torch.stack(found).mean(dim=0))
        return patches_P.view(math.isqrt(len(patches_P)), -1)

    def _of_patches(self, values_P: torch.Tensor) -> torch.Tensor:
        """Those of the values for image features that belong to a place in the image."""
        return values_P[1:]  # without the class token

    def _queries(self, embeds_NPD: torch.Tensor) -> torch.Tensor:
        """The Q-Former's query tokens [N, queries, D] for N images."""
        return self.core.query_tokens.expand(len(embeds_NPD), -1, -1)

    def _answer_inputs(self, pairs: _Pairs, group: list[int]) -> dict[str, Any]:
        """Labels [N, T] and inputs of the language model for the pairs of a group."""
        prefix_NQD = pairs.prefix if len(group) == len(pairs.prompts) else pairs.prefix[group]
        prompts, answers = [pairs.prompts[pair] for pair in group], [pairs.answers[pair] for pair in group]
        if self.is_seq2seq:
            inputs, mask = self._language_inputs(prefix_NQD, prompts)
            labels_NT, _ = text.pad(answers, text.IGNORED)
            decoder_input = self.core.language_model.prepare_decoder_input_ids_from_labels
            return {
                "labels_NT": labels_NT,
                "inputs_embeds": inputs,
                "attention_mask": mask,
                "decoder_input_ids": decoder_input(labels=labels_NT.to(self.device)),
            }
        batch = text.join_prompts_and_answers(prompts, answers, self.llm_tokenizer.pad_token_id)
        embeds = self.core.get_input_embeddings()(batch.input_ids.to(self.device))
        return {
            # Position t predicts token t + 1; the query tokens come first and the last position predicts nothing.
            "labels_NT": F.pad(batch.labels, (prefix_NQD.shape[1] - 1, 1), value=text.IGNORED),
            # Padding comes last, where a causal model cannot see it: a mask would only rule out fast attention.
            "inputs_embeds": torch.cat([prefix_NQD.to(embeds.dtype), embeds], dim=1),
        }

    def _language_inputs(
        self, prefix_NQD: torch.Tensor, prompts: list[list[int]], side: str = "right"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embedded `[visual prefix][prompt]` [N, Q + T, D] and its mask; prompts are padded on the given side."""
        ids, mask = text.pad(prompts, self.llm_tokenizer.pad_token_id, side=side)
        embeds = self.core.get_input_embeddings()(ids.to(self.device))
        query_mask = torch.ones(prefix_NQD.shape[:2], dtype=torch.long, device=self.device)
        return (
            torch.cat([prefix_NQD.to(embeds.dtype), embeds], dim=1),
            torch.cat([query_mask, mask.to(self.device)], dim=1),
        )

    # Training: what is counted

    def _note_texts(self, pairs: _Pairs) -> dict[str, list[int]]:
        """Numbers of the pairs whose text was cut or leaves nothing to learn."""
        most, end = self.settings.max_txt_len, self.llm_tokenizer.eos_token_id
        room = most - self._num_added_tokens()
        cut = set(longer_than(self.llm_tokenizer, pairs.questions, room, self.is_seq2seq))
        if self.settings.qformer_text_input:
            cut |= set(longer_than(self.qformer_tokenizer, pairs.questions, most, True))
        return {
            "num_truncated_questions": sorted(cut),
            # A cut answer has no end token: the text does not end there.
            "num_truncated_answers": [pair for pair, answer in enumerate(pairs.answers) if answer[-1] != end],
            "num_unsupervised": [pair for pair, answer in enumerate(pairs.answers) if answer == [end]],
        }

    def text_lengths(self, questions: Sequence[str], answers: Sequence[str]) -> list[tuple[int, int]]:
        """Tokens of each question and answer without a limit, as `max_txt_len` and `max_output_txt_len` count them."""
        asked, written = list(questions), list(answers)
        lengths = [len(row) for row in self._whole_prompts(asked)]
        if self.settings.qformer_text_input:
            lengths = list(map(max, lengths, map(len, self.qformer_tokenizer(asked)["input_ids"])))
        ends = self.llm_tokenizer(written, add_special_tokens=False)["input_ids"]
        return [(length, len(row) + 1) for length, row in zip(lengths, ends)]

    def _sizes(self, pairs: _Pairs, samples: Batch) -> PassSizes:
        num_frames = _num_frames(samples["image"])
        words = sum(map(len, pairs.prompts)) if self.settings.qformer_text_input else 0
        real, run = positions_of(pairs.lengths, pairs.groups)
        return PassSizes(
            num_images=len(samples["image"]) * num_frames,
            num_reads=len(pairs.prompts) * num_frames,
            num_question_tokens=words * num_frames,
            real_positions=real,
            run_positions=run,
            num_supervised=pairs.num_answer_tokens,
        )

    def blank_batch(self) -> dict[str, Any]:
        size = self.settings.image_size
        return blank_batch(torch.zeros(1, 3, size, size))

    # Answers: inputs of generation and scoring

    def _questions(self, samples: Batch) -> list[str]:
        return text.read_questions(samples, self.prompt, num_images_of(samples))

    def _num_visual_tokens(self, num_frames: int = 1) -> int:
        """Positions of the language model before the prompt."""
        is_pooled = self.settings.frames is not None and self.settings.frames.pooling == "mean"
        # From the configuration: the tensor may be spread over ranks, and empty here.
        return (1 if is_pooled else num_frames) * self.core.config.num_query_tokens

    @property
    def context_tokens(self) -> int | None:
        config = self.core.language_model.config
        return None if config.is_encoder_decoder else getattr(config, "max_position_embeddings", None)

    def num_prompt_tokens(self, samples: Batch) -> list[int]:
        num_visual = self._num_visual_tokens(_num_frames(samples["image"]))
        return [num_visual + len(row) for row in self._whole_prompts(self._questions(samples))]

    def _encode_prompts(self, questions: list[str], max_tokens: int | None) -> list[list[int]]:
        """What the language model reads after the image, at most `max_tokens` for each question (None: no limit)."""
        return text.encode_prompts(self.llm_tokenizer, questions, max_tokens, self.is_seq2seq)

    def _num_added_tokens(self) -> int:
        """Tokens of a decoder-only model's prompt that are not of the question."""
        return int(not self.is_seq2seq and self.llm_tokenizer.bos_token_id is not None)

    def _whole_prompts(self, questions: list[str]) -> list[list[int]]:
        return self._encode_prompts(questions, None)

    def _end_ids(self) -> list[int]:
        """Tokens that end an answer. InstructBLIP also counts id 0, Llama's unknown token, as an end."""
        unknown = [0] if self.llm_tokenizer.convert_ids_to_tokens(0) == "<unk>" else []
        return [self.llm_tokenizer.eos_token_id, *unknown]

    def _generate_ids(self, samples: Batch, questions: list[str], options: dict[str, Any]) -> torch.Tensor:
        language_model = self.core.language_model
        prefix_NQD = self._visual_prefix(samples, questions)
        prompts = self._whole_prompts(questions)
        check_context(self.context_tokens, questions, prompts, prefix_NQD.shape[1], options["max_new_tokens"])
        inputs, mask = self._language_inputs(prefix_NQD, prompts, "right" if self.is_seq2seq else "left")
        if self.in_step:
            # A process whose answers have ended continues until those of all others have.
            options = {**options, "synced_gpus": True}
        options = {"pad_token_id": self.llm_tokenizer.pad_token_id, "eos_token_id": self._end_ids(), **options}
        reads_once = options["do_sample"] and options["num_return_sequences"] > 1 and not self.is_seq2seq
        # Choices count the generated tokens, which `generate_read_once` puts behind one of the question.
        if reads_once and "prefix_allowed_tokens_fn" not in options:
            return generate_read_once(language_model, inputs, mask, [prompt[-1] for prompt in prompts], **options)
        return language_model.generate(inputs_embeds=inputs, attention_mask=mask, **options)

    def decoder(self) -> Decoder:
        if self.is_seq2seq:
            raise ConfigError(["a language model with an encoder reads more than embedded inputs"], "the model")
        return whole_decoder(self.core.language_model)

    @torch.no_grad()
    def decoder_inputs(self, samples: Batch, max_new_tokens: int) -> list[torch.Tensor]:
        """See `Sampling.decoder_inputs`."""
        questions = self._questions(samples)
        prefix_NQD, prompts = self._visual_prefix(samples, questions), self._whole_prompts(questions)
        check_context(self.context_tokens, questions, prompts, prefix_NQD.shape[1], max_new_tokens)
        embed = self.core.get_input_embeddings()
        embedded = [embed(torch.tensor(prompt, device=self.device)) for prompt in prompts]
        return [torch.cat([prefix.to(text.dtype), text]) for prefix, text in zip(prefix_NQD, embedded)]

    def check_question(self, question: str, answers: Sequence[str], max_new_tokens: int) -> None:
        """DataError if a question, with its longest answer, does not fit the language model's context."""
        rows = self.llm_tokenizer(list(answers), add_special_tokens=False)["input_ids"] if answers else []
        num_answer = max(map(len, rows), default=max_new_tokens)
        num_queries = self._num_visual_tokens()
        check_context(self.context_tokens, [question], self._whole_prompts([question]), num_queries, num_answer)

    def _candidate_sums(self, samples: Batch, questions: list[str], candidates: CandidateTokens) -> torch.Tensor:
        """Summed log-likelihoods [N, C], a few pairs at a time."""
        language_model = self.core.language_model
        with self._evaluating():
            prefix_NQD = self._visual_prefix(samples, questions)
            prompts = self._whole_prompts(questions)
            check_context(self.context_tokens, questions, prompts, prefix_NQD.shape[1], max(map(len, candidates.rows)))
            # Questions of similar length run together, so that little padding is computed.
            order = sorted(range(len(prompts)), key=lambda pair: len(prompts[pair]))
            size = self.settings.scoring_pairs_per_pass
            groups = [order[start : start + size] for start in range(0, len(order), size)]
            scores = []
            for pairs in self._as_many_as_others(groups):
                prefix, rows = prefix_NQD[pairs], [prompts[pair] for pair in pairs]
                if self.is_seq2seq:
                    inputs, mask = self._language_inputs(prefix, rows)
                    scores.append(score_seq2seq(language_model, inputs, mask, candidates))
                else:
                    scores.append(score_causal(language_model, prefix, rows, candidates))
        return in_given_order(scores[: len(groups)], groups)

    def predict_class(
        self, samples: Batch, candidates: list[str], n_segments: int = 1, rule: str = "mean"
    ) -> torch.Tensor:
        """See `Answering.predict_class`; the rule `original` is LAVIS's own order, see `original_candidate_losses`.

        It does not support `answer_prefix`, and its result depends on `n_segments`.
        """
        if rule != "original":
            return super().predict_class(samples, candidates, n_segments, rule)
        if samples.get("answer_prefix"):
            raise ValueError("rule 'original' has no answer_prefix; write it into the prompt or the candidates")
        return torch.argsort(self.original_candidate_losses(samples, candidates, n_segments), dim=-1, stable=True)

    @torch.no_grad()
    def original_candidate_losses(self, samples: Batch, candidates: list[str], n_segments: int = 1) -> torch.Tensor:
        """The losses by which LAVIS ranks candidates, float32 [N, C], the smaller the better; see `original_losses`."""
        tokens = candidate_tokens(self.llm_tokenizer, candidates, end=self.is_seq2seq)
        segments = segments_of(len(candidates), n_segments)
        questions = self._questions(samples)
        sums_NC = self._candidate_sums(samples, questions, tokens)
        if self.is_seq2seq:
            return -sums_NC
        num_queries = self._num_visual_tokens(_num_frames(samples["image"]))
        longest_prompt = max(len(row) for row in self._whole_prompts(questions))
        return original_losses(sums_NC, tokens, segments, num_queries + longest_prompt)

    # Parts, checkpoints and description

    def _unread_layers(self) -> tuple[str, ...]:
        return parts.unread_layers(self.core)

    def _unused_parameters(self) -> list[str]:
        return parts.unused_parameters(self.core, self.settings.qformer_text_input)

    def dead_parameters(self) -> list[str]:
        """See `parts.dead_parameters`."""
        dead = set(parts.dead_parameters(self.core, self.settings.qformer_text_input))
        return [name for name in self._trained if name in dead]

    def load_trained_state_dict(self, state: Mapping[str, torch.Tensor], source: str = "the state dict") -> None:
        """See `BaseEmotionModel`; what was tuned on images has no values for `model.frames`, which begins anew."""
        own = {name: value for name, value in self.trained_state_dict().items() if name.startswith(parts.FRAMES)}
        if own and own.keys().isdisjoint(state):
            logger.info("%s has no values for model.frames; it begins untrained", source)
            state = {**state, **own}
        super().load_trained_state_dict(state, source)

    def identity(self) -> dict[str, Any]:
        frames = self.settings.frames
        return super().identity() if frames is None else {**super().identity(), "frames": frames.model_dump()}

    def _load_original(self, path: Path) -> None:
        """Load everything in a LAVIS `.pth` file except a language model, trained or frozen.

        Q-Former, query tokens, projection and layer norm are required, an image encoder is optional. Published files
        have the language model of their base.
        """
        if path.suffix.lower() not in (".pth", ".pt"):
            raise WeightsError(f"{path} is neither a .safetensors nor a .pth file")
        state = from_lavis(read_state_dict(path), str(path)).state
        state = {name: tensor for name, tensor in state.items() if not name.startswith(LLM)}
        own = parts.without_adapters(self.core)
        optional = {name for name in own if parts.part_of(name) in parts.OPTIONAL or name.startswith(parts.FRAMES)}
        check_fit(state, own, str(path), needed=[name for name in own if name not in optional])
        trained_parts.load_values(own, state)

    def processors(self) -> tuple[Any, Any]:
        return image_encoder.processors(self.settings)

    def compile_targets(self, part: str) -> list[tuple[str, nn.Module]]:
        return parts.compile_targets(self.core, part)

    def step_flops(self) -> InstructBlipFlops:
        return InstructBlipFlops.of(self.core)


def _num_frames(image: torch.Tensor) -> int:
    return image.shape[2] if image.dim() == 5 else 1


MODEL_CLASS = EmoVIT
