"""`box: both` for the family `image_text`: two image entries in one chat message.

Properties:
- the loss is transformers' own of the message with two images, the whole one first; a record without a box has one
  image, so a batch may have both kinds, with the same loss with and without a shared beginning;
- what cannot read two images says so by name.
"""

from __future__ import annotations

import io

import pytest
from PIL import Image
from tiny_batches import ANSWERS, QUESTIONS, picture_of

from lavis_emovit.boxes import BoxSettings
from lavis_emovit.errors import WeightsError

BOTH, BOX = BoxSettings(show="both"), (8.0, 4.0, 40.0, 44.0)
MIXED = ((0, None), (2, BOX), (1, None))
TWO = ("llava15", "llava_next", "qwen25vl", "qwen3vl", "gemma3", "smolvlm")


def _encoded(number: int) -> bytes:
    buffer = io.BytesIO()
    picture_of(number).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("family", TWO)
def test_the_message_has_the_whole_image_and_then_the_crop(build, family):
    model = build(family).eval()
    images, hf = model.processors()[0], model.chat.processor
    assert images.reads_both
    whole = Image.open(io.BytesIO(_encoded(2)))
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTIONS[0]}]}
    reply = {"role": "assistant", "content": [{"type": "text", "text": ANSWERS[1]}]}
    asked = hf.apply_chat_template([turn], add_generation_prompt=True)
    answered = hf.apply_chat_template([turn, reply]).rstrip()
    tokenizer = model.llm_tokenizer
    end = tokenizer.convert_ids_to_tokens(model.chat.end_ids[-1])
    answered += "" if answered.endswith(end) else end
    begins = bool(tokenizer.bos_token) and asked.startswith(tokenizer.bos_token)
    pair = [whole, whole.crop(tuple(map(int, BOX)))]
    options = {"images": [pair], "return_tensors": "pt", "add_special_tokens": not begins}
    inputs = hf(text=[answered], **options)
    labels = inputs["input_ids"].clone()
    labels[:, : hf(text=[asked], **options)["input_ids"].shape[1]] = -100
    batch = {"image": images.stack([images.read(_encoded(2), None, BOX, show=BOTH)[0]])}
    batch |= {"text_input": QUESTIONS[:1], "text_output": ANSWERS[1:2]}
    ours = model.answer_loss(batch)
    theirs = model.core(**inputs, labels=labels).loss
    assert ours.loss_sum.item() / ours.num_tokens == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("family", TWO)
def test_records_without_a_box_have_one_image_in_the_same_batch(build, family):
    found = []
    for share in (True, False):
        model = build(family, share_prefix=share).eval()
        images = model.processors()[0]
        read = [
            images.read(_encoded(place), None, box, show=BOTH)[0] for place, box in ((0, None), (2, BOX), (1, None))
        ]
        assert read[0].ids.tolist() == images.read(_encoded(0), None, BOX)[0].ids.tolist()
        one, two = (int((ids == model.chat.image_token_id).sum()) for ids in (images(picture_of(2)).ids, read[1].ids))
        assert two > one
        batch = {"image": images.stack(read), "text_input": QUESTIONS[:3], "text_output": ANSWERS[:3]}
        written = model.generate({"image": batch["image"], "prompt": QUESTIONS[:3]}, max_length=4)
        found.append((model.answer_loss(batch).loss_sum.item(), written))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("family", ["blip2_opt", "paligemma2"])
def test_a_template_with_one_image_is_refused(build, family):
    images = build(family).processors()[0]
    assert not images.reads_both
    with pytest.raises(WeightsError, match=r"place of one image and not of two.*set `box` .* to crop or whole"):
        images.read(_encoded(2), None, BOX, show=BOTH)


def test_a_chat_template_with_one_image_is_refused(build):
    chat = build("llava15").chat
    chat.processor.chat_template = chat.processor.chat_template.replace(
        "{% for part in message.content if part.type == 'image' %}<image>\n{% endfor %}", "<image>\n"
    )
    with pytest.raises(WeightsError, match=r"cannot read two images|writes no two images"):
        chat.read([picture_of(1)] * 2)
