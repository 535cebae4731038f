"""Rate limits, the budget, interrupts and images.

- Requests and tokens per minute hold in every window of a minute, at no less than nine tenths of the speed. Tokens that
  were not used are given back.
- The endpoint's headers lower the limits. A used-up limit and a 429 pause all calls, once for all that fail together.
- As many calls are in flight as set, up to 1,000.
- The budget is never exceeded, whatever replies cost, over several runs and after a killed one.
- Prices come from the dated table or the user's file. A budget without a price is refused.
- Ctrl-C waits for paid calls. After the second one, cancelled calls are recorded with their worst case.
- Images are sent in bounded size. Broken ones affect no other request.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import threading
import time

import pytest
from chat_server import Action, ChatServer
from PIL import Image

from lavis_emovit.chat import limits
from lavis_emovit.chat.faults import header_number, retry_after_s
from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.limits import RateLimiter
from lavis_emovit.chat.prices import Usage, load_prices, worst_case
from lavis_emovit.chat.request import ChatRequest, Message, image_of
from lavis_emovit.chat.run import run_requests
from lavis_emovit.errors import UserError


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only by waiting."""

    def __init__(self):
        super().__init__()
        self.now_s = 100.0
        select = self._selector.select

        def skip(timeout):
            self.now_s += (timeout or 0.0) + 1e-6
            return select(0)

        self._selector.select = skip

    def time(self):
        return self.now_s


def _simulate(scenario):
    loop = _VirtualLoop()
    try:
        return loop.run_until_complete(scenario(loop))
    finally:
        loop.close()


@pytest.mark.parametrize(("rpm", "tpm", "tokens"), [(60, None, 1), (3, None, 1), (None, 6000, 250), (600, 30000, 100)])
def test_every_minute_keeps_the_limit(rpm, tpm, tokens):
    times = []

    async def send(loop):
        limiter = RateLimiter(rpm, tpm)
        while loop.time() < 500:
            await limiter.acquire(tokens)
            times.append(loop.time())

    _simulate(send)
    allowed = min(rpm or 1e9, (tpm or 1e9) / tokens)
    windows = [sum(start <= time < start + 60 for time in times) for start in times]
    assert max(windows) <= allowed + 1
    assert len(times) >= 0.9 * allowed * 400 / 60 - (allowed if rpm == 3 else 0)


def test_unused_tokens_are_given_back():
    """Requests that use a third of what they acquire: the limit applies to the tokens that they use."""
    sent = []

    async def scenario(loop):
        limiter = RateLimiter(tpm=200_000)

        async def worker():
            while loop.time() < 500:
                await limiter.acquire(1500)
                sent.append(loop.time())
                await asyncio.sleep(2.0)
                limiter.give_back(1000)

        await asyncio.gather(*(worker() for _ in range(64)))

    _simulate(scenario)
    windows = [500 * sum(start <= time < start + 60 for time in sent) for start in sent]
    assert max(windows) <= 200_000
    assert 500 * len(sent) >= 0.95 * 200_000 * 400 / 60


def test_stop_ends_waiting():
    async def scenario(loop):
        stop = asyncio.Event()
        limiter = RateLimiter(rpm=1, stop=stop)
        await limiter.acquire(1)
        loop.call_later(3.0, stop.set)
        begin = loop.time()
        await asyncio.gather(limiter.acquire(1), limiter.acquire(1))
        limiter.pause(100.0)
        await limiter.acquire(1)
        return loop.time() - begin

    assert 3.0 <= _simulate(scenario) < 3.1


def test_headers_and_pauses(monkeypatch):
    async def scenario(loop):
        limiter = RateLimiter(rpm=600)

        async def seconds():
            begin = loop.time()
            for _ in range(10):
                await limiter.acquire(10)
            return loop.time() - begin

        assert await seconds() < 1
        await limiter.observe({"x-ratelimit-limit-requests": "60", "x-ratelimit-limit-tokens": "nonsense"})
        assert 8 < await seconds() < 12
        await limiter.observe({"x-ratelimit-limit-requests": "100000"})  # the setting still applies
        await seconds()
        assert await seconds() < 2
        await limiter.observe({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "30s"})
        assert 30 < await seconds() < 32
        limiter.pause(5.0)
        assert 5 < await seconds() < 7
        # A hundred calls that fail together are one reason to pause. Pauses in a row grow.
        monkeypatch.setattr(limits, "_FIRST_PAUSE_S", 4.0)
        monkeypatch.setattr(limits, "_LONGEST_PAUSE_S", 60.0)
        lengths = []
        for _ in range(3):
            for _ in range(100):
                limiter.pause()
            lengths.append(await seconds())
        assert lengths[0] < 5 and lengths[0] < lengths[1] < lengths[2] <= 18

    _simulate(scenario)


def test_changing_limits_allow_no_bursts():
    """An endpoint behind which several servers report different limits."""

    async def scenario(loop):
        limiter = RateLimiter()
        for number in range(100):
            await limiter.observe({"x-ratelimit-limit-requests": str(600 + number % 2)})
            for _ in range(5):
                await limiter.acquire(1)
        return loop.time()

    assert _simulate(scenario) - 100.0 > 0.9 * 500 / 10


def test_header_forms():
    assert retry_after_s({"retry-after": "7"}) == 7.0
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after_s({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}) > 1e9
    assert retry_after_s({"retry-after": "soon"}) is None and retry_after_s({}) is None
    assert [header_number(text) for text in ("6m0s", "120ms", "1h2m3.5s", "4", "x", None)] == [
        360.0, 0.12, 3723.5, 4.0, None, None
    ]  # fmt: skip


@pytest.mark.parametrize("width", [1, 40, 1000])
def test_in_flight(width, make_settings, make_requests, ledger):
    with ChatServer(latency_s=1.5 if width == 1000 else 0.05) as server:
        settings = make_settings(server, max_in_flight=width, timeout_s=60)
        count = {1: 3, 40: 120, 1000: 1000}[width]
        progress = run_requests(make_requests(settings, count), settings, ledger)
        assert progress.done == count and progress.in_flight == 0
        assert 0.9 * width <= server.max_in_flight <= width


@pytest.mark.parametrize("output", [20, 1024])
def test_budget_is_never_exceeded(output, make_settings, make_requests, tmp_path):
    """With cheap replies, a run sends more than worst cases would allow; with the most expensive, it stops in time."""
    usage = {"prompt_tokens": 30, "completion_tokens": output}
    limit = 0.02
    with ChatServer(lambda body, number: Action(usage=usage)) as server:
        settings = make_settings(server, max_usd=limit, max_in_flight=50)
        requests = make_requests(settings, 2000)
        for _ in range(2):
            with Ledger(tmp_path / "ledger.jsonl") as ledger:
                progress = run_requests(requests, settings, ledger)
                assert "could exceed the limit of $0.02" in progress.stopped
                price = load_prices().find(settings.model)
                cost = price.usd(Usage(30, output))
                assert ledger.usd_spent == pytest.approx(server.num_requests * cost)
                worst = price.usd(worst_case(requests[0], price))
                assert limit - worst - 1e-9 <= ledger.usd_spent <= limit
        # The whole budget was used, at the price of real replies and not of worst cases.
        assert server.num_requests == pytest.approx(limit / cost, rel=0.12)


def test_possible_cost_of_a_killed_run_counts(make_settings, make_requests, tmp_path):
    path = tmp_path / "ledger.jsonl"
    with ChatServer() as server:
        settings = make_settings(server, max_usd=1.0, max_in_flight=4)
        with Ledger(path) as ledger:
            ledger.reserve(0.03)
            intact = path.read_bytes()
        path.write_bytes(intact)  # as if the process had been killed here
        with Ledger(path) as ledger:
            assert 0.03 <= ledger.usd_in_doubt <= 0.06
            assert ledger.usd_spent == ledger.usd_in_doubt
        with Ledger(path) as ledger:  # counted once
            assert 0.03 <= ledger.usd_in_doubt <= 0.06
            run_requests(make_requests(settings, 5), settings.model_copy(update={"max_usd": 0.02}), ledger)
        assert server.num_requests == 0


def test_timeouts_count_with_their_worst_case(make_settings, make_requests, ledger):
    with ChatServer(lambda body, number: Action(wait_s=1.0)) as server:
        settings = make_settings(server, timeout_s=0.1, max_attempts=2)
        request = make_requests(settings, 1)[0]
        run_requests([request], settings, ledger)
    price = load_prices().find(settings.model)
    assert ledger.usd_spent == pytest.approx(2 * price.usd(worst_case(request, price)))


def test_prices(tmp_path, make_settings, make_requests, ledger):
    table = load_prices()
    assert table.date[:2] == "20" and table.find("gpt-4o-2024-08-06") == table.find("openai/gpt-4o") is not None
    assert table.find("gpt-4o").usd(Usage(1_000_000, 100_000, 400_000)) == pytest.approx(0.6 * 2.5 + 0.4 * 1.25 + 1.0)
    own = tmp_path / "prices.json"
    own.write_text(json.dumps({"date": "2026-11-01", "models": {"mine": {"input": 0, "output": 0}}}))
    assert load_prices(own).date == "2026-11-01" and load_prices(own).find("gpt-4o") is not None
    with ChatServer() as server:
        settings = make_settings(server, model="mine", max_usd=0.0)
        with pytest.raises(UserError, match=r"no price is known for the model 'mine'.*--prices"):
            run_requests(make_requests(settings, 1), settings, ledger)
        settings = make_settings(server, model="mine", max_usd=0.0, prices=str(own))
        assert run_requests(make_requests(settings, 2), settings, ledger).done == 2
    for bad, message in (
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"date": "x", "date": "y"}', "the key 'date' is repeated"),
        ("[]", "expected one JSON object with date"),
        ('{"models": {}}', "prices.date: missing"),
        ('{"date": "x", "models": {"m": {"inputs": 1}}}', "input"),
    ):
        own.write_text(bad)
        with pytest.raises(UserError, match=message):
            load_prices(own)


def test_second_interrupt_records_calls_under_way(make_settings, make_requests, tmp_path):
    """The second Ctrl-C cancels calls under way. They get rows with their worst case, and the ledger stays usable."""

    def interrupt_twice() -> None:
        while server.num_requests < 8:
            time.sleep(0.01)
        handler = signal.getsignal(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        while signal.getsignal(signal.SIGINT) is handler:  # two signals at once would count as one
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    with ChatServer(latency_s=10.0) as server, Ledger(tmp_path / "ledger.jsonl") as ledger:
        settings = make_settings(server, max_usd=1.0)
        requests = make_requests(settings, 20)
        # A shell starts background jobs with SIGINT ignored.
        earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=interrupt_twice, daemon=True).start()
        try:
            with pytest.raises(KeyboardInterrupt):
                run_requests(requests, settings, ledger)
        finally:
            signal.signal(signal.SIGINT, earlier)
        assert ledger.counts == {"dropped": 8} and ledger.usd_spent > 0
        server.latency_s = 0.0
        assert run_requests(requests, settings, ledger).done == 20


def test_broken_images_do_not_end_a_run(make_settings, tmp_path, ledger):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    Image.new("RGB", (2000, 1000)).save(tmp_path / "good.png")
    with ChatServer() as server:
        settings = make_settings(server, max_failures=2)
        images = [image_of(tmp_path / name, 256) for name in ("bad.jpg",) * 10 + ("good.png",)]
        requests = [ChatRequest("m", (Message("user", f"{n}", (image,)),), {}, "p/1") for n, image in enumerate(images)]
        progress = run_requests(requests, settings, ledger)
        assert progress.failed == {"bad_picture": 10} and progress.done == 1 and progress.stopped is None
        url = server.bodies[0]["messages"][0]["content"][0]["image_url"]["url"]
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as sent:
        assert sent.size == (256, 128)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_waits_for_paid_calls(sent, make_settings, make_requests, ledger):
    def script(body, number):
        if number == 8:
            threading.Timer(0.05, os.kill, (os.getpid(), sent)).start()
        return Action(wait_s=0.2)

    before = signal.getsignal(sent)
    with ChatServer(script) as server:
        settings = make_settings(server)
        progress = run_requests(make_requests(settings, 500), settings, ledger)
        assert progress.stopped.startswith("interrupted") and signal.getsignal(sent) is before
        assert len(ledger) == server.num_requests == progress.done < 100
