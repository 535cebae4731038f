"""Hook of mkdocs: files of the repository that pages link to become part of the site, as plain text.

Pages link to recipes, results and tests by paths such as `../projects/emovit/train.yaml`, so that the links also work
where the pages are read as files. On the site they lead to `repository/projects/emovit/train.yaml.txt`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "repository"
_LINK = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
_CODE_BLOCK = re.compile(r"(^```.*?^```)", flags=re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the files that pages link to."""
    for page in list(files.documentation_pages()):
        for path in _LINK.findall(page.content_string):
            name = f"{FOLDER}/{path[0]}.txt"
            if files.get_file_from_path(name) is None:
                source = ROOT / path[0]
                if not source.is_file():
                    raise PluginError(f"docs/{page.src_uri} links to ../{path[0]}, which is no file")
                files.append(File.generated(config, name, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let the links lead to them."""
    parts = _CODE_BLOCK.split(markdown)
    parts[::2] = [_LINK.sub(rf"]({FOLDER}/\1.txt)", part) for part in parts[::2]]
    return "".join(parts)
