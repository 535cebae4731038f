"""Properties of `emovit shards index`, whatever the bytes of the tars.

- The outcome is a sound index that accounts for every sample, or a DataError that names the tar or the folder.

`EMOVIT_PROPERTY_EXAMPLES` sets the number of inputs; a long run takes 100,000.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.shards.foreign import Reading, index_tars
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.verify import verify_shards

EXAMPLES = int(os.environ.get("EMOVIT_PROPERTY_EXAMPLES", "25"))
short = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))


def jpeg():
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), (9, 80, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


IMAGE = jpeg()
TURNS = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["awe", "1", "²", "human", "gpt"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
contents = st.dictionaries(
    st.sampled_from(["label", "cls", "emotion", "caption", "text", "age", "conversations", "id", "image", "split"]),
    values | st.just(TURNS),
)
texts = st.sampled_from([b"awe", b"1", b"-1", b"\xff", b"\xc2\xb2", b"", b"NaN", b"{}", b"[" * 100_000]) | st.binary(
    max_size=9
)
members = st.one_of(
    st.tuples(st.sampled_from(["cls", "txt", "json", "npy", "seg.png"]), texts),
    st.tuples(st.just("json"), contents.map(lambda content: json.dumps(content).encode())),
    st.tuples(st.sampled_from(["jpg", "PNG"]), st.just(IMAGE) | st.binary(max_size=20)),
)
kinds = st.sampled_from([tarfile.REGTYPE] * 12 + [tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
samples = st.tuples(st.sampled_from(["a", "b/c", "é", "d.e", ".h"]), st.lists(st.tuples(members, kinds), max_size=4))


def check(folder, reading, skip_bad):
    try:
        index = index_tars(folder, reading, skip_bad=skip_bad, overwrite=True)
    except DataError as error:
        assert ".tar" in str(error) or folder.name in str(error), error
        assert len(str(error)) < 20_000
        return
    assert verify_shards(folder).ok
    reader = ShardReader(index)
    found = [reader.read(number).record for number in range(len(reader))]
    assert len({record.id for record in found}) == len(found)
    assert skip_bad or not index.build["skipped"]


@given(found=st.lists(samples, max_size=4), classes=st.none() | st.just(("awe", "fear")), skip_bad=st.booleans())
@short
def test_any_members(found, classes, skip_bad):
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        with tarfile.open(folder / "t.tar", "w") as tar:
            for key, parts in [("0", [(("jpg", IMAGE), tarfile.REGTYPE)]), *found]:
                for (suffix, data), kind in parts:
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.type, info.linkname = kind, "0.jpg"
                    info.size = len(data) if kind == tarfile.REGTYPE else 0
                    tar.addfile(info, io.BytesIO(data))
        check(folder, Reading("mine", classes=classes, label_set="mikels8" if skip_bad else None), skip_bad)


@given(
    cut=st.integers(0, 10240),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=20)), max_size=3),
    skip_bad=st.booleans(),
)
@short
def test_any_bytes(cut, edits, skip_bad):
    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent) / "t.tar"
        with tarfile.open(path, "w") as tar:
            for name, data in (("a.jpg", IMAGE), ("a.cls", b"0"), ("b.jpg", IMAGE), ("b.json", b'{"label": 1}')):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        content = bytearray(path.read_bytes())
        for place, piece in edits:
            content[place : place + len(piece)] = piece
        path.write_bytes(content[: cut if cut % 3 == 0 else None])
        check(Path(parent), Reading("mine", classes=("awe", "fear")), skip_bad)
