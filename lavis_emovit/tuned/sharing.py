"""A tuned model as a repository of a hub: its files, its card, and the upload through huggingface_hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_emovit.checkpoints.tuned_files import CARD_FILE, TunedFiles, copy_checkpoint
from lavis_emovit.errors import UserError, first_line
from lavis_emovit.files import load_json, load_yaml
from lavis_emovit.outside import scrub
from lavis_emovit.paths import MANIFEST_NAME
from lavis_emovit.tuned.card import model_card

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# "/home/me/photos" and "C:\\photos", also inside a sentence; not "https://..." and not "and/or".
_ABSOLUTE = re.compile(r"(?:^|(?<=[\s'\"(=\[]))(?:/[^\s/'\"]+(?:/|\b)|~/|[A-Za-z]:\\)")
_FROM_THE_HUB = "## From the hub"


@dataclass(frozen=True)
class HubTarget:
    """Where a model is published.

    Attributes:
        repo: `name` or `organisation/name`.
        is_public: whether a new repository is open to everybody.
        revision: branch; None: the main one.
        message: of the commit.
    """

    repo: str
    is_public: bool = False
    revision: str | None = None
    message: str = "Upload a tuned model"


def repository_files(tuned: TunedFiles, root: Path, repo: str, license_id: str | None) -> Path:
    """Write the folder that is uploaded: what an archive of `emovit pack` has, or the files of an exported folder.

    Args:
        root: an empty folder to write into.
        license_id: licence of the trained weights, as a hub names it, such as `cc-by-nc-4.0`; None: not stated.

    Raises:
        UserError: a name that no repository can have.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"'{repo}' is no name of a repository: {error}") from None
    if tuned.checkpoint is not None:
        folder = copy_checkpoint(tuned, root)
    else:
        folder = Path(shutil.copytree(tuned.folder, root / "exported"))
    card = f"{_front_matter(tuned, license_id)}\n{_card(tuned)}\n{_loading(repo)}"
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return folder


def _card(tuned: TunedFiles) -> str:
    """The card that an exported folder or an archive already has, because it knows data and results; or a new one."""
    path = tuned.folder / CARD_FILE
    if not path.is_file() or not (tuned.checkpoint is None or (tuned.folder / MANIFEST_NAME).is_file()):
        return model_card(tuned)
    written = path.read_text(encoding="utf-8").partition(_FROM_THE_HUB)[0]  # of an earlier upload
    return written.rpartition("\n---\n")[2].strip() + "\n" if written.startswith("---\n") else written


def private_places(folder: Path) -> list[str]:
    """What a folder to publish says about places of this machine, as `file, key: text`."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".yaml", ".json", ".md") or not path.is_file():
            continue
        place = path.relative_to(folder)
        try:
            content = path.read_text(encoding="utf-8")
            if path.suffix == ".md":
                texts = [(f"line {number}", line) for number, line in enumerate(content.splitlines(), 1)]
            else:
                # Vocabularies in JSON have characters that YAML does not, and are too long for its parser.
                texts = list(_texts(load_json(content) if path.suffix == ".json" else load_yaml(content)))
        except ValueError as error:
            raise UserError(
                f"{place}: not {path.suffix[1:].upper()} ({first_line(error)}), so it cannot be published. Restore or "
                "remove it."
            ) from None
        found += [f"{place}, {key}: {text}" for key, text in texts if _ABSOLUTE.search(text)]
    return found


def upload(folder: Path, target: HubTarget) -> str:
    """Create the repository if there is none, and add the files in one commit.

    Returns:
        the address of the commit.

    Raises:
        UserError: there is no token, the hub refuses, or it cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    # The bases of its error include that of a lost connection, whichever HTTP client it uses.
    faults: tuple[type[Any], ...] = (ValueError, OSError, *HfHubHTTPError.__bases__)
    try:
        made = api.create_repo(target.repo, private=not target.is_public, exist_ok=True)
        if target.revision is not None:
            api.create_branch(made.repo_id, branch=target.revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, revision=target.revision, commit_message=target.message
        )
    except faults as error:
        hint = "`hf auth login`, or the variable HF_TOKEN, gives you access"
        raise UserError(f"{target.repo}: not published: {scrub(str(error))} ({hint})") from None
    return str(commit.commit_url)


def _front_matter(tuned: TunedFiles, license_id: str | None) -> str:
    from huggingface_hub import ModelCardData

    is_on_hub = _HUB_NAME.fullmatch(tuned.base) and not Path(tuned.base).exists()
    data = ModelCardData(
        base_model=tuned.base if is_on_hub else None,
        library_name="lavis-emovit",
        license=license_id,
        tags=["emotion", "image-text-to-text", str(tuned.model.get("arch", "model"))],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _loading(repo: str) -> str:
    return f"""{_FROM_THE_HUB}

```python
import lavis_emovit
from huggingface_hub import snapshot_download

tuned = lavis_emovit.load_tuned(snapshot_download("{repo}"))
print(tuned.predict("photo.jpg"))
```
"""


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Key and value of all text in nested settings."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _texts(value, f"{key}[{number}]")
    elif isinstance(node, str):
        yield key, node
