"""Properties: a run, a checkpoint, an exported folder and an archive give the same model, processors, labels, question
and decoding as in training, through this package and through LAVIS, also after moving; faults are named."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from tuned_run import OPTIONS

import lavis_emovit
from lavis_emovit.checkpoints.tuned_files import find_tuned, pack
from lavis_emovit.cli.main import main
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import categorical_prompt
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.evaluation.adapters.base import ModelPlace
from lavis_emovit.evaluation.adapters.lavis_model import LavisModelSettings, open_lavis_model
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.models.instructblip.weights import shipped_folder
from lavis_emovit.paths import list_checkpoints
from lavis_emovit.train import run_recipe
from lavis_emovit.tuned.inputs import input_images
from lavis_emovit.tuned.loading import Tuned
from lavis_emovit.tuned.predictions import Asking, PredictionSettings, predict, probabilities_of


def scores(tuned, images: list[Path]) -> torch.Tensor:
    """[2, 8], by the model's own functions."""
    paths = images[:2]
    pixels = torch.stack([tuned.vis_processors["eval"](Image.open(path).convert("RGB")) for path in paths])
    question = tuned.txt_processors["eval"](tuned.question)
    with torch.inference_mode():
        return tuned.model.score_candidates(
            {"image": pixels, "prompt": [question] * 2}, list(tuned.labels), answer_prefix="Predict emotion: "
        )


def test_a_run_loads_as_it_was_evaluated(run: SimpleNamespace) -> None:
    tuned = lavis_emovit.load_tuned(run.folder)
    assert tuned.labels == get_label_set("mikels8").labels
    assert tuned.question == categorical_prompt(get_label_set("mikels8"))
    assert tuned.decoding["num_beams"] == 1 and tuned.decoding["max_length"] == 30
    assert not tuned.model.training
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert tuned.files.checkpoint is not None and tuned.files.checkpoint[0].name == metrics["checkpoint"]


def test_all_forms_give_the_same_answers(run: SimpleNamespace, tmp_path: Path) -> None:
    expected = scores(lavis_emovit.load_tuned(run.folder), run.images)
    best = find_tuned(run.folder).checkpoint[0]
    moved = shutil.copytree(run.folder, tmp_path / "other name")
    alone = shutil.copytree(best, tmp_path / "alone")
    assert main(["convert", str(run.folder), "exported"]) == 0
    assert main(["pack", str(run.folder), "model.emovit"]) == 0
    for place in (moved, moved / "checkpoints" / best.name, alone, "exported", "model.emovit"):
        found = lavis_emovit.load_tuned(place)
        assert torch.equal(scores(found, run.images), expected), place
        assert (found.question, found.labels) == (lavis_emovit.load_tuned(run.folder).question, found.labels), place


def test_weights_that_have_moved_are_found_by_base(run: SimpleNamespace, tmp_path: Path, capsys) -> None:
    expected = lavis_emovit.load_tuned(run.folder)
    moved = shutil.copytree(shipped_folder(expected.files.base), tmp_path / "weights")
    found = lavis_emovit.load_tuned(run.folder, base=moved)
    assert found.files.base == str(moved) != expected.files.base
    assert torch.equal(scores(found, run.images), scores(expected, run.images))

    assert main(["pack", str(run.folder), "moved.emovit", "--base", str(moved)]) == 0
    assert lavis_emovit.load_tuned("moved.emovit").files.base == str(moved)
    moved.rename(tmp_path / "elsewhere")
    image = str(run.images[0])
    assert main(["predict", "moved.emovit", image]) == 2
    assert "If they have moved, pass their place: --base PLACE" in capsys.readouterr().err
    assert main(["predict", "moved.emovit", image, "--base", str(tmp_path / "elsewhere")]) == 0
    entry = {"adapter": "lavis", "checkpoint": "moved.emovit", "device": "cpu"}
    with pytest.raises(UserError, match="`base` of a model in a suite"):
        open_lavis_model(LavisModelSettings(**entry), ModelPlace("mine", tmp_path, tmp_path))
    settings = LavisModelSettings(**entry, base=str(tmp_path / "elsewhere"))
    adapter = open_lavis_model(settings, ModelPlace("mine", tmp_path, tmp_path))
    assert adapter.identity()["trained"] == expected.files.weights_sha256
    with pytest.raises(ValueError, match="`base` belongs to a `checkpoint` without `arch`"):
        LavisModelSettings(**entry, arch="emovit_tiny", base="x")

    assert main(["convert", "moved.emovit", "whole"]) == 2
    assert "If they have moved, pass their place: --base PLACE" in capsys.readouterr().err
    assert main(["convert", "moved.emovit", "whole", "--base", str(tmp_path / "elsewhere")]) == 0
    shutil.rmtree(tmp_path / "elsewhere")
    assert torch.equal(scores(lavis_emovit.load_tuned("whole"), run.images), scores(expected, run.images))
    with pytest.raises(UserError, match="an exported folder has complete weights; omit the base 'x'"):
        find_tuned("whole", base="x")


def test_lavis_loads_it_by_its_folder(run: SimpleNamespace) -> None:
    from lavis.models import load_model, load_model_and_preprocess

    expected = lavis_emovit.load_tuned(run.folder)
    model, vis, txt = load_model_and_preprocess("emovit_tiny", model_type=str(run.folder), is_eval=True)
    assert torch.equal(
        scores(SimpleNamespace(model=model, vis_processors=vis, txt_processors=txt, question=expected.question,
                               labels=expected.labels), run.images),
        scores(expected, run.images),
    )  # fmt: skip
    assert not model.training
    assert load_model("emovit_tiny", str(run.folder)).training
    with pytest.raises(UserError, match="is a tuned 'emovit_tiny', not 'emovit_small'"):
        load_model("emovit_small", str(run.folder))


def test_another_step_and_other_labels(run: SimpleNamespace) -> None:
    first = list_checkpoints(run.folder / "checkpoints")[0]
    step = int(first.name.removeprefix("ckpt-"))
    assert lavis_emovit.load_tuned(run.folder, step=step).files.checkpoint[0] == first
    with pytest.raises(UserError, match=r"has no checkpoint of step 3, it has ckpt-"):
        lavis_emovit.load_tuned(run.folder, step=3)
    assert lavis_emovit.load_tuned(run.folder, labels="labels: calm, tense").labels == ("calm", "tense")


@pytest.mark.parametrize(
    "options",
    [
        ("model.lora={parts: [language_model], rank: 2}",),
        ("model.frozen_precision=int8",),
        ("model.trained_parts=all",),
        ("run.ema_decay=0.5",),
    ],
    ids=lambda options: options[0].partition("=")[0],
)
def test_every_kind_of_training_loads_with_the_same_answers(run: SimpleNamespace, options: tuple[str, ...]) -> None:
    short = ("run.max_epoch=1", "run.max_steps=2", "run.output_dir=other", "run.evaluate_before=false")
    run_recipe("projects/emovit/quickstart.yaml", [*OPTIONS, *short, *options])
    tuned = lavis_emovit.load_tuned("other")
    expected = {row.record_id: row.scores for row in read_predictions("other/predictions/test-after.jsonl")}
    rows = predict(tuned.adapter, input_images([str(run.data / "small_sketch" / "test")]), asked(tuned), batch_size=32)
    for row in [row for batch in rows for row in batch]:
        scores = expected[row.image]
        assert row.probabilities == pytest.approx(probabilities_of(scores, 1.0), rel=1e-3)


def test_a_run_that_began_from_another_ones_weights_does_not_need_them(run: SimpleNamespace, tmp_path: Path) -> None:
    earlier = shutil.copytree(find_tuned(run.folder).checkpoint[0], tmp_path / "earlier")
    start = ("model.load_finetuned=true", f"model.finetuned={earlier}", "run.max_epoch=1", "run.max_steps=1")
    run_recipe("projects/emovit/quickstart.yaml", [*OPTIONS, *start, "run.output_dir=second"])
    expected = scores(lavis_emovit.load_tuned("second"), run.images)
    shutil.rmtree(earlier)
    assert torch.equal(scores(lavis_emovit.load_tuned("second"), run.images), expected)


def asked(tuned: Tuned) -> PredictionSettings:
    return PredictionSettings((Asking.of(tuned.asked("emotion")),))


def test_a_run_of_an_earlier_version_says_what_to_choose(run: SimpleNamespace, tmp_path: Path) -> None:
    copy = shutil.copytree(find_tuned(run.folder).checkpoint[0], tmp_path / "copy")
    old = find_tuned(copy)
    assert old.questions
    # As an earlier version wrote it: without the file, which its manifest did not list either.
    manifest = json.loads((copy / "MANIFEST.json").read_text())
    from lavis_emovit.checkpoints.checkpoint import _body_hash

    del manifest["files"]["questions.json"], manifest["sha256"]
    (copy / "MANIFEST.json").write_text(json.dumps({**manifest, "sha256": _body_hash(manifest)}))
    (copy / "questions.json").unlink()
    tuned = lavis_emovit.load_tuned(copy)
    with pytest.raises(UserError, match=r"has no questions\.json.*--labels mikels8"):
        _ = tuned.question
    assert lavis_emovit.load_tuned(copy, labels="mikels8").question == categorical_prompt(get_label_set("mikels8"))


def test_suites_take_all_forms(run: SimpleNamespace, tmp_path: Path) -> None:
    pack(find_tuned(run.folder), tmp_path / "model.emovit", "card")
    place = ModelPlace("after", tmp_path, tmp_path)
    for location in (run.folder, tmp_path / "model.emovit"):
        entry = LavisModelSettings.model_validate({"adapter": "lavis", "checkpoint": str(location)})
        assert open_lavis_model(entry, place).identity()["trained"] == find_tuned(run.folder).weights_sha256
    for wrong in ({}, {"checkpoint": "x", "model_type": "tiny"}):
        with pytest.raises(ValueError):
            LavisModelSettings.model_validate({"adapter": "lavis", **wrong})


def test_suites_take_the_trained_parts_of_the_checkpoint(run: SimpleNamespace, tmp_path: Path) -> None:
    from lavis_emovit.evaluation.adapters.base import ModelPlace
    from lavis_emovit.evaluation.adapters.lavis_model import LavisModelSettings, open_lavis_model

    short = ("run.max_steps=1", "run.warmup_steps=0", "run.evaluate_before=false", "run.valid_splits=[]")
    parts = ("run.test_splits=[]", "model.trained_parts=[query_tokens]", f"run.output_dir={tmp_path / 'other'}")
    run_recipe("projects/emovit/quickstart.yaml", [*OPTIONS, *short, *parts])
    place = ModelPlace("after", tmp_path, tmp_path)
    named = {"adapter": "lavis", "arch": "emovit_tiny", "checkpoint": str(tmp_path / "other")}
    opened = open_lavis_model(LavisModelSettings.model_validate(named), place)
    assert opened.identity()["trained"] == find_tuned(tmp_path / "other").weights_sha256
    wrong = LavisModelSettings.model_validate({**named, "config": {"trained_parts": ["qformer"]}})
    with pytest.raises(ConfigError, match=r"Set suite\.models\.after\.config\.trained_parts and .*Without `arch`"):
        open_lavis_model(wrong, place)


def test_what_is_not_a_tuned_model_is_named(run: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: neither a checkpoint folder nor the folder of a run"):
        find_tuned("nowhere")
    with pytest.raises(UserError, match=r"nowhere\.emovit: no such archive"):
        find_tuned("nowhere.emovit")
    (tmp_path / "text.emovit").write_text("not a zip")
    with pytest.raises(UserError, match=r"text\.emovit: damaged, or not an archive"):
        find_tuned(tmp_path / "text.emovit")


def test_archives_hold_known_files_only_and_are_checked(run: SimpleNamespace, tmp_path: Path) -> None:
    whole = tmp_path / "whole.emovit"
    pack(find_tuned(run.folder), whole, "# Card")
    with zipfile.ZipFile(whole) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert sorted(contents) == ["MANIFEST.json", "README.md", "config.yaml", "model.safetensors", "questions.json"]
    for name, change, message in (
        ("strange", {"other.txt": b"x"}, "has 'other.txt', which no archive"),
        ("above", {"../MANIFEST.json": b"x"}, r"has '\.\./MANIFEST\.json', which no archive"),
        ("changed", {"config.yaml": b"model: {}\n"}, r"config\.yaml: .* the manifest says"),
    ):
        path = tmp_path / f"{name}.emovit"
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in {**contents, **change}.items():
                archive.writestr(member, content)
        with pytest.raises(UserError, match=message):
            find_tuned(path)
    with pytest.raises(UserError, match="exists; choose another name"):
        pack(find_tuned(run.folder), whole, "# Card")
    with pytest.raises(UserError, match=r"the name of an archive ends with \.emovit"):
        pack(find_tuned(run.folder), tmp_path / "whole.zip", "# Card")


def test_the_card_has_data_numbers_and_a_warning(run: SimpleNamespace) -> None:
    from lavis_emovit.tuned.card import WARNING, model_card

    card = model_card(find_tuned(run.folder))
    metrics = json.loads((run.folder / "metrics.json").read_text())["splits"]["test"]
    assert "# emovit_tiny, tuned on emoset_sketch" in card.replace("\\", "") and WARNING in card
    assert main(["convert", str(run.folder), "exported"]) == 0
    assert Path("exported/README.md").read_text() == card
    row = next(line for line in card.splitlines() if "| accuracy |" in line)
    assert f"{metrics['before']['accuracy']:.3f} | {metrics['after']['accuracy']:.3f}" in row
    assert len(read_predictions(run.folder / "predictions" / "test-after.jsonl")) == int(row.split("|")[2])


def test_the_snippet_of_the_page_runs(run: SimpleNamespace) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "using.md").read_text()
    snippet, _ = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)  # the second one is about an endpoint
    photograph = Image.open(run.images[0]).convert("RGB")
    shown: dict = {"photograph": photograph}
    exec(snippet.replace("output/emovit/quickstart", str(run.folder)), shown)
    assert shown["tuned"].files.folder == run.folder


def test_a_full_disk_is_named_with_the_archive(run: SimpleNamespace, tmp_path: Path, monkeypatch: Any) -> None:
    def full(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UserError) as caught:
        pack(find_tuned(run.folder), tmp_path / "whole.emovit", "# Card")
    text = str(caught.value)
    assert text == f"{tmp_path / 'whole.emovit'}: cannot be written (No space left on device); no part of it remains"
    assert not list(tmp_path.iterdir())


def test_two_commands_that_load_a_new_archive_at_once_unpack_it_once(
    run: SimpleNamespace, tmp_path, monkeypatch
) -> None:
    from lavis_emovit.checkpoints import tuned_files

    monkeypatch.setenv("EMOVIT_CACHE", str(tmp_path / "cache"))
    pack(find_tuned(run.folder), tmp_path / "m.emovit", "# Card")
    begun, copy = threading.Barrier(2), tuned_files.shutil.copyfileobj

    def slowly(*files) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            begun.wait(0.3)  # for another one that unpacks too
        copy(*files)

    monkeypatch.setattr(tuned_files.shutil, "copyfileobj", slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(find_tuned, [tmp_path / "m.emovit"] * 2)
    assert first == second


@pytest.mark.parametrize(
    "stages",
    [
        {"after": None},
        {"after": [0.5]},
        "after",
        {"after": {"accuracy": 0.5, "accuracy_interval": [0.1]}},
        {"after": {"accuracy": 0.5, "accuracy_interval": {"low": "x", "high": None}}},
        {"after": {"accuracy": 0.5, "accuracy_interval": [0.1, 0.9]}, "before": None},
    ],
)
def test_damaged_metrics_are_named_on_packing(stages: Any, run: SimpleNamespace, capsys: Any) -> None:
    shutil.copytree(run.folder, "copy")
    content = json.loads(Path("copy/metrics.json").read_text())
    Path("copy/metrics.json").write_text(json.dumps({**content, "splits": {"test": stages}}))
    assert main(["pack", "copy", "copy.emovit"]) == 2
    errors = capsys.readouterr().err
    assert "copy/metrics.json: damaged: " in errors and "splits." in errors and "Delete it" in errors
    assert not Path("copy.emovit").exists()


@pytest.mark.parametrize("change", [{"model": [1]}, {"questions": None}, {"questions": {"questions": [1]}}])
def test_a_damaged_file_of_an_exported_folder_is_named(change: dict, run: SimpleNamespace, capsys: Any) -> None:
    assert main(["convert", str(run.folder), "exported"]) == 0
    path = Path("exported/emovit.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    Path("exported/README.md").unlink()
    assert main(["push", "exported", "some/model", "--dry-run"]) == 2
    assert f"{path}: damaged" in capsys.readouterr().err


def test_an_archive_is_converted_as_its_run_is(run: SimpleNamespace, capsys: Any) -> None:
    assert main(["pack", str(run.folder), "copy.emovit"]) == 0
    assert main(["convert", "copy.emovit", "from_archive"]) == 0
    assert main(["convert", str(run.folder), "from_run"]) == 0
    archived, direct = (Path(name, "model.safetensors").read_bytes() for name in ("from_archive", "from_run"))
    assert archived == direct
    Path("damaged.emovit").write_bytes(Path("copy.emovit").read_bytes()[:1000])
    assert main(["convert", "damaged.emovit", "nothing"]) == 2
    assert "damaged.emovit: damaged, or not an archive" in capsys.readouterr().err
