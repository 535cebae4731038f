"""Measure the effect of sampling and verification on facial levels, with a simulated annotator with known errors.

    python tools/bench/seke.py

The simulated faces have no labels, so all three levels are completed. The result contains for each method: accuracy,
CCC and F1 with 95 % intervals (bootstrap over faces), the share of faces that keep the level, calls per face, and the
AUROC of the reported uncertainty. `single_answers_of_the_same_calls` uses each call as a separate answer. No image or
model is involved: the numbers show that the method works with the given errors, not how well a real model labels faces.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result
from simulated_faces import Errors, SimulatedAnnotator, simulated_faces

from lavis_emovit.emotion.facial import facial_priors
from lavis_emovit.generation.seke.completion import complete
from lavis_emovit.generation.seke.levels import Case, Levels
from lavis_emovit.generation.seke.measures import Pair, measure
from lavis_emovit.generation.seke.settings import LEVELS, SekeSettings

# Method -> settings.
METHODS: dict[str, dict[str, Any]] = {
    "single answer": {"sampling": False, "verification": "off"},
    "3 answers": {"adaptive": False, "n0": 3, "verification": "off"},
    "5 answers": {"adaptive": False, "n0": 5, "verification": "off"},
    "8 answers": {"adaptive": False, "n0": 8, "verification": "off"},
    "adaptive": {"verification": "off"},
    "adaptive, rules": {"verification": "rules"},
    "adaptive, review where doubtful": {"verification": "doubtful"},
    "adaptive, review always (default)": {},
    "default without priors": {"prior": False},
    "single answer, review always": {"sampling": False},
}
# Kind of errors -> settings of the annotator.
ERRORS: dict[str, dict[str, Any]] = {
    "independent errors": {"shared": 0.0},
    "partly shared errors (default)": {},
    "mostly shared errors": {"shared": 0.8},
    "all faces equally hard": {"even": True},
    "default errors, a review that finds nothing": {"caught": 0.0},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faces", type=int, default=400, help="simulated faces")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "seke.json")
    arguments = parser.parse_args(argv)
    started = time.perf_counter()
    priors = facial_priors()
    records, truth = simulated_faces(arguments.faces, priors, arguments.seed)
    cases = [Case(record, Levels(), LEVELS) for record in records]
    result: dict[str, Any] = {"benchmark": "seke", "num_faces": len(cases), "annotators": {}}
    for name, values in ERRORS.items():
        errors = Errors(**values)
        methods: dict[str, Any] = {}
        for method, changes in METHODS.items():
            settings = SekeSettings(**changes)
            annotator = SimulatedAnnotator(truth, errors, arguments.seed, settings.prior)
            outcomes = complete(cases, annotator, settings, priors)
            pairs = [Pair(truth[item.case.record.id], item.levels, item.estimate) for item in outcomes]
            methods[method] = {"calls_per_face": annotator.num_calls / len(cases), "levels": measure(pairs)}
            if settings.num_first > 1 and not settings.adaptive:
                # Adaptive sampling makes more calls for difficult faces, so its single answers would score too low.
                each = [Pair(truth[item.case.record.id], answer, None) for item in outcomes for answer in item.answers]
                single = measure(each, num_resamples=0)
                by_level = {level: single[level]["value"] for level in LEVELS}
                methods[method]["single_answers_of_the_same_calls"] = by_level
        result["annotators"][name] = {"errors": errors.model_dump(), "ways": methods}
        print(f"\n{name}")
        for method, figures in methods.items():
            columns = "  ".join(
                f"{row['measure']} {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] kept {row['kept']:.2f} "
                f"AUROC {'-' if row['auroc'] is None else format(row['auroc'], '.2f')}"
                for row in figures["levels"].values()
            )
            print(f"  {method:34s} {figures['calls_per_face']:5.2f} calls  {columns}")
    result |= {
        "settings": SekeSettings().model_dump(mode="json"),
        "command": f"python tools/bench/seke.py --faces {arguments.faces} --seed {arguments.seed}",
        "seconds": round(time.perf_counter() - started, 1),
        **environment_info(),
    }
    write_result(arguments.out, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
