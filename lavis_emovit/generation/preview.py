"""A page to look at: the counts of every step, random pictures with what was written about them, random rejections."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from lavis_emovit.chat.images import image_of
from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer
from lavis_emovit.generation.checks import REASONS
from lavis_emovit.generation.facts import ALL_FACTS, fact
from lavis_emovit.records import EmotionRecord

_SIDE_PX = 420


def write_preview(
    path: Path,
    records: Sequence[EmotionRecord],
    image_root: Path,
    steps: Sequence[dict[str, Any]],
    *,
    title: str,
    subtitle: str = "",
    costs: str = "",
    rejected_folder: Path | None = None,
    num_pictures: int = 24,
    num_rejected: int = 24,
    seed: int = 0,
) -> Path:
    """Write the page as one HTML file with the pictures in it.

    Args:
        path: the file.
        records: that the run was for; those with instructions are drawn from, where there are any.
        image_root: where picture paths start.
        steps: results of steps, as `summary.json` has them.
        title, subtitle, costs: texts of the page.
        rejected_folder: where rejected pairs lie, one file a kind.
        num_pictures, num_rejected: how many are drawn.
        seed: of the draws.
    """
    rng = random.Random(f"preview/{seed}")
    written = [record for record in records if record.instructions] or list(records)
    drawn = rng.sample(written, min(num_pictures, len(written)))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lavis_emovit.generation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    html = environment.get_template("preview.html.jinja").render(
        title=title,
        subtitle=subtitle,
        costs=costs,
        steps=steps,
        meanings=REASONS,
        cards=[_card(record, image_root) for record in drawn],
        rejected=_draw_rejected(rejected_folder, num_rejected, rng),
    )
    with atomic_writer(path) as file:
        file.write(html)
    return path


def _card(record: EmotionRecord, image_root: Path) -> dict[str, Any]:
    try:
        picture = image_of(image_root / record.image, _SIDE_PX, 80).data_url()
    except DataError:
        picture = None
    return {
        "id": record.id,
        "picture": picture,
        "alt": record.caption or f"picture of {record.id}",
        "emotion": record.emotion or "no emotion given",
        "facts": [
            *((name.replace("_", " "), value) for name in ALL_FACTS[1:] if (value := fact(record, name))),
            *_levels(record),
        ],
        "pairs": record.instructions,
    }


def _levels(record: EmotionRecord) -> list[tuple[str, str]]:
    """Valence, arousal and action units, and who gave which level."""
    found = [(name, f"{value:.2f}") for name in ("valence", "arousal") if (value := getattr(record, name)) is not None]
    if record.action_units:
        active = [str(unit) for unit, intensity in sorted(record.action_units.items()) if intensity > 0.0]
        found.append(("action units", f"{', '.join(active) or 'none'}, of {len(record.action_units)}"))
    by = ((level, record.extra.get(f"seke_{level}_by")) for level in ("expression", "affect", "units"))
    return found + [(f"{level} by", str(name)) for level, name in by if name is not None]


def _draw_rejected(folder: Path | None, count: int, rng: random.Random) -> list[dict[str, Any]]:
    """A fair draw from all files by reservoir sampling, since they may be large."""
    drawn: list[dict[str, Any]] = []
    number = 0
    for path in sorted(folder.glob("*.jsonl")) if folder is not None and folder.is_dir() else ():
        with path.open(encoding="utf-8") as file:
            for line in file:
                if number < count:
                    drawn.append(_row(line))
                elif (place := rng.randint(0, number)) < count:
                    drawn[place] = _row(line)
                number += 1
    return drawn


def _row(line: str) -> dict[str, Any]:
    return dict.fromkeys(("question", "answer", "reply", "detail")) | json.loads(line)
