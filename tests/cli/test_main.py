"""The command `emovit`.

Properties:
- its sub-commands and options are those in this file, so a change of them changes this file;
- a user error prints one line and exits with 2, without a traceback; `--debug` anywhere raises it;
- a sub-command is imported only when it is called, and a broken one does not affect the others; help is light.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.main import get_command

from lavis_emovit.cli import main as command
from lavis_emovit.errors import DataError

# Every sub-command with its options; arguments in capitals.
SURFACE = {
    "convert": "--adapter --base --llm-model --overwrite --parts --qformer-heads --qformer-tokenizer --trimmed"
    " --vision-heads --vision-weights SOURCE TARGET",
    "data clean": "--against --dry-run --images --kinds --near --out --overwrite --quarantine --show --undo --workers"
    " RECORDS",
    "data dedupe": "--against --images --near --out --overwrite --show --workers RECORDS",
    "data draw": "--images-per-class --label-noise --out --seed --size-px",
    "data import": "--categorical --column --fold --fractions --label-set --name --option-order --out --overwrite"
    " --own-splits --seed --set --split-seed --stratify --strict --wording DATASET PATH",
    "data images": "FOLDER RECORDS",
    "data list": "",
    "data preview": "--images --out --per-label --seed --split --strict --tile-px ROOT",
    "data split": "--fractions --group-by --images --near --out --overwrite --seed --stratify --strict --workers"
    " RECORDS",
    "data stats": "--json --strict RECORDS",
    "data verify": "--images --json --near --show --strict --workers RECORDS",
    "demo": "--amp --base --compare --compare-base --corrections --device --examples --host --image-root"
    " --labels --port --threshold MODEL",
    "doctor": "--answer-tokens --gpu --gpus --images --json --options --pairs-per-image --question-tokens --recipe"
    " --utilisation MORE",
    "export data": "--as-shown --box --format --images --join --kinds --margin --out --skip-bad --strict PLACE",
    "export rewards": "--format --leave-out --options --out --overwrite PRESET",
    "pack": "--base --step MODEL TARGET",
    "push": "--base --dry-run --license --message --public --revision --step MODEL REPO",
    "predict": "--amp --base --batch-size --calibrated --device --explain --image-root --kinds --labels --out"
    " --overwrite --processes --step --threshold --top-k --workers IMAGES MODEL",
    "review": "--adjudicator --agreement --decisions --disputed --host --images --labels --out --port --reviewer PLACE",
    "suite export": "--options --out --to RECIPE",
    "facial annotate": "--base-url --config --engine --faces --images --max-entropy --max-usd --min-face-px --out"
    " --priors --ray-address --shown-margin --teacher --workers SOURCE",
    "facial detect": "--crops --engine --images --margin --min-face-px --out --proxies --ray-address"
    " --shown-margin --size-px --teacher --workers SOURCE",
    "facial teachers": "--install",
    "facial check": "--active-from --out --priors --show RECORDS",
    "facial fit": "--active-from --answers --base --config --images --out --overwrite --programs --smoothing --split"
    " --teacher RECORDS",
    "facial infer": "--arousal --coded --expression --priors --units --valence",
    "generate affect": "--about --check-overlap --config --conversations --held-out --images --out --preview --seed"
    " --shards --split RECORDS",
    "generate all": "--abandon-batches"
    " --allow-short --base-url --batch --captioner --check-overlap --config --conversations"
    " --device --dry-run --engine --examples --held-out --images --in-flight --judge --max-usd --mix --model --open-set"
    " --option-order --out --preview --prices --ray-address --redo-captions --regenerate --rpm --seed --shards --split"
    " --stream --tpm --vision --vocabulary --wait --wording --workers RECORDS",
    "generate attribute": "--check-overlap --config --conversations --held-out --images --out --preview --seed --shards"
    " --split RECORDS",
    "generate attributes": "--abandon-batches"
    " --base-url --batch --check-overlap --config --conversations --dry-run --held-out"
    " --images --in-flight --max-usd --model --out --preview --prices --regenerate --rpm --seed --shards --split"
    " --stream --tpm --vocabulary --wait RECORDS",
    "generate captions": "--abandon-batches"
    " --base-url --batch --captioner --check-overlap --config --conversations --device"
    " --dry-run --engine --held-out --images --in-flight --max-usd --model --out --preview --prices --ray-address"
    " --redo-captions --regenerate --rpm --seed --shards --split --stream --tpm --wait --workers RECORDS",
    "generate categorical": "--check-overlap --config --conversations --held-out --images --open-set"
    " --option-order --out --preview --seed --shards --split --wording RECORDS",
    "generate conversation": "--abandon-batches"
    " --base-url --batch --check-overlap --config --conversations --dry-run --examples"
    " --held-out --images --in-flight --judge --max-usd --model --out --preview --prices --regenerate --rpm --seed"
    " --shards --split --stream --tpm --vision --wait RECORDS",
    "generate description": "--abandon-batches"
    " --base-url --batch --check-overlap --config --conversations --dry-run --examples"
    " --held-out --images --in-flight --judge --max-usd --model --out --preview --prices --regenerate --rpm --seed"
    " --shards --split --stream --tpm --vision --wait RECORDS",
    "generate explanation": "--abandon-batches"
    " --base-url --batch --check-overlap --config --conversations --dry-run --examples"
    " --held-out --images --in-flight --judge --max-usd --model --out --preview --prices --regenerate --rpm --seed"
    " --shards --split --stream --tpm --vision --wait RECORDS",
    "generate expression": "--check-overlap --config --conversations --held-out --images --out --preview --seed"
    " --shards --split RECORDS",
    "generate reasoning": "--abandon-batches"
    " --base-url --batch --check-overlap --config --conversations --dry-run --examples"
    " --held-out --images --in-flight --judge --max-usd --model --out --preview --prices --regenerate --rpm --seed"
    " --shards --split --stream --tpm --vision --wait RECORDS",
    "generate seke": "--abandon-batches"
    " --adaptive --answers --base-url --batch --blind --check --check-overlap --config --conversations --dry-run"
    " --explanations --held-out --images --in-flight --max-error --max-usd --model --n-max --n0 --out --preview"
    " --prices --prior --priors --resamples --reviewer --rpm --sampling --seed --shards --split --stream --teacher"
    " --tpm --vary --verification --wait RECORDS",
    "generate seke-tests": "--active-from --balanced --images --level --out --overwrite --per-class --seed --split"
    " --strict RECORDS",
    "generate statements": "--abandon-batches --attachments --base-url --batch --config --dry-run --images --in-flight"
    " --least-share --max-usd --model --num-reviewed --num-words --out --preview --prices --proposer --regenerate --rpm"
    " --seed --shards --split --stream --tpm --wait RECORDS",
    "generate synthesis": "--abandon-batches --active-from --base-url --batch --check-overlap --config --conversations"
    " --dataset --device --dry-run --held-out --images --in-flight --launcher --least-rise --max-usd --model --out"
    " --preview --prices --recipe --regenerate --rounds --rpm --seed --shards --split --start --stream --tpm --wait"
    " RECORDS",
    "generate statements-reviewed": "--least-people --least-share --out RECORDS TABLES",
    "init": "--column --dry-run --labels --model --name --out --overwrite --seed --set --splits DATA",
    "judge page": "--choices --disputed --host --port --rater FOLDER",
    "judge score": "--adjudicator --json --seed FILLED KEY",
    "judge sheet": "--benchmark --first --limit --out --question --second --seed SUITE_DIR",
    "report": "--out RUN_DIRS",
    "reproduce": "--list NAME",
    "serve": "--allow-without-key --amp --base --batch-size --device --host --max-image-mb --max-megapixels"
    " --max-tokens --max-waiting --max-waiting-mb --name --port --step MODEL",
    "shards build": "--frames --images --out --overwrite --part --processes --resize --samples-per-shard --seed"
    " --skip-bad --split RECORDS",
    "shards card": "--overwrite FOLDER",
    "shards index": "--categorical --classes --label-key --label-set --overwrite --pattern --skip-bad --source"
    " --split FOLDER",
    "shards merge": "--overwrite OUT PARTS",
    "shards stats": "FOLDER",
    "shards verify": "--decode --processes FOLDER",
    "watch": "--every --once --report RUNS",
}


def _surface(group, ctx, path=()):
    for name in group.list_commands(ctx):
        sub = group.get_command(ctx, name)
        if hasattr(sub, "list_commands"):
            yield from _surface(sub, ctx, (*path, name))
        else:
            names = [
                max(parameter.opts, key=len) if parameter.opts[0].startswith("-") else parameter.name.upper()
                for parameter in sub.params
                if parameter.name != "help"
            ]
            yield " ".join((*path, name)), " ".join(sorted(names))


def test_surface_is_frozen():
    group = get_command(command.app)
    context = group.make_context("emovit", ["doctor"], resilient_parsing=True)
    assert dict(_surface(group, context)) == SURFACE


def test_help_lists_all(capsys):
    assert command.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in command.COMMANDS)
    group = get_command(command.app)
    context = group.make_context("emovit", ["doctor"], resilient_parsing=True)
    for name, summary in command.COMMANDS.items():
        assert group.get_command(context, name).get_short_help_str(limit=1000) == summary


def test_version(capsys):
    from lavis_emovit import __version__

    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lavis-emovit {__version__}\n"


@pytest.mark.parametrize("arguments", [["shards", "stats", "gone"], ["--debug", "shards", "stats", "gone"]])
def test_user_errors(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "--debug" in arguments:
        with pytest.raises(DataError):
            command.main(arguments)
        with pytest.raises(DataError):
            command.main([*arguments[1:], "--debug"])
        return
    assert command.main(arguments) == command.EXIT_USER_ERROR
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: gone: no such folder")


def test_wrong_command_line(capsys):
    assert command.main(["shard"]) == 2
    assert command.main(["shards", "stats"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_broken_sub_command_does_not_affect_the_others(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lavis_emovit.cli.report", None)
    assert command.main(["shards", "--help"]) == 0
    with pytest.raises(ModuleNotFoundError):
        command.main(["report", "x"])


def last_line(code):
    """The last line that code prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()[-1]


def test_help_loads_no_heavy_package():
    code = (
        "import sys; from lavis_emovit.cli.main import COMMANDS, main; main(['--help']);"
        "[main([*name.split(), '--help']) for name in [*COMMANDS, 'generate all', 'generate seke']];"
        "print({'torch', 'lavis', 'sklearn', 'matplotlib', 'PIL', 'transformers'} & set(sys.modules))"
    )
    assert last_line(code) == "set()"


def test_the_list_of_datasets_loads_no_heavy_package():
    code = (
        "import sys; from lavis_emovit.cli.main import main; main(['data', 'list']);"
        "print({'torch', 'lavis', 'numpy', 'pandas', 'sklearn', 'transformers'} & set(sys.modules))"
    )
    assert last_line(code) == "set()"


def test_list_of_sub_commands_imports_none_of_them():
    code = (
        "import sys; from lavis_emovit.cli.main import main; main(['--help']);"
        "print([name for name in sys.modules if name.startswith('lavis_emovit.cli.') or name == 'pydantic'])"
    )
    assert last_line(code) == "['lavis_emovit.cli.main']"


def test_exit_code_of_a_sub_command(monkeypatch):
    monkeypatch.setattr("lavis_emovit.cli.doctor.run_checks", lambda: _raise(typer.Exit(7)))
    assert command.main(["doctor"]) == 7


def _raise(error):
    raise error
