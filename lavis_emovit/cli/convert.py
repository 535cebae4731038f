"""`emovit convert`: convert weights between formats."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from lavis_emovit.errors import WeightsError
from lavis_emovit.paths import ARCHIVE_SUFFIX, expand_home, find_checkpoint

app = typer.Typer(help="Convert weights between LAVIS, transformers and checkpoints of runs.", add_completion=False)


@app.command()
def convert(
    source: Annotated[
        str,
        Argument(
            help="A LAVIS .pth file, a transformers folder or hub id, a run, its checkpoint folder or archive, a "
            "folder of peft, or a .safetensors file."
        ),
    ],
    target: Annotated[
        Path, Argument(help="*.pth: LAVIS format. *.safetensors: only trained tensors. Else: a transformers folder.")
    ],
    base: Annotated[
        str | None, Option(help="Model that trained tensors belong to, if no config.yaml names it, or if it has moved.")
    ] = None,
    llm_model: Annotated[str | None, Option(help="Folder or hub id of the language model of a .pth file.")] = None,
    qformer_tokenizer: Annotated[
        str | None, Option(help="vocab.txt, folder or hub id; by default bert-base-uncased.")
    ] = None,
    vision_weights: Annotated[str | None, Option(help="EVA encoder (eva_vit_g.pth), for a trimmed .pth file.")] = None,
    vision_heads: Annotated[int | None, Option(help="Attention heads of the image encoder, if not ViT-g.")] = None,
    qformer_heads: Annotated[int | None, Option(help="Attention heads of the Q-Former, if not BERT-base.")] = None,
    parts: Annotated[str, Option(help="For a .safetensors target: parts, as in model.trained_parts.")] = "emovit",
    trimmed: Annotated[bool, Option("--trimmed", help="For a .pth target: omit image encoder and LLM.")] = False,
    adapter: Annotated[
        bool, Option("--adapter", help="Write a folder of peft with the adapters of an image-text model.")
    ] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing target.")] = False,
) -> None:
    """Convert weights bit for bit, and report what was written, added and omitted."""
    from lavis_emovit.checkpoints.tuned_files import CARD_FILE, find_tuned, weights_under, write_export_file
    from lavis_emovit.files import atomic_writer
    from lavis_emovit.models.catalogue import converter_of

    given, tuned = expand_home(source), None
    if given.suffix == ARCHIVE_SUFFIX or find_checkpoint(given) is not None:
        tuned = find_tuned(given, base=base)
        source = str(tuned.checkpoint[0]) if tuned.checkpoint is not None else source
    converter = converter_of(source, base)
    if adapter and not hasattr(converter, "write_adapter"):
        raise WeightsError(f"--adapter: {source} is no image-text model of transformers; only those have such folders")
    with nullcontext() if tuned is None else weights_under(tuned):
        report = converter.convert(
            source, target, base=base, llm_model=llm_model, qformer_tokenizer=qformer_tokenizer,
            vision_weights=vision_weights, vision_heads=vision_heads, qformer_heads=qformer_heads, parts=parts,
            trimmed=trimmed, overwrite=overwrite, **({"adapter": True} if adapter else {}),
        )  # fmt: skip
    if tuned is not None and report.kind in ("transformers", "folder"):
        from lavis_emovit.tuned.card import model_card

        write_export_file(Path(report.target), tuned)
        card = Path(report.target) / CARD_FILE
        if card.exists():  # the base's own
            card.rename(card.with_name(f"base_{CARD_FILE}"))
        with atomic_writer(card) as file:
            file.write(model_card(tuned))
    typer.echo(f"wrote {report.target} ({report.kind}) from {report.source}")
    for part, count in report.parameters.items():
        typer.echo(f"  {part:<20} {count:>14,} parameters read")
    for title, lines in (("added", report.added), ("omitted", report.left_out)):
        if lines:
            typer.echo(f"{title} ({len(lines)}):")
            for line in lines[:20]:
                typer.echo(f"  {line}")
            if len(lines) > 20:
                typer.echo(f"  ... and {len(lines) - 20} more")
