"""What a result came from: which version, which libraries, which kind of processor, how much time and memory."""

import functools
import importlib.metadata
import os
import platform
import re
import resource
import subprocess
from pathlib import Path

import ltpa

_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "scikit-image", "safetensors")
# Those that compute what a training computes: other versions of them may round otherwise.
COMPUTING = ("torch", "numpy", "oneDNN", "MKL", "numpy-blas")
_BUILT_IN = {"oneDNN": r"MKL-DNN v([\w.]+)", "MKL": r"Math Kernel Library Version ([\w.]+)"}
# What processors of one family and model may have or lack, and torch's name for their capability does not say.
_EXTRAS = ("avx512_bf16", "avx512_fp16", "amx_bf16")
# What makes the libraries choose other instructions, and so round otherwise, than they would on this processor.
OVERRIDES = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
)


@functools.cache
def code_version() -> str:
    """The package version and its commit.

    In a checkout the commit is git's, `.dirty` where the package differs from it; in an archive made by `git archive`,
    which a download of a release is, the one that git wrote into it. Elsewhere the version stands alone.
    """
    package = Path(ltpa.__file__).resolve().parent
    commit = _checked_out(package.parent) or _archived(package)
    return f"{ltpa.__version__}+g{commit}" if commit else ltpa.__version__


def _checked_out(root: Path) -> str:
    """The commit of the checkout at `root`; empty where there is none, or where `root` is a folder in another one."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return ""
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + (".dirty" if git("status", "--porcelain", "--", "ltpa") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _archived(package: Path) -> str:
    """The commit that `git archive` wrote into the package; empty where none did."""
    text = (package / "core" / "commit.txt").read_text(encoding="ascii").strip()
    return "" if text.startswith("$") else text[:12]


@functools.cache
def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that can change a number; absent ones are left out."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "torch" in versions:
        import torch

        built = torch.__config__.show()
        versions |= {name: found[1] for name, pattern in _BUILT_IN.items() if (found := re.search(pattern, built))}
    if "numpy" in versions:
        import numpy as np

        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        versions["numpy-blas"] = f"{blas.get('name')} {blas.get('version')}"
    return versions


def computing_libraries() -> dict[str, str]:
    """Those of `library_versions` that compute what a training computes."""
    return {name: version for name, version in library_versions().items() if name in COMPUTING}


@functools.cache
def processor() -> str:
    """The kind of processor that torch computes on here, as far as it changes how numbers are rounded.

    Vendor, family and model, torch's CPU capability, and the environment variables that override what the libraries
    would choose: `GenuineIntel family 6 model 85, AVX512, ONEDNN_MAX_CPU_ISA=AVX2`.
    """
    import torch

    facts = _processor_facts(Path("/proc/cpuinfo"))
    flags = facts.get("flags", "").split()
    extras = [name for name in _EXTRAS if name in flags]
    set_here = [f"{name}={os.environ[name]}" for name in OVERRIDES if os.environ.get(name)]
    return ", ".join([_model(facts), torch.backends.cpu.get_cpu_capability(), *extras, *set_here])


def _processor_facts(path: Path) -> dict[str, str]:
    """What Linux says of the first processor; nothing on other systems."""
    try:
        first = path.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def _model(facts: dict[str, str]) -> str:
    if "vendor_id" in facts:
        return f"{facts['vendor_id']} family {facts.get('cpu family')} model {facts.get('model')}"
    if "CPU implementer" in facts:
        return f"{platform.machine()} implementer {facts['CPU implementer']} part {facts.get('CPU part')}"
    return platform.machine()


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, in MB (10^6 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
