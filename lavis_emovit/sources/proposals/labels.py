"""Which label set names belong to: a published one if they fit, else one of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lavis_emovit.emotion.label_set import LabelSet, spelling
from lavis_emovit.emotion.labels import CUSTOM_PREFIX, LABEL_SETS, get_label_set, joined_labels
from lavis_emovit.errors import DataError


@dataclass(frozen=True)
class LabelChoice:
    """A label set for names, as the setting `label_set` has it, and why."""

    setting: str | list[str]
    label_set: LabelSet
    reason: str


NUMBERED_LABELS = (
    "the labels are numbers; name them, so that the question makes sense: --set label_names='{0: anger, ...}'"
)


def renamed_counts(counts: Mapping[str, int], renamed: Mapping[str, str | None]) -> Counter[str]:
    """The numbers of images by label after the setting `label_names`, in which null skips a name."""
    labels: Counter[str] = Counter()
    for name, count in counts.items():
        if (label := renamed.get(name, name)) is not None:
            labels[label] += count
    return labels


def choose_labels(counts: Mapping[str, int], wanted: str | None = None) -> LabelChoice:
    """The label set of names (-> number of images); `wanted` is the user's choice.

    A published set fits if it has all names, and at most a quarter of its labels has no name. Of several, the one that
    spells most names the same is chosen, then the smallest.

    Raises:
        DataError: fewer than two labels, a name that cannot be a label or is not in the wanted set; names all of them.
    """
    if wanted is not None:
        return _wanted(counts, wanted)
    by_spelling: dict[str, str] = {}
    for name in sorted(counts):
        by_spelling.setdefault(spelling(name), " ".join(name.replace("_", " ").split()).casefold())
    if len(by_spelling) < 2:
        raise DataError(f"only one label, {', '.join(map(repr, by_spelling.values()))}; training needs at least two")
    fitting = [label_set for label_set in LABEL_SETS.values() if _fits(label_set, set(by_spelling))]
    if fitting:
        best = min(fitting, key=lambda one: (-len(set(by_spelling) & set(one.labels)), len(one)))
        others = [one.name for one in fitting if one is not best]
        also = f" (so do {', '.join(others)}; --labels chooses)" if others else ""
        return LabelChoice(best.name, best, f"the published set {best.name} has all {len(by_spelling)} names{also}")
    labels = sorted(by_spelling.values())
    own = get_label_set(f"{CUSTOM_PREFIX}{joined_labels(labels)}")
    return LabelChoice(labels, own, f"a set of their own, since no published one fits the {len(labels)} names")


def known_labels(names: set[str]) -> LabelSet | None:
    """A published label set that has all of these names, of which there are at least two."""
    keys = {spelling(name) for name in names}
    if len(keys) < 2:
        return None
    return next((one for one in LABEL_SETS.values() if keys <= set(one.by_spelling)), None)


def _fits(label_set: LabelSet, names: set[str]) -> bool:
    if not names <= set(label_set.by_spelling):
        return False
    present = {label_set.by_spelling[name] for name in names}
    return len(present) >= 2 and len(label_set) - len(present) <= len(label_set) / 4


def _wanted(counts: Mapping[str, int], wanted: str) -> LabelChoice:
    listed = wanted.removeprefix(CUSTOM_PREFIX)
    is_own = wanted.startswith(CUSTOM_PREFIX) or ("," in wanted and wanted not in LABEL_SETS)
    label_set = get_label_set(f"{CUSTOM_PREFIX}{listed}" if is_own else wanted)
    unknown = []
    for name in sorted(counts):
        try:
            label_set.canonical(name)
        except DataError as error:
            unknown.append(f"'{name}' ({counts[name]} images): {error}")
    if unknown:
        raise DataError(
            "--labels does not have all names of the data; map or skip them with --set label_names='{NAME: LABEL}' "
            "(null skips):\n" + "\n".join(f"  - {line}" for line in unknown)
        )
    setting = [part.strip() for part in listed.split(",")] if is_own else wanted
    return LabelChoice(setting, label_set, "the set of --labels")
