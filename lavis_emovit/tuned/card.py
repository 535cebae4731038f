"""The card of a tuned model: what it is, what it was trained on and how well it does, from the files of its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_emovit.checkpoints.tuned_files import TunedFiles
from lavis_emovit.evaluation.report.render import markdown_text
from lavis_emovit.evaluation.written import RunMetrics, interval_of
from lavis_emovit.own_files import read_own_if_any

METRICS_FILE = "metrics.json"
WARNING = (
    "What a person feels cannot be read off an image. This model says which label people would probably give to an "
    "image like those of its training data, in the culture and time of the people who labelled them. Do not use it to "
    "judge, select or watch people, and not where a wrong answer harms somebody."
)


def model_card(tuned: TunedFiles) -> str:
    """The card as Markdown."""
    return "\n".join(_lines(tuned)) + "\n"


def _lines(tuned: TunedFiles) -> Iterator[str]:
    model, questions = tuned.model, tuned.questions.get("questions", ())
    data = ", ".join(tuned.datasets) or "emotion data"
    yield f"# {markdown_text(model.get('arch', 'model'))}, tuned on {markdown_text(data)}"
    yield ""
    base = Path(tuned.base).name if Path(tuned.base).is_absolute() else tuned.base or "unknown"
    yield f"- Weights under it: {markdown_text(base)}. Their licence still applies."
    yield f"- Trained parts: {markdown_text(', '.join(_parts(model)))}"
    yield f"- sha256 of the trained weights: {tuned.weights_sha256}"
    if tuned.checkpoint is not None:
        manifest = tuned.checkpoint[1]
        versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
        yield f"- Step {manifest.step}, sha256 of the index of its training data: {manifest.index_hash}"
        yield f"- Written by {markdown_text(versions)}"
    for question in questions:
        labels = f", labels {markdown_text(question['label_set'])}" if question.get("label_set") else ""
        kind = f"{markdown_text(question['kind'])}{labels}"
        yield f"- Asked for: {kind}, about the {question['subject']}, by {question['method']}"
    yield from _results(tuned)
    yield ""
    yield "## Use"
    yield ""
    yield WARNING
    yield ""
    yield "```python"
    yield "import lavis_emovit"
    yield ""
    yield 'tuned = lavis_emovit.load_tuned("this file or folder")'
    yield "```"


def _parts(model: Mapping[str, Any]) -> list[str]:
    parts = model.get("trained_parts", ())
    found = [parts] if isinstance(parts, str) else list(parts)
    return [*found, *(["adapters (LoRA)"] if model.get("lora") else [])]


def _results(tuned: TunedFiles) -> Iterator[str]:
    """A table of the run's metrics after tuning, if they are of this checkpoint."""
    path = tuned.folder / METRICS_FILE
    found = read_own_if_any(path, RunMetrics, "Delete it and start the run again, which evaluates its weights.")
    if found is None:
        return
    is_of_it = tuned.checkpoint is not None and found.checkpoint == tuned.checkpoint[0].name
    splits = {name: stages for name, stages in found.splits.items() if "after" in stages}
    rows = [row for name, stages in splits.items() for row in _rows(name, stages)]
    if not is_of_it or not rows:
        return
    yield ""
    yield "## Results"
    yield ""
    yield "| benchmark | images | number | before tuning | after tuning | 95 % interval |"
    yield "|---|---:|---|---:|---:|---|"
    yield from rows


def _rows(name: str, stages: Mapping[str, Any]) -> Iterator[str]:
    numbers, earlier = stages["after"], stages.get("before", {})
    for key, value in numbers.items():
        interval = interval_of(numbers.get(f"{key}_interval"))
        if not isinstance(value, float) or interval is None:
            continue
        low, high = interval
        first = f"{earlier[key]:.3f}" if isinstance(earlier.get(key), float) else ""
        what = f"{markdown_text(name)} | {numbers.get('num_samples', '')} | {markdown_text(key)}"
        yield f"| {what} | {first} | {value:.3f} | {low:.3f} to {high:.3f} |"
