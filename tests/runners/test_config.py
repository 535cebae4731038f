"""A recipe as a config.

Properties:
- recipe, defaults and options are merged in LAVIS's order; options take both of LAVIS's forms;
- all problems are reported in one error, with the nearest name;
- what environment variables contain is in no written file, and recipes may read only a few of them;
- a config has what LAVIS's code reads from it;
- the identity of a run covers what it computes and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lavis.tasks import setup_task
from omegaconf import OmegaConf

from lavis_emovit.errors import ConfigError
from lavis_emovit.recipes import read_user_tree, resolve_model
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import nearest_name, written_values
from lavis_emovit.tasks.emotion_instruction import EmotionInstructionTask


def problems_of(path: Path, options: list[str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as error:
        Config.load(path, options or [])
    return error.value.problems


def test_defaults_recipe_options_and_overrides_in_this_order(recipe: Callable[..., Path]) -> None:
    path = recipe(max_epoch=3, init_lr=0.05, weight_decay=0.3)
    config = Config.load(path, ["run.init_lr=1e-4", "run.seed=5", "model.width=16"], ["run.seed=6"])
    assert config.run.weight_decay == 0.3
    assert config.run.init_lr == 1e-4
    assert config.run.seed == 6
    assert config.run.beta1 == 0.9
    assert config.model.width == 16
    assert config.model.dropout == 0.2, "from the model's default file"
    assert config.datasets["emo_stand_in"].num_train == 22


def test_options_as_pairs(recipe: Callable[..., Path]) -> None:
    config = Config.load(recipe(), ["run.seed", "9", "model.width", "4"])
    assert (config.run.seed, config.model.width) == (9, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["run.seed", "9", "run.max_epoch"], "'run.max_epoch' has no value"),
        (["run.seed=9", "quick"], "'quick' has no '='"),
    ],
)
def test_options_that_cannot_be_read(recipe: Callable[..., Path], options: list[str], words: str) -> None:
    assert any(words in problem for problem in problems_of(recipe(), options))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["datasets=[emo_stand_in]"], "datasets: expected a mapping (got ['emo_stand_in'])"),
        (["run.valid_splits={a: 1}"], "run.valid_splits: expected a list (got {'a': 1})"),
        (["run.valid_splits.0=test"], "run.valid_splits: expected a list (got {'0': 'test'})"),
        (["model=[1]"], "model: expected a mapping (got [1])"),
        (["datasets.emo_stand_in=[1]"], "datasets.emo_stand_in: expected a mapping (got [1])"),
    ],
)
def test_a_list_over_a_mapping_or_the_reverse_is_refused(
    recipe: Callable[..., Path], options: list[str], expected: str
):
    path = recipe(valid_splits=["val"])
    assert problems_of(path, options) == [expected]
    # The same in the recipe itself, and over the defaults of a model or a dataset.
    values = OmegaConf.to_container(OmegaConf.load(path))
    key, _, value = options[0].partition("=")
    node: Any = values
    *above, last = key.removesuffix(".0").split(".")
    for name in above:
        node = node[name]
    node[last] = yaml.safe_load(value) if not key.endswith(".0") else {"0": value}
    path.write_text(yaml.safe_dump(values))
    assert key.removesuffix(".0") in str(problems_of(path))


@pytest.mark.parametrize("parts", [{"a": 1}, {"query_tokens": True}])
def test_defaults_of_another_form_are_refused(parts: dict[str, Any]):
    problems: list[str] = []
    resolve_model({"arch": "emovit_tiny", "trained_parts": parts}, problems)
    assert problems == [f"model.trained_parts: expected a list (got {parts})"]


SECRET = "hunter2-and-more"


@pytest.mark.parametrize(
    "options",
    [
        ["run.wandb_project=${oc.env:EMOVIT_TEST}"],
        ["run.wandb_project=${run.output_dir}/x", "run.output_dir=out/${oc.env:EMOVIT_TEST}"],
        ["run.output_dir=${oc.env:${oc.env:SLURM_TEST}}"],
    ],
)
def test_environment_variables_stay_unresolved_in_what_is_written(recipe, monkeypatch, options):
    monkeypatch.setenv("EMOVIT_TEST", SECRET)
    monkeypatch.setenv("SLURM_TEST", "EMOVIT_TEST")
    path = recipe()
    config = Config.load(path, options)
    assert SECRET in str(config.run), "the run itself gets the value"
    text = config.to_yaml()
    assert SECRET not in text and SECRET not in str(config.to_share()) and "oc.env:" in text
    assert written_values(text) == config.to_dict()
    # The identity of a run does not depend on how its recipe is written.
    literal = [option.replace("${oc.env:EMOVIT_TEST}", SECRET) for option in options]
    literal = [option.replace("${oc.env:${oc.env:SLURM_TEST}}", SECRET) for option in literal]
    assert config.identity_hash == Config.load(path, literal).identity_hash


def test_a_variable_with_another_value_is_a_change(recipe, monkeypatch):
    monkeypatch.setenv("EMOVIT_TEST", "first")
    text = Config.load(recipe(), ["run.wandb_project=${oc.env:EMOVIT_TEST,other}"]).to_yaml()
    for change in ("second", None):
        monkeypatch.setenv("EMOVIT_TEST", change) if change else monkeypatch.delenv("EMOVIT_TEST")
        assert written_values(text)["run"]["wandb_project"] == "(another value of EMOVIT_TEST)"


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "PATH", "AWS_SECRET_ACCESS_KEY"])
def test_other_environment_variables_are_refused_unless_the_user_allows_them(recipe, monkeypatch, name):
    monkeypatch.setenv(name, SECRET)
    option = f"run.wandb_project=${{oc.env:{name},x}}"
    (problem,) = problems_of(recipe(), [option])
    assert name in problem and "EMOVIT_RECIPE_VARIABLES" in problem and SECRET not in problem
    monkeypatch.setenv("EMOVIT_RECIPE_VARIABLES", f"OTHER, {name}")
    assert Config.load(recipe(), [option]).run.wandb_project == SECRET


@pytest.mark.parametrize(
    ("option", "suggestion"),
    [
        ("run.learning_rate=0.1", "run.learning_rate: unknown key (did you mean 'init_lr'?)"),
        ("run.num_train_epochs=3", "run.num_train_epochs: unknown key (did you mean 'max_epoch'?)"),
        ("run.save_steps=3", "run.save_steps: unknown key (did you mean 'save_every_steps'?)"),
        ("max_epoch=5", "max_epoch: unknown key (did you mean 'run.max_epoch'?)"),
        ("epochs=5", "epochs: unknown key (did you mean 'run.max_epoch'?)"),
        ("dataset=5", "dataset: unknown key (did you mean 'datasets'?)"),
    ],
)
def test_names_of_other_libraries_and_of_other_nodes_are_understood(recipe, option, suggestion):
    assert suggestion in problems_of(recipe(), [option])


@pytest.mark.parametrize(
    ("name", "valid", "meant"),
    [
        ("r", ["rank", "alpha"], "rank"),
        ("acc", ["headline", "accuracy", "macro_f1"], "accuracy"),
        ("f1", ["macro_f1"], "macro_f1"),
    ],
)
def test_short_names_are_understood_where_the_long_one_exists(name, valid, meant):
    assert nearest_name(name, valid) == f" (did you mean '{meant}'?)"


def test_all_problems_come_in_one_error(recipe: Callable[..., Path]) -> None:
    options = [
        "run.max_epochs=2",
        "run.batch_size_train=4",
        "run.amp=fp8",
        "run.task=emotion_instructions",
        "model.widht=3",
        "datasets.emo_stand_in.num_trian=3",
        "datasets.emo_stand_inn.type=default",
        "extras.x=1",
    ]
    problems = "\n".join(problems_of(recipe(), options))
    for words in (
        "run.max_epochs: unknown key (did you mean 'max_epoch'?)",
        "run.batch_size_train: a key of LAVIS's runner, not of this one",
        "run.global_batch_size",
        "run.amp: ",
        "model.widht: unknown key (did you mean 'width'?)",
        "datasets.emo_stand_in.num_trian: unknown key (did you mean 'num_train'?)",
        "no dataset 'emo_stand_inn' is registered (did you mean 'emo_stand_in'?). `emovit init` declares ",
        "extras: unknown key (valid: datasets, first_run, model, run)",
    ):
        assert words in problems, words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"arch": "emovit_stand_inn"}}, "did you mean 'emovit_stand_in'"),
        ({"model": {"arch": "zzz"}}, "this plugin's: emovit_"),
        ({"model": {"arch": "albef_vqa"}}, "'albef_vqa' is not a model of this plugin"),
        ({"model": {"arch": "emovit_stand_in", "model_type": "huge"}}, "has no type 'huge'"),
        ({"model": {"arch": ["emovit_stand_in"]}}, "model.arch: expected one name (got ['emovit_stand_in'])"),
        ({"model": {"arch": {"a": 1}}}, "model.arch: expected one name (got {'a': 1})"),
        ({"model": {"arch": "emovit_stand_in", "model_type": ["a"]}}, "model.model_type: expected one name"),
        ({"model": {"arch": "???", "width": "???"}}, "model.arch: '???' is the mark of a missing value; set it"),
        ({"model": {"arch": "emovit_stand_in", "width": "???"}}, "model.width: '???'"),
        ({"run": {"output_dir": "???"}}, "run.output_dir: '???'"),
        ({"model": None}, "model: missing"),
        ({"model": [1]}, "model: expected a mapping"),
        ({"datasets": {"coco_caption": None}}, "it takes "),
        ({"datasets": {"emo_stand_in": {"type": "small"}}}, "no type 'small'"),
        ({"datasets": {"emo_stand_in": {"type": ["small"]}}}, "type: expected one name (got ['small'])"),
        ({"datasets": {"emo_stand_in": {"type": {"a": 1}}}}, "type: expected one name"),
        ({"datasets": {"emo_stand_in": {"type": None}}}, "type: expected one name (got None)"),
        ({"datasets": {"emo_stand_in": 3}}, "expected a mapping"),
        ({"run": None}, "run: missing"),
    ],
)
def test_faults_of_a_recipe(recipe: Callable[..., Path], change: dict, words: str) -> None:
    path = recipe()
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    assert any(words in problem for problem in problems_of(path)), problems_of(path)


@pytest.mark.parametrize("key", ["llava-1.5", "a.b.c", "v1."])
def test_options_find_keys_with_dots(key, tmp_path):
    path = tmp_path / "recipe.yaml"
    models = {key: {"x": {"y.z": 1}, "w": 5}, "other": {"x": 2}}
    path.write_text(yaml.safe_dump({"suite": {"models": models}}))

    def read(*options):
        return read_user_tree(path, options, ())[0]["suite"]["models"]

    assert read(f"suite.models.{key}=null") == {key: None, "other": {"x": 2}}
    assert read(f"suite.models.{key}.w=a=b.c", "suite.models.other.x=3") == {
        key: {"x": {"y.z": 1}, "w": "a=b.c"}, "other": {"x": 3},
    }  # fmt: skip
    assert read(f"suite.models.{key}.x.y.z=4", "suite.models.new.n=1")[key]["x"] == {"y.z": 4}


@pytest.mark.parametrize(
    "text", ["run: [", "- 1\n- 2\n", "run: {seed: 1}\nrun: {seed: 2}\n", "run:\n  seed: ${nowhere}\n"]
)
def test_files_that_are_not_recipes(recipe: Callable[..., Path], text: str) -> None:
    path = recipe()
    path.write_text(text)
    assert problems_of(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such recipe file"):
        Config.load(tmp_path / "nowhere.yaml")


def test_a_dataset_needs_no_settings(recipe: Callable[..., Path]) -> None:
    path = recipe()
    values = yaml.safe_load(path.read_text())
    values["datasets"]["emo_stand_in"] = None
    path.write_text(yaml.safe_dump(values))
    assert Config.load(path).datasets["emo_stand_in"].num_eval == 12


def test_image_sizes_must_agree(recipe: Callable[..., Path]) -> None:
    path = recipe()
    values = yaml.safe_load(path.read_text())
    values["datasets"] = {"emoset_sketch": {"vis_processor": {"eval": {"image_size": 128}}}}
    values["model"] = {"arch": "emovit_tiny"}
    path.write_text(yaml.safe_dump(values))
    problems = problems_of(path)
    assert any(
        "vis_processor.eval.image_size: 128, but the model reads images of 96" in problem for problem in problems
    )


def test_clips_have_no_more_frames_than_embeddings(recipe: Callable[..., Path]) -> None:
    path = recipe()
    values = yaml.safe_load(path.read_text())
    values["datasets"] = {"emoset_sketch": {"vis_processor": {"eval": {"frames": {"num_frames": 9}}}}}
    values["model"] = {"arch": "emovit_tiny", "frames": {"max_frames": 8}}
    path.write_text(yaml.safe_dump(values))
    text = "vis_processor.eval.frames.num_frames: 9, but model.frames.max_frames is 8; raise it"
    assert any(text in problem for problem in problems_of(path))
    values["model"]["frames"] = {"embedding": "none", "pooling": "mean"}
    path.write_text(yaml.safe_dump(values))
    assert Config.load(path).model.frames.pooling == "mean"


def test_config_has_what_lavis_reads(recipe: Callable[..., Path]) -> None:
    config = Config.load(recipe(score_normalisation="sum", max_len=7))
    assert config.run_cfg.task == "emotion_instruction"
    assert config.run_cfg.get("num_beams") == 1
    assert config.run_cfg.get("not_there", 5) == 5
    assert config.model_cfg.arch == "emovit_stand_in"
    assert list(config.datasets_cfg) == ["emo_stand_in"]
    assert config.to_dict()["run"]["max_len"] == 7
    assert yaml.safe_load(config.to_yaml()) == config.to_dict()
    task = setup_task(config)
    assert isinstance(task, EmotionInstructionTask)
    assert (task.settings.score_normalisation, task.settings.max_len) == ("sum", 7)
    assert set(task.build_datasets(config)["emo_stand_in"]) == {"train", "val", "test"}
    assert type(task.build_model(config)).__name__ == "StandInModel"


def test_a_recipe_with_its_defaults_filled_in_loads_as_itself(recipe: Callable[..., Path], tmp_path: Path) -> None:
    config = Config.load(recipe())
    full = tmp_path / "full.yaml"
    full.write_text(config.to_yaml())
    again = Config.load(full)
    assert again.to_dict() == config.to_dict()
    assert again.identity_hash == config.identity_hash


def test_identity_covers_what_a_run_computes(recipe: Callable[..., Path]) -> None:
    path = recipe()
    own = Config.load(path).identity_hash
    for option in ("run.num_workers=2", "run.output_dir=elsewhere", "run.save_every_steps=3", "run.micro_batch_size=1"):
        assert Config.load(path, [option]).identity_hash == own, option
    for option in (
        "run.init_lr=0.1",
        "run.seed=4",
        "model.width=9",
        "datasets.emo_stand_in.num_train=9",
        "run.amp=bf16",
    ):
        assert Config.load(path, [option]).identity_hash != own, option


def test_run_settings_are_frozen(recipe: Callable[..., Path]) -> None:
    run: RunSettings = Config.load(recipe()).run
    with pytest.raises(ValueError, match="frozen"):
        run.seed = 3  # type: ignore[misc]
