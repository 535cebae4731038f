"""What the report shows of written answers: how they were read, what the published rule reads, and explanations."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_emovit.evaluation.report.grid import NOTHING, Grid, GridCell, number_cell, share_cell
from lavis_emovit.evaluation.report.parts import Part, Result, name_of


def written_parts(results: Sequence[Result], key: str) -> list[Part | None]:
    """The parts about written answers; None for what was not measured."""
    return [_status_part(results, key), _explanations_part(results, key)]


def _status_part(results: Sequence[Result], key: str) -> Part | None:
    written = [result for result in results if result["metrics"]["classification"]["statuses"]]
    if not written:
        return None
    counts = {name_of(result): result["metrics"]["classification"]["statuses"] for result in written}
    statuses = list(dict.fromkeys(["ok", *(status for of_model in counts.values() for status in of_model)]))
    rows = []
    for name, of_model in counts.items():
        total = sum(of_model.values())
        cells = [
            share_cell(of_model.get(status, 0) / total, detail=str(of_model.get(status, 0))) for status in statuses
        ]
        rows.append((name, cells))
    grids = [Grid(f"{key}-status-grid", "Written answers by how they were read", "Model", statuses, rows)]
    original = [
        (name_of(result), result["metrics"]["original"]) for result in written if "original" in result["metrics"]
    ]
    if original:
        columns = ["Accuracy as published", "Dropped answers", "Accuracy, dropped ones wrong"]
        rows = [
            (
                name,
                [share_cell(one["accuracy"]), GridCell(str(one["num_dropped"])), share_cell(one["accuracy_of_all"])],
            )
            for name, one in original
        ]
        caption = "The same answers by the published rule, for comparison with published figures only"
        grids.append(Grid(f"{key}-original-grid", caption, "Model", columns, rows))
    note = (
        "Written answers are read strictly: what is not ok names no single label of the set and counts as wrong. The "
        "published rule takes the first label in the order of its list that the text contains anywhere, and drops "
        "answers without one."
    )
    return Part(f"{key}-status", "How answers were read", note, grids)


def _explanations_part(results: Sequence[Result], key: str) -> Part | None:
    explained = [result for result in results if result["metrics"].get("explanations")]
    if not explained:
        return None
    rows = []
    for result in explained:
        one = result["metrics"]["explanations"]
        grounding = share_cell(one["grounding"], one["grounding_interval"])
        if grounding is not NOTHING:
            detail = f"{grounding.detail}; {one['num_with_facts']} with facts"
            grounding = GridCell(grounding.text, detail, grounding.share, grounding.low, grounding.high)
        cells = [
            share_cell(one["consistency"], one["consistency_interval"]),
            share_cell(one["contradiction"]),
            grounding,
            GridCell(str(one["num_without_reason"]), f"of {one['num_samples']}"),
            number_cell(one["num_words"], decimals=1),
            number_cell(one["num_sentences"], decimals=1),
            *(share_cell(one[name]) for name in ("repetition", "english", "finished")),
        ]
        rows.append((name_of(result), cells))
    columns = ["True emotion", "Contradicts itself", "Facts mentioned", "Without a reason", "Words", "Sentences"]
    columns += ["Repeated", "English", "Finished"]
    note = (
        "Surface measures: the emotion that an explanation names, whether its reason claims one of the other polarity, "
        "which share of the record's known attributes it mentions, and its form. None of them tells if it is good."
    )
    grid = Grid(f"{key}-explanations-grid", "Explanations, with 95 % intervals", "Model", columns, rows)
    judged = _judge_grid(explained, key)
    return Part(f"{key}-explanations", "Explanations", note, [grid, judged] if judged is not None else [grid])


def _judge_grid(explained: Sequence[Result], key: str) -> Grid | None:
    judged = [(name_of(result), result["judge"]) for result in explained if result.get("judge")]
    if not judged:
        return None
    rows = []
    for name, one in judged:
        counts = {int(score): count for score, count in one["counts"].items()}
        cells = [number_cell(one["mean"], one["interval"], 2), GridCell(str(one["num_judged"]))]
        cells += [GridCell(str(one["num_unusable"])), *(GridCell(str(counts.get(score, 0))) for score in range(1, 6))]
        rows.append((name, cells))
    columns = ["Mean score", "Judged", "Unusable replies", *(f"Score {score}" for score in range(1, 6))]
    who = ", ".join(dict.fromkeys(f"{one['judge']} by the prompt {one['prompt']}" for _, one in judged))
    caption = f"Scores from 1 to 5 of a judge, which is a model itself: {who}"
    return Grid(f"{key}-judge-grid", caption, "Model", columns, rows)
