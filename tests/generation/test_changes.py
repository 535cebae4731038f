"""What the offline writer says about the changes in a clip.

Properties:
- phases of labels, with flicker removed; onset, peak (the key frame, or else valence and arousal) and end, within the
  clip;
- rises and falls of valence and arousal between turning points, without noise; active units;
- times count from the beginning of the clip;
- texts say what changes, when, from what to what; the same seed gives the same words, and others differ;
- each kind gets instructions from a trace alone, with their author, and none is rejected for its times;
- records without a trace get the words that they had before.
"""

from __future__ import annotations

import json
import random

import pytest
from clip_traces import SMILE, clip_record, stretch

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.generation.change_texts import change_topics, changes_seen
from lavis_emovit.generation.changes import active_units, label_phases, moves, peak_s
from lavis_emovit.generation.checks import check_pair
from lavis_emovit.generation.instructions import write_kind
from lavis_emovit.generation.job import Job, JobSettings
from lavis_emovit.generation.kinds import KINDS
from lavis_emovit.generation.offline import knows_more_than_the_label
from lavis_emovit.generation.reading import Pair
from lavis_emovit.records import build_record


def test_phases_of_labels_without_flicker():
    found = [(phase.value, round(phase.onset_s, 3), round(phase.end_s, 3)) for phase in label_phases(SMILE)]
    assert found == [("neutral", 0.0, 2.4), ("happiness", 2.4, 5.1), ("neutral", 5.1, 6.0)]
    gaps = clip_record(emotion=stretch((None, 5), ("fear", 10), (None, 10), ("sadness", 5)))
    found = [(phase.value, round(phase.onset_s, 3), round(phase.end_s, 3)) for phase in label_phases(gaps)]
    assert found == [("fear", 0.5, 2.5), ("sadness", 2.5, 3.0)]
    assert label_phases(clip_record(valence=[0.0, 0.1])) == []


def test_no_phase_lasts_longer_than_the_clip():
    still = clip_record(emotion=["anger"] * 3, step_s=1.0, clip={"end_s": 22.0})
    assert changes_seen(still, random.Random(0)) == ["The expression is anger from 0.0 s to 2.0 s, without a change."]
    # A frame after a long gap is no longer than the others.
    gap = clip_record(
        emotion=stretch(("fear", 5), (None, 20), ("anger", 1)), units={4: stretch((3, 5), (None, 20), (3, 1))}
    )
    assert [round(phases[-1].end_s, 3) for phases in (label_phases(gap), active_units(gap)[4])] == [2.6, 2.6]


def test_the_peak_is_the_key_frame_or_the_strongest_moment():
    smile = label_phases(SMILE)[1]
    # hypot(0.72, 0.4) at frame 30 is more than hypot(0.8, 0.1) after it.
    assert peak_s(SMILE, smile) == pytest.approx(3.0)
    keyed = clip_record(emotion=stretch(("neutral", 20), ("anger", 20)), clip={"key_s": 22.75})
    assert peak_s(keyed, label_phases(keyed)[1]) == pytest.approx(2.75)
    assert peak_s(keyed, label_phases(keyed)[0]) is None


def test_rises_and_falls_without_noise():
    (rise, fall) = moves(SMILE, "valence")
    assert (rise.before, round(rise.from_s, 3), round(rise.after, 3), round(rise.to_s, 3)) == (0.0, 2.0, 0.8, 3.0)
    assert (round(fall.before, 3), round(fall.from_s, 3), fall.after, round(fall.to_s, 3)) == (0.8, 4.5, 0.1, 4.6)
    random_walk = random.Random(1)
    noisy = [0.4 * (place >= 30) + random_walk.uniform(-0.08, 0.08) for place in range(60)]
    (only,) = moves(clip_record(valence=noisy), "valence")
    assert only.before < 0.1 and only.after > 0.3 and only.from_s < 3.0 <= only.to_s
    assert moves(clip_record(valence=[0.1] * 9), "valence") == []


def test_active_units():
    record = clip_record(units={4: stretch((0, 10), (3, 10)), 12: stretch((1, 20)), 1: stretch((0.5, 20))})
    assert {unit: [(p.onset_s, round(p.end_s, 3)) for p in found] for unit, found in active_units(record).items()} == {
        4: [(pytest.approx(1.0), 2.0)], 12: [(0.0, 2.0)]
    }  # fmt: skip
    only = record.model_copy(update={"extra": {"occurrence_only": "1"}})
    assert set(active_units(only)) == {1, 4, 12}


def test_texts_say_what_changes_and_when():
    texts = {" ".join(changes_seen(SMILE, random.Random(seed))) for seed in range(40)}
    assert len(texts) > 5 and texts == {" ".join(changes_seen(SMILE, random.Random(seed))) for seed in range(40)}
    for text in texts:
        assert "neutral to happiness" in text or "no longer neutral but happiness" in text
        assert "2.4 s" in text and "5.1 s" in text
        assert "from near zero to clearly positive" in text and "between 2.0 s and 3.0 s" in text.replace(
            "Between", "between"
        )
    answers = [answer for _, answer in change_topics(SMILE, random.Random(0))]
    assert "Happiness begins at 2.4 s, is strongest at 3.0 s and ends at 5.1 s." in answers
    units = clip_record(units={4: stretch((0, 10), (3, 10))})
    assert changes_seen(units, random.Random(0)) == ["AU4 (brow lowerer) is active from 1.0 s to 2.0 s."]
    still = clip_record(emotion=["anger"] * 20)
    assert changes_seen(still, random.Random(0)) == ["The expression is anger from 0.0 s to 2.0 s, without a change."]
    many = clip_record(emotion=stretch(*((label, 5) for label in ("anger", "fear") * 4)))
    assert changes_seen(many, random.Random(0))[-1] == "3 more changes follow until 3.5 s."


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_writes_from_a_trace_alone(kind, tmp_path):
    records = [SMILE.model_copy(update={"id": f"c/{number}", "emotion": "happiness"}) for number in range(3)]
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        job = Job(records, tmp_path, tmp_path, ledger, JobSettings())
        result = write_kind(job, kind)
        written = [one for record in job.records for one in record.instructions if one.kind == kind]
    assert result.reasons["mentions_source"] == 0 and "stock sentences only" not in result.notes
    assert written and all(one.provenance.startswith("offline/1:") for one in written)
    assert any("2.4 s" in one.answer for one in written)


def test_times_in_seconds_are_no_score():
    kind = KINDS["description"]
    answer = (
        "At 1.2 s the face of the person changes, and from 0.8 seconds on it has a smile that is easy to see in it."
    )
    assert check_pair(Pair("What happens?", answer), kind, None, None) == []
    scored = answer.replace("0.8 seconds", "0.8")
    assert check_pair(Pair("What happens?", scored), kind, None, None) == ["mentions_source"]


def test_without_a_trace_the_words_stay():
    values = {"id": "e/1", "image": "a.jpg", "split": "train", "source": "e", "emotion": "awe", "label_set": "mikels8"}
    record = build_record({**values, "attributes": {"scene": "beach", "brightness": 0.9, "colorfulness": 0.5}}, "here")
    clip = record.model_copy(update={"clip": clip_record(valence=[0.0]).clip.model_copy(update={"trace": None})})
    for kind in KINDS.values():
        assert kind.offline_reply(record) == kind.offline_reply(clip)
    # Whoever knows the labels over time leaves none open.
    assert "left to whoever looks" not in KINDS["reasoning"].offline_reply(SMILE)
    assert "left to whoever looks" in KINDS["reasoning"].offline_reply(clip_record(valence=[0.0, 0.9]))
    assert knows_more_than_the_label(SMILE) and json.loads(KINDS["description"].offline_reply(SMILE))["description"]
