"""Properties of the small model that is built from the installed packages.

They are built once, in the cache folder of the machine (`EMOVIT_CACHE`), under its lock.

- the language model finds an English sentence far likelier than its words in another order, and knows facts;
- tokenizers give back what they read; the turns are single tokens;
- the image encoder is the published one: it names what photographs show, with the language model's own words;
- a fresh model answers in words, and the folder records what it was made from.
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from lavis.models import load_model_and_preprocess
from PIL import Image
from sklearn import datasets

from lavis_emovit.models.small import build, packages

pytestmark = [
    pytest.mark.skipif(
        bool(packages.missing()),
        reason=f"the packages of emovit_small are not installed ({', '.join(packages.missing())}): extra `small`",
    ),
    pytest.mark.xdist_group("emovit_small"),  # one process loads it
]

SENTENCE = "The children are playing in the garden because the weather is nice today."
SHUFFLED = "weather The playing nice because garden in the is children today are the."


@pytest.fixture(scope="module")
def loaded():
    return load_model_and_preprocess("emovit_small")


@torch.no_grad()
def perplexity(model, text: str) -> float:
    ids = torch.tensor([model.llm_tokenizer(text)["input_ids"]])
    return math.exp(float(model.core.language_model(input_ids=ids, labels=ids).loss))


def test_the_language_model_knows_english(loaded) -> None:
    model = loaded[0]
    assert perplexity(model, SENTENCE) < 100
    assert perplexity(model, SHUFFLED) > 20 * perplexity(model, SENTENCE)
    capital = "The capital of France is"
    assert perplexity(model, f"{capital} Paris.") < perplexity(model, f"{capital} Madrid.")


def test_tokenizers_round_trip(loaded) -> None:
    model = loaded[0]
    for text in (SENTENCE, "Predict emotion: awe", "Café — 3 €,\n  two  spaces\t你好"):
        ids = model.llm_tokenizer(text, add_special_tokens=False)["input_ids"]
        assert model.llm_tokenizer.decode(ids) == text
    begin, between = model._turn
    assert begin == [1, 4093, 198] and between[:2] == [2, 198] and between[2] == 1, "as in SmolLM2's chat template"
    read = model.qformer_tokenizer(SENTENCE)["input_ids"]
    assert model.qformer_tokenizer.decode(read) == f"[CLS] {SENTENCE.lower()} [SEP]"


@torch.no_grad()
def test_the_encoder_names_classes(loaded) -> None:
    """scikit-learn's two photographs: a flower with a daisy's shape, and a palace with pointed roofs."""
    model, processors, _ = loaded
    names = build.class_names()
    for file, expected in (("flower.jpg", {"daisy", "bee"}), ("china.jpg", {"bell cote", "monastery", "palace"})):
        image = Image.fromarray(datasets.load_sample_image(file))
        _, logits = model.core.vision_model.encoder(processors["eval"](image)[None])
        assert expected & {names[index] for index in logits[0].topk(3).indices.tolist()}
    words = model.core.vision_model.encoder.words
    table = model.core.language_model.get_input_embeddings().weight
    ids = build.name_words(["tench", "goldfish"], model.llm_tokenizer)
    torch.testing.assert_close(words[0, 0], table[ids[0, 0]] / table.std(), rtol=1e-4, atol=1e-4)
    assert words[0][ids[0] < 0].eq(0).all()


def test_the_first_answer(loaded) -> None:
    model, processors, texts = loaded
    image = processors["eval"](Image.new("RGB", (300, 200), (200, 30, 30)))[None]
    question = texts["eval"]("What is in this image?")
    (answer,) = model.generate({"image": image, "prompt": [question]}, max_length=12)
    assert answer.isascii() and len(answer.split()) >= 3
    scores = model.score_candidates({"image": image, "prompt": [question]}, ["A red square.", "Zyx qwv plo."], "")
    assert scores[0, 0] > scores[0, 1] + 5


def test_the_folder_records_its_origin() -> None:
    values = json.loads((build.build() / "config.json").read_text())
    found = [(one["package"], one["sha256"], one["licence"]) for one in values["made_from"]]
    expected = [(f"{one.distribution} {one.version}", one.sha256, one.licence) for one in packages.PARTS]
    assert found == expected and {licence for _, _, licence in found} == {"Apache-2.0"}
    assert [packages.verified(part).is_file() for part in packages.PARTS] == [True] * 3
