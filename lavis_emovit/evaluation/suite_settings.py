"""A suite: which models are evaluated on which benchmarks, and how. The node `suite` of a recipe."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from lavis_emovit.evaluation.adapters.base import adapters
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Method, check_file_names, without_nulls
from lavis_emovit.evaluation.judging import JudgeSettings
from lavis_emovit.settings import EachOnce, Origins, Settings, nearest_name

if TYPE_CHECKING:
    ModelEntry = Any
else:
    _entry_classes = tuple({adapter.settings: None for adapter in adapters().values()})
    ModelEntry = Annotated[Union[_entry_classes], Field(discriminator="adapter")]  # noqa: UP007 (made at run time)

EntryT = TypeVar("EntryT")
# Name in tables and file names -> entry; null removes an entry.
Entries = Annotated[
    dict[str, EntryT], Field(min_length=1), BeforeValidator(without_nulls), AfterValidator(check_file_names)
]

GROUPED_KINDS = ("emotion", "explanation", "choice", "statement")
"""Kinds whose answers are right or wrong, so that their accuracies have a mean."""

PROBE = "probe"
"""Name of the probe that every suite with an image encoder has."""

# Keys of version 0.1.0 -> their names now.
_RENAMED = {"ways": "methods", "ask_errors_again": "retry_errors", "num_pictures": "num_images"}


class SuiteSettings(Settings):
    """What to evaluate.

    Attributes:
        output_dir: folder of the results; relative paths start at the working directory.
        methods: scoring methods of language models. `likelihood` scores candidates by the mean log-probability of their
            tokens, `likelihood_sum` by the sum, `likelihood_calibrated` by the sum minus that for a blank image;
            `generation` reads written answers.
        launcher: what starts the training of models with `train`, for example `torchrun --standalone
            --nproc_per_node=8`; null: one process of this Python.
        batch_size: images of a batch, and questions that a model gets at once.
        num_workers: processes that read and prepare images.
        missing: what to do if the data of a benchmark are not available: `refuse` the suite, or `skip` the benchmark
            and report it.
        overwrite: delete predictions that were made with other settings, instead of refusing.
        retry_errors: evaluate again the records that failed in an earlier run of the suite.
        num_images: images in the report, for each model and benchmark.
        cache_dir: where suites share replies of endpoints at temperature 0.
        judge: a chat model that scores explanations, or null. No headline depends on its scores.
        num_threads: CPU threads of torch; null: one for each usable core.
        gains: model -> the model that its gain is over, such as a tuned one and the same before tuning; the report has
            a table of these paired differences.
        groups: name -> benchmarks whose accuracies are summarised together, as the mean over them and over all their
            rows, such as the three groups of VECBench.
        probe: add the model `probe`, a linear probe on the frozen image encoder of the first model that has one, unless
            `models` has a probe (or `probe: false`). What a model adds to its encoder is its lead over this row.
    """

    name: str = Field(min_length=1)
    output_dir: str = Field(min_length=1)
    models: Entries[ModelEntry]
    benchmarks: Entries[BenchmarkSettings]
    methods: Annotated[tuple[Method, ...], EachOnce] = Field(default=("likelihood",), min_length=1)
    launcher: str | None = Field(default=None, min_length=1)
    batch_size: int = Field(default=16, ge=1)
    num_workers: int = Field(default=0, ge=0)
    missing: Literal["refuse", "skip"] = "refuse"
    overwrite: bool = False
    retry_errors: bool = False
    num_images: int = Field(default=12, ge=0)
    report: bool = True
    cache_dir: str = "output/emovit/eval/cache"
    judge: JudgeSettings | None = None
    num_threads: int | None = Field(default=None, ge=1)
    gains: dict[str, str] = Field(default={})
    groups: dict[str, tuple[str, ...]] = Field(default={})
    probe: bool = True
    _origins: Origins = PrivateAttr(default_factory=dict)

    @property
    def origins(self) -> Origins:
        """The values that come from environment variables, by their path in the recipe."""
        return self._origins

    @model_validator(mode="before")
    @classmethod
    def _renamed_keys(cls, values: Any) -> Any:
        return {_RENAMED.get(key, key): value for key, value in values.items()} if isinstance(values, dict) else values

    @model_validator(mode="before")
    @classmethod
    def _with_probe(cls, values: Any) -> Any:
        models = values.get("models") if isinstance(values, dict) else None
        if not isinstance(models, dict) or values.get("probe", True) is not True or PROBE in models:
            return values
        entries = [entry for entry in models.values() if isinstance(entry, dict)]
        if any(entry.get("adapter") == "probe" for entry in entries):
            return values
        entry = probe_entry(entries)
        return values if entry is None else {**values, "models": {**models, PROBE: entry}}

    @model_validator(mode="after")
    def _check_together(self) -> SuiteSettings:
        unknown = sorted({name for pair in self.gains.items() for name in pair} - set(self.models))
        if unknown:
            raise ValueError(f"gains: no model {', '.join(unknown)}{nearest_name(unknown[0], list(self.models))}")
        if same := [model for model, other in self.gains.items() if model == other]:
            raise ValueError(f"gains.{same[0]}: a model has no gain over itself; name the model before tuning")
        for name, members in self.groups.items():
            if strays := sorted(set(members) - set(self.benchmarks)):
                known = nearest_name(strays[0], list(self.benchmarks))
                raise ValueError(f"groups.{name}: no benchmark {strays[0]}{known}")
            if len(set(members)) < max(2, len(members)):
                raise ValueError(f"groups.{name}: name two or more different benchmarks")
            if others := [one for one in members if self.benchmarks[one].kind not in GROUPED_KINDS]:
                raise ValueError(
                    f"groups.{name}: '{others[0]}' has no accuracy; groups are of benchmarks that have one"
                )
        if self.judge is not None and all(benchmark.kind != "explanation" for benchmark in self.benchmarks.values()):
            raise ValueError("judge has nothing to judge: no benchmark is of kind 'explanation'")
        return self


def probe_entry(entries: Collection[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The probe on the image encoder of the first model of this plugin, or else of CLIP; None without either."""
    # Without the checkpoint: the probe takes the weights as published.
    for entry in entries:
        if entry.get("adapter") == "lavis" and "arch" in entry:
            copied = {key: entry[key] for key in ("arch", "model_type", "config", "device") if key in entry}
            return {"adapter": "probe", **copied}
    for entry in entries:
        if entry.get("adapter") in ("clip", "clip_probe"):
            return {"adapter": "probe", **{key: entry[key] for key in ("path", "device") if key in entry}}
    return None
