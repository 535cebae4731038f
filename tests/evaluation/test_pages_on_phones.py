"""Pages on a screen as narrow as that of a phone, drawn by Chromium.

Properties, for reports of runs and suites, judge sheets and contact sheets with names that have no place to break:
- a page never scrolls sideways, nothing crosses its edges, and no text is cut off;
- tables that are too wide scroll in a box of their own, in which the labels of rows leave room for the cells.
"""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import subprocess

import pytest
from PIL import Image
from suite_folder import SUITE, make_suite, scene_rows, write_rows

from lavis_emovit.evaluation.report.page import write_comparison
from lavis_emovit.evaluation.sheets import make_pairs, write_sheet
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.contact_sheet import pick_tiles, write_contact_sheet

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LONG = "instructblip_vicuna_seven_billion_parameters_tuned_on_emoset_with_all_of_its_attributes"

# For every frame: whether it scrolls sideways, what crosses its edges or is cut off, the number of boxes that scroll,
# and the widest label of a confusion matrix as a share of the screen.
MEASURE = """
addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, width = page.documentElement.clientWidth;
    const style = element => frame.contentWindow.getComputedStyle(element);
    const isApart = element => {
      for (let box = element; box !== page.body; box = box.parentElement)
        if (box !== element && style(box).overflowX === "auto" || style(box).clipPath !== "none") return true;
      return element.parentElement.closest("svg") !== null;
    };
    const elements = [...page.body.querySelectorAll("*")].filter(element => !isApart(element));
    const name = element => `${element.tagName} ${element.getAttribute("class")}: ${element.textContent.slice(0, 60)}`;
    found[frame.title] = {
      scrolls: page.documentElement.scrollWidth > width,
      outside: elements.filter(one => one.getBoundingClientRect().right > width + 1).map(name),
      cut: elements.filter(one => style(one).overflow === "hidden" &&
        (one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1)).map(name),
      boxes: [...page.querySelectorAll(".scroll")].filter(one => one.scrollWidth > one.clientWidth).length,
      label: Math.max(0, ...[...page.querySelectorAll(".matrix tbody th")].map(one => one.offsetWidth)) / width,
    };
  }
  document.body.replaceChildren(document.createElement("pre"));
  document.body.firstChild.textContent = JSON.stringify(found);
});
"""


def measured(pages, width_px, folder):
    """What `MEASURE` finds on each of the pages, in frames of this width."""
    frames = "".join(
        f'<iframe title="{path.name}" width="{width_px}" height="800" style="border: 0" '
        f'srcdoc="{html.escape(path.read_text(encoding="utf-8"))}"></iframe>'
        for path in pages
    )
    (folder / "frames.html").write_text(f"<!doctype html><script>{MEASURE}</script>{frames}", encoding="utf-8")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *arguments, (folder / "frames.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(html.unescape(re.search(r"<pre>(.*)</pre>", done.stdout)[1]))


@pytest.fixture
def pages(make_run, tmp_path):
    labels = tuple(f"{LONG}-{number}" for number in range(12))
    runs = [make_run("quickstart", num_rows=40, num_images=2), make_run(LONG, labels=labels, num_rows=40, num_images=2)]
    suites = [
        make_suite(tmp_path / "one", num_rows=20),
        make_suite(tmp_path / "two", num_rows=20, name=LONG, models={**SUITE["models"], LONG: {"adapter": "prior"}}),
    ]
    write_rows(suites[1], "scenes", LONG, "direct", scene_rows("colours", "direct", 20, 5))
    buffer = io.BytesIO()
    Image.new("RGB", (90, 60)).save(buffer, "PNG")
    captions = [{"a": f"{text} {LONG}"} for text in ("A dog", "https://example.org/")]
    made = make_pairs(("m", captions[0]), ("human", captions[1]), seed=0)
    write_sheet(tmp_path / "sheet", made, {"a": buffer.getvalue()}, seed=0, question=f"Which fits {LONG}?")
    records = [
        EmotionRecord(id=name, image=f"{name}.png", split="test", source="s", caption=LONG) for name in ("good", LONG)
    ]
    (tmp_path / "good.png").write_bytes(buffer.getvalue())
    write_contact_sheet(pick_tiles(records, tmp_path, 2), tmp_path / "small.html", tile_px=64, title=LONG)
    write_contact_sheet(pick_tiles(records, tmp_path, 2), tmp_path / "large.html", tile_px=512, title=LONG)
    return [
        write_comparison(runs, tmp_path / "runs.html"),
        write_comparison(suites, tmp_path / "suites.html"),
        tmp_path / "sheet" / "sheet.html",
        tmp_path / "small.html",
        tmp_path / "large.html",
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_nothing_is_cut_off_or_wider_than_the_screen(pages, tmp_path):
    found = measured(pages, 390, tmp_path)
    assert list(found) == [path.name for path in pages]
    for name, page in found.items():
        assert not page["scrolls"], name
        assert (page["outside"], page["cut"]) == ([], []), name
    # The confusion matrices of twelve long labels, which stay in sight and leave room for the cells.
    assert found["runs.html"]["boxes"] >= 2
    assert 0.1 < found["runs.html"]["label"] < 0.5
