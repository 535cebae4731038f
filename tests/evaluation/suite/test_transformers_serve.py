"""A suite that asks a real `transformers serve` with a tiny LLaVA; skipped without the packages that the server needs.

- The probe finds what this server ignores with status 200: log-probabilities, schema and sampling. The table says so.
- Candidates are scored by System One, with the probabilities that a calculation with the bare model gives.
- A second start sends no request.
"""

from __future__ import annotations

import base64
import math
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tiny"))

from tiny_models import make_llava
from transformers.utils.import_utils import is_serve_available

from lavis_emovit.chat.request import image_of
from lavis_emovit.emotion.questions import CATEGORICAL_WORDINGS
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.suite.suite import run_suite
from lavis_emovit.images import decode_image
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader

pytestmark = [
    pytest.mark.skipif(not is_serve_available(), reason="fastapi and uvicorn are not installed (extra dev)"),
    pytest.mark.skipif(find_spec("transformers.decision") is None, reason="this transformers has no System One"),
]
START_S = 180


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Folder of the model and address of its server."""
    folder = make_llava(tmp_path_factory.mktemp("served") / "llava")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--device", "cpu"]
    log = folder.with_name("server.log")
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*command, "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)], stdout=file, stderr=file
        )
        try:
            end = time.monotonic() + START_S
            while not _answers(f"http://127.0.0.1:{port}/health"):
                assert server.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
                time.sleep(0.5)
            yield folder, f"http://127.0.0.1:{port}/v1", log
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def _answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def _expected(folder, question, candidates, image):
    """Probabilities of the letters A, B, ... as the next token."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder).eval()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(candidates)]
    options = "\n".join(f"{letter}. {candidate}" for letter, candidate in zip(letters, candidates))
    form = f"Answer with the letter of the option that fits best (A to {letters[-1]}) only."
    text = f"\n\n{question}\n{options}\n{form}"
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
    prompt = processor.apply_chat_template([message], add_generation_prompt=True)
    inputs = processor(images=image, text=prompt, return_tensors="pt", add_special_tokens=False)
    ids = [processor.tokenizer.convert_tokens_to_ids(letter) for letter in letters]
    with torch.no_grad():
        return model(**inputs).logits[0, -1, ids].softmax(dim=-1).tolist()


def test_a_suite_asks_it_by_likelihood(suite, served, monkeypatch, data_root, tmp_path):
    folder, address, log = served
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    entry = {"adapter": "chat", "chat": {"model": str(folder), "base_url": address, "max_in_flight": 2}}
    ask = {"models": {"served": entry}, "methods": ["likelihood", "generation"]}
    settings = suite("out", **ask, benchmark={"limit": 3, "max_new_tokens": 4})
    summary = run_suite(settings)
    assert summary["endpoints"]["served"] == {
        "log-probabilities": "ignored",
        "JSON schema": "ignored",
        "sampling": "ignored",
        "System One": "honoured",
        "candidates scored by": "System One",
    }
    table = Path("out/table.md").read_text()
    assert "| served | ignored | ignored | ignored | honoured | System One |" in table
    assert not summary["left_out"]
    rows = read_predictions("out/predictions/set/served.likelihood.jsonl")
    assert len(rows) == 3 and all(row.error is None for row in rows)

    sample = ShardReader(ShardIndex.load(data_root / "fixture" / "test")).read(0)
    file = tmp_path / "image"
    file.write_bytes(sample.image_bytes)
    sent = base64.b64decode(image_of(file).data_url().partition(",")[2])
    labels = list(rows[0].scores)
    question = CATEGORICAL_WORDINGS[0].format(options=", ".join(labels))
    expected = _expected(folder, question, labels, decode_image(sent))
    found = [math.exp(rows[0].scores[label]) for label in labels]
    assert rows[0].record_id == sample.record.id
    assert found == pytest.approx(expected, abs=1e-4) and max(found) - min(found) > 1e-3

    before = log.read_text().count("POST /v1/")
    assert run_suite(settings) == summary
    assert log.read_text().count("POST /v1/") == before > 3
