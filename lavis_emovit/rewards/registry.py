"""The rewards of answers, found by registration.

A module in this folder adds a reward with one object, which recipes, presets and exports then know by its name. Other
packages register theirs in a module that an entry point names, see docs/rl.md.

    register_reward(Reward("polite", measure=lambda answer, record, settings: float("please" in answer)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.registered import import_modules
from lavis_emovit.rewards.reading import true_labels
from lavis_emovit.settings import Settings, nearest_name, parse_settings

Range = tuple[float, float]
Need = Literal["label", "polarity", "votes", "action_units", "valence_arousal", "attributes", "judge", "model"]

# What a record must have -> how to see it, and its words.
_OF_RECORDS: Mapping[str, tuple[Callable[[EmotionRecord], bool], str]] = {
    "label": (lambda record: record.label_set is not None and bool(record.emotion or record.labels), "a label"),
    "polarity": (
        lambda record: record.label_set is not None and bool(get_label_set(record.label_set).polarity),
        "a label set with polarities",
    ),
    "votes": (lambda record: record.label_set is not None and bool(record.votes), "votes"),
    "action_units": (lambda record: record.action_units is not None, "action units"),
    "valence_arousal": (lambda record: (record.valence, record.arousal) != (None, None), "valence or arousal"),
    "attributes": (
        lambda record: any(value for name, value in record.attributes if not isinstance(value, float)),
        "attributes in words, such as its scene",
    ),
}
# What a reward asks during training.
_ASKED = {"judge": "a judge", "model": "the model that is trained"}
_MAX_NAMED = 3


class RewardSettings(Settings):
    """Settings that every reward has."""

    weight: float = Field(default=1.0, ge=-1e6, le=1e6)  # factor in the sum of the rewards


@dataclass(frozen=True)
class Question:
    """What a reward asks the trained model or a judge: about the image of the record, or about the text only."""

    text: str
    record: EmotionRecord
    with_image: bool


# Answers questions in their order. It raises if it cannot, so that a judge that is down never counts as a reward.
Ask = Callable[[Sequence[Question]], Sequence[str]]


@dataclass(frozen=True)
class Asked:
    """Whom rewards can ask; None: nobody."""

    model: Ask | None = None
    judge: Ask | None = None


@dataclass(frozen=True)
class Reward:
    """A reward of one answer.

    Attributes:
        measure: (answer, record, settings) -> finite number in `range`, the same for the same arguments. With
            `question`, it gets the reply as a fourth argument, None if there was nothing to ask.
        settings: class of its settings.
        range: least and greatest value; or a function of the settings that gives them.
        needs: what records must have, or whom it asks.
        fault: (record, settings) -> why the reward cannot be given for this record, or None.
        question: (answer, record, settings) -> what to ask, None to ask nothing; `needs` names `judge` or `model`.
    """

    name: str
    measure: Callable[..., float]
    settings: type[RewardSettings] = RewardSettings
    range: Range | Callable[[Any], Range] = (0.0, 1.0)
    needs: Set[Need] = frozenset()
    fault: Callable[[EmotionRecord, Any], str | None] | None = None
    question: Callable[[str, EmotionRecord, Any], Question | None] | None = None

    def range_of(self, settings: RewardSettings) -> Range:
        return self.range(settings) if callable(self.range) else self.range

    @property
    def summary(self) -> str:
        return (self.measure.__doc__ or "").strip().split("\n")[0]

    @property
    def module(self) -> str:
        return getattr(self.measure, "__module__", None) or "an unknown module"


_REWARDS: dict[str, Reward] = {}
_REFUSED: list[str] = []


def register_reward(reward: Reward) -> None:
    """Make a reward known. ConfigError if its name is taken, or if it has a question and names nobody to ask.

    `known_rewards` then raises the same error: LAVIS skips broken plugins, but training must not lack a reward. The
    main program, such as a notebook, may still choose another name.
    """
    if not reward.module.startswith(f"{__package__}."):
        import_modules(__package__)  # so that a package cannot take the name of a reward of this folder
    asked = set(reward.needs) & set(_ASKED)
    unknown = sorted(set(reward.needs) - set(_ASKED) - set(_OF_RECORDS))
    if reward.name in _REWARDS:
        problem = f"a reward '{reward.name}' is registered already, by {_REWARDS[reward.name].module}; rename yours"
    elif unknown:
        names = ", ".join([*_OF_RECORDS, *_ASKED])
        problem = f"reward '{reward.name}' needs {unknown}; the known needs are {names}, `fault` can check others"
    elif (reward.question is not None) != (len(asked) == 1):
        problem = f"reward '{reward.name}': a reward with a question needs 'judge' or 'model', and no other one does"
    else:
        _REWARDS[reward.name] = reward
        return
    problem = f"{reward.module}: {problem}"
    if reward.module != "__main__":
        _REFUSED.append(problem)
    raise ConfigError([problem], "the registered rewards")


def known_rewards() -> dict[str, Reward]:
    """Name -> reward, by name."""
    import_modules(__package__)
    if _REFUSED:
        raise ConfigError(_REFUSED, "the registered rewards")
    return dict(sorted(_REWARDS.items()))


def get_reward(name: str) -> Reward:
    """A reward by name. DataError for an unknown one."""
    rewards = known_rewards()
    if name not in rewards:
        raise DataError(f"unknown reward '{name}'{nearest_name(name, list(rewards))}")
    return rewards[name]


def parse_rewards(values: Mapping[str, Any], prefix: str) -> tuple[dict[str, RewardSettings], list[str]]:
    """Name of a reward -> its settings, from plain values (None: the defaults), and one line per problem."""
    chosen: dict[str, RewardSettings] = {}
    problems: list[str] = []
    known = known_rewards()
    if not values:
        problems.append(f"{prefix}: names no reward; the rewards are {', '.join(known)}")
    for name, given in values.items():
        if name not in known:
            problems.append(f"{prefix}.{name}: unknown reward{nearest_name(name, list(known))}")
            continue
        if not isinstance(given, Mapping | None):
            problems.append(f"{prefix}.{name}: expected the settings of the reward (got {given!r})")
            continue
        settings, found = parse_settings(known[name].settings, given or {}, f"{prefix}.{name}")
        problems += found
        if settings is not None:
            chosen[name] = settings
    if chosen and not problems and not any(settings.weight for settings in chosen.values()):
        problems.append(f"{prefix}: every weight is 0, so all answers would be equal; set the weight of one reward")
    return chosen, problems


def check_rewards(
    rewards: Mapping[str, RewardSettings], records: Iterable[EmotionRecord], asked: Asked | None = None
) -> None:
    """ConfigError if a reward lacks what it needs, in any record; it names reward, need, and the first records.

    Args:
        rewards: as `parse_rewards` returns them.
        asked: whom rewards can ask; None: this is not checked.
    """
    chosen = [(get_reward(name), settings) for name, settings in rewards.items()]
    problems = [
        f"reward '{reward.name}' asks {words}, and there is none"
        for reward, _ in chosen
        for need, words in _ASKED.items()
        if asked is not None and need in reward.needs and getattr(asked, need) is None
    ]
    faults: dict[tuple[str, str], list[str]] = {}
    for record in records:
        for reward, settings in chosen:
            for why in _faults(reward, settings, record):
                faults.setdefault((reward.name, why), []).append(record.id)
    for (name, why), ids in faults.items():
        named = ", ".join(f"'{one}'" for one in ids[:_MAX_NAMED])
        more = f" and {len(ids) - _MAX_NAMED} more" if len(ids) > _MAX_NAMED else ""
        problems.append(f"reward '{name}' {why}: record{'s' if len(ids) > 1 else ''} {named}{more}")
    if problems:
        raise ConfigError(problems, "the rewards")


def _faults(reward: Reward, settings: RewardSettings, record: EmotionRecord) -> list[str]:
    try:
        lacking = [
            f"needs {words}" for need, (has, words) in _OF_RECORDS.items() if need in reward.needs and not has(record)
        ]
        if not lacking and "label" in reward.needs:
            true_labels(record)
        if lacking or reward.fault is None:
            return lacking
        fault = reward.fault(record, settings)
    except DataError as error:
        reason = str(error).removeprefix(f"record '{record.id}': ")  # the message names all such records
        return [f"cannot use the label ({reason})"]
    return [fault] if fault is not None else []
