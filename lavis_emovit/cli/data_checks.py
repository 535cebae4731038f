"""`emovit data stats`, `verify` and `split`: count records, check their images, draw splits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from lavis_emovit.cli.data_import import DEFAULT_FRACTIONS, OverwriteOption, check_output, parse_fractions, writing
from lavis_emovit.errors import ConfigError, DataError, bullet_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lavis_emovit.records import EmotionRecord, Instruction
    from lavis_emovit.sources.checks import CheckedFile
    from lavis_emovit.sources.statistics import RecordStatistics

_MAX_PAIRS = 15
_BAR_WIDTH = 24

RecordsArgument = Annotated[
    list[Path], Argument(help="Records files, or folders with records.jsonl or in EmoSet's layout.")
]
ImagesOption = Annotated[
    list[Path] | None, Option(help="Folder of the image paths, if not the records'; once, or once per records file.")
]
NearOption = Annotated[int, Option(min=-1, max=16, help="Bits of 64 by which near duplicates may differ; -1: none.")]
WorkersOption = Annotated[int, Option(min=1, help="Processes that decode images.")]


def stats(
    records: RecordsArgument,
    json_out: Annotated[Path | None, Option("--json", help="Also write all counts as JSON.")] = None,
    strict: Annotated[bool, Option("--strict", help="Refuse unlabelled records, and labels without a record.")] = False,
) -> None:
    """Count records: splits, label balance, label pairs, ratings, action units."""
    from lavis_emovit.files import write_json
    from lavis_emovit.sources.contact_sheet import find_records
    from lavis_emovit.sources.statistics import NO_LABEL, count_records

    found: dict[str, Any] = {}
    problems = []
    for path in records:
        counted = count_records(all_records(find_records(path, opens_images=False)[0], path))
        found[str(path)] = counted.to_dict()
        typer.echo("\n".join(describe_counts(path, counted)))
        problems += [f"{path}: no record of '{label}'" for label in counted.absent()]
        unlabelled = counted.totals().get(NO_LABEL, 0)
        problems += [f"{path}: {unlabelled} records have no label"] if unlabelled else []
    if json_out is not None:
        write_json(json_out, found)
    if strict and problems:
        raise DataError(f"refused by --strict:\n{bullet_list(problems)}")


def verify(
    records: RecordsArgument,
    images: ImagesOption = None,
    near: NearOption = 2,
    workers: WorkersOption = 1,
    show: Annotated[int, Option(min=1, help="Findings of each kind to show.")] = 20,
    json_out: Annotated[Path | None, Option("--json", help="Also write all findings as JSON.")] = None,
    strict: Annotated[bool, Option("--strict", help="Refuse any finding, with exit code 2.")] = False,
) -> None:
    """Find missing and broken images, duplicates, and leaks between splits and between datasets."""
    from lavis_emovit.files import write_json
    from lavis_emovit.progress import progress
    from lavis_emovit.sources.checks import check_records
    from lavis_emovit.sources.statistics import wrong_answers

    files = checked_files(records, images, keep=wrong_answers)
    with progress("checking images") as display:
        report = check_records(files, near_bits=near_bits_of(near), num_workers=workers, progress=display.update)
    noun = "finding" if report.num_findings == 1 else "findings"
    typer.echo(f"{report.num_records} records with {report.num_images} images: {report.num_findings} {noun}")
    findings = {title.replace("picture", "image"): lines for title, lines in report.findings().items() if lines}
    for title, lines in findings.items():
        more = " (--show, --json)" if len(lines) > show else ""
        typer.echo(f"{title}: {len(lines)}\n{bullet_list(lines, show)}{more}")
    if report.exact or report.near or report.leaks:
        typer.echo("`emovit data clean` removes these records; `emovit data split` draws splits without leaks")
    if report.num_missing and report.num_missing == report.num_images:
        roots_used = ", ".join(sorted({str(file.image_root) for file in files}))
        hint = "check --images" if images else "pass the folder of the image paths with --images"
        typer.echo(f"none of the images is in {roots_used}: {hint}")
    if report.odd:
        typer.echo(f"special cases: {', '.join(f'{kind} ({count})' for kind, count in report.odd.most_common())}")
    if json_out is not None:
        write_json(json_out, {**report.findings(), "odd": dict(report.odd)})
    if strict and findings:
        kinds = ", ".join(f"{len(lines)} {title}" for title, lines in findings.items())
        raise DataError(f"refused by --strict: {kinds}")


def split(
    records: Annotated[Path, Argument(help="Records file.")],
    out: Annotated[Path, Option(help="Records file to write; image paths stay unchanged.")],
    overwrite: OverwriteOption = False,
    fractions: Annotated[str, Option(help="Shares of the splits.")] = DEFAULT_FRACTIONS,
    seed: Annotated[int, Option(help="Another seed gives other splits.")] = 0,
    stratify: Annotated[bool, Option(help="Give each split its share of every label.")] = True,
    group_by: Annotated[str | None, Option(help="Key of `extra` to use as the group, for example the person.")] = None,
    near: Annotated[
        int | None,
        Option(min=-1, max=16, help="Keep images in one split that differ in up to NEAR bits of 64; -1: exact copies."),
    ] = None,
    images: Annotated[Path | None, Option(help="Folder of the image paths, if not the records'; for --near.")] = None,
    workers: WorkersOption = 1,
    strict: Annotated[
        bool, Option("--strict", help="Refuse a split that lacks a label, or misses its share by 5 points.")
    ] = False,
) -> None:
    """Draw new splits: seeded, stratified by label, never dividing a group (a person, a video)."""
    from lavis_emovit.progress import progress
    from lavis_emovit.records import (
        RecordStore,
        find_image_root,
        image_root_of,
        read_records,
        write_records,
        write_summary,
    )
    from lavis_emovit.sources.checks import CheckedFile
    from lavis_emovit.sources.duplicates import join_groups
    from lavis_emovit.sources.splits import split_by_group
    from lavis_emovit.sources.statistics import count_records

    check_output(out, [records], overwrite=overwrite)
    found = all_records(read_records(records), records)
    if group_by is not None:
        groups: dict[str, str] = {}
        found = RecordStore(_grouped(record, group_by, groups) for record in found)
    shares = parse_fractions(fractions)
    image_root = find_image_root(records, images) if images or near is not None else image_root_of(records)
    joined: dict[str, str] = {}
    problems = []
    if near is not None:
        with progress("checking images") as display:
            file = CheckedFile(str(records), found, image_root)
            joined, num_unread = join_groups(file, near_bits_of(near), workers, display.update)
        if num_unread:
            problems.append(f"{num_unread} images cannot be read, so they were not compared")
    done = split_by_group(found, shares, seed, stratify=stratify, joined=joined)
    counted = count_records(done)
    for name, share in shares.items():
        got = counted.splits[name] / len(done)
        if abs(got - share) > 0.05:
            problems.append(f"split '{name}' has {got:.1%} instead of {share:.1%}, because groups are not divided")
        lacking = sorted(set(counted.totals()) - set(counted.labels.get(name, {})))
        if share > 0 and lacking:
            problems.append(f"split '{name}' has no record of {', '.join(lacking)}")
    if strict and problems:
        raise DataError(f"refused by --strict, nothing written:\n{bullet_list(problems)}")
    with writing(out, overwrite=overwrite):
        write_records(out, done)
        write_summary(out, image_root)
    typer.echo("\n".join(describe_counts(out, counted)))
    if joined:
        num_joined = len(joined) - len(set(joined.values()))
        typer.echo(f"  {num_joined} records or groups joined to another one that has duplicates of their images")
    for line in problems:
        typer.echo(f"  note: {line}")


def all_records(records: Iterable[EmotionRecord], path: Path) -> Sequence[EmotionRecord]:
    """The records in memory; refuses an empty file."""
    from lavis_emovit.records import RecordStore

    found = RecordStore(records)
    if not found:
        raise DataError(f"{path}: contains no records; create some with `emovit data import`")
    return found


def checked_files(
    paths: list[Path],
    images: list[Path] | None,
    keep: Callable[[EmotionRecord], Iterable[Instruction]] = lambda record: (),
) -> list[CheckedFile]:
    """The records of every file with the folder of their images; `--images` is given once, or once per file.

    Records have only the instructions that `keep` returns, none by default.
    """
    from lavis_emovit.sources.checks import CheckedFile
    from lavis_emovit.sources.contact_sheet import find_records

    roots: list[Path | None] = [*images] if images else [None]
    if len(roots) not in (1, len(paths)):
        raise ConfigError([f"{len(roots)} folders for {len(paths)} records files"], "--images")
    files = []
    for path, root in zip(paths, roots * len(paths)):
        found, image_root = find_records(path, root)
        # The questions take most of the memory.
        lean = (record.model_copy(update={"instructions": list(keep(record))}) for record in found)
        files.append(CheckedFile(str(path), all_records(lean, path), image_root))
    return files


def near_bits_of(near: int) -> int | None:
    return near if near >= 0 else None


def _grouped(record: EmotionRecord, key: str, groups: dict[str, str]) -> EmotionRecord:
    from lavis_emovit.settings import nearest_name
    from lavis_emovit.sources.base import group_name

    if key not in record.extra:
        raise DataError(f"record '{record.id}' has no extra '{key}'{nearest_name(key, list(record.extra))}")
    return record.model_copy(update={"group": group_name(record.extra[key], groups)})


def describe_counts(path: Path, counted: RecordStatistics) -> list[str]:
    from lavis_emovit.sources.statistics import describe_numbers

    splits = sorted(counted.splits)
    shares = ", ".join(f"{name} {counted.splits[name]} ({_share(counted.splits[name], counted)})" for name in splits)
    lines = [f"{path}: {counted.num_records} records of {len(counted.images)} images; {shares}"]
    for name, groups in sorted(counted.groups.items()):
        lines.append(f"  {len(groups)} groups in {name}")
    totals = counted.totals()
    wide = max(map(len, totals), default=0)
    lines.append("  " + "label".ljust(wide) + "".join(f"{name:>10}" for name in splits) + f"{'all':>10}")
    most = max(totals.values(), default=1)
    for label, count in sorted(totals.items()):
        cells = "".join(f"{counted.labels[name][label]:>10}" for name in splits)
        bar = "█" * max(1, round(_BAR_WIDTH * count / most))
        lines.append(f"  {label.ljust(wide)}{cells}{count:>10}  {bar} {_share(count, counted)}")
    ratio = counted.imbalance()
    if ratio is not None:
        lines.append(f"  the most frequent label has {ratio:.1f} times the records of the rarest")
    if counted.absent():
        lines.append(f"  no record of: {', '.join(counted.absent())}")
    if counted.together:
        pairs = counted.together.most_common(_MAX_PAIRS)
        lines.append("  label pairs (several labels, or votes for both):")
        lines += [f"    {count:>8}  {one} + {other}" for (one, other), count in pairs]
        if len(counted.together) > _MAX_PAIRS:
            lines.append(f"    ... and {len(counted.together) - _MAX_PAIRS} more pairs (--json)")
    for name, values in counted.ratings.items():
        d = describe_numbers(values)
        lines.append(
            f"  {name}: {d['count']} records, mean {d['mean']:+.3f}, std {d['std']:.3f}, "
            f"{d['min']:+.2f} to {d['max']:+.2f}"
        )
    for unit, (coded, present) in sorted(counted.action_units.items()):
        lines.append(f"  AU{unit:02d}: coded in {coded} records, present in {present} ({present / coded:.1%})")
    others = (
        (counted.num_votes, "records with shares of votes"),
        (counted.num_utterances, "utterances"),
        (counted.num_questions, "questions with answers"),
        (counted.num_statements, "statements"),
        (counted.num_boxes, "records with a box"),
        (counted.num_clips, "clips"),
        (counted.num_traces, "clips with values over time"),
        *((count, f"{kind} instructions") for kind, count in sorted(counted.instructions.items())),
    )
    return lines + [f"  {count} {what}" for count, what in others if count]


def _share(count: int, counted: RecordStatistics) -> str:
    return f"{count / max(counted.num_records, 1):.1%}"
