"""Checks of batches: images, their numbers, and the length of texts; wrong ones are rejected with a reason."""

from __future__ import annotations

import torch

from lavis_emovit.errors import DataError
from lavis_emovit.models.protocol import Batch
from lavis_emovit.models.text import read_image_index


def num_images_of(samples: Batch) -> int:
    """Number of images of a batch; ValueError if there is none."""
    image = samples.get("image")
    if not isinstance(image, torch.Tensor):
        raise ValueError(f"samples need 'image', a tensor [B, 3, H, W]; got {type(image).__name__}")
    if not len(image):
        raise ValueError(f"no image: samples['image'] has shape {list(image.shape)}")
    return len(image)


def image_index_of(samples: Batch, num_questions: int) -> torch.Tensor:
    """The image of each question, long [N]; by default one question per image. ValueError for invalid ones."""
    return read_image_index(samples, num_images_of(samples), num_questions)


def check_images(image: torch.Tensor, size_px: int, *, finite: bool) -> None:
    """Reject tensors that are not images or clips of this size (ValueError) or, if `finite`, have NaN or infinite
    pixels (DataError)."""
    shape = tuple(image.shape)
    fits = len(shape) in (4, 5) and shape[1] == 3 and shape[-2:] == (size_px, size_px)
    if not fits or not all(shape):
        expected = f"[B, 3, {size_px}, {size_px}], or [B, 3, F, {size_px}, {size_px}] for clips"
        raise ValueError(f"image has shape {list(shape)}, expected {expected}")
    if not image.is_floating_point():
        raise ValueError(f"image has type {image.dtype}, expected floats as the image processor returns them")
    if finite and not image.isfinite().all():
        bad = (~image.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
        named = f"{', '.join(map(str, bad[:8]))}{' ...' if len(bad) > 8 else ''}"
        raise DataError(f"image has pixels that are NaN or infinite (image {named} of the batch, counted from 0)")


def check_context(
    context: int | None, questions: list[str], prompts: list[list[int]], num_visual: int, num_answer: int
) -> None:
    """Reject texts that are longer than the language model's context (DataError); None: it has no limit.

    `num_visual` are the positions before a question, `num_answer` the maximum tokens of an answer.
    """
    if context is None:
        return
    for index, (question, row) in enumerate(zip(questions, prompts)):
        total = num_visual + len(row) + num_answer
        if total > context:
            shown = question if len(question) <= 60 else question[:57] + "..."
            raise DataError(
                f"question {index} ({shown!r}) does not fit: {num_visual} visual tokens, {len(row)} of the question "
                f"and up to {num_answer} of the answer are {total}, the language model's context is {context}; "
                "shorten the question or the answer"
            )
