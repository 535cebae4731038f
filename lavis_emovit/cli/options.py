"""Options that several commands have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from lavis_emovit.errors import ConfigError

if TYPE_CHECKING:
    from lavis_emovit.distributed.engine import Engine

# A tuned model.
BaseOption = Annotated[
    str | None, Option(help="Folder or hub id of the weights that the model was tuned from, if they have moved.")
]
StepOption = Annotated[int | None, Option(help="Checkpoint of this step instead of the best one.")]
DeviceOption = Annotated[str, Option(help="auto, cpu, cuda or cuda:<number>.")]
AmpOption = Annotated[str, Option(help="off, bf16 or fp16.")]

# A page.
HostOption = Annotated[str, Option(help="Address to serve at; 0.0.0.0 lets others in the network in.")]
PortOption = Annotated[int | None, Option(min=1, max=65535, help="By default the first free one from 7860.")]

# Where many images are processed.
EngineName = Literal["process", "ray"]
EngineOption = Annotated[EngineName, Option(help="Work in this process, or on workers of Ray.")]
RayAddressOption = Annotated[
    str | None, Option(help="Ray cluster, auto or HOST:PORT; by default workers on this machine.")
]
RayWorkersOption = Annotated[
    int | None, Option(min=1, help="Workers of Ray; by default one for each CPU, or GPU with --device cuda.")
]


def open_engine(name: EngineName, address: str | None, num_workers: int | None, *, device: str = "cpu") -> Engine:
    """The engine of these options; ConfigError for options without effect."""
    if name == "ray":
        from lavis_emovit.distributed.on_ray import RayEngine

        return RayEngine(address, num_workers, needs_gpu=device.startswith("cuda"))
    from lavis_emovit.distributed.engine import ProcessEngine

    given = {"--ray-address": address, "--workers": num_workers}
    if problems := [f"{option} applies to --engine ray" for option, value in given.items() if value is not None]:
        raise ConfigError(problems, "the options")
    return ProcessEngine()
