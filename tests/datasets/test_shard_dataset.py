"""Training and evaluation items.

- An item is the same whenever and wherever it is created, and different in the next epoch.
- Its pairs are the record's instructions, filtered by kind and number; samples without any are skipped.
- Evaluation has one categorical question per labelled image, with options in fixed order and the true label.
- A batch encodes an image once for all its questions; the processor stacks its own images.
- A share of the samples keeps the label proportions and is a subset of every larger share; the order's hash depends on
  it, and the whole set has the same hash as ever.
- An image that cannot be decoded is named with shard and record.
"""

from __future__ import annotations

import pickle

import pytest
import torch

from lavis_emovit.cli.generate import COMMANDS
from lavis_emovit.datasets.collate import collate
from lavis_emovit.datasets.eval_dataset import EmotionEvalDataset
from lavis_emovit.datasets.mixture import EmotionMixtureDataset
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import categorical_prompt
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.shards import shard_file
from lavis_emovit.shards.writer import write_shards


def _same(one, other):
    return torch.equal(one["image"], other["image"]) and one["pairs"] == other["pairs"]


@pytest.fixture
def dataset(index, processors):
    return EmotionShardDataset(index, processors[0], processors[2], seed=5)


def test_an_item_is_a_pure_function(dataset, index, processors):
    state = torch.get_rng_state()
    expected = {key: dataset[key] for key in [(0, 0), (1, 0), (2, 28), (0, 28)]}
    assert torch.equal(torch.get_rng_state(), state)
    fresh = pickle.loads(pickle.dumps(EmotionShardDataset(index.folder, processors[0], processors[2], seed=5)))
    for key in reversed(expected):
        torch.manual_seed(99)
        assert _same(fresh[key], expected[key])
    assert _same(dataset[0], expected[0, 0])
    assert not torch.equal(expected[0, 0]["image"], expected[1, 0]["image"])
    other = EmotionShardDataset(index, processors[0], processors[2], seed=6)
    assert not torch.equal(other[0]["image"], expected[0, 0]["image"])


def test_pairs_are_the_records_instructions(dataset):
    for number in range(len(dataset)):
        record, item = dataset.read(number).record, dataset[number]
        assert item["record_id"] == record.id
        assert item["pairs"] == [
            (instruction.question, instruction.answer.strip(), f"{record.id}#{position}", record.emotion)
            for position, instruction in enumerate(record.instructions)
        ]


def test_kinds_select_pairs_and_samples(index, processors):
    chosen = EmotionShardDataset(index, processors[0], processors[2], seed=5, kinds=["reasoning"])
    everything = EmotionShardDataset(index, processors[0], processors[2], seed=5)
    expected = [
        number
        for number in range(len(everything))
        if any(item.kind == "reasoning" for item in everything.read(number).record.instructions)
    ]
    assert list(chosen.samples) == expected
    assert 0 < len(chosen) < len(everything)
    for number in range(len(chosen)):
        assert [pair[0] for pair in chosen[number]["pairs"]] == ["Why?"]
    assert chosen.index_hash == everything.index_hash
    assert chosen.order_hash != everything.order_hash


@pytest.mark.parametrize(
    ("kinds", "absent"),
    [
        (["categorical", "conversation", "description"], ["description"]),
        (["reasoning", "explanation", "description"], ["description", "explanation"]),
        (["explanation", "categorical"], ["explanation"]),
    ],
)
def test_kinds_that_the_shards_lack_are_refused_by_name(index, processors, kinds, absent):
    with pytest.raises(DataError, match=f"no instructions of the kinds {', '.join(absent)}, ") as found:
        EmotionShardDataset(index, processors[0], processors[2], seed=5, kinds=kinds)
    assert all(
        f"`emovit generate {kind} records.jsonl --out G`" in str(found.value) and kind in COMMANDS for kind in absent
    )


def test_limited_pairs_are_selected_again_in_every_epoch(index, processors):
    dataset = EmotionShardDataset(index, processors[0], processors[2], seed=5, max_pairs=2)
    number = next(n for n in range(len(dataset)) if len(dataset.read(n).record.instructions) == 3)
    by_epoch = [tuple(pair[2] for pair in dataset[epoch, number]["pairs"]) for epoch in range(30)]
    assert {len(ids) for ids in by_epoch} == {2}
    assert len(set(by_epoch)) == 3
    assert all(list(ids) == sorted(ids) for ids in by_epoch)
    assert by_epoch == [tuple(pair[2] for pair in dataset[epoch, number]["pairs"]) for epoch in range(30)]


def test_unusable_kinds_and_numbers_are_refused(index, processors):
    with pytest.raises(DataError, match=r"unknown kind of instruction 'reasonin' \(did you mean 'reasoning'"):
        EmotionShardDataset(index, *processors[1:], seed=5, kinds=["reasonin"])
    with pytest.raises(DataError, match="none of its 29 samples has an instruction of the kinds description"):
        EmotionShardDataset(index, *processors[1:], seed=5, kinds=["description"])
    dataset = EmotionShardDataset(index, *processors[1:], seed=5)
    for number in (-1, 29):
        with pytest.raises(IndexError):
            dataset[number]


def test_evaluation_has_one_question_per_image(index, processors):
    dataset = EmotionEvalDataset(index, processors[1], processors[2])
    question = categorical_prompt(get_label_set("mikels8"))
    assert dataset.label_set.labels == get_label_set("mikels8").labels
    assert len(dataset) == 29
    for number in range(len(dataset)):
        record = dataset.read(number).record
        expected = (question, f"Predict emotion: {record.emotion}", f"{record.id}#categorical", record.emotion)
        assert dataset[number]["pairs"] == [expected]
        assert torch.equal(dataset[0, number]["image"], dataset[3, number]["image"])


def test_evaluation_needs_labels_and_one_label_set(tmp_path, make_records, index, processors):
    records = make_records(tmp_path, 6)
    mixed = [record.model_copy(update={"emotion": None} if number else {}) for number, record in enumerate(records)]
    one = write_shards(mixed, tmp_path, tmp_path / "one")
    assert len(EmotionEvalDataset(one, *processors[1:])) == 1
    none = write_shards(mixed[1:], tmp_path, tmp_path / "none")
    with pytest.raises(DataError, match="none of its 5 samples has an emotion"):
        EmotionEvalDataset(none, *processors[1:])
    with pytest.raises(DataError, match="unknown emotion 'amusement' for label set 'ekman6'"):
        EmotionEvalDataset(index, *processors[1:], label_set="ekman6")
    unnamed = [record.model_copy(update={"label_set": None}) for record in records]
    bare = write_shards(unnamed, tmp_path, tmp_path / "bare")
    with pytest.raises(DataError, match="name the label sets none; choose one"):
        EmotionEvalDataset(bare, *processors[1:])
    assert len(EmotionEvalDataset(bare, *processors[1:], label_set="mikels8")) == 6


def test_a_batch_has_each_image_once(dataset):
    items = [dataset[number] for number in range(6)]
    batch = dataset.collater(items)
    counts = [len(item["pairs"]) for item in items]
    assert max(counts) > 1
    assert batch["image"].shape == (6, 3, 16, 16)
    assert batch["image"].dtype == torch.float32
    assert batch["image_index"].tolist() == [number for number, count in enumerate(counts) for _ in range(count)]
    for name in ("text_input", "text_output", "instance_id", "label"):
        assert len(batch[name]) == sum(counts)
    for position, number in enumerate(batch["image_index"].tolist()):
        assert batch["instance_id"][position].startswith(batch["record_id"][number] + "#")
    assert collate(items)["text_output"] == batch["text_output"]


def test_records_are_in_the_items_on_request(dataset):
    assert "record" not in dataset[0]
    dataset.include_records()
    assert dataset[0]["record"] == dataset.read(0).record


def test_the_processor_stacks_its_images(dataset, processors, monkeypatch):
    """Model families whose images differ in size stack them in another way."""
    items = [dataset[number] for number in range(3)]
    images = [item["image"] for item in items]
    assert torch.equal(processors[0].stack(images), torch.stack(images))
    assert torch.equal(dataset.collater(items)["image"], torch.stack(images))
    monkeypatch.setattr(type(processors[0]), "stack", lambda self, images: list(images))
    for whole in (dataset, EmotionMixtureDataset([dataset])):
        assert whole.collater(items)["image"] == images


def test_an_undecodable_image_is_named(tmp_path, processors, monkeypatch):
    """Such an image passes the check of the build only if that is disabled or the libraries differ."""
    (tmp_path / "a.jpg").write_bytes(b"not an image")
    record = EmotionRecord(id="a/1", image="a.jpg", split="train", source="a", emotion="awe", label_set="mikels8")
    monkeypatch.setattr(shard_file, "check_image", lambda data: "jpg")
    dataset = EmotionEvalDataset(write_shards([record], tmp_path, tmp_path / "out"), *processors[1:])
    with pytest.raises(DataError, match=r"shard-000000.tar, sample 0 \('a/1'\): the image cannot be decoded"):
        dataset[0]


def test_share_is_nested_stratified_and_part_of_the_order(index, processors):
    image, _, text = processors
    train = [
        EmotionShardDataset(index, image, text, seed=0, share=share, share_seed=seed)
        for share, seed in ((0.3, 0), (0.6, 0), (1.0, 0), (0.6, 1))
    ]
    small, large, whole, other = (set(dataset.samples.tolist()) for dataset in train)
    assert small < large < whole == set(range(index.num_samples))
    assert large != other and len(large) == len(other)
    counts = {label: [sum(index.label_of(n) == label for n in taken) for taken in (small, large, whole)]
              for label in index.labels}  # fmt: skip
    assert all(
        few == max(1, int(0.3 * all_ + 0.5)) and more == int(0.6 * all_ + 0.5) for few, more, all_ in counts.values()
    )
    assert len({dataset.order_hash for dataset in train}) == 4
    assert train[2].order_hash == EmotionShardDataset(index, image, text, seed=0).order_hash
    assert train[0][len(small) - 1]["record_id"]
