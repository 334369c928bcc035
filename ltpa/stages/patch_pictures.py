"""Draw and report patch boxes that are there; kept apart from their extraction, which nothing here can change."""

from pathlib import Path

from ltpa.core import layout
from ltpa.core.declared import config_dir
from ltpa.core.errors import ConfigError, DataError
from ltpa.core.files import write_text
from ltpa.core.records import read_record
from ltpa.core.specs import PatchSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.data.boxes import read_boxes
from ltpa.report.boxes import draw_boxes
from ltpa.report.patch_quality import load_reference, quality_table
from ltpa.stages.figures import choose_images


def draw(spec: PatchSpec, results: Path, seed: int, count: int) -> Path:
    """Draw the boxes of the first test images of each class in turn, `count` in all; gives the picture's path.

    Raises:
        ConfigError: `count` is less than one.
        DataError: there are no boxes yet, or they are not those of the dataset.
    """
    if count < 1:
        raise ConfigError(f"patches: --show {count}; ask for at least one image")
    dataset = PreparedDataset.open(layout.data_dir(results, spec.dataset))
    boxes = read_boxes(layout.boxes_path(results, spec.dataset, spec.variant, seed), dataset, "test")
    split = dataset.split("test")
    chosen = choose_images(split, count)
    path = layout.boxes_picture_path(results, spec.dataset, spec.variant, seed)
    parts = None if split.parts is None else split.parts[chosen]
    labels = [dataset.classes[label] for label in split.labels[chosen]]
    draw_boxes(path, split.images[chosen], boxes[chosen], labels, parts)
    return path


def report(results: Path, dataset: str) -> Path:
    """Write the statistics of all patch sources of `dataset` that are there, beside those of the released boxes.

    Raises:
        DataError: there are no boxes of this dataset yet.
        RecordError: a record is damaged.
    """
    folder = Path(results) / "patches" / dataset
    records = [read_record(path) for path in sorted(folder.glob(f"*/seed-*/{layout.RECORD}"))]
    good = [record for record in records if record.status == "ok"]
    if not good:
        raise DataError(f"{folder}: no patch boxes; run `ltpa patches SOURCE {dataset}` first")
    reference = load_reference(config_dir() / "patch_statistics.csv")
    parts = [f"# Patch boxes of {dataset}\n\nMeans over seeds. The last columns are of CUB-200-2011 at 448 px."]
    parts += [f"## {split}\n\n{quality_table(good, split, reference)}" for split in ("train", "test")]
    path = folder / "quality.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path
