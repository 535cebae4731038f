"""Questions about the visible facts of drawn scenes, with answers; none of them names an emotion."""

from __future__ import annotations

import random

from lavis_emovit.sample_set.scene import SketchScene, scene_facts
from lavis_emovit.sample_set.vocabulary import read_data, words_of

# Wordings of the list of options, for an opening that is a question and for one that begins with "Choose".
_QUESTION_FORMS = (
    "{opening}: {options}?",
    "{opening}? Options: {options}.",
    "{opening}? Answer with one of: {options}.",
    "{opening}? Choose from this list: {options}.",
)
_CHOOSING_FORMS = (
    "{opening}: {options}.",
    "{opening}. Options: {options}.",
    "{opening}. Answer with one of: {options}.",
    "{opening} from this list: {options}.",
)
# There are no questions about these where nobody is visible, or the person is too far away.
_FACTS_OF_A_PERSON = ("action", "mouth", "eyes", "brows")


def questions(scene: SketchScene, rng: random.Random) -> list[tuple[str, str]]:
    """(question, answer) pairs in random order: for each visible fact an open, a multiple-choice and a yes-no one."""
    facts = scene_facts(scene)
    pairs: list[tuple[str, str]] = []
    for fact, wordings in read_data("questions")["questions"].items():
        value, words = facts[fact], words_of(fact)
        if fact in _FACTS_OF_A_PERSON and value == "none":
            continue
        pairs.append((rng.choice(wordings["open"]), words[value]))
        not_wrong = {value, facts["second_object"]} if fact == "object" else {value}
        if fact in _FACTS_OF_A_PERSON:
            not_wrong.add("none")
        others = [other for other in words if other not in not_wrong]
        options = [words[option] for option in (value, *rng.sample(others, min(len(others), rng.randint(2, 7))))]
        pairs.append((_choice(wordings["choice"], options, rng), words[value]))
        true = rng.random() < 0.5 and value != "none"
        requested = value if true else rng.choice([other for other in others if other != "none"])
        pairs.append((wordings["yes_no"].format(words[requested]), "yes" if true else "no"))
    if facts["mouth"] != "none":
        pairs.append(("Are there tears under the eyes?", facts["tears"]))
    if facts["second_object"] != "none":
        pairs.append(("Which smaller thing is there?", words_of("object")[facts["second_object"]]))
    rng.shuffle(pairs)
    return pairs


def _choice(openings: list[str], options: list[str], rng: random.Random) -> str:
    rng.shuffle(options)
    opening = rng.choice(openings)
    form = rng.choice(_CHOOSING_FORMS if opening.startswith("Choose") else _QUESTION_FORMS)
    return form.format(opening=opening, options=", ".join(options))
