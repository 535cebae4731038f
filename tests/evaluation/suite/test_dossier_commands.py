"""The commands of the dossier run from raw data to the table.

They run offline on drawn images in EmoSet's published layout, with a small mix, the tiny model, and two steps of
training. Only these settings differ from the commands shown.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from lavis_emovit.cli.main import main
from lavis_emovit.evaluate import run_evaluation
from lavis_emovit.evaluation.dossier import load_dossier
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.records import read_records
from lavis_emovit.train import run_recipe

# A class of the drawn set has fewer images than a part of the paper's mix.
MIX = "{parts: [{kinds: [conversation, reasoning], per_class: 2}, {kinds: [categorical]}]}"
TINY = ["model.arch=emovit_tiny", "model.model_type=tiny", "model.image_size=96", "model.max_output_txt_len=192"]
SHORT = [
    *TINY,
    "datasets.emoset.vis_processor.train.image_size=96",
    "datasets.emoset.vis_processor.eval.image_size=96",
    f"datasets.emoset.build_info.prepare.instructions.mix={MIX}",
    "run.max_steps=2",
    "run.warmup_steps=1",
    "run.num_workers=0",
    "run.evaluate_before=false",
    "run.amp=off",
    "run.device=cpu",
    "run.num_threads=1",
    "run.report=false",
    "run.valid_splits=[]",
    "run.num_report_answers=2",
    "run.max_len=4",
]


def test_heldin_runs_from_raw_data_to_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    assert main(["data", "draw", "--out", "data/EmoSet-118K", "--images-per-class", "10"]) == 0
    imported, generated, trained, evaluated = load_dossier().experiments["heldin"].commands

    assert main(shlex.split(imported)[1:]) == 0
    words = shlex.split(generated)[1:]
    assert words[words.index("--mix") + 1] == "paper"
    needless = {"--model", "gpt-4.1-mini", "--max-usd", "50", "--mix", "paper"}
    assert needless <= set(words)
    assert main([word for word in words if word not in needless]) == 0
    records = list(read_records("data/emoset_generated/records.jsonl"))
    kinds = {instruction.kind for record in records for instruction in record.instructions}
    assert kinds >= {"categorical", "conversation", "reasoning"}

    recipe = trained.rpartition(" ")[2]
    run = run_recipe(recipe, SHORT)
    assert run["step"] == 2

    content = load_suite(evaluated.rpartition(" ")[2]).model_dump(mode="json", exclude_unset=True)
    models = content["models"]
    assert models["emovit"]["checkpoint"] == "output/emovit/train_instructions"
    assert models["emovit"]["train"]["recipe"] == recipe
    for entry in (models["emovit"], models["instructblip"]):
        entry |= {"arch": "emovit_tiny", "amp": "off", "device": "cpu"}
    # The run that the third command made: it is not trained again.
    models["emovit"]["train"]["options"] = SHORT
    del models["probe"]  # the suite adds it, on the encoder of the first model
    models["clip"] = models["clip_probe"] = None  # their weights need a download
    content["benchmarks"]["emoset"] |= {"limit": 4, "max_new_tokens": 3}
    content |= {"num_workers": 0, "num_threads": 1}
    Path("heldin.yaml").write_text(yaml.safe_dump({"suite": content}, sort_keys=False))
    made = sorted(Path("output/emovit/train_instructions/checkpoints").iterdir())
    summary = run_evaluation("heldin.yaml")
    assert made == sorted(Path("output/emovit/train_instructions/checkpoints").iterdir())
    results = summary["benchmarks"]["emoset"]["results"]
    assert {result["model"] for result in results} >= {"emovit", "instructblip", "prior", "probe"}
    assert {row["model"] for row in summary["references"]} >= {"EmoVIT", "InstructBLIP"}
    assert Path("output/emovit/eval/heldin/report.html").is_file()
