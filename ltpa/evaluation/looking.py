"""Networks that look step by step, led along other paths than their own and read in other ways.

Places are (x, y) in halves of the image's side: (0, 0) the centre, (-1, -1) the top left corner.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from ltpa.core.seeds import derive
from ltpa.evaluation.inference import decided, pixel_batches

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier
    from ltpa.models.looking import Glimpsing, Reading

Found = tuple[dict[str, np.ndarray], np.ndarray]  # predicted classes (N,) by way, places (N, steps, 2) of its own gaze


def walk_all(model: "AttentionClassifier", images: np.ndarray, batch_size: int, seed: int) -> Found:
    """Classes predicted in closed loop, open loop, at random places, at the centre; and the places of the first.

    In open loop every image is looked at along the mean path of all images.

    Raises:
        NotFiniteError: logits that are not finite.
    """
    glimpsing = cast("Glimpsing", model)
    own, places = _walks(model, images, batch_size, None)
    shape = (len(images), glimpsing.glimpses, 2)
    random = np.random.default_rng(derive(seed, "gaze")).uniform(-1, 1, shape)
    paths = {"open loop": np.broadcast_to(places.mean(0), shape), "random": random, "centre": np.zeros(shape)}
    answers = {"closed loop": own}
    for way, path in paths.items():
        answers[way] = _walks(model, images, batch_size, path)[0]
    return answers, places


def read_all(model: "AttentionClassifier", images: np.ndarray, batch_size: int, seed: int) -> Found:
    """Classes predicted in each way of reading; the places are the centres of the cells of largest weight, when it is
    read by expectation.

    Raises:
        NotFiniteError: logits that are not finite.
    """
    reading = cast("Reading", model)
    rows, columns = reading.cells
    noise = np.random.default_rng(derive(seed, "gaze")).random((len(images), reading.steps, rows * columns), np.float32)
    answers: dict[str, list[np.ndarray]] = {"expectation": [], "argmax": [], "sample": []}
    cells = []
    for inputs, block in _inputs(model, images, batch_size):
        for way, parts in answers.items():
            drawn = torch.from_numpy(noise[block]).to(inputs.device) if way == "sample" else None
            logits, weights = reading.read(inputs, way, drawn)
            parts.append(_classes(logits))
            if way == "expectation":
                cells.append(weights.flatten(2).argmax(2).cpu().numpy())
    peak = np.concatenate(cells)
    place = np.stack([(peak % columns + 0.5) / columns, (peak // columns + 0.5) / rows], -1) * 2 - 1
    return {way: np.concatenate(parts) for way, parts in answers.items()}, place


def inside(places: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """Which places (N, 2) lie inside the boxes (N, 4) x0, y0, x1, y1 in pixels of images of this side, (N,) bool."""
    pixels = (np.clip(places, -1, 1) + 1) * (side / 2)
    return ((pixels >= boxes[:, :2]) & (pixels < boxes[:, 2:])).all(1)


def _walks(
    model: "AttentionClassifier", images: np.ndarray, batch_size: int, path: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    classes, places = [], []
    for inputs, block in _inputs(model, images, batch_size):
        led = None if path is None else torch.from_numpy(np.array(path[block], np.float32)).to(inputs.device)
        logits, locations = cast("Glimpsing", model).walk(inputs, led)
        classes.append(_classes(logits))
        places.append(locations.double().cpu().numpy())
    return np.concatenate(classes), np.concatenate(places)


def _inputs(model: Any, images: np.ndarray, batch_size: int) -> Iterator[tuple[torch.Tensor, slice]]:
    done = 0
    with torch.inference_mode():
        for pixels in pixel_batches(model, images, batch_size):
            yield model.preprocessing(pixels), slice(done, done + len(pixels))
            done += len(pixels)


def _classes(logits: torch.Tensor) -> np.ndarray:
    return decided(logits[:, -1]).cpu().numpy()
