"""Write the lock files: the packages installed here, pinned, with the SHA-256 of every file of each release.

    make lock    # installs uv for a moment, which looks the hashes up at the package index, and calls this

`requirements.lock` holds all packages but those that only PyTorch's CUDA build needs; these are in
`requirements-cuda.lock`. Both serve every system and Python version that the releases have files for.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
HEADS = {
    "requirements.lock": "Every package of the environment, pinned, with the hashes of its files.",
    "requirements-cuda.lock": "What PyTorch's CUDA build needs besides; the Makefile installs it where pip takes that.",
}
RENEW = "# To renew: install newer versions into .venv, run `make lint test`, and then `make lock`."


def output(*command: str, text: str = "") -> str:
    """What a command prints; the script ends where the command fails."""
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return done.stdout


def hashed(pins: str, *options: str) -> list[str]:
    """An entry for each package: its pin and the hashes of all files of that release, as pip reads them."""
    command = ("uv", "pip", "compile", "-", "--universal", "--python-version", "3.11", "--generate-hashes")
    text = output(*command, "--no-annotate", "--no-header", "--quiet", *options, text=pins)
    return re.split(r"\n(?=\S)", text.strip())


def name_of(entry: str) -> str:
    """The package of an entry."""
    return entry.partition("==")[0]


def with_file_taken_here(entry: str) -> str:
    """An entry with the hash of the file that pip takes here, which may be a local build such as torch's for CPUs."""
    pin = entry.split()[0]
    command = (sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet")
    report = json.loads(output(*command, "--report", "-", pin))
    line = f"--hash=sha256:{report['install'][0]['download_info']['archive_info']['hashes']['sha256']}"
    return entry if line in entry else f"{entry} \\\n    {line}"


def main() -> None:
    """Write both files."""
    installed = ("list", "--format", "freeze", "--exclude-editable", "--exclude", "pip", "--exclude", "uv")
    pins = re.sub(r"\+.*", "", output(sys.executable, "-m", "pip", *installed))  # a local build is one of a release
    torch = next(line for line in pins.splitlines() if line.startswith("torch=="))
    entries = hashed(pins, "--no-deps")
    here = {name_of(entry) for entry in entries}
    entries = [with_file_taken_here(entry) if name_of(entry) == "torch" else entry for entry in entries]
    others = FOLDER / "requirements.lock"
    others.write_text("\n".join([f"# {HEADS[others.name]}", RENEW, *entries]) + "\n", encoding="utf-8")
    cuda = [entry for entry in hashed(torch, "--constraint", str(others)) if name_of(entry) not in here]
    text = "\n".join([f"# {HEADS['requirements-cuda.lock']}", RENEW, *cuda]) + "\n"
    (FOLDER / "requirements-cuda.lock").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
