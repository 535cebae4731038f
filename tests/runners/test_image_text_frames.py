"""Whole runs of tiny image-text models on clips, and on faces with their context (`box: both`).

Properties:
- the training command trains on several images of a record; stopped and started again, it ends bit for bit the same;
- the evaluation shows the same frames: rows have their times, and the report how much each matters to the answer;
- what was trained is asked again with the frames of the run, by the Python functions;
- a model that reads one image is refused by name before its weights are loaded.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file
from tiny_batches import picture_of, write_recipe

sys.path.insert(0, str(Path(__file__).resolve().parent / "ranks"))

from jobs import stop_before

from lavis_emovit import load_tuned
from lavis_emovit.clips.clip import Clip
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.paths import list_checkpoints
from lavis_emovit.records import EmotionRecord, Instruction
from lavis_emovit.runners.logs import read_log
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.tasks.emotion_instruction import EmotionInstructionTask
from lavis_emovit.train import main as train_main
from lavis_emovit.train import run_recipe
from lavis_emovit.tuned.predictions import probabilities_of

RUN = {
    "runner": "runner_emovit", "task": "emotion_instruction", "max_epoch": 1, "max_steps": 2, "global_batch_size": 2,
    "batch_size_eval": 2, "init_lr": 1e-3, "lr_sched": "constant_lr", "warmup_steps": 0, "device": "cpu",
    "num_threads": 1, "seed": 3, "num_report_answers": 1, "tensorboard": False, "keep_last": 9, "valid_splits": [],
    "test_splits": ["test"], "evaluate_before": False, "save_every_steps": 1,
}  # fmt: skip
EMOTIONS = ("awe", "fear", "anger", "sadness")
SHOWN = {"clips": {"frames": {"num_frames": 3}}, "faces": {"box": {"show": "both", "margin": 0.2}}}


def _records(split: str, kind: str) -> list[EmotionRecord]:
    records = []
    for number, emotion in enumerate(EMOTIONS if split == "train" else EMOTIONS[:2]):
        question = Instruction(kind="categorical", question="Which emotion?", answer=emotion, provenance="human")
        names = tuple(f"{(number + place) % 4}.png" for place in range(4))
        shown = {"clip": Clip(frames=names, rate_fps=2)} if kind == "clips" else {"box": (4.0, 6.0, 40.0, 36.0)}
        labels = {"emotion": emotion, "label_set": "mikels8", "instructions": [question]}
        records.append(EmotionRecord(id=f"{split}{number}", image=names[0], split=split, source="c", **labels, **shown))
    return records


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("image_text_frames")
    for number in range(4):
        picture_of(1).convert("RGB").rotate(90 * number).save(folder / f"{number}.png")
    for kind in SHOWN:
        for split in ("train", "val", "test"):
            write_shards(_records(split, kind), folder, folder / "data" / kind / split)
    return folder


def _recipe(root: Path, name: str, kind: str, family: str) -> Path:
    shown = {"train": SHOWN[kind], "eval": SHOWN[kind]}
    datasets = {"emoset": {"build_info": {"images": {"storage": kind}}, "vis_processor": shown}}
    adapters = {"lora": {"parts": ["language_model"], "rank": 2, "alpha": 4}}
    return write_recipe(root, name, family, adapters, datasets, RUN)


def _losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_log(run / "log.jsonl") if row["event"] == "step"]


@pytest.mark.parametrize(("kind", "family"), [("clips", "qwen25vl"), ("faces", "llava15")])
def test_a_run_trains_resumes_and_answers(root, monkeypatch, kind, family):
    monkeypatch.setenv("EMOVIT_DATA", str(root / "data"))
    monkeypatch.chdir(root)
    assert train_main(["--cfg-path", str(_recipe(root, kind, kind, family))]) == 0
    run, other = root / kind, root / f"{kind}_stopped"
    path = _recipe(root, other.name, kind, family)
    stop_before(2, lambda: run_recipe(path))
    assert train_main(["--cfg-path", str(path)]) == 0
    assert len(_losses(run)) == 2 and all(map(math.isfinite, _losses(run))) and _losses(other) == _losses(run)
    weights, again = (
        load_file(list_checkpoints(one / "checkpoints")[-1] / "model.safetensors") for one in (run, other)
    )
    assert weights.keys() == again.keys() and all(torch.equal(weights[name], again[name]) for name in weights)

    rows = {row.record_id: row for row in read_predictions(run / "predictions" / "test-after.jsonl")}
    assert len(rows) == 2
    # Four frames in 2 s, three parts of it, the frame in the middle of each.
    assert {row.frames_s for row in rows.values()} == ({(0.0, 1.0, 1.5)} if kind == "clips" else {None})
    effects = [row.frame_effects for row in rows.values() if row.frame_effects is not None]
    assert [len(found) for found in effects] == ([3] if kind == "clips" else [])
    page = (run / "report.html").read_text()
    assert ("how much the log-probability" in page) == (kind == "clips")
    node = yaml.safe_load((run / "config.yaml").read_text())["datasets"]["emoset"]["vis_processor"]["eval"]
    assert node["name"] == "emovit_image_text" and SHOWN[kind].keys() <= node.keys()
    found = {row.image: row for row in load_tuned(run).predict(root / "data" / kind / "test")}
    for name, row in rows.items():
        assert found[name].probabilities == pytest.approx(probabilities_of(row.scores, 1.0), rel=1e-3)
    assert json.loads((run / "metrics.json").read_text())["splits"]["test"]["after"]["num_samples"] == 2


def test_a_model_of_one_image_stops_by_name(root, monkeypatch, capsys):
    monkeypatch.setenv("EMOVIT_DATA", str(root / "data"))
    monkeypatch.chdir(root)
    monkeypatch.setattr(EmotionInstructionTask, "build_model", lambda task, config: pytest.fail("weights are loaded"))
    assert train_main(["--cfg-path", str(_recipe(root, "single", "clips", "blip2_opt"))]) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert "its template has the place of one image and not of 3" in said and "Traceback" not in said
    path = _recipe(root, "once", "faces", "llava15")
    once = shutil.copytree(root / "weights" / "llava15", root / "weights" / "once")
    path.write_text(path.read_text().replace(str(root / "weights" / "llava15"), str(once)))
    written = (once / "chat_template.jinja").read_text()
    loop = "{% for part in message.content if part.type == 'image' %}<image>\n{% endfor %}"
    assert loop in written
    (once / "chat_template.jinja").write_text(written.replace(loop, "<image>\n"))
    assert train_main(["--cfg-path", str(path)]) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert re.search("cannot read 2 images|does not write 2 images before a question", said)
    assert "set `box` of the vis_processor to crop or whole" in said and "Traceback" not in said
