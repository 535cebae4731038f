"""Properties of `emovit predict`: its labels and probabilities are those of the run's own evaluation; every image has
one row in order, also a broken one; an interrupted file resumes and ends the same; thresholds abstain by calibrated
confidence; formats agree; wrong input is named."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pyarrow import parquet

import lavis_emovit
from lavis_emovit.cli.main import main
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.tuned.calibrating import calibrate, fit_temperature, kept_calibration, observed_bins
from lavis_emovit.tuned.inputs import InputImage, input_images
from lavis_emovit.tuned.output import PredictionFile
from lavis_emovit.tuned.predictions import Asking, ImagePrediction, PredictionSettings, predict
from lavis_emovit.tuned.processes import predict_in_processes


def rows_of(path: Path | str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def rows_of_csv(path: Path | str) -> list[dict]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_those_of_the_runs_own_evaluation(run: SimpleNamespace) -> None:
    shards = run.data / "small_sketch" / "test"
    assert main(["predict", str(run.folder), str(shards), "--out", "test.jsonl"]) == 0
    found = {row["image"]: row for row in rows_of("test.jsonl")}
    expected = read_predictions(run.folder / "predictions" / "test-after.jsonl")
    assert len(found) == len(expected) > 20
    for row in expected:
        own = found[row.record_id]
        assert own["emotion"] == row.prediction
        powers = {label: math.exp(score) for label, score in row.scores.items()}
        for label, share in own["probabilities"].items():
            assert share == pytest.approx(powers[label] / sum(powers.values()), rel=1e-4)


def test_every_image_has_its_row_in_order(run: SimpleNamespace, tmp_path: Path, capsys) -> None:
    good = run.images[:5]
    (tmp_path / "broken.png").write_bytes(b"no image")
    places = [*map(str, good[:2]), "broken.png", str(good[2].parent / f"{good[2].stem}*")]
    assert main(["predict", str(run.folder), *places, "--out", "a.jsonl", "--batch-size", "2", "--top-k", "3"]) == 0
    rows = rows_of("a.jsonl")
    assert [row["image"] for row in rows] == [*map(str, good[:2]), "broken.png", str(good[2])]
    assert set(rows[2]) == {"image", "error"} and "cannot be decoded" in rows[2]["error"]
    assert all(len(row["probabilities"]) == 3 for row in (rows[0], rows[1], rows[3]))
    told = capsys.readouterr()
    assert "a.jsonl: 4 images" in told.out and "1 of 4 images could not be predicted" in told.err
    assert main(["predict", str(run.folder), "broken.png"]) == 2
    assert "no image could be predicted" in capsys.readouterr().err


def test_processes_that_read_pass_a_batch_in_one_block(run: SimpleNamespace, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = input_images([*map(str, run.images[:2]), "broken.png", *map(str, run.images[2:7])])
    tuned = lavis_emovit.load_tuned(run.folder, device="cpu")
    settings, blocks, batch = PredictionSettings(tuned.askings(["emotion"])), [], tuned.adapter.batch

    def noted(pixels, *rest):
        blocks.append(len({one.untyped_storage().data_ptr() for one in pixels}))
        return batch(pixels, *rest)

    monkeypatch.setattr(tuned.adapter, "batch", noted)
    found = {num: list(predict(tuned.adapter, images, settings, batch_size=4, num_workers=num)) for num in (0, 1)}
    assert blocks == [3, 4, 1, 1] and found[0] == found[1]
    assert [row.error is None for rows in found[1] for row in rows] == [True, True, False, *[True] * 5]


def test_rows_in_python_are_those_of_the_command(run: SimpleNamespace, tmp_path: Path) -> None:
    good = run.images[:3]
    (tmp_path / "broken.png").write_bytes(b"no image")
    places = [*good, tmp_path / "broken.png"]
    kinds = ["emotion", "valence_arousal"]
    command = ["predict", str(run.folder), *map(str, places), "--kinds", ",".join(kinds), "--out", "a.jsonl"]
    assert main(command) == 0
    tuned = lavis_emovit.load_tuned(run.folder)
    found = tuned.predict(places, kinds, batch_size=3)
    assert [row.model_dump(exclude_none=True) for row in found] == rows_of("a.jsonl")
    assert found[0].valence is not None and found[3].emotion is None
    assert tuned.predict(good[0]) == tuned.predict([str(good[0])])
    with pytest.raises(UserError, match="nowhere"):
        tuned.predict("nowhere.jpg")


def test_names_come_from_the_standard_input(run: SimpleNamespace, monkeypatch, capsys) -> None:
    good = run.images[:2]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{good[0]}\n\n{good[1]}\n".encode())))
    assert main(["predict", str(run.folder), "-"]) == 0
    table = capsys.readouterr().out
    assert "probabilities" in table and table.count(".jpg") >= 2


def test_all_formats_have_the_same_content(run: SimpleNamespace) -> None:
    place = str(run.images[0].parent)
    for suffix in ("jsonl", "csv", "parquet"):
        kinds = "emotion,valence_arousal,action_units"
        assert main(["predict", str(run.folder), place, "--out", f"a.{suffix}", "--kinds", kinds]) == 0
    lines = rows_of("a.jsonl")
    table = rows_of_csv("a.csv")
    columns = parquet.read_table("a.parquet").to_pylist()
    assert len(lines) == len(table) == len(columns) == 30
    for one, two, three in zip(lines, table, columns):
        assert one["image"] == two["image"] == three["image"]
        assert -1 <= one["valence"] <= 1 and len(one["action_units"]) == 17
        for name, value in (("valence", one["valence"]), ("AU12", one["action_units"]["AU12"])):
            assert float(two[name]) == three[name] == value
        assert float(two["p_awe"]) == three["p_awe"] == one["probabilities"]["awe"]


def test_an_interrupted_file_resumes_and_ends_the_same(run: SimpleNamespace, monkeypatch, capsys) -> None:
    place = str(run.images[0].parent)
    command = ["predict", str(run.folder), place, "--batch-size", "4"]
    assert main([*command, "--out", "whole.csv"]) == 0
    write, calls = PredictionFile.write, []

    def stop(self, rows) -> None:
        write(self, rows)
        calls.append(len(rows))
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PredictionFile, "write", stop)
        assert main([*command, "--out", "part.csv"]) == 130
    assert not Path("part.csv").exists()
    with Path("part.csv.unfinished").open("ab") as file:
        file.write(b'{"image": "cut')
    assert main([*command, "--out", "part.csv", "--top-k", "2"]) == 2
    assert "begun with another model, other questions or other settings" in capsys.readouterr().err
    calls.clear()
    monkeypatch.setattr(PredictionFile, "write", lambda self, rows: (calls.append(len(rows)), write(self, rows))[1])
    assert main([*command, "--out", "part.csv"]) == 0
    assert sum(calls) == 30 - 8
    assert Path("part.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert not Path("part.csv.unfinished").exists()
    assert main([*command, "--out", "part.csv"]) == 2
    assert "part.csv exists; --overwrite replaces it" in capsys.readouterr().err


def test_several_processes_give_the_same_rows_in_order(run: SimpleNamespace) -> None:
    place = str(run.images[0].parent)
    command = ["predict", str(run.folder), place, "--batch-size", "4"]
    assert main([*command, "--out", "one.csv"]) == 0
    assert main([*command, "--out", "two.csv", "--processes", "2", "--device", "cpu"]) == 0
    for one, two in zip(rows_of_csv("one.csv"), rows_of_csv("two.csv"), strict=True):
        assert one.keys() == two.keys() and one["image"] == two["image"] and one["emotion"] == two["emotion"]
        assert float(one["confidence"]) == pytest.approx(float(two["confidence"]), rel=1e-4)


def kill_itself(image: str) -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def test_a_killed_process_is_reported(run: SimpleNamespace) -> None:
    images = [InputImage(str(number), partial(kill_itself, str(number))) for number in range(2)]
    settings = PredictionSettings((Asking.of(lavis_emovit.load_tuned(run.folder).asked("emotion")),))
    load = partial(lavis_emovit.load_tuned, run.folder)
    with pytest.raises(UserError, match=r"a process ended early.*the same command resumes"):
        list(predict_in_processes(load, images, settings, ["cpu"], batch_size=1))


def test_explanations_are_written(run: SimpleNamespace) -> None:
    place = str(run.images[0])
    assert main(["predict", str(run.folder), place, "--explain", "--out", "a.jsonl"]) == 0
    (row,) = rows_of("a.jsonl")
    assert row["explanation"] and row["emotion"] in row["probabilities"]


def test_bins_of_a_calibration_are_counted_by_hand() -> None:
    # Ten images of which five are of the first label; each says 0.65 and 0.35.
    bins = observed_bins(np.tile([[0.65, 0.35]], (10, 1)), np.array([0] * 5 + [1] * 5))
    assert [(one.low, one.high, one.count, one.right) for one in bins] == [
        (0.3, 0.4, 10, 5),
        (0.6, 0.7, 10, 5),
    ]
    # Wilson's interval of 5 in 10 with z = 1.96: (0.5 +- 1.96 sqrt(0.025 + 0.0096)) / 1.384, around 0.5.
    assert (bins[1].from_share, bins[1].to_share) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    # The limits 0 and 1 are in the outer bins, and a limit between bins is in the lower one.
    outer = observed_bins(np.array([[0.0, 1.0], [0.8, 0.2]]), np.array([1, 0]))
    assert [(one.low, one.count, one.right) for one in outer] == [
        (0.0, 1, 0), (0.1, 1, 0), (0.7, 1, 1), (0.9, 1, 1),
    ]  # fmt: skip


def test_thresholds_abstain_by_calibrated_confidence(run: SimpleNamespace, capsys) -> None:
    shards = str(run.data / "small_sketch" / "test")
    assert main(["predict", str(run.folder), shards, "--out", "a.jsonl", "--threshold", "0.5"]) == 0
    told = capsys.readouterr()
    assert "confidence calibrated on" in told.err
    rows = rows_of("a.jsonl")
    for row in rows:
        assert row["abstained"] == (row["confidence"] < 0.5) == ("emotion" not in row)
    # From the rows of the run: the same temperature gives the same confidence.
    temperature = json.loads((run.folder / "calibration.json").read_text())["temperature"]
    expected = {row.record_id: row for row in read_predictions(run.folder / "predictions" / "test-after.jsonl")}
    for row in rows:
        powers = [math.exp(score / temperature) for score in expected[row["image"]].scores.values()]
        assert row["confidence"] == pytest.approx(max(powers) / sum(powers), rel=1e-3)
    # The file is used again, and goes into archives.
    bins = kept_calibration(lavis_emovit.load_tuned(run.folder)).bins
    num_images = json.loads((run.folder / "calibration.json").read_text())["num_images"]
    assert sum(one.right for one in bins) == num_images and sum(one.count for one in bins) == 8 * num_images
    before = (run.folder / "calibration.json").stat().st_mtime_ns
    assert main(["pack", str(run.folder), "model.emovit"]) == 0
    assert calibrate(lavis_emovit.load_tuned("model.emovit")).temperature == temperature
    assert (run.folder / "calibration.json").stat().st_mtime_ns == before
    # A calibration for other labels leaves the archive whole, and is kept too.
    other = f"labels: {', '.join(get_label_set('mikels8').labels)}, joy"
    first = calibrate(lavis_emovit.load_tuned("model.emovit", labels=other))
    assert kept_calibration(lavis_emovit.load_tuned("model.emovit", labels=other)) == first
    assert kept_calibration(lavis_emovit.load_tuned("model.emovit")).temperature == temperature


def test_the_temperature_is_that_of_a_search_by_hand() -> None:
    generator = np.random.default_rng(0)
    true_N = generator.integers(0, 3, 4000)
    logits_NC = 2.0 * np.eye(3)[true_N] + generator.normal(size=(4000, 3))

    def loss(temperature: float) -> float:
        scaled = logits_NC / temperature
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(4000), true_N]).mean())

    best = min(np.linspace(0.2, 3, 2801), key=loss)
    assert fit_temperature(5 * logits_NC, true_N) == pytest.approx(5 * best, rel=2e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-here"], "nothing-here: no such file or folder"),
        (["a*.jpg"], "a*.jpg: has no image"),
        (["IMAGE", "--kinds", "emotions"], "--kinds: 'emotions' is not one of emotion"),
        (["IMAGE", "--out", "a.txt"], "the suffix decides the format"),
        (["IMAGE", "--step", "1"], "has no checkpoint of step 1"),
        (["IMAGE", "--labels", "mikel8"], "unknown label set 'mikel8'"),
    ],
)
def test_wrong_input_is_named(run: SimpleNamespace, capsys, arguments: list[str], message: str) -> None:
    image = str(run.images[0])
    assert main(["predict", str(run.folder), *(image if one == "IMAGE" else one for one in arguments)]) == 2
    told = capsys.readouterr()
    assert message in told.err and "Traceback" not in told.err


def test_formulas_in_names_of_files_are_text_in_csv(tmp_path: Path) -> None:
    file = PredictionFile(tmp_path / "a.csv", [InputImage("=1+1.jpg", bytes)], {})
    file.write([ImagePrediction(image="=1+1.jpg", error="x")])
    file.finish()
    file.close()
    assert (tmp_path / "a.csv").read_text() == "image,error\n'=1+1.jpg,x\n"
