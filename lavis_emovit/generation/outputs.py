"""Output files of a job: records, summary, manifest with hashes, LLaVA-style JSON, and the preview."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2

from lavis_emovit.chat.ledger import now
from lavis_emovit.chat.request import image_of
from lavis_emovit.clips.reading import film_strip
from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer, file_sha256, load_json, regular_file, write_json
from lavis_emovit.generation.checks import REASONS
from lavis_emovit.generation.facts import ALL_FACTS, fact
from lavis_emovit.generation.instructions import step_of
from lavis_emovit.generation.job import Job, StepResult
from lavis_emovit.generation.mix import Mix
from lavis_emovit.generation.seke.levels import MARK
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.images import data_url
from lavis_emovit.own_files import Written, read_own_if_any
from lavis_emovit.paths import RECORDS_NAME
from lavis_emovit.records import EmotionRecord, read_records, to_conversations

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"
MANIFEST = "manifest.json"
CONVERSATIONS = "conversations-{split}.json"
PREVIEW = "preview.html"
# Of a step in the summary; `faults` is missing in summaries of the first release.


class _Step(Written):
    """The result of a step in the summary."""

    step: str
    writer: str
    prompt: str
    num_records: int
    num_done: int
    num_pairs: int
    num_read: int
    reasons: dict[str, int]
    num_rejected: int
    missing: dict[str, int]
    under_way: int
    stopped: str | None
    notes: dict[str, Any]
    leak_rate: float | None


class _Summary(Written):
    """The file `summary.json`, as far as it is read."""

    steps: list[_Step]


def write_outputs(
    job: Job,
    results: Sequence[StepResult],
    *,
    source: Path,
    source_sha256: str,
    mix: tuple[str, Mix] | None = None,
    seke: SekeSettings | None = None,
    conversations: bool = False,
    num_preview: int = 24,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write all output files of a job; the summary keeps the results of earlier runs in the same folder.

    `source_sha256` is the hash of the input records before they were replaced. `num_preview` 0 writes no preview page.
    `more` is added to the manifest.
    """
    _keep_earlier(job, results)
    with atomic_writer(job.folder / RECORDS_NAME) as file:
        file.writelines(job.records.lines())
    outputs = [RECORDS_NAME]
    if conversations:
        # One file for each split, so that nobody trains on the test images.
        for split in job.records.splits():
            outputs.append(CONVERSATIONS.format(split=split))
            with atomic_writer(job.folder / outputs[-1]) as file:
                file.writelines(_conversations(job.records.of_split(split)))
    by_name = _read_steps(job.folder / SUMMARY)
    for result in results:
        by_name[result.step] = {
            **vars(result),
            "reasons": dict(result.reasons.most_common()),
            "missing": dict(result.missing),
            "leak_rate": result.leak_rate,
        }
    steps = list(by_name.values())
    ledger = job.ledger
    costs = {
        "attempts": dict(ledger.counts),
        "tokens": dict(ledger.tokens),
        "usd": round(ledger.usd_spent, 6),
        "usd_in_doubt": round(ledger.usd_in_doubt, 6),
    }
    image_root = str(job.image_root.resolve())
    write_json(job.folder / SUMMARY, {"image_root": image_root, "steps": steps, "ledger": costs})
    manifest = {
        "made_by": f"lavis-emovit {version('lavis-emovit')}",
        "created": now(),
        "input": {"records": source.name, "sha256": source_sha256},
        "output": {name: {"sha256": file_sha256(job.folder / name)} for name in outputs},
        "settings": job.settings.model_dump(mode="json"),
        "chat": job.chat.model_dump(mode="json") if job.chat else None,
        "judge": job.judge.model_dump(mode="json") if job.judge else None,
        "mix": {"name": mix[0], **mix[1].model_dump(mode="json")} if mix else None,
        "seke": seke.model_dump(mode="json") if seke else None,
        "prompts": {step["step"]: step["prompt"] for step in steps if step["prompt"]},
        "instructions": count_instructions(job),
        **(more or {}),
    }
    write_json(job.folder / MANIFEST, manifest)
    if num_preview:
        _write_preview(job, steps, source, num_preview)


def _conversations(records: Iterable[EmotionRecord]) -> Iterator[str]:
    """The text of `json.dumps(to_conversations(records), indent=1)`, in pieces."""
    opening = "[\n "
    for record in records:
        for item in to_conversations([record]):
            yield opening + json.dumps(item, ensure_ascii=False, indent=1).replace("\n", "\n ")
            opening = ",\n "
    yield "\n]" if opening.startswith(",") else "[]"


def _keep_earlier(job: Job, results: Sequence[StepResult]) -> None:
    """Fill the gaps of a run that got no reply for some records with what an earlier run wrote into the folder.

    So a stopped run removes nothing. Texts that this run has requested again and got a reply for are not restored.
    """
    path = job.folder / RECORDS_NAME
    if job.chat is None or not path.is_file():
        return
    is_stopped = any(result.stopped or result.under_way for result in results)
    if not is_stopped and not any(result.missing for result in results):
        return
    num_kept = 0
    try:
        for earlier in read_records(path):
            number = job.records.find(earlier.id)
            record = None if number is None else job.records.get(number)
            if number is None or record is None or record.image != earlier.image:
                continue
            if job.settings.split in (None, record.split):
                filled = _filled(number, record, earlier, job, is_stopped)
                if filled != record:
                    job.records.put(number, filled)
                    num_kept += 1
    except DataError as error:
        logger.warning("the texts of an earlier run cannot be kept: %s", error)
        return
    if num_kept:
        logger.warning("%d records keep texts of an earlier run, because this run got no reply for them", num_kept)


def _filled(number: int, record: EmotionRecord, earlier: EmotionRecord, job: Job, is_stopped: bool) -> EmotionRecord:
    if not job.processed[number] and f"{MARK}given" in {*earlier.extra} - {*record.extra}:
        return earlier  # levels of a face that the run did not finish

    def is_gap(purpose: str) -> bool:
        """Whether a reply is missing: it was requested in vain, or the run stopped before it was."""
        state = job.replied[purpose][number] if purpose in job.replied else 0
        return state == 1 or (state == 0 and is_stopped)

    written = {None, *map(step_of, record.instructions)}
    more = [item for item in earlier.instructions if (step := step_of(item)) not in written and is_gap(str(step))]
    changes: dict[str, Any] = {"instructions": [*record.instructions, *more]}
    if record.caption is None and is_gap("caption"):
        changes["caption"] = earlier.caption
    if is_gap("attributes"):
        known = {name: value for name, value in record.attributes.model_dump().items() if value is not None}
        changes["attributes"] = earlier.attributes.model_copy(update=known)
    return record.model_copy(update=changes)


def count_instructions(job: Job) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for record in job.records:
        for instruction in record.instructions:
            counts.setdefault(instruction.kind, Counter())[record.emotion or "none"] += 1
    return {kind: dict(sorted(by_class.items())) for kind, by_class in sorted(counts.items())}


def ledger_line(job: Job) -> str:
    """Requests, tokens and cost of the whole ledger, in one sentence."""
    ledger = job.ledger
    if not ledger.counts:
        return "No paid request was made."
    doubt = f", of which up to ${ledger.usd_in_doubt:.4f} is uncertain" if ledger.usd_in_doubt else ""
    return (
        f"The ledger contains {sum(ledger.counts.values())} calls with {ledger.tokens['input']} input tokens "
        f"({ledger.tokens['cached']} of them cached) and {ledger.tokens['output']} output tokens, "
        f"${ledger.usd_spent:.4f} in total{doubt}."
    )


def check_folder(folder: Path) -> None:
    """Check before any request that a job can write into a folder. DataError names what is in the way."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: this is a file; pass a folder for the results")
    conversations = [CONVERSATIONS.format(split=split) for split in ("train", "val", "test")]
    for name in (RECORDS_NAME, SUMMARY, MANIFEST, PREVIEW, *conversations):
        if (folder / name).is_dir():
            raise DataError(f"{folder / name}: this is a folder, but a file must be written here; move it away")
    _read_steps(folder / SUMMARY)


def check_records(job: Job) -> None:
    """Check before any request that a job replaces no records of another file. DataError names one of these."""
    path = job.folder / RECORDS_NAME
    first: str | None = None
    try:
        for earlier in read_records(path) if path.is_file() else ():
            if job.records.find(earlier.id) is not None:
                return
            first = first or earlier.id
    except DataError:
        return  # damaged; writing the results warns about it
    if first is not None:
        raise DataError(
            f"{path}: has the results of other records, such as '{first}', which would be lost; use another --out"
        )


def _read_steps(path: Path) -> dict[str, dict[str, Any]]:
    found = read_own_if_any(path, _Summary, "If it is not of this command, move it away.")
    return {} if found is None else {step.step: step.model_dump() for step in found.steps}


_SIDE_PX = 420
_NUM_REJECTED = 24


def _write_preview(job: Job, steps: Sequence[dict[str, Any]], source: Path, num_images: int) -> None:
    """Write the page as one HTML file that contains its images."""
    rng = random.Random(f"preview/{job.settings.seed}")
    processed = job.records.numbered(lambda number: bool(job.processed[number]))
    written = processed.where(lambda record: bool(record.instructions)) or processed
    drawn = [written[place] for place in rng.sample(range(len(written)), min(num_images, len(written)))]
    num_instructions = sum(len(record.instructions) for record in job.records)
    subtitle = (
        f"{len(job.records)} records, {num_instructions} instructions. This run processed {len(processed)} records; "
        "the images below are from these."
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lavis_emovit.generation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    html = environment.get_template("preview.html.jinja").render(
        title=f"Instruction data of {source.parent.name or source.name}",
        subtitle=subtitle,
        costs=ledger_line(job),
        steps=steps,
        meanings=REASONS,
        cards=[_card(record, job.image_root) for record in drawn],
        rejected=_draw_rejected(job.folder / "rejected", rng),
    )
    with atomic_writer(job.folder / PREVIEW) as file:
        file.write(html)


def _card(record: EmotionRecord, image_root: Path) -> dict[str, Any]:
    path = image_root / record.image
    try:
        if record.clip is not None:
            image = data_url(film_strip(path, record.clip, _SIDE_PX // 2, root=image_root, num_rows=2))
        else:
            image = image_of(path, _SIDE_PX, 80).data_url()
    except (DataError, OSError):
        image = None
    return {
        "id": record.id,
        "image": image,
        "alt": record.caption or f"image of {record.id}",
        "emotion": record.emotion or "no emotion",
        "facts": [
            *((name.replace("_", " "), value) for name in ALL_FACTS[1:] if (value := fact(record, name))),
            *_levels(record),
        ],
        "pairs": record.instructions,
    }


def _levels(record: EmotionRecord) -> list[tuple[str, str]]:
    """Valence, arousal and action units, and the source of each level."""
    found = [(name, f"{value:.2f}") for name in ("valence", "arousal") if (value := getattr(record, name)) is not None]
    if record.action_units:
        active = [str(unit) for unit, is_active in sorted(record.active_units().items()) if is_active]
        found.append(("action units", f"{', '.join(active) or 'none'}, of {len(record.action_units)}"))
    by = ((level, record.extra.get(f"seke_{level}_by")) for level in ("expression", "affect", "units"))
    return found + [(f"{level} by", str(name)) for level, name in by if name is not None]


def _draw_rejected(folder: Path, rng: random.Random) -> list[dict[str, Any]]:
    """A uniform random choice from all files by reservoir sampling, since the files may be large."""
    drawn: list[str] = []
    number = 0
    for path in sorted(folder.glob("*.jsonl")):
        with regular_file(path).open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if number < _NUM_REJECTED:
                    drawn.append(line)
                elif (place := rng.randint(0, number)) < _NUM_REJECTED:
                    drawn[place] = line
                number += 1
    return [row for row in map(_row, drawn) if row is not None]


def _row(line: str) -> dict[str, Any] | None:
    """The row of a rejected text, or None if somebody edited it into something else."""
    try:
        row = load_json(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("reasons"), list):
        return None
    return dict.fromkeys(("record", "kind", "question", "answer", "reply", "detail")) | row
