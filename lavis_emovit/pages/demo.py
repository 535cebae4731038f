"""The page of `emovit demo`: an image, and what tuned models say about it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lavis_emovit.pages import parts
from lavis_emovit.pages.answers import MAX_QUESTION_CHARACTERS, PageModel
from lavis_emovit.pages.decisions import MAX_NAME_CHARACTERS
from lavis_emovit.pages.demo_events import DemoEvents, DemoParts
from lavis_emovit.pages.examples import Example
from lavis_emovit.pages.site import KEPT_S, MODEL_QUEUE, import_gradio, on_event

WARNING = (
    "What a person feels cannot be read off an image. The answers say which label people would probably give; do not "
    "use them to judge, select or watch anybody."
)
_LEDE = "Choose {}. The model gives a label, valence and arousal, and says why."
_FILE_TYPES = ["image", ".heic", ".heif", ".avif"]
_PICK = """
element.addEventListener("click", event => {
  const button = event.target.closest("button[data-number]");
  if (button) trigger("pick", {number: Number(button.dataset.number)});
});
"""


def demo_page(models: Sequence[PageModel], examples: Sequence[Example] = (), corrections: Path | None = None) -> Any:
    """The page for one model, or for several side by side; a `gradio.Blocks` that is not served yet.

    Args:
        corrections: folder in which corrected labels are kept; None: nothing can be corrected.
    """
    gradio = import_gradio()
    names = " and ".join(model.name for model in models)
    labels = models[0].label_set
    takes_videos = all(model.reads_videos for model in models)
    lede = _LEDE.format("an image or a short video" if takes_videos else "an image")
    with gradio.Blocks(title=f"{names} · EmoVIT", analytics_enabled=False, delete_cache=KEPT_S) as page:
        html = partial(gradio.HTML, apply_default_css=False)
        # A live region that stays in the page, so that screen readers announce each change of its text.
        live = partial(html, html_template='<p class="status" role="status">${value}</p>', value="")
        html(parts.header("EmoVIT demo", "What does this image express?", lede, WARNING))
        chosen = gradio.State(None, time_to_live=KEPT_S[1])
        with gradio.Row(equal_height=False):
            with gradio.Column(min_width=300, scale=4, elem_classes="stays"):
                # `gradio.Image` would open the file before our decoder does, and Gradio writes a stub file into this
                # folder for a subclass of it (findings/gradio_component_subclass_leaves_a_stale_stub.sh).
                kind, types = ("Image or video", [*_FILE_TYPES, "video"]) if takes_videos else ("Image", _FILE_TYPES)
                upload = gradio.File(label=kind, file_types=types, type="binary", height=150, elem_id="upload")
                shown = html(elem_id="shown")
                status = live()
                gallery = html(parts.gallery(examples), js_on_load=_PICK) if examples else None
            numbers, reasons, looks = [], [], []
            for place, model in enumerate(models):
                with gradio.Column(min_width=300, scale=5):
                    numbers.append(html(parts.empty(model), elem_id=f"numbers-{place}"))
                    reasons.append(html(elem_id=f"reasons-{place}"))
                    looks.append(html(elem_id=f"looks-{place}"))
        with gradio.Row(equal_height=False, elem_classes="asking"):
            question = gradio.Textbox(
                label="Your own question about the image",
                placeholder="What in this image looks calm?",
                max_length=MAX_QUESTION_CHARACTERS,
                scale=5,
                min_width=280,
                elem_id="question",
            )
            ask = gradio.Button("Ask", variant="primary", scale=1, min_width=120, elem_id="ask")
        with gradio.Row(equal_height=False):
            replies = [html(elem_id=f"reply-{place}", min_width=300) for place in range(len(models))]

        correcting = []
        if corrections is not None and labels is not None:
            with gradio.Column(elem_classes="correcting"):
                html(parts.correction_head(corrections))
                label = gradio.Radio(list(labels.labels), label="The right label", elem_id="label")
                with gradio.Row(equal_height=False, elem_classes="asking"):
                    person = gradio.Textbox(
                        label="Your name", max_length=MAX_NAME_CHARACTERS, scale=5, min_width=280, elem_id="person"
                    )
                    save = gradio.Button("Save correction", scale=1, min_width=180, elem_id="save")
                saved = live(elem_id="saved")
                correcting = [label, saved]

        events = DemoEvents(models, examples, corrections)
        events.connect(DemoParts(upload, chosen, shown, status, numbers, reasons, looks, replies, correcting))
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        once: dict[str, Any] = {**quiet, "concurrency_id": MODEL_QUEUE, "concurrency_limit": 1}
        upload.upload(events.about_image, upload, events.outputs, **once)
        upload.clear(events.cleared, None, events.outputs, **quiet)
        for event in (ask.click, question.submit):
            event(events.to_question, [chosen, question], [status, *replies], **once)
        if gallery is not None:
            gallery.pick(on_event(events.about_example, "number"), None, [upload, *events.outputs], **once)
        if correcting:
            save.click(events.corrected, [chosen, label, person], saved, **quiet)
    return page
