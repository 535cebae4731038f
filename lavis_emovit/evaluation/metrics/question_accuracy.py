"""The accuracy of questions, of which a record may have several, as the number that stands for a benchmark."""

from __future__ import annotations

from collections.abc import Callable

from lavis_emovit.evaluation.metrics.comparison import compare_answers
from lavis_emovit.evaluation.metrics.registry import Headline
from lavis_emovit.evaluation.metrics.rows import question_groups
from lavis_emovit.evaluation.predictions import PredictionRow


def accuracy_headline(accuracy_of: Callable[[PredictionRow], float]) -> Headline:
    """The headline `accuracy`; models are compared by `accuracy_of` each row, over the groups of `question_groups`."""
    return Headline(
        "accuracy",
        title="accuracy",
        counts=lambda result: (result.num_samples, result.num_invalid),
        compare=lambda before, after: compare_answers(
            before.rows, after.rows, accuracy_of, "accuracy", group_by=question_groups(before.rows, before.group_by)
        ),
    )
