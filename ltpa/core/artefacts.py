"""What a result record vouches for: the files beside it, and those that it was made from, each by its SHA-256."""

from pathlib import Path

from ltpa.core import layout
from ltpa.core.hashing import sha256_file
from ltpa.core.records import Record


def files_of(record: Record) -> dict[str, str]:
    """SHA-256 of the files beside a record, by name; those whose digest it does not hold are left out."""
    extra = record.extra
    hashes = {
        layout.MODEL: extra.get("model_sha256"),
        layout.HISTORY: extra.get("history_sha256"),
        layout.LOGITS: extra.get("logits", {}).get("sha256"),
        layout.HITS: extra.get("hits", {}).get("sha256"),
        layout.BOXES: extra.get("sha256") if record.stage == "patches" else None,
    }
    return {name: value for name, value in hashes.items() if value}


def intact(folder: Path, record: Record) -> bool:
    """Whether the files that the record vouches for lie in `folder` as they were written."""
    return all(sha256_of(Path(folder) / name) == value for name, value in files_of(record).items())


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file; empty where there is none."""
    return sha256_file(path) if path.is_file() else ""


def sources_of(record: Record) -> dict[Path, str]:
    """SHA-256 of the networks and boxes that a record was made from, by path below the folder of the scale.

    The network that a training starts from is among them. Digests that the record does not hold are left out.
    """
    extra, dataset, variant, seed = record.extra, record.dataset, record.variant, record.seed
    found: dict[Path, str] = {}
    for each in extra.get("networks", []):
        network = layout.run_dir(Path(), "train", each["dataset"], each["variant"], each["seed"])
        found[network / layout.MODEL] = each.get("model_sha256", "")
    if start := extra.get("start"):
        network = layout.run_dir(Path(), "train", start.get("dataset", dataset), variant, seed)
        found[network / layout.MODEL] = start.get("model_sha256", "")
    network = layout.run_dir(Path(), "train", dataset, extra.get("network", ""), seed)
    found[network / layout.MODEL] = extra.get("network_sha256", "")
    if patches := extra.get("patches"):
        found[layout.boxes_path(Path(), dataset, patches["source"], seed)] = patches["sha256"]
    return {path: value for path, value in found.items() if value}
