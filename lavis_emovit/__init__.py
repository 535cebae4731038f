"""EmoVIT as a plugin to LAVIS: emotion visual instruction tuning, from labelled images to a tuned model.

Importing this package is cheap: torch and LAVIS are only loaded when something needs them.
"""

from __future__ import annotations

TYPE_CHECKING = False  # the start-up hook imports this file, and `typing` would cost more than the whole hook
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_model_and_preprocess", "load_tuned"]


def load_model_and_preprocess(name: str, model_type: str | None = None, is_eval: bool = False, device: Any = "cpu"):
    """LAVIS's function of the same name with the plugin active, for users who switched the start-up hook off.

    Returns the model, its image processors and its text processors, each a dict with the keys `train` and `eval`.
    """
    from lavis_emovit.plugin import activate

    activate()
    from lavis.models import load_model_and_preprocess as load

    return load(name, model_type=model_type, is_eval=is_eval, device=device)


def load_tuned(location: Any, **options: Any) -> Any:
    """A tuned model with everything that it was evaluated with, see `lavis_emovit.tuned.loading.load_tuned`."""
    from lavis_emovit.plugin import activate

    activate()
    from lavis_emovit.tuned.loading import load_tuned as load

    return load(location, **options)
