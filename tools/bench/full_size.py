"""Memory and time of a model in the published sizes, with random weights: loading, answers, a training step, resuming.

    python tools/make_random_weights.py --size 7b --out FOLDER
    python tools/bench/full_size.py --weights FOLDER
    python tools/bench/full_size.py --weights FOLDER --phases zero3 pth

Each phase runs in a process of its own, after the pages of the weights were dropped from the kernel's cache, so weights
are read from the disk. Memory is the resident memory of the process, which counts pages of mapped files (the kernel may
drop those), and the part of it that belongs to the process alone (`own`). A process is stopped if the machine has less
than 1 GB left. Phases:

- `read`: every byte of the files, once, without any model: what loading is compared with;
- `answer`: `load_model_and_preprocess`, one short answer, during which the weights are read, and 8 labels scored;
- `train`: a run of one optimizer step with its checkpoint; `resume`: the same run, resumed for one more step;
- `zero3_load`: loading on two ranks until ZeRO stage 3 has spread the weights; `zero3`: the step of `train` on them;
- `pth`: loading from a file in LAVIS's format.

The last three need two processes or a second file, so `--weights` is a model of fewer layers for them on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

PHASES = ("read", "answer", "train", "resume", "zero3_load", "zero3", "pth")
MODEL = "emovit_vicuna7b"
ANSWER_TOKENS = 4
LEAST_FREE_BYTES = 10**9
ZERO3 = ["run.engine=deepspeed", "run.deepspeed_config=projects/emovit/deepspeed/zero3.json", "run.global_batch_size=2"]
OPTIONS = [
    f"model.arch={MODEL}", "model.model_type=vicuna7b", "model.image_size=224", "model.num_query_token=32",
    "model.frozen_precision=bf16", "datasets.emoset_sketch.vis_processor.train.image_size=224",
    "datasets.emoset_sketch.vis_processor.eval.image_size=224",
    "datasets.emoset_sketch.build_info.prepare.draw.images_per_class=10", "run.amp=bf16", "run.device=cpu",
    "run.global_batch_size=1", "run.max_epoch=1", "run.warmup_steps=1", "run.init_lr=1e-5", "run.valid_splits=[]",
    "run.test_splits=[]", "run.evaluate_before=false", "run.report=false", "run.tensorboard=false",
    "run.save_every_steps=1",
]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the phases and add them to the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES[:4]))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "full_size.json")
    parser.add_argument("--child", choices=("answer", "pth", "zero3_load"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    weights = arguments.weights.resolve()
    if arguments.child == "zero3_load":
        return _spread()
    if arguments.child:
        print(json.dumps(_load_and_answer(weights, answers=arguments.child == "answer")))
        return 0
    result = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
    result |= {"benchmark": "full_size", "arithmetic": {size: arithmetic(size) for size in ("7b", "13b")}}
    phases = result.setdefault("phases", {})
    with tempfile.TemporaryDirectory(dir=weights.parent) as scratch:
        os.environ |= {"EMOVIT_DATA": f"{scratch}/data", "EMOVIT_WEIGHTS_VICUNA7B": str(weights)}
        for name in arguments.phases:
            facts = {"weights": _describe(weights), **_run_phase(name, weights, Path(scratch))}
            facts["command"] = f"python tools/bench/full_size.py --weights FOLDER --phases {name}"
            phases[name] = facts
            print(json.dumps({name: facts}, indent=1), flush=True)
            result |= environment_info("lavis_emovit", "tools/bench/full_size.py")
            write_result(arguments.out, _with_ratios(result))
    return 0


def _with_ratios(result: dict[str, Any]) -> dict[str, Any]:
    """The result with the time of loading over that of reading the files once."""
    phases = result["phases"]
    read_s, answer = phases.get("read", {}).get("wall_s"), phases.get("answer")
    if read_s and answer:
        loading_s, answering_s = answer["load"]["wall_s"], answer["first_answer"]["wall_s"]
        answer["loading_over_reading_once"] = round(loading_s / read_s, 3)
        answer["loading_and_first_answer_over_reading_once"] = round((loading_s + answering_s) / read_s, 3)
    return result


def arithmetic(size: str) -> dict[str, Any]:
    """Bytes that the shapes of a size need, from their numbers alone; nothing is allocated.

    Frozen weights are bfloat16. The trained parts have float32 weights, gradients and two moments.
    """
    sys.path.append(str(ROOT / "tools"))
    from make_random_weights import build_config, count_parameters

    counts = count_parameters(build_config(size))
    trained = sum(counts[part] for part in ("qformer", "query_tokens", "language_projection"))
    trained += 2 * 1408  # the layer norm after the image encoder
    total = sum(counts.values())
    frozen = total - trained
    return {
        "parameters": counts | {"total": total, "trained": trained},
        "file_bytes": 2 * total,
        "loaded_bytes": 2 * frozen + 4 * trained,
        "loaded_over_file": round((2 * frozen + 4 * trained) / (2 * total), 4),
        # What belongs to the process alone, besides Python and its libraries; the rest are pages of the files.
        "own_loaded_bytes": 4 * trained,
        "training_adds_bytes": 12 * trained,
        "zero3_two_ranks_bytes": frozen + 2 * trained,
    }


def _describe(weights: Path) -> dict[str, Any]:
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    return {
        "bytes": sum(path.stat().st_size for path in _files(weights)),
        "shards": len(_files(weights)),
        "language_model_layers": config["text_config"]["num_hidden_layers"],
        "vision_layers": config["vision_config"]["num_hidden_layers"],
    }


def _run_phase(name: str, weights: Path, scratch: Path) -> dict[str, Any]:
    if name == "read":
        drop_from_cache(weights)
        return {"wall_s": round(read_once(weights), 2)}
    if name in ("train", "resume", "zero3"):
        _prepare_data(scratch)
    if name == "pth":
        write_pth(weights, scratch)
        weights = scratch
    drop_from_cache(weights)
    if name in ("answer", "pth"):
        command = [sys.executable, __file__, "--weights", str(weights), "--child", name]
        whole, output = watched(command)
        return {**json.loads(output.splitlines()[-1]), "whole_process": whole}
    ranks = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    if name == "zero3_load":
        whole, output = watched([*ranks, __file__, "--weights", str(weights), "--child", name])
        return {"ranks": [json.loads(line) for line in output.splitlines() if line.startswith("{")], **whole}
    # The checkpoint of `train` is what `resume` begins with.
    folder = weights.parent / "full_size_run" if name != "zero3" else scratch / "zero3"
    steps = 2 if name == "resume" else 1
    options = [*OPTIONS, f"run.max_steps={steps}", f"run.output_dir={folder}"]
    if name == "resume":
        checkpoint = folder / "checkpoints" / "ckpt-00000001"
        options += [f"run.resume={checkpoint}", "run.allow_changed=[run.max_steps]"]
    if name == "train":
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "lavis.train"]
    if name == "zero3":
        command = [*ranks, "-m", "lavis_emovit.train"]
        options += ZERO3
    whole, _ = watched([*command, "--cfg-path", "projects/emovit/quickstart.yaml", "--options", *options])
    facts = _facts_of_run(folder, steps)
    if name == "resume":
        shutil.rmtree(folder)
    return {**whole, **facts}


def _facts_of_run(folder: Path, steps: int) -> dict[str, Any]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    row = [row for row in rows if row.get("event") == "step"][-1]
    checkpoint = folder / "checkpoints" / f"ckpt-{steps:08d}"
    return {
        "step": row["step"],
        "step_s": row.get("step_s"),
        "loss": row["loss"],
        "grad_norm": row.get("grad_norm"),
        "checkpoint_bytes": sum(path.stat().st_size for path in checkpoint.iterdir()),
    }


def _prepare_data(scratch: Path) -> None:
    """Draw the images before the measurement."""
    from lavis.tasks import setup_task

    from lavis_emovit.runners.config import Config

    config = Config.load("projects/emovit/quickstart.yaml", [*OPTIONS, f"run.output_dir={scratch}/unused"])
    setup_task(config).build_datasets(config)


# In a process of its own


def _load_and_answer(weights: Path, *, answers: bool) -> dict[str, Any]:
    """Load the model that the environment names, or the `.pth` file of a folder, and measure it and its answers."""
    from lavis_emovit.distributed.seeding import limit_threads
    from lavis_emovit.emotion.labels import get_label_set
    from lavis_emovit.emotion.questions import categorical_prompt
    from lavis_emovit.plugin import activate

    activate()
    import torch
    from lavis.common.registry import registry
    from lavis.models import load_model_and_preprocess
    from omegaconf import OmegaConf

    limit_threads(None, 1)
    facts: dict[str, Any] = {}
    with _measured(facts, "imports"):
        from transformers import AutoProcessor, LlamaForCausalLM  # noqa: F401

        model_class = registry.get_model_class(MODEL)
    facts["before_loading"] = {key: _memory(key) for key in ("VmRSS", "RssAnon")}
    with _measured(facts, "load"):
        if answers:
            model, _, _ = load_model_and_preprocess(MODEL, "vicuna7b", is_eval=True, device="cpu")
        else:
            beside = {"llm_model": f"{weights}/llm", "qformer_tokenizer": f"{weights}/llm/qformer_tokenizer"}
            node = OmegaConf.to_container(OmegaConf.load(model_class.default_config_path("vicuna7b")).model)
            del os.environ["EMOVIT_WEIGHTS_VICUNA7B"]
            model = model_class.from_config({**node, "pretrained": f"{weights}/weights.pth", **beside})
    parameters = list(model.core.parameters())
    facts["loaded_bytes"] = sum(parameter.nbytes for parameter in parameters)
    facts["load"]["peak_over_loaded_bytes"] = round(facts["load"]["peak_bytes"] / facts["loaded_bytes"], 3)
    with _measured(facts, "fingerprint"):
        model.frozen_fingerprint()
    if answers:
        labels = get_label_set("mikels8")
        image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        samples = {"image": image, "prompt": categorical_prompt(labels)}
        with _measured(facts, "first_answer"):
            _, (ids,) = model.generate(samples, max_length=ANSWER_TOKENS, return_ids=True)
        facts["answer_tokens"] = len(ids)
        with _measured(facts, "scoring"):
            scores = model.score_candidates(samples, list(labels.labels))
        assert scores.shape == (1, 8) and scores.isfinite().all()
        facts["after_answers"] = {key: _memory(key) for key in ("VmRSS", "RssAnon", "RssFile")}
        facts["after_answers_over_loaded_bytes"] = round(facts["after_answers"]["VmRSS"] / facts["loaded_bytes"], 3)
    return facts


class _SpreadError(Exception):
    """Ends the start of an engine as soon as the weights are spread; what follows belongs to training."""


def _spread() -> int:
    """Load the model as training with ZeRO stage 3 does, up to the end of spreading the weights; prints the peaks."""
    from lavis_emovit.plugin import activate

    activate()
    import torch
    from lavis.tasks import setup_task

    from lavis_emovit.distributed import processes
    from lavis_emovit.models.mapped_files import casts_later
    from lavis_emovit.runners.config import Config
    from lavis_emovit.runners.engines import build_engine
    from lavis_emovit.runners.engines.deepspeed_engine import load_deepspeed

    config = Config.load("projects/emovit/quickstart.yaml", [*OPTIONS, *ZERO3, "run.output_dir=unused"])
    processes.start(processes.read_launch(), device=torch.device("cpu"), timeout_s=1800)
    deepspeed = load_deepspeed(torch.device("cpu"))
    task = setup_task(config)
    facts: dict[str, Any] = {"rank": processes.rank(), "own_before_loading_bytes": _memory("RssAnon")}
    init = deepspeed.zero.Init

    def measured_init(*arguments: Any, **named: Any) -> Any:
        with _measured(facts, "spread"):
            init(*arguments, **named)
        raise _SpreadError

    deepspeed.zero.Init = measured_init
    with _measured(facts, "load"), casts_later():
        model = task.build_model(config)
    with suppress(_SpreadError):
        build_engine(model, task, config.run)
    parameters = list(model.parameters())
    whole = sum(parameter.ds_numel * parameter.element_size() for parameter in parameters)
    trained = sum(parameter.ds_numel for parameter in parameters if parameter.requires_grad)
    peak = max(facts[name]["peak_own_bytes"] for name in ("load", "spread"))
    facts |= {"loaded_bytes": whole, "trained_bytes": 4 * trained, "peak_own_bytes": peak}
    # A process without ranks has all weights in memory after their first use.
    facts["peak_own_over_one_process"] = round(peak / (facts["own_before_loading_bytes"] + whole), 3)
    print(json.dumps(facts), flush=True)
    processes.stop()
    return 0


@contextmanager
def _measured(facts: dict[str, Any], name: str) -> Iterator[None]:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    peaks = Peaks(lambda: [psutil.Process()])
    started, cpu = time.perf_counter(), time.process_time()
    with peaks:
        yield
    facts[name] = {
        "wall_s": round(time.perf_counter() - started, 2),
        "processor_s": round(time.process_time() - cpu, 2),
        "peak_bytes": _memory("VmHWM"),
        "peak_own_bytes": max(peaks.own.values()),
    }


def _memory(key: str, process: int | str = "self") -> int:
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return int(found[key].split()[0]) * 1024 if key in found else 0


# Around other processes


class Peaks:
    """Looks at processes all the time: resident and own memory of each, and the least that the machine had left."""

    def __init__(self, processes: Callable[[], list[psutil.Process]], period_s: float = 0.05):
        self._processes, self._period_s = processes, period_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.resident: dict[int, int] = {}
        self.own: dict[int, int] = {}
        self.least_available = psutil.virtual_memory().available
        self.too_little = False

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            for process in self._processes():
                try:
                    resident, own = _memory("VmHWM", process.pid), _memory("RssAnon", process.pid)
                except (OSError, psutil.Error):
                    continue
                self.resident[process.pid] = max(self.resident.get(process.pid, 0), resident)
                self.own[process.pid] = max(self.own.get(process.pid, 0), own)
            self.least_available = min(self.least_available, psutil.virtual_memory().available)
            if self.least_available < LEAST_FREE_BYTES and not self.too_little:
                self.too_little = True
            if self._ended.wait(self._period_s):
                return


def watched(command: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Run a command and its processes; time, peaks and output. It is stopped before the machine has no memory left."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", "EMOVIT_OFFLINE": "1"}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, cwd=ROOT, env=environment)
        with Peaks(lambda: _tree(process.pid)) as peaks:
            while process.poll() is None and not peaks.too_little:
                time.sleep(0.1)
            if process.poll() is None:
                for one in _tree(process.pid):
                    one.kill()
        wall_s = time.perf_counter() - started
        output.seek(0)
        text = output.read()
    if peaks.too_little:
        raise SystemExit(f"stopped: less than {LEAST_FREE_BYTES / 1e9:g} GB of memory were left")
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}\n{text}")
    # The launcher is small; what remains are the ranks.
    ranks = [pid for pid, own in peaks.own.items() if own > 0.5 * max(peaks.own.values())]
    return {
        "wall_s": round(wall_s, 1),
        "peak_bytes": [peaks.resident[pid] for pid in ranks],
        "peak_own_bytes": [peaks.own[pid] for pid in ranks],
        "least_available_bytes": peaks.least_available,
    }, text


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


# Files


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".pth"))


def drop_from_cache(folder: Path) -> None:
    """Let the kernel forget the content of the weights' files, so that it is read from the disk."""
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_once(folder: Path) -> float:
    """Seconds that reading every byte takes, 16 MiB at a time."""
    buffer = bytearray(2**24)
    started = time.perf_counter()
    for path in _files(folder):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - started


def write_pth(weights: Path, scratch: Path) -> None:
    """Write the weights of a folder as a complete file in LAVIS's format, and its language model's configuration."""
    from transformers import AutoConfig

    from lavis_emovit.models.instructblip.convert import convert

    sys.path.append(str(ROOT / "tools"))
    from make_random_weights import LLM_TOKENS, QFORMER_TOKENS, write_tokenizers

    convert(str(weights), scratch / "weights.pth")
    # LAVIS adds one token to either vocabulary.
    write_tokenizers(scratch / "llm", LLM_TOKENS - 1, QFORMER_TOKENS - 1)
    AutoConfig.from_pretrained(weights).text_config.save_pretrained(scratch / "llm")


if __name__ == "__main__":
    raise SystemExit(main())
