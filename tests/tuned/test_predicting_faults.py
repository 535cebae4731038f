"""Properties of `emovit predict` when something is wrong: rows are about the images that are there now; a lost source
of shards ends the command and keeps the rows; names need no UTF-8; a file has one writer; damage and a full disk are
named; options without effect are refused; videos of a folder of images are counted."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

import lavis_emovit
from lavis_emovit.cli.main import main
from lavis_emovit.errors import UserError
from lavis_emovit.shards.remote import ShardCache
from lavis_emovit.tuned.inputs import InputImage, input_images
from lavis_emovit.tuned.output import PredictionFile
from lavis_emovit.tuned.predictions import ImagePrediction

pytestmark = pytest.mark.xdist_group("tuned")  # one worker makes the run


def rows_of(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def emovit(run: SimpleNamespace, capsys) -> Callable[..., tuple[int, str, str]]:
    """Calls `emovit predict RUN ...` and returns the exit code and both outputs."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["predict", str(run.folder), *map(str, arguments)])
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return code, told.out, told.err

    return call


@pytest.fixture
def drawn(run: SimpleNamespace) -> list[Path]:
    return run.images


def test_rows_of_other_images_are_made_again(emovit, drawn: list[Path], monkeypatch) -> None:
    records = [{"id": str(n), "image": f"{n}.jpg", "split": "test", "source": "x"} for n in range(3)]
    Path("rec.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for root, first in (("ra", 0), ("rb", 3)):
        Path(root).mkdir()
        for number in range(3):
            shutil.copy(drawn[(first + number) % len(drawn)], f"{root}/{number}.jpg")
    assert emovit("rec.jsonl", "--image-root", "rb", "--out", "expected.jsonl")[0] == 0

    def stop(self: PredictionFile) -> None:
        raise KeyboardInterrupt

    for suffix in ("one", "two"):
        with monkeypatch.context() as patch:
            patch.setattr(PredictionFile, "finish", stop)
            assert emovit("rec.jsonl", "--image-root", "ra", "--out", f"{suffix}.jsonl")[0] == 130
    code, _, errors = emovit("rec.jsonl", "--image-root", "rb", "--out", "one.jsonl")
    assert code == 0 and "changed after their row was written, predicted again: 3" in errors
    assert rows_of("one.jsonl") == rows_of("expected.jsonl")
    # One image is replaced, and one record names another.
    shutil.copy("rb/0.jpg", "ra/0.jpg")
    records[1]["image"] = "2.jpg"
    Path("rec.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    code, _, errors = emovit("rec.jsonl", "--image-root", "ra", "--out", "two.jsonl")
    assert code == 0 and "predicted again: 2" in errors
    rows = rows_of("two.jsonl")
    assert rows[0]["probabilities"] == pytest.approx(rows_of("expected.jsonl")[0]["probabilities"], rel=1e-4)
    assert rows[1]["probabilities"] == pytest.approx(rows[2]["probabilities"], rel=1e-4)


@pytest.fixture
def remote(run: SimpleNamespace, tmp_path: Path, monkeypatch) -> Iterator[SimpleNamespace]:
    """The test shards at a `url`; while `is_lost`, the server fails for the tars. No pause between attempts."""
    state = SimpleNamespace(is_lost=False, requests=0)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            state.requests += self.path.endswith(".tar")
            if state.is_lost and self.path.endswith(".tar"):
                self.send_error(500)
            else:
                super().do_GET()

    begin = ShardCache.__init__
    monkeypatch.setattr(ShardCache, "__init__", lambda *args, **values: begin(*args, **{**values, "wait_s": 0.0}))
    folder = run.data / "small_sketch" / "test"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield state
        server.shutdown()


def test_a_lost_source_of_shards_ends_the_command(emovit, remote: SimpleNamespace, tmp_path: Path, monkeypatch) -> None:
    remote.is_lost = True
    code, _, errors = emovit(remote.url, "--out", "a.jsonl")
    assert code == 2 and "5 attempts failed" in errors and remote.requests == 5
    remote.is_lost = False
    # Lost within the prediction, when the shard is no longer in the cache.
    write = PredictionFile.write

    def lose(self: PredictionFile, rows) -> None:
        write(self, rows)
        remote.is_lost = True

    images = input_images([remote.url])
    for tar in (tmp_path / "cache").rglob("*.tar"):
        tar.unlink()
    images[0].read()
    with monkeypatch.context() as patch:
        patch.setattr(PredictionFile, "write", lose)
        patch.setattr("lavis_emovit.shards.reader.ShardReader._read_bytes", _forgetful(tmp_path / "cache"))
        code, _, errors = emovit(remote.url, "--out", "a.jsonl", "--batch-size", "4", "--workers", "0")
    assert code == 2 and "5 attempts failed" in errors
    kept = rows_of("a.jsonl.unfinished")[1:]
    assert [line["row"]["image"] for line in kept] == [image.name for image in images[:4]]
    remote.is_lost = False
    code, _, errors = emovit(remote.url, "--out", "a.jsonl")
    assert code == 0 and "changed" not in errors
    assert [row["image"] for row in rows_of("a.jsonl")] == [image.name for image in images]
    assert all("error" not in row for row in rows_of("a.jsonl"))


def _forgetful(cache: Path) -> Callable:
    """A reader that opens its shard at every read, from a cache that keeps none."""
    from lavis_emovit.shards.reader import ShardReader

    read = ShardReader._read_bytes

    def forget(self: ShardReader, *place: int) -> bytes:
        self.close()
        for tar in cache.rglob("*.tar"):
            tar.unlink()
        return read(self, *place)

    return forget


def test_names_without_utf_8_are_escaped(emovit, drawn: list[Path], monkeypatch) -> None:
    odd = os.fsencode("photos/") + b"caf\xe9.jpg"
    Path("photos").mkdir()
    shutil.copy(drawn[0], "photos/a.jpg")
    shutil.copy(drawn[1], odd)
    assert emovit("photos", "--out", "a.csv")[0] == 0
    assert emovit("photos", "--out", "a.jsonl")[0] == 0
    rows = rows_of("a.jsonl")
    assert [row["image"] for row in rows] == ["photos/a.jpg", r"photos/caf\xe9.jpg"] and "emotion" in rows[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(odd + b"\n")))
    code, out, _ = emovit("-")
    assert code == 0 and r"caf\xe9.jpg" in out
    shutil.copy(drawn[2], r"photos/caf\xe9.jpg")
    code, _, errors = emovit("photos")
    assert code == 2 and r"two files are called 'photos/caf\xe9.jpg'; rename one of them" in errors


def test_places_without_an_image_have_a_row(emovit, drawn: list[Path], monkeypatch) -> None:
    Path("empty").mkdir()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"gone.jpg\n%b\nno*.jpg\n" % os.fsencode(drawn[0]))))
    too_long = "a" * 300
    code, _, errors = emovit("-", "empty", too_long, "--out", "a.jsonl")
    rows = rows_of("a.jsonl")
    assert code == 0 and [row["image"] for row in rows] == ["gone.jpg", str(drawn[0]), "no*.jpg", "empty", too_long]
    assert rows[0]["error"] == "no such file or folder" and "error" not in rows[1]
    assert all(row["error"].startswith("has no image") for row in rows[2:4])
    assert "4 of 5 images could not be predicted" in errors
    code, _, errors = emovit("gone.jpg", "empty")
    assert code == 2 and "none of 2 places has an image; the first: gone.jpg: no such file or folder" in errors


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    image = InputImage("a.jpg", bytes)
    first = PredictionFile(tmp_path / "a.csv", [image], {})
    with pytest.raises(UserError, match=r"a\.csv: another command is writing it"):
        PredictionFile(tmp_path / "a.csv", [image], {}, overwrite=True)
    first.write([ImagePrediction(image="a.jpg", error="x")])
    first.close()
    second = PredictionFile(tmp_path / "a.csv", [image], {})
    assert second.left == []
    second.finish()
    second.close()
    with pytest.raises(UserError, match="exists"):
        PredictionFile(tmp_path / "a.csv", [image], {})


@pytest.mark.parametrize("line", ["[1]", '{"image": "a.jpg"}', "{", '{"fingerprint": "x", "row": {"image": 3}}'])
def test_a_damaged_unfinished_file_is_named(tmp_path: Path, line: str) -> None:
    PredictionFile(tmp_path / "a.csv", [InputImage("a.jpg", bytes)], {}).close()
    with (tmp_path / "a.csv.unfinished").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=r"a\.csv\.unfinished:2: damaged: .*Delete this line, or the file"):
        PredictionFile(tmp_path / "a.csv", [InputImage("a.jpg", bytes)], {})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    file = PredictionFile(tmp_path / "a.csv", [InputImage("a.jpg", bytes)], {})
    file._file.flush()
    os.dup2(os.open("/dev/full", os.O_WRONLY), file._file.fileno())
    for act in (partial(file.write, [ImagePrediction(image="a.jpg", error="x")]), file.close):
        with pytest.raises(UserError, match=r"a\.csv\.unfinished cannot be written: No space left.*same command again"):
            act()
    PredictionFile(tmp_path / "a.csv", [InputImage("a.jpg", bytes)], {}).close()  # the lock is free


def test_options_without_effect_are_refused(run: SimpleNamespace, emovit, drawn: list[Path]) -> None:
    for option in (["--threshold", "0.9"], ["--calibrated"], ["--top-k", "2"]):
        code, _, errors = emovit(drawn[0], "--kinds", "explanation,valence_arousal", *option)
        assert code == 2 and f"{option[0]}: needs the probabilities of labels" in errors
    code, _, errors = emovit(drawn[0], "--amp", "nope")
    assert code == 2 and "amp 'nope': choose off, bf16 or fp16" in errors
    code, _, errors = emovit(drawn[0], "--device", "gpu")
    assert code == 2 and "device 'gpu': choose auto, cpu, cuda or cuda:<number>" in errors
    with pytest.raises(UserError, match="amp 'True'"):
        lavis_emovit.load_tuned(run.folder, amp="True")


def test_errors_name_options_that_there_are(emovit, run: SimpleNamespace) -> None:
    shards = run.data / "small_sketch" / "test"
    code, _, errors = emovit(shards, "--image-root", ".")
    assert code == 2 and "omit --image-root" in errors
    Path("rec.jsonl").write_text('{"id": "a", "image": "a.jpg", "split": "test", "source": "x"}\n')
    code, _, errors = emovit("rec.jsonl", "--image-root", "nowhere")
    assert code == 2 and "--image-root nowhere: no such folder" in errors


def test_videos_of_a_folder_are_counted(tmp_path, caplog):
    for name in ("a.png", "clips/b.MP4", "clips/c.webm", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [Path(image.name).name for image in input_images([str(tmp_path)])] == ["a.png"]
    assert "2 videos are not read" in caplog.text
    caplog.clear()
    named = input_images([str(tmp_path / "a.png"), str(tmp_path / "clips" / "*.webm")])
    assert [image.clip is not None for image in named] == [False, True] and not caplog.text
