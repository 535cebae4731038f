"""What each sentence of a longer text claims.

Properties:
- a denied word, an idiom and a question mark inside a sentence are read as the reader of labels reads them;
- the quick look at plain sentences finds the same as the closer look, for any words, denials and idioms in any order;
- of all idioms, only those are searched that can be there, and none is missed.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lavis_emovit.emotion import answer_phrases as phrases
from lavis_emovit.emotion.answer_claims import Words
from lavis_emovit.emotion.answer_sentences import claims_of, emotions_claimed
from lavis_emovit.emotion.inflections import word_forms
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.wheels import emotion_wheels

LEXICON = emotion_wheels().lexicon
FORMS = {(form,): label for form, label in word_forms(LEXICON).items() if re.fullmatch(r"\w+", form)}
# Every word of the patterns of denials and idioms, words of emotion, and others.
_PATTERNS = (
    *phrases.IDIOMS,
    *(phrases.CLAUSE_DENIAL, phrases.PHRASE_DENIAL, phrases.DENIED_AFTER, phrases.TAKEN_BACK, phrases.DENIED_LIST),
)
_CUES = sorted({word for one in _PATTERNS for word in re.findall(r"[a-z]+", re.sub(r"\\[a-z]", " ", one.pattern))})
_FELT = "awe fear fearful sad happily content lonely hope surprise love calm excited relief other angry".split()
WORDS = st.lists(st.sampled_from(_CUES) | st.sampled_from(_FELT) | st.sampled_from(["the", ",", "is", "i", "lake"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A lake. Wonder, and some dread.", [set(), {"wonder", "dread"}]),
        ("There is no fear. Sad!", [set(), {"sadness"}]),
        ("neither sad nor angry", [set()]),
        ("The fear is gone\nHappy birthday; happy", [set(), set(), {"happiness"}]),
        ("Sadly, a lake", [set()]),
        ("A lonely lake", [{"loneliness"}]),
        ("AU6, majestic", [{"majesty"}]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert emotions_claimed(text, LEXICON) == expected


def test_any_label_set():
    assert emotions_claimed("Amused, not angry. Awed.", get_label_set("mikels8")) == [{"amusement"}, {"awe"}]


@settings(max_examples=1500)
@given(words=WORDS)
@example(words="fear is over".split())
@example(words="far from sad".split())
@example(words="too calm to fear".split())
@example(words="happy to help".split())
@example(words="there is no fear".split())
@example(words="no , fear".split())
@example(words="fear no".split())
def test_quick_look_finds_the_same(words):
    sentence = " ".join(words).replace(" ,", ",")
    found = emotions_claimed(sentence, LEXICON)
    assert (found or [frozenset()]) == [claims_of(sentence, Words(FORMS))]


@settings(max_examples=1500)
@given(words=WORDS)
def test_no_idiom_is_missed(words):
    plain = " ".join(words)
    expected = [match.span() for pattern in phrases.IDIOMS for match in pattern.finditer(plain)]
    assert phrases.idioms_in(plain, words) == expected
