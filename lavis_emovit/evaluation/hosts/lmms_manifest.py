"""What the entry point `lmms_eval.models` of this package names: the model `emovit` of lmms-eval."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """Called by lmms-eval when it lists its models; the class is loaded when it is chosen."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("emovit", simple_class_path="lavis_emovit.evaluation.hosts.lmms_model.EmovitModel")
