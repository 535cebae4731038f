"""The option that an answer gives to its question in other words: decided by the question, never by the options alone.

Five kinds of sentences are read, and only if all of a kind agree:

- one that restates the question, or a clause of it, and claims an option ("The first image has a lower arousal");
- a comparison of the two images, whose direction the question knows ("Figure 1 is much higher" than Figure 2);
- the question with the word order of a statement, for yes and no ("Neutral emotion does not appear in both");
- the absence of an emotion, for "Which emotion is absent?" ("The emotion of fear is absent.");
- the emotion of each image, for "Which image evokes fear?" ("The first image evokes fear. The second evokes joy.").

Words that deny or doubt without "not" choose nothing, nor does a comparison in another order than the question's.

Images are spelled `image1` and `image2` in questions, answers and options alike.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence

from lavis_emovit.emotion.answer_claims import WORD, Text, Words, running_text_answer
from lavis_emovit.emotion.answer_restatements import Restatement
from lavis_emovit.emotion.inflections import word_forms
from lavis_emovit.emotion.labels import LABEL_SETS

SENTENCE_END = re.compile(r"[!?;\n]|\.(?=\s|$)")
_IMAGE = re.compile(r"\bimage[1-4]\b")
_OTHER_SIDE = re.compile(r"\b(?:than|to|with|from|over|dominates)\b[^,.;:!\n]*?\bimage[1-4]\b")
_CLAUSE = re.compile(r",?\s*\b(?:while|whereas|but)\b|;|,?\s*\band\s+(?=image[1-4]\b)")
# "Figure 1 elicits more pleasure than Figure 2", of what the question asks about.
_DIMENSION = re.compile(r"\b(arous|pleas|domin|stimul)\w*")
_QUALIFIED = r"\s+(?:emotional(?:ly)?\s+|sense\s+of\s+|emotional\s+sense\s+of\s+)?(?:arous|pleas|domin|stimul)"
_MORE = re.compile(rf"\b(?:more|stronger|greater){_QUALIFIED}|\bdominates\b")
_LESS = re.compile(rf"\b(?:less|weaker|lesser){_QUALIFIED}")
_OPPOSITES = (("higher", "lower"), ("more", "less"), ("stronger", "weaker"), ("better", "worse"))

# Yes and no. What a question adds to its clause, and where the clause begins.
_ADDED = re.compile(r",\s*(?:\w+ing\b|and\s+which\b)|\?")
_INVERTED = re.compile(
    r"(?:^|,\s*)(?:is\s+it\s+the\s+case\s+that|does|do|did|is|are|was|were|has|have)\b(?P<clause>.+)"
)
_REASON = re.compile(r",\s*(?:which|as|because|since|while|whereas|but|although)\b")
_HEDGE = re.compile(r"\b(?:may|might|could|would|should|can|whether|if|possibly|perhaps|seems?|appears?\s+to|likely)\b")
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|none|without|cannot|lack(?:s|ing)?|absent|absence)\b|n't\b")
# Words that deny or doubt without "not"; a sentence with one of them claims nothing.
_DOUBT = re.compile(
    r"\b(?:hardly|rarely|barely|scarcely|seldom|(?<!a )(?:little|few)|only|false|untrue|wrong\w*|incorrect\w*|mistaken|"
    r"doubt\w*|den(?:y|ies|ied|ying)|fail(?:s|ed|ing|ure)?|instead|rather|far\s+from|devoid|unlikely|unable|nothing)\b"
)
_CONTRAST = re.compile(r"\b(?:instead|rather)\b")
# Relations of two things, where the order of words decides: "anger is more prominent than fear".
_RELATES = re.compile(
    r"\b(?:more|less|fewer|than|higher|lower|stronger|weaker|greater|better|worse|compar\w+|surpass\w*|exceed\w*|"
    r"outweigh\w*|overshadow\w*|dominates?|prefer\w*|by|over|above|below|before|after|follow\w*|caus\w+|lead\w*)\b"
)
_LEADING = re.compile(r"\s*(?:-\s*)?(?P<said>yes|no)\s*[,:]\s*")
_SAID = re.compile(r"(?:^|[.!?\n:])[\s\-]*(?P<said>yes|no)\b(?=\s*(?:[.,:!\n]|$))")
_UNCLEAR = "unclear"
_MIN_WORDS = 2
# Words that a statement may leave out or replace: of grammar, of images, and verbs of evoking.
_FREE = frozenset(
    """the that these those this there them they its with and for from into are was were been being does did has have
    image images picture pictures photo photos figure figures evoke evokes evoked appear appears include includes
    contain contains elicit elicits exist exists present express expresses convey conveys show shows case both each two
    """.split()
)
_ALIKE = {"feeling": "emotion"}
# Both, each and the two are one thing, which a statement must say if the question does.
_BOTH = re.compile(r"\b(?:both|each|two|all|neither)\b")
# "Image 1: No, it does not."
_OF_IMAGE = re.compile(r"\b(?P<image>image[1-4])\b[^.:!?\n]{0,60}:\s*(?P<said>yes|no)\b(?=[.,!\s]|$)")
# "Which emotion is absent?", and how an answer says so.
_ABSENT = re.compile(r"\b(?:absent|missing|lacking|unaroused|not\s+(?:evoked|present|aroused|conveyed|expressed))\b")
_TAKES_BACK = re.compile(r"\b(?:but|however|while|whereas|although|though|except|unless|present)\b")
_WHICH_EMOTION = re.compile(r"\b(?:which|what)\b[^?,]{0,40}\bemotions?\b")

# Which image evokes an emotion? Not the one that evokes more or least of it.
_COMPARES = re.compile(
    r"\b(?:more|most|less|least|higher|highest|lower|lowest|stronger|strongest|weaker|weakest|greater|better|worse|not|"
    r"no|without|absent|missing|never|lack\w*|arousal|valence|dominance)\b"
)
_WHICH = re.compile(r"\bwhich\b[^?]*\b(?:image|images|picture|pictures|one|figure)\b")
_NAMES_EMOTIONS = re.compile(r"\bemotions?\s+(?:of|is|are)\b")
_SAME = re.compile(r"\s*(?:this|it|its)\b")
_GROUP = re.compile(r"\b(?:both|neither)\s+images?\b|\b(?:both|neither)\s+of\b")


def option_by_question(
    plain: str,
    question: str,
    texts: Sequence[str],
    words: Words,
    claim_of: Callable[[str], str | None],
    *,
    has_degrees: bool,
) -> str | None:
    """The number of the option, as text; None if the question does not decide.

    Args:
        plain: the answer in lower case, without marks.
        question: in lower case.
        texts: of the options, in lower case.
        words: tokens of an option -> its number.
        claim_of: the option that a sentence claims.
        has_degrees: whether the options are such as "much higher".
    """
    sentences = SENTENCE_END.split(plain)
    clauses = [clause for sentence in sentences for clause in _CLAUSE.split(sentence)]
    kinds: list[Callable[[], set[str | None]]]
    if has_degrees:
        asked_about = _subjects(question)
        kinds = [functools.partial(_comparisons, parts, asked_about, texts, words) for parts in (sentences, clauses)]
        kinds.append(functools.partial(_directions, sentences, question, texts))
    else:
        restatement = Restatement(question)
        kinds = [functools.partial(_restated, parts, restatement, claim_of) for parts in (sentences, clauses)]
    for found in kinds:
        if claims := found():
            return claims.pop() if len(claims) == 1 and _UNCLEAR not in claims else None
    if set(texts) == {"yes", "no"}:
        said = _yes_or_no(plain, question)
        return None if said is None else str(texts.index(said))
    if asks_what_is_absent(question):
        return _absent(sentences, set(_IMAGE.findall(question)), words)
    image = _images_of_emotion(sentences, question) if {"image1", "image2"} <= set(texts) else None
    places = [place for place, text in enumerate(texts) if image in (text, *text.split()[:1])]
    return str(places[0]) if len(places) == 1 else None


def _directions(sentences: Sequence[str], question: str, texts: Sequence[str]) -> set[str | None]:
    """The options that sentences claim by "more" and "less", if one option goes up and one goes down."""
    ends = [[str(n) for n, text in enumerate(texts) if word in text.split()] for word in ("higher", "lower")]
    asked_about, dimensions = _subjects(question), set(_DIMENSION.findall(question))
    claims: set[str | None] = set()
    for sentence in sentences if len(asked_about) == len(ends[0]) == len(ends[1]) == 1 else ():
        about, is_more = _subjects(sentence), bool(_MORE.search(sentence))
        if len(about) != 1 or len(set(_IMAGE.findall(sentence))) != 2 or is_more == bool(_LESS.search(sentence)):
            continue
        if not dimensions.isdisjoint(_DIMENSION.findall(sentence)) and not _doubts(sentence):
            claims.add(ends[0 if is_more == (about == asked_about) else 1][0])
    return claims


def asks_what_is_absent(question: str) -> bool:
    return bool(_WHICH_EMOTION.search(question) and _ABSENT.search(question))


def _absent(sentences: Sequence[str], asked_about: set[str], words: Words) -> str | None:
    """The one option that sentences call absent, if nothing takes it back."""
    absent: set[str] = set()
    for sentence in sentences:
        claim, num_absences = _ABSENT.subn("", sentence)
        if not num_absences:
            continue
        about = set(_IMAGE.findall(sentence))
        of_one_image = len(about) == 1 and not about <= asked_about
        if num_absences > 1 or of_one_image or _TAKES_BACK.search(claim) or _doubts(claim):
            return None
        absent |= _mentioned(sentence, words)
    return absent.pop() if len(absent) == 1 else None


def _doubts(text: str) -> bool:
    return bool(_NEGATION.search(text) or _DOUBT.search(text) or _HEDGE.search(text))


def _mentioned(sentence: str, words: Words) -> set[str]:
    return {mention.label for mention in Text(sentence, words).mentions}


def _restated(parts: Sequence[str], restatement: Restatement, claim_of: Callable[[str], str | None]) -> set[str | None]:
    claims = {part: claim_of(part) for part in parts if restatement.matches(part)}
    return {_UNCLEAR if _DOUBT.search(part) else claim for part, claim in claims.items() if claim is not None}


def _comparisons(parts: Sequence[str], asked_about: set[str], texts: Sequence[str], words: Words) -> set[str | None]:
    claims: set[str | None] = set()
    for part in parts:
        about = _subjects(part)
        label = running_text_answer(Text(part, words)).label
        if label is not None and len(about) == len(asked_about) == 1:
            claims.add(label if about == asked_about else _opposite(label, texts))
    return claims - {None}


def _subjects(text: str) -> set[str]:
    """The images that a comparison is about, not those that it compares them with."""
    return set(_IMAGE.findall(_OTHER_SIDE.sub("", text)))


def _opposite(label: str, texts: Sequence[str]) -> str | None:
    """The option "much lower" for "much higher"; the one that means the same in both directions."""
    text = texts[int(label)]
    for one, other in _OPPOSITES:
        for word, swapped in ((one, other), (other, one)):
            if word in text.split():
                turned = text.replace(word, swapped)
                return str(texts.index(turned)) if turned in texts else None
    return label


def _yes_or_no(plain: str, question: str) -> str | None:
    """What sentences say that state what the question asks."""
    inverted = _INVERTED.search(question)
    if inverted is None:
        return None  # a statement, of which an answer may be the echo
    asked = _ADDED.split(inverted["clause"], maxsplit=1)[0]
    wanted = _content(asked)
    if len(wanted) < _MIN_WORDS or _NEGATION.search(asked):
        return None
    said = {
        answer
        for sentence in _statements(plain)
        if (answer := _stated(sentence, wanted, is_of_both=bool(_BOTH.search(asked)), asked=asked)) is not None
    }
    by_image = {match["image"]: match["said"] for match in _OF_IMAGE.finditer(plain)}
    if not said and _BOTH.search(asked) and len(by_image) > 1:
        said = {"no" if "no" in by_image.values() else "yes"}
    said |= {match["said"] for match in _SAID.finditer(plain)} if said and not by_image else set()
    return said.pop() if len(said) == 1 and _UNCLEAR not in said else None


def _statements(plain: str) -> Iterator[str]:
    """The sentences that are no questions or headings."""
    start = 0
    for end in [*(match.span() for match in SENTENCE_END.finditer(plain)), (len(plain), len(plain))]:
        sentence = plain[start : end[0]].strip()
        if sentence and plain[end[0] : end[0] + 1] != "?" and not sentence.endswith(":"):
            yield sentence
        start = end[1]


def _stated(sentence: str, wanted: frozenset[str], *, is_of_both: bool, asked: str) -> str | None:
    leading = _LEADING.match(sentence)
    clause = _REASON.split(sentence[leading.end() :] if leading else sentence, maxsplit=1)[0]
    if not wanted <= _content(clause) or (is_of_both and not _BOTH.search(clause)) or _HEDGE.search(clause):
        return None
    if not set(_IMAGE.findall(clause)) <= set(_IMAGE.findall(asked)):
        return None  # about one image
    if _DOUBT.search(sentence):
        return _UNCLEAR
    if (_RELATES.search(asked) or _RELATES.search(clause)) and _in_order(clause, wanted) != _in_order(asked, wanted):
        return _UNCLEAR
    count = len(_NEGATION.findall(clause))
    stated = None if count > 1 else "no" if count else "yes"
    return None if leading and leading["said"] != stated else stated


def _in_order(clause: str, wanted: frozenset[str]) -> list[str]:
    """The wanted words and the images of a clause, as they follow each other."""
    words = (_ALIKE.get(stem, stem) for stem in map(_stem, re.findall(r"image[1-4]|[a-z]+", clause)))
    return [word for word in words if word in wanted or _IMAGE.fullmatch(word)]


def _content(text: str) -> frozenset[str]:
    stems = (_stem(word) for word in re.findall(r"[a-z]+", text) if len(word) > 2 and word not in _FREE)
    return frozenset(_ALIKE.get(stem, stem) for stem in stems if not _NEGATION.fullmatch(stem))


def _stem(word: str) -> str:
    return re.sub(r"(?:ing|ed|es|s)$", "", word)


def _images_of_emotion(sentences: Sequence[str], question: str) -> str | None:
    """`image1`, `image2`, `both` or `neither`: where the answer says that the emotion is evoked.

    One image counts if the other is described too, and neither of them if the emotions of both are named in as many
    words ("evokes the emotions of anger and disgust").
    """
    forms = _forms_of(frozenset(WORD.findall(question)))
    if forms is None or not _WHICH.search(question) or _COMPARES.search(question):
        return None
    named = Words()
    named.update({tuple(WORD.findall(form)): "asked" for form in forms})
    described: set[str] = set()
    named_of: set[str] = set()
    claiming: set[str] = set()
    denying: set[str] = set()
    subject: str | None = None
    for clause in (clause for sentence in sentences for clause in _CLAUSE.split(sentence)):
        about = _subjects(clause)
        status = running_text_answer(Text(clause, named)).status
        doubt = _DOUBT.search(_CONTRAST.sub("", clause) if status == "negated" else clause)
        if doubt and status != "invalid":
            return None
        if len(about) > 1 or _GROUP.search(clause):
            if status == "ok":
                return None
            continue
        if about:
            subject = next(iter(about))
            described.add(subject)
        elif not _SAME.match(clause):
            continue
        if subject is not None and _NAMES_EMOTIONS.search(clause) and not doubt:
            named_of.add(subject)
        if subject is not None and status in ("ok", "ambiguous"):
            claiming.add(subject)
        elif subject is not None and status == "negated":
            denying.add(subject)
    if claiming & denying:
        return None
    if not claiming:
        return "neither" if len(named_of) > 1 and not denying else None
    return ("both" if len(claiming) > 1 else claiming.pop()) if len(described) > 1 else None


@functools.lru_cache(maxsize=512)
def _forms_of(words: frozenset[str]) -> frozenset[str] | None:
    """All words for the one emotion that a question names; None if it names none, or several."""
    found: list[frozenset[str]] = []
    for label_set in LABEL_SETS.values():
        forms = word_forms(label_set)
        labels = {forms[word] for word in words if word in forms}
        if len(labels) > 1:
            return None
        found += [frozenset(form for form, label in forms.items() if label in labels)] if labels else []
    return frozenset().union(*found) if found else None
