"""`accelerate launch`: what it asks for becomes settings of the run, and what a run cannot do is refused by name."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from lavis_emovit.runners.accelerate_launch import with_accelerate

accelerate = pytest.importorskip("accelerate")


def variables(*arguments: str) -> dict[str, str]:
    """What `accelerate launch` passes to the processes that it starts with DeepSpeed."""
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    parsed = launch_command_parser().parse_args([*arguments, "--num_processes", "2", "train.py"])
    # What it completes from its configuration file.
    defaults = {
        "mixed_precision": parsed.mixed_precision or "no", "num_machines": 1, "main_process_port": 29500,
        "deepspeed_fields_from_accelerate_config": "",
    }  # fmt: skip
    return prepare_deepspeed_cmd_env(argparse.Namespace(**{**vars(parsed), **defaults}))[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--zero_stage", "2"], {"deepspeed_config": "projects/emovit/deepspeed/zero2.json"}),
        (["--zero_stage", "3"], {"deepspeed_config": "projects/emovit/deepspeed/zero3.json"}),
        (
            [
                *("--zero_stage", "3", "--offload_param_device", "cpu", "--offload_optimizer_device", "cpu"),
                *("--mixed_precision", "bf16"),
            ],
            {"deepspeed_config": "projects/emovit/deepspeed/zero3_offload.json", "amp": "bf16"},
        ),
        (
            ["--deepspeed_config_file", "own.json", "--gradient_clipping", "0.5"],
            {"deepspeed_config": "own.json", "max_grad_norm": 0.5},
        ),
    ],
)
def test_deepspeed_of_accelerate_is_the_engine(arguments: list[str], expected: dict[str, Any]) -> None:
    problems: list[str] = []
    found = with_accelerate({"seed": 1}, variables("--use_deepspeed", *arguments), problems)
    assert not problems and found == {"seed": 1, "engine": "deepspeed", **expected}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--zero_stage", "1", "--offload_optimizer_device", "cpu"], "ZeRO 1 with the optimizer offloaded to cpu"),
        (["--zero_stage", "2", "--offload_optimizer_device", "nvme"], "offloaded to nvme and parameters to none"),
        (["--zero_stage", "3", "--offload_optimizer_device", "cpu"], "offloaded to cpu and parameters to none"),
    ],
)
def test_no_other_way_of_offloading_is_taken(arguments: list[str], message: str) -> None:
    problems: list[str] = []
    asked = variables("--use_deepspeed", *arguments)
    with_accelerate({}, asked, problems)
    assert len(problems) == 1 and message in problems[0]
    with_accelerate({"deepspeed_config": "mine.json"}, asked, problems)
    assert len(problems) == 1


def test_clipping_is_a_number() -> None:
    problems: list[str] = []
    asked = {**variables("--use_deepspeed"), "ACCELERATE_GRADIENT_CLIPPING": "auto"}
    assert "max_grad_norm" not in with_accelerate({}, asked, problems)
    assert len(problems) == 1 and "'auto', which is no number; set run.max_grad_norm" in problems[0]


def test_the_recipe_wins() -> None:
    problems: list[str] = []
    own = {"deepspeed_config": "mine.json", "amp": "off"}
    found = with_accelerate(own, {**variables("--use_deepspeed"), "ACCELERATE_MIXED_PRECISION": "bf16"}, problems)
    assert not problems and found == {"engine": "deepspeed", **own}
    assert with_accelerate(own, {}, problems) == own and not problems


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "accelerate launch asks for FSDP"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "the recipe for run.engine=torch"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, "mixed precision in fp8"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "run.global_batch_size and run.micro_batch_size"),
    ],
)
def test_what_a_run_cannot_do_is_refused(asked: dict[str, str], message: str) -> None:
    problems: list[str] = []
    with_accelerate({"engine": "torch"}, asked, problems)
    assert len(problems) == 1 and message in problems[0]
