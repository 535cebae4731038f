"""Prompts of benchmarks: custom ones, and presets of published evaluations.

- A prompt is a text, a file, a preset, or its keys; the text is written out, so that a changed file is noticed.
- Every preset has a place for the options, a source, terms, and what differs; the facts of each are in the question:
  order and form of the list, answer prefix, decoding, and reading.
- A prompt without a place for the options, with other placeholders, or for a kind without one is refused, all at once.
- Rows have the hash of what was asked; another text, order of options or answer prefix changes it.
- The published rules of reading agree with answers that were read by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Variant
from lavis_emovit.evaluation.metrics.original_rule import read_emotion_in_tag
from lavis_emovit.evaluation.prompt_settings import preset_names
from lavis_emovit.evaluation.questions import prompt_sha256, questions_about
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import parse_settings

MIKELS8 = get_label_set("mikels8")
RECORD = EmotionRecord(id="r/1", image="a.png", split="test", source="s", label_set="mikels8")


def _benchmark(**values):
    settings, problems = parse_settings(BenchmarkSettings, {"dataset": "x", **values}, "b")
    assert not problems, problems
    return settings


def _asked(settings, method="generation"):
    (question,) = questions_about(RECORD, Truth(), settings, settings.variants[0], method, MIKELS8)
    return question


def test_a_prompt_is_a_text_a_file_a_preset_or_its_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("Feeling? {options}\n")
    Path("mine.yaml").write_text(
        yaml.safe_dump({"text": "Mood: {options}", "separator": "|", "last_separator": " or "})
    )
    assert _asked(_benchmark(prompt="Which one: {options}?")).text == f"Which one: {', '.join(MIKELS8.labels)}?"
    of_file = _benchmark(prompt="mine.txt")
    assert _asked(of_file).text == f"Feeling? {', '.join(MIKELS8.labels)}"
    assert of_file.prompt.name == "mine.txt"
    listed = _asked(_benchmark(prompt="mine.yaml", option_orders=["reversed"])).text
    assert listed == "Mood: sadness|fear|excitement|disgust|contentment|awe|anger or amusement"
    # A preset with the original text, which cannot ship.
    Path("original.txt").write_text("The original one:{options}")
    original = _benchmark(prompt={"preset": "emovit", "file": "original.txt"})
    assert _asked(original).text == f"The original one:{', '.join(MIKELS8.labels)}"
    assert original.prompt.name == "emovit, text of original.txt" and original.prompt.repetition_penalty == 5.0
    free = _benchmark(prompt="How does this feel? Predict emotion:", with_options=[False])
    assert _asked(free).text == "How does this feel? Predict emotion:"
    # Settings that are written out and read back ask the same, without the file.
    Path("mine.txt").unlink()
    again = _benchmark(**of_file.model_dump(mode="json"))
    assert again == of_file and _asked(again) == _asked(of_file)


@pytest.mark.parametrize(
    ("text", "prefix"), [("Predict emotion: <x> of {options}", "Predict emotion: "), ("{options}", "")]
)
def test_candidates_come_after_the_prefix_that_the_text_asks_for(text, prefix):
    assert _asked(_benchmark(prompt=text), "likelihood").answer_prefix == prefix
    own = _benchmark(prompt={"text": text, "answer_prefix": "It is "})
    assert _asked(own, "likelihood").answer_prefix == "It is "
    assert _asked(_benchmark(prompt=text), "likelihood").candidates == MIKELS8.labels


def test_presets_have_the_facts_of_what_they_describe():
    assert set(preset_names()) == {"emovit", "instructblip", "vecbench"}
    presets = {name: _benchmark(prompt=name) for name in preset_names()}
    for name, settings in presets.items():
        prompt = settings.prompt
        assert prompt.name == name and prompt.lists_options
        assert min(map(len, (prompt.source, prompt.licence, prompt.differs))) > 60, name
    emovit = _asked(presets["emovit"])
    # The labels in alphabetical order, right behind the colon; a fixed beginning of the answer.
    assert ":amusement, anger, awe, contentment, disgust, excitement, fear, sadness." in emovit.text
    assert "Predict emotion:" in emovit.text and emovit.max_new_tokens == 256
    assert dict(emovit.decoding) == {"num_beams": 1, "repetition_penalty": 5.0}
    assert _asked(presets["emovit"], "likelihood").answer_prefix == "Predict emotion: "
    instructblip = _asked(presets["instructblip"])
    assert "(a) amusement (b) anger (c) awe" in instructblip.text and instructblip.text.endswith("Short answer:")
    assert dict(instructblip.decoding) == {"num_beams": 5, "repetition_penalty": 1.5, "length_penalty": 1.0}
    assert presets["instructblip"].option_marks == ("letters",)
    assert _benchmark(prompt="instructblip", option_marks=["numbers"]).option_marks == ("numbers",)
    vecbench = _asked(presets["vecbench"])
    assert all(f"<{tag}></{tag}>" in vecbench.text for tag in ("think", "answer", "confidence"))
    assert vecbench.max_new_tokens == 1024 and not vecbench.decoding
    assert _asked(_benchmark(prompt="vecbench", max_new_tokens=9)).max_new_tokens == 9


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"prompt": "What is it?"}, "'text' has no place for the options; write {options} where the labels"),
        ({"prompt": "{options}", "with_options": [True, False]}, "lists the options, so with_options must be [true]"),
        ({"prompt": "{options} {label}"}, "has {label}, but the placeholders are {options}, {question}, {statement}"),
        ({"prompt": "{options} {options}"}, "has {options} 2 times; keep one"),
        ({"prompt": "emovitt"}, "neither a preset (did you mean 'emovit'?) nor a file"),
        ({"prompt": {"preset": "emo"}}, "there is no preset 'emo'"),
        ({"prompt": "none.txt"}, "none.txt: the prompt file cannot be read (No such file or directory)"),
        ({"prompt": {"text": "{options}", "file": "a.txt"}}, "has both 'text' and 'file'"),
        ({"prompt": {"text": "{options}", "beams": 3}}, "b.prompt.beams: unknown key (did you mean 'num_beams'?)"),
        ({"prompt": "{options}", "wordings": [2]}, "it replaces the wordings; remove `wordings`"),
        ({"prompt": "{options}", "kind": "valence_arousal"}, "kind 'valence_arousal' has questions of its own"),
        ({"prompt": "{options}", "kind": "caption"}, "kind 'caption' has none to list"),
        ({"prompt": "{options}", "kind": "choice"}, "'text' has no {question}, which kind 'choice' needs"),
        ({"prompt": "{question}", "kind": "choice"}, "'text' has no {options}, which kind 'choice' needs"),
        ({"prompt": "Is {question}?", "kind": "statement"}, "'text' has no {statement}, which kind 'statement' needs"),
        ({"prompt": "{options} {question}"}, "has {question}, which kind 'emotion' does not have"),
        ({"prompt": "{options}", "confidence": True}, "set `confidence` of the prompt instead"),
    ],
)  # fmt: skip
def test_prompts_that_cannot_be_asked_are_refused(values, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, problems = parse_settings(BenchmarkSettings, {"dataset": "x", **values}, "b")
    assert settings is None and problem in "; ".join(problems)


def test_all_faults_of_a_suite_are_refused_at_once():
    benchmarks = {
        "first": {"dataset": "emoset", "prompt": "What is it?", "wordings": [9]},
        "second": {"dataset": "emoset", "prompt": "emovitt"},
        "third": {"dataset": "emoset", "prompt": "{options}", "kind": "action_units"},
    }
    suite = {"name": "s", "output_dir": "o", "models": {"m": {"adapter": "prior"}}, "benchmarks": benchmarks}
    settings, problems = parse_settings(SuiteSettings, suite, "suite")
    assert settings is None and len(problems) == 3
    assert "no place for the options" in problems[0] and "numbered 1 to 4" in problems[0]
    assert "remove `wordings`" in problems[0]
    assert problems[1].startswith("suite.benchmarks.second.prompt: ") and "action_units" in problems[2]


def test_the_hash_of_a_prompt_changes_with_what_is_asked():
    variant = Variant(1, "fixed")
    plain = _benchmark()
    asked = [
        (plain, variant, "likelihood", MIKELS8),
        (plain, variant, "generation", MIKELS8),
        (plain, Variant(2, "fixed"), "likelihood", MIKELS8),
        (plain, Variant(1, "reversed"), "likelihood", MIKELS8),
        (plain, variant, "likelihood", get_label_set("emotion6")),
        (_benchmark(subject="face"), variant, "likelihood", MIKELS8),
        (_benchmark(prompt="A: {options}"), variant, "likelihood", MIKELS8),
        (_benchmark(prompt={"text": "A: {options}", "answer_prefix": "x "}), variant, "likelihood", MIKELS8),
        (_benchmark(prompt={"text": "A: {options}", "separator": ";"}), variant, "likelihood", MIKELS8),
    ]
    hashes = [prompt_sha256(*one) for one in asked]
    assert len(set(hashes)) == len(hashes) and all(len(one) == 64 for one in hashes)
    assert prompt_sha256(*asked[0]) == hashes[0]
    # What describes a prompt does not change it.
    described = _benchmark(prompt={"text": "A: {options}", "source": "me", "name": "mine", "reading": "first_line"})
    assert prompt_sha256(described, variant, "likelihood", MIKELS8) == hashes[6]
    assert described.prompt.sha256 == asked[6][0].prompt.sha256 != asked[8][0].prompt.sha256


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("<think>anger, fear</think><answer>Fear</answer><confidence>0.9</confidence>", "fear"),
        # In the order of the labels, as a substring.
        ("<answer>fear and awe</answer>", "awe"),
        ("<answer>danger</answer>", "anger"),
        ("no tag, but some sadness", "sadness"),
        ("<answer>joy</answer> or fear", None),
        ("<answer></answer> fear", "fear"),
        ("<answer>\nfear\n</answer> not awe", "awe"),
        ("nothing", None),
    ],
)
def test_answers_in_a_tag_are_read_by_the_published_rule(text, label):
    assert read_emotion_in_tag(text, MIKELS8.labels) == label


def test_the_presets_can_be_copied_into_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = _benchmark(prompt="instructblip").prompt.model_dump(mode="json")
    Path("copy.yaml").write_text(yaml.safe_dump({**values, "text": "Q: {options}."}))
    copied = _benchmark(prompt="copy.yaml")
    assert copied.option_marks == ("letters",) and copied.prompt.num_beams == 5
    assert json.loads(json.dumps(copied.model_dump(mode="json")))["prompt"]["text"] == "Q: {options}."
