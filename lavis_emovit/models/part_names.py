"""Which part of a model a parameter belongs to.

A part is a name and the prefixes of its parameters, for example `qformer` and `qformer.`, that of its main module
first; the longest matching prefix decides, so a part may be inside another one.
"""

from __future__ import annotations

from collections.abc import Mapping

from lavis_emovit.errors import WeightsError

Prefixes = Mapping[str, tuple[str, ...]]


def part_of(name: str, prefixes: Prefixes) -> str:
    """The part that a parameter belongs to."""
    fitting = [(len(one), part) for part, some in prefixes.items() for one in some if name.startswith(one)]
    if not fitting:
        raise WeightsError(f"parameter '{name}' belongs to no part of the model; parts are {', '.join(prefixes)}")
    return max(fitting)[1]
