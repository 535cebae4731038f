"""Simulated faces with known truth, and a simulated annotator with known errors.

The annotator replaces a chat model in the benchmark and in tests. It shows whether sampling, voting and verification
work with given error rates. It does not show the error rates of a real model. The faces do not follow the packaged
tables: how levels are connected is drawn at random, so tables have to be estimated from other faces of the same seed.
A blind reviewer is another annotator: it finds the same faces difficult, but makes errors of its own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence

from pydantic import Field

from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors, facial_priors
from lavis_emovit.emotion.labels_faces import EXPRESSIONS8
from lavis_emovit.generation.seke.annotators import AnnotatorKind, PriorAnnotator, Question, Reply, reviewed
from lavis_emovit.generation.seke.levels import Case, Levels
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings


class Errors(Settings):
    """Error rates of a simulated annotator.

    Attributes:
        expression: mean rate of wrong expressions; faces differ in difficulty.
        valence_bias, arousal_bias: bias of every answer.
        affect_noise: standard deviation of valence and arousal around truth plus bias, for a face of mean difficulty.
        missed, imagined: rate of active units missing from an answer, and of inactive units in an answer.
        shared: share of the errors that all answers about a face have in common. With this probability, an expression
            or unit is that of the face's fixed answer; the same share of the variance of valence and arousal is fixed.
        by_prompt: the same for answers to one form of the question (wording, order, crop, mirror).
        even: whether all faces are equally difficult; otherwise the difficulty varies from zero to twice the mean.
        prior_pull: with this probability, an answer adopts the likeliest value of the tables, right or wrong, if the
            question contains them.
        unreadable: rate of answers that are not JSON.
        caught: rate of wrong levels detected by a review; it corrects the share `corrected` and discards the others.
        false_alarm: rate of correct levels discarded by a review.
    """

    expression: float = Field(default=0.3, ge=0.0, le=0.8)
    valence_bias: float = 0.05
    arousal_bias: float = -0.05
    affect_noise: float = Field(default=0.25, ge=0.0)
    missed: float = Field(default=0.2, ge=0.0, le=1.0)
    imagined: float = Field(default=0.08, ge=0.0, le=1.0)
    shared: float = Field(default=0.15, ge=0.0, le=1.0)
    by_prompt: float = Field(default=0.3, ge=0.0, le=1.0)
    even: bool = False
    prior_pull: float = Field(default=0.2, ge=0.0, le=1.0)
    unreadable: float = Field(default=0.01, ge=0.0, le=1.0)
    caught: float = Field(default=0.5, ge=0.0, le=1.0)
    corrected: float = Field(default=0.6, ge=0.0, le=1.0)
    false_alarm: float = Field(default=0.04, ge=0.0, le=1.0)


# A review accepts errors of valence and arousal up to this size, and up to this number of wrong units.
AFFECT_TOLERANCE = 0.2
UNITS_TOLERANCE = 2


class SimulatedAnnotator:
    """Answers with the truth and random errors, which are a function of seed, face and sample.

    Args:
        truth: the three levels of each record id.
        errors: error rates.
        seed: seed of all random errors.
        priors: the tables that questions contain.
    """

    kind: AnnotatorKind = "model"
    prompts = ""
    num_wordings = 3
    under_way = 0

    def __init__(
        self,
        truth: Mapping[str, Levels],
        errors: Errors | None = None,
        seed: int = 0,
        priors: FacialPriors | None = None,
    ):
        self.name = self.reviewer = "simulated"
        self.stopped: str | None = None
        self.num_calls = 0
        self._truth = truth
        self._errors = errors or Errors()
        self._seed = seed
        self._tables = PriorAnnotator(priors or facial_priors())

    def num_answers(self, case: Case) -> int | None:
        return None

    def ask(self, label: str, questions: Sequence[Question]) -> list[Reply | None]:
        """See `Annotator`."""
        self.num_calls += len(questions)
        return [self._review(item) if item.proposal is not None else self._answer(item) for item in questions]

    def _rng(self, *parts: object) -> random.Random:
        return random.Random("/".join(map(str, (self._seed, *parts))))

    def _answer(self, question: Question) -> Reply:
        case, errors, truth = question.case, self._errors, self._truth[question.case.record.id]
        name, view = case.record.id, question.view
        who = ("reviewer",) if question.is_blind else ()
        sample = self._rng("answer", name, question.sample, *who)
        if sample.random() < errors.unreadable:
            return Reply("I am not sure what to say about this face.")
        face = self._rng("face", name)
        difficulty = 1.0 if errors.even else 2.0 * face.random()  # mean 1 over faces
        if who:
            face = self._rng("face", name, *who)
        prompt = self._rng("prompt", name, *who, view.wording, view.order, view.is_cropped, view.is_mirrored)
        draws = _Draws(errors, difficulty, face, prompt, sample)
        # All items are drawn in every case, so that the errors of an item do not depend on what else is missing.
        levels = Levels(
            draws.expression(truth.expression),
            draws.number(truth.valence, errors.valence_bias),
            draws.number(truth.arousal, errors.arousal_bias),
            {unit: draws.unit(truth.units.get(unit, False)) for unit in FACIAL_UNITS},
        )
        guess = self._tables.guess(case) if view.is_hinted else None
        values = {
            item: guess.get(item)
            if guess is not None and self._rng("pull", name, question.sample, item).random() < errors.prior_pull
            else levels.get(item)
            for item in case.items
        }
        if values.get("expression", case.classes[0]) not in case.classes:
            values["expression"] = sample.choice(case.classes)
        return Reply(json.dumps(Levels.of(values).plain()))

    def _review(self, question: Question) -> Reply:
        assert question.proposal is not None
        errors, truth = self._errors, self._truth[question.case.record.id]
        rng = self._rng("review", question.case.record.id)
        verdicts: dict[str, str] = {}
        correct: list[str] = []
        for name in reviewed(question.case):
            if is_right(question.proposal, truth, name):
                verdict = "discard" if rng.random() < errors.false_alarm else "keep"
            elif rng.random() < errors.caught:
                verdict = "correct" if rng.random() < errors.corrected else "discard"
            else:
                verdict = "keep"
            verdicts[f"{name}_verdict"] = verdict
            correct += [name] if verdict == "correct" else []
        values = {
            item: (truth if item.replace("unit:", "units:").partition(":")[0] in correct else question.proposal).get(
                item
            )
            for item in question.case.items
        }
        values = {item: value for item, value in values.items() if value is not None}
        return Reply(json.dumps({"units": [], **Levels.of(values).plain(), **verdicts, "reason": "simulated"}))


class _Draws:
    """Draws answers with errors. Random numbers of all three kinds are used up whichever of them counts."""

    def __init__(
        self, errors: Errors, difficulty: float, face: random.Random, prompt: random.Random, sample: random.Random
    ):
        self._errors, self._difficulty, self._sources = errors, difficulty, (face, prompt, sample)

    def expression(self, truth: str | None) -> str:
        rate = min(0.9, self._errors.expression * self._difficulty)
        wrong = [name for name in EXPRESSIONS8.labels if name != truth]
        drawn = [rng.choice(wrong) if rng.random() < rate or truth is None else truth for rng in self._sources]
        return drawn[self._which()]

    def unit(self, active: bool) -> bool:
        rate = min(0.9, (self._errors.missed if active else self._errors.imagined) * self._difficulty)
        drawn = [rng.random() < rate for rng in self._sources]
        return active != drawn[self._which()]

    def number(self, truth: float | None, bias: float) -> float:
        errors = self._errors
        shares = (errors.shared, errors.by_prompt, max(0.0, 1.0 - errors.shared - errors.by_prompt))
        noise = sum(share**0.5 * rng.gauss(0, 1) for share, rng in zip(shares, self._sources))
        value = (truth or 0.0) + bias + self._difficulty * errors.affect_noise * noise
        return round(min(1.0, max(-1.0, value)), 3)

    def _which(self) -> int:
        place = self._sources[-1].random()
        return 0 if place < self._errors.shared else 1 if place < self._errors.shared + self._errors.by_prompt else 2


def is_right(levels: Levels, truth: Levels, name: str) -> bool:
    """Whether a review should accept what it decides on."""
    if name == "units":
        return sum(active != truth.units.get(unit) for unit, active in levels.units.items()) <= UNITS_TOLERANCE
    one, other = levels.get(name), truth.get(name)
    return bool(one == other if name == "expression" else abs(one - other) <= AFFECT_TOLERANCE)


def simulated_faces(count: int, seed: int = 0, *, part: str = "test") -> tuple[list[EmotionRecord], dict[str, Levels]]:
    """Labelled faces without images. Faces of the same seed share the connections of their levels, in every `part`.

    The connections are drawn at random: three to five units that are active with a probability of 0.75 in an expression
    (any other unit: 0.05), and the mean of its valence and arousal (standard deviation 0.2). Classes are balanced.

    Returns:
        labelled records, and their levels by record id.
    """
    world, rng = random.Random(f"world/{seed}"), random.Random(f"faces/{seed}/{part}")
    names = sorted(EXPRESSIONS8.labels)
    usual = {name: set(world.sample(FACIAL_UNITS, world.randint(3, 5))) for name in names}
    centers = {name: (world.uniform(-0.8, 0.8), world.uniform(-0.8, 0.8)) for name in names}
    records: list[EmotionRecord] = []
    truth: dict[str, Levels] = {}
    for number in range(count):
        name = names[number % len(names)]
        valence, arousal = (round(min(1.0, max(-1.0, rng.gauss(mean, 0.2))), 3) for mean in centers[name])
        units = {unit: rng.random() < (0.75 if unit in usual[name] else 0.05) for unit in FACIAL_UNITS}
        identity = f"simulated/{part}/{number:05d}"
        truth[identity] = Levels(name, valence, arousal, units)
        records.append(
            EmotionRecord(
                id=identity, image="none.jpg", split="train", source="simulated", emotion=name,
                label_set=EXPRESSIONS8.name, valence=valence, arousal=arousal,
                action_units={unit: 3.0 * active for unit, active in units.items()},
            )
        )  # fmt: skip
    return records, truth
