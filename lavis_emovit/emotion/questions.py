"""All question wordings, and how a question lists its options.

Training, generation and evaluation take their wordings from here, so all of them ask with the same words. Provenance
and settings contain the numbers of wordings, counted from 1: append wordings, never reorder or edit them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Literal

from lavis_emovit.emotion.labels import LabelSet, Subject
from lavis_emovit.emotion.templates import AnswerTemplate
from lavis_emovit.errors import DataError

OptionOrder = Literal["fixed", "shuffled", "rotated"]
Scale = Literal["steps", "levels"]

# ---- The emotion of an image ------------------------------------------------------------------------------------

# Every categorical answer begins with this prefix; evaluation scores the candidate labels after it.
CATEGORICAL_ANSWER_PREFIX = "Predict emotion: "

# With a list of options. Every subject has as many wordings.
CATEGORICAL_WORDINGS: tuple[str, ...] = (
    "Which of these emotions fits the picture best: {options}? "
    "Give one of them, in the form 'Predict emotion: <emotion>'.",
    "Look at the image and pick the feeling that it conveys from this list: {options}. "
    "Write 'Predict emotion: ' and then the word you picked.",
    "The choices are {options}. Name the single emotion that matches the picture, written as "
    "'Predict emotion: <choice>'; no other words count.",
    "What emotion comes across here? The allowed words are {options}. "
    "Reply with 'Predict emotion: ' followed by one allowed word.",
)
LISTED_WORDINGS: Mapping[Subject, tuple[str, ...]] = {
    "picture": CATEGORICAL_WORDINGS,
    "face": (
        "Which of these expressions does this face show: {options}? "
        "Give one of them, in the form 'Predict emotion: <emotion>'.",
        "Look at the face and pick the expression that it shows from this list: {options}. "
        "Write 'Predict emotion: ' and then the word you picked.",
        "The choices are {options}. Name the single expression that matches this face, written as "
        "'Predict emotion: <choice>'; no other words count.",
        "What does this face express? The allowed words are {options}. "
        "Reply with 'Predict emotion: ' followed by one allowed word.",
    ),
    "person": (
        "Which of these emotions does this person show: {options}? "
        "Give one of them, in the form 'Predict emotion: <emotion>'.",
        "Look at the person in this scene and pick what the person feels from this list: {options}. "
        "Write 'Predict emotion: ' and then the word you picked.",
        "The choices are {options}. Name the single emotion that matches this person, written as "
        "'Predict emotion: <choice>'; no other words count.",
        "How does this person feel? The allowed words are {options}. "
        "Reply with 'Predict emotion: ' followed by one allowed word.",
    ),
}
# With a list of options, and without the form of the answer: an answer template asks for it. As many wordings.
TEMPLATE_WORDINGS: Mapping[Subject, tuple[str, ...]] = {
    "picture": (
        "Which of these emotions fits the picture best: {options}?",
        "Look at the image and pick the feeling that it conveys from this list: {options}.",
        "The choices are {options}. Name the single emotion that matches the picture.",
        "What emotion comes across here? The allowed words are {options}.",
    ),
    "face": (
        "Which of these expressions does this face show: {options}?",
        "Look at the face and pick the expression that it shows from this list: {options}.",
        "The choices are {options}. Name the single expression that matches this face.",
        "What does this face express? The allowed words are {options}.",
    ),
    "person": (
        "Which of these emotions does this person show: {options}?",
        "Look at the person in this scene and pick what the person feels from this list: {options}.",
        "The choices are {options}. Name the single emotion that matches this person.",
        "How does this person feel? The allowed words are {options}.",
    ),
}
# Without a list of options: the model has to find the word. Every subject has as many wordings.
OPEN_WORDINGS: Mapping[Subject, tuple[str, ...]] = {
    "picture": (
        "What emotion does this picture call up? Answer in the form 'Predict emotion: <emotion>'.",
        "Find the one word for the feeling that this image conveys, and write it behind 'Predict emotion: '.",
        "How would most people feel in front of this picture? Reply with 'Predict emotion: ' and a single noun.",
    ),
    "face": (
        "What emotion does this face show? Answer in the form 'Predict emotion: <emotion>'.",
        "Find the one word for the expression of this face, and write it behind 'Predict emotion: '.",
        "Which expression would most people see in this face? Reply with 'Predict emotion: ' and a single noun.",
    ),
    "person": (
        "What emotion does this person show? Answer in the form 'Predict emotion: <emotion>'.",
        "Find the one word for the feeling of this person, and write it behind 'Predict emotion: '.",
        "How would most people say that this person feels? Reply with 'Predict emotion: ' and a single noun.",
    ),
}

# ---- Free text about an image; no question names an emotion -----------------------------------------------------

DESCRIPTION_QUESTIONS = (
    "Describe this picture in detail, and the mood that it has.",
    "What does the picture show? Go through the place, the things in it, the light, and how it all feels.",
    "Tell somebody who cannot see the picture what is in it and what mood it creates.",
    "Give a full account of this image, from what is visible to its atmosphere.",
)
# Every subject has as many wordings.
EXPLANATION_QUESTIONS: Mapping[Subject, tuple[str, ...]] = {
    "picture": (
        "Which emotion does this picture evoke, and why? Begin with 'Predict emotion: <emotion>.', then give the "
        "reason.",
        "What would people feel when they look at this image? Write 'Predict emotion: <emotion>. Reason: <why>'.",
        "Name the emotion that fits this picture as 'Predict emotion: <emotion>', and explain what in it leads there.",
    ),
    "face": (
        "Which emotion does this face show, and how? Begin with 'Predict emotion: <emotion>.', then give the reason.",
        "What does this person feel, judged by the face? Write 'Predict emotion: <emotion>. Reason: <why>'.",
        "Name the expression of this face as 'Predict emotion: <emotion>', and explain what in it shows that.",
    ),
    "person": (
        "Which emotion does this person show, and how? Begin with 'Predict emotion: <emotion>.', then give the reason.",
        "What does this person feel in this scene? Write 'Predict emotion: <emotion>. Reason: <why>'.",
        "Name the emotion of this person as 'Predict emotion: <emotion>', and explain what in the picture shows it.",
    ),
}
CAPTION_QUESTIONS = (
    "Write one short caption for this picture that makes people laugh.",
    "Give this image a funny caption, one sentence long.",
)

# ---- Valence and arousal ----------------------------------------------------------------------------------------

# Subject of the question -> wordings that ask for both numbers at once.
AFFECT_QUESTIONS: Mapping[Subject, tuple[str, ...]] = {
    "picture": (
        "On scales from -1 to 1, how pleasant is the feeling that this picture calls up (valence), and how strongly "
        "does it stir (arousal)?",
        "Estimate valence and arousal of the feeling that this image conveys, each as a number between -1 and 1.",
    ),
    "face": (
        "On scales from -1 to 1, how pleasant does the state of this person look (valence), and how stirred up "
        "(arousal)?",
        "Estimate valence and arousal of this face, each as a number between -1 and 1.",
    ),
    "person": (
        "On scales from -1 to 1, how pleasant is what this person seems to feel (valence), and how stirred up does "
        "the person seem (arousal)?",
        "Estimate valence and arousal of this person in the scene, each as a number between -1 and 1.",
    ),
}
# The same for any choice of dimensions.
DIMENSIONS_QUESTIONS: Mapping[Subject, tuple[str, ...]] = {
    "picture": (
        "On scales from -1 to 1, rate the feeling that this picture calls up: {dimensions}.",
        "Estimate these dimensions of the feeling that this image conveys, each as a number between -1 and 1: "
        "{dimensions}.",
    ),
    "face": (
        "On scales from -1 to 1, rate the state of this person: {dimensions}.",
        "Estimate these dimensions of this face, each as a number between -1 and 1: {dimensions}.",
    ),
    "person": (
        "On scales from -1 to 1, rate what this person seems to feel: {dimensions}.",
        "Estimate these dimensions of this person in the scene, each as a number between -1 and 1: {dimensions}.",
    ),
}
DIMENSIONS: Mapping[str, str] = {
    "valence": "valence (unpleasant to pleasant)",
    "arousal": "arousal (calm to excited)",
    "dominance": "dominance (controlled to in control)",
}
# The answers to `SCALE_QUESTIONS`.
SCALE = tuple(str(step) for step in range(1, 10))
# Subject -> dimension -> wordings that ask for one step of `SCALE`.
SCALE_QUESTIONS: Mapping[Subject, Mapping[str, tuple[str, str]]] = {
    "picture": {
        "dominance": (
            "How much in control does this picture make people feel, from 1 (helpless) to 9 (powerful)? Answer with "
            "one number.",
            "Rate the picture's dominance with a number from 1, controlled, to 9, in full control.",
        ),
        "valence": (
            "How pleasant is the feeling that this picture calls up, from 1 (very unpleasant) to 9 (very pleasant)? "
            "Answer with one number.",
            "Rate the picture's valence with a number from 1, as negative as can be, to 9, as positive as can be.",
        ),
        "arousal": (
            "How strongly does this picture stir, from 1 (very calm) to 9 (very exciting)? Answer with one number.",
            "Rate the picture's arousal with a number from 1, fully calm, to 9, highly excited.",
        ),
    },
    "face": {
        "dominance": (
            "How much in control does this person look, from 1 (helpless) to 9 (powerful)? Answer with one number.",
            "Rate the dominance of this face with a number from 1, controlled, to 9, in full control.",
        ),
        "valence": (
            "How pleasant does the state of this person look, from 1 (very unpleasant) to 9 (very pleasant)? Answer "
            "with one number.",
            "Rate the valence of this face with a number from 1, as negative as can be, to 9, as positive as can be.",
        ),
        "arousal": (
            "How stirred up does this person look, from 1 (very calm) to 9 (very excited)? Answer with one number.",
            "Rate the arousal of this face with a number from 1, fully calm, to 9, highly excited.",
        ),
    },
    "person": {
        "dominance": (
            "How much in control does this person seem to feel, from 1 (helpless) to 9 (powerful)? Answer with one "
            "number.",
            "Rate the dominance of this person in the scene with a number from 1, controlled, to 9, in full control.",
        ),
        "valence": (
            "How pleasant is what this person seems to feel, from 1 (very unpleasant) to 9 (very pleasant)? Answer "
            "with one number.",
            "Rate the valence of this person in the scene with a number from 1, as negative as can be, to 9, as "
            "positive as can be.",
        ),
        "arousal": (
            "How stirred up does this person seem, from 1 (very calm) to 9 (very excited)? Answer with one number.",
            "Rate the arousal of this person in the scene with a number from 1, fully calm, to 9, highly excited.",
        ),
    },
}
# The answers to `LEVEL_QUESTIONS`, from -1 to 1 at equal distances. Words, as in Q-Align (arXiv 2312.17090): for a
# language model digits are alike, and these words are not.
LEVELS: Mapping[str, tuple[str, ...]] = {
    "valence": ("awful", "bad", "neutral", "good", "great"),
    "arousal": ("calm", "mild", "moderate", "strong", "intense"),
    "dominance": ("helpless", "weak", "even", "firm", "powerful"),
}
# Subject -> dimension -> wordings that ask for one of its `LEVELS`.
LEVEL_QUESTIONS: Mapping[Subject, Mapping[str, tuple[str, str]]] = {
    "picture": {
        "valence": (
            "How pleasant is the feeling that this picture calls up: awful, bad, neutral, good or great?",
            "Rate the picture's valence as one of awful, bad, neutral, good, great.",
        ),
        "arousal": (
            "How strongly does this picture stir: calm, mild, moderate, strong or intense?",
            "Rate the picture's arousal as one of calm, mild, moderate, strong, intense.",
        ),
        "dominance": (
            "How much in control does this picture make people feel: helpless, weak, even, firm or powerful?",
            "Rate the picture's dominance as one of helpless, weak, even, firm, powerful.",
        ),
    },
    "face": {
        "valence": (
            "How pleasant does the state of this person look: awful, bad, neutral, good or great?",
            "Rate the valence of this face as one of awful, bad, neutral, good, great.",
        ),
        "arousal": (
            "How stirred up does this person look: calm, mild, moderate, strong or intense?",
            "Rate the arousal of this face as one of calm, mild, moderate, strong, intense.",
        ),
        "dominance": (
            "How much in control does this person look: helpless, weak, even, firm or powerful?",
            "Rate the dominance of this face as one of helpless, weak, even, firm, powerful.",
        ),
    },
    "person": {
        "valence": (
            "How pleasant is what this person seems to feel: awful, bad, neutral, good or great?",
            "Rate the valence of this person in the scene as one of awful, bad, neutral, good, great.",
        ),
        "arousal": (
            "How stirred up does this person seem: calm, mild, moderate, strong or intense?",
            "Rate the arousal of this person in the scene as one of calm, mild, moderate, strong, intense.",
        ),
        "dominance": (
            "How much in control does this person seem to feel: helpless, weak, even, firm or powerful?",
            "Rate the dominance of this person in the scene as one of helpless, weak, even, firm, powerful.",
        ),
    },
}

# ---- Action units of a face -------------------------------------------------------------------------------------

# Which units of a list are active?
UNITS_QUESTIONS = (
    "Which of these facial action units are active here: {units}?",
    "Look at the muscles of this face. Out of {units}, which action units can be seen?",
)
# Is this one unit active? The answers are `YES_NO`.
UNIT_QUESTIONS = (
    "Is AU{unit} ({name}) active in this face? Answer yes or no.",
    "Look at the muscles of this face: can the {name} (AU{unit}) be seen? Say yes or no.",
)
YES_NO = ("yes", "no")
# From units to the expression.
REASONING_QUESTIONS = (
    "Which facial muscles are at work in this face, and what expression do they add up to?",
    "Start from the active action units and explain which expression this face shows.",
)

# The same in three parts, with the strength of the units.
STEPS_QUESTIONS = (
    "Analyze this face step by step: what do you observe, how do you interpret it, and what do you conclude?",
    "Describe the facial actions with their strength, what they mean together, and which expression follows.",
)

# ---- Questions of other programs, and one token as the answer ---------------------------------------------------

# Without a form of the answer, for programs that list the options themselves.
BARE_QUESTIONS: Mapping[Subject, str] = {
    "picture": "Which emotion does this picture call up?",
    "face": "Which expression does this face show?",
    "person": "Which emotion does this person in the scene seem to feel?",
}
BARE_STATEMENT = "Is this statement about the image correct or incorrect? {statement}"
# Behind a question whose answer is read from the probabilities of the first token.
BY_LETTER = "Options:\n{options}\n\nWhatever form the question asks for, answer with one letter alone, A to {last}."
BY_CANDIDATE = "Answer with one of these alone: {candidates}."

# ---- Questions of the records themselves -------------------------------------------------------------------------

CHOICE_QUESTIONS = (
    "{question} Choose one of these options: {options}. Answer with the option alone.",
    "Answer the question about the picture with one of its options. Question: {question} Options: {options}.",
)
# Is a statement about the image true? The answers are `STATEMENT_ANSWERS`.
STATEMENT_QUESTIONS = (
    "Is this statement about the picture correct or incorrect? Statement: {statement} Answer with one word, 'correct' "
    "or 'incorrect'.",
    "Look at the picture and judge this sentence: {statement} Write 'correct' if it is true and 'incorrect' if it is "
    "not; no other words count.",
)
STATEMENT_ANSWERS = ("correct", "incorrect")
VQA_QUESTIONS = ("{question} Answer with a word or a short phrase.", "Question: {question} Short answer:")
# Before a question about two images that one image shows.
PAIR_NOTE = "The picture shows two images side by side: the first one is on the left, the second one on the right. "
# After a question whose answer is to state its confidence.
CONFIDENCE_REQUEST = " Then write 'Confidence: ' and a number between 0 and 1: how likely your answer is right."

# Who answers: name -> text before the question.
PERSONAS: Mapping[str, str] = {
    "none": "",
    "child": "You are a child of eight years. ",
    "elderly": "You are eighty years old and have seen much. ",
    "optimist": "You are an optimist: you see the good in everything. ",
    "pessimist": "You are a pessimist: you expect the worst of everything. ",
    "anxious": "You are an anxious person who worries a lot. ",
    "artist": "You are a painter who looks at colors and light first. ",
    "psychologist": "You are a psychologist who studies emotions. ",
}
# What comes before the answer: name -> text before the question.
MODES: Mapping[str, str] = {
    "direct": "",
    "caption": "First describe the picture in one sentence. Then answer this: ",
    "context": "First say in two sentences what happens in the picture, where, and why. Then answer this: ",
}

# ---- Several emotions of an image -------------------------------------------------------------------------------

RANKING_QUESTIONS: Mapping[Subject, tuple[str, ...]] = {
    "picture": (
        "Which {count} of these emotions does this picture call up most strongly: {options}? List them from the "
        "strongest to the weakest, separated by commas.",
        "Rank the {count} strongest feelings that this image conveys, out of {options}. Begin with the strongest and "
        "write nothing but the list.",
    ),
    "face": (
        "Which {count} of these emotions does this face show most strongly: {options}? List them from the strongest to "
        "the weakest, separated by commas.",
        "Rank the {count} strongest feelings in this face, out of {options}. Begin with the strongest and write "
        "nothing but the list.",
    ),
    "person": (
        "Which {count} of these emotions does this person feel most strongly: {options}? List them from the strongest "
        "to the weakest, separated by commas.",
        "Rank the {count} strongest feelings of this person, out of {options}. Begin with the strongest and write "
        "nothing but the list.",
    ),
}
# Without a list: any words of emotion.
WORDS_QUESTIONS: Mapping[Subject, tuple[str, ...]] = {
    "picture": (
        "Which emotions does this picture call up? List all words that fit, separated by commas.",
        "Name every feeling that people may have in front of this image, as a list of single words.",
    ),
    "face": (
        "Which emotions does this face show? List all words that fit, separated by commas.",
        "Name every feeling that can be seen in this face, as a list of single words.",
    ),
    "person": (
        "Which emotions does this person show? List all words that fit, separated by commas.",
        "Name every feeling that this person may have, as a list of single words.",
    ),
}


def categorical_prompt(
    label_set: LabelSet, options_order: Sequence[str] | None = None, wording: int = 1, about: Subject = "picture"
) -> str:
    """The categorical question, with the options in this order (None: the order of the label set).

    Raises:
        DataError: unknown wording, or `options_order` does not contain exactly the labels of the set.
    """
    if not 1 <= wording <= len(CATEGORICAL_WORDINGS):
        raise DataError(f"categorical wording {wording} does not exist; there are 1 to {len(CATEGORICAL_WORDINGS)}")
    options = tuple(options_order) if options_order is not None else label_set.labels
    if sorted(options) != sorted(label_set.labels):
        raise DataError(f"options {list(options)} are not the labels of '{label_set.name}': {list(label_set.labels)}")
    return LISTED_WORDINGS[about][wording - 1].format(options=", ".join(options))


def templated_wording(template: AnswerTemplate, wording: int, about: Subject) -> str:
    """The question for the emotion in the form of a template, with `{options}` where the options are listed."""
    instruction = template.instruction()
    if not instruction:
        return LISTED_WORDINGS[about][wording - 1]
    return f"{TEMPLATE_WORDINGS[about][wording - 1]}\n{instruction}"


def num_wordings(kind: str, subject: Subject = "picture", *, with_open: bool = False) -> int:
    """How many wordings the questions of a kind of benchmark have; with several questions, those that all of them have.

    `with_open` includes the question for the emotion without options.
    """
    wordings: Mapping[str, tuple[Sequence[str], ...]] = {
        "emotion": (CATEGORICAL_WORDINGS, *((OPEN_WORDINGS["picture"],) if with_open else ())),
        "labels": (CATEGORICAL_WORDINGS,),
        "valence_arousal": (
            AFFECT_QUESTIONS[subject],
            *SCALE_QUESTIONS[subject].values(),
            *LEVEL_QUESTIONS[subject].values(),
        ),
        "action_units": (UNITS_QUESTIONS, UNIT_QUESTIONS),
        "explanation": (EXPLANATION_QUESTIONS["picture"],),
        "caption": (CAPTION_QUESTIONS,),
        "instruction": (("the record's own",),),
        "choice": (CHOICE_QUESTIONS,),
        "statement": (STATEMENT_QUESTIONS,),
        "vqa": (VQA_QUESTIONS,),
        "ranking": (RANKING_QUESTIONS[subject], CATEGORICAL_WORDINGS),
        "words": (WORDS_QUESTIONS[subject],),
    }
    return min(map(len, wordings[kind]))


def categorical_answer(label: str) -> str:
    """The answer that training teaches for a label."""
    return CATEGORICAL_ANSWER_PREFIX + label


def chooser(purpose: str, record_id: str, seed: int = 0) -> random.Random:
    """A random generator that depends only on purpose, record and seed."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{record_id}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def scale_questions(about: Subject, axis: str, scale: Scale) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The wordings that ask for valence, arousal or dominance on a scale, and its answers from -1 to 1, which have
    equal distances."""
    if scale == "levels":
        return LEVEL_QUESTIONS[about][axis], LEVELS[axis]
    return SCALE_QUESTIONS[about][axis], SCALE
