"""Figures, patches, two-stream networks and the MLflow store on disks that are too small. Needs root, to mount them."""

import subprocess
from pathlib import Path

import pytest
from test_disk import small_disk as small_disk
from trainings import copy_data, model_hash, run_folder, small_spec, small_two_stream

from ltpa.core import layout
from ltpa.core.errors import DiskFullError
from ltpa.core.patches import PatchSettings
from ltpa.core.specs import PatchSpec
from ltpa.models import get_variant
from ltpa.report.spec import FiguresSpec, GallerySpec
from ltpa.stages import figures, gallery, patches, track
from ltpa.tables.spec import TrackSpec

SPEC = small_spec()
RECORD = run_folder(Path(), SPEC) / layout.RECORD
MAPS = get_variant(SPEC.variant).saliency
NETWORK = {
    "dataset": "noise",
    "variant": SPEC.variant,
    "label": "att2",
    "saliency": MAPS,
    "masking": {"upsampling": "bilinear", "threshold": None},
}


def draw_figures(results):
    spec = FiguresSpec("small", "noise", 1, [0], 2, {SPEC.variant: "att2"}, {SPEC.variant: MAPS}, {})
    figures.run(spec, results, [results / RECORD])


def draw_gallery(results):
    columns = [{"show": "image"}, {"show": "maps", "maps": "combined", **NETWORK}]
    images = {"datasets": ["noise"], "count": 2, "choose": "spread"}
    figure = {"title": "t", "paper": "Figure 0", "images": images, "columns": columns}
    gallery.run(GallerySpec("small", "", 1, 0, {"figure0": figure}, {}), results)


def extract_patches(results):
    settings = PatchSettings().model_dump(mode="json")
    spec = PatchSpec("small", "noise", 1, "center", "", {"mode": "center"}, settings)
    patches.run(spec, results, [0])


def write_store(results):
    track.run(TrackSpec(scale="small"), results, [results / RECORD])


@pytest.fixture(scope="module")
def finished(server, data, tmp_path_factory):
    """The dataset and a trained network, of which figures can be drawn."""
    results = copy_data(data, tmp_path_factory.mktemp("finished") / "results")
    child = server.train(SPEC, results)
    assert child.wait() == 0, child.output.read_text()
    return results


def room(folder):
    return int(subprocess.run(["du", "-sk", str(folder)], capture_output=True, text=True, check=True).stdout.split()[0])


def contents(results):
    """Every file that was there before, by its bytes."""
    return {path: path.read_bytes() for path in sorted(results.rglob("*")) if path.is_file()}


# How much is left: less than any file takes, and as much as some take.
@pytest.mark.parametrize(
    ("write", "rooms", "last"),
    [
        (draw_figures, (60,), "figures/index.json"),
        (draw_gallery, (60,), "figures/paper/index.json"),
        (extract_patches, (0, 8), "patches/noise/center/seed-0/result.json"),
        (write_store, (0, 300), "tracking.json"),
    ],
)
def test_a_full_disk_is_called_that_and_more_space_finishes(finished, small_disk, write, rooms, last):
    disk = small_disk(64 * 1024)
    results = copy_data(finished, disk / "results")
    used, before = room(disk), contents(results)
    for left in rooms:
        small_disk(used + left, "remount")
        with pytest.raises(DiskFullError, match=rf"^{results}/.*: cannot write.*No space left on device") as raised:
            write(results)
        assert raised.value.exit_code == 7 and "\n" not in str(raised.value)
        assert not (results / last).exists() and before.items() <= contents(results).items()
    small_disk(64 * 1024, "remount")
    write(results)
    assert (results / last).is_file()


@pytest.mark.parametrize("left", [8, 120])
def test_a_two_stream_training_on_a_full_disk_goes_on_with_more_space(
    server, data, unbroken_two_stream, small_disk, left
):
    spec, disk = small_two_stream(), small_disk(64 * 1024)
    results = copy_data(data, disk / "results")
    small_disk(room(disk) + left, "remount")
    child = server.train(spec, results)
    assert child.wait() == 7, child.output.read_text()
    assert "Traceback" not in child.output.read_text() and "No space left on device" in child.output.read_text()
    small_disk(64 * 1024, "remount")
    child = server.train(spec, results)
    assert child.wait() == 0, child.output.read_text()
    assert model_hash(results, spec) == unbroken_two_stream
