"""Packaging of lavis-emovit: the metadata, and the build step that puts the start-up hook and the configs into wheels."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
VERSION = "0.1.0"

HOOK = "lavis_emovit.pth"
# Folder of the checkout -> folder in the wheel. `lavis_configs` stands beside the package in both.
COPIED_FOLDERS = {"lavis_configs": "lavis_configs", "projects/emovit": "lavis_emovit/recipes"}


class BuildWithHook(build_py):
    """Adds to a wheel what is no Python package: the start-up hook, the configs and the recipes."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            # An editable wheel maps packages to the checkout; its other files are what lies in the install folder.
            self.add_hook(Path(self.get_finalized_command("install").install_lib))
            return
        self.add_hook(Path(self.build_lib))
        for source, target in COPIED_FOLDERS.items():
            shutil.copytree(ROOT / source, Path(self.build_lib, target), dirs_exist_ok=True)

    def add_hook(self, folder: Path) -> None:
        """Copy the `.pth` file that Python runs at start-up to where packages are installed."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / HOOK, folder / HOOK)


setup(
    name="lavis-emovit",
    version=VERSION,
    description="Emotion visual instruction tuning (EmoVIT) as a plugin to LAVIS",
    packages=find_packages(include=["lavis_emovit", "lavis_emovit.*"]),
    cmdclass={"build_py": BuildWithHook},
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "transformers>=4.56,<6",
        "tokenizers",
        "sentencepiece",
        "safetensors",
        "numpy",
        "pillow",
        "omegaconf>=2.3",
        "pydantic>=2.6",
        "pyyaml",
        "webdataset>=1.0",
        "filelock",
        "scikit-learn",
        "torchmetrics>=1.4",
        "matplotlib",
        "jinja2",
        "rich",
        "typer>=0.12",
        "tensorboard",
        "psutil",
        "einops",
        "timm>=0.9",
        "iopath",
        "ftfy",
        "pandas",
        "opencv-python-headless>=4.9",
        "scikit-image",
        "tqdm",
    ],
    extras_require={
        "lavis": ["salesforce-lavis==1.0.2"],
        "deepspeed": ["deepspeed>=0.16"],
        "dev": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "build",
            "setuptools>=77",
            "wheel",
            "pre-commit",
        ],
    },
    entry_points={
        "console_scripts": ["emovit = lavis_emovit.cli.main:main"],
        "lavis.plugins": ["emovit = lavis_emovit.plugin.registration:register"],
    },
)
