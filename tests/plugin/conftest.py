"""Child interpreters for the tests of the start-up hook, and a small stand-in for LAVIS that loads in no time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Just enough of LAVIS for the hook. Importing `torch` fails, so these tests cannot load heavy modules unnoticed.
STUB_FILES = {
    "torch.py": "raise ImportError('this test has no torch')",
    "transformers/__init__.py": "",
    "transformers/modeling_utils.py": "",
    "transformers/pytorch_utils.py": "def prune_linear_layer(): return 'still here'",
    "transformers/utils/__init__.py": "",
    "lavis/__init__.py": """
        from lavis.common.registry import registry
        from lavis.datasets import *
        from lavis.models import *
    """,
    "lavis/common/__init__.py": "",
    "lavis/common/registry.py": """
        class Registry:
            mapping = {"model_name_mapping": {}}
            @classmethod
            def get_model_class(cls, name):
                return cls.mapping["model_name_mapping"].get(name)
        registry = Registry()
    """,
    "lavis/datasets/__init__.py": """
        import decord
        from decord import VideoReader
        import fairscale.nn.checkpoint as checkpoint
        from fairscale.nn.checkpoint.checkpoint_activations import checkpoint_wrapper
        decord.bridge.set_bridge("torch")
        class Reader(decord.VideoReader):
            pass
        @decord.decorate(depth=2)
        def decorated(): pass
        def read(path):
            return VideoReader(path)
        def read_late():
            import pycocotools
    """,
    "lavis/models/__init__.py": """
        from lavis.common.registry import registry
        __all__ = ["load_model"]
        class Stock:
            PRETRAINED_MODEL_CONFIG_DICT = {"base": "", "large": ""}
        class Ours(Stock):
            DEFAULT_MODEL_TYPE = "large"
        registry.mapping["model_name_mapping"].update(stock=Stock, ours=Ours)
        def load_model(name, model_type, is_eval=False, device="cpu", checkpoint=None):
            return name, model_type, is_eval, device, checkpoint
        def load_model_and_preprocess(name, model_type, is_eval=False, device="cpu"):
            return name, model_type, is_eval, device
        class ModelZoo:
            def __init__(self):
                self.names = list(registry.mapping["model_name_mapping"])
        model_zoo = ModelZoo()
    """,
}


class Child:
    """Runs code in a fresh interpreter whose path begins with the test's own folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir()

    def write(self, files: dict[str, str]) -> None:
        """Write modules (path -> source) into the first folder on the child's path."""
        for name, source in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))

    def add_plugin(self, name: str, source: str) -> None:
        """An installed distribution `name` with one entry point, a module of that name."""
        self.write(
            {
                f"{name}.py": source,
                f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
                f"{name}-1.0.dist-info/entry_points.txt": f"[lavis.plugins]\n{name} = {name}\n",
            }
        )

    def run(
        self, code: str, *options: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `code`; the options go to the interpreter."""
        variables = {key: value for key, value in os.environ.items() if key != "LAVIS_PLUGINS"}
        # This checkout's package, even if another one is installed; tests with `-S` bring their own.
        path = [str(self.folder)] if "-S" in options else [str(self.folder), str(ROOT)]
        variables |= {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", **(environment or {})}
        command = [sys.executable, *options, "-c", textwrap.dedent(code)]
        return subprocess.run(
            command, cwd=self.work, env=variables, capture_output=True, text=True, timeout=600, check=False
        )

    def output(self, code: str, *options: str, environment: dict[str, str] | None = None) -> str:
        """The output of the code, which must not fail."""
        done = self.run(code, *options, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="session")
def session_child(tmp_path_factory: pytest.TempPathFactory) -> Child:
    """A fresh interpreter for facts that several tests share."""
    return Child(tmp_path_factory.mktemp("child"))


@pytest.fixture
def child(tmp_path: Path) -> Child:
    """A fresh interpreter with this environment's packages."""
    return Child(tmp_path)


@pytest.fixture
def stub_child(child: Child) -> Child:
    """A fresh interpreter that finds the small LAVIS of this file."""
    child.write(STUB_FILES)
    return child
