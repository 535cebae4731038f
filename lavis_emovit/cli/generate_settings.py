"""Typed settings of `emovit generate`, from options and the settings file; all problems are reported at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lavis_emovit.errors import ConfigError

if TYPE_CHECKING:
    from lavis_emovit.chat.settings import ChatSettings
    from lavis_emovit.generation.job import JobSettings
    from lavis_emovit.generation.mix import Mix
    from lavis_emovit.settings import Settings

    SettingsT = TypeVar("SettingsT", bound=Settings)

OFFLINE = "offline"
SECTIONS = ("chat", "judge", "job", "mix", "seke")


def read_settings(
    config: Path | None, chat: dict[str, Any], job: dict[str, Any], judge: str | None, mix: str | None
) -> tuple[ChatSettings | None, ChatSettings | None, JobSettings, tuple[str, Mix] | None]:
    """Combine the settings file (YAML with any of `SECTIONS`) with the given options, which take precedence.

    Returns the endpoint (None: the offline writer), that of the judge or None, the settings of the job, and name and
    parts of the mix or None. ConfigError lists all unknown keys and wrong values.
    """
    from lavis_emovit.chat.settings import ChatSettings
    from lavis_emovit.generation.job import JobSettings
    from lavis_emovit.generation.mix import MIXES, Mix
    from lavis_emovit.settings import nearest_name, parse_settings

    sections = _read_file(config)
    problems: list[str] = []

    def parse(cls: type[SettingsT], values: dict[str, Any], name: str) -> SettingsT | None:
        parsed, found = parse_settings(cls, values, name)
        problems.extend(found)
        return parsed

    chat_values = {"model": OFFLINE, **sections["chat"], **chat}
    endpoint = parse(ChatSettings, chat_values, "chat") if chat_values["model"] != OFFLINE else None
    wants_judge = bool(judge or sections["judge"])
    # Without a writer, address and limits apply to the judge.
    if endpoint is None and not wants_judge and not problems and set(chat_values) > {"model"}:
        given = sorted(set(chat_values) - {"model"})
        problems.append(f"chat: {', '.join(given)} need a chat model; add --model")
    judge_values = {**chat_values, "temperature": 0.0, **sections["judge"], **({"model": judge} if judge else {})}
    judge_endpoint = parse(ChatSettings, judge_values, "judge") if wants_judge else None
    job_settings = parse(JobSettings, {**sections["job"], **job}, "job")
    chosen: tuple[str, Mix] | None = None
    if mix is not None and mix not in MIXES:
        problems.append(f"--mix: unknown mix '{mix}'{nearest_name(mix, list(MIXES))}")
    elif mix is not None:
        chosen = (mix, MIXES[mix])
    elif sections["mix"]:
        custom = parse(Mix, sections["mix"], "mix")
        chosen = ("own", custom) if custom is not None else None
    if problems or job_settings is None:
        raise ConfigError(problems, str(config) if config and not (chat or job) else "the settings of this command")
    return endpoint, judge_endpoint, job_settings, chosen


def read_section(config: Path | None, name: str) -> dict[str, Any]:
    """One section of the settings file, unparsed. ConfigError if the file cannot be read or has unknown sections."""
    return _read_file(config)[name]


def _read_file(path: Path | None) -> dict[str, dict[str, Any]]:
    import yaml

    from lavis_emovit.settings import nearest_name

    if path is None:
        return {name: {} for name in SECTIONS}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"cannot be read as YAML ({error})"], str(path)) from None
    content = content if content is not None else {}
    if not isinstance(content, dict):
        raise ConfigError([f"expected the sections {', '.join(SECTIONS)}"], str(path))
    problems = [
        f"{name}: unknown section{nearest_name(str(name), list(SECTIONS))}" for name in content if name not in SECTIONS
    ]
    problems += [f"{name}: must be a mapping" for name in SECTIONS if not isinstance(content.get(name) or {}, dict)]
    if problems:
        raise ConfigError(problems, str(path))
    return {name: dict(content.get(name) or {}) for name in SECTIONS}
