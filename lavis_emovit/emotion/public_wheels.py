"""Read the public mapping of words to emotion wheels (AffectGPT, MER2026) as the user downloaded it.

`wheel_mapping.npz` maps a word to base words (`format_mapping`), these to words of the wheels (`raw_mapping`), and
those to clusters, for each wheel and level (`wheel_map_whole`). A word belongs to the cluster of the alphabetically
first wheel word that it leads to. The file is a pickle, so only dictionaries, lists and strings are read from it.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.files import load_json, read_file

_KEYS = ("format_mapping", "raw_mapping", "wheel_map_whole")
_SOURCE = "the public mapping of AffectGPT (Lian et al., ICML 2025), as published for MER2026"
_PICKLED = {"numpy.core.multiarray", "numpy._core.multiarray", "numpy"}


def public_mapping(path: Path) -> dict[str, Any] | None:
    """The three dictionaries of a file in the public layout, `.npz` or the same as JSON; None for any other file.

    Raises:
        DataError: an `.npz` file without these dictionaries.
    """
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as file:
                return {key: _dictionary(file.read(f"{key}.npy")) for key in _KEYS}
        except (KeyError, ValueError, pickle.UnpicklingError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path}: expected the public mapping of wheels, with {', '.join(_KEYS)} ({error}); download "
                "wheel_mapping.npz of MER2026 again, or pass a JSON file in the format of wheels.json"
            ) from error
    try:
        content = load_json(read_file(path))
    except (OSError, ValueError):  # the reader of settings names the problem
        return None
    return content if isinstance(content, dict) and set(_KEYS) <= content.keys() else None


def wheels_of_mapping(mapping: Mapping[str, Any], path: Path, level: str = "level1") -> dict[str, Any]:
    """A public mapping in the format of `wheels.json`: words with the same clusters on all wheels are forms of one.

    Raises:
        DataError: no wheel has this level, or a part of the mapping is not as published.
    """
    try:
        of_wheels = {name: levels[level] for name, levels in mapping["wheel_map_whole"].items()}
        words_of: dict[tuple[str | None, ...], list[str]] = {}
        for word, bases in mapping["format_mapping"].items():
            found = sorted(one for base in bases for one in mapping["raw_mapping"][base])
            clusters = tuple(
                next((cluster_of[one] for one in found if one in cluster_of), None) for cluster_of in of_wheels.values()
            )
            if any(cluster is not None for cluster in clusters):
                words_of.setdefault(clusters, []).append("_".join(word.replace("\u2019", "'").split()))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not as the public mapping of wheels at '{level}' ({error!r})") from error
    named = [(clusters, list(dict.fromkeys(words))) for clusters, words in words_of.items()]
    wheels: dict[str, Any] = {}
    for place, name in enumerate(of_wheels):
        clusters_of: dict[str, list[str]] = {}
        for clusters, words in named:
            if (cluster := clusters[place]) is not None:
                clusters_of.setdefault(cluster, []).append(words[0])
        wheels[name] = {"source": "public", "clusters": {one: " ".join(words) for one, words in clusters_of.items()}}
    forms = {words[0]: " ".join(words[1:]) for _, words in named if len(words) > 1}
    return {"version": 1, "sources": {"public": _SOURCE}, "wheels": wheels, "forms": forms, "inflected": False}


def _dictionary(npy: bytes) -> dict[str, Any]:
    """The dictionary in a numpy array of one object, without running anything that the file names."""
    import numpy as np

    file = io.BytesIO(npy)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    found = _Unpickler(file).load().item()
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} in the place of a dictionary")
    return found


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        allowed = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module not in _PICKLED or name not in allowed:
            raise pickle.UnpicklingError(f"it contains {module}.{name}")
        return allowed[name]
