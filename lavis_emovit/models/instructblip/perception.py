"""How an EmoVIT model reads pictures and questions, up to the inputs of the language model.

Legend: `B` images, `F` frames of an image that is a clip, `N` image-question pairs, `P` image patches (with the class
token), `Q` query tokens (of all frames, where an image has several), `T` text tokens, `D` width.

Every part runs in its own precision, and what crosses from one to the next is cast there. So a frozen encoder and
language model in half precision work beside float32 weights that learn, with and without autocast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lavis.models.base_model import BaseModel

from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.models.instructblip import text
from lavis_emovit.models.instructblip.loading import PRECISIONS, LoadedParts
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.models.lengths import in_given_order, length_groups, pass_cost


class Perception(BaseModel):
    """The parts of the model and what leads from pictures and questions to the language model.

    Attributes:
        in_step: set where weights are spread over processes, which all have to call each module equally often.
    """

    in_step = False

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

        The weights' positional embeddings are interpolated (bicubic) where `model.image_size` is not the size that they
        were made for.

        Args:
            image: float [B, 3, H, W], normalised; or clips [B, 3, F, H, W], whose frames are encoded each on its own.

        Returns:
            [B, P, D of the encoder], or [B, F, P, D].

        Raises:
            ValueError: the tensor is not a batch of pictures of the model's size, or, in evaluation, holds NaN.
        """
        self._check_images(image)
        self._check_autocast(image.device.type)
        is_clip = image.dim() == 5
        frames = image.transpose(1, 2).flatten(0, 1) if is_clip else image
        vision: Any = self.core.vision_model
        own_size = self.core.config.vision_config.image_size  # type: ignore[union-attr]
        patches = vision.embeddings(frames, interpolate_pos_encoding=self.settings.image_size != own_size)
        read = vision.encoder(inputs_embeds=patches).last_hidden_state
        embeds = vision.post_layernorm(read.to(vision.post_layernorm.weight.dtype))
        return embeds.unflatten(0, (image.shape[0], image.shape[2])) if is_clip else embeds

    def query_images(self, embeds: torch.Tensor, image_index: torch.Tensor, questions: list[str]) -> torch.Tensor:
        """What the Q-Former makes of each picture in the light of each question, projected for the language model.

        Args:
            embeds: from `encode_images`, [B, P, D] or [B, F, P, D].
            image_index: long [N], the image of each question.
            questions: N strings.

        Returns:
            [N, Q, D of the language model]; the query tokens of all frames behind each other.
        """
        qformer: Any = self.core.qformer
        embeds_BFPD = (embeds if embeds.dim() == 4 else embeds[:, None]).to(qformer.dtype)
        rows = self._qformer_rows(questions)
        num_queries = self.core.query_tokens.shape[1]
        groups = self._groups([[num_queries + len(row)] for row in rows])
        read = []
        for group in groups:
            index = image_index if len(groups) == 1 else image_index[group]
            read.append(self._run_qformer(embeds_BFPD[index], [rows[number] for number in group]))
        read_NQD = in_given_order(read, groups)
        projection = self.core.language_projection
        return projection(read_NQD.to(projection.weight.dtype))

    def _run_qformer(self, embeds_NFPD: torch.Tensor, rows: list[list[int]]) -> torch.Tensor:
        """Query tokens [N, F * queries, D] for N clips and the token ids of their questions."""
        num_frames = embeds_NFPD.shape[1]
        # Every frame is read in the light of the clip's question, and on its own.
        embeds = embeds_NFPD.flatten(0, 1)
        queries = self.core.query_tokens.expand(len(embeds), -1, -1)
        ids = mask = None
        if self.settings.qformer_text_input:
            ids, text_mask = (
                tensor.repeat_interleave(num_frames, dim=0).to(embeds.device)
                for tensor in text.pad(rows, self.qformer_tokenizer.pad_token_id)
            )
            mask = torch.cat([text_mask.new_ones(queries.shape[:2]), text_mask], dim=1)
        read = self.core.qformer(
            input_ids=ids, attention_mask=mask, query_embeds=queries, encoder_hidden_states=embeds
        ).last_hidden_state[:, : queries.shape[1]]
        return read.reshape(len(embeds_NFPD), num_frames * queries.shape[1], -1)

    def _qformer_rows(self, questions: list[str]) -> list[list[int]]:
        if not self.settings.qformer_text_input:
            return [[] for _ in questions]
        return self.qformer_tokenizer(questions, truncation=True, max_length=self.settings.max_txt_len)["input_ids"]

    def _groups(self, lengths: Sequence[Sequence[int]]) -> list[list[int]]:
        """Pairs that are run together, by the lengths of their rows."""
        if self.in_step or not self.settings.group_by_length:
            return [list(range(len(lengths)))]
        return length_groups(lengths, pass_cost(self.device))

    def _visual_prefix(self, samples: Mapping[str, Any], questions: list[str]) -> torch.Tensor:
        image = samples.get("image")
        if not isinstance(image, torch.Tensor):
            raise ValueError(f"samples need 'image', a tensor [B, 3, H, W]; got {type(image).__name__}")
        index = samples.get("image_index")
        index = torch.arange(image.shape[0]) if index is None else torch.as_tensor(index)
        if len(index) != len(questions):
            raise ValueError(f"{len(questions)} questions for {len(index)} image indices")
        if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"image_index has shape {list(index.shape)} and type {index.dtype}, expected long [N]")
        numbers = index.tolist()
        if min(numbers) < 0 or max(numbers) >= image.shape[0]:
            raise ValueError(
                f"image_index goes from {min(numbers)} to {max(numbers)}, images from 0 to {image.shape[0] - 1}"
            )
        return self.query_images(self.encode_images(image.to(self.device)), index.to(self.device), questions)

    def _check_images(self, image: torch.Tensor) -> None:
        size = self.settings.image_size
        shape = tuple(image.shape)
        fits = len(shape) in (4, 5) and shape[1] == 3 and shape[-2:] == (size, size)
        if not fits or not all(shape):
            expected = f"[B, 3, {size}, {size}], or [B, 3, F, {size}, {size}] for clips"
            raise ValueError(f"image has shape {list(shape)}, expected {expected}")
        if not image.is_floating_point():
            raise ValueError(f"image has type {image.dtype}, expected floats as the image processor gives them")
        # In training the loss is looked at anyway, and this would make the host wait for the device in every step.
        if not self.training and not image.isfinite().all():
            bad = (~image.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
            named = f"{', '.join(map(str, bad[:8]))}{' ...' if len(bad) > 8 else ''}"
            raise DataError(f"image has pixels that are NaN or infinite (in picture {named} of the batch, from 0)")

    def _check_autocast(self, device_type: str) -> None:
        """torch's autocast refuses, deep inside, tensors of the half precision that is not its own."""
        frozen = PRECISIONS[self.settings.frozen_precision]
        if not torch.is_autocast_enabled(device_type) or frozen == torch.float32:
            return
        amp = torch.get_autocast_dtype(device_type)
        if amp != frozen:
            names = {dtype: name for name, dtype in reversed(PRECISIONS.items())}
            raise ConfigError(
                [
                    f"model.frozen_precision={self.settings.frozen_precision} does not go with autocast in {amp}; set "
                    f"run.amp={names[frozen]} or off, or model.frozen_precision={names[amp]}"
                ],
                "mixed precision",
            )

    def _questions(self, samples: Mapping[str, Any]) -> list[str]:
        given = samples.get("prompt", samples.get("text_input", self.prompt))
        if isinstance(given, str):
            index = samples.get("image_index")
            given = [given] * (len(index) if index is not None else samples["image"].shape[0])
        if not isinstance(given, (list, tuple)) or not all(isinstance(question, str) for question in given):
            raise ValueError(f"questions should be a string or a list of N strings, not {given!r}")
        questions = list(given)
        if not questions:
            raise ValueError("no question: samples need 'prompt' or 'text_input', a string or a list of N strings")
        return questions

    def _prompt_rows(self, questions: list[str]) -> list[list[int]]:
        return text.encode_prompts(self.llm_tokenizer, questions, self.settings.max_txt_len, self.is_seq2seq)

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.core.get_input_embeddings()(ids)

    def _language_inputs(
        self, prefix_NQD: torch.Tensor, prompts: list[list[int]], side: str = "right"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embedded `[visual prefix][prompt]` [N, Q + T, D] and its mask; prompts are padded on the side given."""
        ids, mask = text.pad(prompts, self.llm_tokenizer.pad_token_id, side=side)
        embeds = self._embed(ids.to(self.device))
        query_mask = torch.ones(prefix_NQD.shape[:2], dtype=torch.long, device=self.device)
        return (
            torch.cat([prefix_NQD.to(embeds.dtype), embeds], dim=1),
            torch.cat([query_mask, mask.to(self.device)], dim=1),
        )
