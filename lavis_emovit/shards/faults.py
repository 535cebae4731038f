"""What can be wrong with one sample, by kind; where a fault was found it is told, counted and never passed over."""

from __future__ import annotations

from lavis_emovit.errors import DataError

# Kind -> what a person reads in a summary.
FAULT_KINDS = {
    "missing_shard": "the shard is missing or cannot be opened",
    "other_shard": "the shard is not the one that was indexed",
    "cut_shard": "the shard ends inside the sample",
    "changed_bytes": "the sample's bytes are not those that were indexed",
    "bad_record": "the record cannot be read",
    "bad_image": "the picture cannot be decoded",
}


class SampleFaultError(DataError):
    """A sample that cannot be used.

    Attributes:
        kind: a key of `FAULT_KINDS`.
    """

    def __init__(self, text: str, kind: str = "bad_record"):
        super().__init__(text)
        self.kind = kind

    def __reduce__(self) -> tuple[type[SampleFaultError], tuple[str, str]]:
        return type(self), (str(self), self.kind)
