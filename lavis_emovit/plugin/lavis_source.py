"""Reads LAVIS's source without importing it: registered names, their modules, and package files without their imports.

LAVIS 1.0.2 imports every model family, task, builder and processor when it is imported. The catalogue follows the same
import statements in the text, so it lists the same modules and names in the same order.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
from dataclasses import dataclass, field
from importlib.util import resolve_name
from pathlib import Path
from types import CodeType

_KIND = r"(?:builder|task|processor|model|lr_scheduler|runner)"
_STATEMENT = re.compile(
    r"^from[ ]+(?P<source>[\w.]+)[ ]+import[ ]+(?P<names>\([^)]*\)|[^\n]*)"
    r"|^import[ ]+(?P<modules>[^\n]+)"
    rf"|^(?P<decorators>(?:@registry\.register_{_KIND}\([^\n]*\)\n)+)",
    re.MULTILINE,
)
_REGISTRATION = re.compile(rf"""registry\.register_({_KIND})\(["']([^"']+)["']\)""")
_ANY_REGISTRATION = re.compile(rf"registry\.register_{_KIND}\b")


@dataclass
class Catalogue:
    """What `import lavis` loads.

    Attributes:
        modules: module -> its file, or its folder for a package without `__init__.py`, in the order of loading.
        names: kind (`model`, `builder`, ...) -> registered name -> module.
    """

    modules: dict[str, Path] = field(default_factory=dict)
    names: dict[str, dict[str, str]] = field(default_factory=dict)


def read_catalogue(package: str, folder: Path | str) -> Catalogue:
    """The catalogue of a package in a folder; ValueError if a class is registered in an unknown form."""
    catalogue = Catalogue()
    _visit(package, package, Path(folder), catalogue)
    return catalogue


def _visit(module: str, package: str, folder: Path, catalogue: Catalogue) -> None:
    if module in catalogue.modules:
        return
    parent = module.rpartition(".")[0]
    if parent:
        _visit(parent, package, folder, catalogue)
    path = _locate(folder.joinpath(*module.split(".")[1:]))
    if path is None or module in catalogue.modules:
        return
    catalogue.modules[module] = path
    if path.is_dir():
        return
    text = path.read_text(encoding="utf-8")
    holder = module if path.name == "__init__.py" else parent
    num_registered = 0
    for statement in _STATEMENT.finditer(text):
        if statement["decorators"]:
            # Python applies stacked decorators from the last to the first.
            for kind, name in reversed(_REGISTRATION.findall(statement["decorators"])):
                catalogue.names.setdefault(kind, {}).setdefault(name, module)
                num_registered += 1
        elif statement["modules"]:
            for imported in re.findall(rf"\b{package}[\w.]*", statement["modules"]):
                _visit(imported, package, folder, catalogue)
        else:
            source = statement["source"]
            source = resolve_name(source, holder) if source.startswith(".") else source
            if source.partition(".")[0] != package:
                continue
            _visit(source, package, folder, catalogue)
            for name in re.findall(r"\w+", statement["names"]):
                _visit(f"{source}.{name}", package, folder, catalogue)
    if num_registered != len(_ANY_REGISTRATION.findall(text)):
        raise ValueError(f"{path}: registers a class in a form that cannot be read from the text")


def _locate(path: Path) -> Path | None:
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return path if path.is_dir() else None


@dataclass(frozen=True)
class LazyBody:
    """A package's `__init__.py` without the imports of its own family that nothing in it uses.

    Attributes:
        code: the remaining statements.
        imports: modules that the remaining statements import, as far as they belong to the family.
        deferred: name -> the module and the name in it that an omitted import would bind.
        stars: modules of the omitted star imports, the first one first.
        zoos: classes of the file whose one instance lists all registered classes; `__init__` is not called yet.
    """

    code: CodeType
    imports: tuple[str, ...]
    deferred: dict[str, tuple[str, str]]
    stars: tuple[str, ...]
    zoos: tuple[str, ...]


def read_body(module: str, source: str, file_name: str) -> LazyBody:
    """Split a package's source into what runs at once and what is imported on first access.

    ValueError if the code uses names that only a star import can bind, so it cannot run without it.
    """
    tree = ast.parse(source, file_name)
    family = module.partition(".")[0]
    rest = [node for node in tree.body if not (isinstance(node, ast.ImportFrom) and _origin(node, module, family))]
    used = {node.id for statement in rest for node in ast.walk(statement) if isinstance(node, ast.Name)}
    zoo_classes = {
        node.name for node in rest if isinstance(node, ast.ClassDef) and "registry.mapping" in ast.unparse(node)
    }
    kept: list[ast.stmt] = []
    imports: list[str] = []
    deferred: dict[str, tuple[str, str]] = {}
    stars: list[str] = []
    zoos: list[str] = []
    for node in tree.body:
        origin = _origin(node, module, family) if isinstance(node, ast.ImportFrom) else None
        if isinstance(node, ast.ImportFrom) and origin is not None:
            if node.names[0].name == "*":
                stars.append(origin)
                continue
            now = [alias for alias in node.names if (alias.asname or alias.name) in used]
            deferred |= {alias.asname or alias.name: (origin, alias.name) for alias in node.names if alias not in now}
            if now:
                imports.append(origin)
                kept.append(ast.copy_location(ast.ImportFrom(node.module, now, node.level), node))
            continue
        match node:
            case ast.Assign(value=ast.Call(func=ast.Name(id=name), args=[], keywords=[])) if name in zoo_classes:
                zoos.append(name)
                node.value = ast.parse(f"{name}.__new__({name})", mode="eval").body
        kept.append(node)
    table = symtable.symtable(ast.unparse(ast.Module(kept, [])), file_name, "exec")
    unbound = _global_references(table) - _bound_names(table) - {*dir(builtins), "__file__", "__name__", "__path__"}
    if stars and unbound:
        raise ValueError(f"{file_name}: uses {', '.join(sorted(unbound))}, which a star import binds")
    code = compile(ast.fix_missing_locations(ast.Module(kept, [])), file_name, "exec", dont_inherit=True)
    return LazyBody(code, tuple(imports), deferred, tuple(stars), tuple(zoos))


def exported_names(source: str) -> list[str]:
    """The names that a star import of a module with this source binds.

    ValueError if the module star-imports others itself and has no `__all__`.
    """
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in tree.body):
        raise ValueError("a star import of a module that star-imports others")
    names = _bound_names(symtable.symtable(source, "<source>", "exec"))
    return sorted(name for name in names if not name.startswith("_"))


def _origin(node: ast.ImportFrom, module: str, family: str) -> str | None:
    """The module that a statement imports from, or None if it is not one of the family."""
    name = "." * node.level + (node.module or "")
    name = resolve_name(name, module) if node.level else name
    return name if name.partition(".")[0] == family else None


def _bound_names(table: symtable.SymbolTable) -> set[str]:
    """The names that a module binds at its top."""
    return {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}


def _global_references(table: symtable.SymbolTable) -> set[str]:
    """The names that a module, or a function or class in it, looks up at the top of the module."""
    is_top = table.get_type() == "module"
    own = {one.get_name() for one in table.get_symbols() if one.is_referenced() and (is_top or one.is_global())}
    return own.union(*map(_global_references, table.get_children()))
