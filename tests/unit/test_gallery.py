"""Figures of images and maps, pictures of a user, and one protocol on a folder: what comes out, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ltpa.cli import main
from ltpa.core import layout
from ltpa.core.errors import ConfigError
from ltpa.core.records import Metric, Record, write_record
from ltpa.data.arrays import Split, write_prepared
from ltpa.data.decode import load_input
from ltpa.data.normalise import fit_normaliser
from ltpa.evaluation import svm
from ltpa.evaluation.inference import attention_maps
from ltpa.evaluation.saliency import upsample
from ltpa.evaluation.segmentation import otsu_masks
from ltpa.models import create_model, load, save_model
from ltpa.plan import Plan, gallery
from ltpa.plan.config import load_config, parse_config
from ltpa.plan.schema import FigureEntry, check_entries
from ltpa.report.curves import draw_attack_curves
from ltpa.report.gallery import Cell
from ltpa.report.map_use import MapUse, draw_map_use
from ltpa.report.spec import FiguresSpec, GallerySpec
from ltpa.stages import attend as attend_stage
from ltpa.stages import figures as figures_stage
from ltpa.stages import gallery as gallery_stage

ROOT = Path(__file__).parents[2]
SIZE, CLASSES = 20, ["ant", "bee", "cat"]
PC, GAP = "vgg-att2-concat-pc", "vgg-gap"
LIMITS = {"cross-entropy": 0.5, "two-stream": 0.9}
MASKING = {"upsampling": "bilinear", "threshold": None}
NETWORK = {"variant": PC, "dataset": "toy", "label": "att2", "masking": MASKING}
ATTENTION = {"source": "attention", "levels": ["conv10", "conv13"], "sqrt": True}


def pixels(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A dataset with masks and two untrained networks."""
    folder = tmp_path_factory.mktemp("results")
    masks = np.zeros((9, SIZE, SIZE), dtype=np.uint8)
    masks[:, 4:8, 4:12] = 1
    split = Split(pixels(9, SIZE), np.arange(9) % 3, np.array([f"toy/{i}" for i in range(9)]), masks=masks)
    write_prepared(layout.data_dir(folder, "toy"), "toy", CLASSES, {"test": split}, {})
    for variant in (PC, GAP):
        torch.manual_seed(0)
        model = create_model(variant, 3, image_size=SIZE, width=1 / 16)
        model.preprocessing = fit_normaliser("meanstd", pixels(8, SIZE))
        run = layout.run_dir(folder, "train", "toy", variant, 0)
        save_model(
            run / layout.MODEL, model, variant=variant, architecture=model.architecture, num_classes=3,
            image_size=SIZE, classes=CLASSES,
        )  # fmt: skip
        write_record(run / layout.RECORD, trained(variant))
    return folder


def errors(test_error: float) -> list[Metric]:
    return [Metric("test_error_pct", test_error, 9, "toy"), Metric("chance_error_pct", 66.7, 9, "toy")]


def trained(variant: str, **changes) -> Record:
    values = {
        "stage": "train", "scale": "toy", "dataset": "toy", "variant": variant, "seed": 0, "metrics": errors(20.0),
        "config_hash": "", "data_hash": "", "code_hash": "", "code_version": "", "libraries": {}, "device": "cpu",
        "threads": 1, "seconds": 0.0, "peak_memory_mb": 0.0,
    }  # fmt: skip
    return Record(**{**values, **changes})


def spec(columns: list[dict], choose: str = "first_of_each_class", count: int = 3, missing=None) -> GallerySpec:
    images = {"datasets": ["toy"], "count": count, "choose": choose}
    figure = {"title": "t", "paper": "Figure 0", "images": images, "columns": columns}
    return GallerySpec("toy", "", 1, 0, {"figure0": figure}, missing or {}, LIMITS)


def drawn(results: Path, monkeypatch: pytest.MonkeyPatch, wanted: GallerySpec) -> tuple[list[str], list, list]:
    """Titles, labels and cells that the stage hands to the renderer."""
    calls = []
    monkeypatch.setattr(gallery_stage, "draw_gallery", lambda paths, *rest, **texts: calls.append(rest))
    monkeypatch.setattr("ltpa.report.index.sha256_file", lambda path: "0" * 64)
    gallery_stage.run(wanted, results)
    return calls[0]


def test_every_kind_of_column_shows_what_it_says(results: Path, monkeypatch: pytest.MonkeyPatch):
    columns = [
        {"show": "image"},
        {"show": "maps", "maps": "attention", **NETWORK, "saliency": ATTENTION},
        {"show": "maps", "maps": "gradcam", **NETWORK, "saliency": ATTENTION},
        {"show": "binary", **NETWORK, "saliency": ATTENTION},
        {"show": "truth"},
        {"show": "attacked", "epsilons": [1, 16], **NETWORK, "saliency": ATTENTION},
        {"show": "query", "level": "conv10", **NETWORK, "saliency": ATTENTION},
    ]
    titles, labels, rows = drawn(results, monkeypatch, spec(columns))
    assert labels == CLASSES and len(rows) == 3 and all(len(row) == len(titles) == 13 for row in rows)
    model = load(layout.run_dir(results, "train", "toy", PC, 0) / layout.MODEL)
    images = pixels(9, SIZE)[:3]
    maps = upsample(attention_maps(model, images, 3)["conv10"], (SIZE, SIZE))
    cells = dict(zip(titles, rows[1], strict=True))
    np.testing.assert_array_equal(cells["image"].image, images[1])
    np.testing.assert_allclose(cells["att2\ntoy\nconv10"].saliency, maps[1], rtol=1e-6)
    assert cells["annotated"].image.sum() == 4 * 8
    assert abs(cells["att2\ntoy\nnorm 16"].image.astype(int) - images[1]).max() == 16
    assert abs(cells["att2\ntoy\nnorm 1"].image.astype(int) - images[1]).max() == 1
    np.testing.assert_array_equal(cells["att2\ntoy\nnorm 0"].image, images[1])
    assert abs(cells["att2\ntoy\ndifference"].difference).max() < 1e-3  # pc ignores the query
    np.testing.assert_array_equal(cells["att2\ntoy\nquery"].image, images[2])


def test_the_same_spec_gives_the_same_bytes_in_all_formats(results: Path, tmp_path: Path):
    wanted = spec([{"show": "image"}, {"show": "maps", "maps": "combined", **NETWORK, "saliency": ATTENTION}], count=2)
    files = []
    for _ in range(2):
        gallery_stage.run(wanted, results)
        index = json.loads((results / "figures" / "paper" / "index.json").read_text())
        files.append(index["files"])
    assert files[0] == files[1] and set(files[0]) == {"figure0.png", "figure0.svg", "figure0.pdf"}
    folder = results / "figures" / "paper"
    assert (folder / "figure0.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (folder / "figure0.svg").read_text()
    assert np.asarray(Image.open(folder / "figure0.png")).std() > 10


def test_the_caption_says_what_the_declaration_does(results: Path):
    columns = [{"show": "image"}, {"show": "maps", "maps": "combined", **NETWORK, "saliency": ATTENTION}]
    for changes, words in (({}, "seed 0"), ({"choose": "spread"}, "spread evenly"), ({}, "the first of each class")):
        wanted = spec(columns, count=2, **changes)
        gallery_stage.run(wanted, results)
        index = json.loads((results / "figures" / "paper" / "index.json").read_text())
        assert words in index["captions"]["figure0"] and "toy" in index["captions"]["figure0"]
        svg = (results / "figures" / "paper" / "figure0.svg").read_text()
        for shown in ("Figure 0: t", words, "map, times a uniform one"):
            assert f"<!-- {shown}" in svg or any(shown in line for line in svg.splitlines() if "<!--" in line)


def test_an_image_without_object_is_labelled(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    masks = np.zeros((3, SIZE, SIZE), dtype=np.uint8)
    masks[1:, 4:8] = 1
    split = Split(pixels(3, SIZE), np.arange(3), np.array(["a", "b", "c"]), masks=masks)
    write_prepared(layout.data_dir(tmp_path, "toy"), "toy", CLASSES, {"test": split}, {})
    _, labels, _ = drawn(tmp_path, monkeypatch, spec([{"show": "image"}, {"show": "truth"}]))
    assert labels == ["ant\nno object", "bee", "cat"]


def test_attack_curves_name_their_data(results: Path, monkeypatch: pytest.MonkeyPatch):
    titles = []
    monkeypatch.setattr(figures_stage, "draw_overlays", lambda *_: None)
    monkeypatch.setattr(
        figures_stage, "draw_attack_curves", lambda path, curves, published, title, caption: titles.append(title)
    )
    monkeypatch.setattr(figures_stage, "draw_learning_curves", lambda *_: None)
    monkeypatch.setattr("ltpa.report.index.sha256_file", lambda path: "0" * 64)
    attack = trained("vgg", stage="fgsm", metrics=[Metric("fooling_rate_pct", 5.0, 9, "toy", "eps=2")])
    path = results / "attack.json"
    write_record(path, attack)
    for comparable in (False, True):
        labels = {PC: "att2", "vgg": "VGG"}
        wanted = FiguresSpec("tiny", "toy", 1, [0], 3, labels, {PC: ATTENTION}, {}, comparable)
        figures_stage.run(wanted, results, [path])
    assert titles == ["toy, scale tiny; the paper's curves are of other images and networks", "toy, scale tiny"]


def test_figures_name_the_networks_that_did_not_learn(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In the picture and in the index; networks that learned are not named."""
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    path = layout.run_dir(tmp_path, "train", "toy", PC, 0) / layout.RECORD
    write_record(path, trained(PC, metrics=errors(60.0)))
    told = "Did not learn: vgg-att2-concat-pc on toy, seed 0: test error 60.0 %, beyond 0.5 of guessing (66.7 %)."
    columns = [{"show": "binary", **NETWORK, "saliency": ATTENTION}]
    gallery_stage.run(spec(columns), tmp_path)
    assert json.loads((tmp_path / "figures" / "paper" / "index.json").read_text())["captions"]["figure0"].endswith(told)

    drawn = {}
    for name in ("draw_overlays", "draw_learning_curves", "draw_attack_curves", "draw_map_use"):
        monkeypatch.setattr(figures_stage, name, lambda path, *rest: drawn.update({path.name: rest[-1]}))
    monkeypatch.setattr("ltpa.report.index.sha256_file", lambda path: "0" * 64)
    network = {"learning": "cross-entropy", "dataset": "toy", "variant": "vgg", "seed": 0, "chance_pct": 90.0}
    extra = {"networks": [{**network, "error_pct": error} for error in (44.0, 46.0)]}
    metrics = [Metric("fooling_rate_pct", 5.0, 9, "toy", "eps=2")]
    attack = trained("vgg", stage="fgsm", metrics=metrics, extra=extra)
    write_record(tmp_path / "attack.json", attack)
    write_record(tmp_path / "causal.json", trained(PC, stage="causal", metrics=[], extra=extra))
    (path.parent / layout.HISTORY).write_text("epoch,test_error_pct\n1,60.0\n")
    wanted = FiguresSpec(
        "tiny", "toy", 1, [0], 3, {PC: "att2", "vgg": "VGG"}, {PC: ATTENTION}, {}, max_error_of_chance=LIMITS
    )
    figures_stage.run(wanted, tmp_path, [path, tmp_path / "attack.json", tmp_path / "causal.json"])
    index = json.loads((tmp_path / "figures" / "index.json").read_text())
    assert index["captions"] == drawn
    fooling = drawn.pop("fooling-rate.png")
    assert drawn.pop("map-use.png") == fooling
    assert set(drawn.values()) == {told} and "attention.png" in drawn and "learning-curves.png" in drawn
    assert fooling == "Did not learn: vgg on toy, seed 0: test error 46.0 %, beyond 0.5 of guessing (90.0 %)."


def test_the_use_of_maps_is_read_from_the_records(monkeypatch: pytest.MonkeyPatch):
    """Accuracy from replaced maps; the place from the first dataset that has a centre prior, of the combined map."""
    drawn = {}
    monkeypatch.setattr(figures_stage, "draw_map_use", lambda path, networks, titles, caption: drawn.update(
        networks=networks, titles=titles))  # fmt: skip
    numbers = [
        ("own_accuracy_pct", "", 90.0), ("accuracy_pct", "uniform all", 20.0), ("accuracy_pct", "peak all", 80.0),
        ("accuracy_pct", "uniform conv10", 50.0), ("refit_accuracy_pct", "uniform all", 85.0),
    ]  # fmt: skip
    replaced = [Metric(name, value, 9, "toy", condition) for name, condition, value in numbers]
    places = [("pointing_pct", "conv13", 9.0), ("pointing_pct", "combined", 60.0), ("pointing_pct", "centre", 12.0),
              ("pointing_pct", "untrained-0", 1.0), ("pointing_chance_pct", "combined", 8.0)]  # fmt: skip
    looked = [Metric(name, value, 9, "shapes", condition) for name, condition, value in places]
    unmasked = [Metric("pointing_in_box_pct", 50.0, 9, "toy", "combined")]
    records = [trained(PC, stage="causal", metrics=replaced), trained(PC, stage="causal", metrics=replaced),
               trained(PC, stage="segmentation", metrics=unmasked + looked)]  # fmt: skip
    wanted = FiguresSpec("tiny", "toy", 1, [0], 3, {PC: "att2"}, {}, {})
    figures_stage._map_use(wanted, records, Path("map-use.png"), "")
    assert drawn["networks"] == {"att2": MapUse([90.0, 90.0], [20.0, 20.0], [85.0, 85.0], [60.0], [12.0], [8.0])}
    assert drawn["titles"] == ("With and without the map: toy, scale tiny", "Where the map looks: shapes")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("networks", [{}, {"att2": MapUse([90.0, 92.0], [20.0], [85.0])}])
def test_the_use_of_maps_is_drawn_with_the_number_of_seeds(networks, tmp_path: Path):
    draw_map_use(tmp_path / "map-use.png", networks, ("toy, scale tiny", "shapes"), "Did not learn: none.")
    svg = (tmp_path / "map-use.svg").read_text()
    for text in ("toy, scale tiny", *(["att2, n = 2", "with a uniform map"] if networks else ["nothing was measured"])):
        assert f"<!-- {text} -->" in svg


def test_curves_are_drawn_with_the_norms_of_the_attack(tmp_path: Path):
    draw_attack_curves(tmp_path / "rate.png", {"VGG": {1: [5.0, 7.0], 16: [50.0]}}, {"VGG": {1: 60.0}}, "toy")
    svg = (tmp_path / "rate.svg").read_text()
    for text in ("toy", "16", "VGG, mean over seeds", "VGG, paper"):
        assert f"<!-- {text} -->" in svg


def test_images_are_spread_evenly_where_the_rule_says_so(results: Path, monkeypatch: pytest.MonkeyPatch):
    _, _, rows = drawn(results, monkeypatch, spec([{"show": "image"}], choose="spread"))
    for row, index in zip(rows, (0, 4, 8), strict=True):
        np.testing.assert_array_equal(row[0].image, pixels(9, SIZE)[index])


def test_a_failed_training_leaves_its_figure_out_and_says_why(results: Path):
    path = layout.run_dir(results, "train", "toy", "vgg-pan", 0) / layout.RECORD
    write_record(path, trained("vgg-pan", status="failed", reason="the loss is not finite in epoch 2"))
    column = {"show": "binary", **NETWORK, "variant": "vgg-pan", "saliency": ATTENTION}
    gallery_stage.run(spec([column], missing={"figure9": "no dataset"}), results)
    index = json.loads((results / "figures" / "paper" / "index.json").read_text())
    assert "not finite in epoch 2" in index["missing"]["figure0"]
    assert index["missing"]["figure9"] == "no dataset"


def test_unknown_maps_and_levels_are_named(results: Path):
    for column, words in (
        ({"show": "maps", "maps": "grdcam"}, "gradcam"),
        ({"show": "query", "level": "conv11"}, "conv10"),
    ):
        with pytest.raises(ConfigError, match=words):
            gallery_stage.run(spec([{**column, **NETWORK, "saliency": ATTENTION}]), results)


def test_every_figure_of_the_paper_is_planned_at_every_scale_without_further_training():
    for name in ("config", "reduced", "paper"):
        path = ROOT / "config" / f"{name}.yaml"
        plan = Plan(load_config(path), str(path))
        found = gallery.gallery_spec(plan)
        assert set(found.figures) == {"figure2", "figure3", "figure4", "figure5", "figure7", "figure8", "figure10"}
        assert not found.missing


def test_a_figure_without_its_network_or_images_is_left_out_with_the_reason():
    values = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    values["datasets"].remove("digits-scenes")
    values["variants"].remove("vgg-att3-concat-pc")
    values["protocols"]["query"] = {"variants": ["vgg-att2-concat-dp"]}
    missing = gallery.gallery_spec(Plan(parse_config(values, "few.yaml"), "few.yaml")).missing
    assert "scene67" in missing["figure7"] and "vgg-att3-concat-pc" in missing["figure2"] and len(missing) == 2


def test_a_column_with_keys_of_another_kind_is_refused():
    entry = {
        "title": "t",
        "paper": "p",
        "images": {"roles": ["cifar10"], "count": 1, "choose": "spread"},
        "columns": [{"show": "truth", "variant": "vgg"}],
    }
    with pytest.raises(ConfigError, match=r"figure1: key .columns.0.*truth goes with no other key"):
        check_entries({"figure1": entry}, FigureEntry, "config/figures.yaml")


# --- pictures of a user ---


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of six pictures, masks for them, all of another size than the network's."""
    for label in ("ant", "bee"):
        for number in range(6):
            for kind in ("images", "masks"):
                path = tmp_path / kind / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = pixels(1, 40, number)[0]
                if kind == "masks":
                    picture = np.zeros((40, 40), np.uint8)
                    picture[10:20, 10:30] = 255
                Image.fromarray(picture).save(path)
    return tmp_path


def model_path(results: Path, variant: str = PC) -> str:
    return str(layout.run_dir(results, "train", "toy", variant, 0) / layout.MODEL)


def test_attend_lays_maps_over_a_picture_in_its_own_proportions(results: Path, pictures: Path, monkeypatch):
    picture = pictures / "wide.png"
    Image.fromarray(pixels(1, 60)[0][:30]).save(picture)
    drawn: list[list[Cell]] = []
    monkeypatch.setattr(attend_stage, "draw_gallery", lambda paths, titles, labels, rows: drawn.extend(rows))
    (line,) = attend_stage.attend([picture], Path(model_path(results)), pictures / "out")
    assert "wide.png is seen as" in line
    assert [cell.saliency.shape for cell in drawn[0][1:-1]] == [(30, 60)] * 3
    np.testing.assert_array_equal(drawn[0][-1].image, otsu_masks(drawn[0][-2].saliency[None])[0])
    attention = drawn[0][1].saliency
    model = load(model_path(results))
    own = attention_maps(model, load_input(picture, model.image_size)[None], 1)["conv10"]
    expected = upsample(own, (30, 60))[0]
    np.testing.assert_allclose(attention, expected / expected.max(), rtol=1e-5)


def test_attend_as_a_user_types_it(results: Path, pictures: Path, capsys: pytest.CaptureFixture[str]):
    images = [str(pictures / "images" / "ant" / f"{number}.png") for number in (0, 1)]
    out = pictures / "out"
    assert main(["attend", *images, "--model", model_path(results), "--output", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["0-attention.png", "1-attention.png"]
    assert main(["attend", images[0], "--model", model_path(results, GAP), "--output", str(out / "gap")]) == 0
    assert (
        main(["attend", images[0], "--model", model_path(results), "--output", str(out), "--format", "svg", "pdf"]) == 0
    )
    assert {path.suffix for path in out.glob("0-*")} == {".png", ".svg", ".pdf"}
    capsys.readouterr()
    query = ["--query", images[1]]
    assert main(["attend", images[0], "--model", model_path(results, GAP), *query]) == 5
    assert "leave --query out" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"not a picture"])
def test_attend_names_what_it_cannot_read(results: Path, tmp_path: Path, content, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "bad.jpg"
    if content is not None:
        path.write_bytes(content)
    assert main(["attend", str(path), "--model", model_path(results), "--output", str(tmp_path / "out")]) == 3
    error = capsys.readouterr().err
    assert str(path) in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def evaluate(results: Path, protocol: str, images: Path, *options: str, variant: str = PC) -> int:
    command = ["evaluate", protocol, "--model", model_path(results, variant), "--images", str(images), "--json"]
    return main([*command, *options])


@pytest.mark.parametrize(
    ("protocol", "metrics"),
    [
        ("transfer", {"svm_accuracy_pct"}),
        ("fgsm", {"clean_accuracy_pct", "fooling_rate_pct", "robust_accuracy_pct"}),
        ("query", {"moved_mass_pct", "effective_rank"}),
        ("segmentation", {"jaccard_pct", "pointing_pct"}),
        ("maps", {"gradcam_jaccard_pct", "combined_jaccard_pct", "pointing_pct"}),
    ],
)
def test_each_protocol_runs_on_a_folder(results: Path, pictures: Path, protocol, metrics, capsys):
    options = ["--masks", str(pictures / "masks")] if protocol in ("segmentation", "maps") else []
    assert evaluate(results, protocol, pictures / "images", *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 12 and found["variant"] == PC and len(found["model_sha256"]) == 64
    assert metrics <= {metric["name"] for metric in found["metrics"]}


def test_accuracy_is_left_out_where_folders_are_not_the_networks_classes(results: Path, pictures: Path, capsys):
    (pictures / "images" / "ant").rename(pictures / "images" / "aunt")
    assert evaluate(results, "fgsm", pictures / "images") == 0
    found = json.loads(capsys.readouterr().out)
    assert {metric["name"] for metric in found["metrics"]} == {"fooling_rate_pct"}
    assert "not named like" in found["note"]


def test_what_a_folder_lacks_is_named(results: Path, pictures: Path, capsys: pytest.CaptureFixture[str]):
    empty = pictures / "empty"
    empty.mkdir()
    lone = pictures / "lone" / "ant"
    lone.mkdir(parents=True)
    Image.fromarray(pixels(1, 20)[0]).save(lone / "0.png")
    (pictures / "masks" / "bee" / "3.png").unlink()
    masks = ["--masks", str(pictures / "masks")]
    alone, small = pictures / "alone", pictures / "small"
    for folder in (alone, small):
        shutil.copytree(pictures / "images", folder / "images")
        shutil.copytree(pictures / "masks", folder / "masks")
        shutil.copy(folder / "masks" / "bee" / "2.png", folder / "masks" / "bee" / "3.png")
    shutil.copy(alone / "masks" / "bee" / "2.png", alone / "masks" / "bee" / "99.png")
    Image.fromarray(pixels(1, 7)[0]).save(small / "masks" / "ant" / "1.png")
    shutil.copytree(pictures / "images", pictures / "few")
    for number in (3, 4, 5):
        (pictures / "few" / "bee" / f"{number}.png").unlink()
    broken = pictures / "broken" / "ant"
    broken.mkdir(parents=True)
    (broken / "torn.jpg").write_bytes(b"not a picture")
    mixed = pictures / "mixed"
    shutil.copytree(pictures / "images", mixed)
    Image.fromarray(pixels(1, 7)[0]).save(mixed / "7.png")
    for protocol, images, options, words in (
        ("fgsm", empty, [], "no images"),
        ("fgsm", pictures / "nowhere", [], "no such folder"),
        ("transfer", pictures / "lone", [], "at least two"),
        ("transfer", pictures / "few", [], "class 1 has 3 images for 5 folds (the first is bee/0.png)"),
        ("segmentation", pictures / "images", masks, "masks/bee/3.png: no mask"),
        ("segmentation", alone / "images", ["--masks", str(alone / "masks")], "bee/99.png: a mask without an image"),
        (
            "maps",
            small / "images",
            ["--masks", str(small / "masks")],
            "ant/1.png: mask and image differ in size (7 × 7 and",
        ),
        ("fgsm", pictures / "broken", [], "torn.jpg: cannot be decoded"),
        ("query", pictures / "lone", [], f"{pictures / 'lone'}: images of one class; query needs"),
        ("fgsm", mixed, [], f"{mixed / '7.png'}: an image beside the folder ant"),
        ("segmentation", pictures / "images", [], "--masks"),
        ("query", pictures / "images", masks, "query: takes no --masks DIR"),
    ):
        assert evaluate(results, protocol, images, *options) != 0
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_images_that_cannot_be_decoded_are_left_out_where_asked_and_named(results: Path, pictures: Path, capsys):
    (pictures / "images" / "bee" / "torn.webp").write_bytes(b"not a picture")
    (pictures / "images" / "bee" / "notes.txt").write_text("none either")
    assert evaluate(results, "fgsm", pictures / "images", "--skip-corrupt") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 12 and found["passed_over"] == ["bee/notes.txt"]
    assert {metric["n"] for metric in found["metrics"]} == {12}
    assert len(found["skipped"]) == 1 and found["skipped"][0].startswith("bee/torn.webp: ")
    command = ["evaluate", "fgsm", "--model", model_path(results), "--images", str(pictures / "images")]
    assert main([*command, "--skip-corrupt"]) == 0
    shown = capsys.readouterr().out
    assert "left out: bee/torn.webp" in shown and "1 other files" in shown


def test_attend_passes_over_what_is_no_image_and_names_it(results: Path, pictures: Path, capsys):
    folder, out = pictures / "images" / "ant", ["--model", model_path(results), "--output", str(pictures / "out")]
    for name in ("._0.png", "notes.txt"):
        (folder / name).write_bytes(b"none")
    assert main(["attend", *map(str, [folder / "0.png", folder / "._0.png", folder / "notes.txt"]), *out]) == 0
    assert f"2 other files passed over: {folder}/._0.png, {folder}/notes.txt" in capsys.readouterr().out
    assert main(["attend", str(folder / "notes.txt"), *out]) == 3
    assert "no image by its name" in capsys.readouterr().err


def test_attend_takes_the_pictures_of_a_folder(results: Path, pictures: Path, capsys):
    folder, out = pictures / "mine", ["--model", model_path(results), "--output", str(pictures / "out")]
    (folder / "below").mkdir(parents=True)
    assert main(["attend", str(folder), *out]) == 3
    assert f"{folder}: no picture lies in this folder" in capsys.readouterr().err
    shutil.copy(pictures / "images" / "ant" / "0.png", folder / "one.png")
    (folder / ".hidden.png").touch()
    assert main(["attend", str(folder), *out]) == 0
    assert "one.png is seen as" in capsys.readouterr().out
    assert (pictures / "out" / "one-attention.png").is_file()


def test_names_of_a_stranger_do_not_reach_the_terminal_raw(results: Path, pictures: Path, capsys):
    folder = pictures / "images" / "bee"
    (folder / "0.png").rename(folder / "a\x1b[31m\nb.png")
    (folder / "c\x1b]0;x.txt").touch()
    assert main(["evaluate", "fgsm", "--model", model_path(results), "--images", str(pictures / "images")]) == 0
    shown = capsys.readouterr().out
    out = ["--model", model_path(results), "--output", str(pictures / "out")]
    assert main(["attend", str(folder / "a\x1b[31m\nb.png"), *out]) == 0
    shown += capsys.readouterr().out
    (folder / "a\x1b[31m\nb.png").write_bytes(b"none")
    assert main(["attend", str(folder / "a\x1b[31m\nb.png"), *out]) == 3
    error = capsys.readouterr().err
    assert "\x1b" not in shown + error and error.count("\n") == 1
    assert "a\\x1b[31m\\nb.png is seen as" in shown and "c\\\\x1b\\]0;x.txt" in shown  # the latter in Markdown


def test_evaluate_passes_over_hidden_folders_and_finds_images_one_level_deeper(results: Path, pictures: Path, capsys):
    images = pictures / "images"
    (images / ".ipynb_checkpoints").mkdir()
    (images / ".ipynb_checkpoints" / "0.png").write_bytes((images / "ant" / "0.png").read_bytes())
    (images / "ant" / "Thumbs.db").touch()
    (pictures / "masks" / "ant" / "._0.png").touch()
    assert evaluate(results, "segmentation", images, "--masks", str(pictures / "masks")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 12 and found["passed_over"] == [".ipynb_checkpoints/", "ant/Thumbs.db"]
    (pictures / "outer").mkdir()
    images.rename(pictures / "outer" / "images")
    assert evaluate(results, "fgsm", pictures / "outer") == 3
    assert f"one level deeper, in {pictures}/outer/images/ant; name {pictures}/outer/images" in capsys.readouterr().err


def test_evaluate_says_that_masks_have_void_pixels(results: Path, pictures: Path, capsys):
    for path in (pictures / "masks").rglob("*.png"):
        labels = np.asarray(Image.open(path)) // 255
        labels[:4] = 255
        Image.fromarray(labels).save(path)
    assert evaluate(results, "segmentation", pictures / "images", "--masks", str(pictures / "masks")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["warnings"] == ["12 masks have void pixels (255), which count neither as object nor as background"]
    chance = {metric["value"] for metric in found["metrics"] if metric["name"] == "pointing_chance_pct"}
    assert len(chance) == 1 and chance.pop() < 20  # 200 of 1,440 pixels, up to what shrinking the mask rounds


def test_evaluate_names_fits_that_did_not_converge(results: Path, pictures: Path, tmp_path, monkeypatch, capsys):
    fit = svm._fit_liblinear
    monkeypatch.setattr(svm, "_fit_liblinear", lambda *arguments: (fit(*arguments)[0], False))
    settings = tmp_path / "mine.yaml"
    chosen = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    chosen.setdefault("protocols", {})["transfer"] = {"folds": 3, "solver": "liblinear"}
    settings.write_text(yaml.safe_dump(chosen))
    command = ["evaluate", "transfer", "--model", model_path(results), "--images", str(pictures / "images")]
    assert main([*command, "--config", str(settings)]) == 0
    assert "raw: the SVM of 3 of 3 folds did not converge" in capsys.readouterr().out


@pytest.mark.parametrize("protocol", ["transfer", "fgsm", "segmentation", "maps", "query"])
def test_a_network_without_finite_numbers_is_named_by_its_file(
    results: Path, pictures: Path, tmp_path, protocol, capsys
):
    broken = tmp_path / "broken.safetensors"
    model = load(model_path(results))
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    facts = {key: model.metadata[key] for key in ("variant", "architecture", "num_classes", "image_size", "classes")}
    save_model(broken, model, **facts)
    masks = ["--masks", str(pictures / "masks")] if protocol in ("segmentation", "maps") else []
    command = ["evaluate", protocol, "--model", str(broken), "--images", str(pictures / "images"), *masks]
    assert main(command) == 3
    error = capsys.readouterr().err
    assert f"{broken}: its " in error and "finite" in error and error.count("\n") == 1
    picture = str(pictures / "images" / "ant" / "0.png")
    assert main(["attend", picture, "--model", str(broken), "--output", str(tmp_path / "out")]) == 3
    assert f"{broken}: its " in capsys.readouterr().err


def test_a_network_without_maps_is_named_by_its_file(results: Path, pictures: Path, tmp_path: Path, capsys):
    plain = tmp_path / "plain.safetensors"
    model = create_model("vgg", 3, image_size=SIZE, width=1 / 16)
    model.preprocessing = fit_normaliser("meanstd", pixels(8, SIZE))
    save_model(
        plain, model, variant="vgg", architecture=model.architecture, num_classes=3, image_size=SIZE, classes=CLASSES
    )
    images, masks = str(pictures / "images"), str(pictures / "masks")
    for command in (
        ["attend", str(pictures / "images" / "ant" / "0.png")],
        ["evaluate", "segmentation", "--images", images, "--masks", masks],
        ["evaluate", "query", "--images", images],
    ):
        assert main([*command, "--model", str(plain)]) == 5
        error = capsys.readouterr().err
        assert f"{plain}: a vgg has no attention map" in error and error.count("\n") == 1


def test_the_iterated_attack_of_a_configuration_is_run_on_a_folder(
    results: Path, pictures: Path, tmp_path: Path, capsys
):
    values = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    values["protocols"]["fgsm"] = {"epsilons": [2], "pgd": {"epsilons": [4], "steps": 2}}
    config = tmp_path / "pgd.yaml"
    config.write_text(yaml.safe_dump(values))
    assert evaluate(results, "fgsm", pictures / "images", "--config", str(config)) == 0
    found = {(m["name"], m["condition"]) for m in json.loads(capsys.readouterr().out)["metrics"]}
    assert {
        ("fooling_rate_pct", "eps=2"),
        ("pgd_fooling_rate_pct", "eps=4"),
        ("pgd_robust_accuracy_pct", "eps=4"),
    } <= found
