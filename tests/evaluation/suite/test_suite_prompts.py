"""Prompts and the probe in suites.

- Rows and numbers have the hash of their prompt, and a prompt file that changed is noticed; the report needs no file.
- Baselines have no prompt; models that cannot follow its decoding are skipped with the reason; ours follow it.
- Prompts without a place for options, unknown splits and split lists that overlap are refused at once.
- Every suite with an image encoder has a probe, unless it says otherwise; the probe is skipped with the reason where
  there is nothing to learn from, without loading its encoder.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lavis_emovit.errors import ConfigError, DataError, UserError
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.report.page import write_report
from lavis_emovit.evaluation.suite import suite as suite_module
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.evaluation.suite.suite import run_suite


def test_rows_and_numbers_have_the_prompt_and_a_changed_file_is_noticed(suite, fake, tmp_path):
    fake()
    path = tmp_path / "mine.txt"
    path.write_text("Which is it: {options}?")
    asks = {"benchmark": {"prompt": str(path)}, "methods": ["likelihood", "generation"]}
    first = run_suite(suite(**asks))["benchmarks"]["set"]["results"]
    for result in first:
        rows = read_predictions(f"out/predictions/set/tiny.{result['method']}.jsonl")
        assert {row.prompt for row in rows} == {result["prompt"]["sha256"]}
        assert result["prompt"]["name"] == "mine.txt"
    assert first[0]["prompt"]["sha256"] != first[1]["prompt"]["sha256"]  # candidates and their prefix
    assert f"{first[0]['prompt']['sha256'][:12]} (mine.txt)" in Path("out/table.md").read_text()
    # The report does not need the file, and shows the text that was asked.
    path.rename(tmp_path / "gone.txt")
    write_report(Path("out"))
    assert "Which is it: {options}?" in Path("out/suite.yaml").read_text()
    path.write_text("What is it of {options}?")
    with pytest.raises(UserError, match=r"prompt\.sha256: \w{64} -> \w{64}"):
        run_suite(suite(**asks))
    again = run_suite(suite(**asks, overwrite=True))["benchmarks"]["set"]["results"]
    assert again[0]["prompt"]["sha256"] != first[0]["prompt"]["sha256"]


def test_baselines_have_no_prompt_and_models_that_cannot_follow_it_are_skipped(suite, fake):
    model = fake()
    asks = {"benchmark": {"prompt": "emovit"}, "methods": ["likelihood", "generation"]}
    summary = run_suite(suite(**asks))
    reason = "the model cannot follow repetition_penalty of the prompt"
    assert summary["left_out"] == {"set": {"tiny": {"generation": reason}}}
    assert [one["method"] for one in summary["benchmarks"]["set"]["results"]] == ["likelihood"]
    without = {"preset": "emovit", "repetition_penalty": None}
    assert not run_suite(suite("without", **{**asks, "benchmark": {"prompt": without}}))["left_out"]
    model.decoding = frozenset({"repetition_penalty"})
    result = run_suite(suite(**asks))["benchmarks"]["set"]["results"][1]
    rows = read_predictions("out/predictions/set/tiny.generation.jsonl")
    # "no idea" has no label; by the published rule it counts as invalid here.
    assert {row.status for row in rows if row.error is None} == {"ok", "invalid"}
    assert result["metrics"]["original"]["num_dropped"] == result["num_invalid"] > 0


def test_the_beams_of_a_prompt_reach_a_model_of_this_plugin(suite):
    wide = {"text": "Emotion of {options}:", "num_beams": 3, "repetition_penalty": 1.5, "max_new_tokens": 4}
    asks = {"methods": ["generation"], "benchmark": {"limit": 4}}
    run_suite(suite("wide", **{**asks, "benchmark": {**asks["benchmark"], "prompt": wide}}))
    greedy = {**wide, "num_beams": 1, "repetition_penalty": None}
    run_suite(suite("greedy", **{**asks, "benchmark": {**asks["benchmark"], "prompt": greedy}}))
    answers = [
        [row.answer for row in read_predictions(f"{name}/predictions/set/tiny.generation.jsonl")]
        for name in ("wide", "greedy")
    ]
    assert answers[0] != answers[1] and None not in answers[0]


def test_all_faults_of_prompts_and_splits_are_refused_at_once(tmp_path):
    root = tmp_path / "EmotionROI"
    root.mkdir()
    (root / "train.txt").write_text("joy/1.jpg\n")
    (root / "test.txt").write_text("joy/1.jpg\njoy/2.jpg\n")
    prepare = {"root": str(root), "split_lists": {"train": "train.txt", "test": "test.txt"}}
    benchmarks = {
        "place": {"dataset": "abstract", "prompt": "What is it, in one word?"},
        "name": {"dataset": "emoset", "split": "tset", "prompt": "emovitt"},
        "lists": {"dataset": "emotionroi", "config": {"build_info": {"prepare": prepare}}},
        "learn": {"dataset": "bass", "train_split": "vaal"},
        "whole": {"dataset": "fi", "split": "all", "train_split": "train"},
    }
    content = {"name": "s", "output_dir": "o", "models": {"m": {"adapter": "prior"}}, "benchmarks": benchmarks}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"suite": content}))
    with pytest.raises(ConfigError) as refused:
        load_suite(tmp_path / "suite.yaml", check_names=True)
    problems = refused.value.problems
    expected = (
        "suite.benchmarks.place: prompt: 'text' has no place for the options; write {options}",
        "suite.benchmarks.name.prompt: 'emovitt' is neither a preset (did you mean 'emovit'?)",
        "suite.benchmarks.name.split: 'emoset' has no split 'tset' (did you mean 'test'?)",
        "suite.benchmarks.lists.config.build_info.prepare.split_lists: ",
        "suite.benchmarks.learn.train_split: 'bass' has no split 'vaal' (did you mean 'val'?)",
    )
    assert len(problems) == len(expected), problems
    for start in expected:
        assert any(problem.startswith(start) for problem in problems), start
    assert "1 images are also in split 'test', such as 'joy/1.jpg'" in "".join(problems)


def test_a_probe_on_the_frozen_encoder_is_a_row_of_every_suite(suite):
    settings = suite(probe=True)
    assert settings.models["probe"].arch == "emovit_tiny" and settings.models["probe"].device == "cpu"
    results = {one["model"]: one for one in run_suite(settings)["benchmarks"]["set"]["results"]}
    assert list(results) == ["tiny", "probe"]
    assert results["probe"]["num_samples"] == results["tiny"]["num_samples"] and results["probe"]["prompt"] is None
    rows = read_predictions("out/predictions/set/probe.direct.jsonl")
    answered = [row for row in rows if row.error is None]
    assert all(row.prediction == max(row.scores, key=row.scores.get) for row in answered)
    # The same again for the same seed; the suite as it was written out has no second probe.
    again = run_suite(suite("again", probe=True))["benchmarks"]["set"]["results"][1]
    assert again["headline"] == results["probe"]["headline"]
    written = suite("out", models={name: entry.model_dump() for name, entry in settings.models.items()}, probe=True)
    assert set(written.models) == {"tiny", "probe"}


@pytest.mark.parametrize(
    ("models", "probe", "expected"),
    [
        ({"a": {"adapter": "prior"}}, True, None),
        ({"a": {"adapter": "clip", "path": "here"}}, True, {"path": "here"}),
        ({"c": {"adapter": "clip"}, "a": {"adapter": "lavis", "arch": "emovit_tiny"}}, True, {"arch": "emovit_tiny"}),
        ({"a": {"adapter": "lavis", "arch": "emovit_tiny"}}, False, None),
        ({"a": {"adapter": "lavis", "arch": "emovit_tiny"}, "probe": None}, True, None),
        ({"mine": {"adapter": "probe", "path": "x", "seed": 3}, "a": {"adapter": "clip"}}, True, None),
    ],
)
def test_the_probe_takes_the_first_image_encoder(suite, models, probe, expected):
    settings = suite(models=models, probe=probe)
    found = settings.models.get("probe")
    assert (found is None) == (expected is None)
    for name, value in (expected or {}).items():
        assert getattr(found, name) == value


@pytest.mark.parametrize(
    ("models", "probe", "is_told"),
    [
        ({"a": {"adapter": "prior"}}, True, True),
        ({"a": {"adapter": "prior"}, "probe": None}, True, True),
        ({"a": {"adapter": "prior"}}, False, False),
        ({"a": {"adapter": "lavis", "arch": "emovit_tiny"}, "probe": None}, True, False),
        ({"a": {"adapter": "clip", "path": "x"}, "b": {"adapter": "prior"}, "probe": None}, True, False),
        ({"a": {"adapter": "clip_probe", "path": "x"}, "probe": None}, True, False),
    ],
)
def test_a_probe_that_is_switched_off_is_not_missed(suite, monkeypatch, caplog, models, probe, is_told):
    def stop(settings):
        raise DataError("as far as this")

    monkeypatch.setattr(suite_module, "open_benchmarks", stop)
    with caplog.at_level("INFO"), pytest.raises(DataError, match="as far as this"):
        run_suite(suite(models=models, probe=probe))
    assert ("none of the models has an image encoder" in caplog.text) == is_told


def test_a_probe_without_a_training_split_is_skipped_before_its_encoder_is_loaded(suite, fake, monkeypatch):
    model = fake()

    def open_model(entry, place):
        assert place.name != "probe"
        return model

    monkeypatch.setattr(suite_module, "open_model", open_model)
    summary = run_suite(suite(probe=True, benchmark={"split": "all"}))
    assert summary["left_out"] == {"set": {"probe": {"direct": "no training split to learn from"}}}
    captions = run_suite(suite("captions", probe=True, benchmark={"kind": "caption"}, methods=["generation"]))
    assert captions["left_out"] == {"set": {"probe": {"direct": "no baseline for kind 'caption'"}}}
    assert "probe on set: no baseline for kind 'caption'" in Path("captions/table.md").read_text()
