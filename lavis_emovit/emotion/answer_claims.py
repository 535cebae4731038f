"""What a text claims about words of interest, such as the labels of a set or the options of a question.

A claim is a mention that is not denied, not inside an idiom, a question or a refusal. An announced answer, or a first
sentence that consists of one of the words, takes precedence over the rest.
"""

from __future__ import annotations

import bisect
import functools
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lavis_emovit.emotion import answer_phrases as phrases

AnswerStatus = Literal["ok", "invalid", "ambiguous", "refused", "negated"]

_TOKEN = re.compile(r"\d+(?:\.\d+)?(?!\w)|\w+(?:'\w+)*|[^\w\s]|\n")
_JOINS = frozenset({"and", "or", "nor", "/", "&"})
_OR = frozenset({"or", "nor", "/"})
# Anything that `plain_text` could change.
_MARKUP = re.compile(r"[*`#~|_\t\r\v\f\x1c-\x1f]|  |[ \n]-")
_EMPHASIS = str.maketrans("*`#~|", "     ")
_DASH = re.compile(r"\s(?:-{1,2}|\u2013)\s")
WORD = re.compile(r"\w+(?:'\w+)*")
_PLURAL = re.compile(r"\s+(?:are|were|do|did|have)(?:\s+(?:both|all))?(?:\s+(?:not|absent|missing)\b|n't\b)")
_NOT_ABSENT = re.compile(r"\s+(?:are|were)(?:\s+(?:both|all))?(?:\s+not|n't)\s+(?:absent|missing|lacking)\b")
_MAX_LIST = 120  # characters behind a label in which another one may follow


class Words(dict[tuple[str, ...], str]):
    """Tokens of a form -> what it names; not changed after the first text is read."""

    @functools.cached_property
    def longest(self) -> int:
        return max(map(len, self), default=0)

    @functools.cached_property
    def first_words(self) -> frozenset[str]:
        return frozenset(form[0] for form in self if form)


@dataclass(frozen=True)
class EmotionAnswer:
    label: str | None  # the claimed label; None unless the status is `ok`
    # `ok`; `invalid`: no label of the set is named; `ambiguous`: several are, or one is both claimed and denied;
    # `refused`: the answer declines; `negated`: it only names what the emotion is not.
    status: AnswerStatus


class _Mention(NamedTuple):
    """A word or phrase that names a label: tokens [first, last], characters [start, end)."""

    label: str
    form: str
    first: int
    last: int
    start: int
    end: int
    denies: bool  # the word itself denies: "unamused", "fearless"


class Text:
    """Normalised text with its tokens and its mentions of labels, except those inside idioms."""

    def __init__(self, plain: str, words: Words):
        self.plain, self.words = plain, words
        self.tokens: list[str] = _TOKEN.findall(plain)

    @functools.cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """Start and end of each token; most texts that are read name nothing and need none."""
        spans = []
        end = 0
        for token in self.tokens:
            start = self.plain.index(token, end)  # only spaces are between two tokens
            end = start + len(token)
            spans.append((start, end))
        return spans

    @functools.cached_property
    def starts(self) -> list[int]:
        return [start for start, _ in self._spans]

    @functools.cached_property
    def mentions(self) -> list[_Mention]:
        return [mention for mention in self.find(self.words) if not self._names_no_emotion(mention)]

    @functools.cached_property
    def _idioms(self) -> list[tuple[int, int]]:
        return phrases.idioms_in(self.plain, self.tokens)

    @functools.cached_property
    def _sentence_ends(self) -> list[tuple[int, int]]:
        return [match.span() for match in phrases.SENTENCE_END.finditer(self.plain)]

    @functools.cached_property
    def _clause_ends(self) -> list[int]:
        return [match.start() for match in phrases.CLAUSE_END.finditer(self.plain)]

    def in_idiom(self, position: int) -> bool:
        return any(start <= position < end for start, end in self._idioms)

    def sentence_around(self, position: int) -> tuple[int, int]:
        """Start and end of the sentence; `end` is the position of its full stop, or the end of the text."""
        i = bisect.bisect_left(self._sentence_ends, (position, position))
        start = self._sentence_ends[i - 1][1] if i else 0
        return start, self._sentence_ends[i][0] if i < len(self._sentence_ends) else len(self.plain)

    def is_asked(self, mention: _Mention) -> bool:
        """Whether a mention is inside a question, which claims nothing: "Is the person sad?"."""
        start, end = self.sentence_around(mention.start)
        return self.plain[end : end + 1] == "?" and bool(phrases.QUESTION_OPENING.match(self.plain[start:end]))

    def clause_end_after(self, position: int) -> int:
        i = bisect.bisect_left(self._clause_ends, position)
        return self._clause_ends[i] if i < len(self._clause_ends) else len(self.plain)

    def find(self, words: Words) -> list[_Mention]:
        """All mentions, also inside idioms."""
        first_words = words.first_words
        begins = [i for i, token in enumerate(self.tokens) if token in first_words or _may_derive(token)]
        found: list[_Mention] = []
        for i in begins:
            if found and i <= found[-1].last:
                continue
            length, form, denies = self._form_at(i, words)
            if length:
                last = i + length - 1
                start, end = self._spans[i][0], self._spans[last][1]
                found.append(_Mention(words[form], " ".join(form), i, last, start, end, denies))
        return found

    def _form_at(self, i: int, words: Words) -> tuple[int, tuple[str, ...], bool]:
        """Number of tokens of the longest form at token `i` (0 for none), the form, and whether it denies."""
        for length in range(min(words.longest, len(self.tokens) - i), 0, -1):
            form = tuple(token.removesuffix("'s") for token in self.tokens[i : i + length])
            if form in words:
                start = self._spans[i][0]
                before = self.plain[max(0, start - 8) : start]
                return length, form, bool(phrases.DENIED_BEFORE.search(before))
        word = self.tokens[i]
        stems = [phrases.ANTONYMS.get(word, ""), word[2:] if word.startswith("un") else ""]
        stems += [word.removesuffix(ending) for ending in ("less", "lessly") if word.endswith(ending)]
        for stem in stems:
            if (stem,) in words:
                return 1, (stem,), True
        return 0, (), False

    def _names_no_emotion(self, mention: _Mention) -> bool:
        before = self.tokens[mention.first - 1] if mention.first else ""
        after = self.tokens[mention.last + 1] if mention.last + 1 < len(self.tokens) else ""
        opens_sentence = self.plain[slice(*self.sentence_around(mention.start))].lstrip().startswith(mention.form)
        if phrases.SENTENCE_ADVERB.match(mention.form) and (opens_sentence or before == ","):
            return True
        if mention.form == "content" and not mention.denies:
            if self.tokens[mention.last].endswith("'s") or after in phrases.CONTENT_AFTER_NOUN:
                return True
            opens = opens_sentence or not re.search(r"\w", before)
            return not (opens or before in phrases.CONTENT_BEFORE or after in phrases.CONTENT_AFTER)
        return self.in_idiom(mention.start)


@functools.lru_cache(maxsize=1 << 16)
def _may_derive(token: str) -> bool:
    """Whether a token may name a form in another way than as it is: without "un", "less" or "'s", or by an antonym."""
    return token[-2:] in ("ss", "ly", "'s") or token[:2] == "un" or token in phrases.ANTONYMS


def plain_text(reply: str) -> str:
    """A folded answer without Markdown emphasis, with single spaces, and semicolons in place of dashes."""
    if reply.isascii() and not _MARKUP.search(reply):
        return reply
    text = reply if reply.isascii() else phrases.SCRIPT_BORDER.sub(" ", reply)
    if "-" in text or "\u2013" in text:
        text = _DASH.sub(" ; ", text)
    text = text.translate(_EMPHASIS)
    if "_" in text:
        text = re.sub(r"(?<!\w)_+|_+(?!\w)", " ", text)
    return re.sub(r"[^\S\n]{2,}|[^\S\n ]", " ", text)


def claimed_answer(text: Text) -> EmotionAnswer:
    """What a text claims: announced, leading, alone in the first sentence, or anywhere; else its conclusion."""
    answer = announced_answer(text) or running_text_answer(text)
    return (_concluded_answer(text) or answer) if answer.status == "ambiguous" else answer


def announced_answer(text: Text) -> EmotionAnswer | None:
    """The answer by probabilities, after "Predict emotion:" or a similar phrase, the label that leads the others, or
    the label that is the whole first sentence."""
    if answer := _most_probable(text):
        return answer
    plain, words = text.plain, text.words
    for announcement in phrases.ANNOUNCEMENTS:
        answers = []
        matches = list(announcement.finditer(plain))
        if announcement is phrases.ANNOUNCEMENTS[-1]:
            matches = [match for match in matches if not _is_not_shared(text, match.start())]
        ends = [*(match.start() for match in matches[1:]), len(plain)]
        for match, end in zip(matches, ends):
            answer = _head_answer(plain[match.end() : end], words)
            # "The answer is in her eyes" announces no label; "answer:" always does.
            if answer.status != "invalid" or match.group().endswith((":", "=", ">")):
                answers.append(answer)
        if answers:
            return _agreement(answers)
    return _leading_answer(text) or _bare_answer(text)


def _most_probable(text: Text) -> EmotionAnswer | None:
    """The label with the highest probability, if every mention has one: "amusement: 0.1, awe: 0.7"."""
    scores: dict[str, float] = {}
    for mention in text.mentions:
        match = phrases.PROBABILITY.match(text.plain, mention.end)
        if match is None or mention.denies or mention.label in scores:
            return None
        scores[mention.label] = float(match["value"])
    best = max(scores.values(), default=0.0)
    # Values such as 3 and 7, or 0 and 1, are no probabilities; probabilities of one image have the sum 1.
    if len(scores) < 2 or not 0 < best < 1 or sum(scores.values()) > 1.02:
        return None
    leaders = [label for label, score in scores.items() if score == best]
    return EmotionAnswer(leaders[0], "ok") if len(leaders) == 1 else EmotionAnswer(None, "ambiguous")


def _leading_answer(text: Text) -> EmotionAnswer | None:
    """The label that leads the others: "awe dominates, with a hint of fear"."""
    if len(text.mentions) < 2:
        return None
    leading = [mention for mention in text.mentions if phrases.LEADS_AFTER.match(text.plain, mention.end)]
    if not leading:
        return None
    for earlier, later in reversed(list(zip(text.mentions, text.mentions[1:]))):
        joint = set(text.tokens[earlier.last + 1 : later.first])
        if later in leading and not _JOINS.isdisjoint(joint) and joint <= phrases.COORDINATION:
            leading.append(earlier)
    denied = denied_mentions(text)
    leaders = {
        mention.label
        for mention in leading
        if not (mention in denied or text.is_asked(mention) or _is_not_shared(text, mention.start))
    }
    if len(leaders) == 1:
        return EmotionAnswer(leaders.pop(), "ok")
    return EmotionAnswer(None, "ambiguous") if leaders else None


def _is_not_shared(text: Text, position: int) -> bool:
    start = text.sentence_around(position)[0]
    turns = [match.end() for match in phrases.TURN.finditer(text.plain, start, position)]
    return phrases.NOT_SHARED.search(text.plain, turns[-1] if turns else start, position) is not None


def _bare_answer(text: Text) -> EmotionAnswer | None:
    plain, words = text.plain, text.words
    sentences = [part for part in phrases.SENTENCE_END.split(plain) if part.strip()]
    label = _bare_label(sentences[0], words) if sentences else None
    others = {_bare_label(sentence, words) for sentence in sentences[1:]} if label else set()
    if label and others <= {label, None} and not plain.lstrip().startswith("?"):
        if phrases.UNCHECKED.search(sentences[0]):
            return None
        start = plain.index(sentences[0])
        # A denial follows the label, "anger: 0", or its sentence, "anger? no".
        ends = [start + match.end() for match in WORD.finditer(sentences[0]) if not match.group().isdigit()]
        is_denied = any(_denied_after(plain, end) for end in (ends[-1], start + len(sentences[0])))
        return None if is_denied else EmotionAnswer(label, "ok")
    return None


def _concluded_answer(text: Text) -> EmotionAnswer | None:
    """The claim of the sentence that concludes a text; None if conclusions contradict each other."""
    claims = set()
    end = 0
    for match in phrases.CONCLUSION.finditer(text.plain):
        sentence = phrases.SENTENCE_END.split(text.plain[match.end() : match.end() + 1000], maxsplit=1)[0]
        claims.add(running_text_answer(Text(sentence, text.words)).label)
        end = match.end() + len(sentence)
    claims |= {mention.label for mention in text.mentions if end and mention.start >= end}
    return EmotionAnswer(claims.pop(), "ok") if len(claims) == 1 and None not in claims else None


def _denied_after(plain: str, end: int) -> bool:
    return bool(phrases.DENIED_AFTER.match(plain, end) or phrases.TAKEN_BACK.match(plain, end))


def _agreement(answers: list[EmotionAnswer]) -> EmotionAnswer:
    """One answer from several announced ones: the first may be an echo of the question."""
    labels = {answer.label for answer in answers if answer.status == "ok"}
    if len(labels) == 1:
        return EmotionAnswer(labels.pop(), "ok")
    if labels:
        return EmotionAnswer(None, "ambiguous")
    return next((answer for answer in answers if answer.status != "invalid"), answers[0])


def _head_answer(rest: str, words: Words) -> EmotionAnswer:
    """The answer directly after an announcement: a label at its head, else the claim of its first sentence."""
    opening = phrases.OPENING.match(rest)
    rest = rest[opening.end() if opening else 0 :]
    sentence = phrases.SENTENCE_END.split(rest, maxsplit=1)[0]
    head = Text(sentence, words)
    first = head.mentions[0] if head.mentions else None
    if first is None or first.first != 0 or first.denies or _denied_after(sentence, first.end):
        reason = phrases.REASON.search(sentence)
        return running_text_answer(Text(sentence[: reason.start()] if reason else sentence, words))
    if _denied_after(rest, first.end):
        return EmotionAnswer(None, "negated")
    connection = phrases.CONNECTION.match(sentence[first.end :])
    if connection:
        joined = Text(sentence[first.end + connection.end() :], words).mentions
        if joined and joined[0].first == 0 and joined[0].label != first.label:
            return EmotionAnswer(None, "ambiguous")
    if _is_listed(Text(rest[first.end : first.end + _MAX_LIST], words), first.label):
        return EmotionAnswer(None, "ambiguous")
    return EmotionAnswer(first.label, "ok")


def _is_listed(following: Text, label: str) -> bool:
    """Whether another label follows in a list, with only separators between the two."""
    second = following.mentions[0] if following.mentions else None
    return (
        second is not None
        and second.label != label
        and phrases.LISTED.fullmatch(following.plain, 0, second.start) is not None
        and phrases.LISTED_END.match(following.plain, second.end) is not None
    )


def _bare_label(sentence: str, words: Words) -> str | None:
    """The label of a sentence that contains nothing else except articles, numbers or quotes."""
    content = [word for word in WORD.findall(sentence) if not word.isdigit() and word not in ("a", "an", "the")]
    return words.get(tuple(content))


def running_text_answer(text: Text) -> EmotionAnswer:
    """The one label that the text claims, or the status that explains why there is none."""
    refusals = [match.span() for refusal in phrases.REFUSALS for match in refusal.finditer(text.plain)]
    mentions_denied = denied_mentions(text)
    claimed: set[str] = set()
    denied: set[str] = set()
    for mention in text.mentions:
        if text.is_asked(mention):
            reply = _reply(text, mention)
            if reply is not None:
                (claimed if reply else denied).add(mention.label)
            continue
        if any(_same_clause(text, mention, refusal) for refusal in refusals):
            continue
        (denied if mention in mentions_denied else claimed).add(mention.label)
    if len(claimed) == 1 and not claimed & denied:
        return EmotionAnswer(claimed.pop(), "ok")
    if claimed:
        return EmotionAnswer(None, "ambiguous")
    if refusals or (not denied and phrases.SOFT_REFUSALS.search(text.plain)):
        return EmotionAnswer(None, "refused")
    return EmotionAnswer(None, "negated" if denied else "invalid")


def _reply(text: Text, mention: _Mention) -> bool | None:
    """The plain yes or no that answers the question, else None. Only questions about one emotion have such a reply."""
    start, end = text.sentence_around(mention.start)
    if any(start <= other.start < end and other.label != mention.label for other in text.mentions):
        return None
    rest = text.plain[end:]
    return True if phrases.YES.match(rest) else False if phrases.NO.match(rest) else None


def _same_clause(text: Text, mention: _Mention, span: tuple[int, int]) -> bool:
    """Whether neither a sentence end nor a "but" separates a mention from a refusal."""
    between = text.plain[min(mention.end, span[1]) : max(mention.start, span[0])]
    return not (phrases.SENTENCE_END.search(between) or phrases.TURN.search(between))


def denied_mentions(text: Text) -> set[_Mention]:
    """The mentions with an odd number of denials; two denials cancel out ("not without sadness")."""
    num_denials = {
        mention: int(mention.denies) + bool(phrases.DENIED_AFTER.match(text.plain[mention.end :]))
        for mention in text.mentions
    }
    mention_starts = [mention.start for mention in text.mentions]
    mention_at = {mention.first: mention for mention in text.mentions}
    for cue in phrases.CLAUSE_DENIAL.finditer(text.plain):
        if not text.in_idiom(cue.start()):
            reach = text.clause_end_after(cue.end())
            first, end = (bisect.bisect_left(mention_starts, position) for position in (cue.end(), reach))
            for mention in text.mentions[first:end]:
                num_denials[mention] += 1
    for cue in phrases.PHRASE_DENIAL.finditer(text.plain):
        reached = None if text.in_idiom(cue.start()) else _mention_after(text, mention_at, cue.end())
        if reached:
            num_denials[reached] += 1
    denied = {mention for mention, count in num_denials.items() if count % 2}
    pairs = _coordinated_pairs(text)
    for earlier, later in pairs:
        if earlier in denied:
            denied.add(later)
    denied -= {later for _, later in pairs if _NOT_ABSENT.match(text.plain, later.end)}
    for cue in phrases.DENIED_LIST.finditer(text.plain):
        first, end = (bisect.bisect_left(mention_starts, position) for position in cue.span())
        denied.update(text.mentions[first:end])
    taken_back = {mention for mention in text.mentions if phrases.TAKEN_BACK.match(text.plain, mention.end)}
    # "Fear and joy are absent" denies both, "sadness and fear is absent" only the second.
    taken_back |= {mention for mention in denied if _PLURAL.match(text.plain, mention.end)}
    for earlier, later in reversed(pairs):
        if later in taken_back:
            taken_back.add(earlier)
    return denied | taken_back


def _mention_after(text: Text, mention_at: dict[int, _Mention], position: int) -> _Mention | None:
    """The mention after a position, if only function words come between ("no sign of any fear")."""
    for i in range(bisect.bisect_left(text.starts, position), len(text.tokens)):
        if i in mention_at:
            return mention_at[i]
        if text.tokens[i] not in phrases.SEE_THROUGH:
            return None
    return None


def _coordinated_pairs(text: Text) -> list[tuple[_Mention, _Mention]]:
    """Neighbours in one list where a denial of the first also denies the second: "not sad, angry, or afraid".

    A comma passes a denial on only inside a list that continues to an "or", "and" only between direct neighbours. So
    the last words of "not sad, angry" and "neither sad nor angry, happy instead" are not denied.
    """
    pairs = []
    continues_to_or = False
    for earlier, later in reversed(list(zip(text.mentions, text.mentions[1:]))):
        joint = set(text.tokens[earlier.last + 1 : later.first])
        if not joint or joint - phrases.COORDINATION:
            continues_to_or = False
            continue
        # The "or" may come before a word that is not a label of this set: "not sad, angry, or bored".
        following = [token for token in text.tokens[later.last + 1 : later.last + 3] if token != ","]
        continues_to_or = continues_to_or or not _OR.isdisjoint(joint) or not _OR.isdisjoint(following[:1])
        if continues_to_or or ("and" in joint and "," not in joint):
            pairs.append((earlier, later))
    return pairs[::-1]
