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
from tiny_families import FAMILIES, PROMPTS, make_llava15, make_qwen25vl
from tiny_parts import Sizes

QUESTION = "What emotion does this image show?"
PROMPT_TEXTS = {
    "llava15": "<s> USER: <image*4>\nWhat? ASSISTANT:",
    "llava_next": "<s> [INST] <image*14>\nWhat? [/INST]",
    "qwen3vl": "<|im_start|>user\n<|vision_start|><|image_pad|*15><|vision_end|>What?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "smolvlm": "<|im_start|>User:"
    + "\n".join("".join(f"<fake><row_{row}_col_{column}><image*4>" for column in (1, 2, 3, 4)) for row in (1, 2, 3))
    + "\n\n<fake><global-img><image*4><fake>What?<end_of_utterance>\nAssistant:",
    "paligemma2": "<image*4><bos>What?\n",
    "blip2_opt": "<image*3></s>Question: What? Answer:",
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

    def inputs(self, *pairs: tuple[Image.Image, str], **options: object) -> transformers.BatchFeature:
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
            processor_kwargs={"padding": True, **options},
        )  # fmt: skip

    @torch.no_grad()
    def logits(self, *pairs: tuple[Image.Image, str]) -> list[torch.Tensor]:
        """Logits [T, V] of each pair, without those of padding."""
        inputs = self.inputs(*pairs)
        logits = self.model(**inputs).logits
        return [row[mask.bool()] for row, mask in zip(logits, inputs["attention_mask"])]


def _image(seed: int, height: int = 24, width: int = 40) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * height * width))


def _load(name: str, folder: Path, **options: object) -> Loaded:
    FAMILIES[name](folder, **options)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    return Loaded(name, folder, model, transformers.AutoProcessor.from_pretrained(folder))


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, tmp_path_factory) -> Loaded:
    return _load(request.param, tmp_path_factory.mktemp(request.param))


def test_every_family_keeps_a_prompt():
    assert set(PROMPT_TEXTS) == set(FAMILIES)


def test_image_question_and_word_order_change_the_logits(loaded):
    (first,) = loaded.logits((_image(1), QUESTION))
    for image, question in [(2, QUESTION), (1, "Why is the sky dark?"), (1, "What image does this emotion show?")]:
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
    assert text.replace("_token_around_image", "") == PROMPT_TEXTS[loaded.name]


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
    folder = FAMILIES[name](tmp_path, width=64, layers=3, heads=8, vocab=1800, vision_width=48, vision_layers=4)
    config = transformers.AutoConfig.from_pretrained(folder)
    text, vision = config.text_config, config.vision_config
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads, text.vocab_size) == (64, 3, 8, 1800)
    assert (vision.hidden_size, vision.num_hidden_layers) == (48, 4)


def test_an_unknown_size_is_refused(tmp_path):
    with pytest.raises(TypeError, match="depth"):
        FAMILIES["llava15"](tmp_path, depth=3)
    assert Sizes().width == 32


@pytest.mark.parametrize(
    ("name", "token", "small", "large"),
    [("llava_next", "<image>", 14, 24), ("qwen25vl", "<|image_pad|>", 15, 25), ("qwen3vl", "<|image_pad|>", 15, 25),
     ("smolvlm", "<image>", 52, 68)],
)  # fmt: skip
def test_the_shape_of_an_image_decides_its_tokens(name, token, small, large, tmp_path):
    """Images of 24 x 40 and 40 x 40 pixels: 3 x 5 and 5 x 5 merged patches; 3 x 4 and 4 x 4 tiles of 4 tokens with the
    whole image; 2 and 4 rows of 4 patches with an image_newline, beside 4 patches of the whole image."""
    loaded = _load(name, tmp_path)
    number = loaded.processor.tokenizer.convert_tokens_to_ids(token)
    counts = [(loaded.inputs((_image(1, height, 40), "What?"))["input_ids"] == number).sum() for height in (24, 40)]
    assert counts == [small, large]


def test_pan_and_scan_adds_crops_of_long_images(tmp_path):
    loaded = _load("gemma3", tmp_path)
    options = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16}
    long, square = (loaded.inputs((_image(1, 32, width), "What?"), **options) for width in (64, 32))
    assert len(long["pixel_values"]) == 3 and len(square["pixel_values"]) == 1
    assert long["input_ids"].shape[1] > square["input_ids"].shape[1] + 2 * 4


def test_a_window_of_gemma3_hides_what_is_far_away(tmp_path):
    """Only the window differs, and the weights are the same."""
    short, whole = (_load("gemma3", tmp_path / str(window), window=window) for window in (8, 500))
    (a,), (b,) = (loaded.logits((_image(1), QUESTION)) for loaded in (short, whole))
    assert torch.equal(a[:4], b[:4]) and (a[-1] - b[-1]).abs().max() > 0.1


@pytest.mark.parametrize(("name", "token"), [("gemma3", "<image_soft_token>"), ("paligemma2", "<image>")])
def test_image_tokens_of_gemma_see_later_image_tokens(name, token, tmp_path):
    loaded = _load(name, tmp_path)
    inputs = loaded.inputs((_image(1), QUESTION))
    places = (inputs["input_ids"][0] == loaded.processor.tokenizer.convert_tokens_to_ids(token)).nonzero()[:, 0]
    model = loaded.model.model
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    kinds = {"token_type_ids": inputs["token_type_ids"]}
    with torch.no_grad():
        before = model(inputs_embeds=embeds, **kinds).last_hidden_state
        embeds[0, places[-1]] += 1
        after = model(inputs_embeds=embeds, **kinds).last_hidden_state
    assert (before[0, places[0]] - after[0, places[0]]).abs().max() > 1e-3


def test_a_suffix_of_paligemma_is_the_answer_with_its_end(tmp_path):
    loaded = _load("paligemma2", tmp_path)
    inputs = loaded.processor(images=_image(1), text="<image>What?", suffix="awe", return_tensors="pt")
    labels = inputs["labels"][0]
    assert loaded.processor.tokenizer.decode(labels[labels != -100]) == "awe<eos>"
    assert (labels != -100).equal(inputs["token_type_ids"][0] == 1)


@pytest.mark.parametrize(
    ("make", "tokens"), [(make_llava15, {"image_px": 336, "patch_px": 14}), (make_qwen25vl, {"patch_px": 14})]
)
def test_a_benchmark_can_ask_for_576_image_tokens(make, tokens, tmp_path):
    loaded = Loaded(make.__name__, make(tmp_path, **tokens), None, transformers.AutoProcessor.from_pretrained(tmp_path))
    ids = loaded.inputs((_image(1, 672, 672), "What?"))["input_ids"]
    image = loaded.processor.image_token_id
    assert (ids == image).sum() == 576


@pytest.mark.parametrize(
    ("name", "system", "answer"),
    [("llava15", "Be kind.", " awe "), ("llava_next", "<<SYS>>\nBe kind.\n<</SYS>>", " awe</s>"),
     ("qwen25vl", "<|im_start|>system\nBe kind.<|im_end|>", "awe<|im_end|>\n"),
     ("qwen3vl", "<|im_start|>system\nBe kind.<|im_end|>", "awe<|im_end|>\n"),
     ("gemma3", "user\nBe kind.\n\n<start_of_image>", "awe<end_of_turn>\n"),
     ("smolvlm", "System: Be kind.<end_of_utterance>", " awe<end_of_utterance>\n")],
)  # fmt: skip
def test_an_answer_extends_the_prompt_and_system_text_comes_first(name, system, answer, tmp_path):
    FAMILIES[name](tmp_path)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    messages = [
        {"role": role, "content": [*({"type": "image"} for _ in range(role == "user")), {"type": "text", "text": text}]}
        for role, text in (("system", "Be kind."), ("user", "What?"), ("assistant", "awe"))
    ]
    prompt = processor.apply_chat_template(messages[:2], add_generation_prompt=True)
    assert system in prompt and prompt.count("Be kind.") == 1
    assert processor.apply_chat_template(messages) == prompt + answer
