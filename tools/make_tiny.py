"""Train the weights of `emovit_tiny`: tokenizers first, then the model on drawn scenes and their descriptions.

    python tools/make_tiny.py --out lavis_emovit/models/data/emovit_tiny

Training has three stages and takes about an hour on two CPU cores:

1. the image encoder, with one classifier per drawn fact; the classifiers are discarded afterwards;
2. the language model, without images (`tiny_texts.language_exercise`);
3. all parts together, with questions about images.

No image is paired with an emotion word (see `tiny_texts`). Before tuning, the accuracy of the model is at chance.
Tuning the Q-Former with frozen encoder and language model improves it.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, LlamaConfig

from lavis_emovit.images import CLIP_MEAN, CLIP_STD
from lavis_emovit.models.instructblip.export import save_transformers
from lavis_emovit.models.instructblip.loading import LoadedParts, RawWeights
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.models.text import encode_answers, encode_prompts, join_prompts_and_answers
from lavis_emovit.sample_set.draw import render
from lavis_emovit.sample_set.scene import FACT_VALUES, sample_scene, scene_facts
from tiny_texts import corpus, image_pairs, language_exercise, train_llm_tokenizer, train_qformer_tokenizer

IMAGE_SIZE_PX = 96
NUM_QUERIES = 8


def build_config(llm_tokenizer, qformer_tokenizer) -> InstructBlipConfig:
    """Config of a model with about 3 million parameters."""
    text = LlamaConfig(
        vocab_size=len(llm_tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=llm_tokenizer.pad_token_id,
        bos_token_id=llm_tokenizer.bos_token_id,
        eos_token_id=llm_tokenizer.eos_token_id,
    )
    return InstructBlipConfig(
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE_PX,
            "patch_size": 12,
            "initializer_range": 0.02,
        },
        qformer_config={
            "vocab_size": len(qformer_tokenizer),
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "max_position_embeddings": 160,
            "cross_attention_frequency": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "pad_token_id": qformer_tokenizer.pad_token_id,
        },
        text_config=text.to_dict(),
        num_query_tokens=NUM_QUERIES,
        image_token_index=llm_tokenizer.convert_tokens_to_ids("<image>"),
    )


def _draw(seed: int) -> tuple[object, np.ndarray]:
    scene = sample_scene(random.Random(seed))
    # Draw at full size and scale down, as training does with the files of the sample set.
    image = render(scene, 192).resize((IMAGE_SIZE_PX + 16, IMAGE_SIZE_PX + 16), Image.Resampling.BICUBIC)
    return scene, np.asarray(image, dtype=np.uint8)


class Pool:
    """Drawn scenes in memory, with their facts."""

    def __init__(self, num_scenes: int, seed: int):
        started = time.time()
        with multiprocessing.Pool(2) as workers:
            drawn = workers.map(_draw, range(seed, seed + num_scenes), chunksize=64)
        self.scenes = [scene for scene, _ in drawn]
        self.pixels = torch.from_numpy(np.stack([pixels for _, pixels in drawn])).permute(0, 3, 1, 2).contiguous()
        facts = [scene_facts(scene) for scene in self.scenes]
        self.facts = {
            name: torch.tensor([values.index(fact[name]) for fact in facts]) for name, values in FACT_VALUES.items()
        }
        normalise = v2.Compose(
            [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=list(CLIP_MEAN), std=list(CLIP_STD))]
        )
        self.eval_view = v2.Compose([v2.Resize(IMAGE_SIZE_PX, antialias=True), normalise])
        self.crop = v2.RandomResizedCrop(IMAGE_SIZE_PX, scale=(0.5, 1.0), antialias=True)
        self.normalise = normalise
        print(f"drew {num_scenes} scenes in {time.time() - started:.0f} s", flush=True)

    def images(self, indices: torch.Tensor, train: bool, flip: bool = False) -> torch.Tensor:
        """Normalised images, float [B, 3, H, W]. In training, the first half of the batch is cropped at random."""
        pixels = self.pixels[indices]
        if not train:
            return self.eval_view(pixels)
        half = len(indices) // 2
        views = torch.cat(
            [
                torch.stack([self.crop(image) for image in pixels[:half]]),
                v2.functional.resize(pixels[half:], [IMAGE_SIZE_PX] * 2, antialias=True),
            ]
        )
        if flip:
            views = torch.where(torch.rand(len(indices), 1, 1, 1) < 0.5, views.flip(-1), views)
        return self.normalise(views)


class FactHeads(nn.Module):
    """One linear classifier per fact, on encoder features [B, P, D]."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(2 * width, len(values)) for name, values in FACT_VALUES.items()})

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        pooled = torch.cat([features[:, 0], features[:, 1:].mean(dim=1)], dim=-1)
        return {name: head(pooled) for name, head in self.heads.items()}

    def loss(self, features: torch.Tensor, pool: Pool, indices: torch.Tensor) -> torch.Tensor:
        logits = self(features)
        return torch.stack([F.cross_entropy(logits[name], pool.facts[name][indices]) for name in FACT_VALUES]).mean()


class Optimizer:
    """AdamW with clipped gradients, linear warmup and cosine decay to 2 % of the learning rate."""

    def __init__(self, groups: list[dict], steps: int, warmup: int = 100):
        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adam, factor)
        self.started = time.time()
        self.num_steps = 0

    def step(self, loss: torch.Tensor) -> None:
        """Backward pass and update."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.step()
        self.adam.zero_grad()
        self.schedule.step()
        self.num_steps += 1

    def step_s(self) -> float:
        """Mean seconds per step."""
        return (time.time() - self.started) / self.num_steps


@torch.no_grad()
def fact_accuracy(core, heads: FactHeads, pool: Pool) -> dict[str, float]:
    hits = dict.fromkeys(FACT_VALUES, 0)
    for start in range(0, len(pool.scenes), 128):
        indices = torch.arange(start, min(start + 128, len(pool.scenes)))
        logits = heads(core.vision_model(pixel_values=pool.images(indices, train=False)).last_hidden_state)
        for name in FACT_VALUES:
            hits[name] += int((logits[name].argmax(-1) == pool.facts[name][indices]).sum())
    return {name: count / len(pool.scenes) for name, count in hits.items()}


def train_encoder(core, pool: Pool, held_out: Pool, steps: int, batch: int) -> FactHeads:
    heads = FactHeads(core.config.vision_config.hidden_size)
    parameters = [*core.vision_model.parameters(), *heads.parameters()]
    optimizer = Optimizer([{"params": parameters, "lr": 1.5e-3}], steps)
    for step in range(steps):
        indices = torch.randint(len(pool.scenes), (batch,))
        images = pool.images(indices, train=True, flip=True)
        loss = heads.loss(core.vision_model(pixel_values=images).last_hidden_state, pool, indices)
        optimizer.step(loss)
        if step % 100 == 0 or step == steps - 1:
            print(f"encoder {step} loss {loss.item():.3f} {optimizer.step_s():.2f} s/step", flush=True)
        if step % 1000 == 999 or step == steps - 1:
            print({name: round(share, 3) for name, share in fact_accuracy(core, heads, held_out).items()}, flush=True)
    return heads


class Exercises:
    """Batches of language exercises. Keyword embeddings replace the query tokens of an image."""

    def __init__(self, core, tokenizer, pool: Pool, seed: int):
        self.core, self.tokenizer, self.pool = core, tokenizer, pool
        self.rng = random.Random(seed)

    def loss(self, batch: int) -> torch.Tensor:
        rows = [language_exercise(self.rng, self.rng.choice(self.pool.scenes)) for _ in range(batch)]
        table = self.core.language_model.get_input_embeddings()
        # The other slots are noise at the scale of embeddings, because query tokens do not resemble words either.
        slots = torch.randn(batch, NUM_QUERIES, table.embedding_dim) * table.weight.detach().std()
        for row, (keywords, _, _) in enumerate(rows):
            ids = [i for word in keywords for i in self.tokenizer(" " + word, add_special_tokens=False)["input_ids"]]
            repeats = self.rng.choice([1, 2, 4, 8]) if len(keywords) == 1 else 1
            ids = (ids * repeats)[:NUM_QUERIES]
            used = sorted(self.rng.sample(range(NUM_QUERIES), len(ids)))
            slots[row, used] = slots[row, used] * 0.3 + table(torch.tensor(ids))
        return answer_loss(self.core, self.tokenizer, slots, [row[1] for row in rows], [row[2] for row in rows])


def answer_loss(core, tokenizer, prefix: torch.Tensor, questions: list[str], answers: list[str]) -> torch.Tensor:
    prompt_ids = encode_prompts(tokenizer, questions, 96, False)
    batch = join_prompts_and_answers(prompt_ids, encode_answers(tokenizer, answers, 96), tokenizer.pad_token_id)
    embeds = core.language_model.get_input_embeddings()(batch.input_ids)
    mask = torch.cat([torch.ones(prefix.shape[:2], dtype=torch.long), batch.attention_mask], dim=1)
    hidden = core.language_model.get_decoder()(
        inputs_embeds=torch.cat([prefix, embeds], dim=1), attention_mask=mask, use_cache=False
    ).last_hidden_state[:, prefix.shape[1] - 1 : -1]
    supervised = batch.labels != -100
    return F.cross_entropy(core.language_model.lm_head(hidden[supervised]), batch.labels[supervised])


def train_language(core, exercises: Exercises, steps: int, batch: int) -> None:
    optimizer = Optimizer([{"params": list(core.language_model.parameters()), "lr": 2e-3}], steps)
    for step in range(steps):
        loss = exercises.loss(batch)
        optimizer.step(loss)
        if step % 100 == 0 or step == steps - 1:
            print(f"language {step} loss {loss.item():.3f} {optimizer.step_s():.2f} s/step", flush=True)


def train_together(
    model: EmoVIT, heads: FactHeads, exercises: Exercises, pool: Pool, held_out: Pool, steps: int, batch: int
) -> None:
    core = model.core
    untrained = [core.query_tokens, *core.qformer.parameters(), *core.language_projection.parameters()]
    groups = [
        {"params": untrained, "lr": 1.5e-3},
        {"params": list(core.language_model.parameters()), "lr": 6e-4},
        {"params": [*core.vision_model.parameters(), *heads.parameters()], "lr": 2e-4},
    ]
    optimizer = Optimizer(groups, steps)
    rng = random.Random(7)
    for step in range(steps):
        indices = torch.randint(len(pool.scenes), (batch,))
        embeds = model.encode_images(pool.images(indices, train=True))
        questions, answers, image_index = draw_pairs(pool, indices, rng, per_image=3)
        prefix = model.query_images(embeds, image_index, questions)
        image_loss = answer_loss(core, model.llm_tokenizer, prefix, questions, answers)
        text_loss = exercises.loss(batch)
        fact_loss = heads.loss(embeds, pool, indices)
        optimizer.step(image_loss + 0.5 * text_loss + 0.5 * fact_loss)
        if step % 100 == 0 or step == steps - 1:
            print(
                f"together {step} image {image_loss.item():.3f} text {text_loss.item():.3f} "
                f"facts {fact_loss.item():.3f} {optimizer.step_s():.2f} s/step",
                flush=True,
            )
        if step % 1000 == 999 or step == steps - 1:
            report_answers(model, held_out)


def draw_pairs(pool: Pool, indices: torch.Tensor, rng: random.Random, per_image: int):
    questions, answers, image_index = [], [], []
    for row, index in enumerate(indices.tolist()):
        description, *pairs = image_pairs(pool.scenes[index], rng)
        chosen = rng.sample(pairs, min(per_image, len(pairs)))
        if rng.random() < 0.5:
            chosen[0] = description
        for question, answer in chosen:
            questions.append(question)
            answers.append(answer)
            image_index.append(row)
    return questions, answers, torch.tensor(image_index)


@torch.no_grad()
def report_answers(model: EmoVIT, held_out: Pool) -> None:
    """Print the accuracy of short answers about held-out scenes, and some examples."""
    model.eval()
    rng = random.Random(11)
    num_correct = total = 0
    examples = []
    for start in range(0, min(256, len(held_out.scenes)), 64):
        indices = torch.arange(start, start + 64)
        questions, answers, image_index = draw_pairs(held_out, indices, rng, per_image=2)
        samples = {"image": held_out.images(indices, train=False), "image_index": image_index, "prompt": questions}
        generated = model.generate(samples, max_length=60)
        short = [row for row, answer in enumerate(answers) if len(answer.split()) <= 6]
        num_correct += sum(generated[row] == answers[row] for row in short)
        total += len(short)
        examples = list(zip(questions, answers, generated))[:6]
    print(f"short answers, exact match: {num_correct / max(1, total):.3f} of {total}", flush=True)
    for question, answer, text in examples:
        print(f"  {question} | {answer} | {text}", flush=True)
    model.train()


def save(core, llm_tokenizer, qformer_tokenizer, out: Path) -> None:
    """Write a transformers InstructBLIP folder in half precision."""
    core.half()
    shutil.rmtree(out, ignore_errors=True)
    save_transformers(RawWeights(core.state_dict(), core.config, llm_tokenizer, qformer_tokenizer, "this tool"), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("lavis_emovit/models/data/emovit_tiny"))
    parser.add_argument(
        "--work", type=Path, default=Path("output/make_tiny"), help="folder for the results of the stages"
    )
    parser.add_argument("--scenes", type=int, default=32000)
    parser.add_argument("--encoder-steps", type=int, default=2400)
    parser.add_argument("--language-steps", type=int, default=1000)
    parser.add_argument("--together-steps", type=int, default=2200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", choices=["all", "encoder", "language", "together"], default="all")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    random.seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    llm_tokenizer, qformer_tokenizer = tokenizers(args.work, args.seed)
    config = build_config(llm_tokenizer, qformer_tokenizer)
    core = InstructBlipForConditionalGeneration(config)
    nn.init.normal_(core.query_tokens, std=0.02)
    settings = ModelSettings(
        arch="emovit_tiny",
        pretrained="none",
        image_size=IMAGE_SIZE_PX,
        num_query_token=NUM_QUERIES,
        trained_parts="all",
        max_txt_len=96,
        max_output_txt_len=96,
    )
    model = EmoVIT(LoadedParts(core, llm_tokenizer, qformer_tokenizer), settings)
    print(json.dumps(model.parameter_counts()), flush=True)

    pool = Pool(args.scenes, seed=1_000_000)
    held_out = Pool(1024, seed=900_000)
    heads = FactHeads(config.vision_config.hidden_size)
    encoder_file, language_file = args.work / "encoder.pt", args.work / "language.pt"
    if args.stage in ("all", "encoder"):
        heads = train_encoder(core, pool, held_out, args.encoder_steps, args.batch)
        torch.save({"encoder": core.vision_model.state_dict(), "heads": heads.state_dict()}, encoder_file)
    exercises = Exercises(core, llm_tokenizer, pool, args.seed)
    if args.stage in ("all", "language"):
        train_language(core, exercises, args.language_steps, args.batch)
        torch.save(core.language_model.state_dict(), language_file)
    if args.stage in ("all", "together"):
        saved = torch.load(encoder_file, weights_only=True)
        core.vision_model.load_state_dict(saved["encoder"])
        heads.load_state_dict(saved["heads"])
        core.language_model.load_state_dict(torch.load(language_file, weights_only=True))
        train_together(model, heads, exercises, pool, held_out, args.together_steps, args.batch // 2)
        save(core, llm_tokenizer, qformer_tokenizer, args.out)


def tokenizers(work: Path, seed: int):
    from lavis_emovit.emotion.labels import get_label_set
    from lavis_emovit.emotion.questions import categorical_prompt

    prompt = categorical_prompt(get_label_set("mikels8"))
    lines = list(corpus(3000, seed, [prompt, f"Predict emotion: {prompt}"]))
    llm_tokenizer = train_llm_tokenizer(lines)
    return llm_tokenizer, train_qformer_tokenizer(lines, work / "qformer_tokenizer")


if __name__ == "__main__":
    main()
