"""Writes the benchmarks of a suite for another evaluation program: images, questions and right answers.

summary.json                        what was written
<benchmark>.yaml, utils.py          lmms-eval: a task for each benchmark, for --include_path
<benchmark>.jsonl, images/          lmms-eval: its questions, and the images as models see them here (`box`, `pair`)
<benchmark>.json                    lmms-eval: what its answers are read and measured with
EmoVIT_<benchmark>.tsv              VLMEvalKit: questions with options, and the images
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.hosts.lmms_tasks import QuestionRow, TaskFile, write_task
from lavis_emovit.evaluation.hosts.vlmevalkit import check_options, write_table
from lavis_emovit.evaluation.metrics.registry import headline_of
from lavis_emovit.evaluation.suite.benchmark_data import OpenBenchmark, open_benchmarks
from lavis_emovit.evaluation.suite.requests import BatchRequests, Prepared
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.files import atomic_folder, write_json
from lavis_emovit.settings import nearest_name

Host = Literal["lmms-eval", "vlmevalkit"]
HOSTS: tuple[Host, ...] = get_args(Host)

SUMMARY = "summary.json"
IMAGES = "images"


def export_suite(
    suite: SuiteSettings, host: str, out: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Write a folder for another evaluation program, and return its summary, which is also in the folder.

    Questions are those of the method `generation` in the first variant of each benchmark. Models are not exported.

    Args:
        suite: its benchmarks; missing shards are made.
        host: a member of `HOSTS`.
        out: the folder, new or empty. It appears when it is complete.

    Raises:
        ConfigError: an unknown program; a benchmark that it cannot ask.
        DataError: the folder has content, or a sample cannot be read or is a clip.
    """
    if host not in HOSTS:
        raise ConfigError([f"--to: unknown program '{host}'{nearest_name(host, list(HOSTS))}"], "the command line")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: already has content, and an export writes a folder of its own; use another --out")
    benchmarks, missing = open_benchmarks(suite)
    problems = [problem for one in benchmarks.values() for problem in _problems(one, host)]
    if problems:
        raise ConfigError(problems, f"suite '{suite.name}'")
    total = sum(len(one.numbers()) for one in benchmarks.values())
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    with atomic_folder(out) as folder:
        write = _write_tasks if host == "lmms-eval" else _write_tables
        written = {name: write(folder, out, one, count) for name, one in benchmarks.items()}
        summary = {
            "written_by": "emovit suite export",
            "host": host,
            "suite": suite.name,
            "benchmarks": written,
            "absent": missing,
        }
        write_json(folder / SUMMARY, summary, indent=1)
    return summary


def _problems(benchmark: OpenBenchmark, host: str) -> list[str]:
    settings, place = benchmark.settings, f"suite.benchmarks.{benchmark.name}"
    if not settings.supports("generation"):
        return [f"{place}: kind '{settings.kind}' has no question with a written answer, and {host} needs one"]
    if (reason := benchmark.why_not_one_image) is not None:
        return [f"{place}: {host} cannot show its records: {reason}"]
    if host == "vlmevalkit":
        return check_options(settings, benchmark.label_set, place)
    if headline_of(settings.kind) is None:
        return [f"{place}: kind '{settings.kind}' has no metric, because people judge its answers; run the suite"]
    return []


def _write_tasks(folder: Path, out: Path, benchmark: OpenBenchmark, count: Callable[[], None]) -> Mapping[str, Any]:
    """A task of lmms-eval; its data file is named by its absolute path below `out`."""
    task = TaskFile(benchmark.name, benchmark.settings.first_variant, benchmark.label_set)
    num_images = num_rows = 0
    decoding: dict[str, float] = {}
    with (folder / f"{benchmark.name}.jsonl").open("w", encoding="utf-8") as file:
        for number in benchmark.numbers():
            for item in benchmark.image_items([number]):
                num_images += 1
                join_pairs = task.settings.join_pairs
                images = [_image_file(folder, data) for data in item.images(join_pairs=join_pairs)]
                prepared = Prepared(item, is_joined=join_pairs)
                requests = BatchRequests([prepared], task.settings, "generation", task.label_set)
                unanswered = requests.rows(dict.fromkeys(range(len(requests.questions)), ""))
                for place, (question, row) in enumerate(zip(requests.questions, unanswered)):
                    line = QuestionRow(
                        benchmark=benchmark.name,
                        record=item.record.to_json(),
                        place=place,
                        question=question.text,
                        images=images,
                        answer=row.label or row.reference or "",
                    )
                    file.write(json.dumps(vars(line), ensure_ascii=False) + "\n")
                    decoding = {"max_new_tokens": question.max_new_tokens, **dict(question.decoding)}
                    num_rows += 1
            count()
    write_task(folder, out, task, decoding)
    return {
        "task": task.task_name,
        "records": num_images,
        "questions": num_rows,
        "without_truth": _lost(benchmark, num_images),
    }


def _write_tables(folder: Path, out: Path, benchmark: OpenBenchmark, count: Callable[[], None]) -> Mapping[str, Any]:
    """A table of VLMEvalKit."""
    found = write_table(folder, benchmark, count)
    digest = hashlib.md5(found.path.read_bytes(), usedforsecurity=False).hexdigest()
    lost = _lost(benchmark, found.num_records)
    return {"file": found.path.name, "md5": digest, "questions": found.num_rows, "without_truth": lost}


def _lost(benchmark: OpenBenchmark, num_records: int) -> int:
    """Samples whose record has no truth for this benchmark; they are in no question."""
    return len(benchmark.numbers()) - num_records


def _image_file(folder: Path, data: bytes) -> str:
    """Write an image once, under the hash of its bytes."""
    name = f"{IMAGES}/{hashlib.sha256(data).hexdigest()[:32]}"
    path = folder / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return name
