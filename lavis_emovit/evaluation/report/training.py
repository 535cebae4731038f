"""What the report shows of training: curves out of the log, and a few facts."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from lavis_emovit.evaluation.report import charts
from lavis_emovit.evaluation.report.run_contents import RunContents, finite

# Fields of the log -> heading of the chart, unit of the axis; shares have no unit.
_MEASURES = (
    ("grad_norm", "Gradient norm", "norm before clipping"),
    ("samples_per_s", "Throughput", "images a second"),
    ("tokens_per_s", "Throughput in tokens", "tokens a second"),
    ("padding_share", "Padding", ""),
    ("mfu", "Model FLOPs utilisation", ""),
    ("gpu_memory_gib", "GPU memory", "GiB, most of a rank"),
    ("memory_gib", "Host memory", "GiB, most of a rank"),
)


def training_charts(run: RunContents, key: str) -> list[tuple[str, Markup]]:
    """(heading, chart) of the curves that the log has."""
    found: list[tuple[str, Markup]] = []
    losses = _measured(run, "loss")
    if len(losses) < len(run.steps):
        run.notes.append(f"{len(run.steps) - len(losses)} steps have no finite loss; they are not in the curve.")
    if losses:
        spikes = [row["step"] for row in run.steps if row.get("loss_spike")]
        found.append(("Training loss", charts.loss_chart(f"{key}-loss", *_columns(losses), spikes)))
    found += _validation_charts(run, key)
    rates = _measured(run, "lr")
    if rates:
        found.append(("Learning rate", charts.learning_rate_chart(f"{key}-rate", *_columns(rates))))
    for name, heading, y_label in _MEASURES:
        values = _measured(run, name)
        if len(values) > 1:
            is_share = not y_label
            chart = charts.step_chart(
                f"{key}-{name}", *_columns(values), y_label=y_label, name=heading, is_share=is_share
            )
            found.append((heading, chart))
    return found


def _measured(run: RunContents, name: str) -> list[tuple[int, float]]:
    """(step, value) of the steps that have a finite one."""
    return [(row["step"], value) for row in run.steps if (value := finite(row.get(name))) is not None]


def _columns(pairs: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in pairs], [value for _, value in pairs]


def _validation_charts(run: RunContents, key: str) -> list[tuple[str, Markup]]:
    """A chart for each validated split; that which chose the best checkpoint comes first."""
    by_split: dict[str, list[dict[str, Any]]] = {}
    for row in run.evaluations:
        if row.get("stage") == "during" and finite(row["metrics"].get("accuracy")) is not None:
            by_split.setdefault(str(row.get("split")), []).append(row)
    found = []
    for number, (split, rows) in enumerate(by_split.items(), start=1):
        # Logs of others may not count epochs.
        x_label = "epoch" if all(finite(row.get("epoch")) is not None for row in rows) else "step"
        metrics = [row["metrics"] for row in rows]
        chart = charts.validation_chart(
            f"{key}-validation-{number}",
            [float(row[x_label]) for row in rows],
            [float(values["accuracy"]) for values in metrics],
            [_interval(values.get("accuracy_interval")) for values in metrics],
            [finite(values.get("macro_f1")) for values in metrics],
            finite(metrics[-1].get("chance")),
            x_label=x_label,
        )
        found.append(("Validation" if len(by_split) == 1 else f"Validation on {split}", chart))
    return found


def _interval(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, Mapping):
        return None
    low, high = finite(value.get("low")), finite(value.get("high"))
    return None if low is None or high is None else (low, high)


def training_facts(run: RunContents) -> list[tuple[str, str]]:
    """(name, value) of what is told of the training as a whole."""
    facts: list[tuple[str, str]] = []
    if run.steps:
        facts.append(("Steps", f"{len(run.steps):,}"))
        epochs = [epoch for row in run.steps if (epoch := finite(row.get("epoch"))) is not None]
        if epochs:
            facts.append(("Epochs", f"{max(epochs):g}"))
        seconds = [s for row in run.steps if (s := finite(row.get("step_s"))) is not None]
        if seconds:
            facts.append(("Time in training steps", _duration(sum(seconds))))
        rates = [rate for row in run.steps if (rate := finite(row.get("samples_per_s"))) is not None]
        if rates:
            facts.append(("Images a second", f"{statistics.median(rates):,.1f}"))
        for name, label in (("loss_spike", "Losses out of line"), ("skipped", "Steps skipped")):
            count = sum(bool(row.get(name)) for row in run.steps)
            if count:
                facts.append((label, f"{count:,}"))
    parameters = run.summary.get("parameters")
    if isinstance(parameters, Mapping) and {"trained", "total"} <= parameters.keys():
        facts.append(("Parameters that learn", f"{_count(parameters['trained'])} of {_count(parameters['total'])}"))
    if run.summary.get("checkpoint"):
        name = str(run.summary["checkpoint"])
        step = re.fullmatch(r"ckpt-0*(\d+)", name)
        facts.append(("Weights evaluated", f"step {int(step[1]):,}" if step else name))
    return facts


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
