"""Settings behind the YAML.

- Unknown keys are named with their full path and the nearest valid name, at any depth, in mappings and unions too.
- All problems are reported at once; a rule about several keys is reported without their values.
- Good values become frozen settings.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from omegaconf import OmegaConf
from pydantic import Field, ValidationError, model_validator

from lavis_emovit.settings import Settings, merge_settings, parse_settings


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
