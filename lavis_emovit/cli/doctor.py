"""`emovit doctor`: check this machine and print a fix for each problem."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata
from typing import Annotated

import typer
from typer import Argument, Option

from lavis_emovit.cli.findings import Finding, State
from lavis_emovit.errors import UserError
from lavis_emovit.paths import data_root, output_root
from lavis_emovit.plugin import LAVIS_LINE

app = typer.Typer(add_completion=False)
logger = logging.getLogger(__name__)

DISTRIBUTION = "lavis-emovit"
REINSTALL_FIX = f"pip install --force-reinstall --no-deps {DISTRIBUTION} (in a checkout: make setup)"
SHOWN_VERSIONS = ("torch", "torchvision", "transformers", "tokenizers", "timm", "numpy", "webdataset", "pydantic")
LOW_DISK_GB, FULL_DISK_GB = 5.0, 0.5


def run_checks() -> Iterator[Finding]:
    """All checks, fast ones first. The training step is skipped if an earlier check failed."""
    failed = False
    for name, check in CHECKS.items():
        if check is check_training_step and failed:
            yield Finding(name, "note", "skipped: fix the failed checks first")
            continue
        try:
            for finding in check():
                failed = failed or finding.state == "failed"
                yield finding
        except Exception as error:
            failed = True
            logger.debug("check %s", name, exc_info=True)
            detail = f"{type(error).__name__}: {error}"
            yield Finding(name, "failed", detail, "run `emovit doctor --debug` for the traceback")


def check_python() -> Iterator[Finding]:
    detail = f"{platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}"
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        yield Finding("python", "ok", detail)
    else:
        yield Finding("python", "failed", f"{detail}; 3.10 to 3.13 are supported", "use another Python")


def check_packages() -> Iterator[Finding]:
    """Requirements of this package and their installed versions."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        yield Finding("packages", "failed", f"{DISTRIBUTION} is not installed", f"pip install {DISTRIBUTION}")
        return
    wrong = []
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version_of(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append((f"{requirement.name} {version or 'missing'}", f"'{requirement.name}{requirement.specifier}'"))
    if wrong:
        detail = ", ".join(state for state, _ in wrong)
        yield Finding("packages", "failed", detail, f"pip install {' '.join(wanted for _, wanted in wrong)}")
    else:
        shown = ", ".join(f"{name} {_version_of(name)}" for name in SHOWN_VERSIONS)
        yield Finding("packages", "ok", f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}; {shown}")


def _version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def check_hook() -> Iterator[Finding]:
    """The start-up hook, which `python -m lavis.train` needs."""
    from lavis_emovit.plugin import bootstrap

    fallback = "python -m lavis_emovit.train works without it"
    if bootstrap.switched_off():
        yield Finding("hook", "warning", f"disabled by {bootstrap.SWITCH}; {fallback}", f"unset {bootstrap.SWITCH}")
    elif any(isinstance(finder, bootstrap.LavisFinder) for finder in sys.meta_path):
        yield Finding("hook", "ok", "active: python -m lavis.train and lavis.evaluate are available")
    else:
        yield Finding("hook", "warning", f"lavis_emovit.pth was not run at start-up; {fallback}", REINSTALL_FIX)


def check_lavis() -> Iterator[Finding]:
    """LAVIS, its compatibility changes, and its plugins."""
    version = _version_of("salesforce-lavis")
    from importlib.util import find_spec

    if find_spec("lavis") is None:
        yield Finding("lavis", "failed", "not installed", LAVIS_LINE)
        return
    from lavis_emovit.plugin import activate, compat, entry_points, families, loading, stand_ins

    try:
        activate()
    except ImportError as error:
        fix = f"pip install {error.name}" if isinstance(error, ModuleNotFoundError) and error.name else LAVIS_LINE
        yield Finding("lavis", "failed", f"cannot be imported: {error}", fix)
        return
    from lavis.common.registry import registry

    broken = loading.import_everything()
    shims = f"{len(compat.put_back)} removed names restored"
    missing = stand_ins.missing_packages()
    stood_in = f"; replaced by stand-ins: {', '.join(missing)} (EmoVIT needs none of them)" if missing else ""
    yield Finding(
        "lavis", "ok", f"{version or 'unknown version'}, {len(registry.list_models())} models, {shims}{stood_in}"
    )
    for module, fault in broken.items():
        is_ours = module.startswith("lavis_emovit.")
        fix = REINSTALL_FIX if is_ours else "nothing, unless you use this part of LAVIS"
        yield Finding("lavis", "failed" if is_ours else "warning", f"{module}: {type(fault).__name__}: {fault}", fix)
    for name, reason in families.limits().items():
        yield Finding("models", "note", f"{name}: {reason}")
    for failure in loading.failures:
        yield Finding("lavis", "failed", failure, REINSTALL_FIX)
    for name, reason in entry_points.broken.items():
        state: State = "failed" if name == entry_points.OUR_ENTRY_POINT.name else "warning"
        yield Finding(
            "plugins", state, f"{name}: {reason}", "repair or uninstall it" if state == "warning" else REINSTALL_FIX
        )
    if not entry_points.broken:
        yield Finding("plugins", "ok", ", ".join(entry_points.loaded))


def check_device() -> Iterator[Finding]:
    import psutil
    import torch

    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB memory, {os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(number)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: use run.precision=fp32"
            yield Finding("device", "ok", f"cuda:{number} {device.name}, {device.total_memory / 2**30:.0f} GiB, {bf16}")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "device",
            "warning",
            f"nvidia-smi is available, but torch {torch.__version__} finds no GPU; {memory}",
            "update the NVIDIA driver, or install a torch build for its CUDA version",
        )
    else:
        yield Finding("device", "ok", f"cpu, {memory}; enough for emovit_tiny, but the 7B models need a GPU")


def check_deepspeed() -> Iterator[Finding]:
    version = _version_of("deepspeed")
    missing = f"not installed; for run.engine=deepspeed: pip install '{DISTRIBUTION}[deepspeed]'"
    yield Finding("deepspeed", "ok" if version else "note", version or missing)


def check_disk() -> Iterator[Finding]:
    """Free space and write permission for data and output."""
    for purpose, root in (("output", output_root()), ("data", data_root())):
        place = next(folder for folder in (root, *root.parents) if folder.exists())
        free_gb = shutil.disk_usage(place).free / 1e9
        detail = f"{free_gb:.1f} GB free for {purpose} in {root}"
        fix = f"use another folder{' or set EMOVIT_DATA' if purpose == 'data' else ''}"
        if not os.access(place, os.W_OK):
            yield Finding("disk", "failed", f"{place} is not writable", fix)
        elif free_gb < LOW_DISK_GB:
            state: State = "failed" if free_gb < FULL_DISK_GB else "warning"
            yield Finding("disk", state, detail, f"free space, or {fix}")
        else:
            yield Finding("disk", "ok", detail)


def check_weights() -> Iterator[Finding]:
    """Models whose weights are available. Only the tiny one is required."""
    from lavis_emovit.models.catalogue import declared_models

    for name, model in sorted(declared_models().items()):
        settings = model.settings_class().model_validate(model.content["model"])
        found = model.model_class().find_weights(settings)
        if found.is_present:
            yield Finding("weights", "ok", f"{name}: {found.detail}")
        elif name == "emovit_tiny":
            yield Finding("weights", "failed", f"{name}: {found.detail}", REINSTALL_FIX)
        else:
            yield Finding("weights", "note", f"{name}: {found.detail} ({found.advice})")


def check_training_step() -> Iterator[Finding]:
    """One optimizer step of the tiny model on random images: trained tensors must change, frozen ones must not."""
    import time

    import torch
    from lavis.models import load_model

    begin = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model("emovit_tiny", is_eval=False, device=device)
    model.train()
    size_px = model.settings.image_size
    generator = torch.Generator().manual_seed(0)
    samples = {
        "image": torch.rand(2, 3, size_px, size_px, generator=generator).to(device),
        "text_input": ["Which emotion is it?"] * 2,
        "text_output": ["Predict emotion: awe"] * 2,
    }
    before = {name: tensor.clone() for name, tensor in model.trained_state_dict().items()}
    frozen = model.frozen_fingerprint()
    optimizer = torch.optim.AdamW([tensor for tensor in model.parameters() if tensor.requires_grad], lr=1e-3)
    loss = model(samples)["loss"]
    loss.backward()
    optimizer.step()
    moved = sum(not torch.equal(before[name], tensor) for name, tensor in model.trained_state_dict().items())
    detail = f"emovit_tiny on {device}: loss {loss.item():.3f}, {moved} of {len(before)} trained tensors changed"
    if not torch.isfinite(loss) or not moved:
        yield Finding("step", "failed", detail, REINSTALL_FIX)
    elif model.frozen_fingerprint() != frozen:
        yield Finding("step", "failed", f"{detail}; frozen weights changed", REINSTALL_FIX)
    else:
        yield Finding("step", "ok", f"{detail}, {time.perf_counter() - begin:.1f} s")


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "python": check_python,
    "packages": check_packages,
    "hook": check_hook,
    "lavis": check_lavis,
    "device": check_device,
    "deepspeed": check_deepspeed,
    "disk": check_disk,
    "weights": check_weights,
    "step": check_training_step,
}


@app.command()
def doctor(
    more: Annotated[list[str] | None, Argument(metavar="[KEY=VALUE]...", help="More overrides.", hidden=True)] = None,
    recipe: Annotated[
        str, Option(help="Check what this recipe of lavis.train needs, and estimate its memory and speed.")
    ] = "",
    options: Annotated[list[str] | None, Option(help="Overrides of the recipe, as for lavis.train.")] = None,
    gpu: Annotated[str, Option(help="Kind of GPU, such as h100, a100-40, l4, rtx4090.")] = "h100",
    gpus: Annotated[str, Option(help="Numbers of GPUs.")] = "1,4,8",
    question_tokens: Annotated[int | None, Option(min=2, help="Of each question; default: the recipe's limit.")] = None,
    answer_tokens: Annotated[int | None, Option(min=1, help="Of each answer; default: the recipe's limit.")] = None,
    pairs_per_image: Annotated[int, Option(min=1, help="Questions of each image.")] = 1,
    images: Annotated[int | None, Option(min=1, help="Training images; default: those of the datasets.")] = None,
    utilisation: Annotated[float, Option(min=0.01, max=1.0, help="Share of the peak; nobody measured it.")] = 0.35,
    as_json: Annotated[bool, Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Check this machine by a training step of the tiny model, or estimate a recipe's memory and speed.

    Checks versions, LAVIS, device, disk and weights, and exits with 1 if training cannot run. With --recipe, neither
    data nor weights are needed: what is missing is listed, and the exit code is 0.
    """
    if recipe:
        from lavis_emovit.cli.doctor_recipe import Assumptions, Request, report

        request = Request(
            parse_counts(gpus),
            question_tokens,
            answer_tokens,
            pairs_per_image,
            images,
            Assumptions(utilisation=utilisation),
        )
        result, lines = report(recipe, [*(options or []), *(more or [])], gpu, request)
        typer.echo(json.dumps(result, indent=2) if as_json else "\n".join(lines))
        return
    if more or options:
        raise UserError(f"{' '.join([*(options or []), *(more or [])])}: overrides need --recipe")
    findings = []
    for finding in run_checks():
        findings.append(finding)
        if not as_json:
            typer.echo(finding.as_lines())
    failed = [finding for finding in findings if finding.state == "failed"]
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}, indent=2))
    elif failed:
        typer.echo(
            f"\n{len(failed)} of {len(findings)} checks failed: {', '.join(finding.name for finding in failed)}."
        )
    else:
        typer.echo("\nTraining can run on this machine.")
    if failed:
        raise typer.Exit(1)


def parse_counts(text: str) -> tuple[int, ...]:
    """`1,4,8` as numbers; UserError for others."""
    counts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) for part in counts):
        raise UserError(f"--gpus: expected numbers of GPUs such as 1,4,8 (got '{text}')")
    return tuple(map(int, counts))
