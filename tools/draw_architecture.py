"""Draw the image of docs/architecture.md from the tables on that page.

    python tools/draw_architecture.py            # writes docs/images/architecture.svg

Each floor is a band with its rooms. The numbers show the path of the data.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
IMAGE = ROOT / "docs" / "images" / "architecture.svg"

WIDTH, BAND, GAP, LEFT, BOX = 860, 74, 10, 46, 40
# Room -> step of the data path, numbered as on the page.
PATH = {
    "sources": 1,
    "generation": 2,
    "shards": 3,
    "datasets": 4,
    "tasks": 5,
    "models": 5,
    "runners": 5,
    "evaluation": 6,
}
STYLE = """
  text { font-family: system-ui, sans-serif; font-size: 14px; fill: #1f2933; }
  .job { font-size: 12px; fill: #52606d; }
  .floor { font-size: 20px; fill: #9aa5b1; }
  .band { fill: #f5f7fa; }
  .room { fill: #ffffff; stroke: #9aa5b1; }
  .step { fill: #c2410c; }
  .number { fill: #ffffff; font-size: 12px; font-weight: bold; text-anchor: middle; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e7eb; } .job { fill: #9aa5b1; } .band { fill: #1f2933; } .room { fill: #323f4b; stroke: #616e7c; }
  }
"""


def table(name: str) -> list[list[str]]:
    """Rows of the table after `<!-- name -->` on the page, without its header."""
    following = PAGE.read_text(encoding="utf-8").split(f"<!-- {name} -->\n")[1]
    lines = following.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def floors() -> dict[str, int]:
    """Room -> floor."""
    return {room: int(floor) for floor, rooms, _ in table("floors") for room in re.findall(r"`(\w+)`", rooms)}


def draw() -> str:
    """The image as SVG."""
    rows = table("floors")
    parts = []
    for number, (floor, rooms, job) in enumerate(rows):
        top = number * (BAND + GAP)
        parts.append(f'<rect class="band" x="0" y="{top}" width="{WIDTH}" height="{BAND}" rx="8"/>')
        parts.append(f'<text class="floor" x="16" y="{top + 34}">{floor}</text>')
        parts.append(f'<text class="job" x="{LEFT}" y="{top + BAND - 9}">{escape(job)}</text>')
        left = LEFT
        for room in re.findall(r"`(\w+)`", rooms):
            width = 30 + 8.4 * len(room)
            parts.append(
                f'<rect class="room" x="{left:.0f}" y="{top + 8}" width="{width:.0f}" height="{BOX}" rx="6"/>'
                f'<text x="{left + width / 2:.0f}" y="{top + 33}" text-anchor="middle">{room}</text>'
            )
            if room in PATH:
                parts.append(
                    f'<circle class="step" cx="{left + 4:.0f}" cy="{top + 12}" r="9"/>'
                    f'<text class="number" x="{left + 4:.0f}" y="{top + 16}">{PATH[room]}</text>'
                )
            left += width + 12
    height = len(rows) * (BAND + GAP) - GAP
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    IMAGE.write_text(draw(), encoding="utf-8")
    print(IMAGE)
