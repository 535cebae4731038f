"""Inputs of an image-text model: packed rows, rows with padding, and rows that are read already.

Legend: `N` image-question pairs, `L` tokens of a packed row, `T` tokens of a padded row, `H` heads, `D` width
of a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lavis_emovit.models import text
from lavis_emovit.models.growing_cache import CACHE_KEY, growing_cache
from lavis_emovit.models.image_text.packed import PackedRow, reading
from lavis_emovit.models.image_text.shared_prefix import SharedPrefix
from lavis_emovit.models.lengths import PassSizes
from lavis_emovit.models.loss import head_reads


@dataclass(frozen=True)
class Pair:
    """A question with its answer: the image's number, token ids behind the image, the answer's with its end token."""

    image: int
    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Run:
    """Inputs of one forward pass.

    Attributes:
        labels: the token that each position predicts, on the CPU.
        places: of each pair, the position that predicts the first token of its answer.
        num_images: images that are encoded, with every frame of a clip; with `box: both`, two of a record with a box.
        row: the packed row, None for padded ones.
    """

    inputs: dict[str, Any]
    labels: torch.Tensor
    places: list[int]
    num_images: int
    row: PackedRow | None = None

    def active(self) -> Any:
        """Context in which the model reads these inputs."""
        return reading(self.row)

    def sizes(self, num_supervised: int) -> PassSizes:
        positions = self.inputs["input_ids"].numel()
        real = positions if self.row is not None else int(self.inputs["attention_mask"].sum())
        return PassSizes(self.num_images, 0, 0, (real,), (positions,), num_supervised)


class Inputs:
    """Makes the inputs of one model.

    Args:
        core: of transformers.
        chat: its texts, `ChatText`.
        vision_encoder: its image encoder, whose precision the pixels get.
    """

    def __init__(self, core: Any, chat: Any, vision_encoder: Any):
        self._core, self._chat, self._vision_encoder = core, chat, vision_encoder
        pad_id = chat.tokenizer.pad_token_id
        self.pad_id: int = chat.end_ids[0] if pad_id is None else pad_id
        # PaliGemma's prompt sees itself in both directions; its answers have another kind.
        self._answer_kind = int(core.config.model_type == "paligemma")
        self._sees_both_ways = "token_type_ids" in inspect.signature(core.forward).parameters

    @property
    def _device(self) -> torch.device:
        return next(self._core.parameters()).device

    def packed(self, images: Any, pairs: Sequence[Pair]) -> Run:
        """All pairs in one row, those of an image behind it."""
        row, shown, places = PackedRow(), [], [0] * len(pairs)
        labels: list[int] = []
        for number in sorted({pair.image for pair in pairs}):
            self.add_image(row, images.images[number])
            shown.append(number)
            for place, pair in enumerate(pairs):
                if pair.image != number:
                    continue
                # The last token of an answer is predicted and not read.
                row.add([*pair.prompt, *pair.answer[:-1]])
                places[place] = len(row) - len(pair.answer)
                labels += [text.IGNORED] * (places[place] - len(labels)) + pair.answer
        return self.of_row(row, images, shown, torch.tensor([labels]), places)

    def padded(self, images: Any, pairs: Sequence[Pair]) -> Run:
        """A row for each pair, padded on the right, with its image again."""
        rows = [[*images.images[pair.image].ids.tolist(), *pair.prompt, *pair.answer[:-1]] for pair in pairs]
        lengths, numbers = list(map(len, rows)), [pair.image for pair in pairs]
        inputs = self.of_rows(images, numbers, rows, [len(pair.answer) - 1 for pair in pairs])
        labels = torch.full(inputs["input_ids"].shape, text.IGNORED)
        for number, (pair, length) in enumerate(zip(pairs, lengths)):
            labels[number, length - len(pair.answer) : length] = torch.tensor(pair.answer)
        places = [length - len(pair.answer) for pair, length in zip(pairs, lengths)]
        return Run(inputs, labels, places, _num_encoded(images, numbers))

    def add_image(self, row: PackedRow, image: Any) -> None:
        """Begin a segment of a packed row with an image."""
        groups = None
        if self._sees_both_ways and image.kinds is not None:
            is_image = image.kinds == 1
            begins = is_image & ~torch.cat([is_image.new_zeros(1), is_image[:-1]])
            groups = torch.where(is_image, begins.cumsum(0) - 1, -1)
        row.add_image(image.ids.tolist(), groups)

    def of_row(self, row: PackedRow, images: Any, shown: Sequence[int], labels: torch.Tensor, places: list[int]) -> Run:
        """Inputs of a packed row with the images `shown`, in their order."""
        inputs = {
            "input_ids": torch.tensor([row.ids], device=self._device),
            "position_ids": self._positions(row, [images.images[number] for number in shown]).to(self._device),
            **self.features(images, shown),
        }
        return Run(inputs, labels, places, _num_encoded(images, shown), row)

    def of_rows(
        self,
        images: Any,
        shown: Sequence[int],
        rows: Sequence[list[int]],
        num_answer: Sequence[int],
        side: str = "right",
    ) -> dict[str, Any]:
        """Inputs of transformers for padded rows of tokens, each with its image; the last `num_answer` tokens of a row
        belong to its answer."""
        ids, mask = text.pad(list(rows), self.pad_id, side=side)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._chat.kinds_key is not None:
            kinds = []
            for number, row, num_last in zip(shown, rows, num_answer):
                known = images.images[number].kinds.tolist()
                kinds.append([*known, *[0] * (len(row) - len(known) - num_last), *[self._answer_kind] * num_last])
            inputs[self._chat.kinds_key] = text.pad(kinds, 0, side=side)[0]
        return {name: value.to(self._device) for name, value in inputs.items()} | self.features(images, shown)

    def read_once(
        self, images: Any, numbers: Sequence[int], prompts: Sequence[list[int]], rows: list[list[int]]
    ) -> tuple[dict[str, Any], SharedPrefix]:
        """Inputs of transformers' `generate` whose rows are read already, all but the last token of each.

        `generate` gets them while the model is `reading` the prefix that is returned, for any number of answers.

        Args:
            numbers, prompts: the image of each question, and its tokens behind the image.
            rows: all tokens of each question, with those of its image.
        """
        row, shown, sources = self._questions_row(images, numbers, prompts)
        row.cache = {}
        run = self.of_row(row, images, shown, torch.empty(0), [])
        first = torch.zeros(1, dtype=torch.long, device=self._device)
        with run.active(), head_reads(self._core.get_output_embeddings(), first, first):
            self._core(use_cache=False, **run.inputs)
        ids_NT, mask_NT = text.pad(rows, self.pad_id, side="left")
        where_NT = text.pad(sources, 0, side="left")[0][:, :-1].to(self._device)
        # [1, H, L, D] to [N, H, T - 1, D], in one piece: products of other tensors copy them at every step.
        layers = {
            layer: (
                key[0][:, where_NT].transpose(0, 1).contiguous(),
                value[0][:, where_NT].transpose(0, 1).contiguous(),
            )
            for layer, (key, value) in row.cache.items()
        }
        prefix = SharedPrefix(layers, mask_NT[:, :-1].bool().to(self._device))
        cache = growing_cache(self._core.config, prefix.num_tokens)
        if hasattr(getattr(self._core, "model", None), "rope_deltas"):
            # The next position of a row less its length, which models with three axes keep between steps.
            positions_L = run.inputs["position_ids"][0, 0]
            ends = torch.tensor([places[-1] for places in sources], device=self._device)
            lengths = torch.tensor([[len(places)] for places in sources], device=self._device)
            self._core.model.rope_deltas = positions_L[ends][:, None] + 1 - lengths
        inputs = {"input_ids": ids_NT.to(self._device), "attention_mask": mask_NT.to(self._device), CACHE_KEY: cache}
        return inputs, prefix

    def embedded(
        self, images: Any, numbers: Sequence[int], prompts: Sequence[list[int]], language_model: Any
    ) -> list[torch.Tensor]:
        """What the language model reads of each question, [T, D]; the model is stopped where it would read it."""
        row, shown, sources = self._questions_row(images, numbers, prompts)
        run = self.of_row(row, images, shown, torch.empty(0), [])
        handle = language_model.register_forward_pre_hook(_stop, with_kwargs=True)
        try:
            self._core(use_cache=False, **run.inputs)
            raise AssertionError("the model has not called its language model")
        except _StopError as stopped:
            embeds_LD = stopped.inputs["inputs_embeds"][0]
        finally:
            handle.remove()
        return [embeds_LD[places] for places in sources]

    def _questions_row(
        self, images: Any, numbers: Sequence[int], prompts: Sequence[list[int]]
    ) -> tuple[PackedRow, list[int], list[list[int]]]:
        """All questions in one row, the images in it, and the places of each question with its image."""
        row, shown = PackedRow(), sorted(set(numbers))
        sources: list[list[int]] = [[] for _ in numbers]
        for number in shown:
            begin = len(row)
            self.add_image(row, images.images[number])
            of_image = range(begin, len(row))
            for place, (other, prompt) in enumerate(zip(numbers, prompts)):
                if other == number:
                    start = len(row)
                    row.add(prompt)
                    sources[place] = [*of_image, *range(start, len(row))]
        return row, shown, sources

    def features(self, images: Any, shown: Sequence[int]) -> dict[str, torch.Tensor]:
        """What the model's image encoder gets for some images."""
        dtype = next(self._vision_encoder.parameters()).dtype
        return {
            name: value.to(device=self._device, dtype=dtype if value.is_floating_point() else None)
            for name, value in images.stack(shown).items()
        }

    def _positions(self, row: PackedRow, images: Iterable[Any]) -> torch.Tensor:
        """Position of each token as if its text stood alone, [1, L], or [3, 1, L] for models with three axes."""
        places_L = row.places()
        find = getattr(getattr(self._core, "model", None), "get_rope_index", None)
        if find is None:
            return places_L[None]
        found = places_L.expand(3, 1, -1).clone()
        for image, (start, num_shared, end) in zip(images, row.segments()):
            grids = {name: value.cpu() for name, value in image.features.items() if name.endswith("grid_thw")}
            kinds = {} if image.kinds is None else {"mm_token_type_ids": image.kinds[None]}
            known, _ = find(image.ids[None], **kinds, **grids)
            middle = start + num_shared
            found[:, :, start:middle] = known
            # Behind an image, all axes count on from the largest position so far.
            found[:, :, middle:end] += known.max() + 1 - num_shared
        return found


class _StopError(Exception):
    """A module was about to run."""

    def __init__(self, inputs: Mapping[str, Any]):
        super().__init__()
        self.inputs = inputs


def _stop(module: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
    raise _StopError(kwargs)


def _num_encoded(images: Any, numbers: Sequence[int]) -> int:
    return sum(images.images[number].num_images for number in numbers)
