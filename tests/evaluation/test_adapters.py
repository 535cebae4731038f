"""Adapters of models that are evaluated.

- transformers: candidate scores are the log-probabilities of a single row, computed here with the bare model and one
  token that begins the text. Rows of a pass, padding and the boundary between prompt and candidate do not change them.
  A tokenizer without a padding token and a prompt instead of a chat template work. Written answers are deterministic
  and the same in any batch.
- The same code works with a Qwen2-VL and a Gemma 3: rows of a pass do not change scores, and the image does.
- An InstructBLIP, decoder-only or encoder-decoder, has the same scores and answers through `transformers` and through
  `lavis`; a BLIP-2 with an encoder-decoder has the scores of its own loss.
- A model that cannot be loaded or has no template is a user error that says what to do.
- CLIP: zero-shot shares agree with a calculation by hand; an axis is a difference of shares; the probe separates
  separable classes, and its unseen labels are very unlikely.
- Constant and colour baselines agree with a count by hand; a damaged image is skipped in training.
- Chat: many requests are in flight at once, replies on the ledger are not requested again; refusals are answers, failed
  requests are errors.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chat"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))

from chat_server import Action, ChatServer
from tiny_instructblip import make_parts
from tiny_models import item, make_blip2_t5, make_clip, make_gemma3, make_llava, make_qwen2_vl, picture

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.emotion.answers import read_emotion
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.adapters.base import Baseline, Failure, Item, LanguageModel, ModelPlace
from lavis_emovit.evaluation.adapters.chat_model import ChatModel, ChatModelSettings, ledger_path
from lavis_emovit.evaluation.adapters.clip import ClipBaseline, ClipSettings
from lavis_emovit.evaluation.adapters.colours import ColoursBaseline, ColoursSettings, colour_features
from lavis_emovit.evaluation.adapters.constant import ConstantBaseline, ConstantSettings
from lavis_emovit.evaluation.adapters.lavis_model import LavisModelSettings, open_lavis_model
from lavis_emovit.evaluation.adapters.transformers_model import TransformersModelSettings, open_transformers_model
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.questions import Question
from lavis_emovit.evaluation.suite.requests import Prepared, request_rows
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.images import decode_image
from lavis_emovit.models.instructblip.export import save_transformers
from lavis_emovit.models.instructblip.loading import RawWeights
from lavis_emovit.records import EmotionRecord

LABELS = ("amusement", "awe", "fear", "sadness")
QUESTIONS = [
    Question("emotion", "Which emotion is it?", LABELS, "Predict emotion: "),
    Question("emotion", "Look again, for longer than before: which of them?", LABELS, "Predict emotion: "),
    Question("emotion", "And?", LABELS, "Predict emotion: "),
]
EMOTION = BenchmarkSettings(dataset="x")
AFFECT = BenchmarkSettings(dataset="x", kind="valence_arousal")
SADNESS_OR_JOY = get_label_set("labels:joy, sadness")


@pytest.fixture(scope="module")
def llava_folder(tmp_path_factory):
    return make_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip"))


def _llava(folder, **settings):
    values = {"adapter": "transformers", "path": str(folder), "dtype": "float32", "device": "cpu", **settings}
    return open_transformers_model(TransformersModelSettings(**values))


@pytest.mark.parametrize(
    "changes", [{}, {"prompt": "USER: <image>\n{question} ASSISTANT:"}], ids=["template", "prompt"]
)
def test_candidate_scores_are_those_of_a_row_alone(llava_folder, changes):
    adapter = _llava(llava_folder, rows_per_pass=5, **changes)
    assert isinstance(adapter, LanguageModel)
    pictures = [adapter.prepare(picture(seed)) for seed in (1, 2)]
    index = [0, 1, 1]
    sums = np.array(adapter.score(pictures, index, QUESTIONS, "likelihood_sum"))
    means = np.array(adapter.score(pictures, index, QUESTIONS, "likelihood"))

    opened = [decode_image(picture(seed)) for seed in (1, 2)]
    model = transformers.LlavaForConditionalGeneration.from_pretrained(llava_folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(llava_folder)
    for n, question in enumerate(QUESTIONS):
        text = f"USER: <image>\n{question.text} ASSISTANT: Predict emotion: "
        for c, label in enumerate(LABELS):
            inputs = processor(images=opened[index[n]], text=text + label, return_tensors="pt")
            before = processor(images=opened[index[n]], text=text.rstrip(), return_tensors="pt")
            before = before["input_ids"][0].tolist()
            ids = inputs["input_ids"][0].tolist()
            # The seam may lie inside a token: what both rows begin with is the prompt.
            start = next(i for i in range(len(ids)) if i >= len(before) or ids[i] != before[i])
            with torch.no_grad():
                log_probs = model(**inputs).logits[0].log_softmax(-1)
            tokens = [float(log_probs[i - 1, ids[i]]) for i in range(start, len(ids))]
            assert sums[n, c] == pytest.approx(sum(tokens), abs=1e-4)
            assert means[n, c] == pytest.approx(sum(tokens) / len(tokens), abs=1e-4)


def test_rows_of_a_pass_and_padding_change_nothing(llava_folder, tmp_path):
    one, many = _llava(llava_folder, rows_per_pass=1), _llava(llava_folder, rows_per_pass=12)
    without_padding = _llava(make_llava(tmp_path / "llava", pad_token=None), rows_per_pass=12)
    pictures = [one.prepare(picture(seed)) for seed in (1, 2, 3)]
    scores = [np.array(adapter.score(pictures, [2, 0, 1], QUESTIONS, "likelihood")) for adapter in (one, many)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    assert np.ptp(scores[0]) > 0.1
    answers = [adapter.write(pictures, [2, 0, 1], QUESTIONS) for adapter in (one, many, many, without_padding)]
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert all(isinstance(answer, str) for answer in answers[0])


@pytest.mark.parametrize("make", [make_qwen2_vl, make_gemma3])
def test_other_families_are_asked_alike(make, tmp_path):
    make(tmp_path / "model")
    found = []
    for rows in (1, 8):
        adapter = _llava(tmp_path / "model", rows_per_pass=rows)
        pictures = [adapter.prepare(picture(seed)) for seed in (1, 2)]
        scores = adapter.score(pictures, [0, 1, 1], QUESTIONS, "likelihood")
        swapped = adapter.score(pictures[::-1], [0, 1, 1], QUESTIONS, "likelihood")
        found.append((np.array(scores), np.array(swapped), adapter.write(pictures, [0, 1, 1], QUESTIONS)))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)
    assert found[0][2] == found[1][2]
    # The picture counts.
    assert np.abs(found[0][0] - found[0][1]).max() > 1e-3


def _family_models(folder, kind, monkeypatch):
    """The adapters `transformers` and `lavis` of the same weights."""
    parts = make_parts(kind)
    raw = RawWeights(parts.core.state_dict(), parts.core.config, parts.llm_tokenizer, parts.qformer_tokenizer, "here")
    save_transformers(raw, folder)
    monkeypatch.setenv("EMOVIT_WEIGHTS_TINY", str(folder))
    config = {"image_size": 16, "num_query_token": 3, "frozen_precision": "fp32"}
    entry = LavisModelSettings(adapter="lavis", arch="emovit_tiny", config=config, device="cpu")
    return _llava(folder, rows_per_pass=3), open_lavis_model(entry, ModelPlace("tiny", folder, folder))


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("answer_prefix", ["Predict emotion: ", ""])
def test_both_adapters_of_a_family_agree(kind, answer_prefix, tmp_path, monkeypatch):
    plain, ours = _family_models(tmp_path / "model", kind, monkeypatch)
    questions = [replace(question, answer_prefix=answer_prefix) for question in QUESTIONS]
    data = [picture(seed, size_px=16) for seed in (1, 2)]  # of the model's size: nothing is resized
    shown = [[model.prepare(image) for image in data] for model in (plain, ours)]
    for method in ("likelihood", "likelihood_sum"):
        scores = [model.score(images, [0, 1, 1], questions, method) for model, images in zip((plain, ours), shown)]
        np.testing.assert_allclose(*scores, atol=1e-3)
        assert np.ptp(scores[0]) > 0.1
    answers = [model.write(images, [0, 1, 1], questions) for model, images in zip((plain, ours), shown)]
    assert answers[0] == answers[1]
    assert all(answers[0])


def test_an_encoder_decoder_without_questions_in_its_qformer_answers(tmp_path):
    adapter = _llava(make_blip2_t5(tmp_path / "model"), rows_per_pass=2)
    images = [adapter.prepare(picture(seed, size_px=16)) for seed in (1, 2)]
    sums = np.array(adapter.score(images, [0, 1, 1], QUESTIONS, "likelihood_sum"))
    processor, model = adapter.processor, adapter.model
    for n, question in enumerate(QUESTIONS):
        inputs = processor(images=images[[0, 1, 1][n]], text=question.text, return_tensors="pt")
        given = processor.tokenizer("Predict emotion:", add_special_tokens=False)["input_ids"]
        for c, label in enumerate(LABELS):
            text = f" Predict emotion: {label}"
            labels = processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                logits = model(**inputs, labels=labels).logits[0].log_softmax(-1)
            tokens = logits.gather(1, labels[0][:, None])[:, 0]
            given = processor.tokenizer(" Predict emotion:", add_special_tokens=False)["input_ids"]
            assert sums[n, c] == pytest.approx(float(tokens[len(given) :].sum()), abs=1e-4)
    together = adapter.write(images, [0, 1, 1], QUESTIONS)
    assert together == [adapter.write(images, [place], [q])[0] for place, q in zip([0, 1, 1], QUESTIONS)]
    assert all(together)


def test_identity_changes_with_the_weights_and_names_no_folder(llava_folder, tmp_path):
    other = make_llava(tmp_path / "elsewhere" / llava_folder.name)
    same, moved = _llava(llava_folder).identity(), _llava(other).identity()
    assert same == moved
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert _llava(other).identity() != same


def test_models_that_cannot_be_used_are_told(llava_folder, tmp_path):
    with pytest.raises(UserError, match="no image-text model that transformers can load"):
        _llava(tmp_path)
    with pytest.raises(UserError, match="no chat template; set a template, `prompt` in a suite"):
        _llava(make_llava(tmp_path / "bare", chat_template=None))
    with pytest.raises(UserError, match=r"must have \{question\}"):
        _llava(llava_folder, prompt="<image>")
    with pytest.raises(UserError, match="adds the image tokens; remove <image>"):
        _llava(make_blip2_t5(tmp_path / "blip2"), prompt="<image> {question}")
    empty = [Question("emotion", "Which?", ("", "awe"), "Predict emotion: ")]
    adapter = _llava(llava_folder)
    with pytest.raises(ValueError, match="tokenises to nothing"):
        adapter.score([adapter.prepare(picture(1))], [0], empty, "likelihood")


@pytest.mark.parametrize("make", [make_llava, make_clip], ids=["llava", "clip"])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", lambda data: data[:-1000]),
        ("model.safetensors", lambda data: b""),
        ("config.json", lambda data: b"null"),
        ("config.json", lambda data: data.replace(b'"intermediate_size": 16', b'"intermediate_size": 24')),
        ("tokenizer.json", lambda data: data[:200]),
    ],
    ids=["cut", "empty", "null", "sizes", "tokenizer"],
)
def test_damaged_folders_are_named(make, name, change, tmp_path):
    file = make(tmp_path / "model") / name
    data = file.read_bytes()
    file.write_bytes(change(data))
    assert file.read_bytes() != data
    with pytest.raises(
        UserError, match=f"{tmp_path / 'model'}: no (image-text|CLIP) (model|processor) that transformers can load"
    ):
        if make is make_llava:
            _llava(file.parent)
        else:
            ClipBaseline(ClipSettings(adapter="clip", path=str(file.parent), device="cpu"))


def test_clip_zero_shot_is_the_computation_by_hand(clip_folder):
    settings = ClipSettings(
        adapter="clip", path=str(clip_folder), prompts=("a {label} day", "so {label} {x} {"), device="cpu"
    )
    baseline = ClipBaseline(settings)
    assert isinstance(baseline, Baseline) and not baseline.learns
    label_set = get_label_set("labels:awe, fear, joy")
    baseline.fit((), EMOTION, label_set)
    items = [item(n, picture(n)) for n in range(3)]
    predicted = baseline.predict(items)

    model = transformers.CLIPModel.from_pretrained(clip_folder).eval()
    processor = transformers.CLIPProcessor.from_pretrained(clip_folder)

    def unit(tensor):
        tensor = getattr(tensor, "pooler_output", tensor)
        return tensor / tensor.norm(dim=-1, keepdim=True)

    from lavis_emovit.images import decode_image

    with torch.no_grad():
        images = unit(
            model.get_image_features(
                **processor(images=[decode_image(one.image_bytes) for one in items], return_tensors="pt")
            )
        )
        columns = []
        for label in label_set.labels:
            texts = processor(text=[f"a {label} day", f"so {label} {{x}} {{"], return_tensors="pt", padding=True)
            columns.append(unit(unit(model.get_text_features(**texts)).mean(dim=0)))
        expected = (model.logit_scale.exp() * images @ torch.stack(columns).T).log_softmax(-1)
    for row, values in zip(predicted, expected):
        assert list(row) == list(label_set.labels)
        np.testing.assert_allclose(list(row.values()), values.numpy(), atol=1e-4)

    baseline.fit((), AFFECT, None)
    axes = baseline.predict(items[:1])[0]
    assert set(axes) == {"valence", "arousal"} and all(-1 <= value <= 1 for value in axes.values())
    with pytest.raises(ValueError, match=r"needs \{label\}"):
        ClipSettings(adapter="clip", prompts=("a day",))


def test_clip_probe_learns_what_is_separable(clip_folder, caplog):
    baseline = ClipBaseline(ClipSettings(adapter="clip_probe", path=str(clip_folder), device="cpu"))
    red, blue = (230, 30, 30), (30, 30, 230)
    items = [
        item(n, picture(n, red if n % 2 else blue), label=("sadness", "joy")[n % 2], values={"AU12": float(n % 2)})
        for n in range(24)
    ]
    broken = item(99, b"no picture", label="joy", values={"AU12": 1.0})
    baseline.fit([*items[:16], broken], EMOTION, SADNESS_OR_JOY)
    assert "1 training images cannot be decoded" in caplog.text and "t/99" in caplog.text
    assert [max(row, key=row.get) for row in baseline.predict(items[16:])] == [one.truth.label for one in items[16:]]
    baseline.fit(items[:16], BenchmarkSettings(dataset="x", kind="action_units"), None)
    values = [row["AU12"] for row in baseline.predict(items[16:])]
    np.testing.assert_allclose(values, [one.truth.values["AU12"] for one in items[16:]], atol=0.25)
    baseline.fit([one for one in items if one.truth.label == "joy"], EMOTION, SADNESS_OR_JOY)
    only = baseline.predict(items[:1])[0]
    assert only["joy"] == pytest.approx(0.0) and only["sadness"] < -20


def test_constant_baselines_say_what_was_counted():
    items = [item(n, b"", label=label, values={"valence": v}) for n, (label, v) in
             enumerate([("joy", 0.5), ("joy", 0.25), ("joy", 0.0), ("sadness", -0.75)])]  # fmt: skip
    prior, majority = (ConstantBaseline(ConstantSettings(adapter=name)) for name in ("prior", "majority"))
    prior.fit(items, EMOTION, SADNESS_OR_JOY)
    assert prior.predict(items[:1]) == [
        {"joy": pytest.approx(math.log(4 / 6)), "sadness": pytest.approx(math.log(2 / 6))}
    ]
    majority.fit(items, EMOTION, SADNESS_OR_JOY)
    assert majority.predict(items[:1]) == [{"joy": 0.0, "sadness": -30.0}]
    majority.fit(items, AFFECT, None)
    assert majority.predict(items[:1]) == [{"valence": 0.0}]
    with pytest.raises(DataError, match="no record with a truth"):
        prior.fit([], EMOTION, SADNESS_OR_JOY)


def test_colours_see_colours_only():
    baseline = ColoursBaseline(ColoursSettings(adapter="colours"))
    green, grey = (20, 200, 40), (120, 120, 120)
    items = [item(n, picture(n, green if n % 2 else grey), label=("sadness", "joy")[n % 2]) for n in range(12)]
    baseline.fit(items[:8], EMOTION, SADNESS_OR_JOY)
    assert [max(row, key=row.get) for row in baseline.predict(items[8:])] == ["sadness", "joy"] * 2
    features = colour_features(picture(0, (255, 255, 255)))
    assert features.shape == (28,) == (baseline.identity()["features"],)
    # White: full brightness, all pixels in the top bin of value and the bottom bin of saturation.
    assert features[0] == pytest.approx(1.0, abs=0.03)
    assert features[14] == pytest.approx(1.0, abs=0.01) and features[21] == pytest.approx(1.0, abs=0.01)


def _chat(server, path, **chat):
    values = {"model": "m", "base_url": server.url, "max_in_flight": 6, "max_attempts": 2, "timeout_s": 5.0, **chat}
    return ChatModel(ChatModelSettings(adapter="chat", chat=values, probe=False), path)


def _ask(adapter, count):
    pictures = [picture(seed, size_px=8) for seed in range(count)]
    question = Question("emotion", "Which emotion?", max_new_tokens=9)
    return adapter.write([adapter.prepare(data) for data in pictures], range(count), [question] * count)


def test_chat_is_asked_in_parallel_and_not_again_for_what_is_on_the_ledger(tmp_path, monkeypatch):
    from lavis_emovit.chat import limits

    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setattr(limits, "_FIRST_PAUSE_S", 0.002)
    with ChatServer(lambda body, number: Action(text="Predict emotion: awe"), latency_s=0.05) as server:
        first = _chat(server, tmp_path / "cache.jsonl")
        assert isinstance(first, LanguageModel) and first.images_at_once >= 6
        assert _ask(first, 12) == ["Predict emotion: awe"] * 12
        assert server.max_in_flight == 6 and server.num_requests == 12
        assert {body["temperature"] for body in server.bodies} == {0.0}
        first.close()
        again = _chat(server, tmp_path / "cache.jsonl")
        assert _ask(again, 12) == ["Predict emotion: awe"] * 12
        assert server.num_requests == 12
        again.close()


def test_chat_refusals_are_answers_and_failures_are_errors(tmp_path, monkeypatch):
    from lavis_emovit.chat import limits

    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setattr(limits, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(limits, "_LONGEST_PAUSE_S", 0.01)

    def script(body, number):
        url = body["messages"][-1]["content"][0]["image_url"]["url"]
        if url not in seen:
            seen.append(url)
        place = seen.index(url)
        return (Action(refusal="I cannot look at people."), Action(status=500), Action(text="Fear."))[place]

    seen: list[str] = []
    with ChatServer(script) as server:
        adapter = _chat(server, tmp_path / "ledger.jsonl", max_in_flight=1)
        refused, failed, answered = _ask(adapter, 3)
        adapter.close()
    assert refused == "I cannot look at people." and answered == "Fear."
    assert isinstance(failed, Failure) and "after all attempts" in failed.reason
    with pytest.raises(UserError, match="no candidate likelihoods"):
        adapter.score([], [], [], "likelihood")
    with pytest.raises(DataError):
        adapter.prepare(b"no picture")


@pytest.fixture
def quick_chat(monkeypatch):
    from lavis_emovit.chat import limits

    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setattr(limits, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(limits, "_LONGEST_PAUSE_S", 0.01)


def test_chat_that_answers_nothing_stops_with_the_reason(tmp_path, quick_chat):
    """An endpoint that has answered before is not at fault if all requests of a batch fail."""
    actions = [Action(status=422, raw='{"detail": "no images here"}')]
    with ChatServer(lambda body, number: actions[0]) as server:
        adapter = _chat(server, tmp_path / "ledger.jsonl")
        with pytest.raises(UserError, match=r"none of the 3 requests was answered \(bad_request: no images here\)"):
            _ask(adapter, 3)
        bad, actions[0] = actions[0], Action(text="Fear.")
        assert _ask(adapter, 1) == ["Fear."]
        actions[0] = bad
        assert _ask(adapter, 2) == ["Fear.", Failure("no answer after all attempts (bad_request: no images here)")]
        adapter.close()


@pytest.mark.parametrize(
    "action",
    [
        Action(status=403, error={"message": "Your input was flagged for anger.", "code": 403}),
        Action(status=400, error={"message": "content_filter: fear", "code": "content_filter"}),
        Action(raw='{"error": {"message": "The image was flagged: disgust", "code": 403}}'),
    ],
)
def test_words_of_a_flagged_request_are_no_answer(action, tmp_path, quick_chat):
    """They may name an emotion."""
    with ChatServer(lambda body, number: action if number == 1 else Action(text="Fear.")) as server:
        adapter = _chat(server, tmp_path / "ledger.jsonl", max_in_flight=1)
        first, flagged, last = _ask(adapter, 3)
        adapter.close()
    assert first == last == "Fear."
    read = read_emotion(flagged, get_label_set("mikels8"))
    assert (read.label, read.status) == (None, "refused")


@pytest.mark.parametrize("kind", ["explanation", "caption", "emotion"])
def test_thoughts_are_no_part_of_an_answer(kind):
    """Generation and evaluation drop them by one function; texts for metrics, judges and people lack them too."""

    class Thinker(LanguageModel):
        methods = frozenset({"generation"})

        def write(self, images, image_index, questions):
            return ["It could be anger, awe or fear.</think>Predict emotion: sadness. Reason: It is dark."]

    record = EmotionRecord(
        id="a", image="a.png", split="test", source="a", emotion="awe", label_set="mikels8", caption="A dog."
    )
    settings = BenchmarkSettings(dataset="x", kind=kind)
    label_set = get_label_set("mikels8") if kind != "caption" else None
    item = Item(record, b"", Truth(label="awe" if label_set else None))
    (row,) = request_rows(Thinker(), [Prepared(item, 1.0)], settings, "generation", label_set)
    assert row.prediction == (None if kind == "caption" else "sadness")
    assert ("could be anger" in row.answer) == (kind == "emotion")


@pytest.mark.parametrize("model", [300 * "m", 300 * "m/", 100 * "\u6587"], ids=["one", "parts", "bytes"])
def test_a_long_name_of_a_model_has_a_ledger_of_its_own(model, tmp_path):
    def path_of(name):
        chat = {"model": name, "base_url": "http://127.0.0.1:1/v1"}
        settings = ChatModelSettings(adapter="chat", chat=chat)
        return ledger_path(ModelPlace("chat", tmp_path, tmp_path), settings.endpoint())

    Ledger(path_of(model)).close()
    assert path_of(model).is_file() and path_of(f"{model}2") != path_of(model)
