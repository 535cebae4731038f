"""The estimated memory of a training step against the memory that steps on the CPU really allocate.

    python tools/bench/memory_estimate.py --out benchmarks/memory_estimate.json

Random InstructBLIP models of 30 to 400 million parameters take two steps. Measured are the bytes of weights, gradients
and moments, what torch's allocator reports to the profiler during the second step (kept between forward and backward
pass, and the peak), and logits among the saved tensors. One case of each size also runs in a process of its own, for
the growth of its peak resident memory. The estimate runs on shapes alone, by the code of `emovit doctor --recipe`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

LIMIT = 0.10
MARK_BYTES = 12_345_679  # of a tensor that marks the end of the forward pass among the allocator's events

# fmt: off
# Name -> sizes: width, layers and heads of image encoder, Q-Former and language model; image; vocabulary.
SIZES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"vision": (48, 2, 4), "qformer": (48, 2, 4), "text": (64, 2, 4), "image": 56, "vocabulary": 500},
    "30M": {"vision": (256, 6, 4), "qformer": (256, 6, 4), "text": (320, 6, 5), "image": 112, "vocabulary": 8000},
    "100M": {"vision": (384, 8, 6), "qformer": (384, 8, 6), "text": (640, 10, 10), "image": 168, "vocabulary": 16000},
    "200M": {"vision": (512, 12, 8), "qformer": (512, 8, 8), "text": (768, 14, 12), "image": 224, "vocabulary": 24000},
    "400M": {
        "vision": (640, 16, 10),
        "qformer": (640, 10, 10),
        "text": (1024, 16, 16),
        "image": 224,
        "vocabulary": 32000,
    },
}


@dataclass(frozen=True)
class Case:
    """One measurement; keys of `model` are those of a recipe's node."""

    size: str
    model: Mapping[str, Any]
    amp: str = "off"
    kind: str = "llama"
    num_images: int = 2
    pairs_per_image: int = 1
    question_tokens: int = 40
    answer_tokens: int = 12
    num_frames: int = 1

    @property
    def load(self) -> Any:  # StepLoad
        from lavis_emovit.models.step_memory import StepLoad

        return StepLoad(
            self.num_images, self.pairs_per_image, self.question_tokens, self.answer_tokens, self.num_frames
        )


BF16, LORA = {"frozen_precision": "bf16"}, {"lora": {"parts": ["language_model"]}}
CASES = (
    Case("30M", {}),
    Case("30M", {**BF16, "trained_parts": "qformer"}, amp="bf16", pairs_per_image=3),
    Case("30M", {**BF16, **LORA, "trained_parts": "none"}, amp="bf16", num_images=4),
    Case("30M", {"trained_parts": "all"}, num_images=4),
    Case("30M", BF16, kind="t5", amp="bf16", num_images=4, question_tokens=100, answer_tokens=30),
    Case("100M", BF16, num_images=8, question_tokens=100, answer_tokens=100),
    Case("100M", {**BF16, "attention": "eager"}, amp="bf16", num_images=4, question_tokens=100),
    Case("100M", {"use_grad_checkpoint": True, "trained_parts": "all",
                  "grad_checkpoint_parts": ["vision_encoder", "qformer", "language_model"]}, num_images=4),
    Case("200M", BF16, amp="bf16", num_images=4, question_tokens=100, answer_tokens=30),
    Case("200M", {**BF16, "use_grad_checkpoint": True}, amp="bf16", num_images=8, question_tokens=128),
    Case("200M", {"trained_parts": "vision_encoder,vision_layernorm"}),
    Case("400M", BF16, amp="bf16", pairs_per_image=2, question_tokens=100, answer_tokens=30),
    Case("400M", {**BF16, **LORA, "use_grad_checkpoint": True}, amp="bf16", num_images=4, question_tokens=100),
    Case("400M", {"qformer_text_input": False}, question_tokens=60),
)  # fmt: skip


RESIDENT = (0, 5, 8, 11)  # cases that also run in a process of their own


def make_config(case: Case) -> Any:
    """Configuration of a random InstructBLIP model."""
    from transformers import InstructBlipConfig, LlamaConfig, T5Config

    size = SIZES[case.size]
    (vision, vision_layers, vision_heads), (qformer, qformer_layers, qformer_heads) = size["vision"], size["qformer"]
    width, layers, heads = size["text"]
    if case.kind == "t5":
        text: Any = T5Config(
            d_model=width, d_ff=2 * width, d_kv=width // heads, num_layers=layers // 2, num_heads=heads,
            vocab_size=size["vocabulary"], feed_forward_proj="gated-gelu", tie_word_embeddings=False,
            decoder_start_token_id=0,
        )  # fmt: skip
    else:
        text = LlamaConfig(
            hidden_size=width, intermediate_size=width * 43 // 16, num_hidden_layers=layers, num_attention_heads=heads,
            vocab_size=size["vocabulary"],
        )  # fmt: skip
    return InstructBlipConfig(
        vision_config={
            "hidden_size": vision, "intermediate_size": 4 * vision, "num_hidden_layers": vision_layers,
            "num_attention_heads": vision_heads, "image_size": size["image"], "patch_size": 14,
        },
        qformer_config={
            "hidden_size": qformer, "intermediate_size": 4 * qformer, "num_hidden_layers": qformer_layers,
            "num_attention_heads": qformer_heads, "vocab_size": 1000, "encoder_hidden_size": vision,
        },
        text_config=text.to_dict(),
        num_query_tokens=32,
    )  # fmt: skip


def make_settings(case: Case, folder: Path) -> Any:
    """Settings of a model whose configuration is in a folder."""
    from lavis_emovit.models.instructblip.settings import ModelSettings

    image_size = SIZES[case.size]["image"]
    return ModelSettings(arch="emovit_bench", pretrained=str(folder), image_size=image_size, **case.model)


def run_case(case: Case, folder: Path) -> dict[str, Any]:
    """Estimated and measured bytes of a case."""
    from lavis_emovit.models.instructblip.model import EmoVIT
    from lavis_emovit.runners.estimate import TORCH, memory_parts

    config, settings = make_config(case), make_settings(case, folder)
    config.save_pretrained(folder)
    step = EmoVIT.step_memory(settings, case.load, case.amp)
    parts, _ = memory_parts(step, TORCH, 1)
    estimated = {
        **{name: parts[name] for name in ("weights", "gradients", "moments", "activations", "logits")},
        "peak": sum(parts.values()),
    }
    measured = measure(config, settings, case.load, case.amp)
    shares = {name: round(estimated[name] / measured[name] - 1, 4) for name in estimated if measured.get(name)}
    return {
        "case": asdict(case),
        "parameters": sum(part.num_parameters for part in step.weights),
        "estimated": estimated,
        "measured": measured,
        "error": shares,
    }


def measure(config: Any, settings: Any, load: Any, amp: str) -> dict[str, int]:
    """Bytes that two steps of a real model use."""
    import torch

    from lavis_emovit.distributed.devices import AMP_DTYPES
    from lavis_emovit.models.step_memory import sized_batch
    from lavis_emovit.runners.optimizer import build_adamw
    from lavis_emovit.runners.settings import RunSettings

    model = make_model(config, settings)
    run = RunSettings(output_dir="o", max_epoch=1, global_batch_size=load.num_images, init_lr=1e-4)
    optimizer = build_adamw(model.named_parameters(), run)
    batch = sized_batch(model, load)
    batch["image"] = batch["image"].contiguous()
    dtype = AMP_DTYPES.get(amp)

    def forward() -> Any:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            return model.answer_loss(batch).loss_sum

    def finish(loss: Any) -> int:
        loss.backward()
        gradients = sum(p.grad.numel() * p.grad.element_size() for p in model.parameters() if p.grad is not None)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return gradients

    logits: dict[int, int] = {}
    width = model.core.language_model.get_output_embeddings().weight.shape[0]

    def note(tensor: Any) -> Any:
        if tensor.dim() == 2 and tensor.shape[-1] == width and tensor.is_floating_point() and tensor.is_contiguous():
            logits[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = forward()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    logit_bytes = sum(size for pointer, size in logits.items() if pointer not in weights)
    finish(loss)
    del loss
    profile: Any = torch.profiler.profile
    with profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss = forward()
        torch.empty(MARK_BYTES, dtype=torch.uint8)
        gradients = finish(loss)
    kept, peak = _allocated(profiler)
    images = batch["image"].numel() * batch["image"].element_size()
    state = {
        "weights": sum(p.numel() * p.element_size() for p in model.parameters()),
        "moments": sum(v.numel() * v.element_size() for s in optimizer.state.values() for k, v in s.items() if v.dim()),
    }
    return {
        **state,
        "gradients": gradients,
        "activations": kept - logit_bytes + images,
        "logits": logit_bytes,
        "peak": sum(state.values()) + peak + images,
    }


def _allocated(profiler: Any) -> tuple[int, int]:
    """Bytes allocated at the mark and at the peak, of what was allocated since the profiler started."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = kept = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.nbytes() == MARK_BYTES:
            kept = now
        now += event.nbytes()
        if abs(event.nbytes()) != MARK_BYTES:
            peak = max(peak, now)
    return kept, peak


def resident_growth(case: Case, folder: Path) -> int:
    """Growth of the peak resident memory from before the model is built to the end of two steps."""
    import torch

    from lavis_emovit.distributed.devices import AMP_DTYPES
    from lavis_emovit.models.step_memory import sized_batch
    from lavis_emovit.runners.optimizer import build_adamw
    from lavis_emovit.runners.settings import RunSettings

    def steps(wanted: Case) -> None:
        model = make_model(make_config(wanted), make_settings(wanted, folder))
        run = RunSettings(output_dir="o", max_epoch=1, global_batch_size=wanted.num_images, init_lr=1e-4)
        optimizer = build_adamw(model.named_parameters(), run)
        batch = sized_batch(model, wanted.load)
        batch["image"] = batch["image"].contiguous()
        dtype = AMP_DTYPES.get(wanted.amp)
        # Casting and initialising a model may need more than a step: the kernel's peak starts again from here.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        for _ in range(2):
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                loss = model.answer_loss(batch).loss_sum
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    steps(replace(case, size="tiny"))  # libraries and kernels are loaded
    before = _status("VmRSS")
    steps(case)
    return _status("VmHWM") - before


def make_model(config: Any, settings: Any) -> Any:
    """A random model in train mode."""
    from transformers import InstructBlipForConditionalGeneration

    from lavis_emovit.models.instructblip.loading import LoadedParts
    from lavis_emovit.models.instructblip.model import EmoVIT
    from lavis_emovit.models.step_memory import word_tokenizer

    config._attn_implementation = settings.attention
    core = InstructBlipForConditionalGeneration(config)
    return EmoVIT(LoadedParts(core, word_tokenizer(), word_tokenizer()), settings).train()


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all cases, compare and write the result; 1 if an estimate is out by more than the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "memory_estimate.json")
    parser.add_argument("--resident", type=int, help="print the growth of resident memory of one case")
    arguments = parser.parse_args(argv)
    from lavis_emovit.plugin import activate

    activate()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.resident is not None:
            print(resident_growth(CASES[arguments.resident], folder))
            return 0
        results = []
        for case in CASES:
            results.append(run_case(case, folder))
            print(case.size, case.kind, case.amp, dict(case.model), results[-1]["error"], flush=True)
    # Freed blocks go back to the system at once, so that resident memory follows what is allocated.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for number in RESIDENT:
        command = [sys.executable, __file__, "--resident", str(number)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
        found, estimated = int(done.stdout.split()[-1]), results[number]["estimated"]["peak"]
        results[number]["resident_growth"] = found
        results[number]["estimated_peak_over_resident_growth"] = round(estimated / found, 3)
        print(number, "estimated peak over growth of resident memory", round(estimated / found, 3), flush=True)
    shares = [share for result in results for share in result["error"].values()]
    result = {
        "benchmark": "memory_estimate",
        "limit": LIMIT,
        "lowest": min(shares),
        "highest": max(shares),
        "cases": results,
        "command": "python tools/bench/memory_estimate.py",
        **environment_info("lavis_emovit", "tools/bench/memory_estimate.py", packages=["peft"]),
    }
    write_result(arguments.out, result)
    print(f"{len(results)} cases: estimates are {min(shares):+.1%} to {max(shares):+.1%} off")
    return int(max(map(abs, shares)) > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
