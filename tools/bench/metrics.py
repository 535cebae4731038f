"""Measure all metrics with 1,000 bootstrap samples on 20,000 predictions; EmoSet has 17,716 test images.

    python tools/bench/metrics.py

The result is the processor time of one thread, the minimum of several repeats, because other work on a shared machine
has little influence on it. The rows are random: the time depends on their number, the label set and the presence of
scores, not on values. Each family of metrics is timed from rows in memory to its result. `everything about labels` is
the work of a suite for one model on one benchmark: classification with calibration, levels, soft labels and the
comparison with another model. The tasks of published benchmarks (docs/tasks.md) are timed on as many rows of their own,
in `processor_s.tasks`, with a reason of three sentences and a reference where there are texts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# One thread. numpy reads these variables when it is imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result  # noqa: E402

from lavis_emovit.emotion.labels import get_label_set  # noqa: E402
from lavis_emovit.emotion.wheels import emotion_wheels  # noqa: E402
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings  # noqa: E402
from lavis_emovit.evaluation.metrics import (  # noqa: E402
    action_unit_metrics,
    classification_metrics,
    compare_models,
    dimensional_metrics,
    hierarchy_metrics,
    soft_label_metrics,
)
from lavis_emovit.evaluation.metrics.choices import choice_metrics  # noqa: E402
from lavis_emovit.evaluation.metrics.explanations import explanation_metrics  # noqa: E402
from lavis_emovit.evaluation.metrics.rankings import ranking_metrics  # noqa: E402
from lavis_emovit.evaluation.metrics.reasons import reason_metrics  # noqa: E402
from lavis_emovit.evaluation.metrics.robustness import robustness_metrics  # noqa: E402
from lavis_emovit.evaluation.metrics.stated_confidence import stated_confidence  # noqa: E402
from lavis_emovit.evaluation.metrics.statements import statement_metrics  # noqa: E402
from lavis_emovit.evaluation.metrics.wheels import word_metrics  # noqa: E402
from lavis_emovit.evaluation.predictions import PredictionRow  # noqa: E402

NUM_ROWS = 20_000
NUM_RESAMPLES = 1000
UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
LABEL_FAMILIES = ("classification", "levels", "soft labels", "comparison of two models")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=NUM_ROWS)
    parser.add_argument("--resamples", type=int, default=NUM_RESAMPLES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "metrics.json")
    arguments = parser.parse_args(argv)
    result: dict[str, Any] = {
        "benchmark": "metrics",
        "num_rows": arguments.rows,
        "num_resamples": arguments.resamples,
        "processor_s": {},
    }
    for name in ("mikels8", "webemo25"):
        seconds = measure(name, arguments.rows, arguments.resamples, arguments.repeats)
        seconds["everything about labels"] = round(sum(seconds[family] for family in LABEL_FAMILIES), 2)
        result["processor_s"][name] = seconds
    tasks = measure_tasks(arguments.rows, arguments.repeats)
    result["processor_s"]["tasks"] = {**tasks, "all tasks": round(sum(tasks.values()), 2)}
    result |= {
        "command": f"python tools/bench/metrics.py --rows {arguments.rows} --resamples {arguments.resamples}",
        **environment_info(packages=("scikit-learn", "scipy")),
    }
    write_result(arguments.out, result)
    print(json.dumps(result["processor_s"], indent=1))
    return 0


def measure(label_set: str, num_rows: int, num_resamples: int, repeats: int) -> dict[str, float]:
    """Family of metrics -> seconds."""
    labels = get_label_set(label_set).labels
    rows, others = make_rows(labels, num_rows, seed=0), make_rows(labels, num_rows, seed=1, like_seed=0)
    size = {"num_resamples": num_resamples}
    families: dict[str, Callable[[], object]] = {
        "classification": lambda: classification_metrics(rows, labels, **size),
        "classification by person": lambda: classification_metrics(rows, labels, group_by="person", **size),
        "levels": lambda: hierarchy_metrics(rows, label_set, **size),
        "soft labels": lambda: soft_label_metrics(rows, labels, **size),
        "comparison of two models": lambda: compare_models(rows, others, labels, **size),
        "valence and arousal": lambda: dimensional_metrics(rows, **size),
        f"{len(UNITS)} action units with intensities": lambda: action_unit_metrics(
            rows, intensity_scale=(0.0, 5.0), **size
        ),
    }
    classification_metrics(rows[:100], labels, num_resamples=2)  # imports scikit-learn
    return {name: round(min(seconds_of(call) for _ in range(repeats)), 2) for name, call in families.items()}


def measure_tasks(num_rows: int, repeats: int) -> dict[str, float]:
    """Task -> seconds of its metrics with intervals, always with 1,000 resamples."""
    labels = get_label_set("mikels8").labels
    random = np.random.default_rng(5)
    shared = [
        {"instance_id": f"{n // 3}/{n % 3}", "record_id": str(n // 3), "slices": {"class": f"c{n % 4}"}}
        for n in range(num_rows)
    ]
    options = ("red", "green", "blue", "grey")
    said, confidences = random.integers(4, size=num_rows), random.random(num_rows).round(2).tolist()
    choices = [
        PredictionRow(**one, label=options[n % 4], labels=(options[n % 4],), prediction=options[said[n]],
                      options=options, confidence=confidences[n])
        for n, one in enumerate(shared)
    ]  # fmt: skip
    judged = ("correct", "incorrect", None)
    statements = [
        PredictionRow(**one, label="correct" if n % 2 else "incorrect", prediction=judged[said[n] % 3])
        for n, one in enumerate(shared)
    ]
    alone = [{"instance_id": str(n), "record_id": str(n)} for n in range(num_rows)]
    named = [tuple(labels[i] for i in random.permutation(8)[:3]) for _ in range(num_rows)]
    rankings = [
        PredictionRow(**one, label=None, prediction=None, labels=labels[:3], predictions=some)
        for one, some in zip(alone, named)
    ]
    texts = [make_reason(labels, random) for _ in range(num_rows)]
    reasons = [
        PredictionRow(**one, label=labels[n % 8], prediction=labels[n % 7], reference=texts[(n + 1) % num_rows],
                      answer=f"Predict emotion: {labels[n % 7]}. Reason: {texts[n]}",
                      slices={"attributes.scene": "street", "attributes.object": "lamp, dog"})
        for n, one in enumerate(alone)
    ]  # fmt: skip
    varied = BenchmarkSettings(dataset="any", option_orders=("fixed", "reversed"), personas=("none", "child"))
    variants = [
        PredictionRow(instance_id=f"{n}#{variant.name}", record_id=str(n), label=labels[n % 8], variant=variant.name,
                      prediction=labels[(n + place * (n % 3)) % 8])
        for place, variant in enumerate(varied.variants) for n in range(num_rows // 4)
    ]  # fmt: skip
    families: dict[str, Callable[[], object]] = {
        "multiple choice": lambda: choice_metrics(choices),
        "stated confidence": lambda: stated_confidence(choices),
        "statements": lambda: statement_metrics(statements),
        "rankings": lambda: ranking_metrics(rankings, 8),
        "words on wheels": lambda: word_metrics(rankings, emotion_wheels()),
        "explanations": lambda: explanation_metrics(reasons, get_label_set("mikels8")),
        "reasons": lambda: reason_metrics(reasons, get_label_set("mikels8")),
        "robustness": lambda: robustness_metrics(variants, varied.variants, labels),
    }
    for call in families.values():
        call()  # patterns and tables are made once
    return {name: round(min(seconds_of(call) for _ in range(repeats)), 2) for name, call in families.items()}


# What the three sentences of a reason are made of.
SUBJECTS = ("a man", "a woman", "two children", "an old couple", "a crowd", "a dog", "a girl in a red coat")
ACTIONS = ("stands in", "walks along", "looks over", "sits beside", "runs through", "waits near")
PLACES = ("a dark street", "an empty beach", "a crowded market", "a green field", "a quiet lake", "an old church")
LIGHTS = ("The dim light", "The warm sunlight", "The grey sky", "The strong contrast", "The heavy shadow")
MOODS = ("creates a tense mood", "makes the scene feel peaceful", "gives a sense of dread", "draws the eye inwards")
FEELINGS = ("hope", "joy", "unease", "calm")
CAUSES = ("because nobody else is around", "since help seems far away", "as everyone shares the moment")


def make_reason(labels: Sequence[str], random: np.random.Generator) -> str:
    """About 30 words in three sentences, as tuned models write them: what is there, its mood, and the emotion."""
    who, does, where, light, mood, label, feeling, why = (
        some[random.integers(len(some))]
        for some in (SUBJECTS, ACTIONS, PLACES, LIGHTS, MOODS, labels, FEELINGS, CAUSES)
    )
    return f"{who.capitalize()} {does} {where}. {light} {mood}. Viewers may feel {label} or {feeling} {why}."


def seconds_of(call: Callable[[], object]) -> float:
    """Processor time of a call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def make_rows(labels: Sequence[str], num_rows: int, seed: int, like_seed: int | None = None) -> list[PredictionRow]:
    """Random rows with all kinds of truth and prediction; `like_seed` reuses the truth of another seed's rows."""
    truth = np.random.default_rng(seed if like_seed is None else like_seed)
    true_N = truth.integers(len(labels), size=num_rows)
    votes_NC = truth.dirichlet(np.ones(len(labels)), size=num_rows)
    numbers_N2, units_NU = truth.uniform(-1, 1, size=(num_rows, 2)), truth.integers(0, 6, size=(num_rows, len(UNITS)))
    predicted = np.random.default_rng([seed, 1])
    scores_NC = predicted.normal(size=votes_NC.shape)
    scores_NC[np.arange(num_rows), true_N] += 1.5
    best_N = scores_NC.argmax(axis=1)
    predicted_N2 = np.clip(numbers_N2 + predicted.normal(scale=0.3, size=numbers_N2.shape), -1, 1)
    predicted_NU = np.clip(units_NU + predicted.integers(-1, 2, size=units_NU.shape), 0, 5)
    names = ["valence", "arousal", *(f"AU{unit}" for unit in UNITS)]
    return [
        PredictionRow(
            instance_id=str(n),
            record_id=str(n),
            label=labels[true_N[n]],
            prediction=labels[best_N[n]] if n % 50 else None,
            scores=dict(zip(labels, scores_NC[n].tolist())),
            votes=dict(zip(labels, votes_NC[n].tolist())),
            true_values=dict(zip(names, [*numbers_N2[n].tolist(), *map(float, units_NU[n])])),
            values=dict(zip(names, [*predicted_N2[n].tolist(), *map(float, predicted_NU[n])])),
            slices={"person": str(n % 400)},
        )
        for n in range(num_rows)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
