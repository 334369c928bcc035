"""What a result came from: which code, which libraries, how much time and memory."""

import ast
import functools
import hashlib
import importlib.metadata
import platform
import resource
import subprocess
from pathlib import Path

import ltpa

PACKAGE = Path(ltpa.__file__).resolve().parent
_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "scikit-image", "safetensors")


def _module_file(name: str) -> Path | None:
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _direct_imports(path: Path) -> frozenset[str]:
    """Names of the `ltpa` modules that a file imports anywhere, function bodies included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in names if name == "ltpa" or name.startswith("ltpa."))


@functools.cache
def module_closure(module: str) -> tuple[Path, ...]:
    """Files of `module` and of every `ltpa` module it imports, directly or not, sorted.

    Snakemake takes these as inputs of the module's rule, so that editing code reruns what the code affects.
    """
    found: dict[str, Path] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        path = _module_file(name)
        if name in found or path is None:
            continue
        found[name] = path
        if name != "ltpa":  # the package itself only offers its public names, lazily
            pending.extend(_direct_imports(path))
        if "." in name:
            pending.append(name.rpartition(".")[0])
    return tuple(sorted(set(found.values())))


@functools.cache
def code_hash(module: str) -> str:
    """SHA-256 over the names and bytes of `module_closure(module)`."""
    state = hashlib.sha256()
    for path in module_closure(module):
        state.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()


@functools.cache
def code_version() -> str:
    """The package version and, in a git checkout, the commit (`+dirty` when the package differs from it)."""
    version = ltpa.__version__
    git = ["git", "-C", str(PACKAGE.parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", "ltpa"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return version
    if commit.returncode or status.returncode:
        return version
    return f"{version}+g{commit.stdout.strip()}" + (".dirty" if status.stdout.strip() else "")


@functools.cache
def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that can change a number; absent ones are left out."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, in MB (10^6 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
