"""The report page.

Properties: the page is one well-formed file that loads nothing and runs no script; its references exist, images and
charts have a text, tables have headers; its numbers agree with scikit-learn on the predictions; it claims an effect of
tuning only if the interval of the difference excludes zero; text from data is never markup, in no format; reports exist
for runs with missing parts and name them; damaged predictions are refused by name; the same run gives the same bytes;
colours have enough contrast on light and dark; labels of charts neither overlap nor are cut off.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image
from report_page import check_can_be_read_aloud, check_loads_nothing, check_references, page_of
from sklearn import metrics as reference
from suite_folder import MIKELS, affect_rows, scene_rows, unit_rows

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics import compare_models
from lavis_emovit.evaluation.predictions import PredictionRow, read_predictions, write_predictions
from lavis_emovit.evaluation.report import images as report_images
from lavis_emovit.evaluation.report.charts import overlaid_chart, validation_chart
from lavis_emovit.evaluation.report.page import write_comparison, write_report

# A run of which only the predictions matter: without curves, and without charts of scores.
PLAIN = {"num_epochs": 0, "validate": False, "with_scores": False}


@pytest.fixture(scope="module")
def page(finished_run):
    return page_of(write_report(finished_run))


def test_is_written_to_the_run_folder_or_another_file_and_is_the_same_again(finished_run, tmp_path):
    assert write_report(finished_run) == finished_run / "report.html"
    again = write_report(finished_run, tmp_path / "new" / "page.html")
    assert again.read_bytes() == (finished_run / "report.html").read_bytes()


def test_loads_nothing_and_runs_nothing(page):
    check_loads_nothing(page)


def test_references_inside_the_page_exist(page):
    check_references(page)


def test_images_charts_and_tables_can_be_read_aloud(page):
    assert len(page.of("img")) == 16
    assert all("labelled" in image["alt"] for image in page.of("img"))
    assert len(page.of("svg")) == 7
    check_can_be_read_aloud(page)


def test_numbers_agree_with_scikit_learn(make_run):
    run = make_run(invalid_share=0.1)
    page = page_of(write_report(run))
    stages = {s: read_predictions(run / "predictions" / f"test-{s}.jsonl") for s in ("before", "after")}
    for rows in stages.values():
        accuracy = reference.accuracy_score([r.label for r in rows], [r.prediction for r in rows])
        assert f"{100 * accuracy:.1f} %" in page.text
    truth, answers = [r.label for r in stages["after"]], [r.prediction for r in stages["after"]]
    labels = list(stages["after"][0].scores)
    f1 = reference.f1_score(truth, answers, labels=labels, average="macro")
    assert f"Macro F1 {f1:.3f}" in page.text
    assert f"{sum(a == 'danger' for a in answers)} of 240" in page.text
    matrices = [table for table in page.tables if table[0][0].startswith("true")]
    for table, rows in zip(matrices, stages.values(), strict=True):
        counts = reference.confusion_matrix(
            [r.label for r in rows], [r.prediction for r in rows], labels=[*labels, "danger"]
        )
        assert table[0][1:] == [*labels, "(invalid)"]
        assert [row[0] for row in table[1:]] == labels
        assert [[int(cell) for cell in row[1:]] for row in table[1:]] == counts[:-1].tolist()


def test_difference_and_mistakes(make_run):
    run = make_run("small", num_images=0)
    labels = ("awe", "fear")

    def rows(predictions):
        return [
            PredictionRow(instance_id=str(n), record_id=str(n), label=label, prediction=prediction)
            for n, (label, prediction) in enumerate(zip(("awe", "awe", "awe", "fear"), predictions))
        ]

    write_predictions(run / "predictions" / "test-before.jsonl", rows(["fear", "fear", "fear", "fear"]))
    write_predictions(run / "predictions" / "test-after.jsonl", rows(["awe", "awe", "fear", "fear"]))
    text = page_of(write_report(run)).text
    assert "The accuracy went from 25.0 % to 75.0 %, but this is no evidence of a change" in text
    assert "Difference +50.0" in text
    assert "awe, taken for fear : 1 of 3, 33 %" in text
    assert "Always awe" in text
    assert all(label in text for label in labels)


@pytest.mark.parametrize(("skill", "sentence"), [(4.0, "Tuning raised the accuracy from"), (0.05, "The accuracy went")])
def test_an_effect_of_tuning_is_claimed_only_with_evidence(make_run, skill, sentence):
    run = make_run(skill=skill)
    before, after = (read_predictions(run / "predictions" / f"test-{s}.jsonl") for s in ("before", "after"))
    interval = compare_models(before, after, list(after[0].scores)).interval
    assert (interval.low > 0 or interval.high < 0) == sentence.startswith("Tuning")
    page = page_of(write_report(run))
    assert sentence in page.text
    for end in (interval.low, interval.high):
        assert f"{100 * end:+.1f}".replace("-", "\u2212") in page.text


@pytest.mark.parametrize(
    "epochs",
    [
        [0.19],
        [0.1, 0.2, 0.3],
        [0.25, 1.0],
        [0.5, 0.5001, 0.5002],
        [0.000123],
        [0.0001, 0.0002, 0.0003],
        [100.25, 100.5, 100.75, 101.0],
        [1, 2, 3],
        list(range(1, 40)),
        [n / 100 for n in range(1, 1001)],
        [1234567],
    ],
)
def test_labels_of_validations_do_not_overlap(epochs):
    metrics = {"accuracy": 0.5, "accuracy_interval": {"low": 0.4, "high": 0.6}, "macro_f1": 0.4, "chance": 0.125}
    rows = [{"epoch": epoch, "metrics": metrics} for epoch in epochs]
    chart = validation_chart("v", "epoch", "accuracy", "accuracy", rows)
    ticks = re.findall(r'xtick_\d+">.*?<text [^>]*x="([\d.]+)"[^>]*>(.*?)</text>', chart, flags=re.DOTALL)
    assert 1 <= len(ticks) <= 7
    assert len({label for _, label in ticks}) == len(ticks)
    for (left, label), (right, other) in itertools.pairwise(ticks):
        # Digits of common fonts are at most 0.64 of the font's size wide, which is 9 here.
        assert float(right) - float(left) > 0.64 * 9 * (len(label) + len(other) + 1) / 2, (label, other)
    if len(epochs) == 1:
        assert float(ticks[0][1]) == epochs[0]
    # A mark for each of a few validations, a band for many.
    assert (chart.count("<use") > 2 * len(epochs)) == (len(epochs) <= 40)


LONG_NAME = "instructblip_vicuna_seven_billion_parameters_tuned_on_emoset_with_all_of_its_attributes"


@pytest.mark.parametrize("names", [["a", "b"], ["tiny (likelihood)", "colours"], [LONG_NAME, "b"], [LONG_NAME] * 8])
def test_names_in_a_legend_are_not_cut_off(names):
    chart = overlaid_chart("o", "Loss", [(f"{number} {name}", [1, 2], [2.0, 1.0]) for number, name in enumerate(names)])
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', chart).groups())
    texts = re.findall(r"<text [^>]*font-size: 8px[^>]* transform=.*?([\d.]+) ([\d.]+)\)[^>]*>(.*?)</text>", chart)
    shown, expected = (text for *_, text in texts), (f"{number} {name}" for number, name in enumerate(names))
    assert "".join(shown).replace(" ", "") == "".join(expected).replace(" ", "")
    for x, y, text in texts:
        assert float(x) + 0.6 * 8 * len(text) < width and 0 < float(y) < height


def test_images_show_answers_and_candidates_of_both_stages(make_run):
    run = make_run(num_images=3)
    page = page_of(write_report(run))
    before, after = (read_predictions(run / "predictions" / f"test-{s}.jsonl") for s in ("before", "after"))
    assert page.html.count('<article class="card"') == 3
    assert page.html.count("the mouth curves up and the sky is blue") == 3
    for row in after[:3]:
        assert f"predict emotion: {row.prediction}" in page.text
    assert page.html.count("(read as: invalid)") == 3
    for rows in (before, after):
        best = max(rows[0].scores, key=rows[0].scores.get)
        assert f">{best}<" in page.html
    embedded = [image["src"] for image in page.of("img")]
    assert all(source.startswith("data:image/jpeg;base64,") for source in embedded)


def test_wrong_images_come_first(make_run):
    text = page_of(write_report(make_run(num_images=16))).text
    assert text.index("Wrong: ") < text.index("Right: ")


def test_text_from_data_is_never_markup(make_run):
    nasty = '<script>alert("1")</script>&amp;{{ 7 * 7 }}$x^2$'
    labels = (nasty, "\"'><img src=x onerror=alert(2)>", "awe")
    run = make_run("<b>run<b>", labels=labels, num_rows=30, num_images=2)
    rows = read_predictions(run / "predictions" / "test-after.jsonl")
    rows = [row.model_copy(update={"answer": nasty, "record_id": nasty}) for row in rows]
    write_predictions(run / "predictions" / "test-after.jsonl", rows)
    (run / "config.yaml").write_text(f"model: {{arch: {json.dumps(nasty)}}}\n")
    page = page_of(write_report(run))
    assert not page.of("script")
    assert not page.of("b") or all("class" in b or "style" in b for b in page.of("b"))
    assert all("onerror" not in image for image in page.of("img"))
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;&amp;amp;{{ 7 * 7 }}" in page.html
    assert "49$x" not in page.html


def test_twenty_five_classes(make_run):
    labels = tuple(f"emotion-{n:02d}" for n in range(25))
    page = page_of(write_report(make_run(labels=labels, num_rows=600)))
    matrices = [table for table in page.tables if table[0][0].startswith("true")]
    assert [len(table) for table in matrices] == [26, 26]
    assert 'class="matrices many"' in page.html


NO_AFTER = "stopped before its last evaluation"
NO_VALIDATION = "was not validated"


@pytest.mark.parametrize(
    ("options", "expected", "unexpected"),
    [
        ({}, [], ["was not", "missing", "stopped", "cannot"]),
        ({"stages": ("after",)}, ["was not evaluated before tuning"], [NO_AFTER]),
        ({"stages": ("before",), "summary": False}, [NO_AFTER, "The accuracy before tuning is"], [NO_VALIDATION]),
        ({"stages": (), "summary": False}, ["There are no predictions yet"], [NO_AFTER, "Confusions"]),
        ({"validate": False}, [NO_VALIDATION], [NO_AFTER]),
        ({"num_epochs": 0, "validate": False}, ["this report shows an evaluation only"], [NO_AFTER, NO_VALIDATION]),
        ({"num_images": 0}, [], ["Images and answers"]),
        ({"with_scores": False}, [], ["Calibration error", "In top"]),
        ({"summary": False}, ["versions of the packages are not known yet"], []),
        ({"num_epochs": 1}, ["Training loss", "Validation"], []),
    ],
)
def test_missing_parts_are_named(make_run, options, expected, unexpected):
    page = page_of(write_report(make_run(**options)))
    body = page.text.split("What the numbers mean Accuracy")[0]
    for words in expected:
        assert words in body
    for words in unexpected:
        assert words not in body


def test_files_with_details_may_be_missing_or_damaged(make_run):
    run = make_run()
    (run / "config.yaml").write_text("a: [1,\n")
    (run / "metrics.json").write_text("{")
    log = (run / "log.jsonl").read_text().splitlines()
    log[3] = '{"event": "st'
    log[5] = json.dumps({**json.loads(log[5]), "loss": "nan"})
    log[7] = "[]"
    log[9] = json.dumps({**json.loads(log[9]), "step": "nine"})
    log.insert(
        11, json.dumps({"event": "eval", "stage": "during", "split": "val", "step": "x", "metrics": {"accuracy": 0.5}})
    )
    (run / "log.jsonl").write_text("\n".join(log) + '\n{"event": "step", "st')
    for image in (run / "predictions" / "images").iterdir():
        image.write_bytes(b"no image")
    (run / "predictions" / "notes.jsonl").write_text("")
    page = page_of(write_report(run))
    assert "config.yaml cannot be read" in page.text
    assert "metrics.json cannot be read" in page.text
    assert "log.jsonl has 4 lines that cannot be read" in page.text
    assert "1 steps have no finite loss" in page.text
    assert "image files are missing or damaged" in page.text
    assert "predictions/notes.jsonl is skipped" in page.text
    assert page.html.count(">no image<") == 16
    (run / "log.jsonl").unlink()
    (run / "config.yaml").unlink()
    text = page_of(write_report(run)).text
    assert "log.jsonl is missing" in text
    assert "config.yaml is missing" in text


def test_repeated_steps_count_once(make_run):
    run = make_run()
    lines = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("\n".join([*lines, *lines[100:]]) + "\n")
    assert "Steps 180" in page_of(write_report(run)).text


def test_measures_of_the_log_are_drawn_and_spikes_are_counted(make_run):
    run = make_run()
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for row in rows:
        if row["event"] == "step":
            row |= {"tokens_per_s": 900.0 + row["step"], "padding_share": 0.25, "mfu": 0.3, "gpu_memory_gib": 31.5}
            row |= {"loss_spike": True} if row["step"] in (50, 70) else {}
    rows.append({**rows[-1], "split": "other"})
    for step, count in ((1, 60), (31, 32), (61, 8)):
        rows.append({"event": "epoch", "step": step, "num_images": {"faces": count, "scenes.categorical": 64 - count}})
    for step, count in ((31, 4), (61, 9)):
        counts = {"num_dropped": {"faces": count, "scenes": 1}, "num_samples": {"faces": 40, "scenes": 60}}
        rows.append({"event": "dropped", "step": step, **counts, "reasons": {"learned": count, "hopeless": 1}})
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kinds = ["cut_shard", "cut_shard", "bad_record"]
    fault = {"sample": 1, "place": "a", "label": None, "reason": "cut", "replaced_by": 2, "index": "ab"}
    (run / "quarantine.jsonl").write_text("".join(json.dumps({**fault, "kind": kind}) + "\n" for kind in kinds))
    page = page_of(write_report(run))
    labels = " ".join(svg["aria-label"] for svg in page.of("svg"))
    for words in (
        "2 steps are marked as spikes",
        "Throughput in tokens by step: 901 at step 1, 1.08e+03 at step 180, median 990, from 901 to 1.08e+03",
        "Padding by step: 25 % at step 1",
        "Model FLOPs utilisation by step: 30 % at step 1",
        "GPU memory by step: 31.5 at step 1",
        "Curriculum by step: faces 60 to 8; scenes.categorical 4 to 56.",
        "Dropped samples by step: faces 4 to 9; scenes 1 to 1.",
    ):
        assert words in labels
    assert "Loss spikes 2" in page.text
    assert "Dropped samples 10 of 100 (learned 9, hopeless 1)" in page.text
    assert "Validation on val" in page.text
    assert "Validation on other" in page.text
    assert "3 training samples could not be read and were replaced by others (cut shard 2, bad record 1)" in page.text


def test_row_cut_by_a_crash_is_skipped_and_a_damaged_one_is_refused(make_run):
    run = make_run()
    path = run / "predictions" / "test-after.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    text = page_of(write_report(run)).text
    assert "239 test images" in text
    assert "the stages cannot be compared, because instance" in text
    assert "the difference could not be tested" in text
    before = (run / "report.html").read_bytes()
    path.write_bytes(content.replace(b'"label"', b'"lable"', 1))
    with pytest.raises(DataError, match=r"test-after\.jsonl:1: key 'label'"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before


def test_rows_without_a_label_are_refused_by_name(make_run):
    run = make_run(num_images=0)
    path = run / "predictions" / "test-after.jsonl"
    rows = read_predictions(path)
    write_predictions(path, [rows[0].model_copy(update={"label": None}), *rows[1:]])
    with pytest.raises(DataError, match=r"split 'test': prediction of instance 'sketch_00000' has no true label"):
        write_report(run)


def test_other_folders_are_refused(tmp_path, make_run):
    with pytest.raises(DataError, match="no such folder"):
        write_report(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="a run that has started"):
        write_report(tmp_path / "empty")
    with pytest.raises(DataError, match="is a folder; use the name"):
        write_report(make_run(), tmp_path)
    with pytest.raises(DataError, match="there are no folders"):
        write_comparison([], tmp_path / "page.html")


def test_large_images_are_made_small_and_huge_ones_are_skipped(make_run, monkeypatch):
    run = make_run(num_images=2, **PLAIN)
    first, second = sorted((run / "predictions" / "images").iterdir())
    Image.effect_noise((2000, 1500), 80).convert("RGB").save(first, quality=95)
    Image.new("RGB", (3000, 3000)).save(second)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_000_000)
    page = page_of(write_report(run))
    (embedded,) = page.of("img")
    assert len(embedded["src"]) < 200_000
    assert report_images.IMAGE_PX == 320


def test_images_are_upright(make_run):
    run = make_run(num_images=1, **PLAIN)
    (path,) = (run / "predictions" / "images").iterdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 100)).save(path, exif=exif)
    (shown,) = page_of(write_report(run)).of("img")
    with Image.open(io.BytesIO(base64.b64decode(shown["src"].partition(",")[2]))) as image:
        assert image.size == (100, 300)


def test_several_splits_each_have_their_section(make_run):
    run = make_run()
    for stage in ("before", "after"):
        rows = read_predictions(run / "predictions" / f"test-{stage}.jsonl")
        write_predictions(run / "predictions" / f"val-{stage}.jsonl", rows[:50])
    page = page_of(write_report(run))
    assert page.text.index("On test") < page.text.index("On val")
    assert page.text.count("Confusions") == 2


@pytest.mark.parametrize("where", ["metrics.json", "log.jsonl"])
@pytest.mark.parametrize("kept", [0.0, 0.4, 1.0, None])
def test_predictions_that_the_run_did_not_measure_are_named(make_run, where, kept):
    run, path = make_run(num_images=0, with_scores=False), "predictions/test-after.jsonl"
    rows = read_predictions(run / path)
    right = sum(row.prediction == row.label for row in rows) / 240
    measured = {"num_samples": 240, "agg_metrics": right, "levels": [{"num_samples": 9}]}
    if where == "metrics.json":
        (run / where).write_text(json.dumps({"splits": {"test": {"after": measured}}}))
    else:
        with (run / where).open("a") as log:
            log.write(json.dumps({"event": "eval", "split": "test", "stage": "after", "metrics": measured}) + "\n")
    assert "it has changed since" not in page_of(write_report(run)).text
    if kept is None:
        wrong = [row.model_copy(update={"prediction": MIKELS[MIKELS.index(row.label) - 1]}) for row in rows]
        write_predictions(run / path, wrong)
        expected = f"{path} gives 0.0000, but the run measured {right:.4f}: it has changed since"
    elif kept == 1.0:
        (run / path).unlink()
        expected = f"{path} is missing, although the run measured it"
    elif kept:
        (run / path).write_bytes(b"".join((run / path).read_bytes().splitlines(keepends=True)[:96]))
        expected = f"{path} has 96 samples, but the run measured 240: it has changed since"
    else:
        shutil.rmtree(run / "predictions")
        expected = f"{path} is missing, although the run measured it"
    text = page_of(write_report(run)).text
    assert expected in text and "stopped before" not in text and "There are no predictions" not in text


def test_benchmarks_of_any_kind_in_a_run(make_run, tmp_path):
    run = make_run(stages=(), summary=False)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["run"]["test_benchmarks"] = {
        "feelings": {"dataset": "oasis", "kind": "valence_arousal"},
        "faces": {"dataset": "disfa", "kind": "action_units", "active_from": 2},
        "jokes": {"dataset": "oasis", "kind": "caption"},
        "words": {"dataset": "emoset", "method": "generation", "wordings": [1, 2], "label_set": "mikels8"},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    answer = {"label": None, "prediction": None, "answer": "A funny caption", "image": "predictions/images/0.jpg"}
    for stage, model in (("before", "tiny"), ("after", "colours")):
        rows = {
            "feelings": affect_rows(model, "likelihood", 40, 0),
            "faces": unit_rows(model, "direct", 40, 0),
            "jokes": [PredictionRow(instance_id="0", record_id="0", **answer)],
            "words": scene_rows("tiny", "generation", 12, len(model)),
        }
        for name, of_benchmark in rows.items():
            write_predictions(run / "predictions" / f"{name}-{stage}.jsonl", of_benchmark)
    # The parts of a result have their own counts.
    parts = {name: {"num_samples": 40 if name == "valence" else 39} for name in ("valence", "arousal")}
    (run / "metrics.json").write_text(json.dumps({"splits": {"feelings": {"before": parts, "after": parts}}}))
    events = [
        {"event": "eval", "split": "words", "stage": "after", "metrics": {"labels": list(MIKELS)}},
        {"event": "eval", "split": "feelings", "stage": "during", "step": 0, "metrics": {"mean_ccc": 0.1}},
        {"event": "eval", "split": "feelings", "stage": "during", "step": 9, "metrics": {"mean_ccc": 0.3}},
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    page = page_of(write_report(run))
    assert "changed since" not in page.text
    lines = (run / "predictions" / "feelings-after.jsonl").read_bytes().splitlines(keepends=True)
    (run / "predictions" / "feelings-after.jsonl").write_bytes(b"".join(lines[:30]))
    assert "feelings-after.jsonl has 30 samples, but the run measured 40" in page_of(write_report(run)).text
    (run / "predictions" / "feelings-after.jsonl").write_bytes(b"".join(lines))
    check_references(page)
    check_can_be_read_aloud(page)
    for words in ("On feelings", "mean CCC after tuning", "mean F1 before tuning", "A funny caption"):
        assert words in page.text
    assert "active from an intensity of 2" in page.text
    assert "2 variants of the question" in page.text
    assert "Validation mean CCC by step. step 0: 0.1, step 9: 0.3." in page.html
    assert [table[0][1:9] for table in page.tables if table[0][0].startswith("true")][-1] == list(MIKELS)
    both = page_of(write_comparison([run, make_run("other", **PLAIN)], tmp_path / "both.html"))
    assert "have no predictions on the same split" in both.text


def test_several_runs_on_one_page(make_run, tmp_path):
    runs = [make_run("first"), make_run("second", seed=5, stages=("before",), **PLAIN), make_run("third", stages=())]
    page = page_of(write_comparison(runs, tmp_path / "all.html"))
    table = page.tables[0]
    assert [row[0] for row in table[1:]] == ["first", "second", "third"]
    assert table[3][2] == "not evaluated yet"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page.html.count(">Settings and environment</h2>") == 3


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.1 contrast ratio."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def blend(ink: list[int], paper: str, alpha: float) -> str:
    channels = [round(alpha * i + (1 - alpha) * int(paper[k : k + 2], 16)) for i, k in zip(ink, (1, 3, 5))]
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def test_colours_have_enough_contrast_on_light_and_dark(page):
    schemes = re.findall(r":root \{(.*?)\}", page.html.split("@media print")[0], flags=re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colour = dict(re.findall(r"--(\w+): ([^;]+);", scheme))
        for ink in ("ink", "muted", "faint", "after", "before", "right", "wrong"):
            for paper in ("paper", "card"):
                assert contrast(colour[ink], colour[paper]) >= 4.5, (ink, paper, colour[ink])
        for heat in ("hit", "miss"):
            cell = blend([int(c) for c in colour[heat].split()], colour["paper"], float(colour["heat"]))
            assert contrast(colour["ink"], cell) >= 4.5, (heat, cell)


@pytest.mark.parametrize("kind", ["absolute", "above", "link", "folder"])
def test_images_outside_the_run_are_not_embedded(make_run, tmp_path, kind):
    run = make_run(num_images=1, num_rows=20, **PLAIN)
    path = run / "predictions" / "test-after.jsonl"
    rows = read_predictions(path)
    ((place, row),) = [(place, row) for place, row in enumerate(rows) if row.image is not None]
    private = tmp_path / "private.jpg"
    private.write_bytes((run / row.image).read_bytes())
    assert page_of(write_report(run)).of("img")
    named = {"absolute": str(private), "above": "../private.jpg", "link": "link.jpg", "folder": "predictions"}
    if kind == "link":
        (run / "link.jpg").symlink_to(private)
    rows[place] = row.model_copy(update={"image": named[kind]})
    write_predictions(path, rows)
    page = page_of(write_report(run))
    assert not page.of("img") and "image files are missing or damaged" in page.text


def test_runs_that_differ_in_seeds_only_have_mean_spread_and_one_chart(make_run, tmp_path):
    small = {"num_rows": 60, "num_images": 0, "with_scores": False, "validate": False}
    runs = [make_run(f"seed-{seed}", seed=seed, num_epochs=2, **small) for seed in (1, 2, 3)]
    other = make_run("other", num_epochs=3, seed=4, **small)
    for seed, run in enumerate(runs):
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["run"] |= {"seed": seed, "output_dir": f"out/{seed}"}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    page = page_of(write_comparison([*runs, other], tmp_path / "all.html"))
    accuracies = []
    for run in runs:
        rows = read_predictions(run / "predictions" / "test-after.jsonl")
        accuracies.append(sum(row.prediction == row.label for row in rows) / len(rows))
    expected = [np.mean(accuracies), np.std(accuracies, ddof=1), min(accuracies), max(accuracies)]
    row = f"test: accuracy 3 {' '.join(f'{100 * one:.1f} %' for one in expected)}"
    assert f"seed-1, seed-2, seed-3 {row}" in page.text
    labels = [svg["aria-label"] for svg in page.of("svg")]
    (overlaid,) = [label for label in labels if label.startswith("Training loss of the runs by step:")]
    assert all(run.name in overlaid for run in (*runs, other))
    # Two runs with other settings have no common mean.
    assert "Over seeds" not in page_of(write_comparison([runs[0], other], tmp_path / "two.html")).text


def test_learning_rates_of_parts_share_a_chart(make_run):
    run = make_run()
    assert "Learning rate of each part" not in write_report(run).read_text()
    path = run / "log.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["event"] == "step":
            row |= {"lr.projector": 1e-3, "lr.language_model": 2e-4 if row["step"] > 2 else 0.0}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(run).read_text()
    assert "Learning rate of each part by step: projector 0.001 to 0.001; language_model 0 to 0.0002." in page


@pytest.mark.parametrize(
    "row",
    [
        {"event": "step", "loss": 1.0},
        {"event": "eval", "step": 1, "metrics": [0.5]},
        {"event": "epoch", "num_images": {"faces": 4}},
        {"event": "epoch", "step": 1, "num_images": {"faces": "x"}},
        {"event": "dropped", "step": 1, "num_dropped": {"faces": None}, "num_samples": {"faces": 1}, "reasons": {}},
        {"event": "dropped", "step": 1, "num_dropped": {"faces": 1}, "num_samples": 3, "reasons": {}},
        {"event": "answers", "step": 1, "record_id": "a", "question": "Why?", "answers": [1]},
        {"event": "answers", "step": 1, "answers": [{"text": "x", "rewards": {}, "reward": 1, "advantage": 0}]},
    ],
)
def test_a_line_of_the_log_of_another_form_is_counted(make_run, row):
    run = make_run(num_images=0)
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps(row) + "\n")
    assert "log.jsonl has 1 lines that cannot be read" in page_of(write_report(run)).text
