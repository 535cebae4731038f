"""The steps of EmoVIT's instruction data: records in, records with instructions out."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from lavis_emovit.distributed.engine import Engine
from lavis_emovit.errors import ConfigError, DataError, bullet_list
from lavis_emovit.files import file_sha256
from lavis_emovit.generation.attributes import read_vocabulary, write_attributes
from lavis_emovit.generation.captions import write_captions
from lavis_emovit.generation.categorical import affect_instruction, categorical_instruction, is_affect_due
from lavis_emovit.generation.instructions import check_labels, with_instructions, write_kind
from lavis_emovit.generation.job import Job, StepResult
from lavis_emovit.generation.kinds import KINDS, TEMPLATES
from lavis_emovit.generation.mix import Mix, draw_mix
from lavis_emovit.generation.observations import OBSERVATIONS
from lavis_emovit.records import INSTRUCTION_KINDS, EmotionRecord, Instruction, read_records
from lavis_emovit.settings import nearest_name

_MAX_SHOWN = 5  # of overlapping images
_PURPOSES = {"captions": "caption", "attributes": "attributes"}  # step -> purpose of its requests
STEPS = ("captions", "attributes", *TEMPLATES, *KINDS)


def run_steps(
    job: Job,
    steps: Sequence[str],
    *,
    mix: Mix | None = None,
    allow_short: bool = False,
    captioner: str | None = None,
    redo_captions: bool = False,
    vocabulary: str | None = None,
    device: str = "cpu",
    engine: Engine | None = None,
    held_out: Sequence[Path] = (),
    check_overlap: bool = True,
) -> Iterator[StepResult]:
    """Run steps (names from `STEPS`, else ConfigError) one after the other and yield each result.

    Kinds that a chat model writes need captions and attributes. While these are in batches that are under way, the
    kinds are skipped; the next call resumes with them. Without a mix, every image of the split gets every kind.
    `check_overlap` rejects (DataError) images that get instructions and are also in another split or in the records
    files `held_out`. DataError also if the mix needs more images.
    """
    unknown = [f"unknown step '{step}'{nearest_name(step, list(STEPS))}" for step in steps if step not in STEPS]
    if unknown:
        raise ConfigError(unknown, "the steps")
    chosen = draw_mix(job.chosen(), mix, seed=job.settings.seed, allow_short=allow_short) if mix is not None else None
    ids = None if chosen is None else set(chosen)
    if check_overlap and job.settings.split is not None:
        refuse_held_out(job, ids, held_out)
    # Check everything before the first paid request.
    if any(step in INSTRUCTION_KINDS for step in steps):
        check_labels(job.chosen(ids))
    if "attributes" in steps:
        read_vocabulary(vocabulary)
    for step in steps:
        if job.chat is not None and step in KINDS:
            job.writer(job.chat, step)
        elif job.chat is not None and step in _PURPOSES:
            job.writer(job.chat, _PURPOSES[step])
    if job.judge is not None:
        job.writer(job.judge, "judge")
    facts_under_way = 0
    for step in steps:
        if facts_under_way and step in KINDS:
            # Without these captions and attributes the prompts would differ, and would be paid for again later.
            return
        if step == "captions":
            result = write_captions(job, ids, captioner=captioner, redo=redo_captions, device=device, engine=engine)
        elif step == "attributes":
            result = write_attributes(job, ids, vocabulary=vocabulary)
        else:
            of_step = None if chosen is None else {name for name, kinds in chosen.items() if step in kinds}
            result = write_kind(job, step, of_step) if step in KINDS else write_template(job, step, of_step)
        yield result
        facts_under_way += result.under_way if step in ("captions", "attributes") else 0
        if result.stopped:
            return


def write_template(job: Job, step: str, ids: Collection[str] | None = None) -> StepResult:
    """Write questions from templates into records that have the answers, in place of earlier ones.

    Args:
        step: one of `TEMPLATES`.
    """
    settings = job.settings
    chosen = job.chosen(ids)
    result = StepResult(step, f"template:{step}", num_records=len(chosen))
    for number, record in chosen.items():
        new: list[Instruction] = []
        if step in OBSERVATIONS:
            new = OBSERVATIONS[step](record, seed=settings.seed)
        elif step == "categorical" and record.emotion is not None:
            choices = settings.model_dump(include={"wordings", "option_order", "seed", "open_set"})
            new = [categorical_instruction(record, **choices)]
        elif step == "affect" and is_affect_due(record):
            new = [affect_instruction(record, seed=settings.seed, about=settings.about)]
        if new:
            job.put(number, with_instructions(record, step, new))
            result.num_done += 1
            result.num_pairs += len(new)
    result.num_read = result.num_pairs
    return result


def refuse_held_out(job: Job, ids: set[str] | None, held_out: Sequence[Path]) -> None:
    """Reject records that get instructions and are also in another split or in further files (DataError)."""
    training = job.chosen(ids)
    others = job.records.where(lambda record: record.split != job.settings.split)
    refuse_overlap(training, others, job.image_root, job.image_root)
    for path in held_out:
        refuse_overlap(training, read_records(path), job.image_root, path.parent)


def refuse_overlap(
    training: Sequence[EmotionRecord], held_out: Iterable[EmotionRecord], image_root: Path, held_out_root: Path
) -> None:
    """Compare the images that get instructions with held-out images. DataError names the first ones that are in both.

    Only files of the same size are read. Groups (persons) are compared within one source.
    """
    found: list[str] = []
    ids: set[str] = set()
    groups: set[tuple[str, str | None]] = set()
    by_size: dict[int, array[int]] = defaultdict(partial(array, "I"))  # size of the file -> places in `training`
    for place, record in enumerate(training):
        ids.add(record.id)
        groups.add((record.source, record.group_key))
        path = image_root / record.image
        if path.is_file():
            by_size[path.stat().st_size].append(place)
    sha256 = cache(file_sha256)
    for record in held_out:
        name = f"'{record.id}' ({record.split})"
        if record.id in ids:
            found.append(f"{name} is also in the training data")
            continue
        if record.group is not None and (record.source, record.group_key) in groups:
            found.append(f"{name} belongs to group '{record.group}', which is also in the training data")
            continue
        path = held_out_root / record.image
        if not path.is_file():
            continue
        for place in by_size.get(path.stat().st_size, ()):
            other = image_root / training[place].image
            if other.samefile(path) or sha256(path) == sha256(other):
                found.append(f"{name} is the same image as '{training[place].id}'")
                break
    if found:
        raise DataError(
            f"{len(found)} held-out images overlap with the training data:\n{bullet_list(found, _MAX_SHOWN)}\n"
            "Remove them from one of the two, or split again (`emovit data import ... --split-seed`)."
        )
