"""The teachers by name: what each one is, and the commands that install it into an environment of its own.

A module of another package that an entry point of the group `lavis.plugins` names adds one with `register_teacher`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from lavis_emovit.checkpoints.tuned_files import find_tuned
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.paths import cache_root, expand_home
from lavis_emovit.settings import nearest_name
from lavis_emovit.teachers.chat_teacher import CHAT
from lavis_emovit.teachers.faces import Answer
from lavis_emovit.teachers.worker import REINSTALL, Worker

ROOT_VARIABLE = "EMOVIT_TEACHERS"
_WORKERS = Path(__file__).resolve().parent / "workers"


def teachers_root() -> Path:
    """The folder of the environments: `EMOVIT_TEACHERS`, or `teachers` in the cache folder."""
    named = os.environ.get(ROOT_VARIABLE)
    return expand_home(named).absolute() if named else cache_root() / "teachers"


class Opened(Protocol):
    """A teacher that is ready to look at images; a context manager."""

    num_restarts: int  # how often its program was started again

    def annotate(self, images: Sequence[Image.Image]) -> list[Answer]:
        """Faces in RGB images, in pixels of each. UserError if the teacher cannot go on."""

    def __enter__(self) -> Opened: ...

    def __exit__(self, *exc: object) -> None: ...


class AnyTeacher(Protocol):
    """A program, or a chat model."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str:
        """Name and version, to which answers belong."""

    @property
    def names_expressions(self) -> bool: ...

    def require(self) -> None:
        """UserError, with what to do, if it cannot be used."""

    def open(self) -> Opened:
        """Ready, or started with the first image; raises as `require`."""


@dataclass(frozen=True)
class Teacher:
    """A teacher that runs as a program which speaks the protocol of `Worker`.

    Attributes:
        version: of its package. Answers of another version are not comparable, so it is refused.
        gives: what it reports about a face, for people.
        names_expressions: whether it reports probabilities of expressions.
        command: folder of its environment -> program and arguments.
        install: folder of its environment -> the commands that create it.
        present: path in the environment that exists if it is installed; empty for programs without an environment.
    """

    name: str
    version: str
    gives: str
    names_expressions: bool
    command: Callable[[Path], list[str]]
    install: Callable[[Path], list[list[str]]] = lambda folder: []
    present: str = ""

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def folder(self) -> Path:
        return teachers_root() / self.name

    @property
    def is_installed(self) -> bool:
        return not self.present or (self.folder / self.present).exists()

    @property
    def install_lines(self) -> list[str]:
        return [shlex.join(command) for command in self.install(self.folder)]

    def require(self) -> None:
        """UserError, with the command that installs it, if it is not installed."""
        if not self.is_installed:
            raise UserError(
                f"teacher '{self.name}' is not installed in {self.folder}. Run `emovit facial teachers --install "
                f"{self.name}`, or set {ROOT_VARIABLE} to the folder that has it."
            )

    def open(self) -> Worker:
        """Its process, not started yet; raises as `require`."""
        self.require()
        advice = REINSTALL if self.present else "Correct this"
        return Worker(self.name, self.command(self.folder), self.version, advice=advice)

    def run_install(self) -> None:
        """Run the commands of `install`; UserError if a program is missing or a command fails."""
        for command in self.install(self.folder):
            if shutil.which(command[0]) is None:
                raise UserError(f"teacher '{self.name}': its installation needs the program '{command[0]}'; install it")
            try:
                subprocess.run(command, check=True)
            except subprocess.CalledProcessError as error:
                raise UserError(
                    f"teacher '{self.name}' was not installed: `{shlex.join(command)}` ended with {error.returncode}; "
                    "its message is above"
                ) from None


TEACHERS: dict[str, Teacher] = {}
TUNED = "tuned:"  # before the place of a tuned model


def register_teacher(teacher: Teacher) -> None:
    """Add a teacher; ConfigError if the name is in use."""
    if teacher.name in TEACHERS:
        raise ConfigError([f"two teachers are called '{teacher.name}'"], "the teachers")
    TEACHERS[teacher.name] = teacher


def find_teachers(names: Iterable[str], chat: Callable[[str], AnyTeacher] | None = None) -> list[AnyTeacher]:
    """Teachers by name, each once. `tuned:PLACE` is a tuned model, `chat:MODEL` a chat model that `chat` makes.

    ConfigError for unknown names, UserError for a place without a tuned model.
    """
    names = list(dict.fromkeys(names))
    kinds: dict[str, Callable[[str], AnyTeacher]] = {TUNED: _tuned, **({CHAT: chat} if chat is not None else {})}

    def kind_of(name: str) -> str | None:
        return next((kind for kind in kinds if name.startswith(kind) and name != kind), None)

    unknown = [name for name in names if name not in TEACHERS and kind_of(name) is None]
    if problems := [f"no teacher '{name}'{nearest_name(name, list(TEACHERS))}" for name in unknown]:
        raise ConfigError(problems, "the teachers")
    return [
        TEACHERS[name] if kind is None else kinds[kind](name.removeprefix(kind))
        for name, kind in ((name, kind_of(name)) for name in names)
    ]


def tuned_version(location: str) -> str:
    """The start of the hash of a tuned model's weights; UserError if there is none."""
    return find_tuned(location).weights_sha256[:12]


def _tuned(location: str) -> Teacher:
    place = str(expand_home(location).absolute())  # workers of a cluster have other working directories
    return Teacher(
        f"{TUNED}{location}",
        tuned_version(location),
        "its labels",
        names_expressions=True,
        command=lambda folder: [sys.executable, "-m", "lavis_emovit.serving.teacher", place],
    )


def _node(name: str, version: str, script: str, gives: str) -> Teacher:
    packages = [f"@vladmandic/{name}@{version}", "@tensorflow/tfjs@4.22.0", "@tensorflow/tfjs-backend-wasm@4.22.0"]
    return Teacher(
        name,
        version,
        gives,
        names_expressions=True,
        command=lambda folder: ["node", str(_WORKERS / script), str(folder)],
        install=lambda folder: [
            ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", *packages]
        ],
        present=f"node_modules/@vladmandic/{name}/package.json",
    )


def _python(name: str, version: str, gives: str, *, names_expressions: bool, packages: list[list[str]]) -> Teacher:
    """`packages` are the arguments of one `uv pip install` each."""

    def install(folder: Path) -> list[list[str]]:
        target = ["uv", "pip", "install", "--python", str(folder / "bin" / "python")]
        return [
            ["uv", "venv", "--allow-existing", "--python", "3.11", str(folder)],
            *(target + one for one in packages),
        ]

    return Teacher(
        name,
        version,
        gives,
        names_expressions=names_expressions,
        command=lambda folder: [str(folder / "bin" / "python"), "-I", str(_WORKERS / "python_worker.py"), name],
        install=install,
        present=f"lib/python3.11/site-packages/{name}",
    )


register_teacher(_node("face-api", "1.7.15", "face_api.cjs", "7 expressions, box, 68 landmarks"))
register_teacher(_node("human", "3.3.6", "human.cjs", "7 expressions, box, 468 landmarks"))
register_teacher(
    _python(
        "fer",
        "25.10.3",
        "7 expressions, box of frontal faces",
        names_expressions=True,
        # Its requirements include torch with CUDA, which its default detector and network do not use. OpenCV 5 has the
        # Haar cascades only in its contributed modules; setuptools 82 has no pkg_resources.
        packages=[
            ["--no-deps", "fer==25.10.3"],
            ["tensorflow>=2.15,<2.22", "setuptools<82", "opencv-python-headless<5", "requests", "pillow"],
        ],
    )
)
register_teacher(
    _python(
        "mediapipe",
        "0.10.21",
        "box, 478 landmarks",
        names_expressions=False,
        packages=[["mediapipe==0.10.21"]],  # 1.x has no models in its wheels
    )
)
