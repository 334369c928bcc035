"""Where things lie below `results/<scale>/`; the one place that spells these paths."""

from collections.abc import Iterable
from pathlib import Path

RECORD = "result.json"
MODEL = "model.safetensors"
HISTORY = "history.csv"
HITS = "hits.npy"
LOGITS = "logits.npy"
BOXES = "boxes.parquet"
BOXES_SIDECAR = "boxes.json"
MANIFEST = "manifest.json"
TRACKING = "tracking.json"
CHECKS = "checks.md"
FINDINGS = "findings.md"
CHECKS_JSON = "checks.json"
REPORT = "report"
REPORT_ZIP = "report.zip"
FIGURE_SUFFIXES = ("png", "svg", "pdf")
TABLE_SUFFIXES = ("csv", "md", "tex", "html")


def data_dir(results: Path, dataset: str) -> Path:
    """Folder of a prepared dataset: `manifest.json` and its arrays."""
    return Path(results) / "data" / dataset


def downloads_dir(results: Path) -> Path:
    """Folder of downloaded archives, shared by all scales."""
    return Path(results).parent / "downloads"


def run_dir(results: Path, stage: str, dataset: str, variant: str, seed: int | str) -> Path:
    """Folder of one stage's result for one trained network."""
    return Path(results) / stage / dataset / variant / f"seed-{seed}"


def run_of(path: Path) -> tuple[str, str, str, int] | None:
    """Stage, dataset, variant and seed whose record lies at `path`; None where it is not the place of a record."""
    parts = Path(path).absolute().parts[-5:]
    if len(parts) < 5:
        return None
    stage, dataset, variant, folder, name = parts
    seed = folder.removeprefix("seed-")
    if name != RECORD or folder == seed or not (seed.isascii() and seed.isdecimal()):
        return None
    return stage, dataset, variant, int(seed)


def boxes_path(results: Path, dataset: str, source: str, seed: int) -> Path:
    """Patch boxes of a dataset from one patch source (a name in `config/patches.yaml`); its sidecar lies beside it."""
    return run_dir(results, "patches", dataset, source, seed) / BOXES


def spec_path(results: Path, rule: str, names: Iterable[str], key: str) -> Path:
    """The spec that jobs of a rule read, named by its hash; `names` are those of dataset and network, or of a table."""
    return Path(results, "specs", rule, *names, f"{key}.json")


def code_path(results: Path, key: str) -> Path:
    """What the code of hash `key` consists of."""
    return Path(results, "code", f"{key}.json")


def state_dir(results: Path, stage: str, key: str) -> Path:
    """Folder of resumable state, named by the hash of everything that affects the result."""
    return Path(results) / "state" / stage / key


def overlay_path(results: Path, dataset: str, variant: str, seed: int) -> Path:
    """Picture of one network's maps over test images."""
    return Path(results) / "figures" / "overlays" / f"{dataset}-{variant}-seed-{seed}.png"


def boxes_picture_path(results: Path, dataset: str, source: str, seed: int) -> Path:
    """Picture of one patch source's boxes over test images."""
    return Path(results) / "figures" / "patches" / f"{dataset}-{source}-seed-{seed}.png"


def steps_picture_path(results: Path, dataset: str, row: str, seed: int) -> Path:
    """Picture of what a two-stream network looks at, step by step."""
    return Path(results) / "figures" / "steps" / f"{dataset}-{row}-seed-{seed}.png"


def gallery_path(results: Path, figure: str, suffix: str) -> Path:
    """A figure of images and maps; `suffix` is one of `FIGURE_SUFFIXES`."""
    return Path(results) / "figures" / "paper" / f"{figure}.{suffix}"


def table_path(results: Path, table: str, suffix: str) -> Path:
    """A table's file; `suffix` is one of `TABLE_SUFFIXES` or `tidy.csv`."""
    return Path(results) / "tables" / f"{table}.{suffix}"
