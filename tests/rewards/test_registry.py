"""The registry of rewards, and their weighted sum.

Properties:
- unknown names and keys, and wrong values, are reported together, with the nearest valid name;
- what a reward lacks is refused before training, by the names of reward and records, all at once;
- a reward of another module registers; a taken name, an unknown need and a question to nobody are refused, and the
  registry then stays refused, unless it was the main program;
- the total is the sum of weight times part; every part is reported;
- nan, infinity, a value outside of the range and an exception name reward, record and answer;
- what a judge or a model raises is raised, and replies that are missing are an error, never a reward.
"""

from __future__ import annotations

import sys
import types

import pytest

from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.rewards import (
    Asked,
    Question,
    Reward,
    RewardSettings,
    RewardSum,
    check_rewards,
    get_reward,
    known_rewards,
    parse_rewards,
    register_reward,
    registry,
)


@pytest.fixture
def own(monkeypatch):
    """Function (measure, name, **fields): register a reward of another module, for one test."""
    known_rewards()
    monkeypatch.setattr(registry, "_REWARDS", dict(registry._REWARDS))
    monkeypatch.setattr(registry, "_REFUSED", [])

    def register(measure, name="own", module="my_package.rewards", **fields):
        measure.__module__ = module
        register_reward(Reward(name, measure, **fields))

    return register


def chosen(**values):
    rewards, problems = parse_rewards(values, "rewards")
    assert not problems
    return rewards


def test_names_and_docstrings():
    rewards = known_rewards()
    assert list(rewards) == sorted(rewards)
    for name, reward in rewards.items():
        assert reward.name == name and reward.measure.__name__ == name
        text = reward.measure.__doc__
        assert "Range" in text and "Source" in text, name
        low, high = reward.range_of(reward.settings())
        assert low < high


def test_problems_are_reported_together():
    given = {"label_exct": {}, "label_vad": {"powr": 1}, "length": {"least": 9, "most": 3}, "polarity": 3}
    rewards, problems = parse_rewards(given, "rewards")
    assert rewards == {}
    assert problems == [
        "rewards.label_exct: unknown reward (did you mean 'label_exact'?)",
        "rewards.label_vad.powr: unknown key (did you mean 'power'?)",
        "rewards.length: least (9) must not be more than most (3)",
        "rewards.polarity: expected the settings of the reward (got 3)",
    ]
    for given in ({"label_exact": {"weight": 0}}, {"label_exact": {"weight": 0}, "length": {"weight": 0.0}}):
        assert parse_rewards(given, "rewards")[1] == [
            "rewards: every weight is 0, so all answers would be equal; set the weight of one reward"
        ]
    assert not parse_rewards({"label_exact": {"weight": 0}, "length": {}}, "rewards")[1]
    assert parse_rewards({}, "rewards")[1][0].startswith("rewards: names no reward; the rewards are ")
    assert "unknown answer template 'thnk'" in parse_rewards({"format_tags": {"template": "thnk"}}, "r")[1][0]
    with pytest.raises(DataError, match=r"unknown reward 'polarit' .did you mean 'polarity'"):
        get_reward("polarit")


def test_check_names_rewards_and_records(make_record):
    records = [make_record(id=f"r{i}", emotion=None, label_set="labels: calm, wild") for i in range(5)]
    with pytest.raises(ConfigError) as caught:
        check_rewards(chosen(label_exact={}, polarity={}, length={}), [make_record(), *records])
    assert caught.value.problems == [
        "reward 'label_exact' needs a label: records 'r0', 'r1', 'r2' and 2 more",
        "reward 'polarity' needs a label: records 'r0', 'r1', 'r2' and 2 more",
        "reward 'polarity' needs a label set with polarities: records 'r0', 'r1', 'r2' and 2 more",
    ]
    one = make_record(emotion="calm", label_set="labels: calm, wild")
    with pytest.raises(ConfigError, match=r"reward 'label_vad' cannot compare labels .*known for calm, wild"):
        check_rewards(chosen(label_vad={}), [one])
    check_rewards(chosen(label_vad={"values": {"calm": [0.4, -0.8, 0.3], "wild": [0.1, 0.9, 0.0]}}), [one])


def test_sum_reports_every_part(make_record):
    together = RewardSum(chosen(label_exact={"weight": 0.8}, format_tags={"weight": -0.5}, length={"most": 1}))
    right, wrong = together.score(["<think>a</think><answer>awe</answer>", "fear"], [make_record()] * 2)
    assert right.parts == {"label_exact": 1.0, "format_tags": 1.0, "length": pytest.approx(0.98)}
    assert right.total == pytest.approx(0.8 - 0.5 + 0.98)
    assert wrong.parts == {"label_exact": 0.0, "format_tags": 0.0, "length": 1.0} and wrong.total == 1.0
    assert together.range == pytest.approx((-0.5, 1.8))
    with pytest.raises(ValueError, match="2 answers need as many records"):
        together.score(["a", "b"], [make_record()])


def test_own_reward(own, make_record):
    class Settings(RewardSettings):
        word: str = "please"

    def polite(answer, record, settings):
        """1 for a polite answer."""
        return settings.word in answer

    own(polite, "polite", settings=Settings, fault=lambda record, settings: None if record.caption else "is blind")
    scores = RewardSum(chosen(polite={"word": "thanks", "weight": 2})).score(["thanks", "no"], [make_record()] * 2)
    assert [one.total for one in scores] == [2.0, 0.0]
    with pytest.raises(ConfigError, match="reward 'polite' is blind: record 'set/1'"):
        check_rewards(chosen(polite={}), [make_record()])


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda *_: float("nan"), "the reward is nan, expected a number from 0 to 1"),
        (lambda *_: float("inf"), "the reward is inf"),
        (lambda *_: 1.5, "the reward is 1.5, expected a number from 0 to 1. Correct the reward, in my_package.rewards"),
        (lambda *_: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda *_: None, "TypeError"),
    ],
)
def test_wrong_values_name_record_and_answer(own, make_record, measure, message):
    own(measure)
    with pytest.raises(DataError) as caught:
        RewardSum(chosen(own={})).score(["fine", "x" * 300], [make_record(id="a"), make_record(id="b")])
    assert "reward 'own' for record 'a' and answer 'fine'" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("length", {}, "a reward 'length' is registered already, by lavis_emovit.rewards.form; rename yours"),
        ("own", {"needs": {"a camera"}}, "needs .'a camera'.; the known needs are label, polarity"),
        ("own", {"needs": {"judge"}}, "a reward with a question needs 'judge' or 'model', and no other one does"),
        ("own", {"question": lambda *_: None}, "a reward with a question needs"),
    ],
)
def test_refused_registrations(own, name, fields, message):
    with pytest.raises(ConfigError, match=f"my_package.rewards: .*{message}"):
        own(lambda *_: 0.0, name, **fields)
    with pytest.raises(ConfigError, match=message):
        known_rewards()


def test_main_program_may_choose_another_name(own):
    with pytest.raises(ConfigError):
        own(lambda *_: 0.0, "length", module="__main__")
    own(lambda *_: 0.0, "length_of_mine", module="__main__")
    assert "length_of_mine" in known_rewards()


def test_registers_from_an_entry_point(own, monkeypatch):
    from importlib import metadata

    from lavis_emovit.plugin import entry_points

    module = types.ModuleType("fake_rewards")
    module.register = lambda: own(lambda *_: 0.5, "from_package", module="fake_rewards")
    monkeypatch.setitem(sys.modules, "fake_rewards", module)
    found = metadata.EntryPoint("fake", "fake_rewards:register", entry_points.GROUP)
    monkeypatch.setattr(entry_points.metadata, "entry_points", lambda group: [found])
    monkeypatch.setattr(entry_points, "_seen", set())
    monkeypatch.setattr(entry_points, "loaded", [])
    entry_points.load_all(ours=False)
    assert entry_points.loaded == ["fake"] and "from_package" in known_rewards()


@pytest.fixture
def asking(own):
    own(
        lambda answer, record, settings, reply: 0.25 if reply is None else float(reply == "yes"),
        "asking",
        needs={"judge"},
        question=lambda answer, record, settings: Question(answer, record, False) if answer else None,
    )
    return chosen(asking={})


def test_all_questions_are_asked_at_once(asking, make_record):
    asked = []

    def judge(questions):
        asked.append([question.text for question in questions])
        return ["yes" if question.text == "a" else "no" for question in questions]

    scores = RewardSum(asking, Asked(judge=judge)).score(["a", "", "b"], [make_record()] * 3)
    assert [one.total for one in scores] == [1.0, 0.25, 0.0]
    assert asked == [["a", "b"]]
    assert RewardSum(asking, Asked(judge=judge)).score([""], [make_record()])[0].total == 0.25
    assert len(asked) == 1


def test_a_judge_that_is_down_is_no_reward(asking, make_record):
    def down(questions):
        raise ConnectionError("the judge is down")

    with pytest.raises(ConnectionError, match="the judge is down"):
        RewardSum(asking, Asked(judge=down)).score(["a"], [make_record()])
    for replies in ([], [None], ["yes", "yes"]):
        with pytest.raises(DataError, match="reward 'asking': 1 questions were asked, and"):
            RewardSum(asking, Asked(judge=lambda questions, given=replies: given)).score(["a"], [make_record()])
    for call in (RewardSum(asking).check, lambda records: RewardSum(asking).score(["a"], records)):
        with pytest.raises(ConfigError, match="reward 'asking' asks a judge, and there is none"):
            call([make_record()])
    check_rewards(asking, [make_record()])


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("affect", {"scale": [1, 1]}, "affect.scale: must be a lower and an upper end"),
        ("affect", {"scale": [9, 1]}, "affect.scale: must be a lower and an upper end"),
        ("label_vad", {"dimensions": [-1, 0, 0]}, "label_vad.dimensions.0"),
        ("label_vad", {"dimensions": [0, 0, 0]}, "must have a weight above 0"),
        ("label_vad", {"values": {"awe": [9, 0, 0]}}, "label_vad.values.awe.0"),
        ("distribution", {"values": {"awe": [0, -2, 0]}}, "distribution.values.awe.1"),
        ("au_f1", {"beta": 1e308}, "au_f1.beta"),
        ("label_exact", {"weight": 1e308}, "label_exact.weight"),
    ],
)
def test_settings_that_no_answer_could_use_are_refused_at_once(name, settings, problem):
    found, problems = parse_rewards({name: settings}, "rewards")
    assert not found and len(problems) == 1 and problem in problems[0]


@pytest.mark.parametrize("name", ["label_exact", "calibration_brier", "label_vad", "polarity", "tree", "wheel_f1"])
@pytest.mark.parametrize("fields", [{"emotion": "hope"}, {"label_set": "nowhere"}])
def test_a_label_outside_its_set_is_refused_before_training_by_the_records(name, fields, make_record):
    attributes = {"attributes": {"scene": "park"}}
    records = [make_record(id=f"set/{number}", **attributes, **(fields if number else {})) for number in range(3)]
    with pytest.raises(ConfigError, match=rf"reward '{name}' .*unknown .*: records 'set/1', 'set/2'"):
        check_rewards(chosen(**{name: {}}), records, Asked())


def test_a_label_outside_its_set_is_named_with_its_record(make_record):
    with pytest.raises(DataError, match="record 'set/7': unknown emotion 'hope'"):
        RewardSum(chosen(label_exact={})).score(["awe"], [make_record(id="set/7", emotion="hope")])


def test_words_of_a_record_that_have_commas_can_be_answered(make_record):
    record = make_record(attributes={"object": ["table, chairs"], "scene": "none"})
    answer = "<attributes>chairs, table</attributes><expression>none</expression><answer>awe</answer>"
    assert RewardSum(chosen(tree={})).score([answer], [record])[0].total == 1.0
