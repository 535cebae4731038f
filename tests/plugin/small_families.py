"""Runs each of LAVIS's own models, small and with random weights, and prints what came of it as JSON by name.

The folder of the process gets models under the names that LAVIS would download. Sizes that LAVIS writes into its code
(768 wide, 24 x 24 patches) stay, depths are reduced.
"""

from __future__ import annotations

import functools
import json
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from omegaconf import OmegaConf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "photo",
    "of",
    "cat",
    "dog",
    "what",
    "is",
    "it",
    "?",
    "yes",
    "no",
]
WORDS += LETTERS + [f"##{letter}" for letter in LETTERS]
BERT = {
    "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 64, "num_hidden_layers": 6,
    "max_position_embeddings": 64, "vocab_size": len(WORDS) + 2, "pad_token_id": 0,
}  # fmt: skip
OPT, T5, QG = "facebook/opt-2.7b", "google/flan-t5-xl", "google/t5-large-lm-adapt"
COMMON: dict[str, Any] = {
    "vit_type": "base", "image_size": 32, "med_config_path": str(Path("med.json").resolve()), "num_classes": 3,
    "queue_size": 8,
    "embed_dim": 16, "prompt": "a photo of ", "mlm_mask_prob": 0.9,
}  # fmt: skip
BLIP2 = {
    "image_size": 32, "num_query_token": 4, "vit_precision": "fp32", "opt_model": OPT, "t5_model": T5,
    "prompt": "a photo of",
}  # fmt: skip
QA = {"pretrained": T5, "t5_config_path": str(Path(T5, "config.json").resolve())}
SHORT = {"max_length": 10, "min_length": 6}
CLIP = {"model_type": "ViT-B-32", "pretrained": ""}
CLIPS = {
    "n_frms": 2,
    "image_size": 32,
    "patch_size": 16,
    "attn_drop_rate": 0.0,
    "drop_rate": 0.0,
    "drop_path_rate": 0.1,
}
LARGE = {**COMMON, "image_size": 384}
STAGES = {
    "model_type": "base",
    "image_question_matching_model": {**LARGE, "arch": "blip_image_text_matching"},
    "image_captioning_model": {**LARGE, "arch": "blip_caption"},
    "question_answering_model": {**QA, "arch": "pnp_unifiedqav2_fid"},
}


def write_folders() -> None:
    """What LAVIS downloads, as folders with the same names."""
    Path("bert-base-uncased").mkdir()
    transformers.BertForPreTraining(transformers.BertConfig(**BERT)).save_pretrained("bert-base-uncased")
    Path("bert-base-uncased/vocab.txt").write_text("\n".join(WORDS))
    Path("bert-base-uncased/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    med = {**transformers.BertConfig(**BERT).to_dict(), "encoder_width": 768, "fusion_layer": 3}
    Path("med.json").write_text(json.dumps({**med, "add_type_embeddings": False, "add_cross_attention": True}))
    Path("alpro.json").write_text(json.dumps({**med, "add_type_embeddings": True, "add_cross_attention": False}))
    sizes = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=write_bytes_tokenizer(OPT), hidden_size=32, ffn_dim=48, num_hidden_layers=2,
            num_attention_heads=4, word_embed_proj_dim=32, max_position_embeddings=96, init_std=0.3, **sizes,
        )
    ).save_pretrained(OPT)  # fmt: skip
    gpt2 = transformers.GPT2Config(
        vocab_size=write_bytes_tokenizer("gpt2"), n_positions=64, n_embd=32, n_layer=2, n_head=4
    )
    transformers.GPT2LMHeadModel(gpt2).save_pretrained("gpt2")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    for name in (T5, QG):
        transformers.T5Tokenizer(vocab=pieces, extra_ids=0).save_pretrained(name)
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=len(pieces), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=0,
                decoder_start_token_id=0, eos_token_id=1, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
            )
        )  # fmt: skip
        model.save_pretrained(name)
        torch.save({"model": model.state_dict()}, "questions.pth")


def write_bytes_tokenizer(path: str) -> int:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(WORDS, trainer)
    names = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "</s>", "unk_token": "<pad>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.save_pretrained(path)
    return len(fast)


def shrink() -> None:
    """Shallow image encoders; nothing is downloaded, checkpoints are not loaded."""
    from lavis.models import base_model, eva_vit, vit
    from lavis.models.blip2_models import blip2
    from lavis.models.img2prompt_models import img2prompt_vqa

    whole = vit.VisionTransformer.__init__
    vit.VisionTransformer.__init__ = lambda self, *a, **k: whole(self, *a, **{**k, "depth": 2})
    base_model.BaseModel.load_checkpoint_from_config = lambda self, *a, **k: None
    torch.hub.load_state_dict_from_url = lambda *a, **k: {"model": {"pos_embed": torch.zeros(1, 5, 768)}}
    norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
    eva = {"patch_size": 16, "use_mean_pooling": False, "embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 2}
    blip2.create_eva_vit_g = lambda size=224, *a, **k: eva_vit.VisionTransformer(
        img_size=size, qkv_bias=True, norm_layer=norm, **eva
    )
    img2prompt_vqa.spacy = SimpleNamespace(load=lambda name: None)
    img2prompt_vqa.download_cached_file = lambda *a, **k: "questions.pth"


def build(name: str, config: dict[str, Any] = COMMON) -> Any:
    from lavis.common.registry import registry

    return registry.get_model_class(name).from_config(OmegaConf.create(config)).eval()


def samples(**more: Any) -> dict[str, Any]:
    common = {"epoch": 0, "iters": 1, "num_iters_per_epoch": 2, "image_id": torch.tensor([0, 1])}
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    texts = ["a photo of a cat", "a photo of a dog"]
    return {"image": image, "image0": image, "image1": image.flip(0), "text_input": texts, **common, **more}


def loss(name: str, batch: dict[str, Any], config: dict[str, Any] = COMMON) -> dict[str, Any]:
    return {"loss": float(build(name, config)(batch)["loss"].detach())}


def features(name: str, config: dict[str, Any] = COMMON) -> dict[str, Any]:
    model = build(name, config)
    both, image, text = (model.extract_features(samples(), mode=mode) for mode in ("multimodal", "image", "text"))
    return {"shapes": [both.multimodal_embeds.shape, image.image_embeds_proj.shape, text.text_embeds_proj.shape]}


def matching(name: str, config: dict[str, Any] = COMMON) -> dict[str, Any]:
    model = build(name, config)
    return {"shapes": [model(samples(), match_head=head).shape for head in ("itm", "itc")]}


def clip(name: str) -> dict[str, Any]:
    found = build(name, CLIP).extract_features({"image": torch.randn(2, 3, 224, 224), "text_input": ["a cat", "a dog"]})
    return {"shapes": [found.image_embeds.shape, found.text_embeds.shape]}


def answers() -> dict[str, Any]:
    return samples(answer=["yes", "no", "cat"], n_answers=torch.tensor([1, 2]), weight=torch.ones(3))


def greedy(next_logits: Any, ids: torch.Tensor, num_steps: int) -> list[list[int]]:
    """Token ids of `num_steps` greedy steps, each of which reads everything again."""
    with torch.no_grad():
        for _ in range(num_steps):
            ids = torch.cat([ids, next_logits(ids).argmax(dim=-1)[:, None]], dim=1)
    return ids.tolist()


def albef_vqa() -> dict[str, Any]:
    model = build("albef_vqa")
    found = {"loss": float(model(answers())["loss"])}
    return {**found, "texts": model.predict_answers(samples(), ["yes", "no", "cat"], num_ans_candidates=2)}


def blip_caption() -> dict[str, Any]:
    model = build("blip_caption")
    decoder, embeds = model.text_decoder, model.forward_encoder(samples()).detach()
    begin = torch.tensor([[model.tokenizer.bos_token_id, *model.tokenizer("a photo of ").input_ids[1:-1]]] * 2)
    options = {"sep_token_id": -1, "pad_token_id": 0, "max_length": 10, "min_length": 1}
    prompt = SimpleNamespace(input_ids=begin)
    generated = decoder.generate_from_encoder(prompt, embeds, num_beams=1, **options)
    plain = greedy(lambda ids: decoder(ids, encoder_hidden_states=embeds).logits[:, -1], begin, 10 - begin.shape[1])
    sampled = model.generate(samples(), use_nucleus_sampling=True, num_captions=2, **SHORT)
    texts = [*model.generate(samples(), **SHORT), *sampled]
    return {"loss": float(model(samples())["loss"]), "texts": texts, "equal": [generated.tolist(), plain]}


def blip_vqa() -> dict[str, Any]:
    model = build("blip_vqa")
    ranked = {"inference_method": "rank", "answer_list": ["yes", "no"], "num_ans_candidates": 2}
    generated = model.predict_answers(samples(), inference_method="generate")
    texts = [*generated, *model.predict_answers(samples(), **ranked)]
    return {"loss": float(model(answers())["loss"]), "texts": texts}


def blip2() -> dict[str, Any]:
    model = build("blip2", BLIP2)
    image_embeds = model.ln_vision(model.visual_encoder(samples()["image"])).detach()
    queries = model.query_tokens.expand(2, -1, -1)
    begin = torch.full((2, 1), model.tokenizer.bos_token_id)

    def next_logits(ids: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(2, queries.shape[1] + ids.shape[1])
        inputs = {"query_embeds": queries, "attention_mask": mask, "encoder_hidden_states": image_embeds}
        return model.Qformer(ids, **inputs).logits[:, -1]

    generated = model.Qformer.generate(
        begin, query_embeds=queries, encoder_hidden_states=image_embeds, max_new_tokens=6, eos_token_id=-1,
        pad_token_id=0, do_sample=False,
    )  # fmt: skip
    words = transformers.BertForPreTraining.from_pretrained("bert-base-uncased").state_dict()
    own = model.Qformer.state_dict()
    # LAVIS adds a token, which changes the embeddings.
    common = [name for name in own if name in words and own[name].shape == words[name].shape]
    decoder, embeddings = model.Qformer.cls.predictions.decoder, model.Qformer.get_input_embeddings()
    return {
        "loss": float(model(samples())["loss"]), "texts": model.generate(samples(), **SHORT),
        "equal": [generated.tolist(), greedy(next_logits, begin, 6)],
        "facts": [
            decoder.weight is embeddings.weight, len(common) > 100,
            [name for name in common if not torch.equal(own[name], words[name])],
            model.Qformer.bert.embeddings.position_ids.tolist() == [list(range(64))],
        ],
    }  # fmt: skip


def blip2_opt() -> dict[str, Any]:
    model = build("blip2_opt", BLIP2).float()
    plain = transformers.OPTForCausalLM.from_pretrained(OPT, dtype=torch.float32).eval()
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    queries = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))

    def next_logits(ids: torch.Tensor) -> torch.Tensor:
        return plain(inputs_embeds=torch.cat([queries, plain.get_input_embeddings()(ids)], dim=1)).logits[:, -1]

    model.opt_model.load_state_dict(plain.state_dict())  # LAVIS rounds the weights to half precision
    generated = model.opt_model.generate(
        input_ids=ids, query_embeds=queries, attention_mask=torch.ones(2, 7), max_new_tokens=6, eos_token_id=-1
    )
    texts = [*model.generate(samples()), *model.generate(samples(), use_nucleus_sampling=True, num_captions=2)]
    return {
        "loss": float(model(samples())["loss"]), "texts": texts,
        "equal": [generated.tolist(), greedy(next_logits, ids, 6)],
    }  # fmt: skip


def blip2_t5() -> dict[str, Any]:
    model = build("blip2_t5", BLIP2).float()
    texts = [*model.generate(samples()), *model.predict_answers(samples())]
    plain = transformers.T5ForConditionalGeneration.from_pretrained(T5).eval()
    model.t5_model.load_state_dict(plain.state_dict())
    inputs = {"input_ids": torch.tensor([[3, 4, 1]]), "labels": torch.tensor([[5, 6, 1]])}
    with torch.no_grad():
        logits = [one(**inputs).logits for one in (model.t5_model.eval(), plain)]
    scaled = bool((logits[0] - logits[1]).abs().max() > 1e-2)  # LAVIS's GELU is the exact one
    batch = samples(text_output=["yes", "no"])
    return {"loss": float(model(batch)["loss"]), "texts": texts, "facts": [scaled]}


def gpt_dialogue() -> dict[str, Any]:
    model = build("gpt_dialogue", {"len_tokenizer": 300})
    ids = torch.tensor([[3, 4]])
    generated = model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=-1).tolist()
    return {
        "shapes": [model(ids).logits.shape],
        "equal": [generated, greedy(lambda ids: model(ids).logits[:, -1], ids, 3)],
    }


def pnp_unifiedqav2_fid() -> dict[str, Any]:
    model = build("pnp_unifiedqav2_fid", QA)
    ids = torch.tensor([[[3, 4, 5, 1], [6, 7, 8, 1]]])
    states = torch.cat([model.encoder.encoder(context[None]).last_hidden_state for context in ids[0]], dim=1)

    def next_logits(decoded: torch.Tensor) -> torch.Tensor:
        hidden = model.decoder(decoded, encoder_hidden_states=states).last_hidden_state
        return model.lm_head(hidden * (model.model_dim**-0.5 if model.config.scale_decoder_outputs else 1))[:, -1]

    generated = model.generate(ids, torch.ones_like(ids), max_length=6).tolist()
    plain = greedy(next_logits, torch.tensor([[0]]), len(generated[0]) - 1)
    return {"loss": float(model(ids, torch.ones_like(ids), labels=ids[:, 0]).loss), "equal": [generated, plain]}


def staged(name: str) -> dict[str, Any]:
    model = build(name, STAGES)
    batch = {"image": torch.randn(1, 3, 384, 384), "text_input": ["what is it?"]}
    options = {"num_captions": 2, "num_patches": 5, "cap_max_length": 12, "cap_min_length": 6}
    if name == "pnp_vqa":
        answers, captions, _ = model.predict_answers(batch, block_num=4, **options)
        return {"texts": [*answers, *captions[0]]}
    return {"texts": model.forward_cap(model.forward_itm(batch, block_num=4), **options)["captions"][0]}


def captions_command() -> dict[str, Any]:
    """The documented command, on a small random BLIP-2."""
    from lavis_emovit.cli.main import main
    from lavis_emovit.records import EmotionRecord, read_records, write_records

    Image.new("RGB", (40, 30), (200, 30, 30)).save("red.png")
    write_records(Path("records.jsonl"), [EmotionRecord(id="t/1", image="red.png", split="train", source="t")])
    captioner = ["--captioner", "lavis:blip2_opt/caption_coco_opt2.7b"]
    code = main(["generate", "captions", "records.jsonl", "--out", "out", "--images", ".", *captioner])
    (record,) = read_records(Path("out/records.jsonl"))
    return {"texts": [record.caption], "facts": [code]}


CASES: dict[str, Any] = {
    "albef_classification": lambda: loss("albef_classification", samples(label=torch.tensor([0, 1]))),
    "albef_feature_extractor": lambda: features("albef_feature_extractor"),
    "albef_nlvr": lambda: loss("albef_nlvr", samples(label=torch.tensor([0, 1]))),
    "albef_pretrain": lambda: loss("albef_pretrain", samples()),
    "albef_retrieval": lambda: loss("albef_retrieval", samples()),
    "albef_vqa": albef_vqa,
    **{
        name: functools.partial(
            loss,
            name,
            {"video": torch.randn(2, 3, 2, 32, 32), "text_input": ["a cat", "a dog"], "answers": torch.tensor([0, 1])},
            {**COMMON, "timesformer": CLIPS, "med_config_path": str(Path("alpro.json").resolve())},
        )
        for name in ("alpro_qa", "alpro_retrieval")
    },
    "blip2": blip2,
    "blip2_feature_extractor": lambda: features("blip2_feature_extractor", BLIP2),
    "blip2_image_text_matching": lambda: matching("blip2_image_text_matching", BLIP2),
    "blip2_opt": blip2_opt,
    "blip2_t5": blip2_t5,
    "blip_caption": blip_caption,
    "blip_classification": lambda: loss("blip_classification", samples(label=torch.tensor([0, 1]))),
    "blip_feature_extractor": lambda: features("blip_feature_extractor"),
    "blip_image_text_matching": lambda: matching("blip_image_text_matching"),
    "blip_nlvr": lambda: loss("blip_nlvr", samples(label=torch.tensor([0, 1]))),
    "blip_pretrain": lambda: loss("blip_pretrain", samples()),
    "blip_retrieval": lambda: loss("blip_retrieval", samples()),
    "blip_vqa": blip_vqa,
    "clip": lambda: clip("clip"),
    "clip_feature_extractor": lambda: clip("clip_feature_extractor"),
    "gpt_dialogue": gpt_dialogue,
    "img2prompt_vqa": lambda: staged("img2prompt_vqa"),
    "pnp_unifiedqav2_fid": pnp_unifiedqav2_fid,
    "pnp_vqa": lambda: staged("pnp_vqa"),
    "generate captions": captions_command,
}


def run_all(names: list[str]) -> dict[str, Any]:
    from lavis_emovit.plugin import activate

    activate()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    write_folders()
    shrink()
    # BLIP-2 and ALPRO compare the images of all processes, and LAVIS needs a group even for one.
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    found = {}
    for name in names or CASES:
        torch.manual_seed(0)
        try:
            found[name] = CASES[name]()
        except Exception:
            found[name] = {"error": traceback.format_exc()}
    return found


if __name__ == "__main__":
    Path("found.json").write_text(json.dumps(run_all(sys.argv[1:])))
