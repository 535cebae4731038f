"""Word forms of emotion labels in running text: `amusement` also appears as `amused` and `amusing`.

The table contains only inflections and direct derivations. Synonyms (`scared` for fear) are aliases of label sets, but
the verb `frighten` is here, because fear has no form that means "causing fear". Words that only share letters with a
label (`awesome`, `awful`, `contemptible`, `lovely`) are excluded on purpose.
"""

from __future__ import annotations

from lavis_emovit.emotion.labels import LabelSet

# One family per line; any member can be the label.
_FAMILIES = tuple(
    tuple(line.split())
    for line in """
    affection affectionate affectionately
    afraid
    amusement amused amusing amusingly amuse amuses
    anger angry angrily angered angering angers angrier angriest
    anticipation anticipating anticipates
    awe awed awestruck
    boredom bored boring
    calmness calm calmly calming
    cheerfulness cheerful cheerfully cheery
    confusion confused confusing
    contempt contemptuous contemptuously
    contentment content contented contentedly contentedness
    disappointment disappointed disappointing disappointedly
    disgust disgusted disgusting disgustedly disgustingly disgusts
    enthrallment enthralled enthralling
    envy envious enviously
    exasperation exasperated exasperating
    excitement excited exciting excitedly excitingly excite excites
    fear fearful fearfully fearfulness fearing fears fearsome frightened frightening frighteningly frighten frightens
    gratitude grateful gratefully
    happiness happy happily happier happiest
    horror horrified horrifying
    irritability irritable irritably irritation irritated irritating
    joy joyful joyfully joyfulness joyous joyously joys overjoyed
    love loved loves loving lovingly
    lust lustful lustfully
    negative negatively negativity
    neglect neglected
    nervousness nervous nervously
    neutrality neutral neutrally
    optimism optimistic optimistically
    positive positively positivity
    pride proud proudly
    rage enraged raging
    relief relieved
    sadness sad sadly sadden saddened saddening saddens sadder saddest
    scared scary scare scares scaring
    shame ashamed
    smile smiling smiled smiles
    suffering suffer suffers
    surprise surprised surprising surprisingly surprises
    sympathy sympathetic sympathetically
    trust trusting trusts
    zest zestful
    """.strip().splitlines()
)


def word_forms(label_set: LabelSet) -> dict[str, str]:
    """Every word or phrase, in lower case, that names a label of the set -> that label.

    These are the labels, the aliases and, unless the set has all forms itself, their families. A form in the families
    of two labels belongs to neither.
    """
    explicit = {label: label for label in label_set.labels} | {k.casefold(): v for k, v in label_set.aliases.items()}
    if not label_set.inflected:
        return explicit
    inherited: dict[str, set[str]] = {}
    for family in _FAMILIES:
        owners = {explicit[member] for member in family if member in explicit}
        for member in family:
            inherited.setdefault(member, set()).update(owners)
    return {form: next(iter(labels)) for form, labels in inherited.items() if len(labels) == 1} | explicit
