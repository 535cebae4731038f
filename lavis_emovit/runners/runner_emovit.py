"""The runner: steps and epochs, validation, the best checkpoint, resuming. The engine runs the steps."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

from lavis.common.registry import registry

from lavis_emovit.checkpoints.checkpoint import checkpoint_name
from lavis_emovit.checkpoints.finding import check_belongs, find_trained
from lavis_emovit.checkpoints.training_state import Best, Position, read_model, read_position
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.distributed import processes
from lavis_emovit.distributed.seeding import seed_everything
from lavis_emovit.distributed.signals import RunStopped, StopRequest
from lavis_emovit.distributed.versions import package_versions
from lavis_emovit.errors import WeightsError
from lavis_emovit.evaluation.suite.benchmark_data import warn_of_boxes
from lavis_emovit.files import atomic_writer, explain_full_disk
from lavis_emovit.models.protocol import Batch, EmotionModel
from lavis_emovit.progress import progress
from lavis_emovit.runners.best import BestMetric
from lavis_emovit.runners.compiling import compile_parts
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.continuation import Continuation
from lavis_emovit.runners.cut_texts import check_cut_texts
from lavis_emovit.runners.drop_samples import SampleDrops
from lavis_emovit.runners.ema import WeightAverage
from lavis_emovit.runners.engines import build_engine
from lavis_emovit.runners.engines.base import NonFiniteError, StepResult
from lavis_emovit.runners.evaluator import AFTER, BEFORE, DURING, Evaluator
from lavis_emovit.runners.loaders import TrainDataset, train_steps
from lavis_emovit.runners.logs import RunLog, SilentLog, TextNotes, read_log
from lavis_emovit.runners.nonfinite import name_samples
from lavis_emovit.runners.part_rates import Rates, has_part_rates
from lavis_emovit.runners.plan import Plan
from lavis_emovit.runners.run_folder import RunFolder
from lavis_emovit.runners.splits import RecipeSplits, RunBenchmark
from lavis_emovit.runners.wandb_log import WandbSink
from lavis_emovit.runners.watch import WINDOW_STEPS, LossWatch, RankStep, StepMeter
from lavis_emovit.shards.order import num_steps
from lavis_emovit.tasks.base import EmotionTask, StepRefusedError

logger = logging.getLogger(__name__)


@registry.register_runner("runner_emovit")
class RunnerEmoVIT:
    """Trains and evaluates a model; built like LAVIS's runners.

    Every process has a runner and takes all steps; rank 0 writes the files.

    Args:
        datasets: dataset name -> split -> dataset, as `task.build_datasets` returns them.
        job_id: LAVIS's name for a start of a run; only logged, because a run keeps its folder over several starts.
        folder: the output folder, if it is open already.

    Raises:
        ConfigError: datasets or benchmarks do not fit the recipe, or the folder has a run with other settings.
    """

    def __init__(
        self,
        cfg: Config,
        task: EmotionTask,
        model: EmotionModel,
        datasets: Mapping[str, Mapping[str, Any]],
        job_id: str = "",
        folder: RunFolder | None = None,
    ):
        self.config, self.settings = cfg, cfg.run
        self.task, self.job_id = task, job_id
        self._best_metric = BestMetric.of(self.settings)
        self._splits = RecipeSplits.of(datasets, cfg, task)
        for name, splits in datasets.items():
            for split, samples in splits.items():
                if isinstance(samples, EmotionShardDataset):
                    warn_of_boxes(f"datasets.{name}, split '{split}'", [samples.reader], samples.show)
        self.folder = folder or RunFolder.open(cfg)
        # Now, because an engine may spread the weights over the ranks.
        self._frozen_fingerprint, self._parameter_counts = model.frozen_fingerprint(), model.parameter_counts()
        self._trained_names = model.trained_parameter_names()
        # The part of each, if parts have learning rates of their own.
        self._parts = model.trained_parameter_parts() if has_part_rates(self.settings) else []
        _check_same_weights(self._frozen_fingerprint)
        self.engine = build_engine(model, task, self.settings)
        self.model = model
        compile_parts(model, self.settings.compile, self.engine.device)
        self._average: WeightAverage | None = None
        self._drops: SampleDrops | None = None
        if not self.settings.evaluate:
            if self.settings.ema_decay is not None:
                starts = {name: self._plan.first_step(part) for name, part in zip(self._trained_names, self._parts)}
                self._average = WeightAverage(model.trained_state_dict(), self.settings.ema_decay, starts)
            if self.settings.drop_samples is not None:
                self._drops = SampleDrops(self.settings, self._train_dataset, task, self.folder.dropped_path)
            self._continuation = Continuation(
                cfg,
                self.folder,
                self.engine,
                self._train_dataset,
                self._frozen_fingerprint,
                self._trained_names,
                self._average,
                self._drops,
                self._splits.questions(cfg),
            )
        self._stop = StopRequest()
        self._notes, self._losses = TextNotes(), LossWatch(None)
        self._evaluator = Evaluator(self.engine, model, task, self.settings, self.folder, self._stop_evaluation)
        self._evaluator.check_questions([*self._splits.valid.values(), *self._splits.test.values()])
        if not self.settings.evaluate:
            task.begin(model, self._train_dataset)
            if task.learns_answers:
                processes.on_main(lambda: check_cut_texts(model, self._train_dataset, self.settings.cut_texts))

    # Training

    def train(self) -> dict[str, Any]:
        """Train, resuming an earlier start in the output folder; evaluate; write metrics.json, which is returned, and
        the report.

        Raises:
            NonFiniteError: loss or gradients are not finite; the weights are those before the step.
            RunStopped: after SIGTERM or SIGUSR1, with everything saved that resuming needs.
            UserError: the disk is full, or a checkpoint cannot be used.
        """
        if self.settings.evaluate:
            return self.evaluate()
        finished = processes.broadcast_object(self.folder.finished_metrics(with_report=self.settings.report))
        if finished is not None:
            logger.info("the run in %s is finished; nothing is trained again", self.folder.path)
            return finished
        with explain_full_disk(self.folder.path), self._stop:
            self._log_start()
            position = self._continuation.resume(self.total_steps)
            # Now, so that a refused start leaves the settings of the earlier one.
            self.folder.begin(self.config)
            if position is None:
                seed_everything("start", self.settings.seed)
                position = Position()
            is_validation_due = self._is_validation_due(position)
            # A start from the beginning drops the log of an earlier one, even its evaluation at step 0.
            with self._open_log(position.step or -1, is_validation_due) as log, self._continuation:
                self._losses = LossWatch(self.settings.loss_spike_mads, _last_losses(log.path))
                before = self._before_tuning(position, log)
                if is_validation_due:
                    position = self._validate(position, log)
                    self._continuation.save(position, log)
                try:
                    while not self._plan.is_over(position):
                        position = self._train_epoch(position, log)
                finally:
                    self.task.end()
                self._log_end(position)
                chosen = self._continuation.load_best(position)
                after = self._evaluate_tests(AFTER, log, position)
            return self._finish(position, chosen, {BEFORE: before, AFTER: after})

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run, unless it stops early."""
        return self._plan.total_steps

    @property
    def _train_dataset(self) -> TrainDataset:
        assert self._splits.train is not None, "a run that only evaluates has no training data"
        return self._splits.train

    @property
    def _plan(self) -> Plan:
        return Plan(self.settings, num_steps(len(self._train_dataset), self.settings.global_batch_size))

    def _train_epoch(self, position: Position, log: RunLog) -> Position:
        """The rest of the current epoch, with its validations and saves."""
        run, plan = self.settings, self._plan
        self.model.train()
        if run.curriculum and not position.step_in_epoch:
            self._log_ratios(position, log)
        if self._drops is not None and (row := self._drops.begin_epoch(position)) is not None:
            log.write(row)
        steps = train_steps(
            self._train_dataset,
            run,
            epoch=position.epoch,
            start_step=position.step_in_epoch,
            rank=self.engine.rank,
            world_size=self.engine.world_size,
        )
        label = f"epoch {position.epoch + 1}/{run.max_epoch}"
        num_steps_here = min(plan.steps_per_epoch, position.step_in_epoch + plan.total_steps - position.step)
        with progress(label, num_steps_here, done=position.step_in_epoch, every=run.log_every_steps) as line:
            meter = StepMeter(self.model, run, self.engine.device)
            started = time.perf_counter()
            for micro_batches in steps:
                read_s = time.perf_counter() - started
                seed_everything("step", run.seed, position.step, self.engine.rank)
                rates = plan.rates(position.step)
                result = self._step(micro_batches, rates, position, log)
                position = position.after_step()

                own = meter.take(sum(len(batch["record_id"]) for batch in micro_batches), result.sizes)
                visits = [visit for part in result.pair_values for visit in part.by_sample()]
                received, ranks, visits_of_ranks = zip(*processes.gather_objects((self._stop.received, own, visits)))
                if self._drops is not None:
                    self._drops.note(visit for of_rank in visits_of_ranks for visit in of_rank)
                step_s = time.perf_counter() - started
                columns = self.task.step_columns(result.measures)
                row = _step_row(position, result, columns, rates.highest, ranks, step_s, read_s)
                row |= rates.fields(list(dict.fromkeys(self._parts)))
                row |= meter.fields(ranks, step_s)
                self._note_step(row, result)
                log.write(row)
                for further in self.task.log_rows(position.step):
                    log.write({**further, "step": position.step})
                line.advance(f"loss {result.loss:.4f}  lr {rates.highest:.2e}")

                if position.step_in_epoch == plan.steps_per_epoch:
                    position = position.after_epoch()
                if any(received):
                    self._save_and_stop(position, log, next(filter(None, received)))
                # An evaluation has its own progress line.
                with line.paused() if plan.validates_after(position.step) else nullcontext():
                    position = self._after_step(position, log)
                if plan.is_over(position):
                    break
                started = time.perf_counter()
        return position

    def _log_ratios(self, position: Position, log: RunLog) -> None:
        """The images of each dataset in an epoch that begins; the row counts as that of its first step."""
        mixture: Any = self._train_dataset
        counts = mixture.counts(position.epoch)
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        logger.info("epoch %d/%d: images of each dataset: %s", position.epoch + 1, self.settings.max_epoch, listed)
        log.write({"event": "epoch", "step": position.step + 1, "epoch": position.epoch + 1, "num_images": counts})

    def _step(self, micro_batches: Sequence[Batch], rates: Rates, position: Position, log: RunLog) -> StepResult:
        """One optimizer step: the task prepares the batches and computes the loss, the engine does the rest."""
        try:
            result = self.engine.train_step(self.engine.prepare(micro_batches), rates)
        except StepRefusedError as error:
            self._continuation.save(position, log)
            self._continuation.wait()
            raise StepRefusedError(
                f"step {position.step + 1}: {error}\nThe run up to here is saved in "
                f"{self.folder.checkpoints / checkpoint_name(position.step)}; start it again to resume."
            ) from None
        except NonFiniteError as error:
            raise name_samples(error, position, micro_batches, self.folder.nonfinite_path) from None
        if self._average is not None and result.applied:
            self._average.update(position.step)
        return result

    def _after_step(self, position: Position, log: RunLog) -> Position:
        """Validate and save if the plan says so."""
        if self._plan.validates_after(position.step):
            position = self._validate(position, log)
            self.model.train()
        if self._plan.saves_after(position.step):
            self._continuation.save(position, log)
        self._continuation.check()
        return position

    def _note_step(self, row: dict[str, Any], result: StepResult) -> None:
        """Flag and report what is unusual in a step."""
        self._notes.warn(result.noted)
        limit = self._losses.limit()
        if self._losses.is_spike(result.loss, _ran_language_model(row)):
            row["loss_spike"] = True
            logger.warning(
                "step %d: loss %.4f is out of line, since earlier steps stay below %.4f; the run continues",
                row["step"],
                result.loss,
                limit,
            )

    def _validate(self, position: Position, log: RunLog) -> Position:
        """Evaluate the validation benchmarks; the first of them chooses the best checkpoint."""
        best = position.best
        try:
            with self._average.in_place() if self._average is not None else nullcontext():
                for number, (name, benchmark) in enumerate(self._splits.valid.items()):
                    metrics = self._evaluate(benchmark, DURING, log, position)
                    if number == 0:
                        value = self._best_metric.value(metrics, name)
                        is_best = best is None or self._best_metric.is_better(value, best.value)
                        end = ", the best so far" if is_best else ""
                        logger.info("%s: %s %.4g%s", name, self._best_metric.name, value, end)
                        if is_best:
                            best = Best(position.step, self._best_metric.name, value)
        except RunStopped:
            # The start that resumes from here does the whole validation.
            self._save_and_stop(position, log, str(self._stop.received))
        return replace(position, best=best)

    def _is_validation_due(self, position: Position) -> bool:
        """Whether an earlier start was stopped between a step and its validation."""
        if not self._plan.validates_after(position.step):
            return False
        if processes.is_main():
            rows = read_log(self.folder.log_path)
            during = [row for row in rows if row.get("stage") == DURING and row.get("step") == position.step]
            missing = set(self._splits.valid) - {row.get("split") for row in during}
        return processes.broadcast_object(bool(missing) if processes.is_main() else False)

    # Stopping

    def _save_and_stop(self, position: Position, log: RunLog, signal_name: str) -> NoReturn:
        self._continuation.save(position, log)
        # Launchers end all ranks when the first one ends, so all wait until rank 0 has saved.
        self._continuation.wait()
        raise RunStopped(
            f"{signal_name}: stopped after step {position.step} of {self.total_steps}, which is saved in "
            f"{self.folder.checkpoints / checkpoint_name(position.step)}"
        )

    def _stop_evaluation(self) -> None:
        """Called between batches; a run of one process need not finish a long evaluation before it stops."""
        if self._stop.received is not None and processes.world_size() == 1:
            raise RunStopped(f"{self._stop.received}: stopped in an evaluation; only the evaluation is lost")

    # Evaluation

    def evaluate(self, cur_epoch: Any = "best", skip_reload: bool = False) -> dict[str, Any]:
        """Evaluate the test benchmarks with the weights of `run.checkpoint`, or with the model as it is.

        The arguments are those of LAVIS's runners; `skip_reload` ignores `run.checkpoint`.
        """
        checkpoint = None if skip_reload else self.settings.checkpoint
        position = Position()
        with explain_full_disk(self.folder.path), self._stop:
            self._log_start()
            if checkpoint is not None:
                path, manifest = find_trained(checkpoint)
                fingerprint, names = self._frozen_fingerprint, self._trained_names
                check_belongs(path, manifest, index_hash=None, frozen_fingerprint=fingerprint, trained=names)
                self.engine.load_trained(read_model(path))
                position = read_position(path)
                logger.info("evaluating %s", path)
            self.folder.begin(self.config)
            stage = BEFORE if checkpoint is None else AFTER
            with self._open_log(-1) as log:
                results = {stage: self._evaluate_tests(stage, log, position)}
            return self._finish(position, checkpoint, results)

    def _before_tuning(self, position: Position, log: RunLog) -> dict[str, Any]:
        """Metrics of the tests before tuning; a resumed run computes them from the predictions of its first start."""
        if not self.settings.evaluate_before:
            return {}
        if position.step == 0:
            return self._evaluate_tests(BEFORE, log, position)
        measured = {name: self._evaluator.measure(benchmark, BEFORE) for name, benchmark in self._splits.test.items()}
        return {name: metrics for name, metrics in measured.items() if metrics is not None}

    def _evaluate_tests(self, stage: str, log: RunLog, position: Position) -> dict[str, Any]:
        return {name: self._evaluate(benchmark, stage, log, position) for name, benchmark in self._splits.test.items()}

    def _evaluate(self, benchmark: RunBenchmark, stage: str, log: RunLog, position: Position) -> dict[str, Any]:
        epochs = position.epoch if self.settings.evaluate else self._plan.epochs_done(position)
        during = f"after epoch {epochs}" if isinstance(epochs, int) else f"after step {position.step}"
        when = {BEFORE: "before tuning", DURING: during, AFTER: "after tuning"}[stage]
        metrics = self._evaluator.evaluate(benchmark, stage, when)
        row = {"event": "eval", "split": benchmark.data.name, "stage": stage, "step": position.step, "epoch": epochs}
        log.write({**row, "metrics": metrics})
        return metrics

    # Start and end

    def _log_start(self) -> None:
        counts = self._parameter_counts
        logger.info(
            "results go to %s; device %s, %s of %s parameters are trained",
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

    def _log_end(self, position: Position) -> None:
        self._notes.log_totals(self.folder.log_path)
        if position.step < self.total_steps and position.best is not None:
            logger.info(
                "stopped early after step %d: %d validations were not better than %s %.4f of step %d",
                position.step,
                self.settings.early_stop_patience,
                position.best.metric,
                position.best.value,
                position.best.step,
            )

    def _open_log(self, step: int, validate_again: bool = False) -> RunLog:
        if not processes.is_main():
            return SilentLog(self.folder.log_path)
        run, folder = self.settings, self.folder
        sinks = [WandbSink(run.wandb_project, folder.path, self.config.to_share())] if run.wandb else []
        tensorboard = folder.tensorboard if run.tensorboard else None
        return RunLog(folder.log_path, tensorboard, step=step, validate_again=validate_again, sinks=sinks)

    def _finish(self, position: Position, checkpoint: str | None, results: dict[str, Any]) -> dict[str, Any]:
        """Write metrics.json, then the report; a run with both is finished."""
        summary = {
            "step": position.step,
            "epoch": position.epoch,
            "checkpoint": checkpoint,
            "best": asdict(position.best) if position.best else None,
            "splits": {
                split: {stage: metrics[split] for stage, metrics in results.items() if split in metrics}
                for split in self._splits.test
            },
            "parameters": self._parameter_counts,
            "config_hash": self.config.identity_hash,
            "frozen_fingerprint": self._frozen_fingerprint,
            "versions": package_versions(),
        }
        if not processes.is_main():
            return summary
        with atomic_writer(self.folder.metrics_path) as file:
            json.dump(summary, file, indent=1)
            file.write("\n")
        if self.settings.report:
            from lavis_emovit.evaluation.report.page import write_report  # matplotlib is slow to load

            write_report(self.folder.path)
            logger.info("report: %s", self.folder.report_path)
        return summary


def _check_same_weights(fingerprint: str) -> None:
    """Refuse different frozen weights on different ranks; WeightsError on all of them."""
    prints = processes.gather_objects(fingerprint)
    others = [str(rank) for rank, other in enumerate(prints) if other != prints[0]]
    if others:
        raise WeightsError(
            f"rank {', '.join(others)} has other frozen weights than rank 0; model.pretrained must name the same "
            "weights on every machine"
        )


def _last_losses(log_path: Path) -> list[tuple[float, bool]]:
    """Losses of the last steps in the log, which the first losses of a resumed run are compared with."""
    rows = read_log(log_path)[-2 * WINDOW_STEPS :] if processes.is_main() else []
    return [
        (row["loss"], _ran_language_model(row))
        for row in rows
        if row.get("event") == "step" and isinstance(row.get("loss"), float)
    ]


def _ran_language_model(row: Mapping[str, Any]) -> bool:
    """Whether the language model read anything in a step; True if the model does not count."""
    return row.get("tokens_per_s") != 0


def _step_row(
    position: Position,
    result: StepResult,
    columns: Mapping[str, float],
    rate: float,
    ranks: Sequence[RankStep],
    step_s: float,
    read_s: float,
) -> dict[str, Any]:
    num_images = sum(rank.num_images for rank in ranks)
    row = {
        "event": "step",
        "step": position.step,
        "epoch": position.epoch + 1,
        "loss": result.loss,
        "lr": rate,
        "grad_norm": result.grad_norm,
        "num_tokens": result.weight,
        "num_images": num_images,
        "samples_per_s": num_images / step_s,
        "step_s": step_s,
        "read_s": read_s,
        **{name: len(instance_ids) for name, instance_ids in result.noted.items()},
        **columns,
    }
    return row if result.applied else {**row, "skipped": True}
