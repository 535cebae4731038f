"""Check what a finished run reached: exit code 0, or 1 with what is wrong.

python tools/check_run.py output/emovit/quickstart --min-after 0.80 --max-before 0.20
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
    parser.add_argument("--min-after", type=float, required=True, help="least test accuracy after tuning")
    parser.add_argument("--max-before", type=float, default=1.0, help="most test accuracy before tuning")
    arguments = parser.parse_args()
    stages = json.loads((arguments.run / "metrics.json").read_text(encoding="utf-8"))["splits"]["test"]
    before, after = stages["before"]["accuracy"], stages["after"]["accuracy"]
    print(f"test accuracy {before:.3f} before tuning, {after:.3f} after it")
    problems = []
    if before > arguments.max_before:
        problems.append(
            f"before tuning it is above {arguments.max_before}: the model knows what it should have to learn"
        )
    if after < arguments.min_after:
        problems.append(f"after tuning it is below {arguments.min_after}")
    if not (arguments.run / "report.html").is_file():
        problems.append("there is no report.html")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
