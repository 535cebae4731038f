"""Properties of `emovit serve` as a process: it answers in OpenAI's form; SIGTERM answers what is accepted, refuses
more with 503 and ends with 0; a second signal ends at once; wrong input is named before a model is loaded; a key is
needed on other addresses; the examples of the documentation run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from fastapi import FastAPI
from served_questions import asked

from lavis_emovit.cli.main import main
from lavis_emovit.cli.serve import KEY_VARIABLE
from lavis_emovit.serving.batching import Batching
from lavis_emovit.serving.server import DrainingServer, is_local

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "using.md").read_text(encoding="utf-8")


@contextmanager
def started(*arguments: str, key: str | None = None) -> Iterator[tuple[subprocess.Popen, str, Path]]:
    """The process of `emovit serve`, its address and its log."""
    environment = {**os.environ, **({KEY_VARIABLE: key} if key else {})}
    log = Path("server.log").resolve()
    with log.open("w") as file:
        command = [sys.executable, "-m", "lavis_emovit.cli.main", "serve", *arguments, "--device", "cpu", "--port", "0"]
        process = subprocess.Popen(command, stderr=file, stdout=file, env=environment)
        try:
            for _ in range(2400):
                if found := re.search(r"serving '.*' at (http://\S+)", log.read_text()):
                    break
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield process, found[1], log
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def test_sigterm_answers_what_is_accepted_and_refuses_more(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = "k-0123456789abcdef"
    with started(str(run.folder), "--batch-size", "2", "--name", "tiny", key=key) as (process, url, log):
        client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)

        def ask(image: Path) -> str:
            done = client.chat.completions.create(model="tiny", messages=asked(image), max_tokens=8)
            return done.choices[0].message.content

        expected = [ask(image) for image in run.images[:4]]
        with ThreadPoolExecutor(40) as pool, httpx.Client() as http:
            waiting: list[Future[str]] = []
            health = url.replace("/v1", "/health")
            while http.get(health).json()["waiting"] < 20:
                # Between two looks the server may have answered them all.
                if all(future.done() for future in waiting):
                    waiting += [pool.submit(ask, run.images[number % 4]) for number in range(40)]
            process.send_signal(signal.SIGTERM)
            refused = None
            while refused is None:
                try:
                    ask(run.images[0])
                except openai.APIStatusError as error:
                    refused = error
            assert refused.status_code == 503 and "the server is stopping" in str(refused)
            assert int(refused.response.headers["retry-after"]) > 0
            assert httpx.get(url.replace("/v1", "/ready")).status_code == 503
            assert httpx.get(health).json()["status"] == "stopping"
            errors = [future.exception() for future in waiting]
        # Those that came after the signal are refused like the one above.
        assert {error.status_code for error in errors if error} <= {503}
        answers = {number: waiting[number].result() for number, error in enumerate(errors) if not error}
        assert answers == {number: expected[number % 4] for number in answers} and len(answers) >= 20
        assert process.wait(30) == 0
        lines = log.read_text()
        assert "question of the run: " in lines
        stopped = re.search(r"stopped; requests: (\d+) answered, [1-9]\d* refused\n", lines)
        assert stopped and int(stopped[1]) >= 4 + len(answers) and "Traceback" not in lines
        assert key not in lines and "base64" not in lines
        assert "POST '/v1/chat/completions' 200 answered" in lines
        with pytest.raises(openai.APIConnectionError):
            ask(run.images[0])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_examples_of_the_page_run(serve, run, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(run.images[0].read_bytes())
    section = PAGE[PAGE.index("## An endpoint") : PAGE.index("## One file")]
    (python,), (shell,) = (re.findall(rf"```{name}\n(.*?)```", section, re.DOTALL) for name in ("python", "sh"))
    with serve(name="quickstart") as small:
        python, shell = (text.replace("http://127.0.0.1:8000/v1", small.url) for text in (python, shell))
        exec(compile(python, "using.md", "exec"), {})
        assert capfd.readouterr().out.strip()
        subprocess.run(["bash", "-c", shell], check=True)
        assert '"object":"chat.completion"' in capfd.readouterr().out


def test_a_second_signal_ends_the_server_at_once(tuned):
    batching = Batching(tuned)
    server = DrainingServer(FastAPI(), batching)
    server.handle_exit(signal.SIGTERM, None)
    assert batching.is_draining and not server.should_exit
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit and server.force_exit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_without_its_model_ends_with_an_error(run, monkeypatch, capsys):
    def end(self, jobs):
        raise SystemExit("the model is gone")

    monkeypatch.setattr(Batching, "_answer", end)
    monkeypatch.setattr(Batching, "_next_batch", lambda self: [None])
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert main(["serve", str(run.folder), "--device", "cpu", "--port", "0"]) == 1
    assert "stopped; requests: none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "key", "message"),
    [
        (["--host", "0.0.0.0"], None, "--host 0.0.0.0: others than this machine could use the model without a key"),
        ([], " ", f"the environment variable {KEY_VARIABLE} is empty or has blanks"),
        (["--host", "999.0.0.1"], "a-key", "999.0.0.1, port 8000: cannot be used"),
        ([], None, "gone"),
    ],
)
def test_wrong_input_is_named(tmp_path, monkeypatch, capsys, arguments, key, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if key is not None:
        monkeypatch.setenv(KEY_VARIABLE, key)
    assert main(["serve", "gone", *arguments]) == 2
    told = capsys.readouterr()
    assert message in told.err and "Traceback" not in told.err and told.err.startswith("error: ")


def test_a_port_in_use_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "gone", "--port", str(port)]) == 2
    assert f"127.0.0.1, port {port}: cannot be used" in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "gone"]) == 2
    assert "pip install 'lavis-emovit[serve]'" in capsys.readouterr().err


def test_local_addresses():
    assert all(map(is_local, ("127.0.0.1", "127.5.5.5", "localhost", "::1")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.0.1", "example.org", "")))
