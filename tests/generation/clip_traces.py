"""Records of clips with values over time."""

from __future__ import annotations

from lavis_emovit.records import build_record


def clip_record(number=0, *, start_s=20.0, step_s=0.1, clip=(), **columns):
    units = columns.pop("units", {})
    count = len(next(iter({**columns, **units}.values())))
    trace = {"times_s": [start_s + step_s * place for place in range(count)], **columns}
    trace |= {"action_units": units} if units else {}
    values = {
        "id": f"c/{number}", "image": "a.mp4", "split": "train", "source": "c", "label_set": "aff_wild8",
        "clip": {"start_s": start_s, "end_s": start_s + 30, "trace": trace, **dict(clip)},
    }  # fmt: skip
    return build_record(values, "here")


def stretch(*parts):
    return [value for value, count in parts for _ in range(count)]


SMILE = clip_record(
    emotion=stretch(("neutral", 21), ("happiness", 2), ("neutral", 1), ("happiness", 27), ("neutral", 9)),
    valence=[*stretch((0.0, 21)), *(0.08 * place for place in range(1, 11)), *stretch((0.8, 15), (0.1, 14))],
    arousal=[*stretch((0.0, 30), (0.4, 1), (0.1, 29))],
)
