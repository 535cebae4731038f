"""Running a suite: every model asked about every benchmark, rows written as they come, then tables and report.

    suite.yaml                                         the settings with every default filled in
    predictions/<benchmark>/<model>.<method>.jsonl        one row for each question put, in the order of the shards
    predictions/<benchmark>/<model>.<method>.json         what the rows were made with: model, data, questions, settings
    judgements/, ledgers/                              what a judge said, replies of endpoints that depend on chance
    pictures/<benchmark>/                              small copies of the pictures that the report shows
    metrics.json, table.md, table.tex, report.html     computed from the rows, again at every start

A killed suite goes on after the last whole row.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from lavis_emovit.distributed import heartbeat, processes
from lavis_emovit.distributed.machine import package_versions
from lavis_emovit.distributed.seeding import limit_threads
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.adapters.base import Baseline
from lavis_emovit.evaluation.benchmark_rows import DIRECT, BenchmarkRows
from lavis_emovit.evaluation.benchmarks import Method
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.questions import suits, wordings_of
from lavis_emovit.evaluation.report.images import keep_images
from lavis_emovit.evaluation.report.summary_tables import latex, markdown
from lavis_emovit.evaluation.suite import requests as asking
from lavis_emovit.evaluation.suite.benchmark_data import OpenBenchmark, open_benchmarks, picture_batches
from lavis_emovit.evaluation.suite.judge import judge_explanations
from lavis_emovit.evaluation.suite.models import ledger_path, open_baseline, open_language_model
from lavis_emovit.evaluation.suite.rows import SuiteRows
from lavis_emovit.evaluation.suite.settings import SuiteSettings
from lavis_emovit.evaluation.summaries import benchmark_references, benchmark_summary, suite_sensitivity
from lavis_emovit.files import atomic_writer, explain_full_disk
from lavis_emovit.paths import output_root

logger = logging.getLogger(__name__)


def run_suite(settings: SuiteSettings) -> dict[str, Any]:
    """Ask what has not been asked yet, then write metrics, tables and report.

    Returns:
        what metrics.json holds; on other ranks than 0 an empty mapping.

    Raises:
        UserError: something that the user can put right.
    """
    launch = processes.read_launch()
    limit_threads(settings.num_threads, launch.local_world_size)
    has_joined = _join_ranks(launch)
    with SuiteFolder(settings) as folder, explain_full_disk(folder.path, "the last answer written"):
        benchmarks, absent = open_benchmarks(settings)
        for name, reason in absent.items():
            logger.warning("benchmark '%s' is left out: %s", name, reason)
        if processes.is_main():
            with atomic_writer(folder.settings_path) as file:
                yaml.safe_dump({"suite": settings.model_dump(mode="json")}, file, sort_keys=False, allow_unicode=True)
        left_out = ask_all(settings, folder, benchmarks)
        is_main = processes.is_main()
        processes.barrier()
        if has_joined:
            heartbeat.end()
            processes.stop()
        # What is left needs one process only, and a judge may take its time.
        if not is_main:
            return {}
        return summarise(settings, folder, benchmarks, left_out, absent)


def _join_ranks(launch: processes.Launch) -> bool:
    """Meet the other processes that the launcher has started, by way of the CPU: ranks tell each other rows only.

    Returns:
        whether there was a group to join; after an error it is left as it is, so that the others hear of it.
    """
    if launch.is_alone or processes.world_size() > 1:
        return False
    timeout_s = processes.DEFAULT_TIMEOUT_S
    # The heartbeat, which knows who is late, is to speak before a collective gives up.
    processes.start(launch, device=torch.device("cpu"), timeout_s=timeout_s + 60.0)
    heartbeat.begin(processes.store("heartbeat"), launch.rank, launch.world_size, timeout_s)
    heartbeat.note("starting", long=True)
    if launch.rank:
        logging.getLogger("lavis_emovit").setLevel(logging.ERROR)
    return True


def summarise(
    settings: SuiteSettings,
    folder: SuiteFolder,
    benchmarks: Mapping[str, OpenBenchmark],
    left_out: Mapping[str, Any],
    absent: Mapping[str, str],
) -> dict[str, Any]:
    """Compute every figure from the rows on disk, and write metrics.json, the tables and the report."""
    asked = [folder.asked(benchmark, settings, left_out.get(name, {})) for name, benchmark in benchmarks.items()]
    if settings.judge is not None:
        asked = [_judged(one, benchmarks[one.name], settings, folder) for one in asked]
    summary: dict[str, Any] = {
        "suite": settings.name,
        "models": list(settings.models),
        "benchmarks": {one.name: benchmark_summary(one) for one in asked},
        "sensitivity": suite_sensitivity(asked),
        "left_out": left_out,
        "absent": absent,
        "references": [row for one in asked for row in benchmark_references(one)],
        "versions": package_versions(),
    }
    for name, of in summary["benchmarks"].items():
        for result in of["results"]:
            if result["num_errors"]:
                asking_of = f"{result['model']} on {name} ({result['method']})"
                logger.warning(
                    "%s: %d rows are errors; suite.ask_errors_again=true asks again", asking_of, result["num_errors"]
                )
    with atomic_writer(folder.metrics_path) as file:
        json.dump(summary, file, indent=1, ensure_ascii=False)
        file.write("\n")
    for name, text in (("table.md", markdown(summary)), ("table.tex", latex(summary))):
        with atomic_writer(folder.path / name) as file:
            file.write(text)
    logger.info("figures: %s", folder.path / "table.md")
    if settings.report:
        _write_report(settings, folder, asked, benchmarks, summary)
    return summary


def _judged(
    asked: BenchmarkRows, benchmark: OpenBenchmark, settings: SuiteSettings, folder: SuiteFolder
) -> BenchmarkRows:
    """The benchmark with the judge's scores, where it is one of explanations."""
    if settings.judge is None or asked.settings.kind != "explanation":
        return asked
    chat = settings.judge.endpoint()
    ledger = ledger_path("judge", chat, settings, folder.path)
    judgements = judge_explanations(settings.judge, benchmark, asked.rows, folder.path, ledger)
    return replace(asked, judgements=judgements)


def _write_report(
    settings: SuiteSettings,
    folder: SuiteFolder,
    asked: Sequence[BenchmarkRows],
    benchmarks: Mapping[str, OpenBenchmark],
    summary: Mapping[str, Any],
) -> None:
    from lavis_emovit.evaluation.report.page import write_report  # matplotlib is slow to load

    for one in asked:
        pictures = ((item.record.id, item.image_bytes) for item in benchmarks[one.name].asked())
        keep_images(folder.path, one, settings.num_pictures, pictures)
    logger.info("report: %s", write_report(folder.path, summary=summary))


class SuiteFolder:
    """The output folder of a suite, locked for this run; only rank 0 writes to it."""

    def __init__(self, settings: SuiteSettings):
        self.path = output_root() / Path(settings.output_dir).expanduser()
        self.settings_path = self.path / "suite.yaml"
        self.metrics_path = self.path / "metrics.json"
        self.report_path = self.path / "report.html"
        self._lock = FileLock(self.path / ".lock")

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
        """The file of one model's rows on one benchmark."""
        return self.path / "predictions" / benchmark / f"{model}.{method}.jsonl"

    def asked(self, benchmark: OpenBenchmark, settings: SuiteSettings, left_out: Mapping[str, Any]) -> BenchmarkRows:
        """A benchmark with all rows about it, models in the order of the suite; not those of askings left out."""
        rows = {}
        for model in settings.models:
            for method in (*settings.methods, DIRECT):
                path = self.predictions(benchmark.name, model, method)
                if path.exists() and method not in left_out.get(model, {}):
                    rows[model, method] = read_predictions(path)
        num_records = len(benchmark.numbers())
        return BenchmarkRows(benchmark.name, benchmark.settings, benchmark.label_set, rows, num_records)


def ask_all(settings: SuiteSettings, folder: SuiteFolder, benchmarks: Mapping[str, OpenBenchmark]) -> dict[str, Any]:
    """Ask every model about every benchmark; what is on disk already is not asked again.

    Returns:
        what could not be asked: benchmark -> model -> method -> reason.
    """
    left_out: dict[str, Any] = {}

    def leave_out(benchmark: str, model: str, method: str, reason: str) -> None:
        left_out.setdefault(benchmark, {}).setdefault(model, {})[method] = reason
        logger.info("%s is not asked about %s (%s): %s", model, benchmark, method, reason)

    for name, entry in settings.models.items():
        heartbeat.note(f"loading {name}", long=True)
        baseline = open_baseline(entry)
        if baseline is not None:
            for benchmark in benchmarks.values():
                if benchmark.settings.kind not in baseline.kinds:
                    leave_out(benchmark.name, name, DIRECT, f"no baseline for kind '{benchmark.settings.kind}'")
                elif baseline.learns and benchmark.train_index is None:
                    leave_out(benchmark.name, name, DIRECT, "no training split to learn from")
                else:
                    _Asking(settings, folder, benchmark, name, DIRECT, baseline.identity()).of_baseline(baseline)
            continue
        model = open_language_model(name, entry, settings, folder.path)
        try:
            for benchmark in benchmarks.values():
                for method in settings.methods:
                    if not suits(method, benchmark.settings):
                        continue
                    if method not in model.methods:
                        leave_out(benchmark.name, name, method, "the model does not support this scoring method")
                        continue
                    _Asking(settings, folder, benchmark, name, method, model.identity()).of_language_model(
                        model, method
                    )
        finally:
            close = getattr(model, "close", None)
            if close is not None:
                close()
            # The next model must not have to find room beside this one.
            del model, close
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return left_out


class _Asking:
    """One model, one benchmark, one method: from the samples to the file of rows."""

    def __init__(
        self,
        settings: SuiteSettings,
        folder: SuiteFolder,
        benchmark: OpenBenchmark,
        model_name: str,
        method: str,
        identity: Mapping[str, Any],
    ):
        self._settings, self._benchmark = settings, benchmark
        self._label = f"{model_name} on {benchmark.name} ({method})"
        self._path = folder.predictions(benchmark.name, model_name, method)
        self._made_with = _made_with(benchmark, method, identity)

    def of_language_model(self, model: Any, method: Method) -> None:
        """Ask in batches, this rank its share of them; rank 0 writes the rows of all in their order."""
        benchmark = self._benchmark
        with self._open() as rows:
            if rows.is_done:
                return
            patience = asking.Patience()
            loader = picture_batches(benchmark, model, rows.done_records, self._settings)
            for batch in rows.rounds(loader):
                rows.write(
                    asking.ask(model, batch, benchmark.settings, method, benchmark.label_set, patience) if batch else []
                )

    def of_baseline(self, baseline: Baseline) -> None:
        """Learn from the training split, then predict."""
        benchmark = self._benchmark
        with self._open() as rows:
            if rows.is_done:
                return
            heartbeat.note("learning", long=True)
            try:
                baseline.fit(benchmark.learnt() if baseline.learns else (), benchmark.settings, benchmark.label_set)
            except DataError as error:
                raise DataError(f"{self._label}: {error}") from None
            loader = picture_batches(benchmark, None, rows.done_records, self._settings)
            for batch in rows.rounds(loader):
                items = [prepared.item for prepared in batch]
                rows.write(asking.predict(baseline, items, benchmark.settings, benchmark.label_set) if items else [])

    def _open(self) -> SuiteRows:
        settings = self._settings
        return SuiteRows(
            self._path,
            self._made_with,
            self._label,
            overwrite=settings.overwrite,
            ask_errors_again=settings.ask_errors_again,
            order=lambda: (item.record.id for item in self._benchmark.asked()),
        )


def _made_with(benchmark: OpenBenchmark, method: str, identity: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides the rows, as plain values."""
    settings = benchmark.settings
    asked = settings.model_dump(mode="json", exclude={"config", "train_split", "coarser"})
    return {
        "model": dict(identity),
        "method": method,
        "benchmark": asked,
        "variants": [variant.name for variant in settings.variants] if method != DIRECT else ["direct"],
        "labels": list(benchmark.label_set.labels) if benchmark.label_set is not None else None,
        "questions": _questions_hash(benchmark),
        "data": benchmark.index.hash,
        "train_data": benchmark.train_index.hash if method == DIRECT and benchmark.train_index is not None else None,
        "versions": package_versions(),
    }


def _questions_hash(benchmark: OpenBenchmark) -> str:
    """sha256 over the words of all questions that a record could be asked."""
    texts = wordings_of(benchmark.settings, benchmark.label_set)
    return hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest()
