"""Answer templates.

Properties:
- `take_apart` reads back what `write` wrote, for every template and any text without marks;
- an answer is complete only if every part is there once, in order, with a text and nothing around; else the reason is
  given, and the parts that were found are given, too;
- the instruction shows every mark of the template in its order, so that an answer that follows it is complete;
- the generic readers find the result of an answer of every template, and ignore marks inside the reasoning.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.emotion.templates import (
    BOXED,
    TEMPLATES,
    answer_text,
    confidence_text,
    get_template,
    reasoning_text,
    whole_text,
)
from lavis_emovit.errors import DataError

TEXT = st.text(st.characters(blacklist_characters="<>{}\\", blacklist_categories=("Cs",)), min_size=1).filter(str.strip)
EMO_R3 = r"<step1>a storm</step1> <step2>small</step2> <step3>negative, excited</step3> \boxed{fear}"


@pytest.mark.parametrize("name", TEMPLATES)
@given(data=st.data())
def test_round_trip(name, data):
    template = TEMPLATES[name]
    contents = {part: data.draw(TEXT) for part in template.part_names}
    found = template.take_apart(template.write(contents))
    assert found.status == "complete"
    assert dict(found.parts) == {part: text.strip() for part, text in contents.items()}


@pytest.mark.parametrize("name", TEMPLATES)
@given(text=st.text(max_size=80) | st.from_regex(r"(</?(think|answer|step1)>|\\boxed\{|\}|a| ){0,12}", fullmatch=True))
def test_any_text_is_taken_apart(name, text):
    found = TEMPLATES[name].take_apart(text)
    assert (found.status == "complete") == (found.problem is None)
    if found.status == "complete":
        assert set(found.parts) == set(TEMPLATES[name].part_names) and all(found.parts.values())
    for read in (answer_text, reasoning_text, whole_text):
        assert isinstance(read(text), str)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("direct", "  ", "it is empty"),
        ("think_answer", "<think>a</think><answer>awe</answer>", None),
        ("think_answer", "<think>a</think>", "<answer> is missing"),
        ("think_answer", "<think>a</think><answer>awe", "</answer> is missing"),
        ("think_answer", "<think>a</think><answer>awe</answer><answer>fear</answer>", "<answer> occurs 2 times"),
        ("think_answer", "<answer>awe</answer><think>a</think>", "its marks are in another order"),
        ("think_answer", "<think>a<answer>awe</answer></think>", "its marks are in another order"),
        ("think_answer", "<think> </think><answer>awe</answer>", "part 'reasoning' is empty"),
        ("think_answer", "So: <think>a</think><answer>awe</answer>", "text outside its parts: 'So:'"),
        ("think_answer", "<think>a</think><answer>awe</answer> Done.", "text outside its parts: 'Done.'"),
        ("emo_r3", EMO_R3, None),
        ("emo_r3", EMO_R3 + EMO_R3, "<step1> occurs 2 times"),
        ("emo_r3", EMO_R3.replace("boxed", "fbox"), r"\boxed{} is missing"),
        ("emo_r3", EMO_R3.replace("{fear}", "{}"), "part 'answer' is empty"),
    ],
)
def test_status(name, text, problem):
    found = get_template(name).take_apart(text)
    assert found.problem is problem if problem is None else found.problem.startswith(problem)


def test_malformed_answers_still_have_parts():
    found = get_template("think_answer").take_apart("<think>dark sky</think> well <answer>awe</answer><answer>fear")
    assert found.status == "malformed"
    assert dict(found.parts) == {"reasoning": "dark sky", "answer": "awe\nfear"}
    assert get_template("emo_r3").take_apart(EMO_R3).parts["trigger"] == "a storm"


def test_nested_parts():
    template = get_template("emocaliber")
    text = template.write({name: f"the {name}" for name in template.part_names})
    assert template.take_apart(text).parts["human"] == "the human"
    assert (
        template.take_apart(text.replace("<element>", "Look: <element>")).problem == "text outside its parts: 'Look:'"
    )
    assert template.take_apart(text.replace("<human>the human</human>", "")).problem == "<human> is missing"


@pytest.mark.parametrize("name", TEMPLATES)
def test_instructions_show_the_form(name):
    template = TEMPLATES[name]
    form = template.instruction().partition("\n")[2]
    assert bool(form) == (name != "direct")
    if form:
        assert template.take_apart(form).status == "complete"
        assert all(leaf.content in form for leaf in template.leaves)


def test_write_refuses():
    with pytest.raises(DataError, match="template 'think_answer' has the parts reasoning, answer, got answer"):
        get_template("think_answer").write({"answer": "awe"})
    with pytest.raises(DataError, match=r"<answer> occurs 2 times; a part must not contain marks"):
        get_template("think_answer").write({"reasoning": "x <answer>", "answer": "awe"})
    with pytest.raises(DataError, match=r"unknown answer template 'emo_r4' .did you mean 'emo_r3'"):
        get_template("emo_r4")


@pytest.mark.parametrize(
    ("text", "answer", "reasoning"),
    [
        ("awe", "awe", ""),
        ("Predict emotion: awe", "Predict emotion: awe", ""),
        ("<think>not fear</think><answer>awe</answer>", "awe", "not fear"),
        ("<think>not fear</think> awe", "awe", "not fear"),
        ("<think>maybe <answer>fear</answer></think><answer>awe</answer>", "awe", None),
        ("<think>cut off, fear", "", "cut off, fear"),
        ("<think>no end <answer>awe</answer>", "awe", "no end"),
        ("<answer>awe</answer><answer>fear</answer>", "awe\nfear", ""),
        ("<answer>awe", "awe", ""),
        (EMO_R3, "fear", "a storm   small   negative, excited"),
        (r"so \boxed{\text{awe}} it is", r"\text{awe}", "so   it is"),
        ("<think>a</think><answer>awe</answer><confidence>0.9</confidence>", "awe", "a"),
    ],
)
def test_generic_readers(text, answer, reasoning):
    assert answer_text(text) == answer
    if reasoning is not None:
        assert re.sub(r"\s+", " ", reasoning_text(text)) == re.sub(r"\s+", " ", reasoning)


def test_confidence():
    assert confidence_text("awe") is None
    assert confidence_text("<think><confidence>0.1</confidence></think><confidence> 0.9 </confidence>") == "0.9"
    assert confidence_text("<confidence>0.9</confidence><confidence>0.1</confidence>") == "0.9\n0.1"


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_result_is_found_in_every_template(name):
    template = TEMPLATES[name]
    text = template.write({part: "awe" if part == "answer" else "0.5" for part in template.part_names})
    assert answer_text(text) == "awe"
    assert not any(leaf.opens in whole_text(text) for leaf in template.leaves if leaf.tag not in ("", BOXED))
