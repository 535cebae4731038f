"""Checks of generated pairs.

- A question with the label or an inflection of it reveals the label; other words, and lists of all labels, do not.
- An answer that claims an emotion of the opposite polarity contradicts the label; a denial or the same polarity does
  not.
- Other languages, mentions of captions and scores, self-reference, wrong lengths and non-questions are reported.
- Near-duplicates are found regardless of punctuation; texts with different content are not near-duplicates.
- The worked examples of the prompts pass all checks and contain several emotions.
"""

from __future__ import annotations

import itertools
import json

import pytest

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import DESCRIPTION_QUESTIONS, EXPLANATION_QUESTIONS
from lavis_emovit.errors import UserError
from lavis_emovit.generation.checks import REASONS, NearDuplicates, check_pair, is_english, leaks_label
from lavis_emovit.generation.facts import ALL_FACTS, facts_text
from lavis_emovit.generation.kinds import KINDS
from lavis_emovit.generation.prompts import example_record, examples, load_prompt
from lavis_emovit.generation.reading import Pair

MIKELS = get_label_set("mikels8")
ANSWER = "The man looks down, and the room behind him is empty and dark, so one feels for him at once."
QUESTION = "What does the room tell about the man?"


def failed(question=QUESTION, answer=ANSWER, label="sadness", kind="conversation"):
    return check_pair(Pair(question, answer), KINDS[kind], label, MIKELS)


def test_a_good_pair_passes():
    assert failed() == []
    assert check_pair(Pair(QUESTION, ANSWER), KINDS["conversation"], None, None) == []


@pytest.mark.parametrize(
    ("question", "label", "leaks"),
    [
        ("Why is the man so sad?", "sadness", True),
        ("What explains the SADNESS here?", "sadness", True),
        ("What saddens him?", "sadness", True),
        ("What's so amusing about it?", "amusement", True),
        ("Why do people find it awe\u2019s best example?", "awe", True),
        ("Why is the man so sad?", "fear", False),
        ("Where is the danger?", "anger", False),
        ("Is it awesome?", "awe", False),
        ("What is the content of the box?", "sadness", False),
        (f"Which of these fits: {', '.join(MIKELS.labels)}?", "sadness", False),
    ],
)
def test_leaks(question, label, leaks):
    answer = "It is the whole of the scene that does it."
    assert ("label_leak" in failed(question, answer, label)) == leaks


@pytest.mark.parametrize(
    ("question", "label"),
    [
        ("What makes this scene high-arousal?", "high-arousal"),
        ("What makes this a high arousal scene?", "high-arousal"),
        ("Why does the man look sad (mild)?", "sad (mild)"),
        ("Why would people call it fear/anxiety?", "fear/anxiety"),
    ],
)
def test_labels_with_punctuation_leak(question, label):
    labels = get_label_set("labels:high-arousal, sad (mild), fear/anxiety, calm")
    assert leaks_label(question, label, labels) and not leaks_label(question, "calm", labels)


@pytest.mark.parametrize(
    ("answer", "label", "contradicts"),
    [
        ("The child is full of joy and excitement.", "sadness", True),
        ("This evokes contentment.", "fear", True),
        ("There is no excitement here at all.", "sadness", False),
        ("One may feel anger about it.", "sadness", False),  # the same polarity
        ("It leads to sadness.", "sadness", False),
        ("An amusement park lies at the river.", "fear", False),
        ("A red chair.", "sadness", False),
    ],
)
def test_contradictions(answer, label, contradicts):
    assert ("contradicts_label" in failed(answer=answer, label=label)) == contradicts
    explained = f"Predict emotion: {label}. Reason: {answer}"
    assert ("contradicts_label" in failed(answer=explained, label=label, kind="explanation")) == contradicts


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": "According to the caption, a man sits there."}, "mentions_source"),
        ({"answer": "The brightness of 0.3 makes it dark."}, "mentions_source"),
        ({"question": "What do the attributes say about the light?"}, "mentions_source"),
        ({"answer": "The provided emotion is what one feels."}, "mentions_source"),
        ({"answer": "As an AI language model, I see a man."}, "talks_about_itself"),
        ({"answer": "A man sits there. Let me know if you need more!"}, "talks_about_itself"),
        ({"answer": "Der Mann sitzt allein in einem dunklen Zimmer und wartet auf jemanden."}, "not_english"),
        ({"answer": "\u7537\u4eba\u5750\u5728\u623f\u95f4\u91cc\u3002"}, "not_english"),
        ({"answer": "Yes. " * 300}, "too_long"),
        ({"answer": "A man sits.", "kind": "reasoning"}, "too_short"),
        ({"question": "The man."}, "not_a_question"),
    ],
)
def test_other_reasons(change, reason):
    assert reason in failed(**change)
    assert reason in REASONS


@pytest.mark.parametrize("kind", KINDS)
def test_answers_fit_into_what_training_reads(kind):
    """256 tokens (`model.max_output_txt_len`), at 1.35 tokens a word; one word more is refused."""
    most = KINDS[kind].words[1]
    assert most * 1.35 <= 257
    assert "too_long" not in failed(answer="The dog. " * (most // 2), kind=kind)
    assert "too_long" in failed(answer="The dog. " * (most // 2 + 1), kind=kind)


def test_english():
    assert is_english("A caf\u00e9 in Malm\u00f6.") and is_english("Two dogs.")
    assert not is_english("123") and not is_english("\u0421\u043e\u0431\u0430\u043a\u0430.")


def test_near_duplicates():
    found = NearDuplicates()
    base = (
        "What is the man doing? He sits at a long table in a dark room, and looks at the empty chair in front of him."
    )
    assert not found.seen(base)
    assert found.seen(base.upper().replace(",", ""))
    assert found.seen(base.replace("What is", "What's is"))
    assert not found.seen(base.replace("man", "dog").replace("table", "river").replace("dark room", "wide field"))
    texts = [f"Picture {n} shows a {a} and a {b}." for n, (a, b) in enumerate([("cat", "bus"), ("oak", "pen")] * 1)]
    assert not any(found.seen(text) for text in texts)


def test_examples_pass_all_checks():
    assert len({example["emotion"] for example in examples()}) == len(examples()) >= 5
    for example in examples():
        record = example_record(example)
        for name, kind in KINDS.items():
            reading = kind.read(json.dumps(example["replies"][name]), record)
            assert len(reading.pairs) == kind.num_pairs and not reading.problems
            for pair in reading.pairs:
                assert check_pair(pair, kind, record.emotion, MIKELS) == [], (example["emotion"], name, pair)
    for question in (*DESCRIPTION_QUESTIONS, *itertools.chain(*EXPLANATION_QUESTIONS.values())):
        assert not any("label_leak" in failed(question, label=label) for label in MIKELS.labels)


def test_prompts():
    for name in (*KINDS, "caption", "attributes", "judge", "seke_answers", "seke_review"):
        prompt = load_prompt(name)
        version = 2 if name == "seke_review" else 1
        assert prompt.name == f"{name}/{version}" and "JSON" in prompt.text
    shown = load_prompt("conversation", num_examples=3, seed=1)
    assert shown.text.count("Example ") == 3 and shown.text == load_prompt("conversation", num_examples=3, seed=1).text
    assert shown.text != load_prompt("conversation", num_examples=3, seed=2).text
    # The published scripts do not use the scene.
    record = example_record(examples()[0])
    released = [name for name in ALL_FACTS if name != "scene"]
    assert "place: mountain" in facts_text(record) and "place" not in facts_text(record, released)
    with pytest.raises(UserError, match=r"unknown prompt 'talk' \(available: attributes, caption, conversation"):
        load_prompt("talk")
    with pytest.raises(UserError, match="has 6 examples; 50 were requested"):
        load_prompt("reasoning", num_examples=50)
