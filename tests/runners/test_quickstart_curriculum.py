"""The curriculum recipe on drawn images and clips: attributes, expressions, emotions.

Properties: it runs, with images and clips in the shares of its stages; each stage asks only questions of its kinds;
both datasets have all three kinds.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lavis_emovit.runners.engines.torch_engine import TorchEngine
from lavis_emovit.runners.logs import read_log
from lavis_emovit.train import main

RECIPE = Path(__file__).resolve().parents[2] / "projects" / "emovit" / "quickstart_curriculum.yaml"
OF_KIND = {
    "attribute": ("It is ", "One can see ", "The action is ", "The colours are "),
    "expression": ("The face is ",),
    "categorical": ("Predict emotion: ",),
}


def test_stages_ask_about_attributes_then_expressions_then_emotions(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    seen: list[list[str]] = []
    real = TorchEngine.train_step

    def train_step(self: TorchEngine, micro_batches: Any, *rest: Any) -> Any:
        seen.append([answer for batch in micro_batches for answer in batch["text_output"]])
        return real(self, micro_batches, *rest)

    monkeypatch.setattr(TorchEngine, "train_step", train_step)
    sizes = {"emoset_sketch": 10, "emoclip_sketch": 20}
    options = [
        *(f"datasets.{name}.build_info.prepare.draw.images_per_class={count}" for name, count in sizes.items()),
        *(f"datasets.{name}.build_info.prepare.draw.size_px=32" for name in sizes),
        "run.epoch_size=4", "run.global_batch_size=4", "run.valid_splits=[]", "run.test_splits=[]", "run.device=cpu",
        "run.best_dataset=null", "run.evaluate_before=False", "run.num_threads=1", "run.report=False",
        "run.tensorboard=False",
    ]  # fmt: skip
    assert main(["--cfg-path", str(RECIPE), "--options", *options]) == 0
    log = read_log(tmp_path / "output/emovit/quickstart_curriculum/log.jsonl")
    assert all(math.isfinite(row["loss"]) for row in log if row["event"] == "step")
    shares = [
        {name: count for name, count in row["num_images"].items() if count} for row in log if row["event"] == "epoch"
    ]
    attributes, expressions, emotions = (
        {f"emoset_sketch.{kind}": images, f"emoclip_sketch.{kind}": clips}
        for kind, images, clips in (("attribute", 2, 2), ("expression", 2, 2), ("categorical", 1, 3))
    )
    between = dict.fromkeys([*attributes, *expressions], 1)
    assert shares == [attributes] * 2 + [between] * 2 + [expressions] + [emotions] * 5
    kinds = [
        {kind for answer in answers for kind, begins in OF_KIND.items() if answer.startswith(begins)}
        for answers in seen
    ]
    assert kinds[:2] == [{"attribute"}] * 2
    assert kinds[4:] == [{"expression"}] + [{"categorical"}] * 5
    for name in sizes:
        state = json.loads((tmp_path / "data" / f"{name}_curriculum" / "prepared.json").read_text())
        assert set(state["instructions"]["splits"]["train"]["pairs"]) == set(OF_KIND)
