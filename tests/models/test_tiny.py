"""The tiny model that ships with the package.

- LAVIS loads it by its name alone, with its processors, and it recognises the shape of a drawn mouth;
- plain transformers loads its folder, with the same language model inputs and the same answers;
- it has 2 to 5 million parameters, a few MB on disk, and by default trains what EmoVIT's code trains;
- each emotion has few tokens, and the categorical question fits into its text length.
"""

from __future__ import annotations

import random

import pytest
import torch
from lavis.models import load_model_and_preprocess
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import CATEGORICAL_ANSWER_PREFIX, CATEGORICAL_WORDINGS, categorical_prompt
from lavis_emovit.paths import PACKAGE_ROOT
from lavis_emovit.sample_set.draw import render
from lavis_emovit.sample_set.scene import sample_scene

FOLDER = PACKAGE_ROOT / "models" / "data" / "emovit_tiny"
MOUTHS = ("curved up", "curved down")


@pytest.fixture(scope="module")
def loaded():
    return load_model_and_preprocess("emovit_tiny", is_eval=True)


def test_reads_the_shape_of_a_mouth(loaded):
    model, vis_processors, _ = loaded
    rng = random.Random(0)
    scenes = []
    while len(scenes) < 24:
        scene = sample_scene(rng, "contentment" if len(scenes) % 2 else "sadness")
        if scene.view == "close" and scene.mouth in MOUTHS:
            scenes.append(scene)
    images = torch.stack([vis_processors["eval"](render(scene)) for scene in scenes])
    answers = model.generate({"image": images, "prompt": "How is the mouth?"}, max_length=12)
    right = sum(answer == scene.mouth for answer, scene in zip(answers, scenes))
    assert len({scene.mouth for scene in scenes}) == 2
    assert right >= 20, answers


def test_loads_with_plain_transformers(loaded):
    model, _, _ = loaded
    plain = InstructBlipForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()
    torch.manual_seed(0)
    image = torch.randn(2, 3, 96, 96)
    question = "What place is it?"
    ids = model.qformer_tokenizer([question] * 2, return_tensors="pt")
    with torch.no_grad():
        ours = model.query_images(model.encode_images(image), torch.arange(2), [question] * 2)
        embeds = plain.vision_model(image).last_hidden_state
        queries = plain.query_tokens.expand(2, -1, -1)
        mask = torch.cat([torch.ones(2, queries.shape[1], dtype=torch.long), ids.attention_mask], dim=1)
        read = plain.qformer(
            input_ids=ids.input_ids, attention_mask=mask, query_embeds=queries, encoder_hidden_states=embeds
        ).last_hidden_state[:, : queries.shape[1]]
        theirs = plain.language_projection(read)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_size_and_trained_parts(loaded):
    model, _, _ = loaded
    counts = model.parameter_counts()
    assert 2_000_000 <= counts["total"] <= 5_000_000
    assert 0 < counts["trained"] < counts["total"] / 2
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 8_000_000
    assert not any(
        name.startswith(("language_model.", "vision_model.encoder.")) for name in model.trained_parameter_names()
    )


def test_emotions_are_words_and_questions_fit(loaded):
    model, _, _ = loaded
    labels = get_label_set("mikels8")
    assert model.candidate_lengths(list(labels.labels), CATEGORICAL_ANSWER_PREFIX).max() <= 2
    for wording in range(1, len(CATEGORICAL_WORDINGS) + 1):
        question = categorical_prompt(labels, wording=wording)
        for tokenizer in (model.llm_tokenizer, model.qformer_tokenizer):
            assert len(tokenizer(question)["input_ids"]) <= model.settings.max_txt_len


def test_plain_transformers_answers_the_same(loaded):
    model, vis_processors, _ = loaded
    plain = InstructBlipForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()
    processor = InstructBlipProcessor.from_pretrained(FOLDER)
    picture = render(sample_scene(random.Random(3), "awe"))
    for question in ("What place is it?", "How is the light?", "Describe the picture."):
        ours = model.generate({"image": vis_processors["eval"](picture)[None], "prompt": question}, max_length=12)
        inputs = processor(images=picture, text=question, return_tensors="pt")
        ids = plain.generate(**inputs, max_new_tokens=12, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        assert [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)] == ours
