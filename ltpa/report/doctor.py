"""What this machine can and cannot do for the pipeline, with the remedy beside each finding."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

NEEDED = ("torch", "numpy", "safetensors", "pydantic", "PyYAML", "scikit-learn", "scikit-image", "pandas", "snakemake")
OPTIONAL = {"mlflow": "tables build without it; only `track` needs it", "matplotlib": "only figures need it"}
MINIMUM_FREE_GB = 2.0


def examine(say: Callable[[str], None]) -> bool:
    """Tell `say` one line per finding; return whether the pipeline can run here."""
    good = _python(say)
    good &= _libraries(say)
    good &= _folder(say, Path.cwd())
    _processors(say)
    _conda(say)
    return good


def _line(state: str, text: str) -> str:
    return f"[{state:^4}] {text}"


def _python(say: Callable[[str], None]) -> bool:
    good = sys.version_info >= (3, 11)
    say(_line("ok" if good else "bad", f"Python {sys.version.split()[0]}" + ("" if good else "; 3.11 is needed")))
    return good


def _libraries(say: Callable[[str], None]) -> bool:
    good = True
    for name in (*NEEDED, *OPTIONAL):
        try:
            say(_line("ok", f"{name} {importlib.metadata.version(name)}"))
        except importlib.metadata.PackageNotFoundError:
            good &= name in OPTIONAL
            say(_line("note" if name in OPTIONAL else "bad", f"{name} is missing; {OPTIONAL.get(name, 'make setup')}"))
    return good


def _folder(say: Callable[[str], None], folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        say(_line("bad", f"{folder}: cannot write here ({error.strerror}); use --directory or free the folder"))
        return False
    free = shutil.disk_usage(folder).free / 1e9
    enough = free >= MINIMUM_FREE_GB
    remedy = "" if enough else f"; the embedded default needs {MINIMUM_FREE_GB:g} GB"
    say(_line("ok" if enough else "bad", f"{free:.1f} GB free in {folder}{remedy}"))
    return enough


def _processors(say: Callable[[str], None]) -> None:
    import torch

    say(_line("ok", f"{len(os.sched_getaffinity(0))} processor cores"))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            say(_line("ok", f"GPU {index}: {torch.cuda.get_device_name(index)}"))
    else:
        say(_line("note", "no GPU: the embedded default runs on the CPU; the paper's scale needs one"))


def _conda(say: Callable[[str], None]) -> None:
    found = shutil.which("conda")
    say(_line("ok" if found else "note", f"conda: {found}" if found else "no conda: `snakemake --sdm conda` needs it"))
