"""Draw what a trained two-stream network looks at, step by step: Grad-CAM and, in the chapter-7 form, its true maps."""

from pathlib import Path

import numpy as np

from ltpa.core import layout
from ltpa.core.errors import ModelError
from ltpa.core.specs import TrainSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation.step_maps import StepMaps, step_maps
from ltpa.models.store import load
from ltpa.models.twostream.inputs import crop, patches_of, pixels
from ltpa.models.twostream.network import TwoStream
from ltpa.report.steps import draw_steps
from ltpa.stages.device import compute_device
from ltpa.training.fine_data import fine_splits
from ltpa.training.two_stream_recipe import TwoStreamRecipe


def draw(spec: TrainSpec, results: Path, seed: int, images: int) -> Path:
    """Draw the best-ranked patches of the first test images with the network of one seed; the picture's path.

    Raises:
        ModelError: the network is missing, or has no steps.
        DataError: its patch boxes are missing or belong to other images.
    """
    dataset = PreparedDataset.open(layout.data_dir(results, spec.dataset))
    path = layout.run_dir(results, "train", spec.dataset, spec.variant, seed) / layout.MODEL
    model = load(path, expect_variant=spec.variant)
    if not isinstance(model, TwoStream) or not model.options.sees_patches:
        raise ModelError(f"{path}: a network without a local stream has no steps to show")
    recipe = TwoStreamRecipe.from_dict(spec.recipe, f"recipe of {spec.variant}")
    boxes = layout.boxes_path(results, spec.dataset, recipe.patches, seed)
    _, test = fine_splits(dataset, boxes, recipe.boxes, recipe.split)
    assert test.boxes is not None
    chosen, best = np.array(test.images[:images]), test.boxes[:images, 0]
    with compute_device("cpu", spec.threads) as device:
        batch = pixels(chosen, device)
        cut = crop(batch, best, model.options.patch_size)
        found = step_maps(model, patches_of(batch, best, model.options))
    patches = cut.permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy()
    path = layout.steps_picture_path(results, spec.dataset, spec.variant, seed)
    draw_steps(path, chosen, best, patches, _rows(found), _caption(found))
    return path


def _rows(found: StepMaps) -> list[tuple[str, np.ndarray, list[str]]]:
    rows = []
    for image, cams in enumerate(found.cams):
        shares = [""] * len(cams) if found.weights is None else [f": {w:.2f}" for w in found.weights[image]]
        rows.append(("Grad-CAM", cams, [f"step {t + 1}{share}" for t, share in enumerate(shares)]))
        if found.looks is not None:
            looks = found.looks[image]
            looks = looks / looks.max(axis=(1, 2), keepdims=True)
            rows.append(("attention", looks, [f"look {t + 1}" for t in range(len(looks))]))
    return rows


def _caption(found: StepMaps) -> str:
    spread = float(found.spread.max())
    if found.looks is None:
        return (
            f"The gradient behind each step's Grad-CAM varies over positions by {spread:.1g} of its size: the same "
            "maps under other channel weights."
        )
    return f"The gradient varies over positions by {spread:.1g} of its size; looks are the attention maps themselves."
