"""Settings of a dataset: one node `datasets.<name>` of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from lavis_emovit.clips.clip import FrameSettings
from lavis_emovit.datasets.faults import FaultSettings
from lavis_emovit.emotion.labels import LabelSetName, Subject
from lavis_emovit.emotion.questions import CATEGORICAL_WORDINGS, Scale
from lavis_emovit.emotion.templates import TemplateName, get_template
from lavis_emovit.generation.categorical import WRITTEN_PARTS
from lavis_emovit.generation.mix import MIXES, Mix
from lavis_emovit.processors.settings import ImageEvalSettings, ImageTextSettings, ImageTrainSettings, TextSettings
from lavis_emovit.records import InstructionKind
from lavis_emovit.settings import EachOnce, Settings, added_field, nearest_name
from lavis_emovit.shards.order import DEFAULT_WINDOW_SHARDS
from lavis_emovit.shards.token_lengths import LengthBucketSettings
from lavis_emovit.sources.catalogue import DRAWN, AboutSettings, DeclaredPreparation, SplitSettings, StorageSettings

ImageProcessorSettings = Annotated[
    ImageTrainSettings | ImageEvalSettings | ImageTextSettings, Field(discriminator="name")
]


class DrawSettings(Settings):
    """How the sample set is drawn."""

    images_per_class: int = Field(default=150, ge=10)
    seed: int = Field(default=0, ge=0)
    size_px: int = Field(default=192, ge=32, le=2048)
    label_noise: float = Field(default=0.04, ge=0.0, lt=0.5)


class CategoricalSettings(Settings):
    """The categorical instruction of every labelled image."""

    wordings: tuple[int, ...] = Field(default=(1,), min_length=1)
    option_order: Literal["fixed", "shuffled"] = "fixed"
    seed: int = 0
    template: TemplateName = added_field("direct")  # form of the answer

    @field_validator("template")
    @classmethod
    def _template_is_written(cls, value: str) -> str:
        if missing := set(get_template(value).part_names) - WRITTEN_PARTS:
            raise ValueError(
                f"'{value}' has the part {', '.join(sorted(missing))}, which no template can write; train on written "
                "instructions (`emovit generate`)"
            )
        return value

    @field_validator("wordings")
    @classmethod
    def _wordings_exist(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not set(value) <= set(range(1, len(CATEGORICAL_WORDINGS) + 1)):
            raise ValueError(f"wordings are numbered 1 to {len(CATEGORICAL_WORDINGS)}")
        return value


class AffectSettings(Settings):
    """The question for valence and arousal of every image that has both."""

    about: Subject | None = None  # what the values describe; null: decided by record
    seed: int = 0
    # Also a question for each axis, which evaluation asks by likelihood: the answer is one of the `steps` from 1 to 9
    # (or `true`), or a word, one of five `levels`.
    scale: Scale | bool = added_field(False)


class OfflineSettings(Settings):
    """Instructions that the offline writer of `emovit generate` writes during preparation: templates, no model.

    Images of other splits than `train` get them too, as reference answers of an evaluation; no run trains on them.
    """

    kinds: Annotated[tuple[InstructionKind, ...], EachOnce] = Field(
        default=("categorical", "conversation", "reasoning"), min_length=1
    )
    seed: int = 0
    check_overlap: bool = True  # refuse training images that are also in another split


class InstructionMix(Mix):
    """Which training images keep which kinds of instructions: `released`, or `{name: released, seed: 1}`, or `parts`.

    It draws the same images as `emovit generate all --mix` with the same seed.
    """

    seed: int = 0
    allow_short: bool = False  # use all images of a class that has too few

    @model_validator(mode="before")
    @classmethod
    def _parts_by_name(cls, value: Any) -> Any:
        values = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else value
        if not isinstance(values, dict) or "name" not in values:
            return values
        name = values.pop("name")
        if name not in MIXES:
            raise ValueError(f"unknown mix '{name}'{nearest_name(str(name), list(MIXES))}")
        if "parts" in values:
            raise ValueError(f"has both a name ('{name}') and `parts`; keep one of them")
        return {**values, "parts": MIXES[name].model_dump()["parts"]}


class InstructionSettings(Settings):
    """The instructions written into the records. A path alone means `{generated: PATH, categorical: null}`.

    Attributes:
        generated: folder of `emovit generate`, or its records file; relative to the working directory.
        offline: write them here instead; null: do not.
        mix: which training images keep which kinds; null: every image keeps all that it has.
        categorical: the question for the emotion from a template, for all labelled images that have none, or with a mix
            for those that it draws for this kind; null: none.
        affect: the question for valence and arousal from a template, for all images that have both; null: none.
    """

    generated: str | None = Field(default=None, min_length=1)
    offline: OfflineSettings | None = None
    mix: InstructionMix | None = None
    categorical: CategoricalSettings | None = CategoricalSettings()
    affect: AffectSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"generated": value, "categorical": None} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> InstructionSettings:
        if self.generated is not None and self.offline is not None:
            raise ValueError("has both `generated` and `offline`; set one of them to null")
        if self.affect is not None and (self.generated is not None or self.mix is not None):
            raise ValueError(
                "`affect` cannot be combined with generated instructions or a mix; use `emovit generate affect`"
            )
        if self.mix is not None and self.offline is not None:
            unwritten = sorted({kind for part in self.mix.parts for kind in part.kinds} - set(self.offline.kinds))
            if unwritten:
                raise ValueError(f"`mix` has {', '.join(unwritten)}, which `offline.kinds` lacks; add it there")
        return self

    @property
    def is_template_only(self) -> bool:
        """Whether the categorical template is all that preparation writes."""
        return self.generated is None and self.offline is None and self.mix is None


class ShardSettings(Settings):
    """How the shards are written."""

    samples_per_shard: int = Field(default=1000, ge=1)
    seed: int = 0
    # Which frames of clips to store; null: the video files, or all image files.
    frames: FrameSettings | None = added_field(None)


class PrepareSettings(DeclaredPreparation):
    """How shards are built on first use.

    `source: sketch` draws the sample set and `clip_sketch` its clips; any other name is the layout of a published
    dataset and needs `root`.
    """

    other_sources: ClassVar[tuple[str, ...]] = DRAWN
    draw: DrawSettings = DrawSettings()
    instructions: InstructionSettings = InstructionSettings()
    shards: ShardSettings = ShardSettings()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> PrepareSettings:
        if not self.is_drawn and not self.root:
            raise ValueError(f"source '{self.source}' needs `root`, the folder of the published dataset")
        if "draw" in self.model_fields_set and not self.is_drawn:
            raise ValueError(f"`draw` belongs to source 'sketch' or 'clip_sketch', this one is '{self.source}'")
        return self

    @property
    def is_drawn(self) -> bool:
        return self.source in DRAWN


class BuildInfoSettings(Settings):
    """Where the shards of a dataset are, and how they are built."""

    annotations: SplitSettings
    images: StorageSettings
    prepare: PrepareSettings | None = None

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that the dataset has, in their order."""
        names, prepare = tuple(self.annotations.indexes()), self.prepare
        if prepare is not None and prepare.split_lists is not None:
            return tuple(split for split in names if split in prepare.split_lists)
        if prepare is not None and prepare.split_seed is not None and prepare.fractions is not None:
            # A new split with the share 0 has no images.
            shares = prepare.fractions.model_dump()
            return tuple(split for split in names if shares[split] > 0)
        return names


class ImageProcessorPair(Settings):
    train: ImageProcessorSettings = ImageTrainSettings()
    eval: ImageProcessorSettings = ImageEvalSettings()


class TextProcessorPair(Settings):
    train: TextSettings = TextSettings()
    eval: TextSettings = TextSettings()


class DatasetSettings(Settings):
    """One node `datasets.<name>`.

    Attributes:
        type: which of the dataset's default configs to use.
        data_type: LAVIS's name for the modality.
        build_info: `annotations.<split>.storage`, the shard index of each split; `images.storage`, the folder of all
            prepared files; `prepare`, how to prepare them.
        kinds: kinds of instructions to train on; null: all.
        share: share of the training split to train on, with the same label proportions. A smaller share is a subset of
            every larger one with the same `share_seed`.
        share_seed: determines the samples of the share.
        max_pairs: most questions per image in an epoch; null: all.
        label_set: label set of the evaluation question; null: the one in the records.
        eval_wording: wording of the evaluation question.
        seed: seed of the augmentation.
        verify_hashes: compare the sha256 of each shard when it is first opened.
        window_shards: shards that are shuffled together; fewer need a smaller cache of remote shards.
        length_buckets: steps of similar text length; null: mix all lengths.
    """

    type: str = "default"
    data_type: Literal["images"] = "images"
    about: AboutSettings | None = None
    build_info: BuildInfoSettings
    vis_processor: ImageProcessorPair = ImageProcessorPair()
    text_processor: TextProcessorPair = TextProcessorPair()
    kinds: Annotated[tuple[InstructionKind, ...] | None, EachOnce] = None
    share: float = Field(default=1.0, gt=0.0, le=1.0)
    share_seed: int = 0
    max_pairs: int | None = Field(default=None, ge=1)
    label_set: LabelSetName | None = None
    eval_wording: int = Field(default=1, ge=1, le=len(CATEGORICAL_WORDINGS))
    seed: int = 42
    verify_hashes: bool = False
    faults: FaultSettings = FaultSettings()
    window_shards: int = Field(default=DEFAULT_WINDOW_SHARDS, ge=1)
    length_buckets: LengthBucketSettings | None = None
