"""Commands on a Ray cluster of two nodes, which are processes of this machine and only meet at an address.

Properties:
- teachers, crops and captions: both nodes work, and one of them is killed in the middle; nothing is lost, and the files
  are those of one process, byte for byte; one process resumes what the cluster began, and the other way round;
- what a machine lacks is an error that names the machine, also if its worker cannot even load the work;
- an address without a cluster is an error that names it.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import fake_teacher as fake
import pytest
from fake_fixtures import make_image

from lavis_emovit.distributed.on_ray import INSTALL_LINE, RayEngine
from lavis_emovit.errors import UserError
from lavis_emovit.generation import captions
from lavis_emovit.records import EmotionRecord, write_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason=f"Ray is not installed: {INSTALL_LINE}"),
]

SECOND = "127.0.0.2"  # an address of its own, by which messages name it


@pytest.fixture(scope="module")
def head():
    """A cluster of one node with one CPU."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # On a busy machine, starting takes longer than Ray waits.
        patch.setenv("RAY_raylet_start_wait_time_s", "120")
        patch.setenv("RAY_worker_register_timeout_seconds", "600")
        found = Cluster()
        try:
            found.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80_000_000)
            yield found
        finally:
            found.shutdown()


@pytest.fixture
def cluster(head):
    """The same with a second node of one CPU, which tests kill."""
    head.second = head.add_node(num_cpus=1, object_store_memory=80_000_000, node_ip_address=SECOND)
    # Commands join the node of this address, and Ray writes that of the node that started last.
    address = {"node_ip_address": head.head_node.node_ip_address}
    Path(head.head_node.get_session_dir_path(), "node_ip_address.json").write_text(json.dumps(address))
    yield head
    head.remove_node(head.second, allow_graceful=False)


@pytest.fixture
def on_cluster(cluster):
    return ("--engine", "ray", "--ray-address", cluster.address)


def raylet_of(node):
    (process,) = node.all_processes["raylet"]
    return process.process.pid


def is_alive(node):
    return node.all_processes["raylet"][0].process.poll() is None


def files_of(folder, *endings):
    """Relative path -> content of the files of a command, but for its reports."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.suffix in endings}


@pytest.fixture
def photos(tmp_path):
    """Images, the first two of which wait for each other on both nodes, and end the second node."""
    folder = tmp_path / "photos"
    folder.mkdir()
    codes = [fake.MEET, fake.MEET, *([fake.ONE, fake.TWO, fake.NONE, fake.ERROR, fake.PROFILE] * 3)]
    for number, code in enumerate(codes):
        make_image(code, (200, 160)).save(folder / f"{number:02}.png")
    (folder / "z.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize(("command", "more", "num_files"), [("annotate", (), 2), ("detect", ("--crops",), 3 + 14)])
def test_teachers_and_crops_although_a_node_is_killed(
    emovit, tmp_path, photos, two_fakes, requests_of, cluster, on_cluster, command, more, num_files
):
    options = ("facial", command, photos, "--teacher", "happy-fake", *more, "--out")
    (tmp_path / fake.KILLED_NODE).write_text(str(raylet_of(cluster.second)))
    code, output, errors = emovit(*options, tmp_path / "ray", *on_cluster)
    assert code == 0, errors
    assert not (tmp_path / fake.KILLED_NODE).exists() and not is_alive(cluster.second)
    summary = json.loads((tmp_path / "ray" / "records.summary.json").read_text())
    assert summary["lost_workers"] >= 1 and "workers of Ray that ended and were replaced: " in output
    # One process resumes: only the errors are left. So does what is left of the cluster.
    found = files_of(tmp_path / "ray", ".jsonl", ".jpg")
    for engine in ((), on_cluster):
        before = len(requests_of("happy"))
        assert emovit(*options, tmp_path / "ray", *engine)[0] == 0
        assert len(requests_of("happy")) == before + 3
    assert emovit(*options, tmp_path / "one")[0] == 0
    counted = json.loads((tmp_path / "one" / "records.summary.json").read_text())
    assert summary | {"lost_workers": 0} == counted and counted["teachers"]["happy-fake 1.0"]["statuses"]["error"] == 3
    expected = files_of(tmp_path / "one", ".jsonl", ".jpg")
    assert found == expected and len(expected) == num_files


def test_captions_although_a_node_is_killed(emovit, tmp_path, monkeypatch, cluster, on_cluster):
    common = {"split": "train", "source": "s"}
    names = [f"{number:02}.png" for number in range(20)]
    for number, name in enumerate(names):
        make_image(12 * number, (32, 32)).save(tmp_path / name)
    write_records(tmp_path / "r.jsonl", [EmotionRecord(id=name, image=name, **common) for name in names])
    monkeypatch.setattr(captions, "_BATCH_SIZE", 1)
    read = captions.read_file

    def read_and_kill(path):
        if path.name == names[12] and is_alive(cluster.second):
            import ray

            end = time.monotonic() + 120  # until both workers run
            while ray.available_resources().get("CPU") and time.monotonic() < end:
                time.sleep(0.2)
            os.kill(raylet_of(cluster.second), signal.SIGKILL)
            cluster.second.all_processes["raylet"][0].process.wait()
        return read(path)

    command = ("generate", "captions", tmp_path / "r.jsonl", "--captioner", "lavis:emovit_tiny", "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(captions, "read_file", read_and_kill)
        code, output, errors = emovit(*command, "--out", tmp_path / "ray", *on_cluster)
    assert code == 0 and not is_alive(cluster.second), errors
    assert "captions: 20 of 20" in output
    assert emovit(*command, "--out", tmp_path / "one")[0] == 0
    name = "records.jsonl"
    assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    # The ledger has each caption once, in the same order, so nothing is captioned again by either engine.
    ledger = (tmp_path / "ray" / "ledger.jsonl").read_bytes()
    rows = [captioned(tmp_path / name / "ledger.jsonl") for name in ("ray", "one")]
    assert rows[0] == rows[1] and len(rows[0]) == len(dict(rows[0])) == 20
    for engine in ((), on_cluster):
        assert emovit(*command, "--out", tmp_path / "ray", *engine)[0] == 0
        assert (tmp_path / "ray" / "ledger.jsonl").read_bytes() == ledger


def captioned(ledger):
    """Image and caption of each row."""
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    return [(row["about"]["record"], row["reply"]) for row in rows if "reply" in row]


def works(function):
    """Work without anything to open. Functions are local ones, because workers import no test."""

    @contextmanager
    def open_work():
        yield function

    return open_work


def test_what_a_machine_lacks_names_it(cluster, tmp_path):
    mark = tmp_path / "refused"

    def refuse_on_second(number):
        import ray

        from lavis_emovit.errors import UserError

        if ray.util.get_node_ip_address() == "127.0.0.2":
            mark.touch()
            raise UserError("teacher 'fer' is not installed in /teachers/fer")
        while not mark.exists():  # the second node gets the other item
            time.sleep(0.1)

    with RayEngine(cluster.address) as engine, pytest.raises(UserError) as caught:
        list(engine.map(works(refuse_on_second), [(1, 1), (2, 2)]))
    message = f"on {platform.node()} ({SECOND}): teacher 'fer' is not installed in /teachers/fer"
    assert str(caught.value) == message


class OnlyHere:
    """Work that another machine cannot load, as one without this package could not."""

    def __reduce__(self):
        return __import__, ("no_such_module",)


def test_a_machine_that_cannot_load_the_work_is_named(cluster):
    with (
        RayEngine(cluster.address) as engine,
        pytest.raises(UserError, match=r"of Ray on .+ \([0-9.]+\) cannot load its work \(.*'no_such_module'\)\. Inst"),
    ):
        list(engine.map(OnlyHere(), [(1, 1)]))


def test_an_address_without_a_cluster(emovit, tmp_path, photos, two_fakes):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        engine = ("--engine", "ray", "--ray-address", address)
        code, _, errors = emovit(
            "facial", "annotate", photos, "--teacher", "happy-fake", "--out", tmp_path / "x", *engine
        )
    assert code == 2 and f"no Ray cluster at {address}" in errors
