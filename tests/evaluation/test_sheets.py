"""Blinded sheets of caption pairs, and the win rate from filled sheets.

- Sides and order depend only on the seed and the record, both sides occur, and the page does not show the authors;
  images without two different captions are skipped with the reason.
- The page loads nothing from elsewhere, and captions are never markup; a sheet is never overwritten.
- Win rate, ties, raters and the share of A agree with a count by hand; the agreement agrees with Krippendorff's worked
  example; the interval resamples raters.
- Filled sheets can be read as spreadsheets write them; every row that cannot be used or is missing is named, also of
  files without a choice; files of one name are different raters; a sheet's name depends on its question.
"""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.sheets import human_caption, make_pairs, nominal_alpha, score_sheets, write_sheet
from lavis_emovit.records import EmotionRecord, Utterance

PNG = io.BytesIO()
Image.new("RGB", (8, 8), "red").save(PNG, "PNG")
NAMES = [f"r{number}" for number in range(20)]
OURS = {name: f"ours <b>{name}</b>" for name in NAMES}
THEIRS = {name: f"theirs {name}" for name in NAMES}


def test_pairs_are_decided_by_seed_and_record():
    made = make_pairs(("m", OURS), ("human", THEIRS), seed=1)
    assert {pair.record_id for pair in made.pairs} == set(NAMES)
    for pair in made.pairs:
        assert (pair.a, pair.b)[not pair.a_is_first] == OURS[pair.record_id]
    assert 4 <= sum(pair.a_is_first for pair in made.pairs) <= 16
    assert made == make_pairs(("m", OURS), ("human", dict(reversed(THEIRS.items()))), seed=1)
    assert made.pairs != make_pairs(("m", OURS), ("human", THEIRS), seed=2).pairs
    # A limit does not change the sides of the remaining images.
    few = make_pairs(("m", {name: OURS[name] for name in NAMES[:9]}), ("human", THEIRS), seed=1)
    assert set(few.pairs) < set(made.pairs) and len(few.left_out) == 11
    assert make_pairs(("m", OURS), ("human", THEIRS), seed=1, limit=5).pairs == made.pairs[:5]


def test_images_without_two_captions_are_skipped_with_the_reason():
    made = make_pairs(
        ("m", {"a": " Same  words", "b": "", "c": "x"}), ("n", {"a": "same words", "b": "y", "c": "z"}), 0
    )
    assert [pair.record_id for pair in made.pairs] == ["c"]
    assert made.left_out == {"a": "both captions are the same", "b": "no caption of m"}
    with pytest.raises(DataError, match="with itself"):
        make_pairs(("m", OURS), ("m", OURS), 0)
    with pytest.raises(DataError, match="no image has two different captions"):
        make_pairs(("m", OURS), ("n", {}), 0)


def test_best_human_caption():
    record = EmotionRecord(id="a", image="a.png", split="test", source="s")
    assert human_caption(record) is None
    written = [Utterance(text="none"), Utterance(text="good", score=9.5), Utterance(text="as good", score=9.5)]
    assert human_caption(record.model_copy(update={"utterances": written})) == "good"


@pytest.fixture
def sheet(tmp_path):
    made = make_pairs(("m", {name: OURS[name] for name in NAMES[:4]}), ("human", THEIRS), seed=3)
    name = write_sheet(tmp_path / "sheet", made, dict.fromkeys(NAMES, PNG.getvalue()), seed=3)
    return tmp_path / "sheet", name, made.pairs


def test_page_is_blinded_complete_and_never_overwritten(sheet):
    folder, name, pairs = sheet
    page = (folder / "sheet.html").read_text()
    for pair in pairs:
        assert pair.record_id not in re.sub(r"(ours|theirs)[^<]*?r\d+|&lt;b&gt;r\d+", "", page)
    assert "human" not in page and "key" not in page and name in page
    assert "ours &lt;b&gt;r0&lt;/b&gt;" in page and "<script" not in page and "http" not in page
    assert page.count("data:image/jpeg;base64,") == 4
    rows = list(csv.reader((folder / "choices.csv").open()))
    assert rows[0] == ["sheet", "number", "rater", "choice"] and len(rows) == 5 and rows[1] == [name, "1", "", ""]
    with pytest.raises(DataError, match="already has a sheet"):
        write_sheet(folder, make_pairs(("m", OURS), ("human", THEIRS), 3), {}, 3)


def _fill(folder, name, file_name, choices, rater="", delimiter=",", start=""):
    lines = [delimiter.join(["sheet", "number", "rater", "choice"])]
    lines += [delimiter.join([name, str(number), rater, choice]) for number, choice in choices]
    (folder / file_name).write_text(start + "\n".join(lines) + "\n", encoding="utf-8")
    return folder / file_name


def test_question_can_be_chosen(tmp_path):
    made = make_pairs(("m", OURS), ("human", THEIRS), seed=3)
    question = "Which caption fits <b>better</b>?"
    write_sheet(tmp_path, made, dict.fromkeys(NAMES, PNG.getvalue()), seed=3, question=question)
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("Which caption fits &lt;b&gt;better&lt;/b&gt;?") == 2 and "funnier" not in page
    assert json.loads((tmp_path / "key.json").read_text())["question"] == question


def test_win_rate_counted_by_hand(sheet):
    folder, name, pairs = sheet
    first = ["A" if pair.a_is_first else "B" for pair in pairs]
    second = ["B" if pair.a_is_first else "A" for pair in pairs]
    files = [
        # Three wins and a tie; two wins and a loss, one blank; as spreadsheets of some countries write it.
        _fill(folder, name, "ann.csv", [(1, first[0]), (2, first[1].lower()), (3, first[2]), (4, "tie")]),
        _fill(folder, name, "bob.csv", [(1, first[0]), (2, first[1]), (3, second[2]), (4, " ")], "Bob", ";", "\ufeff"),
    ]
    found = score_sheets(folder / "key.json", files)
    assert (found.first, found.second) == ("m", "human")
    assert (found.num_wins, found.num_losses, found.num_ties, found.num_blank) == (5, 1, 1, 1)
    assert (found.num_raters, found.num_pairs) == (2, 4)
    assert found.win_rate == pytest.approx(5.5 / 7)
    # Resamples of two raters have the rates 3.5/4, 2/3 or both together.
    assert (found.interval.low, found.interval.high) == (pytest.approx(2 / 3), pytest.approx(3.5 / 4))
    # Three images with two choices each: two agree, one does not.
    assert found.agreement == pytest.approx(nominal_alpha([["w", "w"], ["w", "w"], ["w", "l"]]))
    chosen = [*first[:3], first[0], first[1], second[2]]
    assert found.share_of_a == pytest.approx(chosen.count("A") / 6)
    alone = score_sheets(folder / "key.json", files[:1])
    assert alone.interval is None and alone.agreement is None


def test_rows_missing_from_a_filled_sheet_are_counted_for_each_rater(sheet):
    folder, name, _ = sheet
    three = _fill(folder, name, "three.csv", [(1, "A"), (3, "B"), (4, "tie")])
    blank = _fill(folder, name, "blank.csv", [(1, "A"), (2, ""), (3, ""), (4, "B")])
    found = score_sheets(folder / "key.json", [three, blank])
    assert found.missing == {"three": [2]} and found.num_blank == 2

    # Two raters in one file, of whom one has a second file; a blank row without a name belongs to both.
    both = _fill(folder, name, "both.csv", [(2, "A")], "Ann")
    both.write_text(both.read_text() + f"{name},1,Bob,B\n{name},3,,\n")
    rest = _fill(folder, name, "rest.csv", [(4, "A")], "Ann")
    found = score_sheets(folder / "key.json", [both, rest])
    assert found.missing == {"Ann": [1], "Bob": [2, 4]} and found.num_blank == 1 and found.num_raters == 2

    # An open quote takes the rows after it.
    quoted = _fill(folder, name, "quoted.csv", [(1, "A"), (2, "B"), (3, "A"), (4, "A")])
    quoted.write_text(quoted.read_text().replace(f"{name},2,,B", f'{name},2,"Ann,B'))
    with pytest.raises(DataError, match=r"quoted\.csv.*unexpected end of data"):
        score_sheets(folder / "key.json", [quoted])


def test_files_without_a_choice_are_named_too(sheet):
    folder, name, _ = sheet
    whole = _fill(folder, name, "whole.csv", [(number, "A") for number in range(1, 5)])
    files = [
        _fill(folder, name, "empty.csv", []),
        _fill(folder, name, "blank.csv", [(1, ""), (2, ""), (3, ""), (4, "")]),
        _fill(folder, name, "part.csv", [(1, ""), (2, "")]),
        _fill(folder, name, "named.csv", [(4, "")], "Ben"),
    ]
    found = score_sheets(folder / "key.json", [whole, *files])
    assert found.missing == {"empty": [1, 2, 3, 4], "part": [3, 4], "Ben": [1, 2, 3]}
    assert found.num_blank == 7 and found.num_raters == 1


def test_files_of_one_name_are_different_raters(sheet):
    folder, name, _ = sheet
    files = []
    for rater, choices in (("anna", [(1, "A"), (2, "")]), ("ben", [(3, "A"), (4, "B")])):
        (folder / rater).mkdir()
        files.append(_fill(folder / rater, name, "choices.csv", choices))
    found = score_sheets(folder / "key.json", files)
    anna, ben = (file.as_posix() for file in files)
    assert found.num_raters == 2 and found.missing == {anna: [3, 4], ben: [1, 2]}
    with pytest.raises(DataError, match="is given twice"):
        score_sheets(folder / "key.json", [files[0], folder / "ben" / ".." / "anna" / "choices.csv"])


def test_sheets_of_another_question_have_another_name(tmp_path):
    made = make_pairs(("m", OURS), ("human", THEIRS), seed=3)
    images = dict.fromkeys(NAMES, PNG.getvalue())
    names = {write_sheet(tmp_path / str(i), made, images, 3, f"Question {i}?") for i in range(40)}
    # No spreadsheet reads 0123 or 12e345 as a number.
    assert len(names) == 40 and all(re.fullmatch("[a-df-z][0-9a-f]+", name) for name in names)


def test_rows_with_further_cells_are_refused(sheet):
    folder, name, _ = sheet
    path = _fill(folder, name, "more.csv", [(1, "A,B"), (2, "A, ,"), (3, "A")])
    with pytest.raises(DataError, match=r"more\.csv:2: has 'B' after the last column") as refused:
        score_sheets(folder / "key.json", [path])
    assert "more.csv:3" not in str(refused.value)
    path.write_text(f"sheet,number,rater,choice,choice\n{name},1,,A,B\n")
    with pytest.raises(DataError, match=r"more\.csv: two columns 'choice'"):
        score_sheets(folder / "key.json", [path])


def test_agreement_agrees_with_krippendorff():
    # Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: nominal data of four observers with
    # missing values; the alpha given there is 0.743.
    units = ["111", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", "555", "11", "3"]
    assert nominal_alpha([list(unit) for unit in units]) == pytest.approx(0.743, abs=5e-4)
    # Section A of the same: two observers of ten binary units; alpha 0.095.
    binary = list(zip("0100000000", "1110010010"))
    assert nominal_alpha(binary) == pytest.approx(0.095, abs=5e-4)
    assert nominal_alpha([["a", "a"], ["a"]]) is None


def test_every_unusable_row_is_named(sheet):
    folder, name, _ = sheet
    bad = _fill(folder, name, "bad.csv", [(1, "A"), (1, "B"), (9, "A"), (2, "first"), ("x", "A")])
    other = _fill(folder, "another", "other.csv", [(1, "A")])
    with pytest.raises(DataError) as refused:
        score_sheets(folder / "key.json", [bad, other])
    text = str(refused.value)
    for part in ("bad.csv:3: rater 'bad' already has a choice for image 1", "bad.csv:4: no image '9'", "choice 'first'",
                 "no image 'x'", "belongs to sheet 'another'"):  # fmt: skip
        assert part in text
    with pytest.raises(DataError, match="the files have no choices"):
        score_sheets(folder / "key.json", [folder / "choices.csv"])
    (folder / "text.csv").write_text("just,words\n")
    with pytest.raises(DataError, match="no column 'sheet'"):
        score_sheets(folder / "key.json", [folder / "text.csv"])
    with pytest.raises(DataError, match="damaged: "):
        score_sheets(folder / "choices.csv", [bad])
    assert json.loads((folder / "key.json").read_text())["seed"] == 3


@pytest.mark.parametrize("number", ["\u00b2", "\u2461", "1e3", "9" * 5000, "-1", "1.0"])
def test_numbers_of_any_form_are_named(number, sheet):
    folder, name, _ = sheet
    with pytest.raises(DataError, match=r"odd\.csv:2: no image '"):
        score_sheets(folder / "key.json", [_fill(folder, name, "odd.csv", [(number, "A")])])


@pytest.mark.parametrize(
    "pairs", [[{"record_id": "a"}], ["a"], 5, [{"record_id": "a", "a": "x", "b": "y", "a_is_first": 2}]]
)
def test_edited_keys_are_refused(pairs, sheet):
    folder, name, _ = sheet
    key = json.loads((folder / "key.json").read_text())
    (folder / "edited.json").write_text(json.dumps({**key, "pairs": pairs}))
    with pytest.raises(DataError, match=r"edited\.json: damaged"):
        score_sheets(folder / "edited.json", [_fill(folder, name, "one.csv", [(1, "A")])])
