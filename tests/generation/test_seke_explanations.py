"""Explanations of an expression from its action units.

- They name every active unit with its strength by the grades of FACS, and our readers read units and expression back.
- They are written on request only, and not for units that make the expression unlikely.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_emovit.emotion.answer_units import read_action_units
from lavis_emovit.emotion.facial import FACIAL_UNITS, facial_priors
from lavis_emovit.emotion.facial_knowledge import Evidence
from lavis_emovit.generation.seke.explanations import explain, strength
from lavis_emovit.generation.seke.instructions import write_instructions
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.records import EmotionRecord

PRIORS = facial_priors()


def coded(*active):
    return {unit: unit in active for unit in FACIAL_UNITS}


def test_an_explanation():
    smile = Evidence("happiness", 0.7, 0.0, coded(6, 12, 25), {6: 1.6, 12: 4.2})
    assert explain(smile, PRIORS).splitlines() == [
        "Observation: AU12, the lip corner puller, is strong, typical of happiness and contempt. AU6, the cheek "
        "raiser, is slight, typical of happiness and sadness. AU25, the lips part, is present, typical of fear and "
        "happiness.",
        "Interpretation: AU6, AU12 and AU25 clearly point to happiness. The person seems to feel pleasant and "
        "moderately aroused.",
        "Conclusion: the expression is happiness.",
    ]
    assert explain(Evidence("anger", units=coded(6, 12, 25)), PRIORS) is None
    assert explain(Evidence("happiness"), PRIORS) is None and explain(Evidence(units=coded(12)), PRIORS) is None
    assert "No action unit is active" in explain(Evidence("neutral", units=coded()), PRIORS)


@pytest.mark.parametrize(
    ("intensity", "words"),
    [(0.2, "trace"), (1.0, "trace"), (2.4, "slight"), (3.0, "marked"), (4.0, "strong"), (5.0, "maximum")],
)
def test_strengths_are_the_grades_of_facs(intensity, words):
    assert words in strength(intensity)


@settings(max_examples=60, deadline=None)
@given(
    active=st.sets(st.sampled_from(FACIAL_UNITS), max_size=6),
    name=st.sampled_from(sorted(PRIORS.expressions)),
    intensity=st.none() | st.floats(0.5, 5),
)
def test_units_are_read_back(active, name, intensity):
    intensities = {unit: intensity for unit in active if intensity is not None}
    text = explain(Evidence(name, units=coded(*active), intensities=intensities), PRIORS)
    if text is not None:
        found = read_action_units(text)
        assert found.status == "ok"
        assert {unit for unit in FACIAL_UNITS if found.values[f"AU{unit}"]} == active
        assert text.endswith(f"Conclusion: the expression is {name}.")


def test_they_are_written_on_request():
    record = EmotionRecord(
        id="a/1", image="a.jpg", split="train", source="a", emotion="happy", label_set="neutral_happy2",
        action_units={6: 2.0, 12: 4.0, 25: 1.0, 4: 0.0},
    )  # fmt: skip
    kinds = [item.kind for item in write_instructions(record, PRIORS, SekeSettings())]
    assert "explanation" not in kinds
    written = write_instructions(record, PRIORS, SekeSettings(explanations=True))
    (item,) = [item for item in written if item.kind == "explanation"]
    assert item.provenance.startswith("seke:explanation/") and item.provenance.endswith(" person")
    assert "AU12, the lip corner puller, is strong" in item.answer
