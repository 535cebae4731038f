#!/usr/bin/env bash
# transformers 5: a module of which one tensor is missing in the file loses its loaded tensors too, and the report is silent.
#
# Since version 5, `from_pretrained` loads a file first and initialises what it did not load afterwards, module by module,
# by `_init_weights`. The functions of `transformers.init` skip tensors that were loaded. A model with custom code in the
# usual older form, `module.weight.data.normal_(...)`, does not: if a file lacks only the bias of a linear layer, the
# loaded weight of that layer is replaced by random numbers. `output_loading_info` lists the bias alone as missing, and
# nothing is logged about the weight. With version 4.57 the loaded weight stays. Layers whose tensors are all in the file
# are not affected.
#
# Run: bash findings/transformers_init_weights_overwrites_loaded.sh      (about 2 GB in a temporary folder; exits with 1 if
#      this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/load.py" <<'PYTHON'
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PretrainedConfig, PreTrainedModel

transformers.utils.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()


class Config(PretrainedConfig):
    model_type = "two_layers"


class TwoLayers(PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, torch.nn.Linear):
            module.weight.data.normal_(0.0, 0.02)
            module.bias.data.zero_()


torch.manual_seed(0)
folder = tempfile.mkdtemp()
model = TwoLayers(Config())
with torch.no_grad():
    for parameter in model.parameters():
        parameter.fill_(7.0)
model.save_pretrained(folder)
state = load_file(f"{folder}/model.safetensors")
del state["first.bias"]
save_file(state, f"{folder}/model.safetensors", metadata={"format": "pt"})

loaded, report = TwoLayers.from_pretrained(folder, output_loading_info=True)
is_kept = {name: bool((getattr(loaded, name).weight == 7.0).all()) for name in ("first", "second")}
print(f"transformers {transformers.__version__}: missing {sorted(report['missing_keys'])}, weights kept {is_kept}")
assert sorted(report["missing_keys"]) == ["first.bias"]
assert is_kept == {"first": sys.argv[1] == "kept", "second": True}, "the behaviour has changed"
PYTHON
for pair in "4.57.1 kept" "5.24.0 lost"; do
    set -- $pair
    "${PYTHON:-python3}" -m venv "$folder/$1"
    "$folder/$1/bin/pip" install --quiet torch==2.13.0 "transformers==$1" safetensors numpy
    (cd "$folder" && "$folder/$1/bin/python" load.py "$2")
done
