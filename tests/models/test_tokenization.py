"""Tokenizers built from published files.

- a sentencepiece file is followed exactly: sentencepiece itself has the same ids for any text;
- a word-piece vocabulary has the ids of the library's own BERT tokenizer;
- special tokens are added as in InstructBLIP's code, and can be saved and loaded;
- files of another kind are rejected by name.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer
from transformers import AutoTokenizer

from lavis_emovit.errors import WeightsError
from lavis_emovit.models.instructblip.tokenization import (
    add_original_tokens,
    load_llm_tokenizer,
    load_qformer_tokenizer,
    sentencepiece_tokenizer,
    wordpiece_tokenizer,
)

CORPUS = [
    "Which emotion does the picture evoke: amusement, anger, awe, contentment, disgust, excitement, fear or sadness?",
    "Predict emotion: contentment",
    "The girl laughs because her friends are playing in the garden, and the light is warm.",
    "Grey stones  and two  spaces; a tab\there, a naïve café, 1½ cups.",
]
# Llama's own rules (identity, spaces kept), and sentencepiece's defaults (NFKC, spaces squeezed).
RULES = {
    "llama": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    "default": {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
    "no_prefix": {"normalization_rule_name": "identity", "add_dummy_prefix": False},
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz?,.:"]
WORDS += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["emotion", "##tion", "the", "caf", "awe"]


@pytest.fixture(scope="module", params=list(RULES))
def model_file(request, tmp_path_factory) -> Path:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 5), model_writer=out, model_type="bpe", vocab_size=340, byte_fallback=True,
        character_coverage=1.0, minloglevel=2, hard_vocab_limit=False, **RULES[request.param],
    )  # fmt: skip
    file = tmp_path_factory.mktemp(request.param) / "tokenizer.model"
    file.write_bytes(out.getvalue())
    return file


def test_sentencepiece_agrees_on_any_text(model_file):
    ours = sentencepiece_tokenizer(model_file)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model_file))

    @settings(max_examples=400, deadline=None, derandomize=True)
    @given(st.text(st.sampled_from("abcdeinorstEP  .,:!?\n\té😀ﬁ①½ñ日'-") | st.characters(codec="utf-8"), max_size=40))
    def agree(text: str) -> None:
        # In a text, ours reads the name of a special token as that token, as the original code does.
        assume(not any(token in text for token in ours.all_special_tokens))
        assert ours(text, add_special_tokens=False)["input_ids"] == theirs.encode(text)

    agree()
    for text in CORPUS:
        assert ours(text, add_special_tokens=False)["input_ids"] == theirs.encode(text)
        assert ours.decode(theirs.encode(text)) == theirs.decode(theirs.encode(text))


def test_llama_gets_the_originals_special_tokens(model_file, tmp_path):
    llm, qformer = sentencepiece_tokenizer(model_file), wordpiece_file(tmp_path)
    size = len(llm)
    add_original_tokens(llm, qformer, is_llama=True)
    assert (llm.pad_token, llm.pad_token_id) == ("[PAD]", size)
    assert llm.bos_token_id == llm.eos_token_id == llm.unk_token_id == llm.convert_tokens_to_ids("</s>")
    assert llm("awe")["input_ids"][0] == llm.eos_token_id, "a prompt begins with what the original made the begin token"
    assert qformer.bos_token_id == len(qformer) - 1 == len(WORDS)
    llm.save_pretrained(tmp_path / "out")
    back = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in [*CORPUS, " two  spaces "]:
        assert back(text)["input_ids"] == llm(text)["input_ids"]


def wordpiece_file(folder: Path):
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return wordpiece_tokenizer(folder / "vocab.txt")


def test_wordpiece_agrees_with_the_librarys_bert_tokenizer(tmp_path):
    ours = wordpiece_file(tmp_path)
    theirs = BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=True)
    for text in ["", "Emotion: AWE?", "café  cafetion\tx", "日本 the naïve!", "[SEP] a"]:
        assert ours(text)["input_ids"] == theirs.encode(text).ids
    assert load_qformer_tokenizer(str(tmp_path))("awe")["input_ids"] == ours("awe")["input_ids"]
    assert load_qformer_tokenizer(str(tmp_path / "vocab.txt"))("awe")["input_ids"] == ours("awe")["input_ids"]


def test_a_piece_may_be_an_unusual_line_end(tmp_path):
    words = [*WORDS[:5], "\u2028", "\u0085", *WORDS[5:]]
    (tmp_path / "vocab.txt").write_bytes("\r\n".join([*words, ""]).encode())
    assert wordpiece_tokenizer(tmp_path / "vocab.txt").convert_tokens_to_ids(words) == list(range(len(words)))


def test_files_of_another_kind_are_rejected_by_name(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(WeightsError, match=r"tokenizer\.model"):
        load_llm_tokenizer(str(tmp_path))
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 5), model_writer=out, model_type="unigram", vocab_size=60, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(out.getvalue())
    with pytest.raises(WeightsError, match="BPE kind"):
        load_llm_tokenizer(str(tmp_path))
    (tmp_path / "vocab.txt").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"vocab\.txt is not a BERT vocabulary: \[UNK\].* missing"):
        load_qformer_tokenizer(str(tmp_path))
