"""Properties of conversions of weights.

- LAVIS -> transformers -> LAVIS and transformers -> LAVIS -> transformers keep every bit, in any precision, for
  decoder-only and encoder-decoder language models;
- plain transformers loads an exported folder and generates the same answers; we load it with the same scores;
- a trimmed file is completed from EVA's file or a base, trained tensors and adapters are added to their base, and a
  run's checkpoint finds its base;
- Flan-T5's own output head survives a longer vocabulary, loaded from LAVIS's file and from an exported folder;
- plain transformers answers a batch of questions of mixed lengths as it answers each alone;
- sources that do not fit or are truncated, and targets that would be overwritten, are rejected by name, and no file is
  left.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor, LlamaConfig

from lavis_emovit.checkpoints.checkpoint import CheckpointFacts, save_checkpoint
from lavis_emovit.cli.main import main
from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models import lora
from lavis_emovit.models.instructblip.convert import convert
from lavis_emovit.models.instructblip.export import save_transformers
from lavis_emovit.models.instructblip.lavis_format import EVA_BLOCKS_USED, from_eva, from_lavis, to_lavis
from lavis_emovit.models.instructblip.loading import RawWeights, load_parts, read_tensors
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.pickled import read_state_dict
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.models.instructblip.weights import check_weights
from lavis_emovit.paths import PACKAGE_ROOT
from lavis_emovit.shards.columns import write_columns

CANDIDATES = ["amusement", "awe", "fear"]
COMPUTED = ("position_ids", "inv_freq")


class Lavis:
    """A LAVIS file with the folder of its language model, and the arguments that convert it."""

    def __init__(self, folder: Path, llm: Path, sizes: dict):
        self.folder, self.file, self.llm = folder, folder / "model.pth", llm
        self.beside = {
            "llm_model": str(llm),
            "qformer_tokenizer": str(folder / "vocab.txt"),
            "vision_heads": sizes["vision_heads"],
            "qformer_heads": sizes["qformer_heads"],
        }
        self.image_size, self.queries = sizes["image_size"], sizes["queries"]

    def settings(self, pretrained, **changes) -> ModelSettings:
        return ModelSettings(
            arch="emovit_test", pretrained=str(pretrained), image_size=self.image_size, num_query_token=self.queries,
            **changes,
        )  # fmt: skip

    def model(self, pretrained=None, **changes) -> EmoVIT:
        beside = self.beside if pretrained is None else {}
        settings = self.settings(pretrained or self.file, **(beside | changes))
        return EmoVIT(load_parts(settings), settings).eval()


@pytest.fixture(scope="module")
def lavis(tmp_path_factory, make_reference, llm_folder) -> Lavis:
    folder = tmp_path_factory.mktemp("lavis")
    sizes = make_reference.Sizes(image_size=28, vision_depth=1, qformer_depth=3, llm_depth=2)
    make_reference.write_reference(folder, sizes, seed=5)
    config = json.loads((folder / "reference.json").read_text(encoding="utf-8"))["config"]
    return Lavis(folder, llm_folder(tmp_path_factory.mktemp("llm"), folder, config["llm"]), asdict(sizes))


@pytest.fixture(scope="module")
def exported(lavis, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "weights"
    convert(str(lavis.file), folder, **lavis.beside)
    return folder


def without_buffers(state: dict) -> dict:
    return {name: tensor for name, tensor in state.items() if not name.endswith(COMPUTED)}


def assert_equal(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]), name


@pytest.fixture
def asked(lavis) -> dict:
    torch.manual_seed(0)
    return {
        "image": torch.randn(3, 3, lavis.image_size, lavis.image_size),
        "prompt": ["Is it dark?", "Which of these: awe, fear?", "Why  do they laugh at the café?"],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lavis_to_transformers_and_back_keeps_every_bit(lavis, tmp_path, dtype):
    state = read_state_dict(lavis.file)
    # As in the published files: encoder and language model in half precision, the rest in full.
    half = ("visual_encoder.", "llm_model.")
    state = {name: tensor.to(dtype) if name.startswith(half) else tensor for name, tensor in state.items()}
    torch.save({"model": state}, tmp_path / "in.pth")
    report = convert(str(tmp_path / "in.pth"), tmp_path / "folder", **lavis.beside)
    assert all("a buffer that every model computes" in line for line in report.left_out)
    convert(str(tmp_path / "folder"), tmp_path / "out.pth")
    written = read_state_dict(tmp_path / "out.pth")
    assert_equal(without_buffers(written), without_buffers(state))
    positions = "Qformer.bert.embeddings.position_ids"
    assert torch.equal(written[positions], state[positions])


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_transformers_to_lavis_and_back_keeps_every_bit(build_parts, kind):
    core = build_parts(kind).core
    for layer in core.vision_model.encoder.layers:
        layer.self_attn.qkv.bias.data.chunk(3)[1].zero_()
    state = core.state_dict()
    translated = to_lavis(state, is_seq2seq=kind == "seq2seq")
    assert translated.left_out == []
    prefix = "t5" if kind == "seq2seq" else "llm"
    assert {f"{prefix}_proj.weight", "ln_vision.weight", "visual_encoder.blocks.1.attn.q_bias"} <= set(translated.state)
    assert any(name.startswith(f"{prefix}_model.") for name in translated.state)
    assert_equal(from_lavis(translated.state).state, state)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_written_files_obey_the_umask(lavis, exported, tmp_path, umask):
    before = os.umask(umask)
    try:
        convert(str(lavis.file), tmp_path / "folder", **lavis.beside)
        convert(str(exported), tmp_path / "trained.safetensors", parts="qformer")
        write_columns(tmp_path / "columns.safetensors", {"a": np.arange(3)})
        facts = CheckpointFacts("index", "config", "frozen", {})
        tensors = {"model.safetensors": lambda path: save_file({"a": torch.zeros(1)}, path)}
        save_checkpoint(tmp_path / "checkpoints", facts, step=1, epoch=0, writers=tensors)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".safetensors"]) == 4
    assert {path.name: path.stat().st_mode & 0o777 for path in files} == {path.name: 0o666 & ~umask for path in files}


def test_nan_values_are_converted_unchanged(lavis, tmp_path):
    state = read_state_dict(lavis.file)
    state["llm_proj.weight"] = torch.full_like(state["llm_proj.weight"], float("nan"))
    torch.save(state, tmp_path / "nan.pth")
    convert(str(tmp_path / "nan.pth"), tmp_path / "out", **lavis.beside)
    assert read_tensors(tmp_path / "out")["language_projection.weight"].isnan().all()


def test_a_lost_key_bias_is_reported(build_parts):
    core = build_parts("causal").core
    bias = core.vision_model.encoder.layers[1].self_attn.qkv.bias
    torch.nn.init.constant_(bias, 1.0)
    (line,) = to_lavis(core.state_dict(), False).left_out
    assert line.startswith("vision_model.encoder.layers.1.self_attn.qkv.bias (the key's part")
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        before = core.vision_model(image).last_hidden_state
        bias.chunk(3)[1].zero_()
        torch.testing.assert_close(core.vision_model(image).last_hidden_state, before)


def test_plain_transformers_generates_the_same(lavis, exported, asked):
    ours = lavis.model()
    core = InstructBlipForConditionalGeneration.from_pretrained(exported).eval()
    processor = InstructBlipProcessor.from_pretrained(exported)
    _, expected = ours.generate(asked, max_length=8, return_ids=True)
    for row, prompt in enumerate(asked["prompt"]):
        texts = processor(text=prompt, images=Image.new("RGB", (40, 30)), return_tensors="pt")
        texts["pixel_values"] = asked["image"][row : row + 1]
        ids = core.generate(**texts, max_new_tokens=8, do_sample=False)[0, texts["input_ids"].shape[1] :].tolist()
        ends = [place for place, token in enumerate(ids) if token in (ours.llm_tokenizer.all_special_ids)]
        assert ids[: ends[0] if ends else None] == expected[row]
        assert len(expected[row]) > 2, "an answer that ends at once would prove nothing"


def _plain_answers(core, processor, pixels: torch.Tensor, prompts: list[str]) -> list[str]:
    # As docs/weights.md says: the Q-Former's questions are padded on their own side.
    processor.tokenizer.init_kwargs.pop("padding_side", None)
    inputs = processor(
        text=prompts, images=[Image.new("RGB", (40, 30))] * len(prompts), padding=True, return_tensors="pt"
    )
    inputs["pixel_values"] = pixels
    prompt_length = inputs["input_ids"].shape[1] if core.config.use_decoder_only_language_model else 0
    ids = core.generate(**inputs, max_new_tokens=8, do_sample=False)[:, prompt_length:]
    return processor.batch_decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("which", ["exported", "shipped", "seq2seq"])
def test_plain_transformers_answers_mixed_lengths_as_alone(exported, which, build_parts, tmp_path):
    folder = {"exported": exported, "shipped": PACKAGE_ROOT / "models" / "data" / "emovit_tiny"}.get(which)
    if folder is None:
        parts, folder = build_parts("seq2seq"), tmp_path / "seq2seq"
        raw = RawWeights(
            parts.core.state_dict(), parts.core.config, parts.llm_tokenizer, parts.qformer_tokenizer, "here"
        )
        save_transformers(raw, folder)
    core = InstructBlipForConditionalGeneration.from_pretrained(folder).eval()
    processor = InstructBlipProcessor.from_pretrained(folder)
    side = "left" if core.config.use_decoder_only_language_model else "right"
    assert (processor.tokenizer.padding_side, processor.qformer_tokenizer.padding_side) == (side, "right")
    prompts = ["Is it dark?", "Which of these is it then, awe or fear or nothing at all?", "And why?", "Who?"]
    size = core.config.vision_config.image_size
    pixels = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    alone = [_plain_answers(core, processor, pixels[n : n + 1], [prompt])[0] for n, prompt in enumerate(prompts)]
    assert _plain_answers(core, processor, pixels, prompts) == alone
    assert len(set(alone)) > 1


def test_exported_processor_agrees_with_ours(lavis, exported):
    from lavis_emovit.processors.emovit_image_eval import EmovitImageEvalProcessor

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 51, 3), dtype=np.uint8))
    theirs = InstructBlipProcessor.from_pretrained(exported)(images=picture, text="a", return_tensors="pt")
    ours = EmovitImageEvalProcessor.from_config({"image_size": lavis.image_size})(picture)
    # A step of the 8-bit scale, in units of the smallest standard deviation; resizing rounds in between.
    torch.testing.assert_close(theirs["pixel_values"][0], ours, atol=2 / 255 / 0.26, rtol=0)


def test_the_exported_folder_has_the_same_scores(lavis, exported, asked):
    ours, again = lavis.model(), lavis.model(exported)
    assert again.core.get_input_embeddings().weight.shape == ours.core.get_input_embeddings().weight.shape
    assert torch.equal(again.score_candidates(asked, CANDIDATES), ours.score_candidates(asked, CANDIDATES))
    assert again.generate(asked, max_length=8) == ours.generate(asked, max_length=8)


def test_large_weights_are_written_in_shards(lavis, tmp_path, exported, monkeypatch):
    from lavis_emovit.models.instructblip import export

    raw = export.read_tensors(exported)
    monkeypatch.setattr(export.save_transformers, "__defaults__", ("200KB",))
    convert(str(exported), tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    assert_equal(read_tensors(tmp_path / "shards"), raw)
    next((tmp_path / "shards").glob("model-00001*")).unlink()
    with pytest.raises(WeightsError, match=r"has no model-00001"):
        read_tensors(tmp_path / "shards")


def test_trimmed_file_is_completed_from_evas_file(lavis, exported, asked, tmp_path):
    convert(str(exported), tmp_path / "trimmed.pth", trimmed=True)
    trimmed = read_state_dict(tmp_path / "trimmed.pth")
    assert not any(name.startswith(("visual_encoder.", "llm_model.")) for name in trimmed)
    # The language model in a separate folder, the image encoder in EVA's format.
    core = lavis.model().core
    core.language_model.save_pretrained(tmp_path / "llm")
    (tmp_path / "llm" / "tokenizer.model").write_bytes((lavis.llm / "tokenizer.model").read_bytes())
    eva = {
        name.removeprefix("visual_encoder."): tensor
        for name, tensor in read_state_dict(lavis.file).items()
        if name.startswith("visual_encoder.")
    }
    torch.save(eva | {"norm.weight": torch.zeros(2), "head.bias": torch.zeros(2)}, tmp_path / "eva.pth")
    beside = lavis.beside | {"llm_model": str(tmp_path / "llm")}
    with pytest.raises(WeightsError, match=r"trimmed\.pth is a trimmed file.*model\.vision_weights"):
        lavis.model(tmp_path / "trimmed.pth", **beside)
    whole = lavis.model(tmp_path / "trimmed.pth", **beside, vision_weights=str(tmp_path / "eva.pth"))
    assert torch.equal(whole.score_candidates(asked, CANDIDATES), lavis.model().score_candidates(asked, CANDIDATES))
    convert(str(tmp_path / "trimmed.pth"), tmp_path / "whole", **beside, vision_weights=str(tmp_path / "eva.pth"))
    assert_equal(read_tensors(tmp_path / "whole"), read_tensors(exported))


def test_evas_last_block_is_omitted_and_reported():
    state = {f"blocks.{block}.norm1.weight": torch.zeros(1) for block in range(EVA_BLOCKS_USED + 1)}
    translated = from_eva(state | {"fc_norm.bias": torch.zeros(1)})
    assert len(translated.state) == 39 and "visual_encoder.blocks.38.norm1.weight" in translated.state
    assert [line.split(" ")[0] for line in translated.left_out] == ["blocks.39.norm1.weight", "fc_norm.bias"]


def tuned(lavis: Lavis, exported: Path, **changes) -> EmoVIT:
    model = lavis.model(exported, **changes)
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in model.trained_state_dict().values():
            tensor.add_(torch.randn_like(tensor) * 0.1)
    return model


def test_lavis_file_is_loaded_over_a_base(lavis, exported, asked, tmp_path):
    model = tuned(lavis, exported)
    save_file(model.trained_state_dict(), str(tmp_path / "tuned.safetensors"))
    convert(str(tmp_path / "tuned.safetensors"), tmp_path / "tuned.pth", base=str(exported), trimmed=True)
    for parts in ("emovit", "none", "qformer"):
        other = lavis.model(exported, trained_parts=parts)
        other.load_checkpoint(str(tmp_path / "tuned.pth"))
        scores = other.score_candidates(asked, CANDIDATES)
        torch.testing.assert_close(scores, model.score_candidates(asked, CANDIDATES), atol=1e-4, rtol=0)
    lacking = read_state_dict(tmp_path / "tuned.pth")
    lacking.pop("query_tokens")
    torch.save(lacking, tmp_path / "lacking.pth")
    with pytest.raises(WeightsError, match=r"lacking\.pth does not fit this model:\n  - missing: query_tokens"):
        other.load_checkpoint(str(tmp_path / "lacking.pth"))


def test_trained_tensors_alone_and_added_to_their_base_again(lavis, exported, tmp_path):
    convert(str(exported), tmp_path / "parts.safetensors", parts="qformer,query_tokens")
    tensors = load_file(str(tmp_path / "parts.safetensors"))
    assert {name.split(".")[0] for name in tensors} == {"qformer", "query_tokens"}
    convert(str(tmp_path / "parts.safetensors"), tmp_path / "again", base=str(exported))
    assert_equal(read_tensors(tmp_path / "again"), read_tensors(exported))
    with pytest.raises(WeightsError, match=r"no config\.yaml of a run.*--base"):
        convert(str(tmp_path / "parts.safetensors"), tmp_path / "other")


def write_checkpoint(folder: Path, model: EmoVIT, settings: dict) -> None:
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in model.trained_state_dict().items()},
              str(folder / "model.safetensors"))  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps({"model": settings}), encoding="utf-8")
    (folder / "MANIFEST.json").write_text("{}", encoding="utf-8")


def test_checkpoint_of_a_run_finds_its_base(lavis, exported, asked, tmp_path):
    model = tuned(lavis, exported)
    settings = model.settings.model_dump(mode="json", exclude_unset=True)
    write_checkpoint(tmp_path / "ckpt-7", model, settings)
    convert(str(tmp_path / "ckpt-7"), tmp_path / "weights")
    again = lavis.model(tmp_path / "weights")
    assert torch.equal(again.score_candidates(asked, CANDIDATES), model.score_candidates(asked, CANDIDATES))


def test_the_folder_of_a_run_in_place_of_weights_names_its_newest_checkpoint(lavis, exported, tmp_path):
    run = tmp_path / "run"
    for name in ("ckpt-00000040", "ckpt-00000120", "ckpt-00000120.tmp-abcd", "ckpt-00000160.old-abcd"):
        (run / "checkpoints" / name).mkdir(parents=True)
    newest = run / "checkpoints/ckpt-00000120"
    for folder in (run, run / "checkpoints"):
        with pytest.raises(
            WeightsError, match=f"'{folder}' .*, the folder of a run; convert one .*, such as {newest}$"
        ):
            convert(str(folder), tmp_path / "weights")
    (newest / "MANIFEST.json").write_text("{}", encoding="utf-8")
    for folder in (run, newest):
        with pytest.raises(WeightsError, match=f"'{folder}', which a run wrote.*and model.finetuned to {newest}$"):
            check_weights(ModelSettings(arch="emovit_vicuna7b", pretrained=str(folder)))
    model = lavis.model(exported)
    for wrong in (run, run / "checkpoints/ckpt-00000200"):
        with pytest.raises(WeightsError, match=f"name a checkpoint folder of a run, such as {newest}, or a file"):
            model.load_checkpoint(str(wrong))
    with pytest.raises(WeightsError, match=f"no weights at '{tmp_path}' .*, which has no config.json$"):
        convert(str(tmp_path), tmp_path / "weights")


def test_adapters_are_merged(lavis, exported, asked, tmp_path):
    pytest.importorskip("peft", reason="adapters need the extra `lora`")
    adapters = {"parts": ["qformer", "language_model"], "rank": 3, "alpha": 5.0}
    model = tuned(lavis, exported, trained_parts="query_tokens", lora=adapters)
    # The base has moved; the settings of the adapters are still those of the run.
    moved = shutil.copytree(exported, tmp_path / "moved")
    settings = model.settings.model_dump(mode="json", exclude_unset=True) | {"pretrained": str(tmp_path / "gone")}
    write_checkpoint(tmp_path / "ckpt-7", model, settings)
    convert(str(tmp_path / "ckpt-7"), tmp_path / "weights", base=str(moved))
    scores = lavis.model(tmp_path / "weights").score_candidates(asked, CANDIDATES)
    torch.testing.assert_close(scores, model.score_candidates(asked, CANDIDATES), atol=1e-4, rtol=0)
    lora.merge(model.core)
    merged = model.core.state_dict()
    for name, tensor in read_tensors(tmp_path / "weights").items():
        torch.testing.assert_close(tensor[: len(merged[name])], merged[name], atol=1e-6, rtol=1e-6)


def test_another_language_model_is_rejected_by_name(lavis, tmp_path, llm_folder):
    small = llm_folder(
        tmp_path / "small", lavis.folder, {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
                                           "intermediate_size": 100, "vocab_size": 331},
    )  # fmt: skip
    with pytest.raises(WeightsError, match=r"model of width 56, this one \(llama\) has width 32.*--llm-model"):
        convert(str(lavis.file), tmp_path / "out", **(lavis.beside | {"llm_model": str(small)}))
    sizes = LlamaConfig.from_pretrained(lavis.llm).to_dict()
    deep = llm_folder(tmp_path / "deep", lavis.folder, {**sizes, "num_hidden_layers": 3})
    with pytest.raises(WeightsError, match=r"is missing 9 tensors of the language model.*layers\.2\."):
        lavis.model(**(lavis.beside | {"llm_model": str(deep)}))
    assert list(tmp_path.glob("out*")) == [] and list(tmp_path.glob(".out*")) == []


def broken(lavis: Lavis, tmp_path: Path, change) -> Path:
    state = read_state_dict(lavis.file)
    change(state)
    torch.save({"model": state}, tmp_path / "broken.pth")
    return tmp_path / "broken.pth"


LAYER = "Qformer.bert.encoder.layer.1."


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("query_tokens"), "has no query_tokens"),
        (lambda s: s.update({LAYER + "output.dense.bias": torch.zeros(3)}), r"layer\.1\.output\.dense\.bias: \[3\]"),
        (lambda s: s.pop(LAYER + "output.dense.bias"), r"missing: qformer\.encoder\.layer\.1\.output\.dense\.bias"),
        (lambda s: s.update({"mystery.weight": torch.zeros(1)}), r"not LAVIS InstructBLIP's: mystery\.weight"),
        (lambda s: s.pop("visual_encoder.blocks.0.attn.v_bias"), "only one of q_bias and v_bias"),
        (
            lambda s: [s.pop(name) for name in list(s) if name.startswith(LAYER)],
            r"layers \[0, 2\] are not complete",
        ),
        (
            lambda s: s.update({"Qformer.bert.embeddings.word_embeddings.weight": torch.zeros(9, 48)}),
            "Q-Former has 9 token embeddings, its tokenizer",
        ),
        (
            lambda s: s.update(
                {f"llm_model.{name}.weight": torch.zeros(9, 56) for name in ("model.embed_tokens", "lm_head")}
            ),
            "language model has 9 token embeddings, its tokenizer",
        ),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_rejected_by_name(lavis, tmp_path, change, reason):
    file = broken(lavis, tmp_path, change)
    with pytest.raises(WeightsError, match=reason) as error:
        lavis.model(file, **lavis.beside)
    assert "broken.pth" in str(error.value)


def test_command_reports_results_and_rejects_wrong_arguments(lavis, exported, tmp_path, capsys):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in lavis.beside.items()]
    assert main(["convert", str(lavis.file), str(tmp_path / "out"), *flags]) == 0
    said = capsys.readouterr().out
    assert "qformer" in said and "omitted (1)" in said and "<image> as token" in said
    assert main(["convert", str(lavis.file), str(tmp_path / "out"), *flags]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert main(["convert", str(lavis.file), str(tmp_path / "out"), *flags, "--overwrite"]) == 0
    assert main(["convert", str(exported), str(tmp_path / "trimmed.pth"), "--trimmed"]) == 0
    assert "the image encoder and the language model (trimmed)" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "trimmed.pth"), str(tmp_path / "trimmed.pth"), "--overwrite"]) == 2
    assert "is the source itself" in capsys.readouterr().err
    assert main(["convert", str(exported), str(tmp_path / "y.bin")]) == 2
    assert ".bin is not a format" in capsys.readouterr().err
    good = list(flags)
    flags[1] = f"--qformer-tokenizer={tmp_path / 'words.txt'}"
    assert main(["convert", str(lavis.file), str(tmp_path / "y"), *flags]) == 2
    said = capsys.readouterr().err
    assert "error: --qformer-tokenizer: nothing at" in said and "words.txt" in said
    assert main(["convert", str(lavis.file), str(tmp_path / "y")]) == 2
    assert "is a LAVIS-format file: set --llm-model to the folder or hub id" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "trimmed.pth"), str(tmp_path / "y"), *good]) == 2
    said = capsys.readouterr().err
    assert "Set --vision-weights to EVA's file" in said and "model.vision" not in said and "finetuned" not in said
    assert main(["convert", str(exported), str(tmp_path / "UP.PTH")]) == 0
    assert "(lavis)" in capsys.readouterr().out and (tmp_path / "UP.PTH").is_file()
    assert main(["convert", str(tmp_path / "UP.PTH"), str(tmp_path / "UP.Safetensors"), *good]) == 0
    assert "(trained)" in capsys.readouterr().out and (tmp_path / "UP.Safetensors").is_file()
    assert main(["convert", str(exported), str(tmp_path / "UP.BIN")]) == 2
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    assert main(["convert", str(exported), str(tmp_path / "photos"), "--overwrite"]) == 2
    assert "a folder of something else" in capsys.readouterr().err and (tmp_path / "photos" / "a.jpg").is_file()
    cut = tmp_path / "cut"
    cut.mkdir()
    for file in exported.iterdir():
        if file.is_file():
            (cut / file.name).write_bytes(file.read_bytes()[: 1000 if file.suffix == ".safetensors" else None])
    (cut / "qformer_tokenizer").symlink_to(exported / "qformer_tokenizer")
    assert main(["convert", str(cut), str(tmp_path / "x.pth")]) == 2
    assert "model.safetensors is truncated or damaged" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "absent.pth"), str(tmp_path / "y")]) == 2
    said = capsys.readouterr().err
    assert "absent.pth" in said and "does not exist" in said and "hf download" not in said
    with pytest.raises(ConfigError, match="unknown part 'qfomer'"):
        convert(str(exported), tmp_path / "z.safetensors", parts="qfomer")
    assert not list(tmp_path.glob("[xyz].*")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "folder"])
def test_full_disk_is_reported_with_the_path(exported, name, tmp_path, capsys):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        code = main(["convert", str(exported), str(tmp_path / name)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert code == 2 and f"{tmp_path / name}: File too large. Free some space" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("is_tied", "extra_tokens"), [(False, 1), (False, 0), (True, 1)])
def test_flan_t5_keeps_its_own_output_head(build_parts, tmp_path, batch, is_tied, extra_tokens):
    parts = build_parts("seq2seq")
    llm, rows = parts.core.language_model, parts.core.config.text_config.vocab_size
    own = torch.nn.Parameter(torch.randn(rows, 32, generator=torch.Generator().manual_seed(1)))
    llm.lm_head.weight = llm.shared.weight if is_tied else own
    expected = llm.lm_head.weight.detach().clone()
    inputs = {"input_ids": torch.tensor([[3, 4, 5, 2]]), "decoder_input_ids": torch.tensor([[0, 6, 7]])}
    llm.eval()
    logits = llm(**inputs).logits
    llm.config.tie_word_embeddings = is_tied  # transformers writes a head of its own only for this
    llm.save_pretrained(tmp_path / "llm")
    parts.llm_tokenizer.add_tokens(["<new>"] * extra_tokens)
    parts.llm_tokenizer.save_pretrained(tmp_path / "llm")
    parts.qformer_tokenizer.save_pretrained(tmp_path / "words")
    state = {name: tensor for name, tensor in parts.core.state_dict().items() if not name.startswith("language_model.")}
    torch.save({"model": to_lavis(state, True).state}, tmp_path / "trimmed.pth")
    beside = {"llm_model": str(tmp_path / "llm"), "qformer_tokenizer": str(tmp_path / "words")}
    heads = {"vision_heads": 4, "qformer_heads": 4}

    def load(location, **changes) -> EmoVIT:
        settings = ModelSettings(
            arch="emovit_test", pretrained=str(location), image_size=16, num_query_token=3, frozen_precision="fp32",
            **changes,
        )  # fmt: skip
        return EmoVIT(load_parts(settings), settings).eval()

    ours = load(tmp_path / "trimmed.pth", **beside, **heads)
    convert(str(tmp_path / "trimmed.pth"), tmp_path / "folder", **beside, **heads)
    for model in (ours, load(tmp_path / "folder")):
        loaded = model.core.language_model
        assert loaded.lm_head.weight.shape[0] == rows + extra_tokens
        assert torch.equal(loaded.lm_head.weight[:rows], expected)
        torch.testing.assert_close(loaded(**inputs).logits[..., :rows], logits, atol=1e-3, rtol=0)
    plain = InstructBlipForConditionalGeneration.from_pretrained(tmp_path / "folder").eval().language_model
    torch.testing.assert_close(plain(**inputs).logits[..., :rows], logits, atol=1e-3, rtol=0)
    scores = [model.score_candidates(batch, CANDIDATES) for model in (ours, load(tmp_path / "folder"))]
    assert extra_tokens or torch.equal(*scores)  # the row of a new token is random
