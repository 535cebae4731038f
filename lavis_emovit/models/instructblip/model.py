"""EmoVIT: a frozen image encoder, an instruction-aware Q-Former that learns, a frozen language model.

Legend: `B` images, `N` image-question pairs, `P` image patches (with the class token), `Q` query tokens, `T` text
tokens, `D` width, `V` vocabulary, `C` candidates, `S` supervised positions of the whole batch.

The parts are transformers' InstructBLIP modules; this class adds what LAVIS expects of a model, answers-only loss at
supervised positions, one encoding per image however many questions it has, and candidate scoring.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models import lora, trained_parts
from lavis_emovit.models.instructblip import text
from lavis_emovit.models.instructblip.answering import Answering
from lavis_emovit.models.instructblip.lavis_format import from_lavis
from lavis_emovit.models.instructblip.loading import LLM, PRECISIONS, LoadedParts, load_parts, read_tensor_file
from lavis_emovit.models.instructblip.pickled import read_state_dict
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.models.lengths import PassSizes, longer_than, positions_of
from lavis_emovit.models.loss import answer_loss
from lavis_emovit.models.protocol import AnswerLoss
from lavis_emovit.models.quantize import QUANTIZED, quantize_language_model
from lavis_emovit.models.recompute import recompute_layers
from lavis_emovit.settings import parse_settings


class EmoVIT(Answering):
    """The emotion model behind every registered `emovit_*` name."""

    DEFAULT_MODEL_TYPE: ClassVar[str]
    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = {}

    def __init__(self, parts: LoadedParts, settings: ModelSettings):
        super().__init__(parts, settings)
        frozen_dtype = PRECISIONS[settings.frozen_precision]
        _check_text_length(self.core, settings)
        if settings.frozen_precision in QUANTIZED:
            quantize_language_model(self.core.language_model, settings.frozen_precision, frozen_dtype)
        if settings.lora is not None:
            lora.inject(self.core, settings.lora)
        self._trained = trained_parts.freeze_all_but(
            self.core, settings.trained_parts, frozen_dtype, settings.qformer_text_input
        )
        if settings.use_grad_checkpoint:
            for part in settings.grad_checkpoint_parts:
                recompute_layers(self.core.get_submodule(trained_parts.PART_PREFIXES[part].rstrip(".")))
        self.train(self.training)

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any]) -> EmoVIT:
        """Build the model that a LAVIS `model:` node describes.

        Raises:
            ConfigError: unknown or wrong keys, all of them at once.
            WeightsError: weights that are missing or do not fit.
        """
        values = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
        settings, problems = parse_settings(ModelSettings, values, "model")  # type: ignore[arg-type]
        if settings is None:
            raise ConfigError(problems, "the model configuration")
        model = cls(load_parts(settings), settings)
        if settings.load_finetuned:
            if settings.finetuned is None:
                raise ConfigError(["model.finetuned: missing, model.load_finetuned is true"], "the model configuration")
            model.load_checkpoint(settings.finetuned)
        return model

    # Trained and frozen parts

    def train(self, mode: bool = True) -> EmoVIT:
        """Train mode for what learns; the frozen rest stays in eval mode, so that its dropout never acts."""
        self.training = mode
        if hasattr(self, "core"):
            trained_parts.set_modes(self.core, self.settings.trained_parts, mode)
        return self

    def trained_parameter_names(self) -> list[str]:
        """Names, inside the InstructBLIP modules, of the tensors that learn."""
        return list(self._trained)

    def trained_state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors that learn, by name; all that a checkpoint of the model needs."""
        own = dict(self.core.named_parameters())
        return {name: own[name].detach() for name in self._trained}

    def load_trained_state_dict(self, state: Mapping[str, torch.Tensor], source: str = "the state dict") -> None:
        """Put back what `trained_state_dict` gave; names and shapes must be the same (else WeightsError)."""
        trained_parts.load_trained(self.core, self._trained, state, source)

    def frozen_fingerprint(self) -> str:
        """Identifies the frozen weights: a checkpoint of the trained ones is worth nothing beside others."""
        return trained_parts.fingerprint(self.core, self._trained)

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of parameters, `trained` and `total`."""
        return trained_parts.count_parameters(self.core)

    def dead_parameters(self) -> list[str]:
        """Names, inside the InstructBLIP modules, of trained tensors whose gradient is zero whatever the data."""
        dead = set(trained_parts.dead_parameters(self.core, self.settings.qformer_text_input))
        return [name for name in self._trained if name in dead]

    def load_checkpoint(self, url_or_filename: str) -> Any:
        """Load tuned tensors: a checkpoint folder of a run, a `.safetensors` file of ours, or a LAVIS `.pth` file.

        From a `.pth` file all is taken but a language model, frozen or not: Q-Former, query tokens, projection and
        layer norm must be in it, an image encoder may be. No published file has another language model than its base.

        Raises:
            WeightsError: no such file, or tensors of another model.
        """
        path = Path(url_or_filename).expanduser()
        if path.is_dir():
            path = path / "model.safetensors"
        if not path.is_file():
            raise WeightsError(
                f"no checkpoint at {path}: name a checkpoint folder of a run, a .safetensors or a LAVIS .pth file"
            )
        if path.suffix in (".pth", ".pt"):
            state = from_lavis(read_state_dict(path), str(path)).state
            kept = {name: tensor for name, tensor in state.items() if not name.startswith(LLM)}
            trained_parts.load_values(self.core, kept, str(path))
        elif path.suffix == ".safetensors":
            self.load_trained_state_dict(read_tensor_file(path), str(path))
        else:
            raise WeightsError(f"{path} is neither a .safetensors nor a .pth file")

    # Training

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """LAVIS's method name for `answer_loss`.

        Returns:
            `loss`, the mean over supervised tokens (natural log), and `loss_sum` and `num_tokens`, its parts.
        """
        parts = self.answer_loss(samples)
        return {"loss": parts.loss_sum / parts.num_tokens, "loss_sum": parts.loss_sum, "num_tokens": parts.num_tokens}

    def answer_loss(self, samples: Mapping[str, Any]) -> AnswerLoss:
        """Loss on the answers' tokens.

        Pairs of similar length run together (`model.group_by_length`), which changes the loss by rounding only.

        Args:
            samples: `image` float [B, 3, H, W] or [B, 3, F, H, W]; `image_index` long [N] (left out: one question an
                image); `text_input` and `text_output`, N strings each.

        Returns:
            the sum over supervised tokens. Its `noted` has `num_truncated_questions` (cut at `max_txt_len` for the
            language model or the Q-Former), `num_truncated_answers` (cut at `max_output_txt_len`) and
            `num_unsupervised` (an empty answer, with nothing but its end to learn).

        Raises:
            ValueError: the batch is empty, a tensor has a wrong shape or type, or questions, answers and image indices
                are not of the same number.
        """
        questions = self._questions(samples)
        wanted = samples.get("text_output")
        if isinstance(wanted, str) or wanted is None:
            raise ValueError("samples need 'text_output', a list of N answers")
        if len(wanted) != len(questions):
            raise ValueError(f"{len(wanted)} answers for {len(questions)} questions")
        answers, _ = text.encode_answers(self.llm_tokenizer, list(wanted), self.settings.max_output_txt_len)
        prompts = self._prompt_rows(questions)
        prefix_NQD = self._visual_prefix(samples, questions)
        loss_sum = prefix_NQD.new_zeros((), dtype=torch.float32)
        lengths = self._row_lengths(prefix_NQD, prompts, answers)
        groups = self._groups(lengths)
        for group in groups:
            run = self._loss_seq2seq if self.is_seq2seq else self._loss_causal
            prefix = prefix_NQD if len(group) == len(questions) else prefix_NQD[group]
            loss_sum = loss_sum + run(prefix, [prompts[row] for row in group], [answers[row] for row in group])
        num_tokens = sum(len(answer) for answer in answers)
        sizes = self._sizes(samples["image"], prompts, num_tokens, positions_of(lengths, groups))
        return AnswerLoss(loss_sum, num_tokens, self._note_texts(questions, answers), sizes)

    def call_in_step(self, enabled: bool) -> None:
        """See `EmotionModel.call_in_step`: texts are not grouped by length, and generation runs as long everywhere."""
        self.in_step = enabled

    def num_answer_tokens(self, samples: Mapping[str, Any]) -> int:
        """Supervised tokens of a batch, `num_tokens` of `forward`, without a forward pass."""
        answers, _ = text.encode_answers(self.llm_tokenizer, samples["text_output"], self.settings.max_output_txt_len)
        return sum(len(answer) for answer in answers)

    def blank_batch(self) -> dict[str, Any]:
        """A batch with one black picture and a word about it, for a process that has to run along without a sample."""
        size = self.settings.image_size
        return {
            "image": torch.zeros(1, 3, size, size),
            "image_index": torch.zeros(1, dtype=torch.long),
            "text_input": ["blank"],
            "text_output": ["blank"],
            "instance_id": ["blank"],
            "label": [None],
            "record_id": ["blank"],
        }

    def _row_lengths(
        self, prefix_NQD: torch.Tensor, prompts: list[list[int]], answers: list[list[int]]
    ) -> list[tuple[int, ...]]:
        """Positions that each pair takes in the language model; those of encoder and decoder are padded apart."""
        lengths = [(prefix_NQD.shape[1] + len(prompt), len(answer)) for prompt, answer in zip(prompts, answers)]
        return list(lengths) if self.is_seq2seq else [(sum(pair),) for pair in lengths]

    def _sizes(
        self,
        image: torch.Tensor,
        prompts: list[list[int]],
        num_tokens: int,
        positions: tuple[tuple[int, ...], tuple[int, ...]],
    ) -> PassSizes:
        num_frames = image.shape[2] if image.dim() == 5 else 1
        words = sum(map(len, prompts)) if self.settings.qformer_text_input else 0
        return PassSizes(
            num_images=image.shape[0] * num_frames,
            num_reads=len(prompts) * num_frames,
            num_question_tokens=words * num_frames,
            real_positions=positions[0],
            run_positions=positions[1],
            num_supervised=num_tokens,
        )

    def _loss_causal(
        self, prefix_NQD: torch.Tensor, prompts: list[list[int]], answers: list[list[int]]
    ) -> torch.Tensor:
        batch = text.join_prompts_and_answers(prompts, answers, self.llm_tokenizer.pad_token_id)
        embeds = self._embed(batch.input_ids.to(self.device))
        # Position t predicts token t + 1; the query tokens come first and the last position predicts nothing.
        labels_NT = F.pad(batch.labels, (prefix_NQD.shape[1] - 1, 1), value=text.IGNORED)
        # Padding comes last, where a causal model cannot see it: a mask would only keep fast attention away.
        return answer_loss(
            self.core.language_model,
            labels_NT,
            inputs_embeds=torch.cat([prefix_NQD.to(embeds.dtype), embeds], dim=1),
        )

    def _loss_seq2seq(
        self, prefix_NQD: torch.Tensor, prompts: list[list[int]], answers: list[list[int]]
    ) -> torch.Tensor:
        inputs, mask = self._language_inputs(prefix_NQD, prompts)
        labels_NT, _ = text.pad(answers, text.IGNORED)
        language_model: Any = self.core.language_model
        return answer_loss(
            language_model,
            labels_NT,
            inputs_embeds=inputs,
            attention_mask=mask,
            decoder_input_ids=language_model.prepare_decoder_input_ids_from_labels(labels=labels_NT.to(self.device)),
        )

    def _note_texts(self, questions: list[str], answers: list[list[int]]) -> dict[str, list[int]]:
        """Numbers of the pairs whose text was cut or gives nothing to learn."""
        most, end = self.settings.max_txt_len, self.llm_tokenizer.eos_token_id
        begin = not self.is_seq2seq and self.llm_tokenizer.bos_token_id is not None
        cut = set(longer_than(self.llm_tokenizer, questions, most - begin, self.is_seq2seq))
        if self.settings.qformer_text_input:
            cut |= set(longer_than(self.qformer_tokenizer, questions, most, True))
        return {
            "num_truncated_questions": sorted(cut),
            # A cut answer has no end token: the text does not end there.
            "num_truncated_answers": [pair for pair, answer in enumerate(answers) if answer[-1] != end],
            "num_unsupervised": [pair for pair, answer in enumerate(answers) if answer == [end]],
        }


def _check_text_length(core: Any, settings: ModelSettings) -> None:
    room = core.config.qformer_config.max_position_embeddings
    if settings.qformer_text_input and settings.max_txt_len > room:
        raise ConfigError(
            [f"model.max_txt_len: {settings.max_txt_len} tokens, the Q-Former has {room} positions for text"],
            "the model configuration",
        )
