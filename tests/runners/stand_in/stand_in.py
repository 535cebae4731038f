"""A model and a dataset with the API of the real ones, trained in a blink, registered in LAVIS on import."""

from __future__ import annotations

import hashlib
import io
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lavis.common.registry import registry
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from lavis.models.base_model import BaseModel
from PIL import Image
from torch import nn

from lavis_emovit.datasets.collate import collate
from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.images import decode_image
from lavis_emovit.models.protocol import AnswerLoss
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.shards.order import EpochOrder
from lavis_emovit.shards.reader import ShardSample

HERE = Path(__file__).resolve().parent
LABELS = LabelSet("stand_in", ("calm", "joyful", "sad"))
PREFIX = "Predict emotion: "
SIDE_PX = 4
MAX_CHARS = 8
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


class StandInModelSettings(Settings):
    arch: str
    model_type: str | None = None
    width: int = 8
    dropout: float = 0.0
    poison_step: int = -1


class StandInDatasetSettings(Settings):
    data_type: str = "images"
    num_train: int = 22
    num_eval: int = 12


@registry.register_model("emovit_stand_in")
class StandInModel(BaseModel):
    """Spells the label letter by letter from a picture: a frozen encoder, a norm, dropout and a head that learn."""

    DEFAULT_MODEL_TYPE = "default"
    PRETRAINED_MODEL_CONFIG_DICT = {"default": str(HERE / "model.yaml")}  # noqa: RUF012
    settings_class = StandInModelSettings

    def __init__(self, width: int = 8, dropout: float = 0.0, poison_step: int = -1):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.encoder = nn.Linear(3 * SIDE_PX**2, width).requires_grad_(False)
            self.norm = nn.LayerNorm(width)
            self.dropout = nn.Dropout(dropout)
            self.letter_place = nn.Embedding(MAX_CHARS, width)
            self.head = nn.Linear(width, len(ALPHABET))
        self.calls, self.poison_step = 0, poison_step
        self.settings = StandInModelSettings(arch="stand_in", width=width, dropout=dropout, poison_step=poison_step)

    @classmethod
    def check_weights(cls, settings: StandInModelSettings) -> None:
        return None

    @classmethod
    def from_config(cls, cfg: Any) -> StandInModel:
        return cls(cfg.width, cfg.dropout, cfg.poison_step)

    def _logits(self, image: torch.Tensor) -> torch.Tensor:
        read_BD = self.dropout(self.norm(self.encoder(image.flatten(1))))
        return self.head(read_BD[:, None] + self.letter_place.weight)

    def forward(self, samples: dict[str, Any]) -> dict[str, Any]:
        parts = self.answer_loss(samples)
        return {"loss": parts.loss_sum / max(1, parts.num_tokens)}

    def answer_loss(self, samples: dict[str, Any]) -> AnswerLoss:
        logits_NTV = self._logits(samples["image"])[samples["image_index"]]
        loss_sum = logits_NTV.new_zeros(())
        num_tokens = 0
        for logits_TV, answer in zip(logits_NTV, samples["text_output"]):
            target = torch.tensor([ALPHABET.index(letter) for letter in answer.removeprefix(PREFIX)])
            loss_sum = loss_sum + nn.functional.cross_entropy(logits_TV[: len(target)], target, reduction="sum")
            num_tokens += len(target)
        if self.calls == self.poison_step:
            loss_sum = loss_sum * float("nan")
        self.calls += 1
        return AnswerLoss(loss_sum, num_tokens)

    @torch.no_grad()
    def score_candidates(
        self, samples: dict[str, Any], candidates: list[str], answer_prefix: str = "", normalize: str = "sum"
    ) -> torch.Tensor:
        assert answer_prefix == PREFIX
        log_probs_BTV = self._logits(samples["image"]).log_softmax(-1)
        columns = []
        for candidate in candidates:
            target = torch.tensor([ALPHABET.index(letter) for letter in candidate])
            places = torch.arange(len(target))
            columns.append(log_probs_BTV[:, places, target].sum(-1))
        scores_NC = torch.stack(columns, dim=1)[samples["image_index"]]
        return scores_NC / torch.tensor([len(one) for one in candidates]) if normalize == "mean" else scores_NC

    @torch.no_grad()
    def generate(self, samples: dict[str, Any], **options: Any) -> list[str]:
        best_BT = self._logits(samples["image"]).argmax(-1)
        return ["".join(ALPHABET[letter] for letter in row) for row in best_BT.tolist()]

    def compile_targets(self, part: str) -> list[tuple[str, nn.Module]]:
        return []

    def trained_parameter_names(self) -> list[str]:
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def trained_state_dict(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self.named_parameters() if value.requires_grad}

    def load_trained_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        assert list(state) and set(state) == set(self.trained_parameter_names())
        self.load_state_dict(state, strict=False)

    def frozen_fingerprint(self) -> str:
        return hashlib.sha256(self.encoder.weight.numpy().tobytes()).hexdigest()

    def step_flops(self) -> None:
        return None

    def parameter_counts(self) -> dict[str, int]:
        trained = sum(value.numel() for value in self.trained_state_dict().values())
        return {"trained": trained, "total": sum(value.numel() for value in self.parameters())}


class StandInDataset(torch.utils.data.Dataset):
    """Images of noise with a brighter channel for each label; item (epoch, number) is a pure function of both."""

    token_lengths = max_tokens = None
    wording = 1

    def __init__(self, split: str, num_samples: int):
        self.split, self.num_samples = split, num_samples
        self.index_hash = hashlib.sha256(f"{split}/{num_samples}".encode()).hexdigest()
        self.fault_log = SimpleNamespace(path=None)
        if split != "train":
            self.label_set = LABELS
        self.image_processor, self.text_processor = StandInProcessor(), str.strip

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, key: Any) -> dict[str, Any]:
        epoch, number = key if isinstance(key, tuple) else (0, key)
        label = LABELS.labels[number % 3]
        record_id = f"{self.split}/{number}"
        # Every other image of the training split has two questions, so that pairs and images differ in number.
        num_pairs = 1 + (self.split == "train" and number % 2)
        pairs = [("Which?", PREFIX + label, f"{record_id}#{pair}", label) for pair in range(num_pairs)]
        image = self.image_processor(self._pixels(epoch, number))
        return {"image": image, "pairs": pairs, "record_id": record_id}

    def _pixels(self, epoch: int, number: int) -> Image.Image:
        values = np.random.default_rng(1000 * epoch + number).normal(size=(SIDE_PX, SIDE_PX, 3))
        values[..., number % 3] += 1.5
        return Image.fromarray(np.clip(values * 32 + 128, 0, 255).astype(np.uint8))

    def epoch_order(self, seed: int, epoch: int, global_batch: int) -> EpochOrder:
        return EpochOrder(self.index_hash, seed, epoch, [len(self)])

    def place_of(self, number: int) -> str:
        return f"{self.split}/{number}"

    def collater(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return collate(items)

    def read(self, number: int) -> ShardSample:
        buffer = io.BytesIO()
        self._pixels(0, number).save(buffer, "PNG")
        record = EmotionRecord(
            id=f"{self.split}/{number}", image="x.png", split=self.split, source="x", emotion=LABELS.labels[number % 3]
        )
        return ShardSample(record, buffer.getvalue())


class StandInProcessor:
    """Pixels as numbers around 0, float32 [3, H, W]."""

    min_side_px = frames = None

    def read(
        self, data: bytes, clip: None = None, *, seed: int = 0, max_pixels: None = None
    ) -> tuple[torch.Tensor, None]:
        return self(decode_image(data), seed), None

    def __call__(self, image: Image.Image, seed: int = 0) -> torch.Tensor:
        values = np.asarray(image, dtype=np.float32)
        return torch.from_numpy((values - 128) / 32).permute(2, 0, 1).contiguous()

    def stack(self, images: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(images))


@registry.register_builder("emo_stand_in")
class StandInBuilder(BaseDatasetBuilder):
    DATASET_CONFIG_DICT = {"default": str(HERE / "dataset.yaml")}  # noqa: RUF012
    settings_class = StandInDatasetSettings

    def build_datasets(self) -> dict[str, StandInDataset]:
        sizes = {"train": self.config.num_train, "val": self.config.num_eval, "test": self.config.num_eval}
        return {split: StandInDataset(split, size) for split, size in sizes.items()}


def kill_at_file_operation(number: int) -> None:
    """End this process with SIGKILL at its `number`-th flush or rename, as a power cut would."""
    count = 0

    def counted(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in ("fsync", "rename", "replace"):
        setattr(os, name, counted(getattr(os, name)))
