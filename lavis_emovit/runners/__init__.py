"""The runner, its settings and its engines, registered in LAVIS.

LAVIS is loaded here, before any module of this package: its first import registers our classes, which imports these
modules. Were one of them half-loaded at that moment, the registration would find it without its class.
"""

import lavis  # noqa: F401
