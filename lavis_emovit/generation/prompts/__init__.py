"""Prompts in versioned files: `<name>.<version>.txt`. A changed text is a new version, and a new fingerprint."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lavis_emovit.errors import UserError
from lavis_emovit.generation.facts import ALL_FACTS, FactName, facts_text
from lavis_emovit.records import Attributes, EmotionRecord

FOLDER = Path(__file__).resolve().parent
LATEST = {
    "conversation": 1,
    "reasoning": 1,
    "description": 1,
    "explanation": 1,
    "caption": 1,
    "attributes": 1,
    "judge": 1,
}
_EXAMPLES = "examples.1.json"
# What a template of another program would fill in; JSON that is shown to a model has quotes behind its brace.
_PLACEHOLDER = re.compile(r"\{\{?\w+\}?\}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """The constant part of a request.

    Attributes:
        name: `conversation/1`; a file of the user's own is `<its name>@<hash>`.
        text: the system message, examples included. It is the same for a whole run, so endpoints can cache it.
        sha256: of the text, in hex.
    """

    name: str
    text: str
    sha256: str


def load_prompt(
    name: str,
    *,
    version: int | None = None,
    file: Path | None = None,
    num_examples: int = 0,
    facts: Sequence[FactName] = ALL_FACTS,
    seed: int = 0,
) -> Prompt:
    """A prompt with examples from several emotions.

    Args:
        name: `conversation`, `reasoning`, ...
        version: of the built-in text; None is the latest.
        file: a text of the user's own instead.
        num_examples: worked examples, each of another emotion.
        facts: what the examples show, as the requests do.
        seed: of the choice of examples.

    Raises:
        UserError: no such prompt, version or file, an empty file, or more examples than there are.
    """
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: the prompt cannot be read ({error})") from None
        if not text:
            raise UserError(f"{file}: the prompt is empty; it must say what the model is to do, and how to reply")
        strays = sorted(set(_PLACEHOLDER.findall(text)))
        if strays:
            logger.warning("%s: %s is sent as it stands; prompts have no placeholders", file, ", ".join(strays))
        title = f"{file.stem}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    else:
        number = version or LATEST.get(name, 1)
        path = FOLDER / f"{name}.{number}.txt"
        if not path.is_file():
            known = sorted(found.name.removesuffix(".txt") for found in FOLDER.glob("*.txt"))
            raise UserError(f"no prompt '{name}' in version {number} (there are: {', '.join(known)})")
        text, title = path.read_text(encoding="utf-8").strip(), f"{name}/{number}"
    if num_examples:
        text += "\n\n" + _examples_text(name, num_examples, facts, seed)
    return Prompt(title, text, hashlib.sha256(text.encode()).hexdigest())


def with_text(prompt: Prompt, more: str) -> Prompt:
    """The prompt with further text behind it."""
    text = f"{prompt.text}\n\n{more}"
    return Prompt(prompt.name, text, hashlib.sha256(text.encode()).hexdigest())


@cache
def examples() -> list[dict[str, Any]]:
    """The worked examples: `emotion`, `facts`, and `replies` by kind."""
    return json.loads((FOLDER / _EXAMPLES).read_text(encoding="utf-8"))


def example_record(example: dict[str, Any]) -> EmotionRecord:
    """The record of the picture that an example is about; there is no such picture."""
    facts = dict(example["facts"])
    caption = facts.pop("caption")
    return EmotionRecord(
        id=f"example/{example['emotion']}",
        image="none.jpg",
        split="train",
        source="example",
        emotion=example["emotion"],
        label_set="mikels8",
        caption=caption,
        attributes=Attributes(**facts),
    )


def _examples_text(name: str, count: int, facts: Sequence[FactName], seed: int) -> str:
    usable = [example for example in examples() if name in example["replies"]]
    if count > len(usable):
        raise UserError(f"the prompt '{name}' has {len(usable)} examples, {count} were asked for")
    chosen = random.Random(f"examples/{name}/{seed}").sample(usable, count)
    parts = [
        f"Example {number}. Known about the picture:\n{facts_text(example_record(example), facts)}\n"
        f"Reply:\n{json.dumps(example['replies'][name], ensure_ascii=False)}"
        for number, example in enumerate(chosen, start=1)
    ]
    return "\n\n".join(parts)
