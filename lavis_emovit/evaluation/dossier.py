"""The dossier of published numbers: what is known about each, the commands here, and what would not match.

`dossier.yaml` groups the numbers of `reference_results.json` by experiment; `emovit reproduce` and docs/reproduce.md
show it. It has no number of its own. Nothing is called reproduced that was not run.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, model_validator

from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.references import ReferenceResult, reference_results
from lavis_emovit.settings import Settings, nearest_name, valid_settings

_PACKAGED = Path(__file__).with_name("dossier.yaml")
UNKNOWN = "unknown"


class PublishedNumbers(Settings):
    """Some of the published results: those of these models, on these datasets (null: all)."""

    models: tuple[str, ...] = Field(min_length=1)
    datasets: tuple[str, ...] | None = None

    def results(self) -> list[ReferenceResult]:
        return [
            result
            for result in _confirmed_results()
            if result.model in self.models and (self.datasets is None or result.dataset in self.datasets)
        ]


def _confirmed_results() -> list[ReferenceResult]:
    return [result for result in reference_results().results if result.status != "from memory"]


class Experiment(Settings):
    """One experiment of a paper.

    Attributes:
        title: what was measured.
        published: its numbers; null: none are known.
        split, prompt, decoding: what is known of the protocol, or `unknown`.
        needs: data, weights and endpoints that the commands need.
        commands: from raw data to the table, in order; none if this package cannot do it.
        hardware: device, time and memory, estimated or measured.
        differs: what would not match the published number, and why.
        status: what was run here.
    """

    title: str = Field(min_length=1)
    published: PublishedNumbers | None = None
    split: str = UNKNOWN
    prompt: str = UNKNOWN
    decoding: str = UNKNOWN
    needs: str = Field(min_length=1)
    commands: tuple[str, ...] = ()
    hardware: str = UNKNOWN
    differs: tuple[str, ...] = ()
    status: str = Field(min_length=1)

    @property
    def results(self) -> list[ReferenceResult]:
        return self.published.results() if self.published is not None else []


class Dossier(Settings):
    experiments: dict[str, Experiment]

    @model_validator(mode="after")
    def _covers_every_result(self) -> Dossier:
        """A published result that no experiment has, or that two have, is a mistake in the file."""
        shown = [result for experiment in self.experiments.values() for result in experiment.results]
        for result in _confirmed_results():
            if (count := shown.count(result)) != 1:
                raise ValueError(f"{result.model} on {result.dataset} is in {count} experiments")
        for name, experiment in self.experiments.items():
            if experiment.published is not None and not experiment.results:
                raise ValueError(f"{name} names no published result")
        return self

    def find(self, name: str) -> Experiment:
        """The experiment of this name; UserError with the nearest name if there is none."""
        if name not in self.experiments:
            raise UserError(f"no experiment '{name}'{nearest_name(name, list(self.experiments))}")
        return self.experiments[name]


def load_dossier() -> Dossier:
    values = yaml.safe_load(_PACKAGED.read_text(encoding="utf-8"))
    return valid_settings(Dossier, values, "dossier", str(_PACKAGED))


def overview(dossier: Dossier) -> list[tuple[str, str, str, str]]:
    """For each experiment its name, title, number of published results in words, and status."""
    counts = {name: len(experiment.results) for name, experiment in dossier.experiments.items()}
    words = {
        name: f"{count} published number{'s' if count > 1 else ''}" if count else "no number is known"
        for name, count in counts.items()
    }
    return [(name, one.title, words[name], one.status) for name, one in dossier.experiments.items()]


def describe(name: str, experiment: Experiment) -> str:
    """One experiment as Markdown, which a terminal shows as it is."""
    references = reference_results()
    parts = [f"## {name}: {experiment.title}", ""]
    if experiment.results:
        parts += ["| model | dataset | metric | published | n | how well known |", "|---|---|---|---:|---:|---|"]
        parts += [_row(result) for result in experiment.results]
        parts += ["", *(f"Source: {references.sources[key]}." for key in _sources(experiment.results))]
        parts += [f"Caveat: {caveat}." for caveat in _caveats(experiment.results)]
    else:
        parts.append("No number is known.")
    parts += [
        "",
        f"- Split: {experiment.split}",
        f"- Prompt: {experiment.prompt}",
        f"- Decoding: {experiment.decoding}",
        f"- Needs: {experiment.needs}",
        f"- Hardware: {experiment.hardware}",
        *(f"- Will differ: {reason}" for reason in experiment.differs),
        f"- Status: {experiment.status}",
    ]
    if experiment.commands:
        parts += ["", "```bash", *experiment.commands, "```"]
    return "\n".join(parts) + "\n"


def _row(result: ReferenceResult) -> str:
    labels = f" ({result.num_labels} classes)" if result.num_labels is not None else ""
    n = f"{result.n:,}" if result.n is not None else "unknown"
    n += f" ({result.n_status})" if result.n_status not in (None, "quoted") else ""
    cells = [
        result.model,
        result.dataset + labels,
        result.metric.replace("_", " "),
        f"{100 * result.value:.2f} %",
        n,
        result.status,
    ]
    return f"| {' | '.join(cells)} |"


def _sources(results: list[ReferenceResult]) -> list[str]:
    return list(dict.fromkeys(result.source for result in results))


def _caveats(results: list[ReferenceResult]) -> list[str]:
    """Each caveat once, with the datasets that it is about if it is not about all results."""
    found: dict[str, list[str]] = {}
    for result in results:
        if result.caveat is not None:
            found.setdefault(result.caveat, []).append(result.dataset)
    return [
        text if len(datasets) == len(results) else f"{', '.join(dict.fromkeys(datasets))}: {text}"
        for text, datasets in found.items()
    ]
