"""The page of `emovit demo` in Chromium.

Properties:
- bars have the intervals of a calibration where there is one, and the page says so where not;
- labels, numbers and texts on the page are those of the model for the uploaded image, and for the visitor's question;
- examples are images of the test split, or of records whose images may be elsewhere, and their labels those of people;
- the heat map is drawn from the attention over the image; a model without a Q-Former says why it has none;
- a correction is a record with the image, the label, who, when, and what the model said; it needs all of them, and
  never replaces another;
- a file that is no image gives one line that says so, and the next image works;
- the page asks no other machine for anything, and serves no file of this one;
- it is no wider than the screen, works by keyboard, and everything has a name for screen readers;
- text of models and visitors is shown, not run.
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

import lavis_emovit
from lavis_emovit.cli.main import main
from lavis_emovit.clips.clip import Clip
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.adapters.lavis_model import LavisModel, inference
from lavis_emovit.evaluation.report.table import MINUS
from lavis_emovit.pages import parts, uploads
from lavis_emovit.pages.answers import MAX_QUESTION_CHARACTERS, PageModel, page_models
from lavis_emovit.pages.decisions import add_line
from lavis_emovit.pages.examples import Example, examples
from lavis_emovit.pages.heat_map import heat_map, place_of, scaled
from lavis_emovit.pages.uploads import shown_image
from lavis_emovit.records import EmotionRecord, read_records, remember_image_root
from lavis_emovit.tuned.calibrating import Calibration, ObservedBin
from lavis_emovit.tuned.inputs import input_images
from lavis_emovit.tuned.predictions import ImagePrediction

pytest.importorskip("gradio", reason="needs the extra demo")

from lavis_emovit.pages.demo import demo_page
from lavis_emovit.pages.site import served

pytestmark = pytest.mark.xdist_group("pages")  # one browser
DONE = "The answer is complete."


@pytest.fixture(scope="module")
def model(run: SimpleNamespace) -> PageModel:
    return page_models([lavis_emovit.load_tuned(run.folder, device="cpu")])[0]


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages") / "corrections"


@pytest.fixture(scope="module")
def shown(model: PageModel) -> list[Example]:
    return examples(model.tuned)


@pytest.fixture(scope="module")
def address(model: PageModel, shown: list[Example], corrections: Path) -> Iterator[str]:
    with served(lambda: demo_page([model], shown, corrections)) as found:
        yield found


@pytest.fixture
def visit(browser: Any, address: str, painted: Callable[[Any], None]) -> Iterator[Any]:
    """The page in a window of its own; `requests` are the addresses that it asked for."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(20_000)
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(address)
    page.get_by_role("button", name="Ask").wait_for()
    painted(page)
    yield page
    page.close()


def upload(page: Any, path: Path) -> None:
    page.set_input_files("#upload input[type=file]", path)


def test_an_image_gets_the_answers_of_the_model(visit: Any, model: PageModel, run: SimpleNamespace) -> None:
    path = run.images[3]
    expected, data = model.predict(path.read_bytes()), path.read_bytes()
    assert expected.probabilities is not None and len(expected.probabilities) == 8
    upload(visit, path)
    visit.get_by_text(DONE).wait_for()
    bars = visit.get_by_role("list", name="Probability of each label").get_by_role("listitem").all_inner_texts()
    shown = [tuple(text.split("\n")) for text in bars]
    assert shown == [(label, parts.percent(share)) for label, share in expected.probabilities.items()]
    assert visit.locator(".headline strong").inner_text() == expected.emotion
    assert visit.get_by_role("definition").all_inner_texts() == [
        parts.signed(expected.valence or 0.0),
        parts.signed(expected.arousal or 0.0),
    ]
    adapter, why = model.tuned.adapter, model.explanation
    assert why is not None
    (text,) = adapter.write([adapter.prepare(data)], [0], [why])
    assert visit.get_by_role("region", name="Explanation").locator(".text").inner_text() == text
    assert visit.get_by_role("img", name="The image that you chose").evaluate("one => one.naturalWidth") > 0
    outside = [url for url in visit.requests if not url.startswith((visit.url, "data:", "blob:"))]
    assert len(visit.requests) > 10 and outside == []


def test_examples_come_from_records_with_images_elsewhere(
    model: PageModel,
    run: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = run.images[0]
    record = EmotionRecord(id="a", image=image.name, split="test", source="mine", emotion="awe", label_set="mikels8")
    records = tmp_path / "records.jsonl"
    records.write_text(record.to_json() + "\n")
    remember_image_root(records, tmp_path / "lost")
    with pytest.raises(DataError, match="Pass their new folder with --image-root"):
        examples(model.tuned, str(records))
    (found,) = examples(model.tuned, str(records), image.parent)
    assert (found.data, found.label) == (image.read_bytes(), "awe")
    frames = Clip(frames=(image.name,), rate_fps=1)
    records.write_text(records.read_text() + record.model_copy(update={"id": "b", "clip": frames}).to_json() + "\n")
    with caplog.at_level(logging.WARNING):
        (again,) = examples(model.tuned, str(records), image.parent)
    assert again == found and "1 clips are no examples" in caplog.text
    for options, problem in ((["--image-root", "x"], "--examples"), (["--compare-base", "x"], "--compare")):
        assert main(["demo", str(run.folder), *options]) == 2
        assert f"{options[0]} belongs to {problem}" in capsys.readouterr().err


def test_an_example_is_answered_and_corrected(
    visit: Any, model: PageModel, shown: list[Example], corrections: Path, run: SimpleNamespace
) -> None:
    split = {one.name: one for one in input_images([str(run.data / "small_sketch" / "test")])}
    assert 1 < len(shown) <= 8
    for example in shown:
        (found,) = [one for one in split.values() if one.read() == example.data]
        assert found.record is not None and found.record.emotion == example.label
    visit.get_by_role("button", name="Example 2").click()
    visit.get_by_text(f"People labelled this example {shown[1].label}.").wait_for()
    row = model.predict(shown[1].data)
    assert visit.locator(".headline strong").inner_text() == row.emotion
    save, status = visit.get_by_role("button", name="Save correction"), visit.locator("#saved")
    for message, act in (
        ("Choose the right label first.", lambda: None),
        ("Write your name", lambda: visit.get_by_role("radio", name="awe").check()),
        ("Saved: awe, by Ada L.", lambda: visit.get_by_label("Your name").fill("  Ada  L. ")),
    ):
        act()
        save.click()
        status.get_by_text(message).wait_for()
    (record,) = read_records(corrections / "records.jsonl")
    stored = (corrections / record.image).read_bytes()
    assert stored == shown[1].data and record.image == f"images/{sha256(stored).hexdigest()}.jpg"
    assert (record.emotion, record.label_set, record.extra["person"]) == ("awe", "mikels8", "Ada L.")
    assert record.extra["prediction"] == row.emotion and record.extra["model"] == "run"
    assert record.extra["confidence"] == pytest.approx(row.confidence)
    saved_at = datetime.fromisoformat(str(record.extra["saved_at"]))
    assert abs((datetime.now(timezone.utc) - saved_at).total_seconds()) < 600
    first = (corrections / "records.jsonl").read_bytes()
    save.click()
    for _ in range(100):
        if (corrections / "records.jsonl").read_bytes() != first:
            break
        visit.wait_for_timeout(50)
    assert (corrections / "records.jsonl").read_bytes().startswith(first)
    assert len(list(read_records(corrections / "records.jsonl"))) == 2
    # The next image has no label yet.
    visit.get_by_role("button", name="Example 1").click()
    visit.get_by_role("img", name="Example 1").wait_for()
    assert not visit.get_by_role("radio", name="awe").is_checked() and status.inner_text() == ""


def test_records_are_added_by_many_at_once(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_bytes(b'{"id": "cut", "image": "a.png", "split": "train", "source": "s"}')
    names = [f"n{number}" for number in range(30)]
    made = [EmotionRecord(id=name, image="a.png", split="train", source="s") for name in names]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda record: add_line(tmp_path / "records.jsonl", record.to_json()), made))
    assert sorted(record.id for record in read_records(tmp_path / "records.jsonl")) == sorted(["cut", *names])


def test_the_heat_map_is_bright_where_the_attention_is(visit: Any, model: PageModel, run: SimpleNamespace) -> None:
    grid = np.zeros((7, 7))
    grid[6, 0] = 0.5
    drawn = np.asarray(heat_map(Image.new("RGB", (140, 70), "grey"), grid).convert("L"), dtype=float)
    assert drawn.shape == (70, 140) and drawn[60:, :20].mean() > drawn[:30, 70:].mean() + 40
    assert place_of(grid) == "bottom left" and place_of(np.eye(7)[:, ::-1] * [1, 1, 1, 1, 1, 1, 9]) == "top right"
    assert scaled(np.ones((2, 2))).tolist() == [[0, 0], [0, 0]]
    data = run.images[0].read_bytes()
    attention = model.attention(data)
    assert attention is not None and attention.ndim == 2 and 0 < attention.sum() <= 1
    upload(visit, run.images[0])
    visit.get_by_text(DONE).wait_for()
    visit.get_by_role("img", name=f"most at the {place_of(attention)}").wait_for()
    assert "has no Q-Former" in parts.attention(None, "")


def test_a_question_of_the_visitor_is_answered(visit: Any, model: PageModel, run: SimpleNamespace) -> None:
    text = "Is <b>this</b> ${1+1} {{label}} calm?"
    visit.get_by_label("Your own question").fill(text)
    visit.get_by_role("button", name="Ask").click()
    visit.get_by_text("Choose an image first.").wait_for()
    upload(visit, run.images[0])
    visit.get_by_text(DONE).wait_for()
    visit.get_by_label("Your own question").press("Enter")
    answer = visit.get_by_role("region", name=f"Answer of {model.name}")
    visit.wait_for_selector("#reply-0 [aria-busy=false]")
    expected = "".join(model.answer(run.images[0].read_bytes(), text))
    assert answer.locator(".text").inner_text() == expected
    visit.get_by_label("Your own question").fill("Is it calm? " * 80)
    visit.get_by_role("button", name="Ask").click()
    visit.get_by_role("alert").get_by_text("the language model's context is 512; shorten the question").wait_for()


def test_a_file_that_is_no_image_is_named_and_the_next_one_works(
    visit: Any, bad_image: Path, run: SimpleNamespace
) -> None:
    upload(visit, bad_image)
    problem = visit.get_by_role("alert")
    problem.wait_for()
    assert problem.inner_text() == "This file cannot be used: not an image of a known format. Choose another image."
    assert visit.locator(".bars").count() == 0
    visit.get_by_role("button", name="Clear").click()
    visit.wait_for_selector("#upload input[type=file]", state="attached")
    upload(visit, run.images[0])
    visit.get_by_text(DONE).wait_for()
    assert visit.get_by_role("alert").count() == 0 and visit.locator(".bars").count() == 1


@pytest.mark.parametrize("width_px", [390, 800, 1280])
def test_the_page_is_no_wider_than_the_screen(visit: Any, run: SimpleNamespace, width_px: int) -> None:
    visit.set_viewport_size({"width": width_px, "height": 800})
    upload(visit, run.images[0])
    visit.get_by_text(DONE).wait_for()
    assert visit.evaluate("document.documentElement.scrollWidth") == width_px
    outside = "all => all.filter(one => one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML)"
    assert visit.eval_on_selector_all("main *", outside) == []


def test_the_page_works_by_keyboard_and_has_names(visit: Any, shown: list[Example]) -> None:
    order = []
    for _ in range(3 + len(shown)):
        visit.keyboard.press("Tab")
        order.append(visit.evaluate("[document.activeElement.tagName, document.activeElement.innerText.trim()]"))
    assert [tag for tag, _ in order] == ["BUTTON"] * (1 + len(shown)) + ["TEXTAREA", "BUTTON"]
    assert order[-1][1] == "Ask"
    assert visit.get_by_role("heading", level=1).count() == 1 and visit.get_by_role("status").count() >= 1
    nameless = "all => all.filter(one => !(one.innerText || one.ariaLabel || one.labels?.length)).length"
    assert visit.eval_on_selector_all("button, input:not([type=file]), textarea", nameless) == 0
    assert "cannot be read off an image" in visit.locator(".warning").inner_text()


def test_no_file_of_this_machine_is_served(address: str, run: SimpleNamespace) -> None:
    config = run.folder / "config.yaml"
    assert config.is_file()
    for path in (config, Path("/etc/passwd"), Path("setup.py").resolve(), Path(uploads.__file__)):
        for route in ("gradio_api/file=", "file=", "gradio_api/proxy=", "static/", "assets/"):
            with pytest.raises(HTTPError) as refused:
                urlopen(f"{address}{route}{path}")
            assert refused.value.code in (400, 403, 404)
    # Nor may an event name a file that nobody uploaded.
    page = json.loads(urlopen(f"{address}config").read())
    event = next(one["id"] for one in page["dependencies"] if one["targets"][0][1] == "upload")
    body = {
        "data": [{"path": str(config), "meta": {"_type": "gradio.FileData"}}],
        "fn_index": event,
        "session_hash": "a",
    }
    headers = {"Content-Type": "application/json"}
    urlopen(Request(f"{address}gradio_api/queue/join", json.dumps(body).encode(), headers))
    events = urlopen(f"{address}gradio_api/queue/data?session_hash=a").read().decode()
    assert '"success":false' in events and "seed" not in events


def test_uploads_are_bounded(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    boundary, data = "x", os.urandom(uploads.MAX_BYTES + 1)
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + data + b"\r\n--x--\r\n"
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{address}gradio_api/upload", body, headers))
    assert refused.value.code == 413
    with pytest.raises(DataError, match="the limit is 32 MB"):
        shown_image(data)
    buffer = io.BytesIO()
    Image.new("RGB", (60, 50)).save(buffer, "PNG")
    assert shown_image(buffer.getvalue()).size == (60, 50)
    monkeypatch.setattr(uploads, "MAX_PIXELS", 2999)
    with pytest.raises(DataError, match="60 x 50 pixels, more than 2999"):
        shown_image(buffer.getvalue())


def test_questions_are_bounded(model: PageModel, run: SimpleNamespace) -> None:
    data = run.images[0].read_bytes()
    with pytest.raises(UserError, match="Write a question first"):
        model.answer(data, " \n")
    with pytest.raises(UserError, match=f"the limit is {MAX_QUESTION_CHARACTERS}"):
        model.answer(data, "a" * (MAX_QUESTION_CHARACTERS + 1))


def test_an_answer_of_several_beams_comes_whole(model: PageModel, run: SimpleNamespace) -> None:
    tuned, why = model.tuned, model.explanation
    assert why is not None
    processors, device = (tuned.image_processor, tuned.text_processor), tuned.model.device
    adapter = LavisModel(tuned.model, *processors, run=inference(device, None), device=device, num_beams=2)
    image = adapter.prepare(run.images[0].read_bytes())
    assert list(adapter.stream(image, why)) == adapter.write([image], [0], [why])


def test_a_taken_port_is_named(address: str, model: PageModel) -> None:
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    with (
        pytest.raises(UserError, match=f"cannot be served at 127.0.0.1, port {port}"),
        served(lambda: demo_page([model]), port=port),
    ):
        pass


def test_text_is_escaped_and_numbers_are_readable(model: PageModel) -> None:
    row = ImagePrediction(image="a", emotion="<i>x</i>", confidence=0.5, probabilities={"<i>x</i>": 0.5})
    html = parts.numbers(model, row) + parts.written("<u>", "<script>alert(1)</script>", True)
    assert not any(tag in html for tag in ("<i>x", "<u>", "<script"))
    assert [parts.percent(share) for share in (1.0, 0.994, 0.0042, 0.0001)] == ["100 %", "99 %", "0.4 %", "0 %"]
    assert [parts.signed(value) for value in (0.5, -0.25, -0.001)] == ["+0.50", f"{MINUS}0.25", "0.00"]


def test_a_kept_calibration_is_used(model: PageModel, run: SimpleNamespace) -> None:
    emotion = model.tuned.asked("emotion")
    values: dict[str, Any] = {"temperature": 2.0, "dataset": "x, val", "num_images": 50}
    values |= {"weights_sha256": model.tuned.files.weights_sha256, "label_set": emotion.label_set}
    values |= {"method": emotion.method, "ece_before": 0.3, "ece_after": 0.1}
    path = run.folder / "calibration.json"
    path.write_text(json.dumps(values))
    (calibrated,) = page_models([model.tuned], threshold=0.999)
    path.unlink()
    before, after = (one.predict(run.images[0].read_bytes()) for one in (model, calibrated))
    assert before.probabilities and after.probabilities and after.abstained
    # A softmax at twice the temperature has the square roots of the probabilities, divided by their sum.
    roots = {label: share**0.5 for label, share in before.probabilities.items()}
    for label, share in after.probabilities.items():
        assert share == pytest.approx(roots[label] / sum(roots.values()), rel=1e-5)
    html = parts.numbers(calibrated, after)
    assert "No label" in html and "Calibrated on 50 images of x, val" in html
    assert "An earlier version fitted it, without intervals." in html and "<small>" not in html.partition("</ol>")[0]
    assert "Not calibrated, so there are no intervals" in parts.numbers(model, before)


def test_calibrated_bars_have_intervals(model: PageModel) -> None:
    """Where no label had such a probability on the validation split, a bar has none."""
    seen = ObservedBin(low=0.6, high=0.7, count=10, right=5, from_share=0.2366, to_share=0.7634)
    values: dict[str, Any] = {"temperature": 2.0, "dataset": "x, val", "num_images": 50, "weights_sha256": "a"}
    values |= {"label_set": "mikels8", "method": "likelihood", "ece_before": 0.3, "ece_after": 0.1}
    calibrated = replace(model, calibration=Calibration(**values, bins=(seen,)))
    row = ImagePrediction(image="a", emotion="awe", confidence=0.65, probabilities={"awe": 0.65, "fear": 0.35})
    first, second = parts.numbers(calibrated, row).partition("</ol>")[0].split("<li")[1:]
    assert "left: 23.66%; right: 23.66%" in first and "<small>24\N{EN DASH}76 %</small>" in first
    assert "<small>" not in second and "<u " not in second


def test_two_models_stand_side_by_side(browser: Any, model: PageModel, run: SimpleNamespace) -> None:
    models = page_models([model.tuned, model.tuned])
    with served(lambda: demo_page([models[0], replace(models[1], name="other")])) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.wait_for_selector("h1")
        upload(page, run.images[1])
        page.get_by_text(DONE).wait_for()
        left, right = (page.locator(f"#numbers-{place}") for place in range(2))
        assert left.locator(".bars").inner_text() == right.locator(".bars").inner_text()
        assert right.get_by_role("heading", level=2).inner_text() == "other"
        assert left.bounding_box()["y"] == right.bounding_box()["y"]
        page.close()
