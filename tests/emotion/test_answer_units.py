"""Reading action units from answers.

Properties:
- units are read by number, list and FACS name, each mention once; intensities by number and FACS letter;
- denied and unmentioned units are inactive; an answer without units counts only if it states that none is active;
- a unit that is both claimed and denied, or off the scale, has no value; counts are not units;
- answers of generated instructions are read back correctly; no text makes the reader fail.

The answers are written by hand.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_emovit.emotion.answer_numbers import read_numbers
from lavis_emovit.emotion.answer_units import read_action_units
from lavis_emovit.emotion.facial import FACIAL_UNITS, facial_priors
from lavis_emovit.generation.seke.instructions import write_instructions
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.records import EmotionRecord

INVALID, AMBIGUOUS, REFUSED = "invalid", "ambiguous", "refused"

# (answer, units with a value other than 0, or the status).
ANSWERS = [
    ("AU6 and AU12", {6: 1, 12: 1}),
    ("AU6, AU12", {6: 1, 12: 1}),
    ("AU 6 + AU 12", {6: 1, 12: 1}),
    ("AU 4+7", {4: 1, 7: 1}),
    ("AUs 6 and 12", {6: 1, 12: 1}),
    ("AU6+12+25", {6: 1, 12: 1, 25: 1}),
    ("action units 6 and 12", {6: 1, 12: 1}),
    ("Action Unit 6 (cheek raiser), Action Unit 12 (lip corner puller)", {6: 1, 12: 1}),
    ("Active action units: 1, 2, 5, 26", {1: 1, 2: 1, 5: 1, 26: 1}),
    ("[6, 12]", {6: 1, 12: 1}),
    ("6, 12", {6: 1, 12: 1}),
    ("6+12", {6: 1, 12: 1}),
    ("12", {12: 1}),
    ("AU06", {6: 1}),
    ("au12_r", {12: 1}),
    ("R12A+R14A", {12: 1, 14: 1}),
    ("AU12C", {12: 3.0}),
    ("6B+12C", {6: 2.0, 12: 3.0}),
    ("AU12A, AU25E", {12: 1, 25: 5.0}),
    ("AU12 (intensity 3)", {12: 3.0}),
    ("AU12: 3", {12: 3.0}),
    ("AU12 = 0.8, AU6 = 0.1", {12: 0.8, 6: 0.1}),
    ("AU12: 0, AU6: 2", {6: 2.0}),
    ("AU12: 7", AMBIGUOUS),
    ("AU12: 7, AU6: 1", {6: 1, 12: None}),
    ('{"AU6": 1, "AU12": 0}', {6: 1}),
    ('{"action_units": [6, 12]}', {6: 1, 12: 1}),
    ('{"action_units": []}', {}),
    ('{"action_units": ["AU6", "AU12"]}', {6: 1, 12: 1}),
    ('{"AU6": true, "AU12": false}', {6: 1}),
    ("no action units", {}),
    ("None", {}),
    ("none.", {}),
    ("[]", {}),
    ("No AUs are active.", {}),
    ("None of the action units is active.", {}),
    ("There are no visible action units.", {}),
    ("Action units: none", {}),
    ("AU6 is active, AU12 is not.", {6: 1}),
    ("AU6 and AU12 are active, AU4 is not active", {6: 1, 12: 1}),
    ("AU4 is absent", {}),
    ("AU4 and AU7 are absent", {}),
    ("AU4, AU7 and AU9 are not present; AU12 is", {12: 1}),
    ("no AU4", {}),
    ("no AU4 or AU7", {}),
    ("neither AU4 nor AU7", {}),
    ("AU6 and AU12, but not AU25", {6: 1, 12: 1}),
    ("not AU4 but AU6", {6: 1}),
    ("AU6 without AU12", {6: 1}),
    ("AU6, not AU12", {6: 1}),
    ("not AU4, AU7 or AU9", {}),
    ("AU6: present, AU12: absent", {6: 1}),
    ("AU6: yes\nAU12: no", {6: 1}),
    ("- AU6\n- AU12", {6: 1, 12: 1}),
    ("**AU6**, **AU12**", {6: 1, 12: 1}),
    ("| AU6 | 1 |\n| AU12 | 0 |", {6: 1}),
    ("cheek raiser and lip corner puller", {6: 1, 12: 1}),
    ("The inner brow raiser is active", {1: 1}),
    ("Brow lowerer, no cheek raiser", {4: 1}),
    ("jaw drop (AU26)", {26: 1}),
    ("AU26 (jaw drop), AU25 (lips part)", {26: 1, 25: 1}),
    ("upper lid raiser and upper lip raiser", {5: 1, 10: 1}),
    ("brow lowered, lips parted", {4: 1, 25: 1}),
    ("AU6 and not AU6", AMBIGUOUS),
    ("AU6. AU6 is absent. AU12.", {6: None, 12: 1}),
    ("AU43", {}),
    ("AU99", INVALID),
    ("AU6 and AU43", {6: 1}),
    ("The person smiles.", INVALID),
    ("", INVALID),
    ("happy", INVALID),
    ("I cannot identify action units.", REFUSED),
    ("I'm sorry, I can't help with that.", REFUSED),
    ("There are 3 people", INVALID),
    ("2 AUs are active: AU6, AU12", {6: 1, 12: 1}),
    ("AU6 and 3 others", {6: 1}),
    ("AUs 6 and 12 at 90% confidence", {6: 1, 12: 1}),
    ("The AU in the picture", INVALID),
    ("Paul 6", INVALID),
    ("au pair, 6 children", INVALID),
    ("AU6: 80%", {6: 0.8}),
    ("AU", INVALID),
    ("AU6,", {6: 1}),
    ("AU6 AU12 AU25", {6: 1, 12: 1, 25: 1}),
    ("AU6/12", {6: 1, 12: 1}),
    ("AU1+2+5B+26", {1: 1, 2: 1, 5: 2.0, 26: 1}),
    (
        "Predicted action units: AU6 (cheek raiser), AU12 (lip corner puller). Reason: the mouth corners go up.",
        {6: 1, 12: 1},
    ),
    ("<think>AU4? AU9?</think>AU12", {12: 1}),
    ("AU12 with an intensity of 4", {12: 4.0}),
    ("AU12 at intensity 2.5", {12: 2.5}),
    ("AU 12 is present with AU 6", {12: 1, 6: 1}),
    ("AU6 isn't active", {}),
    ("It doesn't show AU12.", {}),
    ("AU1, AU2, and AU5", {1: 1, 2: 1, 5: 1}),
    ("action_units: 6, 12", {6: 1, 12: 1}),
    ("Action Units Present: AU6, AU12; Absent: AU4", {6: 1, 12: 1}),
    ("AU6 (strong) and AU12 (weak)", {6: 1, 12: 1}),
    ("I see AU6; I see no AU12.", {6: 1}),
    ("\uff21\uff35\uff16", {6: 1}),
    ("None of them.", {}),
    ("None of these is active.", {}),
    ("No AU6 (cheek raiser) or AU12 (lip corner puller)", {}),
    ("AU6 (cheek raiser) and AU12 (lip corner puller) are not active; AU4 is", {4: 1}),
    ("AU6 AND AU12", {6: 1, 12: 1}),
    ("AU6 (cheek raiser) is absent, AU12 (lip corner puller) is present", {12: 1}),
    ("No, AU6 is not active.", {}),
    ("Yes, AU6 is active.", {6: 1}),
    ("AU6: not active", {}),
    ("AU6 - absent", {}),
    ("AU6: absent; AU12: strong", {12: 1}),
    ("Inactive: AU6, AU12. Active: AU4", {4: 1}),
    ("Absent: AU4, AU7", {}),
    ("Not active: AU4", {}),
    ("AU6 is slightly active", {6: 1}),
    ("AU6 cannot be seen", {}),
    ("AU6 is hardly visible", {}),
    ("There is no evidence of AU6 or AU12 but AU4 is strong", {4: 1}),
    ("The face lacks AU12", {}),
    ("No signs of AU6. AU12 is visible.", {12: 1}),
    ("AU6 is unlikely", {}),
    ("I do not see AU6", {}),
    ("I don't think AU6 is active", {}),
    ("AU6 might be active", {6: 1}),
    ("only AU6", {6: 1}),
    ("all AUs except AU6", AMBIGUOUS),
    ("AU1 through AU7", AMBIGUOUS),
    ("AU1-AU7", AMBIGUOUS),
    ("AU1-7", AMBIGUOUS),
    ("AU25-26", AMBIGUOUS),
    ("AU6, AU12, AU25, and no others", {6: 1, 12: 1, 25: 1}),
    ("AU6 and AU12 but no other action units", {6: 1, 12: 1}),
    ("no other AUs than AU6", {6: 1}),
    ("AU 6 = cheek raiser, AU 12 = lip corner puller", {6: 1, 12: 1}),
    ("1. AU6\n2. AU12", {6: 1, 12: 1}),
    ("1. Cheek Raiser (AU6)\n2. Lip Corner Puller (AU12)", {6: 1, 12: 1}),
    ("(AU6, 0.8), (AU12, 0.2)", {6: 0.8, 12: 0.2}),
    ("AU6=1;AU12=0;AU4=0", {6: 1}),
    ("AU6,1\nAU12,0", {6: 1}),
    ("AU6 1 AU12 0", {6: 1}),
    ("AU6: 1, AU12: 0, AU4: 0", {6: 1}),
    ("[1, 0, 0, 1]", INVALID),
    ("AU6 intensity 0", {}),
    ("AU6 (0)", {}),
    ("AU6 (2), AU12 (3)", {6: 2, 12: 3}),
    ("AU6 at level B", {6: 1}),
    ("Lips parted.", {25: 1}),
    ("lip corner puller is not active", {}),
    ("no lip corner puller", {}),
    ("cheek raiser: yes, lip corner puller: no", {6: 1}),
]


@pytest.mark.parametrize(("text", "expected"), ANSWERS)
def test_units(text, expected):
    answer = read_action_units(text)
    assert list(answer.values) == [f"AU{unit}" for unit in FACIAL_UNITS]
    if isinstance(expected, str):
        assert answer.status == expected
        assert set(answer.values.values()) == {None}
    else:
        assert answer.status == "ok"
        assert {int(name[2:]): value for name, value in answer.values.items() if value != 0} == expected


def test_every_unit_is_read_by_its_number_and_by_its_facs_name():
    for unit, name in facial_priors().units.items():
        if unit in FACIAL_UNITS:
            for text in (f"AU{unit}", name, f"{name.title()} (AU{unit})", f"AU{unit}: {name}"):
                active = {key for key, value in read_action_units(text).values.items() if value}
                assert active == {f"AU{unit}"}, text


def test_only_requested_units_are_returned():
    assert read_action_units("AU6, AU12 and AU25", (12, 4)).values == {"AU12": 1.0, "AU4": 0.0}


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(FACIAL_UNITS), st.integers(0, 1), min_size=1), st.integers(-100, 100))
def test_answers_of_generated_instructions_are_read_back(units, hundredths):
    record = EmotionRecord(
        id="f", image="f.jpg", split="train", source="x", action_units=units, valence=hundredths / 100, arousal=-0.5
    )
    answers = {
        instruction.provenance.split("/")[0]: instruction.answer
        for instruction in write_instructions(record, facial_priors(), SekeSettings())
    }
    assert read_action_units(answers["seke:units"], units).values == {f"AU{unit}": units[unit] for unit in units}
    affect = read_numbers(answers["seke:affect"])
    assert (affect["valence"].value, affect["arousal"].value) == (hundredths / 100, -0.5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([text for text, _ in ANSWERS] + ["AU", "not", ", ", "(", "7"]), max_size=6))
def test_no_text_makes_the_reader_fail(parts):
    answer = read_action_units(" ".join(parts))
    assert all(value is None or 0 <= value <= 5 for value in answer.values.values())
    assert answer.status == "ok" or set(answer.values.values()) == {None}


@pytest.mark.parametrize(
    "text",
    [
        "AU6 (absent), AU12 (present)", "AU6 [inactive]; AU12 [active]", "AU6 (no), AU12 (yes)", "AU6: no, AU12: yes",
        "AU6 \u2192 no, AU12 \u2192 yes", "AU6 \u2717, AU12 \u2713", "AU6 off, AU12 on", "AU6 - not visible; AU12",
        "AU6 (cheek raiser) (not present), AU12 (lip corner puller)", "AU6 (-), AU12 (+)", "AU12, AU6: N",
        "AU6 not, AU12 yes", "AU6 [0], AU12 [1]", "AU6 is no longer active; AU12",
        "| AU6 | absent |\n| AU12 | present |",
    ],
)  # fmt: skip
def test_a_denial_behind_a_unit_denies_it_and_not_the_next_one(text):
    assert read_action_units(text, [6, 12]).values == {"AU6": 0.0, "AU12": 1.0}


@pytest.mark.parametrize("text", ["AU6 (notable), AU12", "AU6 - no doubt, AU12", "AU6 (no wrinkles) and AU12"])
def test_a_remark_behind_a_unit_is_no_denial(text):
    assert read_action_units(text, [6, 12]).values["AU6"] == 1.0


def test_a_raised_digit_is_no_part_of_a_unit():
    assert read_action_units("AU1\u00b2 and AU\u2081\u2085", [1, 12, 15]).values == {
        "AU1": 1.0,
        "AU12": 0.0,
        "AU15": 1.0,
    }
