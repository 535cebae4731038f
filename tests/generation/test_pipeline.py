"""The steps, offline and with the local server.

- Offline, all kinds are written into the drawn set; the same seed writes the same texts, regardless of other records.
- With a server, every request is sent once; a second run sends nothing, changes nothing, and keeps texts by people.
- Unusable replies are stored with their reasons; `regenerate` requests only these records again.
- The judge's "no" rejects a pair, a missing verdict does not. Captions and attributes of the source stay; terms outside
  the vocabulary are dropped, and EmoSet's file is read; light and colour are measured. Broken images are counted and do
  not affect other records.
- An endpoint that answers nothing stops the steps with the reason. What an earlier run wrote stays where a run gets no
  reply. The offline writer warns about records of which it knows only the label.
- A LAVIS captioner is called once per image, regardless of its path.
- Memory does not grow with the number of records.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import tracemalloc
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from chat_server import Action, ChatServer
from PIL import Image

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.generation import captions as captions_module
from lavis_emovit.generation.attributes import read_vocabulary, write_attributes
from lavis_emovit.generation.captions import write_captions
from lavis_emovit.generation.instructions import write_kind
from lavis_emovit.generation.job import Job, JobSettings
from lavis_emovit.generation.kinds import KINDS
from lavis_emovit.generation.pipeline import run_steps
from lavis_emovit.records import Attributes, EmotionRecord, Instruction
from lavis_emovit.sample_set.write import write_sketch
from lavis_emovit.sources.readers.emoset import read_emoset


@pytest.fixture(scope="module")
def sketch(tmp_path_factory):
    root = tmp_path_factory.mktemp("sketch") / "sketch"
    write_sketch(root, images_per_class=10, size_px=48, label_noise=0.0)
    return root, list(read_emoset(root))


@pytest.fixture
def make_job(sketch, tmp_path):
    """Jobs on the drawn set, all in one folder and with one ledger."""
    opened = []

    def make(chat=None, records=None, **changes):
        while opened:
            opened.pop().close()
        opened.append(Ledger(tmp_path / "ledger.jsonl"))
        settings = JobSettings(**{"num_examples": 1, **changes.pop("settings", {})})
        return Job(
            records if records is not None else sketch[1],
            sketch[0],
            tmp_path,
            opened[-1],
            settings,
            chat,
            **changes,
        )

    yield make
    for ledger in opened:
        ledger.close()


def _pairs(job):
    return {record.id: [(i.kind, i.question, i.answer) for i in record.instructions] for record in job.records}


STEPS = ("captions", "attributes", "categorical", *KINDS)


def test_offline(make_job, sketch):
    job = make_job()
    results = {result.step: result for result in run_steps(job, STEPS)}
    train = [record for record in job.records if record.split == "train"]
    assert 0 < len(train) < len(job.records)
    assert all(not record.instructions for record in job.records if record.split != "train")
    for record in train:
        assert Counter(item.kind for item in record.instructions).keys() >= {"categorical", "reasoning", "explanation"}
        explained = next(item for item in record.instructions if item.kind == "explanation")
        assert explained.answer.startswith(f"Predict emotion: {record.emotion}. Reason: ")
    assert results["conversation"].num_pairs >= 2.8 * len(train)
    assert all(result.leak_rate in (0.0, None) for result in results.values())
    # Single records, in another order, get the same words.
    alone = make_job(records=[record for record in reversed(sketch[1]) if record.split == "train"][:5])
    list(run_steps(alone, STEPS))
    assert all(_pairs(job)[name] == pairs for name, pairs in _pairs(alone).items())
    other = make_job(settings={"seed": 1})
    list(run_steps(other, STEPS))
    assert _pairs(other) != _pairs(job)


def test_with_a_server_everything_is_paid_once(make_job, make_settings, sketch):
    with ChatServer() as server:
        chat = make_settings(server, seed=1)
        human = Instruction(kind="reasoning", question="By a person?", answer="Yes.", provenance="human")
        job = make_job(chat, settings={"vision": True, "seed": 1}, records=sketch[1][::3])
        job.records.put(0, job.records[0].model_copy(update={"split": "train", "instructions": [human]}))
        first = list(run_steps(job, STEPS))
        num_train = len(job.chosen())
        assert server.num_requests == 5 * num_train + sum(
            not any(
                [r.attributes.scene, r.attributes.object, r.attributes.facial_expression, r.attributes.human_action]
            )
            for r in job.chosen()
        )
        assert [result.num_pairs for result in first[2:]] == [num_train, 3 * num_train, *[num_train] * 3]
        assert human in job.records[0].instructions
        schemas = [set(body["response_format"]["json_schema"]["schema"]["properties"]) for body in server.bodies]
        assert {"simple_1", "simple_2", "complex"} in schemas
        content = server.bodies[-1]["messages"][1]["content"]
        assert content[0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
        assert re.search(r"emotion that people feel: \w+\ncaption: .*\n", content[1]["text"])

        again = make_job(chat, settings={"vision": True, "seed": 1}, records=job.records)
        paid = server.num_requests
        second = list(run_steps(again, STEPS))
        assert server.num_requests == paid and list(again.records) == list(job.records)
        assert [result.num_pairs for result in second] == [result.num_pairs for result in first]


def test_rejected_replies_are_stored_and_requested_again(make_job, make_settings, sketch, tmp_path):
    """The first reply to every third record is bad, each in another way; the second one is good."""
    good = "The things in the scene lead the eye to its middle, and from there one slowly takes in all the rest of it."
    num_requests = Counter()
    bad = [
        Action(text="Nothing of use."),
        Action(text="I'm sorry, I can't help with that."),
        Action(refusal="No."),
        Action(finish="length"),
        Action(text=json.dumps({"question": "Why does one feel so {label} here?", "answer": good})),
        Action(text=json.dumps({"question": "What next?", "answer": "Short."})),
    ]

    def script(body, number):
        text = body["messages"][1]["content"]
        num_requests[text] += 1
        place = sorted(texts).index(text) if text in texts else 0
        if place % 3 == 0 and num_requests[text] == 1:
            action = bad[place // 3 % len(bad)]
            label = text.partition("feel: ")[2].partition("\n")[0]
            return Action(**{**vars(action), "text": action.text and action.text.replace("{label}", label)})
        codes = " ".join(str(ord(letter)) for letter in text[-30:] + str(place))  # no near-duplicates
        words = "".join("abcdefghij"[int(digit)] if digit.isdigit() else " " for digit in codes)
        answer = f"{good} In it there is a {words}."
        return Action(text=json.dumps({"question": "What leads the eye in this scene?", "answer": answer}))

    from lavis_emovit.generation.facts import facts_text

    train = [record for record in sketch[1] if record.split == "train"]
    texts = {f"Known about the picture:\n{facts_text(record)}" for record in train}
    assert len(texts) == len(train) >= 16
    with ChatServer(script) as server:
        chat = make_settings(server, structured="text", max_in_flight=1)
        job = make_job(chat, settings={"near_duplicates": "off"})
        result = write_kind(job, "reasoning")
        num_bad = -(-len(train) // 3)
        assert server.num_requests == len(train) and result.num_done == len(train) - num_bad
        reasons = {"unreadable", "refused", "cut", "label_leak", "too_short"}
        assert set(result.reasons) >= reasons if num_bad >= 6 else set(result.reasons) <= reasons
        rows = [json.loads(line) for line in (tmp_path / "rejected" / "reasoning.jsonl").read_text().splitlines()]
        assert len(rows) == num_bad == result.num_rejected
        assert any(row.get("reply") == "Nothing of use." for row in rows)
        assert result.leak_rate == pytest.approx(result.reasons["label_leak"] / result.num_read)

        job = make_job(chat, settings={"near_duplicates": "off", "regenerate": 2})
        result = write_kind(job, "reasoning")
        assert server.num_requests == len(train) + num_bad  # only the bad ones, and only once more
        assert result.num_done == len(train) and result.num_rejected == num_bad
        samples = Counter(item.provenance[-2:] for record in job.chosen() for item in record.instructions)
        assert samples == {"#0": len(train) - num_bad, "#1": num_bad}


def test_same_replies_are_near_duplicates(make_job, make_settings):
    text = json.dumps({"question": "What does it do?", "answer": "It leads the eye to the middle. " * 4})
    with ChatServer(lambda body, number: Action(text=text)) as server:
        result = write_kind(make_job(make_settings(server)), "reasoning")
        assert result.num_pairs == 1 and result.reasons == {"near_duplicate": result.num_records - 1}


def test_judge(make_job, make_settings):
    def script(body, number):
        if "keep" in body["response_format"]["json_schema"]["schema"]["properties"]:
            verdicts = ['{"keep": false, "reason": "dull"}', '{"keep": true, "reason": ""}', '"maybe"', "?"]
            return Action(text=verdicts[len(judged.append(1) or judged) % 4])
        return Action()

    judged: list[int] = []
    with ChatServer(script) as server:
        chat = make_settings(server, max_in_flight=1, seed=0)
        result = write_kind(make_job(chat, judge=chat), "reasoning")
        assert len(judged) == result.num_records
        expected = sum(number % 4 == 0 for number in range(1, len(judged) + 1))
        assert result.reasons == {"judge": expected} and result.num_pairs == len(judged) - expected
        assert result.notes["judged"]["without verdict"] == sum(n % 4 >= 2 for n in range(1, len(judged) + 1))
        # Only the pairs that the judge rejected are requested and judged again.
        num_judged, num_requests = len(judged), server.num_requests
        again = write_kind(make_job(chat, judge=chat, settings={"regenerate": 1}), "reasoning")
        assert server.num_requests - num_requests == 2 * expected and len(judged) == num_judged + expected
        assert again.num_pairs >= result.num_pairs


def test_captions_and_attributes(make_job, make_settings, sketch, tmp_path):
    vocabulary = tmp_path / "info.json"
    terms = {
        "scene": ["sea_shore"],
        "object": ["Dog", "Kite"],
        "facial_expression": ["happy"],
        "human_action": ["running"],
    }
    vocabulary.write_text(json.dumps({name: {"label2idx": dict.fromkeys(words, 0)} for name, words in terms.items()}))
    reply = {"scene": "Sea shore", "object": ["kite", "unicorn"], "facial_expression": None, "human_action": "flying"}

    def script(body, number):
        schema = body["response_format"]["json_schema"]["schema"]["properties"]
        return Action(text=json.dumps(reply if "scene" in schema else {"caption": "A dog with a kite."}))

    root = sketch[0]
    Image.fromarray(np.full((40, 40, 3), 255, np.uint8)).save(root / "white.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    common = {"split": "train", "source": "a", "emotion": "awe", "label_set": "mikels8"}
    records = [
        EmotionRecord(id="new", image="white.png", **common),
        EmotionRecord(
            id="known",
            image="white.png",
            caption="By a person.",
            attributes=Attributes(scene="yard", brightness=0.3),
            **common,
        ),
        EmotionRecord(id="broken", image="broken.jpg", **common),
        EmotionRecord(id="gone", image="gone.jpg", **common),
    ]
    with ChatServer(script) as server:
        job = make_job(make_settings(server), records=records)
        captions = write_captions(job)
        attributes = write_attributes(job, vocabulary=str(vocabulary))
        new, known, broken, _ = job.records
        assert new.caption == "A dog with a kite." and known.caption == "By a person." and broken.caption is None
        assert captions.missing == {"bad_picture": 1, "no_reply": 1} and captions.num_done == 2
        assert new.attributes.model_dump() == {
            "brightness": 1.0, "colorfulness": 0.0, "scene": "sea_shore", "object": ["Kite"],
            "facial_expression": None, "human_action": None,
        }  # fmt: skip
        assert known.attributes.scene == "yard" and known.attributes.brightness == 0.3
        assert attributes.notes["terms outside the vocabulary"] == 2
        assert "sea_shore" in server.bodies[-1]["messages"][0]["content"]
        # Images with the same bytes are one image.
        assert server.num_requests == 2


def test_vocabularies():
    built_in = read_vocabulary()
    assert list(built_in) == ["facial_expression"]
    path = Path(os.environ.get("EMOVIT_SHARED", "../shared")) / "data" / "emoset_info" / "info.json"
    if not path.is_file():
        pytest.skip(f"{path} is missing, so EmoSet's terms cannot be read")
    published = read_vocabulary(path)
    counts = {name: len(set(terms)) for name, terms in published.items()}
    # The counts of EmoSet (Yang et al., ICCV 2023).
    assert counts == {"scene": 254, "object": 409, "facial_expression": 6, "human_action": 264}
    assert all(term == term.strip() for terms in published.values() for term in terms)
    assert published["facial_expression"] == built_in["facial_expression"]


def test_a_person_in_a_crowd_is_also_sent_as_a_crop(make_job, make_settings, sketch):
    image = Image.new("RGB", (200, 100), "white")
    image.paste("red", (150, 20, 170, 60))
    image.save(sketch[0] / "crowd.png")
    common = {"image": "crowd.png", "split": "train", "source": "a", "emotion": "awe", "label_set": "mikels8"}
    boxes = [(149.5, 20.0, 170.0, 60.4), (0.0, 0.0, 30.0, 500.0), (300.0, 0.0, 310.0, 5.0)]
    records = [EmotionRecord(id=str(number), box=box, **common) for number, box in enumerate(boxes)]
    with ChatServer() as server:
        job = make_job(make_settings(server), records=records, settings={"vision": True})
        result = write_kind(job, "reasoning")
        assert result.num_done == 2 and result.missing == {"no_reply": 1}
        sizes = set()
        for body in server.bodies:
            parts = body["messages"][1]["content"]
            assert "the person that this is about" in parts[-1]["text"]
            urls = [part["image_url"]["url"].partition(",")[2] for part in parts[:-1]]
            sizes.add(tuple(Image.open(io.BytesIO(base64.b64decode(url))).size for url in urls))
        assert sizes == {((200, 100), (21, 41)), ((200, 100), (30, 100))}


def test_captions_and_attributes_are_requested_again(make_job, make_settings, sketch):
    bare = [record.model_copy(update={"attributes": Attributes()}) for record in sketch[1] if record.split == "train"][
        :6
    ]

    def script(body, number):
        return Action(refusal="No.") if number in (1, 3, 6, 10) else Action()

    with ChatServer(script) as server:
        job = make_job(make_settings(server, max_in_flight=1, seed=0), records=bare, settings={"regenerate": 2})
        captions = write_captions(job)
        assert captions.num_done == 6 and captions.reasons == {"refused": 3} and server.num_requests == 9
        attributes = write_attributes(job)
        assert attributes.reasons == {"refused": 1} and server.num_requests == 16 and not attributes.missing


def test_lavis_captioner_is_called_once_per_image(make_job, sketch, monkeypatch):
    import torch

    calls = []

    class Captioner:
        prompt = "a photo of"

        def generate(self, samples):
            assert "prompt" not in samples  # the captioner has its own prompt
            calls.append(len(samples["image"]))
            return [f"an image of mean {image.mean():.2f}" for image in samples["image"]]

    def processor(image):
        return torch.from_numpy(np.asarray(image.resize((8, 8)), dtype=np.float32))

    monkeypatch.setattr(captions_module, "_load_captioner", lambda name, kind, device: (Captioner(), processor))
    job = make_job()
    monkeypatch.setattr(captions_module, "_BATCH_SIZE", 5)
    result = write_captions(job, captioner="lavis:some/type")
    assert sum(calls) == result.num_done == len(job.chosen()) and max(calls) == 5
    shutil.copytree(sketch[0] / "image", sketch[0] / "copied")
    moved = [record.model_copy(update={"image": record.image.replace("image/", "copied/", 1)}) for record in sketch[1]]
    again = make_job(records=moved)
    write_captions(again, captioner="lavis:some/type")
    assert sum(calls) == len(job.chosen())
    assert [record.caption for record in again.records] == [record.caption for record in job.records]
    # A caption without words is counted.
    Captioner.generate = lambda self, samples: [" \n"] * len(samples["image"])
    silent = write_captions(make_job(), captioner="lavis:other/type")
    assert silent.num_done == 0 and silent.reasons == {"empty": len(job.chosen())} and silent.num_rejected > 0
    with pytest.raises(UserError, match="not a captioner; use lavis"):
        write_captions(again, captioner="blip2")


def test_a_model_of_this_plugin_as_captioner_gets_an_instruction(make_job, monkeypatch):
    from lavis_emovit.models.instructblip.model import EmoVIT

    asked = []

    def generate(self, samples):
        asked.append(samples["prompt"])
        return ["an image"] * len(samples["image"])

    monkeypatch.setattr(EmoVIT, "generate", generate)
    result = write_captions(make_job(), captioner="lavis:emovit_tiny")
    assert result.num_done > 0 and set(asked) == {"Say in one sentence what the picture shows."}


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'lavis-emovit[ray]'")
def test_a_captioner_on_ray_writes_what_it_writes_here(make_job, sketch, monkeypatch, tmp_path):
    from lavis_emovit.distributed.on_ray import RayEngine

    monkeypatch.setattr(captions_module, "_BATCH_SIZE", 4)
    records = [record for record in sketch[1] if record.split == "train"][:10]
    # Its head is that of an image, so it is found to be damaged only where it is decoded.
    (sketch[0] / "cut.jpg").write_bytes((sketch[0] / records[0].image).read_bytes()[:-200])
    records.insert(3, records[0].model_copy(update={"id": "cut", "image": "cut.jpg"}))
    here = make_job(records=records)
    expected = write_captions(here, captioner="lavis:emovit_tiny")
    captions = [record.caption for record in here.records]
    (tmp_path / "ledger.jsonl").unlink()
    with RayEngine(num_workers=1) as engine:
        job = make_job(records=records)
        result = write_captions(job, captioner="lavis:emovit_tiny", engine=engine)
    assert [record.caption for record in job.records] == captions and len(set(captions)) > 1
    assert result == expected and (result.num_done, dict(result.missing)) == (10, {"bad_picture": 1})


def test_records_without_emotion_get_the_other_kinds(make_job, sketch):
    bare = [record.model_copy(update={"emotion": None, "label_set": None}) for record in sketch[1]]
    results = {result.step: result for result in run_steps(make_job(records=bare), STEPS)}
    assert results["conversation"].num_done > 0
    assert results["explanation"].num_records == results["categorical"].num_done == 0
    without = [record.model_copy(update={"label_set": None}) for record in sketch[1]]
    with pytest.raises(DataError, match="have an emotion but no label set"):
        write_kind(make_job(records=without), "conversation")


@pytest.mark.parametrize("step", ["captions", "attributes", "reasoning"])
@pytest.mark.parametrize("count", [1, 5])
def test_step_that_gets_no_reply_stops_with_the_reason(step, count, make_job, make_settings, sketch):
    """Fewer failures than `max_failures`."""
    bare = [
        record.model_copy(update={"attributes": Attributes(brightness=number / 10)})
        for number, record in enumerate([record for record in sketch[1] if record.split == "train"][:5])
    ]
    refuse = Action(status=400, error={"message": "images are not supported"})
    with ChatServer(lambda body, number: refuse) as server:
        job = make_job(make_settings(server), records=bare[:count])
        results = list(run_steps(job, [step, "description"]))
        reason = f"none of the {count} requests was answered (bad_request: images are not supported)"
        assert [result.stopped for result in results] == [reason] and server.num_requests == count
        assert results[0].faults == {"bad_request": "images are not supported"}


def test_one_bad_request_does_not_stop_a_step(make_job, make_settings, sketch):
    bad = Action(status=400, error={"message": "too long"})
    with ChatServer(lambda body, number: bad if number in (0, 4, 5) else Action()) as server:
        chat = make_settings(server, max_in_flight=1)
        train = [record for record in sketch[1] if record.split == "train"][:4]
        job = make_job(chat, records=train, settings={"regenerate": 2})
        result = write_kind(job, "reasoning")
        # The first record fails in each of the three rounds.
        assert result.stopped is None and result.num_done == 3 and result.missing == {"no_reply": 1}
        assert server.num_requests == 6


def test_judge_that_gives_no_verdict_stops_the_run(make_job, make_settings, sketch):
    def script(body, number):
        is_judge = "keep" in body["response_format"]["json_schema"]["schema"]["properties"]
        return Action(status=400, error={"message": "no judge here"}) if is_judge else Action()

    with ChatServer(script) as server:
        chat = make_settings(server)
        job = make_job(chat, judge=chat, records=[record for record in sketch[1] if record.split == "train"][:3])
        result = write_kind(job, "reasoning")
        assert "none of the 3 requests was answered (bad_request: no judge here)" in result.stopped
        assert result.num_pairs == 3


def test_only_thoughts_are_never_pairs(make_job, make_settings, sketch):
    """A draft before the closing tag; the tag alone; a thought that was cut off."""
    draft, final = ({"question": f"What leads the {noun} in this scene?", "answer": "It is so. " * 8} for noun in "ab")
    texts = [
        f"{json.dumps(draft)}\n</think>\n{json.dumps(final)}",
        f"{json.dumps(draft)}</think>",
        f"<think>{json.dumps(draft)}",
    ]
    with ChatServer(lambda body, number: Action(text=texts[number])) as server:
        chat = make_settings(server, structured="text", max_in_flight=1)
        job = make_job(chat, records=[record for record in sketch[1] if record.split == "train"][:3])
        result = write_kind(job, "reasoning")
        found = [item.question for record in job.records for item in record.instructions if item.kind == "reasoning"]
        assert found == ["What leads the b in this scene?"] and result.reasons == {"empty": 2}


def test_offline_writer_warns_about_bare_labels(make_job, sketch, caplog):
    bare = [record.model_copy(update={"attributes": Attributes(), "caption": None}) for record in sketch[1]]
    job = make_job(records=bare)
    result = write_kind(job, "reasoning")
    num = len(job.chosen())
    assert result.notes["stock sentences only"] == num
    assert f"reasoning: {num} of {num} records have no caption, no attributes and no values over time" in caplog.text
    caplog.clear()
    half = [
        record.model_copy(update={"caption": "A dog"}) if number % 2 else record for number, record in enumerate(bare)
    ]
    assert 0 < write_kind(make_job(records=half), "explanation").notes["stock sentences only"] < num
    caplog.clear()
    assert "stock sentences only" not in write_kind(make_job(), "reasoning").notes and not caplog.text


def test_memory_does_not_grow_with_the_records(make_job, sketch):
    """Each record has about 2 kB of texts and 2 kB of hashes for near-duplicates."""

    def peak_bytes(count):
        common = {"image": "a.jpg", "split": "train", "source": "a", "emotion": "awe", "label_set": "mikels8"}
        records = (EmotionRecord(id=f"{n}", caption=f"a {n} " + "dog " * 400, **common) for n in range(count))
        tracemalloc.start()
        job = make_job(records=records, settings={"near_duplicates": "dataset"})
        result = write_kind(job, "explanation")
        assert result.num_records == result.num_read == len(job.records) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(50)  # what is loaded once
    assert (peak_bytes(650) - peak_bytes(150)) / 500 < 400
