"""LAVIS's own 27 models beside current transformers, small and with random weights.

Properties:
- each is built from its configuration and runs one forward pass: losses are finite, features and scores have the
  documented shapes;
- `generate` gives the tokens of a loop that reads everything again in each step, with beams and sampling, texts;
- weights that LAVIS loads with a model stay as they were in the file, and Flan-T5's logits are not scaled;
- the documented command `emovit generate captions --captioner lavis:blip2_opt/...` writes a caption.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOM = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOM), str(ROOM.parent / "runners" / "ranks")]

from small_families import CASES  # noqa: E402
from warm import forked_commands  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("lavis_families")]  # one process runs them all

SHAPES = {
    "albef_feature_extractor": [[2, 7, 768], [2, 5, 16], [2, 7, 16]],
    "blip_feature_extractor": [[2, 7, 768], [2, 5, 16], [2, 7, 16]],
    "blip2_feature_extractor": [[2, 4, 768], [2, 4, 256], [2, 7, 256]],
    "blip_image_text_matching": [[2, 2], [2, 2]],
    "blip2_image_text_matching": [[2, 2], [2, 1]],
    "clip": [[2, 512], [2, 512]],
    "clip_feature_extractor": [[2, 512], [2, 512]],
    "gpt_dialogue": [[1, 2, 300]],
}
NUM_TEXTS = {
    "albef_vqa": 2, "blip_caption": 6, "blip_vqa": 4, "blip2": 2, "blip2_opt": 6, "blip2_t5": 4, "pnp_vqa": 3,
    "img2prompt_vqa": 2, "generate captions": 1,
}  # fmt: skip
FACTS = {"blip2": [True, True, [], True], "blip2_t5": [False], "generate captions": [0]}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("families")
    environment = {**os.environ, "PYTHONPATH": str(ROOM.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOM / "small_families.py")]
    with forked_commands(), (folder / "output.txt").open("w") as output:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=output, check=False)
    assert done.returncode == 0, (folder / "output.txt").read_text()
    return json.loads((folder / "found.json").read_text())


def test_all_of_lavis_models_are_here() -> None:
    assert len(CASES) == 27 + 1


@pytest.mark.parametrize("name", CASES)
def test_it_is_built_and_runs(found: dict[str, Any], name: str) -> None:
    result = found[name]
    assert "error" not in result, result["error"]
    assert math.isfinite(result.get("loss", 0.0))
    assert result.get("shapes") == SHAPES.get(name)
    assert len(result.get("texts", ())) == NUM_TEXTS.get(name, 0)
    assert all(isinstance(text, str) for text in result.get("texts", ()))
    generated, expected = result.get("equal", (None, None))
    assert generated == expected
    assert result.get("facts") == FACTS.get(name)
