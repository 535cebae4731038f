"""Tables say what makes two numbers comparable: the number of images, and the prompt.

- The report of a benchmark of several labels has the AP of each, and the images whose best label is wrong.
- Headings have the number of images; models with another number, and published numbers on others, are named in notes.
- A table of several suites names the benchmarks whose numbers come from different prompts, and no others.
- The published number of images is beside that of the suite, for every result of VECBench.
"""

from __future__ import annotations

import numpy as np
from report_page import Page
from suite_folder import make_suite, write_rows

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.references import reference_results, reference_rows
from lavis_emovit.evaluation.report.page import write_report
from lavis_emovit.evaluation.report.summary_tables import headline_table, markdown, references_table


def _result(model="m", method="likelihood", num_samples=100, prompt="a" * 64, name="wording 1"):
    interval = {"low": 0.4, "high": 0.6, "level": 0.95}
    return {
        "model": model,
        "method": method,
        "headline": {"name": "accuracy", "value": 0.5, "interval": interval},
        "num_samples": num_samples,
        "num_invalid": 0,
        "num_errors": 0,
        "prompt": {"name": name, "sha256": prompt} if prompt else None,
        "metrics": {},
    }


def _summary(*results, **more):
    return {"suite": "s", "benchmarks": {"set": {"results": list(results)}}, **more}


def test_headings_have_the_number_of_images():
    same = headline_table([("", _summary(_result(), _result("other")))], "k")
    assert same.columns == ["set: accuracy (n = 100)"] and not same.notes
    several = headline_table([("", _summary(_result(), _result("other"), _result("less", num_samples=1_097)))], "k")
    assert several.columns == ["set: accuracy (n = 100 to 1,097)"]
    assert several.notes == ("set: m (likelihood), other (likelihood): over 100 images, others over 1,097.",)


def test_numbers_of_different_prompts_are_named():
    first = _summary(_result(), _result("prior", "direct", prompt=None))
    other = _summary(_result(prompt="b" * 64, name="emovit"), _result("prior", "direct", prompt=None))
    table = headline_table([("one", first), ("two", other)], "k")
    (note,) = table.notes
    assert note == f"set, likelihood: the prompts differ (one: wording 1, {'a' * 12}; two: emovit, {'b' * 12})."
    assert not headline_table([("one", first), ("two", first)], "k").notes
    # Another scoring method asks in other words by itself.
    generated = _summary(_result(method="generation", prompt="c" * 64))
    assert not headline_table([("one", first), ("two", generated)], "k").notes


def test_published_numbers_have_theirs_beside_that_of_the_suite():
    rows = reference_rows("art", "artphoto", 8, 806)
    of = {(row["model"], row["metric"]): row for row in rows}
    assert {row["n_here"] for row in rows} == {806}
    assert not of["EmoCaliber", "accuracy"]["n_differs"] and of["Flamingo", "accuracy"]["n_differs"]
    assert not of["EmoVIT", "accuracy"]["n_differs"]  # its number is not known
    table = references_table({"references": rows}, "k")
    assert table.columns[3:5] == ["n", "n here"]
    assert table.notes == ("art: published on 80 (inferred) images, measured here on 806.",)
    cells = dict(table.rows)
    assert cells["EmoCaliber"][3].text == "806" and not cells["EmoCaliber"][3].is_flagged
    assert cells["Flamingo"][3].is_flagged and cells["Flamingo"][4].text == "806"
    assert "art: published on 80 (inferred) images" in markdown(_summary(_result(), references=rows))
    # Raters are not images.
    assert not any(row["n_differs"] for row in reference_rows("humour", "oxford_hic", None, 50))


def test_every_result_of_vecbench_has_its_number_of_images():
    counts = {(one.dataset, one.num_labels): one.n for one in reference_results().results if one.source == "emocaliber"}
    known = {("abstract", 8): 229, ("artphoto", 8): 806, ("webemo", 25): 997}
    assert counts == {key: known.get(key, 1000) for key in counts} and sum(counts.values()) == 8032


def test_the_report_of_several_labels_has_the_ap_of_each(tmp_path):
    labels = get_label_set("emotic26").labels
    generator = np.random.default_rng(0)
    rows = []
    for number in range(40):
        true = ("peace",) + (("pain",) if number % 4 == 0 else ())
        scores = generator.normal(size=len(labels)) + 2.0 * np.isin(labels, true)
        rows.append(
            PredictionRow(
                instance_id=f"p/{number}", record_id=f"p/{number}", label=None, labels=true,
                prediction=labels[int(scores.argmax())], scores=dict(zip(labels, scores.tolist())),
            )
        )  # fmt: skip
    folder = make_suite(tmp_path / "out", benchmarks={"persons": {"dataset": "emotic", "kind": "labels"}})
    write_rows(folder, "persons", "tiny", "likelihood", rows, labels=list(labels))
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "persons: mean AP (n = 40)" in page.text and "AP by label" in page.text
    assert "pain, peace" in page.text or "peace, pain" in page.text  # the truth of an image with a mistake
