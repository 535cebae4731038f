"""Reading valence and arousal from answers.

Properties:
- a number counts if it is tied to its name, or if the answer consists of numbers, and only on the scale of the
  question;
- ranges, decimal commas, contradictions and two numbers for one name are ambiguous;
- words, counts, percentages and ratings on other scales give no number;
- no text makes the reader fail.

The answers are written by hand.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_emovit.emotion.answer_numbers import NumberAnswer, read_numbers

INVALID, AMBIGUOUS, REFUSED = "invalid", "ambiguous", "refused"
UNIT, NINE, PERCENT = (-1.0, 1.0), (1.0, 9.0), (0.0, 100.0)

# (answer, scale of the question, (valence, arousal), each a number or a status).
ANSWERS = [
    ("valence: 0.3, arousal -0.2", UNIT, (0.3, -0.2)),
    ("Valence: 0.3, Arousal: -0.2.", UNIT, (0.3, -0.2)),
    ("Valence = 7/9, arousal = 3/9", NINE, (7.0, 3.0)),
    ("Valence = 7/9", UNIT, (INVALID, INVALID)),
    ("valence 7 out of 9; arousal 3 out of 9", NINE, (7.0, 3.0)),
    ("valence: 7/10, arousal 2", NINE, (INVALID, 2.0)),
    ('{"valence": 0.3, "arousal": -0.2}', UNIT, (0.3, -0.2)),
    ('{"valence": "0.3", "arousal": null}', UNIT, (0.3, INVALID)),
    ("{'valence': -1, 'arousal': 1}", UNIT, (-1.0, 1.0)),
    ("**Valence:** 0.3\n**Arousal:** -0.2", UNIT, (0.3, -0.2)),
    ("| Valence | 0.3 |\n| Arousal | -0.2 |", UNIT, (0.3, -0.2)),
    ("- Valence: 0.3\n- Arousal: \u22120.2", UNIT, (0.3, -0.2)),
    ("0.3, -0.2", UNIT, (0.3, -0.2)),
    ("(0.3, -0.2)", UNIT, (0.3, -0.2)),
    ("[0.3, -0.2]", UNIT, (0.3, -0.2)),
    ("0.3 -0.2", UNIT, (0.3, -0.2)),
    ("0.3", UNIT, (INVALID, INVALID)),
    ("0.3, 0.2, 0.1", UNIT, (INVALID, INVALID)),
    ("A valence of 0.3 and an arousal of -0.2", UNIT, (0.3, -0.2)),
    ("The valence is approximately -0.5 and the arousal is around 0.7.", UNIT, (-0.5, 0.7)),
    ("I would rate the valence as 0.4 and the arousal at .6", UNIT, (0.4, 0.6)),
    ("valence score: 0.3; arousal score: 0.1", UNIT, (0.3, 0.1)),
    ("0.3 for valence and -0.2 for arousal", UNIT, (0.3, -0.2)),
    ("0.3 (valence), -0.2 (arousal)", UNIT, (0.3, -0.2)),
    ("a 0.3 in valence and a 0.1 in arousal", UNIT, (0.3, 0.1)),
    ("V: 0.3, A: -0.2", UNIT, (0.3, -0.2)),
    ("V=0.3 A=-0.2", UNIT, (0.3, -0.2)),
    ("v 0.3", UNIT, (INVALID, INVALID)),
    ("Valence: slightly positive (0.3). Arousal: low (-0.4).", UNIT, (0.3, -0.4)),
    ("Valence: slightly negative (0.3). Arousal: low", UNIT, (AMBIGUOUS, INVALID)),
    ("valence: 1.5, arousal: 0", UNIT, (INVALID, 0.0)),
    ("valence: -1.01, arousal: 1", UNIT, (INVALID, 1.0)),
    ("valence: 0, arousal: 10", NINE, (INVALID, INVALID)),
    ("valence 9 arousal 1", NINE, (9.0, 1.0)),
    ("valence: 0.2 to 0.4, arousal: 0.1", UNIT, (AMBIGUOUS, 0.1)),
    ("valence: 0.2-0.4, arousal 0.1", UNIT, (AMBIGUOUS, 0.1)),
    ("valence between 0.2 and 0.4", UNIT, (INVALID, INVALID)),
    ("valence: 0.3. Later valence: 0.5. arousal: 0.1", UNIT, (AMBIGUOUS, 0.1)),
    ("valence: 0.3. So valence: 0.3, arousal 0.30", UNIT, (0.3, 0.3)),
    ("Valence (from -1 to 1): 0.3\nArousal (from -1 to 1): -0.2", UNIT, (0.3, -0.2)),
    ("Valence [-1, 1]: 0.3, Arousal [-1, 1]: 0.2", UNIT, (0.3, 0.2)),
    ("On a scale from -1 to 1, the valence is 0.3 and the arousal is 0.2.", UNIT, (0.3, 0.2)),
    ("Valence ranges from -1 to 1.", UNIT, (INVALID, INVALID)),
    ("Valence: -1 (negative) to 1 (positive)", UNIT, (AMBIGUOUS, INVALID)),
    ("positive valence, high arousal", UNIT, (INVALID, INVALID)),
    ("The valence is high and the arousal is 0.7", UNIT, (INVALID, 0.7)),
    ("Valence is neutral with 3 people in the picture", NINE, (INVALID, INVALID)),
    ("valence is not 0.3", UNIT, (INVALID, INVALID)),
    ("I cannot determine the valence or the arousal.", UNIT, (REFUSED, REFUSED)),
    ("I'm sorry, I can't help with that.", UNIT, (REFUSED, REFUSED)),
    ("I can't be sure, but valence: 0.3, arousal: 0.1", UNIT, (0.3, 0.1)),
    ("", UNIT, (INVALID, INVALID)),
    ("???", UNIT, (INVALID, INVALID)),
    ("valence: 0,3 arousal: 0,2", UNIT, (AMBIGUOUS, AMBIGUOUS)),
    ("valence: +0.3, arousal: +.2", UNIT, (0.3, 0.2)),
    ("valence: 3e-1, arousal: 0", UNIT, (0.3, 0.0)),
    ("valence: 30%, arousal: 50%", UNIT, (INVALID, INVALID)),
    ("valence: 30%, arousal: 50%", PERCENT, (30.0, 50.0)),
    ("valence - 0.3, arousal - 0.2", UNIT, (AMBIGUOUS, AMBIGUOUS)),
    ("valence: - 0.3, arousal: - 0.2", UNIT, (-0.3, -0.2)),
    ("valence minus 0.3", UNIT, (AMBIGUOUS, INVALID)),
    ("Valence: 5 (neutral), Arousal: 3 (calm)", NINE, (5.0, 3.0)),
    ("Valence: 0.3 ± 0.1, arousal 0.2", UNIT, (0.3, 0.2)),
    ("valence: 0.3 arousal:", UNIT, (0.3, INVALID)),
    ("valence: ", UNIT, (INVALID, INVALID)),
    ("valence: 0.", UNIT, (0.0, INVALID)),
    ("arousal -0.2, valence 0.3", UNIT, (0.3, -0.2)),
    ("<think>valence: 0.9?</think>valence: 0.3, arousal: 0.1", UNIT, (0.3, 0.1)),
    ("VALENCE: 0.3 AROUSAL: 0.1", UNIT, (0.3, 0.1)),
    ("ambivalence: 0.3", UNIT, (INVALID, INVALID)),
    ("valence: zero", UNIT, (INVALID, INVALID)),
    ("valence: 0.3/1, arousal: 0.2/1", UNIT, (0.3, 0.2)),
    ("The picture with valence 5 was taken in 2019, arousal 4", NINE, (5.0, 4.0)),
    ("Valencia: 0.3", UNIT, (INVALID, INVALID)),
    ("pleasure: 0.2, activation: 0.1", UNIT, (0.2, 0.1)),
    ("Valence: 0.3 or 0.4, arousal: 0", UNIT, (AMBIGUOUS, 0.0)),
    ("价: valence 0.3, arousal 0.1", UNIT, (0.3, 0.1)),
    ("valence: nan, arousal: inf", UNIT, (INVALID, INVALID)),
    ("valence: 0.3.2, arousal: 1", UNIT, (INVALID, 1.0)),
    ("Valence: **0.3** Arousal: **0.1**", UNIT, (0.3, 0.1)),
    ("valence: 1/2", UNIT, (INVALID, INVALID)),
    ("valence≈0.3, arousal≈0.1", UNIT, (0.3, 0.1)),
    ("valence: 6 and arousal: 4", NINE, (6.0, 4.0)),
    ("valence of 6 and arousal of 4", NINE, (6.0, 4.0)),
    ("valence 6 and arousal 4", NINE, (6.0, 4.0)),
    ("valence: 0.8 and 0.2", UNIT, (AMBIGUOUS, INVALID)),
    ("valence/arousal: 0.3/0.1", UNIT, (0.3, 0.1)),
    ("valence, arousal = 0.3, 0.1", UNIT, (0.3, 0.1)),
    ("Valence and arousal are 0.3 and 0.1", UNIT, (0.3, 0.1)),
    ("(valence, arousal) = (0.3, -0.1)", UNIT, (0.3, -0.1)),
    ("Arousal and valence: 0.3, 0.1", UNIT, (0.1, 0.3)),
    ("Valence and arousal: 0.3", UNIT, (INVALID, INVALID)),
    ("Valence and arousal: 0.3, 0.2, 0.1", UNIT, (INVALID, INVALID)),
    ("As to valence and arousal of this face: valence 0.3, arousal 0.1", UNIT, (0.3, 0.1)),
    ("valence: $0.3$, arousal: \\(0.1\\)", UNIT, (0.3, 0.1)),
    ("valence: >0.3, arousal: <0.1>", UNIT, (INVALID, INVALID)),
    ("Valence (1=negative, 9=positive): 7; Arousal (1-9): 3", NINE, (7.0, 3.0)),
    ("valence: 7 on a scale of 1 to 9, arousal: 3", NINE, (7.0, 3.0)),
    ("Valence: not 0.3 but 0.5", UNIT, (INVALID, INVALID)),
    ("I can't tell the valence, but arousal is 0.5", UNIT, (REFUSED, 0.5)),
    ("valence\n0.3\narousal\n-0.2", UNIT, (0.3, -0.2)),
    ("7/3", NINE, (INVALID, INVALID)),
]


@pytest.mark.parametrize(("text", "scale", "expected"), ANSWERS)
def test_valence_and_arousal(text, scale, expected):
    answers = read_numbers(text, scale=scale)
    assert tuple(a.value if a.status == "ok" else a.status for a in answers.values()) == expected
    assert list(answers) == ["valence", "arousal"]


def test_scale_has_a_lower_and_an_upper_end():
    answers = read_numbers("Valence: 7, arousal: 1", scale=NINE)
    assert answers == {"valence": NumberAnswer(7.0, "ok"), "arousal": NumberAnswer(1.0, "ok")}
    with pytest.raises(ValueError, match="lower end, upper end"):
        read_numbers("0", scale=(1.0, -1.0))


def test_other_dimensions_are_read_in_the_order_of_the_question():
    three = ("valence", "arousal", "dominance")
    answers = read_numbers("0.1, 0.2, 0.3", three)
    assert [answer.value for answer in answers.values()] == [0.1, 0.2, 0.3]
    assert read_numbers("A: 0.3", ("arousal",))["arousal"].status == "invalid"
    assert read_numbers("0.3", ("arousal",))["arousal"].value == 0.3
    assert read_numbers("dominance of 0.4, valence 0.2", three)["dominance"].value == 0.4


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([text for text, *_ in ANSWERS] + ["-", "(", "1", "valence", ": "]), max_size=6))
def test_all_values_are_on_the_scale(parts):
    for answer in read_numbers(" ".join(parts), scale=NINE).values():
        assert (answer.value is not None) == (answer.status == "ok")
        assert answer.value is None or 1 <= answer.value <= 9


@pytest.mark.parametrize(
    "text", ["valence: \u00bd", "valence 1\u00bd", "valence \u2153", "valence: 1\u20442", "valence 1/2"]
)
def test_fractions_are_not_read_as_their_numerator(text):
    assert read_numbers(text, ("valence",), NINE)["valence"] == NumberAnswer(None, "invalid")


def test_a_raised_digit_is_no_part_of_a_number():
    assert read_numbers("valence: 0.5\u00b2, arousal 0.1")["valence"].value == 0.5
