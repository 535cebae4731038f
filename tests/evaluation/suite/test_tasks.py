"""The tasks of the field's benchmarks in suites.

- Each task runs with the packaged tiny model, a tiny LLaVA and an endpoint, by writing and, where it exists, by
  likelihood; every question of every image has a row, and none leaves a denominator.
- Scripted answers get the numbers of a count by hand.
- A stopped suite resumes at the question where it stopped, and ends as if nothing had happened.
- Benchmarks that cannot be asked are refused with the reason before a model is loaded.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "chat"))
from chat_server import Action, ChatServer, words_of
from tiny_families import make_llava15

from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.evaluation.predictions import PredictionWriter, read_predictions
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.evaluation.suite.suite import run_suite
from lavis_emovit.records import EmotionRecord
from lavis_emovit.shards.writer import write_shards

KINDS = {
    "choice": ("likelihood", "generation"),
    "statement": ("likelihood", "generation"),
    "ranking": ("likelihood", "generation"),
    "words": ("generation",),
    "vqa": ("generation",),
    "valence_arousal": ("likelihood", "generation"),
}
MORE = {"valence_arousal": {"axes": ["valence", "arousal", "dominance"]}, "words": {"max_new_tokens": 8}}
NUM_RECORDS = 6
YES_NO = {"options": ["Yes.", "No."], "categories": {"type": "Yes-or-No"}}


def _questions(number):
    """Three choices and one open question about each image."""
    return [
        {"question": "Is it calm?", "answers": ["Yes." if number % 2 else "No."], **YES_NO},
        {
            "question": "Which emotion is strongest?", "answers": ["Joy"], "options": ["Fear", "Joy", "Neutral"],
            "categories": {"type": "What/How", "dimension": "Emotion"}, "id": f"q{number}",
        },
        {"question": "How many people are there?", "answers": ["2", "two"] + ["three"] * 8},
        {"question": "Is it bright?", "answers": ["Yes."], **YES_NO},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def task_root(tmp_path_factory, make_records):
    """Shards of images with questions, statements, rankings, words and three dimensions, in the storage `tasks`."""
    data = tmp_path_factory.mktemp("tasks")
    images = tmp_path_factory.mktemp("images")
    records = []
    for number, record in enumerate(make_records(images, NUM_RECORDS, split="test")):
        values = json.loads(record.to_json()) | {
            "id": f"t/{number}", "emotion": "joy", "label_set": "emotion6", "instructions": [],
            "ranking": ["joy", "surprise", "fear"], "words": ["happy", "calm"],
            "valence": 0.5, "arousal": -0.25, "dominance": 0.1 * number,
            "questions": _questions(number),
            "statements": [
                {"text": "The image evokes joy", "is_correct": True, "categories": {"class": "interpretation"}},
                {"text": "It is sad.", "is_correct": False, "categories": {"class": "polarity"}},
            ],
        }  # fmt: skip
        records.append(EmotionRecord.model_validate(values))
    write_shards(records, images, data / "tasks" / "test", samples_per_shard=4)
    for split in ("train", "val"):
        write_shards(make_records(images, 1, split=split), images, data / "tasks" / split)
    return data


@pytest.fixture
def tasks(tmp_path, monkeypatch, task_root):
    """Makes settings of a suite with a benchmark of each of these kinds, or with given ones."""
    monkeypatch.setenv("EMOVIT_DATA", str(task_root))
    monkeypatch.chdir(tmp_path)
    shared = {"dataset": "emoset", "config": {"build_info": {"images": {"storage": "tasks"}}}}

    def make(kinds, *, models=None, output_dir="out", **values):
        chosen = (
            {kind: {"kind": kind, **MORE.get(kind, {})} for kind in kinds} if not isinstance(kinds, dict) else kinds
        )
        content = {
            "name": "tasks",
            "output_dir": output_dir,
            "models": models or {"tiny": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu"}},
            "benchmarks": {name: {**shared, **one} for name, one in chosen.items()},
            "methods": ["likelihood", "generation"],
            "batch_size": 4,
            "num_threads": 1,
            "probe": False,
            "report": False,
            **values,
        }
        path = tmp_path / "tasks.yaml"
        path.write_text(yaml.safe_dump({"suite": content}))
        return load_suite(path, ())

    return make


def _count(kind):
    return NUM_RECORDS * {"choice": 3, "statement": 2}.get(kind, 1)


def test_every_task_runs_with_models_of_both_families(tasks, tmp_path):
    models = {
        "tiny": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu"},
        "llava": {"adapter": "transformers", "path": str(make_llava15(tmp_path / "llava")), "device": "cpu"},
    }
    summary = run_suite(tasks(list(KINDS), models=models, report=True))
    for kind, methods in KINDS.items():
        found = summary["benchmarks"][kind]["results"]
        assert [(one["model"], one["method"]) for one in found] == [
            (m, way) for m in sorted(models) for way in methods
        ], kind
        for one in found:
            assert "problem" not in one and one["num_samples"] == _count(kind) and one["num_errors"] == 0, (kind, one)
            rows = read_predictions(f"out/predictions/{kind}/{one['model']}.{one['method']}.jsonl")
            assert len({row.instance_id for row in rows}) == len(rows) == _count(kind)
            assert all(row.prompt for row in rows)
            if one["method"] == "likelihood" and kind in ("choice", "statement"):
                right = [row.prediction in row.labels if row.labels else row.prediction == row.label for row in rows]
                assert one["headline"]["value"] == pytest.approx(sum(right) / len(right)) and one["num_invalid"] == 0
    choice = summary["benchmarks"]["choice"]["results"][0]["metrics"]["choices"]
    assert {name: len(of) for name, of in choice["categories"].items()} == {"dimension": 1, "type": 2}
    assert choice["categories"]["type"]["Yes-or-No"]["num_samples"] == 2 * NUM_RECORDS
    assert "Is it calm?" in Path("out/report.html").read_text()


def _reply(body, number):
    """Answers of an endpoint: right, wrong, refused and unreadable ones."""
    text = words_of(body)
    if "Is it calm?" in text:
        assert "(a) Yes.; (b) No." in text and "Confidence: " in text
        return Action(text="(a) Yes. Confidence: 0.9")
    if "Which emotion is strongest?" in text:
        return Action(text="The picture shows joy. Confidence: 60%")
    if "Is it bright?" in text:
        return Action(text="I'm sorry, but I can't help with that.")
    if "evokes joy." in text:
        return Action(text="This statement is true.")
    if "It is sad." in text:
        return Action(text="An image that fits.")
    if "most strongly" in text:
        assert "Which 3 of these emotions" in text
        return Action(text="1. Joy\n2. Fear\n3. Sadness")
    if "List all words" in text:
        return Action(text="joyful, at peace, angry")
    if "How many people" in text:
        return Action(text="Two.")
    assert "dominance (controlled to in control)" in text
    return Action(text="valence: 0.5, arousal: -0.25, dominance: 0.1")


def _reply_by_mode(body, number):
    """Joy at once; something else after a description; and a child declines after the context."""
    text = words_of(body)
    if "First describe" in text:
        return Action(text="A grey street in the rain. The picture evokes sadness.")
    if "First say" in text and "You are a child" in text:
        return Action(text="I'm sorry, but I can't help with that.")
    return Action(text="joy")


def test_modes_and_personas_of_a_suite(tasks, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    asked = {"kind": "emotion", "modes": ["direct", "caption", "context"], "personas": ["none", "child"]}
    with ChatServer(_reply_by_mode) as server:
        chat = {"model": "m", "base_url": server.url, "max_in_flight": 2}
        models = {
            "chat": {"adapter": "chat", "chat": chat, "probe": False},
            "tiny": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu"},
        }
        settings = tasks({"modes": asked}, models=models, methods=["generation"], report=True)
        chat_model, tiny = run_suite(settings)["benchmarks"]["modes"]["results"]
    found = chat_model["metrics"]["robustness"]
    variant = "wording 1, options fixed"
    accuracy = {name.removeprefix(variant): of["accuracy"] for name, of in found["variants"].items()}
    child = ", persona child"
    assert accuracy == {"": 1, ", caption first": 0, ", context first": 1, child: 1, f"{child}, caption first": 0,
                        f"{child}, context first": 0}  # fmt: skip
    # Joy, sadness and a refusal in 3, 2 and 1 of six variants: 11 of the 15 pairs differ.
    assert found["num_questions"] == NUM_RECORDS and found["flip_rate"] == pytest.approx(11 / 15)
    # With the persona none, one of three pairs of modes is the same; with the child, none.
    assert found["flips"] == pytest.approx({"mode": 5 / 6, "persona": 1 / 3})
    assert found["persona_shift"] == pytest.approx({"child": 1 / 3}) and found["refused"] == pytest.approx(1 / 6)
    rows = read_predictions("out/predictions/modes/tiny.generation.jsonl")
    assert len(rows) == 6 * NUM_RECORDS == tiny["metrics"]["robustness"]["num_questions"] * 6
    assert "context first" in Path("out/report.html").read_text()


def test_scripted_answers_get_the_numbers_of_a_count(tasks, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    benchmarks = {kind: {"kind": kind, **MORE.get(kind, {})} for kind in KINDS}
    benchmarks["choice"]["confidence"] = True
    with ChatServer(_reply) as server:
        chat = {"model": "m", "base_url": server.url, "max_in_flight": 2}
        models = {"chat": {"adapter": "chat", "chat": chat, "probe": False}}
        found = run_suite(tasks(benchmarks, models=models, methods=["generation"]))["benchmarks"]
    found = {kind: of["results"][0] for kind, of in found.items()}
    choice = found["choice"]["metrics"]["choices"]
    assert choice["accuracy"] == pytest.approx((3 + 6 + 0) / 18) and choice["num_invalid"] == 6
    assert choice["statuses"] == {"ok": 12, "refused": 6} and choice["accuracy_of_valid"] == pytest.approx(9 / 12)
    assert choice["all_right"] == 0 and choice["chance"] == pytest.approx((6 / 2 + 6 / 3 + 6 / 2) / 18)
    assert choice["positions"] == pytest.approx([6 / 18, 6 / 18, 0.0])
    assert choice["order_bias"] == pytest.approx(6 / 18 - choice["chance"])
    assert choice["categories"]["type"]["Yes-or-No"]["values"] == pytest.approx(
        {"accuracy": 3 / 12, "unread": 6 / 12, "all_right": 0.0}
    )
    confidence = found["choice"]["metrics"]["stated_confidence"]
    # 0.9 for 3 right and 3 wrong answers, 0.6 for 6 right ones, none for 6 wrong ones.
    assert (confidence["num_stated"], confidence["stated_share"]) == (12, pytest.approx(12 / 18))
    assert confidence["ece"] == pytest.approx((6 * 0.4 + 6 * 0.4 + 6 * 1) / 18)
    assert confidence["ece_of_stated"] == pytest.approx(0.4)
    assert confidence["brier"] == pytest.approx((3 * 0.01 + 3 * 0.81 + 6 * 0.16 + 6) / 18)
    statement = found["statement"]["metrics"]["statements"]
    assert (statement["accuracy"], statement["positive_ratio"], statement["give_up_ratio"]) == (0.5, 0.5, 0.5)
    assert (statement["accuracy_of_answered"], statement["balanced_accuracy"]) == (1.0, 0.5)
    assert statement["categories"]["class"]["polarity"]["values"] == {"accuracy": 0, "positive": 0, "give_up": 1}
    ranking = found["ranking"]["metrics"]["rankings"]
    values = [ranking[name] for name in ("overlap", "top1", "places", "exact", "pairs")]
    assert values == pytest.approx([2 / 3, 1.0, 1 / 3, 0.0, 1 / 3])
    words = found["words"]["metrics"]["words"]
    assert words["num_invalid"] == 0 and set(words["wheels"]) == {"mikels", "parrott", "plutchik"}
    # On Mikels' wheel joyful is happy, "at peace" is calm, and angry is wrong. Plutchik's has no calm.
    mikels, plutchik = words["wheels"]["mikels"], words["wheels"]["plutchik"]
    assert (mikels["coverage"], mikels["precision"], mikels["recall"]) == (1.0, pytest.approx(2 / 3), 1.0)
    assert (plutchik["coverage"], plutchik["off_wheel"]) == (0.5, ["calm"])
    # VQAv2's normal form of "Two." and "two" is 2, which two of the ten people gave.
    assert found["vqa"]["metrics"]["vqa"]["accuracy"] == pytest.approx((2 * (1 / 3) + 8 * (2 / 3)) / 10)
    affect = found["valence_arousal"]["metrics"]["affect"]["dimensions"]
    assert affect["dominance"]["all"]["mae"] == pytest.approx(sum(abs(0.1 * n - 0.1) for n in range(6)) / 6)


def test_a_stopped_suite_resumes_at_the_question(tasks, monkeypatch, fake):
    benchmarks = {"choice": {"kind": "choice", "option_orders": ["fixed", "reversed"]}}
    fake()
    expected = run_suite(tasks(benchmarks, output_dir="whole"))
    write = PredictionWriter.write
    for at_row in (1, 4, 6):
        left = [at_row]

        def stop(writer, row, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            write(writer, row)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(PredictionWriter, "write", stop)
            run_suite(tasks(benchmarks, output_dir="stopped"))
    assert run_suite(tasks(benchmarks, output_dir="stopped")) == expected
    for method in ("likelihood", "generation"):
        one, other = (Path(folder, f"predictions/choice/tiny.{method}.jsonl") for folder in ("whole", "stopped"))
        assert one.read_bytes() == other.read_bytes()
        names = [row.instance_id for row in read_predictions(one)]
        assert len(names) == 2 * _count("choice") and "t/3/q3#wording 1, options reversed by letters" in names


def test_reversed_options_are_listed_and_scored_in_their_order(tasks, fake):
    fake()
    run_suite(tasks({"choice": {"kind": "choice", "option_orders": ["reversed"]}}))
    rows = read_predictions("out/predictions/choice/tiny.likelihood.jsonl")
    assert {row.options for row in rows} == {("No.", "Yes."), ("Neutral", "Joy", "Fear")}
    for row in rows:
        assert tuple(row.scores) == row.options and row.prediction == max(row.scores, key=row.scores.get)


WHEEL = {"version": 1, "sources": {"own": "mine"}, "forms": {}}


@pytest.mark.parametrize(
    ("benchmark", "problem"),
    [
        ({"kind": "statement", "option_orders": ["fixed", "reversed"]}, r"option_orders belongs to kind 'emotion' or"),
        ({"kind": "emotion", "axes": ["valence", "dominance"]}, r"axes belongs to kind 'valence_arousal'"),
        ({"kind": "valence_arousal", "axes": ["valence", "valence"]}, r"names the same choice twice"),
        ({"kind": "words", "confidence": True}, r"confidence belongs to kind 'emotion' or 'choice' or 'statement'"),
        ({"kind": "choice", "wordings": [3]}, r"wordings of kind 'choice' are numbered 1 to 2"),
        ({"kind": "words", "wheels": "blank.json"}, r"blank.json: far has no word of 'emoset' \(such as happy, calm\)"),
        ({"kind": "words", "wheels": "none.json"}, r"none.json"),
        ({"kind": "action_units"}, r"none of the 6 records of 'emoset' \(test\) has action units"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_a_model_is_loaded(tasks, monkeypatch, benchmark, problem):
    wheels = {
        "near": {"source": "own", "clusters": {"a": "happy"}},
        "far": {"source": "own", "clusters": {"b": "zeal"}},
    }
    Path("blank.json").write_text(json.dumps({**WHEEL, "wheels": wheels}))
    monkeypatch.setattr("lavis_emovit.evaluation.suite.suite.open_model", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises((ConfigError, UserError)) as caught:
        run_suite(tasks({"set": benchmark}))
    assert re.search(problem, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("benchmark", "place"),
    [
        ({"kind": "choice"}, r"'emoset', record 't/\d', question 'q\d': 3"),
        ({"kind": "emotion", "option_marks": ["none", "letters"]}, "label set 'emotion6': 6"),
    ],
)
def test_more_options_than_letters_are_refused_before_a_model_is_loaded(tasks, monkeypatch, benchmark, place):
    monkeypatch.setattr("lavis_emovit.evaluation.suite.benchmark_data.MOST_LETTERS", 2)
    monkeypatch.setattr("lavis_emovit.evaluation.suite.suite.open_model", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=f"{place} options are too many for letters; set option_marks"):
        run_suite(tasks({"set": benchmark}))


def test_variants_and_groups_are_in_metrics_table_and_report(tasks, fake):
    fake()
    varied = {"personas": ["none", "child"], "option_orders": ["fixed", "reversed"]}
    benchmarks = {"choices": {"kind": "choice", **varied}, "statements": {"kind": "statement"}}
    summary = run_suite(tasks(benchmarks, groups={"both": ["choices", "statements"]}, report=True))
    results = {name: of["results"] for name, of in summary["benchmarks"].items()}
    for place, one in enumerate(summary["groups"]["both"]):
        parts = [results[name][place]["headline"]["value"] for name in benchmarks]
        assert one["mean_over_tasks"] == pytest.approx(sum(parts) / 2) and one["num_samples"] == 18 + 12
        assert one["pooled"] == pytest.approx((18 * parts[0] + 12 * parts[1]) / 30)
    robust = results["choices"][0]["metrics"]["robustness"]
    assert robust["num_questions"] == 18 and set(robust["flips"]) == {"order", "persona"}
    # The fake model's scores depend on the place of an option alone, and on no persona.
    assert robust["persona_shift"] == {"child": 0.0} and robust["flips"]["persona"] == 0.0
    sensitivity = summary["sensitivity"][0]
    assert set(sensitivity["parts"]) == {"order", "persona"} and set(sensitivity["tasks"]) == {"choices"}
    assert "Mean over tasks" in Path("out/table.md").read_text()
    page = Path("out/report.html").read_text()
    assert "How far answers depend on the question" in page and "Pooled over answers" in page


def test_a_judge_reads_reasons_and_steps(tasks, fake, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    fake()
    explained = {"explained": {"kind": "explanation", "limit": 4}}

    def reply(body, number):
        has_image = isinstance(body["messages"][-1]["content"], list) and "image" in json.dumps(body["messages"][-1])
        text = words_of(body)
        if text.startswith("Emotions: "):
            assert not has_image and "Reason" not in text
            return Action(text='{"emotion": "fear"}')
        assert has_image and "Emotion that people feel: joy" in text
        return Action(text=json.dumps({"steps": [1] * text.partition("Steps:")[2].count(". ")}))

    with ChatServer(reply) as server:
        chat = {"model": "judge", "base_url": server.url, "structured": "text", "max_in_flight": 1}
        judge = {"chat": chat, "parts": ["emotion", "steps"]}
        summary = run_suite(tasks(explained, methods=["generation"], judge=judge, report=True))
    (result,) = summary["benchmarks"]["explained"]["results"]
    judged, words = result["judged_reasons"], result["metrics"]["reasons"]
    assert (judged["source"], words["source"]) == ("judge", "words") and "judge" not in result
    # The truth is joy, the fake model writes fear or nothing, and the judge reads fear from all of it.
    assert judged["eea"] == 0 and judged["wrong_wrong"] == 1 and judged["num_samples"] == words["num_samples"] == 4
    lines = Path("out/judgements/explained/tiny.generation.jsonl").read_text().splitlines()
    assert [json.loads(line)["part"] for line in lines] == ["emotion"] * 4 + ["steps"] * 4
    assert "Right for the right reason, by the judge" in Path("out/report.html").read_text()
