"""Python commands that start as forks of this process, with everything loaded already.

A new interpreter needs ten seconds for torch and DeepSpeed. The launchers themselves, the ranks that they start, watch
and signal, and all exchanges between the ranks are the real ones.
"""

from __future__ import annotations

import inspect
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs import load_deepspeed

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
CLASSES = {
    "model": ["emovit_tiny"],
    "runner": ["runner_emovit"],
    "task": ["emotion_instruction"],
    "builder": ["emoset_sketch"],
    "processor": ["emovit_image_train", "emovit_image_eval", "emovit_text"],
}
DEEPSPEED = [sys.executable, "-m", "deepspeed.launcher.runner"]


def load_training() -> None:
    """Load what the training command needs for the shipped tiny model, with DeepSpeed for the CPU."""
    load_deepspeed()
    import torch.distributed.run
    from lavis.common.registry import registry

    import lavis_emovit.train  # noqa: F401

    torch.set_num_threads(1)
    for kind, names in CLASSES.items():
        for name in names:
            assert getattr(registry, f"get_{kind}_class")(name), name


@contextmanager
def forked_commands() -> Iterator[None]:
    """Inside the block, `subprocess` forks this process for each command of this interpreter, and so do the forks."""
    real = subprocess.Popen._execute_child  # type: ignore[attr-defined]
    signature = inspect.signature(real)

    def start(self: Any, *arguments: Any) -> None:
        given = signature.bind(self, *arguments).arguments
        command = [os.fspath(part) for part in given["args"]]
        if command[0] != sys.executable:
            real(self, *arguments)
            return
        self.pid = os.fork()
        if not self.pid:
            _become(command[1:], given)
        self._child_created = True
        self._close_pipe_fds(*(given[name] for name in PIPES))

    subprocess.Popen._execute_child = start  # type: ignore[attr-defined]
    try:
        yield
    finally:
        subprocess.Popen._execute_child = real  # type: ignore[attr-defined]


PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def _become(command: Sequence[str], given: dict[str, Any]) -> None:
    """The rest of a forked process: run `-m module` or a script, with the arguments of `Popen` in `given`."""
    code: Any = 1
    try:
        for number, file in enumerate((given["p2cread"], given["c2pwrite"], given["errwrite"])):
            if file != -1:
                os.dup2(file, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        if given.get("start_new_session", given.get("unused_start_new_session")):
            os.setsid()
        os.chdir(given["cwd"] or ".")
        environment = dict(os.environ if given["env"] is None else given["env"])
        os.environ.clear()
        os.environ.update(environment)
        first, *rest = [part for part in command if part != "-u"]
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [first, *rest]
            sys.path.insert(0, str(Path(first).parent))
            runpy.run_path(first, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
