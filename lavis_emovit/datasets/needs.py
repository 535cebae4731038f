"""What a dataset of a recipe needs before it can be read, without preparing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lavis_emovit import paths
from lavis_emovit.datasets.settings import DatasetSettings
from lavis_emovit.shards.index import ShardIndex


@dataclass(frozen=True)
class DatasetNeed:
    """The state of one dataset.

    Attributes:
        detail: where it is, or what is missing.
        fix: what to do if something is missing, else None.
        num_images: images of the training split; None if unknown.
        is_measured: whether `num_images` was counted, not published.
    """

    detail: str
    fix: str | None = None
    num_images: int | None = None
    is_measured: bool = False


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
        return DatasetNeed(f"shards in {storage}", num_images=_share(settings, counted), is_measured=True)
    if build.prepare is None:
        missing = next(path for path in indexes.values() if not path.is_file())
        fix = f"build it: emovit shards build records.jsonl --images FOLDER --split SPLIT --out {missing.parent}"
        return DatasetNeed(f"no index {missing}", fix)
    if build.prepare.source == "sketch":
        return DatasetNeed(f"will be drawn in {storage}")
    root = Path(str(build.prepare.root)).expanduser().absolute()
    if root.is_dir():
        return DatasetNeed(f"shards will be built in {storage} from {root}", num_images=_share(settings, published))
    where = settings.about.where_to_get + " " if settings.about is not None else ""
    fix = f"{where}Set its folder: --options datasets.{name}.build_info.prepare.root=FOLDER"
    return DatasetNeed(f"missing: no shards in {storage}, and {root} does not exist", fix, _share(settings, published))


def _share(settings: DatasetSettings, num_images: int | None) -> int | None:
    return None if num_images is None else round(num_images * settings.share)
