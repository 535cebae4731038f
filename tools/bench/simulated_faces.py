"""Simulated faces with known truth, and a simulated annotator with known errors.

The annotator replaces a chat model in the benchmark and in tests. It shows whether sampling, voting and verification
work with given error rates. It does not show the error rates of a real model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors
from lavis_emovit.generation.seke.annotators import Question, Reply
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
        shared: correlation of the errors of a face. With this probability, an expression or unit is that of the face's
            fixed answer. The same share of the variance of valence and arousal is fixed for the face.
        even: whether all faces are equally difficult; otherwise the difficulty varies from zero to twice the mean.
        prior_gain: share of errors avoided if the question contains likely values from the tables.
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
    shared: float = Field(default=0.3, ge=0.0, le=1.0)
    even: bool = False
    prior_gain: float = Field(default=0.2, ge=0.0, le=1.0)
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
        hinted: whether questions contain likely values from the tables.
    """

    kind: Literal["model", "prior"] = "model"
    prompts = ""
    under_way = 0

    def __init__(self, truth: Mapping[str, Levels], errors: Errors | None = None, seed: int = 0, hinted: bool = True):
        self.name = "simulated"
        self.stopped: str | None = None
        self.num_calls = 0
        self._truth = truth
        self._errors = errors or Errors()
        self._seed = seed
        self._hinted = hinted

    def ask(self, label: str, questions: Sequence[Question]) -> list[Reply | None]:
        """See `Annotator`."""
        self.num_calls += len(questions)
        return [self._review(item) if item.proposal is not None else self._answer(item) for item in questions]

    def _rng(self, *parts: object) -> random.Random:
        return random.Random("/".join(map(str, (self._seed, *parts))))

    def _answer(self, question: Question) -> Reply:
        case, errors, truth = question.case, self._errors, self._truth[question.case.record.id]
        name = case.record.id
        sample = self._rng("answer", name, question.sample)
        if sample.random() < errors.unreadable:
            return Reply("I am not sure what to say about this face.")
        rate = 1.0 - errors.prior_gain if self._hinted else 1.0
        face = self._rng("face", name)
        difficulty = 2.0 * face.random()  # mean 1 over faces
        if errors.even:
            difficulty = 1.0
        levels = Levels(
            self._expression(truth, case, min(0.9, errors.expression * rate * difficulty), face, sample),
            *self._point(truth, rate, difficulty, face, sample),
            {unit: self._unit(truth.units[unit], rate, difficulty, face, sample) for unit in FACIAL_UNITS},
        )
        units = {unit: levels.units[unit] for unit in case.units}
        levels = Levels(levels.expression, levels.valence, levels.arousal, units)
        return Reply(json.dumps(levels.only(case.wanted).plain()))

    def _expression(self, truth: Levels, case: Case, rate: float, face: random.Random, sample: random.Random) -> str:
        assert truth.expression is not None
        wrong = sorted(set(case.classes) - {truth.expression})
        # Draw both in every case, so that the fixed answer of the face does not depend on the sample.
        of_face = face.choice(wrong) if face.random() < rate else truth.expression
        of_sample = sample.choice(wrong) if sample.random() < rate else truth.expression
        return of_face if sample.random() < self._errors.shared else of_sample

    def _point(
        self, truth: Levels, rate: float, difficulty: float, face: random.Random, sample: random.Random
    ) -> tuple[float, float]:
        errors, values = self._errors, []
        for value, bias in ((truth.valence, errors.valence_bias), (truth.arousal, errors.arousal_bias)):
            assert value is not None
            noise = errors.shared**0.5 * face.gauss(0, 1) + (1 - errors.shared) ** 0.5 * sample.gauss(0, 1)
            answered = value + rate * (bias + difficulty * errors.affect_noise * noise)
            values.append(round(min(1.0, max(-1.0, answered)), 3))
        return values[0], values[1]

    def _unit(self, active: bool, rate: float, difficulty: float, face: random.Random, sample: random.Random) -> bool:
        wrong = min(0.9, (self._errors.missed if active else self._errors.imagined) * rate * difficulty)
        of_face, of_sample = face.random() < wrong, sample.random() < wrong
        return active != (of_face if sample.random() < self._errors.shared else of_sample)

    def _review(self, question: Question) -> Reply:
        assert question.proposal is not None
        errors, truth = self._errors, self._truth[question.case.record.id]
        rng = self._rng("review", question.case.record.id)
        verdicts: dict[str, str] = {}
        correct = []
        for level in question.case.wanted:
            if is_right(question.proposal, truth, level):
                verdict = "discard" if rng.random() < errors.false_alarm else "keep"
            elif rng.random() < errors.caught:
                verdict = "correct" if rng.random() < errors.corrected else "discard"
            else:
                verdict = "keep"
            verdicts[f"{level}_verdict"] = verdict
            correct += [level] if verdict == "correct" else []
        units = {unit: truth.units[unit] for unit in question.case.units}
        right = Levels(truth.expression, truth.valence, truth.arousal, units).only(correct)
        values = right.over(question.proposal).only(question.case.wanted).plain()
        return Reply(json.dumps({**values, **verdicts, "reason": "simulated"}))


def is_right(levels: Levels, truth: Levels, level: str) -> bool:
    """Whether a review should accept a level."""
    if level == "expression":
        return levels.expression == truth.expression
    if level == "affect":
        pairs = ((levels.valence, truth.valence), (levels.arousal, truth.arousal))
        return all(
            one is not None and other is not None and abs(one - other) <= AFFECT_TOLERANCE for one, other in pairs
        )
    return sum(active != truth.units[unit] for unit, active in levels.units.items()) <= UNITS_TOLERANCE


def simulated_faces(count: int, priors: FacialPriors, seed: int = 0) -> tuple[list[EmotionRecord], dict[str, Levels]]:
    """Faces without images whose levels roughly follow the tables.

    Classes are balanced. 90 % of the valence-arousal points are in the region of their expression, the others are
    uniform. A unit of the chosen prototype is active with probability 0.75, any other unit with 0.05.

    Returns:
        records without labels, and the truth by record id.
    """
    rng = random.Random(f"faces/{seed}")
    records: list[EmotionRecord] = []
    truth: dict[str, Levels] = {}
    names = sorted(priors.expressions)
    for number in range(count):
        name = names[number % len(names)]
        region = priors.region(name)
        anywhere = rng.random() < 0.1
        valence, arousal = (
            round(rng.uniform(-1, 1) if anywhere else rng.uniform(low, high), 3)
            for low, high in (region.valence, region.arousal)
        )
        prototype = rng.choice(priors.expressions[name].prototypes).units
        units = {unit: rng.random() < (0.75 if unit in prototype else 0.05) for unit in FACIAL_UNITS}
        identity = f"simulated/{number:05d}"
        truth[identity] = Levels(name, valence, arousal, units)
        records.append(EmotionRecord(id=identity, image="none.jpg", split="train", source="simulated"))
    return records, truth
