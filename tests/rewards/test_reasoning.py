"""Rewards of the reasoning, and those that ask.

Properties:
- the rationale counts sentences with the emotion among those with any; denials, and sentences that name everything, do
  not count;
- the tree's distance is 1 for each leaf that is added, removed or replaced; an exact answer has 1;
- reflection asks the model with the image about the first part, and without it about the first two, in one call;
  nothing is asked about an answer without these parts;
- the judge's score is read strictly; a reply without one is an error unless a value is set.
"""

from __future__ import annotations

import math

import pytest

from lavis_emovit.errors import ConfigError, DataError, UserError
from lavis_emovit.rewards import Asked, Question, RewardSum, get_reward, parse_rewards

EMO_R3 = r"<step1>a storm</step1><step2>small</step2><step3>negative, excited</step3>\boxed{fear}"


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        ("A lake at dawn. Wonder fills the viewer. It is awe-inspiring.", 1.0),
        ("Wonder fills the viewer. A sad figure. A lake.", 0.5),
        ("There is no fear. Majestic peaks.", 1.0),
        ("Nothing majestic here. A sad figure.", 0.0),
        ("A lake.", 0.0),
        ("Wonder, terror, grief and rage at once.", 0.0),
        ("", 0.0),
    ],
)
def test_rationale(reasoning, expected, make_record, reward_of):
    answer = f"<think>{reasoning}</think><answer>fear</answer>"
    assert reward_of("rationale_emotion", answer, make_record()) == pytest.approx(expected)


def test_rationale_of_neutral_and_unknown_labels(make_record, reward_of):
    neutral = make_record(emotion="neutral", label_set="expressions8")
    assert reward_of("rationale_emotion", "A face. It is sad.", neutral, part="all") == 0.5
    rewards, _ = parse_rewards({"rationale_emotion": {}}, "r")
    other = make_record(emotion="something else", label_set="artemis9")
    with pytest.raises(ConfigError, match="reward 'rationale_emotion' finds the label 'something else' on no wheel"):
        RewardSum(rewards).check([other, neutral])
    wild = "Wonder, terror, grief and rage at once."
    assert reward_of("rationale_emotion", wild, make_record(), part="all", most=4) == 1.0


TREE = "<attributes>{attributes}</attributes><expression>{expression}</expression><answer>{answer}</answer>"
ATTRIBUTES = {"scene": "beach", "object": ["dog", "sun hat"], "facial_expression": "smile"}


@pytest.mark.parametrize(
    ("attributes", "expression", "answer", "distance"),
    [
        ("beach, dog, sun hat", "smile", "awe", 0),
        ("Sun hat; dog; Beach.", "Smile", "awe", 0),
        ("beach, dog", "smile", "awe", 1),
        ("beach, dog, sun hat, cat, boat", "smile", "awe", 2),
        ("forest, dog, sun hat", "smile", "awe", 1),
        ("beach, dog, sun hat", "none", "fear", 2),
        ("none", "none", "", 5),
    ],
)
def test_tree(attributes, expression, answer, distance, make_record, reward_of):
    written = TREE.format(attributes=attributes, expression=expression, answer=answer)
    record = make_record(attributes=ATTRIBUTES)
    assert reward_of("tree", written, record) == pytest.approx(math.exp(-0.5 * distance))
    assert reward_of("tree", written, record, decay=2.0) == pytest.approx(math.exp(-2.0 * distance))


def test_tree_of_some_attributes(make_record, reward_of):
    written = TREE.format(attributes="beach", expression="smile", answer="awe")
    assert reward_of("tree", written, make_record(attributes=ATTRIBUTES), attributes=("scene",)) == 1.0
    assert reward_of("tree", "awe", make_record(attributes=ATTRIBUTES)) == pytest.approx(math.exp(-0.5 * 4))


@pytest.fixture
def model():
    """A model that answers as `replies` says, in turn, and keeps the questions of each call."""

    class Model:
        def __init__(self):
            self.replies, self.calls = [], []

        def __call__(self, questions):
            self.calls.append(list(questions))
            return [self.replies.pop(0) for _ in questions]

    return Model()


def test_reflection(model, make_record):
    rewards, _ = parse_rewards({"reflect_image": {}, "reflect_emotion": {}}, "r")
    record = make_record(emotion="fear")
    model.replies = ["Yes.", "No, there is none", "perhaps", "fear", "awe", ""]
    answers = [EMO_R3, EMO_R3, EMO_R3, r"\boxed{fear}"]
    scores = RewardSum(rewards, Asked(model=model)).score(answers, [record] * 4)
    assert [one.parts["reflect_image"] for one in scores] == [1.0, 0.0, 0.5, 0.0]
    assert [one.parts["reflect_emotion"] for one in scores] == [1.0, 0.0, 0.5, 0.0]
    about_image, about_emotion = model.calls
    assert len(about_image) == len(about_emotion) == 3
    assert about_image[0].with_image and about_image[0].record is record
    assert "a storm" in about_image[0].text and "small" not in about_image[0].text
    assert not about_emotion[0].with_image
    assert "a storm\nsmall" in about_emotion[0].text and "amusement, anger, awe" in about_emotion[0].text
    assert "negative, excited" not in about_emotion[0].text


def test_reflection_settings(make_record):
    rewards, problems = parse_rewards({"reflect_image": {"template": "think_answer"}}, "r")
    assert problems == ["r.reflect_image: template 'think_answer' has no part trigger; it has reasoning, answer"]
    rewards, _ = parse_rewards({"reflect_image": {"template": "think_answer", "parts": ["reasoning"]}}, "r")
    asked = Asked(model=lambda questions: ["<think>hm</think>yes" for _ in questions])
    assert RewardSum(rewards, asked).score(["<think>a</think><answer>awe</answer>"], [make_record()])[0].total == 1.0
    with pytest.raises(ConfigError, match="reward 'reflect_image' asks the model that is trained, and there is none"):
        RewardSum(rewards, Asked(judge=asked.model)).check([make_record()])


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("4", 0.8), ("Score: 5", 1.0), ('{"score": 1, "why": "no"}', 0.2), ("3/5", 0.6), (" 2. ", 0.4)],
)
def test_statement(reply, expected, make_record, reward_of):
    assert reward_of("statement", "<think>a</think><answer>awe</answer>", make_record(), reply) == expected


def test_statement_is_asked_about_reasoning_and_result(make_record):
    rewards, _ = parse_rewards({"statement": {}}, "r")
    texts = []

    def judge(questions):
        texts.extend(question.text for question in questions)
        return ["5"] * len(questions)

    answers = ["<think>dark {answer} sky</think><answer>awe</answer>", "awe", "<think>dark</think>"]
    scores = RewardSum(rewards, Asked(judge=judge)).score(answers, [make_record()] * 3)
    assert [one.total for one in scores] == [1.0, 0.2, 0.2]
    (text,) = texts
    assert "Reasoning:\ndark" in text and "Conclusion:\nawe" in text


@pytest.mark.parametrize("reply", ["", "good", "6", "0", "3.5", "4 or 5", "no"])
def test_unreadable_replies_of_a_judge(reply, make_record, reward_of):
    with pytest.raises(DataError, match="the judge's reply about record 'set/1' has no number from 1 to 5"):
        reward_of("statement", "<think>a</think>b", make_record(), reply)
    assert reward_of("statement", "<think>a</think>b", make_record(), reply, unreadable=0.4) == 0.4


def test_chat_judge(monkeypatch, tmp_path, make_record):
    """Without a server: the endpoint cannot be reached, so the judge raises, and asks nothing about images."""
    from lavis_emovit.chat.settings import ChatSettings
    from lavis_emovit.rewards.judge import chat_judge

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    settings = ChatSettings(model="judge", base_url="http://127.0.0.1:9/v1", max_attempts=1, timeout_s=2)
    ask = chat_judge(settings, tmp_path / "judge.jsonl")
    with pytest.raises(UserError, match="the judge judge did not answer 1 of 1 questions"):
        ask([Question("a", make_record(), with_image=False)])
    with pytest.raises(UserError, match="only reads texts"):
        ask([Question("a", make_record(), with_image=True)])


def test_ranges():
    log = get_reward("calibration_log")
    assert log.range_of(log.settings()) == pytest.approx((1 + 2 * math.log(0.01), 2 + 2 * math.log(0.99)))
    assert log.range_of(log.settings(clip=0)) == (-math.inf, 2.0)
    rewards, _ = parse_rewards({"calibration_log": {"clip": 0, "weight": 0}, "length": {}}, "r")
    assert RewardSum(rewards).range == (0.0, 1.0)
