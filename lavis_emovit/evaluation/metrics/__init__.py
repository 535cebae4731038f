"""Metrics of prediction rows, each with its interval.

All metrics follow two rules. An answer that cannot be read counts as wrong. A row with an `error` has no answer: it is
not measured and counts only in `num_errors`. `docs/metrics.md` lists each formula, its source and its range.

Each module of this folder registers its metrics, see `registry.py`. The main functions can be imported from here.
"""

from lavis_emovit.evaluation.metrics.action_units import action_unit_metrics
from lavis_emovit.evaluation.metrics.classification import classification_metrics
from lavis_emovit.evaluation.metrics.comparison import compare_models
from lavis_emovit.evaluation.metrics.dimensional import dimensional_metrics
from lavis_emovit.evaluation.metrics.hierarchy import hierarchy_metrics
from lavis_emovit.evaluation.metrics.label_ranking import label_ranking_metrics
from lavis_emovit.evaluation.metrics.registry import Headline, MeasuredRows, Metric, numbers_of, register_metric
from lavis_emovit.evaluation.metrics.sensitivity import sensitivity
from lavis_emovit.evaluation.metrics.slices import slice_metrics
from lavis_emovit.evaluation.metrics.soft_labels import soft_label_metrics

__all__ = [
    "Headline",
    "MeasuredRows",
    "Metric",
    "action_unit_metrics",
    "classification_metrics",
    "compare_models",
    "dimensional_metrics",
    "hierarchy_metrics",
    "label_ranking_metrics",
    "numbers_of",
    "register_metric",
    "sensitivity",
    "slice_metrics",
    "soft_label_metrics",
]
