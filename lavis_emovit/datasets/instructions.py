"""Generated instructions for the records of a dataset: written offline, or joined from a folder of `emovit generate`.

The dataset's own records stay as they are; only their instructions come from elsewhere, joined by id. Instructions that
belong to other images, labels or splits are refused.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_emovit.chat.ledger import LEDGER_NAME, Ledger
from lavis_emovit.datasets.settings import CategoricalSettings, InstructionSettings, OfflineSettings
from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import file_sha256
from lavis_emovit.generation.categorical import categorical_instruction
from lavis_emovit.generation.job import Job, JobSettings, StepResult
from lavis_emovit.generation.job_records import JobRecords
from lavis_emovit.generation.mix import MIXES, Mix, draw_mix
from lavis_emovit.generation.outputs import write_outputs
from lavis_emovit.generation.pipeline import run_steps
from lavis_emovit.paths import RECORDS_NAME, expand_home
from lavis_emovit.progress import progress
from lavis_emovit.records import INSTRUCTION_KINDS, EmotionRecord, Instruction, read_records, write_records

logger = logging.getLogger(__name__)

TRAIN = "train"
_MAX_EXAMPLES = 3
# Fields that must be equal; generation may fill in others.
_COMPARED = ("image", "split", "label_set", "emotion", "labels", "valence", "arousal", "box")


def generated_file(place: str) -> Path:
    """The records file of a folder of `emovit generate`, or the file itself."""
    path = expand_home(place)
    return path if path.is_file() or path.suffix == ".jsonl" else path / RECORDS_NAME


def how_to_generate(name: str, kinds: Sequence[str] = (), mix: Mix | None = None) -> str:
    """The commands that write instructions for a dataset, and the setting that uses them."""
    out = f"data/{name}_generated"
    named = [f" --mix {key}" for key, known in MIXES.items() if mix is not None and mix.parts == known.parts]
    steps = [*kinds] if kinds else ["all"]
    sources = [RECORDS_NAME, *[f"{out}/{RECORDS_NAME}"] * (len(steps) - 1)]
    options = "".join(named) if not kinds else ""
    lines = [f"`emovit generate {step} {source} --out {out}{options}`" for step, source in zip(steps, sources)]
    return (
        f"Write them with `emovit data import {name} FOLDER --no-categorical --out records.jsonl` and "
        f"{', '.join(lines)}, and set datasets.{name}.build_info.prepare.instructions={out}."
    )


def write_offline(
    records: Path, image_root: Path, folder: Path, settings: OfflineSettings, categorical: CategoricalSettings | None
) -> Path:
    """Run the steps of `emovit generate all` without a model, and return the records file in `folder`.

    Raises:
        DataError: a training image is also in another split, or a label is not in its label set.
    """
    wanted = [kind for kind in INSTRUCTION_KINDS if kind in settings.kinds]
    steps = ("captions", "attributes", *wanted)
    wordings = categorical.model_dump(include={"wordings", "option_order"}) if categorical is not None else {}
    with Ledger(folder / LEDGER_NAME) as ledger:
        job_settings = JobSettings(seed=settings.seed, **wordings)
        job = Job(read_records(records), image_root, folder, ledger, job_settings)
        results: list[StepResult] = []
        # The training split comes last: its rejected texts are those in the folder.
        for split in sorted(job.records.splits(), key=lambda name: name == TRAIN):
            job.settings = job_settings.model_copy(update={"split": split})
            with progress(f"writing instructions for {split}", len(steps)) as line:
                results = []
                overlap = settings.check_overlap and split == TRAIN
                for result in run_steps(job, steps, check_overlap=overlap):
                    results.append(result)
                    line.advance(result.step)
        write_outputs(job, results, source=records, source_sha256=file_sha256(records))
    return folder / RECORDS_NAME


class InstructionJoin:
    """Joins instructions to the records of a dataset.

    Args:
        name: the dataset, for messages.
        source: records file with instructions; None: only the categorical template, for the images of a mix.
        folder: for temporary files.
        kinds: what the dataset trains on; None: everything.
    """

    def __init__(
        self, name: str, settings: InstructionSettings, source: Path | None, folder: Path, kinds: Sequence[str] | None
    ):
        self._name, self._settings, self._source = name, settings, source
        written = (record for record in read_records(source) if record.instructions) if source is not None else ()
        self._written = JobRecords.store(written, folder)
        self._kinds = kinds
        self._left_out: Counter[str] = Counter()  # pairs that the mix does not use, by kind

    def run(self, records: Path) -> dict[str, Any]:
        """Replace the records file by one with instructions; returns the counts for `prepared.json`.

        Raises:
            DataError: the instructions belong to other records, or kinds are missing; names all faults.
        """
        problems = self._problems(records)
        chosen = None
        try:
            chosen = self._draw(records)
        except DataError as error:
            problems.append(str(error))
        if problems:
            raise DataError("\n".join(problems))
        write_records(records, self._joined(read_records(records), chosen))
        counts: dict[str, Any] = {"splits": count_instructions(records)}
        if chosen is not None:
            counts["mix"] = self._compare_with_mix(records, chosen)
            counts["left_out_by_mix"] = dict(self._left_out)
        return counts

    def _problems(self, records: Path) -> list[str]:
        """Instructions that do not belong to the records, and kinds that are missing."""
        faults: dict[str, list[str]] = defaultdict(list)
        found: Counter[str] = Counter()
        splits: set[str] = set()
        is_matched = bytearray(len(self._written))
        for record in read_records(records):
            splits.add(record.split)
            number = self._written.find(record.id)
            if number is None:
                continue
            is_matched[number] = 1
            other = self._written.get(number)
            for what, theirs, ours in _differences(record, other):
                faults[f"records have another {what}"].append(f"'{record.id}': {theirs} there, {ours} here")
            if record.split == TRAIN:
                found.update(item.kind for item in other.instructions)
        unmatched = [self._written.get(number) for number, seen in enumerate(is_matched) if not seen]
        # A recipe need not use all splits of its dataset.
        strangers = [f"'{record.id}'" for record in unmatched if record.split in splits]
        if strangers:
            faults["records are not in this dataset"] = strangers
        problems = []
        if faults:
            lines = [f"{len(examples)} {what} ({_first(examples)})" for what, examples in faults.items()]
            problems.append(
                f"{self._place}: {self._source} has instructions for other records:\n{bullet_list(lines)}\n"
                "Name the folder that was generated from this dataset, or generate again from its records."
            )
        if self._settings.categorical is not None:
            found["categorical"] += 1
        absent = [kind for kind in self._wanted if not found[kind]]
        if absent:
            problems.append(self._absent(absent))
        elif not found:
            problems.append(f"{self._place}: {self._source} has no instructions for images of the training split.")
        return problems

    @property
    def _place(self) -> str:
        return f"datasets.{self._name}.build_info.prepare.instructions"

    @property
    def _wanted(self) -> list[str]:
        """The kinds that the recipe asks for."""
        mix = self._settings.mix
        in_mix = {kind for part in mix.parts for kind in part.kinds} if mix is not None else set()
        return [kind for kind in INSTRUCTION_KINDS if kind in (self._kinds if self._kinds is not None else in_mix)]

    def _absent(self, kinds: Sequence[str]) -> str:
        asked = f"datasets.{self._name}.kinds" if self._kinds is not None else "the mix"
        if self._source is None:
            return f"{self._place}: {asked} asks for {', '.join(kinds)}. {how_to_generate(self._name, kinds)}"
        commands = ", ".join(f"`emovit generate {kind} {self._source} --out {self._source.parent}`" for kind in kinds)
        return (
            f"{self._place}: {self._source} has no {', '.join(kinds)} for the training split, but {asked} asks for it. "
            f"Write it with {commands} (add --model for a chat model), or do not ask for it."
        )

    def _draw(self, records: Path) -> Mapping[str, Collection[str]] | None:
        """Id -> kinds of the training images of the mix; None without a mix."""
        mix = self._settings.mix
        if mix is None:
            return None
        training = (record for record in read_records(records) if record.split == TRAIN)
        try:
            return draw_mix(training, mix, seed=mix.seed, allow_short=mix.allow_short)
        except DataError as error:
            advice = str(error).replace("(--allow-short)", f"({self._place}.mix.allow_short=true)")
            raise DataError(f"{self._place}.mix: {advice}") from None

    def _joined(
        self, records: Iterator[EmotionRecord], chosen: Mapping[str, Collection[str]] | None
    ) -> Iterator[EmotionRecord]:
        for record in records:
            number = self._written.find(record.id)
            items: list[Instruction] = record.instructions
            if number is not None:
                items = self._written.get(number).instructions
            kinds: Collection[str] = INSTRUCTION_KINDS
            if chosen is not None and record.split == TRAIN:
                kinds = chosen.get(record.id, ())
                self._left_out.update(item.kind for item in items if item.kind not in kinds)
            items = [item for item in items if item.kind in kinds]
            template = self._settings.categorical
            has_one = any(item.kind == "categorical" for item in items)
            if template is not None and record.emotion is not None and "categorical" in kinds and not has_one:
                items.append(categorical_instruction(record, **template.model_dump()))
            yield record.model_copy(update={"instructions": items})

    def _compare_with_mix(self, records: Path, chosen: Mapping[str, Collection[str]]) -> dict[str, dict[str, int]]:
        """Kind -> images that the mix draws, and those of them that have this kind."""
        drawn = Counter(kind for kinds in chosen.values() for kind in kinds)
        found: Counter[str] = Counter()
        for record in read_records(records):
            if record.split == TRAIN:
                found.update({item.kind for item in record.instructions})
        for kind, count in drawn.items():
            if found[kind] < count:
                logger.warning(
                    "%s: the mix draws %d images with %s, and %d of them have it", self._name, count, kind, found[kind]
                )
        absent = [kind for kind in self._wanted if not found[kind]]
        if absent:
            raise DataError(self._absent(absent))
        return {kind: {"drawn": count, "found": found[kind]} for kind, count in drawn.items()}


def count_instructions(records: Path) -> dict[str, dict[str, Any]]:
    """Split -> its images, those with instructions, and pairs of each kind."""
    counts: dict[str, dict[str, Any]] = {}
    for record in read_records(records):
        of_split = counts.setdefault(record.split, {"images": 0, "with_instructions": 0, "pairs": Counter()})
        of_split["images"] += 1
        of_split["with_instructions"] += bool(record.instructions)
        of_split["pairs"].update(item.kind for item in record.instructions)
    return counts


def check_kinds(name: str, counts: Mapping[str, Mapping[str, Any]], kinds: Sequence[str] | None) -> None:
    """Refuse kinds that no training image has, before shards are written; DataError has the commands that help."""
    pairs = counts.get(TRAIN, {}).get("pairs", {})
    absent = [kind for kind in kinds or () if not pairs.get(kind)]
    if absent and TRAIN in counts:
        raise DataError(
            f"datasets.{name}.kinds: the training split has no {', '.join(absent)} instructions. "
            f"{how_to_generate(name, absent)}"
        )


def _differences(ours: EmotionRecord, theirs: EmotionRecord) -> Iterator[tuple[str, Any, Any]]:
    """What differs between a record of the dataset and the one with its id: (name, theirs, ours)."""
    for name in _COMPARED:
        value, other = getattr(ours, name), getattr(theirs, name)
        if value is not None and value != other:
            yield ("label" if name == "emotion" else name.replace("_", " ")), other, value
    known, others = ours.attributes.model_dump(), theirs.attributes.model_dump()
    changed = [name for name, value in known.items() if value is not None and value != others[name]]
    if changed:
        named = [", ".join(f"{name} {of[name]}" for name in changed) for of in (others, known)]
        yield "set of attributes", named[0], named[1]


def _first(examples: Sequence[str]) -> str:
    return ", ".join(examples[:_MAX_EXAMPLES]) + (", ..." if len(examples) > _MAX_EXAMPLES else "")
