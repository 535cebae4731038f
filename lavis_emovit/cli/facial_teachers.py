"""`emovit facial teachers`, `annotate` and `detect`: models of other people that run here, and what they see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from lavis_emovit.cli.generate_job import given, read_sections
from lavis_emovit.cli.options import EngineOption, RayAddressOption, RayWorkersOption, open_engine
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.paths import RECORDS_NAME

if TYPE_CHECKING:
    from lavis_emovit.emotion.facial import FacialPriors
    from lavis_emovit.records import EmotionRecord
    from lavis_emovit.teachers.annotation import Counts
    from lavis_emovit.teachers.catalogue import AnyTeacher
    from lavis_emovit.teachers.crops import Square

ANSWERS, CROPS = "answers.jsonl", "crops.jsonl"

SourceArgument = Annotated[Path, Argument(help="Records file, or a folder of images.")]
OutOption = Annotated[Path, Option(help="Folder of the answers and records; the same one resumes.")]
ImagesOption = Annotated[Path | None, Option(help="Folder of the image paths, if not that of the records.")]
SmallestOption = Annotated[float, Option(min=0.0, help="Shorter side of the smallest face.")]
ShownOption = Annotated[
    float, Option(min=0.0, max=10.0, help="What is shown around the box of a record, as a share of its sides.")
]
ChatConfigOption = Annotated[
    Path | None, Option(help="YAML file whose section `chat` has more settings of chat models.")
]


def teachers(
    install: Annotated[
        list[str] | None, Option(help="Install this teacher into an environment of its own, or `all`.")
    ] = None,
) -> None:
    """List the teachers, where each one is installed, and the commands that install it."""
    from lavis_emovit.teachers.catalogue import TEACHERS, Teacher, find_teachers

    for teacher in find_teachers(TEACHERS if "all" in (install or ()) else install or ()):
        if isinstance(teacher, Teacher):
            teacher.run_install()
        teacher.require()
    for teacher in TEACHERS.values():
        typer.echo(f"{teacher.title}: {teacher.gives}")
        if teacher.is_installed:
            typer.echo(f"  installed in {teacher.folder}")
        else:
            typer.echo("\n".join(["  not installed; these commands install it:", *teacher.install_lines]))


def annotate(
    source: SourceArgument,
    out: OutOption,
    teacher: Annotated[
        list[str],
        Option(help="Name of a teacher, tuned:RUN for a tuned model, or chat:MODEL; repeat it for several."),
    ],
    images: ImagesOption = None,
    faces: Annotated[
        Literal["one", "largest"], Option(help="Of several faces without a box: none, or the largest.")
    ] = "one",
    min_face_px: SmallestOption = 32.0,
    shown_margin: ShownOption = 0.5,
    max_entropy: Annotated[
        float, Option(min=0.0, max=1.0, help="Highest entropy of an expression that goes into the records.")
    ] = 1.0,
    base_url: Annotated[
        str | None, Option(help="Of chat:MODEL: OpenAI-compatible address up to /v1; key: OPENAI_API_KEY.")
    ] = None,
    max_usd: Annotated[float | None, Option(help="Hard limit on the cost of each chat model.")] = None,
    config: ChatConfigOption = None,
    priors: Annotated[
        Path | None, Option(help="Tables of `facial fit --teacher`, by which teachers count; by default all equally.")
    ] = None,
    engine: EngineOption = "process",
    ray_address: RayAddressOption = None,
    workers: RayWorkersOption = None,
) -> None:
    """Let teachers name the expressions of faces; their disagreement is the uncertainty."""
    from lavis_emovit.emotion.facial import facial_priors
    from lavis_emovit.emotion.teacher_reliability import require_fitted
    from lavis_emovit.records import write_records, write_summary
    from lavis_emovit.teachers.annotation import Counts, ask_teachers, with_expression
    from lavis_emovit.teachers.answers import AnswerFile
    from lavis_emovit.teachers.catalogue import find_teachers
    from lavis_emovit.teachers.chat_teacher import CHAT
    from lavis_emovit.teachers.choosing import FaceSettings

    endpoint = given({"base_url": base_url, "max_usd": max_usd})
    chosen = find_teachers(teacher, chat_teachers(out, {**read_sections(config)["chat"], **endpoint}))
    refuse_detectors(chosen)
    tables = None if priors is None else facial_priors(priors)
    if tables is not None:
        if not tables.teachers:
            raise DataError(f"{priors}: has no reliability of teachers; use a file of `emovit facial fit --teacher`")
        require_fitted(tables, [one.title for one in chosen])
    has_chat = any(one.startswith(CHAT) for one in teacher)
    if (endpoint or config) and not has_chat:
        raise ConfigError(["--base-url, --max-usd and --config are for chat models; add chat:MODEL"], "the options")
    if has_chat and engine != "process":
        raise ConfigError(["--engine: chat models are only asked by this process; omit it"], "the options")
    settings = FaceSettings(faces=faces, min_face_px=min_face_px, margin=shown_margin)
    counts = Counts()
    with AnswerFile(out / ANSWERS) as answers, open_engine(engine, ray_address, workers) as opened:
        records, root = _open(source, images, out)
        asked = ask_teachers(records, root, chosen, answers, settings, counts, opened)
        new = (
            with_expression(record, chosen, found, settings, counts, max_entropy=max_entropy, priors=tables)
            for record, found in asked
        )
        write_records(out / RECORDS_NAME, new)
    used = {**settings.model_dump(), "max_entropy": max_entropy, **given({"priors": priors and str(priors)})}
    write_summary(out / RECORDS_NAME, root, settings=used, **counts.plain())
    print_counts(counts, out / RECORDS_NAME)
    counts.check()


def detect(
    source: SourceArgument,
    out: OutOption,
    teacher: Annotated[str, Option(help="Name of the teacher that finds the faces.")] = "mediapipe",
    images: ImagesOption = None,
    min_face_px: SmallestOption = 32.0,
    shown_margin: ShownOption = 0.5,
    proxies: Annotated[
        bool, Option("--proxies", help="Also write geometric proxies of action units, from the landmarks.")
    ] = False,
    crops: Annotated[bool, Option("--crops", help="Also write the faces as images, with level eyes.")] = False,
    size_px: Annotated[int, Option(min=16, max=4096, help="Side of a crop.")] = 224,
    margin: Annotated[
        float, Option(min=0.0, max=10.0, help="Around the box in a crop, as a share of its side.")
    ] = 0.25,
    engine: EngineOption = "process",
    ray_address: RayAddressOption = None,
    workers: RayWorkersOption = None,
) -> None:
    """Write a record for each face of images, with its box, and crops of the faces."""
    from lavis_emovit.records import write_records, write_summary
    from lavis_emovit.teachers.annotation import Counts, ask_teachers
    from lavis_emovit.teachers.answers import AnswerFile
    from lavis_emovit.teachers.catalogue import TUNED, find_teachers
    from lavis_emovit.teachers.chat_teacher import CHAT
    from lavis_emovit.teachers.choosing import FaceSettings
    from lavis_emovit.teachers.crops import square_of
    from lavis_emovit.teachers.detection import check_ids, face_records, write_crops

    if crops and source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise DataError(f"--out {out}: is in {source}, so the next run would look at the crops; use another --out")
    if teacher.startswith((TUNED, CHAT)):
        raise ConfigError([f"{teacher} finds no faces; use it with `emovit facial annotate`"], "--teacher")
    chosen = find_teachers([teacher])
    settings = FaceSettings(min_face_px=min_face_px, margin=shown_margin)
    counts = Counts()
    found: list[tuple[EmotionRecord, Square]] = []
    with AnswerFile(out / ANSWERS) as answers, open_engine(engine, ray_address, workers) as opened:
        records, root = _open(source, images, out)
        check_ids(records)
        for record, (answer,) in ask_teachers(records, root, chosen, answers, settings, counts, opened):
            for of_face, face in face_records(record, chosen[0], answer, settings, counts, proxies=proxies):
                found.append((of_face, square_of(face, size_px=size_px, margin=margin)))
        write_records(out / RECORDS_NAME, (of_face for of_face, _ in found))
        if crops:
            write_records(out / CROPS, write_crops(found, root, out, opened))
            counts.lost_workers = opened.num_lost_workers
    write_summary(out / RECORDS_NAME, root, settings=settings.model_dump(), **counts.plain())
    if crops:
        write_summary(out / CROPS, out, settings={"size_px": size_px, "margin": margin})
    print_counts(counts, out / RECORDS_NAME, *([out / CROPS] if crops else []))
    counts.check()


def fit_reliability(
    priors: FacialPriors,
    labelled: Mapping[Path, Sequence[EmotionRecord]],
    names: Sequence[str],
    known: Path,
    *,
    images: Path | None,
    config: Path | None,
    smoothing: float,
) -> FacialPriors:
    """The fitted tables with the reliability of these teachers, estimated from labelled faces.

    Args:
        labelled: records file -> its chosen records.
        names: of the teachers.
        known: file of answers, to which missing ones are added.
        images: folder of the image paths, if not that of each records file.
        config: settings file of chat models.
    """
    from lavis_emovit.generation.seke.fitting_teachers import JudgedFace, fit_teachers, judged_faces
    from lavis_emovit.records import find_image_root
    from lavis_emovit.teachers.answers import AnswerFile
    from lavis_emovit.teachers.catalogue import find_teachers
    from lavis_emovit.teachers.chat_teacher import CHAT
    from lavis_emovit.teachers.choosing import FaceSettings
    from lavis_emovit.teachers.looking import Looking

    if config is not None and not any(name.startswith(CHAT) for name in names):
        raise ConfigError(["--config is for chat models; add --teacher chat:MODEL"], "the options")
    chosen = find_teachers(names, chat_teachers(known.parent, read_sections(config)["chat"]))
    refuse_detectors(chosen)
    skipped: Counter[str] = Counter()
    faces: list[JudgedFace] = []
    with AnswerFile(known) as answers:
        for path, records in labelled.items():
            looking = Looking(find_image_root(path, images), chosen, answers, FaceSettings())
            faces += judged_faces(records, looking, priors, skipped)
            print_counts(looking.counts)
    fitted = fit_teachers(faces, priors, smoothing=smoothing)
    for title, found in fitted.teachers.items():
        rows = [(name, row) for table in found.counts.values() for name, row in table.items()]
        right = sum(row.get(name, 0.0) for name, row in rows) / sum(sum(row.values()) for _, row in rows)
        number = sum(title in face.votes for face in faces)
        typer.echo(f"{title}: {number} labelled faces, {right:.1%} of its votes are right")
    exponents = ", ".join(f"{number}: {value:.2f}" for number, value in enumerate(fitted.exponents, start=1))
    typer.echo(f"exponents by the number of teachers together: {exponents}")
    for reason, number in sorted(skipped.items()):
        typer.echo(f"  skipped for the teachers: {number} {reason}")
    return fitted


def chat_teachers(folder: Path, values: Mapping[str, Any]) -> Callable[[str], AnyTeacher]:
    """Function of the name of a chat model -> the teacher with these settings; its ledger is in the folder."""
    from lavis_emovit.chat.settings import ChatSettings
    from lavis_emovit.settings import valid_settings
    from lavis_emovit.teachers.chat_teacher import ChatTeacher

    def make(model: str) -> ChatTeacher:
        # The same answer each time, unless the settings say something else.
        settings = valid_settings(ChatSettings, {"temperature": 0.0, **values, "model": model}, "chat", f"chat:{model}")
        return ChatTeacher(settings, folder)

    return make


def refuse_detectors(chosen: Iterable[AnyTeacher]) -> None:
    """ConfigError for teachers that name no expressions."""
    if blind := [one.name for one in chosen if not one.names_expressions]:
        raise ConfigError(
            [f"{name} only finds faces; use it with `emovit facial detect`" for name in blind], "the teachers"
        )


def _open(source: Path, images: Path | None, out: Path) -> tuple[list[EmotionRecord], Path]:
    """Records and the folder of their images; DataError if there is none, or `out` would replace them."""
    from lavis_emovit.records import find_image_root, read_records
    from lavis_emovit.teachers.detection import image_records

    if source.is_dir():
        if images is not None:
            raise DataError(f"--images {images}: {source} is a folder of images already; omit --images")
        records, root = list(image_records(source)), source
    else:
        if source.resolve() in [(out / name).resolve() for name in (RECORDS_NAME, CROPS)]:
            raise DataError(f"{source}: would be replaced; use another --out")
        records, root = list(read_records(source)), find_image_root(source, images)
    if not records:
        raise DataError(f"{source}: has no {'image' if source.is_dir() else 'record'}")
    return records, root


def print_counts(counts: Counts, *written: Path) -> None:
    for name, statuses in counts.by_teacher.items():
        line = ", ".join(f"{status} {number}" for status, number in statuses.most_common())
        restarts = counts.restarts.get(name, 0)
        typer.echo(f"{name}: {line}" + (f"; started again {restarts} times" if restarts else ""))
    for outcome, number in counts.outcomes.most_common():
        typer.echo(f"{outcome}: {number}")
    if counts.lost_workers:
        typer.echo(f"workers of Ray that ended and were replaced: {counts.lost_workers}")
    for path in written:
        typer.echo(str(path))
