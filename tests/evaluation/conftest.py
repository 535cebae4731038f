"""Made-up run folders for the tests of the report, with the files and keys of a real run."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.evaluation.metrics import classification_metrics
from lavis_emovit.evaluation.predictions import PredictionRow, write_predictions

sys.path.insert(0, str(Path(__file__).resolve().parent))

MIKELS = get_label_set("mikels8").labels

CONFIG = """\
run:
  runner: runner_emovit
  task: emotion_instruction
  output_dir: output/quickstart
  max_epoch: {epochs}
  global_batch_size: 32
  init_lr: 0.002
  warmup_steps: 20
  weight_decay: 0.05
  amp: 'off'
  seed: 42
  score_normalisation: mean
model:
  arch: emovit_tiny
  model_type: tiny
  trained_parts: [qformer, query_tokens, language_projection]
datasets:
  emoset_sketch:
    images_per_class: 150
"""


class RunMaker:
    """Makes a run folder; every part can be left out.

    Args:
        root: where the folder goes.
    """

    def __init__(self, root: Path):
        self._root = root

    def __call__(
        self,
        name: str = "quickstart",
        *,
        labels: tuple[str, ...] = MIKELS,
        num_rows: int = 240,
        stages: tuple[str, ...] = ("before", "after"),
        num_epochs: int = 6,
        validate: bool = True,
        num_images: int = 16,
        with_scores: bool = True,
        invalid_share: float = 0.0,
        skill: float = 4.0,
        summary: bool = True,
        seed: int = 0,
    ) -> Path:
        folder = self._root / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(CONFIG.format(epochs=num_epochs))
        self._write_log(folder, labels, num_epochs, validate, seed)
        for stage in stages:
            rows = self.rows(
                labels,
                num_rows,
                skill=skill if stage == "after" else 0.05,
                seed=seed + (stage == "after"),
                invalid_share=invalid_share,
                with_scores=with_scores,
            )
            shown = [self._with_image(folder, row, n, stage) for n, row in enumerate(rows[:num_images])]
            write_predictions(folder / "predictions" / f"test-{stage}.jsonl", shown + rows[num_images:])
        if summary:
            versions = {"python": "3.11.9", "lavis-emovit": "0.1.0", "torch": "2.15.0", "transformers": "5.23.0"}
            parameters = {"trained": 1_204_480, "total": 3_811_072}
            values = {"checkpoint": "ckpt-00000180", "parameters": parameters, "versions": versions}
            (folder / "metrics.json").write_text(json.dumps(values))
        return folder

    @staticmethod
    def rows(
        labels: tuple[str, ...],
        num_rows: int,
        *,
        skill: float,
        seed: int,
        invalid_share: float = 0.0,
        with_scores: bool = True,
    ) -> list[PredictionRow]:
        """Rows of a model that scores the true label `skill` above the noise; neighbours in the list get confused."""
        generator = np.random.default_rng(seed)
        true = np.random.default_rng(99).integers(len(labels), size=num_rows)
        scores = generator.normal(size=(num_rows, len(labels))) * 1.4 - 6
        scores[np.arange(num_rows), true] += skill
        scores[np.arange(num_rows), (true + 1) % len(labels)] += skill * 0.55
        rows = []
        for n in range(num_rows):
            is_invalid = generator.random() < invalid_share
            rows.append(
                PredictionRow(
                    instance_id=f"sketch_{n:05d}",
                    record_id=f"sketch_{n:05d}",
                    label=labels[true[n]],
                    prediction="danger" if is_invalid else labels[int(scores[n].argmax())],
                    scores=dict(zip(labels, scores[n].round(4).tolist())) if with_scores else None,
                )
            )
        return rows

    @staticmethod
    def _with_image(folder: Path, row: PredictionRow, number: int, stage: str) -> PredictionRow:
        path = folder / "predictions" / "images" / f"{row.record_id}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (192, 192), f"hsl({number * 47 % 360}, 45%, 72%)")
            draw = ImageDraw.Draw(image)
            draw.ellipse((46, 40, 146, 140), fill="#f3d9b8", outline="#332211", width=3)
            draw.arc((70, 80, 122, 124), *((200, 340) if number % 2 else (20, 160)), fill="#332211", width=4)
            draw.ellipse((74, 70, 84, 82), fill="#332211")
            draw.ellipse((108, 70, 118, 82), fill="#332211")
            draw.rectangle((0, 150, 192, 192), fill=f"hsl({number * 47 % 360}, 30%, 45%)")
            image.save(path, quality=90)
        answer = f"predict emotion: {row.prediction}" if stage == "after" else "the mouth curves up and the sky is blue"
        return row.model_copy(update={"image": f"predictions/images/{row.record_id}.jpg", "answer": answer})

    def _write_log(self, folder: Path, labels: tuple[str, ...], num_epochs: int, validate: bool, seed: int) -> None:
        generator = np.random.default_rng(seed)
        steps_per_epoch, lines = 30, []
        total = num_epochs * steps_per_epoch
        for step in range(1, total + 1):
            warm = min(1.0, step / 20)
            lines.append(
                {
                    "event": "step",
                    "step": step,
                    "epoch": (step - 1) // steps_per_epoch + 1,
                    "loss": 0.25 + 2.4 * math.exp(-step / 40) + float(generator.normal() * 0.07),
                    "lr": 0.002 * warm * 0.5 * (1 + math.cos(math.pi * step / total)),
                    "grad_norm": 1.0,
                    "num_tokens": 310,
                    "num_images": 32,
                    "samples_per_s": 61 + float(generator.normal()),
                    "step_s": 0.52,
                    "read_s": 0.02,
                }
            )
            if validate and step % steps_per_epoch == 0:
                epoch = step // steps_per_epoch
                rows = self.rows(labels, 160, skill=0.8 * epoch, seed=seed + epoch)
                metrics = classification_metrics(rows, labels, num_resamples=50).model_dump(mode="json")
                lines.append(
                    {"event": "eval", "split": "val", "stage": "during", "step": step, "epoch": epoch,
                     "metrics": metrics}
                )  # fmt: skip
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    """The folder of a run with every part, for tests that only read it."""
    return RunMaker(tmp_path_factory.mktemp("runs"))()


@pytest.fixture
def make_run(tmp_path) -> RunMaker:
    """Makes run folders under the test's own temporary folder."""
    return RunMaker(tmp_path)
