"""LAVIS models that a YAML file declares: one class is registered for every file of the catalogue."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.models.catalogue import DeclaredModel, declared_models


def register(model: DeclaredModel) -> None:
    """Register the class of a declared model, a subclass of its family's class."""
    members = {
        "__doc__": f"Model `{model.name}`, declared in {model.path.name}.",
        "__module__": __name__,
        "DEFAULT_MODEL_TYPE": model.model_type,
        "PRETRAINED_MODEL_CONFIG_DICT": {model.model_type: str(model.path)},
    }
    class_name = "".join(part.capitalize() for part in model.name.split("_"))
    # A name of this module, so that instances can be pickled.
    globals()[class_name] = type(class_name, (model.model_class(),), members)
    registry.register_model(model.name)(globals()[class_name])


for _model in declared_models().values():
    register(_model)
