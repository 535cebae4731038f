"""The faults that a single sample may have, by kind."""

from __future__ import annotations

from lavis_emovit.errors import DataError

# Kind -> its description in a summary.
FAULT_KINDS = {
    "missing_shard": "the shard is missing or cannot be opened",
    "other_shard": "the shard is not the indexed one",
    "cut_shard": "the shard is truncated inside the sample",
    "changed_bytes": "the sample's bytes are not the indexed ones",
    "bad_record": "the record cannot be read",
    "bad_image": "the image cannot be decoded",
}


class SampleFaultError(DataError):
    """A sample that cannot be used; `kind` is a key of `FAULT_KINDS`."""

    def __init__(self, text: str, kind: str = "bad_record"):
        super().__init__(text)
        self.kind = kind

    def __reduce__(self) -> tuple[type[SampleFaultError], tuple[str, str]]:
        return type(self), (str(self), self.kind)
