"""Texts for pre-training the tiny model: tokenizers, questions about images, and language exercises without images.

No image is paired with an emotion word. Emotion words occur only in the language exercises, as options and as words to
repeat. The language model therefore knows the words, as a large one does, and tuning teaches their relation to images.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lavis_emovit.sample_set.describe import describe
from lavis_emovit.sample_set.questions import questions
from lavis_emovit.sample_set.scene import sample_scene

LLM_VOCABULARY = 1024
QFORMER_VOCABULARY = 1024

# Words of the language exercises that image descriptions do not contain.
EMOTION_WORDS = (
    "amusement anger awe contentment disgust excitement fear sadness joy love surprise happy happiness sad angry "
    "neutral afraid calm boredom contempt pride shame guilt envy relief hope gratitude affection cheerfulness "
    "confusion disappointment enthrallment exasperation horror irritability lust neglect nervousness optimism rage "
    "suffering sympathy zest positive negative valence arousal high low"
).split()
COMMON_WORDS = (
    "time day year way thing man world life hand part child eye woman place work week case point company number "
    "group problem fact water room mother area money story month lot right study book word business side kind head "
    "house service friend father power hour game line end member law car city community name president team minute "
    "idea body information back parent face others level office door health person art war history party result "
    "change morning reason research girl guy moment air teacher force education black white red green blue yellow "
    "small large old new good bad first last long great little own other early young important few public able left "
    "right near far open"
).split()
KINDS = "emotion feeling word answer name choice option mood label class category".split()
VERBS = "choose select pick name find give".split()


def image_pairs(scene: object, rng: random.Random) -> list[tuple[str, str]]:
    """Question-answer pairs about a drawn scene; the first answer is its description."""
    requests = [
        "Describe the picture.",
        "What does the picture show?",
        "Write a short description of the image.",
        "Describe.",
    ]
    return [(rng.choice(requests), describe(scene, rng)), *questions(scene, rng)]


def language_exercise(rng: random.Random, scene: object) -> tuple[list[str], str, str]:
    """An exercise without an image: keywords that replace the image, a question and its answer."""
    words = EMOTION_WORDS + COMMON_WORDS
    kind = rng.choice(KINDS)
    if rng.random() < 0.3:
        # The answer is a sentence built from shuffled keywords.
        sentence = describe(scene, rng)
        keywords = [word.strip(".,") for word in sentence.split() if len(word) > 3]
        rng.shuffle(keywords)
        return keywords[:8], rng.choice(["Describe the picture.", "What does the picture show?"]), sentence
    word = rng.choice(words)
    pool = EMOTION_WORDS if word in EMOTION_WORDS else COMMON_WORDS
    if rng.random() < 0.4:
        return [word], rng.choice(["Which word is it?", "Say the word.", f"Name the {kind}."]), word
    options = [*rng.sample([other for other in pool if other != word], rng.randint(1, 9)), word]
    rng.shuffle(options)
    listed = rng.choice([", ".join(options), ", ".join(options[:-1]) + " and " + options[-1], " or ".join(options)])
    verb = rng.choice(VERBS)
    question = rng.choice(
        [
            f"{verb.capitalize()} the {kind} from this list: {listed}.",
            f"Which {kind} is it: {listed}?",
            f"{verb.capitalize()} one {kind} of: {listed}. Answer as: Predict {kind}: <{kind}>.",
            f"Which of these words fits the image: {listed}? Begin the answer with Predict {kind}:",
        ]
    )
    answer = f"Predict {kind}: {word}" if "Predict" in question else word
    return [word], question, answer


def corpus(num_scenes: int, seed: int, extra: list[str]) -> Iterator[str]:
    """Training lines of the tokenizers."""
    rng = random.Random(seed)
    for _ in range(num_scenes):
        scene = sample_scene(rng)
        for question, answer in image_pairs(scene, rng):
            yield question
            yield answer
        yield from language_exercise(rng, scene)[1:]
    # Repeat each word often enough that it becomes one token.
    for word in EMOTION_WORDS + COMMON_WORDS + KINDS:
        for _ in range(20):
            yield f"{word} {word}, {word}: {word}."
    for line in extra:
        for _ in range(200):
            yield line


def train_llm_tokenizer(lines: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: encodes any text without loss."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["[PAD]", "<s>", "</s>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=LLM_VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(lines, trainer)
    begin = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[begin]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="[PAD]", unk_token="</s>"
    )


def train_qformer_tokenizer(lines: list[str], folder: Path) -> PreTrainedTokenizerFast:
    """BERT's lower-case WordPiece with InstructBLIP's additional token `[DEC]`."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # With all printable ASCII characters, no word of a question is unknown.
    alphabet = [character for character in string.printable if character.strip() and not character.isupper()]
    trainer = trainers.WordPieceTrainer(
        vocab_size=QFORMER_VOCABULARY - 1, special_tokens=special, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", tokenizer.token_to_id("[SEP]")), ("[CLS]", tokenizer.token_to_id("[CLS]"))
    )
    tokenizer.decoder = decoders.WordPiece()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    wrapped.add_special_tokens({"bos_token": "[DEC]"})
    wrapped.truncation_side = "left"
    wrapped.save_pretrained(folder)
    return wrapped
