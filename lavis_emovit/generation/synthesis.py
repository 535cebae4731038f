"""Label-gated synthesis: a model writes about faces with the truth in its prompt, and only texts that pass stay.

A tuned model and the texts that it writes improve each other in rounds (the loop of Facial-R1, 2025): write, check,
train on what passed, and write again, until the share of faces with an accepted text no longer rises. The checks, the
prompt and the rule for stopping are ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, model_validator

from lavis_emovit.chat.request import ChatRequest, Message, image_of
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.emotion.answer_units import read_action_units
from lavis_emovit.emotion.answers import read_emotion
from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors, facial_priors
from lavis_emovit.emotion.labels import LabelSet, get_label_set
from lavis_emovit.emotion.questions import STEPS_QUESTIONS, chooser
from lavis_emovit.errors import ConfigError
from lavis_emovit.files import atomic_writer, write_json
from lavis_emovit.generation.checks import check_pair
from lavis_emovit.generation.job import ChatWriter, Job, StepResult
from lavis_emovit.generation.kinds import KINDS, MAX_WORDS
from lavis_emovit.generation.reading import Pair
from lavis_emovit.generation.seke.levels import MARK, Case, Levels, evidence_of, known_levels
from lavis_emovit.own_files import read_own_if_any
from lavis_emovit.paths import RECORDS_NAME
from lavis_emovit.records import EmotionRecord, Instruction, read_records
from lavis_emovit.settings import FrozenModel, Settings

STEP = "synthesis"
ROUNDS = "rounds.json"
_OWN = f"{STEP}/"  # provenance of its texts begins with this
_OUTPUT_TOKENS = 200
_PARTS = re.compile(
    r"\s*Observation:\s*(?P<observation>\S.*?)\s*\n\s*Interpretation:\s*(?P<interpretation>\S.*?)\s*\n"
    r"\s*Conclusion:\s*(?P<conclusion>\S.*?)\s*",
    re.DOTALL,
)
_PART_NAME = re.compile(r"\b(?:observation|interpretation|conclusion)\s*:", re.IGNORECASE)
_FORM = replace(KINDS["explanation"], words=(20, MAX_WORDS))


class SynthesisSettings(Settings):
    """When rounds end, and which units are active."""

    least_rise: float = Field(default=0.01, ge=0.0, le=1.0)  # rise of the acceptance rate for another round
    active_from: float = Field(default=1.0, gt=0.0, le=5.0)  # lowest intensity of an active unit


class Round(FrozenModel):
    """A finished round.

    Attributes:
        num_faces: faces that the model replied about.
        num_accepted: of these, with a text that passed.
        reasons: why replies did not pass; one may have several reasons.
    """

    model: str
    num_faces: NonNegativeInt
    num_accepted: NonNegativeInt
    reasons: dict[str, NonNegativeInt] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _accepted_are_faces(self) -> Round:
        if self.num_accepted > self.num_faces:
            raise ValueError("more texts are accepted than there are faces")
        return self

    @property
    def rate(self) -> float:
        return self.num_accepted / self.num_faces if self.num_faces else 0.0


def read_rounds(folder: Path) -> list[Round]:
    """The finished rounds of a folder; none without the file. DataError if it is damaged."""
    return read_own_if_any(folder / ROUNDS, list[Round], "Use another --out.") or []


def is_over(rounds: Sequence[Round], least_rise: float) -> bool:
    """Whether the acceptance rate rose by less than `least_rise` in the last round."""
    return len(rounds) > 1 and rounds[-1].rate - rounds[-2].rate < least_rise


def check_text(text: str, levels: Levels, label: str, label_set: LabelSet) -> list[str]:
    """Why a text cannot stay, by name; empty if it passes.

    `format`: not the three parts. `missing_units`, `false_units`: an active unit is not named, or denied; one that is
    not active is claimed. `unverified_units`: a unit is claimed that nobody coded. `unclear_units`: a unit is claimed
    and denied. `wrong_label`: the conclusion names another expression; `no_label`: none. The others are those of
    `check_pair`.
    """
    parts = _PARTS.fullmatch(text)
    if parts is None or len(_PART_NAME.findall(text)) != 3:
        return ["format"]
    failed = check_pair(Pair(STEPS_QUESTIONS[0], text), _FORM, None, None)
    named = read_action_units(text, sorted({*FACIAL_UNITS, *levels.units}))
    values = {} if named.status == "invalid" else {int(one[2:]): value for one, value in named.values.items()}
    active = {unit for unit, value in values.items() if value}
    if None in values.values():
        failed.append("unclear_units")
    elif not active >= set(levels.active()):
        failed.append("missing_units")
    if any(levels.units.get(unit) is False for unit in active):
        failed.append("false_units")
    if not active <= set(levels.units):
        failed.append("unverified_units")
    read = read_emotion(parts["conclusion"], label_set)
    if read.label != label_set.canonical(label):
        failed.append("no_label" if read.label is None else "wrong_label")
    return failed


def synthesise(job: Job, chat: ChatSettings, settings: SynthesisSettings) -> StepResult:
    """One round: `chat` writes a text about each face with an expression and coded units, and the good ones stay.

    Texts that pass become instructions of the kind `explanation`, in place of those of earlier rounds; a face without
    a new one keeps its earlier one if that still passes. `rejected/synthesis.jsonl` has the others with their reasons,
    `rounds.json` the counts of each finished round. Generated levels are no truth, so their faces are left out.

    Raises:
        ConfigError: the rounds are over, or the model belongs to an earlier round.
    """
    rounds = _open_rounds(job.folder, chat.model, settings.least_rise)
    result = StepResult(STEP)

    def is_usable(record: EmotionRecord) -> bool:
        reason = _unusable(record)
        if reason is not None:
            result.notes[reason] = result.notes.get(reason, 0) + 1
        return reason is None

    faces = job.chosen().where(is_usable)
    result.num_records = len(faces)
    texts: dict[int, tuple[str, int]] = {}
    replied: set[int] = set()
    rejected: list[dict[str, Any]] = []

    def use(number: int, record: EmotionRecord, row: dict[str, Any], sample: int) -> bool:
        replied.add(number)
        text = str(row.get("reply") or "").strip()
        failed = [row["status"]] if row["status"] != "ok" else _check(text, record, settings)
        if failed:
            result.reject(*failed)
            rejected.append({"record": record.id, "sample": sample, "reasons": failed, "reply": text})
        else:
            texts[number] = text, sample
        return not failed

    prompt = job.writer(chat, STEP, facts=False).prompt
    writer = _Writer(chat, prompt, STEP, image_root=job.image_root, active_from=settings.active_from)
    job.request_replies(faces, writer, result, label=STEP, output_tokens=_OUTPUT_TOKENS, use=use)
    if job.dry_run:
        return result
    earlier = _earlier(job.folder / RECORDS_NAME)
    for number, record in faces.items():
        new = earlier.get(record.id)
        if new is not None and _check(new.answer, record, settings):
            new = None  # the truth or the checks have changed
        if number in texts:
            text, sample = texts[number]
            question = chooser(STEP, record.id, job.settings.seed).choice(STEPS_QUESTIONS)
            by = f"{_OWN}{writer.prompt.name.removeprefix(_OWN)} {writer.name}#{sample}"
            new = Instruction(kind="explanation", question=question, answer=text, provenance=by)
        others = [item for item in record.instructions if not _is_own(item)]
        job.put(number, record.model_copy(update={"instructions": [*others, *filter(None, [new])]}))
        result.num_done += new is not None
    with atomic_writer(job.folder / "rejected" / f"{STEP}.jsonl") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rejected)
    result.num_pairs = result.num_done
    result.notes["accepted in this round"] = len(texts)
    if not result.stopped and not result.under_way:
        rounds.append(
            Round(
                model=chat.model,
                num_faces=len(replied),
                num_accepted=len(texts),
                reasons=dict(result.reasons.most_common()),
            )
        )
        write_json(job.folder / ROUNDS, [one.model_dump() for one in rounds])
    return result


def _open_rounds(folder: Path, model: str, least_rise: float) -> list[Round]:
    """The rounds before that of a model, which may be the last one again."""
    rounds = read_rounds(folder)
    models = [one.model for one in rounds]
    if model in models[:-1]:
        number = models.index(model) + 1
        problem = f"'{model}' wrote round {number} of {len(models)}; a retrained model needs a name of its own"
        raise ConfigError([problem], str(folder / ROUNDS))
    if model in models:
        return rounds[:-1]
    if is_over(rounds, least_rise):
        raise ConfigError(
            [
                f"the acceptance rate was {rounds[-2].rate:.3f}, then {rounds[-1].rate:.3f}, so the rounds are over; "
                "use a smaller --least-rise, or another --out"
            ],
            str(folder / ROUNDS),
        )
    return rounds


def _unusable(record: EmotionRecord) -> str | None:
    if f"{MARK}given" in record.extra:
        return "with generated levels"
    if record.emotion is None:
        return "without an expression"
    return None if record.action_units else "without coded units"


def _check(text: str, record: EmotionRecord, settings: SynthesisSettings) -> list[str]:
    levels = known_levels(record, settings.active_from)
    return check_text(text, levels, str(record.emotion), get_label_set(str(record.label_set)))


def _is_own(instruction: Instruction) -> bool:
    return instruction.provenance.startswith(_OWN)


def _earlier(path: Path) -> dict[str, Instruction]:
    """The texts of earlier rounds by the id of their record."""
    if not path.is_file():
        return {}
    return {record.id: item for record in read_records(path) for item in record.instructions if _is_own(item)}


@dataclass(frozen=True)
class _Writer(ChatWriter):
    """Sends the truth and one image: the face itself if the record has its box. Models of `emovit serve` take one."""

    active_from: float = 1.0

    def request(self, record: EmotionRecord, sample: int = 0, more: str = "") -> ChatRequest:
        chat = self.settings
        assert self.image_root is not None
        sizes = (chat.image_max_side_px, chat.image_quality, chat.image_detail)
        image = replace(image_of(self.image_root / record.image, *sizes), box=record.box)
        text = truth_text(record, known_levels(record, self.active_from), facial_priors())
        return ChatRequest(
            model=chat.model,
            messages=(Message("system", self.prompt.text), Message("user", text, (image,))),
            parameters=chat.parameters(),
            prompt=self.prompt.name,
            sample=sample,
            about={"record": record.id, "kind": STEP},
        )


def truth_text(record: EmotionRecord, levels: Levels, priors: FacialPriors) -> str:
    """The truth about a face, as lines for a model: expression, active units with intensities, and the others."""
    intensities = evidence_of(Case(record, levels, ()), priors).intensities

    def named(unit: int) -> str:
        strength = f", intensity {intensities[unit]:.1f} of 5" if unit in intensities else ""
        return f"AU{unit} ({priors.unit_name(unit)}{strength})"

    active = ", ".join(named(unit) for unit, is_active in sorted(levels.units.items()) if is_active)
    others = ", ".join(f"AU{unit}" for unit, is_active in sorted(levels.units.items()) if not is_active)
    lines = [f"Expression: {record.emotion}", f"Active action units: {active or 'none'}"]
    return "\n".join([*lines, *([f"Not active: {others}"] if others else [])])
