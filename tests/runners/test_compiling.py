"""Properties of `run.compile`: the named parts are translated when they are called, with the same losses, gradients and
names of weights; a machine without a compiler is detected before any data is read.

Translation stops before machine code here, which would take minutes; a slow test goes all the way.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lavis.models import load_model
from runs import exit_code_of, in_fork
from torch import nn

from lavis_emovit.errors import ConfigError
from lavis_emovit.runners.compiling import compile_parts

CPU = torch.device("cpu")


def batch(num_pairs: int) -> dict[str, Any]:
    pixels = torch.Generator().manual_seed(num_pairs)
    return {
        "image": torch.randn(num_pairs, 3, 96, 96, generator=pixels),
        "text_input": ["What is it? " * (number + 1) for number in range(num_pairs)],
        "text_output": ["A dog sits."] * num_pairs,
    }


def losses_and_gradients(model: Any) -> list[torch.Tensor]:
    found = []
    for num_pairs in (2, 3):
        model.zero_grad()
        loss = model(batch(num_pairs))["loss"]
        loss.backward()
        found += [loss.detach(), model.core.query_tokens.grad.clone()]
    return found


def check(parts: list[str], modules: list[str]) -> None:
    model: Any = load_model("emovit_tiny").train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    expected, names = losses_and_gradients(model), list(model.state_dict())
    assert compile_parts(model, parts, CPU) == modules
    for ours, theirs in zip(losses_and_gradients(model), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the graphs that were translated."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    real_compile, real_module_compile = torch.compile, nn.Module.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: real_compile(*args, **{**kwargs, "backend": backend}))
    monkeypatch.setattr(
        nn.Module,
        "compile",
        lambda self, *args, **kwargs: real_module_compile(self, *args, **{**kwargs, "backend": backend}),
    )
    return graphs


@pytest.mark.parametrize(
    ("part", "module"),
    [
        ("qformer", "core.qformer"),
        ("language_model", "core.language_model.base_model"),
    ],
)
def test_a_part_is_translated_and_computes_the_same(traced: list[int], part: str, module: str) -> None:
    torch._dynamo.reset()
    check([part], [module])
    assert max(traced) > 50, "only the probe was compiled"


@pytest.mark.slow
def test_with_the_real_compiler(capfd: pytest.CaptureFixture[str]) -> None:
    """In its own process: the compiler leaves threads behind, and after a compiled backward pass torch refuses others
    in all forked processes, so this one must stay as it is for the tests that fork from it."""
    no_compiler = 77

    def compile_and_check() -> int:
        try:
            torch.compile(lambda x: x + 1)(torch.ones(2))
        except Exception as error:
            print(str(error).splitlines()[0], flush=True)
            return no_compiler
        check(["vision_encoder"], ["core.vision_model.encoder"])
        return 0

    code = exit_code_of(in_fork(compile_and_check), timeout_s=600)
    if code == no_compiler:
        pytest.skip(f"torch.compile does not work here: {capfd.readouterr().out.strip()}")
    assert code == 0


def test_a_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", lambda function: broken)
    model = load_model("emovit_tiny")
    with pytest.raises(ConfigError, match=r"run\.compile: .*\(no C\+\+ compiler found\).*leave run\.compile empty"):
        compile_parts(model, ["qformer"], CPU)
    assert compile_parts(model, [], CPU) == []


def test_a_part_that_cannot_be_compiled_is_rejected_by_name() -> None:
    with pytest.raises(ConfigError, match=r"no part 'query_tokens' to compile"):
        compile_parts(load_model("emovit_tiny"), ["query_tokens"], CPU)
