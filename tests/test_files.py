"""Files: an error names the file that the user asked for, folders that cannot be read are not skipped, and a folder
appears when it is complete; only a file is replaced or read, and SIGTERM leaves nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from pydantic import TypeAdapter
from safetensors import SafetensorError

from lavis_emovit.cli.main import main
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.prompt_settings import Prompt
from lavis_emovit.evaluation.sheets import score_sheets
from lavis_emovit.files import atomic_folder, atomic_writer, cut_name, find_files, is_plain_name, name_full_disk
from lavis_emovit.generation.attributes import read_vocabulary
from lavis_emovit.generation.prompts import load_prompt
from lavis_emovit.generation.statements.review import read_answers
from lavis_emovit.records import EmotionRecord, write_records
from lavis_emovit.sources.split_lists import read_lists


def _os_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), *([path] if path is not None else []))


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (_os_error(errno.EACCES, "out/.a.jsonl.7.tmp"), errno.EACCES),
        (_os_error(errno.EROFS, "out/.a.jsonl.7.mode"), errno.EROFS),
        (_os_error(errno.ENOSPC, "out/.a.jsonl.7.tmp"), errno.ENOSPC),
        (_os_error(errno.ENOSPC), errno.ENOSPC),
        (SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)"), errno.EACCES),
        (SafetensorError("Error while serializing: I/O error: Read-only file system (os error 30)"), errno.EROFS),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
    ],
)
def test_an_error_names_the_file_and_not_its_temporary_copy(error, number):
    with pytest.raises(OSError) as caught, name_full_disk(Path("out/a.jsonl")):
        raise error
    assert (caught.value.errno, caught.value.filename) == (number, "out/a.jsonl")


@pytest.mark.parametrize(
    "error",
    [
        _os_error(errno.EACCES, "in/b.jsonl"),
        _os_error(errno.EACCES, "out/.a.json"),
        SafetensorError("Error: No such file or directory (os error 2)"),
        ValueError("anything"),
    ],
)
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as caught, name_full_disk(Path("out/a.jsonl")):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("command", [["split"], ["clean"], ["preview", "--out"]])
def test_a_command_names_the_file_that_it_may_not_write(tmp_path, monkeypatch, capsys, command):
    record = EmotionRecord(id="a/1", image="1.png", split="train", source="a", emotion="awe", label_set="mikels8")
    write_records(tmp_path / "r.jsonl", [record, record.model_copy(update={"id": "a/2"})])
    Image.new("RGB", (64, 64), "red").save(tmp_path / "1.png")
    out = tmp_path / ("o.html" if command == ["preview", "--out"] else "o.jsonl")
    real = Path.open

    def locked(path: Path, *args, **options):
        if path.name.startswith(f".{out.name}"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", locked)
    options = ["--fractions", "train=0.5,test=0.5"] if command == ["split"] else []
    assert main(["data", command[0], str(tmp_path / "r.jsonl"), "--out", str(out), *options]) == 2
    assert f"error: {out}: Permission denied. Change the permissions there" in capsys.readouterr().err


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="stop"), atomic_writer(tmp_path / "a.json") as file:
        file.write("half")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_no_output_replaces_a_pipe_or_a_device(make, tmp_path, capsys):
    """As root, renaming a file to /dev/null would replace it for the whole machine."""
    record = EmotionRecord(id="a", image="1.png", split="train", source="s")
    write_records(tmp_path / "r.jsonl", [record])
    place = tmp_path / "place"
    make(place)
    before = place.stat()
    assert main(["data", "stats", str(tmp_path / "r.jsonl"), "--json", str(place)]) == 2
    assert f"error: {place}: is a" in capsys.readouterr().err
    assert main(["data", "split", str(tmp_path / "r.jsonl"), "--out", str(place), "--overwrite"]) == 2
    assert place.stat() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["place", "r.jsonl"]


def test_sigterm_leaves_no_temporary_files(tmp_path):
    record = EmotionRecord(id="a", image="1.png", split="train", source="s")
    write_records(tmp_path / "r.jsonl", [record])
    code = (
        "import os, signal, sys\n"
        "from lavis_emovit import records\n"
        "from lavis_emovit.cli.main import main\n"
        "def write(path, found):\n"
        "    with records.atomic_writer(path) as file:\n"
        "        file.write('half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "records.write_records = write\n"
        "sys.exit(main(['data', 'split', 'r.jsonl', '--out', 'o.jsonl', '--fractions', 'train=1']))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    assert ended.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("*.tmp")) and not (tmp_path / "o.jsonl").exists()


def test_files_are_found_in_visible_folders_that_can_be_read(tmp_path, lock_folder):
    for name in ("b/x.txt", "a/x.txt", "a/._x.txt", "a/c/x.txt", "x.txt", ".hidden/x.txt", "lost+found/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    for name in ("lost+found", ".hidden"):
        lock_folder(tmp_path / name)
    assert find_files(tmp_path, "*/x.txt") == [tmp_path / name for name in ("a/x.txt", "b/x.txt")]
    assert find_files(tmp_path, "*.txt") == [tmp_path / "x.txt"] and find_files(tmp_path / "none", "*") == []
    lock_folder(tmp_path / "a" / "c")
    assert find_files(tmp_path, "*/x.txt") == [tmp_path / name for name in ("a/x.txt", "b/x.txt")]
    for pattern in ("**/x.txt", "*/*/x.txt", "a/c/*"):
        with pytest.raises(DataError, match="a/c: the folder cannot be read"):
            find_files(tmp_path, pattern)


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "new"
    with pytest.raises(ValueError, match="half"), atomic_folder(target) as unfinished:
        (unfinished / "a").write_text("1")
        raise ValueError("half")
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(target) as unfinished:
        (unfinished / "a").write_text("1")
        assert not target.exists()
    with pytest.raises(DataError, match="new: has content that came"), atomic_folder(target) as unfinished:
        (unfinished / "a").write_text("2")
    assert [path.name for path in tmp_path.iterdir()] == ["new"] and (target / "a").read_text() == "1"


def test_a_full_disk_says_what_to_do(monkeypatch, capsys, tmp_path):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "r.jsonl"))

    monkeypatch.setattr("lavis_emovit.cli.main.get_command", lambda app: full)
    assert main(["data", "list"]) == 2
    expected = (
        f"error: {tmp_path / 'r.jsonl'}: No space left on device. Free some space and run the same command again."
    )
    assert capsys.readouterr().err.strip() == expected


@pytest.mark.parametrize(
    "read",
    [
        read_vocabulary,
        lambda path: load_prompt("caption", file=path),
        lambda path: TypeAdapter(Prompt).validate_python(str(path)),
        lambda path: score_sheets(path, [path]),
        read_answers,
        lambda path: read_lists({"train": path}),
    ],
)
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(read, tmp_path):
    """Reading would wait for ever."""

    def hangs(number, frame):
        raise AssertionError("it waits for the pipe")

    os.mkfifo(tmp_path / "pipe.txt")
    earlier = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(5)
    try:
        reason = str(read(tmp_path / "pipe.txt"))
    except (UserError, ValueError) as error:
        reason = str(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
    assert "not a regular file" in reason and "pipe.txt" in reason


@pytest.mark.parametrize(
    ("make", "out", "advice"),
    [
        (lambda place: place.write_text("x"), "place/r.md", "place: a file is in the place of a folder"),
        (lambda place: None, f"{'y' * 300}.md", "the name is too long for the file system. Use a shorter one."),
    ],
)
def test_a_place_that_cannot_be_written_is_named_with_what_to_do(make, out, advice, tmp_path, capsys):
    make(tmp_path / "place")
    preset = ["export", "rewards", "grpo_plain", "--format", "verl", "--out", str(tmp_path / out)]
    assert main(preset) == 2
    errors = capsys.readouterr().err
    assert advice in errors and "Errno" not in errors


@pytest.mark.parametrize("letter", ["a", "\u00e9", "\u6587", "\U00020000"])
def test_names_from_data_fit_into_a_folder_in_any_script(letter, tmp_path):
    """A file system counts bytes, of which some letters have four."""
    name = cut_name(300 * letter)
    (tmp_path / f".{name}-0123456789ab.jsonl.{os.getpid()}.tmp").touch()
    assert name == letter * (200 // len(letter.encode()))
    assert is_plain_name(100 * letter) == (100 * len(letter.encode()) <= 200)
    assert cut_name("short") == "short"
