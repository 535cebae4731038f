"""Writes rewards as a plug-in file of another trainer."""

from __future__ import annotations

import pprint
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from lavis_emovit.distributed.versions import package_versions
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.files import atomic_writer
from lavis_emovit.records import RECORD_KEY
from lavis_emovit.rewards import get_reward
from lavis_emovit.rewards.presets import Preset, load_preset
from lavis_emovit.settings import nearest_name


class PluginFormat(NamedTuple):
    """How a trainer calls rewards: the code after the settings, and how to use the file."""

    trainer: str
    code: str
    usage: str


_VERL = f'''

def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    """Called with keywords for one answer; `score` is the reward, all other keys are logged."""
    (score,) = REWARDS.score([solution_str], [(extra_info or {{}}).get("{RECORD_KEY}")])
    return {{"score": score.total, **score.parts}}
'''
_EASYR1 = '''
REWARD_NAME = "emovit"
REWARD_TYPE = "batch"


def compute_score(reward_inputs):
    """Called for a batch; `overall` is the reward, all other keys are logged."""
    scores = REWARDS.score([one["response"] for one in reward_inputs], [one["ground_truth"] for one in reward_inputs])
    return [{"overall": score.total, **score.parts} for score in scores]
'''
_SWIFT = f'''
from swift.rewards import ORM, orms  # noqa: E402


class EmovitReward(ORM):
    """The weighted sum."""

    def __call__(self, completions, **kwargs):
        records = kwargs.get("{RECORD_KEY}") or [None] * len(completions)
        return [score.total for score in REWARDS.score(completions, records)]


orms["emovit"] = EmovitReward
'''
PLUGINS = {
    "verl": PluginFormat(
        "verl 0.9.1 (verl/experimental/reward_loop/reward_manager/naive.py)",
        _VERL,
        "reward.custom_reward_function.path={out} reward.custom_reward_function.name=compute_score, "
        "with data of `emovit export data --format verl`",
    ),
    "easyr1": PluginFormat(
        "EasyR1 at commit b44b311 (verl/workers/reward/function.py)",
        _EASYR1,
        f"worker.reward.reward_function={{out}}:compute_score data.answer_key={RECORD_KEY}, "
        "with data of `emovit export data --format easyr1`",
    ),
    "ms-swift": PluginFormat(
        "ms-swift 4.6.0 (swift/rewards/orm.py)",
        _SWIFT,
        "swift rlhf --rlhf_type grpo --external_plugins {out} --reward_funcs emovit, "
        "with data of `emovit export data --format ms-swift`",
    ),
}


def export_rewards(
    name: str,
    format_name: str,
    out: Path,
    *,
    options: Sequence[str] = (),
    leave_out: Collection[str] = (),
    overwrite: bool = False,
) -> str:
    """Write a preset of rewards as a Python file for another trainer; returns how to use it.

    Args:
        name, options, leave_out: as in `load_preset`.
        format_name: a key of `PLUGINS`.

    Raises:
        ConfigError: an unknown format, wrong overrides, or a reward that has to ask somebody.
        DataError: an unknown preset, or a file that exists.
    """
    if format_name not in PLUGINS:
        hint = nearest_name(format_name, list(PLUGINS))
        raise ConfigError([f"--format: unknown format '{format_name}'{hint}; the formats are {', '.join(PLUGINS)}"])
    preset = load_preset(name, options, leave_out)
    asking = [one for one in preset.rewards if get_reward(one).question is not None]
    if asking:
        raise ConfigError(
            [
                f"reward '{one}' asks the model or a judge during training, which {format_name} does not offer; "
                f"--leave-out {','.join(asking)} exports the others"
                for one in asking
            ],
            f"preset '{preset.name}'",
        )
    if out.exists() and not overwrite:
        raise DataError(f"{out}: already exists; use another --out, or --overwrite")
    with atomic_writer(out) as file:
        file.write(_content(preset, PLUGINS[format_name], out))
    return PLUGINS[format_name].usage.format(out=out)


def _content(preset: Preset, plugin: PluginFormat, out: Path) -> str:
    version = package_versions().get("lavis-emovit", "(not installed)")
    values = {one: settings.model_dump(mode="json") for one, settings in preset.rewards.items()}
    head = (
        f"Rewards of lavis-emovit {version} for {plugin.trainer}: preset {preset.name}.\n\n"
        "Written by `emovit export rewards`; the settings below can be edited. lavis-emovit must be installed beside\n"
        f"the trainer. Use:\n\n    {plugin.usage.format(out=out.name)}\n"
    )
    # Names of files may have quotes and backslashes.
    escaped = head.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f'"""{escaped}"""\n\n'
        "from lavis_emovit.rewards.plugins import RecordRewards\n\n"
        f"SETTINGS = {pprint.pformat(values, sort_dicts=False, width=118)}\n"
        "REWARDS = RecordRewards(SETTINGS)\n"
        f"{plugin.code}"
    )
