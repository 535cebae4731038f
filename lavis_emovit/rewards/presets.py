"""Published combinations of rewards, one YAML file each in `lavis_configs/rewards/`, loaded by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from lavis_emovit.emotion.templates import TemplateName
from lavis_emovit.errors import ConfigError, DataError, first_line
from lavis_emovit.paths import config_root
from lavis_emovit.rewards.combination import RewardSum
from lavis_emovit.rewards.registry import Asked, RewardSettings, parse_rewards
from lavis_emovit.settings import Settings, merge_settings, nearest_name, plain_values, read_yaml, valid_settings


class Schedule(Settings):
    """Published settings of the training; None where the source states none."""

    num_generations: int | None = Field(default=None, ge=2)  # answers to one question
    temperature: float | None = Field(default=None, gt=0.0)
    learning_rate: float | None = Field(default=None, gt=0.0)
    kl: float | None = Field(default=None, ge=0.0)  # weight of the divergence from the first model
    epochs: int | None = Field(default=None, ge=1)
    max_answer_tokens: int | None = Field(default=None, ge=1)
    scale_rewards: bool | None = None  # whether advantages are divided by the group's standard deviation


class PresetSettings(Settings):
    """A file of a preset; `rewards` is checked by the classes of the rewards."""

    template: TemplateName
    source: str = Field(min_length=1)
    rewards: dict[str, Any]
    schedule: Schedule = Schedule()


class Preset:
    """A combination of rewards with its template and the published settings of its training."""

    def __init__(self, name: str, settings: PresetSettings, rewards: Mapping[str, RewardSettings]):
        self.name, self.settings, self.rewards = name, settings, dict(rewards)

    @property
    def template(self) -> str:
        return self.settings.template

    @property
    def schedule(self) -> Schedule:
        return self.settings.schedule

    def sum(self, asked: Asked | None = None) -> RewardSum:
        return RewardSum(self.rewards, asked)


def preset_files() -> dict[str, Path]:
    """Name -> file of every preset of this package."""
    return {path.stem: path for path in sorted((config_root() / "rewards").glob("*.yaml"))}


def load_preset(name: str, options: Sequence[str] = (), leave_out: Collection[str] = ()) -> Preset:
    """A preset by its name, or by the path of a YAML file.

    Args:
        options: overrides, such as `rewards.label_exact.weight=0.7`.
        leave_out: names of rewards of the preset that are not used.

    Raises:
        DataError: unknown name. ConfigError: all problems of the file and the overrides.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = Path(name) if name.endswith((".yaml", ".yml")) else preset_files().get(name)
    if path is None or not path.is_file():
        raise DataError(
            f"unknown preset of rewards '{name}'{nearest_name(name, list(preset_files()))}; "
            "a file of your own has a name that ends with .yaml"
        )
    content = read_yaml(path)
    try:
        tree = merge_settings(OmegaConf.create(content), OmegaConf.from_dotlist(list(options)))
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise ConfigError([f"--options: {first_line(error)}"], str(path)) from None
    settings = valid_settings(PresetSettings, plain_values(tree), path.stem, str(path))
    problems = [
        f"{one}: no reward of the preset{nearest_name(one, list(settings.rewards))}"
        for one in leave_out
        if one not in settings.rewards
    ]
    chosen = {one: given for one, given in settings.rewards.items() if one not in leave_out}
    rewards, found = parse_rewards(chosen, "rewards")
    if problems or found:
        raise ConfigError([*problems, *found], str(path))
    return Preset(path.stem, settings, rewards)
