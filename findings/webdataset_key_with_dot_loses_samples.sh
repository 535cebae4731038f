#!/usr/bin/env bash
# webdataset: a sample that TarWriter writes under a key with a dot can be lost without an error when it is read.
#
# TarWriter accepts any key. WebDataset takes the file name up to its first dot as the key, so that "awe_1.5x.jpg" is
# the field "5x.jpg" of the sample "awe_1". If "awe_1" stands before it in the tar file, both become one sample, and
# `to_tuple("jpg", "json")` returns "awe_1" alone: three samples written, two read, no error and no warning. The rule
# of the first dot is intended for fields such as "seg.png"; the surprise is that the writer does not check the key
# and that the round trip loses a sample silently.
#
# Run: bash findings/webdataset_key_with_dot_loses_samples.sh      (exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet webdataset==1.0.2 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import numpy as np
import webdataset

print(", ".join(f"{name} {version(name)}" for name in ("webdataset", "pillow", "numpy")))


def round_trip(keys):
    """Write one image for each key; return the names that are read, the raw samples, and the warnings."""
    with webdataset.TarWriter("images.tar") as writer:
        for key in keys:
            writer.write({"__key__": key, "jpg": np.zeros((8, 8, 3), dtype=np.uint8), "json": {"name": key}})
    raw = [
        (sample["__key__"], sorted(field for field in sample if not field.startswith("__")))
        for sample in webdataset.WebDataset("images.tar", shardshuffle=False)
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        pairs = webdataset.WebDataset("images.tar", shardshuffle=False).decode("pil").to_tuple("jpg", "json")
        names = [annotation["name"] for _, annotation in pairs]
    return names, raw, [str(one.message) for one in caught if not issubclass(one.category, ResourceWarning)]


written = ["awe_1", "awe_1.5x", "awe_2"]
names, raw, messages = round_trip(written)
plain_names, _, _ = round_trip(["awe_1", "awe_1_5x", "awe_2"])
print(f"written: {written}")
print(f"read:    {names}, warnings {messages}")
print(f"raw samples: {raw}")
print(f"read with '_' instead of the dot: {plain_names}")
assert plain_names == ["awe_1", "awe_1_5x", "awe_2"], "keys without a dot are not read back"
assert names == ["awe_1", "awe_2"] and not messages, "the behaviour has changed"
assert raw[0] == ("awe_1", ["5x.jpg", "5x.json", "jpg", "json"]), "the behaviour has changed"
PYTHON
