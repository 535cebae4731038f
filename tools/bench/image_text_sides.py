"""The sides of `image_text.py`. Each runs in a process of its own and does one step for each line that it reads."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LEARNING_RATE = 1e-5
MAX_GRAD_NORM = 1.0
Work = Mapping[str, Any]


class Turns:
    """Waits for a line before each step, and writes what the step cost."""

    def __init__(self) -> None:
        # Libraries print too; what they print goes to the error stream.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._started = 0.0

    def loaded(self, **facts: Any) -> None:
        """Before the first step: memory is counted from here."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._write({"memory_bytes": memory("VmRSS"), **facts})

    def begin(self) -> None:
        if not sys.stdin.readline():
            os._exit(0)  # no more steps are wanted
        self._started = processor_s()

    def end(self, **facts: Any) -> None:
        self._write({"seconds": processor_s() - self._started, "peak_bytes": memory("VmHWM"), **facts})

    def _write(self, facts: Mapping[str, Any]) -> None:
        print(json.dumps(facts), file=self._answers, flush=True)


def processor_s() -> float:
    """User and system time of this process and its children."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def memory(key: str) -> int:
    """A number of bytes from `/proc/self/status`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def train_ours(work: Work, turns: Turns) -> None:
    """The step of the runner: images from files, forward, backward, AdamW."""
    import torch

    from lavis_emovit.runners.engines.torch_engine import TorchEngine
    from lavis_emovit.runners.settings import RunSettings
    from lavis_emovit.tasks.emotion_instruction import EmotionInstructionTask

    run = RunSettings(
        output_dir="unused", max_epoch=1, global_batch_size=1, init_lr=LEARNING_RATE, weight_decay=0.0,
        max_grad_norm=MAX_GRAD_NORM, device="cpu",
    )  # fmt: skip
    model = our_model(work, trained_parts=["projector", "language_model"], use_grad_checkpoint=work["recompute"])
    engine = TorchEngine(model.train(), EmotionInstructionTask(), run)
    image = read_images(model, work["steps"][0]["images"][:1]).images[0]
    tokens = int((image.ids == model.chat.image_token_id).sum())
    grid = image.features.get("image_grid_thw")  # a tower without it has a class token
    turns.loaded(
        trained=num_trained(model),
        image={"tokens": tokens, "patches": tokens + 1 if grid is None else int(grid.prod())},
    )
    for step in work["steps"]:
        turns.begin()
        batch = {
            "image": read_images(model, step["images"]),
            "image_index": torch.tensor(step["image_index"]),
            "text_input": step["questions"],
            "text_output": step["answers"],
            "instance_id": [str(number) for number in range(len(step["questions"]))],
        }
        found = engine.train_step([batch], LEARNING_RATE)
        sizes = found.sizes
        assert sizes is not None
        turns.end(
            loss=found.loss, supervised=int(found.weight), positions=sizes.run_positions[0], images=sizes.num_images
        )


def train_trl(work: Work, turns: Turns) -> None:
    """TRL's trainer on conversations of a prompt and a completion, as its documentation shows for images."""
    import datasets
    import torch
    import transformers
    import trl
    import trl.trainer.utils

    class Turn(transformers.TrainerCallback):
        """A step lasts from the end of the one before to its own, so each contains the reading of one batch."""

        def on_train_begin(self, *arguments: Any, **options: Any) -> None:
            turns.begin()

        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            turns.end(**facts)
            turns.begin()

    class Trainer(trl.SFTTrainer):
        """Notes what a step ran over."""

        def training_step(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> torch.Tensor:
            labels, positions = inputs["labels"], inputs["input_ids"].numel()
            supervised, real = int((labels != -100).sum()), int(inputs["attention_mask"].sum())
            loss = super().training_step(model, inputs, *arguments, **options)
            facts.update(loss=loss.item(), supervised=supervised, positions=positions, real=real, images=len(labels))
            return loss

    if not work["trl_reads_all"]:
        trl.trainer.utils._use_triton = lambda device: True  # there, it decides nothing but the positions
    facts: dict[str, Any] = {}
    pairs = [
        (step["images"][number], question, answer)
        for step in work["steps"]
        for number, question, answer in zip(step["image_index"], step["questions"], step["answers"])
    ]
    data = datasets.Dataset.from_dict(
        {
            "images": [[path] for path, _, _ in pairs],
            "prompt": [[{"role": "user", "content": question}] for _, question, _ in pairs],
            "completion": [[{"role": "assistant", "content": answer}] for _, _, answer in pairs],
        }
    ).cast_column("images", datasets.Sequence(datasets.Image()))
    model = transformers.AutoModelForImageTextToText.from_pretrained(work["folder"], dtype=torch.float32)
    for name, parameter in model.named_parameters():
        is_vision = name.startswith(("model.vision_tower.", "model.visual."))
        parameter.requires_grad = not is_vision or name.startswith("model.visual.merger.")
    options = {
        "max_steps": len(work["steps"]), "per_device_train_batch_size": len(work["steps"][0]["questions"]),
        "train_sampling_strategy": "sequential", "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant",
        "weight_decay": 0.0, "max_grad_norm": MAX_GRAD_NORM, "max_length": None, "bf16": False,
        "gradient_checkpointing": work["recompute"], "use_cpu": True, "dataloader_pin_memory": False,
    }  # fmt: skip
    settings = trl.SFTConfig(
        output_dir=work["scratch"], save_strategy="no", report_to="none", disable_tqdm=True, **options
    )
    trainer = Trainer(
        model, settings, train_dataset=data, callbacks=[Turn()],
        processing_class=transformers.AutoProcessor.from_pretrained(work["folder"]),
    )  # fmt: skip
    turns.loaded(
        trained=num_trained(model),
        version=trl.__version__,
        settings={key: getattr(settings, key) for key in (*options, "optim", "loss_type", "completion_only_loss")},
    )
    trainer.train()


def score_ours(work: Work, turns: Turns) -> None:
    """Candidate scores of questions about images, from the files."""
    import torch

    model = our_model(work, trained_parts="none").eval()
    turns.loaded()
    for step in work["steps"]:
        turns.begin()
        batch = {"image": read_images(model, step["images"]), "prompt": step["questions"]}
        with torch.no_grad():
            scores = model.score_candidates(batch, step["candidates"], normalize="sum")
        turns.end(scores=scores.tolist())


def score_before(work: Work, turns: Turns) -> None:
    """The same with the adapter of an earlier commit, which is on the path."""
    from lavis_emovit.evaluation.adapters.transformers_model import TransformersModel, TransformersModelSettings
    from lavis_emovit.evaluation.questions import Question

    settings = {"adapter": "transformers", "path": work["folder"], "dtype": "float32", "device": "cpu"}
    model = TransformersModel(TransformersModelSettings(**settings), "cpu")
    turns.loaded()
    for step in work["steps"]:
        turns.begin()
        images = [model.prepare(Path(path).read_bytes()) for path in step["images"]]
        # That adapter joins prompt and answer without a space of its own.
        asked = [Question("emotion", text, tuple(step["candidates"]), work["lead"]) for text in step["questions"]]
        scores = model.score(images, list(range(len(images))), asked, "likelihood_sum")
        turns.end(scores=scores)


def num_trained(model: Any) -> int:
    return sum(one.numel() for one in model.parameters() if one.requires_grad)


def our_model(work: Work, **settings: Any) -> Any:
    from lavis_emovit.models.image_text.model import ImageText
    from lavis_emovit.processors import emovit_image_text, emovit_text  # noqa: F401  both register a processor

    return ImageText.from_config({"arch": "emovit_image_text", "path": work["folder"], **settings})


def read_images(model: Any, paths: list[str]) -> Any:
    from lavis_emovit.images import decode_image

    read, _ = model.processors()
    return read.stack([read(decode_image(Path(path).read_bytes())) for path in paths])


SIDES = {"ours": train_ours, "trl": train_trl, "score_ours": score_ours, "score_before": score_before}

if __name__ == "__main__":
    SIDES[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")), Turns())
