"""A folder that `save_to_disk` of Hugging Face's `datasets` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.sources.proposals.labels import choose_labels
from lavis_emovit.sources.proposals.proposal import Proposal
from lavis_emovit.sources.readers.huggingface import load_saved


def propose_saved(folder: Path, given: dict[str, Any], labels: str | None) -> Proposal:
    """The column of type Image, and that of type ClassLabel or called `emotion` or `label`."""
    dataset = load_saved(folder)
    parts = list(dataset.values()) if hasattr(dataset, "values") else [dataset]
    features = parts[0].features
    chosen: dict[str, Any] = dict(given.get("columns", {}))
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    classes = [name for name, feature in features.items() if getattr(feature, "names", None)]
    if "image" not in chosen and not images:
        raise DataError(f"{folder}: no column of type Image (columns: {', '.join(features)})")
    chosen.setdefault("image", images[0] if images else "image")
    named = [name for name in ("emotion", "label", "labels", "class") if name in features]
    if "emotion" not in chosen:
        if not classes and not named:
            raise DataError(f"{folder}: no column of class labels (columns: {', '.join(features)})")
        chosen["emotion"] = (classes or named)[0]
    column, used = chosen["emotion"], [chosen["image"], chosen["emotion"]]
    names = getattr(features.get(column), "names", None) or sorted(
        {str(v) for part in parts for v in part[column] if v is not None}
    )
    choice = choose_labels(dict.fromkeys(map(str, names), 1), labels or given.get("label_set"))
    chosen.setdefault("ignore", [name for name in features if name not in used])
    node = {"columns": chosen, "label_set": choice.setting}
    node |= {key: value for key, value in given.items() if key not in ("columns", "label_set")}
    reasons = [
        "layout: a dataset that `save_to_disk` wrote",
        f"image: column '{chosen['image']}'; emotion: column '{column}'; labels: {choice.reason}",
    ]
    return Proposal("huggingface", folder.resolve(), node, labels=choice.label_set, reasons=reasons)
