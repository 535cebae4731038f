"""Metrics of prediction rows, each with its interval.

All metrics follow two rules. An answer that cannot be read counts as wrong. A row with an `error` has no answer: it is
not measured and counts only in `num_errors`. `docs/metrics.md` lists each formula, its source and its range.
"""

from lavis_emovit.evaluation.metrics.action_units import (
    ActionUnitMetrics,
    UnitMetrics,
    action_unit_metrics,
    compare_action_units,
    intraclass_correlation,
)
from lavis_emovit.evaluation.metrics.calibration import (
    NUM_CALIBRATION_BINS,
    Calibration,
    CalibrationBin,
    CoveragePoint,
    calibration,
    confidence_auroc,
    log_softmax,
    risk_coverage_area,
    risk_coverage_curve,
    softmax,
)
from lavis_emovit.evaluation.metrics.classification import (
    INVALID,
    ClassificationMetrics,
    ClassMetrics,
    classification_metrics,
    top_k_accuracy,
)
from lavis_emovit.evaluation.metrics.comparison import (
    NumbersComparison,
    PairedComparison,
    compare_models,
    holm,
    mcnemar_exact,
)
from lavis_emovit.evaluation.metrics.confusion import confusion_counts
from lavis_emovit.evaluation.metrics.dimensional import (
    AgreementOfNumbers,
    DimensionalMetrics,
    DimensionMetrics,
    compare_dimensional,
    dimensional_metrics,
)
from lavis_emovit.evaluation.metrics.hierarchy import HierarchyMetrics, LevelMetrics, hierarchy_metrics
from lavis_emovit.evaluation.metrics.registry import Headline, MeasuredRows, Metric, numbers_of, register_metric
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES, Resamples, bootstrap_interval
from lavis_emovit.evaluation.metrics.results import Interval
from lavis_emovit.evaluation.metrics.rows import (
    group_indices,
    label_indices,
    prediction_indices,
    score_matrix,
    value_arrays,
    vote_matrix,
    without_errors,
)
from lavis_emovit.evaluation.metrics.sensitivity import (
    Sensitivity,
    TaskSensitivity,
    accuracy_of_variants,
    sensitivity,
)
from lavis_emovit.evaluation.metrics.slices import SMALL_SLICE, Slice, slice_metrics, slice_rows
from lavis_emovit.evaluation.metrics.soft_labels import SoftLabelMetrics, soft_label_metrics

__all__ = [
    "INVALID",
    "NUM_CALIBRATION_BINS",
    "NUM_RESAMPLES",
    "SMALL_SLICE",
    "ActionUnitMetrics",
    "AgreementOfNumbers",
    "Calibration",
    "CalibrationBin",
    "ClassMetrics",
    "ClassificationMetrics",
    "CoveragePoint",
    "DimensionMetrics",
    "DimensionalMetrics",
    "Headline",
    "HierarchyMetrics",
    "Interval",
    "LevelMetrics",
    "MeasuredRows",
    "Metric",
    "NumbersComparison",
    "PairedComparison",
    "Resamples",
    "Sensitivity",
    "Slice",
    "SoftLabelMetrics",
    "TaskSensitivity",
    "UnitMetrics",
    "accuracy_of_variants",
    "action_unit_metrics",
    "bootstrap_interval",
    "calibration",
    "classification_metrics",
    "compare_action_units",
    "compare_dimensional",
    "compare_models",
    "confidence_auroc",
    "confusion_counts",
    "dimensional_metrics",
    "group_indices",
    "hierarchy_metrics",
    "holm",
    "intraclass_correlation",
    "label_indices",
    "log_softmax",
    "mcnemar_exact",
    "numbers_of",
    "prediction_indices",
    "register_metric",
    "risk_coverage_area",
    "risk_coverage_curve",
    "score_matrix",
    "sensitivity",
    "slice_metrics",
    "slice_rows",
    "soft_label_metrics",
    "softmax",
    "top_k_accuracy",
    "value_arrays",
    "vote_matrix",
    "without_errors",
]
