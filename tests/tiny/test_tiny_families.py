"""The tiny families behave as models: images, questions and the order of words reach the logits, a batch of images of
different sizes gives what each gives alone, and image tokens stand where the published processor puts them.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from tiny_families import FAMILIES, PROMPTS
from tiny_parts import Sizes

QUESTION = "What emotion does this image show?"
PROMPT_TEXTS = {
    "llava15": "<s> USER: <image*4>\nWhat? ASSISTANT:",
    "qwen25vl": "<|im_start|>system\nYou answer questions about images.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
    "<|image_pad|*15><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n",
    "gemma3": "<bos><start_of_turn>user\n\n\n<start_of_image><image_soft_token*4><end_of_image>\n\nWhat?<end_of_turn>\n"
    "<start_of_turn>model\n",
}


@dataclass
class Loaded:
    """A family as a user loads it."""

    name: str
    folder: Path
    model: transformers.PreTrainedModel
    processor: transformers.ProcessorMixin

    def inputs(self, *pairs: tuple[Image.Image, str]) -> transformers.BatchFeature:
        """Inputs of image-question pairs, padded."""
        if self.name in PROMPTS:
            texts = [PROMPTS[self.name].format(question) for _, question in pairs]
            return self.processor(images=[i for i, _ in pairs], text=texts, return_tensors="pt", padding=True)
        messages = [
            [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
            for image, question in pairs
        ]
        return self.processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt",
            processor_kwargs={"padding": True},
        )  # fmt: skip

    @torch.no_grad()
    def logits(self, *pairs: tuple[Image.Image, str]) -> list[torch.Tensor]:
        """Logits [T, V] of each pair, without those of padding."""
        inputs = self.inputs(*pairs)
        logits = self.model(**inputs).logits
        return [row[mask.bool()] for row, mask in zip(logits, inputs["attention_mask"])]


def _image(seed: int, height: int = 24, width: int = 40) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * height * width))


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, tmp_path_factory) -> Loaded:
    folder = FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    return Loaded(request.param, folder, model, transformers.AutoProcessor.from_pretrained(folder))


def test_every_family_keeps_a_prompt():
    assert set(PROMPT_TEXTS) == set(FAMILIES)


def test_image_question_and_word_order_change_the_logits(loaded):
    (first,) = loaded.logits((_image(1), QUESTION))
    words = QUESTION.split()
    for image, question in [
        (2, QUESTION),
        (1, "Why is the sky dark?"),
        (1, " ".join([words[1], words[0], *words[2:]])),
    ]:
        (other,) = loaded.logits((_image(image), question))
        assert (first[-1] - other[-1]).abs().max() > 0.1, (image, question)


def test_a_batch_of_two_sizes_gives_what_each_gives_alone(loaded):
    pairs = [(_image(1), QUESTION), (_image(2, 40, 20), "Why would it make people feel sad?")]
    for pair, together in zip(pairs, loaded.logits(*pairs), strict=True):
        (alone,) = loaded.logits(pair)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_image_tokens_stand_where_the_published_processor_puts_them(loaded):
    ids = loaded.inputs((_image(1), "What?"))["input_ids"][0]
    text = loaded.processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    text = re.sub(r"(<[^<>]+?(?=>))(>\1)+>", lambda m: f"{m[1]}*{m[0].count('<')}>", text)
    assert text == PROMPT_TEXTS[loaded.name]


def test_the_model_has_more_rows_than_the_tokenizer_has_tokens(loaded):
    assert loaded.model.get_input_embeddings().num_embeddings >= len(loaded.processor.tokenizer)


def test_generation_from_a_batch_equals_generation_alone(loaded):
    loaded.processor.tokenizer.padding_side = "left"
    pairs = [(_image(1), QUESTION), (_image(2, 40, 20), "Why would it make people feel sad?")]

    def generate(*some):
        inputs = loaded.inputs(*some)
        options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
        return loaded.model.generate(**inputs, **options)[:, -6:].tolist()

    together = generate(*pairs)
    assert together == [generate(pair)[0] for pair in pairs]
    assert together[0] != together[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_reach_the_model(name, tmp_path):
    folder = FAMILIES[name](tmp_path, width=64, layers=3, heads=8, vocab=1700, vision_width=48, vision_layers=4)
    config = transformers.AutoConfig.from_pretrained(folder)
    text, vision = config.text_config, config.vision_config
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads, text.vocab_size) == (64, 3, 8, 1700)
    assert (vision.hidden_size, vision.num_hidden_layers) == (48, 4)


def test_an_unknown_size_is_refused(tmp_path):
    with pytest.raises(TypeError, match="depth"):
        FAMILIES["llava15"](tmp_path, depth=3)
    assert Sizes().width == 32
