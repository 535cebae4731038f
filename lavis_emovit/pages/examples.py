"""Images and clips that a page offers to try: of the test split of the run, or of a place that the user names."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from lavis_emovit.boxes import shows_both
from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.reading import film_strip
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.suite.benchmark_data import open_benchmark
from lavis_emovit.images import data_url
from lavis_emovit.pages.uploads import shown_image
from lavis_emovit.tuned.inputs import input_images
from lavis_emovit.tuned.loading import Tuned

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 8
_SIDE_PX = 160


@dataclass(frozen=True)
class Example:
    """An image or a clip to try; `label` is what people call it, None where nobody did."""

    data: bytes
    thumbnail: str
    label: str | None
    clip: Clip | None = None


def examples(
    tuned: Tuned, place: str | None = None, image_root: Path | None = None, *, with_clips: bool = True
) -> list[Example]:
    """Up to eight images, evenly from all that there are; none if the data of the run are not on this machine.

    Args:
        place: images, a folder, records or shards; None: the test split of the first question of the run.
        image_root: folder of the image paths of records, if not theirs.
        with_clips: whether clips are offered, if the model reads them; clips that are left out are counted.

    Raises:
        UserError: the place has no image, or one that cannot be read.
    """
    with_clips = with_clips and tuned.adapter.reads_clips
    if place is None:
        return _of_run(tuned, with_clips)
    given = [
        (one, one.record.clip if one.record is not None else one.clip) for one in input_images([place], image_root)
    ]
    found = [(one, clip) for one, clip in given if clip is None or with_clips]
    if len(found) < len(given):
        _note_clips(len(given) - len(found))
    chosen = [found[number] for number in _spread(len(found))]
    return [_example(one.read(), one.record.emotion if one.record is not None else None, clip) for one, clip in chosen]


def _of_run(tuned: Tuned, with_clips: bool) -> list[Example]:
    question = tuned.questions.questions[0]
    if question.dataset not in tuned.files.datasets:
        return []
    try:
        opened = open_benchmark("examples", question.benchmark(), tuned.files.datasets[question.dataset])
    except (DataError, ConfigError) as error:
        logger.warning("no examples from the test split: %s", error)
        return []
    numbers = opened.numbers()
    items = list(opened.items([numbers[place] for place in _spread(len(numbers))]))
    images = [item for item in items if item.record.clip is None or with_clips]
    if len(images) < len(items):
        _note_clips(len(items) - len(images))
    # A page has no boxes, and asks about one image, not about two joined for people (`box: both`).
    is_whole = shows_both(opened.show)
    return [
        _example(item.image_bytes if is_whole else item.shown(), item.truth.label, item.record.clip) for item in images
    ]


def _note_clips(count: int) -> None:
    logger.warning("%d clips are no examples, because a model reads images only", count)


def _spread(count: int) -> list[int]:
    """Numbers of at most `MAX_EXAMPLES` of `count` images, at equal distances."""
    shown = min(count, MAX_EXAMPLES)
    return [place * count // shown for place in range(shown)]


def _example(data: bytes, label: str | None, clip: Clip | None) -> Example:
    image = shown_image(data) if clip is None else film_strip(data, clip, _SIDE_PX // 2, num_rows=2)
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    return Example(data, data_url(image), label, clip)
