"""Warm up the small model: teach its new cross-attention to pass on what the image encoder names.

Needs no image but the drawn sample set, and no caption: the classes of the image encoder have names, and the language
model has embeddings of their words. Two stages:

1. reading, without the language model: names are drawn at random, and the first query tokens learn to become their
   words, in front of any grid of features;
2. speaking: the language model's answers to questions about what is in the image are trained through the query tokens.

Only tensors that are new, or that only the query tokens use, are trained; the result ships with the package.

    python tools/make_small.py            # about half an hour on one CPU core
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from lavis_emovit.files import file_sha256, obey_umask
from lavis_emovit.models.small import vision
from lavis_emovit.models.small.build import WARM_UP, apply_warm_up, class_names, name_words
from lavis_emovit.models.small.model import EmoVITSmall
from lavis_emovit.models.small.settings import ModelSettings
from lavis_emovit.models.tensors import read_tensor_file
from lavis_emovit.sample_set.draw import render
from lavis_emovit.sample_set.scene import sample_scene

# Any question must leave the words where they are.
READING_QUESTIONS = (
    "What is in this image?",
    "Describe the image.",
    "What do you see?",
    "Which emotion does the image evoke?",
    "Which expression does the face show, and why?",
    "How pleasant and how exciting is the image?",
    "Name what the image shows.",
    "Why does a viewer feel like this?",
)
SPEAKING = (
    ("What is in this image?", "The image shows {things}."),
    ("Describe the image.", "This is an image of {things}."),
    ("What do you see?", "I see {things}."),
    ("Name what the image shows.", "{Things}."),
)
# A second name is part of the target if it is at least this likely.
MIN_SHARE = 0.1
NUM_DRAWINGS = 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reading-steps", type=int, default=400)
    parser.add_argument("--speaking-steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=WARM_UP)
    parser.add_argument("--reading-out", type=Path, help="also keep the result of stage 1 here")
    parser.add_argument("--continue-from", type=Path, help="result of an earlier run, for stage 2 only")
    options = parser.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    settings = ModelSettings(arch="emovit_small", num_query_token=16)
    model = EmoVITSmall.from_settings(settings).eval()
    WarmUp(model).run(options)


class WarmUp:
    def __init__(self, model: EmoVITSmall):
        self.model, self.core = model, model.core
        self.names = class_names()
        self.ids_CT = name_words(self.names, model.llm_tokenizer)
        # Names that were cut would teach half words.
        read = [model.llm_tokenizer.decode(row[row >= 0]).strip() for row in self.ids_CT]
        self.classes = [index for index, name in enumerate(self.names) if read[index] == name]
        self.grids = self._drawn_grids()
        self.trained = {name: p for name, p in self.core.named_parameters() if _is_new(name)}
        for parameter in self.core.parameters():
            parameter.requires_grad_(False)
        for parameter in self.trained.values():
            parameter.requires_grad_(True)
        self.embeddings = self.core.get_input_embeddings().weight.detach()
        self.scale = self.embeddings.std()

    def run(self, options: argparse.Namespace) -> None:
        if options.continue_from:
            apply_warm_up(self.core, read_tensor_file(options.continue_from), str(options.continue_from))
        else:
            self._train(self._reading_loss, options.reading_steps, batch_size=32, rate=1e-3)
        if options.reading_out:
            self.save(options.reading_out)
        self._train(self._speaking_loss, options.speaking_steps, batch_size=8, rate=3e-4)
        self.save(options.out)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in self.trained.items()}
        save_file(state, str(path), {"format": "pt"})
        obey_umask(path)
        print(f"{path}: {path.stat().st_size} bytes, WARM_UP_SHA256 = {file_sha256(path)}")

    def _train(self, loss_of, steps: int, batch_size: int, rate: float) -> None:
        optimizer = torch.optim.AdamW(self.trained.values(), lr=rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
        begin = time.process_time()
        for step in range(steps):
            loss, notes = loss_of(batch_size)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
            optimizer.step()
            schedule.step()
            if step % 20 == 0 or step == steps - 1:
                print(loss_of.__name__, step, notes, f"{time.process_time() - begin:.0f} s", flush=True)

    def _draw(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows for the Q-Former, and the classes and shares in them."""
        chosen = torch.tensor([random.sample(self.classes, vision.NUM_NAMES) for _ in range(size)])
        shares = torch.distributions.Dirichlet(torch.full((vision.NUM_NAMES + 1,), 0.5)).sample((size,))
        shares = shares[:, :-1].sort(dim=1, descending=True).values.clamp(min=1e-4)
        grid = self.grids[torch.randint(len(self.grids), (size,))]
        # Real photographs have other features than drawings; half of the grids are noise of the same size.
        noise = F.layer_norm(torch.randn_like(grid), grid.shape[-1:])
        grid = torch.where(torch.rand(size, 1, 1) < 0.5, noise, grid)
        return (
            vision.join_rows(grid, vision.name_rows(self.core.vision_model.encoder.words, chosen, shares)),
            chosen,
            shares,
        )

    def _reading_loss(self, size: int):
        rows, chosen, shares = self._draw(size)
        question = random.choice(READING_QUESTIONS)
        found = self.model.query_images(rows, torch.arange(size), [question] * size)[:, : vision.NUM_WORDS] / self.scale
        ids = self.ids_CT[chosen]
        counts = shares > MIN_SHARE
        counts[:, 0] = True
        is_word = ((ids >= 0) & counts[..., None]).flatten(1)
        target_ids = ids.flatten(1)[is_word]
        target = torch.zeros_like(found)
        target[is_word] = self.embeddings[target_ids] / self.scale
        error = (found - target).pow(2).mean(dim=-1)
        squared = error[is_word].mean() + 0.3 * error[~is_word].mean()
        directions = F.normalize(self.embeddings[self.vocabulary], dim=1)
        logits = F.normalize(found[is_word], dim=1) @ directions.T
        labels = torch.searchsorted(self.vocabulary, target_ids)
        accuracy = (logits.argmax(dim=1) == labels).float().mean().item()
        return squared + F.cross_entropy(20 * logits, labels), {
            "squared": round(squared.item(), 3),
            "words": round(accuracy, 3),
        }

    def _speaking_loss(self, size: int):
        rows, chosen, shares = self._draw(size)
        questions, answers = [], []
        for pair, likely in zip(chosen.tolist(), shares.tolist()):
            names = [self.names[index] for index, share in zip(pair, likely) if share > MIN_SHARE] or [
                self.names[pair[0]]
            ]
            things = " and ".join(map(_with_article, names))
            question, answer = random.choice(SPEAKING)
            questions.append(question)
            answers.append(answer.format(things=things, Things=things[0].upper() + things[1:]))
        self.model.encode_images = lambda image: rows
        loss = self.model.answer_loss(
            {"image": torch.zeros(size, 3, 224, 224), "text_input": questions, "text_output": answers}
        )
        mean = loss.loss_sum / loss.num_tokens
        return mean, {"loss": round(mean.item(), 3)}

    @property
    def vocabulary(self) -> torch.Tensor:
        return self.ids_CT[self.ids_CT >= 0].unique()

    def _drawn_grids(self) -> torch.Tensor:
        """Grids of the drawn sample set, [images, P, GRID_WIDTH]."""
        image_processor, _ = self.model.processors()
        drawn = random.Random(0)
        pixels = torch.stack([image_processor(render(sample_scene(drawn))) for _ in range(NUM_DRAWINGS)])
        with torch.no_grad():
            return torch.cat([self._grid(part) for part in pixels.split(16)])

    def _grid(self, pixels: torch.Tensor) -> torch.Tensor:
        vision_model = self.core.vision_model
        return vision_model.post_layernorm(vision_model.encoder(pixels)[0])


def _with_article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _is_new(name: str) -> bool:
    """Tensors that MiniLM does not have, or that only query tokens use."""
    if name.startswith(("language_projection.", "query_tokens", "qformer.embeddings.layernorm.")):
        return True
    return name.startswith("qformer.encoder.") and (".crossattention." in name or "_query." in name)


if __name__ == "__main__":
    main()
