"""Suites exported for lmms-eval and VLMEvalKit, without these programs.

- The folder for lmms-eval has every question of the suite with its image, byte for byte, and no other split. The
  functions of its tasks give the numbers of the suite's own rows for the same answers, for each kind.
- A record with several questions of its own has a row for each of them.
- The table for VLMEvalKit has a row for each question, with the options in the order of the suite and the right letter;
  the same suite gives the same MD5.
- VLMEvalKit itself reads the table, where it is installed.
- Unknown programs, benchmarks that a program cannot ask, and a folder with content are refused before anything is
  written; samples without a truth are counted.
- `emovit suite export` prints what was written and how it is used.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import yaml
from PIL import ImageChops

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "sources"))

from published_copies import DRAWERS

from lavis_emovit.cli.main import main
from lavis_emovit.clips.clip import Clip
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.hosts.export import export_suite
from lavis_emovit.evaluation.hosts.lmms_tasks import Tasks
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.suite.benchmark_data import OpenBenchmark, open_benchmarks
from lavis_emovit.evaluation.suite.suite import run_suite
from lavis_emovit.images import decode_image


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def functions(folder):
    """utils.py of an exported folder, as lmms-eval loads it."""
    spec = importlib.util.spec_from_file_location("utils", folder / "utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KINDS = {
    "set": {},
    "marked": {"option_marks": ["letters"], "option_orders": ["shuffled"], "wordings": [2, 1]},
    "why": {"kind": "explanation"},
}


def test_the_tasks_of_lmms_eval_give_the_numbers_of_the_suite(suite, tmp_path):
    settings = suite({name: {**one, "max_new_tokens": 6, "limit": 6} for name, one in KINDS.items()})
    summary = export_suite(settings, "lmms-eval", tmp_path / "tasks")
    own = run_suite(settings)
    utils = functions(tmp_path / "tasks")
    for name in KINDS:
        task = yaml.load((tmp_path / "tasks" / f"{name}.yaml").read_text().replace("!function ", ""), yaml.SafeLoader)
        assert task["dataset_kwargs"]["data_files"]["test"] == str(tmp_path / "tasks" / f"{name}.jsonl")
        assert task["generation_kwargs"]["max_new_tokens"] == 6 and task["task"] == f"emovit_{name}"
        docs = lines(tmp_path / "tasks" / f"{name}.jsonl")
        assert summary["benchmarks"][name] == {
            "task": f"emovit_{name}", "records": 6, "questions": 6, "without_truth": 0
        }  # fmt: skip
        rows = [
            row
            for row in read_predictions(f"out/predictions/{name}/tiny.generation.jsonl")
            if row.variant in (None, "wording 2, options shuffled by letters")
        ]
        assert len(docs) == len(rows) == 6
        # Answers of an untuned model are invalid, so some right and some wrong ones take their place.
        answers = [row.label if n % 3 else "None of them." for n, row in enumerate(rows)]
        results = [utils.process_results(doc, [answer]) for doc, answer in zip(docs, answers)]
        found = json.loads(results[1][task["metric_list"][0]["metric"]])["row"]
        assert found["record_id"] == rows[1].record_id and found["prediction"] == rows[1].label
        assert utils.headline([one[task["metric_list"][0]["metric"]] for one in results]) == pytest.approx(4 / 6)
        assert utils.invalid([one["invalid"] for one in results]) == pytest.approx(2 / 6)
        given = [utils.process_results(doc, [row.answer]) for doc, row in zip(docs, rows)]
        headline = own["benchmarks"][name]["results"][0]["headline"]["value"]
        assert utils.headline([one[task["metric_list"][0]["metric"]] for one in given]) == headline


@pytest.fixture
def own_questions(suite, tmp_path):
    """A suite on copies of MVEI and of EEmo-Bench's pairs: statements, and choices."""
    benchmarks = {}
    for name, kind in (("mvei", "statement"), ("eemo_bench_pair", "choice")):
        DRAWERS[name](tmp_path / name)
        config = {"build_info": {"prepare": {"root": str(tmp_path / name)}}}
        benchmarks[name] = {"dataset": name, "kind": kind, "config": config, "max_new_tokens": 4}
    return suite(benchmarks)


def test_own_questions_of_records_are_rows_of_their_own(own_questions, tmp_path):
    summary = export_suite(own_questions, "lmms-eval", tmp_path / "tasks")["benchmarks"]
    assert {name: (one["records"], one["questions"]) for name, one in summary.items()} == {
        "mvei": (4, 8), "eemo_bench_pair": (2, 3)
    }  # fmt: skip
    own = run_suite(own_questions)
    utils = functions(tmp_path / "tasks")
    for name in summary:
        docs = lines(tmp_path / "tasks" / f"{name}.jsonl")
        rows = read_predictions(f"out/predictions/{name}/tiny.generation.jsonl")
        assert len(rows) == len(docs)
        right = [utils.process_results(doc, [doc["answer"]]) for doc in docs]
        (metric,) = (key for key in right[0] if key != "invalid")
        assert utils.headline([one[metric] for one in right]) == 1.0
        assert [json.loads(one[metric])["row"]["instance_id"] for one in right] == [row.instance_id for row in rows]
        given = [utils.process_results(doc, [row.answer]) for doc, row in zip(docs, rows)]
        headline = own["benchmarks"][name]["results"][0]["headline"]["value"]
        assert utils.headline([one[metric] for one in given]) == headline


def test_tables_of_own_questions(own_questions, tmp_path):
    summary = export_suite(own_questions, "vlmevalkit", tmp_path / "tables")["benchmarks"]
    tables = {
        name: pandas.read_csv(tmp_path / "tables" / one["file"], sep="\t", keep_default_na=False)
        for name, one in summary.items()
    }
    statements = tables["mvei"].to_dict("records")
    assert [row["index"] for row in statements] == list(range(8)) and summary["mvei"]["questions"] == 8
    assert {(row["A"], row["B"]) for row in statements} == {("correct", "incorrect")}
    assert Counter(row["answer"] for row in statements) == {"A": 6, "B": 2}
    assert {row["category"] for row in statements} == {"sentiment polarity", "perception subjectivity"}
    # The second statement about an image refers to the row that has it.
    assert statements[1]["image"] == "0" and len(statements[0]["image"]) > 64 and len(statements[2]["image"]) > 64
    pairs = tables["eemo_bench_pair"].to_dict("records")
    assert [row["answer"] for row in pairs] == ["B", "B", "B"]
    assert [row["image"][:2] for row in pairs if len(row["image"]) > 64] == ["['", "['"]
    assert all(row["question"].startswith("Which image is happier") for row in pairs)
    (benchmark,) = (one for one in open_benchmarks(own_questions)[0].values() if one.name == "eemo_bench_pair")
    item = next(iter(benchmark.items()))
    assert [base64.b64decode(text) for text in ast.literal_eval(pairs[0]["image"])] == item.images()
    assert len(item.images()) == 2


def test_pairs_are_two_images_unless_they_are_joined(own_questions, tmp_path):
    export_suite(own_questions, "lmms-eval", tmp_path / "tasks")
    doc = lines(tmp_path / "tasks" / "eemo_bench_pair.jsonl")[0]
    found = functions(tmp_path / "tasks").doc_to_visual(doc)
    (benchmark,) = (one for one in open_benchmarks(own_questions)[0].values() if one.name == "eemo_bench_pair")
    item = next(iter(benchmark.items()))
    whole = decode_image(item.image_bytes)
    for image, box in zip(found, item.record.pair, strict=True):
        assert ImageChops.difference(image, whole.crop(box)).getbbox() is None
    assert "two images side by side" not in doc["question"]
    pairs = own_questions.benchmarks["eemo_bench_pair"].model_copy(update={"join_pairs": True})
    suite = own_questions.model_copy(update={"benchmarks": {"eemo_bench_pair": pairs}})
    export_suite(suite, "lmms-eval", tmp_path / "joined")
    doc = lines(tmp_path / "joined" / "eemo_bench_pair.jsonl")[0]
    (image,) = functions(tmp_path / "joined").doc_to_visual(doc)
    assert image.height == max(one.height for one in found)
    assert doc["question"].startswith("The picture shows two images side by side")
    export_suite(suite, "vlmevalkit", tmp_path / "tables")
    table = pandas.read_csv(tmp_path / "tables" / "EmoVIT_eemo_bench_pair.tsv", sep="\t", keep_default_na=False)
    assert base64.b64decode(table["image"][0]) == item.shown() and table["question"][0].startswith("The picture shows")


def test_a_prompt_decides_how_answers_are_written(suite, tmp_path):
    export_suite(suite({"set": {"prompt": "emovit"}}), "lmms-eval", tmp_path / "tasks")
    task = yaml.load((tmp_path / "tasks" / "set.yaml").read_text().replace("!function ", ""), yaml.SafeLoader)
    assert task["generation_kwargs"]["repetition_penalty"] == 5.0 and not task["generation_kwargs"]["do_sample"]


def test_images_are_those_of_the_shards(suite, tmp_path):
    settings = suite()
    export_suite(settings, "lmms-eval", tmp_path / "tasks")
    (benchmark,) = open_benchmarks(settings)[0].values()
    items = list(benchmark.items())
    docs = lines(tmp_path / "tasks" / "set.jsonl")
    assert [json.loads(doc["record"])["id"] for doc in docs] == [item.record.id for item in items]
    assert {item.record.split for item in items} == {"test"}
    images = [(tmp_path / "tasks" / name).read_bytes() for doc in docs for name in doc["images"]]
    assert images == [item.image_bytes for item in items]
    (image,) = functions(tmp_path / "tasks").doc_to_visual(docs[0])
    assert image.mode == "RGB" and image.size == (96, 96)


def test_the_table_of_vlmevalkit(suite, tmp_path):
    settings = suite({"set": {"option_orders": ["reversed"]}})
    summary = export_suite(settings, "vlmevalkit", tmp_path / "one")
    path = tmp_path / "one" / "EmoVIT_set.tsv"
    again = export_suite(settings, "vlmevalkit", tmp_path / "two")
    assert summary["benchmarks"]["set"] == again["benchmarks"]["set"]
    assert summary["benchmarks"]["set"]["md5"] == hashlib.md5(path.read_bytes()).hexdigest()
    table = pandas.read_csv(path, sep="\t")  # as VLMEvalKit reads it
    (benchmark,) = open_benchmarks(settings)[0].values()
    items = list(benchmark.items())
    assert list(table["index"]) == list(range(len(items))) and len(items) == summary["benchmarks"]["set"]["questions"]
    for row, item in zip(table.to_dict("records"), items):
        assert base64.b64decode(row["image"]) == item.image_bytes
        assert [row[letter] for letter in "ABCDEFGH"] == sorted(benchmark.label_set.labels, reverse=True)
        assert row[row["answer"]] == item.truth.label == row["category"]
        assert row["question"] == "Which emotion does this picture call up?"


VLMEVAL = os.environ.get("EMOVIT_VLMEVAL_PYTHON")
READ_TABLE = """
import json, sys
from vlmeval.dataset import build_dataset
from vlmeval.smp import md5
data = build_dataset(sys.argv[1])
prompt = data.build_prompt(0)
print(json.dumps([type(data).__name__, len(data), prompt[0]["value"], prompt[1]["value"], md5(sys.argv[2])]))
"""


@pytest.mark.skipif(VLMEVAL is None, reason="EMOVIT_VLMEVAL_PYTHON names no Python with VLMEvalKit (ms-vlmeval 0.0.20)")
def test_vlmevalkit_reads_the_table(suite, tmp_path):
    settings = suite()
    summary = export_suite(settings, "vlmevalkit", tmp_path / "tables")["benchmarks"]["set"]
    found = subprocess.run(
        [VLMEVAL, "-c", READ_TABLE, "EmoVIT_set", str(tmp_path / "tables" / summary["file"])],
        env={**os.environ, "LMUData": str(tmp_path / "tables"), "PYTHONPATH": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    kind, count, image, text, digest = json.loads(found.stdout.splitlines()[-1])
    assert (kind, count, digest) == ("CustomMCQDataset", summary["questions"], summary["md5"])
    (benchmark,) = open_benchmarks(settings)[0].values()
    # VLMEvalKit writes the pixels as PNG.
    pixels = [decode_image(data) for data in (Path(image).read_bytes(), next(iter(benchmark.items())).image_bytes)]
    assert ImageChops.difference(*pixels).getbbox() is None
    assert text.startswith("Question: Which emotion does this picture call up?\nOptions:\nA. amusement\n")


def test_what_cannot_be_exported_is_refused_first(suite, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown program 'lmmseval' \(did you mean 'lmms-eval'\?\)"):
        export_suite(suite(), "lmmseval", tmp_path / "x")
    with pytest.raises(ConfigError, match=r"suite.benchmarks.why: kind 'explanation' has no options"):
        export_suite(suite({"set": {}, "why": {"kind": "explanation"}}), "vlmevalkit", tmp_path / "x")
    with pytest.raises(
        ConfigError, match=r"suite.benchmarks.many: kind 'labels' has no question with a written answer"
    ):
        export_suite(suite({"many": {"kind": "labels"}}), "lmms-eval", tmp_path / "x")
    with pytest.raises(ConfigError, match=r"suite.benchmarks.funny: kind 'caption' has no metric"):
        export_suite(suite({"funny": {"kind": "caption"}}), "lmms-eval", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    with pytest.raises(DataError, match="already has content"):
        export_suite(suite(), "lmms-eval", tmp_path / "full")


@pytest.mark.parametrize("host", ["lmms-eval", "vlmevalkit"])
def test_clips_are_not_exported_as_images(suite, tmp_path, host, monkeypatch):
    items = OpenBenchmark.items

    def with_a_clip(self, numbers=None):
        for item in items(self, numbers):
            yield replace(item, record=item.record.model_copy(update={"clip": Clip()}))

    monkeypatch.setattr(OpenBenchmark, "items", with_a_clip)
    with pytest.raises(DataError, match=r"suite\.benchmarks\.set: record '.*' is a clip, and only images"):
        export_suite(suite({"set": {"limit": 2}}), host, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_command(recipe, tmp_path, capsys):
    path = str(recipe())
    assert (
        main(["suite", "export", path, "--to", "vlmevalkit", "--out", "tables", "--options", "suite.batch_size=2"]) == 0
    )
    printed = capsys.readouterr().out
    digest = hashlib.md5((tmp_path / "tables" / "EmoVIT_set.tsv").read_bytes()).hexdigest()
    assert f"MD5 {digest}" in printed and "--data EmoVIT_set" in printed
    assert main(["suite", "export", path, "--to", "lmms-eval", "--out", "tasks"]) == 0
    assert "--include_path tasks --tasks emovit_set" in capsys.readouterr().out
    assert main(["suite", "export", path, "--to", "lmms-eval", "--out", "tasks"]) == 2
    assert "already has content" in capsys.readouterr().err


def test_a_folder_exported_with_one_image_a_question_is_named(tmp_path):
    with pytest.raises(DataError, match="export the suite again"):
        Tasks(tmp_path).images({"image": "images/1.png"})
