"""The commands of the dossier run from raw data to the table.

They run offline on drawn images in the published layouts, with small models in the place of the published weights, a
local server in the place of endpoints, and two steps of training. The commands are those that the dossier shows; these
settings are appended to them, and nothing is taken away. Experiments share the run of `heldin`, as the dossier says.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "sources"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "chat"))

from chat_server import KEY, Action, ChatServer, fill
from published_copies import DRAWERS
from tiny_models import make_blip2_t5, make_clip, make_llava

from lavis_emovit import evaluate
from lavis_emovit.cli.main import main
from lavis_emovit.evaluate import run_evaluation
from lavis_emovit.evaluation.dossier import load_dossier
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.recipes import resolve_dataset
from lavis_emovit.records import read_records
from lavis_emovit.runners.config import Config
from lavis_emovit.train import run_recipe

pytestmark = pytest.mark.xdist_group("dossier")

EXPERIMENTS = load_dossier().experiments
LLAVA = "llava-hf/llava-1.5-7b-hf"
# The rows of its suites, apart from those of the baselines.
MODELS = {
    "heldin": {"emovit", "instructblip"},
    "heldout": {"emovit", "instructblip"},
    "robustness": {"emovit", "instructblip"},
    "ablation": {"none", "categorical", "conversation", "reasoning"},
    "scaling": {f"share_{share}" for share in (0, 5, 10, 30, 50, 100)},
    "sensitivity": {"emovit", "instructblip"},
    "reasoning": {"emovit", "instructblip"},
    "humour": {"emovit", "instructblip"},
    "llava": {"llava", "llava_tuned", "instructblip", "emovit"},
    "other_baselines": {"blip2", "instructblip"},
    "emocaliber": {"emocaliber", "instructblip"},
    "seke": {"emovit", "instructblip"},
}
DATASETS = (
    "webemo", "fi", "emotion6", "emotionroi", "unbiasedemo", "abstract", "artphoto", "oxford_hic", "raf_db",
    "affectnet", "disfa", "bp4d", "ck_plus", "aff_wild2",
)  # fmt: skip
VECBENCH = {
    "FI-2": "fi", "FI-8": "fi", "WebEmo-2": "webemo", "WebEmo-7": "webemo", "WebEmo-25": "webemo", "EmoSet-8": "emoset",
    "Abstract-8": "abstract", "Artphoto-8": "artphoto", "UnbiasedEmo-6": "unbiasedemo",
}  # fmt: skip
# Copies of the layouts are small: 8 classes of EmoSet have fewer images than a part of the paper's mix.
MIX = "{parts: [{kinds: [conversation, reasoning], per_class: 2}, {kinds: [categorical]}]}"
MODEL = [
    "model.arch=emovit_tiny", "model.model_type=tiny", "model.image_size=96", "model.max_txt_len=128",
    "model.max_output_txt_len=192",
]  # fmt: skip
RUN = [
    "run.max_steps=2", "run.warmup_steps=1", "run.num_workers=0", "run.evaluate_before=false", "run.amp=off",
    "run.device=cpu", "run.num_threads=1", "run.report=false", "run.valid_splits=[]", "run.test_splits=[]",
]  # fmt: skip


def appended(cfg_path: str, options: list[str], places: dict[str, str]) -> list[str]:
    """What a small machine appends to the options of a recipe or a suite."""
    suite = load_suite(cfg_path, options)
    if suite is None:
        config = Config.load(cfg_path, options)
        is_llava = hasattr(config.model, "image_processor")
        model = [f"model.path={places[LLAVA]}"] if is_llava else MODEL
        sizes = [f"vis_processor.{part}.image_size=96" for part in ("train", "eval") if not is_llava]
        of_data = [f"datasets.{name}.{size}" for name in config.datasets for size in sizes]
        mixes = ["datasets.emoset.build_info.prepare.instructions.mix=" + MIX] if "emoset" in config.datasets else []
        return [*model, *of_data, *mixes, *RUN]
    # One report is enough: that of `heldin`.
    has_report = cfg_path.endswith("heldin.yaml") and "emovit" in suite.models
    more = ["suite.num_workers=0", "suite.num_threads=1", "suite.batch_size=32", f"suite.report={has_report}"]
    for name, entry in suite.models.items():
        if name == "probe" and not cfg_path.endswith("transfer.yaml"):
            continue  # the suite makes it, on the encoder of the first model
        values = {"device": "cpu"}
        if entry.adapter == "lavis":
            values |= {"amp": "off"}
            values |= {"config.path": places[LLAVA]} if "llava" in entry.arch else {"arch": "emovit_tiny"}
            if entry.train is not None:
                trained = [*entry.train.options, *appended(entry.train.recipe, list(entry.train.options), places)]
                values["train.options"] = json.dumps(trained)
        elif entry.adapter == "probe":
            values |= {"arch": "emovit_tiny"}
        elif entry.adapter in ("clip", "clip_probe", "transformers"):
            values["path"] = places[entry.path]
        elif entry.adapter == "chat":
            values = {"chat.base_url": places["endpoint"]}
        else:
            values = {}
        more += [f"suite.models.{name}.{key}={value}" for key, value in values.items()]
    for name, benchmark in suite.benchmarks.items():
        more += [f"suite.benchmarks.{name}.limit={min(benchmark.limit or 2, 2)}"]
        more += [f"suite.benchmarks.{name}.max_new_tokens=2"]
    return more


def draw_vecbench(roots: dict[str, Path]) -> None:
    """The table of VECBench: three images of the copy of each dataset."""
    table = Path("data/VECBench/test_metadata.csv")
    table.parent.mkdir()
    lines = ["task,split,label,image_path"]
    for task, name in VECBENCH.items():
        images = sorted(path for path in roots[name].rglob("*.jpg") if "0009" not in path.name)  # a tie of Abstract
        lines += [f"{task},test,,images/{name}/{image.relative_to(roots[name]).as_posix()}" for image in images[:3]]
    table.write_text("\n".join(lines) + "\n")


def fill_sheet(filled: Path) -> None:
    """A person fills in the sheet that an earlier line wrote."""
    (choices,) = Path("output").rglob("choices.csv")
    with choices.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["choice"] = "AB"[number % 2]
    with filled.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def run(line: str, places: dict[str, str]) -> dict | None:
    """Run one line of the dossier; returns the content of metrics.json of training and evaluation."""
    program, *words = shlex.split(line)
    if program == "emovit":
        if "--model" in words:
            # A class of the copy has too few images for a published mix, and the server has no rate limits.
            words += ["--base-url", places["endpoint"], *(["--mix", "all"] if "--mix" in words else [])]
        for word in words:
            if Path(word).suffix == ".csv" and not Path(word).exists():
                fill_sheet(Path(word))
        assert main(words) == 0
        return None
    assert program == "python" and words[0] == "-m" and words[2] == "--cfg-path"
    _, module, _, cfg_path, *rest = words
    assert rest[:1] in ([], ["--options"])
    options = rest[1:]
    command = {"lavis.train": run_recipe, "lavis.evaluate": run_evaluation}[module]
    return command(cfg_path, [*options, *appended(cfg_path, options, places)])


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders and addresses in the place of weights and endpoints; the working directory has the data, as published."""
    root = tmp_path_factory.mktemp("dossier")

    def reply(body, num_before):
        if "response_format" not in body:
            return Action("awe")
        schema = body["response_format"]["json_schema"]["schema"]
        if "units" not in schema["properties"]:
            return Action()
        units = schema["properties"]["units"]["items"]["enum"][:2]
        return Action(json.dumps(fill(schema, "a face") | {"units": units}))

    def train_here(name, command):
        at = command.index("--options")
        run_recipe(command[command.index("--cfg-path") + 1], command[at + 1 :])

    with pytest.MonkeyPatch.context() as patch, ChatServer(reply, keep=False) as server:
        patch.chdir(root)
        for name in [name for name in os.environ if name.startswith("EMOVIT_")]:
            patch.delenv(name)  # a folder with real data
        patch.setenv("EMOVIT_DATA", str(root / "shards"))
        patch.setenv("OPENAI_API_KEY", KEY)
        # As the command that a suite starts, without another process that loads torch.
        patch.setattr(evaluate, "_run", train_here)
        assert main(["data", "draw", "--out", "data/EmoSet-118K", "--images-per-class", "10"]) == 0
        roots = {name: Path(resolve_dataset(name, None, [], name)[1].build_info.prepare.root) for name in DATASETS}
        for name, folder in roots.items():
            DRAWERS[name](folder)
        draw_vecbench({"emoset": Path("data/EmoSet-118K"), **roots})
        yield {
            "openai/clip-vit-large-patch14": str(make_clip(root / "clip")),
            LLAVA: str(make_llava(root / "llava")),
            "Salesforce/blip2-flan-t5-xl": str(make_blip2_t5(root / "blip2")),
            "endpoint": server.url,
        }


@pytest.fixture(scope="module")
def heldin(places):
    """The run of `heldin`, which other experiments need."""
    *lines, _ = EXPERIMENTS["heldin"].commands
    return [run(line, places) for line in lines]


def test_every_experiment_with_commands_is_run():
    # The probe on published features has a test of its own, tests/evaluation/test_probe.py.
    assert {name for name, one in EXPERIMENTS.items() if one.commands} == {*MODELS, "emotion6_probe"}


def test_the_training_data_have_all_kinds(heldin):
    records = read_records("data/emoset_generated/records.jsonl")
    kinds = {instruction.kind for record in records for instruction in record.instructions}
    assert kinds >= {"categorical", "conversation", "reasoning"}
    assert heldin[-1]["step"] == 2


@pytest.mark.parametrize("name", MODELS)
def test_runs_from_raw_data_to_the_table(name, places, heldin):
    experiment = EXPERIMENTS[name]
    lines = experiment.commands[3:] if name == "heldin" else experiment.commands
    made = [run(line, places) for line in lines]
    summaries = [summary for summary in made if summary is not None and "benchmarks" in summary]
    assert summaries
    for benchmark in (benchmark for summary in summaries for benchmark in summary["benchmarks"].values()):
        found = {result["model"] for result in benchmark["results"]}
        assert found >= MODELS[name], benchmark["dataset"]
    shown = {(row["model"], row["value"]) for summary in summaries for row in summary["references"]}
    assert {(result.model, result.value) for result in experiment.results} <= shown
    if name == "heldin":
        assert Path("output/emovit/eval/heldin/report.html").is_file()
