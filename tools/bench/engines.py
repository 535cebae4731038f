"""Images per second that teachers look at, in one process and on one and two workers of Ray.

    python tools/bench/engines.py --teachers face-api human      # minutes; needs the teachers, Ray and the London Faces

One round times every engine once, in turn, on the same photographs, with the start of Ray but not of the workers'
teachers: each engine looks at a few photographs first. The answers must be the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

from lavis_emovit.distributed.engine import Engine, ProcessEngine
from lavis_emovit.distributed.on_ray import RayEngine
from lavis_emovit.teachers.annotation import Look, Question, showing
from lavis_emovit.teachers.catalogue import AnyTeacher, find_teachers

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result
from london_faces import FOLDER

ENGINES = {"process": None, "ray, 1 worker": 1, "ray, 2 workers": 2}  # name -> workers of Ray
NUM_WARM_UP = 12  # photographs for each worker; results are ahead of the order by a few until all have started


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "engines.json")
    parser.add_argument("--teachers", nargs="+", default=["face-api"])
    parser.add_argument("--num-images", type=int, default=100)
    parser.add_argument("--num-rounds", type=int, default=3)
    arguments = parser.parse_args(argv)
    photographs = [path.read_bytes() for path in sorted((FOLDER / "images").glob("*.jpg"))[: arguments.num_images]]
    results = {}
    for name in arguments.teachers:
        seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        teacher = find_teachers([name])
        for _ in range(arguments.num_rounds):
            seen = {}
            for engine_name, num_workers in ENGINES.items():
                with RayEngine(num_workers=num_workers) if num_workers else ProcessEngine() as engine:
                    num_warm_up = NUM_WARM_UP * (num_workers or 1)
                    duration_s, seen[engine_name] = measure(engine, teacher, photographs, num_warm_up)
                seconds[engine_name].append(duration_s)
            if len({str(answers) for answers in seen.values()}) > 1:
                raise SystemExit(f"{name}: the engines do not have the same answers")
        rates = {engine: round(len(photographs) / median(times), 2) for engine, times in seconds.items()}
        ratios = [one / two for one, two in zip(seconds["ray, 1 worker"], seconds["ray, 2 workers"])]
        results[name] = {
            "images_per_s": rates,
            "seconds": {engine: [round(time_s, 2) for time_s in times] for engine, times in seconds.items()},
            "two_workers_to_one": {"median": round(median(ratios), 3), "rounds": [round(one, 3) for one in ratios]},
        }
        print(name, results[name], flush=True)
    write_result(
        arguments.out,
        {
            "benchmark": "engines",
            "num_images": len(photographs),
            "results": results,
            "command": "python tools/bench/engines.py --teachers " + " ".join(arguments.teachers),
            **environment_info("lavis_emovit/distributed", "lavis_emovit/teachers", __file__, packages=["ray"]),
        },
    )
    return 0


def measure(
    engine: Engine, teachers: Sequence[AnyTeacher], photographs: Sequence[bytes], num_warm_up: int
) -> tuple[float, list[object]]:
    """Seconds for the photographs after the first ones, which start the teachers of all workers; and all answers."""
    shown = [*photographs[:num_warm_up], *photographs]
    answers: list[object] = []
    begun_s = 0.0
    questions = ((None, Question(data, None, (0,))) for data in shown)
    for number, (_, look) in enumerate(engine.map(partial(showing, tuple(teachers)), questions), start=1):
        assert isinstance(look, Look), look
        if number == num_warm_up:
            begun_s = time.perf_counter()
        if number > num_warm_up:
            answers.append(look.answers)
    return time.perf_counter() - begun_s, answers


if __name__ == "__main__":
    raise SystemExit(main())
