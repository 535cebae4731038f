"""An image-text model of transformers is served as the models of InstructBLIP are: images of several sizes share a
batch, answers are those of the model, and its prompt tokens are counted with those of the image."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import torch
from PIL import Image
from served_questions import QUESTION, asked
from tiny_batches import model_of
from tiny_families import make_qwen25vl

from lavis_emovit.evaluation.adapters.lavis_model import LavisModel, inference
from lavis_emovit.evaluation.trained_questions import TrainedQuestions
from lavis_emovit.tuned.loading import Tuned


def test_an_image_text_model_is_served(serve, tmp_path):
    model = model_of(make_qwen25vl(tmp_path / "qwen25vl")).eval()
    image_processor, text_processor = model.processors()
    device = torch.device("cpu")
    adapter = LavisModel(model, image_processor, text_processor, run=inference(device, None), device=device)
    files = SimpleNamespace(location="tiny")
    tuned = Tuned(files, model, image_processor, text_processor, TrainedQuestions(), adapter)
    images = []
    for width, height in ((40, 40), (96, 56), (40, 120)):
        buffer = io.BytesIO()
        Image.effect_noise((width, height), 90).convert("RGB").save(buffer, "PNG")
        images.append(buffer.getvalue())
    with serve(tuned) as small, ThreadPoolExecutor(3) as pool:

        def ask(image: bytes):
            messages = asked(image)
            return small.client.chat.completions.create(model="tiny", messages=messages, max_tokens=6, logprobs=True)

        done = list(pool.map(ask, images))
    for image, reply in zip(images, done):
        prepared = adapter.prepare(image)
        samples = {"image": image_processor.stack([prepared]), "prompt": [QUESTION]}
        answers, ids = model.generate(samples, max_length=6, return_ids=True)
        assert reply.choices[0].message.content == answers[0]
        assert reply.usage.completion_tokens == len(ids[0]) == len(reply.choices[0].logprobs.content)
        text = model.chat._render(QUESTION)
        inputs = model.chat.processor(images=[[Image.open(io.BytesIO(image))]], text=[text])
        assert reply.usage.prompt_tokens == len(inputs["input_ids"][0])
    assert len({reply.usage.prompt_tokens for reply in done}) == 3
