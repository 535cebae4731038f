"""The formats of other trainers: what a row of their files looks like.

Every row also has the keys of `Conversation.carried`, with which `emovit data import conversations` restores the
record. The trainers ignore them. They are strings in every row, because the loaders of JSON lines take the columns and
types from the first rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from lavis_emovit.records import RECORD_KEY

# Types of columns as Hugging Face's `datasets` writes them into Parquet. These spellings are read by its versions
# before 4, which have no `List`, and by later ones.
TEXT = {"dtype": "string", "_type": "Value"}
TEXTS = {"feature": TEXT, "_type": "Sequence"}
MESSAGES = [{"role": TEXT, "content": TEXT}]
IMAGES = {"feature": {"_type": "Image"}, "_type": "Sequence"}

IMAGE_TOKEN = "<image>"
_MEDIA = ("<image>", "<video>", "<audio>")


@dataclass(frozen=True)
class Conversation:
    """A row: one question about an image with its answer, or several in turn."""

    id: str
    source: str  # name of the dataset
    turns: tuple[tuple[str, str], ...]  # question, answer
    image: str  # path in the exported folder
    image_bytes: bytes
    carried: Mapping[str, str | Sequence[str]]
    joined: bool = False  # whether it has all questions about the image

    def messages(self, start: str = "") -> list[dict[str, str]]:
        """Alternating messages of user and assistant; `start` is put in front of the first."""
        return [
            {"role": role, "content": text}
            for number, (question, answer) in enumerate(self.turns)
            for role, text in (("user", question if number else start + question), ("assistant", answer))
        ]

    @property
    def embedded(self) -> list[dict[str, Any]]:
        """The image as a cell of a column of images."""
        return [{"bytes": self.image_bytes, "path": self.image}]


@dataclass(frozen=True)
class Format:
    """A file format of another trainer."""

    suffix: str
    row: Callable[[Conversation], dict[str, Any]]
    usage: str  # arguments of the trainer, with {file}, its {split} and folder {out}; {name}: of LLaMA-Factory's list
    columns: dict[str, Any] | None = None  # column -> type, for Parquet files, which contain the images
    joined_columns: dict[str, Any] | None = None  # the same for rows with all questions about an image
    has_turns: bool = True  # whether a row may have several questions
    reserved: tuple[str, ...] = _MEDIA  # texts that the trainer takes for something else

    @property
    def embeds(self) -> bool:
        """Whether its files contain the images."""
        return self.columns is not None


def _llava(row: Conversation) -> dict[str, Any]:
    """`LazySupervisedDataset` in llava/train/train.py of haotian-liu/LLaVA at c121f04 (2024-05-12).

    It reads `image` below `--image_folder` and `conversations`, and puts `<image>` in front of the turn that has it.
    """
    turns = []
    for number, (question, answer) in enumerate(row.turns):
        turns.append({"from": "human", "value": question if number else f"{IMAGE_TOKEN}\n{question}"})
        turns.append({"from": "gpt", "value": answer})
    return {"id": row.id, "image": row.image, "conversations": turns, **row.carried}


def _faba(row: Conversation) -> dict[str, Any]:
    """The rows of FABA-Instruct (README.md and scripts/train_emola of JackYFL/EmoLA at 214abb5).

    `<image>` is behind the question. `landmark` is the place of EmoLA's facial features, which only its own
    feature_extraction/landmark computes.
    """
    ((question, answer),) = row.turns
    turns = [{"from": "human", "value": f"{question}\n{IMAGE_TOKEN}"}, {"from": "gpt", "value": answer}]
    landmark = PurePosixPath("landmarks", *PurePosixPath(row.image).parts[1:]).with_suffix(".npy")
    return {
        "source": row.source,
        "image": row.image,
        "id": row.id,
        "conversations": turns,
        "landmark": str(landmark),
        **row.carried,
    }


def _messages_and_paths(row: Conversation) -> dict[str, Any]:
    """ms-swift 4.6.0 (`MessagesPreprocessor` in swift/dataset/preprocessor/core.py), LLaMA-Factory 0.9.5
    (`SharegptDatasetConverter` in llamafactory/data/converter.py).

    Both demand one `<image>` for each entry of `images`. ms-swift looks for the images below ROOT_IMAGE_DIR,
    LLaMA-Factory below `media_dir`, by default `dataset_dir`.
    """
    return {"id": row.id, "messages": row.messages(IMAGE_TOKEN), "images": [row.image], **row.carried}


def _trl(row: Conversation) -> dict[str, Any]:
    """TRL 1.16.0 (`DataCollatorForVisionLanguageModeling` in trainer/sft_trainer.py; docs/source/dataset_formats.md).

    Of `prompt` and `completion`, SFTTrainer learns the completion only. Of `messages`, which several questions need, it
    learns every token, unless `assistant_only_loss` is set. The texts are plain strings, and TRL puts the image in
    front of the first one: in a table, structured contents would have all keys, and chat templates look for keys.
    """
    messages = row.messages()
    texts = {"messages": messages} if row.joined else {"prompt": messages[:1], "completion": messages[1:]}
    return {"id": row.id, **texts, "images": row.embedded, **row.carried}


def _easyr1(row: Conversation) -> dict[str, Any]:
    """`RLHFDataset` in verl/utils/dataset.py of hiyouga/EasyR1 at b44b311 (2026-07-30).

    It divides the problem at `<image>`. Its default configuration names the columns so.
    """
    ((question, answer),) = row.turns
    return {"id": row.id, "problem": IMAGE_TOKEN + question, "answer": answer, "images": row.embedded, **row.carried}


def _verl(row: Conversation) -> dict[str, Any]:
    """`RLHFDataset` in verl/utils/dataset/rl_dataset.py of verl 0.9.1, and the keys of its reward managers."""
    ((question, answer),) = row.turns
    return {
        "id": row.id,
        "data_source": row.source,
        "prompt": [{"role": "user", "content": IMAGE_TOKEN + question}],
        "reward_model": {"style": "rule", "ground_truth": answer},
        # Reward functions see no other columns.
        "extra_info": {RECORD_KEY: row.carried[RECORD_KEY]},
        "images": row.embedded,
        **row.carried,
    }


def _columns(carried_type: Any = TEXT, **columns: Any) -> dict[str, Any]:
    """The columns of a Parquet file: its own, the images and those of `Conversation.carried`."""
    carried = {"kind": carried_type, "provenance": carried_type, "split": TEXT, "emotion": TEXT, RECORD_KEY: TEXT}
    return {"id": TEXT, **columns, "images": IMAGES, **carried}


FORMATS = {
    "llava": Format(
        ".json",
        _llava,
        "--data_path {file} --image_folder {out}",
        # With the marks of its template inside a text, it masks all answers of the row.
        reserved=(*_MEDIA, "ASSISTANT: ", "</s>"),
    ),
    "ms-swift": Format(
        ".jsonl", _messages_and_paths, "ROOT_IMAGE_DIR={out} swift sft --dataset {file} --val_dataset ..."
    ),
    "llamafactory": Format(
        ".jsonl", _messages_and_paths, "dataset_dir: {out}, dataset: {name}_{split}, eval_dataset: ..."
    ),
    "trl": Format(
        ".parquet",
        _trl,
        'load_dataset("parquet", data_files={{"train": "{file}", ...}})',
        columns=_columns(prompt=MESSAGES, completion=MESSAGES),
        joined_columns=_columns(TEXTS, messages=MESSAGES),
    ),
    "easyr1": Format(
        ".parquet",
        _easyr1,
        "data.train_files={file} data.val_files=... data.prompt_key=problem data.answer_key=answer "
        "data.image_key=images",
        columns=_columns(problem=TEXT, answer=TEXT),
        has_turns=False,
    ),
    "verl": Format(
        ".parquet",
        _verl,
        "data.train_files={file} data.val_files=... custom_reward_function.path=...",
        columns=_columns(
            data_source=TEXT,
            prompt=MESSAGES,
            reward_model={"style": TEXT, "ground_truth": TEXT},
            extra_info={RECORD_KEY: TEXT},
        ),
        has_turns=False,
    ),
    "faba": Format(
        ".json",
        _faba,
        "--data_path {file} --image_folder {out}",
        has_turns=False,
        reserved=(*_MEDIA, "ASSISTANT: ", "</s>"),
    ),
}
