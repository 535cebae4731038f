#!/usr/bin/env bash
# datasets: one photo of a train makes `imagefolder` drop all other images and the labels.
#
# A folder has two class folders with five images and no splits. One image is named "old_train_station.jpg".
# `load_dataset("imagefolder", data_dir=...)` takes the word "train" in this file name for the name of a split. It loads
# this image only, drops the other four without an error or a warning, and has no "label" column, because a single
# class is left. With the file renamed to "old_railway_station.jpg", all five images load with their labels. The words
# test, testing, eval, evaluation, val, valid, validation, dev and training have the same effect.
#
# Run: bash findings/datasets_imagefolder_train_in_a_file_name.sh      (exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0 numpy==2.4.6
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import warnings
from pathlib import Path

import datasets
import PIL
import pyarrow
from PIL import Image

datasets.disable_progress_bars()
print(f"datasets {datasets.__version__}, pyarrow {pyarrow.__version__}, pillow {PIL.__version__}")


class Collector(logging.Handler):
    def emit(self, record):
        messages.append(record.getMessage())


messages = []
logging.getLogger("datasets").addHandler(Collector(logging.WARNING))


def load(root, fifth_image):
    names = ["awe/sunset.jpg", "awe/mountain.jpg", "fear/spider.jpg", "fear/dark_wood.jpg", fifth_image]
    for name in names:
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = datasets.load_dataset("imagefolder", data_dir=root)
    messages.extend(str(one.message) for one in caught if one.category is not ResourceWarning)
    return {split: (part.num_rows, part.column_names) for split, part in loaded.items()}


railway = load("railway", "awe/old_railway_station.jpg")
train = load("train_station", "awe/old_train_station.jpg")
print(f"with awe/old_railway_station.jpg: {railway}")
print(f"with awe/old_train_station.jpg:   {train}, warnings {messages}")
assert railway == {"train": (5, ["image", "label"])}, "a plain image folder does not load as expected"
assert train == {"train": (1, ["image"])} and not messages, "the behaviour has changed"
PYTHON
