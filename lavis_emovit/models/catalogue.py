"""The declared models: every `lavis_configs/models/emovit/<name>.yaml` is a model under its name.

The key `family` of such a file names the package of the model's family, `lavis_emovit.models.<family>` or, with a dot,
a package elsewhere. A family's module `settings` has the class `ModelSettings`, its module `model` the class that
`MODEL_CLASS` names. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lavis_emovit.errors import ConfigError
from lavis_emovit.models.settings import BaseModelSettings
from lavis_emovit.paths import expand_home
from lavis_emovit.registered import model_files

DEFAULT_FAMILY = "instructblip"


@dataclass(frozen=True)
class DeclaredModel:
    """A model of the catalogue; its file is read on first use."""

    name: str
    path: Path

    @cached_property
    def content(self) -> dict[str, Any]:
        """The file as plain values; ConfigError if its `model:` node lacks the name as `arch` or a `model_type`."""
        content: Any = OmegaConf.to_container(OmegaConf.load(self.path), resolve=True)
        node = content.get("model") if isinstance(content, dict) else None
        if not isinstance(node, dict) or node.get("arch") != self.name or not node.get("model_type"):
            raise ConfigError([f"model: expected arch: {self.name} and a model_type"], str(self.path))
        return content

    @property
    def model_type(self) -> str:
        """The type that LAVIS knows the file by."""
        return self.content["model"]["model_type"]

    @property
    def family(self) -> str:
        """Package of the family."""
        family = str(self.content.get("family", DEFAULT_FAMILY))
        return family if "." in family else f"lavis_emovit.models.{family}"

    def settings_class(self) -> type[BaseModelSettings]:
        """Class of the `model:` node."""
        return self._of_family("settings").ModelSettings

    def model_class(self) -> Any:
        """Class of the family's models; imports torch."""
        return self._of_family("model").MODEL_CLASS

    def converter(self) -> Any:
        """Module `convert` of the family, with the functions `convert` and, except for the default family, `reads`."""
        return self._of_family("convert")

    def _of_family(self, module: str) -> Any:
        try:
            return import_module(f"{self.family}.{module}")
        except ModuleNotFoundError as error:
            if not f"{self.family}.{module}".startswith(str(error.name)):
                raise
            raise ConfigError([f"family: there is no package {self.family}"], str(self.path)) from None


def converter_of(source: str, base: str | None = None) -> Any:
    """The module that converts weights: of the family that the run's `config.yaml` names, or whose folder it is.

    Args:
        source: as `emovit convert` takes it.
        base: of trained tensors; it decides if there is no `config.yaml` of a run.
    """
    models, folder = declared_models(), expand_home(source)
    config = (folder if folder.is_dir() else folder.parent) / "config.yaml"
    if config.is_file():
        content: Any = OmegaConf.load(config)
        if (model := models.get((content.get("model") or {}).get("arch", ""))) is not None:
            return model.converter()
    families = {model.family: model for model in models.values() if find_spec(f"{model.family}.convert") is not None}
    default = families.pop(f"lavis_emovit.models.{DEFAULT_FAMILY}")
    converters = (model.converter() for model in families.values())
    return next((one for one in converters if one.reads(base or source)), None) or default.converter()


def declared_models() -> dict[str, DeclaredModel]:
    """Name -> model of every file of the catalogue."""
    return {name: DeclaredModel(name, path) for name, path in model_files().items()}
