"""Questions about pairs of images, in a suite on a copy of EEmo-Bench's pairs.

- A model that takes several images in a message gets the two of a pair, in order, and no note about them: an endpoint
  as two parts of its request, by likelihood too, and a model of transformers as two images of its text.
- A model that takes one image gets both joined, and its question says so; with `join_pairs`, every model does.
- Rows say how a pair was shown, and so do the results and the report. All questions are answered either way.
- A box without an area in its image is an error of its row.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "chat"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "sources"))
from chat_server import Action, ChatServer, words_of
from published_copies import DRAWERS
from tiny_families import make_llava15

from lavis_emovit.evaluation.adapters.lavis_model import LavisModel
from lavis_emovit.evaluation.own_questions import shows_joined_pair
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.evaluation.suite.requests import prepare
from lavis_emovit.evaluation.suite.suite import run_suite

NOTE = "The picture shows two images side by side"


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """Runs a suite with models; returns the results by model, and its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "shards"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    DRAWERS["eemo_bench_pair"](tmp_path / "eemo")
    monkeypatch.setenv("EMOVIT_EEMO_BENCH", str(tmp_path / "eemo"))

    def run(models, methods=("generation",), report=False, out="out", **settings):
        benchmark = {"dataset": "eemo_bench_pair", "kind": "choice", "max_new_tokens": 4, **settings}
        suite = {"name": "pairs", "output_dir": out, "models": models, "benchmarks": {"pair": benchmark},
                 "methods": list(methods), "batch_size": 4, "num_threads": 1, "probe": False,
                 "report": report}  # fmt: skip
        Path("suite.yaml").write_text(yaml.safe_dump({"suite": suite}))
        found = run_suite(load_suite("suite.yaml", ()))["benchmarks"]["pair"]["results"]
        return {one["model"]: one for one in found}

    return run


def _images(body):
    urls = [part["image_url"]["url"] for part in body["messages"][-1]["content"] if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def _is_of(image, number):
    """Whether an image is the one with a number of the copy, by its colour."""
    colour = (number * 37 % 256, number * 91 % 256, number * 53 % 256)
    return np.abs(np.median(np.asarray(image.convert("RGB")), axis=(0, 1)) - colour).max() < 12


def _served(server, **more):
    chat = {"model": "m", "base_url": server.url, "max_in_flight": 1}
    return {"served": {"adapter": "chat", "chat": chat, "probe": False, **more}}


@pytest.mark.parametrize("method", ["generation", "likelihood"])
def test_an_endpoint_gets_two_images_in_order(pairs, method):
    with ChatServer(lambda body, number: Action(text="(b)", logprobs=[("B", -0.1), ("A", -2.4)])) as server:
        found = pairs(_served(server, likelihood="logprobs"), [method])["served"]
    rows = read_predictions(f"out/predictions/pair/served.{method}.jsonl")
    assert len(rows) == len(server.bodies) == 3 and {row.is_joined for row in rows} == {False}
    assert (found["num_joined_pairs"], found["headline"]["value"]) == (0, 1.0)
    expected = {"happier, 0": ((1, 20, 10), (2, 20, 20)), "happier, 2": ((2, 20, 20), (3, 20, 30))}
    for name, ((first, *size), (second, *other)) in expected.items():
        (body,) = (body for body in server.bodies if name in words_of(body))
        images = _images(body)
        assert [image.size for image in images] == [tuple(size), tuple(other)] and NOTE not in words_of(body)
        assert _is_of(images[0], first) and _is_of(images[1], second)


def test_models_with_one_image_get_both_joined(pairs, tmp_path, monkeypatch):
    texts: dict[str, list[str]] = {}
    batch = LavisModel.batch

    def noted(self, images, image_index, questions):
        numbers = [getattr(image, "num_images", 1) for image in images]
        texts.setdefault(f"{type(self).__name__} {sorted(set(numbers))}", []).extend(questions)
        return batch(self, images, image_index, questions)

    monkeypatch.setattr(LavisModel, "batch", noted)
    models = {
        "tiny": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu"},
        "llava": {"adapter": "transformers", "path": str(make_llava15(tmp_path / "llava")), "device": "cpu"},
    }
    found = pairs(models, ["likelihood", "generation"], report=True)
    assert {name: one["num_joined_pairs"] for name, one in found.items()} == {"tiny": 3, "llava": 0}
    assert {name: one["num_samples"] for name, one in found.items()} == {"tiny": 3, "llava": 3}
    assert set(texts) == {"LavisModel [1]", "ImageTextModel [2]"}
    assert all(NOTE in text for text in texts["LavisModel [1]"]) and len(texts["LavisModel [1]"]) == 6
    assert not any(NOTE in text for text in texts["ImageTextModel [2]"])
    page = Path("out/report.html").read_text()
    assert page.count("the two images of a pair were joined in one image") == 2  # the rows of one model
    texts.clear()
    found = pairs({"llava": models["llava"]}, out="joined", join_pairs=True)
    assert found["llava"]["num_joined_pairs"] == 3
    assert list(texts) == ["ImageTextModel [1]"] and all(text.startswith(NOTE) for text in texts["ImageTextModel [1]"])


def test_a_box_outside_of_its_image_is_an_error_of_its_row(make_records, tmp_path):
    from lavis_emovit.evaluation.adapters.base import Item
    from lavis_emovit.evaluation.truths import Truth

    class Several:
        reads_pairs = False

        def prepare(self, data):
            return data

    (record,) = make_records(tmp_path, 1)
    data = (tmp_path / record.image).read_bytes()
    record = record.model_copy(update={"pair": [(0, 0, 2, 2), (5000, 0, 5001, 2)]})
    problem = prepare(Item(record, data, Truth()), Several()).problem
    assert problem.startswith("the box (5000, 0, 5001, 2) has no area in the image")


def test_pairs_of_earlier_shards_are_joined_and_say_so(make_records, tmp_path):
    (record,) = make_records(tmp_path, 1)
    boxes = ((0, 0, 2, 2), (2, 0, 4, 2))
    for more, is_joined, expected in (
        ({"extra": {"num_images": 2}}, False, True), ({}, True, False),
        ({"pair": boxes}, False, False), ({"pair": boxes, "extra": {"num_images": 2}}, True, True),
    ):  # fmt: skip
        assert shows_joined_pair(record.model_copy(update=more), is_joined=is_joined) is expected
