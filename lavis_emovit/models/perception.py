"""How an EmoVIT model reads pictures and questions, up to the inputs of the language model.

Legend: `B` images, `N` image-question pairs, `P` image patches (with the class token), `Q` query tokens, `T` text
tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lavis.models.base_model import BaseModel

from lavis_emovit.models import text
from lavis_emovit.models.loading import LoadedParts
from lavis_emovit.models.settings import ModelSettings


class Perception(BaseModel):
    """The parts of the model and what leads from pictures and questions to the language model."""

    def __init__(self, parts: LoadedParts, settings: ModelSettings):
        super().__init__()
        self.settings = settings
        self.core = parts.core
        self.llm_tokenizer = parts.llm_tokenizer
        self.qformer_tokenizer = parts.qformer_tokenizer
        self.prompt = settings.prompt
        self.is_seq2seq = not self.core.config.use_decoder_only_language_model

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

    def _seq2seq_inputs(self, prefix_NQD: torch.Tensor, questions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = text.pad(self._prompt_rows(questions), self.llm_tokenizer.pad_token_id)
        embeds = self._embed(ids.to(self.device))
        query_mask = torch.ones(prefix_NQD.shape[:2], dtype=torch.long, device=self.device)
        return (
            torch.cat([prefix_NQD.to(embeds.dtype), embeds], dim=1),
            torch.cat([query_mask, mask.to(self.device)], dim=1),
        )
