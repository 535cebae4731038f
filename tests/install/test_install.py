"""The wheel, or a checkout in editable mode, installed into a clean environment.

Properties:
- `python -m lavis.train --help` and `evaluate` work, and `load_model_and_preprocess("emovit_tiny")` gives a model that
  answers, from an empty folder;
- LAVIS's 27 models are registered, and ours; configs and recipes are found;
- with `LAVIS_PLUGINS=0` LAVIS is stock, and the fallbacks by plain import work;
- the start-up hook is installed and uninstalled with the package.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lavis_emovit.registered import model_files

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("install")]

USE = """
import json, torch
from lavis.models import load_model_and_preprocess
from lavis.common.registry import registry
from PIL import Image
model, vis_processors, txt_processors = load_model_and_preprocess("emovit_tiny", is_eval=True)
image = vis_processors["eval"](Image.new("RGB", (50, 40), "red")).unsqueeze(0)
answers = model.generate({"image": image, "prompt": [txt_processors["eval"]("What is in the picture?")]})
from lavis_emovit.paths import config_root, find_recipe
from lavis_emovit.plugin import entry_points
names = registry.list_models()
try:
    load_model_and_preprocess("blip_caption")
    refusal = ""
except TypeError as error:
    refusal = str(error)
print(json.dumps({
    "class": type(model).__name__, "answers": answers, "stock": len([n for n in names if not n.startswith("emovit_")]),
    "broken": entry_points.broken, "configs": sorted(p.name for p in (config_root() / "models/emovit").iterdir()),
    "recipe": str(find_recipe("projects/emovit/quickstart.yaml")), "refusal": refusal,
    "config_of_model": model.PRETRAINED_MODEL_CONFIG_DICT["tiny"],
}))
"""


def test_training_module_of_lavis(environment):
    for module, purpose in (("lavis.train", "Tune"), ("lavis.evaluate", "Evaluate")):
        shown = environment.output("-m", module, "--help")
        assert "--cfg-path" in shown and purpose in shown


def test_model_by_name(environment):
    seen = json.loads(environment.output("-c", USE).splitlines()[-1])
    assert seen["class"] == "EmovitTiny"
    assert len(seen["answers"]) == 1 and isinstance(seen["answers"][0], str)
    assert seen["stock"] == 27
    assert seen["broken"] == {}
    assert seen["refusal"].endswith("its types: base_coco, large_coco")
    assert len(seen["configs"]) == len(model_files())
    assert seen["recipe"].endswith("quickstart.yaml")
    assert seen["config_of_model"].endswith("lavis_configs/models/emovit/emovit_tiny.yaml")


def test_plain_import_without_the_hook(environment):
    code = (
        "import sys, lavis_emovit; model, _, _ = lavis_emovit.load_model_and_preprocess('emovit_tiny');"
        "print(type(model).__name__)"
    )
    assert environment.output("-c", code, LAVIS_PLUGINS="0") == "EmovitTiny"
    assert "--cfg-path" in environment.output("-m", "lavis_emovit.train", "--help", LAVIS_PLUGINS="0")
    untouched = environment.run("-c", "import lavis", LAVIS_PLUGINS="0")
    assert "ModuleNotFoundError: No module named 'decord'" in untouched.stderr


def test_wrong_recipe_is_a_users_error(environment):
    done = environment.run("-m", "lavis.train", "--cfg-path", "gone.yaml")
    assert done.returncode == 2
    assert "gone.yaml" in done.stderr and "Traceback" not in done.stderr


def test_command(environment):
    done = subprocess.run(
        [str(environment.python.parent / "emovit"), "doctor"], cwd=environment.work, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "Training can run on this machine."


def test_uninstalling_removes_the_hook(environment, uv, tmp_path):
    """In a bare environment, since this needs no other package."""
    folder = tmp_path / "bare"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    site = next((folder / "lib").glob("python3.*/site-packages"))
    is_wheel = "editable" not in str(environment.python)
    built = environment.work.parent
    target = [str(next(built.glob("dist/*.whl")))] if is_wheel else ["--editable", str(built / "checkout")]
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, *target], check=True)
    assert (site / "lavis_emovit.pth").is_file()
    show = "import sys; print(type(sys.meta_path[0]).__name__)"
    assert subprocess.check_output([python, "-c", show], cwd=tmp_path, text=True).strip() == "LavisFinder"
    subprocess.run([uv, "pip", "uninstall", "--quiet", "--python", python, "lavis-emovit"], check=True)
    assert not list(site.glob("*lavis_emovit*"))
    done = subprocess.run([python, "-c", show], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() != "LavisFinder"
