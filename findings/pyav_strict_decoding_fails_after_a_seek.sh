#!/usr/bin/env bash
# PyAV 18.1.0: strict decoding of valid H.264 fails after a seek to a key frame, although all of it decodes from the start.
#
# FFmpeg hides damage unless `err_detect` has `explode`, so a reader of datasets that must notice damaged videos sets it.
# With open groups of pictures, which broadcasters and some encoders use, a key frame is followed by frames that refer to
# the group before. The container marks it as a key frame all the same, in MP4 and Matroska, and seeks lead to it. Strict
# decoding from there raises InvalidDataError before any frame appears, the same error as for a damaged file. Without
# `explode` the frames that cannot be decoded are left out without a word, and the others are right. To tell the two
# apart: decode again from an earlier place, at last from the beginning; only a damaged file fails there too.
#
# Run: bash findings/pyav_strict_decoding_fails_after_a_seek.sh
# (about 0.2 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import av
import numpy as np

STRICT, LENIENT = {"err_detect": "explode"}, {}
KEYS = "open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0"


def write(path):
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"x264-params": KEYS})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(100):
            pixels = np.full((48, 64, 3), number * 2, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())


def decode(path, options, from_s=0.0):
    """Frame times -> pixels, or the name of the error; and the time of the first packet."""
    with av.open(path) as file:
        stream = file.streams.video[0]
        stream.codec_context.options = options
        stream.codec_context.thread_type, stream.codec_context.thread_count = "SLICE", 1
        if from_s:
            file.seek(int(from_s / stream.time_base), stream=stream, backward=True)
        first, frames = None, {}
        try:
            for packet in file.demux(stream):
                if first is None:
                    first = (round(float(packet.pts * packet.time_base), 2), packet.is_keyframe)
                frames |= {round(frame.time, 2): frame.to_ndarray(format="rgb24") for frame in packet.decode()}
        except av.error.InvalidDataError as error:
            return type(error).__name__, len(frames), first
        return frames, len(frames), first


av.logging.set_level(av.logging.PANIC)
print("av", av.__version__)
as_described = True
for name in ("video.mp4", "video.mkv"):
    write(name)
    whole, count, _ = decode(name, STRICT)
    strict, strict_count, first = decode(name, STRICT, 1.7)
    lenient, lenient_count, _ = decode(name, LENIENT, 1.7)
    print(f"{name}: strict, from the start: {count} frames without an error")
    print(f"  strict, after a seek: first packet (time, key frame) {first}; {strict} after {strict_count} frames")
    print(f"  lenient, after the same seek: {lenient_count} frames, from {min(lenient)} s")
    same = all(np.array_equal(pixels, whole[time]) for time, pixels in lenient.items())
    print(f"  the lenient frames equal those of the whole: {same}")
    as_described &= count == 100 and strict == "InvalidDataError" and strict_count == 0 and first[1] and same
print("As described: strict decoding fails after a seek." if as_described else "This has changed.")
raise SystemExit(not as_described)
PYTHON
