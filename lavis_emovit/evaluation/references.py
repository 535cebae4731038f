"""Figures of papers, to stand beside ours and never among them.

They stand in `reference_results.json` with where each comes from and how far it can be trusted. Other people's figures
come from other splits, prompts and parsers; the caveats say what is known of that.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from lavis_emovit.settings import Settings, read_settings_file

Status = Literal["quoted", "second hand", "from memory", "inferred"]

_PACKAGED = Path(__file__).with_name("reference_results.json")


class ReferenceResult(Settings):
    """One figure of a paper.

    Attributes:
        model: as the paper calls it.
        dataset: registered name of the dataset.
        num_labels: classes that were told apart, None where the metric has none.
        metric: `accuracy`, `weighted_f1` or `win_rate`.
        value: a share in [0, 1].
        n: samples (raters, for a win rate) that it is over, where known, and `n_status`, how that is known.
        source: a key of `sources`.
        status: `quoted` from the source itself; `second hand`, from somebody who quotes it; `inferred`, computed from
            what is quoted; `from memory`, unconfirmed.
        caveat: what to know before comparing.
    """

    model: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    num_labels: int | None = Field(default=None, ge=2)
    metric: Literal["accuracy", "weighted_f1", "win_rate"]
    value: float = Field(ge=0.0, le=1.0)
    n: int | None = Field(default=None, ge=1)
    n_status: Status | None = None
    source: str
    status: Status
    caveat: str | None = None

    @model_validator(mode="after")
    def _says_how_n_is_known(self) -> ReferenceResult:
        if (self.n is None) != (self.n_status is None):
            raise ValueError("'n' and 'n_status' go together")
        return self


class References(Settings):
    """All figures.

    Attributes:
        version: of the file.
        sources: key -> citation.
        results: in the order in which they are shown.
    """

    version: int
    sources: dict[str, str]
    results: tuple[ReferenceResult, ...]

    @model_validator(mode="after")
    def _every_source_is_cited(self) -> References:
        strays = sorted({result.source for result in self.results} - set(self.sources))
        if strays:
            raise ValueError(f"results cite {strays}, not in 'sources'")
        return self

    def of(
        self,
        dataset: str,
        num_labels: int | None = None,
        *,
        statuses: Collection[Status] = ("quoted", "second hand", "inferred"),
    ) -> list[ReferenceResult]:
        """The figures on a dataset.

        Args:
            dataset: its registered name.
            num_labels: only figures with so many classes; None for all.
            statuses: which are wanted; what is only remembered is left out unless asked for.
        """
        return [
            result
            for result in self.results
            if result.dataset == dataset
            and result.status in statuses
            and (num_labels is None or result.num_labels == num_labels)
        ]


def reference_rows(benchmark: str, dataset: str, num_labels: int | None = None) -> list[dict[str, Any]]:
    """The figures on a benchmark as plain values, for a table of their own beside ours.

    Args:
        benchmark: what the table calls it.
        dataset, num_labels: as in `References.of`.

    Returns:
        `model`, `benchmark`, `metric`, `value`, `n`, `status`, `source` (the whole citation) and `caveat` of each.
    """
    references = reference_results()
    return [
        {
            "model": result.model,
            "benchmark": benchmark,
            "metric": result.metric,
            "value": result.value,
            "n": result.n if result.n_status in (None, "quoted") else f"{result.n} ({result.n_status})",
            "status": result.status,
            "source": references.sources[result.source],
            "caveat": result.caveat,
        }
        for result in references.of(dataset, num_labels)
    ]


def reference_results(path: str | os.PathLike[str] | None = None) -> References:
    """Read the figures.

    Args:
        path: JSON file of the form of the packaged one, or None for that.

    Raises:
        ConfigError: it cannot be read or is not of that form; all problems are named.
    """
    return _packaged() if path is None else read_settings_file(References, Path(path), "references")


@cache
def _packaged() -> References:
    return read_settings_file(References, _PACKAGED, "references")
