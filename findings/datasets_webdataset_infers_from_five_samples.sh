#!/usr/bin/env bash
# datasets: `webdataset` shards get their columns from the first five samples; what only later samples have is lost.
#
# `load_dataset("webdataset", data_files="images.tar")` infers the columns, and the keys inside a JSON member, from the
# first five samples of the first tar file. A JSON key that the sixth sample is the first to have is dropped from all
# samples without an error or a warning. If the first five images are JPEG files and the sixth is a PNG file, the sixth
# sample loses its image in the same way. A JSON key that is null in the first five samples and text in the sixth is an
# error, and so are JPEG and PNG files among the first five. With `features=...` every sample is read completely.
#
# Run: bash findings/datasets_webdataset_infers_from_five_samples.sh      (exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0 numpy==2.4.6
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
"$folder/venv/bin/python" - <<'PYTHON'
import io
import json
import logging
import tarfile
import warnings

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


def load(name, samples, features=None):
    """Write samples (image suffix, JSON content) to a tar file and load it; the error's text if it is refused."""
    with tarfile.open(f"{name}.tar", "w") as tar:
        for number, (suffix, content) in enumerate(samples):
            image = io.BytesIO()
            Image.new("RGB", (8, 8)).save(image, {"jpg": "JPEG", "png": "PNG"}[suffix])
            for member, data in ((suffix, image.getvalue()), ("json", json.dumps(content).encode())):
                header = tarfile.TarInfo(f"{number:04d}.{member}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            loaded = datasets.load_dataset("webdataset", data_files=f"{name}.tar", features=features, split="train")
        except Exception as error:
            causes = [error]
            while cause := causes[-1].__cause__ or causes[-1].__context__:
                causes.append(cause)
            return " <- ".join(f"{type(one).__name__}: {str(one).splitlines()[0]}" for one in causes)
    messages.extend(str(one.message) for one in caught if one.category is not ResourceWarning)
    return loaded


plain = {"label": "awe"}
late_key = [("jpg", plain)] * 5 + [("jpg", {"label": "fear", "caption": "a dark wood"})]
late_png = [("jpg", plain)] * 5 + [("png", plain)]
early_png = [("jpg", plain), ("png", plain)] + [("jpg", plain)] * 4
late_text = [("jpg", {"caption": None})] * 5 + [("jpg", {"caption": "a dark wood"})]

key, png = load("late_key", late_key), load("late_png", late_png)
print(f"late key:  columns {key.column_names}, last JSON {key[5]['json']}")
print(f"late PNG:  columns {png.column_names}, images {[row['jpg'] is not None for row in png]}")
print(f"warnings:  {messages}")
early, text = load("early_png", early_png), load("late_text", late_text)
print(f"early PNG: {early}")
print(f"late text: {text}")
features = datasets.Features({
    "jpg": datasets.Image(),
    "png": datasets.Image(),
    "json": {"label": datasets.Value("string"), "caption": datasets.Value("string")},
})
given = load("given_key", late_key, features), load("given_png", late_png, features)
print(f"with features: last JSON {given[0][5]['json']}, last PNG {given[1][5]['png']}")

assert key.num_rows == png.num_rows == 6 and not messages, "the behaviour has changed"
assert key[5]["json"] == {"label": "fear"} and key.features["json"] == {"label": datasets.Value("string")}
assert "png" not in png.column_names and png[4]["jpg"] is not None and png[5]["jpg"] is None
assert isinstance(early, str) and "don't share the same prefix or the same types" in early
assert isinstance(text, str) and "Couldn't cast array of type string to null" in text
assert given[0][5]["json"] == {"label": "fear", "caption": "a dark wood"}, "features are not used"
assert given[1][5]["png"] is not None and given[1][4]["png"] is None, "features are not used"
PYTHON
