"""Draw patch boxes that are there; kept apart from their extraction, which nothing here can change."""

from pathlib import Path

from ltpa.core import layout
from ltpa.core.errors import ConfigError
from ltpa.core.specs import EvaluationSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.data.boxes import read_boxes
from ltpa.report.boxes import draw_boxes
from ltpa.stages.figures import choose_images


def draw(spec: EvaluationSpec, results: Path, seed: int, count: int) -> Path:
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
