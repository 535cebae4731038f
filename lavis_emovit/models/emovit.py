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
from safetensors.torch import load_file
from torch.nn import functional as F

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models import text, trained_parts
from lavis_emovit.models.answering import Answering
from lavis_emovit.models.loading import PRECISIONS, LoadedParts, load_parts
from lavis_emovit.models.settings import ModelSettings
from lavis_emovit.settings import parse_settings


class EmoVIT(Answering):
    """The emotion model behind every registered `emovit_*` name."""

    DEFAULT_MODEL_TYPE: ClassVar[str]
    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = {}

    def __init__(self, parts: LoadedParts, settings: ModelSettings):
        super().__init__(parts, settings)
        self._trained = trained_parts.freeze_all_but(
            self.core, settings.trained_parts, PRECISIONS[settings.frozen_precision]
        )
        if settings.use_grad_checkpoint:
            self.core.language_model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
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
        trained = sum(parameter.numel() for parameter in self.core.parameters() if parameter.requires_grad)
        return {"trained": trained, "total": sum(parameter.numel() for parameter in self.core.parameters())}

    def load_checkpoint(self, url_or_filename: str) -> Any:
        """Load tuned tensors: a `.safetensors` file of ours, or a checkpoint folder of a run.

        Raises:
            WeightsError: no such file, or tensors of another model.
        """
        path = Path(url_or_filename).expanduser()
        if path.is_dir():
            path = path / "model.safetensors"
        if not path.is_file():
            raise WeightsError(f"no checkpoint at {path}: name a checkpoint folder of a run, or a .safetensors file")
        if path.suffix != ".safetensors":
            raise WeightsError(f"{path} is no .safetensors file; LAVIS .pth files go into model.pretrained")
        self.load_trained_state_dict(load_file(str(path)), str(path))

    # Training

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Loss on the answers' tokens.

        Args:
            samples: `image` float [B, 3, H, W]; `image_index` long [N] (left out: one question an image);
                `text_input` and `text_output`, N strings each.

        Returns:
            `loss`, the mean over supervised tokens (natural log); `loss_sum` and `num_tokens`, its parts, so that
            batches can be weighed by tokens; `num_truncated`, answers cut at `max_output_txt_len`.
        """
        questions = self._questions(samples)
        prefix_NQD = self._visual_prefix(samples, questions)
        answers, truncated = text.encode_answers(
            self.llm_tokenizer, list(samples["text_output"]), self.settings.max_output_txt_len
        )
        if len(answers) != len(questions):
            raise ValueError(f"{len(answers)} answers for {len(questions)} questions")
        loss_sum, num_tokens = (
            self._loss_seq2seq(prefix_NQD, questions, answers)
            if self.is_seq2seq
            else self._loss_causal(prefix_NQD, questions, answers)
        )
        return {
            "loss": loss_sum / num_tokens,
            "loss_sum": loss_sum,
            "num_tokens": num_tokens,
            "num_truncated": truncated,
        }

    def _loss_causal(
        self, prefix_NQD: torch.Tensor, questions: list[str], answers: list[list[int]]
    ) -> tuple[torch.Tensor, int]:
        batch = text.join_prompts_and_answers(self._prompt_rows(questions), answers, self.llm_tokenizer.pad_token_id)
        ids_NT, labels_NT = batch.input_ids.to(self.device), batch.labels.to(self.device)
        embeds = self._embed(ids_NT)
        num_queries = prefix_NQD.shape[1]
        query_mask = torch.ones(prefix_NQD.shape[:2], dtype=torch.long, device=self.device)
        hidden = self.core.language_model.get_decoder()(
            inputs_embeds=torch.cat([prefix_NQD.to(embeds.dtype), embeds], dim=1),
            attention_mask=torch.cat([query_mask, batch.attention_mask.to(self.device)], dim=1),
            use_cache=False,
        ).last_hidden_state
        # Position t predicts token t + 1; logits are needed where that token is part of an answer, and nowhere else.
        predicting = hidden[:, num_queries - 1 : -1]
        supervised = labels_NT != text.IGNORED
        logits_SV = self.core.language_model.get_output_embeddings()(predicting[supervised]).float()
        return F.cross_entropy(logits_SV, labels_NT[supervised], reduction="sum"), int(supervised.sum())

    def _loss_seq2seq(
        self, prefix_NQD: torch.Tensor, questions: list[str], answers: list[list[int]]
    ) -> tuple[torch.Tensor, int]:
        inputs, mask = self._seq2seq_inputs(prefix_NQD, questions)
        labels_NT, label_mask = text.pad(answers, text.IGNORED)
        labels_NT = labels_NT.to(self.device)
        logits = self.core.language_model(
            inputs_embeds=inputs,
            attention_mask=mask,
            labels=labels_NT,
            decoder_attention_mask=label_mask.to(self.device),
            use_cache=False,
        ).logits.float()
        loss = F.cross_entropy(logits.flatten(0, 1), labels_NT.flatten(), ignore_index=text.IGNORED, reduction="sum")
        return loss, int(label_mask.sum())
