#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg 8, libswscale 9.5) on x86: the last columns of a frame are wrong in RGBA, BGRA, RGB0 and BGR0.
#
# A decoded frame is converted to RGB by `VideoFrame.to_ndarray`, `to_image` or `reformat`. To 3 bytes a pixel (rgb24,
# bgr24) every column is right. To 4 bytes a pixel, which Pillow and graphics libraries keep in memory, the columns
# behind the last whole block of 8 pixels are not the frame's at many widths: 2 of 66, 2 of 98, 4 of 100, 2 of 130,
# while widths such as 64, 70, 72 and 80 are right. Nothing is raised or logged. An even picture hides it, so a test
# with one colour does not see it. Videos that a dataset has shrunk or cropped have such widths. To be safe: convert to
# rgb24, and add the fourth byte afterwards.
#
# Run: bash findings/pyav_four_byte_pixels_are_wrong_at_the_right_edge.sh
# (about 0.2 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import platform

import av
import numpy as np

# Bytes of red, green and blue in a pixel.
PLACES = {"rgb24": (0, 1, 2), "bgr24": (2, 1, 0), "rgba": (0, 1, 2), "bgra": (2, 1, 0), "rgb0": (0, 1, 2), "bgr0": (2, 1, 0)}
HEIGHT = 64


def frame_of(width):
    """A frame of random pixels, in the format that decoders return."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, width, 3), dtype=np.uint8)
    return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")


def plane_of(frame, number, width):
    plane = frame.planes[number]
    return np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)[:, :width]


def by_hand(frame):
    """ITU-R BT.601, limited range; each colour value belongs to 2 by 2 pixels."""
    light = plane_of(frame, 0, frame.width).astype(float)
    blue, red = (plane_of(frame, n, frame.width // 2).repeat(2, axis=0).repeat(2, axis=1) - 128.0 for n in (1, 2))
    luma = 1.164 * (light - 16)
    return np.stack([luma + 1.596 * red, luma - 0.813 * red - 0.392 * blue, luma + 2.017 * blue], axis=-1).clip(0, 255)


def wrong_columns(frame, form):
    places = PLACES[form]
    size = 3 if form.endswith("24") else 4
    found = plane_of(frame.reformat(format=form), 0, frame.width * size).reshape(HEIGHT, frame.width, size)
    return np.nonzero(np.abs(found[..., list(places)] - by_hand(frame)).max(axis=(0, 2)) > 16)[0].tolist()


print("av", av.__version__, "libswscale", av.library_versions["libswscale"], platform.machine())
EXPECTED = {64: [], 66: [64, 65], 70: [], 72: [], 80: [], 98: [96, 97], 100: [96, 97, 98, 99], 130: [128, 129]}
as_described = True
for width, expected in EXPECTED.items():
    found = {form: wrong_columns(frame_of(width), form) for form in PLACES}
    print(width, {form: columns for form, columns in found.items() if columns} or "all right")
    as_described &= all(found[form] == ([] if form.endswith("24") else expected) for form in PLACES)
print("as described" if as_described else "it has changed")
raise SystemExit(0 if as_described else 1)
PYTHON
