"""Files that the package itself wrote as JSON, when somebody edited or damaged them.

- A file of every kind, written by the code that writes it, is damaged in every way: cut, emptied, of another encoding,
  with repeated keys, replaced by a folder or a list, and with a value of another type, NaN or a huge number at each
  key. What reads it refuses the file by name, or accepts the damage as a value; nothing else is raised.
- The undamaged file is read, also with a byte order mark.
- Damage that changes no value of a declared key is no fault: keys of later versions stay.
"""

from __future__ import annotations

import copy
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent / "evaluation"))

from suite_folder import make_suite

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.checkpoints.checkpoint import CheckpointFacts, _body_hash, save_checkpoint, verify_checkpoint
from lavis_emovit.checkpoints.training_state import (
    Best,
    EngineState,
    Position,
    TrainingState,
    read_position,
    writers_of,
)
from lavis_emovit.checkpoints.tuned_files import find_tuned
from lavis_emovit.datasets.preparation import _State
from lavis_emovit.emotion.facial import facial_priors
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.hosts.lmms_tasks import Tasks
from lavis_emovit.evaluation.report.entry import report_entry
from lavis_emovit.evaluation.report.folder import read_folder
from lavis_emovit.evaluation.sheets import make_pairs, score_sheets, write_sheet
from lavis_emovit.evaluation.written import RowsRecord, RunMetrics
from lavis_emovit.files import file_sha256, write_json
from lavis_emovit.generation.outputs import _read_steps
from lavis_emovit.generation.synthesis import Round, read_rounds
from lavis_emovit.own_files import parse_as, read_own
from lavis_emovit.pages.judgements import read_sheet
from lavis_emovit.records import EmotionRecord, find_image_root, write_records, write_summary
from lavis_emovit.runners.following import FollowedRun
from lavis_emovit.sample_set.write import _is_written
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.sources.cleaning import Removed
from lavis_emovit.sources.quarantine import read_list, write_list
from lavis_emovit.teachers.answers import AnswerFile, AnswerRow, View
from lavis_emovit.teachers.faces import Answer, Face
from lavis_emovit.tuned.calibrating import Calibration, ObservedBin
from lavis_emovit.tuned.card import _results

SHA = "ab" * 32


@dataclass(frozen=True)
class Kind:
    """A kind of file: `write` makes one in a folder and returns its path, `read` reads it as a command does.

    `is_noted`: damage is reported beside other numbers, instead of refused; that draws charts, so only every eleventh
    damage is tried. `is_lines`: one JSON object a line.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    is_noted: bool = False
    is_lines: bool = False


def _json(name: str, content: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_json(folder / name, content)
        return folder / name

    return write


def _run(folder: Path) -> Path:
    (folder / "config.yaml").write_text("run: {seed: 1}\nmodel: {}\ndatasets: {d: {}}\n")
    rows = [
        {"event": "step", "step": 1, "epoch": 1, "loss": 1.5, "lr": 0.1, "samples_per_s": 3.0, "step_s": 0.5},
        {"event": "eval", "split": "val", "stage": "during", "step": 1, "epoch": 1.0, "metrics": {"accuracy": 0.5}},
        {"event": "epoch", "step": 1, "epoch": 1, "num_images": {"d": 4}},
        {"event": "dropped", "step": 1, "num_dropped": {"d": 1}, "num_samples": {"d": 4}, "reasons": {"learned": 1}},
        {"event": "answers", "step": 1, "record_id": "a", "question": "Why?", "label": "awe",
         "answers": [{"text": "so", "reward": 1.0, "rewards": {"form": 1.0}, "advantage": 0.5}]},
    ]  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*rows, rows[0] | {"step": 2})))
    write_json(folder / "metrics.json", RUN)
    fault = {"sample": 1, "place": "s/1", "kind": "bad_image", "label": "awe", "reason": "cut", "replaced_by": 2}
    (folder / "quarantine.jsonl").write_text(json.dumps({**fault, "index": SHA[:12]}) + "\n" + json.dumps(fault) + "\n")
    return folder


RUN = {
    "step": 2, "epoch": 1, "checkpoint": "ckpt-00000002", "best": None, "parameters": {"trained": 1, "total": 2},
    "splits": {"test": {"after": {"num_samples": 4, "accuracy": 0.5, "accuracy_interval": {"low": 0.4, "high": 0.6}}}},
    "versions": {"python": "3.12"},
}  # fmt: skip
SUITE = {
    "suite": "trial",
    "benchmarks": {"scenes": {"label_set": "mikels8", "results": [
        {"model": "tiny", "method": "likelihood", "metrics": {"accuracy": 0.5}, "num_without_truth": 0}]}},
    "left_out": {"affect": {"majority": {"direct": "no numbers"}}},
    "absent": {"units": "no data"}, "endpoints": {"tiny": {"logprobs": "yes"}},
}  # fmt: skip


def _suite(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        make_suite(folder / "suite", num_rows=3)
        write_json(folder / "suite" / "metrics.json", SUITE)
        return folder / "suite" / name

    return write


def _report_of(levels: int) -> Callable[[Path], Any]:
    def read(path: Path) -> str:
        folder = read_folder(path.parents[levels])
        report_entry(folder, "k")
        return " ".join(folder.notes)

    return read


def _checkpoint(folder: Path) -> Path:
    state = TrainingState(
        trained={"w": torch.zeros(2)},
        engine=EngineState({"exp_avg.w": torch.zeros(2)}, {"adamw_steps": {"w": 3}}),
        position=Position(step=3, epoch=1, step_in_epoch=1, best=Best(3, "accuracy", 0.5)),
        config_yaml="model: {arch: emovit_tiny}\nrun: {}\n",
        questions_json='{"questions": [{"kind": "emotion"}], "image_processor": {"name": "x"}, "num_beams": 1}',
    )
    facts = CheckpointFacts(SHA, SHA, SHA, {"python": "3"})
    return save_checkpoint(folder / "checkpoints", facts, step=3, epoch=1, writers=writers_of(state))


def _signed(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Read a file of a checkpoint whose manifest somebody has fitted to the damage."""

    def signed(path: Path) -> Any:
        manifest = path.with_name("MANIFEST.json")
        body = json.loads(manifest.read_text())
        if path.is_file():
            body["files"][path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        del body["sha256"]
        manifest.write_text(json.dumps({**body, "sha256": _body_hash(body)}))
        return read(path)

    return signed


def _shards(folder: Path) -> Path:
    image = Image.new("RGB", (16, 16), "navy")
    image.save(folder / "a.png")
    record = EmotionRecord(id="a", image="a.png", split="train", source="s", emotion="awe", label_set="mikels8")
    return write_shards([record], folder, folder / "shards").folder / "index.json"


def _records(folder: Path) -> Path:
    write_records(folder / "r.jsonl", [EmotionRecord(id="a", image="a.png", split="train", source="s")])
    write_summary(folder / "r.jsonl", folder, rows=1)
    return folder / "r.summary.json"


def _sheet(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        made = make_pairs(("m", {"r": "one"}), ("human", {"r": "two"}), seed=3)
        sheet = write_sheet(folder / "sheet", made, {"r": picture.getvalue()}, seed=3)
        (folder / "sheet" / "ada.csv").write_text(f"sheet,number,rater,choice\n{sheet},1,ada,A\n")
        return folder / "sheet" / name

    return write


def _removed(folder: Path) -> Path:
    records = [EmotionRecord(id=name, image=f"{name}.png", split="train", source="s") for name in "ab"]
    write_records(folder / "r.jsonl", records)
    write_records(folder / "out.jsonl", records[1:])
    path = folder / "out.removed.jsonl"
    places = {"out": folder / "out.jsonl", "image_root": folder, "quarantine": folder / "q"}
    write_list(path, folder / "r.jsonl", {"a": Removed("duplicates", "same", "b")}, **places, moved={"a": "a.png"})
    return path


def _answers(folder: Path) -> Path:
    face = Face(box=(0.1, 0.1, 0.5, 0.5), score=0.9, expressions={"happy": 1.0})
    with AnswerFile(folder / "answers.jsonl") as file:
        for name in "ab":
            file.put(AnswerRow(teacher="t 1", image=name, view=View(SHA), answer=Answer(faces=(face,))))
    return folder / "answers.jsonl"


def _ledger(folder: Path) -> Path:
    rows = [{"request": SHA, "status": "ok", "reply": "x", "usd": 0.1, "usage": {"input": 3}, "about": {"r": "a"}}]
    rows += [{"event": "reserved", "usd": 0.5}, {"event": "batch_submitted", "submission": "s", "batch": "b"}]
    header = {"event": "ledger", "version": 1}
    (folder / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (header, *rows, rows[0])))
    return folder / "l.jsonl"


STEP = {
    **dict.fromkeys(("num_records", "num_done", "num_pairs", "num_read", "num_rejected", "under_way"), 1),
    "step": "captions", "writer": "w", "prompt": "p", "reasons": {"leak": 1}, "missing": {}, "stopped": None,
    "notes": {"a": 1}, "leak_rate": 0.5,
}  # fmt: skip
CALIBRATION = Calibration(
    temperature=1.5, weights_sha256=SHA, label_set="mikels8", method="likelihood", dataset="d, val", num_images=9,
    ece_before=0.2, ece_after=0.1,
    bins=(ObservedBin(low=0.0, high=0.5, count=4, right=1, from_share=0.1, to_share=0.6),),
)  # fmt: skip
BENCHMARK = {"settings": {"dataset": "emoset", "kind": "emotion"}, "label_set": "mikels8"}
EXPORT = {
    "model": {"arch": "emovit_tiny", "pretrained": "w"}, "weights_sha256": SHA,
    "questions": {"questions": [{"kind": "emotion"}], "image_processor": {"name": "x"}},
}  # fmt: skip
PRIORS = facial_priors().model_dump(mode="json", exclude_defaults=True)
PREPARED = {"settings": {"source": "folder", "alternatives": [{"source": "table"}]}, "fingerprint": SHA}


def _card(path: Path) -> list[str]:
    tuned = SimpleNamespace(folder=path.parent, checkpoint=(Path("ckpt-00000002"), None))
    return list(_results(tuned))


KINDS = {
    "metrics of a run": Kind(lambda folder: _run(folder) / "metrics.json", _report_of(0), is_noted=True),
    "metrics of a run, for its card": Kind(_json("metrics.json", RUN), _card),
    "log": Kind(lambda folder: _run(folder) / "log.jsonl", lambda path: FollowedRun(path.parent).update(), False, True),
    "log, for the report": Kind(lambda folder: _run(folder) / "log.jsonl", _report_of(0), True, True),
    "list of faults": Kind(lambda folder: _run(folder) / "quarantine.jsonl", _report_of(0), True, True),
    "metrics of a suite": Kind(_suite("metrics.json"), _report_of(0), is_noted=True),
    "record of a suite's rows": Kind(_suite("predictions/scenes/tiny.likelihood.json"), _report_of(2), is_noted=True),
    "record of a suite's rows, to resume": Kind(
        _suite("predictions/scenes/tiny.likelihood.json"),
        lambda path: read_own(path, RowsRecord, "Delete it."),
    ),
    "manifest": Kind(lambda folder: _checkpoint(folder) / "MANIFEST.json", lambda path: verify_checkpoint(path.parent)),
    "state": Kind(lambda folder: _checkpoint(folder) / "state.json", _signed(lambda path: read_position(path.parent))),
    "questions": Kind(
        lambda folder: _checkpoint(folder) / "questions.json", _signed(lambda path: find_tuned(path.parents[2]))
    ),
    "export": Kind(_json("emovit.json", EXPORT), lambda path: find_tuned(path.parent)),
    "calibration": Kind(_json("c.json", CALIBRATION.model_dump()), lambda path: read_own(path, Calibration, "Fit.")),
    "shard index": Kind(_shards, lambda path: ShardIndex.load(path.parent)),
    "summary of records": Kind(_records, lambda path: find_image_root(path.with_name("r.jsonl"))),
    "summary of generation": Kind(_json("summary.json", {"image_root": "x", "steps": [STEP]}), _read_steps),
    "rounds": Kind(
        _json("rounds.json", [Round(model="m", num_faces=3, num_accepted=1, reasons={"format": 2}).model_dump()]),
        lambda path: read_rounds(path.parent),
    ),
    "settings of drawings": Kind(
        _json("sketch.json", {"settings": {"seed": 1, "size_px": 64}}),
        lambda path: _is_written(path.parent, {"seed": 1, "size_px": 64}),
    ),
    "sheet": Kind(_sheet("sheet.json"), lambda path: read_sheet(path.parent)),
    "key of a sheet": Kind(_sheet("key.json"), lambda path: score_sheets(path, [path.with_name("ada.csv")])),
    "list of removed records": Kind(_removed, read_list, is_lines=True),
    "answers of teachers": Kind(_answers, lambda path: AnswerFile(path).__exit__(), is_lines=True),
    "ledger": Kind(_ledger, lambda path: Ledger(path).close(), is_lines=True),
    "task of lmms-eval": Kind(_json("b.json", BENCHMARK), lambda path: Tasks(path.parent)._task("b")),
    "preparation": Kind(_json("prepared.json", PREPARED), lambda path: read_own(path, _State, "Delete it.")),
    "tables of faces": Kind(_json("priors.json", PRIORS), facial_priors),
}
ODD = (None, True, -1, 0.5, float("nan"), 10**30, "", "x\ud800", [None], {"": {}})


def _places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value; of a list, only of the first item, and of large tables, of the first keys."""
    yield path
    keys = list(content)[:9] if isinstance(content, dict) else [0] if isinstance(content, list) and content else []
    for key in keys if len(path) < 5 else ():
        yield from _places(content[key], (*path, key))


def _changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    content = copy.deepcopy(content)
    inside = content
    for key in path[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return content


def _outcome(kind: Kind, path: Path) -> str:
    """What the reader says: the refusal, the notes, or nothing. Any other error fails the test."""
    try:
        found = kind.read(path)
    except (UserError, OSError) as error:
        assert path.name in str(error) or path.parent.name in str(error), f"names no file: {error}"
        assert not any(word in str(error) for word in ("KeyError", "TypeError", "has no attribute")), error
        return str(error)
    return found if kind.is_noted else ""


def _damaged_texts(text: str, is_lines: bool) -> Iterator[bytes]:
    data = text.encode()
    yield from (
        data[: len(data) // 2],
        b"",
        b"\xff\xfe" + data,
        b'{"a": 1, "a": 2}\n',
        b"[" * 100_000,
        b"null\n",
        b"[]\n",
    )
    lines = text.splitlines() if is_lines else [text]
    for number, line in enumerate(lines[:-1] if is_lines else lines):
        content = json.loads(line)
        for place in _places(content):
            for value in (*ODD, *([...] if place else [])):
                changed = json.dumps(_changed(content, place, value))
                yield ("\n".join([*lines[:number], changed, *lines[number + 1 :]]) + "\n").encode()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def test_damage_is_refused_by_name_or_changes_nothing(kind, tmp_path):
    path = kind.write(tmp_path)
    text = path.read_text()
    first = _outcome(kind, path)
    assert kind.is_noted or not first, first  # what is whole is read
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    if not kind.is_lines:
        assert _outcome(kind, path) == first
    count = refused = 0
    for data in islice(_damaged_texts(text, kind.is_lines), 0, None, 11 if kind.is_noted else 1):
        path.write_bytes(data)
        count += 1
        refused += _outcome(kind, path) != first
    assert count > 5 and refused > count / 5, (count, refused)


def test_a_folder_in_the_place_of_a_file_is_refused_by_name(kind, tmp_path):
    path = kind.write(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises((UserError, OSError), match=path.name.replace(".", r"\.")):
        kind.read(path)


@pytest.mark.parametrize("data", [b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": 1e400}', b'{"a": 1' + b"0" * 30 + b"}"])
def test_what_json_loses_is_refused(data):
    with pytest.raises(ValueError, match=r"repeated|finite|range"):
        parse_as(data, dict[str, float])


def test_keys_of_later_versions_stay(tmp_path):
    path = _json("metrics.json", {**RUN, "new": {"a": [1]}})(tmp_path)
    assert read_own(path, RunMetrics, "").model_dump(exclude_unset=True) == {**RUN, "new": {"a": [1]}}
