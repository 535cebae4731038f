"""A dataset card beside shards, with which Hugging Face's `datasets` reads every sample with all of its keys.

Without one, `datasets` infers the columns from the first five samples, and drops or refuses what only later samples
have: keys of the record, and other image formats.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lavis_emovit.clips.reading import BUNDLE_SUFFIX
from lavis_emovit.clips.video import VIDEO_SUFFIXES
from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer
from lavis_emovit.records import EmotionRecord
from lavis_emovit.shards.columns import CARD_NAME
from lavis_emovit.shards.index import ShardIndex, find_indexes
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.tar import RECORD_SUFFIX, scan_tar

# `datasets` accepts no other names.
_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
_DTYPES = {"string": "string", "number": "float64", "integer": "int64", "boolean": "bool"}
_BODY = """
# {title}

Images of emotions, as webdataset tars that `emovit shards build` wrote. A sample has its image in the column of the
image's format, and its record in the column `json`. Whatever a sample does not have is null.

    from datasets import load_dataset

    dataset = load_dataset("path/to/this/folder", split="{split}")
"""


def write_card(folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write `README.md` into a folder of shards, or the folder above those of the splits, and return its path.

    DataError without shards, for tars of other tools, unmerged parts, split names that `datasets` refuses, or an
    existing file without `overwrite`.
    """
    folder = Path(folder)
    path = folder / CARD_NAME
    if path.exists() and not overwrite:
        raise DataError(f"{path}: already exists; pass `--overwrite` to replace it")
    suffixes: set[str] = set()
    files = []
    for place in map(Path, find_indexes(str(folder))):
        index = ShardIndex.load(place)
        if index.records_name is not None:
            raise DataError(
                f"{place}: its tars were made by another tool, so `datasets` cannot find our records in them"
            )
        if "part" in index.build:
            raise DataError(f"{place}: a part of a set; join the parts with `emovit shards merge` first")
        # The folder of a set that was built with `--split` can have any name.
        split = place.name if place != folder else ShardReader(index).read(0).record.split
        if not _SPLIT_NAME.fullmatch(split):
            raise DataError(f"{place}: `datasets` accepts only letters, digits, _ and . in the name of a split")
        files.append({"split": split, "path": "shard-*.tar" if place == folder else f"{place.name}/shard-*.tar"})
        for shard in index.shards:
            suffixes |= {member.suffix for member in scan_tar(place / shard.name)}
    schema = EmotionRecord.model_json_schema()
    features = [
        *({"name": suffix, "dtype": _dtype(suffix)} for suffix in sorted(suffixes - {RECORD_SUFFIX})),
        {"name": RECORD_SUFFIX, **_feature(schema, schema["$defs"])},
    ]
    head = {
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": features},
    }
    with atomic_writer(path) as file:
        file.write(f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n")
        file.write(_BODY.format(title=folder.resolve().name, split=files[0]["split"]))
    return path


def _dtype(suffix: str) -> str:
    """Of a column with images or clips; `datasets` does not look into bundles of frames."""
    return "binary" if suffix == BUNDLE_SUFFIX else "video" if suffix in VIDEO_SUFFIXES else "image"


def _feature(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema as a feature of `datasets`, in the form of its cards."""
    if "anyOf" in schema:
        (schema,) = (option for option in schema["anyOf"] if option != {"type": "null"})
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if schema["type"] == "array":
        item = _feature(schema["items"] if "items" in schema else schema["prefixItems"][0], definitions)
        return {"list": item.get("dtype", item.get("struct", item))}  # a list of lists has itself
    if schema["type"] != "object":
        return {"dtype": _DTYPES[schema["type"]]}
    if "properties" not in schema:
        return {"dtype": "json"}  # keys from the data, such as labels
    return {"struct": [{"name": name, **_feature(one, definitions)} for name, one in schema["properties"].items()]}
