"""Text from outside the package (replies of models, errors of endpoints and libraries): what must not be kept of it.

And tables that spreadsheets write.
"""

from __future__ import annotations

import csv
import io
import re

_HIDDEN = "***"
# A value that is no English word: it has a digit, a sign, or a capital letter inside.
_CODED = r"(?=[\w.~+/-]{0,200}?(?:\d|[~+/=]|(?-i:[a-z][A-Z])))"
# All repetitions are bounded, so that no text takes quadratic time.
_KEY = re.compile(
    r"\bsk-[\w-]{12,}"
    rf"|\b(?:key-|token-|hf_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|AIza|gsk_|nvapi-){_CODED}[\w-]{{12,}}"
    r"|\beyJ[\w-]{10,2000}\.[\w-]{10,2000}(?:\.[\w-]{0,2000})?"
    rf"|\b(?:bearer|basic)\s{{1,9}}{_CODED}[\w.~+/-]{{8,}}=*",
    re.IGNORECASE,
)
_NAMED_VALUE = re.compile(
    r"(?P<name>\b(?:api[-_ ]?key|password|passwd|secret(?:[-_]?key)?|signature|"
    r"(?:access|auth|refresh|session|security)[-_ ]?token)\\?[\"']?"
    r"\s{0,9}(?:=|:\s{0,9}(?=[^\s,;&]{0,200}?\d))\s{0,9}\\?[\"']?)"
    r"[^\s\"'\\,;&{}()]{6,}",
    re.IGNORECASE,
)
_URL = re.compile(
    # A URL that was taken for a path has one slash.
    r"(?P<scheme>\b(?:[a-z][a-z0-9+.-]{0,20}://|(?:https?|s?ftp|ssh|s3|gs|hf):/))"
    # A password may hold any sign; a number behind the colon is a port.
    r"(?P<user>[^\s/?#@\"'<>\\]*@|[^\s/?#@:\"'<>\\]*:(?!\d{1,5}[/?#])[^\s\"'<>\\]{1,300}@)?"
    r"(?P<path>[^\s?#\"'<>\\]*)"
    r"(?P<query>[?#][^\s\"'<>\\)\]}]+)?",
    re.IGNORECASE,
)
_THOUGHT = re.compile(
    r"\A.*(?:</(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning)>|\[/think\]|\u25c1/think\u25b7|"
    r"<\|channel\|>final<\|message\|>)"
    r"|(?:<(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning)>|\[think\]|\u25c1think\u25b7).*\Z",
    re.DOTALL | re.IGNORECASE,
)


def scrub(text: str, *secrets: str) -> str:
    """The text without secrets: the given ones, anything like a key, and user names, passwords and queries of URLs.

    Every error that a user can act on, and every reply that is stored, passes through here.
    """
    for secret in secrets:
        if len(secret) >= 6:
            text = text.replace(secret, _HIDDEN)
    if ":/" in text:
        text = _URL.sub(_without_secrets, text)
    return _NAMED_VALUE.sub(rf"\g<name>{_HIDDEN}", _KEY.sub(_HIDDEN, text))


def table_rows(text: str) -> csv.DictReader[str]:
    """The rows of a CSV table that a spreadsheet may have written: in some countries with semicolons. Iterating raises
    csv.Error for what is none."""
    lines = io.StringIO(text, newline="")
    delimiter = ";" if ";" in lines.readline() else ","
    lines.seek(0)
    return csv.DictReader(lines, delimiter=delimiter, strict=True)


def csv_cell(text: str) -> str:
    """The text as a cell of a CSV file; with an apostrophe before what a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def looks_like_key(text: str) -> bool:
    return _KEY.search(text) is not None


def without_thoughts(text: str) -> str:
    """The reply without the model's reasoning: everything up to the last closing tag, and anything after an open one.

    Reasoning models often send only the closing tag. Reasoning without an end was cut off, so no reply follows.
    """
    return _THOUGHT.sub("", text) if "<" in text or "[" in text or "\u25c1" in text else text


def _without_secrets(url: re.Match[str]) -> str:
    user = f"{_HIDDEN}@" if url["user"] else ""
    query = f"{url['query'][0]}{_HIDDEN}" if url["query"] else ""
    return f"{url['scheme']}{user}{url['path']}{query}"
