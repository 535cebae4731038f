"""A suite: which models are asked about which benchmarks, and how. The node `suite` of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lavis_emovit.evaluation.adapters.chat_model import ChatModelSettings
from lavis_emovit.evaluation.adapters.clip import ClipSettings
from lavis_emovit.evaluation.adapters.colours import ColoursSettings
from lavis_emovit.evaluation.adapters.constant import ConstantSettings
from lavis_emovit.evaluation.adapters.transformers_model import TransformersModelSettings
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Method
from lavis_emovit.evaluation.judging import JudgeSettings
from lavis_emovit.settings import Settings


class LavisModelSettings(Settings):
    """`adapter: lavis`, a model of this plugin.

    Attributes:
        arch, model_type: as in a recipe's `model`.
        checkpoint: a checkpoint folder, or a run's folder for its best; null asks the untuned model.
        config: settings over the model's defaults, as a recipe has them below `model`.
        amp: precision of forward passes.
        device: `auto` takes the GPU where there is one.
    """

    adapter: Literal["lavis"]
    arch: str = Field(min_length=1)
    model_type: str | None = None
    checkpoint: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    amp: Literal["off", "bf16", "fp16"] = "off"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @field_validator("amp", mode="before")
    @classmethod
    def _amp_from_yaml(cls, value: Any) -> Any:
        # YAML reads a bare `off` as false.
        return {False: "off", True: "bf16"}.get(value, value) if isinstance(value, bool) else value


ModelEntry = Annotated[
    LavisModelSettings
    | TransformersModelSettings
    | ChatModelSettings
    | ConstantSettings
    | ClipSettings
    | ColoursSettings,
    Field(discriminator="adapter"),
]
BaselineSettings = (ConstantSettings, ClipSettings, ColoursSettings)


class SuiteSettings(Settings):
    """What to evaluate.

    Attributes:
        name: of the suite, for the report.
        output_dir: where everything goes; relative paths start at the working directory.
        models: name in the tables -> model; null leaves an entry out.
        benchmarks: name in the tables -> benchmark; null leaves an entry out.
        methods: how language models are asked. `likelihood` scores candidates by the mean log-probability of their
            tokens, `likelihood_sum` by the sum, `likelihood_calibrated` by the sum less that behind a blank picture;
            `generation` lets the model write and reads its words.
        batch_size: pictures of a batch, and questions that are put to a model at once.
        num_workers: processes that read and prepare pictures.
        missing: a benchmark whose data are not on this machine: `refuse` the suite, or `skip` it and say so.
        overwrite: delete predictions that were made with other settings, instead of refusing.
        ask_errors_again: ask again about the records that failed at an earlier start.
        num_pictures: of the report, for each model and benchmark.
        report: write report.html.
        cache_dir: where replies of endpoints at temperature 0 are kept between suites.
        judge: a chat model that scores explanations; null has none. Its scores are in no headline.
        num_threads: CPU threads of torch; null takes one for each usable core.
    """

    name: str = Field(min_length=1)
    output_dir: str = Field(min_length=1)
    models: dict[str, ModelEntry] = Field(min_length=1)
    benchmarks: dict[str, BenchmarkSettings] = Field(min_length=1)
    methods: tuple[Method, ...] = Field(default=("likelihood",), min_length=1)
    batch_size: int = Field(default=16, ge=1)
    num_workers: int = Field(default=0, ge=0)
    missing: Literal["refuse", "skip"] = "refuse"
    overwrite: bool = False
    ask_errors_again: bool = False
    num_pictures: int = Field(default=12, ge=0)
    report: bool = True
    cache_dir: str = "output/emovit/eval/cache"
    judge: JudgeSettings | None = None
    num_threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _renamed_keys(cls, values: Any) -> Any:
        """Suites written by version 0.1.0 use these names."""
        renamed = {"ways": "methods"}
        return {renamed.get(key, key): value for key, value in values.items()} if isinstance(values, dict) else values

    @field_validator("models", "benchmarks", mode="before")
    @classmethod
    def _null_leaves_out(cls, value: Any) -> Any:
        """A recipe's entry goes away with `suite.models.clip=null` on the command line."""
        return {name: entry for name, entry in value.items() if entry is not None} if isinstance(value, dict) else value

    @field_validator("models", "benchmarks")
    @classmethod
    def _names_are_file_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not name.strip(".") or any(not (character.isalnum() or character in "-_.") for character in name):
                raise ValueError(
                    f"'{name}' becomes a file's name: use letters, digits, '-', '_' and '.', not dots alone"
                )
        return value

    @model_validator(mode="after")
    def _methods_are_named_once(self) -> SuiteSettings:
        if len(set(self.methods)) != len(self.methods):
            raise ValueError("methods names the same one twice")
        if self.judge is not None and all(benchmark.kind != "explanation" for benchmark in self.benchmarks.values()):
            raise ValueError("judge has nothing to judge: no benchmark is of kind 'explanation'")
        return self
