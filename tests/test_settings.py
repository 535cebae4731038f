"""Settings behind the YAML.

- Unknown keys are named with their full path and the nearest valid name, at any depth, in mappings and unions too.
- All problems are reported at once; a rule about several keys is reported without their values.
- A choice that is repeated in a list is refused. A file of any bytes is settings or refused by name.
- Good values become frozen settings.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

import pytest
from omegaconf import OmegaConf
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from lavis_emovit.cli.data_import import set_values
from lavis_emovit.cli.generate_job import read_sections
from lavis_emovit.datasets.settings import OfflineSettings
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.prompt_settings import Prompt
from lavis_emovit.generation.attributes import read_vocabulary
from lavis_emovit.generation.mix import MixPart
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.rewards.presets import load_preset
from lavis_emovit.runners.engines.deepspeed_config import read_deepspeed_config
from lavis_emovit.settings import Settings, merge_settings, parse_settings, read_yaml


class _Round(Settings):
    name: Literal["round"] = "round"
    radius_px: int = 1


class _Square(Settings):
    name: Literal["square"] = "square"
    side_px: int = 1


class _Range(Settings):
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _in_order(self) -> _Range:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class _Page(Settings):
    title: str
    shape: Annotated[_Round | _Square, Field(discriminator="name")] = _Round()
    ranges: dict[str, _Range] = Field(default_factory=dict)
    limits: _Range | None = None
    sides: tuple[Literal["left", "right"], ...] = Field(default=("left",), min_length=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"titel": "x", "title": "y"}, ["page.titel: unknown key (did you mean 'title'?)"]),
        ({}, ["page.title: missing, it has no default"]),
        (
            {"title": "x", "limits": {"high": 10**23}},
            ["page.limits: high is out of range; use a whole number below 2^63"],
        ),
        (
            {"title": "x", "shape": {"radius_px": -(2**63) - 1, "name": "round"}},
            ["page.shape: radius_px is out of range; use a whole number below 2^63"],
        ),
        (
            {"title": "x", "shape": {"name": "square", "side": 3}},
            ["page.shape.side: unknown key (did you mean 'side_px'?)"],
        ),
        (
            {"title": "x", "shape": {"name": "square", "radius_px": 3}},
            ["page.shape.radius_px: unknown key (valid: name, side_px)"],
        ),
        (
            {"title": "x", "shape": {"name": "round", "radius_px": "wide"}},
            [
                "page.shape.radius_px: Input should be a valid integer, unable to parse string as an integer "
                "(got 'wide')"
            ],
        ),
        (
            {"title": "x", "ranges": {"a": {"lo": 3}}, "limits": {"hi": 1}},
            [
                "page.ranges.a.lo: unknown key (did you mean 'low'?)",
                "page.limits.hi: unknown key (did you mean 'high'?)",
            ],
        ),
        (
            {"title": "x", "limits": {"high": True}, "shape": {"name": "round", "radius_px": False}},
            [
                f"page.{key}: Input should be a valid integer, unable to parse string as an integer (got '{value}')"
                for key, value in (("shape.radius_px", "false"), ("limits.high", "true"))
            ],
        ),
        ({"title": "x", "limits": {"low": 5}}, ["page.limits: low 5 is above high 1"]),
        ({"title": "x", "limits": "some/path"}, ["page.limits: expected a mapping of settings (got 'some/path')"]),
        ({"title": "x", "shape": "some/path"}, ["page.shape: expected a mapping of settings (got 'some/path')"]),
        ({"title": "x", "shape": {"name": "rund"}}, ["page.shape.name: unknown 'rund' (did you mean 'round'?)"]),
        ({"title": "x", "sides": ["nope"]}, ["page.sides.0: Input should be 'left' or 'right' (got 'nope')"]),
        (
            {"title": "x", "sides": []},
            ["page.sides: Tuple should have at least 1 item after validation, not 0 (got [])"],
        ),
    ],
)
def test_problems_are_named(values, expected):
    settings, problems = parse_settings(_Page, values, "page")
    assert settings is None
    assert problems == expected


def test_good_values_are_frozen():
    settings, problems = parse_settings(_Page, {"title": "x", "shape": {"name": "square", "side_px": 2}}, "page")
    assert problems == []
    assert settings == _Page(title="x", shape=_Square(side_px=2))
    with pytest.raises(ValidationError):
        settings.title = "y"


def test_a_mapping_of_another_name_takes_the_place_of_the_whole():
    base = OmegaConf.create({"page": {"shape": {"name": "round", "radius_px": 3}, "title": "a"}})
    same = merge_settings(base, OmegaConf.create({"page": {"shape": {"radius_px": 5}}}))
    assert same == {"page": {"shape": {"name": "round", "radius_px": 5}, "title": "a"}}
    other = merge_settings(base, OmegaConf.create({"page": {"shape": {"name": "square", "side_px": 2}}}))
    assert other == {"page": {"shape": {"name": "square", "side_px": 2}, "title": "a"}}
    assert base.page.shape == {"name": "round", "radius_px": 3}


FILES = [
    (b"\xff\xfe\x00", "cannot be read as YAML"),
    ("name: caf\u00e9".encode("latin-1"), "cannot be read as YAML"),
    (b"a: " + b"[" * 3000 + b"]" * 3000, "cannot be read as YAML"),
    (b"a: 1\na: 2\n", "cannot be read as YAML"),
    (b"a: &a [*a]", "cannot be read as YAML"),
    (b"a: 'x\x01'", "cannot be read as YAML"),
    (b"- a\n- b\n", "expected a mapping"),
    (b"a: 1" + b"0" * 5000, "cannot be read as YAML"),
    (b"a: 0b_", "cannot be read as YAML"),
]


@pytest.mark.parametrize(("content", "problem"), FILES)
def test_a_file_of_any_bytes_is_settings_or_refused_by_name(content, problem, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    for read in (read_yaml, read_sections, lambda path: load_preset(str(path))):
        with pytest.raises(ConfigError, match=problem) as found:
            read(path)
        assert str(path) in str(found.value)
    with pytest.raises(ValidationError, match=r"settings\.yaml"):
        TypeAdapter(Prompt).validate_python(str(path))


def test_a_pipe_is_no_settings_file(tmp_path):
    os.mkfifo(tmp_path / "settings.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_yaml(tmp_path / "settings.yaml")


@pytest.mark.parametrize("text", ["2024-02-30", "0b_", "1" * 5000])
def test_an_option_that_looks_like_a_date_or_a_number_is_text(text):
    assert set_values({}, [f"image={text}"]) == {"image": text}


def test_interpolations_of_a_settings_file_stay_as_they_are_written(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("text: ${no.such} {options} ${oc.env:HOME}\n")
    assert read_yaml(path) == {"text": "${no.such} {options} ${oc.env:HOME}"}


def test_a_deep_json_file_is_refused_by_name(tmp_path):
    path = tmp_path / "deep.json"
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(UserError, match=r"deep\.json"):
        read_vocabulary(path)
    with pytest.raises(ConfigError, match=r"deep\.json"):
        read_deepspeed_config(str(path))


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (SekeSettings, {"vary": ["crop", "order", "crop"]}),
        (MixPart, {"per_class": 1, "kinds": ["categorical", "categorical"]}),
        (OfflineSettings, {"kinds": ["reasoning", "reasoning"]}),
        (BenchmarkSettings, {"dataset": "x", "slices": ["source", "source"]}),
        (BenchmarkSettings, {"dataset": "x", "coarser": ["polarity2", "polarity2"]}),
    ],
)
def test_a_choice_that_is_repeated_in_a_list_is_refused(cls, values):
    settings, problems = parse_settings(cls, values, "place")
    assert settings is None and len(problems) == 1 and "names the same choice twice (" in problems[0]
