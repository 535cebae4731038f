"""EmoVIT: a frozen image encoder, an instruction-aware Q-Former that learns, a frozen language model.

Legend: `B` images, `N` image-question pairs, `P` image patches (with the class token), `Q` query tokens, `T` text
tokens, `D` width, `V` vocabulary, `C` candidates, `S` supervised positions of the whole batch.

The parts are transformers' InstructBLIP modules; this class adds what LAVIS expects of a model, answers-only loss at
supervised positions, one encoding per image however many questions it has, and candidate scoring.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from lavis.models.base_model import BaseModel
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch.nn import functional as F

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models import text, trained_parts
from lavis_emovit.models.scoring import candidate_token_ids, score_causal, score_seq2seq
from lavis_emovit.models.settings import ModelSettings
from lavis_emovit.models.weights import PRECISIONS, LoadedParts, load_parts
from lavis_emovit.settings import parse_settings


class EmoVIT(BaseModel):
    """The emotion model behind every registered `emovit_*` name."""

    DEFAULT_MODEL_TYPE: ClassVar[str]
    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = {}

    def __init__(self, parts: LoadedParts, settings: ModelSettings):
        super().__init__()
        self.settings = settings
        self.core = parts.core
        self.llm_tokenizer = parts.llm_tokenizer
        self.qformer_tokenizer = parts.qformer_tokenizer
        self.prompt = settings.prompt
        self.is_seq2seq = not self.core.config.use_decoder_only_language_model
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

    # From picture and question to what the language model reads

    def encode_images(self, image: torch.Tensor) -> torch.Tensor:
        """Image features after the layer norm.

        Args:
            image: float [B, 3, H, W], normalised.

        Returns:
            [B, P, D of the encoder].

        Raises:
            ValueError: the tensor is not a batch of pictures of the model's size.
        """
        size = self.settings.image_size
        if image.dim() != 4 or tuple(image.shape[1:]) != (3, size, size):
            raise ValueError(f"image has shape {list(image.shape)}, expected [B, 3, {size}, {size}]")
        return self.core.vision_model(pixel_values=image).last_hidden_state

    def query_images(self, embeds_BPD: torch.Tensor, image_index: torch.Tensor, questions: list[str]) -> torch.Tensor:
        """What the Q-Former makes of each picture in the light of each question, projected for the language model.

        Args:
            embeds_BPD: from `encode_images`.
            image_index: long [N], the image of each question.
            questions: N strings.

        Returns:
            [N, Q, D of the language model].
        """
        embeds_NPD = embeds_BPD.to(self.core.query_tokens.dtype)[image_index]
        tokens = self.qformer_tokenizer(
            questions, padding="longest", truncation=True, max_length=self.settings.max_txt_len, return_tensors="pt"
        ).to(embeds_NPD.device)
        queries_NQD = self.core.query_tokens.expand(len(questions), -1, -1)
        query_mask = torch.ones(queries_NQD.shape[:2], dtype=torch.long, device=embeds_NPD.device)
        read_NQD = self.core.qformer(
            input_ids=tokens.input_ids,
            attention_mask=torch.cat([query_mask, tokens.attention_mask], dim=1),
            query_embeds=queries_NQD,
            encoder_hidden_states=embeds_NPD,
            encoder_attention_mask=torch.ones(embeds_NPD.shape[:2], dtype=torch.long, device=embeds_NPD.device),
        ).last_hidden_state[:, : queries_NQD.shape[1]]
        return self.core.language_projection(read_NQD)

    def _visual_prefix(self, samples: Mapping[str, Any], questions: list[str]) -> torch.Tensor:
        image = samples["image"].to(self.device)
        index = samples.get("image_index")
        if index is None:
            index = torch.arange(image.shape[0])
        if len(index) != len(questions):
            raise ValueError(f"{len(questions)} questions for {len(index)} image indices")
        return self.query_images(self.encode_images(image), index.to(self.device), questions)

    def _questions(self, samples: Mapping[str, Any]) -> list[str]:
        given = samples.get("prompt", samples.get("text_input", self.prompt))
        if isinstance(given, str):
            index = samples.get("image_index")
            given = [given] * (len(index) if index is not None else samples["image"].shape[0])
        questions = list(given)
        if not questions:
            raise ValueError("no question: samples need 'prompt' or 'text_input', a string or a list of N strings")
        return questions

    def _prompt_rows(self, questions: list[str]) -> list[list[int]]:
        return text.encode_prompts(self.llm_tokenizer, questions, self.settings.max_txt_len, self.is_seq2seq)

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.core.get_input_embeddings()(ids)

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

    def _seq2seq_inputs(self, prefix_NQD: torch.Tensor, questions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = text.pad(self._prompt_rows(questions), self.llm_tokenizer.pad_token_id)
        embeds = self._embed(ids.to(self.device))
        query_mask = torch.ones(prefix_NQD.shape[:2], dtype=torch.long, device=self.device)
        return (
            torch.cat([prefix_NQD.to(embeds.dtype), embeds], dim=1),
            torch.cat([query_mask, mask.to(self.device)], dim=1),
        )

    # Answering

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

    def __init__(self, model: EmoVIT):
        self.model = model

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *exception: object) -> None:
        self.model.train()
