"""A linear probe: what the frozen image encoder of a suite already knows, without any question or language model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.adapters.base import Baseline, Item, ModelPlace, register_adapter
from lavis_emovit.evaluation.adapters.clip import CLIP, ClipBaseline, ClipSettings
from lavis_emovit.evaluation.adapters.heads import IMAGES_PER_PASS, decodable, encoded
from lavis_emovit.evaluation.adapters.lavis_model import model_values
from lavis_emovit.evaluation.adapters.ridge import NUM_FOLDS, PENALTIES, RidgeProbe
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Kind
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.images import decode_image
from lavis_emovit.settings import Settings


class ProbeSettings(Settings):
    """`adapter: probe`, a ridge probe on the features of a frozen image encoder.

    Attributes:
        arch, model_type, config: a model of this plugin as published, whose image encoder is taken.
        path: without `arch`, a folder of CLIP with its processor, or its name on the hub.
        seed: of the folds of the training split on which the penalty is chosen.
        device: `auto` takes the GPU if there is one.
    """

    adapter: Literal["probe"]
    arch: str | None = Field(default=None, min_length=1)
    model_type: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    path: str = Field(default=CLIP, min_length=1)
    seed: int = Field(default=0, ge=0)
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @model_validator(mode="after")
    def _one_encoder(self) -> ProbeSettings:
        if self.arch is not None and "path" in self.model_fields_set and self.path != CLIP:
            raise ValueError("a probe has one image encoder: either 'arch', a model of this plugin, or 'path', CLIP")
        if self.arch is None and (self.config or self.model_type):
            raise ValueError("'config' and 'model_type' belong to 'arch', a model of this plugin; set it")
        return self


class Encoder(NamedTuple):
    """Encoded images -> features [N, D], and what identifies them."""

    features_of: Callable[[Sequence[bytes]], np.ndarray]
    identity: dict[str, Any]


class ProbeBaseline(Baseline):
    """A `RidgeProbe` on the features of an encoder."""

    kinds: frozenset[Kind] = frozenset({"emotion", "labels", "valence_arousal", "action_units"})
    learns = True

    def __init__(self, encoder: Encoder, seed: int = 0):
        self._encoder, self._seed = encoder, seed
        self._probe, self._ranks_labels = RidgeProbe(seed), False

    def identity(self) -> dict[str, Any]:
        known = {"adapter": "probe", "encoder": self._encoder.identity, "seed": self._seed}
        return {**known, "penalties": list(PENALTIES), "folds": NUM_FOLDS}

    def fit(self, items: Iterable[Item], benchmark: BenchmarkSettings, label_set: LabelSet | None) -> None:
        features, kept = decodable(items, self._encoder.features_of, IMAGES_PER_PASS)
        labels, truths = label_set.labels if label_set is not None else None, [item.truth for item in kept]
        self._ranks_labels = benchmark.kind == "labels"
        if self._ranks_labels:
            # Every label is a value of its own, 1 or 0.
            has = [[float(label in (truth.labels or ())) for label in labels or ()] for truth in truths]
            truths, labels = [Truth(values=dict(zip(labels or (), row))) for row in has], None
        self._probe.fit(features, truths, labels, [item.record.group for item in kept])

    def predict(self, items: Sequence[Item]) -> list[dict[str, float]]:
        found = self._probe.predict(encoded(items, self._encoder.features_of))
        if not self._ranks_labels:
            return found
        # Logarithms of shares between 0 and 1, in the order of the outputs.
        return [{label: -float(np.logaddexp(0, 8 * (0.5 - value))) for label, value in row.items()} for row in found]


def plugin_encoder(entry: ProbeSettings, key: str) -> Encoder:
    """The image encoder of a model of this plugin, frozen, and what its `pool` makes of an image.

    Raises:
        UserError: the model cannot be loaded, or encodes no images by themselves.
    """
    import torch
    from lavis.common.registry import registry

    from lavis_emovit.distributed.devices import choose_device

    model = registry.get_model_class(entry.arch).image_encoder(model_values(entry, key))
    if model is None:
        raise UserError(f"{key}: '{entry.arch}' encodes no images by themselves; use `path`, a CLIP model")
    processor, device = model.processors()[0], choose_device(entry.device)
    model = model.to(device)

    def features_of(images_bytes: Sequence[bytes]) -> np.ndarray:
        images = [processor(decode_image(data, min_side_px=processor.min_side_px)) for data in images_bytes]
        with torch.inference_mode():
            embeds_BPD = model.encode_images(processor.stack(images).to(device)).float().cpu()
            return model.pool(embeds_BPD).numpy()

    return Encoder(features_of, {"adapter": "lavis", **model.identity()})


def _open(entry: ProbeSettings, place: ModelPlace) -> ProbeBaseline:
    if entry.arch is not None:
        return ProbeBaseline(plugin_encoder(entry, f"suite.models.{place.name}"), entry.seed)
    clip = ClipBaseline(ClipSettings(adapter="clip_probe", path=entry.path, device=entry.device))
    return ProbeBaseline(Encoder(clip.image_features, clip.identity()), entry.seed)


register_adapter(ProbeSettings, _open)
