"""The EmoVIT models, on transformers' InstructBLIP modules, under LAVIS's model API.

LAVIS is loaded here, before any module of this package: its first import registers our classes, which imports these
modules. Were one of them half-loaded at that moment, the registration would find it without its class.
"""

import lavis  # noqa: F401
