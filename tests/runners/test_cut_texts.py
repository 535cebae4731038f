"""Texts that the model would cut, counted before training.

- Counts by kind are those of the model's own tokenizers, with the id of the longest text; only trained pairs count.
- They agree with what a training step notes as cut, and a limit at the longest text cuts nothing.
- `refuse` ends the start before anything is evaluated; `warn` logs the same lines.
- Faulty samples, remote shards and models that do not count tokens are left out.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from lavis.common.registry import registry
from lavis.models import load_model

from lavis_emovit.datasets.mixture import EmotionMixtureDataset
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.errors import DataError
from lavis_emovit.records import Instruction
from lavis_emovit.runners.cut_texts import check_cut_texts
from lavis_emovit.shards.writer import write_shards

LONG = "A long and winding answer about everything in the picture, again and again. " * 4


@pytest.fixture(scope="module")
def model():
    return load_model("emovit_tiny", "tiny", is_eval=True)


@pytest.fixture(scope="module")
def index(tmp_path_factory, make_records):
    """12 images; two have reasoning answers that are too long, one a conversation question."""
    root = tmp_path_factory.mktemp("images")
    records = []
    for number, record in enumerate(make_records(root, 12)):
        items = list(record.instructions)
        if number in (3, 7):
            items.append(
                Instruction(kind="reasoning", question="Why?", answer=LONG * (number // 3), provenance="human")
            )
        if number == 5:
            items.append(Instruction(kind="conversation", question=LONG, answer="So.", provenance="human"))
        records.append(record.model_copy(update={"instructions": items}))
    return write_shards(records, root, tmp_path_factory.mktemp("shards") / "train", samples_per_shard=5)


def _dataset(index, **options):
    image = registry.get_processor_class("emovit_image_train").from_config({"image_size": 96})
    text = registry.get_processor_class("emovit_text").from_config()
    return EmotionShardDataset(index, image, text, seed=0, **options)


def _ids(index, label_number):
    return next(
        r.id for r in (_dataset(index).read(n).record for n in range(12)) if r.id.endswith(f"_{label_number:05d}")
    )


def _lines(model, dataset, caplog):
    caplog.clear()
    with caplog.at_level(logging.WARNING, "lavis_emovit"):
        check_cut_texts(model, dataset, "warn")
    return [record.getMessage() for record in caplog.records]


def test_counts_by_kind_and_the_longest_text(model, index, caplog):
    answer = len(model.llm_tokenizer((LONG * 2).strip(), add_special_tokens=False)["input_ids"])
    lines = _lines(model, _dataset(index), caplog)
    dataset = _dataset(index)
    kinds = [item.kind for n in range(12) for item in dataset.read(n).record.instructions]
    question = max(
        len(model.qformer_tokenizer(LONG.strip())["input_ids"]),
        1 + len(model.llm_tokenizer(LONG.strip(), add_special_tokens=False)["input_ids"]),
    )
    assert lines == [
        f"training cuts texts: 1 of {kinds.count('conversation')} conversation questions are longer than "
        f"model.max_txt_len=96 tokens; the longest has {question} ({_ids(index, 5)}#3)",
        f"training cuts texts: 2 of {kinds.count('reasoning')} reasoning answers are longer than "
        f"model.max_output_txt_len=96 tokens; the longest has {answer + 1} ({_ids(index, 7)}#2)",
    ]
    assert _lines(model, EmotionMixtureDataset([dataset]), caplog) == lines
    assert _lines(model, _dataset(index, kinds=["categorical"]), caplog) == []


def test_the_limits_are_those_of_training_steps(model, index):
    dataset = _dataset(index)
    pairs = [pair for number in range(12) for pair in dataset.training_pairs(number)]
    lengths = model.text_lengths([pair[2] for pair in pairs], [pair[3] for pair in pairs])
    noted = model.answer_loss(dataset.collater([dataset[number] for number in range(12)])).noted
    ids = [pair[1] for pair in pairs]
    trained = [pair[2] for number in range(12) for pair in dataset[number]["pairs"]]
    assert ids == trained
    assert noted["num_truncated_questions"] == [n for n, (question, _) in enumerate(lengths) if question > 96]
    assert noted["num_truncated_answers"] == [n for n, (_, answer) in enumerate(lengths) if answer > 96]


def test_a_limit_at_the_longest_text_cuts_nothing(model, index, caplog):
    dataset = _dataset(index, kinds=["reasoning"])
    longest = max(
        model.text_lengths([""], [pair[3]])[0][1] for n in range(len(dataset)) for pair in dataset.training_pairs(n)
    )
    for limit, is_cut in ((longest, False), (longest - 1, True)):
        settings = model.settings.model_copy(update={"max_output_txt_len": limit})
        limited = SimpleNamespace(settings=settings, text_lengths=model.text_lengths)
        assert bool(_lines(limited, dataset, caplog)) == is_cut


def test_refused_with_all_counts(model, index):
    with pytest.raises(DataError) as caught:
        check_cut_texts(model, _dataset(index), "refuse")
    assert all(text in str(caught.value) for text in ("conversation questions", "reasoning answers", "cut_texts=warn"))


def test_what_cannot_be_counted_is_left_out(model, index, caplog, monkeypatch):
    assert _lines(SimpleNamespace(settings=model.settings), _dataset(index), caplog) == []
    assert _lines(model, [1, 2, 3], caplog) == []
    dataset = _dataset(index)
    monkeypatch.setattr(dataset.index, "cache", object())
    assert _lines(model, dataset, caplog) == []
    monkeypatch.undo()
    number = next(n for n in range(12) if dataset.read(n).record.id == _ids(index, 7))
    shard = index.folder / index.shards[index.shard_of(int(dataset.samples[number]))].name
    content = shard.read_bytes()
    start = int(index.columns["record_offset"][dataset.samples[number]])
    shard.write_bytes(content[:start] + b"x" + content[start + 1 :])
    try:
        assert "1 of " in _lines(model, _dataset(index), caplog)[1]
    finally:
        shard.write_bytes(content)
