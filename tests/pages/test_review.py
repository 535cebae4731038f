"""`emovit review`: the page in Chromium, agreement, and the records after it.

Properties:
- keys and buttons accept, correct, skip and go back; each decision is in the file at once; a new visit resumes;
- a key pressed before the next image is there decides nothing;
- several people share a file; the last decision of a person about an image counts;
- alpha is that of a calculation by hand; the adjudicator decides disputes, else the majority; what is left out counts;
- clips are shown as film strips in two rows;
- instructions follow a new label, or are dropped with a count; decisions have labels of the set;
- predictions can be reviewed like records; wrong input is named.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavis_emovit.cli.main import main
from lavis_emovit.errors import UserError
from lavis_emovit.generation.categorical import add_categorical
from lavis_emovit.pages.review import review_page
from lavis_emovit.pages.reviews import decide, open_review, read_decisions
from lavis_emovit.pages.site import served
from lavis_emovit.pages.uploads import shown_image
from lavis_emovit.records import EmotionRecord, Instruction, read_records, write_records

pytest.importorskip("gradio", reason="needs the extra demo")


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four images with labels; the working directory is their folder."""
    monkeypatch.chdir(tmp_path)
    made = []
    for number, label in enumerate(("awe", "awe", "fear", "anger")):
        Image.new("RGB", (40, 30), (60 * number, 90, 90)).save(f"{number}.png")
        name = f"s/{number}"
        made.append(
            EmotionRecord(id=name, image=f"{number}.png", split="val", source="s", emotion=label, label_set="mikels8")
        )
    write_records("records.jsonl", made)
    return tmp_path / "records.jsonl"


@pytest.fixture
def decided(records: Path) -> Callable[..., None]:
    """Function that lets a person decide about images 0, 1, ... by labels; None skips."""
    review = open_review(records)

    def write(person: str, *labels: str | None) -> None:
        for item, label in zip(review.items, labels):
            action: Any = "skip" if label is None else "accept" if label == item.label else "correct"
            decide(Path("reviews.jsonl"), item, person, action, label, review.label_set)

    return write


def test_clips_are_film_strips(records: Path) -> None:
    clip = {"frames": [f"{number}.png" for number in range(4)], "rate_fps": 2}
    one = EmotionRecord.model_validate(
        {**next(read_records(records)).model_dump(), "id": "s/clip", "clip": clip}, strict=False
    )
    write_records("clips.jsonl", [one])
    (item,) = open_review(Path("clips.jsonl")).items
    shown = shown_image(item.read())
    assert shown.size == (3 * 320, 2 * 240)
    # The first frame is in the upper left corner, the last one in the lower right.
    assert [shown.getpixel(place)[0] for place in ((160, 120), (800, 360))] == [pytest.approx(0, abs=4), 180]


def test_a_person_reviews_by_keys_and_buttons(browser: Any, records: Path, painted: Callable[[Any], None]) -> None:
    review, file = open_review(records), Path("reviews.jsonl")

    def own() -> dict[str, str | None]:
        return {name: by["Ada"].label for name, by in read_decisions(file).items()}

    with served(lambda: review_page(review, review.items, "Ada", file)) as address:
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.set_default_timeout(20_000)
        page.goto(address)
        page.get_by_text("Image 1 of 4, 0 decided").wait_for()
        page.get_by_role("img", name="Image 1").wait_for()
        # The second key comes too early: image 1 is decided, and image 2 is not there yet.
        page.evaluate(
            "for (const key of ['a', '2'])"
            " document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}))"
        )
        page.get_by_text("Saved for image 1: awe.").wait_for()
        assert own() == {"s/0": "awe"}
        page.get_by_role("button", name="fear").click()
        # The status may be there before the panel.
        page.get_by_text("Saved for image 2: fear.").wait_for()
        page.get_by_text("Image 3 of 4").wait_for()
        page.keyboard.press("s")
        page.get_by_text("Saved for image 3: skipped.").wait_for()
        page.get_by_text("Image 4 of 4").wait_for()
        page.keyboard.press("b")
        page.get_by_text("You decided: skipped.").wait_for()
        page.keyboard.press("8")
        page.get_by_text("Saved for image 3: sadness.").wait_for()
        assert own() == {"s/0": "awe", "s/1": "fear", "s/2": "sadness"}
        page.reload()
        page.get_by_text("Image 4 of 4, 3 decided").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        painted(page)
        page.keyboard.press("a")
        page.get_by_text("4 of 4").wait_for()
        page.close()
    assert len(file.read_text().splitlines()) == 5
    first = json.loads(file.read_text().splitlines()[0])
    assert (first["reviewer"], first["action"], first["shown"], first["label"]) == ("Ada", "accept", "awe", "awe")


def test_agreement_is_that_of_a_hand_calculation(decided: Callable[..., None], capsys: Any) -> None:
    decided("Ada", "awe", "awe", "fear", None)
    decided("Bob", "awe", "fear", "fear", "anger")
    assert main(["review", "records.jsonl", "--agreement"]) == 0
    told = capsys.readouterr().out
    # Pairs: awe-awe, awe-fear, fear-fear. Observed disagreement 2 / 6, expected 2 * 3 * 3 / (6 * 5): 1 - 5 / 9.
    assert "3 shared images (Krippendorff's alpha): 0.444" in told
    assert "Ada: labels for 3 of 4 images" in told and "disputed: s/1: Ada awe, Bob fear" in told


def test_records_have_the_decided_labels(decided: Callable[..., None], capsys: Any) -> None:
    decided("Ada", "awe", "awe", "fear", None)
    decided("Bob", "awe", "fear", "sadness")
    decided("Cai", "awe", "fear")
    command = ["review", "records.jsonl", "--agreement", "--out"]
    assert main([*command, "one/a.jsonl"]) == 0
    told = capsys.readouterr().out
    assert "2 records (1 disputed, 1 majority, 1 unanimous, 1 undecided)" in told and "2 records are left out" in told
    one, two = read_records("one/a.jsonl")
    assert (one.id, one.emotion, one.votes, one.extra["review"]) == ("s/0", "awe", {"awe": 1.0}, "unanimous")
    assert (two.emotion, two.extra["label_before_review"]) == ("fear", "awe")
    assert two.votes == {"awe": pytest.approx(1 / 3), "fear": pytest.approx(2 / 3)}
    assert two.extra["reviewed_by"] == "Ada, Bob, Cai" and two.split == "val"
    assert len(open_review(Path("one/a.jsonl")).items[0].read()) > 20  # its images are found
    assert main([*command, "b.jsonl", "--adjudicator", "Ada"]) == 0
    assert [record.emotion for record in read_records("b.jsonl")] == ["awe", "awe", "fear"]
    assert main([*command, "b.jsonl"]) == 2
    assert "b.jsonl exists" in capsys.readouterr().err
    assert main([*command, "c.jsonl", "--adjudicator", "Eve"]) == 2
    assert "has no label by 'Eve', but by Ada, Bob, Cai" in capsys.readouterr().err


def test_predictions_are_reviewed(records: Path) -> None:
    rows: list[dict[str, Any]] = [{"image": "0.png", "emotion": "b", "probabilities": {"b": 0.7, "a": 0.3}}]
    rows += [{"image": "1.png", "error": "cannot be decoded"}, {"image": "2.png", "emotion": "a"}]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    review = open_review(Path("p.jsonl"))
    assert review.label_set.labels == ("a", "b")
    assert [(item.name, item.label) for item in review.items] == [("0.png", "b"), ("2.png", "a")]
    decide(Path("reviews.jsonl"), review.items[0], "Ada", "correct", "a", review.label_set)
    assert main(["review", "p.jsonl", "--agreement", "--out", "out.jsonl"]) == 0
    (record,) = read_records("out.jsonl")
    assert (record.image, record.emotion, record.extra["label_before_review"]) == ("0.png", "a", "b")


def test_wrong_input_is_named(records: Path, decided: Callable[..., None], capsys: Any) -> None:
    Path("x.jsonl").write_text('{"image": 3}\n')
    for arguments, problem in (
        (["missing.jsonl", "--agreement"], "no such file"),
        (["x.jsonl", "--agreement"], "x.jsonl:1: neither a record nor a prediction"),
        (["records.jsonl"], "use either --reviewer NAME"),
        (["records.jsonl", "--reviewer", "Ada", "--out", "a.jsonl"], "belong to --agreement"),
        (["records.jsonl", "--reviewer", " "], "Write your name"),
        (["records.jsonl", "--agreement"], "has no decision about these images"),
        (["records.jsonl", "--reviewer", "Ada", "--disputed"], "other reviewers disagree on no image"),
    ):
        assert main(["review", *arguments]) == 2
        assert problem in capsys.readouterr().err
    review = open_review(records)
    with pytest.raises(UserError, match="'joy' is none of the labels"):
        decide(Path("reviews.jsonl"), review.items[0], "Ada", "correct", "joy", review.label_set)
    Path("reviews.jsonl").write_text("{}\n")
    assert main(["review", "records.jsonl", "--agreement"]) == 2
    assert "reviews.jsonl:1: not a decision" in capsys.readouterr().err


def test_instructions_follow_the_decided_label(records: Path, decided: Callable[..., None], capsys: Any) -> None:
    """The answer of the categorical question changes with the label; texts about the earlier label are dropped."""
    asked = list(add_categorical(read_records(records)))
    reason = Instruction(kind="reasoning", question="Why?", answer="It is vast.", provenance="chat:m")
    affect = Instruction(
        kind="conversation", question="How pleasant?", answer="5", provenance="template:affect-scale/1"
    )
    write_records(
        records, (one.model_copy(update={"instructions": [*one.instructions, reason, affect]}) for one in asked)
    )
    decided("Ada", "fear", "awe")
    assert main(["review", "records.jsonl", "--agreement", "--out", "a.jsonl"]) == 0
    assert "1 instructions about an earlier label, dropped" in capsys.readouterr().out
    one, two = read_records("a.jsonl")
    assert [item.answer for item in one.instructions] == ["Predict emotion: fear", "5"]
    assert [item.answer for item in two.instructions] == ["Predict emotion: awe", "It is vast.", "5"]
    assert one.instructions[0].question == asked[0].instructions[0].question


def test_decisions_with_another_label_set_are_refused(records: Path, capsys: Any) -> None:
    made = {"name": "s/0", "reviewer": "Ada", "action": "correct", "shown": "awe", "decided_at": "2026-01-01"}
    Path("reviews.jsonl").write_text(json.dumps({**made, "label": "joyful"}) + "\n")
    assert main(["review", "records.jsonl", "--agreement", "--out", "a.jsonl"]) == 2
    assert "'joyful', which Ada decided for s/0, is none of the labels" in capsys.readouterr().err
    assert not Path("a.jsonl").exists()


def test_decisions_may_have_a_byte_order_mark_and_blank_lines(records: Path, capsys: Any) -> None:
    made = {"name": "s/0", "reviewer": "Ada", "action": "accept", "shown": "awe", "label": "awe", "decided_at": "now"}
    Path("reviews.jsonl").write_text(f"\ufeff{json.dumps(made)}\r\n\n", encoding="utf-8")
    assert main(["review", "records.jsonl", "--agreement"]) == 0
    assert "Ada: labels for 1 of 4 images" in capsys.readouterr().out
    Path("reviews.jsonl").write_text(json.dumps(made)[:-1] + ', "label": "fear"}\n')
    assert main(["review", "records.jsonl", "--agreement"]) == 2
    assert "the key 'label' is repeated" in capsys.readouterr().err


def test_decisions_about_other_images_are_counted(records: Path, decided: Callable[..., None], capsys: Any) -> None:
    decided("Ada", "awe", "fear")
    line = json.loads(Path("reviews.jsonl").read_text().splitlines()[0])
    with Path("reviews.jsonl").open("a") as file:
        file.writelines(json.dumps({**line, "name": name}) + "\n" for name in ("s/gone", "s/gone", "t/0"))
    assert main(["review", str(records), "--agreement", "--out", "reviewed.jsonl"]) == 0
    assert "decisions about 2 images that are not among these count nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(("action", "label"), [("skip", "awe"), ("accept", None), ("correct", None)])
def test_a_label_that_contradicts_its_action_is_no_decision(
    action: str, label: str | None, records: Path, decided: Callable[..., None], capsys: Any
) -> None:
    decided("Ada", "awe")
    line = json.loads(Path("reviews.jsonl").read_text())
    Path("reviews.jsonl").write_text(json.dumps({**line, "action": action, "label": label}) + "\n")
    assert main(["review", str(records), "--agreement"]) == 2
    assert "reviews.jsonl:1: not a decision (" in capsys.readouterr().err


def test_a_path_with_a_null_byte_is_refused(records: Path, capsys: Any) -> None:
    row = {"image": "a\0.png", "emotion": "awe", "probabilities": {"awe": 0.6, "fear": 0.4}, "confidence": 0.6}
    Path("predictions.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["review", "predictions.jsonl", "--agreement"]) == 2
    assert "has a null byte, which no path can have" in capsys.readouterr().err
