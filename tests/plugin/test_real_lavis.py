"""The hook on the installed LAVIS 1.0.2.

Properties:
- it loads without a warning or an error beside the installed torch, transformers, timm and numpy;
- its 27 models are registered, and every class of ours;
- a stock model without `model_type` is refused with its types, ours are not;
- checks for optional packages outside LAVIS are not fooled;
- any module of a room that registers classes can be imported first.
"""

from __future__ import annotations

import json

import pytest

from lavis_emovit.plugin.registration import REGISTERING_MODULES

pytestmark = pytest.mark.xdist_group("real_lavis")  # they share one interpreter's facts

FACTS = """
    import importlib.util, json
    optional = ("decord", "fairscale", "spacy", "pycocotools")
    absent = [name for name in optional if importlib.util.find_spec(name) is None]
    import lavis
    from lavis.common.registry import registry
    from lavis.models import load_model_and_preprocess, model_zoo
    from lavis_emovit.plugin import entry_points, loading, stand_ins
    import transformers.utils.import_utils as checks
    try:
        load_model_and_preprocess("blip_caption")
        refusal = ""
    except TypeError as error:
        refusal = str(error)
    print(json.dumps({
        "models": registry.list_models(), "tasks": registry.list_tasks(), "runners": registry.list_runners(),
        "processors": registry.list_processors(), "datasets": registry.list_datasets(),
        "zoo": [name for name, _ in model_zoo], "refusal": refusal,
        "broken": entry_points.broken, "failures": loading.report["failures"],
        "absent": absent, "still_absent": [name for name in absent if importlib.util.find_spec(name) is None],
        "stood_in": list(stand_ins.missing_packages()),
        "decord_available": bool(checks.is_decord_available()),
        "spacy_available": bool(checks.is_spacy_available()),
    }))
"""


@pytest.fixture(scope="module")
def facts(session_child):
    """What one interpreter saw after its first `import lavis`."""
    done = session_child.run(FACTS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}


def test_loads_silently(facts):
    assert facts["stderr"] == ""
    assert facts["broken"] == {}
    assert facts["failures"] == []


def test_all_models_are_registered(facts):
    ours = {"emovit_vicuna7b", "emovit_vicuna13b", "emovit_flant5xl", "emovit_flant5xxl", "emovit_tiny"}
    assert ours <= set(facts["models"])
    assert len(set(facts["models"]) - ours) == 27
    assert set(facts["zoo"]) == set(facts["models"])


def test_other_classes_are_registered(facts):
    assert "emotion_instruction" in facts["tasks"]
    assert "runner_emovit" in facts["runners"]
    assert {"emovit_image_train", "emovit_image_eval", "emovit_text", "blip_image_eval"} <= set(facts["processors"])
    assert {"emoset_sketch", "emoset", "london_faces", "coco_caption"} <= set(facts["datasets"])


def test_stock_model_without_a_type_is_refused(facts):
    assert facts["refusal"].endswith("its types: base_coco, large_coco")


def test_checks_for_optional_packages_are_not_fooled(facts):
    assert facts["still_absent"] == facts["absent"]
    assert set(facts["stood_in"]) <= {*facts["absent"], "pycocoevalcap"}
    assert facts["decord_available"] is ("decord" not in facts["absent"])
    assert facts["spacy_available"] is ("spacy" not in facts["absent"])


def _one_of_each_room() -> list[str]:
    """The last registering module of each package: the one that most others would have to come before."""
    return list({name.rpartition(".")[0]: name for name in REGISTERING_MODULES}.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", [*_one_of_each_room(), "lavis_emovit.models.instructblip.model", "lavis_emovit.runners.config"]
)
def test_any_registering_module_can_come_first(child, module):
    code = f"import {module}; from lavis_emovit.plugin import entry_points; print(entry_points.broken)"
    done = child.run(code)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "{}", "")
