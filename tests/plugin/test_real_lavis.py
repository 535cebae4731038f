"""The hook on the installed LAVIS 1.0.2.

Properties:
- `import lavis` and the registry's lists need neither torch nor a module of a family;
- the registry lists the same names, in the same order, as a LAVIS that is loaded at once, and loads the same classes;
- every public name of LAVIS's packages is the same object as in a LAVIS that is loaded at once;
- its 27 models are registered, and every class of ours;
- everything loads without a warning or an error beside the installed torch, transformers, timm and numpy;
- a stock model without `model_type` is refused with its types;
- video processors read all frames by default, which LAVIS intends but forgets;
- checks for optional packages outside LAVIS are not fooled;
- any module that registers a class can be imported first, LAVIS's and ours.
"""

from __future__ import annotations

import json
import sys

import pytest

pytestmark = pytest.mark.xdist_group("real_lavis")  # they share two interpreters' facts

PACKAGES = ("lavis", "lavis.models", "lavis.tasks", "lavis.processors", "lavis.datasets.builders")
# Names that a package has only because it was loaded in another way.
INCIDENTAL = {"__builtins__", "__cached__", "__getattr__", "__dir__"}

CLASSES = f"""
    import importlib, sys, types
    def described(value):
        if isinstance(value, types.ModuleType):
            return value.__name__
        return f"{{getattr(value, '__module__', '')}}.{{getattr(value, '__qualname__', type(value).__name__)}}"
    def registered(registry):
        return {{
            kind: [[name, described(value)] for name, value in registry.mapping[f"{{kind}}_name_mapping"].items()]
            for kind in ("model", "task", "runner", "processor", "builder")
        }}
    def public():
        return {{
            package: {{name: described(getattr(sys.modules[package], name)) for name in dir(sys.modules[package])}}
            for package in {PACKAGES}
        }}
"""

LOADED_AT_ONCE = f"""
    import importlib, json
    from lavis_emovit.plugin import loading
    loading.load_with_shims(lambda: importlib.import_module("lavis"))
    from lavis.common.registry import registry
    {CLASSES}
    print(json.dumps({{"registered": registered(registry), "public": public()}}))
"""

FACTS = f"""
    import importlib.util, json, sys
    optional = ("decord", "fairscale", "spacy", "pycocotools")
    absent = [name for name in optional if importlib.util.find_spec(name) is None]
    import lavis
    from lavis.common.registry import registry
    from lavis_emovit.plugin import entry_points, loading, stand_ins
    lists = {{
        "models": registry.list_models(), "tasks": registry.list_tasks(), "runners": registry.list_runners(),
        "processors": registry.list_processors(), "datasets": registry.list_datasets(),
    }}
    loaded = [name for name in sys.modules if name.partition(".")[0] in ("torch", "transformers", "lavis")]
    from lavis.models import load_model_and_preprocess, model_zoo
    try:
        load_model_and_preprocess("blip_caption")
        refusal = ""
    except TypeError as error:
        refusal = str(error)
    video = registry.get_processor_class("alpro_video_eval").from_config(None)
    {CLASSES}
    classes = registered(registry)
    for package in {PACKAGES}:
        importlib.import_module(package)
    names = public()
    broken = {{name: str(error) for name, error in loading.import_everything().items()}}
    import transformers.utils.import_utils as checks
    print(json.dumps({{
        **lists, "loaded": loaded, "registered": classes, "public": names,
        "zoo": [name for name, _ in model_zoo], "refusal": refusal,
        "num_frames": video.n_frms, "broken": entry_points.broken | broken, "failures": loading.failures,
        "absent": absent, "still_absent": [name for name in absent if importlib.util.find_spec(name) is None],
        "stood_in": list(stand_ins.missing_packages()),
        "decord_available": bool(checks.is_decord_available()),
        "spacy_available": bool(checks.is_spacy_available()),
    }}))
"""


@pytest.fixture(scope="module")
def facts(session_child):
    """What one interpreter saw after its first `import lavis`."""
    done = session_child.run(FACTS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}


@pytest.fixture(scope="module")
def at_once(session_child):
    """Names and classes of a LAVIS that imports everything by itself."""
    output = session_child.output(LOADED_AT_ONCE, environment={"LAVIS_PLUGINS": "0"})
    return json.loads(output.splitlines()[-1])


def test_lists_need_neither_torch_nor_a_family(facts):
    light = {"lavis", "lavis.common", "lavis.common.registry", "lavis.datasets", "lavis.datasets.datasets"}
    assert set(facts["loaded"]) <= light


def test_loads_silently(facts):
    assert facts["stderr"] == ""
    assert facts["broken"] == {}
    assert facts["failures"] == []


@pytest.mark.parametrize("kind", ["model", "task", "runner", "processor", "builder"])
def test_registry_knows_what_a_lavis_loaded_at_once_knows(facts, at_once, kind):
    stock = at_once["registered"][kind]
    assert facts["registered"][kind][: len(stock)] == stock
    assert all("lavis_emovit." in place for _, place in facts["registered"][kind][len(stock) :])
    assert stock or kind == "runner"


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_those_of_a_lavis_loaded_at_once(facts, at_once, package):
    stock = {name: place for name, place in at_once["public"][package].items() if name not in INCIDENTAL}
    ours = facts["public"][package]
    assert {name: ours.get(name) for name in stock} == stock
    assert len(stock) > 10


def test_all_models_are_registered(facts):
    ours = {name for name in facts["models"] if name.startswith("emovit_")}
    some = ("vicuna7b", "vicuna13b", "flant5xl", "flant5xxl", "tiny", "small", "llava15_7b", "image_text")
    assert {f"emovit_{name}" for name in some} <= ours
    assert len(set(facts["models"]) - ours) == 27
    assert set(facts["zoo"]) == set(facts["models"])


@pytest.mark.parametrize("environment", [{}, {"LAVIS_PLUGINS": "0"}], ids=["hook", "without-hook"])
def test_the_zoos_list_our_classes_too(child, environment: dict[str, str]) -> None:
    names = child.output(
        """
        from lavis_emovit.plugin import activate
        activate()
        from lavis.datasets.builders import dataset_zoo
        from lavis.models import model_zoo
        print(*dataset_zoo.get_names(), *[name for name, _ in model_zoo])
        """,
        environment=environment,
    ).split()
    assert {"emoset", "emoset_sketch", "emotion6", "coco_caption", "emovit_tiny", "blip_caption"} <= set(names)


def test_other_classes_are_registered(facts):
    assert "emotion_instruction" in facts["tasks"]
    assert "runner_emovit" in facts["runners"]
    assert {"emovit_image_train", "emovit_image_eval", "emovit_text", "blip_image_eval"} <= set(facts["processors"])
    assert {"emoset_sketch", "emoset", "london_faces", "coco_caption"} <= set(facts["datasets"])


def test_stock_model_without_a_type_is_refused(facts):
    assert facts["refusal"].endswith("its types: base_coco, large_coco")


def test_video_processors_read_all_frames(facts):
    assert facts["num_frames"] == sys.maxsize


def test_checks_for_optional_packages_are_not_fooled(facts):
    assert facts["still_absent"] == facts["absent"]
    assert set(facts["stood_in"]) <= {*facts["absent"], "pycocoevalcap"}
    assert facts["decord_available"] is ("decord" not in facts["absent"])
    assert facts["spacy_available"] is ("spacy" not in facts["absent"])


@pytest.mark.slow
def test_any_registering_module_can_come_first(child):
    code = """
        import importlib, os
        import torch, transformers.modeling_utils, torchvision, timm, pandas  # so that each fork starts quickly
        from lavis_emovit.plugin import bootstrap, entry_points, lavis_source, loading
        from lavis_emovit.registered import registered_names
        stock = lavis_source.read_catalogue("lavis", importlib.util.find_spec("lavis").submodule_search_locations[0])
        modules = ["lavis_emovit.models.instructblip.model", "lavis_emovit.runners.config"]
        for names in (*stock.names.values(), *registered_names().values()):
            modules += names.values()
        for module in dict.fromkeys(modules):
            process = os.fork()
            if not process:
                importlib.import_module(module)
                assert not entry_points.broken and not loading.failures, (entry_points.broken, loading.failures)
                os._exit(0)
            assert os.waitpid(process, 0)[1] == 0, module
        print(len(modules))
    """
    assert int(child.output(code)) > 60
