"""Any image-text model of transformers: LLaVA, Qwen-VL, Gemma, SmolVLM and others.

Legend: `B` images, `N` image-question pairs, `L` tokens of a packed row, `T` tokens of a padded row, `C` candidates.

Where a model can, all questions of an image share its tokens and run as one row without padding (`packed.py`). The
result is that of a row for each question, up to rounding; models that cannot are computed that way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from lavis.common.registry import registry
from PIL import Image
from transformers import GenerationMixin, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.models import text
from lavis_emovit.models.base import BaseEmotionModel, FoundWeights, blank_batch
from lavis_emovit.models.decoder import Decoder, joined_decoder, whole_decoder
from lavis_emovit.models.image_text import checks, packed, parts, sizes, weights
from lavis_emovit.models.image_text.adapters import PeftAdapter
from lavis_emovit.models.image_text.checks import make_image_processor
from lavis_emovit.models.image_text.inputs import Inputs, Pair
from lavis_emovit.models.image_text.settings import TRAINED_PARTS, ModelSettings
from lavis_emovit.models.lengths import in_given_order
from lavis_emovit.models.loss import answer_log_probs, answer_loss, answer_losses, sampled_log_probs, token_log_probs
from lavis_emovit.models.protocol import AnswerLoss, Batch
from lavis_emovit.models.sampling import padded_rows
from lavis_emovit.models.scoring import MAX_CANDIDATE_TOKENS, CandidateTokens, distinct_candidates, num_common
from lavis_emovit.models.step_memory import StepLoad, StepMemory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Candidates(CandidateTokens):
    """Candidates behind a prompt whose last `num_replaced` tokens they replace, because a tokenizer joined them."""

    num_replaced: int = 0

    def take(self, columns: Sequence[int]) -> _Candidates:
        return _Candidates([self.rows[c] for c in columns], [self.num_given[c] for c in columns], self.num_replaced)


class ImageText(BaseEmotionModel):
    """An image-text model, see the head of this file."""

    PART_NAMES = TRAINED_PARTS
    ANSWER_SETTINGS = ("template", "system", "max_side_px", "processor", "prompt", "frozen_precision")
    settings_class: ClassVar[type[ModelSettings]] = ModelSettings
    settings: ModelSettings

    def __init__(self, core: Any, settings: ModelSettings, image_processor: Any):
        self.PART_PREFIXES = parts.part_prefixes(core, settings.pretrained)
        if parts.has_encoder(core.config):
            problem = f"{settings.pretrained}: a language model with an encoder and a decoder is not of this family"
            raise ConfigError([problem], "the model configuration")
        super().__init__(core, settings, image_processor.chat.tokenizer, is_seq2seq=False)
        self.image_processor, self.chat = image_processor, image_processor.chat
        parts.join_precisions(core, self.PART_PREFIXES["projector"])
        reason = parts.why_not_shared(core)
        self.shares_prefix = settings.share_prefix and reason is None
        if settings.share_prefix and reason is not None:
            logger.info("%s: each question reads its image again: %s", settings.pretrained, reason)
        if self.shares_prefix:
            _replace_attention(self._part("language_model"), core)
        self.inputs = Inputs(core, self.chat, self._part("vision_encoder"))

    @classmethod
    def check_weights(cls, settings: Any) -> str | None:
        note = weights.missing_weights(settings)
        if note is None:
            checks.check(settings)
        return note

    @classmethod
    def find_weights(cls, settings: Any) -> FoundWeights:
        return weights.find_weights(settings)

    @classmethod
    def step_memory(cls, settings: Any, load: StepLoad, amp: str) -> StepMemory | None:
        return sizes.step_memory(cls, settings, load, amp)

    @classmethod
    def from_settings(cls, settings: Any) -> ImageText:
        """Load the weights that the settings name."""
        cls.check_weights(settings)
        core = weights.load_core(settings, settings.attention)
        return cls(core, settings, make_image_processor(settings))

    @classmethod
    def empty(cls, settings: Any) -> ImageText:
        """The model without values."""
        image_processor = make_image_processor(settings)
        _ = image_processor.chat
        with torch.device("meta"):  # adapters too
            return cls(sizes.empty_core(settings), settings, image_processor)

    def _add_adapters(self) -> None:
        if self.settings.adapter is None:
            super()._add_adapters()
            return
        adapter, core = PeftAdapter.read(self.settings.adapter), self.core
        problems = adapter.problems(core, self.PART_PREFIXES, self.settings.pretrained, self.settings.trained_parts)
        if problems:
            raise ConfigError(problems, "the model configuration")
        adapter.inject(core)

    # Training

    def answer_loss(self, samples: Batch, by_pair: bool = False) -> AnswerLoss:
        """Loss on the answers' tokens; see `EmoVIT.answer_loss`, except for the images.

        Args:
            samples: `image`, B images as the processor `emovit_image_text` stacks them; `image_index`, `text_input` and
                `text_output` as usual.
        """
        pairs, noted = self._read_pairs(samples)
        images = samples["image"]
        run = self.inputs.packed(images, pairs) if self.shares_prefix else self.inputs.padded(images, pairs)
        num_tokens = sum(len(pair.answer) for pair in pairs)
        if not by_pair:
            with run.active():
                loss_sum = answer_loss(self.core, run.labels, **run.inputs)
            return AnswerLoss(loss_sum, num_tokens, noted, run.sizes(num_tokens))
        # A packed row has the pairs of an image behind it, not in the order of the batch.
        order = sorted(range(len(pairs)), key=run.places.__getitem__) if run.row is not None else range(len(pairs))
        with run.active():
            lengths = [len(pairs[pair].answer) for pair in order]
            loss_sum, means = answer_losses(self.core, run.labels, lengths, **run.inputs)
        return AnswerLoss(loss_sum, num_tokens, noted, run.sizes(num_tokens), in_given_order([means], [order]))

    def answer_log_probs(self, samples: Batch) -> torch.Tensor:
        """Summed log-probability of each pair's own answer with its end token, float32 [N]; arguments as `answer_loss`.

        Minus the sum of the result is `loss_sum`.
        """
        pairs, _ = self._read_pairs(samples)
        images = samples["image"]
        if not self.shares_prefix:
            run = self.inputs.padded(images, pairs)
            return answer_log_probs(self.core, run.labels, **run.inputs)
        run = self.inputs.packed(images, pairs)
        places = [(0, place + step) for pair, place in zip(pairs, run.places) for step in range(len(pair.answer))]
        with run.active():
            scores_S = token_log_probs(self.core, places, [t for pair in pairs for t in pair.answer], **run.inputs)
        return torch.stack([part.sum() for part in scores_S.split([len(pair.answer) for pair in pairs])])

    def written_log_probs(
        self, samples: Batch, answers: Sequence[list[int]], question_index: Sequence[int], temperature: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        questions, images = self._questions(samples), samples["image"]
        numbers, prompts = self._numbers(samples, questions), self.chat.prompts(questions)
        pairs = [Pair(numbers[place], prompts[place], list(ids)) for place, ids in zip(question_index, answers)]
        run = self.inputs.packed(images, pairs) if self.shares_prefix else self.inputs.padded(images, pairs)
        rows = [0] * len(pairs) if self.shares_prefix else range(len(pairs))
        places = [
            (row, begin + step) for row, begin, pair in zip(rows, run.places, pairs) for step in range(len(pair.answer))
        ]
        tokens = [token for pair in pairs for token in pair.answer]
        with run.active():
            found = sampled_log_probs(self.core, places, tokens, temperature, self._unwritten_ids(), **run.inputs)
        log_probs, entropies = (padded_rows(values_S, list(map(len, answers))) for values_S in found)
        return log_probs, entropies

    def _unwritten_ids(self) -> list[int]:
        names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
        found = {getattr(self.core.config, name, None) for name in names}
        return sorted(number for number in found if number is not None)

    def num_answer_tokens(self, samples: Batch) -> int:
        questions, answers = self._questions(samples), list(samples["text_output"])
        return sum(len(self._encode(self._cut(question), answer)[1]) for question, answer in zip(questions, answers))

    def text_lengths(self, questions: Sequence[str], answers: Sequence[str]) -> list[tuple[int, int]]:
        """Tokens of each question and answer without a limit, as `max_txt_len` and `max_output_txt_len` count them."""
        lengths = []
        for question, answer in zip(questions, answers):
            ((row, given),) = self.chat.answered(question, [answer])
            lengths.append((self.chat.question_length(question), len(row) - given))
        return lengths

    def sized_images(self, num_images: int, num_frames: int = 1) -> Any:
        side = self.settings.max_side_px
        image = self.image_processor.beside([Image.new("RGB", (side, side), (64, 64, 64))] * num_frames)
        return self.image_processor.stack([image] * num_images)

    def blank_batch(self) -> dict[str, Any]:
        return blank_batch(self.image_processor.stack([self.image_processor(Image.new("RGB", (64, 64)))]))

    def _read_pairs(self, samples: Batch) -> tuple[list[Pair], dict[str, list[int]]]:
        """The pairs of a training batch, and the numbers of those whose text was cut or leaves nothing to learn."""
        questions = self._questions(samples)
        answers = text.read_answers(samples, len(questions))
        numbers = self._numbers(samples, questions)
        pairs, cut = [], []
        noted: dict[str, list[int]] = {"num_truncated_answers": [], "num_unsupervised": []}
        for place, (number, question, answer) in enumerate(zip(numbers, questions, answers)):
            asked = self._cut(question)
            prompt, ids = self._encode(asked, answer)
            self._check_context(samples, [number], [prompt], len(ids))
            if asked != question:
                cut.append(place)
            if ids[-1] not in self.chat.end_ids:
                noted["num_truncated_answers"].append(place)
            if not answer.strip():
                noted["num_unsupervised"].append(place)
            pairs.append(Pair(number, prompt, ids))
        return pairs, {"num_truncated_questions": cut, **noted}

    def _encode(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """Token ids of a question that is cut already and of its answer, cut to its limit."""
        ((row, given),) = self.chat.answered(question, [answer])
        return row[:given], row[given:][: self.settings.max_output_txt_len]

    def _cut(self, question: str) -> str:
        return self.chat.cut_question(question, self.settings.max_txt_len)

    # Answers

    def _questions(self, samples: Batch) -> list[str]:
        images: Any = samples.get("image")
        if not hasattr(images, "stack") or not len(images):
            raise ValueError(
                "samples need 'image', one image or more as the processor 'emovit_image_text' stacks them; "
                f"got {type(images).__name__}"
            )
        return text.read_questions(samples, self.prompt, len(images))

    def _numbers(self, samples: Batch, questions: Sequence[str]) -> list[int]:
        """The number of the image of each question."""
        return text.read_image_index(samples, len(samples["image"]), len(questions)).tolist()

    @property
    def context_tokens(self) -> int | None:
        return getattr(self.core.config.get_text_config(), "max_position_embeddings", None)

    def num_prompt_tokens(self, samples: Batch) -> list[int]:
        questions = self._questions(samples)
        images = [samples["image"].images[number] for number in self._numbers(samples, questions)]
        return [len(image.ids) + len(prompt) for image, prompt in zip(images, self.chat.prompts(questions))]

    def _blank_images(self, samples: Batch) -> Any:
        return samples["image"].blank()

    def _end_ids(self) -> list[int]:
        return list(self.chat.end_ids)

    def _candidate_tokens(self, candidates: Sequence[str], answer_prefix: str) -> _Candidates:
        candidates = distinct_candidates(candidates)
        # The text before a candidate ends in the same way for every question.
        question = "blank"
        (prompt,) = self.chat.prompts([question])
        ((start, _),) = self.chat.answered(question, [answer_prefix.rstrip()], end=False)
        found = self.chat.answered(question, [answer_prefix + candidate for candidate in candidates], end=False)
        shared = min(num_read for _, num_read in found)
        rows = [row[shared:] for row, _ in found]
        given = [num_read - shared for _, num_read in found]
        if answer_prefix.strip():
            given = [num_common(start[shared:], row) for row in rows]
        for candidate, row, count in zip(candidates, rows, given):
            if len(row) == count or not candidate.strip():
                raise ValueError(f"candidate {candidate!r} tokenises to nothing")
        return _Candidates(rows, given, len(prompt) - shared)

    def _choice_tokens(self, choices: list[str]) -> list[list[int]]:
        tokens = self._candidate_tokens(choices, "")
        if not tokens.num_replaced:
            return tokens.rows
        # What follows the prompt is generated, so nothing of the prompt can be joined with it.
        return [self.chat.answer_alone(choice) for choice in choices]

    def _candidate_sums(self, samples: Batch, questions: list[str], candidates: CandidateTokens) -> torch.Tensor:
        """Summed log-likelihoods [N, C]."""
        assert isinstance(candidates, _Candidates)
        images, numbers = samples["image"], self._numbers(samples, questions)
        prompts = self.chat.prompts(questions)
        self._check_context(samples, numbers, prompts, max(map(len, candidates.rows)))
        prompts = [prompt[: len(prompt) - candidates.num_replaced] for prompt in prompts]
        with self._evaluating():
            if self.shares_prefix:
                return self._shared_sums(images, numbers, prompts, candidates)
            return self._single_sums(images, numbers, prompts, candidates)

    def _shared_sums(
        self, images: Any, numbers: Sequence[int], prompts: Sequence[list[int]], candidates: _Candidates
    ) -> torch.Tensor:
        order = sorted(range(len(prompts)), key=lambda pair: numbers[pair])
        size = self.settings.scoring_pairs_per_pass
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        passes = [(pairs, columns) for pairs in groups for columns in candidates.groups(MAX_CANDIDATE_TOKENS)]
        sums = torch.zeros(len(prompts), len(candidates.rows))
        for pairs, columns in self._as_many_as_others(passes):
            sums[torch.tensor(pairs)[:, None], torch.tensor(columns)] = self._packed_sums(
                images,
                [numbers[pair] for pair in pairs],
                [prompts[pair] for pair in pairs],
                candidates.take(columns),
            ).cpu()
        return sums

    def _packed_sums(
        self, images: Any, numbers: Sequence[int], prompts: Sequence[list[int]], candidates: _Candidates
    ) -> torch.Tensor:
        """Sums [N, C] of pairs in the order of their images."""
        row, shown = packed.PackedRow(), list[int]()
        places: list[tuple[int, int]] = []
        tokens: list[int] = []
        for number, prompt in zip(numbers, prompts):
            if not shown or shown[-1] != number:
                self.inputs.add_image(row, images.images[number])
                shown.append(number)
            asked = row.add(prompt)
            last = len(row) - 1
            for ids, given in zip(candidates.rows, candidates.num_given):
                begin = len(row)
                if len(ids) > 1:
                    row.add(ids[:-1], parent=asked)
                for step in range(given, len(ids)):
                    places.append((0, begin + step - 1 if step else last))
                    tokens.append(ids[step])
        run = self.inputs.of_row(row, images, shown, torch.empty(0), [])
        with run.active():
            scores = token_log_probs(self.core, places, tokens, **run.inputs)
        return _sums(scores, candidates, len(prompts))

    def _single_sums(
        self, images: Any, numbers: Sequence[int], prompts: Sequence[list[int]], candidates: _Candidates
    ) -> torch.Tensor:
        """Sums [N, C], with a row for each candidate."""
        wanted = [(number, prompt, ids) for number, prompt in zip(numbers, prompts) for ids in candidates.rows]
        givens = candidates.num_given * len(prompts)
        scores: dict[int, torch.Tensor] = {}
        starts = list(range(0, len(wanted), self.settings.scoring_rows_per_pass))
        for start in self._as_many_as_others(starts):
            part = wanted[start : start + self.settings.scoring_rows_per_pass]
            rows = [[*images.images[number].ids.tolist(), *prompt, *ids] for number, prompt, ids in part]
            inputs = self.inputs.of_rows(images, [n for n, _, _ in part], rows, [len(ids) for _, _, ids in part])
            places, tokens = [], []
            for place, (row, (_, _, ids), given) in enumerate(zip(rows, part, givens[start:])):
                for step in range(given, len(ids)):
                    places.append((place, len(row) - len(ids) + step - 1))
                    tokens.append(ids[step])
            scores[start] = token_log_probs(self.core, places, tokens, **inputs)
        return _sums(torch.cat([scores[start] for start in starts]), candidates, len(prompts))

    def _generate_ids(self, samples: Batch, questions: list[str], options: dict[str, Any]) -> torch.Tensor:
        images, numbers = samples["image"], self._numbers(samples, questions)
        prompts = self.chat.prompts(questions)
        self._check_context(samples, numbers, prompts, options["max_new_tokens"])
        rows = [[*images.images[number].ids.tolist(), *prompt] for number, prompt in zip(numbers, prompts)]
        if self.in_step:
            options = {**options, "synced_gpus": True}
        prefix = None
        # BLIP-2 has a `generate` of its own, which takes no tokens that are read already.
        if self.shares_prefix and type(self.core).generate is GenerationMixin.generate:
            inputs, prefix = self.inputs.read_once(images, numbers, prompts, rows)
        else:
            inputs = self.inputs.of_rows(images, numbers, rows, [0] * len(rows), side="left")
        num_read = inputs["input_ids"].shape[1]
        options = {**options, **_behind_prompt(options, num_read)}
        options = {"pad_token_id": self.inputs.pad_id, "eos_token_id": self._end_ids(), **options}
        with packed.reading(prefix):
            return self.core.generate(**inputs, **options)[:, num_read:]

    def decoder(self) -> Decoder:
        reason = parts.why_not_alone(self.core)
        body: Any = self._part("language_model")
        found: Decoder | None = None
        if reason is None and body.get_output_embeddings() is not None:
            found = whole_decoder(body)
        elif reason is None:
            found = joined_decoder(self.core, body)
        if found is None:
            reason = reason or f"transformers has no causal language model of the kind {type(body).__name__}"
            problem = f"{self.settings.pretrained}: its language model cannot be run by itself: {reason}"
            raise ConfigError([problem], "the model")
        return found

    @torch.no_grad()
    def decoder_inputs(self, samples: Batch, max_new_tokens: int) -> list[torch.Tensor]:
        images, questions = samples["image"], self._questions(samples)
        numbers, prompts = self._numbers(samples, questions), self.chat.prompts(questions)
        self._check_context(samples, numbers, prompts, max_new_tokens)
        return self.inputs.embedded(images, numbers, prompts, self._part("language_model"))

    def check_question(self, question: str, answers: Sequence[str], max_new_tokens: int) -> None:
        """DataError if a question, with its longest answer, does not fit the language model's context."""
        rows = self.chat.answered(question, list(answers) or [""])
        num_answer = max(len(row) - given for row, given in rows) if answers else max_new_tokens
        self._check_context(self.blank_batch(), [0], self.chat.prompts([question]), num_answer)

    def _check_context(
        self, samples: Batch, numbers: Sequence[int], prompts: Sequence[list[int]], longest: int
    ) -> None:
        """DataError for an image whose tokens, with a prompt and `longest` tokens of an answer, exceed the context."""
        context = self.context_tokens
        for number, prompt in zip(numbers, prompts):
            num_image = len(samples["image"].images[number].ids)
            total = num_image + len(prompt) + longest
            if context is not None and total > context:
                name = f" ({samples['record_id'][number]})" if "record_id" in samples else ""
                raise DataError(
                    f"image {number} of the batch{name} does not fit: {num_image} tokens up to its end, "
                    f"{len(prompt)} of the question and up to {longest} of the answer are {total}, the language "
                    f"model's context is {context}; lower model.max_side_px, the pixels in model.processor or the "
                    "number of frames"
                )

    # Description

    def encode_images(self, image: Any) -> torch.Tensor:
        """What the projector makes of images, float [B, P, D]; NaN behind the tokens of an image that has fewer."""
        found = self.core.get_image_features(**self.inputs.features(image, range(len(image)))).pooler_output
        return torch.nn.utils.rnn.pad_sequence(list(found), batch_first=True, padding_value=float("nan"))

    def pool(self, embeds: torch.Tensor) -> torch.Tensor:
        """The mean of each image's tokens, float [B, D]."""
        return embeds.nanmean(dim=1)

    def identity(self) -> dict[str, Any]:
        adapter = self.settings.adapter
        return {**super().identity(), **({} if adapter is None else {"peft_adapter": PeftAdapter.sha256(adapter)})}

    def processors(self) -> tuple[Any, Any]:
        return self.image_processor, registry.get_processor_class("emovit_text").from_config()


def _sums(scores_S: torch.Tensor, candidates: CandidateTokens, num_pairs: int) -> torch.Tensor:
    """Sums [N, C] of the scores of all candidates' tokens, pair by pair."""
    parts = scores_S.split(candidates.num_scored() * num_pairs)
    return torch.stack([part.sum() for part in parts]).view(num_pairs, len(candidates.rows))


def _behind_prompt(options: Mapping[str, Any], num_read: int) -> dict[str, Any]:
    """Options of transformers' `generate` that count tokens from the end of the prompt, as ours do."""
    changed: dict[str, Any] = {}
    if (allowed := options.get("prefix_allowed_tokens_fn")) is not None:
        changed["prefix_allowed_tokens_fn"] = lambda number, generated: allowed(number, generated[num_read:])
    if options["repetition_penalty"] != 1.0:
        penalty = RepetitionPenaltyLogitsProcessor(options["repetition_penalty"], prompt_ignore_length=num_read)
        processors = LogitsProcessorList([penalty, *options.get("logits_processor", ())])
        changed |= {"repetition_penalty": 1.0, "logits_processor": processors}
    return changed


def _replace_attention(language_model: Any, core: Any) -> None:
    """Let the language model use the attention of packed rows; the image encoder keeps its own."""
    for module in (*language_model.modules(), core):
        config = getattr(module, "config", None)
        if config is not None:
            config.get_text_config()._attn_implementation = packed.PACKED


MODEL_CLASS = ImageText
