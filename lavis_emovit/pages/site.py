"""What all pages share: their look, and a server that is local, bounded and silent towards the network."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.resources import files
from typing import Any, Protocol

from lavis_emovit.distributed.environment import environment
from lavis_emovit.errors import UserError
from lavis_emovit.pages.uploads import MAX_BYTES

MODEL_QUEUE = "model"
"""Events with this `concurrency_id` run one after another, because they use the model."""

KEPT_S = (600, 3600)
"""Every ten minutes, uploaded files that are older than an hour are deleted."""

_BUTTONS_BY_KEYS = """
let decided = null;  // the panel's turn: a key pressed before the next panel is there does not decide this one again
const decide = button => {
  const turn = element.querySelector("[data-turn]").dataset.turn;
  if (turn === decided || button.disabled) return;
  decided = turn;
  trigger("decide", {...button.dataset});
};
element.addEventListener("click", event => {
  const button = event.target.closest("button[data-action]");
  if (button) decide(button);
});
document.addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  const button = element.querySelector(`button[aria-keyshortcuts="${CSS.escape(event.key)}" i]`);
  if (button) { event.preventDefault(); decide(button); }
});
"""
"""The script of a panel with `button[data-action]`: a click, or the key that a button names, triggers `decide`."""

_MAX_VISITS = 100  # whose images are in memory

# Gradio also takes settings from the environment; None: as if the variable were not set.
_ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    **dict.fromkeys(
        ("GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_MCP_SERVER", "GRADIO_VIBE_MODE", "GRADIO_WATCH_DIRS")
    ),
}


def import_gradio() -> Any:
    """The module `gradio`, without its telemetry. UserError if it is not installed."""
    with environment({"GRADIO_ANALYTICS_ENABLED": "False"}):
        try:
            import gradio
        except ImportError:
            raise UserError("pages need gradio: pip install 'lavis-emovit[demo]'") from None
    return gradio


@contextmanager
def served(build: Callable[[], Any], *, host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """The address of a page while the block runs.

    Uploaded files are kept in a temporary folder until the end. No other file of this machine is served.

    Args:
        build: makes the page, a `gradio.Blocks`.
        port: None: the first free one from 7860.

    Raises:
        UserError: the port is taken, or the host is none of this machine.
    """
    import_gradio()
    with (
        tempfile.TemporaryDirectory(prefix="emovit-page-") as folder,
        environment({**_ENVIRONMENT, "GRADIO_TEMP_DIR": folder}),
    ):
        page = build()
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=False,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                run_history=False,
                allowed_paths=[],
                max_file_size=MAX_BYTES,
                state_session_capacity=_MAX_VISITS,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                theme=_theme(),
                css=_css(),
            )
        except OSError as error:
            raise UserError(f"the page cannot be served at {host}, port {port or 'any'}: {error}") from None
        try:
            yield address
        finally:
            page.close(verbose=False)


def wait_for_stop() -> None:
    """Wait for Ctrl+C or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()


def on_event(function: Callable[..., Iterator[Any]], *names: str) -> Any:
    """A generator that calls another with these values of an event, as Gradio recognises it: by its annotation."""

    def called(event: Any) -> Iterator[Any]:
        yield from function(*(getattr(event, name) for name in names))

    called.__annotations__ = {"event": import_gradio().EventData}
    return called


class DecisionEvents(Protocol):
    """What happens on a page of decisions; each event gives the panel and the status."""

    def begin(self) -> tuple[str, str]: ...

    def decided(self, number: str, action: str, label: str) -> Iterator[tuple[str, str]]: ...


def decision_page(title: str, head: str, events: DecisionEvents) -> Any:
    """A page that shows one panel with buttons after another; a `gradio.Blocks` that is not served yet.

    Args:
        head: HTML of its top, see `parts.header`.
    """
    gradio = import_gradio()
    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        html = partial(gradio.HTML, apply_default_css=False)
        html(head)
        status = html(html_template='<p class="status" role="status">${value}</p>', value="")
        panel = html(js_on_load=_BUTTONS_BY_KEYS, elem_id="panel")
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        page.load(events.begin, None, [panel, status], **quiet)
        names = ("number", "action", "label")
        panel.decide(on_event(events.decided, *names), None, [panel, status], concurrency_limit=1, **quiet)
    return page


@cache
def _css() -> str:
    return (files("lavis_emovit.pages") / "templates" / "pages.css").read_text(encoding="utf-8")


def _theme() -> Any:
    """The base theme with fonts of the system, since others would come from the network, and our colours."""
    gradio = import_gradio()
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif")
    mono = ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
    theme = gradio.themes.Base(font=sans, font_mono=mono, radius_size="md")
    colours = {
        "body_background_fill": "paper",
        "body_text_color": "ink",
        "body_text_color_subdued": "muted",
        "block_background_fill": "card",
        "block_border_color": "rule",
        "block_label_text_color": "muted",
        "block_title_text_color": "ink",
        "border_color_primary": "rule",
        "input_background_fill": "paper",
        "input_border_color": "rule",
        "input_placeholder_color": "muted",
        "button_primary_background_fill": "accent",
        "button_primary_background_fill_hover": "accent",
        "button_primary_text_color": "on-accent",
        "button_secondary_background_fill": "soft",
        "button_secondary_background_fill_hover": "rule",
        "button_secondary_text_color": "ink",
        "checkbox_background_color_selected": "accent",
        "checkbox_border_color_selected": "accent",
    }
    both = {name: f"var(--{colour})" for name, colour in colours.items()}
    return theme.set(**both, **{f"{name}_dark": value for name, value in both.items()})
