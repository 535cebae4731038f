"""Remote shards, with a local HTTP server that fails on purpose.

- Samples arrive as they were written, through every kind of failed transfer: errors, truncation, changed bytes, closed
  connections; each file is requested no more often than it failed.
- A file that never ends stops at the size that its index states.
- A shard that never arrives complete is refused by name, and no partial file has its name.
- The cache stays within its limit while several processes read at once, and leftovers of a killed process are removed.
- Another set at the same URL is noticed; a damaged or missing index too. No message has the password of a URL.
- Workers of a DataLoader read remote shards like local ones.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import multiprocessing
import pickle
import threading
import time
from collections import Counter

import pytest
from torch.utils.data import DataLoader, Dataset

from lavis_emovit.errors import DataError
from lavis_emovit.shards import remote
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import SampleFaultError, ShardReader
from lavis_emovit.shards.remote import ShardCache, default_max_bytes
from lavis_emovit.shards.verify import verify_shards
from lavis_emovit.shards.writer import write_shards


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `server.plan` lists the failures of a file, one per request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.server.counts[name] += 1
        plan = self.server.plan.get(name, [])
        what = plan.pop(0) if plan else "ok"
        if what == "ok":
            super().do_GET()
            return
        if what in ("500", "404", "429", "401", "403", "410"):
            self.send_error(int(what))
            return
        if what == "redirect":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if what == "hang up":
            self.close_connection = True
            return
        if what == "endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                while True:
                    self.server.num_endless += self.wfile.write(bytes(2**16))
        data = open(self.translate_path(self.path), "rb").read()  # noqa: PTH123, SIM115
        self.send_response(200)
        if what == "page":
            data = b"<!DOCTYPE html><title>Sign in</title>"
        self.send_header("Content-Length", str(len(data) if what == "cut" else len(data) // (1 + (what == "short"))))
        self.end_headers()
        if what == "changed":
            data = data[:700] + bytes([data[700] ^ 1]) + data[701:]
        self.wfile.write(data[: len(data) // 2] if what in ("cut", "short") else data)
        self.close_connection = True


@pytest.fixture
def server(built):
    folder = built[2].folder
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder.parent))
    ) as running:
        running.plan, running.counts, running.num_endless = {}, Counter(), 0
        running.url = f"http://127.0.0.1:{running.server_address[1]}/{folder.name}"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def _cache(tmp_path, **options):
    return ShardCache(tmp_path / "cache", **{"attempts": 4, "wait_s": 0.01, **options})


def _all(index):
    reader = ShardReader(index)
    return [(item.record.to_json(), item.image_bytes) for item in (reader.read(n) for n in range(23))]


def _tars(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.tar"))


def test_samples_arrive_through_every_failed_transfer(built, server, tmp_path):
    server.plan = {
        "index.json": ["500", "hang up"],
        "index.safetensors": ["cut"],
        "shard-000000.tar": ["500", "429", "short"],
        "shard-000001.tar": ["cut", "changed", "hang up"],
    }
    expected = {name: len(plan) + 1 for name, plan in server.plan.items()} | {"shard-000002.tar": 1}
    index = ShardIndex.load(server.url, _cache(tmp_path))
    assert index.hash == built[2].hash
    assert _all(index) == _all(built[2])
    assert server.counts == expected
    # The second time from the cache; only the index is requested again.
    assert _all(ShardIndex.load(f"{server.url}/index.json", _cache(tmp_path))) == _all(built[2])
    assert server.counts == expected | {"index.json": 4}
    assert verify_shards(index.folder).ok


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (["changed"] * 9, r"shard-000000.tar: 4 attempts failed.*sha256 does not match"),
        (["short"] * 9, r"shard-000000.tar: 4 attempts failed.*expected"),
        (["404"], r"shard-000000.tar: not found. Check the URL"),
        (["500"] * 9, r"shard-000000.tar: 4 attempts failed.*500"),
    ],
)
def test_shards_that_never_arrive_are_refused(server, tmp_path, plan, expected):
    server.plan = {"shard-000000.tar": plan}
    reader = ShardReader(ShardIndex.load(server.url, _cache(tmp_path)))
    with pytest.raises(DataError, match=expected) as caught:
        reader.read(3)
    # Not a fault of one sample, to be replaced by another: a run without its data must stop.
    assert not isinstance(caught.value, SampleFaultError)
    assert reader.read(12)
    assert [path.name for path in _tars(tmp_path)] == ["shard-000001.tar"]
    assert not list((tmp_path / "cache").rglob(".*.tmp"))


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (["401"] * 9, "the server refuses access .*401"),
        (["403"] * 9, "the server refuses access .*403"),
        (["410"] * 9, "the server refuses the request .*410"),
        (["redirect"] * 99, "the server redirects without end"),
    ],
)
@pytest.mark.parametrize("name", ["index.json", "shard-000000.tar"])
def test_lasting_answers_are_not_retried(server, tmp_path, caplog, plan, expected, name):
    server.plan = {name: list(plan)}
    with pytest.raises(DataError, match=rf"{server.url}/{name}: {expected}.*credentials"):
        ShardReader(ShardIndex.load(server.url, _cache(tmp_path))).read(3)
    assert "attempt" not in caplog.text and (server.counts[name] == 1 or plan[0] == "redirect")


@pytest.mark.parametrize("damage", ["page", "changed", "short"])
def test_a_damaged_index_is_fetched_again(built, server, tmp_path, damage):
    cached = ShardIndex.load(server.url, _cache(tmp_path))
    assert _all(cached) == _all(built[2])
    cached.cache.forget_index()
    server.plan = {"index.safetensors": [damage]}
    with pytest.raises(DataError, match=rf"{server.url}: the index cannot be used; the next call fetches it again"):
        ShardIndex.load(server.url, _cache(tmp_path))
    assert not [path.name for path in cached.folder.iterdir() if path.name.startswith("index")]
    assert _all(ShardIndex.load(server.url, _cache(tmp_path))) == _all(built[2])


@pytest.mark.parametrize("damage", ["page", "short"])
def test_a_page_instead_of_the_index_leaves_the_cache(built, server, tmp_path, damage):
    assert _all(ShardIndex.load(server.url, _cache(tmp_path))) == _all(built[2])
    before = dict(server.counts)
    server.plan = {"index.json": [damage]}
    with pytest.raises(DataError, match=rf"{server.url}/index.json: damaged: not JSON"):
        ShardIndex.load(server.url, _cache(tmp_path))
    assert _all(ShardIndex.load(server.url, _cache(tmp_path))) == _all(built[2])
    assert server.counts == before | {"index.json": 3}


@pytest.mark.parametrize("name", ["index.json", "index.safetensors", "shard-000000.tar"])
def test_a_file_without_an_end_stops_at_its_size(server, tmp_path, monkeypatch, name):
    monkeypatch.setattr(remote, "MAX_INDEX_BYTES", 100_000)
    server.plan = {name: ["endless"]}
    with pytest.raises(DataError, match=rf"{name}: more than [0-9]+ bytes"):
        ShardReader(ShardIndex.load(server.url, _cache(tmp_path))).read(3)
    assert server.counts[name] == 1 and server.num_endless < 20_000_000
    assert not list((tmp_path / "cache").rglob(".*.tmp"))


def test_wrong_urls_are_reported(server, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"/nowhere/index.json: not found"):
        ShardIndex.load(f"{server.url}/nowhere", _cache(tmp_path))
    with pytest.raises(DataError, match=r"ftpx://x: cannot be opened .*https://, s3:// or gs://"):
        ShardIndex.load("ftpx://x", _cache(tmp_path))
    monkeypatch.setenv("EMOVIT_CACHE_GB", "lots")
    with pytest.raises(DataError, match="EMOVIT_CACHE_GB=lots: must be"):
        ShardCache()
    monkeypatch.setenv("EMOVIT_CACHE_GB", "0.5")
    assert default_max_bytes() == 500_000_000


@pytest.mark.parametrize("plan", [["500"] * 9, ["404"], ["hang up"] * 9])
def test_passwords_of_urls_are_in_no_message(plan, server, tmp_path, caplog):
    server.plan = {"index.json": plan}
    url = server.url.replace("://", "://me:word9@")
    with pytest.raises(DataError) as caught:
        ShardIndex.load(url, _cache(tmp_path))
    shown = str(caught.value) + caplog.text
    assert "word9" not in shown and "://***@127.0.0.1" in shown


def _read_much(index, numbers, largest):
    reader = ShardReader(index)
    for number in numbers:
        reader.read(number)
        sizes = {}
        for path in index.folder.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):
                sizes[path] = path.stat().st_size
        # Those that are still there were there together.
        used = sum(size for path, size in sizes.items() if path.exists())
        with largest.get_lock():
            largest.value = max(largest.value, used)


def test_the_cache_stays_within_its_limit(built, server, tmp_path):
    sizes = [shard.size_bytes for shard in built[2].shards]
    limit = max(sizes[0] + sizes[1], sizes[0] + sizes[2], sizes[1] + sizes[2]) + 512
    index = ShardIndex.load(server.url, _cache(tmp_path, max_bytes=limit))
    left = [index.folder / f".shard-000000.tar.999999999{suffix}" for suffix in (".tmp", ".reserved")]
    for path in left:
        path.write_text(str(limit))
    context = multiprocessing.get_context("fork")
    largest = context.Value("q", 0)
    orders = [[0, 10, 20, 5, 15, 22], [22, 1, 11, 21, 2]]
    readers = [context.Process(target=_read_much, args=(index, order, largest)) for order in orders]
    for process in readers:
        process.start()
    for process in readers:
        process.join()
        assert process.exitcode == 0
    assert 0 < largest.value <= limit
    assert not any(path.exists() for path in left)
    assert server.counts["shard-000000.tar"] + server.counts["shard-000001.tar"] > 2
    tiny = ShardIndex.load(server.url, ShardCache(tmp_path / "tiny", max_bytes=1000))
    with pytest.raises(DataError, match=r"more than the whole shard cache of 1000. Set EMOVIT_CACHE_GB"):
        ShardReader(tiny).read(0)


def test_recently_used_shards_stay(built, server, tmp_path):
    sizes = [shard.size_bytes for shard in built[2].shards]
    index = ShardIndex.load(server.url, _cache(tmp_path, max_bytes=sum(sizes) - 1))
    for sample in (0, 10):
        index.local_path(index.shard_of(sample))
        time.sleep(0.02)
    index.local_path(0)
    index.local_path(2)
    assert [path.name for path in _tars(tmp_path)] == ["shard-000000.tar", "shard-000002.tar"]


def test_another_set_at_the_url_is_noticed(built, server, tmp_path, monkeypatch):
    assert _all(ShardIndex.load(server.url, _cache(tmp_path)))
    other = write_shards(*built[:2], tmp_path / "other", samples_per_shard=10, seed=7)
    monkeypatch.setattr(Handler, "translate_path", lambda self, path: str(other.folder / path.rpartition("/")[2]))
    index = ShardIndex.load(server.url, _cache(tmp_path))
    assert index.hash == other.hash
    assert _all(index) == _all(other)


class Everything(Dataset):
    """Ids and images by number."""

    def __init__(self, index):
        self.reader = ShardReader(index)

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, number):
        sample = self.reader.read(number)
        return sample.record.id, sample.image_bytes


def test_workers_of_a_loader_read_remote_shards(built, server, tmp_path):
    server.plan = {"shard-000001.tar": ["500"]}
    remote = Everything(ShardIndex.load(server.url, _cache(tmp_path)))
    expected = [Everything(built[2])[number] for number in range(23)]
    loader = DataLoader(pickle.loads(pickle.dumps(remote)), batch_size=None, num_workers=2)
    assert [tuple(item) for item in loader] == expected
    assert server.counts["shard-000001.tar"] == 2
