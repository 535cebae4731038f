"""The models of a suite: each entry of `suite.models` becomes an adapter."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.distributed import processes
from lavis_emovit.distributed.devices import choose_device
from lavis_emovit.errors import ConfigError
from lavis_emovit.evaluation.adapters.base import Baseline, LanguageModel
from lavis_emovit.evaluation.adapters.chat_model import ChatModel, ChatModelSettings
from lavis_emovit.evaluation.adapters.clip import ClipBaseline, ClipSettings
from lavis_emovit.evaluation.adapters.colours import ColoursBaseline, ColoursSettings
from lavis_emovit.evaluation.adapters.constant import ConstantBaseline, ConstantSettings
from lavis_emovit.evaluation.adapters.lavis_model import LavisModel
from lavis_emovit.evaluation.adapters.transformers_model import TransformersModel, TransformersModelSettings
from lavis_emovit.evaluation.suite.settings import LavisModelSettings, ModelEntry, SuiteSettings
from lavis_emovit.paths import output_root

# Settings of a model that change its answers, besides its weights.
_ANSWER_KEYS = ("image_size", "max_txt_len", "prompt", "qformer_text_input", "frozen_precision")


def open_baseline(entry: ModelEntry) -> Baseline | None:
    """The baseline of an entry, or None for a language model."""
    if isinstance(entry, ConstantSettings):
        return ConstantBaseline(entry)
    if isinstance(entry, ColoursSettings):
        return ColoursBaseline(entry)
    if isinstance(entry, ClipSettings):
        return ClipBaseline(entry, choose_device(entry.device))
    return None


def open_language_model(name: str, entry: ModelEntry, suite: SuiteSettings, folder: Path) -> LanguageModel:
    """The language model of an entry.

    Raises:
        UserError: its weights, checkpoint or endpoint cannot be had.
    """
    if isinstance(entry, LavisModelSettings):
        return _lavis_model(name, entry)
    if isinstance(entry, TransformersModelSettings):
        return TransformersModel(entry, choose_device(entry.device))
    assert isinstance(entry, ChatModelSettings)
    if processes.world_size() > 1:
        raise ConfigError(
            [f"suite.models.{name}: an endpoint is asked by one process, which has many requests in flight anyway"],
            f"suite '{suite.name}'",
        )
    return ChatModel(entry, ledger_path(name, entry.endpoint(), suite, folder))


def ledger_path(name: str, endpoint: ChatSettings, suite: SuiteSettings, folder: Path) -> Path:
    """Where the replies of an endpoint are kept: shared by all suites only where they do not depend on chance."""
    if endpoint.temperature != 0.0:
        return folder / "ledgers" / f"{name}.jsonl"
    plain = "".join(character if character.isalnum() or character in "-." else "_" for character in endpoint.model)
    digest = hashlib.sha256(f"{endpoint.address()}\n{endpoint.model}".encode()).hexdigest()
    return output_root() / Path(suite.cache_dir).expanduser() / f"{plain}-{digest[:12]}.jsonl"


def _lavis_model(name: str, entry: LavisModelSettings) -> LavisModel:
    import torch
    from lavis.common.registry import registry

    from lavis_emovit.checkpoints.finding import find_trained
    from lavis_emovit.checkpoints.training_state import read_state
    from lavis_emovit.distributed.devices import AMP_DTYPES
    from lavis_emovit.processors.emovit_image_eval import EmovitImageEvalProcessor
    from lavis_emovit.processors.emovit_text import EmovitTextProcessor
    from lavis_emovit.processors.settings import ImageEvalSettings
    from lavis_emovit.recipes import resolve_model

    node = {**entry.config, "arch": entry.arch}
    if entry.model_type is not None:
        node["model_type"] = entry.model_type
    problems: list[str] = []
    values, settings = resolve_model(node, problems, f"suite.models.{name}.config")
    if problems or settings is None:
        raise ConfigError(problems, f"suite.models.{name}")
    trained = find_trained(entry.checkpoint) if entry.checkpoint is not None else None
    model = registry.get_model_class(entry.arch).from_config(values)
    identity: dict[str, Any] = {
        "adapter": "lavis",
        "arch": entry.arch,
        "model_type": values["model_type"],
        "frozen": model.frozen_fingerprint(),
        "trained": None,
        "amp": entry.amp,
        **{key: values.get(key) for key in _ANSWER_KEYS},
    }
    if trained is not None:
        path, manifest = trained
        if manifest.frozen_fingerprint != model.frozen_fingerprint():
            raise ConfigError(
                [f"suite.models.{name}: {path} was trained beside other frozen weights than '{entry.arch}' has here"],
                f"suite.models.{name}",
            )
        model.load_trained_state_dict(read_state(path).trained, str(path))
        identity["trained"] = manifest.files["model.safetensors"]["sha256"]
        identity["step"] = manifest.step
    device = choose_device(entry.device)
    model = model.to(device)
    dtype = AMP_DTYPES.get(entry.amp)

    def autocast() -> Any:
        return torch.autocast(device.type, dtype=dtype) if dtype is not None else nullcontext()

    size = getattr(settings, "image_size", 224)
    return LavisModel(
        model, EmovitImageEvalProcessor(ImageEvalSettings(image_size=size)), EmovitTextProcessor(), identity, autocast
    )
