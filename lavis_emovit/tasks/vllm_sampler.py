"""Answers sampled by vLLM, which runs the language model in a process of its own.

Images, query tokens and questions are read by the model in this process, as always; vLLM gets what the language model
would read, as embedded inputs. So every family with a decoder-only language model can be sampled, although vLLM knows
only the language model. vLLM's copy of it follows the training where the language model learns.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from lavis_emovit.distributed.environment import environment
from lavis_emovit.errors import ConfigError, DataError, UserError, first_line
from lavis_emovit.models.decoder import Decoder
from lavis_emovit.models.protocol import Batch
from lavis_emovit.tasks.settings import VllmSettings

logger = logging.getLogger(__name__)

# Of a launcher; in vLLM's process they would promise other processes.
_OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
_WEIGHTS = "model.safetensors"
# Of the answer that compares vLLM with the model, and how far their log-probabilities may differ in the mean.
_COMPARED_TOKENS, _MAX_DIFFERENCE = 8, 0.3

# Added to the logits of tokens that no answer may contain; vLLM takes at least this.
_NEVER = -100.0


class VllmSampler:
    """Sampled answers of a model with a decoder-only language model. vLLM starts with the first `refresh`.

    Args:
        model: an `EmotionModel` with `decoder` and `decoder_inputs`.

    Raises:
        ConfigError: vLLM cannot run this kind of language model.
    """

    def __init__(self, model: Any, settings: VllmSettings):
        try:
            self._decoder: Decoder = model.decoder()
        except ConfigError as error:
            problems = [f"run.task.vllm: vLLM gets embedded inputs; {one}; leave it out" for one in error.problems]
            raise ConfigError(problems) from error
        self._model, self._settings = model, settings
        self._context = settings.context_tokens or model.context_tokens
        self._folder = Path()
        self._llm: Any = None
        self._is_compared = False

    def refresh(self) -> None:
        """Give vLLM the weights of a language model that learns; the first time, start it.

        Raises:
            ConfigError: vLLM cannot start, or computes something else than the model.
            UserError: vLLM's process has ended, or the disk is full.
        """
        if self._llm is None:
            self._open()
        elif self._decoder.learns:
            self._save()
            self._call(lambda: self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(self._folder)}))
            self._call(self._llm.reset_prefix_cache)
            if not self._is_compared:
                self._is_compared = True
                self._compare()

    def sample(
        self,
        samples: Batch,
        num_answers: int,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> list[list[int]]:
        """As `Sampling.sample_answers`; random numbers come from seeds that this process draws.

        Raises:
            DataError: a question and its answer are too long.
            UserError: vLLM's process has ended.
        """
        options = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "n": num_answers}
        found = self._generate(samples, max_new_tokens, options)
        return [list(output.token_ids) for request in found for output in request.outputs]

    def close(self) -> None:
        """End vLLM's process, so that the memory of the device is free; nothing if it does not run."""
        if self._llm is None:
            return
        engine, self._llm = self._llm.llm_engine.engine_core, None
        engine.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="emovit-vllm-"))
        try:
            self._decoder.config.save_pretrained(self._folder)
            self._save()
            self._llm = self._start(self._settings)
            self._compare()
        except BaseException:
            self.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        if not self._decoder.learns:
            (self._folder / _WEIGHTS).unlink()  # vLLM has read them

    @torch.no_grad()
    def _compare(self) -> None:
        """ConfigError if vLLM gives other probabilities to the tokens of an answer than the model."""
        batch = self._model.blank_batch()
        with self._model._evaluating():  # dropout is random
            (request,) = self._generate(batch, _COMPARED_TOKENS, {"temperature": 1.0, "logprobs": 0})
            (output,) = request.outputs
            row = list(output.token_ids)
            ours = self._model.written_log_probs(batch, [row], [0])[0][0].cpu()
        theirs = torch.tensor([found[token].logprob for token, found in zip(row, output.logprobs)])
        difference = (ours - theirs).abs().mean().item()
        logger.info("vLLM's log-probabilities differ from the model's by %.4f in the mean", difference)
        if not difference <= _MAX_DIFFERENCE:
            raise ConfigError([
                f"run.task.vllm: vLLM's log-probabilities differ from the model's by {difference:.2f} in the mean of "
                f"{len(row)} tokens, so it would sample from another model; leave run.task.vllm out"
            ])  # fmt: skip

    def _generate(self, samples: Batch, max_new_tokens: int, options: dict[str, Any]) -> Sequence[Any]:
        from vllm import SamplingParams

        inputs = [one.to("cpu", self._decoder.dtype) for one in self._model.decoder_inputs(samples, max_new_tokens)]
        longest = max(map(len, inputs)) + max_new_tokens
        if self._context is not None and longest > self._context:
            raise DataError(
                f"a question with its image and an answer of {max_new_tokens} tokens is {longest} tokens long, "
                f"run.task.vllm.context_tokens is {self._context}; raise it, or lower run.task.max_answer_tokens"
            )
        seeds = torch.randint(2**31, (len(inputs),)).tolist()
        own = {"max_tokens": max_new_tokens, "stop_token_ids": self._model._end_ids(), "detokenize": False, **options}
        if unwritten := self._model._unwritten_ids():
            own["logit_bias"] = dict.fromkeys(unwritten, _NEVER)
        asked = [SamplingParams(seed=seed, **own) for seed in seeds]
        prompts = [{"prompt_embeds": one} for one in inputs]
        return self._call(lambda: self._llm.generate(prompts, asked, use_tqdm=False))

    def _call(self, call: Callable[[], Any]) -> Any:
        """What vLLM returns; UserError for what it raises."""
        try:
            return call()
        except Exception as error:  # its process may end for any reason
            raise UserError(f"run.task.vllm: vLLM has failed ({first_line(error)}); its messages are above") from error

    def _start(self, settings: VllmSettings) -> Any:
        device = self._model.device
        with environment(_variables(device)):
            from vllm import LLM

            try:
                return LLM(
                    model=str(self._folder),
                    skip_tokenizer_init=True,
                    enable_prompt_embeds=True,
                    logprobs_mode="processed_logprobs",  # of what may be written, as ours
                    dtype=str(self._decoder.dtype).removeprefix("torch."),
                    max_model_len=self._context,
                    gpu_memory_utilization=settings.memory_share,
                    enforce_eager=device.type == "cpu",  # compiling takes minutes there
                    disable_log_stats=True,
                )
            except Exception as error:  # of vLLM, whose process may fail for any reason
                raise ConfigError([
                    f"run.task.vllm: vLLM cannot start with this language model ({first_line(error)}); its own "
                    "messages are above"
                ]) from error  # fmt: skip

    def _save(self) -> None:
        """Write the language model with its adapters merged."""
        state = {name: value.cpu().contiguous() for name, value in self._decoder.tensors()}
        try:
            save_file(state, str(self._folder / _WEIGHTS), metadata={"format": "pt"})
        except SafetensorError as error:
            size = sum(tensor.nbytes for tensor in state.values())
            raise UserError(
                f"run.task.vllm: the language model's {size / 1e9:.1f} GB cannot be written to {self._folder} "
                f"({first_line(error)}); free space there, or name another folder by the variable TMPDIR"
            ) from error


def _variables(device: torch.device) -> dict[str, str | None]:
    """Of the environment that vLLM's process gets: this process's device, no launch of several processes."""
    variables: dict[str, str | None] = {name: None for name in os.environ if name.startswith("TORCHELASTIC_")}
    variables |= dict.fromkeys(_OF_LAUNCHERS)
    # It is started anew: a copy of this process would share its threads and devices. Nothing is reported to anybody.
    variables |= {"VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn", "VLLM_NO_USAGE_STATS": "1"}
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        variables["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index] if visible else str(index)
    return variables
