"""English phrases that the answer readers know: announcements, idioms, refusals and denials, as regular expressions.

All patterns expect normalised text: lower case, straight quotes, semicolons in place of dashes between words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


class Phrase:
    """A pattern, and strings of which every match contains one: most texts contain none, and are not searched."""

    def __init__(self, pattern: str, *needs: str):
        self.pattern, self.needs = pattern, needs
        self._compiled = re.compile(pattern)

    def finditer(self, plain: str) -> Iterator[re.Match[str]]:
        return self._compiled.finditer(plain) if any(map(plain.__contains__, self.needs)) else iter(())


# ---- Announced answers ------------------------------------------------------------------------------------------

_LEADING = (
    r"(?:(?:pre)?dominant|main|primary|prevailing|overall|strongest|overriding|leading|principal|most "
    r"(?:likely|prominent|salient|dominant|fitting))"
)
_INTRODUCES = r"[\"'\])]*\s*(?::|=>?|->)|\s+is\b"
# From most to least explicit. Only the most explicit kind in an answer is read.
ANNOUNCEMENTS = (
    Phrase(r"<(?:final[ _])?answer>", "answer>"),
    Phrase(rf"\b(?:predict(?:ed|s)?[\s_]+emotions?|prediction)(?:{_INTRODUCES})", "predict"),
    Phrase(rf"(?<!wrong )(?<!incorrect )\b(?:answer|final\s+emotion)(?:{_INTRODUCES})", "answer", "final"),
    Phrase(
        r"\b(?:emotion|feeling|sentiment|label|class|category)(?:\s+(?:label|class|category))?[\"'\])]*\s*(?::|=>?|->)",
        *(":", "=", "->"),
    ),
    Phrase(
        r"\bi(?:'d|'ll| would| will)?(?: have to)? (?:choose|select|pick|go with|say|vote for)\b|"
        r"\bthe (?:best|closest|most (?:likely|fitting|appropriate|suitable|probable))"
        r"(?: (?:answer|option|choice|fit|match|emotion|label|one|description))? (?:is|would be)\b|"
        rf"\b{_LEADING} (?:emotion|feeling|mood)(?: (?!not\b|is\b)\w+){{0,6}} is\b|"
        r"(?:^|[.;\n]\s*)most likely\s*:|"
        r"\b(?:first|top|best) (?:choice|pick|guess|fit|match)(?: is\b|\s*:)|"
        # A second thought replaces the first.
        r"\bon (?:reflection|second thoughts?|closer (?:look|inspection))\b\s*[,:]?|\blooking (?:closer|again)\s*[,:]|"
        r"[.;!?\n]\s*(?:actually|no,? wait|wait|correction|or rather)\s*[,:]",
        *("choose", "select", "pick", "go with", "say", "vote for", "best ", "closest", "most ", "dominant", "main"),
        *("primary", "prevailing", "overall", "strongest", "overriding", "leading", "principal", "first ", "top "),
        *("on reflection", "second thought", "closer", "looking ", "actually", "wait", "correction", "or rather"),
    ),
)
# Allowed between an announcement and its label: quotes, brackets, "3." or "(c)", articles, "most likely".
OPENING = re.compile(r"[\s\"'(\[{<:]*(?:(?:\d+|[a-h])[.)]\s*)?(?:(?:an?|the|is|most|likely|probably)\s+)*[\"'(\[{]*")
# Joins a second label to the first.
CONNECTION = re.compile(
    r"[\"')\]}]*\s*\(?\s*(?:,|/|&|\+|\b(?:and/or|and|or)\b)+\s*(?:(?:and|or)\s+)?"
    r"(?:(?:an?|the|possibly|perhaps|maybe|probably|also|even)\s+)*[\"'(\[{]*"
)
# Separates labels that are listed without a comma or "and": "awe; fear", "awe | fear", "awe (fear)". The last one ends.
LISTED = re.compile(
    r"(?:[\s\"')\]}(\[{;|/&+~\u2013\u2014\u2022\u00b7\u2192\u3001-]|\b(?:plus|as\s+well\s+as|versus|vs\.?|also|und|oder|et|ou|y)\b)*"
)
LISTED_END = re.compile(r"\s*(?:$|[\"')\]}<,;|/&+.!\n\u2022\u00b7\u2192\u3001]|(?:and|or)\b)")
REASON = re.compile(r"\b(?:reason(?:ing)?|explanation|because)\b")

# Follows an emotion that leads the others: "awe dominates", "awe is the strongest emotion", "awe fits best".
LEADS_AFTER = re.compile(
    r"[\"')\]]*\s+(?:(?:clearly|certainly|by far) )?(?:(?:(?:pre)?dominates?|prevails?)\b"
    r"(?= ?(?:[,.;!\n]|$)| (?:with|over|here|(?:in )?(?:the|this) (?:image|picture|photo|scene|mood))\b)|"
    r"fits? best\b|comes? first\b|more than anything\b|"
    rf"(?:is|are) (?:clearly |certainly |by far )?(?:the )?(?:{_LEADING}|best|better|closest)\b"
    r"(?: (?:emotion|feeling|mood|label|answer|option|choice|fit|match|one)\b|(?= ?(?:[,.;!\n]|$))))"
)
# Opens the sentence that concludes what was said before.
CONCLUSION = re.compile(
    r"(?:^|[.;!?\n]) ?(?:(?:therefore|thus|hence|in conclusion|in summary|to sum up|all in all)\b ?[,:]?|"
    r"(?:overall|conclusion) ?[,:])"
)
# Before a preference that the answer does not share, or not for long: "some would say fear dominates", "at first".
NOT_SHARED = re.compile(
    r"\b(?:if|when|unless|whether|at first|initially|might|may|could|used to|"
    r"(?:some|others|many|critics|viewers|people|one)(?: \w+)? (?:would|will|say|see|think|feel|find|argue|claim))\b"
)
# A label with its probability: "awe: 0.7", "awe (0.7)".
PROBABILITY = re.compile(r" ?(?:[:=] ?|\( ?| )(?P<value>0?\.\d+|0|1\.0+|1)(?![\w%/]|\.\d)")

# Where a Latin word begins or ends inside a script that is written without spaces.
SCRIPT_BORDER = re.compile(r"(?<=[\u3040-\u30ff\u3400-\u9fff])(?=[a-z])|(?<=[a-z])(?=[\u3040-\u30ff\u3400-\u9fff])")

# ---- Sentences and clauses --------------------------------------------------------------------------------------

SENTENCE_END = re.compile(r"[!?;\n]|\.(?!\d)")
QUESTION_OPENING = re.compile(
    r"\s*(?:and |so |now,? )?(?:is|are|was|do|does|did|what|which|how|why|who|can|could|would|should|will)\b"
)
# The reply to a question inside the answer.
YES = re.compile(r"\?[\"')\s]*(?:yes|yeah|yep|indeed|definitely|certainly|absolutely)\b(?! (?:and|or|but) no\b)")
NO = re.compile(r"\?[\"')\s]*(?:no|nope|not|never|hardly|far from)\b")
# Ends a refusal and begins a guess.
TURN = re.compile(
    r"\b(?:but|however|though|although|yet|nevertheless|nonetheless|except that)\b|;|"
    r", (?:so )?(?:maybe|perhaps|possibly|probably|i(?:'d| would) (?:guess|say)|i guess|if i (?:had|have) to|"
    r"(?:my )?best guess)\b"
)
# A clause does not end at the brackets of an option: "not (a) amusement".
_BEFORE_OPTION = ("not ", "n't ", "option ", "choice ")
_NO_OPTION = "".join(rf"(?<!{words}\()" for words in _BEFORE_OPTION)
_NO_OPTION_IN = "".join(rf"(?<!{words}\([a-z\d]\))(?<!{words}[a-z\d]\))" for words in _BEFORE_OPTION)
_NO_OPINION = "".join(rf"(?<!{verb} {that}it)" for that in ("", "that ") for verb in "think believe say doubt".split())
# What precedes a sign is looked at behind it, which is faster: most characters are none of these signs.
CLAUSE_END = re.compile(
    rf"[.!?;,:\n]|\({_NO_OPTION}|\){_NO_OPTION_IN}|"
    rf"\b(?:but|and|because|since|which|who|while|although|though|however|yet|instead|so|it{_NO_OPINION}(?:'s| is))\b"
)

# ---- Idioms: an emotion word that names no emotion, or a "no" that denies nothing ---------------------------------

_CANNOT = r"(?:can't|cant|cannot|can not|couldn't|could not)"
IDIOMS = (
    re.compile(r"\bi(?:'m| am) (?:\w+ )?afraid(?:(?=,)|(?= (?:that|i|i'm|we|this|it|there|not|so|the|you|my)\b))"),
    re.compile(r"\bi fear (?:that|i|we|this|it|there|the)\b|\bi (?:hope|trust|love)\b"),
    re.compile(
        r"\b(?:happy|glad|excited|love|proud|sad|afraid) to "
        r"(?:help|assist|answer|provide|describe|say|analy[sz]e|share)\b"
    ),
    re.compile(r"\bhappy (?:birthday|new year|holidays?|hour|meal|anniversary|easter|halloween|christmas|ending)\b"),
    re.compile(
        r"\b(?:no|little|small) (?:big )?surprise\b|\bnot surprising(?:ly)?\b|\bsurprise (?:party|gift|visit)\b|"
        r"\bto (?:my|our|his|her|their|everyone's) (?:\w+ )?surprise\b"
    ),
    re.compile(
        r"\bamusement (?:park|arcade|ride)s?\b|\banger management\b|\bangry birds\b|\bfear and loathing\b|"
        r"\ball the rage\b|\bfor the love of\b"
    ),
    re.compile(r"\bpride (?:parade|flag|march|month)\b|\bpride of lions\b|\b(?:a shame that|what a shame)\b"),
    re.compile(r"\b(?:lemon|lime|orange|citrus|grapefruit)(?:'s)? zest\b|\bzest of (?:an? )?(?:lemon|lime|orange)\b"),
    re.compile(
        r"\bbas-relief\b|\b(?:disaster|famine|flood|tax|pain) relief\b|"
        r"\brelief (?:sculpture|carving|map|printing|effort|fund|worker|agency|supplies|pitcher)s?\b"
    ),
    re.compile(
        r"\bhorror[- ](?:movie|film|story|stories|game|novel|show|fiction|genre)s?\b|\bsympathy cards?\b|"
        r"\bnervous system\b"
    ),
    re.compile(
        r"\bnegative (?:space|film|number|temperature|ion)s?\b|\b(?:film|photo|photographic|glass) negatives?\b|"
        r"\b(?:false|true|blood|hiv|rh)[- ](?:positive|negative)s?\b|\btest(?:s|ed)? (?:positive|negative)\b|"
        r"\bi(?:'m| am) (?:\w+ )?positive(?= (?:that|it|this|about|of|the|there)\b)"
    ),
    re.compile(
        r"\bneutral(?:[- ]+\w+)? (?:colou?r|tone|background|light|palette|backdrop|wall|shade|hue|gr[ae]y)\w*\b|"
        r"\b(?:colou?rs?|tones?|background|light(?:ing)?|palette|backdrop|walls?|cloth(?:es|ing)) (?:is|are) (?:\w+ )?"
        r"neutral\b"
    ),
    # "Other" is a label of some sets and a plain word everywhere else.
    re.compile(
        r"\b(?:each|the|every|any) other\b(?! (?:category|class|emotion|expression)\b)|"
        r"\bother(?= (?!category|class|emotion|expression)\w)"
    ),
    re.compile(r"\bno (?:doubt|question|mistaking|denying)\b|\bwithout (?:a |any )?(?:doubt|question)\b"),
    re.compile(r"\bnot (?:only|just|merely|simply|solely)\b|\b(?:hard|difficult|impossible) not to\b"),
    re.compile(r"\b(?:nothing|none) (?:but|other than|more than|less than|short of)\b|\bmore than\b"),
    re.compile(rf"\b{_CANNOT} (?:\w+ )?(?:help|deny|hide|miss|mistake|ignore|contain|wait)\b"),
    re.compile(rf"\b{_CANNOT} be anything (?:but|other than|except)\b"),
    re.compile(rf"\b(?:{_CANNOT} be|never (?:been|felt|looked|so)) (?:more\b|(?=\w+ier\b))"),
)
# Adverbs that comment on the whole sentence: "Sadly, ..." does not claim sadness.
SENTENCE_ADVERB = re.compile(r"\w+ly$")

# "content" is a mood only after a linking verb or before something that can look content; elsewhere it means contents.
CONTENT_BEFORE = frozenset(
    """is are was were be being been feel feels feeling felt look looks looking appear appears seem seems very quite so
    rather deeply completely fully truly perfectly and or not but from more less happy calm peaceful relaxed simply as
    am now isn't aren't they're he's she's it's i'm we're you're""".split()
)
CONTENT_AFTER = frozenset(
    "smile expression face look mood feeling emotion state person man woman child baby cat".split()
)
CONTENT_AFTER_NOUN = frozenset("of is was shows suggests that which in warning itself creator :".split())

# ---- Refusals ---------------------------------------------------------------------------------------------------

_ABILITY = (
    r"(?:determine|identify|tell|say|predict|recogni[sz]e|assess|see|view|provide|answer|assist|help|analy[sz]e|infer|"
    r"discern|judge|comply|do|access|process|make|give|name|choose|classify|interpret|confirm|describe|detect|"
    r"decide|select|pick|read|speculate|offer)"
)
# "I can't say why", "I can't identify the person": not about the emotion.
_OTHER_MATTER = (
    r"(?! (?:exactly |for sure )?"
    r"(?:why|who|whom|where|when|whose|him|her|them|the (?:person|people|man|woman|individual))\b)"
)
REFUSALS = (
    Phrase(
        rf"(?:\b(?:i|we|model|assistant)\b(?: \w+)?|^|[.!\n;,] *)(?: am| are|'m|'re)? ?"
        rf"\b(?:{_CANNOT}|won't|will not|not able to|unable to) (?:\w+ ){{0,2}}?{_ABILITY}\b{_OTHER_MATTER}",
        *("can", "could", "won't", "will not", "not able", "unable"),
    ),
    Phrase(
        r"\b(?:impossible|difficult|hard|tricky|not possible|no way|not easy) (?:for me )?to (?:\w+ )?"
        r"(?:determine|identify|tell|say|predict|assess|infer|discern|judge|name|classify|decide|choose|pick)\b"
        rf"{_OTHER_MATTER}",
        *("possible", "difficult", "hard ", "tricky", "no way", "not easy"),
    ),
    Phrase(rf"\b{_CANNOT} be (?:\w+ )?(?:determined|identified|predicted|inferred|assessed|told)\b", "can", "could"),
    Phrase(rf"\b(?:don't|dont|do not) (?:really |actually )?know\b{_OTHER_MATTER}", "know"),
    Phrase(
        r"\b(?:don't|do not) (?:\w+ )?have "
        r"(?:access|enough|sufficient|the (?:ability|capability)|any (?:way|information))\b",
        "have ",
    ),
    Phrase(
        rf"\bnot (?:\w+ )?(?:sure|certain)\b{_OTHER_MATTER}|\bi(?:'m| am) (?:\w+ )?(?:unsure|uncertain)\b",
        *("sure", "certain"),
    ),
    Phrase(
        r"\b(?:it|emotion|expression|feeling|mood)(?:'s| is) (?:\w+ )?(?:unclear|not clear|unknown|undetermined)\b",
        *("clear", "unknown", "undetermined"),
    ),
    Phrase(
        r"(?:^|[:.\n]) *(?:unknown|unclear|n/a|undetermined|indeterminate|not applicable|no idea)\b",
        *("unknown", "unclear", "n/a", "undetermined", "indeterminate", "not applicable", "no idea"),
    ),
    Phrase(
        r"\bno (?:image|picture|photo|photograph)(?: \w+){0,3} (?:provided|attached|given|included|available|shared|"
        r"uploaded)\b|\b(?:don't|do not) see (?:an|any|the|your) (?:image|picture|photo)|"
        r"\bplease (?:\w+ )?(?:provide|share|upload|attach|send) (?:an?|the|your) (?:image|picture|photo)",
        *("image", "picture", "photo"),
    ),
    Phrase(
        rf"\b(?:i|model|assistant) (?:\w+ )?(?:{_CANNOT}|do not|don't|does not|doesn't) (?:\w+ )?"
        r"(?:feel|have|experience|perceive) (?:\w+ )?(?:emotions?|feelings?)\b",
        *("can", "could", "do not", "don't", "does not", "doesn't"),
    ),
    Phrase(
        r"\b(?:insufficient|not enough) (?:information|context|detail)|\b(?:decline|refuse) to\b|\bno idea\b",
        *("insufficient", "not enough", "decline", "refuse", "no idea"),
    ),
)
# Polite openings that refuse only if the answer contains nothing else.
SOFT_REFUSALS = re.compile(
    r"\bi(?:'m| am) (?:so |very )?sorry\b|\bi apologi[sz]e\b|\bas an? (?:ai|artificial|language|large)\b"
)


def is_refusal(plain: str) -> bool:
    """Whether normalised text refuses to answer or apologises."""
    return SOFT_REFUSALS.search(plain) is not None or any(any(refusal.finditer(plain)) for refusal in REFUSALS)


_RAISED = str.maketrans(dict.fromkeys("\u00b2\u00b3\u00b9\u2070\u2074\u2075\u2076\u2077\u2078\u2079", " "))


def one_form(text: str) -> str:
    """Text in one Unicode form (NFKC) that keeps numbers: a half is 1/2, and a raised digit is no part of a number."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", text.translate(_RAISED)).replace("\u2044", "/")


def without_markup(text: str) -> str:
    """Text with straight quotes and single spaces, without Markdown emphasis."""
    text = text.translate(str.maketrans("\u2018\u2019\u201c\u201d", "''\"\""))
    return re.sub(r"[ \t]+", " ", re.sub(r"[*`#|]+|(?<!\w)_+|_+(?!\w)", " ", text))


# ---- Denials ----------------------------------------------------------------------------------------------------

# CLAUSE_DENIAL applies up to the end of its clause, PHRASE_DENIAL only to the words that directly follow.
CLAUSE_DENIAL = Phrase(
    r"\bleast (?:likely|fitting|probable|applicable|appropriate)\s*:|"
    r"\b(?:not|never|cannot|cant|dont|isnt|aint|doesnt|\w+n't|nobody|no one|none|nothing|nowhere|unlikely|"
    r"denies|deny|i doubt|by no means|in no way|(?:wrong|incorrect|misleading|a mistake) to|"
    r"(?:wrong|incorrect) (?:answer|choice|option|label)|"
    r"least (?:likely|fitting|probable|applicable|appropriate))\b",
    *("not", "never", "cant", "dont", "isnt", "aint", "doesnt", "n't", "nobody", "no one", "none", "nowhere"),
    *("unlikely", "denies", "deny", "i doubt", "no means", "no way", "wrong", "incorrect", "misleading", "mistake"),
    "least",
)
PHRASE_DENIAL = Phrase(
    r"\b(?:no|zero|without|sans|avoid(?:s|ed|ing)?|(?:fails?|failed|refuses|refused) to|too \w+ to|"
    r"lack(?:s|ing|ed)?|absence|devoid|free (?:of|from)|neither|nor|rather than|instead of|"
    r"as opposed to|than|less|except(?: for)?|excluding|excludes|excluded|rules? out|ruled out|unlike|opposite of|"
    r"anything but|far from|hardly|barely|scarcely|rarely|seldom|"
    r"used to (?:be|feel|look)|lost (?:all|any|his|her|their|its)|"
    r"(?:mistaken|mistake it|confused|confuse it|misread) (?:for|with|as))\b(?!\s*[,.;:!?\n])",
    *("no", "zero", "without", "sans", "avoid", "fail", "refuse", "too ", "lack", "absence", "devoid", "free "),
    *("neither", "than", "instead", "opposed", "less", "except", "exclud", "rule", "unlike", "opposite", "anything"),
    *("far from", "hardly", "barely", "scarcely", "rarely", "seldom", "used to", "lost ", "mistake", "confuse"),
    "misread",
)
SEE_THROUGH = frozenset(
    """a an the any all at of in to for as like be is are was being been it there this feel feels feeling feelings felt
    longer look looks looking
    appear appears appearing seem seems show shows showing express expresses expressing expression
    expressions convey conveys conveying evoke evokes evoking very really truly particularly especially overly quite
    exactly necessarily entirely sign signs sense hint hints trace traces touch emotion emotions emotional visible clear
    clearly apparent obvious obviously real strong such other than indication evidence reason kind sort more much single
    moment ' \" -""".split()
)
COORDINATION = frozenset(
    {",", "or", "nor", "and", "/", "&", "a", "an", "any", "the", "even", "very", "really", '"', "'"}
)
DENIED_BEFORE = re.compile(r"\b(?:non|un|dis|anti|no)-$|(?:\[ \]|\u2610) ?$")
UNCHECKED = re.compile(r"\[ \]|\u2610")
DENIED_AFTER = re.compile(
    r"-(?:free|less)\b|\s+(?:is|are|seems?|would be)\s+(?:the\s+|by far\s+)*least\s+(?:likely|fitting|probable|apt)\b|"
    r"[\"']?\s*[?:=]\s*(?:no|not|none|nil|nope|never|hardly|false|absent|unlikely|zero|0(?:\.0+)?(?!\.?\d))\b|"
    # A dash, which is a semicolon here.
    r"\s*;\s*(?:no|none|nil|0(?:\.0+)?\s?%?)\s*(?:[,;!\n]|\.(?!\d)|$)|"
    r"\s*\((?:no|none|not present|not shown|unlikely|absent|false|0(?:\.0+)?\s?%?)\)|"
    r"\s*[\u2717\u2718\u274c]|\s+is\s+(?:what|something)\s+\w+\s+lacks?\b|"
    r"\s+not\s*(?:[.!?,;\n]|$)|\s+(?:of\s+)?(?:nothing|nobody|no\s+one)\b(?!\s+(?:but|other|more|less|short|else))|"
    r"\s+(?:(?:is|are|was|were|does|do|has|would|could)(?:\s+not|\s+never|n't)|seems\s+not|can(?:not|'t|\s+not)|"
    r"(?:is|are|was|were|seems)(?:\s+\w+)?\s+(?:absent|missing|lacking|unlikely|nowhere|gone|over|lost|wrong|incorrect|out\s+of\s+the\s+question))\b"
)
# Takes back what was just claimed, or repeats a denial: "awe, I do not think so", "anger 0%".
TAKEN_BACK = re.compile(
    r"[^\S\n]+0(?:\.0+)?\s?(?:%|percent)\s*(?:[.;!?\n]|$)|"
    r"[\"')\]]*\s*[,.;:!?]?\s*(?:but |though |well,? )?"
    r"(?:i (?:really )?(?:do not|don't|dont) (?:really )?(?:think|believe) (?:so|that|it)|i doubt (?:it|that)|"
    r"i think not|not really|not at all|hardly)\s*(?:[.,;!?\n]|$)"
)
# All that such a list contains is missing, also without an "or": "devoid of joy, hope".
DENIED_LIST = Phrase(
    r"(?<!not )\b(?:devoid of|free (?:of|from)|absence of)\s+(?:any |all )?\w+(?:\s*,\s*(?:(?:and|or) )?\w+)+"
    r"(?: (?:and|or) \w+)?(?=\s*(?:[.;!?\n]|$))",
    *("devoid", "free ", "absence"),
)
# Words that deny a label by themselves.
ANTONYMS = {"discontent": "content", "discontented": "contented", "discontentment": "contentment"}

# ---- Words that call for a closer look --------------------------------------------------------------------------

# Every denial, and every denial that follows a label, in a text of letters, spaces and commas has one of these words,
# or one from each set of a pair below.
DENIAL_WORDS = frozenset(
    """
    not never cannot cant dont isnt aint doesnt nobody no none nothing nowhere unlikely denies deny doubt wrong
    incorrect misleading mistake mistaken least zero without sans avoid avoids avoided avoiding fail fails failed
    refuses refused lack lacks lacking lacked absence devoid free neither nor rather instead opposed than less
    except excluding excludes excluded rule rules ruled unlike opposite anything hardly barely scarcely rarely seldom
    used lost confused confuse misread absent missing percent
    """.split()
)
# Every idiom has one of these words, as the word of an emotion or beside it.
IDIOM_WORDS = frozenset(
    """
    afraid fear fears feared hope trust love happy glad excited proud sad surprise surprising surprisingly amusement
    anger angry loathing rage pride shame zest relief horror sympathy nervous negative negatives positive positives
    neutral other more
    """.split()
)

_DENIAL_PAIRS = tuple(
    (frozenset(ones.split()), frozenset(others.split()))
    for ones, others in (("far", "from"), ("too", "to"), ("gone over out", "is are was were seems"))
)
_FIRST_OF_PAIRS = frozenset(word for ones, _ in _DENIAL_PAIRS for word in ones)


def may_deny(words: Collection[str]) -> bool:
    """Whether a text of letters, spaces and commas with these words may have a denial."""
    if _FIRST_OF_PAIRS.isdisjoint(words):
        return not DENIAL_WORDS.isdisjoint(words)
    return not DENIAL_WORDS.isdisjoint(words) or any(
        not ones.isdisjoint(words) and not others.isdisjoint(words) for ones, others in _DENIAL_PAIRS
    )


def idioms_in(plain: str, words: Iterable[str]) -> list[tuple[int, int]]:
    """Start and end of each idiom in a text with these words. Only idioms that can be there are searched."""
    if "'" in plain:  # "can't"
        patterns: Sequence[re.Pattern[str]] = IDIOMS
    elif _IDIOMS_OF_WORD.keys().isdisjoint(words):
        return []
    else:
        present = _IDIOMS_OF_WORD.keys() & set(words)
        patterns = [IDIOMS[number] for number in sorted({one for word in present for one in _IDIOMS_OF_WORD[word]})]
    return [match.span() for pattern in patterns for match in pattern.finditer(plain)]


def _needed(pattern: re.Pattern[str]) -> frozenset[str]:
    """Those of the words above that a pattern can match."""
    written = set(re.findall(r"[a-z]+", re.sub(r"\\[a-z]", " ", pattern.pattern)))
    inflected = {f"{word}{ending}" for word in written for ending in ("", "s", "ly")}
    return (IDIOM_WORDS | DENIAL_WORDS) & inflected


# Word -> numbers of the idioms that may contain it.
_IDIOMS_OF_WORD: dict[str, list[int]] = {}
for _number, _pattern in enumerate(IDIOMS):
    for _word in _needed(_pattern):
        _IDIOMS_OF_WORD.setdefault(_word, []).append(_number)


# "The other options do not evoke fear": the marks before it are what the answer chose.
_OTHERS = re.compile(
    r"\b(?:the\s+)?(?:other|remaining)\s+(?:options?|choices?|answers?)\s+"
    r"(?:(?:do|does|are|is|were|was|can)(?:\s*not\b|n't\b)|(?:are|is)\s+(?:incorrect|wrong|false)\b)",
    re.I,
)
_OTHER_CUES = ("ther option", "ther choice", "ther answer", "emaining ")
_DENIES = re.compile(r"\b(?:not|no|never|neither|incorrect|wrong|false|unlikely)\b|n't\b", re.I)
_MARKED = re.compile(r"(?<![\w'])[(\[]?([A-Za-z])[:.)\]]")


def mark_before_the_others(plain: str, marks: Mapping[str, int]) -> int | None:
    """The option of the only mark, with a colon, a full stop or a bracket, before a sentence that denies the other
    options; None without such a sentence, or where something is denied before it."""
    if not any(map(plain.__contains__, _OTHER_CUES)):
        return None  # in most answers
    others = _OTHERS.search(plain)
    before = plain[: others.start()] if others is not None else ""
    if _DENIES.search(before):
        return None
    chosen = {mark.casefold() for mark in _MARKED.findall(before)} & marks.keys()
    return marks[chosen.pop()] if len(chosen) == 1 else None
