"""What a result came from: which version, which libraries, how much time and memory."""

import functools
import importlib.metadata
import platform
import resource
import subprocess
from pathlib import Path

import ltpa

_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "scikit-image", "safetensors")


@functools.cache
def code_version() -> str:
    """The package version and, in a git checkout, the commit (`+dirty` when the package differs from it)."""
    version = ltpa.__version__
    git = ["git", "-C", str(Path(ltpa.__file__).resolve().parents[1])]
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
