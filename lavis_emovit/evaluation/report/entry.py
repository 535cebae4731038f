"""The report on one run or suite: its sections, from the contents of its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows, group_key, result_name
from lavis_emovit.evaluation.metrics.rows import resamples_of
from lavis_emovit.evaluation.report.comparison import between, comparison_table, comparisons_note, within
from lavis_emovit.evaluation.report.folder import Folder
from lavis_emovit.evaluation.report.folds import folds_parts
from lavis_emovit.evaluation.report.images import shown_images
from lavis_emovit.evaluation.report.parts import benchmark_parts
from lavis_emovit.evaluation.report.rewards import groups_section, reward_charts
from lavis_emovit.evaluation.report.sections import Dot, Fact, Part, Section, text_part, texts
from lavis_emovit.evaluation.report.summary_tables import (
    endpoints_table,
    fingerprints_table,
    groups_table,
    headline_cell,
    headline_table,
    references_table,
    sensitivity_table,
    skipped,
)
from lavis_emovit.evaluation.report.table import Cell, Table, Values, is_share, number, percent, points, signed
from lavis_emovit.evaluation.report.training import overlaid_losses, training_charts, training_facts
from lavis_emovit.recipes import flatten

MAX_ERRORS = 10


@dataclass(frozen=True)
class Entry:
    """The report on one run or suite."""

    key: str
    name: str
    lede: str
    is_run: bool
    kinds: frozenset[str]  # of its benchmarks
    notes: list[str]
    sections: list[Section]


def report_entry(folder: Folder, key: str) -> Entry:
    """The report on a run or suite; `key` starts the ids in it."""
    compared = within(folder)
    first = "before tuning" if folder.is_run else "the first model of each benchmark"
    differences = comparison_table(f"{key}-differences-table", f"Differences from {first}", compared)
    gained = within(folder, "gains")
    gains = comparison_table(f"{key}-gains-table", "Gain of each tuned model over the model before tuning", gained)
    sections = [
        _result_section(folder, key),
        *(_table_section("gains", key, gains, comparisons_note(gained)) if gains is not None else []),
        *_table_section("references", key, references_table(folder.summary, f"{key}-references-table")),
        *_table_section("differences", key, differences, comparisons_note(compared)),
        *_table_section("groups", key, groups_table(folder.summary, f"{key}-groups-table")),
        *_table_section("sensitivity", key, sensitivity_table(folder.summary, f"{key}-sensitivity-table")),
    ]
    if folder.is_run:
        shown = [*reward_charts(folder, key), *training_charts(folder, key)]
        part = Part(charts=shown, facts=training_facts(folder))
        sections.append(Section(f"{key}-training", "Training", [part] if part.charts or part.facts else []))
        sections += groups_section(folder, key)
    for place, benchmark in enumerate(folder.benchmarks, start=1):
        sections.append(_benchmark_section(folder, benchmark, f"{key}-{place}"))
    sections.append(_settings_section(folder, key))
    failed = [
        f"{result_name(one['model'], one['method'])} on {name}: {one['num_errors']}"
        for name, numbers in folder.summary["benchmarks"].items()
        for one in numbers["results"]
        if one["num_errors"]
    ]
    note = f"Some samples failed and are not in any metric; see the lists below ({'; '.join(failed)})."
    return Entry(
        key=key,
        name=folder.name,
        lede=_lede(folder),
        is_run=folder.is_run,
        kinds=frozenset(benchmark.settings.kind for benchmark in folder.benchmarks),
        notes=[*folder.notes, note] if failed else folder.notes,
        sections=[section for section in sections if section.parts],
    )


def side_by_side(folders: Sequence[Folder]) -> list[Section]:
    """A section about all runs and one about all suites, if there are several of them."""
    sections = []
    for noun, is_run in (("runs", True), ("suites", False)):
        group = [folder for folder in folders if folder.is_run == is_run]
        if len(group) < 2:
            continue
        compared, problems = between(group)
        caption = f"Differences from {group[0].label}, on the same images"
        differences = comparison_table(f"{noun}-differences-table", caption, compared)
        parts = []
        if is_run:
            parts.append(Part(tables=[_runs_table(group)]))
            if seeds := _seeds_table(group):
                parts.append(text_part("seeds", noun, tables=[seeds]))
            folds, unmeasured = folds_parts(group)
            parts += folds
            problems = [*problems, *unmeasured]
            if losses := overlaid_losses(group):
                parts.append(Part(f"{noun}-losses", charts=losses))
        elif table := headline_table([(one.label, one.summary) for one in group if one.benchmarks], "suites-headline"):
            parts.append(Part(tables=[table]))
        if differences:
            note = comparisons_note(compared)
            parts.append(Part(f"{noun}-differences", "Differences from the first", note, tables=[differences]))
        sections.append(Section(noun, f"{len(group)} {noun} side by side", parts, problems=problems))
    return sections


def _stage_results(folder: Folder) -> dict[str, dict[str, Values]]:
    """The results of a run by benchmark and by stage, `before` and `after` tuning; captions have none."""
    found = {
        name: {one["model"].split()[0]: one for one in numbers["results"] if "headline" in one}
        for name, numbers in folder.summary["benchmarks"].items()
    }
    return {name: results for name, results in found.items() if results}


def _lede(folder: Folder) -> str:
    if folder.settings is not None:
        num_models, num_benchmarks = len(folder.settings.models), len(folder.settings.benchmarks)
        models = f"{num_models} models" if num_models > 1 else "One model"
        benchmarks = f"{num_benchmarks} benchmarks" if num_benchmarks > 1 else "one benchmark"
        num_rows = sum(len(rows) for benchmark in folder.benchmarks for rows in benchmark.rows.values())
        return f"{models} on {benchmarks}, {num_rows:,} answers."
    text = f"{_setting(folder, 'model.arch') or 'A model'} on {folder.dataset}"
    for name, results in _stage_results(folder).items():
        label_set = next(one.label_set for one in folder.benchmarks if one.name == name)
        labels = f"{len(label_set)} emotions, " if label_set else ""
        sentence = _tuning_sentence(results, folder.summary["benchmarks"][name]["comparisons"])
        return f"{text}: {labels}{list(results.values())[-1]['num_samples']:,} {name} images. {sentence}"
    return f"{text}."


def _tuning_sentence(results: dict[str, Values], comparisons: Sequence[Values]) -> str:
    """The effect of tuning, as far as the interval of the paired difference shows one."""
    metric = next(iter(results.values()))["headline"]["name"]
    shown = {stage: headline_cell(result["headline"]).text for stage, result in results.items()}
    if len(results) < 2:
        ((stage, value),) = shown.items()
        return f"The {metric}{' before tuning' if stage == 'before' else ''} is {value}."
    change = f"from {shown['before']} to {shown['after']}"
    interval = comparisons[0].get("interval")
    if interval is None:
        return f"The {metric} went {change}; the difference could not be tested."
    if interval["low"] > 0 or interval["high"] < 0:
        return f"Tuning {'raised' if interval['low'] > 0 else 'lowered'} the {metric} {change}."
    return (
        f"The {metric} went {change}, but this is no evidence of a change: the 95 % interval of the difference is "
        f"{_span(metric, interval)}."
    )


def _span(metric: str, interval: Values) -> str:
    show = points if is_share(metric) else signed
    return f"{show(interval['low'])} to {show(interval['high'])}{' points' if is_share(metric) else ''}"


def _result_section(folder: Folder, key: str) -> Section:
    parts = []
    if folder.is_run:
        for place, (name, results) in enumerate(_stage_results(folder).items(), start=1):
            heading = f"On {name}" if len(folder.benchmarks) > 1 else ""
            comparisons = folder.summary["benchmarks"][name]["comparisons"]
            parts.append(_stages_part(f"{key}-result-{place}", heading, results, comparisons))
    elif table := headline_table([("", folder.summary)], f"{key}-headline"):
        parts.append(Part(tables=[table]))
    if lines := skipped(folder.summary):
        parts.append(Part(f"{key}-skipped", "Skipped", lines=lines))
    return Section(f"{key}-result", "Result", parts)


def _stages_part(key: str, heading: str, results: dict[str, Values], comparisons: Sequence[Values]) -> Part:
    """The results of a run on a benchmark, before and after tuning."""
    hero, dots, facts = [], [], []
    for stage, result in results.items():
        headline, cell = result["headline"], headline_cell(result["headline"])
        when = f" {stage} tuning" if stage == "before" or len(results) > 1 else ""
        hero.append((stage, cell.text, f"{headline['name']}{when}{cell.detail and f', {cell.detail}'}"))
        if "classification" in result["metrics"]:
            name = f"{stage.capitalize()} tuning" if when else "The model"
            dots.append(Dot(name, headline["value"], headline["interval"], stage))
    for one in comparisons:
        if "difference" in one:
            value = points(one["difference"]) if is_share(one["metric"]) else signed(one["difference"])
            detail = f"95 %: {_span(one['metric'], one['interval'])}" if one["interval"] else ""
            facts.append(Fact("Difference", value, detail))
    last = list(results.values())[-1]
    if dots:
        metrics = [result["metrics"]["classification"] for result in results.values()]
        always = Dot(f"Always {metrics[-1]['majority_label']}", metrics[-1]["majority_baseline"])
        dots = [Dot("Chance", metrics[-1]["chance"]), always, *dots]
        facts += _key_facts(metrics)
    share = percent(last["num_invalid"] / last["num_samples"])
    facts.append(Fact("Invalid answers", share, f"{last['num_invalid']} of {last['num_samples']}"))
    return Part(key, heading, hero=hero, dots=dots, facts=facts)


def _key_facts(metrics: Sequence[Values]) -> list[Fact]:
    """A few numbers of the last stage, with those of the stage before it."""
    shown = {
        "Macro F1": [number(one["macro_f1"]) for one in metrics],
        "Balanced accuracy": [percent(one["balanced_accuracy"]) for one in metrics],
    }
    k = max(metrics[-1]["top_k"] or {"1": 0}, key=int)
    if k != "1":
        shown[f"In top {k}"] = [percent(one["top_k"][k]) for one in metrics if one["top_k"]]
    if metrics[-1]["calibration"]:
        shown["Calibration error"] = [percent(one["calibration"]["ece"]) for one in metrics if one["calibration"]]
    return [Fact(name, found[-1], f"before {found[0]}" if len(found) > 1 else "") for name, found in shown.items()]


def _runs_table(runs: Sequence[Folder]) -> Table:
    """The last result of each run on each split."""
    rows = []
    for run in runs:
        model = Cell(_setting(run, "model.arch") or "unknown")
        for name, results in _stage_results(run).items():
            *before, last = results.values()
            cell, f1 = headline_cell(last["headline"]), last["metrics"].get("classification", {}).get("macro_f1")
            texts_of_row = [f"{name}: {last['headline']['name']}", f"{last['num_samples']:,}"]
            texts_of_row.append(headline_cell(before[0]["headline"]).text if before else "")
            last_cells = [Cell(cell.text, cell.detail), Cell("" if f1 is None else number(f1))]
            rows.append((run.label, [model, *map(Cell, texts_of_row), *last_cells]))
        if not run.benchmarks:
            rows.append((run.label, [model, Cell("not evaluated yet"), *[Cell("")] * 4]))
    caption = "Results with 95 % intervals after tuning, or before it if the run was not tuned"
    columns = ("Model", "Split and metric", "Images", "Before", "Result", "Macro F1")
    return Table("runs-headline", caption, "Run", columns, rows, is_text=True)


def _seeds_table(runs: Sequence[Folder]) -> Table | None:
    """Mean and spread of the last results of runs whose recipes differ in nothing but seeds and folders."""
    groups: dict[str, list[Folder]] = {}
    for run in runs:
        if run.config:
            settings = flatten(run.config).items()
            kept = {key: value for key, value in settings if key.rpartition(".")[2] not in ("seed", "output_dir")}
            groups.setdefault(json.dumps(kept, sort_keys=True, default=str), []).append(run)
    rows = []
    for group in groups.values():
        found: dict[tuple[str, str], list[float]] = {}
        for run in group:
            for name, results in _stage_results(run).items():
                last = list(results.values())[-1]["headline"]
                if last["value"] is not None:
                    found.setdefault((name, last["name"]), []).append(last["value"])
        for (name, metric), values in found.items():
            if len(values) > 1:
                show = percent if is_share(metric) else number
                shown = [show(one) for one in (mean(values), stdev(values), min(values), max(values))]
                cells = [Cell(f"{name}: {metric}"), Cell(str(len(values))), *map(Cell, shown)]
                rows.append((", ".join(run.label for run in group), cells))
    columns = ("Split and metric", "Runs", "Mean", "Standard deviation", "Lowest", "Highest")
    return Table("runs-seeds-table", "Results over seeds", "Runs", columns, rows, is_text=True) if rows else None


def _table_section(name: str, key: str, table: Table | None, note: str = "") -> list[Section]:
    text = texts()[name]
    parts = [Part(tables=[table])] if table is not None else []
    return [Section(f"{key}-{name}", text["heading"], parts, text.get("note", note))]


def _benchmark_section(folder: Folder, benchmark: BenchmarkRows, key: str) -> Section:
    results = folder.summary["benchmarks"][benchmark.name]["results"]
    parts = benchmark_parts(key, benchmark, results)
    num_images = folder.settings.num_images if folder.settings else 0
    groups = shown_images(folder.path, benchmark, num_images)
    if groups:
        images = [image for _, group in groups for image in group]
        note = f"The first {len(images)} images that were kept with the predictions, not a selection."
        if folder.settings is not None and not groups[0][0]:
            note = f"{texts()['kinds'][benchmark.settings.kind]['images']} Up to {num_images} for each model."
        if any(answer.candidates for image in images for answer in image.answers):
            note += " Answers have the three most likely labels with their probabilities; the true one is underlined."
        if any(image.num_strip_frames for image in images):
            note += f" {texts()['images']['effects']}"
        if not any(image.data_url for image in images):
            note += " The image files are missing or damaged, so only the answers are shown."
        parts.append(text_part("images", key, images=groups, note=note))
    answers = ((result_name(*one), row) for one, rows in benchmark.rows.items() for row in rows)
    failed = [f"{row.record_id}, {name}: {row.error}" for name, row in answers if row.error]
    if failed:
        first = f", of which these are the first {MAX_ERRORS}" if len(failed) > MAX_ERRORS else ""
        note = f"{len(failed)} in total{first}. They are not in any metric."
        parts.append(text_part("errors", key, lines=failed[:MAX_ERRORS], note=note))
    problems = [f"{result_name(one['model'], one['method'])}: {one['problem']}" for one in results if "problem" in one]
    return Section(key, benchmark.name, parts, _benchmark_note(benchmark), problems, is_benchmark=True)


def _benchmark_note(benchmark: BenchmarkRows) -> str:
    settings = benchmark.settings
    first = next(iter(benchmark.rows))
    num_records = len({row.record_id for row in benchmark.rows[first]})
    about = texts()["kinds"][settings.kind]["about"]
    parts = [f"{settings.dataset}, split {settings.split}: {num_records:,} images, questions about {about}"]
    if benchmark.label_set is not None:
        parts.append(f"{len(benchmark.label_set.labels)} labels ({', '.join(benchmark.label_set.labels)})")
    if len(settings.variants) > 1:
        parts.append(f"{len(settings.variants)} variants of the question; the tables show the first")
    if settings.limit is not None:
        parts.append(f"only the first {settings.limit:,} records of the shuffled split")
    plain = benchmark.plain(first)
    grouping = group_key(plain)
    if grouping is not None:
        num_groups = resamples_of(plain, grouping).num_units
        parts.append(f"intervals resample whole persons or sessions ({num_groups:,} of them), not single images")
    return "; ".join(parts) + "."


def _settings_section(folder: Folder, key: str) -> Section:
    if folder.settings is not None:
        pairs = {
            "Models": "; ".join(f"{name}: {entry.adapter}" for name, entry in folder.settings.models.items()),
            "Benchmarks": ", ".join(folder.settings.benchmarks),
            "Scoring methods": ", ".join(method.replace("_", ", ", 1) for method in folder.settings.methods),
            "Batch size": str(folder.settings.batch_size),
        }
    else:
        found = {title: _setting(folder, path) for title, path in texts()["settings"].items()}
        pairs = {title: value for title, value in found.items() if value is not None}
    fingerprints = fingerprints_table(folder.made_with, f"{key}-fingerprints-table")
    name = "Recipe (config.yaml)" if folder.is_run else "Suite (suite.yaml)"
    endpoints = endpoints_table(folder.summary, f"{key}-endpoints-table")
    part = Part(
        pairs={"Settings": list(pairs.items()), "Versions": list(folder.versions.items())},
        remarks=[] if folder.versions else ["The versions of the packages are not known yet."],
        tables=[table for table in (endpoints, fingerprints) if table is not None],
        details=(name, folder.config_text) if folder.config_text is not None else None,
    )
    return Section(f"{key}-settings", "Settings and environment", [part])


def _setting(folder: Folder, path: str) -> str | None:
    value = folder.setting(path)
    return ", ".join(map(str, value)) if isinstance(value, list) else None if value is None else str(value)
