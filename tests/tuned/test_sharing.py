"""`emovit push`, against a server that speaks the protocol of the hub.

Properties: what is uploaded loads again and answers as before, for a run and an exported folder; a new repository is
private unless asked otherwise; a dry run sends nothing; the card names base, licence and how to load; absolute paths in
the settings are reported; a hub that refuses or is not there is a clear error without the token.
"""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import lavis_emovit
from lavis_emovit.cli.main import main
from lavis_emovit.tuned.sharing import private_places

TOKEN = "hf_notatoken"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`requests` that were made, `files` of the commit, and `status` with which creating a repository is answered."""
    state = SimpleNamespace(requests=[], files={}, status=200, folder=tmp_path / "downloaded")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.requests.append((self.path, self.headers["Authorization"], body))
            if self.path == "/api/repos/create":
                self.answer(state.status, {"url": f"http://{self.headers['Host']}/some/model"})
            elif "/preupload/" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                found = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
                self.answer(200, {"files": found})
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        state.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                self.answer(200, {"commitUrl": f"http://{self.headers['Host']}/some/model/commit/1", "commitOid": "1"})
            else:
                self.answer(200, {})

        def answer(self, status, content):
            sent = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield state
    server.shutdown()


def downloaded(hub):
    for name, content in hub.files.items():
        (hub.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (hub.folder / name).write_bytes(content)
    return hub.folder


@pytest.mark.parametrize("form", ["run", "exported"])
def test_what_is_uploaded_answers_as_before(form, run, hub, capsys):
    place = run.folder
    if form == "exported":
        assert main(["convert", str(run.folder), "exported"]) == 0
        place = "exported"
    assert main(["push", str(place), "some/model", "--license", "cc-by-nc-4.0"]) == 0
    assert "/some/model/commit/1" in capsys.readouterr().out
    image = run.images[0]
    found = lavis_emovit.load_tuned(downloaded(hub)).predict(image)
    assert found == lavis_emovit.load_tuned(run.folder).predict(image)
    card = hub.files["README.md"].decode()
    facts = yaml.safe_load(card.split("---\n")[1])
    assert facts["license"] == "cc-by-nc-4.0" and facts["library_name"] == "lavis-emovit"
    assert 'snapshot_download("some/model")' in card and "cannot be read off an image" in card
    assert {authorization for _, authorization, _ in hub.requests} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("options", [[], ["--public"]])
def test_a_new_repository_is_private_unless_asked_otherwise(options, run, hub):
    assert main(["push", str(run.folder), "some/model", "--revision", "trial", "--message", "First", *options]) == 0
    created = json.loads(hub.requests[0][2])
    assert created.get("visibility", "private" if created.get("private") else "public") == (
        "public" if options else "private"
    )
    paths = [path for path, _, _ in hub.requests]
    assert "/api/models/some/model/branch/trial" in paths
    (commit,) = [body for path, _, body in hub.requests if "/commit/trial" in path]
    assert json.loads(commit.splitlines()[0])["value"]["summary"] == "First"


def test_a_dry_run_sends_nothing(run, hub, capsys):
    assert main(["push", str(run.folder), "one/two/three", "--dry-run"]) == 2
    assert "'one/two/three' is no name of a repository" in capsys.readouterr().err
    assert main(["push", str(run.folder), "some/model", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert hub.requests == []
    assert "model.safetensors" in told.out and "## From the hub" in told.out and "nothing was uploaded" in told.out


def test_a_hub_that_refuses_or_is_not_there_is_a_clear_error(run, hub, monkeypatch, capsys):
    hub.status = 403
    assert main(["push", str(run.folder), "some/model"]) == 2
    told = capsys.readouterr().err
    assert "some/model: not published" in told and "403" in told and "HF_TOKEN" in told and TOKEN not in told
    assert main(["push", str(run.folder), "one/two/three"]) == 2
    assert "'one/two/three' is no name of a repository" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(run.folder), "some/model"]) == 2
    assert "not published" in capsys.readouterr().err


def test_places_of_this_machine_are_reported(run, hub, tmp_path, capsys):
    assert main(["push", str(run.folder), "some/model", "--dry-run"]) == 0
    told = capsys.readouterr().err
    assert "config.yaml, run.output_dir: run" not in told  # not absolute
    (tmp_path / "config.yaml").write_text("a: {root: /home/me/photos, b: ['Data, in /srv/x.', 'https://x.org/y']}\n")
    (tmp_path / "README.md").write_text("and/or\nfrom ~/photos\n")
    (tmp_path / "model.safetensors").write_bytes(b"\xff/home/me")
    assert private_places(tmp_path) == [
        "README.md, line 2: from ~/photos",
        "config.yaml, a.root: /home/me/photos",
        "config.yaml, a.b[0]: Data, in /srv/x.",
    ]


def test_an_exported_folder_and_an_archive_keep_their_card(run, hub, tmp_path):
    assert main(["convert", str(run.folder), "exported"]) == 0
    assert main(["pack", str(run.folder), "model.emovit"]) == 0
    for place in ("exported", "model.emovit"):
        assert main(["push", place, "some/model"]) == 0
        card = hub.files["README.md"].decode()
        assert "| accuracy |" in card and "tuned on emoset_sketch" in card
    again = downloaded(hub)  # published once more, from the hub
    assert main(["push", str(again), "other/model"]) == 0
    card = hub.files["README.md"].decode()
    assert card.count("## From the hub") == 1 and card.count("library_name") == 1 and "| accuracy |" in card


def test_characters_of_a_vocabulary_are_published(run, hub, capsys):
    """Tokens such as the delete character are JSON and not YAML."""
    assert main(["convert", str(run.folder), "exported"]) == 0
    vocabulary = {"\x7f": 0, "\x85\u2028": 1, "place": "/home/somebody/x"}
    Path("exported/vocabulary.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    assert main(["push", "exported", "some/model", "--dry-run"]) == 0
    assert "vocabulary.json, place: /home/somebody/x" in capsys.readouterr().err and not hub.requests


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", b"{"), ("a.json", b"\xff{}"), ("b.yaml", b"a: [1"), ("c.md", b"\xff")]
)
def test_a_file_that_cannot_be_read_is_not_published(name, content, run, hub, capsys):
    assert main(["convert", str(run.folder), "exported"]) == 0
    Path("exported", name).write_bytes(content)
    assert main(["push", "exported", "some/model"]) == 2
    assert f"error: {name}: not {name[2:].upper()} (" in capsys.readouterr().err and not hub.requests
