"""Our own chat adapter evaluates a suite through the endpoint: its probe finds what is honoured, written answers are
those of the model, and scores are the model's own probabilities of the letters; nothing fails."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import pytest
import torch
import yaml

from lavis_emovit.chat.request import image_of
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import BY_LETTER, CATEGORICAL_WORDINGS
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.evaluation.suite.suite import run_suite
from lavis_emovit.images import decode_image
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader

LABELS = get_label_set("mikels8").labels


def test_a_suite_evaluates_the_endpoint(server, run, tuned, tmp_path, monkeypatch):
    monkeypatch.setenv("EMOVIT_DATA", str(run.data))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.chdir(tmp_path)
    before = server.served.counts.copy()
    drawn = {"prepare": {"draw": {"images_per_class": 30}}}
    config = {"build_info": {"images": {"storage": "small_sketch"}, **drawn}}
    benchmark = {"dataset": "emoset_sketch", "config": config, "split": "test", "limit": 8, "max_new_tokens": 8}
    suite = {
        "name": "served",
        "output_dir": "out",
        "models": {"served": {"adapter": "chat", "chat": {"model": "tiny", "base_url": server.url}}},
        "benchmarks": {"set": benchmark},
        "methods": ["generation", "likelihood"],
        "num_threads": 1,
        "report": False,
        "probe": False,
    }
    Path("suite.yaml").write_text(yaml.safe_dump({"suite": suite}))
    summary = run_suite(load_suite("suite.yaml"))
    assert summary["endpoints"]["served"] == {
        "log-probabilities": "honoured",
        "JSON schema": "refused",
        "sampling": "honoured",
        "System One": "not asked",
        "candidates scored by": "log-probabilities of the first token",
    }
    counts = server.served.counts - before
    assert counts["answered"] >= 3 + 2 * 8 and counts["refused"] == 1 and not counts["failed"]

    written, scored = (read_predictions(f"out/predictions/set/served.{name}.jsonl") for name in suite["methods"])
    reader = ShardReader(ShardIndex.load(run.data / "small_sketch" / "test"))
    question = CATEGORICAL_WORDINGS[0].format(options=", ".join(LABELS))
    listed = "\n".join(f"{letter}. {label}" for letter, label in zip("ABCDEFGH", LABELS))
    by_letter = f"{question}\n\n{BY_LETTER.format(options=listed, last='H')}"
    num_named = 0
    for place in range(8):
        sample = reader.read(place)
        Path("image").write_bytes(sample.image_bytes)
        sent = decode_image(base64.b64decode(image_of(Path("image")).data_url().partition(",")[2]))
        image = tuned.image_processor(sent)[None]
        answer = tuned.model.generate({"image": image, "prompt": [question]}, max_length=8)[0]
        assert (written[place].record_id, written[place].answer) == (sample.record.id, answer)
        expected = shares_of_letters(tuned.model, {"image": image, "prompt": [by_letter]})
        if expected:  # else the answer names no letter
            num_named += 1
            for letter, share in expected.items():
                assert scored[place].scores[LABELS["ABCDEFGH".index(letter)]] == pytest.approx(
                    math.log(share), abs=1e-3
                )
    assert num_named


def shares_of_letters(model, samples) -> dict[str, float]:
    """Letter -> its probability among the 20 likeliest first tokens, from the logits of the language model."""
    logits = []
    with model.core.language_model.register_forward_hook(lambda *given: logits.append(given[-1].logits[0, -1])):
        model.generate(samples, max_length=1)
    logits[0][model.llm_tokenizer.eos_token_id] = -torch.inf  # an answer has at least one token
    shares, ids = logits[0].softmax(dim=-1).topk(20)
    found: dict[str, float] = {}
    for token, share in zip(ids.tolist(), shares.tolist()):
        letter = model.llm_tokenizer.decode([token]).strip(" .:\n").upper()
        if letter in list("ABCDEFGH"):
            found[letter] = found.get(letter, 0.0) + share
    return found
