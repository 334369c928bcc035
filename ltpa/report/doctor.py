"""What this machine can and cannot do for the pipeline, with the remedy beside each finding."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from ltpa.core.files import is_there
from ltpa.report.workspace import Finding, examine_workspace
from ltpa.runtime.slots import slot_folder

NEEDED = ("torch", "numpy", "safetensors", "pydantic", "PyYAML", "scikit-learn", "scikit-image", "pandas", "snakemake")
OPTIONAL = {"mlflow": "tables build without it; only `track` needs it", "matplotlib": "only figures need it"}
MINIMUM_CONDA = (24, 7, 1)
SLURM_PLUGIN = "snakemake-executor-plugin-slurm"


def examine(
    say: Callable[[str], None],
    root: Path,
    results: Path,
    store: Callable[[], str | None],
    gpus: int = 0,
    needed_bytes: int = 0,
    wanted: Collection[Path] = (),
) -> bool:
    """Call `say` with one line per finding; return whether the pipeline can run here.

    Args:
        root: the folder Snakemake is started in.
        results: the scale's folder of results, whether or not it is there.
        store: checks the MLflow store; raises `LtpaError` where something is wrong with it, and returns any further
            note on it.
        gpus: how many GPUs the configuration asks for per job.
        needed_bytes: what all results of the configuration take on the disk.
        wanted: the records that the configuration wants.
    """
    machine = [*_python(), *_libraries(), *_processors(gpus), *_conda(), *_slurm(), *_slots(), *_cache()]
    good = True
    for state, text in (*machine, *examine_workspace(root, results, store, needed_bytes, wanted)):
        say(f"[{state:^4}] {text}")
        good &= state != "bad"
    return good


def _python() -> list[Finding]:
    good = sys.version_info >= (3, 11)
    return [("ok" if good else "bad", f"Python {sys.version.split()[0]}" + ("" if good else "; 3.11 is needed"))]


def _libraries() -> list[Finding]:
    findings = []
    for name in (*NEEDED, *OPTIONAL):
        try:
            findings.append(("ok", f"{name} {importlib.metadata.version(name)}"))
        except importlib.metadata.PackageNotFoundError:
            state = "note" if name in OPTIONAL else "bad"
            findings.append((state, f"{name} is missing; {OPTIONAL.get(name, 'make setup')}"))
    return findings


def _processors(gpus: int) -> list[Finding]:
    import torch

    findings = [("ok", f"{len(os.sched_getaffinity(0))} processor cores")]
    if not torch.cuda.is_available():
        if gpus:
            text = "torch sees no GPU and the configuration asks for one: `jobs: {gpus: 0}`, or another machine"
            submits = shutil.which("sbatch") is not None  # the machine that submits needs no GPU itself
            return [*findings, ("note" if submits else "bad", text + (", as SLURM's nodes are" if submits else ""))]
        return [*findings, ("note", "no GPU: the embedded default runs on the CPU; the paper's scale needs one")]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [*findings, *(("ok", f"GPU {index}: {name}") for index, name in enumerate(names))]


def _conda() -> list[Finding]:
    conda = shutil.which("conda")
    if not conda:
        return [("note", "no conda: `snakemake --sdm conda` needs it; without that option nothing does")]
    try:
        answer = subprocess.run([conda, "--version"], capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return [("note", f"conda: {conda} does not answer ({error}); leave `--sdm conda` out")]
    version = tuple(map(int, re.findall(r"\d+", answer)[:3]))
    if version < MINIMUM_CONDA:
        needed = ".".join(map(str, MINIMUM_CONDA))
        return [("note", f"conda: {conda} is {answer or 'of unknown version'}; `--sdm conda` needs {needed}")]
    return [("ok", f"{answer}: {conda}")]


def _slurm() -> list[Finding]:
    """Whether `--profile profiles/slurm` would work from here; a client without a controller slows every call down."""
    if shutil.which("sbatch") is None:
        return [("note", "no SLURM: `snakemake --profile profiles/slurm` needs its sbatch; without it nothing does")]
    if importlib.util.find_spec(SLURM_PLUGIN.replace("-", "_")) is None:
        return [("note", f"{SLURM_PLUGIN} is missing; `--profile profiles/slurm` needs it: make setup")]
    try:
        said = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        said = None
    if said is None or said.returncode:
        text = (
            "SLURM: no controller answers (`scontrol ping`); until one does, Snakemake waits ten seconds at each start"
        )
        return [("note", text)]
    if re.search(r"^AccountingStorageType\s*=\s*accounting_storage/none", said.stdout, re.MULTILINE):
        text = "SLURM without accounting: set `slurm-status-command: squeue` in profiles/slurm/profile.yaml"
        return [("note", text)]
    return [("ok", "SLURM: the controller answers")]


def _slots() -> list[Finding]:
    folder = slot_folder()
    if not folder.exists() or os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return []
    return [("bad", f"{folder}: GPU slots are kept here and it cannot be written; remove it, or set TMPDIR")]


def _cache() -> list[Finding]:
    """Snakemake keeps copies of sources in the user's cache, and ends with a traceback where it cannot."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "snakemake")
    existing = next(path for path in (folder, *folder.parents) if is_there(path))
    try:
        with tempfile.TemporaryDirectory(dir=existing):
            return []
    except OSError as error:
        text = f"{folder}: Snakemake keeps a cache here and cannot write ({error.strerror})"
        return [("bad", f"{text}; `export XDG_CACHE_HOME=DIR`")]
