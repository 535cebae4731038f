#!/usr/bin/env bash
# pytest-xdist 3.8 beside pytest 9.2: `--dist loadgroup` splits the tests of an `xdist_group` over the workers.
#
# Tests with the same `@pytest.mark.xdist_group(name)` must run on one worker, for instance because they share an
# expensive module fixture, a port or a GPU. pytest-xdist appends `@name` to the private `_nodeid` of a test, which
# pytest 9.2 no longer reads for `nodeid`. So the scheduler sees no group, no warning is printed, all tests pass, and
# every worker builds the fixture for itself. With pytest 9.0 the same tests stay together.
#
# Run: bash findings/xdist_groups_are_split_beside_pytest_9_2.sh      (exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/test_group.py" <<'PYTHON'
import os
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("one_gpu")


@pytest.fixture(scope="module", autouse=True)
def expensive() -> None:
    Path(os.environ["BUILDS"], os.environ["PYTEST_XDIST_WORKER"]).touch()


@pytest.mark.parametrize("number", range(8))
def test_something(number: int) -> None:
    time.sleep(0.2)
PYTHON

# The number of workers that run tests of the group, with a version of pytest.
workers_of_the_group() {
    "${PYTHON:-python3}" -m venv "$folder/venv-$1"
    "$folder/venv-$1/bin/pip" install --quiet "pytest==$1" pytest-xdist==3.8.0
    mkdir "$folder/builds-$1"
    (cd "$folder" && BUILDS="$folder/builds-$1" "$folder/venv-$1/bin/python" -m pytest -q -n 2 --dist loadgroup \
        -p no:cacheprovider test_group.py >&2)
    find "$folder/builds-$1" -type f | wc -l
}

old=$(workers_of_the_group 9.0.2)
new=$(workers_of_the_group 9.2.0)
echo "pytest-xdist 3.8.0, 8 tests in one group, 2 workers"
echo "pytest 9.0.2: the tests of the group ran on $old worker(s)"
echo "pytest 9.2.0: the tests of the group ran on $new worker(s)"
[ "$old" -eq 1 ] && [ "$new" -eq 2 ] || { echo "the behaviour has changed" >&2; exit 1; }
