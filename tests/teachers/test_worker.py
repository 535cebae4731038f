"""The process of a teacher, here a program that speaks the protocol.

Properties:
- faces are in pixels of the image, also of one that is sent smaller;
- after a crash or a timeout the image is tried once more in a new process, then it has a fault with the reason, and the
  next image is answered; restarts are counted;
- an error about one image, and a reply that is not as in the protocol, are faults of this image alone;
- several images in a row that end the process, a program that does not start and another version are one error.
"""

from __future__ import annotations

import sys

import fake_teacher as fake
import pytest
from fake_fixtures import PROGRAM, make_image

from lavis_emovit.errors import UserError
from lavis_emovit.teachers.worker import MAX_SIDE_PX, Worker


@pytest.fixture
def start(tmp_path):
    """Function (**settings) -> the worker of the fake teacher."""

    def make(version="1.0", **settings):
        command = [sys.executable, str(PROGRAM), "happy", str(tmp_path / "requests.log")]
        return Worker("happy-fake", command, version, **settings)

    return make


def test_faces_are_in_pixels_of_the_image(start, requests_of):
    wide = make_image(fake.ONE, (MAX_SIDE_PX * 2, 100))
    with start() as worker:
        small, large, empty = worker.annotate([make_image(fake.ONE), wide, make_image(fake.NONE)])
    assert small.faces[0].box == pytest.approx((6.4, 0, 57.6, 64))
    assert small.faces[0].expressions == pytest.approx({"happiness": 0.8, "neutral": 0.2})
    assert requests_of("happy")[1] == f"{fake.ONE} {MAX_SIDE_PX}x50"
    assert large.faces[0].box == pytest.approx((0.2 * MAX_SIDE_PX, 0, 1.8 * MAX_SIDE_PX, 100))
    assert empty.faces == () and empty.fault is None
    assert worker.num_restarts == 0


def test_a_crash_is_named_and_the_next_image_is_answered(start, requests_of):
    with start() as worker:
        crashed, other, once = worker.annotate(map(make_image, (fake.CRASH, fake.ONE, fake.CRASH_ONCE)))
    assert crashed.fault == "crash"
    assert crashed.reason == "the process ended with code 1: MemoryError: no more memory"
    assert len(other.faces) == len(once.faces) == 1
    assert [line.split()[0] for line in requests_of("happy")] == ["40", "40", "10", "50", "50"]
    assert worker.num_restarts == 3


def test_a_program_that_reads_nothing_is_a_timeout(start):
    # More bytes than a pipe holds.
    with start(answer_s=0.5) as worker:
        hung, other = worker.annotate([make_image(fake.HANG, (600, 600)), make_image(fake.ONE)])
    assert (hung.fault, hung.reason) == ("timeout", "no reply in 0.5 s")
    assert len(other.faces) == 1


def test_errors_about_one_image_keep_the_process(start):
    with start() as worker:
        error, unfit, other = worker.annotate(map(make_image, (fake.ERROR, fake.UNFIT, fake.ONE)))
    assert (error.fault, error.reason) == ("error", "ValueError: cannot do this one")
    assert unfit.fault == "error" and "must be probabilities" in unfit.reason
    assert len(other.faces) == 1 and worker.num_restarts == 0


def test_something_else_than_a_reply_is_a_crash(start):
    with start() as worker:
        (answer,) = worker.annotate([make_image(fake.NOISE)])
    assert answer.fault == "crash" and "a greeting" in answer.reason


def test_crashes_in_a_row_end_the_run(start):
    with start() as worker, pytest.raises(UserError, match=r"'happy-fake': 3 images in a row .* no more memory"):
        worker.annotate([make_image(fake.CRASH)] * 4)


def test_a_program_that_does_not_start_is_named(start, tmp_path):
    with start(version="2.0") as worker, pytest.raises(UserError, match=r"version 1\.0 is installed, expected 2\.0"):
        worker.annotate([make_image(fake.ONE)])
    broken = Worker("broken", [sys.executable, "-c", "import a_missing_package"], "1.0")
    with broken as worker, pytest.raises(UserError, match=r"'broken' does not start: .*No module named 'a_missing"):
        worker.annotate([make_image(fake.ONE)])
    with Worker("absent", [str(tmp_path / "absent")], "1.0") as worker, pytest.raises(UserError, match="cannot be run"):
        worker.annotate([make_image(fake.ONE)])
