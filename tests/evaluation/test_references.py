"""Published results.

Properties: the table of the EmoVIT paper is as quoted (compared with rows written here by hand), on registered
datasets; every result has a source, a status and, if the size of its test set was inferred, decimals that fit the size;
unconfirmed results are only shown on request; all problems of your own file are reported.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lavis_emovit.errors import ConfigError
from lavis_emovit.evaluation.references import reference_results, reference_rows

ROOT = Path(__file__).resolve().parents[2]

EMOVIT_ROW = {
    ("emotionroi", 6): 0.5387, ("emoset", 8): 0.8336, ("webemo", 25): 0.2112, ("emotion6", 6): 0.5781,
    ("fi", 8): 0.6809, ("artphoto", 8): 0.4490, ("abstract", 8): 0.3234, ("unbiasedemo", 6): 0.7472,
}  # fmt: skip
INSTRUCTBLIP_ROW = {
    ("emotionroi", 6): 0.4613, ("emoset", 8): 0.4220, ("webemo", 25): 0.1280, ("emotion6", 6): 0.4611,
    ("fi", 8): 0.3797, ("artphoto", 8): 0.2625, ("abstract", 8): 0.2142,
}  # fmt: skip


@pytest.mark.parametrize(("model", "row"), [("EmoVIT", EMOVIT_ROW), ("InstructBLIP", INSTRUCTBLIP_ROW)])
def test_table_of_the_paper_is_as_quoted(model, row):
    found = {
        (result.dataset, result.num_labels): result.value
        for result in reference_results().results
        if result.model == model and result.metric == "accuracy"
    }
    assert found == row


def test_every_dataset_is_registered_and_second_hand_results_name_the_text_that_quotes_them():
    references = reference_results()
    registered = {path.name for path in (ROOT / "lavis_configs" / "datasets").iterdir()}
    assert {result.dataset for result in references.results} <= registered
    assert {result.source for result in references.results} == set(references.sources)
    for result in references.results:
        assert (result.status == "from memory") == (result.source == "memory")
        if result.status == "second hand":
            assert "quotes" in references.sources[result.source] or result.source in (
                "emovit_notes", "emovlm_kd", "tinyemo",
            )  # fmt: skip


def test_inferred_sizes_fit_the_decimals():
    inferred = [result for result in reference_results().results if result.n_status == "inferred"]
    assert len(inferred) >= 15
    for result in inferred:
        nearest = round(result.value * result.n) / result.n
        # One quoted figure is cut off and not rounded, so a whole last decimal is allowed.
        assert abs(nearest - result.value) < 1.01e-4, result


def test_rows_for_a_table_name_the_benchmark_and_the_full_source():
    rows = reference_rows("unbiased", "unbiasedemo", 6)
    assert {"EmoVIT", "EmoCaliber", "S2-VER"} <= {row["model"] for row in rows}
    emovit = next(row for row in rows if row["model"] == "EmoVIT")
    assert (emovit["benchmark"], emovit["value"], emovit["n"]) == ("unbiased", 0.7472, None)
    assert "CVPR 2024" in emovit["source"]
    assert next(row["n"] for row in reference_rows("roi", "emotionroi") if row["model"] == "EmoVIT") == "594 (inferred)"


def test_unconfirmed_results_are_excluded_by_default():
    references = reference_results()
    shown = references.of("emoset", 8)
    assert {"EmoVIT", "TinyEmo 0.70B", "EmoCaliber"} <= {result.model for result in shown}
    assert all(result.status != "from memory" for result in shown)
    assert "WSCNet" in {result.model for result in references.of("emoset", 8, statuses=("from memory",))}
    assert {result.num_labels for result in references.of("webemo")} == {2, 7, 25}
    assert references.of("oasis") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "sure"}, "status"),
        ({"value": 83.36}, "value"),
        ({"source": "nowhere"}, r"cite \['nowhere'\]"),
        ({"n": 5}, "'n' and 'n_status' go together"),
        ({"modle": "x"}, "did you mean 'model'"),
    ],
)
def test_your_own_file_is_checked(tmp_path, change, message):
    result = {"model": "m", "dataset": "fi", "metric": "accuracy", "value": 0.5, "source": "s", "status": "quoted"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"version": 1, "sources": {"s": "me"}, "results": [result]}))
    assert reference_results(path).of("fi")[0].value == 0.5
    path.write_text(json.dumps({"version": 1, "sources": {"s": "me"}, "results": [{**result, **change}]}))
    with pytest.raises(ConfigError, match=message) as caught:
        reference_results(path)
    assert "mine.json" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"), [("[]", "one JSON object"), ("{", "not JSON"), (None, "cannot be read")]
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        reference_results(path)
