"""What the report shows of one benchmark of a suite: tables, charts, confusion matrices and pictures, from its figures.

Only what was measured becomes a part of the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows, group_key, result_name
from lavis_emovit.evaluation.report.grid import NOTHING, Grid, number_cell
from lavis_emovit.evaluation.report.label_parts import label_parts
from lavis_emovit.evaluation.report.number_parts import affect_parts, unit_parts
from lavis_emovit.evaluation.report.parts import Part, Result, name_of
from lavis_emovit.evaluation.report.pictures import SuitePicture, suite_pictures
from lavis_emovit.evaluation.report.suite_contents import SuiteContents

MAX_ERRORS = 10
KINDS = {
    "emotion": "one emotion out of a set",
    "valence_arousal": "valence and arousal",
    "action_units": "facial action units",
    "explanation": "the emotion, and why",
    "caption": "a funny caption",
}
"""Kinds of benchmarks, in words."""


@dataclass(frozen=True)
class BenchmarkView:
    """All that the page shows of one benchmark."""

    key: str
    name: str
    lede: str
    parts: list[Part]
    pictures: list[SuitePicture]
    pictures_note: str
    errors: list[tuple[str, str, str]]
    num_errors: int
    problems: list[str] = field(default_factory=list)


def benchmark_view(suite: SuiteContents, asked: BenchmarkRows, key: str) -> BenchmarkView:
    """Everything about one benchmark; `key` starts the ids of its parts in the page."""
    figures = suite.summary["benchmarks"][asked.name]
    results = [result for result in figures["results"] if "metrics" in result]
    by_kind = {"valence_arousal": affect_parts, "action_units": unit_parts}
    make = by_kind.get(asked.settings.kind, label_parts if asked.label_set is not None else _no_parts)
    failed = [(result_name(*asking), row) for asking, rows in asked.rows.items() for row in rows if row.error]
    pictures = suite_pictures(suite.path, asked, suite.settings.num_pictures)
    return BenchmarkView(
        key=key,
        name=asked.name,
        lede=_lede(asked),
        parts=[part for part in [*make(asked, results, key), _other_part(results, key)] if part is not None],
        pictures=pictures,
        pictures_note=_pictures_note(asked, suite.settings.num_pictures, pictures),
        errors=[(name, row.record_id, str(row.error)) for name, row in failed[:MAX_ERRORS]],
        num_errors=len(failed),
        problems=[f"{name_of(result)}: {result['problem']}" for result in figures["results"] if "problem" in result],
    )


def _lede(asked: BenchmarkRows) -> str:
    settings = asked.settings
    rows = next(iter(asked.rows.values()))
    num_records = len({row.record_id for row in rows})
    parts = [f"{settings.dataset}, split {settings.split}: {num_records:,} pictures, asked for {KINDS[settings.kind]}"]
    if asked.label_set is not None:
        parts.append(f"{len(asked.label_set.labels)} labels ({', '.join(asked.label_set.labels)})")
    if len(settings.variants) > 1:
        parts.append(f"{len(settings.variants)} variants of the question, of which the tables show the first")
    if settings.limit is not None:
        parts.append(f"only the first {settings.limit:,} records of the shuffled split")
    grouping = group_key(asked.plain(next(iter(asked.rows))))
    if grouping is not None:
        num_groups = len({(row.slices or {})[grouping] for row in rows})
        parts.append(f"intervals draw whole persons or sessions ({num_groups:,} of them), not single pictures")
    return "; ".join(parts) + "."


def _pictures_note(asked: BenchmarkRows, num_pictures: int, pictures: Sequence[SuitePicture]) -> str:
    kind = asked.settings.kind
    which = {
        "emotion": "The mistakes of which each model was surest; of written answers, which say nothing about how sure "
        "the model was, the first wrong ones.",
        "explanation": "The first pictures whose emotion was missed.",
        "valence_arousal": "The pictures on which each model was farthest from the truth.",
        "action_units": "The pictures with most wrong decisions.",
    }.get(kind, "The first pictures.")
    note = f"{which} Up to {num_pictures} for each model; below each picture what all models said about it."
    if not any(picture.data_url for picture in pictures):
        note += " Their small copies are missing, so only the answers are shown; the suite writes them when it ends."
    return note


def _no_parts(asked: BenchmarkRows, results: Sequence[Result], key: str) -> list[Part | None]:
    return []


# What has a part of its own; everything else that a benchmark measures comes into one last table.
_SHOWN = {
    "classification",
    "levels",
    "soft_labels",
    "slices",
    "variants",
    "affect",
    "action_units",
    "original",
    "explanations",
}


def _other_part(results: Sequence[Result], key: str) -> Part | None:
    columns: dict[str, None] = {}
    found = []
    for result in results:
        numbers = {
            name: value
            for group, values in result["metrics"].items()
            if group not in _SHOWN
            for name, value in _numbers(group, values)
        }
        columns |= dict.fromkeys(numbers)
        found.append((name_of(result), numbers))
    if not columns:
        return None
    rows = [
        (name, [number_cell(numbers[column]) if column in numbers else NOTHING for column in columns])
        for name, numbers in found
    ]
    grid = Grid(
        f"{key}-other-grid", "What has no part of its own", "Model", [name.replace("_", " ") for name in columns], rows
    )
    return Part(f"{key}-other", "Other figures", "", [grid])


def _numbers(name: str, value: Any) -> list[tuple[str, float]]:
    """The numbers in a value, by the names on the way to them."""
    if isinstance(value, Mapping):
        return [found for inner, one in value.items() for found in _numbers(f"{name}: {inner}", one)]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [(name, float(value))] if is_number else []
