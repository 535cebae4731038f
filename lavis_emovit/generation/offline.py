"""The offline writer: texts from templates and known facts about an image, without any model.

Its texts agree with the record but are simple and repetitive: use them to test the pipeline, and as a baseline for real
writers. The same record, seed and sample give the same words.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from lavis_emovit.generation.change_texts import Topic, change_topics, changes_seen
from lavis_emovit.generation.changes import label_phases
from lavis_emovit.generation.facts import plain, subject
from lavis_emovit.records import EmotionRecord

WRITER = "offline/1"

# Emotion -> cause, as a clause after "because".
_CAUSES = {
    "amusement": "things meet that do not belong together, and nobody is hurt by it",
    "anger": "something stands in the way that should not be there, and somebody seems to be at fault",
    "awe": "there is more to see than one can take in at once, and one feels small before it",
    "contentment": "nothing is missing and nothing asks for haste",
    "disgust": "one would rather not touch it or have it near",
    "excitement": "much is about to happen, and one would like to take part",
    "fear": "a danger may be near, and there is no telling what comes next",
    "sadness": "something is lost or out of reach, and nobody can change it",
}
_ADVICE = {
    "amusement": "It is best to share such a moment, since laughing together makes it last.",
    "anger": "It helps to step back and wait until the first heat is over before saying anything.",
    "awe": "It is worth standing still for a while and leaving the camera in the pocket.",
    "contentment": "There is nothing to improve here, so the best one can do is to stay a little longer.",
    "disgust": "Keeping a distance and washing one's hands afterwards is a sound instinct.",
    "excitement": "Joining in is the obvious thing to do, with an eye on one's own strength.",
    "fear": "It helps to find light and company first, and to know the way out.",
    "sadness": "It does good to sit with somebody and to say nothing until they want to speak.",
}
# Upper end of a step -> words for it.
_LIGHT = {0.2: "very dark", 0.4: "rather dark", 0.6: "neither dark nor bright", 0.8: "bright", 1.1: "very bright"}
_COLOUR = {0.15: "almost without colour", 0.4: "pale", 0.65: "of middling strength", 1.1: "strong"}
_FACES = {
    "angry": "tense, with the brows drawn together",
    "disgust": "wrinkled at the nose",
    "fear": "wide-eyed",
    "happy": "bright, with a smile",
    "sad": "drawn, with the corners of the mouth down",
    "surprise": "open-mouthed",
}
_COMPLEX_QUESTIONS = (
    "How do the parts of this picture work together on somebody who looks at it?",
    "What makes people react to this picture the way they do?",
    "If one had to say where the mood of this scene comes from, what would one point at?",
    "What does this moment do to a viewer, and through what?",
)
# About faces and persons, whose label is what they show.
_QUESTIONS_ABOUT_PEOPLE = (
    "What does this person seem to feel, and what shows it?",
    "How would you read the expression of this person?",
    "What can one tell about this person's mood, and from what?",
    "Which signs tell how this person feels?",
)
_REASONING_QUESTIONS = (
    "What would you advise somebody who finds themselves in this situation?",
    "Why might a person remember this moment later on?",
    "What would have to change for this picture to affect people in another way?",
    "What does this scene tell about what people need?",
)


def knows_more_than_the_label(record: EmotionRecord) -> bool:
    """Whether the record has a fact that the writer can write about."""
    return bool(_seen(record, random.Random(0)))


def caption(record: EmotionRecord) -> str | None:
    """A caption from the annotated place, things and action; None if all are unknown."""
    known = record.attributes
    place = _a(plain(known.scene)) if known.scene else ""
    things = _list(known.object)
    action = f"a person, {plain(known.human_action)}" if known.human_action else ""
    parts = [part for part in (action, things) if part]
    if place and parts:
        return f"{place} with {' and '.join(parts)}"
    return place or " and ".join(parts) or None


def conversation(record: EmotionRecord, choose: random.Random) -> dict[str, Any]:
    """Up to two simple pairs and a complex one."""
    topics = [*_topics(record), *change_topics(record, choose)]
    simple = choose.sample(topics, min(2, len(topics)))
    reply: dict[str, Any] = {
        f"simple_{number}": {"question": choose.choice(questions), "answer": answer}
        for number, (questions, answer) in enumerate(simple, start=1)
    }
    answer = " ".join([*_seen(record, choose), *_conclusion(record)])
    questions = _COMPLEX_QUESTIONS if subject(record) == "picture" else _QUESTIONS_ABOUT_PEOPLE
    reply["complex"] = {"question": choose.choice(questions), "answer": answer}
    return reply


def reasoning(record: EmotionRecord, choose: random.Random) -> dict[str, Any]:
    advice = _ADVICE.get(record.emotion or "", "It is worth asking oneself where that impression comes from.")
    if subject(record) != "picture":
        advice = "It is worth asking what led to this moment, since a single look tells only a part of it."
    answer = " ".join([*_seen(record, choose), *_conclusion(record), advice])
    return {"question": choose.choice(_REASONING_QUESTIONS), "answer": answer}


def description(record: EmotionRecord, choose: random.Random) -> dict[str, Any]:
    """A description with the mood."""
    mood = [f"All of it together makes a mood of {record.emotion}."] if record.emotion else []
    if record.emotion and subject(record) != "picture":
        mood = _conclusion(record)
    close = "That is what one can see, and one takes it in at a glance before the details come forward."
    return {"description": " ".join([*_seen(record, choose), close, *mood])}


def explanation(record: EmotionRecord, choose: random.Random) -> dict[str, Any]:
    cause = _CAUSES.get(record.emotion or "", "it all points the same way, and nothing in it speaks against it")
    reason = f"It works this way because {cause}."
    if subject(record) != "picture":
        reason = "What can be seen of the person points to it, and nothing speaks against it."
    return {"reason": " ".join([*_seen(record, choose), reason])}


def fact_topics(record: EmotionRecord) -> dict[str, Topic]:
    """Name of a known attribute -> questions about it, and their answer."""
    known = record.attributes
    topics: dict[str, Topic] = {}
    if known.scene:
        questions = "What kind of place is it?", "Where is this?"
        topics["scene"] = questions, f"It is {_a(plain(known.scene))}."
    if known.object:
        questions = "Which things stand out?", "What can one see in the picture?"
        topics["object"] = questions, f"One can see {_list(known.object)}."
    if known.human_action:
        questions = "What is the person doing?", "What goes on here?"
        topics["human_action"] = questions, f"The action is {plain(known.human_action)}."
    if known.facial_expression:
        questions = "What does the face look like?", "How would you describe the face?"
        topics["facial_expression"] = questions, f"The face is {_face(known.facial_expression)}."
    if known.brightness is not None:
        questions = "How bright is the picture?", "What is the light like?"
        topics["brightness"] = questions, f"It is {_step(_LIGHT, known.brightness)}."
    if known.colorfulness is not None:
        questions = "How strong are the colours?", "What are the colours like?"
        topics["colorfulness"] = questions, f"The colours are {_step(_COLOUR, known.colorfulness)}."
    return topics


def _topics(record: EmotionRecord) -> list[Topic]:
    """Questions about known facts, each with its answer."""
    topics = [*fact_topics(record).values()]
    if record.caption:
        text = record.caption.strip().rstrip(".")
        questions = "What does the picture show?", "What is in the picture?"
        topics.append((questions, f"{text[:1].upper()}{text[1:]}."))
    return topics


def _seen(record: EmotionRecord, choose: random.Random) -> list[str]:
    known = record.attributes
    sentences = []
    if record.caption:
        sentences.append(f"The picture shows {record.caption.strip().rstrip('.')}.")
    if known.scene and not (record.caption and plain(known.scene) in record.caption):
        sentences.append(f"The place is {_a(plain(known.scene))}.")
    if known.object and not (record.caption and _list(known.object) in record.caption):
        opening = choose.choice(("The eye goes to", "One notices", "What stands out is"))
        sentences.append(f"{opening} {_list(known.object)}.")
    if known.human_action:
        opening = choose.choice(("Somebody is there:", "A person gives it life:"))
        sentences.append(f"{opening} {plain(known.human_action)}.")
    if known.facial_expression:
        sentences.append(f"The face is {_face(known.facial_expression)}.")
    if known.brightness is not None and known.colorfulness is not None:
        sentences.append(
            f"The light is {_step(_LIGHT, known.brightness)}, and the colours are {_step(_COLOUR, known.colorfulness)}."
        )
    return sentences + changes_seen(record, choose)


def _conclusion(record: EmotionRecord) -> list[str]:
    if record.emotion is None:
        return [] if label_phases(record) else ["What to feel about it is left to whoever looks."]
    if subject(record) != "picture":
        return [f"The expression is {record.emotion}."]
    if cause := _CAUSES.get(record.emotion):
        return [f"That leads to {record.emotion} because {cause}."]
    return [f"Most people would call that {record.emotion}."]


def _face(expression: str) -> str:
    return _FACES.get(expression, plain(expression))


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def _list(names: list[str] | None) -> str:
    words = [plain(name).lower() for name in names or ()]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _step(steps: Mapping[float, str], value: float) -> str:
    return next(words for limit, words in steps.items() if value < limit)
