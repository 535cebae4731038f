"""Models of this plugin: candidate scores over a shared pass, written answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from lavis_emovit.boxes import ORDERED_FRAMES, WHOLE, Box, BoxSettings, images_of_pair, shows_both
from lavis_emovit.clips.clip import Clip, FrameSettings
from lavis_emovit.errors import ConfigError, DataError, WeightsError
from lavis_emovit.evaluation.adapters.base import Failure, LanguageModel, ModelPlace, register_adapter
from lavis_emovit.evaluation.benchmarks import Method
from lavis_emovit.evaluation.questions import Question
from lavis_emovit.images import decode_image
from lavis_emovit.settings import Settings, SettingsT

if TYPE_CHECKING:
    import torch

    from lavis_emovit.checkpoints.tuned_files import TunedFiles
    from lavis_emovit.evaluation.adapters.probe import ProbeSettings
    from lavis_emovit.models.protocol import Batch, EmotionModel, Normalization

NORMALIZE: dict[Method, Normalization] = {
    "likelihood": "mean",
    "likelihood_sum": "sum",
    "likelihood_calibrated": "calibrated",
}

# Calls a function that uses the model: without gradients, with autocast, and with all weights available.
Run = Callable[[Callable[[], Any]], Any]


class TrainingSettings(Settings):
    """How a missing checkpoint is made: by `python -m lavis.train`, into the folder that `checkpoint` names.

    Attributes:
        recipe: the recipe, as `--cfg-path` takes it.
        options: settings that override the recipe's, as `--options` takes them.
    """

    recipe: str = Field(min_length=1)
    options: tuple[str, ...] = ()

    @field_validator("options")
    @classmethod
    def _folder_is_the_checkpoint(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if taken := [option for option in value if option.startswith(("run.output_dir=", "run.evaluate="))]:
            raise ValueError(f"{taken[0]} cannot be set: the run is trained into the folder that `checkpoint` names")
        return value


class LavisModelSettings(Settings):
    """`adapter: lavis`, a model of this plugin.

    Attributes:
        arch, model_type: as in a recipe's `model`; without `arch`, all settings are those of the checkpoint's run. With
            it, only `trained_parts` and `lora` are, unless `config` sets them.
        checkpoint: a run's folder for its best checkpoint, one checkpoint, or without `arch` also an exported folder or
            an archive; null: the model as published.
        base: without `arch`, the weights that the checkpoint was tuned from, if they have moved; with it, `config` has
            them.
        train: the recipe that makes the checkpoint if it does not exist, then a run's folder; null: it must exist.
        config: settings over the model's defaults, as a recipe has them below `model`.
        frames: which frames of clips the model gets, as in a dataset's `vis_processor`; null: those of the checkpoint's
            run. Without any, clips are errors in their rows.
        device: `auto` takes the GPU if there is one.
    """

    adapter: Literal["lavis"]
    arch: str | None = Field(default=None, min_length=1)
    model_type: str | None = None
    checkpoint: str | None = None
    base: str | None = Field(default=None, min_length=1)
    train: TrainingSettings | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    frames: FrameSettings | None = None
    amp: Literal["off", "bf16", "fp16"] = "off"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @field_validator("amp", mode="before")
    @classmethod
    def _amp_from_yaml(cls, value: Any) -> Any:
        # YAML reads a bare `off` as false.
        return {False: "off", True: "bf16"}.get(value, value) if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _training_has_a_folder(self) -> LavisModelSettings:
        if self.train is not None and self.checkpoint is None:
            raise ValueError("`train` needs `checkpoint`, the folder of the run")
        if self.arch is None and self.checkpoint is None:
            raise ValueError("name `arch`, or `checkpoint`, a tuned model")
        if self.base is not None and (self.arch is not None or self.checkpoint is None):
            raise ValueError("`base` belongs to a `checkpoint` without `arch`; else set the weights in `config`")
        if self.arch is None and self.model_type is not None:
            raise ValueError("`model_type` belongs to `arch`; without one, the settings are those of the checkpoint")
        return self


class LavisModel(LanguageModel):
    """A model of this plugin on its device, with the processors of images and questions from training.

    Written answers are greedy unless there are several beams.

    Attributes:
        run: calls a function that uses the model, see `Run`.
    """

    methods: frozenset[Method] = frozenset({*NORMALIZE, "generation"})
    decoding = frozenset({"num_beams", "repetition_penalty", "length_penalty"})

    def __init__(
        self,
        model: EmotionModel,
        image_processor: Any,
        text_processor: Callable[[str], str],
        *,
        run: Run,
        device: torch.device,
        identity: Mapping[str, Any] | None = None,
        num_beams: int = 1,
        min_length: int = 1,
    ):
        self._model = model.eval()
        self._image_processor, self._text_processor = image_processor, text_processor
        # Processors of other packages may not say it.
        self.reads_both = getattr(image_processor, "reads_both", False) and not self._orders_frames
        self.reads_pairs = getattr(image_processor, "reads_pairs", False)
        self.run, self._device = run, device
        self._identity = dict(identity or {})
        self._num_beams, self._min_length = num_beams, min_length

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)

    @property
    def reads_clips(self) -> bool:
        return getattr(self._image_processor, "frames", None) is not None

    @property
    def _orders_frames(self) -> bool:
        """Whether it reads the frames of a clip in the order of time, which crops behind them would break."""
        settings = getattr(self._model, "settings", None)
        return self.reads_clips and getattr(settings, "frames", None) is not None

    def prepare(self, image_bytes: bytes, *, max_pixels: int | None = None) -> torch.Tensor:
        """A normalised image, float32 [3, H, W]; of a model of clips [3, F, H, W]. See `decode_image`.

        Models of the family `image_text` get a `PreparedImage` here and for clips.
        """
        return self._image_processor.read(image_bytes, max_pixels=max_pixels)[0]

    def prepare_both(self, data: bytes, box: Box | None, show: BoxSettings) -> Any:
        """Two normalised images, float32 [3, 2, H, W], or those of an image-text model; see `ImageProcessor.beside`."""
        return self._image_processor.read(data, None, box, show=show)[0]

    def prepare_pair(self, data: bytes, pair: Sequence[Box]) -> Any:
        """The two images of an image-text model in one message."""
        return self._image_processor.beside(images_of_pair(decode_image(data), pair))

    def prepare_clip(
        self, data: bytes, clip: Clip, box: Box | None = None, show: BoxSettings | None = None
    ) -> tuple[torch.Tensor, tuple[float, ...] | None]:
        """A normalised clip, float32 [3, F, H, W]; of two streams, [3, 2 F, H, W]."""
        if shows_both(show) and not self.reads_both:
            raise DataError(ORDERED_FRAMES)
        return self._image_processor.read(data, clip, box, show=show or WHOLE)

    def still_at_each_frame(self, clip: Any, num_frames: int) -> list[Any]:
        """See `LanguageModel`; F clips, each of the given shape, float32 [3, F, H, W] or [3, 2 F, H, W]."""
        from lavis_emovit.processors.prepared import PreparedImage

        if isinstance(clip, PreparedImage):
            return clip.still_at_each_frame(num_frames)
        copies = [clip.clone() for _ in range(num_frames)]
        for place, copy in enumerate(copies):
            copy[:, place::num_frames] = clip[:, place - 1 if place else 1 :: num_frames]
        return copies

    def score(
        self, images: Sequence[torch.Tensor], image_index: Sequence[int], questions: Sequence[Question], method: Method
    ) -> list[list[float]]:
        return self._score(self.batch(images, image_index, _texts(questions)), questions[0], method)

    def write(
        self, images: Sequence[torch.Tensor], image_index: Sequence[int], questions: Sequence[Question]
    ) -> list[str | Failure]:
        return [*self._write(self.batch(images, image_index, _texts(questions)), questions[0])]

    def stream(self, image: torch.Tensor, question: Question) -> Iterator[str]:
        """The answer of `write` to one question in pieces; in one piece where beams only have text at their end."""
        batch, decoding = self.batch([image], [0], [question.text]), self._decoding(question)
        if decoding.pop("num_beams") > 1:
            yield from self._write(batch, question)
        else:
            yield from self.run(partial(self._model.generate_stream, batch, **decoding))

    def attention(self, image: torch.Tensor, question: Question) -> list[list[float]] | None:
        """Rows of how much the model's query tokens attend to each part of the image; None without a Q-Former."""
        batch = self.batch([image], [0], [question.text])
        found = self.run(partial(self._model.query_attention, batch))
        return None if found is None else found.cpu().tolist()

    def run_blank(self, question: Question, method: Method) -> None:
        """Take part in a pass of other processes: on a blank batch, with the candidates or length of a question."""
        batch = self._on_device(self._model.blank_batch())
        if method == "generation":
            self._write(batch, question)
        else:
            self._score(batch, question, method)

    def _score(self, batch: Batch, question: Question, method: Method) -> list[list[float]]:
        settings: dict[str, Any] = {"answer_prefix": question.answer_prefix, "normalize": NORMALIZE[method]}
        score = partial(self._model.score_candidates, batch, list(question.candidates), **settings)
        return self.run(score).float().cpu().tolist()

    def _write(self, batch: Batch, question: Question) -> list[str]:
        return self.run(partial(self._model.generate, batch, **self._decoding(question)))

    def _decoding(self, question: Question) -> dict[str, Any]:
        lengths = {"max_length": question.max_new_tokens, "min_length": self._min_length}
        return {"num_beams": self._num_beams, **lengths, **dict(question.decoding)}

    def batch(self, images: Sequence[torch.Tensor], image_index: Sequence[int], texts: Sequence[str]) -> dict[str, Any]:
        """Prepared images and the texts of N questions as a batch of the model, on its device."""
        import torch

        batch = {
            "image": self._image_processor.stack(images),
            "image_index": torch.tensor(list(image_index), dtype=torch.long),
            "prompt": [self._text_processor(text) for text in texts],
        }
        return self._on_device(batch)

    def _on_device(self, batch: Batch) -> dict[str, Any]:
        return {
            key: value.to(self._device, non_blocking=True) if hasattr(value, "to") else value
            for key, value in batch.items()
        }


def _texts(questions: Sequence[Question]) -> list[str]:
    return [question.text for question in questions]


def model_values(entry: LavisModelSettings | ProbeSettings, key: str) -> Any:
    """What `from_config` of the model class `arch` of an entry gets; ConfigError lists all wrong settings."""
    from lavis_emovit.recipes import resolve_model

    node = {**entry.config, "arch": entry.arch}
    node |= {"model_type": entry.model_type} if entry.model_type is not None else {}
    problems: list[str] = []
    values, settings = resolve_model(node, problems, f"{key}.config")
    if problems or settings is None:
        raise ConfigError(problems, key)
    return values


def open_lavis_model(entry: LavisModelSettings, place: ModelPlace) -> LavisModel:
    """The model of an entry, with its tuned weights. UserError if settings, weights or checkpoint cannot be used."""
    from lavis.common.registry import registry

    from lavis_emovit.checkpoints.finding import load_trained
    from lavis_emovit.checkpoints.tuned_files import find_tuned, weights_under
    from lavis_emovit.distributed.devices import AMP_DTYPES, choose_device

    key = f"suite.models.{place.name}"
    tuned = find_tuned(entry.checkpoint, base=entry.base) if entry.checkpoint is not None else None
    if entry.arch is not None and tuned is not None and tuned.checkpoint is None:
        raise ConfigError([f"{key}: {entry.checkpoint} has complete weights and their settings; remove `arch`"], key)
    own = tuned.model if tuned is not None and entry.arch is None else None
    values = model_values(_with_trained(entry, tuned), key) if own is None else {**own, **entry.config}
    with weights_under(tuned) if own is not None and tuned is not None else nullcontext():
        model = registry.get_model_class(values["arch"]).from_config(values)
    identity: dict[str, Any] = {"adapter": "lavis", **model.identity(), "trained": None, "amp": entry.amp}
    if tuned is not None:
        identity |= {"trained": tuned.weights_sha256}
        if tuned.checkpoint is not None:
            try:
                load_trained(model, *tuned.checkpoint)
            except WeightsError as error:
                hint = " Without `arch`, all settings are those of that run." if entry.arch is not None else ""
                problem = str(error).replace(" model.", f" {key}.config.")
                raise ConfigError([f"{key}: {problem}{hint}"], key) from None
            identity |= {"step": tuned.checkpoint[1].step}
    device = choose_device(entry.device)
    run = inference(device, AMP_DTYPES.get(entry.amp))
    image_processor, text_processor = model.processors()
    frames = entry.frames or _of_run(tuned, "frames", FrameSettings)
    if frames is not None:
        changed = with_frames(image_processor, frames)
        if changed is None:
            raise ConfigError([f"{key}.frames: {values['arch']} reads images only; remove it"], key)
        image_processor = changed
        identity |= {"clip_frames": frames.model_dump()}
    found = LavisModel(model.to(device), image_processor, text_processor, run=run, device=device, identity=identity)
    found.tuned_show = _of_run(tuned, "box", BoxSettings)
    return found


def with_frames(image_processor: Any, frames: FrameSettings) -> Any:
    """The processor with these frames of clips; None if it reads images only."""
    settings: Any = getattr(image_processor, "settings", None)
    if "frames" not in getattr(type(settings), "model_fields", ()):
        return None
    return type(image_processor)(settings.model_copy(update={"frames": frames}))


def _of_run(tuned: TunedFiles | None, key: str, settings: type[SettingsT]) -> SettingsT | None:
    """The `frames` or the `box` that a tuned model was evaluated with; None without."""
    processor = tuned.questions.get("image_processor") if tuned is not None else None
    found = (processor or {}).get(key)
    return None if found is None else settings.model_validate(found)


def _with_trained(entry: LavisModelSettings, tuned: TunedFiles | None) -> LavisModelSettings:
    """The entry with the trained parts and adapters of the checkpoint's run, if that has the same `arch`."""
    if tuned is None or tuned.model.get("arch") != entry.arch:
        return entry
    trained = {name: tuned.model[name] for name in ("trained_parts", "lora") if name in tuned.model}
    return entry.model_copy(update={"config": {**trained, **entry.config}})


def inference(device: torch.device, dtype: torch.dtype | None) -> Run:
    """Calls functions without gradients, with autocast to a precision if there is one."""
    import torch

    def run(function: Callable[[], Any]) -> Any:
        with torch.inference_mode(), torch.autocast(device.type, dtype=dtype) if dtype else nullcontext():
            return function()

    return run


register_adapter(LavisModelSettings, open_lavis_model)
