"""Measure how fast the readers of answers are: labels (`read_emotion`) and options (`read_choice`).

    python tools/bench/readers.py
    python tools/bench/readers.py --before HEAD~20

The answers have the length of those that large chat models write when asked for an emotion and a reason: about 46
words. A third announces the label or option at the beginning, a third names it in the last sentence, a third inside a
sentence. The result comes from the processor time of one thread, the minimum of several repeats. With `--before`, the
label reader of an earlier commit reads the same answers; it also read options, as marks of labels.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

LABELS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
REASONS = (
    "The image shows a wide valley under dramatic clouds, where the small figure on the ridge gives a sense of scale. "
    "The warm light on the peaks and the open sky invite the viewer to pause, and the absence of other people makes "
    "the place feel vast and quiet.",
    "Several people laugh around a table with cake and balloons. Their relaxed posture, bright colors and open smiles "
    "suggest a shared joke, and nothing in the scene points to conflict or danger.",
    "An old man sits alone on a bench in the rain, his shoulders lowered and his gaze fixed on the ground. The muted "
    "colors and the empty street around him reinforce the impression of loneliness and loss.",
)
LABEL_FRAMES = (
    "Predicted emotion: {label}. Reason: {reason}",
    "{reason} The dominant emotion evoked by this image is {label}.",
    "The emotion evoked by this image is **{label}**. {reason}",
)
CHOICE_FRAMES = (
    "{mark}: {label}. {reason}",
    "{reason} Therefore, the correct answer is {mark}: {label}.",
    "The emotion that is evoked here is {label}. {reason}",
)
# Runs in a process of its own, so that each side imports its own package.
_SIDE = """
import json, sys, time
from lavis_emovit.emotion.answers import read_emotion
from lavis_emovit.emotion.labels import get_label_set
texts, labels, repeats = json.load(sys.stdin)
mikels = get_label_set("mikels8")
options = tuple(label.lower() for label in labels)
def seconds(read):
    read(texts[0][0])
    best = []
    for kind in texts:
        times = []
        for _ in range(repeats):
            begin = time.process_time()
            for text in kind:
                read(text)
            times.append((time.process_time() - begin) / len(kind))
        best.append(min(times))
    return sum(best) / len(best)
choice, emotion = texts[3:], texts[:3]
texts = emotion
result = {"read_emotion": seconds(lambda text: read_emotion(text, mikels))}
texts = choice
try:
    from lavis_emovit.emotion.answers import read_choice
    shown = tuple(labels)
    result["read_choice"] = seconds(lambda text: read_choice(text, shown))
except ImportError:
    result["read_choice"] = seconds(lambda text: read_emotion(text, mikels, options))
print(json.dumps(result))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--before", help="commit to compare with")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "readers.json")
    arguments = parser.parse_args(argv)
    texts = answers()
    result: dict[str, Any] = {
        "benchmark": "readers",
        "num_answers": sum(map(len, texts)),
        "words_per_answer": round(sum(len(text.split()) for kind in texts for text in kind) / sum(map(len, texts)), 1),
        "answers_per_s": rates(measure(ROOT, texts, arguments.repeats)),
    }
    if arguments.before:
        with tempfile.TemporaryDirectory() as folder:
            archive = subprocess.run(
                ["git", "archive", arguments.before, "lavis_emovit"], cwd=ROOT, capture_output=True, check=True
            )
            subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
            result["before"] = {
                "commit": arguments.before,
                "answers_per_s": rates(measure(Path(folder), texts, arguments.repeats)),
            }
        result["times_faster"] = {
            name: round(rate / result["before"]["answers_per_s"][name], 1)
            for name, rate in result["answers_per_s"].items()
        }
    command = "python tools/bench/readers.py" + (f" --before {arguments.before}" if arguments.before else "")
    result |= {"command": command, **environment_info("lavis_emovit/emotion")}
    write_result(arguments.out, result)
    print(json.dumps({name: result[name] for name in ("answers_per_s", "times_faster") if name in result}, indent=1))
    return 0


def answers() -> list[list[str]]:
    """Six kinds of answers: three that name a label, three that choose an option."""
    kinds = []
    for frames in (LABEL_FRAMES, CHOICE_FRAMES):
        for frame in frames:
            pairs = itertools.product(enumerate(LABELS), REASONS)
            kinds.append(
                [
                    frame.format(label=label.capitalize(), mark="ABCDEFGH"[number], reason=reason)
                    for (number, label), reason in pairs
                ]
                * 10
            )
    return kinds


def measure(package: Path, texts: list[list[str]], repeats: int) -> dict[str, float]:
    """Reader -> seconds for an answer, with the package in a folder."""
    found = subprocess.run(
        [sys.executable, "-c", _SIDE],
        input=json.dumps([texts, [label.capitalize() for label in LABELS], repeats]),
        cwd=package,
        env={"PYTHONPATH": str(package), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout)


def rates(seconds: dict[str, float]) -> dict[str, int]:
    """Answers a second of each reader, and of both on the same answer."""
    return {
        **{name: round(1 / value) for name, value in seconds.items()},
        "both": round(1 / sum(seconds.values())),
    }


if __name__ == "__main__":
    raise SystemExit(main())
