"""Warm up the small model: its new cross-attention learns to name what is there, its language model to say it.

Needs no image but the drawn sample set, and no caption: the classes of the image encoder have names, and the language
model has embeddings of their words. Two stages, neither of which runs the two parts together:

1. reading, without the language model: names are drawn at random, and the first query tokens learn to become their
   words, in front of any grid of features;
2. speaking, without the Q-Former: vectors near the first words of an answer stand in the place of the query tokens, and
   adapters on the language model's attention learn to give that answer. Where several answers are possible, the
   vectors are means of their words, and each answer is given as often as it counts in the mean.

Only tensors that are new, or that only the query tokens use, and the adapters are trained; the result ships with the
package, and the adapters are merged when it is built.

    python tools/make_small.py            # about half an hour on two CPU cores
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from lavis_emovit.emotion import questions as wordings
from lavis_emovit.emotion.labels import LABEL_SETS
from lavis_emovit.files import file_sha256, obey_umask
from lavis_emovit.generation.categorical import affect_answer, categorical_answer
from lavis_emovit.models.small import vision
from lavis_emovit.models.small.build import (
    ADAPTER_A,
    ADAPTER_B,
    NUM_QUERY_TOKENS,
    WARM_UP,
    class_names,
    name_words,
    write_parts,
)
from lavis_emovit.models.small.model import ANSWER_TURN, COSINE_SCALE, TURN, EmoVITSmall
from lavis_emovit.models.small.settings import ModelSettings
from lavis_emovit.models.tensors import read_tensor_file
from lavis_emovit.sample_set.describe import describe
from lavis_emovit.sample_set.draw import render
from lavis_emovit.sample_set.questions import questions as drawn_questions
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
NAMING = (
    ("What is in this image?", "The image shows {things}."),
    ("Describe the image.", "This is an image of {things}."),
    ("What do you see?", "I see {things}."),
    ("Name what the image shows.", "{Things}."),
)
SUBJECTS = tuple(wordings.LISTED_WORDINGS)
# A second name is part of the target if it is at least this likely.
MIN_SHARE = 0.1
NUM_DRAWINGS = 96
ADAPTERS = {"rank": 16, "alpha": 32, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
# The share of the adapters that is kept. With half of them it says as well what it reads, and its English is as it was:
# the perplexity of a sentence is 55, with all of them 125 (Wortsman et al. 2022, https://arxiv.org/abs/2109.01903).
KEPT = 0.5
# Of the vectors that the language model learns to say, in standard deviations of its embeddings.
MAX_NOISE = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reading-steps", type=int, default=400)
    parser.add_argument("--speaking-steps", type=int, default=240)
    parser.add_argument("--out", type=Path, default=WARM_UP)
    parser.add_argument("--reading-out", type=Path, help="also keep the result of stage 1 here")
    parser.add_argument("--continue-from", type=Path, help="result of an earlier run, for stage 2 only")
    options = parser.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write_parts(Path(folder), {})
        if options.continue_from:
            state = dict(read_tensor_file(options.continue_from))
        else:
            state = Reading(_load(folder)).learn(options.reading_steps)
        if options.reading_out:
            save(state, options.reading_out)
        save(state | Speaking(folder).learn(options.speaking_steps), options.out)


def _load(folder: str, **options: Any) -> EmoVITSmall:
    own = {"arch": "emovit_small", "pretrained": folder, "num_query_token": NUM_QUERY_TOKENS}
    return EmoVITSmall.from_settings(ModelSettings.model_validate({**own, **options})).eval()


def save(state: Mapping[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items()}, str(path))
    obey_umask(path)
    print(f"{path}: {path.stat().st_size} bytes, WARM_UP_SHA256 = {file_sha256(path)}")


def _train(
    trained: list[nn.Parameter], loss_of: Callable[[float], tuple[torch.Tensor, str]], steps: int, rate: float
) -> None:
    """Train with `loss_of(progress)`, which returns a loss and a note; progress goes from 0 to 1."""
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    begin = time.process_time()
    for step in range(steps):
        loss, note = loss_of(step / steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}, {note}; {time.process_time() - begin:.0f} s", flush=True)


class Reading:
    """Stage 1: query tokens become the words of the names that the image encoder saw."""

    def __init__(self, model: EmoVITSmall):
        self.model, self.core = model, model.core
        names = class_names()
        self.ids_CT = name_words(names, model.llm_tokenizer)
        # Names that were cut would teach half words.
        read = [model.llm_tokenizer.decode(row[row >= 0]).strip() for row in self.ids_CT]
        self.classes = [index for index, name in enumerate(names) if read[index] == name]
        self.grids = self._drawn_grids()
        self.trained = {name: p for name, p in self.core.named_parameters() if _is_new(name)}
        for parameter in self.core.parameters():
            parameter.requires_grad_(False)
        for parameter in self.trained.values():
            parameter.requires_grad_(True)
        self.embeddings = self.core.get_input_embeddings().weight.detach()
        self.scale = self.embeddings.std()

    def learn(self, steps: int) -> dict[str, torch.Tensor]:
        _train(list(self.trained.values()), lambda _: self._loss(size=32), steps, rate=1e-3)
        return {name: parameter.detach() for name, parameter in self.trained.items()}

    def _draw(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows for the Q-Former, and the classes and shares in them."""
        chosen = torch.tensor([random.sample(self.classes, vision.NUM_NAMES) for _ in range(size)])
        shares = torch.distributions.Dirichlet(torch.full((vision.NUM_NAMES + 1,), 0.5)).sample((size,))
        shares = shares[:, :-1].sort(dim=1, descending=True).values.clamp(min=1e-4)
        grid = self.grids[torch.randint(len(self.grids), (size,))]
        # Real photographs have other features than drawings; half of the grids are noise of the same size.
        noise = F.layer_norm(torch.randn_like(grid), grid.shape[-1:])
        grid = torch.where(torch.rand(size, 1, 1) < 0.5, noise, grid)
        words = vision.name_rows(self.core.vision_model.encoder.words, chosen, shares)
        return vision.join_rows(grid, words), chosen, shares

    def _loss(self, size: int) -> tuple[torch.Tensor, str]:
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
        note = f"squared {squared.item():.3f}, {accuracy:.3f} of the words"
        return squared + F.cross_entropy(COSINE_SCALE * logits, labels), note

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


def _is_new(name: str) -> bool:
    """Tensors that MiniLM does not have, or that only query tokens use."""
    if name.startswith(("language_projection.", "query_tokens", "qformer.embeddings.layernorm.")):
        return not name.startswith("query_tokens_of_image.")
    return name.startswith("qformer.encoder.") and (".crossattention." in name or "_query." in name)


@dataclass(frozen=True)
class Saying:
    """A question, its possible answers with their shares, and the classes whose names the first tokens read as."""

    question: str
    answers: list[tuple[float, str]]
    classes: list[int]


class Speaking:
    """Stage 2: the language model says what the query tokens read as."""

    def __init__(self, folder: str) -> None:
        adapters = {"parts": ["language_model"], **ADAPTERS}
        self.model = _load(folder, trained_parts=[], lora=adapters, frozen_precision="bf16")
        self.language_model = self.model.core.language_model
        self.tokenizer = self.model.llm_tokenizer
        self.names = class_names()
        self.table = self.model.core.get_input_embeddings().weight.detach().float()
        self.labels = sorted({label for label_set in LABEL_SETS.values() for label in label_set.labels})
        self.trained = {name: p for name, p in self.model.core.named_parameters() if ".lora_" in name}

    def learn(self, steps: int) -> dict[str, torch.Tensor]:
        # Exact words come first: before it has learned to say them, noise hides what there is to say.
        _train(
            list(self.trained.values()), lambda done: self._loss(16, min(1, max(0, 2 * done - 0.6))), steps, rate=3e-3
        )
        scale = KEPT * ADAPTERS["alpha"] / ADAPTERS["rank"]
        return {
            name.replace(".lora_A.default.weight", ADAPTER_A).replace(".lora_B.default.weight", ADAPTER_B): (
                parameter.detach() * (scale if ".lora_B." in name else 1)
            )
            for name, parameter in self.trained.items()
        }

    def _loss(self, size: int, blur: float) -> tuple[torch.Tensor, str]:
        """The loss of `size` answers; blur 0: vectors are exact words, 1: they are as vague as those of a Q-Former."""
        begin, end = self._ids(TURN), self._ids(ANSWER_TURN)
        rows, answers = [], []
        for _ in range(size):
            saying = self._draw(blur)
            answer = random.choices([text for _, text in saying.answers], [share for share, _ in saying.answers])[0]
            answers.append([*self._ids(answer), self.tokenizer.eos_token_id])
            parts = [begin, self._vectors(saying, blur), self._ids(saying.question), end, answers[-1]]
            rows.append(torch.cat([self._embed(part) if isinstance(part, list) else part for part in parts]))
        inputs = pad_sequence(rows, batch_first=True).to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.language_model.model(inputs_embeds=inputs, use_cache=False).last_hidden_state
            said = [
                hidden[number, len(row) - len(answer) - 1 : len(row) - 1]
                for number, (row, answer) in enumerate(zip(rows, answers))
            ]
            logits = self.language_model.lm_head(torch.cat(said))
        target = torch.tensor([token for answer in answers for token in answer])
        return F.cross_entropy(logits.float(), target), f"blur {blur:.2f}"

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _embed(self, ids: list[int]) -> torch.Tensor:
        return self.table[torch.tensor(ids)]

    def _vectors(self, saying: Saying, blur: float) -> torch.Tensor:
        """What stands in the place of the query tokens: the words of names, then the answers' first words, averaged."""
        vectors = torch.zeros(NUM_QUERY_TOKENS, self.table.shape[1])
        for number, index in enumerate(saying.classes):
            words = self._embed(self._ids(f" {self.names[index]}")[: vision.WORDS_PER_NAME])
            vectors[vision.WORDS_PER_NAME * number :][: len(words)] = words
        read = vectors[vision.NUM_WORDS :]
        left = torch.ones(len(read), 1)
        for share, answer in saying.answers:
            words = self._embed(self._ids(answer)[: len(read)])
            read[: len(words)] += share * words
            left[: len(words)] -= share
        # Behind the end of an answer a query token may be anything.
        read += left * random.choice((0.0, 1.0)) * self.table[torch.randint(len(self.table), (len(read),))]
        lengths = 1 + blur * (torch.rand(len(vectors), 1) - 0.6)
        noise = blur * random.uniform(0, MAX_NOISE) * self.table.std() * torch.randn_like(vectors)
        return vectors * lengths + noise

    def _draw(self, blur: float) -> Saying:
        kind = random.random()
        about, axis = random.choice(SUBJECTS), random.choice(("valence", "arousal"))
        classes = random.sample(range(len(self.names)), vision.NUM_NAMES)
        if kind < 0.4:
            return Saying(*self._emotion(about, 0.05 + 0.25 * blur), classes)
        if kind < 0.65:
            question = random.choice(wordings.SCALE_QUESTIONS[about][axis])
            centre, width = random.uniform(0, len(wordings.SCALE) - 1), 0.3 + 1.5 * blur * random.random()
            shares = [math.exp(-(((step - centre) / width) ** 2) / 2) + 1e-9 for step in range(len(wordings.SCALE))]
            return Saying(question, [(share / sum(shares), s) for share, s in zip(shares, wordings.SCALE)], classes)
        if kind < 0.75:
            answer = affect_answer(random.uniform(-1, 1), random.uniform(-1, 1))
            return Saying(random.choice(wordings.AFFECT_QUESTIONS[about]), [(1.0, answer)], classes)
        if kind < 0.88:
            classes = classes[: random.randint(1, len(classes))]
            question, answer = random.choice(NAMING)
            things = " and ".join(_with_article(self.names[index]) for index in classes)
            return Saying(
                question, [(1.0, answer.format(things=things, Things=things[0].upper() + things[1:]))], classes
            )
        return Saying(*self._drawn(), classes)

    def _emotion(self, about: wordings.Subject, concentration: float) -> tuple[str, list[tuple[float, str]]]:
        options = list(random.choice(list(LABEL_SETS.values())).labels)
        if random.random() < 0.5:
            options = random.sample(self.labels, random.randint(2, 9))
        random.shuffle(options)
        options = options[:12]
        question = random.choice(wordings.LISTED_WORDINGS[about] + wordings.OPEN_WORDINGS[about])
        shares = [random.gammavariate(concentration, 1) + 1e-9 for _ in options]
        answers = [(share / sum(shares), categorical_answer(label)) for share, label in zip(shares, options)]
        return question.replace("{options}", ", ".join(options)), answers

    def _drawn(self) -> tuple[str, list[tuple[float, str]]]:
        """A question about a drawn scene, so that longer texts are continued as they begin."""
        drawn = random.Random(random.random())
        scene = sample_scene(drawn)
        if drawn.random() < 0.5:
            question, answer = drawn.choice(drawn_questions(scene, drawn))
        else:
            question, answer = drawn.choice(wordings.DESCRIPTION_QUESTIONS), describe(scene, drawn)
        return question, [(1.0, answer)]


def _with_article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


if __name__ == "__main__":
    main()
