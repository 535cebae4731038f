"""Adapter folders of peft: reading one for a model, adding it to the model, and writing one.

peft stores `base_model.model.<layer>.lora_A.weight` [rank, in] and `<layer>.lora_B.weight` [out, rank], and whole
weights of modules that were trained beside the adapters (`modules_to_save`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from lavis_emovit.errors import WeightsError, first_line
from lavis_emovit.files import file_sha256, load_json, obey_umask, read_file
from lavis_emovit.models import lora
from lavis_emovit.models.part_names import Prefixes, part_of
from lavis_emovit.models.tensors import read_tensor_file
from lavis_emovit.paths import expand_home

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
ROOT = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_LISTED = 5
# Settings of peft under which the tensors mean something else, and what they are called there.
_UNSUPPORTED = {
    "use_dora": "DoRA",
    "lora_bias": "biases of adapters",
    "fan_in_fan_out": "transposed layers",
    "layer_replication": "replicated layers",
    "target_parameters": "adapters on parameters",
    "alora_invocation_tokens": "activated adapters",
    "trainable_token_indices": "trained tokens",
}
# Initial values that subtract something from the base weights, which are in no folder.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter folder.

    Attributes:
        settings: `adapter_config.json`.
        layers: name of a layer, as the folder writes it -> A [rank, in] and B [out, rank].
        weights: whole weights by name.
    """

    folder: Path
    settings: dict[str, Any]
    layers: dict[str, tuple[torch.Tensor, torch.Tensor]]
    weights: dict[str, torch.Tensor]

    @property
    def base(self) -> str:
        return str(self.settings.get("base_model_name_or_path") or "")

    @classmethod
    def read(cls, location: str | Path) -> PeftAdapter:
        """An adapter folder; WeightsError if it is none, damaged, or of a kind that is not supported."""
        folder = expand_home(location)
        if not is_adapter_folder(folder):
            raise WeightsError(f"{folder}: no adapter of peft, it has no {CONFIG_NAME}")
        try:
            settings = load_json(read_file(folder / CONFIG_NAME))
        except ValueError as error:
            raise WeightsError(f"{folder / CONFIG_NAME} is damaged ({first_line(error)})") from error
        wrong = [name for key, name in _UNSUPPORTED.items() if settings.get(key)]
        if (kind := settings.get("peft_type")) != "LORA":
            wrong.append(f"the type {kind}")
        if settings.get("bias", "none") != "none":
            wrong.append("trained biases of the base")
        if str(settings.get("init_lora_weights")).lower().startswith(_CHANGES_BASE):
            wrong.append(f"a base changed by {settings['init_lora_weights']}")
        if wrong:
            raise WeightsError(
                f"{folder}: only plain LoRA adapters can be used, this one has {', '.join(wrong)}; merge it into its "
                "base with peft (merge_and_unload), and set model.path to the result"
            )
        if not (folder / WEIGHTS_NAME).is_file():
            raise WeightsError(f"{folder} has no {WEIGHTS_NAME}; write it again with peft's save_pretrained")
        tensors = {
            name.removeprefix(ROOT).replace(".default.weight", ".weight"): tensor
            for name, tensor in read_tensor_file(folder / WEIGHTS_NAME).items()
        }
        down, up = (
            {name.removesuffix(end): tensor for name, tensor in tensors.items() if name.endswith(end)}
            for end in (_DOWN, _UP)
        )
        if down.keys() != up.keys() or not down:
            lost = ", ".join(sorted(down.keys() ^ up.keys())[:_LISTED]) or "every layer"
            raise WeightsError(f"{folder / WEIGHTS_NAME} has no whole adapter of {lost}; write it again")
        weights = {name: tensor for name, tensor in tensors.items() if not name.endswith((_DOWN, _UP))}
        return cls(folder, settings, {layer: (down[layer], up[layer]) for layer in down}, weights)

    @staticmethod
    def sha256(location: str | Path) -> str:
        """Identifies the values of an adapter folder."""
        return file_sha256(expand_home(location) / WEIGHTS_NAME)

    def problems(self, core: nn.Module, prefixes: Prefixes, pretrained: str, trained: tuple[str, ...]) -> list[str]:
        """What is wrong with this adapter for a model, whose tensors may be on the meta device."""
        modules, parameters = dict(core.named_modules()), dict(core.named_parameters())
        named, found = self._in_names_of(core), list(self._another_base(pretrained))
        strange, kinds, shapes, parts = [], [], [], set()
        for layer, (down, up) in named.layers.items():
            module = modules.get(layer)
            if module is None:
                strange.append(layer)
            elif not isinstance(module, nn.Linear):
                kinds.append(f"{layer} ({type(module).__name__})")
            else:
                parts.add(part_of(f"{layer}.", prefixes))
                sizes = [up.shape[0], down.shape[1]]
                if sizes != list(module.weight.shape) or up.shape[1] != down.shape[0]:
                    shapes.append(f"{layer} is {sizes}, here {list(module.weight.shape)}")
        strange += [name for name in named.weights if name not in parameters]
        for name, tensor in named.weights.items():
            if name in parameters and tensor.shape != parameters[name].shape:
                shapes.append(f"{name} is {list(tensor.shape)}, here {list(parameters[name].shape)}")
        found += _listed("it adapts what this model does not have", strange)
        found += _listed("it adapts what is no linear layer", kinds)
        found += _listed("it belongs to a base of other sizes", shapes)
        if both := sorted(parts & set(trained)):
            rest = ",".join(part for part in trained if part not in both) or "none"
            found.append(f"it adapts {', '.join(both)}, whose weights must be frozen; set model.trained_parts={rest}")
        return [f"model.adapter: {self.folder}: {problem}" for problem in found]

    def inject(self, core: nn.Module) -> list[str]:
        """Add the adapters to a model, in place, and put the whole weights into it; returns the names of the latter."""
        named = self._in_names_of(core)
        lora.inject_config(core, self.config(core))
        own = dict(core.named_parameters())
        values = dict(named.weights)
        for layer, (down, up) in named.layers.items():
            values |= {f"{layer}.lora_A.default.weight": down.float(), f"{layer}.lora_B.default.weight": up.float()}
        for name, tensor in values.items():
            # A model that is built for its sizes has no values.
            own[name].data = tensor.to("meta") if own[name].is_meta else tensor
        return list(named.weights)

    def config(self, core: nn.Module) -> Any:
        """`peft.LoraConfig` for a model, with the rank and factor of each layer that has others."""
        given = self.settings
        rank, alpha = int(given.get("r", 8)), float(given.get("lora_alpha", 8))
        ranks, alphas = {}, {}
        # Patterns are written for the names of the folder.
        for layer, (own, (down, _)) in zip(self.layers, self._in_names_of(core).layers.items()):
            ranks[re.escape(own)] = down.shape[0]
            patterns = (given.get("alpha_pattern") or {}).items()
            alphas[re.escape(own)] = next((one for key, one in patterns if re.match(rf"(.*\.)?({key})$", layer)), alpha)
        return lora.load_peft().LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            lora_dropout=float(given.get("lora_dropout") or 0.0),
            use_rslora=bool(given.get("use_rslora")),
            target_modules=list(self._in_names_of(core).layers),
            rank_pattern={layer: own for layer, own in ranks.items() if own != rank},
            alpha_pattern={layer: own for layer, own in alphas.items() if own != alpha},
        )

    def _in_names_of(self, core: Any) -> PeftAdapter:
        """The same with the names of this model, where an earlier version of transformers had others."""
        renamings = [one for one in get_model_conversion_mapping(core) or () if isinstance(one, WeightRenaming)]
        modules, parameters = dict(core.named_modules()), dict(core.named_parameters())

        def own(name: str, end: str, known: Mapping[str, Any]) -> str:
            renamed = name + end
            for renaming in renamings:
                renamed, _ = renaming.rename_source_key(renamed)
            renamed = renamed.removesuffix(end)
            return renamed if name not in known and renamed in known else name

        layers = {own(name, ".weight", modules): pair for name, pair in self.layers.items()}
        weights = {own(name, "", parameters): tensor for name, tensor in self.weights.items()}
        return PeftAdapter(self.folder, self.settings, layers, weights)

    def _another_base(self, pretrained: str) -> Iterator[str]:
        """A sentence if the folder names another base: another hub id, or a folder with another configuration."""
        own, other = (expand_home(place) / "config.json" for place in (pretrained, self.base))
        if not self.base or self.base == pretrained:
            return
        both_here = own.is_file() and other.is_file()
        both_on_hub = not own.is_file() and not other.is_file() and not self.base.startswith((".", "/", "~"))
        if both_on_hub or (both_here and load_json(read_file(own)) != load_json(read_file(other))):
            yield (
                f"its base is {self.base}, not {pretrained}; set model.path to that, or, if both are the same weights, "
                f"change base_model_name_or_path in {CONFIG_NAME}"
            )


def is_adapter_folder(location: str | Path) -> bool:
    return (expand_home(location) / CONFIG_NAME).is_file()


def write_adapter(
    folder: Path, core: nn.Module, prefixes: Prefixes, tensors: Mapping[str, torch.Tensor], config: Any, base: str
) -> None:
    """Write an adapter folder that `peft.PeftModel.from_pretrained` loads.

    Args:
        core: the model with its adapters.
        tensors: the trained ones, adapters and weights of the projector.
        config: `peft.LoraConfig` of the adapters.

    Raises:
        WeightsError: something was trained that such a folder cannot hold.
    """
    adapters = {name: tensor for name, tensor in tensors.items() if lora.is_adapter(name)}
    others = {name: tensor for name, tensor in tensors.items() if name not in adapters}
    modules = sorted(_whole_modules(core, others, prefixes))
    layers = sorted({name.split(".lora_")[0] for name in adapters})
    config.target_modules = _short_names(core, layers)
    config.modules_to_save = modules or None
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(folder))
    content = {ROOT + name.replace(".default.", "."): tensor.contiguous() for name, tensor in tensors.items()}
    for name, parameter in core.named_parameters():
        # peft replaces whole modules, so their frozen parameters belong there too.
        if name not in tensors and any(name.startswith(f"{module}.") for module in modules):
            content[ROOT + name] = parameter.detach().contiguous()
    save_file(content, str(folder / WEIGHTS_NAME), metadata={"format": "pt"})
    obey_umask(folder / WEIGHTS_NAME)


def _whole_modules(core: nn.Module, names: Mapping[str, Any], prefixes: Prefixes) -> set[str]:
    """The modules of the projector that hold these parameters; WeightsError for what is outside of all."""
    places: list[str] = []
    for prefix in prefixes["projector"]:
        if prefix.endswith("."):
            place = prefix.rstrip(".")
            module = core.get_submodule(place)
            # peft takes no lists of modules.
            inside = [f"{place}.{name}" for name, _ in module.named_children()]
            places += inside if isinstance(module, nn.ModuleList) else [place]
    found, lost = set[str](), list[str]()
    for name in names:
        around = [place for place in places if name.startswith(f"{place}.")]
        found.update(around)
        lost += [] if around else [name]
    if lost:
        raise WeightsError(
            "an adapter folder holds adapters and modules of the projector, but this run also trained "
            f"{', '.join(sorted(lost)[:_LISTED])} ({len(lost)} tensors); write a whole folder, without --adapter"
        )
    return found


def _short_names(core: nn.Module, layers: list[str]) -> list[str]:
    """Last parts of the layers' names if those name no other layer, else the whole names."""
    ends = sorted({layer.rpartition(".")[2] for layer in layers})
    named = [
        name
        for name, _ in core.named_modules()
        if name.rpartition(".")[2] in ends and ".lora_" not in name and not name.endswith(".base_layer")
    ]
    return ends if sorted(named) == layers else layers


def _listed(title: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return [f"{title}: {', '.join(names[:_LISTED])}{more}"]
