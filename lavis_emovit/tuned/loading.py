"""A tuned model with everything that it was evaluated with: processors, questions, labels and decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_emovit.checkpoints.training_state import QUESTIONS_FILE
from lavis_emovit.checkpoints.tuned_files import TunedFiles, base_of, find_tuned, processors_at, weights_under
from lavis_emovit.emotion.labels import LabelSet, get_label_set
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.trained_questions import TrainedQuestion, TrainedQuestions
from lavis_emovit.settings import valid_settings
from lavis_emovit.tuned.inputs import input_images
from lavis_emovit.tuned.predictions import Asking, ImagePrediction, PredictionSettings, predict

if TYPE_CHECKING:
    from lavis_emovit.boxes import BoxSettings
    from lavis_emovit.evaluation.adapters.lavis_model import LavisModel
    from lavis_emovit.models.protocol import EmotionModel


@dataclass(frozen=True)
class Tuned:
    """A tuned model, ready to answer.

    Attributes:
        files: where it was found.
        model: in evaluation mode, on its device.
        image_processor, text_processor: those of evaluation, called on a Pillow image and on a question.
        questions: what the run evaluated it with.
        adapter: the model as suites evaluate it.
    """

    files: TunedFiles
    model: EmotionModel
    image_processor: Any
    text_processor: Callable[[str], str]
    questions: TrainedQuestions
    adapter: LavisModel

    @property
    def vis_processors(self) -> dict[str, Any]:
        """As LAVIS returns them; both are the processor of evaluation."""
        return {"train": self.image_processor, "eval": self.image_processor}

    @property
    def txt_processors(self) -> dict[str, Any]:
        """As `vis_processors`."""
        return {"train": self.text_processor, "eval": self.text_processor}

    @property
    def box(self) -> BoxSettings | None:
        """What it sees of records with a box, as in the run; None: the whole image."""
        return getattr(self.image_processor, "box", None)

    @cached_property
    def label_set(self) -> LabelSet | None:
        """The labels of its first question that has some."""
        names = [question.label_set for question in self.questions.questions if question.label_set is not None]
        return get_label_set(names[0]) if names else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels, in alphabetical order; empty without labels."""
        return self.label_set.labels if self.label_set is not None else ()

    @property
    def question(self) -> str:
        """The text of its first question; UserError if it has none."""
        from lavis_emovit.evaluation.questions import example_question

        if not self.questions.questions:
            raise UserError(f"{self.files.location}: {NO_QUESTIONS}")
        first = self.questions.questions[0]
        labels = get_label_set(first.label_set) if first.label_set is not None else None
        return example_question(first.benchmark(), first.method, labels).text

    @property
    def decoding(self) -> dict[str, int]:
        """Arguments of `generate`, as in the run."""
        lengths = [one.max_new_tokens for one in self.questions.questions if one.max_new_tokens is not None]
        asked = {"num_beams": self.questions.num_beams, "min_length": self.questions.min_length}
        return {**asked, "max_length": lengths[0]} if lengths else asked

    def askings(self, kinds: Iterable[str] = ()) -> tuple[Asking, ...]:
        """The questions of some kinds, without kinds those of the run.

        Raises:
            UserError: there is none, or one needs labels and the run has none.
        """
        asked = tuple(kinds) or tuple(question.kind for question in self.questions.questions)
        if not asked:
            raise UserError(f"{self.files.location}: {NO_QUESTIONS}")
        return tuple(Asking.of(self.asked(kind)) for kind in dict.fromkeys(asked))

    def predict(
        self,
        places: str | Path | Iterable[str | Path],
        kinds: Iterable[str] = (),
        *,
        batch_size: int = 16,
        image_root: Path | None = None,
    ) -> list[ImagePrediction]:
        """What `emovit predict` says about images, without a file.

        Args:
            places: images, folders, patterns, records files or shards, or one of them.
            kinds: `emotion`, `valence_arousal`, `action_units` or `explanation`; none: those of the run.
            batch_size: images at once.
            image_root: folder of the image paths of records, if not theirs.

        Returns:
            a row for each image, in the order of the places; one that cannot be read has the reason as `error`.

        Raises:
            UserError: a place has no images, or the model cannot be asked.
        """
        given = [places] if isinstance(places, str | Path) else places
        images = input_images([str(place) for place in given], image_root)
        settings = PredictionSettings(self.askings(kinds), show=self.box)
        return [row for rows in predict(self.adapter, images, settings, batch_size=batch_size) for row in rows]

    def asked(self, kind: Any) -> TrainedQuestion:
        """The question of a kind: that of the run, or else the usual one about the same labels and subject.

        Raises:
            UserError: the kind needs labels, and the run has none.
        """
        found = self.questions.of_kind(kind)
        if found is not None:
            return found
        first = self.questions.questions[0] if self.questions.questions else None
        needs_labels = kind in ("emotion", "labels", "explanation")
        if needs_labels and self.label_set is None:
            raise UserError(
                f"{self.files.location}: has no labels for questions of kind '{kind}'; choose them by --labels"
            )
        return TrainedQuestion(
            kind=kind,
            dataset=first.dataset if first is not None else "none",
            method="generation" if kind == "explanation" else "likelihood",
            label_set=self.label_set.name if needs_labels and self.label_set is not None else None,
            subject=first.subject if first is not None and kind != "action_units" else "picture",
        )


NO_QUESTIONS = (
    f"has no {QUESTIONS_FILE}, because an earlier version wrote it. Choose labels, such as `--labels mikels8`, or in "
    "Python `load_tuned(..., labels='mikels8')`."
)


def load_tuned(
    location: str | Path,
    *,
    device: str = "auto",
    amp: str | None = None,
    step: int | None = None,
    labels: str | None = None,
    base: str | Path | None = None,
    model: Mapping[str, Any] | None = None,
) -> Tuned:
    """Load a tuned model as it was trained and evaluated.

    Args:
        location: the folder of a run (its best checkpoint), a checkpoint, a folder that `emovit convert` wrote from one
            of these, or an archive of `emovit pack`.
        device: `auto` takes the GPU if there is one; else a device of torch.
        amp: `off`, `bf16` or `fp16`; None: as `off`.
        step: of a run, the checkpoint of this step instead of the best one.
        labels: name of a label set, or `labels: a, b, c`, for a model that has none or is to choose from others.
        base: folder or hub id of the weights that it was tuned from, if they have moved.
        model: settings over those of the run, as a recipe has them below `model`.

    Raises:
        UserError: there is no such model, it is damaged, or it does not fit the weights under it.
    """
    from lavis.common.registry import registry

    from lavis_emovit.checkpoints.finding import load_trained
    from lavis_emovit.distributed.devices import amp_dtype, choose_device
    from lavis_emovit.evaluation.adapters.lavis_model import LavisModel, inference

    dtype = amp_dtype(amp or "off")
    files = find_tuned(location, step, None if base is None else str(base))
    values = {**files.model, **(model or {})}
    written = processors_at(files.questions, base_of(files.model), base_of(values))
    questions = valid_settings(TrainedQuestions, written, "questions", f"{location}, {QUESTIONS_FILE}")
    if labels is not None:
        questions = _with_labels(questions, get_label_set(labels).name)
    model_class = registry.get_model_class(str(values.get("arch")))
    if model_class is None:
        raise UserError(f"{location}: its model '{values.get('arch')}' is not registered; install what registers it")
    with weights_under(files):
        found = model_class.from_config(values)
        if files.checkpoint is not None:
            load_trained(found, *files.checkpoint)
    chosen = choose_device(device)
    own_image, own_text = found.processors()
    image_processor = _processor(questions.image_processor) or own_image
    text_processor = _processor(questions.text_processor) or own_text
    adapter = LavisModel(
        found.to(chosen),
        image_processor,
        text_processor,
        run=inference(chosen, dtype),
        device=chosen,
        identity={**found.identity(), "trained": files.weights_sha256},
        num_beams=questions.num_beams,
        min_length=questions.min_length,
    )
    return Tuned(files, found, image_processor, text_processor, questions, adapter)


def _with_labels(questions: TrainedQuestions, name: str) -> TrainedQuestions:
    """The questions with other labels; the question for the emotion is added if there is none."""
    kept = [
        question.model_copy(update={"label_set": name}) if question.label_set is not None else question
        for question in questions.questions
    ]
    if not any(question.label_set is not None for question in kept):
        kept.insert(0, TrainedQuestion(kind="emotion", dataset="none", method="likelihood", label_set=name))
    return questions.model_copy(update={"questions": tuple(kept)})


def _processor(values: Mapping[str, Any] | None) -> Any:
    from lavis.common.registry import registry

    return registry.get_processor_class(values["name"]).from_config(dict(values)) if values is not None else None
