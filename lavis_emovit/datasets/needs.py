"""What a dataset of a recipe needs before it can be read, without preparing it."""

from __future__ import annotations

from dataclasses import dataclass

from lavis_emovit import paths
from lavis_emovit.datasets.preparation import missing_sources
from lavis_emovit.datasets.settings import DatasetSettings
from lavis_emovit.shards.index import ShardIndex


@dataclass(frozen=True)
class DatasetNeed:
    """The state of one dataset.

    Attributes:
        detail: where it is, or what is missing.
        fix: what to do if something is missing, else None.
        num_images: images of the training split, counted or published; None if unknown.
    """

    detail: str
    fix: str | None = None
    num_images: int | None = None


def dataset_need(name: str, settings: DatasetSettings) -> DatasetNeed:
    """Look for the shards of a dataset, and for the files that they are made of."""
    build, published = settings.build_info, None
    if settings.about is not None:
        published = (settings.about.published.splits or {}).get("train")
    places = build.annotations.indexes()
    if any("://" in place for place in places.values()):
        return DatasetNeed("remote shards, read on demand", num_images=_share(settings, published))
    indexes = {split: paths.data_root() / place for split, place in places.items()}
    storage = paths.data_root() / build.images.storage
    if indexes and all(path.is_file() for path in indexes.values()):
        train = indexes.get("train")
        counted = ShardIndex.load(train).num_samples if train is not None else None
        return DatasetNeed(f"shards in {storage}", num_images=_share(settings, counted))
    if build.prepare is None:
        missing = next(path for path in indexes.values() if not path.is_file())
        fix = f"build it: emovit shards build records.jsonl --images FOLDER --split SPLIT --out {missing.parent}"
        return DatasetNeed(f"no index {missing}", fix)
    where = settings.about.where_to_get if settings.about is not None else ""
    # A mix draws some of the images; how many is known when the classes are.
    images = None if build.prepare.instructions.mix is not None else _share(settings, published)
    if problems := missing_sources(name, build.prepare, storage, where):
        return DatasetNeed("missing", "\n".join(problems), images)
    if build.prepare.is_drawn:
        return DatasetNeed(f"will be drawn in {storage}")
    return DatasetNeed(f"shards will be built in {storage} from {build.prepare.root}", num_images=images)


def _share(settings: DatasetSettings, num_images: int | None) -> int | None:
    return None if num_images is None else round(num_images * settings.share)
