"""Properties of declared models.

- every YAML file of the catalogue is a registered model of LAVIS, with its type as the default one and valid settings;
- a new model of a family is one YAML file; a file without a family is InstructBLIP's;
- the catalogue and settings of a model are read without torch;
- a family that does not exist and a file under another name are rejected by name;
- instances can be pickled.
"""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from lavis.common.registry import registry
from lavis.models import load_model

from lavis_emovit import registered
from lavis_emovit.errors import ConfigError
from lavis_emovit.models import declared
from lavis_emovit.models.base import BaseEmotionModel
from lavis_emovit.models.catalogue import declared_models
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.protocol import EmotionModel


@pytest.mark.parametrize("name", sorted(declared_models()))
def test_every_file_is_a_registered_model_with_valid_settings(name):
    model = declared_models()[name]
    model_class = registry.get_model_class(name)
    assert issubclass(model_class, BaseEmotionModel)
    assert model.model_type == model_class.DEFAULT_MODEL_TYPE
    assert model_class.default_config_path(model.model_type) == str(model.path)
    assert model.settings_class() is model_class.settings_class
    settings = model.settings_class().model_validate(model.content["model"])
    assert (settings.arch, settings.model_type) == (name, model.model_type)


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """Function (name, text before the copied configuration of the tiny model) -> the catalogue of that one file."""
    source = declared_models()["emovit_tiny"].path.read_text(encoding="utf-8").replace("family: instructblip\n", "")
    folder = tmp_path / "models" / "emovit"
    folder.mkdir(parents=True)
    (tmp_path / "datasets").mkdir()
    monkeypatch.setattr(registered, "config_root", lambda: tmp_path)

    def write(name: str, head: str = "", arch: str | None = None):
        text = source.replace("arch: emovit_tiny", f"arch: {arch or name}")
        (folder / f"{name}.yaml").write_text(head + text, encoding="utf-8")
        return declared_models()

    return write


@pytest.mark.parametrize("head", ["", "family: instructblip\n", "family: lavis_emovit.models.instructblip\n"])
def test_a_new_model_is_one_file(catalogue, head, monkeypatch):
    monkeypatch.setitem(registry.mapping, "model_name_mapping", {})
    models = catalogue("emovit_mine", head)
    assert list(models) == ["emovit_mine"]
    assert registered.registered_names(custom=False)["model"] == {"emovit_mine": registered.DECLARED_MODELS}
    declared.register(models["emovit_mine"])
    model = registry.get_model_class("emovit_mine").from_pretrained("tiny")
    assert isinstance(model, EmoVIT) and model.settings.arch == "emovit_mine"


def test_wrong_files_are_rejected_by_name(catalogue):
    with pytest.raises(ConfigError, match=r"emovit_b\.yaml:\n.*there is no package lavis_emovit\.models\.llava9"):
        catalogue("emovit_b", "family: llava9\n")["emovit_b"].settings_class()
    with pytest.raises(ConfigError, match=r"emovit_c\.yaml:\n.*expected arch: emovit_c"):
        assert catalogue("emovit_c", arch="emovit_d")["emovit_c"].model_type


def test_the_catalogue_is_read_without_torch():
    code = (
        "import sys; from lavis_emovit.models.catalogue import declared_models;"
        "print({model.settings_class().__name__ for model in declared_models().values()}, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "{'ModelSettings'} False"


def test_a_loaded_model_follows_the_protocol_and_can_be_pickled():
    model = load_model("emovit_tiny")
    assert isinstance(model, EmotionModel)
    assert pickle.loads(pickle.dumps(model)).frozen_fingerprint() == model.frozen_fingerprint()
