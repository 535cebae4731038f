"""LAVIS loaded piece by piece, on a small LAVIS with two families.

Properties:
- `import lavis` runs none of LAVIS's code; a name, a module or the registry loads what it needs and no more;
- names of packages, submodules as attributes, star imports and `dir` are those of a LAVIS that is loaded at once;
- the registry lists names in LAVIS's order without importing them, also for stacked decorators;
- a family that cannot be imported fails when it is asked for, and can be asked for again;
- a name that is registered twice is refused, as LAVIS refuses it; a class may be replaced in the mapping;
- source that cannot be read in advance is loaded at once, and that is reported;
- several threads may ask for the first class at the same time.
"""

from __future__ import annotations

import pytest

from lavis_emovit.plugin.lavis_source import exported_names, read_body, read_catalogue
from lavis_emovit.registered import model_files

REGISTRY = """
    class Registry:
        mapping = {"model_name_mapping": {}, "paths": {}}
        @classmethod
        def register_model(cls, name):
            def wrap(model):
                from lavis.models import BaseModel
                assert issubclass(model, BaseModel)
                if name in cls.mapping["model_name_mapping"]:
                    raise KeyError(f"already registered for {cls.mapping['model_name_mapping'][name]}")
                cls.mapping["model_name_mapping"][name] = model
                return model
            return wrap
        @classmethod
        def get_model_class(cls, name):
            return cls.mapping["model_name_mapping"].get(name, None)
        @classmethod
        def list_models(cls):
            return sorted(cls.mapping["model_name_mapping"].keys())
        @classmethod
        def register_path(cls, name, path):
            cls.mapping["paths"][name] = path
    registry = Registry()
"""
FILES = {
    "torch.py": "raise ImportError('this test has no torch')",
    "lavis/__init__.py": """
        import os
        from lavis.common.registry import registry
        from lavis.models import *
        root_dir = os.path.dirname(__file__)
        registry.register_path("root", root_dir)
    """,
    "lavis/common/registry.py": REGISTRY,
    "lavis/common/helpers.py": "HELP = 1",
    "lavis/models/__init__.py": """
        from lavis.common.registry import registry
        from lavis.common.helpers import HELP
        from lavis.models.base import BaseModel
        from lavis.models.first.first import (
            First,
            First2 as Second,
        )
        from lavis.models.last import Last
        __all__ = ["BaseModel", "First", "Second", "Last", "load_model"]
        def load_model(name, model_type, is_eval=False):
            return registry.get_model_class(name), model_type, HELP
        def load_model_and_preprocess(name, model_type):
            return load_model(name, model_type)
        class ModelZoo:
            def __init__(self):
                self.types = {name: cls.TYPES for name, cls in registry.mapping["model_name_mapping"].items()}
            def __len__(self):
                return len(self.types)
        model_zoo = ModelZoo()
    """,
    "lavis/models/base.py": "class BaseModel:\n    TYPES = ['only']",
    "lavis/models/first/first.py": """
        from lavis.common.registry import registry
        from lavis.models.base import BaseModel
        @registry.register_model("inner_last")
        @registry.register_model("inner_first")
        class First(BaseModel):
            pass
        class First2: pass
    """,
    "lavis/models/last.py": """
        from lavis.common.registry import registry
        from lavis.models import BaseModel
        @registry.register_model("last")
        class Last(BaseModel):
            pass
    """,
}
LOADED = "sorted(name for name in sys.modules if name.startswith('lavis.'))"
OURS = repr(set(model_files()))


@pytest.fixture
def lavis(child):
    """A fresh interpreter that finds a LAVIS with two families."""
    child.write(FILES)
    return child


def test_import_runs_nothing_and_names_load_what_they_need(lavis):
    code = f"""
        import sys, lavis
        print({LOADED})
        from lavis.common.registry import registry
        print(lavis.root_dir == registry.mapping["paths"]["root"], {LOADED})
        import lavis.models
        print({LOADED})
        print(lavis.Second.__name__, lavis.models.Second is lavis.Second, {LOADED}[-2:])
    """
    assert lavis.output(code).splitlines() == [
        "['lavis.common']",
        "True ['lavis.common', 'lavis.common.registry']",
        "['lavis.common', 'lavis.common.helpers', 'lavis.common.registry', 'lavis.models', 'lavis.models.first']",
        "First2 True ['lavis.models.first', 'lavis.models.first.first']",
    ]


@pytest.mark.parametrize("first", ["import lavis.models.last", "from lavis.models import Last", "import lavis"])
def test_whatever_comes_first(lavis, first):
    code = f"""
        {first}
        from lavis.common.registry import registry
        import lavis.models.last, lavis
        print(registry.get_model_class("last") is lavis.Last is lavis.models.last.Last)
    """
    assert lavis.output(code) == "True"


def test_attributes_star_imports_and_dir(lavis):
    code = """
        import lavis
        print(lavis.models.first.first.First.__name__, lavis.common.helpers.HELP)
        before = set(dir(lavis))
        from lavis import *
        print({"First", "Second", "Last", "load_model", "models", "root_dir"} <= set(globals()) & before)
        from lavis.models import *
        names = registry.mapping["model_name_mapping"]
        for name in [name for name in names if name.startswith("emovit")]:
            del names[name]
        print(len(vars(models.model_zoo)), len(models.model_zoo), models.model_zoo.types)
        for wrong in ("lavis.nothing", "lavis.models.Nothing", "lavis.models.first.nothing"):
            try:
                eval(wrong)
            except AttributeError as error:
                print(error)
    """
    assert lavis.output(code).splitlines() == [
        "First 1",
        "True",
        "0 3 {'inner_first': ['only'], 'inner_last': ['only'], 'last': ['only']}",
        "module 'lavis' has no attribute 'nothing'",
        "module 'lavis.models' has no attribute 'Nothing'",
        "module 'lavis.models.first' has no attribute 'nothing'",
    ]


def test_registry_lists_names_in_order_without_importing_them(lavis):
    code = f"""
        import sys
        from lavis.common.registry import registry
        names = registry.mapping["model_name_mapping"]
        print([name for name in names if name not in {OURS}], len(registry.list_models()), "last" in names)
        print({LOADED}, names.get("nothing"), registry.get_model_class("nothing"))
        print(registry.get_model_class("inner_last") is registry.get_model_class("inner_first"), list(names)[:3])
        print("lavis.models.last" in sys.modules, names.pop("last").__name__, "last" in names)
    """
    assert lavis.output(code).splitlines() == [
        f"['inner_first', 'inner_last', 'last'] {3 + len(model_files())} True",
        "['lavis.common', 'lavis.common.registry'] None None",
        "True ['inner_first', 'inner_last', 'last']",
        "False Last False",
    ]


def test_family_that_fails_can_be_asked_for_again(lavis):
    code = """
        import pathlib, sys
        from lavis.common.registry import registry
        from lavis.models import Last
        print(registry.get_model_class("last") is Last)
        for _ in range(2):
            try:
                registry.get_model_class("inner_first")
            except ImportError as error:
                print(error)
        sys.modules["missing_package"] = sys
        print(registry.get_model_class("inner_first").__name__)
    """
    lavis.write({"lavis/models/first/first.py": "import missing_package\n" + FILES["lavis/models/first/first.py"]})
    path = lavis.folder / "lavis/models/first/first.py"
    path.write_text(path.read_text().replace("\n        ", "\n"))
    refusal = "No module named 'missing_package'"
    assert lavis.output(code).splitlines() == ["True", refusal, refusal, "First"]


def test_name_that_is_registered_twice_is_refused(lavis):
    code = """
        from lavis.common.registry import registry
        from lavis.models import BaseModel
        try:
            registry.register_model("last")(type("Other", (BaseModel,), {}))
        except KeyError as error:
            print(error)
    """
    assert "already registered for <class 'lavis.models.last.Last'>" in lavis.output(code)


def test_replaced_class_does_not_stop_its_module(lavis):
    code = """
        from lavis.common.registry import registry
        registry.mapping["model_name_mapping"]["last"] = dict
        from lavis.models import Last
        print(registry.get_model_class("last").__name__, Last.__name__)
    """
    assert lavis.output(code) == "dict Last"


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        (
            "lavis/models/last.py",
            'registry.register_model(f"{1}")(Last)',
            "in a form that cannot be read from the text",
        ),
        ("lavis/__init__.py", "print(Last.__name__)", "uses Last, which a star import binds"),
    ],
)
def test_source_that_cannot_be_read_is_loaded_at_once(lavis, file, line, reason):
    path = lavis.folder / file
    path.write_text(path.read_text() + f"\n{line}\n")
    done = lavis.run("import sys, lavis; print('lavis.models.last' in sys.modules, lavis.Last.__name__)")
    assert done.stdout.splitlines()[-1] == "True Last"
    assert "loading LAVIS on demand failed" in done.stderr and reason in done.stderr


def test_package_that_fails_on_demand_is_loaded_at_once(lavis):
    path = lavis.folder / "lavis/models/__init__.py"
    path.write_text(path.read_text() + "\nassert 'Last' in globals()\n")
    done = lavis.run("import sys, lavis.models; print('lavis.models.last' in sys.modules, lavis.Second.__name__)")
    assert done.stdout.splitlines()[-1] == "True First2"
    assert "loading the families of lavis.models on demand failed" in done.stderr


def test_threads_may_ask_at_the_same_time(lavis):
    code = """
        import threading, lavis
        begin, found = threading.Barrier(8), []
        def ask(number):
            begin.wait()
            if number % 2:
                from lavis.models import Last
            else:
                from lavis.common.registry import registry
                Last = registry.get_model_class("last")
            found.append(Last)
        threads = [threading.Thread(target=ask, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        print(len(found), len(set(found)), found[0])
    """
    slow = "import time; time.sleep(0.2)\n"
    for name in ("lavis/models/last.py", "lavis/common/registry.py"):
        path = lavis.folder / name
        path.write_text(slow + path.read_text())
    assert lavis.output(code) == "8 1 <class 'lavis.models.last.Last'>"


def test_catalogue_follows_imports(tmp_path):
    files = {
        "__init__.py": "from p.a import *\nimport p.b.c\nfrom other import x\n",
        "a.py": "from p.b import (\n    d,\n    # comment\n)\ndef f():\n    from p import late\n",
        "b/c.py": "",
        "b/d.py": '@registry.register_task("t")\nclass T: ...\n',
        "late.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    catalogue = read_catalogue("p", tmp_path)
    assert list(catalogue.modules) == ["p", "p.a", "p.b", "p.b.d", "p.b.c"]
    assert catalogue.names == {"task": {"t": "p.b.d"}}


def test_body_keeps_what_its_code_uses():
    source = "from p.x import used, unused as other\nfrom p.y import *\nimport os\ndef f():\n    return used, os\n"
    body = read_body("p", source, "p/__init__.py")
    assert (body.imports, body.deferred, body.stars) == (("p.x",), {"other": ("p.x", "unused")}, ("p.y",))
    with pytest.raises(ValueError, match="uses lost"):
        read_body("p", source + "print(lost)", "p/__init__.py")


def test_exported_names():
    source = "from x import a, b as c\nimport os.path\n_hidden = 1\nfor i in ():\n    j = 2\ndef f():\n    local = 1\n"
    assert exported_names(source) == ["a", "c", "f", "i", "j", "os"]
    assert exported_names(source + "__all__ = ['f']") == ["f"]
    with pytest.raises(ValueError, match="star-imports others"):
        exported_names("from x import *")
