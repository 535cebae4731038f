"""Published results, to compare with ours, never mixed with them.

`reference_results.json` lists them with their source and how well each was checked. They use other splits, prompts and
parsers; the caveats name known differences.
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
    """One result from a paper.

    Attributes:
        model: its name in the paper.
        dataset: registered name of the dataset.
        num_labels: number of classes, None for metrics without classes.
        n: number of samples (raters, for a win rate), if known, and `n_status`, how it is known.
        source: a key of `sources`.
        status: `quoted` from the source itself; `second hand`, from a text that quotes it; `inferred`, computed from
            quoted numbers; `from memory`, unconfirmed.
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
    def _n_has_a_status(self) -> ReferenceResult:
        if (self.n is None) != (self.n_status is None):
            raise ValueError("'n' and 'n_status' go together")
        return self


class References(Settings):
    """All published results in the order of tables; `sources` has the citation of each key."""

    version: int
    sources: dict[str, str]
    results: tuple[ReferenceResult, ...]

    @model_validator(mode="after")
    def _every_source_is_cited(self) -> References:
        strays = sorted({result.source for result in self.results} - set(self.sources))
        if strays:
            raise ValueError(f"results cite {strays}, which are not in 'sources'")
        return self

    def of(
        self,
        dataset: str,
        num_labels: int | None = None,
        *,
        statuses: Collection[Status] = ("quoted", "second hand", "inferred"),
    ) -> list[ReferenceResult]:
        """The results on a dataset with as many labels (None: any); by default, unconfirmed ones are excluded."""
        return [
            result
            for result in self.results
            if result.dataset == dataset
            and result.status in statuses
            and (num_labels is None or result.num_labels == num_labels)
        ]


def reference_rows(
    benchmark: str, dataset: str, num_labels: int | None = None, num_images: int | None = None
) -> list[dict[str, Any]]:
    """The published results on a benchmark as plain values, for a table; `source` is the full citation.

    `n_here` is `num_images`, on which the benchmark measures, and `n_differs` whether the published number is another
    one (a win rate counts raters, not images).
    """
    references = reference_results()
    return [
        {
            "model": result.model,
            "benchmark": benchmark,
            "metric": result.metric,
            "value": result.value,
            "n": result.n if result.n_status in (None, "quoted") else f"{result.n} ({result.n_status})",
            "n_here": num_images,
            "n_differs": None not in (result.n, num_images) and result.n != num_images and result.metric != "win_rate",
            "status": result.status,
            "source": references.sources[result.source],
            "caveat": result.caveat,
        }
        for result in references.of(dataset, num_labels)
    ]


def reference_results(path: str | os.PathLike[str] | None = None) -> References:
    """The published results of the package (None), or of your own JSON file. ConfigError lists all its problems."""
    return _packaged() if path is None else read_settings_file(References, Path(path), "references")


@cache
def _packaged() -> References:
    return read_settings_file(References, _PACKAGED, "references")
