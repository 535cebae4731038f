#!/usr/bin/env bash
# torchmetrics: the correlation of values with a long tail is nan in float32, and rescaling does not help.
#
# `pearson_corrcoef` divides the variance by the square of the largest deviation and returns nan if the quotient is
# below sqrt(eps), 0.00035 for float32. The quotient measures the shape of the distribution, not the precision. It is
# about k/n if k of n values are 1 and the others 0, and it is small for any long tail. Below, a rare label (1 of 5,000
# images is positive) and log-normal scores give nan, although NumPy returns 1.0 and the data have no numerical problem.
# `concordance_corrcoef` inherits the nan. There is a warning: "The variance of predictions or target is close to zero.
# ... Consider re-scaling the input". The quotient does not depend on the scale, so re-scaling changes nothing; float64
# returns the value.
#
# Run: bash findings/torchmetrics_correlation_nan_for_long_tails.sh
# (about 1 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import torch
import torchmetrics
from torchmetrics.functional import concordance_corrcoef, pearson_corrcoef

print(f"torch {torch.__version__}, torchmetrics {torchmetrics.__version__}, numpy {np.__version__}")
warnings.simplefilter("ignore")


def concordance(x, y):
    """Lin's concordance correlation coefficient in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return 2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


rng = np.random.default_rng(0)
rare = np.zeros(5000, dtype=np.float32)
rare[7] = 1
tail = np.exp(2 * rng.standard_normal(20000)).astype(np.float32)
noisy = tail + 0.1 * rng.standard_normal(20000).astype(np.float32)
for name, x, y in (("1 positive of 5,000", rare, rare), ("log-normal scores", tail, noisy)):
    preds, target = torch.from_numpy(x), torch.from_numpy(y)
    found = pearson_corrcoef(preds, target).item()
    scaled = pearson_corrcoef(preds * 1000, target * 1000).item()
    double = pearson_corrcoef(preds.double(), target.double()).item()
    agreement = concordance_corrcoef(preds, target).item()
    expected = np.corrcoef(x, y)[0, 1]
    in_float32 = np.corrcoef(x, y, dtype=np.float32)[0, 1]
    print(
        f"{name}: pearson {found}, times 1000 {scaled}, float64 {double:.5f}, NumPy {expected:.5f}, "
        f"NumPy in float32 {in_float32:.5f}; concordance {agreement}, formula {concordance(x, y):.5f}"
    )
    assert expected > 0.999 and in_float32 > 0.999 and concordance(x, y) > 0.999
    assert abs(double - expected) < 1e-6, "the value in float64 has changed"
    assert np.isnan(found) and np.isnan(scaled) and np.isnan(agreement), "the behaviour has changed"
PYTHON
