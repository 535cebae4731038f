"""Metrics of prediction rows, each with its interval.

All metrics follow two rules. An answer that cannot be read counts as wrong. A row with an `error` has no answer: it is
not measured and counts only in `num_errors`. `docs/metrics.md` lists each formula, its source and its range.

Each module of this folder registers its metrics, see `registry.py`. The main functions can be imported from here.
"""

from lavis_emovit.evaluation.metrics.action_units import action_unit_metrics as action_unit_metrics
from lavis_emovit.evaluation.metrics.classification import classification_metrics as classification_metrics
from lavis_emovit.evaluation.metrics.comparison import compare_models as compare_models
from lavis_emovit.evaluation.metrics.dimensional import dimensional_metrics as dimensional_metrics
from lavis_emovit.evaluation.metrics.hierarchy import hierarchy_metrics as hierarchy_metrics
from lavis_emovit.evaluation.metrics.registry import Headline as Headline
from lavis_emovit.evaluation.metrics.registry import MeasuredRows as MeasuredRows
from lavis_emovit.evaluation.metrics.registry import Metric as Metric
from lavis_emovit.evaluation.metrics.registry import numbers_of as numbers_of
from lavis_emovit.evaluation.metrics.registry import register_metric as register_metric
from lavis_emovit.evaluation.metrics.sensitivity import sensitivity as sensitivity
from lavis_emovit.evaluation.metrics.slices import slice_metrics as slice_metrics
from lavis_emovit.evaluation.metrics.soft_labels import soft_label_metrics as soft_label_metrics
