"""One rank that loads a model as training with ZeRO stage 3 does, and the memory and weights that it ends with."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from small import settings

from lavis_emovit.distributed import processes
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.models.mapped_files import casts_later
from lavis_emovit.runners.engines import build_engine, spreads_weights
from lavis_emovit.tasks.base import EmotionTask
from lavis_emovit.tasks.settings import TaskSettings


class Task(EmotionTask):
    settings_class = TaskSettings


def memory(key: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


def load_and_spread(out: Path, config: Path, folder: Path, precision: str) -> None:
    processes.start(processes.read_launch(), device=torch.device("cpu"), timeout_s=60)
    import deepspeed

    model_settings = ModelSettings(arch="emovit_test", pretrained=str(folder), frozen_precision=precision)
    run = settings(engine="deepspeed", deepspeed_config=str(config))
    assert spreads_weights(run) and not spreads_weights(settings())
    facts = {}
    init = deepspeed.zero.Init

    def measured_init(*arguments, **named):
        made = init(*arguments, **named)
        facts["peak"] = memory("VmHWM") - before
        return made

    deepspeed.zero.Init = measured_init
    EmoVIT.from_settings(model_settings)  # imports what loading needs
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    with casts_later():
        model = EmoVIT.from_settings(model_settings)
    engine = build_engine(model, Task(), run)
    named = dict(model.core.named_parameters())
    sizes = [parameter.ds_numel * parameter.element_size() for parameter in named.values()]
    facts |= {"weights": sum(sizes), "largest": max(sizes)}
    plain = EmoVIT.from_settings(model_settings)
    facts["different"] = []
    for name, parameter in named.items():
        with deepspeed.zero.GatheredParameters([parameter]):
            other = plain.core.get_parameter(name)
            if parameter.dtype != other.dtype or not torch.equal(parameter, other):
                facts["different"].append(name)
    (out / f"facts{processes.rank()}.json").write_text(json.dumps(facts))
    engine.close()
    processes.stop()
