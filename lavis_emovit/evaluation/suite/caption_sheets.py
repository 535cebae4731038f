"""From a suite with captions to the sheet on which people choose between two of its authors."""

from __future__ import annotations

import os
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.sheets import HUMAN, QUESTION, CaptionPairs, human_caption, make_pairs, write_sheet
from lavis_emovit.evaluation.suite.benchmark_data import OpenBenchmark, open_benchmarks
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.paths import expand_home
from lavis_emovit.settings import nearest_name


def sheet_of_suite(
    suite_dir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    first: str,
    second: str = HUMAN,
    benchmark: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    question: str = QUESTION,
) -> CaptionPairs:
    """Write a blinded sheet of the captions that a suite has; LAVIS and the plugin must be loaded.

    Args:
        suite_dir, out: folders of the suite and of the sheet.
        first, second: names of models of the suite, or `human` for the dataset's best caption.
        benchmark: of kind `caption`; None takes the only one.
        limit: maximum number of images.
        question: what people are asked about the two captions.

    Raises:
        UserError: no such suite, benchmark or model, no captions yet, or nothing to compare.
    """
    folder = expand_home(suite_dir)
    settings = load_suite(folder / "suite.yaml") if (folder / "suite.yaml").is_file() else None
    if settings is None:
        raise DataError(f"{suite_dir}: has no suite.yaml; use the output folder of a suite (suite.output_dir)")
    name = _benchmark(settings, benchmark)
    only = settings.model_copy(update={"benchmarks": {name: settings.benchmarks[name]}, "missing": "refuse"})
    opened = open_benchmarks(only)[0][name]
    captions = [_captions(folder, settings, opened, writer) for writer in (first, second)]
    made = make_pairs((first, captions[0]), (second, captions[1]), seed, limit)
    wanted = {pair.record_id for pair in made.pairs}
    images = {item.record.id: item.shown() for item in opened.items() if item.record.id in wanted}
    write_sheet(out, made, images, seed, question)
    return made


def _benchmark(settings: SuiteSettings, name: str | None) -> str:
    names = [key for key, benchmark in settings.benchmarks.items() if benchmark.kind == "caption"]
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    found = ", ".join(names) if names else "none"
    problem = f"'{name}' is not a benchmark of captions" if name is not None else "name a benchmark of captions"
    raise DataError(f"suite '{settings.name}': {problem} (it has: {found})")


def _captions(folder: Path, settings: SuiteSettings, benchmark: OpenBenchmark, writer: str) -> dict[str, str]:
    if writer == HUMAN:
        written = {item.record.id: human_caption(item.record) for item in benchmark.items()}
        return {record_id: caption for record_id, caption in written.items() if caption is not None}
    if writer not in settings.models:
        known = [*settings.models, HUMAN]
        raise DataError(f"suite '{settings.name}' has no model '{writer}'{nearest_name(writer, known)}")
    rows = read_predictions(folder / "predictions" / benchmark.name / f"{writer}.generation.jsonl")
    plain = benchmark.settings.variants[0].name
    return {row.record_id: row.answer for row in rows if row.variant in (None, plain) and row.answer is not None}
