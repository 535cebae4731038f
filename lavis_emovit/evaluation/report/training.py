"""The training of a run: curves from its log, and a few facts."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from markupsafe import Markup

from lavis_emovit.evaluation.benchmarks import Kind
from lavis_emovit.evaluation.metrics.registry import Headline, headline_of
from lavis_emovit.evaluation.report import charts
from lavis_emovit.evaluation.report.folder import Folder
from lavis_emovit.evaluation.report.sections import Fact, texts
from lavis_emovit.evaluation.report.table import finite


def training_charts(folder: Folder, key: str) -> list[tuple[str, Markup]]:
    """Title and chart of each curve that the log has; `key` starts the ids of the charts."""
    found: list[tuple[str, Markup]] = []
    steps, losses = _column(folder, "loss")
    if len(losses) < len(folder.steps):
        folder.notes.append(f"{len(folder.steps) - len(losses)} steps have no finite loss; the curve skips them.")
    if losses:
        spikes = [row["step"] for row in folder.steps if row.get("loss_spike")]
        title = "Training loss"
        unit = "loss" if folder.groups else "loss per answer token"
        found.append((title, charts.step_chart(f"{key}-loss", title, unit, steps, losses, spikes)))
    found += _validation_charts(folder, key)
    steps, rates = _column(folder, "lr")
    columns = dict.fromkeys(name for row in folder.steps for name in row if name.startswith("lr."))
    if columns:
        title, unit = "Learning rate of each part", "learning rate"
        curves = [(name.removeprefix("lr."), *_column(folder, name)) for name in columns][: charts.MAX_CURVES]
        found.append((title, charts.overlaid_chart(f"{key}-lr", title, curves, unit=unit, is_smoothed=False)))
    elif rates:
        title = "Learning rate"
        found.append((title, charts.step_chart(f"{key}-lr", title, "learning rate", steps, rates, is_smoothed=False)))
    found += _epoch_chart(key, "curriculum", "Curriculum", folder.epochs, "num_images", "images of an epoch")
    found += _epoch_chart(key, "dropped", "Dropped samples", folder.drops, "num_dropped", "samples no longer drawn")
    for name, (title, unit) in texts()["curves"].items():
        steps, values = _column(folder, name)
        if len(values) > 1:
            found.append((title, charts.step_chart(f"{key}-{name}", title, unit, steps, values)))
    return found


def overlaid_losses(folders: Sequence[Folder]) -> list[tuple[str, Markup]]:
    """The training losses of several runs in one chart, of the first `charts.MAX_CURVES`; none if fewer than two."""
    curves = [(folder.label, *_column(folder, "loss")) for folder in folders]
    curves = [curve for curve in curves if curve[1]][: charts.MAX_CURVES]
    title = "Training loss of the runs"
    return [(title, charts.overlaid_chart("runs-losses-chart", title, curves))] if len(curves) > 1 else []


def training_facts(folder: Folder) -> list[Fact]:
    """Single numbers of the whole training."""
    epochs, seconds, rates = (_column(folder, name)[1] for name in ("epoch", "step_s", "samples_per_s"))
    spikes, skipped = (sum(bool(row.get(name)) for row in folder.steps) for name in ("loss_spike", "skipped"))
    parameters, checkpoint = folder.result.get("parameters") or {}, str(folder.result.get("checkpoint") or "")
    counts = [_count(parameters[name]) for name in ("trained", "total") if name in parameters]
    found = {
        "Steps": f"{len(folder.steps):,}" if folder.steps else "",
        "Epochs": f"{max(epochs):g}" if epochs else "",
        "Time in training steps": _duration(sum(seconds)) if seconds else "",
        "Images a second": f"{statistics.median(rates):,.1f}" if rates else "",
        "Loss spikes": f"{spikes:,}" if spikes else "",
        "Steps skipped": f"{skipped:,}" if skipped else "",
        "Dropped samples": _dropped(folder.drops[-1]) if folder.drops else "",
        "Trained parameters": " of ".join(counts),
        "Evaluated weights": re.sub(r"^ckpt-0*(\d+)$", r"step \1", checkpoint),
    }
    return [Fact(name, value) for name, value in found.items() if value]


def _column(folder: Folder, name: str) -> tuple[list[int], list[float]]:
    """Steps that have a finite value, and the values."""
    pairs = [(row["step"], value) for row in folder.steps if (value := finite(row.get(name))) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _epoch_chart(
    key: str, name: str, title: str, rows: Sequence[dict[str, Any]], column: str, unit: str
) -> list[tuple[str, Markup]]:
    """A number of each dataset by epoch, at the first step of each; none for fewer than two epochs."""
    steps = [row["step"] for row in rows]
    datasets = dict.fromkeys(dataset for row in rows for dataset in row[column])
    if len(steps) < 2:
        return []
    curves = [(dataset, steps, [finite(row[column].get(dataset)) or 0.0 for row in rows]) for dataset in datasets]
    chart = charts.overlaid_chart(f"{key}-{name}", title, curves[: charts.MAX_CURVES], unit=unit, is_smoothed=False)
    return [(title, chart)]


def _dropped(row: Mapping[str, Any]) -> str:
    """Counts of the last epoch: `12 of 400 (learned 10, hopeless 2)`."""
    num_dropped, num_samples = (sum((row.get(name) or {}).values()) for name in ("num_dropped", "num_samples"))
    reasons = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in (row.get("reasons") or {}).items())
    return f"{num_dropped:,} of {num_samples:,} ({reasons})"


def _validation_charts(folder: Folder, key: str) -> list[tuple[str, Markup]]:
    """A chart for each validated split; the one that selects the best checkpoint comes first."""
    headlines = [one[1] for kind in get_args(Kind) if (one := headline_of(kind)) is not None]
    by_split: dict[str, tuple[Headline, list[dict[str, Any]]]] = {}
    for row in folder.evaluations:
        headline = next((one for one in headlines if finite(row["metrics"].get(one.field)) is not None), None)
        if row.get("stage") == "during" and headline is not None:
            by_split.setdefault(str(row.get("split")), (headline, []))[1].append(row)
    found = []
    for number, (split, (headline, rows)) in enumerate(by_split.items(), start=1):
        # Logs of other runners may not count epochs.
        x_label = "epoch" if all(finite(row.get("epoch")) is not None for row in rows) else "step"
        name = f"{key}-validation-{number}"
        chart = charts.validation_chart(name, x_label, headline.title, headline.field, rows)
        found.append(("Validation" if len(by_split) == 1 else f"Validation on {split}", chart))
    return found


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _count(count: Any) -> str:
    if count < 100_000:
        return f"{count:,}"
    return f"{count / 1e6:,.{2 if count < 1e8 else 0}f}\u00a0M"
