"""What the first `import lavis` does, on a small LAVIS.

Properties:
- missing optional packages get stand-ins in LAVIS's own modules: attributes, calls, base classes and decorators work at
  import time, every later use is an ImportError with the package's name and the pip command;
- other code is not affected: the package cannot be found or imported outside LAVIS, nor by LAVIS after its load;
- an installed package is used; a broken one is replaced by a stand-in that reports the reason;
- names that transformers dropped are put back, those that it still has are not replaced;
- every plugin of the group `lavis.plugins` is loaded; broken ones are reported by name and reason, the others work;
- our own classes are listed at once, and imported when they are asked for;
- grafted modules exist, in child processes too, and never replace a module of LAVIS;
- `model_type` is optional for models with a default type, and reported as missing for others; so is a missing GPU;
- `activate` does all this if the hook is switched off, and only once.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOOD_PLUGIN = "import lavis; lavis.good_plugin = getattr(lavis, 'good_plugin', 0) + 1"


def test_stand_ins_work_at_import_and_fail_at_use(stub_child):
    code = """
        import lavis.datasets as d
        def derive():
            class Late(d.VideoReader):
                pass
        uses = [
            lambda: d.read("a.mp4"), lambda: d.decord.bridge, lambda: d.Reader("a.mp4"), lambda: d.decorated(),
            lambda: d.checkpoint_wrapper(None), lambda: d.checkpoint.checkpoint_activations, lambda: d.decord["x"],
            derive,
        ]
        for use in uses:
            try:
                use()
                print("no error")
            except ImportError as error:
                print(error.name, "|", error)
        print(isinstance("a", d.VideoReader), hasattr(d.decord, "__file__"), repr(d.VideoReader))
    """
    lines = stub_child.output(code).splitlines()
    assert [line.split(" | ")[0] for line in lines[:8]] == ["decord"] * 4 + ["fairscale"] * 2 + ["decord"] * 2
    assert all(f"pip install {line.split()[0]}" in line and "not installed" in line for line in lines[:8])
    assert lines[8] == "False False <stand-in for decord.VideoReader, which is not installed>"


def test_stand_ins_do_not_affect_other_code(stub_child):
    stub_child.write(
        {
            "imports_meanwhile.py": """
                import importlib.util
                found = importlib.util.find_spec("decord")
                try:
                    import decord
                    imported = True
                except ImportError:
                    imported = False
            """,
        }
    )
    init = (stub_child.folder / "lavis/datasets/__init__.py").read_text()
    stub_child.write({"lavis/datasets/__init__.py": init + "\nimport imports_meanwhile\n"})
    code = """
        import builtins, importlib.util, sys
        before = builtins.__import__
        import lavis, imports_meanwhile
        print(imports_meanwhile.found, imports_meanwhile.imported)
        print(importlib.util.find_spec("decord"), "decord" in sys.modules)
        print(builtins.__import__ is before)
        try:
            lavis.datasets.read_late()
        except ModuleNotFoundError as error:
            print(error.name)
    """
    assert stub_child.output(code).split() == ["None", "False", "None", "False", "True", "pycocotools"]


def test_installed_package_is_used(stub_child):
    stub_child.write(
        {
            "decord.py": """
                class VideoReader: pass
                class bridge: set_bridge = print
                def decorate(depth): return lambda function: function
            """
        }
    )
    assert stub_child.output("import lavis; print(lavis.datasets.Reader.__mro__[1].__module__)").split()[-1] == "decord"


def test_stand_in_for_a_broken_package_reports_the_reason(stub_child):
    stub_child.write({"fairscale.py": "raise OSError('libold.so: cannot open shared object file')"})
    code = """
        import lavis
        try:
            lavis.datasets.checkpoint_wrapper(None)
        except ImportError as error:
            print(error)
    """
    assert "cannot be imported (libold.so: cannot open" in stub_child.output(code)


def test_other_missing_packages_are_ordinary_errors(stub_child):
    stub_child.write({"lavis/datasets/__init__.py": "import package_that_is_not_there"})
    assert (
        "ModuleNotFoundError: No module named 'package_that_is_not_there'"
        in stub_child.run("import lavis.datasets").stderr
    )


def test_dropped_names_are_put_back_and_kept_ones_stay(stub_child):
    code = """
        import lavis
        import transformers.modeling_utils as m, transformers.pytorch_utils as p
        from transformers.utils.model_parallel_utils import get_device_map
        print(m.apply_chunking_to_forward.__module__, p.find_pruneable_heads_and_indices.__module__)
        print(m.prune_linear_layer(), p.prune_linear_layer())
    """
    shim = "lavis_emovit.plugin.compat"
    assert stub_child.output(code).splitlines() == [f"{shim} {shim}", "still here still here"]


def test_plugins_are_loaded_and_broken_ones_named(stub_child):
    stub_child.add_plugin("good_before", GOOD_PLUGIN)
    stub_child.add_plugin("broken_plugin", "import numpi")
    stub_child.add_plugin("exiting_plugin", "raise SystemExit('not today')")
    stub_child.add_plugin("very_good", GOOD_PLUGIN)
    code = """
        import json, lavis
        from lavis_emovit.plugin import activate, entry_points
        activate()
        print(json.dumps([lavis.good_plugin, entry_points.loaded, entry_points.broken]))
    """
    done = stub_child.run(code)
    count, loaded, broken = json.loads(done.stdout)
    assert (count, loaded) == (2, ["emovit", "good_before", "very_good"])
    assert broken["broken_plugin"] == "ModuleNotFoundError: No module named 'numpi'"
    assert broken["exiting_plugin"] == "SystemExit: not today"
    for name, reason in broken.items():
        assert f"LAVIS plugin {name}" in done.stderr and reason in done.stderr
    assert "Traceback" not in done.stderr


def test_plugin_may_name_a_function(stub_child):
    stub_child.add_plugin("with_function", "def register():\n    import lavis\n    lavis.called = True")
    entry_points = stub_child.folder / "with_function-1.0.dist-info/entry_points.txt"
    entry_points.write_text("[lavis.plugins]\nwith_function = with_function:register\n")
    assert stub_child.output("import lavis; print(lavis.called)") == "True"


def test_grafted_modules_in_this_process_and_a_spawned_one(stub_child):
    code = """
        import multiprocessing
        from importlib.util import find_spec
        def origins(_=None):
            return [find_spec(f"lavis.{name}").origin for name in ("train", "evaluate")]
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(*origins(), *pool.map(origins, [0])[0])
    """
    stub_child.write({"work/graft_check.py": code})
    origins = stub_child.output("import runpy; runpy.run_path('graft_check.py', run_name='__main__')").split()
    assert [origin.split("/")[-2:] for origin in origins] == [["grafts", "train.py"], ["grafts", "evaluate.py"]] * 2


def test_module_of_lavis_is_not_replaced(stub_child):
    stub_child.write({"lavis/train.py": "print('the train of LAVIS')"})
    code = "import lavis.train; from importlib.util import find_spec; print(find_spec('lavis.evaluate').origin)"
    first, second = stub_child.output(code).splitlines()
    assert first == "the train of LAVIS"
    assert second.endswith("grafts/evaluate.py")


def test_model_type(stub_child):
    code = """
        import lavis
        from lavis.models import load_model, load_model_and_preprocess, model_zoo
        print(load_model("ours")[1], load_model("ours", "base")[1], load_model(name="ours", is_eval=True)[1:3])
        print(load_model_and_preprocess("ours", device="meta"), load_model_and_preprocess("stock", "base", True, "cpu"))
        print(lavis.load_model is load_model, load_model.__name__, "stock" in model_zoo.names)
        for name in ("stock", "stok"):
            try:
                load_model_and_preprocess(name)
            except (TypeError, ValueError) as error:
                print(type(error).__name__, error)
    """
    assert stub_child.output(code).splitlines() == [
        "large base ('large', True)",
        "('ours', 'large', False, 'meta') ('stock', 'base', True, 'cpu')",
        "True load_model True",
        "TypeError the model 'stock' needs a model_type, it has no default; its types: base, large",
        "ValueError LAVIS has no model named 'stok' (did you mean 'stock'?)",
    ]


def test_a_missing_gpu_is_reported_before_the_weights_are_loaded(stub_child):
    code = """
        import sys
        from types import SimpleNamespace
        from lavis.models import load_model, load_model_and_preprocess
        cuda = SimpleNamespace(is_available=lambda: bool(found), device_count=lambda: found)
        sys.modules["torch"] = SimpleNamespace(cuda=cuda)
        found = 1
        print(load_model("ours", "base", True, "cuda")[3], load_model("ours", device="cuda:0")[3])
        for found, load, arguments in (
            (0, load_model_and_preprocess, ("ours", None, True, "cuda")),
            (0, load_model, ("ours", "base", True, "cuda", None)),
            (1, load_model, ("stock", "base", False, "cuda:1")),
        ):
            try:
                load(*arguments)
            except ValueError as error:
                print(type(error).__name__, error)
    """
    assert stub_child.output(code).splitlines() == [
        "cuda cuda:0",
        "UserError device 'cuda' is not available, torch sees 0 GPUs; use device='cpu'",
        "UserError device 'cuda' is not available, torch sees 0 GPUs; use device='cpu'",
        "UserError device 'cuda:1' is not available, torch sees 1 GPUs; use device='cpu'",
    ]


def test_activate_without_the_hook(stub_child):
    stub_child.add_plugin("third_party", GOOD_PLUGIN)
    code = """
        from lavis_emovit.plugin import activate
        activate()
        activate()
        import lavis
        from importlib.util import find_spec
        print(lavis.load_model("ours")[1], find_spec("lavis.train").origin.endswith("grafts/train.py"))
        print(len(lavis.__path__), getattr(lavis, "good_plugin", 0))
    """
    switched_off = stub_child.output(code, environment={"LAVIS_PLUGINS": "0"}).split()
    assert switched_off == ["large", "True", "2", "0"]  # the plugins of others stay out
    assert stub_child.output(code).split() == ["large", "True", "2", "1"]


def test_activate_on_a_lavis_that_is_loaded(stub_child):
    stub_child.write({"lavis/datasets/__init__.py": ""})
    code = "import lavis; from lavis_emovit.plugin import activate; activate(); print(lavis.load_model('ours')[1])"
    assert stub_child.output(code, environment={"LAVIS_PLUGINS": "0"}) == "large"


def test_activate_without_lavis_says_what_to_install(child):
    site = child.folder / "site"
    site.mkdir()
    (site / "lavis_emovit").symlink_to(ROOT / "lavis_emovit")
    code = f"""
        import sys
        sys.path.insert(0, {str(site)!r})
        from lavis_emovit.plugin import activate
        try:
            activate()
        except ImportError as error:
            print(type(error).__name__, error)
    """
    assert child.output(code, "-S") == (
        "LavisMissingError LAVIS is not installed. Install it without its old pins: "
        "pip install --no-deps salesforce-lavis==1.0.2"
    )


def test_failing_step_leaves_lavis_usable(stub_child):
    stub_child.write({"transformers/pytorch_utils.py": "raise RuntimeError('a future transformers')"})
    done = stub_child.run("import lavis, transformers.modeling_utils; print(lavis.load_model('ours')[1])")
    assert done.stdout.strip() == "large"
    reason = "RuntimeError: a future transformers"
    assert f"adding names that transformers.modeling_utils no longer has failed: {reason}" in done.stderr


def test_our_classes_are_imported_on_demand(stub_child):
    code = """
        from lavis.common.registry import registry
        models, tasks = (registry.mapping[f"{kind}_name_mapping"] for kind in ("model", "task"))
        print("emovit_tiny" in models, "emotion_instruction" in tasks)
        try:
            registry.get_model_class("emovit_tiny")
        except ImportError as error:
            print(error)
    """
    assert stub_child.output(code).splitlines() == ["True True", "this test has no torch"]
