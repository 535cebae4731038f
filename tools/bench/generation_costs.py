"""Estimate the cost of the package's prompts for 1,000 images, as `emovit generate all --dry-run` does.

    python tools/bench/generation_costs.py    # writes benchmarks/generation_costs.json, prints the table of the docs

The estimate uses the drawn sample set, the lengths of prompts and typical replies, and the dated price table. No
request is sent.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, write_result

from lavis_emovit import __version__
from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.prices import load_prices
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.generation.captions import write_captions
from lavis_emovit.generation.instructions import write_kind
from lavis_emovit.generation.job import Job, JobSettings
from lavis_emovit.generation.kinds import KINDS
from lavis_emovit.sample_set.write import write_sketch
from lavis_emovit.sources.readers.emoset import read_emoset

MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano")
NUM_IMAGES = 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Estimate, write the result and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "generation_costs.json")
    arguments = parser.parse_args(argv)
    result = {
        "benchmark": "generation_costs",
        "command": "python tools/bench/generation_costs.py",
        "date": date.today().isoformat(),
        "versions": {"lavis-emovit": __version__},
        "prices": load_prices().date,
        "pictures": NUM_IMAGES,
        "models": estimate_models(),
    }
    write_result(arguments.out, result)
    print(table(result))
    return 0


def estimate_models() -> dict[str, dict[str, dict[str, float]]]:
    """Probable and maximum cost of 1,000 images in US dollars, by model and kind."""
    costs: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "sketch"
        write_sketch(root, images_per_class=10, size_px=48)
        records = [record for record in read_emoset(root) if record.split == "train"]
        with Ledger(Path(folder) / "ledger.jsonl") as ledger:
            offline = Job(records, root, Path(folder), ledger)
            write_captions(offline)  # real prompts contain a caption
            for model in MODELS:
                chat = ChatSettings(model=model)
                job = Job(offline.records, root, Path(folder), ledger, JobSettings(), chat, dry_run=True)
                for kind in KINDS:
                    write_kind(job, kind)
                scale = NUM_IMAGES / len(records)
                costs[model] = {
                    item.label: {
                        "usd": round((item.usd or 0.0) * scale, 2),
                        "usd_worst": round((item.usd_worst or 0.0) * scale, 2),
                    }
                    for item in job.estimates
                }
    return costs


def table(result: dict[str, Any]) -> str:
    """The probable costs as a Markdown table."""
    kinds = list(KINDS)
    lines = [f"| model | {' | '.join(kinds)} |", f"|---|{'---:|' * len(kinds)}"]
    for model, costs in result["models"].items():
        cells = " | ".join(f"${costs[kind]['usd']:.2f}" for kind in kinds)
        lines.append(f"| {model} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
