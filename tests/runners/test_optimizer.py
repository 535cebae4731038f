"""Properties: weight decay acts on matrices only, frozen parameters are in no group; the optimizer's state goes through
names and back without a change, and is refused where it is of another model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lavis_emovit.errors import WeightsError
from lavis_emovit.runners.optimizer import adamw_state, build_adamw, load_adamw_state
from lavis_emovit.runners.settings import RunSettings

SETTINGS = RunSettings(
    output_dir="x", max_epoch=1, global_batch_size=1, init_lr=1e-2, weight_decay=0.3, beta2=0.98, adam_epsilon=1e-7
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)
        self.query_tokens = nn.Parameter(torch.zeros(1, 2, 4))
        self.embedding = nn.Embedding(5, 4)
        self.gain = nn.Parameter(torch.ones(3))


def train_a_little(net: Net, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        seen = net.embedding.weight.sum(0) + net.query_tokens.sum((0, 1))
        (net.norm(net.linear(seen)) * net.gain * (step + 1)).square().sum().backward()
        optimizer.step()


def test_decay_groups() -> None:
    net = Net()
    optimizer = build_adamw(net.named_parameters(), SETTINGS)
    names = {parameter: name for name, parameter in net.named_parameters()}
    decayed, plain = ({names[parameter] for parameter in group["params"]} for group in optimizer.param_groups)
    assert decayed == {"linear.weight", "query_tokens", "embedding.weight"}
    assert plain == {"linear.bias", "norm.weight", "norm.bias", "gain"}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    for group in optimizer.param_groups:
        assert group["betas"] == (0.9, 0.98)
        assert group["eps"] == 1e-7


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(WeightsError, match="trained_parts"):
        build_adamw(nn.Linear(2, 2).requires_grad_(False).named_parameters(), SETTINGS)


def test_state_goes_through_names_without_a_change() -> None:
    torch.manual_seed(0)
    net = Net()
    optimizer = build_adamw(net.named_parameters(), SETTINGS)
    train_a_little(net, optimizer)
    saved = adamw_state(optimizer, net.named_parameters())
    assert saved.values["adamw_steps"]["gain"] == 3
    assert "exp_avg.frozen.weight" not in saved.tensors

    twin = Net()
    twin.load_state_dict(net.state_dict())
    twin_optimizer = build_adamw(twin.named_parameters(), SETTINGS)
    load_adamw_state(twin_optimizer, twin.named_parameters(), saved)
    train_a_little(net, optimizer)
    train_a_little(twin, twin_optimizer)
    for (name, one), other in zip(net.named_parameters(), twin.parameters()):
        assert torch.equal(one, other), name


def test_loaded_state_is_a_copy() -> None:
    net = Net()
    optimizer = build_adamw(net.named_parameters(), SETTINGS)
    train_a_little(net, optimizer)
    saved = adamw_state(optimizer, net.named_parameters())
    kept = {name: tensor.clone() for name, tensor in saved.tensors.items()}
    load_adamw_state(optimizer, net.named_parameters(), saved)
    train_a_little(net, optimizer)
    assert not torch.equal(optimizer.state[net.gain]["exp_avg"], kept["exp_avg.gain"])
    for name, tensor in saved.tensors.items():
        assert torch.equal(tensor, kept[name]), name


@pytest.mark.parametrize("change", ["frozen", "shape", "gone"])
def test_state_of_another_model_is_refused(change: str) -> None:
    net = Net()
    optimizer = build_adamw(net.named_parameters(), SETTINGS)
    train_a_little(net, optimizer)
    saved = adamw_state(optimizer, net.named_parameters())
    if change == "frozen":
        net.gain.requires_grad_(False)
    elif change == "shape":
        saved.tensors["exp_avg.gain"] = torch.zeros(4)
    else:
        saved.values["adamw_steps"]["other"] = 1
    with pytest.raises(WeightsError, match=r"gain|other"):
        load_adamw_state(optimizer, net.named_parameters(), saved)
