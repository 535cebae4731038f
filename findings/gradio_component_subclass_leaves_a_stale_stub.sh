#!/usr/bin/env bash
# gradio: importing a subclass of a component writes a `.pyi` file beside the module, which hides later functions from
# type checkers.
#
# `widgets.py` has a subclass of `gradio.File` and the function `first`. The first import writes `widgets.pyi` into the
# folder of the source, with the text of the module. Then `second` is added to `widgets.py`. The next import runs the new
# code, but leaves the other lines of the stub as they were: it has `first` and not `second`. Type checkers read a stub
# instead of its module, so they report that `widgets` has no `second`. An application that ships its sources, or keeps
# them in version control, gains a file that nobody wrote.
#
# Run: bash findings/gradio_component_subclass_leaves_a_stale_stub.sh      (exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gradio==6.31.0 mypy==2.4.1
cd "$folder"
mkdir app
export GRADIO_ANALYTICS_ENABLED=False HF_HUB_DISABLE_TELEMETRY=1
cat > app/widgets.py <<'PYTHON'
import gradio


class Photograph(gradio.File):
    """A file that is an image."""


def first() -> int:
    return 1
PYTHON
"$folder/venv/bin/python" -c 'import gradio; print("gradio", gradio.__version__)'
import_it() { (cd app && "$folder/venv/bin/python" -c 'import widgets; print("functions:", [name for name in ("first", "second") if hasattr(widgets, name)])'); }
import_it
test -f app/widgets.pyi
printf '\n\ndef second() -> int:\n    return 2\n' >> app/widgets.py
import_it
echo "in the stub: $(grep -o 'def first\|def second' app/widgets.pyi | tr '\n' ' ')"
printf 'from widgets import first, second\n\nprint(first() + second())\n' > app/main.py
echo "main.py prints $(cd app && "$folder/venv/bin/python" main.py)"
checked=$(cd app && "$folder/venv/bin/mypy" --ignore-missing-imports --follow-imports=silent main.py || true)
echo "mypy: $checked"
grep -q 'def first' app/widgets.pyi && ! grep -q 'def second' app/widgets.pyi
echo "$checked" | grep -q 'has no attribute "second"'
