"""Where query tokens look: the weights are those of transformers' plain attention, on the grid of patches."""

from __future__ import annotations

import pytest
import torch
from eager_attention import eager_weights


def test_attention_is_that_of_transformers(model, batch):
    one = {"image": batch["image"][:1], "prompt": "Which emotion is it?"}
    given = model.query_attention(one)
    rows = eager_weights(model, lambda: model.generate(one, max_length=1))
    torch.testing.assert_close(given.flatten(), rows[1:])
    size = model.settings.image_size // model.core.config.vision_config.patch_size
    assert given.shape == (size, size) and 0 < given.sum() < 1
    with pytest.raises(ValueError, match="one question, not 2"):
        model.query_attention({"image": batch["image"][:1], "prompt": ["a", "b"], "image_index": torch.tensor([0, 0])})
