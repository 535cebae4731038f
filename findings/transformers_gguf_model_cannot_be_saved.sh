#!/usr/bin/env bash
# transformers 5: a model that was loaded from a GGUF file cannot be saved, although nothing in it is quantised.
#
# `from_pretrained(..., gguf_file=...)` dequantises: all parameters are ordinary float32 tensors. transformers' own page on
# GGUF shows `save_pretrained` as the next step, which converts the file. Version 4.57 does that. Version 5.24 keeps a
# `quantization_config` on the model and refuses with "The model is quantized with gguf and is not serializable", even for
# a file whose tensors were float32 from the start. Deleting `config.quantization_config` is not enough; saving
# `model.state_dict()` works. The file below is a Llama of one layer that the script writes itself.
#
# Run: bash findings/transformers_gguf_model_cannot_be_saved.sh      (about 2 GB in a temporary folder; exits with 1 if this
#      changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/save.py" <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from transformers import LlamaForCausalLM

transformers.logging.set_verbosity_error()
folder, width, words = Path(tempfile.mkdtemp()), 64, 32
writer = gguf.GGUFWriter(str(folder / "tiny.gguf"), "llama")
sizes = {"block_count": 1, "context_length": 32, "embedding_length": width, "feed_forward_length": width}
for key, value in {**sizes, "head_count": 2, "head_count_kv": 2, "vocab_size": words}.items():
    getattr(writer, f"add_{key}")(value)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_freq_base(10000.0)
writer.add_file_type(gguf.LlamaFileType.ALL_F32)
shapes = {"token_embd": (words, width), "output": (words, width), "output_norm": (width,)}
square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
shapes |= {f"blk.0.{name}": (width, width) for name in square}
shapes |= {f"blk.0.{name}": (width,) for name in ("attn_norm", "ffn_norm")}
random = np.random.default_rng(0)
for name, shape in shapes.items():
    writer.add_tensor(f"{name}.weight", random.standard_normal(shape).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

model = LlamaForCausalLM.from_pretrained(folder, gguf_file="tiny.gguf", dtype=torch.float32)
precisions = {str(parameter.dtype) for parameter in model.parameters()}
try:
    model.save_pretrained(folder / "saved")
    outcome = "saved"
except ValueError as error:
    outcome = f"refused: {error}"
print(f"transformers {transformers.__version__}, gguf 0.19.0: precisions {sorted(precisions)}, {outcome[:90]}")
assert precisions == {"torch.float32"}
assert outcome.startswith(sys.argv[1]), "the behaviour has changed"
PYTHON
for pair in "4.57.1 saved" "5.24.0 refused"; do
    set -- $pair
    "${PYTHON:-python3}" -m venv "$folder/$1"
    "$folder/$1/bin/pip" install --quiet torch==2.13.0 "transformers==$1" gguf==0.19.0 safetensors==0.8.0 numpy==2.2.6 accelerate==1.15.0
    (cd "$folder" && "$folder/$1/bin/python" save.py "$2")
done
