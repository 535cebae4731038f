"""The runner: steps and epochs, validation, the best checkpoint, resume. How a step is done is the engine's affair."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from lavis.common.registry import registry

from lavis_emovit.files import atomic_writer
from lavis_emovit.runners.checkpoint import checkpoint_name, purge_checkpoints, save_checkpoint
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.engines.base import Batch, NonFiniteError, StepResult
from lavis_emovit.runners.engines.torch_engine import TorchEngine
from lavis_emovit.runners.evaluator import AFTER, BEFORE, DURING, Evaluator
from lavis_emovit.runners.loaders import train_steps
from lavis_emovit.runners.logs import RunLog, TextNotes, progress
from lavis_emovit.runners.machine import package_versions
from lavis_emovit.runners.resume import check_belongs, find_start, find_trained
from lavis_emovit.runners.run_folder import RunFolder
from lavis_emovit.runners.schedule import LinearWarmupCosine
from lavis_emovit.runners.seeding import seed_everything
from lavis_emovit.runners.splits import RecipeSplits
from lavis_emovit.runners.training_state import Best, Position, TrainingState, read_state, writers_of
from lavis_emovit.shards.order import num_steps

logger = logging.getLogger(__name__)


@registry.register_runner("runner_emovit")
class RunnerEmoVIT:
    """Trains and evaluates an EmoVIT model; made as LAVIS makes its runners.

    Args:
        cfg: the recipe.
        task: an `EmotionInstructionTask`.
        model: an EmoVIT model.
        datasets: dataset name -> split -> dataset, as `task.build_datasets` gives them.
        job_id: LAVIS's name for a start of a run; only logged, since a run goes on in its folder across starts.
        folder: the output folder where it is open already; else it is opened here.

    Raises:
        ConfigError: a split that is asked for is not in the dataset, or the folder's earlier run is another one.
    """

    def __init__(
        self,
        cfg: Config,
        task: Any,
        model: Any,
        datasets: Mapping[str, Mapping[str, Any]],
        job_id: str = "",
        folder: RunFolder | None = None,
    ):
        self.config, self.settings = cfg, cfg.run
        self.task, self.job_id = task, job_id
        self._splits = RecipeSplits.of(datasets, self.settings, cfg.source)
        self.folder = folder or RunFolder.open(cfg)
        self.engine = TorchEngine(model, task, self.settings)
        self.model = model
        self._frozen_fingerprint = model.frozen_fingerprint()
        self._notes = TextNotes()
        self._evaluator = Evaluator(self.engine, model, task, self.settings, self.folder)

    # Training

    def train(self) -> dict[str, Any]:
        """Train from where the output folder's earlier start stopped, evaluate, and write metrics and report.

        Returns:
            what metrics.json holds.

        Raises:
            NonFiniteError: loss or gradients are not finite; the weights are those of the step before.
        """
        if self.settings.evaluate:
            return self.evaluate()
        finished = self.folder.finished_metrics(with_report=self.settings.report)
        if finished is not None:
            logger.info("the run in %s is finished; nothing is trained again", self.folder.path)
            return finished
        self._log_start()
        position = self._resume()
        # A start from the beginning keeps nothing of an earlier one's log, not even its evaluation at step 0.
        with self._open_log(position.step or -1) as log:
            before = self._before_tuning(position, log)
            while position.epoch < self.settings.max_epoch:
                position = self._train_epoch(position, log)
                position = self._validate(position, log)
                self._save(position)
            self._notes.log_totals(self.folder.log_path)
            chosen = self._load_best(position)
            after = self._evaluate_tests(AFTER, log, position)
        return self._finish(position, chosen, {BEFORE: before, AFTER: after})

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._steps_per_epoch * self.settings.max_epoch

    @property
    def _train_dataset(self) -> Any:
        return self._splits.train

    @property
    def _steps_per_epoch(self) -> int:
        return num_steps(len(self._train_dataset), self.settings.global_batch_size)

    @property
    def _schedule(self) -> LinearWarmupCosine:
        run = self.settings
        return LinearWarmupCosine(run.init_lr, run.min_lr, run.warmup_lr, run.warmup_steps, self.total_steps)

    def _train_epoch(self, position: Position, log: RunLog) -> Position:
        """The rest of the epoch that a position lies in."""
        run, schedule = self.settings, self._schedule
        self.model.train()
        steps = train_steps(
            self._train_dataset,
            run,
            epoch=position.epoch,
            start_step=position.step_in_epoch,
            rank=self.engine.rank,
            world_size=self.engine.world_size,
        )
        label = f"epoch {position.epoch + 1}/{run.max_epoch}"
        with progress(label, self._steps_per_epoch, done=position.step_in_epoch, every=run.log_every_steps) as line:
            started = time.perf_counter()
            for micro_batches in steps:
                read_s = time.perf_counter() - started
                seed_everything("step", run.seed, position.step, self.engine.rank)
                learning_rate = schedule(position.step)
                try:
                    result = self.engine.train_step(micro_batches, learning_rate)
                except NonFiniteError as error:
                    raise self._explain(error, position, micro_batches) from None
                position = position.after_step()
                self._notes.warn(result.noted)
                step_s = time.perf_counter() - started
                log.write(_step_row(position, result, learning_rate, micro_batches, step_s, read_s))
                line.advance(f"loss {result.loss:.4f}  lr {learning_rate:.2e}")
                is_epoch_end = position.step_in_epoch == self._steps_per_epoch
                if run.save_every_steps and position.step % run.save_every_steps == 0 and not is_epoch_end:
                    self._save(position)
                started = time.perf_counter()
        return position.after_epoch()

    def _validate(self, position: Position, log: RunLog) -> Position:
        """Evaluate the validation splits after an epoch; the first of them decides which checkpoint is the best."""
        value = -math.inf
        for number, (split, dataset) in enumerate(self._splits.valid.items()):
            metrics = self._evaluate(dataset, split, DURING, log, position)
            if number == 0:
                value = metrics[self.settings.best_metric]
        best = position.best
        if self._splits.valid and (best is None or value > best.value):
            best = Best(position.step, self.settings.best_metric, value)
        return replace(position, best=best)

    def _explain(self, error: NonFiniteError, position: Position, micro_batches: Sequence[Batch]) -> NonFiniteError:
        """The error with the samples that led to it, which also go to a file."""
        ids = [instance_id for batch in micro_batches for instance_id in batch["instance_id"]]
        facts = {"step": position.step, "epoch": position.epoch, "problem": str(error), "instance_ids": ids}
        with atomic_writer(self.folder.nonfinite_path) as file:
            file.write(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        return NonFiniteError(
            f"step {position.step}: {error}. The weights were not touched. Samples: {shown} (all in "
            f"{self.folder.nonfinite_path}). Look at these samples, or lower run.init_lr or set run.max_grad_norm."
        )

    # Saving and going on

    def _save(self, position: Position) -> None:
        run = self.settings
        state = TrainingState(
            trained=self.model.trained_state_dict(),
            engine=self.engine.state(),
            position=position,
            config_yaml=self.config.to_yaml(),
        )
        path = save_checkpoint(
            self.folder.checkpoints,
            step=position.step,
            epoch=position.epoch,
            index_hash=self._train_dataset.index_hash,
            config_hash=self.config.identity_hash,
            frozen_fingerprint=self._frozen_fingerprint,
            versions=package_versions(),
            writers=writers_of(state),
        )
        best_step = {position.best.step} if position.best else set()
        purge_checkpoints(
            self.folder.checkpoints, newest_step=position.step, keep_last=run.keep_last, keep_steps=best_step
        )
        logger.info("saved %s", path)

    def _resume(self) -> Position:
        start = find_start(self.folder, self.config)
        if start is None:
            seed_everything("start", self.settings.seed)
            return Position()
        path, manifest = start
        check_belongs(
            path,
            manifest,
            index_hash=self._train_dataset.index_hash,
            frozen_fingerprint=self._frozen_fingerprint,
        )
        state = read_state(path)
        self.model.load_trained_state_dict(state.trained)
        self.engine.load_state(state.engine)
        position = state.position
        logger.info(
            "going on from %s: step %d of %d, epoch %d, next sample %d of %d in the order of index %s",
            path.name,
            position.step,
            self.total_steps,
            position.epoch + 1,
            min(position.step_in_epoch * self.settings.global_batch_size, len(self._train_dataset)),
            len(self._train_dataset),
            manifest.index_hash[:12],
        )
        return position

    def _load_best(self, position: Position) -> str:
        """Put the best weights into the model, and say which they are."""
        best = position.best
        if best is not None and best.step != position.step:
            path, _ = find_trained(self.folder.checkpoints / checkpoint_name(best.step))
            self.model.load_trained_state_dict(read_state(path).trained)
        return checkpoint_name(best.step if best is not None else position.step)

    # Evaluation

    def evaluate(self, cur_epoch: Any = "best", skip_reload: bool = False) -> dict[str, Any]:
        """Evaluate the test splits with the weights of `run.checkpoint`, or with the model as it is.

        The arguments are those of LAVIS's runners; with `skip_reload` the model's own weights are taken in any case.
        """
        self._log_start()
        checkpoint = None if skip_reload else self.settings.checkpoint
        position = Position()
        if checkpoint is not None:
            path, manifest = find_trained(checkpoint)
            check_belongs(path, manifest, index_hash=None, frozen_fingerprint=self._frozen_fingerprint)
            state = read_state(path)
            self.model.load_trained_state_dict(state.trained)
            position = state.position
            logger.info("evaluating %s", path)
        stage = BEFORE if checkpoint is None else AFTER
        with self._open_log(-1) as log:
            results = {stage: self._evaluate_tests(stage, log, position)}
        return self._finish(position, checkpoint, results)

    def _before_tuning(self, position: Position, log: RunLog) -> dict[str, Any]:
        """Metrics of the test splits before tuning; a run that goes on takes them from the predictions of its start."""
        if not self.settings.evaluate_before:
            return {}
        if position.step == 0:
            return self._evaluate_tests(BEFORE, log, position)
        measured = {
            split: self._evaluator.measure(dataset, split, BEFORE) for split, dataset in self._splits.test.items()
        }
        return {split: metrics for split, metrics in measured.items() if metrics is not None}

    def _evaluate_tests(self, stage: str, log: RunLog, position: Position) -> dict[str, Any]:
        return {
            split: self._evaluate(dataset, split, stage, log, position) for split, dataset in self._splits.test.items()
        }

    def _evaluate(self, dataset: Any, split: str, stage: str, log: RunLog, position: Position) -> dict[str, Any]:
        when = {BEFORE: "before tuning", DURING: f"after epoch {position.epoch}", AFTER: "after tuning"}[stage]
        metrics = self._evaluator.evaluate(dataset, split, stage, when)
        log.write(
            {
                "event": "eval",
                "split": split,
                "stage": stage,
                "step": position.step,
                "epoch": position.epoch,
                "metrics": metrics,
            }
        )
        return metrics

    # Start and end

    def _log_start(self) -> None:
        counts = self.model.parameter_counts()
        logger.info(
            "results go to %s; device %s, %s of %s parameters learn",
            self.folder.path,
            self.engine.device,
            f"{counts['trained']:,}",
            f"{counts['total']:,}",
        )
        if self.job_id:
            logger.info("job %s", self.job_id)
        if not self.settings.evaluate and self.settings.warmup_steps >= self.total_steps:
            logger.warning(
                "run.warmup_steps is %d and the run has %d steps, so the learning rate never reaches run.init_lr",
                self.settings.warmup_steps,
                self.total_steps,
            )

    def _open_log(self, step: int) -> RunLog:
        return RunLog(self.folder.log_path, self.folder.tensorboard if self.settings.tensorboard else None, step=step)

    def _finish(self, position: Position, checkpoint: str | None, results: dict[str, Any]) -> dict[str, Any]:
        """Write metrics.json and then the report: once both are there, the run is finished."""
        summary = {
            "step": position.step,
            "epoch": position.epoch,
            "checkpoint": checkpoint,
            "best": asdict(position.best) if position.best else None,
            "splits": {
                split: {stage: metrics[split] for stage, metrics in results.items() if split in metrics}
                for split in self._splits.test
            },
            "parameters": self.model.parameter_counts(),
            "config_hash": self.config.identity_hash,
            "frozen_fingerprint": self._frozen_fingerprint,
            "versions": package_versions(),
        }
        with atomic_writer(self.folder.metrics_path) as file:
            json.dump(summary, file, indent=1)
            file.write("\n")
        if self.settings.report:
            from lavis_emovit.evaluation.report import write_report  # matplotlib is slow to load

            write_report(self.folder.path)
            logger.info("report: %s", self.folder.report_path)
        return summary


def _step_row(
    position: Position,
    result: StepResult,
    learning_rate: float,
    micro_batches: Sequence[Batch],
    step_s: float,
    read_s: float,
) -> dict[str, Any]:
    num_images = sum(len(batch["record_id"]) for batch in micro_batches)
    row = {
        "event": "step",
        "step": position.step,
        "epoch": position.epoch + 1,
        "loss": result.loss,
        "lr": learning_rate,
        "grad_norm": result.grad_norm,
        "num_tokens": result.num_tokens,
        "num_images": num_images,
        "samples_per_s": num_images / step_s,
        "step_s": step_s,
        "read_s": read_s,
        **{name: len(instance_ids) for name, instance_ids in result.noted.items()},
    }
    return row if result.applied else {**row, "skipped": True}
