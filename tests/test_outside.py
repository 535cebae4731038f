"""Text from outside: secrets are removed in one place, plain words stay, and reasoning is no part of a reply.

- Keys, named values, and user names, passwords and queries of URLs are removed; no text takes long.
- Every error that a user can act on is scrubbed when it is made.
- Everything up to the last closing tag of a thought is dropped, also without an opening tag.
"""

from __future__ import annotations

import pickle
import time

import pytest

from lavis_emovit.errors import ConfigError, DataError, LavisMissingError, first_line
from lavis_emovit.outside import looks_like_key, scrub, without_thoughts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:word9@host/v1", "http://***@host/v1"),
        ("http://me:a/b?c#d@host:80/x", "http://***@host:80/x"),
        ("https://token@host/a.tar: not found", "https://***@host/a.tar: not found"),
        ("(https://host/a.tar?X-Amz-Signature=5f&x=1) failed", "(https://host/a.tar?***) failed"),
        ("https://host/a#access_token=abc", "https://host/a#***"),
        ("https:/me:word9@host/a.tar: no such file", "https:/***@host/a.tar: no such file"),
        ("Incorrect key: sk-abcdefghijklmno.", "Incorrect key: ***."),
        ("hf_abcdefghijkLmnop, AKIA0123456789ABCDEF", "***, ***"),
        ("Authorization: Bearer abcDefgh", "Authorization: ***"),
        ("Basic dXNlcjpwYXNz", "***"),
        ('{"api_key": "abc12345"}', '{"api_key": "***"}'),
        ('{\\"access_token\\":\\"abc12345\\"}', '{\\"access_token\\":\\"***\\"}'),
        ("password=hunters", "password=***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "***"),
    ],
)
def test_secrets_are_removed(text, expected):
    assert scrub(text) == expected
    assert scrub(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b/c.tar", "http://localhost:8000/v1", "http://host:8000/a@b", "mail to a@b.org",
        "a flag bearer approaching the crowd", "basic emotions", "a token-classification-model",
        "key-value-relationship", "The secret: friendship", "What is the signature: a smile?", "/data/a?b/c.jpg",
        "C:/data/a?b.jpg", "see http:/docs/a",
    ],
)  # fmt: skip
def test_plain_words_stay(text):
    assert scrub(text) == text and not looks_like_key(text)


def test_given_secrets_are_removed():
    assert scrub("my pass phrase here", "pass phrase") == "my *** here"
    assert scrub("a short one", "a") == "a short one"


@pytest.mark.parametrize(
    "piece", ["key-", "a://", "a.", "bearer ", "eyJ-", "password ", "http://a:", "a:b", "sk-", "password: ", "<think>"]
)
def test_no_text_takes_long(piece):
    text = piece * (100_000 // len(piece))
    begin = time.perf_counter()
    scrub(text), without_thoughts(text)
    assert time.perf_counter() - begin < 5.0


def test_errors_are_scrubbed_when_they_are_made():
    address = "http://me:word9@host/a.tar?sig=5f"
    errors = [DataError(f"{address}: gone"), ConfigError([f"url: {address}"]), LavisMissingError(address)]
    assert all("word9" not in str(error) and "5f" not in str(error) for error in errors)
    assert str(pickle.loads(pickle.dumps(errors[0]))) == "http://***@host/a.tar?*** gone"
    assert first_line(OSError(f"{address} timed out\nmore")) == "http://***@host/a.tar?*** timed out"


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("draft\n</think>\nfinal", "final"),
        ("<think>a</think> b <THINKING>c</THINKING> final", "final"),
        ("<think>cut off", ""),
        ("final <think>more", "final"),
        ("[THINK]a[/THINK]final", "final"),
        ("a\u25c1/think\u25b7final", "final"),
        ("a</seed:think>final", "final"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>final", "final"),
        ("I think it is <b>awe</b>.", "I think it is <b>awe</b>."),
    ],
)
def test_thoughts_are_no_reply(text, reply):
    assert without_thoughts(text).strip() == reply
