"""`emovit generate statements`: true and false statements about the emotion of images, and their review by people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from lavis_emovit.cli.generate_job import JobOptions, describe, finish, open_job, print_estimates, read_step
from lavis_emovit.errors import ConfigError, DataError, UserError


def statements(
    options: JobOptions,
    *,
    proposer: Annotated[
        list[str] | None, Option(help="Further chat model that proposes words, at the same address; repeat it.")
    ] = None,
    regenerate: Annotated[int | None, Option(help="Further attempts for rejected replies.")] = None,
    least_share: Annotated[float | None, Option(help="Share of the models that must propose an emotion.")] = None,
    num_words: Annotated[int | None, Option(help="Words that an image keeps.")] = None,
    attachments: Annotated[
        Path | None, Option(help="JSON file: word -> secondary emotion of Parrott's tree, for words without a place.")
    ] = None,
    num_reviewed: Annotated[int | None, Option(help="Statements in the table for people.")] = None,
) -> None:
    """Several models propose words of emotion, votes decide, and true and false statements are written."""
    from lavis_emovit.generation.statements.step import PACK, TRAIL, StatementSettings, make_statements

    chosen = {
        "least_share": least_share, "num_words": num_words, "num_reviewed": num_reviewed,
        "attachments": str(attachments) if attachments else None,
    }  # fmt: skip
    chat, job_settings, settings, problems = read_step(options, StatementSettings, "statements", chosen, regenerate)
    if chat is None:
        problems.append("statements need a chat model that sees the images; add --model")
    names = [*(chat.model for chat in (chat,) if chat is not None), *(proposer or ())]
    if len(set(names)) < len(names):
        problems.append(f"--proposer: every model proposes once, but got {', '.join(names)}")
    if problems or settings is None or chat is None:
        raise ConfigError(problems, "the settings of this command")
    models = [chat.model_copy(update={"model": name}) for name in names]
    with open_job(options, job_settings, chat=chat, images_for="the model") as (job, source_sha256):
        result = make_statements(job, models, settings)
        if options.dry_run:
            print_estimates(job)
            return
        typer.echo(describe(result))
        more = {"statements": {**settings.model_dump(mode="json"), "models": names}}
        finish(job, options, [result], source_sha256=source_sha256, also=(TRAIL, PACK), more=more)


def statements_reviewed(
    records: Annotated[Path, Argument(help="records.jsonl of `emovit generate statements`.")],
    tables: Annotated[list[Path], Argument(help="Copies of review.csv, filled in by one person each.")],
    out: Annotated[Path, Option(help="New records file with the statements on which people agree.")],
    least_share: Annotated[float, Option(min=0.5, max=1.0, help="Share of people who must agree.")] = 0.8,
    least_people: Annotated[int | None, Option(min=1, help="Fewer answers drop a statement; by default all.")] = None,
) -> None:
    """Keep the statements on which people agree, with the truth that they decided."""
    from lavis_emovit.generation.statements.review import decide, read_answers
    from lavis_emovit.records import image_root_of, read_records, write_records, write_summary

    if out.exists():
        raise DataError(f"{out}: already exists; use another --out")
    if least_people is not None and least_people > len(tables):
        raise UserError(f"--least-people {least_people} is more than the {len(tables)} tables")
    if len({table.resolve() for table in tables}) < len(tables):
        raise UserError("a table is given twice, but each one has the answers of another person; name each once")
    answers = [read_answers(table) for table in tables]
    decided, counts = decide(
        list(read_records(records)), answers, least_share=least_share, least_people=least_people or len(tables)
    )
    if not decided:
        raise UserError(f"people agree on no statement ({dict(counts)}), so nothing was written")
    write_records(out, decided)
    write_summary(out, image_root_of(records))
    typer.echo(
        f"{counts['kept']} statements of {len(decided)} images kept, {counts['changed']} of them with another truth; "
        f"dropped: {counts['disputed']} disputed, {counts['too_few_answers']} with too few answers"
    )
    typer.echo(str(out))
