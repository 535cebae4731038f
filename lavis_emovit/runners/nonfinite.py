"""Reports the samples behind a loss or gradient that is not finite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lavis_emovit.checkpoints.training_state import Position
from lavis_emovit.distributed import processes
from lavis_emovit.files import atomic_writer
from lavis_emovit.models.protocol import Batch
from lavis_emovit.runners.engines.base import NonFiniteError

NUM_SHOWN = 8


def name_samples(
    error: NonFiniteError, position: Position, micro_batches: Sequence[Batch], path: Path
) -> NonFiniteError:
    """The error with the first samples of the step; rank 0 writes all of them to a file. All ranks call it.

    `position` is that before the step, `micro_batches` are those of this rank.
    """
    own = [instance_id for batch in micro_batches for instance_id in batch["instance_id"]]
    ids = [instance_id for of_rank in processes.gather_objects(own) for instance_id in of_rank]
    facts = {"step": position.step, "epoch": position.epoch, "problem": str(error), "instance_ids": ids}
    if processes.is_main():
        with atomic_writer(path) as file:
            file.write(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    shown = ", ".join(ids[:NUM_SHOWN]) + (f" and {len(ids) - NUM_SHOWN} more" if len(ids) > NUM_SHOWN else "")
    return NonFiniteError(
        f"step {position.step}: {error}. The weights did not change. Samples: {shown} (all in {path}). Check these "
        "samples, lower run.init_lr, or set run.max_grad_norm."
    )
