"""The patch sources: for each mode of `config/patches.yaml` how the boxes of a dataset's splits come about."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ltpa.core.errors import ConfigError
from ltpa.core.patches import PARITY, PatchSettings, PatchSource
from ltpa.core.seeds import derive
from ltpa.data.arrays import PreparedDataset
from ltpa.data.boxes import Boxes
from ltpa.data.released import read_released
from ltpa.evaluation import patch_maps, patches, prototypes, trunk
from ltpa.evaluation.inference import pixel_batches
from ltpa.evaluation.patches import Candidate
from ltpa.runtime.stopping import StopRequest
from ltpa.stages.prototypes import trained_prototypes
from ltpa.stages.state import Identity
from ltpa.training.loop import EpochRow

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One extraction: the boxes of one source on one dataset, for one seed.

    Attributes:
        model: the network behind the source, on its device; None where there is none.
        identity: everything that affects the result.
        results: folder of the scale.
        stop: asked after each step of a training; a signal also ends what follows, between batches of images.
        on_epoch: called with the seed and row of each finished epoch of a training.
    """

    dataset: PreparedDataset
    source: PatchSource
    settings: PatchSettings
    model: "AttentionClassifier | None"
    seed: int
    identity: Identity
    results: Path
    stop: StopRequest
    on_epoch: Callable[[int, EpochRow], None]

    def check_stop(self) -> None:
        """Raise `Stopped` where a signal asks for it. A time limit does not: there is nothing here to resume from."""
        if self.stop.received is not None:
            self.stop.check(f"patches {self.identity.variant} on {self.dataset.name}, seed {self.seed}")


Extracted = tuple[dict[str, Boxes], dict[str, Any]]  # boxes of every split, and small facts worth keeping


def _protolite(job: Job) -> Extracted:
    """Prototypes from the cells of the training images, then boxes of all."""
    settings, train = job.settings, job.dataset.split("train").images
    generator = np.random.default_rng(derive(job.seed, "patches", "protolite"))
    cells, owners = prototypes.foreground_cells(_maps(job, train), settings.cells_per_image, generator)
    centroids, assigned = prototypes.spherical_kmeans(cells, settings.clusters, settings.iterations, generator)
    kept = prototypes.common(centroids, assigned, owners, len(train), settings.min_share)
    found = {}
    for name, split in job.dataset.splits.items():
        batches = (prototypes.similarity_maps(maps, kept) for maps in _maps(job, split.images))
        found[name] = patch_maps.boxes_of_maps(batches, job.dataset.image_size, settings)
    return found, {"prototypes": len(kept)}


def _maps(job: Job, images: np.ndarray) -> Iterator[np.ndarray]:
    assert job.model is not None
    settings = job.settings
    for maps in trunk.feature_maps(job.model, images, settings.batch_size, settings.grid, settings.level):
        job.check_stop()
        yield maps


def _protopnet(job: Job) -> Extracted:
    """Prototypes trained on the training images and their labels, then boxes of all images, from all prototypes."""
    model = job.model
    assert model is not None
    chosen = job.source.protopnet
    assert chosen is not None
    network, history = trained_prototypes(
        model, job.dataset, chosen, job.settings, job.identity, job.results, job.stop, job.on_epoch
    )

    def maps(images: np.ndarray) -> Iterator[np.ndarray]:
        for pixels in pixel_batches(model, images, job.settings.batch_size):
            job.check_stop()
            with torch.inference_mode():
                yield network.similarity_maps(model.preprocessing(pixels)).float().cpu().numpy()

    found = {
        name: patch_maps.boxes_of_maps(maps(split.images), job.dataset.image_size, job.settings)
        for name, split in job.dataset.splits.items()
    }
    weights = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().numpy().tobytes())
    facts = {"prototypes": len(network.prototypes), "prototype_losses": [round(row.train_loss, 6) for row in history]}
    return found, {**facts, "prototype_network_sha256": weights.hexdigest()}


def _cam_window(job: Job) -> Extracted:
    assert job.model is not None
    size, settings, source = job.dataset.image_size, job.settings, job.source
    found = {}
    for name, split in job.dataset.splits.items():
        job.check_stop()
        maps = trunk.saliency_maps(
            job.model, split.images, settings.batch_size, source.map, source.saliency, settings.level
        )
        rows = [patches.fill(patch_maps.window_candidates(each, size, settings), size, settings) for each in maps]
        found[name] = patches.stack(rows)
    return found, {}


def _center(job: Job) -> Extracted:
    size = job.dataset.image_size
    splits = job.dataset.splits.items()
    return {name: patches.center_boxes(len(split), size, job.settings) for name, split in splits}, {}


def _random(job: Job) -> Extracted:
    size, dataset = job.dataset.image_size, job.dataset
    return {
        name: patches.random_boxes(len(split), size, job.settings, job.seed, f"{dataset.name}/{name}")
        for name, split in dataset.splits.items()
    }, {}


def _full(job: Job) -> Extracted:
    size = job.dataset.image_size
    return {name: patches.full_boxes(len(split), size, job.settings) for name, split in job.dataset.splits.items()}, {}


def _released(job: Job) -> Extracted:
    """The user's arrays as they are: no box is cleaned."""
    parity = job.settings.model_copy(update={"cleaning": PARITY})
    files = job.source.released or {}
    found = {}
    for name, split in job.dataset.splits.items():
        if name not in files:
            raise ConfigError(f"protocols.patches.released: no file for split {name}; add {name}: PATH")
        boxes = read_released(Path(files[name]), split, job.settings.boxes)
        rows = [[Candidate((y0, x0, y1, x1), 0.0, -1) for y0, x0, y1, x1 in each] for each in boxes.tolist()]
        found[name] = patches.stack([patches.fill(row, job.dataset.image_size, parity) for row in rows])
    return found, {}


MODES = {
    "protolite": _protolite,
    "protopnet": _protopnet,
    "cam_window": _cam_window,
    "center": _center,
    "random": _random,
    "full": _full,
    "released": _released,
}
