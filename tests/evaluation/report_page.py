"""A parsed report page, and what has to hold of every one."""

from __future__ import annotations

import itertools
import re
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "br", "hr", "input", "path", "use"}


class Page(HTMLParser):
    """A parsed page: its elements with attributes, and the text inside each."""

    def __init__(self, html: str):
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open and self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if any(cell in self._open for cell in ("td", "th")):
            self.tables[-1][-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @cached_property
    def text(self) -> str:
        body = re.sub(r"<(style|svg|pre).*?</\1>", " ", self.html, flags=re.DOTALL)
        return " ".join(re.sub(r"<[^>]+>", " ", body).replace("\u202f", " ").split())


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def check_page(page: Page) -> None:
    """It loads and runs nothing, its references lead somewhere, and it can be read aloud."""
    check_loads_nothing(page)
    check_references(page)
    check_can_be_read_aloud(page)


def check_loads_nothing(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} has a handler {name}"
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                assert value.startswith(("#", "data:")), f"{tag} loads {value[:60]}"
    assert "@import" not in page.html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page.html))
    assert "default-src 'none'" in next(m["content"] for m in page.of("meta") if "http-equiv" in m)


def check_references(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        for name in ("aria-labelledby", "href", "xlink:href"):
            value = attributes.get(name, "")
            if name == "aria-labelledby" or value.startswith("#"):
                missing = {part.removeprefix("#") for part in value.split()} - set(ids)
                assert not missing, f"{tag} {name}: {missing}"
    assert set(re.findall(r"url\(#([^)]*)\)", page.html)) <= set(ids)


def check_can_be_read_aloud(page: Page) -> None:
    assert all(len(image["alt"]) > 8 for image in page.of("img"))
    assert all(svg["role"] == "img" and re.search(r"\d", svg["aria-label"]) for svg in page.of("svg"))
    headers = [attributes for tag, attributes in page.elements if tag == "th"]
    assert headers
    assert all(header.get("scope") in ("row", "col") for header in headers)
    assert page.of("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
