#!/usr/bin/env bash
# datasets: an empty split that `select` made is saved without complaint, and nothing of the dictionary can be loaded.
#
# A split loses all its images, such as those of a label set without a label in the test split. Made by `filter`, the
# empty split has one Arrow file of 0 rows, and `load_from_disk` gives both splits. Made by `select` (or `from_dict`),
# `save_to_disk` writes an empty list of data files for it, and `load_from_disk` of the dictionary raises "IndexError: list
# index out of range", which names no split, also for the splits with rows. Each of these still loads by its own folder.
#
# Run: bash findings/datasets_empty_split_cannot_be_loaded.sh      (exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1 numpy==2.4.6
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
"$folder/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import datasets
import pyarrow

datasets.disable_progress_bars()
print(f"datasets {datasets.__version__}, pyarrow {pyarrow.__version__}")
whole = datasets.Dataset.from_dict({"caption": ["a lake", "a street"], "emotion": ["awe", "fear"]})
outcomes = {}
for name, empty in {"filter": whole.filter(lambda row: row["emotion"] == "joy"), "select": whole.select([])}.items():
    assert empty.num_rows == 0
    datasets.DatasetDict(train=whole, test=empty).save_to_disk(name)
    files = json.loads(Path(name, "test", "state.json").read_text())["_data_files"]
    try:
        outcomes[name] = {split: part.num_rows for split, part in datasets.load_from_disk(name).items()}
    except Exception as error:
        outcomes[name] = f"{type(error).__name__}: {error}"
    print(f"{name}: data files of test {files}; load_from_disk: {outcomes[name]}")
print("the train split of `select` alone:", datasets.load_from_disk("select/train").num_rows, "rows")
assert outcomes == {"filter": {"train": 2, "test": 0}, "select": "IndexError: list index out of range"}, "changed"
PYTHON
