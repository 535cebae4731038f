"""Prompts of a benchmark: your own text or file, or a preset that describes a published evaluation.

A preset is a YAML file in `prompts/`. Its text is ours: it has the structure of the published prompt, and `differs`
says what is not the same. `{preset: emovit, file: original.txt}` takes the original text from a file of yours.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lavis_emovit.emotion.questions import CATEGORICAL_ANSWER_PREFIX
from lavis_emovit.errors import ConfigError
from lavis_emovit.files import regular_file
from lavis_emovit.paths import expand_home
from lavis_emovit.settings import Settings, nearest_name, read_yaml

Reading = Literal["strict", "first_line", "answer_tag", "result"]

OPTIONS = "{options}"
QUESTION = "{question}"
STATEMENT = "{statement}"
_PLACEHOLDERS = (OPTIONS, QUESTION, STATEMENT)
# One word in braces; `\\boxed{the emotion}` of an answer template is text.
_PLACEHOLDER = re.compile(r"\{\s*(\w*)\s*\}")
_PRESETS = Path(__file__).with_name("prompts")
_FILE_ENDINGS = (".txt", ".md", ".prompt", ".yaml", ".yml")


class PromptSettings(Settings):
    """A prompt, and what belongs to its evaluation.

    Attributes:
        text: the question, with `{options}` where the labels or options are listed, and `{question}` or `{statement}`
            for those of the records.
        name: in tables; a preset's, or that of the file.
        separator, last_separator: between the listed labels, and before the last one; null: the same.
        option_marks: marks of the listed labels, unless the benchmark chooses others.
        answer_prefix: comes before every scored candidate; null: `Predict emotion: ` if the text names it, else none.
        reading: how written answers are read: `strict`; `first_line`, the first label of the set that occurs anywhere
            in the first line; `answer_tag`, the same in what `<answer>` encloses, or in everything without the tag;
            `result`, strictly in the part of an answer template that states the result, as rewards read it.
        confidence: whether the text asks for a confidence, which is then read and measured.
        max_new_tokens, num_beams, repetition_penalty, length_penalty: of written answers; null: as without a prompt.
        source, licence, differs: of the published prompt: where it was read, its terms, and what is not the same here.
    """

    text: str = Field(min_length=1)
    name: str = Field(default="text", min_length=1)
    separator: str = ", "
    last_separator: str | None = None
    option_marks: Literal["none", "letters", "numbers"] | None = None
    answer_prefix: str | None = None
    reading: Reading = "strict"
    confidence: bool = False
    max_new_tokens: int | None = Field(default=None, ge=1)
    num_beams: int | None = Field(default=None, ge=1)
    repetition_penalty: float | None = Field(default=None, gt=0.0)
    length_penalty: float | None = None
    source: str = ""
    licence: str = ""
    differs: str = ""

    @model_validator(mode="after")
    def _placeholders_exist(self) -> PromptSettings:
        unknown = [name for name in _PLACEHOLDER.findall(self.text) if f"{{{name}}}" not in _PLACEHOLDERS]
        if unknown:
            named = ", ".join(f"{{{name}}}" for name in dict.fromkeys(unknown))
            raise ValueError(f"has {named}, but the placeholders are {', '.join(_PLACEHOLDERS)}")
        for name in _PLACEHOLDERS:
            if self.text.count(name) > 1:
                raise ValueError(f"has {name} {self.text.count(name)} times; keep one")
        return self

    @property
    def lists_options(self) -> bool:
        return OPTIONS in self.text

    @property
    def scored_prefix(self) -> str:
        """What comes before every scored candidate."""
        if self.answer_prefix is not None:
            return self.answer_prefix
        return CATEGORICAL_ANSWER_PREFIX if CATEGORICAL_ANSWER_PREFIX.strip() in self.text else ""

    @property
    def decoding(self) -> dict[str, float]:
        """The settings of written answers that not every model has."""
        names = ("num_beams", "repetition_penalty", "length_penalty")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def sha256(self) -> str:
        """Of everything that a model sees, but the labels."""
        seen = [self.text, self.separator, self.last_separator, self.scored_prefix]
        return hashlib.sha256(json.dumps(seen, ensure_ascii=False).encode()).hexdigest()

    def question(self, options: tuple[str, ...], asked: str = "") -> str:
        """The text with the options, in their order, and with the question or statement of the record."""
        listed = self.separator.join(options)
        if self.last_separator is not None and len(options) > 1:
            listed = self.separator.join(options[:-1]) + self.last_separator + options[-1]
        texts = {OPTIONS: listed, QUESTION: asked, STATEMENT: asked}
        # At once, because the texts of records may have braces.
        return _PLACEHOLDER.sub(lambda match: texts[f"{{{match[1]}}}"], self.text)


@functools.cache
def preset_names() -> tuple[str, ...]:
    """The prompts that ship, see `prompts/`."""
    return tuple(sorted(path.stem for path in _PRESETS.glob("*.yaml")))


def _read(value: Any) -> Any:
    """The values of a prompt that a suite names, writes out, or has in a file; ValueError if there is none."""
    if isinstance(value, str):
        return _from_text(value)
    if not isinstance(value, Mapping):
        return value
    values = dict(value)
    preset, file = values.pop("preset", None), values.pop("file", None)
    if file is not None and "text" in values:
        raise ValueError("has both 'text' and 'file'; keep one")
    found = _preset(str(preset)) if preset is not None else {}
    if file is not None:
        found |= _from_file(Path(str(file)))
    if preset is not None and (file is not None or "text" in values):
        found |= {"name": f"{preset}, text of {Path(str(file)).name if file is not None else 'the suite'}"}
    return {**found, **values}


def _from_text(text: str) -> dict[str, Any]:
    if text in preset_names():
        return _preset(text)
    if any(place in text for place in _PLACEHOLDERS) or (len(text.split()) > 1 and not text.endswith(_FILE_ENDINGS)):
        return {"text": text}
    if text.endswith(_FILE_ENDINGS) or "/" in text:
        return _from_file(Path(text))
    raise ValueError(
        f"'{text}' is neither a preset{nearest_name(text, list(preset_names()))} nor a file "
        f"({', '.join(_FILE_ENDINGS)}) nor a question; write the question, with {OPTIONS} where the labels are listed"
    )


def _preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise ValueError(f"there is no preset '{name}'{nearest_name(name, list(preset_names()))}")
    return {"name": name, **_from_file(_PRESETS / f"{name}.yaml")}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        text = regular_file(expand_home(path)).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: the prompt file cannot be read ({error.strerror}); check its path") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: the prompt file is not UTF-8 text") from None
    if path.suffix not in (".yaml", ".yml"):
        if not text.strip():
            raise ValueError(f"{path}: the prompt file is empty")
        return {"name": path.name, "text": text.rstrip("\n")}
    try:
        values = read_yaml(expand_home(path))
    except ConfigError as error:
        raise ValueError(f"{path}: {error.problems[0]}") from None
    return {"name": path.stem, **values}


# Type of a setting that holds a prompt. Written back, it contains the text itself, whatever becomes of the file.
Prompt = Annotated[PromptSettings, BeforeValidator(_read)]
