#!/usr/bin/env bash
# LAVIS: a video cannot be read with the default number of frames, which the code gives as "all".
#
# `load_video(path)` and the processors `alpro_video_train` and `alpro_video_eval` have the default
# `n_frms=MAX_INT`, and take the smaller of it and the video's length. `MAX_INT` is read from LAVIS's registry when
# their modules are imported. But lavis/__init__.py imports these modules first and registers `MAX_INT` at its end, so
# the default is None, and reading any video raises a TypeError about None and int. A `n_frms` in the config avoids it.
#
# The script imports the module of `load_video`, unchanged, before `MAX_INT` is registered, as lavis/__init__.py does, and
# verifies the order by its source. The package is installed without its many dependencies.
#
# Run: bash findings/lavis_videos_fail_without_n_frms.sh
# (about 1.5 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 decord==0.6.0 webdataset==1.0.2 tqdm==4.70.1 \
  opencv-python-headless==5.0.0.93
"$folder/venv/bin/pip" install --quiet --no-deps salesforce-lavis==1.0.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.util
import sys
import types
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

print(", ".join(f"{name} {version(name)}" for name in ("salesforce-lavis", "decord", "torch")))
root = Path(importlib.util.find_spec("lavis").origin).parent
source = (root / "__init__.py").read_text()
lines = ["from lavis.processors import *", 'registry.register("MAX_INT", sys.maxsize)']
for line in lines:
    print(f"lavis/__init__.py, line {source[: source.index(line)].count(chr(10)) + 1}: {line}")
assert source.index(lines[0]) < source.index(lines[1]), "the order has changed"

writer = cv2.VideoWriter("clip.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
for number in range(10):
    writer.write(np.full((48, 64, 3), number * 25, np.uint8))
writer.release()

# The package without its __init__, which would import all models and their dependencies.
package = types.ModuleType("lavis")
package.__path__ = [str(root)]
sys.modules["lavis"] = package
from lavis.common.registry import registry
from lavis.datasets.data_utils import load_video

registry.register("MAX_INT", sys.maxsize)  # as lavis/__init__.py does, after the imports


def read(**settings):
    try:
        return f"a tensor {tuple(load_video('clip.mp4', **settings).shape)}"
    except TypeError as error:
        return f"TypeError: {error}"


default, chosen = read(), read(n_frms=10)
print(f"a video of 10 frames by default:     {default}")
print(f"a video of 10 frames with n_frms=10: {chosen}")
assert default.startswith("TypeError:") and "NoneType" in default, "the behaviour has changed"
assert chosen == "a tensor (3, 10, 48, 64)", "the behaviour has changed"
PYTHON
