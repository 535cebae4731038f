"""Reading replies of models.

- Numbered, bold, fenced and multi-line questions and answers, "Complex question" in all its forms, and nested JSON
  give exactly their pairs, in order. Drafts in the reasoning before a reply are no pairs.
- Unreadable parts are reported with their text; every word of a pair comes from the reply.
- No text raises an error.
"""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.chat.json_text import find_json
from lavis_emovit.generation.reading import Pair, Reading, read_pairs, read_text

THREE = [Pair("What is there?", "A dog."), Pair("Who is it?", "A man."), Pair("Why so?", "Because of the rain.")]
FORMS = {
    "numbered": "Question 1: What is there?\nAnswer 1: A dog.\nQuestion 2: Who is it?\nAnswer 2: A man.\n"
    "Question 3: Why so?\nAnswer 3: Because of the rain.",
    "complex_on_its_own_line": "Question: What is there?\nAnswer: A dog.\n\nQuestion: Who is it?\nAnswer: A man.\n\n"
    "Complex Question:\nQuestion: Why so?\nAnswer: Because of\nthe rain.",
    "complex_in_the_marker": "**Question:** What is there?\n**Answer:** A dog.\n**Question 2:** Who is it?\n"
    "**Answer 2:** A man.\n**Complex Question:** Why so?\n**Answer:** Because of the rain.",
    "headings": "### Simple Questions\n\n1. Question: What is there?\n   Answer: A dog.\n2. Question: Who is it?\n"
    "   Answer: A man.\n\n---\n\n### Complex Question\n\nWhy so?\n\n### Answer\n\nBecause of the rain.",
    "one_line": "Question: What is there? Answer: A dog. Question: Who is it? Answer: A man. Complex question: Why so? "
    "Answer: Because of the rain.",
    "short_markers": "Q1: What is there?\nA1: A dog.\nQ2: Who is it?\nA2: A man.\nQ3: Why so?\n"
    "A3: Because of the rain.",
    "numbered_questions": "1. What is there?\n- A dog.\n2. Who is it?\n- A man.\n\n3. Why so?\nBecause of the rain.",
    "preamble_and_fence": "Sure, here [1] they are:\n```\nQuestion: What is there?\nAnswer: A dog.\n"
    "Question: Who is it?\nAnswer: A man.\nQuestion: Why so?\nAnswer: Because of the rain.\n```",
    "thoughts": "<think>\nQuestion: no?\nAnswer: no.\n</think>\nQ: What is there?\nA: A dog.\nQ: Who is it?\n"
    "A: A man.\nQ: Why so?\nA: Because of the rain.",
    "json_list": json.dumps([{"question": pair.question, "answer": pair.answer} for pair in THREE]),
    "json_short_keys": json.dumps({"pairs": [{"Q": pair.question, "A": pair.answer} for pair in THREE]}),
    "json_nested_in_a_fence": "Here you are:\n```json\n"
    + json.dumps({
        "simple": [{"question": THREE[0].question, "answer": THREE[0].answer}],
        "more": {"two": {"question": THREE[1].question, "answer": THREE[1].answer}},
        "complex": {"Question": THREE[2].question, "Answer": THREE[2].answer},
    }, indent=2)
    + "\n```\nHave fun!",
    "windows_line_ends": "Question 1: What is there?\r\nAnswer 1: A dog.\r\nQuestion 2: Who is it?\r\n"
    "Answer 2: A man.\r\n"
    "Question 3: Why so?\r\nAnswer 3: Because of the rain.",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    reading = read_pairs(FORMS[form])
    assert reading.pairs == THREE
    assert reading.problems == []


@pytest.mark.parametrize(
    ("escaped", "expected"),
    [
        (r"\ud83d x", "\ufffd x"),
        (r"\uDE00\ud83d", "\ufffd\ufffd"),
        (r"\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
        (r"\\ud83d", r"\ud83d"),
        (r"\\\ud83d", "\\\ufffd"),
    ],
)
def test_half_characters_of_a_reply_can_be_stored(escaped, expected):
    """No file can contain half of a surrogate pair, and a paid reply that stops the run would do so again."""
    for form in ('{"scene": "%s"}', 'Here: {"scene": "%s"} ok', '```json\n{"scene": "%s"}\n```'):
        found = find_json(form % escaped)
        assert found == {"scene": expected}
        assert found["scene"].encode().decode() == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"question":"DRAFT?","answer":"draft"}\n</think>\n{"question":"Why?","answer":"final"}',
        "Question: DRAFT?\nAnswer: draft\n</thinking>\nQuestion: Why?\nAnswer: final",
        '<think>a</think>{"question":"DRAFT?","answer":"draft"}</think>\n```json\n{"question":"Why?","answer":"final"}\n```',
        '[THINK]{"question":"DRAFT?","answer":"draft"}[/THINK]{"question":"Why?","answer":"final"}',
    ],
)
def test_drafts_in_thoughts_are_no_reply(text):
    """Reasoning models often send only the closing tag."""
    assert read_pairs(text) == Reading([Pair("Why?", "final")])
    assert find_json(text) in ({"question": "Why?", "answer": "final"}, None)


@pytest.mark.parametrize(
    "text", ['<think>{"question":"DRAFT?","answer":"draft"}', "Question: DRAFT?\nAnswer: x</think>"]
)
def test_thoughts_without_a_reply_hold_no_pair(text):
    assert not read_pairs(text).pairs and read_text(text, "reason").problems


@pytest.mark.parametrize(
    ("text", "pairs", "problem"),
    [
        ("I like this picture.", 0, "no question and answer found: I like this picture."),
        ("", 0, "no question and answer found"),
        ("Question 1: What?\nQuestion 2: Who?\nAnswer 2: Me.", 1, "a question without answer: What?"),
        ("Answer: Me.\nQuestion: Who?\nAnswer: You.", 1, "an answer without question: Me."),
        ("Question: Who?\nAnswer: You.\nAnswer: Me.", 1, "an answer without question: Me."),
        ("Question: Who?\nAnswer:", 0, "a question without answer: Who?"),
        ('{"simple_1": {"question": "Who?", "answer": "You."}, "complex": {"question": "Why?"}}', 1, "without answer"),
        ('{"question": "Who?", "answer": ["a", "b"]}', 0, "without answer"),
        ('{"question": "Who?", "answer": "  "}', 0, "without answer"),
        ('{"question": "Who?", "answer": "Yo', 0, "no question and answer found"),
        ("1. A dog\n2. A man", 0, "no question and answer found"),
    ],
)
def test_unreadable_replies(text, pairs, problem):
    reading = read_pairs(text)
    assert len(reading.pairs) == pairs
    assert len(reading.problems) == 1 and problem in reading.problems[0]


@pytest.mark.parametrize(
    "text",
    [
        "Question: Is it A or B?\nAnswer: A. It is the first.\nB. is not.",
        "Question: What is it?\nAnswer: A - a - q: letters. The question is hard, the answer long.",
        "Question: What is it?\nAnswer: The sign says:\nquestion everything\nand ask.",
    ],
)
def test_words_that_look_like_markers(text):
    reading = read_pairs(text)
    assert len(reading.pairs) == 1 and not reading.problems
    assert _words(reading.pairs[0].answer) == _words(text.partition("Answer:")[2])


def _words(text):
    return re.findall(r"\w+", text)


_PIECES = st.sampled_from([
    "Question", "Answer", "Complex", " ", "\n", ":", "1", "2.", "**", "?", "```", "{", "}", "[", '"question"',
    '"answer"', '"a"', ",", "Q", "A", "\r", "the dog", "\u2028", "<think>", "</think>", "\ufeff", "###",
])  # fmt: skip


@given(st.lists(_PIECES, max_size=40).map("".join) | st.text(max_size=200))
def test_no_text_raises_and_pairs_come_from_the_text(text):
    reading = read_pairs(text)
    words = " ".join(_words(text))
    for pair in reading.pairs:
        assert pair.question and pair.answer
        for part in (pair.question, pair.answer):
            assert set(_words(part)) <= set(_words(words)) or find_json(text) is not None
    assert reading.pairs or reading.problems
    read_text(text, "caption")


def test_single_texts():
    for text in (
        '{"caption": "A dog."}',
        "A dog.",
        "Caption: A dog.",
        '```json\n{"Caption": "A dog."}\n```',
        '"A dog."',
    ):
        assert read_text(text, "caption").pairs == [Pair("", "A dog.")]
    for text in ("", '{"caption": ""}', '{"title": "x"}', '{"caption": "A d', "[1, 2]"):
        reading = read_text(text, "caption")
        assert not reading.pairs and len(reading.problems) == 1


def test_json_is_not_repaired():
    assert find_json('{"a": 1') is None
    assert find_json("{'a': 1}") is None
    assert find_json('x {"a": {"b": 1}} y') == {"a": {"b": 1}}
    assert find_json("[" * 100_000) is None
    assert find_json("3") is None


Q1, Q2 = '{"question": "Q1?", "answer": "A1"}', '{"question": "Q2?", "answer": "A2"}'


@pytest.mark.parametrize(
    "text",
    [
        f"{Q1}\n{Q2}", f"{Q1},{Q2}", f"Sure:\n{Q1}\n\nand\n{Q2}\nDone.", f"```json\n{Q1}\n```\n```json\n{Q2}\n```",
        f"```\n{Q1}\n{Q2}\n```", f"[1] and [2]: {Q1} {Q2}",
    ],
)  # fmt: skip
def test_every_json_value_of_a_reply_is_read(text):
    assert read_pairs(text) == Reading([Pair("Q1?", "A1"), Pair("Q2?", "A2")])


def test_a_repeated_key_loses_nothing_in_silence():
    reading = read_pairs('{"question": "Q1?", "question": "Q2?", "answer": "A"}')
    assert not reading.pairs and "Q1?" in reading.problems[0]


@pytest.mark.parametrize("text", ['{"caption": "A"} {"caption": "B"}', 'Either {"caption": "A"} or {"caption": "B"}'])
def test_one_of_several_texts_is_not_chosen(text):
    assert not read_text(text, "caption").pairs
    assert find_json(text) is None
    assert find_json('{"caption": "A"} {"caption": "A"}') == {"caption": "A"}
