"""Rows in which texts share their beginning, and the attention that reads them.

Legend: `L` tokens of a row, `H` heads, `D` width of a head.

A row holds one segment for each image: the tokens up to the end of the image once, then blocks. A block continues
another block or the image, and its tokens see what it continues and their own block up to themselves, as if nothing
else were there. So all questions of an image read it once, and nothing is padded. Layers other than attention treat
every token by itself; only attention has to know the row. It is registered in transformers under the name `PACKED`,
and computes what `sdpa` does when no row is active.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lavis_emovit.models.image_text.shared_prefix import SharedPrefix

PACKED = "emovit_packed"


@dataclass
class _Segment:
    """The tokens of one image and of the texts behind it.

    Attributes:
        start: first token, counted from the beginning of the row.
        num_shared: tokens up to the end of the image.
        places: of each token, its number if its text stood alone.
        blocks: of each token, the number of its block; -1 before the end of the image.
        parents: of each block, the block that it continues; -1 is the image.
        ends: of each block, the place behind its last token.
        groups: of each token before the end of the image, the part of an image that its tokens see in both directions;
            -1 for none.
    """

    start: int
    num_shared: int
    places: list[int]
    blocks: list[int]
    parents: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    groups: torch.Tensor | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.places)

    def allowed(self, window: int | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What the tokens of the image and those behind it see, bool [tokens, tokens so far].

        None for the image: all tokens before, and the token itself. None for the rest: there is none.
        """
        shared, places = self.num_shared, torch.tensor(self.places)
        near = None if window is None else places[:, None] - places < window
        first: torch.Tensor | None = None
        if self.groups is not None or (window is not None and shared > window):
            first = torch.ones(shared, shared, dtype=torch.bool).tril()
            if self.groups is not None:
                first |= (self.groups[:, None] == self.groups) & (self.groups >= 0)
            if near is not None:
                first &= near[:shared, :shared]
        if not self.parents:
            return first, None
        lines = torch.eye(len(self.parents), dtype=torch.bool)
        for block, parent in enumerate(self.parents):
            if parent >= 0:
                lines[block] |= lines[parent]
        blocks = torch.tensor(self.blocks[shared:])
        rest = torch.ones(len(blocks), len(places), dtype=torch.bool)
        # Whatever is continued comes before, and so do the tokens of the own block that may be seen.
        rest[:, shared:] = lines[blocks][:, blocks].tril()
        if near is not None:
            rest &= near[shared:]
        return first, rest


class PackedRow:
    """One row: `add_image`, then `add` for each text behind it.

    Attributes:
        ids: token ids [L].
        cache: None, or a dictionary that gets keys and values [1, H, L, D] of every layer by its number.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.cache: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None
        self._segments: list[_Segment] = []
        self._masks: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def add_image(self, ids: Sequence[int], groups: torch.Tensor | None = None) -> None:
        """Begin a segment with the tokens up to the end of an image."""
        self._segments.append(_Segment(len(self.ids), len(ids), list(range(len(ids))), [-1] * len(ids), groups=groups))
        self.ids += ids

    def add(self, ids: Sequence[int], parent: int = -1) -> int:
        """Add a block to the last segment, behind the block `parent` of it or behind the image.

        Returns:
            the number of the block; the row's length before the call is the place of its first token.
        """
        segment = self._segments[-1]
        block = len(segment.parents)
        begins = segment.num_shared if parent < 0 else segment.ends[parent]
        segment.parents.append(parent)
        segment.ends.append(begins + len(ids))
        segment.places += range(begins, begins + len(ids))
        segment.blocks += [block] * len(ids)
        self.ids += ids
        return block

    def places(self) -> torch.Tensor:
        """The number of each token if its text stood alone, long [L]."""
        return torch.tensor([place for segment in self._segments for place in segment.places])

    def segments(self) -> list[tuple[int, int, int]]:
        """(start, tokens up to the end of the image, end) of each segment."""
        return [(segment.start, segment.num_shared, segment.end) for segment in self._segments]

    def masks(self, number: int, window: int | None, device: torch.device) -> tuple[Any, Any]:
        """`_Segment.allowed` of a segment on a device, [1, 1, tokens, tokens so far]; made once for all layers."""
        key = number, window, device
        if key not in self._masks:
            allowed = self._segments[number].allowed(window)
            self._masks[key] = tuple(None if mask is None else mask[None, None].to(device) for mask in allowed)
        return self._masks[key]

    def attend(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        window: int | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Attention of a layer, [1, L, H, D]."""
        if self.cache is not None:
            self.cache[module.layer_idx] = key, value
        found = []
        for number, (start, num_shared, end) in enumerate(self.segments()):
            first, rest = self.masks(number, window, query.device)
            middle = start + num_shared
            parts = [(start, middle, first)] + ([(middle, end, rest)] if rest is not None else [])
            for begin, stop, mask in parts:
                chosen = query[:, :, begin:stop], key[:, :, start:stop], value[:, :, start:stop]
                given = {**kwargs, "is_causal": mask is None}
                found.append(sdpa_attention_forward(module, *chosen, mask, **given)[0])
        return torch.cat(found, dim=1)


Row = PackedRow | SharedPrefix
_row: ContextVar[Row | None] = ContextVar("packed row", default=None)


@contextmanager
def reading(row: Row | None) -> Iterator[None]:
    """Let the language model read this inside the block; None: padded rows, as usual."""
    token = _row.set(row)
    try:
        yield
    finally:
        _row.reset(token)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of a layer over the active row."""
    row = _row.get()
    if row is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return row.attend(module, query, key, value, sliding_window, **kwargs), None


def _mask(*args: Any, **kwargs: Any) -> Any:
    return None if _row.get() is not None else sdpa_mask(*args, **kwargs)


AttentionInterface.register(PACKED, _attention)
AttentionMaskInterface.register(PACKED, _mask)
