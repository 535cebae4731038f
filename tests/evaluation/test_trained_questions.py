"""Properties: the question of a run asks any image the same as its plainest variant; labels of a set that only another
package knows are found again by their list; questions that only records have are left out."""

from __future__ import annotations

from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.questions import example_question
from lavis_emovit.evaluation.trained_questions import TrainedQuestions, trained_question


def test_the_plainest_variant_is_asked_again():
    settings = BenchmarkSettings(dataset="any", wordings=(2, 1), option_marks=("letters", "none"), subject="face")
    labels = get_label_set("mikels8")
    question = trained_question(settings, "generation", labels)
    kept = TrainedQuestions.model_validate_json(TrainedQuestions(questions=(question,)).model_dump_json())
    again = kept.of_kind("emotion").benchmark()
    assert example_question(again, "generation", labels).text == example_question(settings, "generation", labels).text


def test_labels_of_another_package_are_listed():
    question = trained_question(BenchmarkSettings(dataset="any"), "likelihood", LabelSet("theirs", ("calm", "tense")))
    assert get_label_set(question.label_set).labels == ("calm", "tense")
    with_comma = LabelSet("theirs", ("calm", "tense, wild"))
    assert trained_question(BenchmarkSettings(dataset="any"), "likelihood", with_comma) is None


def test_questions_of_records_are_left_out():
    settings = BenchmarkSettings(dataset="any", kind="instruction", instruction="reasoning")
    assert trained_question(settings, "generation", None) is None
