"""Lets `load_model` and `load_model_and_preprocess` be called without `model_type`, or with a tuned model as
`model_type`, and checks their `device`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from lavis_emovit.errors import UserError
from lavis_emovit.paths import is_tuned
from lavis_emovit.settings import nearest_name

FUNCTIONS = ("load_model", "load_model_and_preprocess")


def make_optional(models: ModuleType) -> None:
    """Wrap LAVIS's two loading functions, in `lavis.models` (the argument) and in `lavis`, which star-imports them."""
    for name in FUNCTIONS:
        function = getattr(models, name)
        if getattr(function, "model_type_is_optional", False):
            continue
        wrapped = _with_optional_type(function)
        for module in (models, sys.modules["lavis"]):
            if vars(module).get(name) is function:
                setattr(module, name, wrapped)


def _with_optional_type(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def load(name: str, model_type: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if (tuned := _tuned(name, model_type, args, kwargs)) is not None:
            both = function.__name__ == "load_model_and_preprocess"
            return (tuned.model, tuned.vis_processors, tuned.txt_processors) if both else tuned.model
        model_type = resolve_model_type(name, model_type)
        # Before the weights are loaded: (is_eval, device, ...) follow in both functions.
        _check_device(kwargs.get("device", (*args, None, None)[1]))
        return function(name, model_type, *args, **kwargs)

    load.model_type_is_optional = True  # type: ignore[attr-defined]
    return load


def _tuned(name: str, model_type: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The tuned model that `model_type` locates, None if it is a type of the model `name`; UserError if it is a model
    of another name."""
    if model_type is None or not is_tuned(model_type):
        return None
    from lavis.common.registry import registry

    model_class = registry.get_model_class(name)
    if model_class is None or model_type in getattr(model_class, "PRETRAINED_MODEL_CONFIG_DICT", {}):
        return None
    from lavis_emovit.checkpoints.tuned_files import find_tuned

    found = find_tuned(model_type).model.get("arch")
    if found != name:
        raise UserError(f"{model_type} is a tuned '{found}', not '{name}'; name it as the model")
    from lavis_emovit.tuned.loading import load_tuned

    is_eval, device = (*args, *(False, "cpu")[len(args) :])[:2]
    tuned = load_tuned(model_type, device=str(kwargs.get("device", device)))
    tuned.model.train(not kwargs.get("is_eval", is_eval))
    return tuned


def _check_device(device: Any) -> None:
    """UserError if a device, such as `cuda` or `cuda:1`, is a GPU that torch does not see."""
    kind, _, number = str(device).partition(":")
    if kind != "cuda":
        return
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= found:
        raise UserError(f"device '{device}' is not available, torch sees {found} GPUs; use device='cpu'")


def resolve_model_type(name: str, model_type: str | None) -> str:
    """The given type, or the default type of the model class, `DEFAULT_MODEL_TYPE`.

    ValueError if no model of that name is registered, TypeError, as in LAVIS, if the class has no default type.
    """
    from lavis.common.registry import registry

    model_class = registry.get_model_class(name)
    if model_class is None:
        names = sorted(registry.mapping["model_name_mapping"])
        raise ValueError(f"LAVIS has no model named '{name}'{nearest_name(name, names)}")
    if model_type is not None:
        return model_type
    default = getattr(model_class, "DEFAULT_MODEL_TYPE", None)
    if default is not None:
        return default
    types = ", ".join(getattr(model_class, "PRETRAINED_MODEL_CONFIG_DICT", {}))
    raise TypeError(f"the model '{name}' needs a model_type, it has no default; its types: {types}")
