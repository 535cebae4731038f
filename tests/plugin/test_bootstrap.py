"""The start-up hook, on a small LAVIS.

Properties:
- it is active in every interpreter of this environment, even an isolated one, except with `LAVIS_PLUGINS=0` or `-S`;
- it loads three small modules and costs no measurable time;
- a half-removed package breaks neither the interpreter nor `import lavis`;
- finding LAVIS does not load it; a missing LAVIS is an ordinary ModuleNotFoundError;
- after the load, LAVIS's spec has its own loader again; a failed load can be repeated, and LAVIS can be reloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOOK_MODULES = {"lavis_emovit", "lavis_emovit.plugin", "lavis_emovit.plugin.bootstrap"}
SHOW_HOOK = "import sys; print(any(type(f).__name__ == 'LavisFinder' for f in sys.meta_path))"


def test_hook_is_active(child):
    assert child.output(SHOW_HOOK) == "True"
    assert child.output(SHOW_HOOK, "-I") == "True"


@pytest.mark.parametrize("value", ["0", "off", " False "])
def test_switched_off_hook_leaves_no_trace(child, value):
    code = SHOW_HOOK + "; print('lavis_emovit.plugin.loading' in sys.modules)"
    assert child.output(code, environment={"LAVIS_PLUGINS": value}).split() == ["False", "False"]


def test_interpreter_without_site_has_no_hook(child):
    assert child.output(SHOW_HOOK, "-S") == "False"


def test_switched_off_lavis_is_untouched(stub_child):
    code = """
        import transformers.modeling_utils
        try:
            import lavis
        except ModuleNotFoundError as error:
            print(error.name, hasattr(transformers.modeling_utils, "apply_chunking_to_forward"))
    """
    assert stub_child.output(code, environment={"LAVIS_PLUGINS": "0"}) == "decord False"
    stub_child.write({"lavis/datasets/__init__.py": ""})
    code = """
        import inspect, lavis.models
        print(len(lavis.__path__), inspect.signature(lavis.models.load_model).parameters["model_type"].default)
    """
    assert stub_child.output(code, environment={"LAVIS_PLUGINS": "0"}) == "1 <class 'inspect._empty'>"


def test_hook_loads_only_its_own_small_modules(child):
    show = "import sys; print(*sorted(sys.modules))"
    with_hook = set(child.output(show).split())
    without = set(child.output(show, environment={"LAVIS_PLUGINS": "0"}).split())
    assert with_hook - without <= HOOK_MODULES
    assert "typing" not in with_hook - without


def test_interpreter_start_is_not_slowed():
    def start_cpu_s(switch: str) -> float:
        """Processor time, which depends less on the load of the machine than wall time."""
        child = subprocess.Popen([sys.executable, "-c", "pass"], env={**os.environ, "LAVIS_PLUGINS": switch})
        usage = os.wait4(child.pid, 0)[2]
        return usage.ru_utime + usage.ru_stime

    pairs = [(start_cpu_s("1"), start_cpu_s("0")) for _ in range(15)]
    slower_s = min(on for on, _ in pairs) - min(off for _, off in pairs)
    assert slower_s < 0.010  # the hook takes about a millisecond, as long as a tick of the clock


REMAINS = {
    "nothing": [],
    "an empty folder": ["lavis_emovit/"],
    "the package alone": ["lavis_emovit/__init__.py"],
    "no bootstrap": ["lavis_emovit/__init__.py", "lavis_emovit/plugin/__init__.py"],
    "only the bootstrap": [
        "lavis_emovit/__init__.py",
        "lavis_emovit/plugin/__init__.py",
        "lavis_emovit/plugin/bootstrap.py",
    ],
}


@pytest.mark.parametrize("kept", REMAINS.values(), ids=REMAINS.keys())
def test_half_removed_package_breaks_nothing(stub_child, tmp_path, kept):
    site = _half_removed(tmp_path, kept)
    stub_child.write({"lavis/datasets/__init__.py": ""})
    done = stub_child.run(f"import site; site.addsitedir({str(site)!r}); import lavis; print(lavis.load_model)", "-S")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "load_model" in done.stdout


def test_broken_bootstrap_breaks_nothing(stub_child, tmp_path):
    site = _half_removed(tmp_path, REMAINS["only the bootstrap"])
    (site / "lavis_emovit/plugin/bootstrap.py").write_text("def install(:")
    done = stub_child.run(f"import site; site.addsitedir({str(site)!r}); print('fine')", "-S")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "fine", "")


def _half_removed(folder: Path, kept: list[str]) -> Path:
    """A site folder with the `.pth` file and the remaining files of the package."""
    site = folder / "site"
    site.mkdir()
    shutil.copy(ROOT / "lavis_emovit.pth", site)
    for name in kept:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (site / name).mkdir(exist_ok=True)
        else:
            shutil.copy(ROOT / name, site / name)
    return site


def test_finding_lavis_does_not_load_it(stub_child):
    code = """
        import importlib.util, sys
        spec = importlib.util.find_spec("lavis")
        print(spec.origin.endswith("__init__.py"), "lavis" in sys.modules, "transformers" in sys.modules)
        print("registry" in spec.loader.get_source("lavis"))
    """
    assert stub_child.output(code).split() == ["True", "False", "False", "True"]


def test_missing_lavis_is_an_ordinary_error(child):
    code = "import site; site.addsitedir({0!r}); import sys; sys.path.insert(0, {0!r}); import lavis"
    done = child.run(code.format(str(_half_removed(child.folder, REMAINS["only the bootstrap"]))), "-S")
    assert "ModuleNotFoundError: No module named 'lavis'" in done.stderr


def test_own_loader_is_restored(stub_child):
    code = "import lavis; print(type(lavis.__spec__.loader).__name__, type(lavis.__loader__).__name__)"
    assert stub_child.output(code) == "SourceFileLoader SourceFileLoader"


def test_failed_load_can_be_repeated(stub_child):
    code = """
        import pathlib, importlib
        own = pathlib.Path({0!r}, "lavis", "__init__.py")
        text = own.read_text()
        own.write_text("import package_that_is_not_there")
        import lavis
        try:
            lavis.load_model
        except ModuleNotFoundError as error:
            print(error.name)
        own.write_text(text + "\\n# repaired")
        importlib.invalidate_caches()
        import lavis
        print(lavis.load_model("ours")[1], importlib.reload(lavis).load_model("ours")[1])
    """
    assert stub_child.output(code.format(str(stub_child.folder))).split() == [
        "package_that_is_not_there",
        "large",
        "large",
    ]
