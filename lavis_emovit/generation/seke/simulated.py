"""A simulated annotator: faces with known truth, and answers that are wrong in known ways.

It stands in for a chat model in tests and in the benchmark. It shows whether sampling, voting and verification do what
they are for under stated errors; it says nothing about how often a real model errs.
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
    """How a simulated annotator errs.

    Attributes:
        expression: how often an answer's expression is wrong, over all faces; faces differ in difficulty.
        valence_bias, arousal_bias: added to every answer.
        affect_noise: standard deviation of an answer's valence and arousal around the truth, bias aside, on a face of
            mean difficulty.
        missed, imagined: how often an active unit is not named, and an inactive one is.
        shared: correlation of a face's errors: with this probability a class or unit answer repeats the mistake (or
            the truth) that the face brings about every time; this share of the variance of valence and arousal is the
            face's own.
        even: all faces are equally hard; else some are up to twice as hard as the mean, and others not hard at all.
        prior_gain: share of the errors that go away when the answer is told what the tables make likely.
        unreadable: how often an answer is no JSON.
        caught: how often a review finds a wrong level; of these it corrects `corrected`, and discards the others.
        false_alarm: how often a review discards a right level.
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


# A level counts as wrong to a review when valence or arousal is farther off, or more units are wrong, than this.
AFFECT_TOLERANCE = 0.2
UNITS_TOLERANCE = 2


class SimulatedAnnotator:
    """Answers from the truth, with errors; the same for the same seed, face and sample.

    Args:
        truth: record id -> all three levels.
        errors: how it errs.
        seed: of all draws.
    """

    kind: Literal["model", "prior"] = "model"

    def __init__(self, truth: Mapping[str, Levels], errors: Errors | None = None, seed: int = 0):
        self.name = "simulated"
        self.stopped: str | None = None
        self.num_calls = 0
        self._truth = truth
        self._errors = errors or Errors()
        self._seed = seed

    def ask(self, label: str, questions: Sequence[Question]) -> list[Reply | None]:
        """See `Annotator`."""
        self.num_calls += len(questions)
        return [self._review(item) if item.proposal is not None else self._answer(item) for item in questions]

    def _rng(self, *parts: object) -> random.Random:
        return random.Random("/".join(map(str, (self._seed, *parts))))

    def _answer(self, question: Question) -> Reply:
        case, errors, truth = question.case, self._errors, self._truth[question.case.record.id]
        name = case.record.id
        own = self._rng("answer", name, question.sample)
        if own.random() < errors.unreadable:
            return Reply("I am not sure what to say about this face.")
        rate = 1.0 - errors.prior_gain if question.hinted else 1.0
        face = self._rng("face", name)
        difficulty = 2.0 * face.random()  # mean 1 over faces
        if errors.even:
            difficulty = 1.0
        levels = Levels(
            self._expression(truth, case, min(0.9, errors.expression * rate * difficulty), face, own),
            *self._point(truth, rate, difficulty, face, own),
            {unit: self._unit(truth.units[unit], rate, difficulty, face, own) for unit in FACIAL_UNITS},
        )
        units = {unit: levels.units[unit] for unit in case.units}
        levels = Levels(levels.expression, levels.valence, levels.arousal, units)
        return Reply(json.dumps(levels.only(case.wanted).plain()))

    def _expression(self, truth: Levels, case: Case, rate: float, face: random.Random, own: random.Random) -> str:
        assert truth.expression is not None
        wrong = sorted(set(case.classes) - {truth.expression})
        # Both draws are made every time, so that a face's own mistake does not depend on the sample.
        of_face = face.choice(wrong) if face.random() < rate else truth.expression
        of_answer = own.choice(wrong) if own.random() < rate else truth.expression
        return of_face if own.random() < self._errors.shared else of_answer

    def _point(
        self, truth: Levels, rate: float, difficulty: float, face: random.Random, own: random.Random
    ) -> tuple[float, float]:
        errors, found = self._errors, []
        for value, bias in ((truth.valence, errors.valence_bias), (truth.arousal, errors.arousal_bias)):
            assert value is not None
            noise = errors.shared**0.5 * face.gauss(0, 1) + (1 - errors.shared) ** 0.5 * own.gauss(0, 1)
            moved = value + rate * (bias + difficulty * errors.affect_noise * noise)
            found.append(round(min(1.0, max(-1.0, moved)), 3))
        return found[0], found[1]

    def _unit(self, active: bool, rate: float, difficulty: float, face: random.Random, own: random.Random) -> bool:
        wrong = min(0.9, (self._errors.missed if active else self._errors.imagined) * rate * difficulty)
        of_face, of_answer = face.random() < wrong, own.random() < wrong
        return active != (of_face if own.random() < self._errors.shared else of_answer)

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
    """Whether a level is close enough to the truth for a review to let it pass."""
    if level == "expression":
        return levels.expression == truth.expression
    if level == "affect":
        pairs = ((levels.valence, truth.valence), (levels.arousal, truth.arousal))
        return all(
            one is not None and other is not None and abs(one - other) <= AFFECT_TOLERANCE for one, other in pairs
        )
    return sum(active != truth.units[unit] for unit, active in levels.units.items()) <= UNITS_TOLERANCE


def simulated_faces(count: int, priors: FacialPriors, seed: int = 0) -> tuple[list[EmotionRecord], dict[str, Levels]]:
    """Faces that follow the tables loosely, without any picture.

    The classes are even; a point lies in its expression's region (a tenth of them anywhere); each unit of one prototype
    is active in 3 of 4 faces, each other one in 1 of 20.

    Returns:
        records that know nothing, and the truth by record id.
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
        wanted = rng.choice(priors.expressions[name].prototypes).units
        units = {unit: rng.random() < (0.75 if unit in wanted else 0.05) for unit in FACIAL_UNITS}
        identity = f"simulated/{number:05d}"
        truth[identity] = Levels(name, valence, arousal, units)
        records.append(EmotionRecord(id=identity, image="none.jpg", split="train", source="simulated"))
    return records, truth
