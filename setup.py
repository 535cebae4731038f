"""Packaging of lavis-emovit."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

VERSION = "0.1.0"

setup(
    name="lavis-emovit",
    version=VERSION,
    description="Emotion visual instruction tuning (EmoVIT) as a plugin to LAVIS",
    packages=find_packages(include=["lavis_emovit", "lavis_emovit.*"]),
    install_requires=[
        "torch>=2.4", "torchvision>=0.19", "transformers>=4.56,<6", "tokenizers", "sentencepiece", "safetensors",
        "numpy", "pillow", "omegaconf>=2.3", "pydantic>=2.6", "pyyaml", "webdataset>=1.0", "filelock",
        "scikit-learn", "torchmetrics>=1.4", "matplotlib", "jinja2", "rich", "typer>=0.12", "tensorboard", "psutil",
        "einops", "timm>=0.9", "iopath", "ftfy", "pandas", "opencv-python-headless>=4.9", "scikit-image", "tqdm",
    ],
    extras_require={
        "lavis": ["salesforce-lavis==1.0.2"],
        "deepspeed": ["deepspeed>=0.16"],
        "dev": ["pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "build", "setuptools>=77", "wheel", "pre-commit"],
    },
    entry_points={
        "console_scripts": ["emovit = lavis_emovit.cli.main:main"],
        "lavis.plugins": ["emovit = lavis_emovit.plugin.registration:register"],
    },
)
