"""The page about datasets.

- Its table is what the configs say: every dataset, its layouts, its label set, whether its layout was verified.
- Its example of a dataset in one YAML file is read, from the command line and by its name.
- Its commands parse, and each dataset and setting that they name exists.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command

from lavis_emovit.cli.main import app, main
from lavis_emovit.records import read_records
from lavis_emovit.runners.config import Config
from lavis_emovit.sources.catalogue import all_entries, find_entry
from lavis_emovit.sources.face_tables import FaceTableSettings
from lavis_emovit.sources.layouts import LAYOUTS
from lavis_emovit.sources.readers.folder import FolderSettings
from lavis_emovit.sources.table_settings import TableSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
# Layouts that belong to one dataset have their label set in the code.
GENERAL_LAYOUTS = {name for name, reader in LAYOUTS.items() if reader.imported_from is not None}
LABEL_SETS = {"emoset": "mikels8", "ck_plus": "ekman7", "aff_wild2": "aff_wild8", "emotic": "emotic26"}


def test_the_table_is_what_the_configs_say():
    table = PAGE[PAGE.index("<!-- table: begin") : PAGE.index("<!-- table: end")]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    assert list(rows) == list(all_entries()[0])
    for name, row in rows.items():
        layout = find_entry(name).layout
        layouts = ", ".join(one.source for one in (layout, *layout.alternatives))
        node = getattr(layout, layout.source, None)
        label_set = LABEL_SETS.get(name) or getattr(node, "label_set", None) or "none"
        assert row == f"{layouts} | {label_set} | {find_entry(name).about.layout_status}", name


@pytest.fixture
def example(tmp_path):
    """The page's YAML, and the dataset that it is about."""
    text = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL).group(1)
    path = tmp_path / "configs" / "my_moods" / "defaults.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    root = tmp_path / "moods"
    (root / "photos").mkdir(parents=True)
    rows = ["file,mood,person"]
    for number in range(6):
        Image.new("RGB", (9, 9), (number * 30, 0, 0)).save(root / "photos" / f"{number}.jpg")
        rows.append(f"{number},{('Calm', 'tense')[number % 2]},p{number}")
    (root / "moods.csv").write_text("\n".join(rows))
    return path, root


def test_the_example_of_a_yaml_file_is_read(example, tmp_path, monkeypatch, capsys):
    path, root = example
    out = tmp_path / "records.jsonl"
    assert main(["data", "import", str(path), str(root), "--out", str(out), "--strict"]) == 0
    assert "6 records in" in capsys.readouterr().out
    records = list(read_records(out))
    assert {record.split for record in records} == {"train", "val", "test"}
    assert {record.emotion for record in records} == {"calm", "tense"}
    monkeypatch.setenv("EMOVIT_DATASETS", str(path.parent.parent))
    assert main(["data", "import", "my_moods", str(root), "--out", str(out), "--overwrite"]) == 0
    assert list(read_records(out)) == records
    assert main(["data", "list"]) == 0
    assert "my_moods: table layout, verified" in capsys.readouterr().out


def test_the_example_of_a_recipe_is_valid(example, tmp_path, monkeypatch):
    (recipe,) = re.findall(r"<!-- example: recipe -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my_moods.yaml").write_text(recipe)
    monkeypatch.setenv("EMOVIT_DATASETS", str(example[0].parent.parent))
    assert list(Config.load(tmp_path / "my_moods.yaml").datasets) == ["my_moods"]


@pytest.mark.parametrize(
    ("name", "settings"), [("table", TableSettings), ("folder", FolderSettings), ("face tables", FaceTableSettings)]
)
def test_keys_of_layouts_are_the_real_ones(name, settings):
    (table,) = re.findall(rf"<!-- keys: {name} -->\n((?:\|.*\n)+)", PAGE)
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(settings.model_fields)


def test_commands_parse():
    lines = [line.strip() for line in PAGE.splitlines() if re.match(r"^ {4}emovit ", line)]
    assert len(lines) >= 14
    group = get_command(app)
    for line in lines:
        _, name, *arguments = shlex.split(line, comments=True)
        command, sub = group.get_command(None, name), ""
        if hasattr(command, "get_command"):
            sub, *arguments = arguments
            command = command.get_command(None, sub)
        context = command.make_context(sub, arguments, resilient_parsing=False)
        if (name, sub) == ("data", "import"):
            dataset = context.params["dataset"]
            assert dataset in GENERAL_LAYOUTS or find_entry(dataset), line
