"""CLIP as a baseline: zero-shot with prompts about the label, or a linear probe on its image features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.evaluation.adapters.base import Baseline, Item, register_adapter
from lavis_emovit.evaluation.adapters.heads import IMAGES_PER_PASS, LinearHead, encoded, learnable
from lavis_emovit.evaluation.adapters.transformers_model import explain_loading, weights_identity
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Kind
from lavis_emovit.evaluation.metrics.calibration import log_softmax
from lavis_emovit.images import decode_image
from lavis_emovit.settings import Settings

CLIP = "openai/clip-vit-large-patch14"
"""The default weights: those of the published comparisons."""

# These prompts are not from a paper. The text feature of a label is the mean over all of them.
LABEL_PROMPTS = (
    "a picture that makes people feel {label}",
    "a photo with a mood of {label}",
    "an image of {label}",
)
AXIS_PROMPTS = {
    "valence": ("an unpleasant picture with a negative mood", "a pleasant picture with a positive mood"),
    "arousal": ("a calm picture, quiet and still", "an exciting picture, intense and stirring"),
}


class ClipSettings(Settings):
    """`adapter: clip` (zero-shot) or `adapter: clip_probe` (a linear head on its features).

    Attributes:
        path: folder of a CLIP model with its processor, or its name on the hub.
        prompts: with `{label}` in each.
        device: `auto` takes the GPU if there is one.
    """

    adapter: Literal["clip", "clip_probe"]
    path: str = Field(default=CLIP, min_length=1)
    prompts: tuple[str, ...] = Field(default=LABEL_PROMPTS, min_length=1)
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @field_validator("prompts")
    @classmethod
    def _prompts_name_the_label(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any("{label}" not in prompt for prompt in value):
            raise ValueError("every prompt needs {label} in it")
        return value


class ClipBaseline(Baseline):
    """A CLIP model.

    Zero-shot: the log-softmax of cosine similarity times the model's own scale. An axis of affect is the difference
    between the shares of its two prompts, in [-1, 1]. Only the probe predicts action units.

    Raises:
        UserError: the model cannot be loaded.
    """

    def __init__(self, settings: ClipSettings):
        import torch
        import transformers

        from lavis_emovit.distributed.devices import choose_device

        self.settings, self._torch = settings, torch
        self.learns = settings.adapter == "clip_probe"
        zero_shot: frozenset[Kind] = frozenset({"emotion", "valence_arousal"})
        self.kinds: frozenset[Kind] = zero_shot | {"action_units"} if self.learns else zero_shot
        device = choose_device(settings.device)
        with explain_loading(settings.path, "CLIP"):
            self._processor = transformers.CLIPProcessor.from_pretrained(settings.path)
            model: Any = transformers.CLIPModel.from_pretrained(settings.path)
        self._model = model.to(device).eval()
        self._head = LinearHead()
        self._labels: tuple[str, ...] | None = None

    def identity(self) -> dict[str, Any]:
        known = {"adapter": self.settings.adapter, **weights_identity(self.settings.path, self._model)}
        return known if self.learns else {**known, "prompts": list(self.settings.prompts)}

    def fit(self, items: Iterable[Item], benchmark: BenchmarkSettings, label_set: LabelSet | None) -> None:
        self._labels = label_set.labels if label_set is not None else None
        if self.learns:
            self._head.fit(*learnable(items, self.image_features, IMAGES_PER_PASS), self._labels)

    def predict(self, items: Sequence[Item]) -> list[dict[str, float]]:
        features_ND = encoded(items, self.image_features)
        if self.learns:
            return self._head.predict(features_ND)
        if self._labels is not None:
            prompts = [[prompt.replace("{label}", label) for prompt in self.settings.prompts] for label in self._labels]
            log_shares = self._log_shares(features_ND, prompts)
            return [dict(zip(self._labels, row)) for row in log_shares.tolist()]
        differences = {}
        for axis, (low, high) in AXIS_PROMPTS.items():
            shares_N2 = np.exp(self._log_shares(features_ND, [[low], [high]]))
            differences[axis] = (shares_N2[:, 1] - shares_N2[:, 0]).tolist()
        return [dict(zip(differences, row)) for row in zip(*differences.values())]

    def _log_shares(self, features_ND: np.ndarray, prompts: Sequence[Sequence[str]]) -> np.ndarray:
        """Log-softmax over the choices [N, C]; a choice's text feature is the mean over its prompts."""
        means = []
        for texts in prompts:
            features = self._text_features(texts).mean(axis=0)
            means.append(features / np.linalg.norm(features))
        units = features_ND / np.linalg.norm(features_ND, axis=1, keepdims=True)
        return log_softmax(float(self._model.logit_scale.detach().exp()) * units @ np.stack(means).T)

    def image_features(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Projected features of encoded images, [N, D]."""
        images = [decode_image(data) for data in encoded]
        inputs = self._processor(images=images, return_tensors="pt").to(self._model.device)
        with self._torch.inference_mode():
            return _pooled(self._model.get_image_features(**inputs))

    def _text_features(self, texts: Sequence[str]) -> np.ndarray:
        inputs = self._processor(text=list(texts), padding=True, truncation=True, return_tensors="pt")
        with self._torch.inference_mode():
            features = _pooled(self._model.get_text_features(**inputs.to(self._model.device)))
        return features / np.linalg.norm(features, axis=1, keepdims=True)


def _pooled(output: Any) -> np.ndarray:
    """The projected features; transformers 5 wraps them into an output object."""
    tensor = getattr(output, "pooler_output", output)
    return tensor.float().cpu().numpy()


register_adapter(ClipSettings, lambda entry, place: ClipBaseline(entry))
