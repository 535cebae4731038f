"""The model is InstructBLIP/EmoVIT: it reproduces the numbers of the original code, for any folder of golden data.

- embeddings, query output and language-model inputs within 1e-4, losses within 1e-4, gradient norms within 1e-3
  relative; token ids, class ranks and greedy ids exactly;
- the folder is `EMOVIT_REFERENCE_DIR`, else the reference data of the original code if they are available; two more of
  other shapes are made by `tools/make_reference.py`, a plain second implementation that is tested with the same folder.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from lavis_emovit.models import text
from lavis_emovit.models.instructblip.lavis_format import to_lavis
from lavis_emovit.models.instructblip.loading import load_parts
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("EMOVIT_SHARED", ROOT.parent / "shared"))
GIVEN = Path(os.environ.get("EMOVIT_REFERENCE_DIR", SHARED / "reference" / "instructblip_tiny"))
SHAPES = {
    "cross_every_3": {},
    "cross_every_1": {
        "image_size": 28, "patch_size": 7, "vision_depth": 1, "qformer_depth": 2, "cross_every": 1, "queries": 9,
        "llm_depth": 1,
    },
}  # fmt: skip


@dataclass
class Reference:
    """One folder of golden data, and our model loaded from it."""

    folder: Path
    content: dict
    arrays: dict[str, np.ndarray]
    model: EmoVIT

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name]))

    @property
    def samples(self) -> dict:
        return {
            "image": self.tensor("image"),
            "text_input": self.content["instructions"],
            "text_output": self.content["answers"],
        }


def settings_of(folder: Path, content: dict, llm: Path) -> ModelSettings:
    config = content["config"]
    return ModelSettings(
        arch="emovit_golden",
        pretrained=str(folder / "model.pth"),
        llm_model=str(llm),
        qformer_tokenizer=str(folder / "vocab.txt"),
        vision_heads=config["vit"]["num_heads"],
        qformer_heads=config["qformer"]["num_attention_heads"],
        image_size=config["image_size"],
        num_query_token=config["num_query_token"],
        max_txt_len=content["max_txt_len"],
        max_output_txt_len=content["max_output_txt_len"],
        attention="eager",
    )


@pytest.fixture(scope="module", params=["given", *SHAPES])
def reference(request, tmp_path_factory, make_reference, llm_folder) -> Reference:
    if request.param == "given":
        if not (GIVEN / "reference.json").is_file():
            pytest.skip(f"no golden data at {GIVEN}; name a folder in EMOVIT_REFERENCE_DIR")
        folder = GIVEN
    else:
        folder = tmp_path_factory.mktemp("reference")
        make_reference.write_reference(folder, make_reference.Sizes(**SHAPES[request.param]), seed=3)
    content = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    llm = llm_folder(tmp_path_factory.mktemp("llm"), folder, content["config"]["llm"])
    settings = settings_of(folder, content, llm)
    model = EmoVIT(load_parts(settings), settings).eval()
    return Reference(folder, content, dict(np.load(folder / "reference.npz")), model)


def test_second_implementation_reproduces_the_original_numbers(make_reference):
    if not (GIVEN / "reference.json").is_file():
        pytest.skip(f"no golden data at {GIVEN}; name a folder in EMOVIT_REFERENCE_DIR")
    content = json.loads((GIVEN / "reference.json").read_text(encoding="utf-8"))
    arrays = np.load(GIVEN / "reference.npz")
    state = torch.load(GIVEN / "model.pth", weights_only=True)["model"]
    plain = make_reference.PlainModel(state, content["config"], GIVEN)
    made, rest = plain.outputs(content, torch.from_numpy(arrays["image"]))
    for name in ("image_embeds", "query_output", "llm_inputs", "batch_loss", "sample_losses", "candidate_losses"):
        np.testing.assert_allclose(made[name], arrays[name], atol=1e-4, err_msg=name)
    assert (made["class_ranks"] == arrays["class_ranks"]).all()
    for ids, expected in zip(rest["greedy_ids"], content["greedy_generation"]["ids"]):
        expected = without_start(expected)
        assert ids[: len(expected)] == expected
    for name, norm in content["grad_norms"].items():
        assert rest["grad_norms"][name] == pytest.approx(norm, rel=1e-3, abs=1e-6), name


def without_start(ids: list[int]) -> list[int]:
    """The original code's transformers puts the begin token before what it generates from embeddings."""
    return ids[1:] if ids[0] == LlamaConfig().bos_token_id else ids


def test_token_ids(reference):
    tokens = reference.content.get("tokens")
    if tokens is None:
        pytest.skip("this folder lists no token ids; its losses hold them")
    model, questions = reference.model, reference.content["instructions"]
    read = model.qformer_tokenizer(questions, padding="longest", truncation=True, max_length=model.settings.max_txt_len)
    assert read["input_ids"] == tokens["qformer_input_ids"]
    assert read["attention_mask"] == tokens["qformer_attention_mask"]
    prompts = text.encode_prompts(model.llm_tokenizer, questions, model.settings.max_txt_len, False)
    answers = text.encode_answers(model.llm_tokenizer, reference.content["answers"], model.settings.max_output_txt_len)
    for row, (prompt, answer) in enumerate(zip(prompts, answers)):
        length = sum(tokens["llm_attention_mask"][row])
        assert prompt + answer == tokens["llm_input_ids"][row][:length]
        assert [-100] * len(prompt) + answer == tokens["llm_targets"][row][:length]


def test_embeddings_and_language_model_inputs(reference):
    model = reference.model
    with torch.no_grad():
        embeds = model.encode_images(reference.tensor("image"))
        inputs = model.query_images(embeds, torch.arange(len(embeds)), reference.content["instructions"])
        # The projection is linear and known, so its result also tests the query output.
        projected = model.core.language_projection(reference.tensor("query_output"))
    torch.testing.assert_close(embeds, reference.tensor("image_embeds"), atol=1e-4, rtol=0)
    torch.testing.assert_close(inputs, reference.tensor("llm_inputs"), atol=1e-4, rtol=0)
    torch.testing.assert_close(projected, reference.tensor("llm_inputs"), atol=1e-4, rtol=0)


def test_losses(reference):
    samples = reference.samples
    with torch.no_grad():
        assert float(reference.model(samples)["loss"]) == pytest.approx(float(reference.arrays["batch_loss"]), abs=1e-4)
        for row, expected in enumerate(reference.arrays["sample_losses"]):
            alone = {
                "image": samples["image"][row : row + 1],
                "text_input": samples["text_input"][row : row + 1],
                "text_output": samples["text_output"][row : row + 1],
            }
            assert float(reference.model(alone)["loss"]) == pytest.approx(float(expected), abs=1e-4)


def test_gradient_norms(reference):
    model = reference.model
    model.zero_grad()
    model(reference.samples)["loss"].backward()
    gradients = {name: parameter.grad for name, parameter in model.core.named_parameters() if parameter.requires_grad}
    named = to_lavis({name: torch.zeros(1) if g is None else g for name, g in gradients.items()}, False).state
    expected = reference.content["grad_norms"]
    assert set(expected) == {name for name in named if not name.endswith("position_ids")}
    for name, norm in expected.items():
        assert float(named[name].norm()) == pytest.approx(norm, rel=1e-3, abs=1e-6), name
    model.zero_grad()


def questions_of(reference) -> dict:
    return {
        "image": reference.tensor("image"),
        "prompt": [reference.content["instructions"][0]] * len(reference.arrays["image"]),
    }


def test_candidate_losses_and_ranks_by_the_original_rule(reference):
    candidates = reference.content["candidates"]
    losses = reference.model.original_candidate_losses(questions_of(reference), candidates)
    torch.testing.assert_close(losses, reference.tensor("candidate_losses").float(), atol=1e-4, rtol=0)
    ranks = reference.model.predict_class(questions_of(reference), candidates, rule="original")
    assert ranks.tolist() == reference.arrays["class_ranks"].tolist()


def test_greedy_ids(reference):
    expected = [without_start(ids) for ids in reference.content["greedy_generation"]["ids"]]
    _, ids = reference.model.generate(
        {"image": reference.tensor("image"), "prompt": reference.content["instructions"]},
        max_length=max(map(len, expected)),
        return_ids=True,
    )
    end = {0, reference.model.llm_tokenizer.eos_token_id}
    for made, wanted in zip(ids, expected):
        assert until(list(made), end) == until(wanted, end)


def until(ids, end: set[int]) -> list[int]:
    cut = next((place for place, token in enumerate(ids) if int(token) in end), len(ids))
    return [int(token) for token in ids[:cut]]
