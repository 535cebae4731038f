"""Time in a clip: what the Q-Former read in its frames is put in order, compared and pooled.

Legend: `N` image-question pairs, `F` frames, `Q` query tokens of a frame, `D` width of the Q-Former.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lavis_emovit.models.instructblip.settings import FramePooling


class TimeConvolution(nn.Module):
    """A residual layer over time: norm, minus the mean over the clip, two convolutions of three frames, their product,
    projection.

    That is the gated convolution of Dauphin et al. (2017, https://arxiv.org/abs/1612.08083) with a linear gate (Shazeer
    2020, https://arxiv.org/abs/2002.05202): products compare frames. The clip is padded by zeros.
    """

    def __init__(self, config: Any):
        super().__init__()
        width, hidden = config.hidden_size, config.intermediate_size
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.convolution = nn.Conv1d(width, 2 * hidden, kernel_size=3, padding=1)
        # Three times torch's default deviation: the product of small factors would be lost beside the residual.
        nn.init.normal_(self.convolution.weight, std=(width * 3) ** -0.5 * 3**0.5)
        self.projection = nn.Linear(hidden, width)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, read_NFQD: torch.Tensor) -> torch.Tensor:
        """[N, F, Q, D] from the same."""
        num_pairs, _, num_queries, _ = read_NFQD.shape
        normed_NFQD = self.norm(read_NFQD)
        # What all frames of a clip share is larger than their differences, and would dominate the products.
        differences_NFQD = normed_NFQD - normed_NFQD.mean(dim=1, keepdim=True)
        rows = differences_NFQD.permute(0, 2, 3, 1).flatten(0, 1)  # [N * Q, D, F]
        value, gate = self.convolution(rows).transpose(1, 2).chunk(2, dim=-1)
        return read_NFQD + self.projection(value * gate).unflatten(0, (num_pairs, num_queries)).transpose(1, 2)


class FrameReader(nn.Module):
    """The query tokens of all frames, as the language model gets them.

    An untrained one changes no token: the embedding and the last part of each layer begin with zeros.

    - A learned embedding of the frame's number is added to its query tokens, as in Video-LLaMA (Zhang et al. 2023,
      https://arxiv.org/abs/2306.02858).
    - A layer compares each query token with the same one in the frames before and after.

    Args:
        config: transformers' `InstructBlipQFormerConfig`, for the sizes.
    """

    def __init__(self, settings: FramePooling, config: Any):
        super().__init__()
        self.pooling = settings.pooling
        self.embedding = None
        if settings.embedding == "learned":
            self.embedding = nn.Embedding(settings.max_frames, config.hidden_size)
            nn.init.zeros_(self.embedding.weight)
        # The initial values depend on the recipe only, not on random numbers drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.layers = nn.ModuleList(TimeConvolution(config) for _ in range(settings.convolution_layers))

    def forward(self, read_NFQD: torch.Tensor) -> torch.Tensor:
        """[N, F * Q, D], the tokens of the frames in a row, or [N, Q, D], their mean.

        Args:
            read_NFQD: the Q-Former's output for each frame. An image is a clip of one frame.

        Raises:
            ValueError: there are more frames than embeddings.
        """
        if self.embedding is not None:
            num_frames = read_NFQD.shape[1]
            if num_frames > self.embedding.num_embeddings:
                raise ValueError(
                    f"clips of {num_frames} frames, model.frames.max_frames is {self.embedding.num_embeddings}; choose "
                    "fewer frames in the image processor, or train with a larger max_frames"
                )
            read_NFQD = read_NFQD + self.embedding.weight[:num_frames, None]
        for layer in self.layers:
            read_NFQD = layer(read_NFQD)
        return read_NFQD.mean(dim=1) if self.pooling == "mean" else read_NFQD.flatten(1, 2)
