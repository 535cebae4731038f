"""Evaluation of a split: predictions to a file, metrics from its rows, a few answers and pictures for people."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lavis_emovit.distributed import heartbeat, processes
from lavis_emovit.evaluation.predictions import PredictionRow, read_predictions, write_predictions
from lavis_emovit.images import decode_image
from lavis_emovit.progress import progress
from lavis_emovit.runners.engines.base import Engine
from lavis_emovit.runners.loaders import eval_batches
from lavis_emovit.runners.run_folder import RunFolder
from lavis_emovit.runners.settings import RunSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")

THUMBNAIL_PX = 192

# Stages of a run: before tuning, while it goes (validation), and with the chosen weights.
BEFORE, DURING, AFTER = "before", "during", "after"


class Evaluator:
    """Evaluates a model on splits for one run; all ranks together, each some of the batches.

    Args:
        engine: where the model runs.
        model: the model itself, not wrapped.
        task: an `EmotionInstructionTask`.
        between_batches: called after each batch; what it raises ends the evaluation.
    """

    def __init__(
        self,
        engine: Engine,
        model: Any,
        task: Any,
        settings: RunSettings,
        folder: RunFolder,
        between_batches: Callable[[], None] = lambda: None,
    ):
        self._engine, self._model, self._task = engine, model, task
        self._settings, self._folder = settings, folder
        self._between_batches = between_batches

    def evaluate(self, dataset: Any, split: str, stage: str, when: str) -> dict[str, Any]:
        """Metrics of a split as plain values, on all ranks; rank 0 writes the rows to a file unless it is a validation.

        Args:
            when: for people, such as `before tuning`.
        """
        self._task.before_evaluation(model=self._model, dataset=dataset)
        self._model.eval()
        rows = self._of_all_batches(dataset, self._task.valid_step, f"{split} {when}")
        if stage != DURING:
            shown = self._with_answers(dataset, rows)
            if processes.is_main():
                write_predictions(self._folder.prediction_path(split, stage), shown)
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
        self._task.before_evaluation(model=self._model, dataset=dataset)
        return processes.on_main(partial(self._measure, self._folder.prediction_path(split, stage), split, stage))

    def _measure(self, path: Path, split: str, stage: str) -> dict[str, Any] | None:
        if not path.exists():
            return None
        return self._task.after_evaluation(val_result=read_predictions(path), split_name=split, epoch=stage)

    def _of_all_batches(
        self, dataset: Any, function: Callable[[Any, Any], list[T]], label: str | None = None, limit: int | None = None
    ) -> list[T]:
        """What a function of model and batch gives for the items of a split, in their order, on all ranks."""
        rank, world_size = self._engine.rank, self._engine.world_size
        batches, count = eval_batches(dataset, self._settings, limit=limit, rank=rank, world_size=world_size)
        # Where a call fetches weights from all ranks, those that are through run a blank batch along.
        rounds = max(processes.gather_objects(count)) if self._engine.in_step else count
        made: list[T] = []
        every = self._settings.log_every_steps
        with progress(label, rounds, every=every) if label is not None else nullcontext() as line:
            for number in range(rounds):
                heartbeat.note("evaluating")
                own = next(batches, None) if number < count else None
                batch = self._engine.to_device(own if own is not None else self._model.blank_batch())
                given = self._engine.run(partial(function, self._model, batch))
                made += given if own is not None else []
                if line is not None:
                    line.advance()
                self._between_batches()
        return [item for of_rank in processes.gather_objects(made) for item in of_rank]

    def _with_answers(self, dataset: Any, rows: list[PredictionRow]) -> list[PredictionRow]:
        """The first rows with a generated answer and a thumbnail; shards are shuffled, so these are a fair choice."""
        wanted = min(self._settings.num_report_answers, len(rows))
        answers = self._of_all_batches(dataset, self._task.generate_answers, limit=wanted) if wanted else []
        if not processes.is_main():
            return rows
        shown = [
            row.model_copy(update={"answer": answer, "image": self._thumbnail(dataset, number)})
            for number, (row, answer) in enumerate(zip(rows, answers))
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
