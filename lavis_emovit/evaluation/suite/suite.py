"""Running a suite: every model on every benchmark, rows written as they are made, then tables and report.

    suite.yaml                                        the settings with every default filled in
    predictions/<benchmark>/<model>.<method>.jsonl    one row for each record and variant, in the order of the shards
    predictions/<benchmark>/<model>.<method>.json     what made the rows: model, data, questions, settings
    judgements/, ledgers/                             scores by a judge, sampled replies of endpoints
    pictures/<benchmark>/                             small copies of the images that the report shows
    metrics.json, table.md, table.tex, report.html    computed from the rows again at every start

A killed suite resumes after the last whole row.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from lavis_emovit.boxes import box_identity
from lavis_emovit.distributed import heartbeat, processes
from lavis_emovit.distributed.seeding import limit_threads
from lavis_emovit.distributed.versions import package_versions
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.adapters.base import Baseline, LanguageModel, ModelPlace, adapters
from lavis_emovit.evaluation.adapters.chat_model import ledger_path
from lavis_emovit.evaluation.adapters.probe import ProbeBaseline, ProbeSettings
from lavis_emovit.evaluation.benchmark_rows import DIRECT, BenchmarkRows
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Method
from lavis_emovit.evaluation.metrics.registry import metrics_of
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.questions import wordings_of
from lavis_emovit.evaluation.report.images import IMAGES_FOLDER, keep_images
from lavis_emovit.evaluation.report.summary_tables import latex, markdown
from lavis_emovit.evaluation.suite.benchmark_data import ImageBatches, OpenBenchmark, open_benchmarks
from lavis_emovit.evaluation.suite.frame_effects import with_frame_effects
from lavis_emovit.evaluation.suite.judge import judge_explanations
from lavis_emovit.evaluation.suite.requests import FailureLimit, Prepared, baseline_rows, request_rows
from lavis_emovit.evaluation.suite.rows import SuiteRows
from lavis_emovit.evaluation.suite_settings import SuiteSettings, probe_entry
from lavis_emovit.evaluation.summaries import (
    benchmark_references,
    benchmark_summary,
    group_summaries,
    suite_sensitivity,
)
from lavis_emovit.files import atomic_writer, explain_full_disk, file_sha256, write_json
from lavis_emovit.paths import expand_home, output_root
from lavis_emovit.settings import Origins, variable_hashes, variables_line, with_variables

logger = logging.getLogger(__name__)


def run_suite(settings: SuiteSettings, make_checkpoints: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Make the rows that are missing, then write metrics, tables and report.

    Args:
        make_checkpoints: trains what is missing; called when the data of the benchmarks are known to exist.

    Returns:
        the content of metrics.json; on ranks other than 0 an empty mapping.
    """
    launch = processes.read_launch()
    limit_threads(settings.num_threads, launch.local_world_size)
    metrics_of("emotion")  # refuses wrong metrics before any model is loaded
    has_joined = _join_ranks(launch)
    with SuiteFolder(settings) as folder, explain_full_disk(folder.path, "the last answer written"):
        # With an encoder, a suite without a probe is one that switched it off.
        has_probe = any(isinstance(entry, ProbeSettings) for entry in settings.models.values())
        if settings.probe and not has_probe and probe_entry(settings.model_dump()["models"].values()) is None:
            logger.info("no linear probe: none of the models has an image encoder; `adapter: probe` adds one")
        benchmarks, missing = open_benchmarks(settings)
        for name, reason in missing.items():
            logger.warning("benchmark '%s' is skipped: %s", name, reason)
        if processes.is_main():
            with atomic_writer(folder.path / "suite.yaml") as file:
                written = with_variables({"suite": settings.model_dump(mode="json")}, settings.origins)
                yaml.safe_dump(written, file, sort_keys=False, allow_unicode=True)
                file.write(variables_line(settings.origins))
        make_checkpoints()
        run = _SuiteRun(settings, folder, benchmarks)
        run.evaluate()
        is_main = processes.is_main()
        processes.barrier()
        if has_joined:
            heartbeat.end()
            processes.stop()
        # The rest needs one process, and a judge may be slow.
        if not is_main:
            return {}
        return _summarise(settings, folder, run, missing)


def _join_ranks(launch: processes.Launch) -> bool:
    """Join the process group of the launcher, if there is one, for tensors on the CPU: ranks exchange only rows.

    After an error the group stays as it is, so that the other ranks learn about it.
    """
    if launch.is_alone or processes.world_size() > 1:
        return False
    timeout_s = processes.DEFAULT_TIMEOUT_S
    # The heartbeat knows which rank is late, so it must report before a collective times out.
    processes.start(launch, device=torch.device("cpu"), timeout_s=timeout_s + 60.0)
    heartbeat.begin(processes.store("heartbeat"), launch.rank, launch.world_size, timeout_s)
    heartbeat.note("starting", long=True)
    if launch.rank:
        logging.getLogger("lavis_emovit").setLevel(logging.ERROR)
    return True


def _summarise(
    settings: SuiteSettings, folder: SuiteFolder, run: _SuiteRun, missing: Mapping[str, str]
) -> dict[str, Any]:
    """Compute every number from the rows on disk, and write metrics.json, the tables and the report.

    `missing` has the reasons by benchmark.
    """
    benchmarks, skipped = run.benchmarks, run.skipped
    rows = [folder.rows(benchmark, settings, skipped.get(name, {})) for name, benchmark in benchmarks.items()]
    if settings.judge is not None:
        ledger = ledger_path(folder.place("judge"), settings.judge.endpoint())
        for place, one in enumerate(rows):
            if one.settings.kind == "explanation":
                judged = judge_explanations(settings.judge, benchmarks[one.name], one.rows, folder.path, ledger)
                rows[place] = replace(one, judgements=judged)
    summary: dict[str, Any] = {
        "suite": with_variables(settings.name, settings.origins, ("suite", "name")),
        "models": list(settings.models),
        "benchmarks": {one.name: benchmark_summary(one, settings.gains) for one in rows},
        "sensitivity": suite_sensitivity(rows),
        **({"groups": group_summaries(rows, settings.groups)} if settings.groups else {}),
        "left_out": skipped,
        "absent": missing,
        "endpoints": run.facts,
        "references": [row for one in rows for row in benchmark_references(one)],
        "versions": package_versions(),
    }
    if settings.origins:
        summary = with_variables(summary, settings.origins)
    for name, of in summary["benchmarks"].items():
        for result in of["results"]:
            if result["num_errors"]:
                label = f"{result['model']} on {name} ({result['method']}): {result['num_errors']} rows are errors"
                logger.warning("%s; suite.retry_errors=true tries them again", label)
    write_json(folder.path / "metrics.json", summary, indent=1)
    for name, text in (("table.md", markdown(summary)), ("table.tex", latex(summary))):
        with atomic_writer(folder.path / name) as file:
            file.write(text)
    logger.info("tables: %s", folder.path / "table.md")
    if settings.report:
        from lavis_emovit.evaluation.report.page import write_report  # matplotlib is slow to load

        for one in rows:
            items = benchmarks[one.name].items()
            images = ((item.record.id, item.shown, item.record.clip) for item in items)
            keep_images(folder.path, one, settings.num_images, images)
        logger.info("report: %s", write_report(folder.path, summary=summary))
    return summary


class SuiteFolder:
    """The output folder of a suite, locked for this run; only rank 0 writes to it."""

    def __init__(self, settings: SuiteSettings):
        self.path = output_root() / expand_home(settings.output_dir)
        self._lock = FileLock(self.path / ".lock")
        self._cache_dir = output_root() / expand_home(settings.cache_dir)

    def __enter__(self) -> SuiteFolder:
        problem = ""
        if processes.is_main():
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock.acquire(timeout=0)
            except Timeout:
                problem = f"{self.path} is in use by another process. Wait for it, or choose another suite.output_dir."
            except OSError as error:
                problem = f"suite.output_dir: {self.path} cannot be written to: {error}"
        problem = processes.broadcast_object(problem)
        if problem:
            raise UserError(problem)
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def predictions(self, benchmark: str, model: str, method: str) -> Path:
        return self.path / "predictions" / benchmark / f"{model}.{method}.jsonl"

    def place(self, model: str) -> ModelPlace:
        """Where a model of this suite is opened."""
        return ModelPlace(model, self.path, self._cache_dir)

    def rows(self, benchmark: OpenBenchmark, settings: SuiteSettings, skipped: Mapping[str, Any]) -> BenchmarkRows:
        """All rows of a benchmark, models in the order of the suite, without what was skipped this time."""
        rows = {}
        for model, method in itertools.product(settings.models, (*settings.methods, DIRECT)):
            path = self.predictions(benchmark.name, model, method)
            if path.exists() and method not in skipped.get(model, {}):
                rows[model, method] = read_predictions(path)
        num_records = len(benchmark.numbers())
        return BenchmarkRows(benchmark.name, benchmark.settings, benchmark.label_set, rows, num_records)


def open_model(entry: Any, place: ModelPlace) -> LanguageModel | Baseline:
    """The model of an entry of `suite.models`. UserError if its weights, checkpoint or endpoint cannot be used."""
    return adapters()[entry.adapter].open(entry, place)


@dataclass
class _SuiteRun:
    """Makes the missing rows of every model and benchmark.

    Attributes:
        skipped: the reasons by benchmark, model and method.
        facts: by model, see `LanguageModel.facts`.
    """

    settings: SuiteSettings
    folder: SuiteFolder
    benchmarks: Mapping[str, OpenBenchmark]
    skipped: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)

    def evaluate(self) -> None:
        for name, entry in self.settings.models.items():
            if isinstance(entry, ProbeSettings) and not self._can_learn(name):
                continue  # its encoder may be large
            heartbeat.note(f"loading {name}", long=True)
            model = open_model(entry, self.folder.place(name))
            try:
                for benchmark in self.benchmarks.values():
                    if isinstance(model, Baseline):
                        self._evaluate_baseline(name, model, benchmark)
                    else:
                        self._evaluate_language_model(name, model, benchmark)
                if isinstance(model, LanguageModel) and (facts := model.facts()):
                    self.facts[name] = facts
            finally:
                model.close()
                # The next model needs its memory.
                del model
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()

    def _can_learn(self, name: str) -> bool:
        """Whether a probe has a benchmark to learn; notes why not for each if there is none."""
        benchmarks = list(self.benchmarks.values())
        reasons = [_no_baseline(ProbeBaseline, benchmark) for benchmark in benchmarks]
        if None in reasons:
            return True
        for benchmark, reason in zip(benchmarks, reasons):
            self._skip(benchmark, name, DIRECT, str(reason))
        return False

    def _evaluate_language_model(self, name: str, model: LanguageModel, benchmark: OpenBenchmark) -> None:
        """All methods, in batches; each rank evaluates a part, rank 0 writes all rows in order."""
        settings = benchmark.settings
        tuned_on, shown = box_identity(model.tuned_show), box_identity(benchmark.show)
        if model.tuned_show is not None and tuned_on != shown and benchmark.has_boxes:
            key = f"suite.benchmarks.{benchmark.name}.config.vis_processor.eval.box"
            logger.warning("%s sees other parts of images than it was tuned on; %s decides it", name, key)
        for method in self.settings.methods:
            if not settings.supports(method):
                continue
            if method not in model.methods:
                self._skip(benchmark, name, method, "the model does not support this scoring method")
                continue
            if not model.reads_both and (reason := benchmark.why_not_one_image) is not None:
                self._skip(benchmark, name, method, reason)
                continue
            if settings.kind == "instruction" and method != "generation" and not model.scores_any_text:
                self._skip(benchmark, name, method, "the model cannot score a reference answer")
                continue
            decoding = settings.prompt.decoding if settings.prompt is not None and method == "generation" else {}
            # Without beams and penalties, every model is greedy.
            if unknown := sorted(key for key, value in decoding.items() if value != 1 and key not in model.decoding):
                self._skip(benchmark, name, method, f"the model cannot follow {', '.join(unknown)} of the prompt")
                continue
            with self._rows(benchmark, name, method, model.identity()) as rows:
                limit = FailureLimit()
                size = max(self.settings.batch_size, model.images_at_once)
                for batch in self._batches(rows, benchmark, model, size):
                    rows.write(request_rows(model, batch, settings, method, benchmark.label_set, limit))
            if self.settings.report and benchmark.has_clips:
                heartbeat.note("effects of frames for the report", long=True)
                processes.on_main(partial(self._add_frame_effects, rows, model, benchmark, name, method))

    def _add_frame_effects(
        self, rows: SuiteRows, model: LanguageModel, benchmark: OpenBenchmark, name: str, method: Method
    ) -> None:
        made = read_predictions(self.folder.predictions(benchmark.name, name, method))
        num_images, batch_size = self.settings.num_images, self.settings.batch_size
        found = with_frame_effects(model, benchmark, name, method, made, num_images, batch_size=batch_size)
        rows.replace(found)

    def _evaluate_baseline(self, name: str, baseline: Baseline, benchmark: OpenBenchmark) -> None:
        """Learn from the training split, then predict."""
        settings, label_set = benchmark.settings, benchmark.label_set
        if reason := _no_baseline(baseline, benchmark):
            self._skip(benchmark, name, DIRECT, reason)
            return
        with self._rows(benchmark, name, DIRECT, baseline.identity()) as rows:
            if not rows.is_done:
                heartbeat.note("learning", long=True)
                try:
                    baseline.fit(benchmark.train_items() if baseline.learns else (), settings, label_set)
                except DataError as error:
                    raise DataError(f"{rows.label}: {error}") from None
            for batch in self._batches(rows, benchmark, None, self.settings.batch_size):
                rows.write(baseline_rows(baseline, [prepared.item for prepared in batch], settings, label_set))

    def _batches(
        self, rows: SuiteRows, benchmark: OpenBenchmark, model: LanguageModel | None, size: int
    ) -> Iterable[list[Prepared]]:
        """The batches that rows are missing for."""
        if rows.is_done:
            return ()
        num_workers, done = self.settings.num_workers, rows.done_records
        batches = ImageBatches(benchmark, model, batch_size=size, num_workers=num_workers, done_records=done)
        return batches.rounds(rows.label)

    def _rows(self, benchmark: OpenBenchmark, model: str, method: str, identity: Mapping[str, Any]) -> SuiteRows:
        return SuiteRows(
            self.folder.predictions(benchmark.name, model, method),
            _made_with(benchmark, method, identity, self.settings.origins),
            f"{model} on {benchmark.name} ({method})",
            self.settings,
            order=lambda: ((item.record.id, len(item.truth.each)) for item in benchmark.items()),
            # They may show other images of the same ids, or other parts of them.
            on_delete=lambda: shutil.rmtree(self.folder.path / IMAGES_FOLDER / benchmark.name, ignore_errors=True),
        )

    def _skip(self, benchmark: OpenBenchmark, model: str, method: str, reason: str) -> None:
        self.skipped.setdefault(benchmark.name, {}).setdefault(model, {})[method] = reason
        logger.info("%s on %s (%s) is skipped: %s", model, benchmark.name, method, reason)


def _no_baseline(baseline: Baseline | type[Baseline], benchmark: OpenBenchmark) -> str | None:
    """Why a baseline cannot predict a benchmark, or None."""
    if benchmark.settings.kind not in baseline.kinds:
        return f"no baseline for kind '{benchmark.settings.kind}'"
    if baseline.learns and benchmark.train_samples is None:
        return "no training split to learn from"
    if not baseline.reads_images:
        return None
    of_clips = "it reads images, and the benchmark has clips" if benchmark.has_clips else None
    return benchmark.why_not_one_image or of_clips


def _made_with(benchmark: OpenBenchmark, method: str, identity: Mapping[str, Any], origins: Origins) -> dict[str, Any]:
    """Everything that decides the rows, as plain values."""
    settings = benchmark.settings
    questions = settings.model_dump(mode="json", exclude={"config", "train_split", "coarser", "prompt"})
    texts = wordings_of(settings, benchmark.label_set)
    hashes = {"variables": variable_hashes(origins)} if origins else {}
    return {
        "model": {**with_variables(identity, origins), **hashes},
        "method": method,
        "benchmark": questions,
        "variants": [variant.name for variant in settings.variants] if method != DIRECT else ["direct"],
        "labels": list(benchmark.label_set.labels) if benchmark.label_set is not None else None,
        **_prompt_of(settings, method),
        **({"wheels_sha256": file_sha256(Path(settings.wheels))} if settings.wheels is not None else {}),
        "questions": hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest(),
        "data": benchmark.data_hash,
        **box_identity(benchmark.show),
        "train_data": benchmark.train_hash if method == DIRECT else None,
        "versions": package_versions(),
    }


def _prompt_of(settings: BenchmarkSettings, method: str) -> dict[str, Any]:
    """What of a prompt decides the rows: a preset may describe its source in other words."""
    if settings.prompt is None or method == DIRECT:
        return {}
    # Earlier versions had no `confidence`; rows without one must stay equal to theirs.
    unset = {"confidence"} if not settings.prompt.confidence else set()
    decides = settings.prompt.model_dump(mode="json", exclude={"name", "source", "licence", "differs", "text", *unset})
    return {"prompt": {"sha256": settings.prompt.sha256, **decides}}
