"""Measure what each part of SEKE contributes, with a simulated annotator with known errors.

    python tools/bench/seke_simulated.py

Every level of simulated faces is hidden in turn and completed from the other two, with each switch off in turn. How the
levels of the faces are connected is drawn at random; the tables are estimated from other faces of the same kind, except
in `wrong tables`, which uses the packaged ones. The result contains for each method and level: accuracy, CCC or F1 with
95 % intervals (bootstrap over faces), the share of faces that keep the level, calls per face, and the AUROC of the
reported uncertainty and of its two parts. No image or model is involved: the numbers show that the method works with
the given errors, not how well a real model labels faces.
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

from lavis_emovit.emotion.facial import FacialPriors, facial_priors
from lavis_emovit.generation.seke.completion import complete
from lavis_emovit.generation.seke.fitting import count_faces, fit_priors
from lavis_emovit.generation.seke.levels import case_of
from lavis_emovit.generation.seke.measures import Pair, measure
from lavis_emovit.generation.seke.settings import LEVELS, SekeSettings
from lavis_emovit.generation.seke.step import compare_hinted
from lavis_emovit.records import EmotionRecord

DEFAULT = "all parts (default)"
WRONG_TABLES = "wrong tables"
# Method -> settings: one switch off in each.
METHODS: dict[str, dict[str, Any]] = {
    "one answer, nothing else": {"sampling": False, "verification": "off", "prior": False},
    DEFAULT: {},
    "one answer": {"sampling": False},
    "4 answers for every face": {"adaptive": False},
    "8 answers for every face": {"adaptive": False, "n0": 8},
    "one prompt for all answers": {"vary": ()},
    "tables in all prompts": {"vary": ("wording", "order", "crop", "mirror")},
    "no tables": {"prior": False},
    WRONG_TABLES: {},
    "no review": {"verification": "rules"},
    "review where doubtful": {"verification": "doubtful"},
    "no rules and no review": {"verification": "off"},
    "blind reviewer": {"review": "blind"},
    "blind reviewer, rejected items resampled": {"review": "blind", "resamples": 1},
    "rejected items resampled": {"resamples": 1},
}
# Kind of errors -> settings of the annotator.
ERRORS: dict[str, dict[str, Any]] = {
    "errors partly shared (default)": {},
    "errors independent": {"shared": 0.0, "by_prompt": 0.0},
    "errors mostly of the prompt": {"shared": 0.0, "by_prompt": 0.8},
    "errors mostly of the face": {"shared": 0.8, "by_prompt": 0.0},
    "default errors, a review that finds nothing": {"caught": 0.0},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faces", type=int, default=400, help="simulated faces")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "seke_simulated.json")
    arguments = parser.parse_args(argv)
    started = time.perf_counter()
    base = facial_priors()
    labelled, _ = simulated_faces(arguments.faces, arguments.seed, part="train")
    fitted = fit_priors(count_faces(labelled, base), base)
    records, _ = simulated_faces(arguments.faces, arguments.seed)
    result: dict[str, Any] = {"benchmark": "seke_simulated", "num_faces": len(records), "annotators": {}}
    for name, values in ERRORS.items():
        errors = Errors(**values)
        print(f"\n{name}")
        methods = {}
        for method, changes in METHODS.items():
            priors = base if method == WRONG_TABLES else fitted
            methods[method] = run(records, SekeSettings(**changes), priors, errors, arguments.seed)
            print(f"  {method:40s} {line(methods[method])}", flush=True)
        result["annotators"][name] = {"errors": errors.model_dump(), "methods": methods}
    result |= {
        "settings": SekeSettings().model_dump(mode="json"),
        "command": f"python tools/bench/seke_simulated.py --faces {arguments.faces} --seed {arguments.seed}",
        "seconds": round(time.perf_counter() - started, 1),
        **environment_info(),
    }
    write_result(arguments.out, result)
    return 0


def run(
    records: Sequence[EmotionRecord], settings: SekeSettings, priors: FacialPriors, errors: Errors, seed: int
) -> dict[str, Any]:
    """Hide each level in turn, and measure its completion."""
    _, truth = simulated_faces(len(records), seed)
    levels: dict[str, Any] = {}
    num_calls = 0
    for level in LEVELS:
        cases = [case for record in records if (case := case_of(record, active_from=1.0, hide=level)) is not None]
        annotator = SimulatedAnnotator(truth, errors, seed, priors)
        outcomes = complete(cases, annotator, settings, priors)
        truths = [truth[item.case.record.id] for item in outcomes]
        pairs = [Pair(one, item.levels, item.estimate) for one, item in zip(truths, outcomes)]
        levels[level] = measure(pairs, [level])[level]
        levels[level]["calls_per_face"] = annotator.num_calls / len(cases)
        levels[level]["tables"] = compare_hinted(truths, outcomes, level)
        num_calls += annotator.num_calls
    return {"calls_per_face": num_calls / len(records) / len(LEVELS), "levels": levels}


def line(figures: dict[str, Any]) -> str:
    columns = (
        f"{row['measure']} {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] kept {row['kept']:.2f} AUROC "
        + "/".join(
            "-" if (part := row[name]) is None else f"{part:.2f}" for name in ("auroc", "auroc_within", "auroc_between")
        )
        for row in figures["levels"].values()
    )
    return f"{figures['calls_per_face']:5.2f} calls  {'  '.join(columns)}"


if __name__ == "__main__":
    raise SystemExit(main())
