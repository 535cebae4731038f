"""Prompt files `<name>.<version>.txt`. Ledgers and provenance name the version, so a changed text is a new file."""

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
from lavis_emovit.files import regular_file
from lavis_emovit.generation.facts import ALL_FACTS, FactName, facts_text
from lavis_emovit.records import Attributes, EmotionRecord

FOLDER = Path(__file__).resolve().parent
_EXAMPLES = "examples.1.json"
# A placeholder as other programs fill it in. JSON in a prompt has quotes after its brace.
_PLACEHOLDER = re.compile(r"\{\{?\w+\}?\}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """The constant part of a request."""

    name: str  # `conversation/1`; `<file name>@<hash>` for a custom file
    text: str  # the system message with its examples. It is the same for a whole run, so endpoints can cache it.

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def identity(self) -> str:
        """Name and hash, as manifests and summaries contain them."""
        return f"{self.name} sha256:{self.sha256}"


def load_prompt(
    name: str, *, file: Path | None = None, num_examples: int = 0, facts: Sequence[FactName] = ALL_FACTS, seed: int = 0
) -> Prompt:
    """The newest version of a prompt, or a custom text, with worked examples.

    Each example has another emotion and these `facts`, as in the requests. UserError for an unknown prompt, an
    unreadable or empty file, or more examples than there are.
    """
    if file is not None:
        try:
            text = regular_file(file).read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: the prompt cannot be read ({error})") from None
        if not text:
            raise UserError(f"{file}: the prompt is empty. Write what the model should do and how it should reply.")
        placeholders = sorted(set(_PLACEHOLDER.findall(text)))
        if placeholders:
            logger.warning("%s: %s is sent unchanged; prompts have no placeholders", file, ", ".join(placeholders))
        title = f"{file.stem}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    else:
        versions = [int(path.suffixes[0][1:]) for path in FOLDER.glob(f"{name}.*.txt")]
        if not versions:
            known = sorted({path.name.partition(".")[0] for path in FOLDER.glob("*.txt")})
            raise UserError(f"unknown prompt '{name}' (available: {', '.join(known)})")
        title = f"{name}/{max(versions)}"
        text = (FOLDER / f"{name}.{max(versions)}.txt").read_text(encoding="utf-8").strip()
    if num_examples:
        text += "\n\n" + _examples_text(name, num_examples, facts, seed)
    return Prompt(title, text)


@cache
def examples() -> list[dict[str, Any]]:
    """The worked examples: `emotion`, `facts`, and `replies` by kind."""
    return json.loads((FOLDER / _EXAMPLES).read_text(encoding="utf-8"))


def example_record(example: dict[str, Any]) -> EmotionRecord:
    """The record of an example. Its image does not exist."""
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
        raise UserError(f"the prompt '{name}' has {len(usable)} examples; {count} were requested")
    chosen = random.Random(f"examples/{name}/{seed}").sample(usable, count)
    parts = [
        f"Example {number}. Known about the picture:\n{facts_text(example_record(example), facts)}\n"
        f"Reply:\n{json.dumps(example['replies'][name], ensure_ascii=False)}"
        for number, example in enumerate(chosen, start=1)
    ]
    return "\n\n".join(parts)
