"""EmoVIT on the small parts: the InstructBLIP family with a convolutional image encoder and a chat template.

Legend: `B` images, `F` frames of an image that is a clip, `N` image-question pairs, `P` cells of the grid, `Q` query
tokens, `D` width.

The language model reads a user's turn: `<|im_start|>user`, the query tokens, the question, and the start of the
assistant's turn, behind which the answer begins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from lavis_emovit.errors import WeightsError
from lavis_emovit.models.base import FoundWeights
from lavis_emovit.models.catalogue import declared_models
from lavis_emovit.models.instructblip.checks import check_images
from lavis_emovit.models.instructblip.flops import InstructBlipFlops, num_weights
from lavis_emovit.models.instructblip.image_encoder import InstructBlipImageEncoder, by_frame
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.protocol import AnswerLoss, Batch
from lavis_emovit.models.small import packages, vision
from lavis_emovit.models.small.architecture import CONFIG_NAME, empty_core, load_folder, load_vision, read_config
from lavis_emovit.models.small.build import build, built_folder
from lavis_emovit.models.small.settings import ModelSettings
from lavis_emovit.paths import expand_home

PACKAGES = "packages"
TURN = "<|im_start|>user\n"
# Cosines are at most 1; times this, the softmax over the vocabulary can become certain.
COSINE_SCALE = 20.0
ANSWER_TURN = "<|im_end|>\n<|im_start|>assistant\n"


class EmoVITSmall(EmoVIT):
    """The small family, see the head of this file."""

    settings_class = ModelSettings
    settings: ModelSettings
    pool = staticmethod(vision.pool)

    @classmethod
    def check_weights(cls, settings: Any) -> str | None:
        folder = _folder_of(settings)
        if (folder / CONFIG_NAME).is_file():
            return None
        if settings.pretrained != PACKAGES:
            raise WeightsError(f"model.pretrained: no {CONFIG_NAME} in {folder}; set it to {PACKAGES} or to a folder")
        packages.check_installed()
        return f"the weights of {settings.arch} will be built from installed packages in {folder}"

    @classmethod
    def find_weights(cls, settings: Any) -> FoundWeights:
        folder = _folder_of(settings)
        if (folder / CONFIG_NAME).is_file():
            origin = read_config(folder).get("made_from", ())
            return FoundWeights(True, f"{folder}, built from {_list_parts(origin)}")
        origin = _list_parts(packages.origin())
        if names := packages.missing():
            return FoundWeights(False, f"made from {origin}; not installed: {', '.join(names)}", packages.INSTALL)
        return FoundWeights(False, f"built in {folder} on first use from {origin}", "now: make small")

    @classmethod
    def from_settings(cls, settings: Any) -> EmoVITSmall:
        """Load the built weights; they are built first where they are missing."""
        return cls(load_folder(cls.folder(settings), settings), settings)

    @classmethod
    def folder(cls, settings: Any) -> Path:
        """The folder of the weights, which is built first if it is missing; WeightsError if that is impossible."""
        cls.check_weights(settings)
        return build() if settings.pretrained == PACKAGES else _folder_of(settings)

    def encode_images(self, image: torch.Tensor) -> torch.Tensor:
        """Image features after the layer norm; arguments and result as `EmoVIT.encode_images`."""
        check_images(image, self.settings.image_size, finite=not self.training)
        self._check_autocast(image.device.type)
        return by_frame(self.core.vision_model, image)

    @classmethod
    def image_encoder_of(cls, settings: Any) -> InstructBlipImageEncoder:
        return SmallImageEncoder(load_vision(cls.folder(settings), settings), settings)

    def answer_loss(self, samples: Batch, by_pair: bool = False) -> AnswerLoss:
        """As `EmoVIT.answer_loss`; in the first `reading_epochs` of training without the language model."""
        if not self.training or samples.get("epoch", self.settings.reading_epochs) >= self.settings.reading_epochs:
            return super().answer_loss(samples, by_pair)
        pairs = self._read_pairs(samples)
        sizes = replace(self._sizes(pairs, samples), real_positions=(0,), run_positions=(0,))
        return AnswerLoss(self._prefix_loss(pairs), pairs.num_answer_tokens, self._note_texts(pairs), sizes)

    def _queries(self, embeds_NPD: torch.Tensor) -> torch.Tensor:
        """Query tokens; those that read no names begin with the mean of the image's cells."""
        queries_NQD = super()._queries(embeds_NPD)
        layer = self.core.query_tokens_of_image
        mean_ND = embeds_NPD[:, : -vision.NUM_WORDS, : vision.GRID_WIDTH].mean(dim=1)
        own_NQD = layer(mean_ND.to(layer.weight.dtype)).view(len(embeds_NPD), -1, queries_NQD.shape[2])
        return queries_NQD + F.pad(own_NQD, (0, 0, vision.NUM_WORDS, 0)).to(queries_NQD.dtype)

    def _of_patches(self, values_P: torch.Tensor) -> torch.Tensor:
        return values_P[: -vision.NUM_WORDS]

    def _visual_prefix(self, samples: Batch, questions: list[str]) -> torch.Tensor:
        """The beginning of the user's turn and the query tokens, [N, Q, D]."""
        prefix_NQD = super()._visual_prefix(samples, questions)
        turn_TD = self.core.get_input_embeddings()(torch.tensor(self._turn[0], device=self.device))
        return torch.cat([turn_TD.to(prefix_NQD.dtype).expand(len(prefix_NQD), -1, -1), prefix_NQD], dim=1)

    def _prefix_loss(self, pairs: Any) -> torch.Tensor:
        """Each frame's query tokens after those for names should read as the first words of the answer.

        See `reading_loss`; of several frames it is the mean.
        """
        if not self.settings.reading_loss:
            return super()._prefix_loss(pairs)
        queries_NQD = pairs.prefix[:, len(self._turn[0]) :]
        found_NFWD = queries_NQD.unflatten(1, (-1, self.core.config.num_query_tokens))[:, :, vision.NUM_WORDS :]
        answers, end = pairs.answers, self.llm_tokenizer.eos_token_id
        rows = [[token for token in row if token != end][: found_NFWD.shape[2]] for row in answers]
        # Numbers from the host: a mask would let it wait for the device, and memory could not be counted.
        read = [(pair, place, token) for pair, row in enumerate(rows) for place, token in enumerate(row)]
        pair_S, place_S, ids_S = torch.tensor(read, dtype=torch.long, device=self.device).view(-1, 3).unbind(1)
        found_SFD = found_NFWD[pair_S, :, place_S]
        num_frames = found_SFD.shape[1]
        ids_SF = ids_S.repeat_interleave(num_frames)
        loss = reading_loss(found_SFD.flatten(0, 1), ids_SF, self.core.get_input_embeddings().weight)
        return self.settings.reading_loss * loss / num_frames

    def _num_visual_tokens(self, num_frames: int = 1) -> int:
        return super()._num_visual_tokens(num_frames) + len(self._turn[0])

    def _encode_prompts(self, questions: list[str], max_tokens: int | None) -> list[list[int]]:
        rows, end = self.llm_tokenizer(questions, add_special_tokens=False)["input_ids"], self._turn[1]
        if max_tokens is not None:
            room = max(0, max_tokens - len(end))
            rows = [row[len(row) - min(room, len(row)) :] for row in rows]
        return [row + end for row in rows]

    def _num_added_tokens(self) -> int:
        return len(self._turn[1])

    def _load_original(self, path: Path) -> None:
        raise WeightsError(f"{path} is not a .safetensors file; {self.settings.arch} has no other format")

    @classmethod
    def sizes_json(cls, settings: Any) -> str:
        folder = _folder_of(settings)
        if (folder / CONFIG_NAME).is_file():
            return json.dumps(read_config(folder))
        return json.dumps(declared_models()[settings.arch].content["shapes"])

    @classmethod
    def empty_core(cls, sizes_json: str, settings: Any) -> Any:
        core = empty_core(json.loads(sizes_json), settings.attention)
        with torch.device("meta"):
            core.language_model = LlamaForCausalLM(core.config.text_config)
        return core

    def step_flops(self) -> InstructBlipFlops:
        learns = any(parameter.requires_grad for parameter in self.core.vision_model.encoder.parameters())
        forward = vision.forward_flops(self.settings.image_size)
        # A trained encoder computes the gradients of its input and of its weights too.
        flops = InstructBlipFlops.of(
            self.core, forward * (3 if learns else 1), vision.num_rows(self.settings.image_size)
        )
        layer = self.core.query_tokens_of_image.weight
        factor = 2 + 2 * learns + 2 * layer.requires_grad
        return replace(flops, image_features=flops.image_features + factor * num_weights(layer))

    @cached_property
    def _turn(self) -> tuple[list[int], list[int]]:
        """Tokens before the query tokens, and between the question and the answer."""
        first, last = (self.llm_tokenizer(part, add_special_tokens=False)["input_ids"] for part in (TURN, ANSWER_TURN))
        return first, last


class SmallImageEncoder(InstructBlipImageEncoder):
    """The image encoder without the rest of the model: the same features, bit for bit."""

    pool = staticmethod(vision.pool)

    def encode_images(self, image: torch.Tensor) -> torch.Tensor:
        check_images(image, self.settings.image_size, finite=True)
        return by_frame(self.core.vision_model, image)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "pooled": "mean and largest of the cells"}


def reading_loss(found_SD: torch.Tensor, ids_S: torch.Tensor, embeddings_VD: torch.Tensor) -> torch.Tensor:
    """How far vectors are from the embeddings of tokens, in direction and length, summed over S vectors.

    The direction counts by the cross-entropy of cosines over the vocabulary, as in contrastive training; length and
    direction by the squared distance, in standard deviations of the embeddings.
    """
    found, table = found_SD.float(), embeddings_VD.detach().float()
    logits = F.normalize(found, dim=-1) @ F.normalize(table, dim=-1).T
    squared = (found - table[ids_S]).pow(2).mean(dim=-1) / table.var()
    return F.cross_entropy(COSINE_SCALE * logits, ids_S, reduction="sum") + squared.sum()


def _folder_of(settings: ModelSettings) -> Path:
    return built_folder() if settings.pretrained == PACKAGES else expand_home(settings.pretrained)


def _list_parts(origin: Sequence[Mapping[str, str]]) -> str:
    """Part, package with its version, and licence of each part."""
    return "; ".join(f"{one['part']} ({one['package']}, {one['licence']})" for one in origin)


MODEL_CLASS = EmoVITSmall
