"""The reinforcement learning of a run: curves of its rewards, and groups of answers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from lavis_emovit.evaluation.report import charts
from lavis_emovit.evaluation.report.folder import Folder
from lavis_emovit.evaluation.report.sections import Part, Section, text_part
from lavis_emovit.evaluation.report.table import Cell, Table, Values, finite, number, signed

_MAX_GROUPS = 6
_MAX_CHARACTERS = 1200  # of an answer


def reward_charts(folder: Folder, key: str) -> list[tuple[str, Markup]]:
    """The curve of each reward without its weight, and of their sum; none for other trainings."""
    names = [name for row in folder.steps[:1] for name in row if name == "reward" or name.startswith("reward.")]
    curves = []
    for name in names[: charts.MAX_CURVES]:
        pairs = [(row["step"], value) for row in folder.steps if (value := finite(row.get(name))) is not None]
        shown = "sum with weights" if name == "reward" else name.removeprefix("reward.")
        curves.append((shown, [step for step, _ in pairs], [value for _, value in pairs]))
    if not any(values for _, _, values in curves):
        return []
    title = "Rewards"
    return [(title, charts.overlaid_chart(f"{key}-rewards", title, curves, unit="mean over answers"))]


def groups_section(folder: Folder, key: str) -> list[Section]:
    """Groups of answers from the first to the last step that has one, evenly chosen."""
    logged = folder.groups
    count = min(len(logged), _MAX_GROUPS)
    chosen = [logged[place * (len(logged) - 1) // max(1, count - 1)] for place in range(count)]
    parts = [_group_part(group, f"{key}-answers-{place}") for place, group in enumerate(chosen, start=1)]
    if not parts:
        return []
    note = text_part("answers", key).note
    return [Section(f"{key}-answers", text_part("answers", key).heading, parts, note)]


def _group_part(group: Values, key: str) -> Part:
    answers: Sequence[dict[str, Any]] = group["answers"]
    names = list(answers[0]["rewards"])
    rows = []
    for answer in answers:
        text = answer["text"] or "(empty)"
        shown = text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]} ..."
        values = [answer["reward"], *(answer["rewards"][name] for name in names)]
        rows.append((shown, [*(Cell(number(value)) for value in values), Cell(signed(answer["advantage"]))]))
    label = f", labelled {group['label']}" if group.get("label") else ""
    caption = f"Step {group['step']}: {group['record_id']}{label}"
    table = Table(f"{key}-table", caption, "Answer", ("Reward", *names, "Advantage"), rows)
    return Part(key, f"Step {group['step']}", str(group["question"]), tables=[table])
