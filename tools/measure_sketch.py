"""Measure how well drawn facts of the sample set predict the emotion, for the tables in docs/sample_set.md.

    python tools/measure_sketch.py            # print the tables
    python tools/measure_sketch.py --write    # write them into docs/sample_set.md
    python tools/measure_sketch.py --check    # exit with 1 if the page is not up to date

The scenes are sampled with a fixed seed, so the numbers are the same on every machine. The run takes a few seconds.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

from lavis_emovit.sample_set.scene import FACT_VALUES, SketchScene, emotion_of, sample_scene, scene_facts
from lavis_emovit.sample_set.vocabulary import CUE_WEIGHTS, EMOTIONS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sample_set.md"
NUM_SCENES = 5000
# The rule is applied to each of these groups of facts.
GROUPS: dict[str, tuple[str, ...]] = {
    "face: expression, mouth, tears": ("expression", "mouth", "tears"),
    "person: face, who, action, view": ("expression", "mouth", "tears", "who", "action", "view"),
    "surroundings: place, objects, air": ("place", "object", "second_object", "air"),
    "light and colour": ("brightness", "saturation", "colour"),
    "EmoSet's annotations of content: expression, action, place, objects": (
        "expression", "action", "place", "object", "second_object",
    ),
    "all facts": tuple(FACT_VALUES),
}  # fmt: skip


def single_fact_accuracy(train: list[SketchScene], test: list[SketchScene]) -> dict[str, float]:
    """Test accuracy of each fact alone. The prediction is the most frequent emotion of its value in `train`."""
    accuracy = {}
    for name in FACT_VALUES:
        table: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for scene in train:
            table[getattr(scene, name)][scene.emotion] += 1
        best = {value: counts.most_common(1)[0][0] for value, counts in table.items()}
        accuracy[name] = sum(best.get(getattr(scene, name)) == scene.emotion for scene in test) / len(test)
    return accuracy


def group_accuracy(test: list[SketchScene]) -> dict[str, float]:
    """Accuracy of the rule with each group of facts."""
    accuracy = {}
    for title, names in GROUPS.items():
        hits = sum(emotion_of({name: scene_facts(scene)[name] for name in names}) == scene.emotion for scene in test)
        accuracy[title] = hits / len(test)
    return accuracy


def accuracy_tables() -> str:
    """Both accuracy tables as Markdown."""
    rng = random.Random("measure_sketch")
    scenes = [sample_scene(rng) for _ in range(2 * NUM_SCENES)]
    train, test = scenes[:NUM_SCENES], scenes[NUM_SCENES:]
    lines = ["| one fact | accuracy |", "|---|---|"]
    single = single_fact_accuracy(train, test)
    lines += [f"| {name} | {value:.2f} |" for name, value in sorted(single.items(), key=lambda item: -item[1])]
    lines += ["", "| several facts, by the rule | accuracy |", "|---|---|"]
    lines += [f"| {title} | {value:.2f} |" for title, value in group_accuracy(test).items()]
    return "\n".join(lines)


def cue_table() -> str:
    """The weights of all facts for each emotion as Markdown."""
    lines = ["| emotion | facts (weight) |", "|---|---|"]
    for emotion in EMOTIONS:
        cells = []
        for cue, rows in CUE_WEIGHTS.items():
            found = [(value, row[emotion]) for value, row in rows.items() if row.get(emotion)]
            found.sort(key=lambda item: -item[1])
            if found:
                cells.append(f"**{cue}** " + ", ".join(f"{value} {weight:g}" for value, weight in found))
        lines.append(f"| {emotion} | {'; '.join(cells)} |")
    return "\n".join(lines)


def fill_page(text: str) -> str:
    """The page with updated tables between its markers."""
    for name, content in (("accuracy", accuracy_tables()), ("cues", cue_table())):
        begin, end = f"<!-- {name}: begin, by tools/measure_sketch.py -->", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the tables into docs/sample_set.md")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the page is not up to date")
    arguments = parser.parse_args()
    if not arguments.write and not arguments.check:
        print(f"{accuracy_tables()}\n\n{cue_table()}")
        return 0
    current = PAGE.read_text(encoding="utf-8")
    updated = fill_page(current)
    if arguments.write:
        PAGE.write_text(updated, encoding="utf-8")
    elif updated != current:
        print(f"{PAGE} is not up to date; run: python tools/measure_sketch.py --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
