"""`emovit demo`: a page on which people try a tuned model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from lavis_emovit.cli.options import AmpOption, BaseOption, DeviceOption, HostOption, PortOption
from lavis_emovit.errors import UserError

app = typer.Typer(help="Show a page on which people try a tuned model.", add_completion=False)


@app.command()
def demo(
    model: Annotated[str, Argument(help="Folder of a run, a checkpoint, an exported folder, or an archive.")],
    compare: Annotated[str | None, Option(help="A second model, whose answers appear beside the first.")] = None,
    base: BaseOption = None,
    compare_base: Annotated[str | None, Option(help="The same for the second model.")] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = None,
    labels: Annotated[
        str | None, Option(help="Label set to choose from instead of the run's, such as 'labels: calm, tense'.")
    ] = None,
    threshold: Annotated[
        float | None,
        Option(min=0.0, max=1.0, help="Give no label below this confidence, calibrated on the validation split."),
    ] = None,
    examples: Annotated[
        str | None, Option(help="Images, records or shards to offer as examples; by default the test split of the run.")
    ] = None,
    image_root: Annotated[
        Path | None, Option(help="Folder of the image paths of records among the examples, if not theirs.")
    ] = None,
    corrections: Annotated[Path, Option(help="Folder in which corrected labels are kept as records.")] = Path(
        "corrections"
    ),
    device: DeviceOption = "auto",
    amp: AmpOption = "off",
) -> None:
    """Show a page on which people try a tuned model.

    They choose an image and see its labels with probabilities, valence and arousal, and why. No network is needed.
    """
    from lavis_emovit import load_tuned
    from lavis_emovit.boxes import ONLY_WHOLE, shows_both
    from lavis_emovit.pages.answers import page_models
    from lavis_emovit.pages.demo import demo_page
    from lavis_emovit.pages.examples import examples as find_examples
    from lavis_emovit.pages.site import import_gradio, served, wait_for_stop

    import_gradio()  # before any model is loaded
    if compare is None and compare_base is not None:
        raise UserError("--compare-base belongs to --compare")
    if examples is None and image_root is not None:
        raise UserError("--image-root belongs to --examples")
    places = [(model, base)] if compare is None else [(model, base), (compare, compare_base)]
    load = partial(load_tuned, device=device, amp=amp, labels=labels)
    tuned = [load(place, base=weights) for place, weights in places]
    for one in tuned:
        if shows_both(one.box):
            typer.echo(f"note: {one.files.location}: {ONLY_WHOLE}", err=True)
    models = page_models(tuned, threshold)
    with_clips = all(one.adapter.reads_clips for one in tuned)
    if with_clips and not all(one.reads_videos for one in models):
        typer.echo("note: the page takes no videos without PyAV: pip install 'lavis-emovit[clips]'", err=True)
    shown = find_examples(tuned[0], examples, image_root, with_clips=with_clips)
    with served(lambda: demo_page(models, shown, corrections), host=host, port=port) as address:
        typer.echo(f"the page is at {address}; Ctrl+C ends it")
        wait_for_stop()
