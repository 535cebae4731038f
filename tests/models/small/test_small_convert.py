"""Properties of `emovit convert` for small models.

- a checkpoint or a run becomes a folder that `model.pretrained` loads, with the same answers; adapters are merged;
- trained tensors alone are written, and added to their base again;
- the family is found by the run's configuration or by the folder; other models are converted as before;
- LAVIS's format, folders of other models, options for LAVIS's files, and sources that do not fit are refused by name.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_folder import load, make_batch

from lavis_emovit.checkpoints.checkpoint import CheckpointFacts, save_checkpoint
from lavis_emovit.cli.main import main
from lavis_emovit.files import write_json
from lavis_emovit.models.catalogue import converter_of
from lavis_emovit.models.instructblip import convert as instructblip_convert
from lavis_emovit.models.small import convert as small_convert
from lavis_emovit.models.small.model import EmoVITSmall
from lavis_emovit.paths import PACKAGE_ROOT

CANDIDATES = ["amusement", "awe", "fear"]


def tuned(small: Path, **changes: Any) -> EmoVITSmall:
    model = load(small, **changes).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in model.trained_state_dict().values():
            tensor.add_(torch.randn_like(tensor) * 0.05)
    return model


def write_run(run: Path, model: EmoVITSmall, step: int = 7) -> Path:
    """A checkpoint of a run as the runner writes it."""
    settings = model.settings.model_dump(mode="json", exclude_unset=True)
    state = {name: tensor.contiguous() for name, tensor in model.trained_state_dict().items()}
    position = {"position": {"step": step, "epoch": 1, "step_in_epoch": 0, "best": None}, "engine": {}}
    writers = {
        "model.safetensors": lambda path: save_file(state, str(path)),
        "config.yaml": lambda path: write_json(path, {"model": settings}),
        "state.json": lambda path: write_json(path, position),
    }
    facts = CheckpointFacts("index", "config", model.frozen_fingerprint(), {})
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    return save_checkpoint(run / "checkpoints", facts, step=step, epoch=0, writers=writers)


def assert_same(first: EmoVITSmall, second: EmoVITSmall, atol: float = 0.0) -> None:
    batch = make_batch()
    scores = first.score_candidates(batch, CANDIDATES)
    torch.testing.assert_close(second.score_candidates(batch, CANDIDATES), scores, atol=atol, rtol=0)
    assert second.generate(batch, max_length=8) == first.generate(batch, max_length=8)


@pytest.mark.parametrize("parts", ["emovit", "all"])
def test_a_checkpoint_becomes_a_folder(small: Path, tmp_path: Path, parts: str, capsys) -> None:
    model = tuned(small, trained_parts=parts)
    checkpoint = write_run(tmp_path / "run", model)
    assert main(["convert", str(checkpoint), str(tmp_path / "folder")]) == 0
    assert f"wrote {tmp_path / 'folder'} (folder) from {checkpoint}" in capsys.readouterr().out
    assert_same(model, load(tmp_path / "folder").eval())
    with pytest.raises(AssertionError):
        assert_same(model, load(small).eval())
    files = {path.relative_to(small) for path in small.rglob("*")}
    own = {Path("README.md"), Path("emovit.json")}  # the card, and what `load_tuned` reads
    assert {path.relative_to(tmp_path / "folder") for path in (tmp_path / "folder").rglob("*")} == files | own
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_best_checkpoint_of_a_run_is_converted(small: Path, tmp_path: Path, capsys) -> None:
    run, model = tmp_path / "run", tuned(small)
    write_run(run, load(small), step=3)
    newest = write_run(run, model, step=9)
    assert main(["convert", str(run), str(tmp_path / "folder")]) == 0
    assert str(newest) in capsys.readouterr().out
    assert_same(model, load(tmp_path / "folder").eval())
    (newest / "model.safetensors").write_bytes(b"damaged")
    assert main(["convert", str(newest), str(tmp_path / "other")]) == 2
    assert "model.safetensors" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_adapters_are_merged(small: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="adapters need the extra `lora`")
    adapters = {"parts": ["qformer", "language_model"], "rank": 3, "alpha": 5.0}
    model = tuned(small, trained_parts="query_tokens", lora=adapters)
    checkpoint = write_run(tmp_path / "run", model)
    small_convert.convert(str(checkpoint), tmp_path / "folder")
    written, base = (load_file(folder / "model.safetensors") for folder in (tmp_path / "folder", small))
    assert written.keys() == base.keys()
    assert_same(model, load(tmp_path / "folder").eval(), atol=2e-3)
    changed = {name for name in written if not torch.equal(written[name], base[name])}
    assert {name.split(".")[0] for name in changed} == {
        "query_tokens",
        "query_tokens_of_image",
        "qformer",
        "language_model",
    }


def test_trained_tensors_alone_and_over_their_base(small: Path, tmp_path: Path) -> None:
    model = tuned(small)
    checkpoint, file = write_run(tmp_path / "run", model), tmp_path / "parts.safetensors"
    report = small_convert.convert(str(checkpoint), file, parts="emovit")
    assert report.left_out == ["language_model (not requested)", "vision_encoder (not requested)"]
    again = load(small).eval()
    again.load_checkpoint(str(file))
    assert_same(model, again)
    assert main(["convert", str(file), str(tmp_path / "folder"), "--base", str(small)]) == 0
    assert_same(model, load(tmp_path / "folder").eval())
    small_convert.convert(str(tmp_path / "folder"), tmp_path / "q.safetensors", parts="query_tokens")
    assert list(load_file(tmp_path / "q.safetensors")) == ["query_tokens", "query_tokens_of_image.weight"]


def test_the_base_may_be_replaced_by_its_own_result(small: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(small, tmp_path / "base"))
    model = tuned(base)
    checkpoint = write_run(tmp_path / "run", model)
    before = model.score_candidates(make_batch(), CANDIDATES)
    small_convert.convert(str(checkpoint), base, overwrite=True)
    torch.testing.assert_close(load(base).eval().score_candidates(make_batch(), CANDIDATES), before, atol=0, rtol=0)


def test_the_family_is_found(small: Path, tmp_path: Path) -> None:
    checkpoint = write_run(tmp_path / "run", load(small))
    assert converter_of(str(checkpoint)) is small_convert
    assert converter_of(str(checkpoint / "model.safetensors")) is small_convert
    assert converter_of(str(small)) is small_convert
    assert converter_of("lone.safetensors", base=str(small)) is small_convert
    assert converter_of("lone.safetensors", base="packages") is small_convert
    tiny = PACKAGE_ROOT / "models" / "data" / "emovit_tiny"
    for other in (str(tiny), "absent.pth", "Salesforce/instructblip-vicuna-7b", str(tmp_path)):
        assert converter_of(other) is instructblip_convert


@pytest.mark.parametrize(
    ("target", "options", "expected"),
    [
        ("out.pth", [], "out.pth is LAVIS's format, which has no image encoder of this kind"),
        ("out", ["--trimmed"], "--trimmed: for LAVIS's format"),
        ("out", ["--llm-model", "x"], "--llm-model: for LAVIS's format"),
        ("out.bin", [], ".bin is not a format"),
        ("parts.safetensors", ["--parts", "qfomer"], "unknown part 'qfomer'"),
    ],
)
def test_targets_that_cannot_hold_it(
    small: Path, tmp_path: Path, target: str, options: list[str], expected: str, capsys
) -> None:
    assert main(["convert", str(small), str(tmp_path / target), *options]) == 2
    assert expected in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_folder_of_another_model_is_not_replaced(small: Path, tmp_path: Path, capsys) -> None:
    tiny = Path(shutil.copytree(PACKAGE_ROOT / "models" / "data" / "emovit_tiny", tmp_path / "tiny"))
    assert main(["convert", str(small), str(tiny)]) == 2
    assert "exists; --overwrite replaces it" in capsys.readouterr().err
    assert main(["convert", str(small), str(tiny), "--overwrite"]) == 2
    assert "transformers' InstructBLIP has no image encoder of this kind" in capsys.readouterr().err
    assert (tiny / "config.json").read_text() == (
        PACKAGE_ROOT / "models" / "data" / "emovit_tiny" / "config.json"
    ).read_text()


def test_sources_that_do_not_fit(small: Path, tmp_path: Path, capsys) -> None:
    save_file({"mystery": torch.zeros(1)}, str(tmp_path / "wrong.safetensors"))
    assert main(["convert", str(tmp_path / "wrong.safetensors"), str(tmp_path / "out"), "--base", str(small)]) == 2
    assert "unknown: mystery" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "no.safetensors"), str(tmp_path / "out"), "--base", str(small)]) == 2
    assert "no.safetensors is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
