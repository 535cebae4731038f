#!/usr/bin/env bash
# LAVIS: importing it makes Pillow return truncated images with grey areas, in the whole process.
#
# lavis/datasets/datasets/coco_caption_datasets.py sets `PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True` when it is
# imported, and `import lavis` imports it through lavis.datasets.builders. From then on, all code of the process, also
# code that does not use LAVIS, reads a truncated JPEG without an error: the missing part of the image is grey. A check
# that loads each image to find damaged downloads then passes. No message mentions the setting.
#
# The script imports this one module, unchanged, and the few modules of LAVIS that it needs, and verifies by the source
# files that `import lavis` leads to it. The package is installed without its many dependencies.
#
# Run: bash findings/lavis_import_accepts_truncated_images.sh
# (about 1 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-deps salesforce-lavis==1.0.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.util
import io
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

print(", ".join(f"{name} {version(name)}" for name in ("salesforce-lavis", "pillow", "torch")))
root = Path(importlib.util.find_spec("lavis").origin).parent
chain = {
    "__init__.py": "from lavis.datasets.builders import *",
    "datasets/builders/__init__.py": "from lavis.datasets.builders.caption_builder import",
    "datasets/builders/caption_builder.py": "from lavis.datasets.datasets.coco_caption_datasets import",
}
for name, line in chain.items():
    assert line in (root / name).read_text(), f"lavis/{name} has changed"
    print(f"lavis/{name}: {line}")

buffer = io.BytesIO()
noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
Image.fromarray(noise).save(buffer, "JPEG")
truncated = buffer.getvalue()[: len(buffer.getvalue()) // 2]


def read():
    try:
        with Image.open(io.BytesIO(truncated)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except OSError as error:
        return f"OSError: {error}"
    return f"an image, last rows all grey: {bool((pixels[-16:] == 128).all())}"


# The package without its __init__, which would import all models and their dependencies.
package = types.ModuleType("lavis")
package.__path__ = [str(root)]
sys.modules["lavis"] = package

before, flag_before = read(), ImageFile.LOAD_TRUNCATED_IMAGES
importlib.import_module("lavis.datasets.datasets.coco_caption_datasets")
after, flag_after = read(), ImageFile.LOAD_TRUNCATED_IMAGES
print(f"half a JPEG before the import: {before} (LOAD_TRUNCATED_IMAGES {flag_before})")
print(f"half a JPEG after the import:  {after} (LOAD_TRUNCATED_IMAGES {flag_after})")
assert before.startswith("OSError: image file is truncated") and flag_before is False, "Pillow has changed"
assert after.endswith("grey: True") and flag_after is True, "the behaviour has changed"
PYTHON
