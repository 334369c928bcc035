"""The code that a job uses, by its meaning: hashes of syntax trees, of the modules that it reaches and of no others.

Comments, docstrings, formatting and type annotations do not count. Annotations of the fields of a class that has bases
or decorators do, because dataclasses and pydantic read them. Imports are followed wherever they stand, also in
functions; those under `if TYPE_CHECKING` are not. What is loaded by name (`ltpa.core.registry`) is not followed either:
the spec of a job lists it as `code`.
"""

import ast
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import ltpa
from ltpa.core.files import write_text
from ltpa.core.hashing import digest
from ltpa.core.registry import SUFFIX

PACKAGE = Path(ltpa.__file__).resolve().parent
IMPORTS, STATEMENTS = "(imports)", "(statements)"
_UNREAD = frozenset({"ctx", "kind", "type_comment", "type_ignores", "simple"})  # fields that say nothing of meaning


@dataclasses.dataclass(frozen=True)
class Module:
    """One module as far as it matters to results.

    Attributes:
        definitions: hash of every definition at its top, and of the methods of its classes, by name, in their order.
        imports: the modules of this package that it imports, as they are named there.
        offers: names that the module hands on from others when they are asked for, and where each lies.
    """

    definitions: Mapping[str, str]
    imports: frozenset[str]
    offers: Mapping[str, str]

    @functools.cached_property
    def hash(self) -> str:
        """Hash of all definitions and their order."""
        return digest(list(self.definitions.items()))


def code_hash(roots: Iterable[str]) -> str:
    """Hash of the code that is reached from `roots`: modules, places such as `ltpa.models.vgg:build_vgg`, or files."""
    return _code_hash(tuple(sorted(set(roots))))


@functools.cache
def _code_hash(roots: tuple[str, ...]) -> str:
    short = [Path(root).name if root.endswith(SUFFIX) else root for root in roots]  # a moved file is no other code
    return digest([short, {name.rpartition("/")[2]: read_module(name).hash for name in reached(roots)}])


def definitions(roots: Iterable[str]) -> dict[str, dict[str, str]]:
    """Hashes of all definitions behind `code_hash(roots)`, by module and name."""
    return {name: dict(read_module(name).definitions) for name in reached(tuple(roots))}


def save_definitions(path: Path, roots: Iterable[str]) -> None:
    """Write the definitions behind `roots` to `path`, which is named by their hash, unless they are there."""
    if not path.is_file():
        write_text(path, json.dumps(definitions(roots)))  # in their order, which counts


@functools.cache
def reached(roots: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the modules of this package that `roots` need to run, sorted; of the package itself nothing is needed.

    Raises:
        ModuleNotFoundError: a root is not a module of this package.
    """
    found: set[str] = set()
    for root in roots:
        if module_file(name := root if root.endswith(SUFFIX) else root.partition(":")[0]) is None:
            raise ModuleNotFoundError(f"{name} is not a module of this package, nor a file")
    pending = [root if root.endswith(SUFFIX) else root.replace(":", ".") for root in roots]
    while pending:
        name = pending.pop()
        if name in found or name == "ltpa":
            continue
        if module_file(name) is None:  # a name within a module
            home, _, attribute = name.rpartition(".")
            pending += [home, *([place] if (place := read_module(home).offers.get(attribute)) else [])]
            continue
        found.add(name)
        parent = "ltpa" if name.endswith(SUFFIX) else name.rpartition(".")[0]
        pending += [*read_module(name).imports, parent]
    return tuple(sorted(found))


@functools.cache
def module_file(name: str) -> Path | None:
    """The file of a module of this package, or that of a user's; None where there is none."""
    if name.endswith(SUFFIX):
        return Path(name) if Path(name).is_file() else None
    base = PACKAGE.joinpath(*name.split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@functools.cache
def read_module(name: str) -> Module:
    """A module by its name."""
    path = module_file(name)
    assert path is not None, name
    return parse_module(path.read_text(encoding="utf-8"))


def parse_module(source: str) -> Module:
    """What matters of a module's source."""
    tree = ast.parse(source)
    typed = [node for node in tree.body if _is_for_types(node)]
    offers = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for block in typed
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    annotations = _Annotations()
    tree = annotations.visit(tree)
    nodes = list(ast.walk(tree))
    imports = frozenset(_imported(nodes))
    used = {node.id for node in nodes if isinstance(node, ast.Name)} | _exported(tree)
    _drop_imports(nodes, annotations.names - used)
    parts: dict[str, list[str]] = {}
    for name, node in _named(tree.body):
        parts.setdefault(name, []).append(_text(node))
    hashes = {name: hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] for name, texts in parts.items()}
    return Module(hashes, imports, offers if _offers_lazily(tree) else {})


def _is_for_types(node: ast.AST) -> bool:
    """Whether a statement is run by type checkers alone."""
    test = node.test if isinstance(node, ast.If) else None
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _is_registry(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Assign) else None
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Registry"


class _Annotations(ast.NodeTransformer):
    """Takes out what has no effect when code runs. `names` are those that only serve what it took out."""

    def __init__(self) -> None:
        self.names = {"TYPE_CHECKING", "annotations"}
        self._fields_count = False

    def _forget(self, *nodes: ast.AST | None) -> None:
        for node in nodes:
            for inner in ast.walk(node) if node is not None else ():
                if isinstance(inner, ast.Name):
                    self.names.add(inner.id)
                elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):  # a quoted annotation
                    self.names.update(inner.value.replace("[", " ").replace("]", " ").replace(",", " ").split())

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        if not _is_for_types(node):
            return self.generic_visit(node)
        return [kept for inner in node.orelse for kept in _as_list(self.visit(inner))]

    def visit_arg(self, node: ast.arg) -> ast.AST:
        self._forget(node.annotation)
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self._forget(node.returns)
        node.returns = None
        within, self._fields_count = self._fields_count, False
        self.generic_visit(node)
        self._fields_count = within
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # the names that ast asks for

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        within, self._fields_count = self._fields_count, bool(node.bases or node.decorator_list)
        self.generic_visit(node)
        self._fields_count = within
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self._fields_count:
            return self.generic_visit(node)
        self._forget(node.annotation)
        return None if node.value is None else self.visit(ast.Assign(targets=[node.target], value=node.value))

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if _is_registry(node) else self.generic_visit(node)


def _as_list(found: ast.AST | list[ast.AST] | None) -> list[ast.AST]:
    return found if isinstance(found, list) else [] if found is None else [found]


def _exported(tree: ast.Module) -> set[str]:
    """The names that `__all__` lists."""
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and "__all__" in map(_target, n.targets)]
    return {str(c.value) for each in lists for c in ast.walk(each) if isinstance(c, ast.Constant)}


def _drop_imports(nodes: Iterable[ast.AST], names: set[str]) -> None:
    """Take the imports of `names` out of the statements of all nodes."""
    for node in nodes:
        for body in (getattr(node, field, None) for field in ("body", "orelse", "finalbody")):
            if not isinstance(body, list):
                continue
            for statement in body:
                if isinstance(statement, ast.ImportFrom):
                    statement.names = [a for a in statement.names if (a.asname or a.name) not in names]
            body[:] = [s for s in body if not (isinstance(s, ast.ImportFrom) and not s.names)]


def _offers_lazily(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)


def _target(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else STATEMENTS


def _named(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    """Every statement with the name of what it defines; classes in pieces."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)]
            for method in methods:
                yield f"{node.name}.{method.name}", method
            node.body = [inner for inner in node.body if inner not in methods]
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield IMPORTS, node
        elif isinstance(node, ast.Assign):
            yield ", ".join(map(_target, node.targets)), node
        else:
            yield STATEMENTS, node


def _text(node: object) -> str:
    """A syntax tree as text that is the same in every version of Python that parses it alike."""
    if isinstance(node, ast.AST):
        fields = [
            f"{field}={_text(value)}"
            for field, value in ast.iter_fields(node)
            if value is not None and value != [] and field not in _UNREAD
        ]
        if isinstance(node, ast.Constant) and node.value is None:
            fields = ["None"]
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    return repr(node)


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Modules of this package, or names in them, that are imported anywhere."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ltpa."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ltpa."):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "ltpa":
            yield from (name for alias in node.names if module_file(name := f"ltpa.{alias.name}"))
