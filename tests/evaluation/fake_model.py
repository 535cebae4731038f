"""A model for the tests of suites."""

from __future__ import annotations

import numpy as np

from lavis_emovit.evaluation.adapters.base import LanguageModel
from lavis_emovit.images import decode_image


class FakeModel(LanguageModel):
    """Scores and answers that depend on the image; raises where `fails`, returns NaN where `nan`."""

    methods = frozenset({"likelihood", "generation"})

    def __init__(self, fails=lambda mean: False, nan=lambda mean: False):
        self.fails, self.nan = fails, nan
        self.num_asked = self.most_at_once = 0

    def identity(self):
        return {"adapter": "fake"}

    def prepare(self, image_bytes):
        image = decode_image(image_bytes)
        return float(np.asarray(image.convert("L")).mean())

    def _check(self, images, questions):
        self.most_at_once = max(self.most_at_once, len(questions))
        if any(self.fails(mean) for mean in images):
            raise RuntimeError("the chip is on fire\nand more")

    def score(self, images, image_index, questions, method):
        self._check(images, questions)
        self.num_asked += len(questions)
        return [
            [float("nan") if self.nan(images[i]) else -((images[i] * (c + 3)) % 7) for c in range(len(q.candidates))]
            for i, q in zip(image_index, questions)
        ]

    def write(self, images, image_index, questions):
        self._check(images, questions)
        self.num_asked += len(questions)
        return [("Predict emotion: fear. Reason: dark.", "no idea")[int(images[i]) % 2] for i in image_index]
