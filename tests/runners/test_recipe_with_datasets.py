"""Recipes with several datasets, on shards of two label sets.

- Training takes the datasets in exactly the ratios of the recipe, stage by stage, and logs them; a run that was stopped
  inside a stage and started again ends bit for bit like one that was not.
- Each dataset's own splits are evaluated with its own labels, under names of their own in metrics, log and predictions;
  the named dataset chooses the best checkpoint; thumbnails of records of one name are kept apart.
- Samples are dropped by their own losses from the next epoch on, and listed; they are the same after a stop in the
  middle of an epoch and on two processes.
- Ratios, names, splits and length buckets that do not fit are refused by key, before a weight is loaded where possible.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ranks.jobs import finish, logs, start_ranks, stop_before
from safetensors.torch import load_file

from lavis_emovit.datasets.mixture import EmotionMixtureDataset
from lavis_emovit.errors import ConfigError
from lavis_emovit.paths import list_checkpoints
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.engines.torch_engine import TorchEngine
from lavis_emovit.runners.logs import read_log
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.train import main as train_main
from lavis_emovit.train import run_recipe

RUN = {
    "task": "emotion_instruction",
    "output_dir": "run",
    "max_epoch": 2,
    "global_batch_size": 16,
    "init_lr": 1e-3,
    "device": "cpu",
    "num_threads": 1,
    "keep_last": 9,
    "tensorboard": False,
    "report": False,
    "num_report_answers": 2,
}
RATIOS = {"emoset": 3, "unbiasedemo": 1}
CURRICULUM = [
    {"epochs": 1, "ratios": RATIOS},
    {"epochs": 2, "ratios": {"emoset": {"categorical": 1}, "unbiasedemo": 3}, "change": "linear"},
]


def _small(node: Any) -> dict[str, Any]:
    """A dataset's node with pictures of the tiny model's size."""
    given = (node or {}).get("vis_processor", {})
    sizes = {part: {"image_size": 96, **given.get(part, {})} for part in ("train", "eval")}
    return {**(node or {}), "vis_processor": sizes}


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory, make_records: Callable) -> Path:
    """Shards of pictures with eight emotions, and of others with six; their records have the same ids."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 40), ("val", 8), ("test", 8)):
        pictures = folder / "pictures" / split
        records = make_records(pictures, count, split=split)
        write_shards(records, pictures, folder / "emoset" / split)
        others = [
            record.model_copy(
                update={
                    "image": records[-1 - number].image,
                    "emotion": ("joy", "love")[number % 2],
                    "label_set": "parrott6",
                }
            )
            for number, record in enumerate(records[: count // 2])
        ]
        write_shards(others, pictures, folder / "unbiasedemo" / split)
    return folder


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> Callable[..., Path]:
    monkeypatch.setenv("EMOVIT_DATA", str(data_folder))
    monkeypatch.chdir(tmp_path)

    def write(datasets: Any = None, **run: Any) -> Path:
        values = {
            "model": {"arch": "emovit_tiny"},
            "datasets": {name: _small(node) for name, node in (datasets or dict.fromkeys(RATIOS)).items()},
            "run": {**RUN, **run},
        }
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "recipe.yaml"

    return write


def test_two_datasets_train_together_and_resume_exactly(recipe: Callable[..., Path], tmp_path: Path) -> None:
    seen: dict[str, list[list[str]]] = {}
    real = TorchEngine.train_step

    def run(name: str, stop_at: int | None = None) -> dict[str, Any]:
        steps = seen.setdefault(name, [])

        def train_step(self: TorchEngine, micro_batches: Any, *rest: Any) -> Any:
            if len(steps) == stop_at:
                raise KeyboardInterrupt
            # The label of each picture, by its first question.
            steps.append(
                [
                    batch["label"][batch["image_index"].tolist().index(image)]
                    for batch in micro_batches
                    for image in range(len(batch["record_id"]))
                ]
            )
            return real(self, micro_batches, *rest)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(TorchEngine, "train_step", train_step)
            return run_recipe(
                recipe(
                    output_dir=name,
                    curriculum=CURRICULUM,
                    max_epoch=3,
                    epoch_size=64,
                    best_dataset="unbiasedemo",
                    save_every_steps=3,
                )
            )

    straight = run("straight")
    with pytest.raises(KeyboardInterrupt):
        run("stopped", stop_at=7)
    del seen["stopped"][6:]  # the newest checkpoint is that of step 6, in the middle of the second epoch
    assert run("stopped") == straight
    assert seen["stopped"] == seen["straight"] and len(seen["straight"]) == 12
    last, other = (list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("straight", "stopped"))
    assert last.name == other.name == "ckpt-00000012"
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (last / name).read_bytes() == (other / name).read_bytes(), name

    # 64 pictures an epoch, of the second dataset first one in four, then halfway to three in four, then these.
    for first, count in ((0, 16), (4, 32), (8, 48)):
        steps = seen["straight"][first : first + 4]
        assert Counter(label in ("joy", "love") for step in steps for label in step)[True] == count
    expected = [(48, 16, 0), (24, 32, 8), (0, 48, 16)]
    for folder in ("straight", "stopped"):
        rows = [row for row in read_log(tmp_path / folder / "log.jsonl") if row["event"] == "epoch"]
        assert [(row["step"], row["epoch"]) for row in rows] == [(1, 1), (5, 2), (9, 3)]
        names = ("emoset", "unbiasedemo", "emoset.categorical")
        assert [row["num_images"] for row in rows] == [dict(zip(names, counts)) for counts in expected]

    # Each dataset's own splits, with its own labels.
    folder = tmp_path / "straight"
    assert list(straight["splits"]) == ["emoset-test", "unbiasedemo-test"]
    for name, num_labels, count in (("emoset-test", 8, 8), ("unbiasedemo-test", 6, 4)):
        after = straight["splits"][name]["after"]
        assert (after["num_samples"], after["chance"]) == (count, pytest.approx(1 / num_labels))
        rows = [json.loads(line) for line in (folder / f"predictions/{name}-after.jsonl").read_text().splitlines()]
        assert {len(row["scores"]) for row in rows} == {num_labels} and len(rows) == count
    images = [
        json.loads((folder / f"predictions/{name}-after.jsonl").read_text().splitlines()[0])["image"]
        for name in straight["splits"]
    ]
    assert len(set(images)) == 2 and all((folder / image).is_file() for image in images)
    validations = [row for row in read_log(folder / "log.jsonl") if row.get("stage") == "during"]
    assert [row["split"] for row in validations] == ["unbiasedemo-val", "emoset-val"] * 3
    best = max(row["metrics"]["accuracy"] for row in validations if row["split"] == "unbiasedemo-val")
    assert straight["best"]["value"] == best


def test_dropped_samples_are_no_longer_drawn(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Every visited sample is below the limit, so the share decides."""
    seen: list[list[int]] = []
    real = TorchEngine.train_step

    def write(name: str) -> Path:
        return recipe(
            output_dir=name,
            curriculum=[{"epochs": 3, "ratios": {"emoset": {"reasoning": 1}, "unbiasedemo": 1}}],
            drop_samples={"at_most": 99, "visits": 1, "max_share": 0.25},
            max_epoch=3,
            epoch_size=16,
            global_batch_size=8,
            save_every_steps=3,
            valid_splits=[],
            test_splits=[],
            evaluate_before=False,
        )

    def train_step(self: TorchEngine, micro_batches: Any, *rest: Any) -> Any:
        seen.append([number for batch in micro_batches for number in batch["number"]])
        return real(self, micro_batches, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TorchEngine, "train_step", train_step)
        run_recipe(write("straight"))
    stopped = write("stopped")
    stop_before(4, lambda: run_recipe(stopped))  # in the middle of the second epoch
    run_recipe(stopped)
    ranks = start_ranks(2, train_main, [["--cfg-path", str(write("two"))]], tmp_path / "two_logs")
    assert finish(ranks) == [0, 0], logs(tmp_path / "two_logs")

    folders = {name: list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("straight", "stopped", "two")}
    for name in ("model.safetensors", "optimizer.safetensors", "state.json", "samples.safetensors"):
        assert (folders["straight"] / name).read_bytes() == (folders["stopped"] / name).read_bytes(), name
    states = {name: load_file(folder / "samples.safetensors") for name, folder in folders.items()}
    state = states["straight"]
    # Losses that differ by rounding only may change places where the share cuts, so two processes drop as many.
    two = states["two"]
    for part in (slice(13), slice(13, None)):
        assert two["dropped_in"][part].sort().values.equal(state["dropped_in"][part].sort().values)
    dropped_by_both = (two["dropped_in"] == 1) & (state["dropped_in"] == 1)
    assert dropped_by_both.any()
    lowest, expected = (some["lowest"][dropped_by_both].flatten().tolist() for some in (two, state))
    assert lowest == pytest.approx(expected, rel=1e-3)
    lists = [(tmp_path / name / "dropped.jsonl").read_text() for name in folders]
    assert lists[0] == lists[1]

    # 13 of the 40 images have a third instruction, and 7 of the 20.
    num_reasoning = 13
    dropped_in = state["dropped_in"].tolist()
    assert len(dropped_in) == num_reasoning + 20
    dropped = [number for number, epoch in enumerate(dropped_in) if epoch >= 0]
    assert sum(number < num_reasoning for number in dropped) == 3 and len(dropped) == 3 + 5
    for number in dropped:
        assert number in {other for step in seen[: 2 * dropped_in[number]] for other in step}
        assert number not in {other for step in seen[2 * dropped_in[number] :] for other in step}
    rows = [json.loads(line) for line in lists[0].splitlines()]
    assert Counter(row["dataset"] for row in rows) == {"emoset.reasoning": 3, "unbiasedemo": 5}
    assert [row["epoch"] for row in rows] == sorted(dropped_in[number] + 1 for number in dropped)
    assert all(row["id"] and row["reason"] == "learned" and row["lowest"][0] <= row["highest"][0] < 99 for row in rows)
    events = [row for row in read_log(tmp_path / "stopped" / "log.jsonl") if row["event"] == "dropped"]
    assert [(row["step"], row["epoch"]) for row in events] == [(3, 2), (5, 3)]
    assert events[-1]["num_dropped"] == {"emoset.reasoning": 3, "unbiasedemo": 5}
    assert events[0]["num_new"] + events[1]["num_new"] == 8


def test_one_is_trained_on_and_both_are_evaluated(recipe: Callable[..., Path], tmp_path: Path) -> None:
    options = {"valid_splits": [], "max_epoch": 1, "evaluate_before": False, "report": True}
    summary = run_recipe(recipe(train_dataset_ratios={"emoset": 1, "unbiasedemo": 0}, **options))
    assert summary["step"] == 3
    assert list(summary["splits"]) == ["emoset-test", "unbiasedemo-test"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "emoset-test" in page and "unbiasedemo-test" in page
    evaluated = run_recipe(
        recipe(output_dir="evaluation", evaluate=True, checkpoint=str(tmp_path / "run"), report=False)
    )
    assert {name: stages["after"] for name, stages in evaluated["splits"].items()} == {
        name: stages["after"] for name, stages in summary["splits"].items()
    }


@pytest.mark.parametrize(
    ("run", "datasets", "words"),
    [
        ({"train_dataset_ratios": {"emoset": 1}}, {}, "run.train_dataset_ratios.unbiasedemo: missing"),
        (
            {"train_dataset_ratios": {**RATIOS, "unbiasedem": 1}},
            {},
            "run.train_dataset_ratios.unbiasedem: the recipe has no such dataset (did you mean 'unbiasedemo'?)",
        ),
        ({"train_dataset_ratios": {"emoset": 0, "unbiasedemo": 0}}, {}, "give at least one dataset a share above 0"),
        (
            {"train_dataset_ratios": {"emoset": -1, "unbiasedemo": 1}},
            {},
            "run.train_dataset_ratios.emoset: Input should",
        ),
        ({"epoch_size": 64}, {}, "run.epoch_size needs run.train_dataset_ratios"),
        ({"curriculum": CURRICULUM, "max_epoch": 3}, {}, "run.curriculum needs run.epoch_size"),
        (
            {"curriculum": CURRICULUM, "epoch_size": 64},
            {},
            "run.curriculum: its stages have 3 epochs, so set run.max_epoch=3",
        ),
        (
            {"curriculum": CURRICULUM, "epoch_size": 64, "max_epoch": 3, "train_dataset_ratios": RATIOS},
            {},
            "run.train_dataset_ratios: each stage of run.curriculum has its own ratios; remove it",
        ),
        (
            {"curriculum": [{"epochs": 2, "ratios": {"emoset": 1}, "change": "linear"}], "epoch_size": 64},
            {},
            "run.curriculum: there is no stage before the first one",
        ),
        (
            {"curriculum": [{"epochs": 2, "ratios": {"emosett": 1}}], "epoch_size": 64},
            {},
            "run.curriculum.0.ratios.emosett: the recipe has no such dataset (did you mean 'emoset'?)",
        ),
        (
            {"curriculum": [{"epochs": 2, "ratios": {"emoset": {"categorial": 1}}}], "epoch_size": 64},
            {},
            "run.curriculum.0.ratios: emoset.categorial: no such kind (did you mean 'categorical'?)",
        ),
        (
            {"curriculum": [{"epochs": 2, "ratios": {"emoset": {"reasoning": 1}}}], "epoch_size": 64},
            {"emoset": {"kinds": ["categorical"]}},
            "run.curriculum.0.ratios.emoset.reasoning: datasets.emoset.kinds has categorical only; add it there",
        ),
        (
            {"curriculum": [{"epochs": 2, "ratios": {"emoset": -1}}], "epoch_size": 64},
            {},
            "run.curriculum.0.ratios: emoset: expected a number from 0, or kinds with their numbers (got -1)",
        ),
        (
            {"curriculum": [{"epochs": 2, "ratios": {"emoset": 0}}], "epoch_size": 64},
            {},
            "run.curriculum.0: ratios: give at least one dataset a share above 0",
        ),
        ({"best_dataset": "unbias"}, {}, "run.best_dataset: the recipe has no dataset 'unbias'"),
        (
            {},
            {"unbiasedemo": {"length_buckets": {"window_steps": 3}}},
            "datasets.unbiasedemo.length_buckets: must be as that of 'emoset'",
        ),
        (
            {},
            {"unbiasedemo": {"vis_processor": {"train": {"image_size": 64}}}},
            "datasets.unbiasedemo.vis_processor.train.image_size: 64, but the model reads images of 96",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_recipe(
    recipe: Callable[..., Path], run: dict, datasets: dict, words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        Config.load(recipe({"emoset": None, "unbiasedemo": None, **datasets}, **run))
    assert any(words in problem for problem in error.value.problems), error.value.problems


WITHOUT_VAL = {"build_info": {"annotations": {"val": None}}}
WITHOUT_TRAIN = {"build_info": {"annotations": {"train": None}, "prepare": None}}


@pytest.mark.parametrize(
    ("run", "others", "words"),
    [
        (
            {"best_dataset": "unbiasedemo"},
            WITHOUT_VAL,
            "run.best_dataset: no validation of this run is on 'unbiasedemo'",
        ),
        (
            {"test_splits": ["dev"]},
            None,
            "split 'dev' is in none of the datasets, which have emoset: train, val, test; un",
        ),
        (
            {"train_dataset_ratios": RATIOS},
            WITHOUT_TRAIN,
            "run.train_dataset_ratios.unbiasedemo: 'unbiasedemo' has no",
        ),
        ({"test_splits": ["train"]}, None, "split 'train' of dataset 'emoset' is a training split"),
        (
            {"train_dataset_ratios": {"emoset": 1, "unbiasedemo": 0}, "valid_splits": ["val"], "test_splits": []},
            WITHOUT_VAL,
            "datasets.unbiasedemo: the run uses none of its splits",
        ),
        (
            {"curriculum": CURRICULUM, "epoch_size": 64, "max_epoch": 3},
            WITHOUT_TRAIN,
            "run.curriculum.unbiasedemo: 'unbiasedemo' has no split 'train' to train on; its share must be 0",
        ),
        (
            {"curriculum": [{"epochs": 2, "ratios": {"emoset": {"explanation": 1}}}], "epoch_size": 64},
            None,
            "emoset/train: none of its samples has an instruction of the kinds explanation",
        ),
        (
            {"curriculum": CURRICULUM, "epoch_size": 64, "max_epoch": 3, "max_steps": 3},
            None,
            "run.max_steps: 3 steps end before the last stage of run.curriculum begins, after step 4",
        ),
    ],
)
def test_splits_that_do_not_fit_are_refused(recipe: Callable[..., Path], run: dict, others: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        run_recipe(recipe({"emoset": None, "unbiasedemo": others}, **run))
    assert any(words in problem for problem in error.value.problems), error.value.problems


def test_a_dataset_without_a_split_is_passed_over_there(recipe: Callable[..., Path]) -> None:
    from lavis.tasks import setup_task

    from lavis_emovit.runners.splits import RecipeSplits

    config = Config.load(recipe({"emoset": None, "unbiasedemo": WITHOUT_VAL}))
    task = setup_task(config)
    splits = RecipeSplits.of(task.build_datasets(config), config, task)
    assert list(splits.valid) == ["emoset-val"]
    assert isinstance(splits.train, EmotionMixtureDataset) and len(splits.train) == 60
