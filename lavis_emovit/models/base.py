"""What all model families share: freezing, adapters, quantisation, checkpoints, and LAVIS's names.

A family inherits from `BaseEmotionModel` and adds its parts, `from_settings`, which loads its weights, the inputs of
generation and scoring, and the other methods of `lavis_emovit.models.protocol`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from lavis.models.base_model import BaseModel
from omegaconf import OmegaConf
from torch import nn

from lavis_emovit.distributed import processes
from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models import lora, trained_parts
from lavis_emovit.models.answering import Answering
from lavis_emovit.models.lengths import length_groups, pass_cost
from lavis_emovit.models.part_names import Prefixes
from lavis_emovit.models.protocol import Batch, ImageEncoder, StepFlops
from lavis_emovit.models.quantize import float32_modules, quantize_language_model
from lavis_emovit.models.recompute import recompute_layers
from lavis_emovit.models.settings import BaseModelSettings
from lavis_emovit.models.step_memory import StepLoad, StepMemory
from lavis_emovit.models.tensors import PRECISIONS, QUANTIZED, check_fit, read_tensor_file
from lavis_emovit.paths import expand_home, find_checkpoint
from lavis_emovit.settings import valid_settings

Model = TypeVar("Model", bound="BaseEmotionModel")
T = TypeVar("T")


@dataclass(frozen=True)
class FoundWeights:
    """The weights of a model, for `emovit doctor`.

    Attributes:
        is_present: whether the model can be loaded as this machine is.
        detail: where they are, and what they are made of, or what is missing.
        advice: what to do if they are not present.
    """

    is_present: bool
    detail: str
    advice: str = ""


def blank_batch(image: Any) -> dict[str, Any]:
    """A training batch of one image, with a question and an answer that say nothing."""
    return {
        "image": image,
        "image_index": torch.zeros(1, dtype=torch.long),
        "text_input": ["blank"],
        "text_output": ["blank"],
        "instance_id": ["blank"],
        "label": [None],
        "record_id": ["blank"],
    }


class BaseEmotionModel(Answering, BaseModel):
    """An emotion model around modules of transformers.

    Args:
        core: the modules; names of parameters, in checkpoints and elsewhere, are those inside `core`.
        is_seq2seq: whether the language model has an encoder and a decoder.

    Attributes:
        PART_PREFIXES: part -> prefixes of its parameters. The part `language_model` is a model of transformers.
        ANSWER_SETTINGS: settings that change the answers, for `identity`.
    """

    DEFAULT_MODEL_TYPE: ClassVar[str]
    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = {}
    PART_NAMES: ClassVar[tuple[str, ...]]
    PART_PREFIXES: Prefixes
    ANSWER_SETTINGS: ClassVar[tuple[str, ...]] = ()
    settings_class: ClassVar[type[BaseModelSettings]]

    def __init__(self, core: nn.Module, settings: BaseModelSettings, llm_tokenizer: Any, is_seq2seq: bool):
        super().__init__()
        self.settings = settings
        self.core: Any = core
        self.llm_tokenizer = llm_tokenizer
        self.is_seq2seq = is_seq2seq
        self.prompt = settings.prompt
        self.in_step = False
        prefixes, frozen_dtype = self.PART_PREFIXES, PRECISIONS[settings.frozen_precision]
        if settings.frozen_precision in QUANTIZED:
            quantize_language_model(self._part("language_model"), settings.frozen_precision, frozen_dtype)
        self._add_adapters()
        self._trained = trained_parts.freeze_all_but(
            core,
            prefixes,
            settings.trained_parts,
            frozen_dtype,
            self._unused_parameters(),
            float32_modules(self._part("language_model")) if frozen_dtype == torch.float16 else (),
        )
        self._resting: frozenset[str] = frozenset()
        if settings.use_grad_checkpoint:
            for part in settings.grad_checkpoint_parts:
                recompute_layers(self._part(part))
        self.train(self.training)

    # Loading

    @classmethod
    def step_memory(cls, settings: Any, load: StepLoad, amp: str) -> StepMemory | None:
        return None

    @classmethod
    def check_weights(cls, settings: Any) -> str | None:
        return None

    @classmethod
    def find_weights(cls, settings: Any) -> FoundWeights:
        """Where the weights are; nothing is loaded, downloaded or built."""
        try:
            note = cls.check_weights(settings)
        except WeightsError as error:
            return FoundWeights(False, "missing", str(error))
        return FoundWeights(note is None, note or "present", "on first use" if note else "")

    @classmethod
    def from_config(cls: type[Model], cfg: Mapping[str, Any]) -> Model:
        """Build the model that a `model:` node describes; ConfigError lists all wrong keys at once."""
        settings = cls._settings_of(cfg)
        model = cls.from_settings(settings)
        if settings.load_finetuned:
            model.load_checkpoint(settings.finetuned)
        return model

    @classmethod
    def image_encoder(cls, cfg: Mapping[str, Any]) -> ImageEncoder | None:
        """See `EmotionModel.image_encoder`; families that can load it alone have `image_encoder_of`."""
        if not hasattr(cls, "encode_images"):
            return None
        settings = cls._settings_of(cfg)
        # Tuned weights may belong to the encoder.
        alone = None if settings.load_finetuned else cls.image_encoder_of(settings)
        whole: Any = alone if alone is not None else cls.from_config(cfg).eval()
        return whole

    @classmethod
    def image_encoder_of(cls, settings: Any) -> ImageEncoder | None:
        """The image encoder of the weights that the settings name, in eval mode; None: it is not loaded alone."""
        return None

    @classmethod
    def _settings_of(cls, cfg: Mapping[str, Any]) -> Any:
        values: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
        settings = valid_settings(cls.settings_class, values, "model", "the model configuration")
        if settings.load_finetuned and settings.finetuned is None:
            raise ConfigError(["model.finetuned: missing, model.load_finetuned is true"], "the model configuration")
        return settings

    def load_checkpoint(self, url_or_filename: str | None) -> None:
        """Load tuned tensors: a checkpoint folder of a run, a `.safetensors` file, or one of the original code."""
        path = expand_home(url_or_filename or "")
        if path.is_dir():
            path = path / "model.safetensors"
        if not path.is_file():
            found = find_checkpoint(path.parent)
            example = f", such as {found}," if found is not None else ""
            raise WeightsError(
                f"no checkpoint at {path}: name a checkpoint folder of a run{example} or a file of weights"
            )
        if path.suffix.lower() == ".safetensors":
            self.load_trained_state_dict(read_tensor_file(path), str(path))
        else:
            self._load_original(path)

    def _load_original(self, path: Path) -> None:
        """Load tuned tensors from a file in the format of the family's original code."""
        raise WeightsError(f"{path} is not a .safetensors file")

    # Trained and frozen parts

    def _part(self, part: str) -> nn.Module:
        return self.core.get_submodule(self.PART_PREFIXES[part][0].rstrip("."))

    def _add_adapters(self) -> None:
        """Add the adapters of the settings to the modules, in place."""
        if self.settings.lora is not None:
            lora.inject(self.core, self.PART_PREFIXES, self.settings.lora, self._unread_layers())

    def _unread_layers(self) -> tuple[str, ...]:
        """Prefixes of layers that get no adapter, because nothing reads their output."""
        return ()

    def _unused_parameters(self) -> list[str]:
        """Parameters of trained parts that no computation uses, so that they stay frozen."""
        return []

    def dead_parameters(self) -> list[str]:
        return []

    def train(self: Model, mode: bool = True) -> Model:
        """Train mode for trained parts; frozen ones stay in eval mode, so that their dropout is never active."""
        self.training = mode
        learning = set(self.settings.trained_parts) - self._resting
        trained_parts.set_modes(self.core, self.PART_PREFIXES, learning, mode)
        if self._resting:
            modules = [part for part, some in self._adapted_prefixes().items() if some[0].endswith(".")]
            for part in sorted(modules, key=lambda one: len(self.PART_PREFIXES[one][0])):
                lora.set_dropout_mode(self._part(part), mode and part not in self._resting)
        return self

    def float(self: Model) -> Model:
        """Nothing changes. LAVIS calls it for a model on the CPU, because its own frozen parts need a GPU in half
        precision. Here `model.frozen_precision` decides: a 7B model in float32 would need 32 GB."""
        return self

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def call_in_step(self, enabled: bool) -> None:
        """See `EmotionModel.call_in_step`: no groups by length, and generation takes equally many steps everywhere."""
        self.in_step = enabled

    def trained_parameter_names(self) -> list[str]:
        return list(self._trained)

    def trained_parameter_parts(self) -> list[str]:
        adapted = self._adapted_prefixes()
        return [
            trained_parts.part_of(name, adapted if lora.is_adapter(name) else self.PART_PREFIXES)
            for name in self._trained
        ]

    def _adapted_prefixes(self) -> Prefixes:
        """Adapters belong to the part that `model.lora` names, even in a part inside of it."""
        if self.settings.lora is None:
            return self.PART_PREFIXES
        return {part: self.PART_PREFIXES[part][:1] for part in self.settings.lora.parts}

    def rest(self, parts: Collection[str]) -> None:
        own = dict(self.core.named_parameters())
        for name, part in zip(self._trained, self.trained_parameter_parts()):
            own[name].requires_grad_(part not in parts)
        self._resting = frozenset(parts)
        self.train(self.training)

    def trained_state_dict(self) -> dict[str, torch.Tensor]:
        own = dict(self.core.named_parameters())
        return {name: own[name].detach() for name in self._trained}

    def load_trained_state_dict(self, state: Mapping[str, torch.Tensor], source: str = "the state dict") -> None:
        """Load what `trained_state_dict` returned; WeightsError if names or shapes differ."""
        own = self.trained_state_dict()
        advice = "Set model.trained_parts and model.lora as in the run that wrote it."
        check_fit(state, own, source, needed=own, target="the trained parts of this model", advice=advice)
        trained_parts.load_values(own, state)

    def frozen_fingerprint(self) -> str:
        return trained_parts.fingerprint(self.core, self._trained)

    def parameter_counts(self) -> dict[str, int]:
        return trained_parts.count_parameters(self.core)

    # Training

    def forward(self, samples: Batch) -> dict[str, Any]:
        """LAVIS's name for `answer_loss`; `loss` is the mean over answer tokens (natural log)."""
        loss = self.answer_loss(samples)
        return {"loss": loss.loss_sum / loss.num_tokens, "loss_sum": loss.loss_sum, "num_tokens": loss.num_tokens}

    def sized_images(self, num_images: int, num_frames: int = 1) -> Any:
        """A batch of images, or clips, of the largest size that the model gets, to count what they take."""
        image = self.blank_batch()["image"]
        if num_frames > 1:
            image = image[:, :, None].expand(-1, -1, num_frames, -1, -1)
        return image.expand(num_images, *image.shape[1:])

    def _groups(self, lengths: Sequence[Sequence[int]]) -> list[list[int]]:
        """Numbers of the rows that run together, by the lengths of the rows."""
        if self.in_step or not self.settings.group_by_length:
            return [list(range(len(lengths)))]
        return length_groups(lengths, pass_cost(self.device))

    def _as_many_as_others(self, passes: list[T]) -> list[T]:
        """The passes, the last one again as often as another process has more, if all call modules equally often."""
        if not self.in_step:
            return passes
        return passes + passes[-1:] * (max(processes.gather_objects(len(passes))) - len(passes))

    def _check_autocast(self, device_type: str) -> None:
        """Reject autocast in the other half precision than that of the frozen weights, which torch cannot combine."""
        frozen = PRECISIONS[self.settings.frozen_precision]
        if not torch.is_autocast_enabled(device_type) or frozen == torch.float32:
            return
        amp = torch.get_autocast_dtype(device_type)
        if amp != frozen:
            names = {dtype: name for name, dtype in reversed(PRECISIONS.items())}
            problem = (
                f"model.frozen_precision={self.settings.frozen_precision} cannot be combined with autocast in {amp}"
            )
            advice = f"set run.amp={names[frozen]} or off, or model.frozen_precision={names[amp]}"
            raise ConfigError([f"{problem}; {advice}"], "mixed precision")

    def query_attention(self, samples: Batch) -> torch.Tensor | None:
        return None

    # Description

    def identity(self) -> dict[str, Any]:
        """Architecture, frozen weights, and the settings that change the answers; None for those left at defaults."""
        given = self.settings.model_fields_set
        return {
            "arch": self.settings.arch,
            "model_type": self.settings.model_type,
            "frozen": self.frozen_fingerprint(),
            # Suites of earlier versions recorded None for keys that the configuration does not have.
            **{key: getattr(self.settings, key) if key in given else None for key in self.ANSWER_SETTINGS},
        }

    def compile_targets(self, part: str) -> list[tuple[str, nn.Module]]:
        return []

    def step_flops(self) -> StepFlops | None:
        return None
