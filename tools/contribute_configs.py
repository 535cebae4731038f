"""Copy our configs into a LAVIS source tree, and check that LAVIS's own config code loads each of them there.

    python tools/contribute_configs.py --lavis ../LAVIS

The tree must contain `lavis/configs`. Existing files with other content are replaced only with `--force`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lavis_emovit.errors import DataError, UserError
from lavis_emovit.paths import config_root

CHECK_TIMEOUT_S = 600


def main(argv: Sequence[str] | None = None) -> int:
    """Copy and check. The exit code is 0, or 2 after a user error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--lavis", type=Path, required=True, metavar="DIR", help="LAVIS source tree, with lavis/configs"
    )
    parser.add_argument("--force", action="store_true", help="replace existing files with other content")
    parser.add_argument("--check-only", action="store_true", help="check the files in the tree, copy nothing")
    arguments = parser.parse_args(argv)
    tree = arguments.lavis.expanduser().resolve()
    try:
        if arguments.check_only:
            for line in check(tree):
                print(line)
            return 0
        for line in copy(config_root(), tree, force=arguments.force):
            print(line)
        return check_in_own_process(tree)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def copy(source: Path, tree: Path, *, force: bool = False) -> list[str]:
    """Copy every YAML file below `source` to the same relative path below `tree/lavis/configs`.

    Returns:
        one line per file: added, replaced or unchanged.

    Raises:
        DataError: `tree` is not a LAVIS tree, or a file exists with other content and `force` is False. Nothing is
            copied in these cases.
    """
    target = tree / "lavis" / "configs"
    if not target.is_dir():
        raise DataError(f"{tree}: not a LAVIS source tree; the folder lavis/configs is missing")
    copies = {path: target / path.relative_to(source) for path in _files_for_lavis(source)}
    states = {path: _copy_state(path, copy) for path, copy in copies.items()}
    differing = [str(copies[path]) for path, state in states.items() if state == "replaced"]
    if differing and not force:
        raise DataError(f"{', '.join(differing)}: exists with other content; use --force to replace it")
    for path, copy in copies.items():
        if states[path] != "unchanged":
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return [f"{states[path]:<10}{copy.relative_to(tree)}" for path, copy in copies.items()]


def _files_for_lavis(source: Path) -> list[Path]:
    """The files of models and datasets; LAVIS knows no rewards."""
    return sorted(path for path in source.rglob("*.yaml") if path.relative_to(source).parts[0] != "rewards")


def _copy_state(path: Path, copy: Path) -> str:
    if not copy.exists():
        return "added"
    return "unchanged" if copy.read_bytes() == path.read_bytes() else "replaced"


def check_in_own_process(tree: Path) -> int:
    """Check in a new process that imports LAVIS from the tree instead of the installed package."""
    command = [sys.executable, str(Path(__file__).resolve()), "--check-only", "--lavis", str(tree)]
    path = os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, timeout=CHECK_TIMEOUT_S, check=False)
    return done.returncode


def check(tree: Path) -> Iterator[str]:
    """Load each of our files from the tree with LAVIS's config code.

    Yields:
        one line per loaded file.

    Raises:
        DataError: LAVIS was not imported from the tree, or a file does not load.
    """
    from lavis_emovit.plugin import activate

    activate()
    import lavis

    if Path(lavis.__file__).resolve().parent != tree / "lavis":
        raise DataError(
            f"{tree}: LAVIS was imported from {Path(lavis.__file__).parent} instead; run without --check-only"
        )
    for path in _files_for_lavis(config_root()):
        name = Path("configs") / path.relative_to(config_root())
        if not (tree / "lavis" / name).is_file():
            raise DataError(f"{tree / 'lavis' / name}: missing")
        try:
            description = check_model(name) if name.parts[1] == "models" else check_dataset(name)
        except Exception as error:
            raise DataError(
                f"{tree / 'lavis' / name}: LAVIS cannot load it: {type(error).__name__}: {error}"
            ) from error
        yield f"loads     lavis/{name}: {description}"


def check_model(name: Path) -> str:
    """Load a model config as LAVIS's `Config` does for a run, and build its processors.

    Args:
        name: path of the file relative to LAVIS's package folder, as in the model classes of LAVIS.
    """
    from lavis.common.registry import registry
    from lavis.models import load_preprocess
    from omegaconf import OmegaConf

    node = OmegaConf.load(Path(registry.get_path("library_root")) / name)
    model_class = registry.get_model_class(node.model.arch)
    model_class.PRETRAINED_MODEL_CONFIG_DICT = {node.model.model_type: str(name)}
    config = _lavis_config({"model": {"arch": node.model.arch, "model_type": node.model.model_type}, "datasets": {}})
    if config.model_cfg != node.model:
        raise ValueError("the settings loaded by LAVIS differ from the file")
    load_preprocess(node.preprocess)
    return f"model {node.model.arch}, type {node.model.model_type}"


def check_dataset(name: Path) -> str:
    """Load a dataset config as LAVIS's `Config` and builders do, and build its processors."""
    from lavis.common.registry import registry
    from lavis.datasets.builders import load_dataset_config
    from omegaconf import OmegaConf

    path = Path(registry.get_path("library_root")) / name
    (dataset,) = OmegaConf.load(path).datasets
    builder_class = registry.get_builder_class(dataset)
    builder_class.DATASET_CONFIG_DICT = {"default": str(name)}
    model = next(iter(sorted(config_root().glob("models/*/*.yaml"))))
    arch = OmegaConf.load(model).model
    config = _lavis_config({"model": {"arch": arch.arch, "model_type": arch.model_type}, "datasets": {dataset: {}}})
    node = load_dataset_config(str(path))
    if config.datasets_cfg[dataset] != node:
        raise ValueError("the settings loaded by LAVIS differ from the file")
    for kind in ("vis_processor", "text_processor"):
        for processor in node.get(kind, {}).values():
            registry.get_processor_class(processor.name).from_config(processor)
    return f"dataset {dataset}"


def _lavis_config(recipe: dict[str, Any]) -> Any:
    """A recipe as parsed by LAVIS."""
    from lavis.common.config import Config
    from omegaconf import OmegaConf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        OmegaConf.save(OmegaConf.create({"run": {}, **recipe}), path)
        return Config(SimpleNamespace(cfg_path=str(path), options=None))


if __name__ == "__main__":
    raise SystemExit(main())
