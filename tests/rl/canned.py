"""A tiny InstructBLIP whose tokens are whole answers, so that it writes the form of any template from the start.

Rewards then differ by the token that is drawn, and a few steps of training change which one that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, LlamaConfig, PreTrainedTokenizerFast

from lavis_emovit.datasets.collate import collate
from lavis_emovit.models.instructblip.loading import LoadedParts, prepare_tokenizers
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.records import EmotionRecord
from lavis_emovit.runners.engines.torch_engine import TorchEngine
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.tasks.emotion_grpo import EmotionGrpoTask
from lavis_emovit.tasks.settings import EmotionGrpoSettings

SPECIAL = ["[PAD]", "<s>", "</s>", "[UNK]", "[CLS]", "[SEP]"]
IMAGE_PX = 16


def answer_tokenizer(answers: Sequence[str]) -> PreTrainedTokenizerFast:
    """A token for each answer; every question is the unknown token."""
    tokenizer = Tokenizer(
        models.WordLevel({text: place for place, text in enumerate([*SPECIAL, *answers])}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\0", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="[PAD]", unk_token="[UNK]"
    )


def canned_model(answers: Sequence[str], seed: int = 0, heads: int = 4, **settings: Any) -> EmoVIT:
    """A model that writes answers of this list; Q-Former, queries and projection are trained.

    Args:
        heads: attention heads of the language model, whose width is 32.
    """
    torch.manual_seed(seed)
    llm_tokenizer, qformer_tokenizer = answer_tokenizer(answers), answer_tokenizer(answers)
    text = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=heads, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, vocab_size=len(llm_tokenizer),
    )  # fmt: skip
    config = InstructBlipConfig(
        vision_config={
            "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
            "image_size": IMAGE_PX, "patch_size": 8, "initializer_range": 0.1,
        },
        qformer_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
            "vocab_size": len(qformer_tokenizer), "max_position_embeddings": 32, "initializer_range": 0.2,
        },
        text_config=text.to_dict(),
        num_query_tokens=2,
    )  # fmt: skip
    core = InstructBlipForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in core.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
        # Only answers and their end are likely.
        core.language_model.lm_head.weight[[0, 1, 3, 4, 5]] = 0
    parts = LoadedParts(core, llm_tokenizer, qformer_tokenizer)
    prepare_tokenizers(parts)
    values = {"image_size": IMAGE_PX, "max_txt_len": 32, "frozen_precision": "fp32", **settings}
    return EmoVIT(parts, ModelSettings(arch="emovit_tiny", model_type="tiny", pretrained="", **values))


class RecordSet:
    """A training dataset of records, each with an image of one colour of its own.

    Args:
        processor: of an image-text model; None for one that reads pixels.
    """

    def __init__(self, records: Sequence[EmotionRecord], questions: Sequence[str] = ("Which?",), processor: Any = None):
        self.questions, self.processor = questions, processor
        self.records, self.samples, self.num_samples = list(records), range(len(records)), len(records)
        self.reader = SimpleNamespace(read_record=lambda number: self.records[number])

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        record = self.records[key[1]]
        share = key[1] / len(self)
        if self.processor is None:
            image: Any = torch.full((3, IMAGE_PX, IMAGE_PX), share - 0.5)
        else:
            image = self.processor(Image.new("RGB", (IMAGE_PX, IMAGE_PX), (round(255 * share), 90, 40)))
        pairs = [(question, "awe", f"{record.id}#0", record.emotion) for question in self.questions]
        return {"image": image, "pairs": pairs, "record_id": record.id, "record": record}

    def collater(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return collate(items) if self.processor is None else collate(items, self.processor.stack)


def record(number: int = 0, **fields: Any) -> EmotionRecord:
    common = {"id": f"set/{number}", "image": "1.jpg", "split": "train", "source": "set", "emotion": "awe"}
    return EmotionRecord.model_validate({**common, "label_set": "mikels8", **fields})


class Training:
    """A model, its task and data, and steps over all records."""

    def __init__(
        self, model: Any, records: list[EmotionRecord], questions: tuple[str, ...] = ("Which?",), **settings: Any
    ):
        settings = {"num_generations": 8, "max_answer_tokens": 1, **settings}
        own, of_run = EmotionGrpoSettings.expand(settings)
        processor = getattr(model, "image_processor", None)
        self.model, self.data = model, RecordSet(records, questions, processor)
        self.task = EmotionGrpoTask(EmotionGrpoSettings(**own))
        run = {"global_batch_size": len(records), "init_lr": 1e-3, "max_epoch": 1, **of_run}
        self.engine = TorchEngine(
            model, self.task, RunSettings(output_dir="none", device="cpu", weight_decay=0.0, **run)
        )
        self.task.begin(model, self.data)
        self.batch = self.data.collater([self.data[0, number] for number in range(len(records))])

    def step(self, rate: float = 0.02) -> dict[str, float]:
        result = self.engine.train_step(self.engine.prepare([self.batch]), rate)
        return dict(self.task.step_columns(result.measures))
