"""Where a tuned model is: a run's folder, a checkpoint, an exported folder, or an archive of `emovit pack`."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from pydantic import Field

from lavis_emovit.checkpoints.checkpoint import (
    CheckpointError,
    CheckpointFacts,
    Manifest,
    checkpoint_name,
    save_checkpoint,
)
from lavis_emovit.checkpoints.finding import find_trained
from lavis_emovit.checkpoints.training_state import CONFIG_FILE, MODEL_FILE, QUESTIONS_FILE
from lavis_emovit.errors import UserError, WeightsError
from lavis_emovit.files import atomic_folder, atomic_path, file_sha256, regular_file, write_json
from lavis_emovit.own_files import Written, read_own, read_own_if_any
from lavis_emovit.paths import ARCHIVE_SUFFIX, EXPORT_FILE, MANIFEST_NAME, cache_root, expand_home, list_checkpoints
from lavis_emovit.settings import written_values

# Settings of a model that name weights beside `pretrained`, or add some; an exported folder has them all.
_OTHER_WEIGHTS = frozenset(
    ("lora", "adapter", "load_finetuned", "finetuned", "llm_model", "qformer_tokenizer", "vision_weights", "revision")
)
CALIBRATION_FILE = "calibration.json"
CARD_FILE = "README.md"
_IN_ARCHIVES = frozenset({MANIFEST_NAME, CONFIG_FILE, MODEL_FILE, QUESTIONS_FILE, CALIBRATION_FILE, CARD_FILE})


@dataclass(frozen=True)
class TunedFiles:
    """A tuned model on the disk.

    Attributes:
        location: as it was named.
        folder: where what belongs to the model is kept, such as its calibration.
        model, datasets: the settings of these nodes of its recipe; an exported folder has no datasets.
        questions: content of `questions.json`; empty if an earlier version wrote the run.
        checkpoint: folder and manifest of the trained weights; None: the settings name complete weights.
        base: the weights that it was tuned from: as its run named them, or where they are now.
        weights_sha256: identifies the weights.
    """

    location: Path
    folder: Path
    model: Mapping[str, Any]
    datasets: Mapping[str, Any]
    questions: Mapping[str, Any]
    checkpoint: tuple[Path, Manifest] | None
    weights_sha256: str
    base: str


def find_tuned(location: str | Path, step: int | None = None, base: str | None = None) -> TunedFiles:
    """The tuned model at a location.

    Args:
        location: the folder of a run, a checkpoint in it, a folder that `emovit convert` wrote from one of these, or an
            archive of `emovit pack`.
        step: of a run, the checkpoint of this step; None: the best one, or the newest if nothing was validated.
        base: where the weights that it was tuned from are now; None: where its run had them.

    Raises:
        UserError: there is no such model, it is damaged, or it has complete weights although a base is given.
    """
    given = expand_home(location)
    path = _unpacked(given) if given.suffix == ARCHIVE_SUFFIX and not given.is_dir() else given
    if (path / EXPORT_FILE).exists():
        if base is not None:
            raise UserError(f"{given}: an exported folder has complete weights; omit the base '{base}'")
        return _exported(given)
    if step is not None and not (path / "checkpoints" / checkpoint_name(step) / MANIFEST_NAME).is_file():
        steps = ", ".join(one.name for one in list_checkpoints(path / "checkpoints")) or "no checkpoint"
        raise CheckpointError(f"{given}: has no checkpoint of step {step}, it has {steps}")
    checkpoint = find_trained(path if step is None else path / "checkpoints" / checkpoint_name(step))
    found, manifest = checkpoint
    config = _settings_in(found / CONFIG_FILE)
    questions = _questions_in(found / QUESTIONS_FILE)
    sha256 = manifest.files[MODEL_FILE]["sha256"]
    # The weights that training began with are replaced by those of the checkpoint, so they need not be there any more.
    model = dict(config["model"])
    if _begins_from_trained(model):
        model |= {"load_finetuned": False, "finetuned": None}
    if base is not None:
        questions, model = processors_at(questions, base_of(model), base), with_base(model, base)
    return TunedFiles(given, path, model, config.get("datasets") or {}, questions, checkpoint, sha256, base_of(model))


def base_of(model: Mapping[str, Any]) -> str:
    """The weights that the settings of a model name; the family of image-text models has `path` before `pretrained`."""
    return str(model.get("path") or model.get("pretrained") or "")


def with_base(model: Mapping[str, Any], base: str) -> dict[str, Any]:
    """The settings of a model with other weights."""
    return {**model, "path" if model.get("path") else "pretrained": base}


@contextmanager
def weights_under(tuned: TunedFiles) -> Iterator[None]:
    """Let errors about the weights that a model was tuned from say how to pass the place where they are now."""
    try:
        yield
    except WeightsError as error:
        if tuned.checkpoint is None:
            raise
        raise WeightsError(
            f"{error}\n{tuned.location} was tuned from these weights. If they have moved, pass their place: --base "
            "PLACE on the command line, `base` of a model in a suite, or load_tuned(..., base=PLACE)."
        ) from error


def processors_at(questions: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """The content of `questions.json` with processors that are read where the weights are now."""
    moved = dict(questions)
    for name in ("image_processor", "text_processor"):
        if values := moved.get(name):
            moved[name] = {key: new if old and value == old else value for key, value in values.items()}
    return moved


def _begins_from_trained(model: Mapping[str, Any]) -> bool:
    """Whether a model loads trained tensors of a run first; a file of the original code also has other tensors."""
    suffix = Path(str(model.get("finetuned"))).suffix.lower()
    return bool(model.get("load_finetuned")) and suffix in ("", ".safetensors")


def write_export_file(folder: Path, tuned: TunedFiles) -> None:
    """Let `find_tuned` find a folder with the complete weights of a tuned model."""
    model = {name: value for name, value in tuned.model.items() if name not in _OTHER_WEIGHTS}
    content = {"model": model, "questions": tuned.questions, "weights_sha256": tuned.weights_sha256}
    write_json(folder / EXPORT_FILE, content)


def pack(tuned: TunedFiles, target: Path, card: str) -> None:
    """Write an archive with trained weights, settings and questions; the weights under them stay outside.

    Raises:
        UserError: the model has no checkpoint, or the target exists or has another suffix.
    """
    if tuned.checkpoint is None:
        raise UserError(f"{tuned.location}: an exported folder is complete already; pack the run that it comes from")
    if target.suffix != ARCHIVE_SUFFIX:
        raise UserError(f"{target}: the name of an archive ends with {ARCHIVE_SUFFIX}")
    if target.exists():
        raise UserError(f"{target} exists; choose another name, or delete it")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder, atomic_path(target) as temporary:
            copied = copy_checkpoint(tuned, Path(folder))
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                for path in sorted(copied.iterdir()):
                    archive.write(path, path.name)
                archive.writestr(CARD_FILE, card)
    except CheckpointError as error:
        # It names the copy of the checkpoint, which is gone by now.
        if not isinstance(error.__cause__, OSError):
            raise
        raise UserError(f"{target}: cannot be written ({error.__cause__.strerror}); no part of it remains") from error


def copy_checkpoint(tuned: TunedFiles, root: Path) -> Path:
    """A new folder in `root` with what others need of the checkpoint of a tuned model, and with its calibration."""
    assert tuned.checkpoint is not None
    source, manifest = tuned.checkpoint
    names = [name for name in (CONFIG_FILE, QUESTIONS_FILE, MODEL_FILE) if (source / name).is_file()]
    writers: dict[str, Callable[[Path], Any]] = {name: partial(shutil.copyfile, source / name) for name in names}
    if base_of(_settings_in(source / CONFIG_FILE)["model"]) != tuned.base:
        writers[CONFIG_FILE] = partial(_write_moved, source / CONFIG_FILE, tuned.base)
        if QUESTIONS_FILE in writers:
            writers[QUESTIONS_FILE] = partial(write_json, content=tuned.questions)
    if (tuned.folder / CALIBRATION_FILE).is_file():
        writers[CALIBRATION_FILE] = partial(shutil.copyfile, tuned.folder / CALIBRATION_FILE)
    facts = CheckpointFacts(
        manifest.index_hash, manifest.config_hash, manifest.frozen_fingerprint, dict(manifest.versions)
    )
    return save_checkpoint(root, facts, step=manifest.step, epoch=manifest.epoch, writers=writers)


def _write_moved(source: Path, base: str, target: Path) -> None:
    """The settings of a run with other weights; variables of the environment stay variables."""
    text = source.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    comments = "".join(f"{line}\n" for line in text.splitlines() if line.startswith("#"))
    changed = {**values, "model": with_base(values["model"], base)}
    target.write_text(comments + yaml.safe_dump(changed, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _unpacked(archive: Path) -> Path:
    """The folder of an archive's content in the cache, made on first use."""
    if not archive.is_file():
        raise UserError(f"{archive}: no such archive")
    folder = cache_root() / "archives" / file_sha256(archive)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Two commands that load a new archive at once would both unpack it.
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not (folder / MANIFEST_NAME).is_file():
            _unpack(archive, folder)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file, atomic_folder(folder) as temporary:
            names = file.namelist()
            if strange := sorted(set(names) - _IN_ARCHIVES):
                raise UserError(f"{archive}: has '{strange[0]}', which no archive of `emovit pack` has")
            if repeated := [name for name in set(names) if names.count(name) > 1]:
                raise UserError(f"{archive}: has '{repeated[0]}' twice")
            for name in names:
                with file.open(name) as source, (temporary / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
            if MANIFEST_NAME not in names:
                raise UserError(f"{archive}: has no {MANIFEST_NAME}, so it is not an archive of `emovit pack`")
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive}: damaged, or not an archive of `emovit pack`: {error}") from None


def _exported(folder: Path) -> TunedFiles:
    stored = read_own(folder / EXPORT_FILE, _Exported, "Run `emovit convert` again.")
    base, place = base_of(stored.model), str(folder.resolve())
    model, questions = (
        with_base(stored.model, place),
        processors_at(stored.questions.model_dump(exclude_unset=True), base, place),
    )
    return TunedFiles(folder, folder, model, {}, questions, None, stored.weights_sha256, base)


class _Questions(Written):
    """The file `questions.json`; its keys are checked where the questions are asked."""

    questions: list[dict[str, Any]] = Field(default_factory=list)
    image_processor: dict[str, Any] | None = None
    text_processor: dict[str, Any] | None = None


class _Exported(Written):
    """The file `emovit.json`."""

    model: dict[str, Any]
    questions: _Questions
    weights_sha256: str


def _questions_in(path: Path) -> dict[str, Any]:
    found = read_own_if_any(path, _Questions, "Restore it from a copy, or use another checkpoint.")
    return {} if found is None else found.model_dump(exclude_unset=True)


def _settings_in(path: Path) -> dict[str, Any]:
    """The settings of the run that wrote a checkpoint."""
    try:
        values = written_values(regular_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise UserError(f"{path}: damaged: these are not the settings of a run")
    return values
