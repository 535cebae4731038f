"""Read which option of a question an answer chooses: by its mark, by its words, or by both.

From most to least explicit, and only the most explicit kind in an answer is read:

1. a boxed, tagged or final answer (`\\boxed{D}`, `<answer>`, "Final answer: D");
2. an announced answer ("The correct choice would be: (b)", "Therefore, D: Sadness");
3. an answer that opens with an option ("D: Sadness", "Yes, both");
4. a mark beside the words of its option inside a sentence ("the shared emotion is D: Sadness");
5. the words of one option, in a conclusion or in the whole text, claimed as `answer_claims` understands it.

A mark that contradicts the words beside it, or two options of the same kind, are ambiguous. A list of all options that
repeats the question chooses nothing.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from lavis_emovit.emotion import answer_phrases as phrases
from lavis_emovit.emotion.answer_by_question import SENTENCE_END, asks_what_is_absent, option_by_question
from lavis_emovit.emotion.answer_claims import (
    WORD,
    AnswerStatus,
    EmotionAnswer,
    Text,
    Words,
    announced_answer,
    plain_text,
    running_text_answer,
)
from lavis_emovit.emotion.answer_shortcuts import Vocabulary, evident_label, vocabulary_of
from lavis_emovit.emotion.label_set import normalised
from lavis_emovit.errors import DataError
from lavis_emovit.outside import without_thoughts

# Repetitions are bounded, so that no text takes quadratic time.
_OPEN, _CLOSE = r"[\"'(\[{<]{0,4}", r"[\"')\]}>]{0,4}"
_NOUN = r"(?:(?:option|choice|answer|letter|number)\b|no\.|#)"
_BE = r"(?:is|was|would\s+be|will\s+be|should\s+be|must\s+be|remains)"
_SURELY = r"(?:therefore|thus|then|hence|indeed|likely|probably|most\s+likely|clearly|simply)"
_CONCLUDES = (
    r"(?:therefore|thus|hence|consequently|accordingly|in\s+conclusion|in\s+summary|to\s+summari[sz]e|overall|so)"
)
_TEXT = r"(?:\\(?:text|mathrm|mathbf|textbf)\{)?"
_TAGGED = re.compile(
    rf"\bboxed\{{{_TEXT}|<(?:final[ _])?answer>|\bfinal\s+(?:answer|choice)\b{_CLOSE}\s*(?:{_BE}|:|=)+\s*:?"
)
_ANNOUNCED = re.compile(
    rf"\b(?:answer|ans|option|choice|prediction|solution|selection|conclusion|(?P<loose>letter|label|class|emotion))\b{_CLOSE}\s*"
    rf"(?:\b{_BE}\b(?:\s+{_SURELY}\b,?)?\s*:?|:|;|=>?|->)"
    r"|\b(?P<mark_only>option|choice|it's|it\s+is|i'd\s+say|would\s+say)\b"
    rf"|\b(?:choose|chose|select|pick|go\s+with|vote\s+for)\b|(?<![^\s.:;,])(?P<weak>{_CONCLUDES})\b\s*[,:]?",
)
# A mark, set apart by brackets, punctuation or the end of the line; `bare` if only a space follows it.
_MARK = re.compile(
    rf"\s*(?:{_NOUN}\s*:?\s*)?(?P<open>{_OPEN})(?P<mark>[a-z]|\d{{1,2}})(?P<close>{_CLOSE})"
    r"(?:(?P<apart>[ \t]*(?:[.:,;)\]/<$](?!\d)|->?|=|\Z|\n))|(?P<bare>\s))",
    re.I,
)
_PAIR = re.compile(
    r"(?<![\w'&])(?P<mark>[a-z]|\d{1,2})(?!\w)(?<!image \w)(?<!figure \w)(?<!picture \w)"
    r"[\"')\]}]*\s*(?:[:.)\]\-=]|(?<=[)\]]))",
    re.I,
)
# A further mark: "A and D", "(a)/(b)".
_FURTHER = re.compile(
    rf"[\s.)\]]*(?:,|/|&|\+|\band\b|\bor\b)\s*(?:{_NOUN}\s*)?{_OPEN}(?P<mark>[a-z]|\d{{1,2}})(?:{_CLOSE}\s*(?:[.,;)\n]|\Z)|[:)\]])",
    re.I,
)
_WORD_END = re.compile(r"(?![\w%])(?![.,]\d)")
_GAP = re.compile(r"[\s.:)\]},;\-\"'*=>]*(?:the\s+|an?\s+)?[\"'(\[]*", re.I)
_LEAD = re.compile(r"\s*(?:(?:option|choice|answer)\b\s*:?\s*)?[\s\"'(\[{<:\-]*(?:the\s+|an?\s+)?[\"'(\[{]*", re.I)
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|than|except|eliminates?|eliminating|excludes?|excluding|rules?\s+out|instead\s+of|cannot\s+be)"
    r"|n't(?:\s+be)?)\s+(?:(?:the|an?|option|choice|answer|letter|necessarily|simply)\s+)*[\"'(\[{<]*$",
    re.I,
)
_TAKEN_BACK = re.compile(
    r"[\"')\]}.,]*(?:\s+(?:is|are|was|seems|would\s+be)(?:\s+(?:also|clearly|therefore|thus))?(?:\s+|n't\b\s*)|\s*[:\-;(]\s*)"
    r"(?:not\b|incorrect\b|wrong\b|eliminated\b|ruled\s+out\b|unlikely\b|false\b)|\s+isn't\b|\s*[\u2717\u2718\u274c]",
    re.I,
)
# The beginnings of these patterns: most answers contain few of them.
_TAG_WORDS = ("boxed{", "<answer", "<final", "final ")
_ANNOUNCING_WORDS = (
    *("answer", "option", "choice", "prediction", "solution", "selection", "conclusion", "choose", "chose", "select"),
    *("pick", "go with", "vote for", "therefore", "thus", "hence", "consequently", "accordingly", "in conclusion"),
    *("in summary", "to summari", "overall", "so ", "so,", "so:", "so\n"),
    *("ans:", "it's", "it is", "i'd say", "would say"),
)
_ALL_ANNOUNCING_WORDS = (*_ANNOUNCING_WORDS, "letter", "label", "class", "emotion")  # the last ones need a mark
_CANDIDATE = re.compile(r"\b(?:[A-Z]\b|\d|[a-z]\b(?=[).:\]\"'}<,=-]|\s?[-:=]|\s*$|\n))")
_DENYING_WORDS = (*"not|n't|incorrect|wrong|eliminated|ruled|unlikely|false|\u2717|\u2718|\u274c".split("|"),)
_DENIED_LINE = re.compile(rf"{phrases.CLAUSE_DENIAL.pattern}|\bis\s+(?:incorrect|wrong|false)\b")
_CORRECT = re.compile(
    r"\b(?P<mark>[A-Z])\b[)\]\"']{0,3}\s+(?:is|would\s+be|seems)\s+(?:the\s+)?"
    r"(?:correct|right|best|most\s+(?:likely|fitting|suitable))\b"
)
_LINE = re.compile(r"\n ?(?=[\"'(\[{]{0,4}[a-z][\"')\]}]{0,4}\s?[:.)\]])", re.I)
_STOP = re.compile(r"[\"')\]}]*\s*(?:[.,:;!\n]|$)")
_BETWEEN = re.compile(r"[\s.,;|/\-\"')\]]*(?:(?:and|or)\b)?[\s\"'(\[]*", re.I)
_SPECIAL = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|<(?:eos|bos|pad|unk|end_of_turn|start_of_turn)>|&nbsp;", re.I)
# "Therefore, the correct answer is B" replaces an earlier "Answer: A".
_EMPHATIC = re.compile(rf"\b(?:{_CONCLUDES}|correct|final|best)\b", re.I)
# The heading of a last section, behind which only that section is read if there are several options.
_FINAL = re.compile(
    r"(?:^|\n)[\s#\-]*(?:the\s+)?(?:final\s+)?(?:answer|conclusion)(?:\s+to\s+the\s+question)?\s*:\s*(?=\S)", re.I
)
_CONCLUSION = re.compile(rf"(?:^|[.!?;\n]) ?(?:{_CONCLUDES}|conclusion:|based\s+on)(?!\w)", re.I)
# Words that are part of too many sentences to choose an option inside one.
_COMMON = frozenset("yes no both neither none all maybe other same".split())
_OWN_MARK = re.compile(r"\s*[(\[]?(?P<mark>[A-Za-z]|\d{1,2})(?:[)\]]?\s*[:.)\]]|[)\]])\s*(?=\S)")

# An opening sentence that compares: "The first image evokes a more positive response."
_COMPARES = re.compile(
    r"(?:^|[.!?;\n]) ?(?:(?:in contrast|on the other hand|however),?\s*)?(?P<claim>image[1-4]\b,?\s[^.!?;\n]{0,160}?"
    r"\b(?:more|less|most|least|higher|lower|stronger|weaker|greater|better|worse)\b[^.!?;\n]{0,200})"
)
_COMPARED_WITH = re.compile(r"\b(?:than|compared\s+(?:to|with)|in\s+comparison|relative\s+to)\b")
# "Slightly higher" is not "much higher".
_SLIGHTLY = re.compile(r"\b(?:slightly|somewhat|marginally|a\s+(?:bit|little))\s+(?:higher|lower|more|less)\b")
_DEGREES = frozenset("higher lower more less same better worse stronger weaker greater smaller similar".split())
# What a degree is said about: the text between it and the beginning of its clause, without what it is compared with.
_DEGREE = re.compile(
    r"(?<!to )(?<!than )(?<!with )\bimage[12]\b(?:(?!\bimage[12]\b)[^.;,\n]){0,80}?\b(?:higher|lower|same|similar)\b"
    r"|\b(?:higher|lower)\s+(?:in|for)\s+image[12]\b"
)
# "-1", "\u22121" and "minus 1", for options that differ by their sign; not the dash of "3-5".
_MINUS = re.compile(r"(?<![\w.%)])(?:[-\u2212]|(?:minus|negative)\s)\s?(?=\.?\d)", re.I)
_PLUS = re.compile(r"(?<![\w.%)])\+(?=\.?\d)")
_SPACE = re.compile(r"\s*")
_MIN_QUOTED_SPACES = 4  # shorter options are found word by word
_NUMBERS = {"first": "1", "second": "2", "third": "3", "fourth": "4", "one": "1", "two": "2", "three": "3", "four": "4"}
_NUMBER = r"(?:[1-4]|one|two|three|four)\b"
_IMAGE_NOUN = r"(?:image|picture|photo(?:graph)?|figure)"
_IMAGE_PAIR = re.compile(rf"\b{_IMAGE_NOUN}s?\s+(?:1|one)\s*(?:and|&)\s*(?:2|two)\b", re.I)
_IMAGE = re.compile(
    rf"\b(?:the\s+)?(?:(?P<ordinal>first|second|third|fourth|1st|2nd|3rd|4th)\s+(?:{_IMAGE_NOUN}|one)"
    rf"|(?:{_IMAGE_NOUN}|fig\.)[\s_#]*(?P<number>{_NUMBER}))(?!\w)"
    # "The second, on the other hand", "the second shows"
    r"|\bthe\s+(?P<bare>first|second|third|fourth)(?=\s*[,.;]|\s+(?:also|one|is|has|was|does|seems|appears|"
    r"evok|elicit|show|convey|depict|portray|featur|captur|suggest)\w*)"
    rf"|\b(?P<group>both|neither)(?:\s+of)?(?:\s+(?:the|these))?(?:\s+two)?\s+{_IMAGE_NOUN}s?\b(?![\s_#]*{_NUMBER})",
    re.I,
)


class ChoiceAnswer(NamedTuple):
    """Which option an answer chooses.

    Attributes:
        status: `ok`; `invalid`: no option is named; `ambiguous`: several are, or one is named and denied;
            `refused`: the answer declines; `negated`: it only names what is not the answer.
        index: number of the option from 0; None unless the status is `ok`.
    """

    status: AnswerStatus
    index: int | None  # type: ignore[assignment]  # hides `tuple.index`


def read_choice(
    text: str,
    options: Sequence[str] | Mapping[str, str],
    *,
    question: str | None = None,
    conflict: Literal["ambiguous", "mark"] = "ambiguous",
) -> ChoiceAnswer:
    """Read which option an answer chooses; never guess.

    Args:
        options: texts of the options, in the order of the question, marked by letters or numbers, or {mark: text}.
        question: decides between options that the answer describes one after the other: a sentence that restates the
            question claims its option.
        conflict: what "A: No" means if A is "Yes". `mark` counts the mark, as many published benchmarks do.

    Raises:
        DataError: no options, or marks that are not single letters or numbers.
    """
    asked = _asked(tuple(options.items()) if isinstance(options, Mapping) else tuple(options))
    plain = _plain(text, asked)
    candidate = _CANDIDATE.search(plain)
    if candidate and (alone := phrases.mark_before_the_others(plain, asked.marks)) is not None:
        return ChoiceAnswer("ok", alone)
    if found := _named(plain, asked, candidate):
        if conflict == "mark":
            found = {_contradicted(index) if index < _SEVERAL else index for index in found}
        if section := _last_section(plain):
            named = _named(section, asked, _CANDIDATE.search(section))
            if len(found) > 1 and len(named) != 1:
                final = read_choice(section, options, question=question, conflict=conflict)
                return final if final.status == "ok" else _AMBIGUOUS
            found = named if len(named) == 1 else found
        return ChoiceAnswer("ok", max(found)) if len(found) == 1 and max(found) >= 0 else _AMBIGUOUS
    if candidate and (found := _called_correct(plain, asked)):
        return ChoiceAnswer("ok", found.pop()) if len(found) == 1 else _AMBIGUOUS
    plain, has_list = _without_marks(plain, asked) if candidate else (plain, False)
    answer = _in_words(plain.casefold(), asked)
    if answer.status == "invalid" and (word := plain.strip(" .!").casefold()) in _COMMON:  # "Both."
        by_word = {index for index, option in enumerate(asked.texts) if option.split()[:1] == [word]}
        answer = EmotionAnswer(str(by_word.pop()), "ok") if len(by_word) == 1 else answer
    if question is not None and "nothing but" in plain.casefold() and asks_what_is_absent(question.casefold()):
        return _AMBIGUOUS  # only this emotion is there, or only this one is absent
    if answer.status != "ok" and question is not None:
        spelt = _IMAGE.sub(_image_name, normalised(question)).casefold()
        about = spelt, asked.texts, asked.words, functools.partial(_claim_of, asked=asked)
        low = _IMAGE.sub(_image_name, plain).casefold()
        label = option_by_question(low, *about, has_degrees=asked.has_degrees)
        answer = EmotionAnswer(label, "ok") if label is not None else answer
    if answer.status == "invalid" and has_list:
        return _AMBIGUOUS
    return ChoiceAnswer(answer.status, int(answer.label) if answer.label is not None else None)


def _last_section(plain: str) -> str | None:
    """What is under the heading "Answer" or "Conclusion"; None without one, or with several answers."""
    headings = list(_FINAL.finditer(plain)) if "\n" in plain else []
    if (
        not headings
        or headings[-1].start() == 0
        or sum("answer" in heading.group().casefold() for heading in headings) > 1
    ):
        return None
    return plain[headings[-1].end() :]


def _called_correct(plain: str, asked: _Asked) -> set[int]:
    """The options of marks in sentences such as "C is the correct answer"."""
    return {
        asked.marks[match["mark"].casefold()]
        for match in _CORRECT.finditer(plain)
        if match["mark"].casefold() in asked.marks
        and not _DENIED.search(plain, max(0, match.start() - 40), match.start("mark"))
    }


def _without_marks(plain: str, asked: _Asked) -> tuple[str, bool]:
    """The text without lists of all options, which claim nothing, and whether there were any.

    Other options lose their marks, because punctuation behind a mark would end the clause.
    """
    kept, listed = _unlisted(plain, asked)
    cuts = sorted([(pair.start, pair.words) for pair in kept] + [(pair.start, pair.end) for pair in listed])
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(plain)]
    return " ".join(plain[start:end] for start, end in zip(starts, ends)), bool(listed)


def options_named(text: str, options: Sequence[str]) -> set[int] | None:
    """The options that an answer names by their marks, or announces; None if a mark contradicts the words beside it."""
    asked = _asked(tuple(options))
    plain = _plain(text, asked)
    found = _named(plain, asked, _CANDIDATE.search(plain))
    return None if found and min(found) < 0 else found


def _plain(text: str, asked: _Asked) -> str:
    reply = without_thoughts(normalised(text))
    if "<" in reply or "&" in reply:
        reply = _SPECIAL.sub(" ", reply)
    return asked.as_spelt(plain_text(reply)).strip()


def _named(plain: str, asked: _Asked, candidate: re.Match[str] | None) -> set[int]:
    low = _lower(plain)
    # Marks behind the beginning; most answers have none.
    has_marks = candidate is not None and (candidate.start() >= 4 or _CANDIDATE.search(plain, 4) is not None)
    if found := _introduced(_TAGGED, _TAG_WORDS, plain, low, asked):
        return found
    words = _ALL_ANNOUNCING_WORDS if has_marks else _ANNOUNCING_WORDS
    if found := _introduced(_ANNOUNCED, words, plain, low, asked):
        return found
    if found := _opening(plain, low, asked, has_marks):
        return found
    return _paired(plain, asked) if has_marks or len(plain) < 40 else set()


def _lower(plain: str) -> str:
    """Lower case of the same length."""
    low = plain.lower()
    return low if len(low) == len(plain) else "".join(c.lower() if len(c.lower()) == 1 else c for c in plain)


_AMBIGUOUS = ChoiceAnswer("ambiguous", None)
_SEVERAL = -1  # "A and D"


def _contradicted(index: int) -> int:
    """Stands for an option whose mark contradicts the words beside it; the option, from what stands for it."""
    return _SEVERAL - 1 - index


class _Asked(NamedTuple):
    """The options of a question."""

    marks: dict[str, int]  # mark in lower case -> option
    texts: tuple[str, ...]  # in lower case, without a final full stop
    by_first: dict[str, list[int]]  # first character -> the options that begin with it, the longest first
    words: Words  # tokens of an option -> its number, for options that a sentence can name
    names_images: bool  # "The first image", "Figure 2"
    has_signs: bool  # "-1"
    has_degrees: bool  # "Much higher"
    vocabulary: Vocabulary
    is_quoted: tuple[bool, ...]  # read as a whole: long options, and "Cannot be determined", which looks like a refusal

    def as_spelt(self, plain: str) -> str:
        """The text with one spelling for "the first image", "Figure 1" and "image one", and for "-1" and "minus 1"."""
        if self.names_images:
            plain = _IMAGE.sub(_image_name, _IMAGE_PAIR.sub("image1 and image2", plain))
        return _spell_signs(plain) if self.has_signs else plain

    def at(self, plain: str, position: int) -> tuple[int, int] | None:
        """The option whose words are at a position, and their end."""
        for index in self.by_first.get(plain[position : position + 1].casefold(), ()):
            end = position + len(self.texts[index])
            if plain[position:end].casefold() == self.texts[index] and _WORD_END.match(plain, end):
                return index, end
        return None

    def marked_at(self, plain: str, position: int, *, announced: bool) -> int | None:
        """The option of the mark at a position."""
        match = _MARK.match(plain, position)
        if match is None or (index := self.marks.get(match["mark"].casefold())) is None:
            return None
        further = _FURTHER.match(plain, match.end("mark"))
        if further is not None and self.marks.get(further["mark"].casefold(), index) != index:
            return _SEVERAL
        words = _end(_GAP, plain, match.end("mark"))
        following = self.at(plain, words)
        if following is None and (other := _PAIR.match(plain, words)):  # "B: C: Figure 1"
            following = self.at(plain, _end(_GAP, plain, other.end()))
        if following is not None and self.texts[following[0]] != self.texts[index]:
            return _contradicted(index) if match["apart"] or match["close"] else None
        if following is None and match["bare"] and not match["close"]:
            # "A sad man", "the answer is a mix", "2 people"
            return index if announced and match["mark"].isupper() and not plain.isupper() else None
        if following is None and match["mark"].isdigit() and not announced and plain[match.end() :].strip():
            return None  # numbers count reasons
        return index


def _spell_signs(text: str) -> str:
    return _PLUS.sub("", _MINUS.sub("minus", text))


def _image_name(match: re.Match[str]) -> str:
    if match["group"]:
        return f"{match['group']} images"
    number = (match["ordinal"] or match["number"] or match["bare"]).casefold()
    return f"image{_NUMBERS.get(number, number[:1])}"


@functools.lru_cache(maxsize=4096)
def _asked(options: tuple[str, ...] | tuple[tuple[str, str], ...]) -> _Asked:
    if not options:
        raise DataError("no options to choose from; pass the texts of the options in the order of the question")
    if isinstance(options[0], tuple):
        names, given = [str(mark).casefold() for mark, _ in options], [text for _, text in options]
        if strays := [name for name in names if not re.fullmatch(r"[^\W\d_]|\d{1,2}", name)]:
            raise DataError(f"marks of options must be single letters or numbers up to 99, got {strays}")
        names = [str(int(name)) if name.isdigit() else name for name in names]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise DataError(f"several options have the mark '{repeated[0]}'; upper and lower case are one mark")
        marks = {name: index for index, name in enumerate(names)}
    else:
        given = list(options)
        marks = {str(number + 1): number for number in range(len(given))}
        marks |= {chr(ord("a") + number): number for number in range(min(26, len(given)))}
        own = [match and match["mark"].casefold() for match in map(_OWN_MARK.match, given)]
        if [marks.get(mark or "") for mark in own] == list(range(len(given))):
            given = [_OWN_MARK.sub("", text, count=1) for text in given]
    has_degrees = any(not _DEGREES.isdisjoint(text.casefold().rstrip(".").split()) for text in given)
    names_images = has_degrees or any(_IMAGE.search(text) for text in given)
    plain = list(map(plain_text, map(normalised, given)))
    has_signs = any(_spell_signs(text) != text or _is_number(text) for text in plain)
    texts = [_IMAGE.sub(_image_name, text) if names_images else text for text in plain]
    texts = list(map(_spell_signs, texts)) if has_signs else texts
    texts = [re.sub(r"^(?:the|an?)\s+(?=\S)", "", text.casefold().strip().rstrip(".!").strip()) for text in texts]
    # An option that is itself a letter or a number: "1", "B". Then marks of this kind say nothing.
    for kind in (str.isdigit, str.isalpha):
        if any(
            (kind(text) and len(text) <= 2 and text in marks) or (kind is str.isdigit and _is_number(text))
            for text in texts
        ):
            marks = {mark: index for mark, index in marks.items() if not kind(mark)}
    is_quoted = tuple(text.count(" ") >= _MIN_QUOTED_SPACES or phrases.is_refusal(text) for text in texts)
    words = Words()
    tokens_of = [tuple(WORD.findall(text)) for text in texts]
    for index, (text, tokens) in enumerate(zip(texts, tokens_of)):
        if not tokens or is_quoted[index] or tokens_of.count(tokens) > 1:  # "c" and "c++" have the same words
            continue
        if len(tokens) > 1 or tokens[0] not in _COMMON:
            words[tokens] = str(index)
        if len(tokens) == 2 and has_degrees and sum(tokens[1] in text.split() for text in texts) == 1:
            words[tokens[1:]] = words[tokens]  # "significantly higher" is "much higher"
    by_first: dict[str, list[int]] = {}
    for index in sorted((i for i, text in enumerate(texts) if text), key=lambda i: -len(texts[i])):
        by_first.setdefault(texts[index][0], []).append(index)
    return _Asked(
        marks, tuple(texts), by_first, words, names_images, has_signs, has_degrees, vocabulary_of(words), is_quoted
    )


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"(?:minus)?\d*(?:\.\d+)?%?", text)) and any(map(str.isdigit, text))


def _end(pattern: re.Pattern[str], plain: str, position: int) -> int:
    match = pattern.match(plain, position)
    return match.end() if match else position


def _target_at(plain: str, position: int, asked: _Asked, *, announced: bool) -> int | None:
    """The option at a position, by its mark or by its words."""
    # As it is written, first: "-$1" is no "$1", and "a-b" does not begin with the mark "a".
    exact = asked.at(plain, _end(_SPACE, plain, position))
    if exact is not None and asked.texts.count(asked.texts[exact[0]]) == 1 and _STOP.match(plain, exact[1]):
        return exact[0]
    marked = asked.marked_at(plain, position, announced=announced)
    if marked is not None:
        return marked
    found = exact or asked.at(plain, _end(_LEAD, plain, position))
    if found is None:
        return None
    index, end = found
    if asked.texts.count(asked.texts[index]) > 1:
        return None
    return index if announced or _STOP.match(plain, end) else None


def _introduced(pattern: re.Pattern[str], words: tuple[str, ...], plain: str, low: str, asked: _Asked) -> set[int]:
    """The options behind what a pattern finds; each match begins with one of the words."""
    found: list[tuple[int, bool]] = []
    mentioned: set[int] = set()  # "option B", "it's B": only if nothing else is announced, and no other is mentioned
    for place in sorted({place for word in words if word in low for place in _places(low, word)}):
        match = pattern.match(low, place)
        if match is None or _DENIED.search(plain, max(0, place - 40), place):
            continue
        mark = _MARK.match(plain, match.end())
        if mark is not None and _TAKEN_BACK.match(plain, mark.end("close")):
            continue
        if match.lastgroup == "mark_only":
            if mark is not None and not asked.at(plain, _end(_GAP, plain, mark.end("mark"))):
                index = asked.marked_at(plain, match.end(), announced=match.group() in ("option", "choice"))
                mentioned |= set() if index is None else {index}
            continue
        # "Therefore, fear is absent" and "the emotion is fear in one image" announce nothing.
        index = _target_at(plain, match.end(), asked, announced=match.lastgroup not in ("weak", "loose"))
        if index is not None:
            start = max(plain.rfind("\n", 0, place) + 1, place - 80)
            found.append((index, _EMPHATIC.search(plain, start, match.end()) is not None))
    indices = {index for index, _ in found}
    if len(indices) > 1 and found[-1][1]:
        return {index for index, is_emphatic in found if is_emphatic}
    return indices or (mentioned if len(mentioned) == 1 else set())


def _opening(plain: str, low: str, asked: _Asked, has_marks: bool) -> set[int]:
    index = _target_at(plain, 0, asked, announced=False)
    if index is None:
        return set()
    if not has_marks and not any(word in low for word in _DENYING_WORDS):
        return {index}
    pairs = list(_pairs(plain, asked))
    if pairs and pairs[0].start <= 2:
        if _is_denied(plain, pairs[0]) or (len(pairs) > 1 and _joined(plain, pairs[0], pairs[1])):
            return set()
        concluded = _concluded(plain, [pair for pair in pairs if not _is_denied(plain, pair)])
        if concluded - {index}:  # one option after the other, and then a conclusion
            return concluded if len({pair.option for pair in pairs}) > 2 else concluded | {index}
    return {index} | _line_marks(plain, asked)


def _concluded(plain: str, pairs: list[_Pair]) -> set[int]:
    """The options of the pairs after the last "therefore"."""
    conclusions = list(_CONCLUSION.finditer(plain))
    return {pair.option for pair in pairs if conclusions and pair.start > conclusions[-1].start()}


def _line_marks(plain: str, asked: _Asked) -> set[int]:
    """The options whose marks open a line, unless the line denies them: "B: The second image does not"."""
    found = {
        asked.marked_at(plain, match.end(), announced=False)
        for match in _LINE.finditer(plain)
        if not _DENIED_LINE.search(_sentence(plain[match.end() : match.end() + 1000].casefold()))
    }
    return {index for index in found if index is not None}


def _places(text: str, word: str) -> Iterator[int]:
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + 1)


class _Pair(NamedTuple):
    """A mark beside the words of its option."""

    option: int
    start: int
    words: int  # where the words begin
    end: int


def _pairs(plain: str, asked: _Asked) -> Iterator[_Pair]:
    position = 0
    while match := _PAIR.search(plain, position):
        position = match.end("mark")
        index = asked.marks.get(match["mark"].casefold())
        if index is None:
            continue
        words = _end(_GAP, plain, match.end())
        found = asked.at(plain, words)
        if found and asked.texts[found[0]] == asked.texts[index]:
            position = found[1]
            yield _Pair(index, match.start("mark"), words, found[1])


def _joined(plain: str, first: _Pair, second: _Pair) -> bool:
    return second.start - first.end < 20 and _BETWEEN.fullmatch(plain, first.end, second.start) is not None


def _unlisted(plain: str, asked: _Asked) -> tuple[list[_Pair], list[_Pair]]:
    """The pairs outside lists of all options, and the pairs of these lists."""
    pairs, num_options = list(_pairs(plain, asked)), len(asked.texts)
    kept: list[_Pair] = []
    listed: list[_Pair] = []
    number = 0
    while number < len(pairs):
        run = pairs[number : number + num_options]
        is_list = num_options > 1 and {pair.option for pair in run} == set(range(num_options))
        if is_list and all(_joined(plain, one, other) for one, other in itertools.pairwise(run)):
            listed += run
            number += num_options
        else:
            kept.append(pairs[number])
            number += 1
    return kept, listed


def _paired(plain: str, asked: _Asked) -> set[int]:
    claimed = [pair for pair in _unlisted(plain, asked)[0] if not _is_denied(plain, pair)]
    found = {pair.option for pair in claimed}
    concluded = _concluded(plain, claimed)
    if len(found) > 1 and len(concluded) == 1:
        return concluded
    if any("\n" in plain[max(0, pair.start - 4) : pair.start] for pair in claimed):
        found |= _line_marks(plain, asked)
    return found


def _is_denied(plain: str, pair: _Pair) -> bool:
    return bool(_DENIED.search(plain, max(0, pair.start - 40), pair.start) or _TAKEN_BACK.match(plain, pair.end))


def _in_words(plain: str, asked: _Asked) -> EmotionAnswer:
    quoted = [index for index, text in enumerate(asked.texts) if asked.is_quoted[index] and text in plain]
    if quoted:
        return EmotionAnswer(str(quoted[0]), "ok") if len(quoted) == 1 else EmotionAnswer(None, "ambiguous")
    if asked.has_degrees:
        plain = _SLIGHTLY.sub(" ", plain)
    elif label := evident_label(plain, asked.vocabulary):
        return EmotionAnswer(label, "ok")
    claims = Text(plain, asked.words)
    answer = announced_answer(claims) or running_text_answer(claims)
    if answer.status == "ok":
        return EmotionAnswer(None, "ambiguous") if asked.has_degrees and _is_reversed(plain) else answer
    conclusions = list(_CONCLUSION.finditer(plain))
    concluded = _claim_of(plain[conclusions[-1].end() :], asked) if conclusions else None
    if concluded is not None:
        return EmotionAnswer(concluded, "ok")
    compared = {_claim_of(match.group("claim"), asked) for match in _COMPARES.finditer(plain)}
    if answer.status == "ambiguous" and len(compared) == 1 and _COMPARES.match(plain) and None not in compared:
        return EmotionAnswer(compared.pop(), "ok")
    return answer


def _claim_of(text: str, asked: _Asked) -> str | None:
    """The one option that the first sentence of a text claims."""
    sentence = _COMPARED_WITH.split(_sentence(text), maxsplit=1)[0]
    if asked.has_degrees and _is_reversed(sentence):
        return None
    return running_text_answer(Text(sentence, asked.words)).label


def _sentence(text: str) -> str:
    return SENTENCE_END.split(text.lstrip()[:1000], maxsplit=1)[0]


def _is_reversed(text: str) -> bool:
    """Whether a text compares the first image with the second: "Figure 1 is much higher than Figure 2".

    The options "much higher" and "much lower" do not say what is compared. Questions ask about the second image.
    """
    return any("image1" in match.group() and "image2" not in match.group() for match in _DEGREE.finditer(text))
