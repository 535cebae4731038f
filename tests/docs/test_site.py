"""The documentation as a site, and its tutorial.

Properties:
- every page is in the menu, and every link and anchor leads somewhere, also to files of the repository;
- a page loads nothing from the network;
- the commands of the tutorial lead from a folder of photographs to predictions and an archive, and its notebook runs.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from lavis_emovit import registered
from lavis_emovit.cli.main import main
from lavis_emovit.train import run_recipe

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TUTORIAL, re.DOTALL) for line in block.splitlines()]
_LOADING = {"script": "src", "img": "src", "iframe": "src", "link": "href"}


class Sources(HTMLParser):
    """What a page loads, and where it leads."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if _LOADING.get(tag) in values and values.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(values[_LOADING[tag]] or "")
        if tag == "a" and values.get("href"):
            self.targets.append(values["href"] or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


def test_every_page_is_written_and_loads_nothing_from_the_network(site):
    pages = {path.stem: Sources(path.read_text(encoding="utf-8")) for path in site.glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= pages.keys()
    loaded = [address for page in pages.values() for address in page.loaded]
    assert len(loaded) > len(pages) and not [one for one in loaded if re.match(r"(https?:)?//", one)]


def test_links_to_files_of_the_repository_lead_to_their_text(site):
    targets = [one for path in site.glob("*.html") for one in Sources(path.read_text(encoding="utf-8")).targets]
    linked = {target for target in targets if target.startswith("repository/")}
    assert "repository/projects/emovit/eval/heldout.yaml.txt" in linked and len(linked) > 20
    for target in linked:
        assert (site / target).read_bytes() == (ROOT / target[len("repository/") : -len(".txt")]).read_bytes()


def see_demo(words):
    """The page of the command is there until it is interrupted."""
    command = [sys.executable, "-u", "-m", "lavis_emovit.cli.main", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shown:
        try:
            (address,) = re.findall(r"http://127\.0\.0\.1:\d+/?", shown.stdout.readline())
            with urllib.request.urlopen(address) as page:
                assert b"gradio" in page.read()
        finally:
            shown.send_signal(signal.SIGINT)
        assert shown.wait(60) == 0


def test_the_tutorial_leads_from_photographs_to_an_archive(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registered, "_beside_recipes", [])
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("EMOVIT_RUN", raising=False)
    for number in range(50):
        place = "new_photos" if number > 45 else f"mypics/{('calm', 'tense')[number % 2]}"
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64, 48), 10 + 100 * (number % 2) + number).convert("RGB").save(
            tmp_path / place / f"{number}.jpg"
        )
    (train,) = [number for number, line in enumerate(COMMANDS) if "lavis.train" in line]
    assert train == 1 and len(COMMANDS) >= 4
    for line in COMMANDS:
        program, *words = shlex.split(line)
        if words[0] == "demo":
            see_demo(words)
        elif program == "emovit":
            assert main(words) == 0, line
        else:
            run_recipe(words[words.index("--cfg-path") + 1], ["run.max_steps=2"])
    assert (tmp_path / "output/mypics/report.html").is_file() and (tmp_path / "mypics.emovit").is_file()
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 4
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "photographs.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = str([cell.get("outputs") for cell in notebook.cells])
    assert "calm, tense" in printed and "torch.Size([1, 2])" in printed and "image/png" in printed
