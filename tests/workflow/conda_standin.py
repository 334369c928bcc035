"""A stand-in for the `conda` executable and for the channel conda-forge, for machines that have neither.

py-rattler solves and installs, as conda would. The channel is a local folder with two tiny packages: `python`, which
starts the interpreter of the tests, and `pip`, which installs nothing but checks that every pin of the environment file
is what that interpreter has. So a run with it shows that the workflow's conda road works (environment files,
activation, jobs in the environment's python) and that the pins agree with the environment of the tests. It does not
show that the real channel has these packages.
"""

import asyncio
import io
import itertools
import json
import stat
import sys
import tarfile
from pathlib import Path

PIP = """#!{python}
import importlib.metadata, sys
wrong = []
for pin in sys.argv[1:]:
    name, _, version = pin.partition("==")
    found = importlib.metadata.version(name)
    if found.partition("+")[0] != version:
        wrong.append(f"{{pin}}: {{found}} is installed")
sys.exit("; ".join(wrong) or 0)
"""

ACTIVATE = """\
export CONDA_PREFIX="$1"
export PATH="$1/bin:$PATH"
"""

CONDA = """\
#!/bin/sh
printf '%s\\n' "$*" >> "{root}/calls"
exec "{python}" "{script}" "{root}" "$@"
"""


def package(folder: Path, name: str, version: str, program: str) -> None:
    """Write a conda package that holds one executable, `bin/<name>`."""
    index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": [], "subdir": "noarch"}
    entry = {"_path": f"bin/{name}", "path_type": "hardlink", "sha256": None, "size_in_bytes": len(program)}
    files = {
        "info/index.json": json.dumps(index),
        "info/paths.json": json.dumps(
            {"paths": [{k: v for k, v in entry.items() if v is not None}], "paths_version": 1}
        ),
        "info/files": f"bin/{name}\n",
        f"bin/{name}": program,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{name}-{version}-0.tar.bz2", "w:bz2") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text.encode()), 0o755 if path.startswith("bin/") else 0o644
            archive.addfile(member, io.BytesIO(text.encode()))


def install(root: Path) -> Path:
    """Lay the stand-in out below `root`; return the folder to put into PATH."""
    from rattler.index import index_fs

    channel = root / "conda-forge"
    version = ".".join(map(str, sys.version_info[:3]))
    package(channel / "noarch", "python", version, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    package(channel / "noarch", "pip", "99.0", PIP.format(python=sys.executable))
    asyncio.run(index_fs(channel))
    folder = root / "bin"
    folder.mkdir()
    (folder / "activate").write_text(ACTIVATE)
    (folder / "conda").write_text(CONDA.format(root=root, python=sys.executable, script=Path(__file__).resolve()))
    (folder / "conda").chmod(stat.S_IRWXU)
    return folder


async def create(root: Path, file: Path, prefix: Path) -> None:
    """Make the environment of `file` in `prefix`."""
    import rattler
    import yaml

    declared = yaml.safe_load(file.read_text())
    specs = [entry for entry in declared["dependencies"] if isinstance(entry, str)]
    pins = [pin for entry in declared["dependencies"] if isinstance(entry, dict) for pin in entry["pip"]]
    channels = [rattler.Channel((root / name).as_uri()) for name in declared["channels"]]
    records = await rattler.solve(channels, specs, platforms=["noarch", "linux-64"])
    await rattler.install(records, prefix, cache_dir=root / "cache", show_progress=False)
    process = await asyncio.create_subprocess_exec(prefix / "bin" / "pip", *pins)
    if await process.wait():
        sys.exit(f"{file}: pip failed")


def main(root: Path, arguments: list[str]) -> None:
    """Answer the calls that Snakemake makes."""
    if arguments == ["info", "--json"]:
        print(json.dumps({"conda_prefix": str(root), "platform": "linux-64", "root_prefix": str(root)}))
    elif arguments == ["--version"]:
        print("conda 26.7.1")
    elif arguments[:2] == ["config", "--get"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif arguments[:2] == ["env", "create"]:
        options = dict(itertools.pairwise(arguments))
        asyncio.run(create(root, Path(options["--file"]), Path(options["--prefix"])))
    elif arguments[:1] != ["clean"]:
        sys.exit(f"the stand-in does not know: conda {' '.join(arguments)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
