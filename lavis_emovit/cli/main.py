"""The command `emovit`, for everything except training and evaluation. Sub-commands are loaded when they are called.

Training and evaluation use LAVIS's commands: `python -m lavis.train` and `python -m lavis.evaluate`.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer import Option
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from lavis_emovit.errors import UserError
from lavis_emovit.files import os_error_text
from lavis_emovit.outside import scrub

EXIT_USER_ERROR = 2

# Sub-command, which is also the name of its module, -> summary: `emovit --help` imports none of the modules.
COMMANDS = {
    "doctor": "Check this machine by a training step of the tiny model, or estimate a recipe's memory and speed.",
    "init": "Look at your own data, and write a dataset and a recipe that train on them.",
    "data": "Create, check and preview datasets.",
    "generate": "Write captions, attributes and instructions, by a chat model or offline.",
    "facial": "Annotate and find faces, estimate knowledge about them, conclude from it, and find contradictions.",
    "shards": "Build, merge, index, verify and describe shards.",
    "watch": "Follow runs while they train.",
    "predict": "Let a tuned model say what it sees in images.",
    "review": "Let people check the labels of records or predictions.",
    "demo": "Show a page on which people try a tuned model.",
    "serve": "Serve a tuned model to OpenAI's clients.",
    "pack": "Write a tuned model as one file for another machine.",
    "push": "Publish a tuned model on a hub.",
    "export": "Write data and rewards for other trainers.",
    "suite": "Write the benchmarks of a suite for lmms-eval or VLMEvalKit.",
    "convert": "Convert weights bit for bit, and report what was written, added and omitted.",
    "judge": "Let people judge captions: write a blinded sheet, and score filled sheets.",
    "reproduce": "Show published numbers, what is known about them, and the commands that measure them here.",
    "report": "Write the results of runs and suites as a self-contained page, or its tables as text.",
}


class LazyGroup(TyperGroup):
    """Lists the sub-commands of `COMMANDS`, and imports one only when it is requested."""

    _is_listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._is_listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._is_listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if self._is_listing:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name])
        command: Any = get_command(importlib.import_module(f"lavis_emovit.cli.{cmd_name}").app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    help="EmoVIT: data, instructions, shards, weights, reports, human judgements and a health check.",
)


def _show_version(requested: bool) -> None:
    if requested:
        from lavis_emovit import __version__

        typer.echo(f"lavis-emovit {__version__}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, Option("--debug", help="Show tracebacks and debug messages.")] = False,
    version: Annotated[
        bool, Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every sub-command."""


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM within the block ends it like Ctrl-C, so that temporary files are removed; a second one ends it at once.

    Commands may set another handler.
    """

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    # Only the main thread can handle signals.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; `--debug` may be anywhere among its arguments.

    The exit code is 0, 2 for an error that the user can fix, 1 for a failed health check, or 143 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        with _ended_by_sigterm():
            get_command(app)(args=arguments, prog_name="emovit")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (UserError, OSError) as error:
        if debug:
            raise
        text = os_error_text(error) if isinstance(error, OSError) else str(error)
        print(f"error: {scrub(text)}", file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
