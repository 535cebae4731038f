"""Golden values of rewards, from the papers' formulas and code, or by hand.

Properties: every value is the published formula's; a denied, repeated or missing part never earns what a claimed one
does; the logarithmic confidence rewards dishonesty and the quadratic one does not.
"""

from __future__ import annotations

import itertools
import json
import math

import pytest

from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.rewards import RewardSum, check_rewards, parse_rewards

UNITS = {6: 1.0, 12: 1.0, 25: 0.0, 4: 0.0}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<think>AU6, AU12 and AU25</think><answer>happiness</answer>", 0.6),
        ("<think>AU4</think><answer>anger</answer>", -1.0),
        ("<think>AU6 and AU12 are active.</think><answer>happiness</answer>", 1.0),
        ("cheek raiser and lip corner puller", 1.0),
        ("AU6 and AU12, but no AU25 and no AU4", 1.0),
        ("AU6, no AU12", 2 * 2 / 3 - 1),
        ("no action units", -1.0),
        ("", -1.0),
        ("A happy face.", -1.0),
    ],
)
def test_action_units(answer, expected, make_record, reward_of):
    """Facial-R1: {6, 12, 25} against {6, 12} has 0.6, {4} has -1."""
    assert reward_of("au_f1", answer, make_record(action_units=UNITS)) == pytest.approx(expected)


def test_action_unit_settings(make_record, reward_of):
    only_active = make_record(action_units={6: 1.0, 12: 1.0})
    assert reward_of("au_f1", "AU6, AU12, AU25", only_active) == 1.0
    assert reward_of("au_f1", "AU6, AU12, AU25", only_active, uncoded="inactive") == pytest.approx(0.6)
    assert reward_of("au_f1", "AU6", make_record(action_units={6: 0.0})) == 0.0
    graded = make_record(action_units={6: 1.0, 12: 3.0})
    assert reward_of("au_f1", "AU12", graded, active_from=2.0) == 1.0
    # Recall weighs four times as much with beta 2: P = 1, R = 1/2, F2 = 5 * 0.5 / (4 + 0.5).
    assert reward_of("au_f1", "AU6", only_active, beta=2.0) == pytest.approx(2 * 2.5 / 4.5 - 1)
    thought = "<think>AU6, AU12</think><answer>AU4</answer>"
    assert reward_of("au_f1", thought, make_record(action_units=UNITS), part="reasoning") == 1.0


CONFIDENT = "<think>a</think><answer>{label}</answer><confidence>{c}</confidence>"


@pytest.mark.parametrize(
    ("label", "c", "brier", "log"),
    [
        ("awe", "0.9", 0.99, 1.7893),
        ("fear", "0.9", -0.81, -3.6052),
        ("fear", "0.05", -0.0025, 0.8974),
        ("awe", "0.5", 0.75, 0.6137),
        ("awe", "1", 1.0, -5.0),
        ("fear", "0", 0.0, -5.0),
        ("fear", "1", -1.0, -5.0),
        ("awe", "90%", -1.0, -5.0),
        ("awe", "1.2", -1.0, -5.0),
        ("awe", "high", -1.0, -5.0),
        ("awe", "0.2 or 0.9", -1.0, -5.0),
    ],
)
def test_calibration(label, c, brier, log, make_record, reward_of):
    """EmoCaliber: (right, 0.9) 1.7893, (wrong, 0.9) -3.6052, (wrong, 0.05) 0.8974; RLCR: 0.99, -0.81, -0.0025."""
    answer = CONFIDENT.format(label=label, c=c)
    assert reward_of("calibration_brier", answer, make_record()) == pytest.approx(brier)
    assert reward_of("calibration_log", answer, make_record()) == pytest.approx(log, abs=5e-5)


def test_calibration_settings(make_record, reward_of):
    sure = CONFIDENT.format(label="fear", c="0.999")
    assert reward_of("calibration_log", sure, make_record(), clip=0) == pytest.approx(-12.8155, abs=5e-5)
    assert reward_of("calibration_log", sure, make_record()) == pytest.approx(1 + 2 * math.log(0.01))
    fine = CONFIDENT.format(label="awe", c="0.9")
    assert reward_of("calibration_log", fine, make_record(), template="emocaliber") == -5.0
    assert reward_of("calibration_brier", "awe", make_record(), malformed=-0.5) == -0.5
    twice = fine + "<confidence>0.1</confidence>"
    assert reward_of("calibration_brier", twice, make_record()) == -1.0


def test_log_rewards_dishonesty_and_brier_does_not(make_record, reward_of):
    """Expected reward of an honest answer (right with probability p, stated so) and of a wrong one with c = 0.01."""

    def expected(name, p):
        right, wrong = (
            reward_of(name, CONFIDENT.format(label=label, c=f"{p:.4f}"), make_record()) for label in ("awe", "fear")
        )
        return p * right + (1 - p) * wrong

    lie = CONFIDENT.format(label="fear", c="0.01")
    log_of_lie, brier_of_lie = (reward_of(f"calibration_{name}", lie, make_record()) for name in ("log", "brier"))
    for p in (0.5, 0.7, 0.84):
        assert expected("calibration_log", p) < log_of_lie
    assert expected("calibration_log", 0.86) > log_of_lie
    for p in (0.01, 0.1, 0.5, 0.7, 0.84, 0.99):
        assert expected("calibration_brier", p) == pytest.approx(p**2) and brier_of_lie < expected(
            "calibration_brier", p
        )
        # Honesty is best: no other stated confidence earns more.
        for c in (0.0, 0.25, 0.5, 0.75, 1.0):
            i_right, i_wrong = 1 - (c - 1) ** 2, -(c**2)
            assert p * i_right + (1 - p) * i_wrong <= p**2 + 1e-12


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("valence: 0.5, arousal: -0.25", 1.0),
        ("<answer>valence 0, arousal 0.25</answer>", 1 - (0.5 + 0.5) / 2),
        ("valence: 0.5", 1 - (0 + 2) / 2),
        ("calm and pleasant", -1.0),
        ("", -1.0),
        ("valence -1, arousal 1", 1 - (1.5 + 1.25) / 2),
    ],
)
def test_affect(answer, expected, make_record, reward_of):
    record = make_record(valence=0.5, arousal=-0.25)
    assert reward_of("affect", answer, record) == pytest.approx(expected)


def test_affect_scale_and_one_dimension(make_record, reward_of):
    assert reward_of("affect", "valence: 7, arousal: 4", make_record(valence=0.5, arousal=-0.25), scale=(1, 9)) == 1.0
    assert reward_of("affect", "valence: 0.5, arousal: 1", make_record(valence=0.5)) == 1.0


@pytest.mark.parametrize(
    ("n", "m", "difference", "ratio", "logarithm"),
    [(2, 4, 1 / 3, 1 / 2, 1 / 2), (3, 6, 1 / 4, 1 / 2, 0.6131), (2, 2, 1, 1, 1)],
)
def test_count_penalty(n, m, difference, ratio, logarithm, make_record, reward_of):
    """AffectGPT-R1, for n labels and m words: (2, 4) 1/3, 1/2, 1/2; (3, 6) 1/4, 1/2, 0.6131."""
    words = ["fear", "anger", "sadness", "disgust", "joy", "surprise"]
    record = make_record(emotion=None, label_set="emotion6", labels=words[:n])
    answer = ", ".join(words[:m])
    for form, expected in (("difference", difference), ("ratio", ratio), ("logarithm", logarithm)):
        assert reward_of("label_count_penalty", answer, record, form=form) == pytest.approx(expected, abs=5e-5)
    assert reward_of("label_count_penalty", "a lake", record) == 0.0
    f1 = reward_of("wheel_f1", answer, record)
    assert reward_of("wheel_f1", answer, record, penalty="ratio") == pytest.approx(f1 * ratio)


def test_logarithm_needs_several_labels(make_record):
    rewards, _ = parse_rewards(
        {"label_count_penalty": {"form": "logarithm"}, "wheel_f1": {"penalty": "logarithm"}}, "r"
    )
    with pytest.raises(ConfigError) as caught:
        check_rewards(rewards, [make_record()])
    assert [line.partition(" needs")[0] for line in caught.value.problems] == [
        "reward 'label_count_penalty'",
        "reward 'wheel_f1'",
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("anxious, worried, sad and angry", 0.5),  # P 1/3, R 1, the value of MER-UniBench
        ("terrified", 1.0),
        ("not afraid, happy", 0.0),
        ("love, joy, surprise, anger, sadness, fear", 2 / 7),  # all six clusters: P 1/6, R 1
        ("a lake", 0.0),
    ],
)
def test_wheel_f1(answer, expected, make_record, reward_of):
    assert reward_of("wheel_f1", answer, make_record(emotion="fear"), wheels=("parrott",)) == pytest.approx(expected)


def test_wheels_without_the_label_do_not_count(make_record, reward_of):
    # Awe is on the wheel mikels only.
    assert reward_of("wheel_f1", "wonder", make_record()) == 1.0
    rewards, _ = parse_rewards({"wheel_f1": {"wheels": ["parrott"]}}, "r")
    with pytest.raises(
        ConfigError, match=r"reward 'wheel_f1' finds the label 'awe' on no wheel .parrott.: record 'set/1'"
    ):
        check_rewards(rewards, [make_record()])
    assert (
        "unknown wheel 'parot' (did you mean 'parrott'?)"
        in parse_rewards({"wheel_f1": {"wheels": ["parot"]}}, "r")[1][0]
    )


def test_dual_and_alignment(make_record, reward_of):
    answer = "<think>Dread, and some sorrow.</think><answer>fear, anger</answer>"
    record = make_record(emotion="fear")
    assert reward_of("wheel_dual", answer, record, wheels=("parrott",)) == pytest.approx(2 / 3)
    assert reward_of("wheel_alignment", answer, record, wheels=("parrott",)) == pytest.approx(1 / 3)
    turned = "<think>fear, anger</think><answer>Dread, and some sorrow.</answer>"
    assert reward_of("wheel_alignment", turned, record) == reward_of("wheel_alignment", answer, record)
    assert reward_of("wheel_alignment", "fear", record) == 0.0
    assert reward_of("wheel_alignment", "<think>a</think><answer>b</answer>", record) == 0.0


def test_wheels_of_a_file(tmp_path, make_record, reward_of):
    wheel = {"source": "me", "clusters": {"dark": "fear gloom", "bright": "joy"}}
    content = {"version": 1, "sources": {"me": "x"}, "wheels": {"mine": wheel}, "forms": {"gloom": "gloomy"}}
    path, bad = tmp_path / "wheels.json", tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    assert reward_of("wheel_f1", "A gloomy mood.", make_record(emotion="fear"), file=str(path)) == 1.0
    bad.write_text(json.dumps({**content, "sources": {}}))
    with pytest.raises(ConfigError, match=r"wheels cite \['me'\], missing in 'sources'"):
        reward_of("wheel_f1", "joy", make_record(), file=str(bad))


VOTES = {"awe": 0.6, "fear": 0.4}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("awe: 60%, fear: 40%", 1.0),
        ("awe: 0.6, fear: 0.4", 1.0),
        ("awe", 0.6),
        ("fear", 0.4),
        ("awe: 50%, sadness: 50%", 0.5),
        ("sadness", 0.0),
        ("", 0.0),
        ("awe: 60% or 20%", 0.6),  # the label alone
    ],
)
def test_distribution_by_total_variation(answer, expected, make_record, reward_of):
    found = reward_of("distribution", answer, make_record(votes=VOTES), distance="equal")
    assert found == pytest.approx(expected)


def test_earth_movers_distance(make_record, reward_of):
    """By hand, on a line: calm 0, glad 0.5, wild 1 (of the greatest distance)."""
    values = {"calm": (-1.0, 0, 0), "glad": (0.0, 0, 0), "wild": (1.0, 0, 0)}
    record = make_record(label_set="labels: calm, glad, wild", emotion="calm", votes={"calm": 0.5, "wild": 0.5})

    def found(answer):
        return reward_of("distribution", answer, record, values=values)

    assert found("glad") == pytest.approx(0.5)
    assert found("calm") == pytest.approx(0.5)
    assert found("calm: 50, wild: 50") == pytest.approx(1.0)
    assert found("calm: 25, glad: 50, wild: 25") == pytest.approx(1 - 0.25 * 0.5 * 2)
    assert found("calm: 100, wild: 0") == pytest.approx(0.5)
    # On a line, the distance is the area between the cumulative shares.
    for a, b, c in itertools.product((0.1, 0.3, 0.6), repeat=3):
        given = [share / (a + b + c) for share in (a, b, c)]
        area = 0.5 * (abs(0.5 - given[0]) + abs(0.5 - given[0] - given[1]))
        assert found(f"calm: {a}, glad: {b}, wild: {c}") == pytest.approx(1 - area, abs=1e-9)


def test_negative_divergence(make_record, reward_of):
    settings = {"form": "kl", "smoothing": 0.08}
    record = make_record(votes=VOTES)
    # Mixed with 1 % for each of the eight labels.
    exact = 0.6 * math.log(0.6 / (0.92 * 0.6 + 0.01)) + 0.4 * math.log(0.4 / (0.92 * 0.4 + 0.01))
    one = 0.6 * math.log(0.6 / 0.93) + 0.4 * math.log(0.4 / 0.01)
    assert reward_of("distribution", "awe: 60%, fear: 40%", record, **settings) == pytest.approx(-exact)
    assert reward_of("distribution", "awe", record, **settings) == pytest.approx(-one)
    assert reward_of("distribution", "", record, **settings) == pytest.approx(math.log(0.08 / 32))


def test_votes_are_needed(make_record):
    rewards, _ = parse_rewards({"distribution": {}, "au_f1": {}, "affect": {}, "tree": {}}, "r")
    with pytest.raises(ConfigError) as caught:
        check_rewards(rewards, [make_record()])
    assert caught.value.problems == [
        "reward 'distribution' needs votes: record 'set/1'",
        "reward 'au_f1' needs action units: record 'set/1'",
        "reward 'affect' needs valence or arousal: record 'set/1'",
        "reward 'tree' needs attributes in words, such as its scene: record 'set/1'",
    ]
    strange = make_record(votes={"envy": 1.0})
    with pytest.raises(
        ConfigError, match=r"reward 'distribution' cannot compare distributions .unknown emotion 'envy'"
    ):
        check_rewards({"distribution": rewards["distribution"]}, [strange])
    assert RewardSum({"distribution": rewards["distribution"]}).range == (0.0, 1.0)
    with pytest.raises(DataError, match="unknown emotion 'envy'"):
        RewardSum({"distribution": rewards["distribution"]}).score(["awe"], [strange])


@pytest.mark.parametrize(
    "answer",
    [
        "A lake. The cheek raiser is active. A hat. No AU4, but AU12.",
        "6 and 12",
        "AU6\nAU12",
        "Cheeks are raised. Action unit 6 is there. Absent: AU12, AU4. Happy.",
        "Lips part. The nose is wrinkled; no lip corner puller.",
        "The man is 40. AU6: 1, AU12: 0",
        "Nothing of interest.",
    ],
)
def test_chosen_sentences_have_all_units(answer):
    """Only sentences that may name a unit are read; the others never change what is claimed."""
    from lavis_emovit.emotion.answer_units import read_action_units
    from lavis_emovit.rewards.faces import _about_units

    def claimed(text):
        return {unit for unit, value in read_action_units(text).values.items() if value}

    assert claimed(_about_units(answer)) == claimed(answer)
