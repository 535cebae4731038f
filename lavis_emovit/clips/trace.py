"""Values over time of a clip, as annotators gave them frame by frame."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from lavis_emovit.settings import FrozenModel, Number

_Axis = tuple[Annotated[Number, Field(ge=-1.0, le=1.0)] | None, ...]
_Intensity = Annotated[Number, Field(ge=0.0, le=5.0)] | None


class Trace(FrozenModel):
    """Columns with a value for each of `times_s`; null where a frame is not annotated.

    Attributes:
        times_s: ascending, in the time of the clip's `key_s`.
        emotion: members of the record's label set.
        valence, arousal: in [-1, 1].
        action_units: number of the unit -> intensities, as in the record.
    """

    times_s: tuple[Annotated[Number, Field(ge=0.0)], ...] = Field(min_length=1)
    emotion: tuple[str | None, ...] | None = None
    valence: _Axis | None = None
    arousal: _Axis | None = None
    action_units: dict[Annotated[int, Field(ge=1, le=99)], tuple[_Intensity, ...]] | None = None

    def __hash__(self) -> int:
        # The dictionary of units has none; equal traces have equal times.
        return hash(self.times_s)

    @model_validator(mode="after")
    def _columns_fit(self) -> Trace:
        if any(one >= other for one, other in pairwise(self.times_s)):
            raise ValueError("times_s must increase")
        columns = {"emotion": self.emotion, "valence": self.valence, "arousal": self.arousal}
        columns |= {f"action_units.{unit}": values for unit, values in (self.action_units or {}).items()}
        given = {name: values for name, values in columns.items() if values is not None}
        if not given:
            raise ValueError("has times_s but no values; add emotion, valence, arousal or action_units")
        for name, values in given.items():
            if len(values) != len(self.times_s):
                raise ValueError(f"has {len(self.times_s)} times_s, but {len(values)} values of {name}")
        return self
