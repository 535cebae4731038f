"""`emovit judge page`: the page in Chromium, and the file of choices.

Properties:
- the page has the question of the sheet and both captions as text, and not their authors; it is no wider than a phone;
- keys and buttons choose, skip and go back; each choice is in the file at once; a new visit resumes;
- several people share a file, in which the last choice of a person about an image counts, and `judge score` reads it;
- only images on which others disagree are shown for adjudication; wrong input is named.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavis_emovit.cli.main import main
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.sheets import make_pairs, write_sheet
from lavis_emovit.pages.judgements import Choices, Sheet, read_sheet

pytest.importorskip("gradio", reason="needs the extra demo")

from lavis_emovit.pages.judge import judge_page
from lavis_emovit.pages.site import served

pytestmark = pytest.mark.xdist_group("pages")  # one browser
QUESTION = "Which caption fits <b>better</b>?"


@pytest.fixture
def sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sheet:
    """A sheet of three images in the folder `sheet` of the working directory."""
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    Image.new("RGB", (640, 400), (60, 90, 90)).save(buffer, "PNG")
    names = ("a", "b", "c")
    captions = [{name: f"{text} <i>{name}</i>" for name in names} for text in ("a quiet sea", "the loud crowd")]
    made = make_pairs(("author_1", captions[0]), ("author_2", captions[1]), seed=3)
    write_sheet("sheet", made, dict.fromkeys(names, buffer.getvalue()), 3, QUESTION)
    return read_sheet(Path("sheet"))


def test_a_person_judges_by_keys_and_buttons(browser: Any, sheet: Sheet, painted: Callable[[Any], None]) -> None:
    choices = Choices(Path("sheet/page_choices.csv"), sheet.sheet)
    choices.keep('Bob, the "first"', 1, "B")
    with served(lambda: judge_page(sheet.question, sheet.entries, "Ada", choices)) as address:
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.set_default_timeout(20_000)
        page.goto(address)
        page.get_by_text("Image 1 of 3, 0 decided").wait_for()
        assert page.get_by_role("heading", level=1).inner_text() == QUESTION
        shown = page.locator(".pair button span").all_inner_texts()
        assert shown == [sheet.entries[0].a, sheet.entries[0].b]
        assert "author_" not in page.content()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        painted(page)
        page.keyboard.press("a")
        page.get_by_text("Saved for image 1: A.").wait_for()
        page.get_by_role("button", name=f"B {sheet.entries[1].b}").click()
        page.get_by_text("Saved for image 2: B.").wait_for()
        page.get_by_text("Image 3 of 3").wait_for()  # not before the panel
        page.keyboard.press("ArrowLeft")
        page.get_by_text("You decided: B.").wait_for()
        page.keyboard.press("t")
        page.get_by_text("Saved for image 2: tie.").wait_for()
        page.reload()
        page.get_by_text("Image 3 of 3, 2 decided").wait_for()
        page.get_by_role("button", name="Skip").click()
        page.get_by_text("3 of 3").wait_for()
        page.close()
    rows = list(csv.reader(choices.path.open()))
    assert rows == [
        ["sheet", "number", "rater", "choice"],
        [sheet.sheet, "1", 'Bob, the "first"', "B"],
        [sheet.sheet, "1", "Ada", "A"],
        [sheet.sheet, "2", "Ada", "tie"],
        [sheet.sheet, "3", "Ada", ""],
    ]


def test_choices_are_scored_and_adjudicated(sheet: Sheet, capsys: pytest.CaptureFixture[str]) -> None:
    key = json.loads(Path("sheet/key.json").read_text())
    ours = ["A" if pair["a_is_first"] else "B" for pair in key["pairs"]]
    other = {"A": "B", "B": "A"}
    choices = Choices(Path("choices.csv"), sheet.sheet)
    for rater, made in (("Ada", ours), ("Bob", [ours[0], other[ours[1]], other[ours[2]]])):
        for number, choice in enumerate(made, start=1):
            choices.keep(rater, number, choice)
    assert main(["judge", "page", "sheet", "--rater", "Eve", "--choices", "missing.csv", "--disputed"]) == 2
    assert "missing.csv: other raters disagree on no image" in capsys.readouterr().err
    choices.keep("Eve", 2, ours[1])
    assert main(["judge", "score", "sheet/key.json", "choices.csv", "--adjudicator", "Eve"]) == 0
    told = capsys.readouterr().out
    # By Ada and Bob, 4 of 6 for ours; decided: image 1 by both, image 2 by Eve, image 3 by nobody.
    assert "win rate 66.7 %" in told and "by 2 raters on 3 images" in told
    assert "decided images: win rate 100.0 %" in told
    assert "on 2, 1 of them by Eve; 1 left out because they are disputed" in told
    assert "missing" not in told
    Choices(Path("alone.csv"), sheet.sheet).keep("Eve", 2, "A")
    assert main(["judge", "score", "sheet/key.json", "alone.csv", "--adjudicator", "Eve"]) == 2
    assert "only the adjudicator 'Eve' has choices" in capsys.readouterr().err
    assert main(["judge", "score", "sheet/key.json", "choices.csv", "--adjudicator", "Ivo"]) == 2
    assert "no choice by the adjudicator 'Ivo', but by Ada, Bob, Eve" in capsys.readouterr().err


def test_wrong_input_is_named(sheet: Sheet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no sheet\.json; pass a folder"):
        read_sheet(tmp_path)
    with pytest.raises(UserError, match="'C' is none of the choices"):
        Choices(Path("c.csv"), sheet.sheet).keep("Ada", 1, "C")
    Path("c.csv").write_text("sheet,number,rater,choice\nsother,1,Ada,A\n")
    with pytest.raises(DataError, match=r"c\.csv: .*choices about the sheet 'sother'"):
        Choices(Path("c.csv"), sheet.sheet).keep("Ada", 1, "A")
    assert "sother" in Path("c.csv").read_text()
    Path("d.csv").write_text(f"sheet,number,rater,choice\n{sheet.sheet},1,Ada,A\n\n")
    assert Choices(Path("d.csv"), sheet.sheet).read() == {("Ada", 1): "A"}
    for content in ("a,b\n", "sheet,number,rater,choice\n1\n", 'sheet,number,rater,choice\ns,1,"Ada,A\n', "\xff"):
        Path("c.csv").write_bytes(content.encode("latin-1"))
        with pytest.raises(DataError, match=r"c\.csv: cannot be used"):
            Choices(Path("c.csv"), sheet.sheet).read()
    Path("sheet/sheet.json").write_text('{"sheet": "s1", "question": "?", "entries": []}')
    with pytest.raises(DataError, match=r"sheet\.json: damaged"):
        read_sheet(Path("sheet"))


def test_entries_with_the_same_number_are_refused(sheet: Sheet) -> None:
    path = Path("sheet/sheet.json")
    content = json.loads(path.read_text())
    content["entries"][1]["number"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"sheet\.json: damaged: .*two entries have the same number"):
        read_sheet(Path("sheet"))
