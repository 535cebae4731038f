"""A teacher for tests: a program that speaks the protocol, and does what the colour of an image's first pixel says.

Its arguments: `happy` or `sad`, which it answers, and a file that gets one line for each request.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

# Red value of the first pixel -> what happens. KILL_ONCE ends the process that started the teacher. MEET waits until
# teachers of two nodes of Ray are asked it, and ends the node whose process is in the file KILLED_NODE, beside the log;
# without this file, it is as ONE.
ONE, NONE, TWO, CRASH, CRASH_ONCE, HANG, ERROR, TINY, PROFILE, NOISE, UNFIT, BLIND, KILL_ONCE, MEET = range(10, 150, 10)
KILLED_NODE = "killed_node.pid"

MOOD = {"happy": {"happy": 0.8, "neutral": 0.2}, "sad": {"sad": 0.5, "neutral": 0.3}}


def landmarks(width: int, nose: float) -> list[list[float]]:
    """68 points; only the corners of the eyes and the nose matter. `nose` is 0 at one eye and 1 at the other."""
    points = [[0.0, 0.0]] * 68
    points[36], points[45] = [width * 0.25, 10.0], [width * 0.75, 10.0]
    points[30] = [width * (0.25 + nose * 0.5), 20.0]
    return points


def meet(folder: Path) -> None:
    if not (killed := folder / KILLED_NODE).exists():
        return
    # The worker of Ray that started this process is a child of its node.
    node = Path(f"/proc/{os.getppid()}/stat").read_text().rsplit(")", 1)[1].split()[1]
    (folder / f"met-{node}").touch()
    while killed.exists() and len(list(folder.glob("met-*"))) < 2:
        time.sleep(0.05)
    if killed.exists() and killed.read_text() == node:
        os.kill(int(node), signal.SIGKILL)
        killed.unlink()
        time.sleep(600)  # the worker ends with its node
    while killed.exists():
        time.sleep(0.05)


def main(mood: str, log: Path) -> None:
    print(json.dumps({"ready": True, "version": "1.0"}), flush=True)
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        width, height = request["width"], request["height"]
        first = sys.stdin.buffer.read(3)[0]
        if first == HANG:
            time.sleep(600)  # without reading the rest
        sys.stdin.buffer.read(width * height * 3 - 3)
        before = log.read_text() if log.exists() else ""
        with log.open("a") as file:  # two teachers write to it at the same time
            file.write(f"{mood} {first} {width}x{height}\n")
        if first == KILL_ONCE and f"{mood} {first} " not in before:
            os.kill(os.getppid(), signal.SIGKILL)
        if first == MEET:
            meet(log.parent)
        if first == CRASH or (first == CRASH_ONCE and f"{mood} {first} " not in before):
            sys.exit("MemoryError: no more memory")
        faces = [{"box": [width * 0.1, 0, width * 0.9, height], "score": 0.9, "expressions": MOOD[mood]}]
        if first == NONE:
            faces = []
        if first == TWO:
            faces = [
                {"box": [width * 0.6, 0, width * 0.9, height], "expressions": MOOD[mood]},
                {"box": [0, 0, width * 0.5, height], "expressions": {"angry": 1}},
            ]
        if first == TINY:
            faces[0]["box"] = [0, 0, 12, 12]
        if first == PROFILE:
            faces[0]["landmarks"] = landmarks(width, 0.95)
        if first == UNFIT:
            faces[0]["expressions"] = {"happy": -1}
        if first == BLIND:
            del faces[0]["expressions"]
        reply = {"id": request["id"], "faces": faces}
        if first == ERROR:
            reply = {"id": request["id"], "error": "ValueError: cannot do this one"}
        print("a greeting" if first == NOISE else json.dumps(reply), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
