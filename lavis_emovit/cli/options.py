"""Options that several commands have in common."""

from __future__ import annotations

from typing import Annotated

from typer import Option

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
