"""The base of all dataset builders: find or make the shards, and open a dataset for each split."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis.common.registry import registry
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder, load_dataset_config
from omegaconf import OmegaConf

from lavis_emovit import paths
from lavis_emovit.datasets.eval_dataset import EmotionEvalDataset
from lavis_emovit.datasets.preparation import prepare_dataset
from lavis_emovit.datasets.settings import DatasetSettings
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.settings import Settings, merge_settings, parse_settings, plain_values
from lavis_emovit.shards.index import ShardIndex

logger = logging.getLogger(__name__)


class EmotionDatasetBuilder(BaseDatasetBuilder):
    """Builder of a dataset in shards.

    A subclass only sets its name (`dataset_name`) and its default config (`DATASET_CONFIG_DICT`).

    Args:
        cfg: the node `datasets.<name>` of a config, which overrides the defaults; or the path of a config file; or None
            for the defaults.
    """

    train_dataset_cls = EmotionShardDataset
    eval_dataset_cls = EmotionEvalDataset
    settings_class = DatasetSettings
    dataset_name = ""
    DATASET_CONFIG_DICT: Mapping[str, str] = {}

    def __init__(self, cfg: Any = None):
        node = load_dataset_config(self.default_config_path())
        if isinstance(cfg, (str, os.PathLike)):
            node = load_dataset_config(str(cfg))
        elif cfg is not None:
            given = cfg if OmegaConf.is_config(cfg) else OmegaConf.create(dict(cfg))
            node = merge_settings(node, given, f"datasets.{self.dataset_name}")
        super().__init__(node)
        settings, problems = parse_settings(DatasetSettings, plain_values(node), f"datasets.{self.dataset_name}")
        if settings is None:
            raise ConfigError(problems, f"the config of dataset '{self.dataset_name}'")
        self.settings = settings

    @property
    def where_to_get(self) -> str:
        """Where to get the published dataset."""
        return self.settings.about.where_to_get if self.settings.about is not None else ""

    @property
    def indexes(self) -> dict[str, Path | str]:
        """Split -> path of its shard index, or URL for remote splits (`https://`, `s3://`, `gs://`)."""
        build = self.settings.build_info
        places = {split: place for split, place in build.annotations.indexes().items() if split in build.split_names}
        return {split: place if "://" in place else paths.data_root() / place for split, place in places.items()}

    def build_datasets(self) -> dict[str, Any]:
        """Split -> dataset; missing shards are made first.

        All processes of a run may call this at once: a file lock lets one of them do the work, so `torch.distributed`
        need not be set up. Machines without a shared disk make their own shards.
        """
        self._download_data()
        return self.build()

    def prepare(self) -> dict[str, Path | str]:
        """Split -> path or URL of its shard index; missing shards are made first, as in `build_datasets`."""
        self._download_data()
        return self.indexes

    def build(self) -> dict[str, Any]:
        """Open the datasets: the training split, and every other split that has labels to compare answers with."""
        settings = self.settings
        datasets: dict[str, Any] = {}
        for split, index_path in self.indexes.items():
            name = "train" if split == "train" else "eval"
            pairs = settings.vis_processor, settings.text_processor
            processors = [_processor(getattr(pair, name)) for pair in pairs]
            if split == "train":
                datasets[split] = self.train_dataset_cls(
                    index_path,
                    *processors,
                    seed=settings.seed,
                    kinds=settings.kinds,
                    share=settings.share,
                    share_seed=settings.share_seed,
                    max_pairs=settings.max_pairs,
                    verify_hashes=settings.verify_hashes,
                    faults=settings.faults,
                    window_shards=settings.window_shards,
                    length_buckets=settings.length_buckets,
                )
                logger.info("%s: %s", self.dataset_name, datasets[split].describe())
            else:
                index = ShardIndex.load(index_path)
                if index.num_samples and not len(index.samples_with(labelled=True)):
                    logger.info(
                        "datasets.%s: split '%s' has no emotions; `run.test_benchmarks` evaluates other kinds",
                        self.dataset_name,
                        split,
                    )
                    continue
                datasets[split] = self.eval_dataset_cls(
                    index,
                    *processors,
                    label_set=settings.label_set,
                    wording=settings.eval_wording,
                    verify_hashes=settings.verify_hashes,
                )
        return datasets

    def _download_data(self) -> None:
        """LAVIS's hook for getting the data. It downloads nothing; it makes the shards from files on this machine."""
        build_info = self.settings.build_info
        local = {split: path for split, path in self.indexes.items() if isinstance(path, Path)}
        if build_info.prepare is not None and local:
            storage = paths.data_root() / build_info.images.storage
            name, where_to_get, kinds = self.dataset_name, self.where_to_get, self.settings.kinds
            prepare_dataset(name, build_info.prepare, storage, local, where_to_get, kinds)
            return
        missing = [(split, path) for split, path in local.items() if not path.is_file()]
        if missing:
            split, path = missing[0]
            raise DataError(
                f"datasets.{self.dataset_name}: no shards for split '{split}' at {path}, and no `prepare` to make "
                f"them. Build them with `emovit shards build records.jsonl --images FOLDER --split {split} "
                f"--out {path.parent}`."
            )


def _processor(settings: Settings) -> Any:
    values = settings.model_dump()
    return registry.get_processor_class(values["name"]).from_config(values)
