"""Evaluation of a split: predictions to a file, metrics from its rows, a few answers and pictures for people."""

from __future__ import annotations

import hashlib
import io
import logging
from itertools import islice
from pathlib import Path
from typing import Any

from lavis_emovit.evaluation.predictions import PredictionRow, read_predictions, write_predictions
from lavis_emovit.pictures import decode_image
from lavis_emovit.runners.engines.base import Engine
from lavis_emovit.runners.loaders import eval_batches
from lavis_emovit.runners.logs import progress
from lavis_emovit.runners.run_folder import RunFolder
from lavis_emovit.runners.settings import RunSettings

logger = logging.getLogger(__name__)

THUMBNAIL_PX = 192

# Stages of a run: before tuning, while it goes (validation), and with the chosen weights.
BEFORE, DURING, AFTER = "before", "during", "after"


class Evaluator:
    """Evaluates a model on splits for one run.

    Args:
        engine: where the model runs.
        model: the model itself, not wrapped.
        task: an `EmotionInstructionTask`.
    """

    def __init__(self, engine: Engine, model: Any, task: Any, settings: RunSettings, folder: RunFolder):
        self._engine, self._model, self._task = engine, model, task
        self._settings, self._folder = settings, folder

    def evaluate(self, dataset: Any, split: str, stage: str, when: str) -> dict[str, Any]:
        """Metrics of a split as plain values; the rows go to a file unless this is a validation.

        Args:
            when: for people, such as `before tuning`.
        """
        self._task.before_evaluation(model=self._model, dataset=dataset)
        rows = self._predict(dataset, f"{split} {when}")
        if stage != DURING:
            write_predictions(self._folder.prediction_path(split, stage), self._with_answers(dataset, rows))
        metrics = self._task.after_evaluation(val_result=rows, split_name=split, epoch=stage)
        logger.info(
            "%s %s: accuracy %.3f (%.3f to %.3f), macro F1 %.3f on %d pictures; chance %.3f, largest class %.3f",
            split,
            when,
            metrics["accuracy"],
            metrics["accuracy_interval"]["low"],
            metrics["accuracy_interval"]["high"],
            metrics["macro_f1"],
            metrics["num_samples"],
            metrics["chance"],
            metrics["majority_baseline"],
        )
        return metrics

    def measure(self, dataset: Any, split: str, stage: str) -> dict[str, Any] | None:
        """Metrics of the predictions that an earlier start of the run wrote, or None where it wrote none."""
        path = self._folder.prediction_path(split, stage)
        if not path.exists():
            return None
        self._task.before_evaluation(model=self._model, dataset=dataset)
        return self._task.after_evaluation(val_result=read_predictions(path), split_name=split, epoch=stage)

    def _predict(self, dataset: Any, label: str) -> list[PredictionRow]:
        self._model.eval()
        rows: list[PredictionRow] = []
        batches, count = eval_batches(dataset, self._settings)
        with progress(label, count, every=self._settings.log_every_steps) as line:
            for batch in batches:
                with self._engine.autocast():
                    rows += self._task.valid_step(self._model, self._engine.to_device(batch))
                line.advance()
        return rows

    def _with_answers(self, dataset: Any, rows: list[PredictionRow]) -> list[PredictionRow]:
        """The first rows with a generated answer and a thumbnail; shards are shuffled, so these are a fair choice."""
        wanted = min(self._settings.num_report_answers, len(rows))
        answers: list[str] = []
        batches, _ = eval_batches(dataset, self._settings, limit=wanted)
        for batch in batches:
            with self._engine.autocast():
                answers += self._task.generate_answers(self._model, self._engine.to_device(batch))
        shown = [
            row.model_copy(update={"answer": answer, "image": self._thumbnail(dataset, number)})
            for number, (row, answer) in enumerate(zip(rows, islice(answers, wanted)))
        ]
        return shown + rows[wanted:]

    def _thumbnail(self, dataset: Any, number: int) -> str:
        """A small JPEG of an item, as a path relative to the run's folder."""
        sample = dataset.read(number)
        # Two datasets of a run may have records of one name; the picture tells them apart.
        digest = hashlib.sha256(sample.image_bytes).hexdigest()[:8]
        name = f"{_file_name(sample.record.id)}-{digest}.jpg"
        path = self._folder.predictions / "images" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            image = decode_image(sample.image_bytes).convert("RGB")
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=85)
            path.write_bytes(buffer.getvalue())
        return Path("predictions", "images", name).as_posix()


def _file_name(record_id: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in record_id)
