"""Metrics of predictions, from the rows alone, each with its interval.

Two rules hold in all of them. An answer that cannot be read is a wrong answer and stays in the denominator; a row that
failed with an `error` is no answer, is left out of the denominator and is counted beside it as `num_errors`.
`docs/metrics.md` gives each formula, its source and its range.
"""

from lavis_emovit.evaluation.metrics.action_units import (
    ActionUnitMetrics,
    UnitMetrics,
    action_unit_metrics,
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
    confusion_counts,
    top_k_accuracy,
)
from lavis_emovit.evaluation.metrics.comparison import (
    PairedComparison,
    compare_models,
    mcnemar_exact,
    paired_difference,
)
from lavis_emovit.evaluation.metrics.dimensional import (
    AgreementOfNumbers,
    DimensionalMetrics,
    DimensionMetrics,
    dimensional_metrics,
)
from lavis_emovit.evaluation.metrics.hierarchy import HierarchyMetrics, LevelMetrics, hierarchy_metrics
from lavis_emovit.evaluation.metrics.paired_numbers import (
    NumbersComparison,
    compare_action_units,
    compare_dimensional,
)
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
    "HierarchyMetrics",
    "Interval",
    "LevelMetrics",
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
    "intraclass_correlation",
    "label_indices",
    "log_softmax",
    "mcnemar_exact",
    "paired_difference",
    "prediction_indices",
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
