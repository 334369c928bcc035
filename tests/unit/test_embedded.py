import copy
import dataclasses
import itertools
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.stats import binomtest, kstest
from skimage.measure import regionprops
from skimage.transform import resize
from sklearn.datasets import load_digits, load_sample_image

from ltpa.core import layout
from ltpa.core.errors import ConfigError
from ltpa.core.specs import PrepareSpec
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.data.compose import _centres, mark_square
from ltpa.data.contact_sheet import contact_sheet
from ltpa.data.corpus import GAP, SCENES, pool
from ltpa.data.embedded import generate
from ltpa.data.registry import dataset_declaration, list_datasets
from ltpa.data.style import read_style
from ltpa.data.textures import luminance, patches
from ltpa.stages import prepare

EMBEDDED = [name for name in list_datasets() if dataset_declaration(name)["reader"] == "embedded"]
ROLES = {
    "cifar10", "cifar100", "svhn", "cub200", "stl10", "caltech101", "caltech256", "event8", "action40", "scene67",
    "objectdiscovery",
}  # fmt: skip


def declared(name, size=20, per_class=10):
    declaration = copy.deepcopy(dataset_declaration(name))
    declaration["image_size"] = size
    for options in declaration["splits"].values():
        options["count"] = per_class * len(declaration["classes"]) * options.get("groups", 1)
    return declaration


@pytest.fixture(scope="module")
def made():
    return {name: generate(name, dataset_declaration(name)) for name in EMBEDDED}


def sources(split):
    """Digits and photograph squares that the ids name."""
    digits, squares = set(), set()
    for text in split.ids.tolist():
        digits.update(int(number) for number in re.findall(r"\+d(\d{4})", text))
        if found := re.match(r"(china|flower)-x(\d+)-y(\d+)-s(\d+)\+", text):
            photo, *numbers = found.groups()
            squares.add((photo, *map(int, numbers)))
        else:
            assert text.startswith("gradient+")
    return digits, squares


def covered(squares, margin=0):
    """Which pixels of each photograph the squares touch, widened by a margin."""
    area = {photo: np.zeros((427, 640), bool) for photo in ("china", "flower")}
    for photo, x, y, side in squares:
        assert x >= 0 and y >= 0 and x + side <= 640 and y + side <= 427
        area[photo][max(y - margin, 0) : y + side + margin, max(x - margin, 0) : x + side + margin] = True
    return area


def test_every_role_is_played_once():
    assert sorted(dataset_declaration(name)["plays"] for name in EMBEDDED) == sorted([*ROLES, "stanforddogs"])


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("size", [16, 32])
def test_every_declared_set_at_other_sizes(name, size):
    declaration = declared(name, size, per_class=4)
    classes, splits, _ = generate(name, declaration)
    assert splits.keys() == declaration["splits"].keys()
    for key, split in splits.items():
        each = 4 * declaration["splits"][key].get("groups", 1)
        assert split.images.shape == (each * len(classes), size, size, 3) and split.images.dtype == np.uint8
        assert np.bincount(split.labels).tolist() == [each] * len(classes)
        assert len(set(split.ids.tolist())) > 0.95 * len(split)


def same(one, other):
    return all(np.array_equal(array, other.arrays()[field]) for field, array in one.arrays().items())


@pytest.mark.parametrize("name", EMBEDDED)
def test_same_seed_same_bytes(name):
    reseeded = declared(name)
    reseeded["seed"] += 1
    first, again, other = (generate(name, options)[1] for options in (declared(name), declared(name), reseeded))
    for split in first:
        assert same(first[split], again[split])
        assert not np.array_equal(first[split].images, other[split].images)


def test_a_split_does_not_depend_on_the_others():
    changed = declared("digits10")
    changed["splits"]["train"]["count"] += 10
    first, second = (generate("digits10", options)[1] for options in (declared("digits10"), changed))
    assert same(first["test"], second["test"])


def test_no_source_is_shared_between_training_and_anything_else(made):
    training = [splits["train"] for name, (_, splits, facts) in made.items() if facts["pools"].get("train") == "train"]
    others = [split for _, splits, _ in made.values() for split in splits.values() if split not in training]
    assert len(training) == 5 and len(others) == 13
    train_digits, train_squares = (set().union(*parts) for parts in zip(*map(sources, training), strict=True))
    other_digits, other_squares = (set().union(*parts) for parts in zip(*map(sources, others), strict=True))
    assert len(train_digits) > 1200 and len(other_digits) > 500
    assert not train_digits & other_digits
    near, far = covered(train_squares, margin=GAP - 1), covered(other_squares)
    for photo in near:
        assert near[photo].any() and far[photo].any()
        assert not (near[photo] & far[photo]).any()


CROSS_VALIDATED = ["digits-inverted", "digits-cluttered", "digits-pale", "digits-noisy", "digits-scenes"]


@pytest.mark.parametrize("name", CROSS_VALIDATED)
def test_groups_of_a_target_share_no_digit_and_no_pixel(made, name):
    split = made[name][1]["all"]
    assert np.unique(split.groups).tolist() == list(range(5))
    parts = []
    for group in range(5):
        chosen = split.groups == group
        counts = np.bincount(split.labels[chosen])
        assert counts.max() - counts.min() <= 1
        parts.append(sources(Split(split.images[chosen], split.labels[chosen], split.ids[chosen])))
    for (digits_a, squares_a), (digits_b, squares_b) in itertools.combinations(parts, 2):
        assert digits_a and digits_b and not digits_a & digits_b
        area_a, area_b = covered(squares_a), covered(squares_b)
        assert not any((area_a[photo] & area_b[photo]).any() for photo in area_a)


def test_only_cross_validated_sets_have_groups(made):
    assert [name for name in EMBEDDED if any(s.groups is not None for s in made[name][1].values())] == CROSS_VALIDATED


def test_no_image_occurs_twice(made):
    images = [image.tobytes() for _, splits, _ in made.values() for split in splits.values() for image in split.images]
    assert len(set(images)) == len(images) > 12_000


UNIFORM = [name for name in EMBEDDED if name not in ("digits-scenes", "digits-street", "digits-marks", "digits-parts")]


@pytest.mark.parametrize("name", UNIFORM)
def test_the_middle_of_the_frame_shows_the_digit_as_often_as_any_pixel(name):
    """A prior for the centre points at the four middle pixels; it must hit as often as chance, and no oftener."""
    declaration = dict(dataset_declaration(name), splits={"all": {"count": 6000, "pool": "test"}})
    masks = generate(name, declaration)[1]["all"].masks
    middle, anywhere = masks[:, 9:11, 9:11].mean(axis=(1, 2)), masks.mean(axis=(1, 2))
    difference = middle - anywhere
    assert abs(difference.mean()) < 0.02
    assert abs(difference.mean()) < 0.3 * anywhere.mean()


@pytest.mark.parametrize("name", [*UNIFORM, "digits-marks", "digits-parts"])
def test_digits_fall_evenly_over_the_frame(name):
    """Centres are even over the frame, so that a quarter of the digits, pushed back, touches each of the edges."""
    style = dataclasses.replace(read_style(dataset_declaration(name)["style"], name), rotation=0.0)
    size, side = dataset_declaration(name)["image_size"], np.full(8000, 10.0)
    centres = _centres(style, side, size, np.random.default_rng(1))
    assert centres.min() == 5 and centres.max() == size - 5
    for axis in range(2):
        inside = centres[(centres[:, axis] > 5) & (centres[:, axis] < size - 5), axis]
        at_edge = (centres[:, axis] == 5).sum(), (centres[:, axis] == size - 5).sum()
        assert (
            binomtest(int(at_edge[0]), 8000, 5 / size).pvalue > 1e-3 < binomtest(int(at_edge[1]), 8000, 5 / size).pvalue
        )
        assert kstest(inside, "uniform", (5, size - 10)).pvalue > 1e-3
    assert abs(np.corrcoef(centres.T)[0, 1]) < 0.05


def test_restyled_halves_are_disjoint(made):
    splits = made["digits-restyled"][1]
    (digits_a, squares_a), (digits_b, squares_b) = sources(splits["train"]), sources(splits["test"])
    assert not digits_a & digits_b
    area_a, area_b = covered(squares_a), covered(squares_b)
    assert not any((area_a[photo] & area_b[photo]).any() for photo in area_a)


def test_pools_have_all_classes_and_scenes_lie_in_the_test_pool():
    targets = load_digits().target
    together = np.concatenate([pool(name).digits for name in ("train", "test-a", "test-b")])
    np.testing.assert_array_equal(np.sort(together), np.arange(1797))
    np.testing.assert_array_equal(pool("test").digits, np.setdiff1d(together, pool("train").digits))
    for name in ("train", "test", "test-a", "test-b"):
        assert np.bincount(targets[pool(name).digits]).min() >= 25
    for scene in SCENES.values():
        assert any(
            region.photo == scene.photo
            and region.left <= scene.left < scene.right <= region.right
            and region.top <= scene.top < scene.bottom <= region.bottom
            for region in pool("test").regions
        )


def test_patches_are_what_their_coordinates_say():
    cut, places = patches(pool("test").regions, np.arange(40) % 2, 16, np.random.default_rng(0), textured=True)
    zooms = set()
    for patch, (index, left, top, side) in zip(cut, places.tolist(), strict=True):
        photo = load_sample_image(f"{pool('test').regions[index].photo}.jpg")[top : top + side, left : left + side]
        zooms.add(side // 16)
        reduced = resize(photo.astype(float), (16, 16), order=1, anti_aliasing=False) if side == 32 else photo
        assert min(np.abs(patch - reduced).max(), np.abs(patch[:, ::-1] - reduced).max()) < 1e-9
    assert zooms == {1, 2}


def target_digits(split):
    return np.array([int(re.search(r"\+d(\d{4})", text)[1]) for text in split.ids.tolist()])


@pytest.mark.parametrize("name", ["digits10", "digits20", "digits-street", "digits-pale", "digits-cluttered"])
def test_mask_shows_the_digit_of_the_label(made, name):
    data, (_, splits, _) = load_digits(), made[name]
    for split in splits.values():
        chosen = target_digits(split)
        step = 2 if name == "digits20" else 1
        np.testing.assert_array_equal(data.target[chosen], split.labels // step)
    correlations = []
    for mask, box, source in zip(split.masks, split.boxes.astype(int), data.images[chosen], strict=True):
        strokes = regionprops((source > 6).astype(int))[0].bbox
        original = source[strokes[0] : strokes[2], strokes[1] : strokes[3]]
        drawn = resize(mask[box[1] : box[3], box[0] : box[2]].astype(float), original.shape)
        correlations.append(np.corrcoef(drawn.ravel(), original.ravel())[0, 1])
    assert np.nanmedian(correlations) > 0.75


@pytest.mark.parametrize("name", EMBEDDED)
def test_masks_boxes_and_sizes(made, name):
    _, splits, _ = made[name]
    for split in splits.values():
        if split.masks is None:
            assert name == "digits-scenes" and split.boxes is None
            continue
        for mask, box in zip(split.masks, split.boxes, strict=True):
            found = [region.bbox for region in regionprops(mask)]
            expected = (found[0][1], found[0][0], found[0][3], found[0][2]) if found else (0, 0, 0, 0)
            assert tuple(box) == expected
        shown = split.masks.any(axis=(1, 2))
        sides = np.maximum(split.boxes[:, 2] - split.boxes[:, 0], split.boxes[:, 3] - split.boxes[:, 1])[shown]
        assert sides.min() >= 7
        assert 0.05 < split.masks[shown].mean() < 0.2
        empty = {"digits-masked": 0.1}.get(name, 0.0)
        assert 1 - shown.mean() == pytest.approx(empty)


@pytest.mark.parametrize("name", [name for name in EMBEDDED if name not in ("digits-scenes", "digits-marks")])
def test_digits_stand_out_and_backgrounds_have_texture(made, name):
    contrast, texture = [], []
    for split in made[name][1].values():
        for image, mask in zip(split.images.astype(float), split.masks.astype(bool), strict=True):
            if mask.any():
                values = luminance(image)
                contrast.append(abs(values[mask].mean() - np.median(values[~mask])))
                texture.append(values[~mask].std())
    assert np.percentile(contrast, 5) > 45
    assert np.percentile(texture, 10) > (5 if name in ("digits-street", "digits20") else 12)  # two are declared plain


def test_sibling_classes_differ_in_the_mark_alone(made):
    classes, splits, _ = made["digits-marks"]
    colours = {"red": (235, 30, 40), "yellow": (250, 220, 20), "green": (30, 190, 60), "blue": (40, 70, 245)}
    for split in splits.values():
        for image, label, part, box in zip(
            split.images, split.labels, split.parts.astype(int), split.boxes, strict=True
        ):
            x0, y0, x1, y1 = part
            assert x1 - x0 == y1 - y0 == 4
            assert (image[y0:y1, x0:x1] == colours[classes[label].split()[1]]).all()
            assert box[0] <= x0 and box[1] <= y0 and x1 <= box[2] and y1 <= box[3]
        digits = load_digits().target[target_digits(split)]
        np.testing.assert_array_equal(digits, [int(classes[label].split()[0]) for label in split.labels])


def test_polarity_is_what_the_class_says(made):
    split = made["digits20"][1]["test"]
    for image, mask, label in zip(split.images.astype(float), split.masks.astype(bool), split.labels, strict=True):
        values = luminance(image)
        assert (values[mask].mean() > values[~mask].mean()) == (label % 2 == 0)


def test_prepare_writes_the_same_bytes_twice_and_a_contact_sheet(tmp_path):
    spec = PrepareSpec("demo", "digits-masked", 1, declared("digits-masked"))
    for run in ("one", "two"):
        prepare.run(PrepareSpec.from_json(spec.to_json()), tmp_path / run)
    folders = [layout.data_dir(tmp_path / run, "digits-masked") for run in ("one", "two")]
    assert {path.name for path in folders[0].iterdir()} == {path.name for path in folders[1].iterdir()}
    assert all(path.read_bytes() == (folders[1] / path.name).read_bytes() for path in folders[0].iterdir())
    opened = PreparedDataset.open(folders[0])
    assert len(opened.split("all")) == 30 and opened.facts["pools"] == {"all": "test"}
    contact_sheet(opened, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    first = opened.split("all").images[np.flatnonzero(opened.split("all").labels == 0)[0]]
    shown = sheet[:64, sheet.shape[1] - 12 * 66 :][:, :64]
    centres = ((np.arange(20) + 0.5) * 64 / 20).astype(int)
    np.testing.assert_array_equal(shown[np.ix_(centres, centres)], first)


def test_long_class_names_are_not_cut_on_a_contact_sheet(tmp_path):
    widths = []
    for name in ("short", "a class of birds with quite a long name " * 2):
        images, labels = np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64)
        split = Split(images=images, labels=labels, ids=np.array(["x"]))
        contact_sheet(PreparedDataset("toy", [name], {"all": split}, "", {}), tmp_path / "sheet.png")
        sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
        widths.append(sheet.shape[1])
        tiles = sheet.shape[1] - 12 * 66
        assert (sheet[:64, tiles - 4 : tiles] == 255).all() and not sheet[:64, tiles : tiles + 64].any()
        assert ImageDraw.Draw(Image.new("L", (1, 1))).textlength(name) + 8 <= tiles
    assert widths[0] == 160 + 12 * 66 < widths[1]


def wrong(**changes):
    declaration = declared("digits10")
    for key, value in changes.items():
        target = declaration["style"] if key not in declaration else declaration
        target[key] = value
    return declaration


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        (wrong(scal=[0.5, 0.6]), "unknown style option 'scal'; did you mean scale"),
        (wrong(scale=0.5), "style option scale cannot be 0.5"),
        (wrong(scale=[0.9, 0.5]), r"style option scale cannot be \(0.9, 0.5\)"),
        (wrong(marks=["red"]), "style option marks"),
        (wrong(background="scene"), "style option background"),
        (wrong(image_size=12), "image_size 12; the embedded images have 16 to 32"),
        (wrong(classes=["0", "1"]), "2 class names, but its style has 10"),
        (wrong(splits={"train": {"count": 100, "pool": "trian"}}), "unknown pool 'trian'; choose one of train"),
        (
            wrong(splits={"train": {"count": 5, "pool": "train"}}),
            "split train: needs a pool, and a count of at least 10",
        ),
        (
            wrong(splits={"all": {"count": 49, "pool": "test", "groups": 5}}),
            "split all: needs a pool, and a count of at least 10 per group",
        ),
        (
            wrong(splits={"all": {"count": 600, "pool": "test", "groups": 6}}),
            "groups is 6; the pools can be cut into 1 to 5",
        ),
        (
            {**declared("digits-scenes"), "splits": {"all": {"count": 60, "pool": "train"}}},
            "scenes lie in the pool 'test'",
        ),
        ({"style": {}}, "its declaration lacks classes, image_size, seed, splits"),
    ],
)
def test_wrong_declarations_are_refused(declaration, message):
    with pytest.raises(ConfigError, match=message):
        generate("digits10", declaration)


def test_unknown_names():
    with pytest.raises(ConfigError, match="unknown dataset 'digit10'; did you mean digits10"):
        dataset_declaration("digit10")
    with pytest.raises(ConfigError, match="dataset x: unknown reader 'embeded'; did you mean embedded"):
        prepare.run(PrepareSpec("demo", "x", 1, {"reader": "embeded"}), None)


def test_all_sets_differ_from_each_other(made):
    firsts = [next(iter(splits.values())).images[:50].tobytes() for _, splits, _ in made.values()]
    assert all(a != b for a, b in itertools.combinations(firsts, 2))


@pytest.mark.parametrize("side", [3, 4, 5, 6, 7])
def test_marks_of_two_colours_differ_in_nothing_but_their_pattern(side):
    red, blue = np.array([235.0, 30, 40]), np.array([40.0, 70, 245])
    names = [f"{first} {word} {second} {word} {first}" for word in ("over", "beside")
             for first, second in (("red", "blue"), ("blue", "red"))]  # fmt: skip
    squares = [mark_square(name, side) for name in names]
    for square in squares:
        np.testing.assert_allclose(square.mean(axis=(0, 1)), (red + blue) / 2)
        np.testing.assert_allclose(square, square[::-1, ::-1])
    np.testing.assert_allclose(squares[0], squares[2].transpose(1, 0, 2))
    np.testing.assert_allclose(squares[0] + squares[1], np.broadcast_to(red + blue, (side, side, 3)))
    assert (mark_square("red", side) == red).all()
    halves = mark_square("red over blue", side)
    assert (halves[0] == red).all() and (halves[-1] == blue).all()
