"""The two files that `emovit init` writes: the YAML file of a dataset, and a recipe that trains on it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.files import atomic_writer, regular_file
from lavis_emovit.registered import CONFIG_NAME, SEARCH_FOLDER
from lavis_emovit.settings import nearest_name

if TYPE_CHECKING:
    from lavis_emovit.sources.proposals.proposal import Proposal

# In the first line of both files; `--overwrite` replaces only files with it.
MARK = "Written by `emovit init`"


@dataclass(frozen=True)
class NewFiles:
    recipe: Path
    dataset: Path

    @classmethod
    def at(cls, out: Path, name: str) -> NewFiles:
        return cls(out / f"{name}.yaml", out / SEARCH_FOLDER / name / CONFIG_NAME)


@dataclass(frozen=True)
class _Training:
    """Settings of a run that depend on the size of the model."""

    batch: int
    num_steps: int  # aimed at; a small set needs many epochs for it
    most_epochs: int
    init_lr: str
    lines: tuple[str, ...]  # more keys of `run`
    memory: str


# As projects/emovit/photos.yaml, measured on photographs.
_TINY = _Training(16, 500, 60, "3e-4", (), "2 GB")
# As projects/emovit/presets: InstructBLIP's rate for batches of this size; one forward pass holds two images.
_LARGE = _Training(
    16, 2000, 10, "1e-5", ("micro_batch_size: 2", "amp: bf16"), "a GPU of 40 GB or more (estimated, not measured)"
)
# As projects/emovit/llava/tune.yaml: adapters on the language model of an image-text model.
_ADAPTED = _Training(
    16, 2000, 3, "2e-4", ("micro_batch_size: 4", "amp: bf16"), "a GPU of 40 GB or more (estimated, not measured)"
)


def check_model(name: str) -> None:
    """ConfigError for a model that is not declared."""
    from lavis_emovit.models.catalogue import declared_models

    known = declared_models()
    if name not in known:
        raise ConfigError([f"no model '{name}'{nearest_name(name, list(known))}"], "--model")


def check_new_files(files: NewFiles, data: Path, *, overwrite: bool) -> None:
    """Refuse (DataError) to replace files, except with `overwrite` those that `emovit init` wrote."""
    folder = files.recipe.parent.resolve()
    if data.is_dir() and data.resolve() in (folder, *folder.parents):
        raise DataError(
            f"{folder}: is the folder of the images, or inside it; run the command elsewhere, or choose a folder for "
            "the new files with --out"
        )
    for path in (files.recipe, files.dataset):
        if not path.exists():
            continue
        if not overwrite:
            raise DataError(f"{path}: already exists; choose another --name or --out, or replace it with --overwrite")
        with regular_file(path).open(encoding="utf-8", errors="replace") as file:
            if MARK not in file.readline():
                raise DataError(
                    f"{path}: was not written by `emovit init`, and --overwrite replaces only such files; choose "
                    "another --name or --out"
                )


def write_new_files(texts: Mapping[Path, str]) -> None:
    for path, text in texts.items():
        with atomic_writer(path) as file:
            file.write(text)


def dataset_text(name: str, data: Path, proposal: Proposal, preparation: Mapping[str, Any], storage: str) -> str:
    """The YAML file of the dataset; for shards, `preparation` has the path of each split's index."""
    instructions: dict[str, Any] = {"categorical": {"wordings": [1], "option_order": "fixed"}}
    if proposal.kind == "valence_arousal":
        instructions = {"categorical": None, "affect": {"about": None}}
    annotations = {
        split: {"storage": f"${{...images.storage}}/{split}/index.json"} for split in ("train", "val", "test")
    }
    prepare: Any = {"root": str(proposal.root), **_plain(preparation), "instructions": instructions}
    if proposal.source == "shards":
        annotations, prepare = {split: {"storage": place} for split, place in preparation.items()}, None
    node = {
        "data_type": "images",
        "about": {
            "where_to_get": f"Your own data, in {data.resolve()}.",
            "licence": "As you decide.",
            "layout_status": "verified",
        },
        "build_info": {"annotations": annotations, "images": {"storage": storage}, "prepare": prepare},
        "vis_processor": {
            "train": {"name": "emovit_image_train", "image_size": 224, "min_scale": 0.7, "max_scale": 1.0},
            "eval": {"name": "emovit_image_eval", "image_size": 224},
        },
        "text_processor": {"train": {"name": "emovit_text"}, "eval": {"name": "emovit_text"}},
    }
    tree = yaml.safe_dump({"datasets": {name: node}}, sort_keys=False, allow_unicode=True, width=110)
    return f"""\
# The dataset {name}. {MARK}; docs/datasets.md explains every key.
# Needs:    the data in {proposal.root}.
#           If they move, change `root` below. After adding images, run `emovit init` again with --overwrite.
# Launch:   python -m lavis.train --cfg-path {name}.yaml
# Override: --options datasets.{name}.build_info.prepare.root=FOLDER
# Memory:   as much space on disk as the images; the shards are built on first use.

{tree}"""


def recipe_text(name: str, path: Path, proposal: Proposal, model: str, num_of: Mapping[str, int], seed: int) -> str:
    """The recipe, with a length that fits the number of training images."""
    from lavis_emovit.models.catalogue import declared_models

    is_tiny = model == "emovit_tiny"
    content = declared_models()[model].content["model"]
    # Models of other projects bring their own processor.
    reads_squares = "image_size" in content
    training = _TINY if is_tiny else _LARGE if reads_squares else _ADAPTED
    num_train = num_of.get("train", 0)
    batch = max(1, min(training.batch, num_train // 4))
    epoch_steps = math.ceil(num_train / batch)
    epochs = min(max(math.ceil(training.num_steps / epoch_steps), 2), training.most_epochs)
    steps = epochs * epoch_steps
    dataset, parts = f"  {name}: {{}}", ""
    if reads_squares:
        sizes = f"{{image_size: {content['image_size']}}}"
        dataset = f"  {name}:\n    vis_processor:\n      train: {sizes}\n      eval: {sizes}"
    if is_tiny:
        parts = "\n  # The tiny encoder was trained on drawings only, so it is tuned as well.\n  trained_parts: all"
    elif not reads_squares:
        place = "" if content["pretrained"] else "\n  path: MODEL                          # a folder or a hub id"
        parts = f"{place}\n  trained_parts: [projector]\n  lora: {{parts: [language_model], rank: 16, alpha: 32}}"
    needs = "nothing more" if is_tiny else f"the weights of {model} (docs/weights.md, docs/models.md)"
    splits = [split for split in ("val", "test") if num_of.get(split)]
    more = "".join(f"\n  {line}" for line in training.lines)
    return f"""\
# Tune {model} on {name}. {MARK}; docs/runs.md explains every key.
# Needs:    the data of {SEARCH_FOLDER}/{name}/{CONFIG_NAME} beside this file, and {needs}.
# Launch:   python -m lavis.train --cfg-path {shlex.quote(str(path))}
# Override: --options run.seed=1 run.output_dir=output/{name}_1
# Memory:   {training.memory}; {steps} steps of {batch} images.

model:
  arch: {model}{parts}

datasets:
{dataset}

run:
  runner: runner_emovit
  task: emotion_instruction
  output_dir: output/{name}              # report.html, metrics.json, checkpoints/ and logs; from the working directory
  seed: {seed}

  max_epoch: {epochs}                          # an epoch is {num_train} images
  global_batch_size: {batch}                  # images of an optimizer step{more}
  lr_sched: linear_warmup_cosine_lr
  init_lr: {training.init_lr}
  min_lr: 0
  warmup_lr: 1e-8
  warmup_steps: {max(1, steps // 10)}
  weight_decay: 0.05
  max_grad_norm: 1.0

  batch_size_eval: 32
{_evaluation(name, proposal, splits)}
  eval_every_epochs: {max(1, epochs // 10)}
  evaluate_before: {bool("test" in splits)}
  num_report_answers: 24
  keep_last: 1
"""


def _evaluation(name: str, proposal: Proposal, splits: list[str]) -> str:
    """The keys of `run` that say what is evaluated."""
    if proposal.kind == "emotion":
        chosen = {split: f"[{split}]" if split in splits else "[]" for split in ("val", "test")}
        return f"  valid_splits: {chosen['val']}\n  test_splits: {chosen['test']}"
    lines = ["  valid_splits: []", "  test_splits: []"]
    for key, split in (("valid_benchmarks", "val"), ("test_benchmarks", "test")):
        if split in splits:
            lines += [f"  {key}:", f"    {split}: {{dataset: {name}, kind: valence_arousal, split: {split}}}"]
    if "val" in splits:
        lines.append("  best_metric: mean_ccc")
    return "\n".join(lines)


def _plain(values: Any) -> Any:
    """Settings without tuples, which YAML has no word for."""
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in values.items()}
    return [_plain(value) for value in values] if isinstance(values, (list, tuple)) else values
