"""One line of a health check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. `note`: something optional is missing; `failed`: training cannot run."""

    name: str
    state: State
    detail: str
    fix: str | None = None

    def as_lines(self) -> str:
        indent = " " * 20
        lines = [f"{self.state:<8}{self.name:<12}{self.detail}".replace("\n", f"\n{indent}")]
        if self.fix:
            lines.append(f"{indent}fix: {self.fix}".replace("\n", f"\n{indent}     "))
        return "\n".join(lines)
