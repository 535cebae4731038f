"""EfficientNet-Lite0 as an image encoder: a grid of features, and the names of what its classifier sees.

Legend: `B` images, `H` and `W` pixels, `P` cells of the grid (7 x 7 for 224 pixels), `K` names of `T` words, `D` width.

The architecture is EfficientNet (Tan and Le 2019, https://arxiv.org/abs/1905.11946, table 1) in TensorFlow's "lite"
form: no squeeze-and-excitation, ReLU6, and stem and head of fixed widths. Convolutions pad as TensorFlow does. A
folded batch norm is exact in evaluation, and keeps no running statistics that training could shift.

A cell has the features of three depths: what the last layer knows about objects, and colours and shapes of two earlier
stages, which tell more about arousal and faces. The encoder was trained to name 1,000 things, so the likeliest names
follow the grid, a row for each word, as embeddings of the language model: the Q-Former has words to pass on before it
has learned to describe cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lavis_emovit.errors import WeightsError
from lavis_emovit.images import CLIP_MEAN, CLIP_STD

STEM_WIDTH, HEAD_WIDTH = 32, 1280
# Epsilon of the batch norms in the published weights.
BATCH_NORM_EPS = 1e-3
# The encoder was trained on pixels of this mean and standard deviation.
MEAN = STD = 0.5


@dataclass(frozen=True)
class Stage:
    """A row of the paper's table: blocks of one shape, of which only the first has a stride."""

    num_blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)

# Stages whose output joins the head's features in a cell; the earlier one has four cells for one of the head's.
FINE_STAGE, COARSE_STAGE = 4, 5
GRID_WIDTH = HEAD_WIDTH + STAGES[COARSE_STAGE].width + 4 * STAGES[FINE_STAGE].width
NUM_CLASSES, NUM_NAMES, WORDS_PER_NAME = 1000, 2, 4
NUM_WORDS = NUM_NAMES * WORDS_PER_NAME
WORD_WIDTH = 576
# The place of a word is marked in a channel of its own, as strongly as the embeddings of the words.
WIDTH = GRID_WIDTH + WORD_WIDTH + NUM_WORDS
PLACE_MARK = 5.0


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding: an odd pixel goes to the right and the bottom."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sides: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        return super().forward(F.pad(x, sides) if any(sides) else x)


class Block(nn.Module):
    """An inverted residual block: expand, filter each channel, project."""

    def __init__(self, width_in: int, stage: Stage, is_first: bool):
        super().__init__()
        stride, inner = stage.stride if is_first else 1, width_in * stage.expansion
        self.expand = nn.Conv2d(width_in, inner, 1) if stage.expansion > 1 else None
        self.depthwise = SameConv2d(inner, inner, stage.kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, stage.width, 1)
        self.is_residual = stride == 1 and width_in == stage.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        found = self.project(F.relu6(self.depthwise(inner)))
        return x + found if self.is_residual else found


class ImageEncoder(nn.Module):
    """Pixels to the rows that the Q-Former reads."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.post_layernorm = nn.LayerNorm(GRID_WIDTH, eps=1e-5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Rows [B, P + K * T, D]: the cells of the grid, then the words, each kind in channels of its own.

        Args:
            pixels: float [B, 3, H, W], normalised as this package's processors do it.
        """
        if self.encoder._compiled_call_impl is not None:
            # All images have one size. As unknowns, height and width would pass 17 paddings, which takes minutes.
            for side in (2, 3):
                torch._dynamo.mark_static(pixels, side)
        grid, logits = self.encoder(pixels)
        grid = self.post_layernorm(grid.to(self.post_layernorm.weight.dtype))
        shares, classes = logits.float().softmax(dim=-1).topk(NUM_NAMES, dim=-1)
        return join_rows(grid, name_rows(self.encoder.words, classes, shares))


def name_rows(words: torch.Tensor, classes: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The words of the likeliest classes, longer the likelier they are, with their places; [B, K * T, D - GRID_WIDTH].

    Args:
        words: [classes, T, WORD_WIDTH], zero where a name has fewer words.
        classes, shares: [B, K], the likeliest first, with their probabilities.
    """
    # The root of zero has no gradient.
    lengths = shares.clamp(min=torch.finfo(shares.dtype).tiny).sqrt()
    rows = (words[classes] * lengths[..., None, None].to(words.dtype)).flatten(1, 2)
    places = PLACE_MARK * torch.eye(NUM_WORDS, dtype=rows.dtype, device=rows.device)
    return torch.cat([rows, places.expand(len(rows), -1, -1)], dim=-1)


def join_rows(grid: torch.Tensor, names: torch.Tensor) -> torch.Tensor:
    """Cells [B, P, GRID_WIDTH], then words, in one tensor [B, P + K * T, D]."""
    return torch.cat([F.pad(grid, (0, WIDTH - GRID_WIDTH)), F.pad(names.to(grid.dtype), (GRID_WIDTH, 0))], dim=1)


def pool(embeds: torch.Tensor) -> torch.Tensor:
    """Mean and largest value of the cells, [B, 2 * GRID_WIDTH], for linear models."""
    cells = embeds[:, :-NUM_WORDS, :GRID_WIDTH]
    return torch.cat([cells.mean(dim=1), cells.amax(dim=1)], dim=1)


class Encoder(nn.Module):
    """The convolutions, the classifier, and the words of its classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM_WIDTH, 3, stride=2)
        widths = [STEM_WIDTH, *(stage.width for stage in STAGES)]
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    Block(stage.width if number else width_in, stage, is_first=not number)
                    for number in range(stage.num_blocks)
                )
            )
            for width_in, stage in zip(widths, STAGES)
        )
        self.head = nn.Conv2d(widths[-1], HEAD_WIDTH, 1)
        self.classifier = nn.Linear(HEAD_WIDTH, NUM_CLASSES)
        self.words = nn.Parameter(torch.zeros(NUM_CLASSES, WORDS_PER_NAME, WORD_WIDTH))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Grid [B, P, GRID_WIDTH] and logits [B, classes] of normalised pixels [B, 3, H, W]."""
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        x = ((pixels * std + mean - MEAN) / STD).to(self.stem.weight.dtype)
        x = F.relu6(self.stem(x))
        depths = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number == FINE_STAGE:
                fine = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
                depths.append(F.pixel_unshuffle(fine, 2))
            elif number == COARSE_STAGE:
                depths.append(x)
        head = F.relu6(self.head(x))
        cells = [found.flatten(2).transpose(1, 2) for found in (head, *depths)]
        grid = torch.cat([F.layer_norm(one, one.shape[-1:]) for one in cells], dim=-1)
        return grid, self.classifier(cells[0].mean(dim=1))


def num_rows(size_px: int) -> int:
    """P + K * T for square images of this size."""
    for stride in (2, *(stage.stride for stage in STAGES)):
        size_px = -(-size_px // stride)
    return size_px**2 + NUM_WORDS


@cache
def forward_flops(size_px: int) -> float:
    """Operations of one image, forward."""
    with torch.device("meta"):
        encoder, pixels = Encoder(), torch.empty(1, 3, size_px, size_px)
    with FlopCounterMode(display=False) as counter:
        encoder(pixels)
    return float(counter.get_total_flops())


def fold(state: Mapping[str, torch.Tensor], source: str) -> dict[str, torch.Tensor]:
    """The tensors of an `Encoder`, except `words`, from those of the published file; folded in float64.

    Raises:
        WeightsError: a tensor is missing.
    """
    tensors = {}
    with torch.device("meta"):
        convolutions = [name for name, module in Encoder().named_modules() if isinstance(module, nn.Conv2d)]
    try:
        for name in convolutions:
            convolution, norm = _published_names(name)
            weight = state[f"{convolution}.weight"].double()
            scale, shift, mean, variance = (
                state[f"{norm}.{key}"].double() for key in ("weight", "bias", "running_mean", "running_var")
            )
            factor = scale / (variance + BATCH_NORM_EPS).sqrt()
            tensors[f"{name}.weight"] = (weight * factor[:, None, None, None]).float()
            tensors[f"{name}.bias"] = (shift - mean * factor).float()
        return tensors | {f"classifier.{key}": state[f"_fc.{key}"] for key in ("weight", "bias")}
    except KeyError as error:
        raise WeightsError(f"{source} has no tensor {error}; install the package again") from None


def _published_names(name: str) -> tuple[str, str]:
    """Names of a convolution and its batch norm in the published file."""
    if name in ("stem", "head"):
        return f"_conv_{name}", "_bn0" if name == "stem" else "_bn1"
    _, stage, number, kind = name.split(".")
    block = f"_blocks.{sum(one.num_blocks for one in STAGES[: int(stage)]) + int(number)}"
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[kind]
    return f"{block}._{kind}_conv", f"{block}.{norm}"
