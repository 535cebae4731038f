"""Exported files, read by the trainers' own data code; each test is skipped where its trainer is not installed.

LLaVA and EasyR1 are not on the package index: put their sources on PYTHONPATH. ms-swift and LLaMA-Factory need older
versions of transformers and datasets than the other tests, so run this file with an environment of their own.

Properties, for TRL, LLaMA-Factory, ms-swift and LLaVA:
- every question of a split arrives once, with its own image, and no other split arrives;
- a model learns the answers and nothing else; with `--join`, the answers of all questions of an image;
- `messages` in TRL: the question and the image tokens are learned, too, unless `assistant_only_loss` is set;
and for EasyR1 and verl, which learn from rewards:
- the prompt has the question and the image, and `ground_truth` is the answer.

Images that are turned by EXIF, transparent or have 16 bits are distorted by each trainer in the way that the export
counts, and with `--as-shown` by none.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import types

import pytest
from PIL import Image, ImageChops

from lavis_emovit.exchange.export import export_data
from lavis_emovit.exchange.formats import FORMATS
from lavis_emovit.images import decode_image
from lavis_emovit.records import read_records

SPLIT = "test"


@pytest.fixture
def exported(folder, tmp_path, monkeypatch):
    """Function (format, join) -> (folder, questions of the split). Caches of the trainers go to a temporary folder."""
    for variable in ("HF_DATASETS_CACHE", "MODELSCOPE_CACHE", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))

    def export(name, join=False):
        export_data(str(folder), tmp_path / name.replace("-", "_"), name, join=join)
        records = [record for record in read_records(folder / "records.jsonl") if record.split == SPLIT]
        chosen = [[(one.question, one.answer) for one in record.instructions] for record in records]
        return tmp_path / name.replace("-", "_"), chosen if join else [[one] for turns in chosen for one in turns]

    return export


def learned(tokenizer, row):
    return tokenizer.decode([token for token in list(row["labels"]) if token != -100])


def text_of(tokenizer, row):
    return tokenizer.decode([token for token in list(row["input_ids"]) if token != tokenizer.pad_token_id])


def expected_image(processor, folder, number, join, turns):
    """Pixels of the image of a row."""
    records = [record for record in read_records(folder / "records.jsonl") if record.split == SPLIT]
    of_row = [record for record in records for _ in (range(1) if join else record.instructions)]
    with Image.open(folder / of_row[number].image) as image:
        return processor.image_processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]


@pytest.mark.parametrize(("join", "options"), [(False, {}), (True, {"assistant_only_loss": True}), (True, {})])
def test_trl(folder, exported, join, options):
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    import datasets
    from tiny_processor import IMAGE_TOKENS, build_processor
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    out, chosen = exported("trl", join)
    processor = build_processor()
    tokenizer = processor.tokenizer
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**small, image_size=28, patch_size=14),
        text_config=LlamaConfig(**small, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
    )  # fmt: skip
    rows = datasets.load_dataset("parquet", data_files={SPLIT: str(out / f"{SPLIT}.parquet")})[SPLIT]
    settings = trl.SFTConfig(
        output_dir=str(out / "run"), max_length=None, per_device_train_batch_size=len(rows), report_to="none",
        use_cpu=True, bf16=False, max_steps=1, gradient_checkpointing=False, **options,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        LlavaForConditionalGeneration(config), args=settings, train_dataset=rows, processing_class=processor
    )
    batch = trainer.data_collator([rows[number] for number in range(len(rows))])
    assert len(rows) == len(chosen)
    for number, turns in enumerate(chosen):
        row = {key: batch[key][number] for key in ("input_ids", "labels")}
        answers = "".join(f"{answer}</s>" for _, answer in turns)
        if join and not options:
            assert learned(tokenizer, row) == text_of(tokenizer, row) and "<image>" * IMAGE_TOKENS in text_of(
                tokenizer, row
            )
        else:
            assert learned(tokenizer, row) == answers
        assert f"<image>\n{turns[0][0]}" in text_of(tokenizer, row)
        pixels = expected_image(processor, folder, number, join, turns)
        assert (batch["pixel_values"][number] - pixels).abs().max() < 1e-6
    assert trainer.train().training_loss > 0


@pytest.mark.parametrize("join", [False, True])
def test_llamafactory(folder, exported, monkeypatch, join):
    # Its bounds on versions are narrow, and checked when it is imported.
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    pytest.importorskip("llamafactory", reason="LLaMA-Factory is not installed")
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments
    from tiny_processor import build_processor
    from transformers import Seq2SeqTrainingArguments

    out, chosen = exported("llamafactory", join)
    processor = build_processor()
    tokenizer = processor.tokenizer
    data = DataArguments(
        dataset_dir=str(out), dataset=f"llamafactory_{SPLIT}", eval_dataset="llamafactory_val", template="llava",
        cutoff_len=4096, overwrite_cache=True,
    )  # fmt: skip
    training = Seq2SeqTrainingArguments(output_dir=str(out / "run"), report_to=[], use_cpu=True)
    template = get_template_and_fix_tokenizer(tokenizer, data)
    model = ModelArguments(model_name_or_path="none", cache_dir=str(out / "cache"))
    found = get_dataset(template, model, data, training, "sft", tokenizer, processor)
    assert len(found["train_dataset"]) == len(chosen)
    for number, (row, turns) in enumerate(zip(found["train_dataset"], chosen)):
        assert learned(tokenizer, row) == "".join(f"{answer}</s>" for _, answer in turns)
        assert f"USER: <image><image><image><image>{turns[0][0]} ASSISTANT:" in text_of(tokenizer, row)
        (path,) = row["images"]
        pixels = expected_image(processor, folder, number, join, turns)
        with Image.open(path) as image:
            again = processor.image_processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        assert (again - pixels).abs().max() == 0
    assert all(f"images/{SPLIT}/" in row["images"][0] for row in found["train_dataset"])
    assert all("images/val/" in row["images"][0] for row in found["eval_dataset"])


@pytest.mark.parametrize("join", [False, True])
def test_ms_swift(folder, exported, monkeypatch, join):
    pytest.importorskip("swift.dataset", reason="ms-swift is not installed")
    import torch
    from swift.dataset import load_dataset
    from swift.model import MODEL_MAPPING, ModelInfo
    from swift.template import get_template
    from tiny_processor import build_processor

    out, chosen = exported("ms-swift", join)
    monkeypatch.setenv("ROOT_IMAGE_DIR", str(out))
    rows, _ = load_dataset([str(out / f"{SPLIT}.jsonl")], strict=True, load_from_cache_file=False)
    processor = build_processor()
    processor.model_meta = MODEL_MAPPING["llava1_5_hf"]
    processor.model_info = ModelInfo("llava1_5_hf", str(out), torch.float32, 4096, None, None, None)
    template = get_template(processor, template_type="llava1_5_hf", max_length=4096)
    template.set_mode("train")
    template.task_type = "causal_lm"
    assert len(rows) == len(chosen)
    for number, turns in enumerate(chosen):
        row = template.encode(rows[number])
        assert learned(processor.tokenizer, row) == "".join(f"{answer}</s>" for _, answer in turns)
        question = f"USER: <image><image><image><image>\n{turns[0][0]}\nASSISTANT:"
        assert question in text_of(processor.tokenizer, row)
        pixels = expected_image(processor, folder, number, join, turns)
        assert (row["pixel_values"][0] - pixels).abs().max() == 0


class _WithBos:
    """A tokenizer that puts a token in front of every text, as LLaMA's does."""

    def __init__(self, tokenizer):
        self._tokenizer, self.legacy = tokenizer, True
        self.pad_token_id, self.bos_token_id = tokenizer.pad_token_id, tokenizer.bos_token_id
        self.model_max_length = tokenizer.model_max_length

    def __call__(self, text, **options):
        tokens = self._tokenizer(text, **options)
        tokens["input_ids"] = [self.bos_token_id, *tokens["input_ids"]]
        return tokens


@pytest.mark.parametrize("join", [False, True])
def test_llava(folder, exported, monkeypatch, join):
    found = importlib.util.find_spec("llava")
    if found is None:
        pytest.skip("LLaVA's sources are not on PYTHONPATH")
    # Its model needs transformers 4.37; its data code does not need its model.
    package = types.ModuleType("llava")
    package.__path__ = list(found.submodule_search_locations)
    trainer, model = types.ModuleType("llava.train.llava_trainer"), types.ModuleType("llava.model")
    trainer.LLaVATrainer = object
    for module in (package, trainer, model):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    from llava import conversation
    from llava.train.train import DataArguments, LazySupervisedDataset
    from tiny_processor import build_processor

    out, chosen = exported("llava", join)
    processor = build_processor()
    monkeypatch.setattr(conversation, "default_conversation", conversation.conv_templates["v1"])
    settings = DataArguments(image_folder=str(out), image_aspect_ratio="square")
    settings.image_processor, settings.is_multimodal = processor.image_processor, True
    settings.mm_use_im_start_end = False
    rows = LazySupervisedDataset(str(out / f"{SPLIT}.json"), _WithBos(processor.tokenizer), settings)
    assert len(rows) == len(chosen)
    for number, turns in enumerate(chosen):
        row = rows[number]
        assert learned(processor.tokenizer, row) == "".join(f" {answer}</s>" for _, answer in turns)
        # Its number of the image is no token.
        text = processor.tokenizer.decode([max(token, 0) for token in row["input_ids"].tolist()])
        assert f"\n{turns[0][0]} ASSISTANT: {turns[0][1]}</s>" in text
        pixels = expected_image(processor, folder, number, join, turns)
        assert (row["image"] - pixels).abs().max() == 0


def test_easyr1(folder, exported):
    module = pytest.importorskip("verl.utils.dataset", reason="EasyR1's sources are not on PYTHONPATH")
    if "prompt_key" not in inspect.signature(module.RLHFDataset).parameters:
        pytest.skip("verl is installed, which reads other files than EasyR1")
    from tiny_processor import build_processor

    out, chosen = exported("easyr1")
    processor = build_processor()
    rows = module.RLHFDataset(
        str(out / f"{SPLIT}.parquet"), processor.tokenizer, processor, prompt_key="problem", answer_key="answer",
        image_key="images", filter_overlong_prompts_workers=1,
    )  # fmt: skip
    assert len(rows) == len(chosen)
    for number, ((question, answer),) in enumerate(chosen):
        row = rows[number]
        prompt = processor.tokenizer.decode(row["input_ids"][row["attention_mask"] == 1])
        assert prompt == f"USER: <image><image><image><image>\n{question} ASSISTANT: "
        assert row["ground_truth"] == answer
        (image,) = row["multi_modal_data"]["images"]
        pixels = processor.image_processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        assert (pixels - expected_image(processor, folder, number, False, None)).abs().max() == 0


def test_verl(folder, exported):
    module = pytest.importorskip("verl.utils.dataset.rl_dataset", reason="verl is not installed")
    from omegaconf import OmegaConf
    from tiny_processor import build_processor

    out, chosen = exported("verl")
    processor = build_processor()
    config = OmegaConf.create({"cache_dir": str(out / "cache"), "filter_overlong_prompts_workers": 1})
    rows = module.RLHFDataset(str(out / f"{SPLIT}.parquet"), processor.tokenizer, config, processor)
    assert len(rows) == len(chosen)
    for number, ((question, answer),) in enumerate(chosen):
        row = rows[number]
        ((image, text),) = [message["content"] for message in row["raw_prompt"]]
        assert text == {"type": "text", "text": question} and image["type"] == "image"
        pixels = processor.image_processor(image["image"], return_tensors="pt")["pixel_values"][0]
        assert (pixels - expected_image(processor, folder, number, False, None)).abs().max() == 0
        assert row["reward_model"]["ground_truth"] == answer and row["data_source"] == "tiny"


def _pixels_of_llamafactory(row, out, _):
    from llamafactory.data.mm_plugin import BasePlugin

    plugin = BasePlugin(image_token="<image>", video_token=None, audio_token=None)
    options = {"image_max_pixels": 10**6, "image_min_pixels": 1}
    return plugin._regularize_images([str(out / row["images"][0])], **options)["images"][0]


def _pixels_of_ms_swift(row, out, _):
    from swift.template.vision_utils import load_image

    return load_image(str(out / row["images"][0]))


def _pixels_of_datasets(row, out, number):
    import datasets

    rows = datasets.load_dataset("parquet", data_files={SPLIT: str(out / f"{SPLIT}.parquet")})[SPLIT]
    # As image processors do with the images of `datasets`.
    return rows[number]["images"][0].convert("RGB")


@pytest.mark.parametrize(
    ("name", "package", "pixels"),
    [
        ("llamafactory", "llamafactory", _pixels_of_llamafactory),
        ("ms-swift", "swift", _pixels_of_ms_swift),
        ("trl", "datasets", _pixels_of_datasets),
    ],
)
def test_distorted_images_are_those_that_the_export_counts(odd, tmp_path, monkeypatch, name, package, pixels):
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    pytest.importorskip(package, reason=f"{package} is not installed")
    records = list(read_records(odd / "records.jsonl"))
    for as_shown in (False, True):
        out = tmp_path / f"out{as_shown}"
        summary = export_data(str(odd), out, name, as_shown=as_shown)
        path = out / f"{SPLIT}{FORMATS[name].suffix}"
        rows = [json.loads(line) for line in path.open()] if path.suffix == ".jsonl" else [None] * len(records)
        distorted = []
        for number, (record, row) in enumerate(zip(records, rows)):
            seen, shown = pixels(row, out, number), decode_image((odd / record.image).read_bytes())
            if ImageChops.difference(seen, shown).getbbox() is not None:
                distorted.append(record.id)
        counted = {"odd/deep", "odd/transparent"} | ({"odd/turned"} if name != "trl" else set())
        assert len(counted) == sum(summary["shown_otherwise"].values())
        assert set(distorted) == (set() if as_shown else counted)
