"""Check the test accuracies of a finished run; the exit code is 0, or 1 with an error message.

python tools/check_run.py output/emovit/quickstart --min-after 0.80 --max-before 0.20
python tools/check_run.py output/emovit/quickstart_instructions --min-after 0.70 --answers
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    """Compare the test accuracies in metrics.json with the limits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="output folder of a run")
    parser.add_argument("--min-after", type=float, required=True, help="lowest test accuracy after tuning")
    parser.add_argument("--max-before", type=float, default=1.0, help="highest test accuracy before tuning")
    parser.add_argument(
        "--answers",
        action="store_true",
        help="also require written answers closer to their reference than another's is",
    )
    arguments = parser.parse_args()
    splits = json.loads((arguments.run / "metrics.json").read_text(encoding="utf-8"))["splits"]
    stages = splits["test"]
    before, after = stages["before"]["accuracy"], stages["after"]["accuracy"]
    print(f"test accuracy: {before:.3f} before tuning, {after:.3f} after tuning")
    problems = []
    if before > arguments.max_before:
        problems.append(f"the accuracy before tuning is above {arguments.max_before}: the task needs no tuning")
    if after < arguments.min_after:
        problems.append(f"the accuracy after tuning is below {arguments.min_after}")
    written = {name: one["after"] for name, one in splits.items() if "rouge_l" in one["after"]}
    if arguments.answers and not written:
        problems.append("the run has no benchmark of kind 'instruction'")
    for name, numbers in written.items() if arguments.answers else ():
        loss, overlap, blind = numbers["token_loss"], numbers["rouge_l"], numbers["rouge_l_blind"]
        print(f"{name}: ROUGE-L {overlap:.3f}, {blind:.3f} for the reference of another image; token loss {loss:.3f}")
        if overlap <= blind:
            problems.append(f"{name}: the answers are no closer to their references than those of other images")
        if loss >= splits[name]["before"]["token_loss"]:
            problems.append(f"{name}: tuning did not lower the token loss of the references")
    if not (arguments.run / "report.html").is_file():
        problems.append(f"{arguments.run / 'report.html'} is missing")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
