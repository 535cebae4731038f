"""Evaluation during a run: the benchmarks of its splits as a suite of one model, rows to files, metrics to the log."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lavis_emovit.distributed import processes
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.adapters.lavis_model import LavisModel, with_frames
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows
from lavis_emovit.evaluation.benchmarks import Method
from lavis_emovit.evaluation.predictions import PredictionRow, read_predictions, write_predictions
from lavis_emovit.evaluation.questions import example_question
from lavis_emovit.evaluation.report.images import small_copy
from lavis_emovit.evaluation.suite.benchmark_data import ImageBatches, OpenBenchmark
from lavis_emovit.evaluation.suite.frame_effects import frame_effects
from lavis_emovit.evaluation.suite.requests import BatchRequests, Prepared, prepare
from lavis_emovit.files import atomic_writer, cut_name
from lavis_emovit.images import jpeg_of
from lavis_emovit.models.protocol import EmotionModel
from lavis_emovit.runners.engines.base import Engine
from lavis_emovit.runners.run_folder import RunFolder
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.runners.splits import RunBenchmark
from lavis_emovit.tasks.base import EmotionTask

logger = logging.getLogger(__name__)

THUMBNAIL_PX = 192

# Stages of a run: before tuning, during it (validation), and with the chosen weights.
BEFORE, DURING, AFTER = "before", "during", "after"


class Evaluator:
    """Evaluates a model on benchmarks for one run; every rank takes some of the batches.

    Args:
        model: the model itself, not wrapped by the engine.
        between_batches: called after each batch; an exception in it ends the evaluation.
    """

    def __init__(
        self,
        engine: Engine,
        model: EmotionModel,
        task: EmotionTask,
        settings: RunSettings,
        folder: RunFolder,
        between_batches: Callable[[], None] = lambda: None,
    ):
        self._engine, self._model, self._task = engine, model, task
        self._settings, self._folder = settings, folder
        self._between_batches = between_batches

    def evaluate(self, benchmark: RunBenchmark, stage: str, when: str) -> dict[str, Any]:
        """Metrics of a benchmark as plain values, on all ranks. Rank 0 writes the rows, except during training."""
        data, model = benchmark.data, self._adapter(benchmark)
        rows = self._rows(data, model, benchmark.method, f"{data.name} {when}")
        if benchmark.processors is not None:
            rows = [_named_split_row(row) for row in rows]
        if stage != DURING and data.settings.kind == "instruction" and benchmark.method != "generation":
            written = self._rows(data, model, "generation", f"{data.name} {when}: answers")
            rows = [row.model_copy(update={"answer": own.answer}) for row, own in zip(rows, written, strict=True)]
        if stage != DURING:
            shown = self._with_answers(benchmark, model, rows)
            if processes.is_main():
                write_predictions(self._folder.prediction_path(data.name, stage), shown)
        metrics = self._metrics(benchmark, rows)
        logger.info("%s %s: %s", data.name, when, self._task.log_line(data.settings.kind, metrics))
        return metrics

    def check_questions(self, benchmarks: Iterable[RunBenchmark]) -> None:
        """ConfigError if a benchmark's question is too long for the model, as one that lists 1,000 labels may be."""
        check = getattr(self._model, "check_question", None)  # custom models may have no limit
        if check is None:
            return
        problems = []
        for benchmark in benchmarks:
            data = benchmark.data
            question = example_question(data.settings, benchmark.method, data.label_set)
            answers = [question.answer_prefix + candidate for candidate in question.candidates]
            try:
                check(question.text, answers, question.max_new_tokens)
            except DataError as error:
                problems.append(f"{data.name}: {error}, or evaluate fewer labels")
        if problems:
            raise ConfigError(problems, "the benchmarks of this run")

    def measure(self, benchmark: RunBenchmark, stage: str) -> dict[str, Any] | None:
        """Metrics of the predictions that an earlier start of the run wrote; None without such predictions."""
        path = self._folder.prediction_path(benchmark.data.name, stage)
        return processes.on_main(lambda: self._metrics(benchmark, read_predictions(path)) if path.exists() else None)

    def _adapter(self, benchmark: RunBenchmark) -> LavisModel:
        image_processor, text_processor = benchmark.processors or self._model.processors()
        if benchmark.frames is not None:
            image_processor = with_frames(image_processor, benchmark.frames) or image_processor
        return LavisModel(
            self._model,
            image_processor,
            text_processor,
            run=self._engine.run,
            device=self._engine.device,
            num_beams=self._settings.num_beams,
            min_length=self._settings.min_len,
        )

    def _rows(
        self, data: OpenBenchmark, model: LavisModel, method: Method, label: str, every: int | None = None
    ) -> list[PredictionRow]:
        """The rows of a benchmark in the order of the shards, on all ranks."""
        run = self._settings
        batches = ImageBatches(data, model, batch_size=run.batch_size_eval, num_workers=run.num_workers)
        made: list[list[PredictionRow]] = []
        for batch in batches.rounds(label, every or run.log_every_steps):
            made.append(self._batch_rows(data, model, method, batch))
            self._between_batches()
        # Rank r has every batch r, r + ranks, ...
        parts = zip_longest(*processes.gather_objects(made), fillvalue=[])
        return [row for round_ in parts for rows in round_ for row in rows]

    def _batch_rows(
        self, data: OpenBenchmark, model: LavisModel, method: Method, batch: list[Prepared]
    ) -> list[PredictionRow]:
        for prepared in batch:
            if prepared.problem is not None:
                record_id = prepared.item.record.id
                raise DataError(
                    f"{data.name}: record '{record_id}': {prepared.problem}. Build the shards again without this image "
                    "(`--skip-bad`)."
                )
        requests = BatchRequests(batch, data.settings, method, data.label_set)
        passes = requests.passes()
        # A pass may gather weights from all ranks, so ranks with fewer passes run blank ones along.
        num_passes = max(processes.gather_objects(len(passes))) if self._engine.in_step else len(passes)
        answers: dict[int, Any] = {}
        for number in range(num_passes):
            if number < len(passes):
                answers |= zip(passes[number], requests.answer(model, passes[number]))
            else:
                model.run_blank(example_question(data.settings, method, data.label_set), method)
        return requests.rows(answers)

    def _metrics(self, benchmark: RunBenchmark, rows: list[PredictionRow]) -> dict[str, Any]:
        data, key = benchmark.data, ("", benchmark.method)
        return self._task.metrics(BenchmarkRows(data.name, data.settings, data.label_set, {key: rows}).measured(key))

    def _with_answers(
        self, benchmark: RunBenchmark, model: LavisModel, rows: list[PredictionRow]
    ) -> list[PredictionRow]:
        """The rows; those of the first records with a generated answer and a thumbnail, for the report."""
        wanted = min(self._settings.num_report_answers, len(benchmark.data.numbers()))
        if not wanted:
            return rows
        first = benchmark.data.settings.first_variant.model_copy(update={"limit": wanted})
        data = replace(benchmark.data, settings=first)
        answers: Mapping[str, str | None] = {}
        if benchmark.method != "generation" and first.kind != "instruction":
            found = self._rows(data, model, "generation", f"{data.name}: answers for the report")
            answers = {row.question_id: row.answer for row in found}
        if not (processes.is_main() or self._engine.in_step):
            return rows
        of_record: dict[str, list[PredictionRow]] = {}
        for row in rows:
            if row.variant in (None, first.variants[0].name):
                of_record.setdefault(row.record_id, []).append(row)
        updates: dict[str, dict[str, Any]] = {}
        for item in data.items():  # one at a time, because clips may be large
            for row in of_record.get(item.record.id, ()):
                effects = self._frame_effects(benchmark, model, item, row)
                strip_s = row.frames_s if effects is not None else None
                answer = answers.get(row.question_id, row.answer)
                if processes.is_main():
                    update = {"image": self._thumbnail(item, strip_s), "answer": answer, "frame_effects": effects}
                    updates[row.instance_id] = update
        return [row.model_copy(update=updates.get(row.instance_id)) for row in rows]

    def _frame_effects(
        self, benchmark: RunBenchmark, model: LavisModel, item: Item, row: PredictionRow
    ) -> tuple[float, ...] | None:
        """None for an image. If a pass gathers weights from all ranks, all of them need it."""
        if item.record.clip is None:
            return None
        data, prepared, batch_size = benchmark.data, prepare(item, model), self._settings.batch_size_eval
        asked = data.settings, benchmark.method, data.label_set, row.prediction
        return frame_effects(model, prepared, *asked, batch_size=batch_size)

    def _thumbnail(self, item: Item, strip_s: Sequence[float] | None) -> str:
        """A small JPEG of an item, or a film strip of a clip, as a path relative to the run's folder.

        `strip_s` are times of frames for a strip in one row.
        """
        # Records of two datasets may have the same id.
        shown = item.shown()
        digest = hashlib.sha256(shown).hexdigest()[:8]
        name = f"{_file_name(item.record.id)}-{digest}{'-strip' if strip_s else ''}.jpg"
        path = self._folder.predictions / "images" / name
        if not path.exists():
            with atomic_writer(path, "wb") as file:
                file.write(jpeg_of(small_copy(shown, item.record.clip, THUMBNAIL_PX, strip_s)))
        return Path("predictions", "images", name).as_posix()


def _named_split_row(row: PredictionRow) -> PredictionRow:
    """A row as runs have written it for named splits since version 0.1.0: without votes and groups."""
    return row.model_copy(update={"instance_id": f"{row.record_id}#categorical", "votes": None, "slices": None})


def _file_name(record_id: str) -> str:
    return cut_name(re.sub(r"[^\w.-]", "_", record_id)[-72:])
