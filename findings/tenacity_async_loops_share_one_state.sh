#!/usr/bin/env bash
# tenacity: asyncio tasks that loop over one AsyncRetrying object share one state, and a failed task is not retried.
#
# `for attempt in retrying` over one shared Retrying object works in several threads: each loop has its own state.
# `async for attempt in retrying` over one shared AsyncRetrying object does not work in several asyncio tasks:
# `__aiter__` returns the object itself and replaces its only state. Below, task A fails once and task B succeeds. A
# asks for its next attempt, sees the success of B, and its loop ends: no second attempt and no exception, although
# three attempts are allowed and `reraise` is set. `await retrying(function)` retries each task correctly, but
# `retrying.statistics` is kept per thread and counts the attempts of all tasks together.
#
# Run: bash findings/tenacity_async_loops_share_one_state.sh      (exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tenacity==9.2.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import tenacity

print(f"tenacity {version('tenacity')}")
options = {"stop": tenacity.stop_after_attempt(3), "wait": tenacity.wait_none(), "reraise": True}


def loop_in_thread(retrying, name, num_failures, own_turn, next_turn):
    num_attempts, succeeded = 0, False
    for attempt in retrying:
        with attempt:
            num_attempts += 1
            own_turn.wait(10)
            next_turn.set()
            if num_attempts <= num_failures:
                raise ConnectionError(name)
            succeeded = True
    return num_attempts, succeeded


async def loop_in_task(retrying, name, num_failures, own_turn, next_turn):
    num_attempts, succeeded = 0, False
    async for attempt in retrying:
        with attempt:
            num_attempts += 1
            await own_turn.wait()
            next_turn.set()
            if num_attempts <= num_failures:
                raise ConnectionError(name)
            succeeded = True
    return num_attempts, succeeded


def in_threads():
    retrying = tenacity.Retrying(**options)
    a_turn, b_turn = threading.Event(), threading.Event()
    with ThreadPoolExecutor() as pool:
        a = pool.submit(loop_in_thread, retrying, "A", 1, a_turn, threading.Event())
        b = pool.submit(loop_in_thread, retrying, "B", 0, b_turn, a_turn)
        b_turn.set()
        return a.result(), b.result()


async def in_tasks(is_shared):
    first = tenacity.AsyncRetrying(**options)
    second = first if is_shared else tenacity.AsyncRetrying(**options)
    a_turn, b_turn = asyncio.Event(), asyncio.Event()
    b_turn.set()
    return tuple(
        await asyncio.gather(
            loop_in_task(first, "A", 1, a_turn, asyncio.Event()), loop_in_task(second, "B", 0, b_turn, a_turn)
        )
    )


async def calls():
    retrying = tenacity.AsyncRetrying(**options)
    num_attempts = {"A": 0, "B": 0}

    async def work(name, num_failures):
        num_attempts[name] += 1
        await asyncio.sleep(0.01)
        if num_attempts[name] <= num_failures:
            raise ConnectionError(name)

    await asyncio.gather(retrying(work, "A", 2), retrying(work, "B", 1))
    return num_attempts, retrying.statistics["attempt_number"]


threads = in_threads()
separate = asyncio.run(in_tasks(is_shared=False))
shared = asyncio.run(in_tasks(is_shared=True))
num_attempts, counted = asyncio.run(calls())
print("(attempts, succeeded) of A, which fails once, and B, which does not fail:")
print(f"two threads, one Retrying:       A {threads[0]}, B {threads[1]}")
print(f"two tasks, two AsyncRetrying:    A {separate[0]}, B {separate[1]}")
print(f"two tasks, one AsyncRetrying:    A {shared[0]}, B {shared[1]}")
print(f"await retrying(function): attempts {num_attempts}, statistics['attempt_number'] {counted}")
assert threads == separate == ((2, True), (1, True)), "the behaviour of separate loops has changed"
assert shared == ((1, False), (1, True)), "the behaviour has changed"
assert num_attempts == {"A": 3, "B": 2} and counted == 4, "the behaviour of the statistics has changed"
PYTHON
