"""`box: both` and clips for the family `image_text`: several image entries in one chat message.

Properties:
- the loss is transformers' own of the message with the whole image and the crop, or with the frames of a clip in the
  order of time; other records have one image, so a batch may have all kinds, with the same loss with and without a
  shared beginning;
- a clip that stands still at a frame is the clip with that frame exchanged, if all frames have one size; a seed draws
  the times of frames;
- the adapter of suites for such models reads the frames of its entry;
- what cannot read several images says so by name.
"""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image
from tiny_batches import ANSWERS, QUESTIONS, picture_of

from lavis_emovit.boxes import BoxSettings
from lavis_emovit.clips.clip import Clip, FrameSettings
from lavis_emovit.clips.reading import bundle_of
from lavis_emovit.errors import DataError, WeightsError
from lavis_emovit.evaluation.adapters.lavis_model import with_frames
from lavis_emovit.evaluation.adapters.transformers_model import TransformersModelSettings, open_transformers_model
from lavis_emovit.evaluation.questions import Question

BOTH, BOX = BoxSettings(show="both"), (8.0, 4.0, 40.0, 44.0)
MIXED = ((0, None), (2, BOX), (1, None))
TWO = ("llava15", "llava_next", "qwen25vl", "qwen3vl", "gemma3", "smolvlm")


def _encoded(number: int, turns: int = 0) -> bytes:
    buffer = io.BytesIO()
    picture_of(number).convert("RGB").rotate(90 * turns).save(buffer, "PNG")
    return buffer.getvalue()


def _clip(*frames: bytes) -> bytes:
    return bundle_of([(float(number), "png", data) for number, data in enumerate(frames)])


def _loss_of_the_message(model, shown):
    """Transformers' own loss of the answer to a message with these images, per token."""
    hf, tokenizer = model.chat.processor, model.llm_tokenizer
    entries = [{"type": "image"} for _ in shown]
    turn = {"role": "user", "content": [*entries, {"type": "text", "text": QUESTIONS[0]}]}
    reply = {"role": "assistant", "content": [{"type": "text", "text": ANSWERS[1]}]}
    asked = hf.apply_chat_template([turn], add_generation_prompt=True)
    answered = hf.apply_chat_template([turn, reply]).rstrip()
    end = tokenizer.convert_ids_to_tokens(model.chat.end_ids[-1])
    answered += "" if answered.endswith(end) else end
    begins = bool(tokenizer.bos_token) and asked.startswith(tokenizer.bos_token)
    options = {"images": [shown], "return_tensors": "pt", "add_special_tokens": not begins}
    inputs = hf(text=[answered], **options)
    labels = inputs["input_ids"].clone()
    labels[:, : hf(text=[asked], **options)["input_ids"].shape[1]] = -100
    return model.core(**inputs, labels=labels).loss.item()


@pytest.mark.parametrize("family", TWO)
def test_the_message_has_the_whole_image_and_the_crop_or_the_frames(build, family):
    model = build(family).eval()
    images = model.processors()[0]
    assert images.reads_both
    encoded = [_encoded(2), _encoded(2, turns=1), _encoded(0)]
    frames = [Image.open(io.BytesIO(data)) for data in encoded]
    clips = with_frames(images, FrameSettings(num_frames=3))
    assert clips.reads_both
    clip, times_s = clips.read(_clip(*encoded), Clip(rate_fps=1, frames=("0.png", "1.png", "2.png")))
    assert times_s == (0.0, 1.0, 2.0)
    both = images.read(encoded[0], None, BOX, show=BOTH)[0], [frames[0], frames[0].crop(tuple(map(int, BOX)))]
    pair = Clip(rate_fps=1, frames=("0.png", "1.png"))
    two = with_frames(images, FrameSettings(num_frames=2))
    streams = two.read(_clip(*encoded[:2]), pair, BOX, show=BOTH)[0]
    cut = [frame.crop(tuple(map(int, BOX))) for frame in frames[:2]]
    for read, shown in (both, (clip, frames), (streams, [*frames[:2], *cut])):
        batch = {"image": images.stack([read]), "text_input": QUESTIONS[:1], "text_output": ANSWERS[1:2]}
        ours = model.answer_loss(batch)
        assert ours.loss_sum.item() / ours.num_tokens == pytest.approx(_loss_of_the_message(model, shown), rel=1e-5)


@pytest.mark.parametrize("family", TWO)
def test_a_clip_that_stands_still_has_a_frame_exchanged(build, family):
    clips = with_frames(build(family).processors()[0], FrameSettings(num_frames=3))
    frames, part = [_encoded(2, turns) for turns in range(3)], Clip(rate_fps=1, frames=("0.png", "1.png", "2.png"))
    found = clips.read(_clip(*frames), part)[0].still_at_each_frame(3)
    for still, shown in zip(found, ((1, 1, 2), (0, 0, 2), (0, 1, 1)), strict=True):
        expected = clips.read(_clip(*(frames[number] for number in shown)), part)[0]
        assert still.ids.tolist() == expected.ids.tolist() and still.features.keys() == expected.features.keys()
        assert all(torch.equal(still.features[name], expected.features[name]) for name in still.features)
    sizes = clips.read(_clip(frames[0], _encoded(0), frames[1]), part)[0]
    assert sizes.still_at_each_frame(3) == []
    # Training looks at other times for each seed.
    long = _clip(*frames * 4), Clip(rate_fps=1, frames=("0.png",) * 12)
    drawn = [clips.read(*long, seed=seed)[1] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    image, times_s = clips.read(frames[0])
    assert image.num_images == 1 and times_s == (0.0, 0.0, 0.0)


def test_suites_ask_about_clips(folder_of):
    entry = {"adapter": "transformers", "path": str(folder_of("smolvlm")), "dtype": "float32", "device": "cpu"}
    plain = open_transformers_model(TransformersModelSettings(**entry))
    model = open_transformers_model(TransformersModelSettings(**entry, frames=FrameSettings(num_frames=2)))
    frames, part = _clip(_encoded(0), _encoded(1)), Clip(rate_fps=1, frames=("0.png", "1.png"))
    clip, times_s = model.prepare_clip(frames, part)
    assert times_s == (0.0, 1.0) and clip.num_images == 2
    question = Question("emotion", QUESTIONS[0], ("awe", "fear"))
    assert len(model.score([clip], [0], [question], "likelihood")[0]) == 2
    assert model.identity() == {**plain.identity(), "clip_frames": FrameSettings(num_frames=2).model_dump()}
    with pytest.raises(DataError, match="set `frames`"):
        plain.prepare_clip(frames, part)


@pytest.mark.parametrize("family", TWO)
def test_records_without_a_box_have_one_image_in_the_same_batch(build, family):
    found = []
    for share in (True, False):
        model = build(family, share_prefix=share).eval()
        images = model.processors()[0]
        read = [images.read(_encoded(place), None, box, show=BOTH)[0] for place, box in MIXED]
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
    with pytest.raises(WeightsError, match=r"place of one image and not of 2, .*set `box` .* to crop or whole"):
        images.read(_encoded(2), None, BOX, show=BOTH)


def test_a_chat_template_with_one_image_is_refused(build):
    chat = build("llava15").chat
    chat.processor.chat_template = chat.processor.chat_template.replace(
        "{% for part in message.content if part.type == 'image' %}<image>\n{% endfor %}", "<image>\n"
    )
    with pytest.raises(WeightsError, match=r"cannot read 2 images|does not write 2 images"):
        chat.read([picture_of(1)] * 2)
