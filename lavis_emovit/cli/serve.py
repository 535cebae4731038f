"""`emovit serve`: a tuned model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from typer import Argument, Option

from lavis_emovit.cli.options import AmpOption, BaseOption, DeviceOption, StepOption
from lavis_emovit.errors import UserError

app = typer.Typer(help="Serve a tuned model to OpenAI's clients.", add_completion=False)

KEY_VARIABLE = "EMOVIT_SERVE_KEY"


@app.command()
def serve(
    model: Annotated[str, Argument(help="Folder of a run, a checkpoint, an exported folder, or an archive.")],
    host: Annotated[str, Option(help="Address to listen on; others than this machine's need a key.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    name: Annotated[str | None, Option(help="Name of the model for clients; by default that of the place.")] = None,
    allow_without_key: Annotated[
        bool, Option("--allow-without-key", help="Serve anybody who reaches the address.")
    ] = False,
    batch_size: Annotated[int, Option(min=1, help="Requests that are answered at once.")] = 32,
    max_waiting: Annotated[int, Option(min=1, help="Requests that may wait; more are answered 429.")] = 256,
    max_waiting_mb: Annotated[
        int, Option(min=1, help="Memory of these requests and their images; more are answered 429.")
    ] = 1024,
    max_tokens: Annotated[int, Option(min=1, help="Longest answer.")] = 512,
    max_image_mb: Annotated[int, Option(min=1, help="Largest image file.")] = 20,
    max_megapixels: Annotated[int, Option(min=1, help="Largest decoded image.")] = 50,
    device: DeviceOption = "auto",
    amp: AmpOption = "off",
    step: StepOption = None,
    base: BaseOption = None,
) -> None:
    """Serve a tuned model to OpenAI's clients. Clients need the key in EMOVIT_SERVE_KEY, if it is set.

    SIGTERM or Ctrl-C: answers what is accepted, then ends.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise UserError("emovit serve needs FastAPI and uvicorn: pip install 'lavis-emovit[serve]'") from None
    from lavis_emovit import load_tuned
    from lavis_emovit.boxes import ONLY_WHOLE, shows_both
    from lavis_emovit.serving.app import Limits, Served, make_app
    from lavis_emovit.serving.batching import Batching
    from lavis_emovit.serving.server import MOST_CONNECTIONS, DrainingServer, bind, is_local

    key = _key()
    if key is None and not is_local(host) and not allow_without_key:
        raise UserError(
            f"--host {host}: others than this machine could use the model without a key; set {KEY_VARIABLE}, or pass "
            "--allow-without-key"
        )
    with bind(host, port) as socket:
        tuned = load_tuned(model, device=device, amp=amp, step=step, base=base)
        if shows_both(tuned.box):
            typer.echo(f"note: {ONLY_WHOLE}", err=True)
        batching = Batching(
            tuned, batch_size=batch_size, max_waiting=max_waiting, max_waiting_bytes=max_waiting_mb << 20
        )
        served = Served(
            name or Path(model).resolve().name.removesuffix(".emovit"),
            f"emovit-{tuned.files.weights_sha256[:12]}",
            batching,
            Limits(
                max_tokens=max_tokens,
                default_tokens=min(max_tokens, tuned.decoding.get("max_length", Limits.default_tokens)),
                image_bytes=max_image_mb << 20,
                image_pixels=max_megapixels * 1_000_000,
            ),
            key=key,
            local_only=key is None and not allow_without_key,
        )
        logging.getLogger("lavis_emovit.serving").setLevel(logging.INFO)
        socket.listen(MOST_CONNECTIONS)  # from now on, clients may connect
        shown_host = f"[{host}]" if ":" in host else host
        typer.echo(f"serving '{served.name}' at http://{shown_host}:{socket.getsockname()[1]}/v1", err=True)
        if tuned.questions.questions:
            typer.echo(f"question of the run: {tuned.question}", err=True)
        DrainingServer(make_app(served), batching).run(sockets=[socket])
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(served.counts.items()))
        typer.echo(f"stopped; requests: {counts or 'none'}", err=True)
        if batching.has_failed:
            raise typer.Exit(1)


def _key() -> SecretStr | None:
    key = os.environ.get(KEY_VARIABLE)
    if key is None:
        return None
    if not key.strip() or not all("!" <= character <= "~" for character in key):
        raise UserError(f"the environment variable {KEY_VARIABLE} is empty or has blanks; set a key, or unset it")
    return SecretStr(key)
