"""Tables of the numbers of a suite, for its report and for table.md and table.tex."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lavis_emovit.evaluation.benchmark_rows import DIRECT, result_name
from lavis_emovit.evaluation.report.render import render
from lavis_emovit.evaluation.report.sections import texts
from lavis_emovit.evaluation.report.table import (
    NOTHING,
    Cell,
    Table,
    Values,
    interval_at,
    invalid_answers,
    is_share,
    number_cell,
    numbers_in,
    percent,
    share_cell,
    value_at,
)

_METHODS = ("likelihood", "likelihood_sum", "likelihood_calibrated", "generation", DIRECT)
_HASH_LENGTH = 12


def markdown(summary: Mapping[str, Any]) -> str:
    """The numbers of a suite as Markdown: headline, counts, other metrics, skipped evaluations, published results."""
    tables = {"headline": headline_table([("", summary)], ""), "answers": answers_table(summary)}
    tables |= {"references": references_table(summary, ""), "endpoints": endpoints_table(summary, "")}
    tables["groups"] = groups_table(summary, "")
    others = [other_table("", f"{name}: other metrics", of["results"]) for name, of in summary["benchmarks"].items()]
    return render("summary.md.jinja", name=summary["suite"], skipped=skipped(summary), others=others, **tables)


def latex(summary: Mapping[str, Any]) -> str:
    """The headline table of a suite as LaTeX; needs the package booktabs."""
    return render("summary.tex.jinja", table=headline_table([("", summary)], ""))


def headline_table(summaries: Sequence[tuple[str, Mapping[str, Any]]], key: str) -> Table | None:
    """Models by benchmarks, with the headline metric of each, from label and numbers of each suite.

    Row headings start with the label if it is not empty.
    """
    columns: dict[tuple[str, str], None] = {}
    rows: list[tuple[str, dict[tuple[str, str], Cell]]] = []
    notes: dict[str, None] = {}
    counts: dict[str, dict[int, list[str]]] = {}  # benchmark -> number of measured images -> results
    for label, summary in summaries:
        cells: dict[tuple[str, str], dict[tuple[str, str], Cell]] = {}
        for benchmark, of in summary["benchmarks"].items():
            metric = next((one["headline"]["name"] for one in of["results"] if "headline" in one), None)
            if metric is None:
                continue
            columns[benchmark, metric] = None
            for result in of["results"]:
                cell, problems = _result_cell(result)
                cells.setdefault((result["model"], result["method"]), {})[benchmark, metric] = cell
                name = _labelled(label, result_name(result["model"], result["method"]))
                if result.get("num_samples"):
                    counts.setdefault(benchmark, {}).setdefault(result["num_samples"], []).append(name)
                notes |= dict.fromkeys(f"{name} on {benchmark}: {problem}." for problem in problems)
        order = list(summary.get("models", []))
        for model, method in sorted(cells, key=lambda one: (_place(order, one[0]), _place(_METHODS, one[1]))):
            rows.append((_labelled(label, result_name(model, method)), cells[model, method]))
    if not columns:
        return None
    heads = [f"{benchmark}: {metric}{_counted(counts[benchmark], notes, benchmark)}" for benchmark, metric in columns]
    notes |= dict.fromkeys(_other_prompts(summaries))
    shown = [(name, [found.get(column, NOTHING) for column in columns]) for name, found in rows]
    return Table(key, "Headline metrics with 95 % bootstrap intervals", "Model", heads, shown, tuple(notes))


def answers_table(summary: Mapping[str, Any]) -> Table | None:
    """The number of measured, invalid and failed answers of every result, and the accuracy by the published rule."""
    rows = []
    for benchmark, of in summary["benchmarks"].items():
        for result in of["results"]:
            original = result.get("metrics", {}).get("original")
            cells = [
                Cell(str(result["num_samples"])) if "num_samples" in result else NOTHING,
                invalid_answers(result) if result.get("num_samples") else NOTHING,
                Cell(str(result["num_errors"])),
                Cell(str(result.get("num_without_truth", NOTHING.text))),
                share_cell(original["accuracy"], detail=f"{original['num_dropped']} dropped") if original else NOTHING,
                _prompt_cell(result.get("prompt")),
            ]
            rows.append((f"{benchmark}: {result_name(result['model'], result['method'])}", cells))
    columns = ("Answers", "Invalid", "Errors", "Without truth", "Accuracy by the published rule", "Prompt")
    return Table("", "Counts of answers", "Benchmark and model", columns, rows) if rows else None


def other_table(key: str, caption: str, results: Iterable[Values]) -> Table | None:
    """The numbers of metrics without a part of their own, such as custom ones."""
    shown = {text["metric"] for text in texts().values() if "metric" in text}
    found = [(result_name(one["model"], one["method"]), one.get("metrics", {})) for one in results]
    paths = list(dict.fromkeys(path for _, one in found for path in numbers_in(one) if path[0] not in shown))
    heads = [": ".join(path).replace("_", " ") for path in paths]
    rows = [(name, [number_cell(value_at(one, path), interval_at(one, path)) for path in paths]) for name, one in found]
    return Table(key, caption, "Model", heads, rows) if paths else None


def references_table(summary: Mapping[str, Any], key: str) -> Table | None:
    """Results from papers, as their sources give them."""
    names = ("benchmark", "metric", "value", "n", "n_here", "status", "source", "caveat")
    rows: list[tuple[str, list[Cell]]] = []
    notes: dict[str, None] = {}
    for one in summary.get("references") or []:
        shown = {**one, "value": percent(one["value"]), "metric": str(one.get("metric", "")).replace("_", " ")}
        differs = bool(one.get("n_differs"))
        if differs:
            notes[f"{one['benchmark']}: published on {one['n']} images, measured here on {one['n_here']}."] = None
        cells = [Cell(short_text(shown.get(name)), is_flagged=differs and name in ("n", "n_here")) for name in names]
        rows.append((str(one.get("model") or "unnamed"), cells))
    heads = [{"n": "n", "n_here": "n here"}.get(name, name.capitalize()) for name in names]
    caption = "Published results, quoted and not measured here"
    return Table(key, caption, "Model", heads, rows, tuple(notes), is_text=True) if rows else None


def groups_table(summary: Mapping[str, Any], key: str) -> Table | None:
    """Groups of benchmarks: the mean over the tasks, and over all rows."""
    rows: list[tuple[str, list[Cell]]] = []
    notes: dict[str, None] = {}
    for group, results in (summary.get("groups") or {}).items():
        for one in results:
            name = f"{group}: {result_name(one['model'], one['method'])}"
            cells = [share_cell(one.get(way), one.get(f"{way}_interval")) for way in ("mean_over_tasks", "pooled")]
            confidence = one.get("stated_confidence") or {}
            cells += [share_cell(confidence.get("ece"), None), number_cell(confidence.get("brier"))]
            count = Cell(f"{one['num_samples']:,}" if "num_samples" in one else NOTHING.text)
            if one["missing"]:
                notes[f"{name} lacks {', '.join(one['missing'])}; a mean over fewer tasks is another number."] = None
            rows.append((name, [count, *cells]))
    columns = ("Answers", "Mean over tasks", "Pooled over answers", "ECE of stated confidence", "Brier score")
    caption = "Accuracy over groups of benchmarks; invalid answers count as wrong"
    return Table(key, caption, "Group", columns, rows, tuple(notes)) if rows else None


def sensitivity_table(summary: Mapping[str, Any], key: str) -> Table | None:
    """How much the accuracy of each model depends on the wording of the question."""
    found = summary.get("sensitivity") or []
    tasks = dict.fromkeys(task for one in found for task in one["tasks"])
    choices = dict.fromkeys(choice for one in found for choice in one.get("parts", {}))
    rows = []
    for one in found:
        parts = [one.get("parts", {}).get(choice, {}).get("sensitivity") for choice in choices]
        ratios = [one["tasks"][task]["ratio"] if task in one["tasks"] else None for task in tasks]
        name = result_name(one["model"], one["method"])
        rows.append((name, [number_cell(ratio) for ratio in (one["sensitivity"], *parts, *ratios)]))
    caption = (
        "Standard deviation over variants of the question, divided by the mean; over all variants, over those that "
        "differ in one choice alone, and for each benchmark"
    )
    heads = ["All", *(f"{choice.capitalize()} alone" for choice in choices), *tasks]
    return Table(key, caption, "Model", heads, rows) if rows else None


def endpoints_table(summary: Mapping[str, Any], key: str) -> Table | None:
    """What each endpoint honours, as its probe found out; None without endpoints."""
    found = summary.get("endpoints") or {}
    names = list(dict.fromkeys(name for facts in found.values() for name in facts))
    rows = [(model, [Cell(facts.get(name, NOTHING.text)) for name in names]) for model, facts in found.items()]
    caption = "What the endpoints do with a request; one that ignores a parameter still answers"
    heads = [f"{name[0].upper()}{name[1:]}" for name in names]
    return Table(key, caption, "Model", heads, rows, is_text=True) if rows else None


def fingerprints_table(made_with: Mapping[tuple[str, str, str], Values], key: str) -> Table | None:
    """What the rows of each benchmark, model and scoring method were made with."""
    rows = []
    for (benchmark, model, method), made in made_with.items():
        identity = {name: value for name, value in (made.get("model") or {}).items() if value not in (None, "")}
        shown = [*(made.get(name) for name in ("data", "train_data", "questions")), identity or None]
        rows.append((f"{benchmark}: {result_name(model, method)}", [Cell(short_text(value)) for value in shown]))
    columns = ("Data", "Training data", "Questions", "Model")
    caption = "Fingerprints of everything that decides the answers, hashes shortened"
    return Table(key, caption, "Answers", columns, rows, is_text=True) if rows else None


def skipped(summary: Mapping[str, Any]) -> list[str]:
    """Benchmarks and evaluations that were skipped, with the reason."""
    found = [f"{name}: {reason}" for name, reason in (summary.get("absent") or {}).items()]
    for benchmark, models in (summary.get("left_out") or {}).items():
        for model, methods in models.items():
            found += [f"{result_name(model, method)} on {benchmark}: {reason}" for method, reason in methods.items()]
    return found


def short_text(value: Any) -> str:
    """A value as text: hashes shortened, lists joined, a dash for nothing."""
    if value is None or value == "":
        return NOTHING.text
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {short_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(short_text, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    is_hash = len(text) >= 40 and all(character in "0123456789abcdef" for character in text)
    return text[:_HASH_LENGTH] if is_hash else text


def _result_cell(result: Values) -> tuple[Cell, list[str]]:
    """The cell of a result, and what a reader must know about it."""
    if "headline" not in result:
        return Cell(NOTHING.text, is_flagged=True), [result["problem"]]
    headline = result["headline"]
    notes = []
    if result["num_invalid"]:
        counted = "wrong" if is_share(headline["name"]) else "the farther end of the scale"
        share = f"{100 * result['num_invalid'] / result['num_samples']:.1f} %"
        notes.append(f"{share} of the answers are invalid ({result['num_invalid']}); they count as {counted}")
    if result["num_errors"]:
        notes.append(f"{result['num_errors']} samples failed; the metric is over the other {result['num_samples']}")
    if result.get("num_joined_pairs"):
        notes.append("the two images of a pair were joined in one image")
    if headline["value"] is None:
        return Cell(NOTHING.text, is_flagged=True), [*notes, f"the {headline['name']} is undefined here"]
    return replace(headline_cell(headline), is_flagged=bool(notes)), notes


def headline_cell(headline: Values) -> Cell:
    """The cell of a headline metric with its interval."""
    value, interval = headline["value"], headline["interval"]
    return share_cell(value, interval) if is_share(headline["name"]) else number_cell(value, interval, has_bar=True)


def _counted(counts: Mapping[int, Sequence[str]], notes: dict[str, None], benchmark: str) -> str:
    """The number of images behind the figures of a benchmark, with a note where it is not the same for all."""
    if not counts:
        return ""
    if len(counts) == 1:
        return f" (n = {next(iter(counts)):,})"
    most = max(counts)
    for count in sorted(counts.keys() - {most}):
        notes[f"{benchmark}: {', '.join(counts[count])}: over {count:,} images, others over {most:,}."] = None
    return f" (n = {min(counts):,} to {most:,})"


def _prompt_cell(prompt: Values | None) -> Cell:
    return Cell(short_text(prompt["sha256"]), str(prompt["name"])) if prompt else NOTHING


def _other_prompts(summaries: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """A note for each benchmark and scoring method whose numbers in several suites come from different prompts."""
    asked: dict[tuple[str, str], dict[str, dict[str, None]]] = {}
    for label, summary in summaries:
        for benchmark, of in summary["benchmarks"].items():
            for result in of["results"]:
                if prompt := result.get("prompt"):
                    shown = f"{prompt['name']}, {short_text(prompt['sha256'])}"
                    asked.setdefault((benchmark, result["method"]), {}).setdefault(shown, {})[label] = None
    notes = []
    for (benchmark, method), of in asked.items():
        named = "; ".join(f"{', '.join(by)}: {shown}" for shown, by in of.items())
        notes += [f"{benchmark}, {method}: the prompts differ ({named})."] if len(of) > 1 else []
    return notes


def _labelled(label: str, name: str) -> str:
    return f"{label}: {name}" if label else name


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)
