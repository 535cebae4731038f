"""A real run of lmms-eval 0.7.3 with our tasks and our model; skipped where it is not installed.

lmms-eval needs `filelock<4`, so run this file with an environment of its own, in which lavis-emovit is installed too:
`pip install lmms-eval==0.7.3 'filelock<4' lavis-emovit`.

- lmms-eval finds the model `emovit` by the package's entry point and the exported tasks by --include_path. Its answers
  are those of the suite, row by row, and so are its scores, of a tuned model on images of which it gets some right.
- Any model of lmms-eval gets the questions of the suite, and upright images.
- A pair of images is asked as a suite asks it.
- The model refuses sampling, more than two images, likelihoods and unknown settings with one clear error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed")

from lmms_eval.models.registry_v2 import ModelRegistryV2
from lmms_eval.tasks import TaskManager, get_task_dict

from lavis_emovit.emotion.questions import PAIR_NOTE
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.evaluation.hosts.export import export_suite
from lavis_emovit.evaluation.hosts.lmms_model import EmovitModel
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.suite.suite import run_suite

pytestmark = pytest.mark.slow
TUNED = os.environ.get("EMOVIT_LMMS_CHECKPOINT")  # a run's folder, instead of a short training here


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The folder of a run of emovit_tiny that answers with labels."""
    if TUNED is not None:
        return Path(TUNED)
    folder = tmp_path_factory.mktemp("run")
    options = ["run.max_epoch=1", "run.evaluate_before=False", "run.test_splits=[]", f"run.output_dir={folder / 'run'}"]
    command = [
        sys.executable,
        "-m",
        "lavis.train",
        "--cfg-path",
        "projects/emovit/quickstart.yaml",
        "--options",
        *options,
    ]
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, "EMOVIT_DATA": str(folder / "data")})
    return folder / "run"


def run_lmms_eval(folder, tasks, model, arguments):
    """Results and logged samples of a run."""
    command = [
        sys.executable, "-m", "lmms_eval", "--model", model, "--model_args", arguments, "--tasks", ",".join(tasks),
        "--include_path", str(folder / "tasks"), "--batch_size", "4", "--log_samples", "--output_path",
        str(folder / "results"),
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    found = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **offline})
    assert found.returncode == 0, found.stderr[-3000:]
    (results,) = (folder / "results").rglob("*_results.json")
    samples = {
        task: [json.loads(line) for path in (folder / "results").rglob(f"*samples_{task}.jsonl")
               for line in path.read_text().splitlines()]
        for task in tasks
    }  # fmt: skip
    return json.loads(results.read_text())["results"], samples


def test_scores_are_those_of_the_suite(suite, tuned, tmp_path):
    models = {"tiny": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu", "checkpoint": str(tuned)}}
    settings = suite({"set": {}, "marked": {"option_marks": ["letters"], "wordings": [3]}}, models=models)
    export_suite(settings, "lmms-eval", tmp_path / "tasks")
    own = run_suite(settings)
    arguments = f"arch=emovit_tiny,checkpoint={tuned},device=cpu"
    results, samples = run_lmms_eval(tmp_path, ["emovit_set", "emovit_marked"], "emovit", arguments)
    for name in ("set", "marked"):
        (mine,) = own["benchmarks"][name]["results"]
        found = results[f"emovit_{name}"]
        assert found["accuracy,none"] == mine["headline"]["value"]
        assert found["invalid,none"] == mine["num_invalid"] / mine["num_samples"]
        rows = read_predictions(f"out/predictions/{name}/tiny.generation.jsonl")
        answers = {json.loads(sample["accuracy"])["row"]["record_id"]: sample for sample in samples[f"emovit_{name}"]}
        assert len(answers) == len(rows) == 16
        for row in rows:
            logged = json.loads(answers[row.record_id]["accuracy"])["row"]
            assert (logged["answer"], logged["prediction"], logged["status"]) == (
                row.answer.strip(), row.prediction, row.status
            )  # fmt: skip
    assert 0 < own["benchmarks"]["set"]["results"][0]["headline"]["value"] < 1


def test_the_model_is_found_by_its_entry_point():
    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests()
    assert registry.get_model_class("emovit") is EmovitModel


class Request:
    def __init__(self, images=1, **settings):
        self.args = ("Which emotion?", {"max_new_tokens": 3, **settings}, self.visuals, 0, "task", "test")
        self._images = images

    def visuals(self, doc):
        return [Image.new("RGB", (32, 32), "red")] * self._images


def test_what_it_cannot_do_is_refused(monkeypatch):
    model = EmovitModel(arch="emovit_tiny", device="cpu", batch_size="2")
    model.task_dict = {"task": {"test": [{}]}}
    answers = model.generate_until([Request(), Request(until=["e"]), Request()])
    assert answers[0] == answers[2] and answers[1] == answers[0].partition("e")[0]
    with pytest.raises(UserError, match="answers greedily"):
        model.generate_until([Request(temperature=0.7)])
    with pytest.raises(UserError, match="has 3 images"):
        model.generate_until([Request(images=3)])
    with pytest.raises(UserError, match="run a suite"):
        model.loglikelihood([])
    with pytest.raises(UserError, match="not rounds"):
        model.generate_until_multi_round([])
    with pytest.raises(ConfigError, match=r"unknown key \(did you mean 'checkpoint'\?\)"):
        EmovitModel(arch="emovit_tiny", checkpont="x")
    with pytest.raises(ConfigError, match="unknown adapter 'lavvis'"):
        EmovitModel(adapter="lavvis")
    with pytest.raises(ConfigError, match="answers no questions"):
        EmovitModel(adapter="majority")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        EmovitModel(arch="emovit_tiny")


def test_a_pair_is_asked_as_in_a_suite(monkeypatch):
    """The packaged model takes one image: it gets both joined, and a note before the question."""
    model, seen = EmovitModel(arch="emovit_tiny", device="cpu"), []
    model.task_dict = {"task": {"test": [{}]}}
    write = model._model.write

    def noted(images, image_index, questions):
        seen.extend(question.text for question in questions)
        return write(images, image_index, questions)

    monkeypatch.setattr(model._model, "write", noted)
    assert len(model.generate_until([Request(), Request(images=2)])) == 2
    assert seen == ["Which emotion?", f"{PAIR_NOTE}Which emotion?"]


def test_any_model_of_lmms_eval_gets_the_same_questions_and_images(suite, tmp_path):
    export_suite(suite(), "lmms-eval", tmp_path / "tasks")
    manager = TaskManager("INFO", include_path=str(tmp_path / "tasks"))
    task = get_task_dict(["emovit_set"], manager)["emovit_set"]
    doc = task.test_docs()[0]
    assert task.doc_to_text(doc) == doc["question"] and "Predict emotion" in doc["question"]
    (image,) = task.doc_to_visual(doc)
    assert image.size == (96, 96) and task.doc_to_target(doc) in doc["question"]
