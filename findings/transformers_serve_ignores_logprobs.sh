#!/usr/bin/env bash
# transformers 5.24: `transformers serve` answers 200 to requests for log-probabilities, a JSON schema and samples, and
# does none of it.
#
# A chat completion with `logprobs`, `top_logprobs`, `response_format` or `n` gets an ordinary answer; the server logs one
# warning ("Ignoring unsupported fields"), once. A comment in its source says that such fields raise an error. `temperature`
# is only used if the model's own settings sample: for a model that is greedy by default, temperature 2 with different seeds
# gives the same answer. A client that evaluates by likelihood, needs valid JSON, or draws samples must test for all of this.
# The probabilities of choices are available from the same server at POST /v1/systemone.
#
# Run: bash findings/transformers_serve_ignores_logprobs.sh
# (about 1 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 numpy==2.4.6 openai==3.57.0 \
    fastapi==0.165.0 uvicorn==0.54.0
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - <<'PYTHON'
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import version

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

print({name: version(name) for name in ("torch", "transformers", "fastapi", "uvicorn", "openai")})
torch.manual_seed(0)
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=270, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
tokenizer.train_from_iterator(["Which emotion is it?"], trainer)
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}assistant:"
tokenizer.save_pretrained("tiny")
config = transformers.LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
    bos_token_id=0, eos_token_id=1, initializer_range=0.4,
)
transformers.LlamaForCausalLM(config).save_pretrained("tiny")

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "tiny", "--device", "cpu", "--port", str(port)]
log = open("server.log", "wb")
server = subprocess.Popen([*command, "--host", "127.0.0.1"], stdout=log, stderr=log)


def post(path, **body):
    data = json.dumps({"model": "tiny", **body}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return reply.status, json.load(reply)


try:
    for _ in range(240):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            break
        except OSError:
            assert server.poll() is None, open("server.log").read()[-2000:]
            time.sleep(0.5)
    ask = {"messages": [{"role": "user", "content": "Which emotion is it?"}], "max_tokens": 8}
    schema = {"type": "json_schema", "json_schema": {"name": "reply", "schema": {"type": "object"}, "strict": True}}
    status, plain = post("/v1/chat/completions", **ask, temperature=0.0)
    _, scored = post("/v1/chat/completions", **ask, temperature=0.0, logprobs=True, top_logprobs=5)
    _, formed = post("/v1/chat/completions", **ask, temperature=0.0, response_format=schema)
    _, several = post("/v1/chat/completions", **ask, temperature=0.0, n=2)
    samples = [post("/v1/chat/completions", **ask, temperature=2.0, seed=seed)[1] for seed in (1, 2)]
    text = plain["choices"][0]["message"]["content"]
    print("plain:", status, repr(text))
    print("logprobs:", scored["choices"][0].get("logprobs"))
    print("schema:", repr(formed["choices"][0]["message"]["content"]))
    print("n=2:", len(several["choices"]), "choice")
    print("temperature 2:", [one["choices"][0]["message"]["content"] for one in samples])
    question = {"type": "choice", "instructions": "Which emotion is it?", "criteria": {"awe": None, "fear": None}}
    _, decided = post("/v1/systemone", state="", questions={"emotion": question})
    print("systemone:", decided["answers"]["emotion"]["probabilities"])
    assert scored["choices"][0].get("logprobs") is None, "log-probabilities are returned now"
    assert formed["choices"][0]["message"]["content"] == text, "the schema is honoured now"
    assert len(several["choices"]) == 1, "n is honoured now"
    assert {one["choices"][0]["message"]["content"] for one in samples} == {text}, "the temperature is honoured now"
finally:
    server.kill()
print("as described")
PYTHON
