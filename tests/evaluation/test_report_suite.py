"""The report on suites.

Properties: the page loads nothing, its references exist, and it can be read aloud; its numbers agree with scikit-learn
and Lin's formula on the rows, and are the same whether they are passed or computed again; it shows small copies of the
images with the most confident mistakes, and deletes other ones; text from data is never markup, in HTML, Markdown and
LaTeX; missing, unfinished, failed and skipped parts are named; suites are compared record by record, never over
different data, with p values adjusted for the number of tests; Markdown and LaTeX have the same tables; the same folder
gives the same bytes.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image
from report_page import check_page, page_of
from sklearn import metrics as reference
from suite_folder import MIKELS, make_suite, scene_rows, write_rows

from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.reading import bundle_of
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.comparison import holm
from lavis_emovit.evaluation.predictions import PredictionRow, read_predictions
from lavis_emovit.evaluation.report.folder import read_folder
from lavis_emovit.evaluation.report.images import image_path, images_to_keep, keep_images, mistakes
from lavis_emovit.evaluation.report.page import write_comparison, write_report
from lavis_emovit.evaluation.report.render import latex_text, markdown_text
from lavis_emovit.evaluation.report.summary_tables import latex, markdown
from lavis_emovit.files import file_sha256


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = make_suite(tmp_path_factory.mktemp("suites") / "trial")
    for benchmark in read_folder(folder).benchmarks:
        ids = dict.fromkeys(row.record_id for rows in benchmark.rows.values() for row in rows)
        keep_images(folder, benchmark, 3, ((record_id, lambda: jpeg(200), None) for record_id in ids))
    return folder


@pytest.fixture(scope="module")
def page(suite):
    return page_of(write_report(suite))


def jpeg(shade: int, size: tuple[int, int] = (900, 600)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 90, 60)).save(buffer, "JPEG")
    return buffer.getvalue()


def rows_of(suite, benchmark: str, name: str):
    return read_predictions(suite / "predictions" / benchmark / f"{name}.jsonl")


def table_with(page, *words: str) -> dict[str, list[str]]:
    """The rows, by their head, of the first table whose head has these words."""
    for table in page.tables:
        if all(any(word in cell for cell in table[0]) for word in words):
            return {
                "": table[0][1:],
                **{row[0]: [cell.replace("\u202f", " ") for cell in row[1:]] for row in table[1:]},
            }
    raise AssertionError(f"no table with {words}")


def test_the_page_stands_alone_and_can_be_read_aloud(page):
    check_page(page)
    for name in (
        "Result",
        "Differences",
        "Sensitivity to the wording",
        "scenes",
        "affect",
        "units",
        "Settings and environment",
    ):
        assert f">{name}</a>" in page.html


def test_headline_and_metrics_agree_with_scikit_learn(suite, page):
    rows = [row for row in rows_of(suite, "scenes", "tiny.generation") if row.variant.startswith("wording 1")]
    truth, predicted = [row.label for row in rows], [row.prediction or "none" for row in rows]
    accuracy = f"{100 * reference.accuracy_score(truth, predicted):.1f} %"
    headline = table_with(page, "scenes: accuracy", "affect: mean CCC", "units: mean F1")
    assert headline["tiny (generation)"][0].startswith(f"{accuracy}*")
    assert headline["tiny (generation)"][1].strip() == "\u2013"
    metrics = table_with(page, "Macro F1", "Invalid answers")
    cells = dict(zip(metrics[""], metrics["tiny (generation)"]))
    assert cells["Accuracy"].startswith(accuracy)
    assert cells["Macro F1"].startswith(f"{reference.f1_score(truth, predicted, labels=MIKELS, average='macro'):.3f}")
    assert cells["Invalid answers"].split() == ["20.0", "%", "12", "of", "60"]
    assert "20.0 % of the answers are invalid (12); they count as wrong" in page.text


def test_confusion_matrix_has_a_column_of_invalid_answers(suite, page):
    matrices = [table for table in page.tables if table[0][0].startswith("true")]
    # Majority always gives the same answer, so a sentence replaces its matrix.
    assert [table[0][-1] == "(invalid)" for table in matrices] == [False, True, False]
    assert f"majority: {MIKELS[0]}" in page.text
    rows = [row for row in rows_of(suite, "scenes", "tiny.generation") if row.variant.startswith("wording 1")]
    counts = reference.confusion_matrix(
        [row.label for row in rows], [row.prediction or "none" for row in rows], labels=[*MIKELS, "none"]
    )
    assert [[int(cell) for cell in row[1:]] for row in matrices[1][1:]] == counts[:-1].tolist()


def test_numbers_agree_with_the_formulas(suite, page):
    rows = rows_of(suite, "affect", "colours.direct")
    true, predicted = (np.array([getattr(row, name)["valence"] for row in rows]) for name in ("true_values", "values"))
    ccc = (
        2
        * np.cov(true, predicted, bias=True)[0, 1]
        / (true.var() + predicted.var() + (true.mean() - predicted.mean()) ** 2)
    )
    assert table_with(page, "CCC", "PCC")["colours"][0].startswith(f"{ccc:.3f}")
    rows = rows_of(suite, "units", "tiny.likelihood")
    f1 = [
        reference.f1_score([row.true_values[unit] for row in rows], [row.values[unit] for row in rows])
        for unit in ("AU4", "AU6", "AU12")
    ]
    assert table_with(page, "Mean F1")["tiny (likelihood)"][0].startswith(f"{np.mean(f1):.3f}")
    by_unit = table_with(page, "Active", "tiny (likelihood)")
    assert [cells[1].split()[0] for head, cells in by_unit.items() if head] == [f"{one:.2f}" for one in f1]


def test_measured_parts_are_shown_and_no_others(page):
    headings = page.text
    for heading in ("From coarse to fine", "Slices", "How answers were read", "Calibration", "Each action unit"):
        assert heading in headings
    for heading in ("Soft labels Against", "Other metrics", "Skipped"):
        assert heading not in headings
    assert "predicted valence" in page.html
    assert table_with(page, "polarity2 (2)", "mikels8 (8)")
    assert table_with(page, "attributes.scene", "tiny (likelihood)")["beach"]
    assert "Spread" in table_with(page, "Variant", "tiny (likelihood)")


def test_numbers_passed_and_computed_again_give_the_same_page(suite, page, tmp_path):
    known = read_folder(suite).summary
    (suite / "metrics.json").write_text(json.dumps(known))
    try:
        again = write_report(suite, tmp_path / "again.html").read_bytes()
        assert write_report(suite, tmp_path / "given.html", summary=known).read_bytes() == again
        assert write_report(suite, tmp_path / "third.html").read_bytes() == again
    finally:
        (suite / "metrics.json").unlink()


def test_published_results_are_apart_with_source_and_status(page):
    papers = table_with(page, "Status", "Source")
    assert len(papers) > 2
    assert {cells[5] for head, cells in papers.items() if head} <= {"quoted", "second hand", "inferred"}
    assert not set(papers) & set(table_with(page, "scenes: accuracy")) - {""}


def test_most_confident_mistakes_are_chosen_and_their_images_kept(suite, page):
    benchmark = read_folder(suite).benchmarks[0]
    wrong = mistakes(benchmark, ("tiny", "likelihood"))
    assert all(row.prediction != row.label for row in wrong)
    sure = []
    for row in wrong:
        powers = {label: math.exp(score) for label, score in row.scores.items()}
        sure.append(powers[row.prediction] / sum(powers.values()))
    assert sure == sorted(sure, reverse=True)
    chosen = list(images_to_keep(benchmark, 3))
    generated = mistakes(benchmark, ("tiny", "generation"))
    # The two scoring methods of the model take turns.
    assert chosen[:2] == [wrong[0].record_id, generated[0].record_id]
    assert len(chosen) == 3
    assert len(page.of("img")) == 3 * 3
    assert f"{100 * sure[0]:.0f} %" in page.text
    kept = sorted((suite / "pictures" / "scenes").iterdir())
    assert [path.name for path in kept] == sorted(image_path("scenes", one).name for one in chosen)
    with Image.open(kept[0]) as image:
        assert max(image.size) == 240


def test_images_are_read_as_far_as_needed_and_old_ones_are_deleted(tmp_path):
    folder = make_suite(tmp_path / "trial")
    (benchmark, *_) = read_folder(folder).benchmarks
    chosen = list(images_to_keep(benchmark, 2))
    seen = []

    def items():
        for record_id in [chosen[0], "emoset/other", chosen[1], "emoset/never"]:
            seen.append(record_id)
            yield record_id, lambda: jpeg(10) if record_id == chosen[0] else b"no image", None  # noqa: B023, called at once

    old = folder / "pictures" / "scenes" / "old.jpg"
    old.parent.mkdir(parents=True)
    old.write_bytes(jpeg(1))
    keep_images(folder, benchmark, 2, items())
    assert seen == [chosen[0], "emoset/other", chosen[1]]
    assert [path.name for path in old.parent.iterdir()] == [image_path("scenes", chosen[0]).name]
    seen.clear()
    keep_images(folder, benchmark, 1, items())
    assert seen == []
    assert page_of(write_report(folder)).html.count(">no image<") >= 1


def test_clips_are_film_strips_in_two_rows(tmp_path):
    folder = make_suite(tmp_path / "trial")
    (benchmark, *_) = read_folder(folder).benchmarks
    chosen = list(images_to_keep(benchmark, 1))
    frames = bundle_of([(number / 10, "jpg", jpeg(40 * number)) for number in range(6)])
    keep_images(folder, benchmark, 1, [(record_id, lambda: frames, Clip()) for record_id in chosen])
    with Image.open(folder / image_path("scenes", chosen[0])) as strip:
        assert strip.size == (3 * 180, 2 * 120)
        shades = [strip.getpixel((90 + 180 * column, 60 + 120 * row))[0] for row in (0, 1) for column in range(3)]
    assert shades == [pytest.approx(40 * number, abs=4) for number in range(6)]
    (shown, *_) = [img for img in page_of(write_report(folder)).of("img") if chosen[0] in img["alt"]]
    _, _, encoded = shown["src"].partition(",")
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert image.size == (540, 240)


def test_text_from_data_is_never_markup(tmp_path):
    nasty = '<script>alert("1")</script>&amp;{{ 7 * 7 }}$x_1^2$ \\input{a}% #'
    folder = make_suite(tmp_path / "<b>trial<b>", name=nasty)
    rows = scene_rows("tiny", "generation", 20, 0)
    rows = [row.model_copy(update={"record_id": f"{nasty}{row.record_id}", "answer": nasty}) for row in rows]
    rows = [row.model_copy(update={"slices": {"attributes.scene": nasty}}) for row in rows]
    write_rows(folder, "scenes", "tiny", "generation", rows)
    page = page_of(write_report(folder))
    check_page(page)
    assert not page.of("script")
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;&amp;amp;{{ 7 * 7 }}" in page.html
    tex = write_report(folder, tmp_path / "page.tex").read_text()
    shown = [line for line in tex.splitlines() if not line.startswith("%")]
    assert any("\\textbackslash{}input\\{a\\}\\% \\#" in line for line in shown)
    assert not any("\\input" in line for line in shown)
    md = write_report(folder, tmp_path / "page.md").read_text()
    assert md.startswith(r'# \<script>alert("1")\</script>\&amp;{{ 7 \* 7 }}\$x_1^2\$ \\input{a}% #' + "\n")


@pytest.mark.parametrize(
    ("text", "markdown_of_it", "latex_of_it"),
    [
        ("emovit_tiny 12.5 % -0.1", "emovit_tiny 12.5 % -0.1", r"emovit\_tiny 12.5 \% -0.1"),
        ("1. a", r"1\. a", "1. a"),
        ("- a", r"\- a", "- a"),
        ("> a", r"\> a", r"\textgreater{} a"),
        ("a < 1 and <b>", r"a < 1 and \<b>", r"a \textless{} 1 and \textless{}b\textgreater{}"),
        ("_a_ [b](c) &lt; ~~d~~", r"\_a\_ [b\](c) \&lt; \~\~d\~\~", None),
        ("a\n\n# b\\\n", r"a # b\\", r"a \# b\textbackslash{}"),
        ("a\u2028# b\x0c\x85| c", r"a # b \| c", r"a \# b \textbar{} c"),
        ("[2cm] \r\n* x", r"[2cm] \* x", r"{}[2cm] * x"),
        ("*", r"\*", "{}*"),
        ("---", r"\---", "---"),
        ("7\u202f%, \u22121, \u2013", "7 %, \u22121, \u2013", r"7\,\%, $-$1, --"),
    ],
)
def test_escaping(text, markdown_of_it, latex_of_it):
    assert markdown_text(text) == markdown_of_it
    if latex_of_it is not None:
        assert latex_text(text) == latex_of_it


def test_text_of_a_table_stays_in_its_cell():
    evil = "a|b\n| c\n\\end{tabular}\n# *d* [e](f) 1_2"
    result = {"model": evil, "method": "generation", "num_samples": 2, "num_invalid": 1, "num_errors": 0}
    result |= {"headline": {"name": evil, "value": 0.5, "interval": {"low": 0.1, "high": 0.9}}, "metrics": {}}
    references = [{"model": evil, "benchmark": evil, "metric": "accuracy", "value": 0.5, "caveat": evil}]
    summary = {
        "suite": evil,
        "benchmarks": {evil: {"results": [result]}},
        "absent": {evil: evil},
        "references": references,
    }
    md = markdown(summary)
    rows = [line for line in md.splitlines() if line.startswith("|")]
    assert [line.count("|") - line.count(r"\|") for line in rows] == [3, 3, 3, *[8] * 3, *[10] * 3]
    assert {line for line in md.splitlines() if line.startswith("#")} == {
        r"# a\|b \| c \\end{tabular} # \*d\* [e\](f) 1_2",
        "## Skipped",
        "## Published results",
    }
    tex = latex(summary)
    assert tex.count("\\end{tabular}") == 1
    assert all(line.startswith(("%", "\\")) or line.endswith(r"\\") for line in tex.splitlines() if line)


def test_missing_parts_are_named(tmp_path):
    folder = make_suite(tmp_path / "trial")
    beside = folder / "predictions" / "scenes" / "tiny.generation.json"
    made = json.loads(beside.read_text())
    beside.write_text(json.dumps({**made, "finished": False}))
    path = folder / "predictions" / "units" / "colours.direct.jsonl"
    rows = read_predictions(path)
    rows[3] = rows[3].model_copy(update={"values": None, "error": "cannot be decoded"})
    write_rows(folder, "units", "colours", "direct", rows)
    (folder / "predictions" / "affect" / "majority.direct.json").unlink()
    left_out = {"affect": {"tiny": {"generation": "no reason"}}}
    (folder / "metrics.json").write_text(json.dumps({"left_out": left_out, "absent": {"fi": "not on this machine"}}))
    text = page_of(write_report(folder)).text
    for words in (
        "tiny on scenes (generation), 120 rows",
        "majority.direct.jsonl: the record of what it was made with is missing",
        "tiny (generation) on affect: no reason",
        "fi: not on this machine",
        "colours on units: 1",
        "disfa/3, colours: cannot be decoded",
        "1 samples failed; the metric is over the other 59",
    ):
        assert words in text, words
    (folder / "metrics.json").write_text("{")
    assert "metrics.json cannot be read" in page_of(write_report(folder)).text


def test_predictions_that_are_gone_are_named(tmp_path):
    folder = make_suite(tmp_path / "trial", num_rows=6)
    assert "No predictions, so they are in no table" not in page_of(write_report(folder)).text
    scores = {"model": "tiny", "method": "likelihood"}
    (folder / "metrics.json").write_text(json.dumps({"benchmarks": {"scenes": {"results": [scores]}}}))
    for name in ("scenes/tiny.likelihood", "units/colours.direct"):
        (folder / "predictions" / f"{name}.jsonl").unlink()
    text = page_of(write_report(folder)).text
    _, found, listed = text.partition("No predictions, so they are in no table: ")
    assert found and "tiny (likelihood) on scenes" in listed and "colours on units" in listed
    shutil.rmtree(folder / "predictions")
    text = page_of(write_report(folder)).text
    assert "No predictions, so they are in no table: tiny on scenes" in text and "stopped before" not in text


@pytest.mark.parametrize("name", ["scenes/tiny.likelihood", "affect/colours.direct", "units/majority.direct"])
@pytest.mark.parametrize("kept", [1, -1])
def test_rows_that_the_suite_did_not_finish_are_named(tmp_path, name, kept):
    folder = make_suite(tmp_path / "trial", num_rows=6)
    path = folder / "predictions" / f"{name}.jsonl"
    record = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**record, "sha256": file_sha256(path)}))
    assert "has changed since" not in page_of(write_report(folder)).text
    lines = path.read_bytes().splitlines(keepends=True)[:kept]
    path.write_bytes(b"".join(lines))
    words = f"predictions/{name}.jsonl has changed since the suite finished it ({len(lines)} rows)"
    assert words in page_of(write_report(folder)).text


def test_a_suite_before_its_first_batch_has_a_page_and_damage_is_refused(tmp_path):
    folder = make_suite(tmp_path / "trial", num_rows=6)
    damaged = folder / "predictions" / "scenes" / "tiny.likelihood.jsonl"
    damaged.write_text("{}\n" + damaged.read_text())
    with pytest.raises(DataError, match=r"tiny\.likelihood\.jsonl:1: key 'instance_id'"):
        write_report(folder)
    (empty := tmp_path / "empty").mkdir()
    (empty / "suite.yaml").write_bytes((folder / "suite.yaml").read_bytes())
    page = page_of(write_report(empty))
    check_page(page)
    assert "There are no predictions yet" in page.text
    for text, problem in (("a: [", "damaged"), ("{}", "no node 'suite'"), ("suite: {name: x}", r"suite\.output_dir")):
        (empty / "suite.yaml").write_text(text)
        with pytest.raises(DataError, match=problem):
            write_report(empty)


def test_two_suites_side_by_side(suite, tmp_path):
    other = make_suite(tmp_path / "trial", seed=1)
    page = page_of(write_comparison([suite, other], tmp_path / "both.html"))
    check_page(page)
    names = [path.parts[-2] + "/trial" for path in (suite, other)]
    differences = table_with(page, "Minus", "Holm p")
    found = differences[f"scenes: {names[1]}, colours"]
    right = [
        {row.record_id: row.prediction == row.label for row in rows_of(one, "scenes", "colours.direct")}
        for one in (suite, other)
    ]
    difference = 100 * (sum(right[1].values()) - sum(right[0].values())) / 60
    assert found[1].replace("\u2212", "-").startswith(f"{difference:+.1f}")
    assert found[2].strip() == "60"
    assert int(found[3]) == sum(right[1][n] and not right[0][n] for n in right[0])
    assert found[0].startswith(f"{names[0]}, colours")
    assert "The table has 10 comparisons" in page.text
    assert "about 0.5 of their intervals" in page.text


def test_suites_over_different_data_are_not_compared(suite, tmp_path):
    fewer = make_suite(tmp_path / "fewer", num_rows=50)
    for name in ("tiny.likelihood", "majority.direct", "colours.direct"):
        write_rows(fewer, "affect", *name.split("."), rows_of(fewer, "affect", name), data="00" * 32)
    text = page_of(write_comparison([suite, fewer], tmp_path / "both.html")).text
    assert "scenes in fewer and trial: different images (50 and 60, 50 of them in both)." in text
    assert "affect in fewer and trial: different data (their fingerprints differ)." in text


def test_runs_and_suites_on_one_page(suite, make_run, tmp_path):
    runs = [make_run("first"), make_run("second", seed=5)]
    page = page_of(write_comparison([*runs, suite], tmp_path / "all.html"))
    check_page(page)
    found = table_with(page, "Minus", "Holm p")["test: second, after tuning"]
    rows = [read_predictions(run / "predictions" / "test-after.jsonl") for run in runs]
    accuracies = [np.mean([row.prediction == row.label for row in of_run]) for of_run in rows]
    shown = found[1].replace("\u2212", "-")
    assert shown.startswith(f"{100 * (accuracies[1] - accuracies[0]):+.1f}")
    assert "2 runs side by side" in page.text


def test_markdown_and_latex_have_the_same_tables(suite, page, tmp_path):
    lines = write_report(suite, tmp_path / "page.md").read_text().splitlines()
    tables = [line for line in lines if line.startswith("|")]
    headline = table_with(page, "scenes: accuracy")
    first = next(line for line in tables if line.startswith("| colours |"))
    assert [cell.split()[0] for cell in headline["colours"]] == [
        cell.split()[0] for cell in first.strip("| ").split(" | ")[1:]
    ]
    for line, after in itertools.pairwise(tables):
        if after.startswith("| ---"):
            assert line.count(" | ") == after.count(" | ")
    tex = write_report(suite, tmp_path / "page.tex").read_text()
    assert (
        tex.count("\\begin{tabular}") == tex.count("\\end{tabular}") == sum(line.startswith("| ---") for line in lines)
    )
    columns = 0
    for line in tex.splitlines():
        if line.startswith("\\begin{tabular}"):
            columns = len(line.rpartition("{")[2].strip("}"))
        elif line.endswith("\\\\"):
            assert line.count(" & ") == columns - 1
        assert not set(line) & {"\u202f", "\u2212", "\u2013"}


def test_explanations_with_scores_of_a_judge(tmp_path):
    settings = {
        "benchmarks": {"why": {"dataset": "emoset", "kind": "explanation"}},
        "methods": ["generation"],
        "judge": {"chat": {"base_url": "http://127.0.0.1:9/v1", "model": "judge-1"}},
    }
    folder = make_suite(tmp_path / "trial", **settings)
    reason = "The sea lies still under a low sun, and people walk slowly along the beach, which calms whoever looks."
    rows = [
        PredictionRow(
            instance_id=str(n),
            record_id=str(n),
            label="contentment",
            prediction="contentment" if n % 4 else "fear",
            answer=f"{'contentment' if n % 4 else 'fear'}. {reason}",
            status="ok",
            slices={"attributes.scene": "beach"},
        )
        for n in range(20)
    ]
    write_rows(folder, "why", "tiny", "generation", rows, labels=list(MIKELS))
    judged = [
        {"instance_id": str(n), "judge": "judge-1", "prompt": "p1", "prompt_sha256": "0" * 64, "score": 1 + n % 5}
        | {"reason": "so", "reply": "so"}
        for n in range(10)
    ]
    path = folder / "judgements" / "why" / "tiny.generation.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in judged) + '{"cut')
    page = page_of(write_report(folder))
    check_page(page)
    explained = table_with(page, "True emotion", "Facts mentioned")["tiny (generation)"]
    assert explained[0].startswith("75.0 %")
    scores = table_with(page, "Mean score", "Score 5")["tiny (generation)"]
    assert scores[0].startswith("3.00")
    assert [cell.strip() for cell in scores[1:]] == ["10", "0", "2", "2", "2", "2", "2"]
    assert "judge-1 with the prompt p1" in page.text
    assert "has a line that cannot be read" in page.text


def test_captions_have_no_metrics_but_are_shown(tmp_path):
    settings = {"benchmarks": {"jokes": {"dataset": "oasis", "kind": "caption"}}, "methods": ["generation"]}
    folder = make_suite(tmp_path / "trial", **settings)
    rows = [
        PredictionRow(instance_id=str(n), record_id=str(n), label=None, prediction=None, answer=f"Caption no. {n}")
        for n in range(5)
    ]
    write_rows(folder, "jokes", "tiny", "generation", rows)
    page = page_of(write_report(folder))
    check_page(page)
    assert [f"Caption no. {n}" in page.text for n in range(5)] == [True] * 3 + [False] * 2
    assert "Result Headline" not in page.text
    assert "image files are missing" in page.text


def test_an_unknown_suffix_is_refused(suite, tmp_path):
    with pytest.raises(DataError, match=r"page\.pdf: the name of a report must end in \.html, \.md or \.tex"):
        write_report(suite, tmp_path / "page.pdf")
    assert list(tmp_path.iterdir()) == []


def test_holm_agrees_with_r():
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") in R 4.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
