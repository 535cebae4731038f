"""The training of a run: curves from its log, and a few facts."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from lavis_emovit.evaluation.report import charts
from lavis_emovit.evaluation.report.folder import Folder, finite
from lavis_emovit.evaluation.report.sections import Fact, texts

# The headline of a validation, the first that its metrics have -> title of the axis, whether it is a share.
_HEADLINES = {"accuracy": ("accuracy", True), "mean_ccc": ("mean CCC", False), "mean_f1": ("mean F1", True)}


def training_charts(folder: Folder, key: str) -> list[tuple[str, Markup]]:
    """Title and chart of each curve that the log has; `key` starts the ids of the charts."""
    found: list[tuple[str, Markup]] = []
    steps, losses = _column(folder, "loss")
    if len(losses) < len(folder.steps):
        folder.notes.append(f"{len(folder.steps) - len(losses)} steps have no finite loss; the curve skips them.")
    if losses:
        spikes = [row["step"] for row in folder.steps if row.get("loss_spike")]
        title = "Training loss"
        found.append((title, charts.step_chart(f"{key}-loss", title, "loss per answer token", steps, losses, spikes)))
    found += _validation_charts(folder, key)
    steps, rates = _column(folder, "lr")
    if rates:
        title = "Learning rate"
        found.append((title, charts.step_chart(f"{key}-lr", title, "learning rate", steps, rates, is_smoothed=False)))
    for name, (title, unit) in texts()["curves"].items():
        steps, values = _column(folder, name)
        if len(values) > 1:
            found.append((title, charts.step_chart(f"{key}-{name}", title, unit, steps, values)))
    return found


def training_facts(folder: Folder) -> list[Fact]:
    """Single numbers of the whole training."""
    facts: list[Fact] = []
    if folder.steps:
        facts.append(Fact("Steps", f"{len(folder.steps):,}"))
        _, epochs = _column(folder, "epoch")
        if epochs:
            facts.append(Fact("Epochs", f"{max(epochs):g}"))
        _, seconds = _column(folder, "step_s")
        if seconds:
            facts.append(Fact("Time in training steps", _duration(sum(seconds))))
        _, rates = _column(folder, "samples_per_s")
        if rates:
            facts.append(Fact("Images a second", f"{statistics.median(rates):,.1f}"))
        for name, title in (("loss_spike", "Loss spikes"), ("skipped", "Steps skipped")):
            count = sum(bool(row.get(name)) for row in folder.steps)
            if count:
                facts.append(Fact(title, f"{count:,}"))
    parameters = folder.result.get("parameters")
    if isinstance(parameters, Mapping) and {"trained", "total"} <= parameters.keys():
        facts.append(Fact("Trained parameters", f"{_count(parameters['trained'])} of {_count(parameters['total'])}"))
    if folder.result.get("checkpoint"):
        name = str(folder.result["checkpoint"])
        step = re.fullmatch(r"ckpt-0*(\d+)", name)
        facts.append(Fact("Evaluated weights", f"step {int(step[1]):,}" if step else name))
    return facts


def _column(folder: Folder, name: str) -> tuple[list[int], list[float]]:
    """Steps that have a finite value, and the values."""
    pairs = [(row["step"], value) for row in folder.steps if (value := finite(row.get(name))) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _validation_charts(folder: Folder, key: str) -> list[tuple[str, Markup]]:
    """A chart for each validated split; the one that selects the best checkpoint comes first."""
    by_split: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in folder.evaluations:
        metric = next((name for name in _HEADLINES if finite(row["metrics"].get(name)) is not None), None)
        if row.get("stage") == "during" and metric is not None:
            by_split.setdefault((str(row.get("split")), metric), []).append(row)
    found = []
    for number, ((split, metric), rows) in enumerate(by_split.items(), start=1):
        # Logs of other runners may not count epochs.
        x_label = "epoch" if all(finite(row.get("epoch")) is not None for row in rows) else "step"
        metrics = [row["metrics"] for row in rows]
        title, is_share = _HEADLINES[metric]
        chart = charts.validation_chart(
            f"{key}-validation-{number}",
            x_label,
            [float(row[x_label]) for row in rows],
            title,
            [float(values[metric]) for values in metrics],
            [_interval(values.get(f"{metric}_interval")) for values in metrics],
            macro_f1=[finite(values.get("macro_f1")) for values in metrics],
            chance=finite(metrics[-1].get("chance")),
            is_share=is_share,
        )
        found.append(("Validation" if len(by_split) == 1 else f"Validation on {split}", chart))
    return found


def _interval(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, Mapping):
        return None
    low, high = finite(value.get("low")), finite(value.get("high"))
    return None if low is None or high is None else (low, high)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _count(count: Any) -> str:
    if count < 100_000:
        return f"{count:,}"
    return f"{count / 1e6:,.{2 if count < 1e8 else 0}f}\u00a0M"
