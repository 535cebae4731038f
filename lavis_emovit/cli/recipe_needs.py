"""What a recipe needs and whether it is on this machine: packages, datasets, weights, disk space for checkpoints."""

from __future__ import annotations

import shutil
from typing import Any, cast

from lavis_emovit.cli.findings import Finding
from lavis_emovit.datasets.needs import dataset_need
from lavis_emovit.datasets.settings import DatasetSettings
from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.paths import expand_home, output_root
from lavis_emovit.runners.config import Config, missing_packages


def checkpoint_bytes(cfg: Config, num_trained: int) -> int:
    """Disk space of a run's checkpoints: those that are kept, the best one, and the one that is being written. Each has
    the trained tensors, two moments and perhaps an average, all float32."""
    copies = 3 + (cfg.run.ema_decay is not None)
    return 4 * num_trained * copies * (cfg.run.keep_last + 2)


def recipe_needs(cfg: Config, num_trained: int) -> list[Finding]:
    """What the recipe needs, and whether it is here."""
    findings = [Finding("package", "warning", problem) for problem in missing_packages(cfg.run, cfg.model)]
    for name, settings in cfg.datasets.items():
        need = dataset_need(name, cast(DatasetSettings, settings))
        findings.append(Finding("dataset", "warning" if need.fix else "ok", f"{name}: {need.detail}", need.fix))
    return [*findings, _weights_finding(cfg), _disk_finding(cfg, checkpoint_bytes(cfg, num_trained))]


def images_of_epoch(cfg: Config) -> int | None:
    """Training images of an epoch by the recipe's datasets; None if one is not prepared and has no published number."""
    counts = [
        dataset_need(name, cast(DatasetSettings, settings)).num_images
        for name, settings in cfg.datasets.items()
        if cfg.run.trains_on(name)
    ]
    return None if None in counts else sum(filter(None, counts))


def _weights_finding(cfg: Config) -> Finding:
    from lavis.common.registry import registry

    settings: Any = cfg.model
    try:
        download = registry.get_model_class(settings.arch).check_weights(settings)
    except (ConfigError, WeightsError) as error:
        problem, *advice = str(error).splitlines()
        return Finding("weights", "warning", problem, "\n".join(advice) or None)
    return Finding("weights", "note" if download else "ok", download or f"{settings.arch}: on this machine")


def _disk_finding(cfg: Config, needed: int) -> Finding:
    folder = output_root() / expand_home(cfg.run.output_dir)
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    detail = f"checkpoints need {needed / 1e9:.1f} GB in {folder}, {free / 1e9:.1f} GB are free"
    fix = "free space, or set run.output_dir or run.keep_last"
    return Finding("disk", "ok", detail) if free > needed else Finding("disk", "warning", detail, fix)
