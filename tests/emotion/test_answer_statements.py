"""Reading judgements of statements.

- Judgements in many forms are read; a denial turns them around; what judges nothing, half or both ways is not read.
- Strings that a published reader takes for "correct" are not.
"""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.answer_statements import read_statement


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Correct", "correct"),
        ("incorrect.", "incorrect"),
        ("**Incorrect**", "incorrect"),
        ("Yes", "correct"),
        ("No.", "incorrect"),
        ("false", "incorrect"),
        ("Right.", "correct"),
        ("This statement is true.", "correct"),
        ("I would say it's wrong", "incorrect"),
        ("The statement is not correct.", "incorrect"),
        ("No, that's not true.", "incorrect"),
        ("Yes, the statement is not wrong.", "correct"),
        ("That is not entirely accurate.", "incorrect"),
        ("The statement does not correctly describe the image.", "incorrect"),
        ("The statement is incorrect because the image shows joy.", "incorrect"),
        ("<think>It may be correct.</think><answer>Incorrect</answer>", "incorrect"),
        ("\\boxed{Correct}", "correct"),
        ("B) Incorrect", "incorrect"),
        ("Correct or incorrect? Correct.", "correct"),
        ("The right side of the image is dark, so it is false.", "incorrect"),
        ("No doubt, it is correct.", "correct"),
    ],
)
def test_judgements_are_read(text, label):
    assert vars(read_statement(text)) == {"label": label, "status": "ok"}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        # The reader of MVEI's public evaluation takes the first three for "correct".
        ("Answer: B", "invalid"),
        ("An image that fits", "invalid"),
        ("Amusement", "invalid"),
        ("", "invalid"),
        ("correct/incorrect", "invalid"),
        ("The man is on the right.", "invalid"),
        ("The image shows true joy.", "invalid"),
        ("No emotion is evoked.", "invalid"),
        ("The statement is partially correct.", "ambiguous"),
        ("Neither correct nor incorrect.", "ambiguous"),
        ("Yes, it is false.", "ambiguous"),
        ("I cannot judge this.", "refused"),
        ("I'm sorry, but I can't help with that.", "refused"),
    ],
)
def test_what_judges_nothing_is_not_read(text, status):
    assert vars(read_statement(text)) == {"label": None, "status": status}
