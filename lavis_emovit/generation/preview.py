"""Preview page: counts of every step, random images with their instructions, random rejections."""

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
from lavis_emovit.generation.job import Job
from lavis_emovit.records import EmotionRecord

_SIDE_PX = 420
_NUM_REJECTED = 24


def write_preview(
    job: Job, path: Path, steps: Sequence[dict[str, Any]], *, title: str, costs: str, num_images: int
) -> None:
    """Write the page as one HTML file that contains its images; `steps` are results as in `summary.json`."""
    rng = random.Random(f"preview/{job.settings.seed}")
    processed = [record for record in job.records if record.id in job.processed]
    written = [record for record in processed if record.instructions] or processed
    drawn = rng.sample(written, min(num_images, len(written)))
    num_instructions = sum(len(record.instructions) for record in job.records)
    subtitle = (
        f"{len(job.records)} records, {num_instructions} instructions. This run processed {len(job.processed)} "
        "records; the images below are from these."
    )
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
        cards=[_card(record, job.image_root) for record in drawn],
        rejected=_draw_rejected(job.folder / "rejected", rng),
    )
    with atomic_writer(path) as file:
        file.write(html)


def _card(record: EmotionRecord, image_root: Path) -> dict[str, Any]:
    try:
        image = image_of(image_root / record.image, _SIDE_PX, 80).data_url()
    except DataError:
        image = None
    return {
        "id": record.id,
        "image": image,
        "alt": record.caption or f"image of {record.id}",
        "emotion": record.emotion or "no emotion",
        "facts": [
            *((name.replace("_", " "), value) for name in ALL_FACTS[1:] if (value := fact(record, name))),
            *_levels(record),
        ],
        "pairs": record.instructions,
    }


def _levels(record: EmotionRecord) -> list[tuple[str, str]]:
    """Valence, arousal and action units, and the source of each level."""
    found = [(name, f"{value:.2f}") for name in ("valence", "arousal") if (value := getattr(record, name)) is not None]
    if record.action_units:
        active = [str(unit) for unit, intensity in sorted(record.action_units.items()) if intensity > 0.0]
        found.append(("action units", f"{', '.join(active) or 'none'}, of {len(record.action_units)}"))
    by = ((level, record.extra.get(f"seke_{level}_by")) for level in ("expression", "affect", "units"))
    return found + [(f"{level} by", str(name)) for level, name in by if name is not None]


def _draw_rejected(folder: Path, rng: random.Random) -> list[dict[str, Any]]:
    """A uniform random choice from all files by reservoir sampling, since the files may be large."""
    drawn: list[dict[str, Any]] = []
    number = 0
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                if number < _NUM_REJECTED:
                    drawn.append(_row(line))
                elif (place := rng.randint(0, number)) < _NUM_REJECTED:
                    drawn[place] = _row(line)
                number += 1
    return drawn


def _row(line: str) -> dict[str, Any]:
    return dict.fromkeys(("question", "answer", "reply", "detail")) | json.loads(line)
