"""What is an image, what is a mask, and what a picture from a stranger may cost: one rule for every way in."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, features

from ltpa.core.errors import DataError, MemoryFullError
from ltpa.core.text import printable
from ltpa.data.decode import MAX_PIXELS, Stored, load_image, load_input, load_mask, load_picture
from ltpa.data.listing import Listing
from ltpa.data.masks import OBJECT, VOID, marks, squashed
from ltpa.data.pictures import images_in, is_image, passed_over_note, suffixes
from ltpa.data.real import mask_notes
from ltpa.data.shards import prepare_split
from ltpa.data.source import Options, Source
from ltpa.evaluation.segmentation import score_maps

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads a process's peak memory from /proc")

HIDDEN = ["._a.png", ".DS_Store", "Thumbs.db", "desktop.ini"]


def test_one_list_of_suffixes_and_hidden_files_are_none(tmp_path):
    wanted = ["a.PNG", "b.jpg", "c.jpeg", "d.jfif", "e.webp", "f.tif", "g.tiff", "h.bmp"]
    wanted += ["i.avif"] if features.check("avif") else []
    others = [*HIDDEN, "notes.txt", "j.gif"]
    for name in wanted + others:
        (tmp_path / name).touch()
    for folder in (".ipynb_checkpoints", "__MACOSX", "k.png"):
        (tmp_path / folder).mkdir()
    (tmp_path / "gone.png").symlink_to("nowhere")  # to be named when it is decoded, not dropped
    images, passed = images_in(tmp_path)
    assert images == sorted([*wanted, "gone.png"])
    assert passed == sorted([*others, ".ipynb_checkpoints/", "__MACOSX/", "k.png/"])
    assert len(suffixes()) == len(wanted)
    assert not is_image("__MACOSX") and not is_image("._b.jpg")
    note = passed_over_note(passed)
    assert note.startswith(f"{len(passed)} other files passed over: .DS_Store, ") and note.endswith(" more")


def test_a_picture_says_itself_why_it_is_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("nowhere.png")
    for name, words in (
        ("pipe.png", "a pipe, socket or device"),
        ("link.png", "a link to nowhere.png, which does not exist"),
        ("gone.png", "missing"),
        (".", "a folder, not an image"),
    ):
        for load in (lambda path: load_picture(path, 100), lambda path: load_input(path, 32)):
            with pytest.raises(DataError, match=words):
                load(tmp_path / name)
    (tmp_path / "vector.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DataError, match="cannot be decoded"):  # its decoder would be an interpreter
        load_picture(tmp_path / "vector.png", 100)


@on_linux
def test_huge_pictures_are_refused_before_they_are_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (13_000, 13_000)).save(path)
    assert path.stat().st_size < 30_000
    script = (
        "import sys; from pathlib import Path; from ltpa.data.decode import load_picture\n"
        "try: load_picture(Path(sys.argv[1]), 100)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    said, peak = done.stdout.splitlines()
    assert said == (
        f"MemoryFullError {path}: 13,000 x 13,000 pixels, and images of up to {MAX_PIXELS:,} are decoded; "
        "make it smaller"
    )
    assert done.stderr == "" and int(peak) < 200_000  # kB
    assert MemoryFullError.exit_code == 8


def test_huge_pictures_among_others_are_named_where_corrupt_ones_are_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr("ltpa.data.decode.MAX_PIXELS", 200)
    for name, side in (("small", 10), ("large", 20)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.png")
    listing = Listing([tmp_path / "small.png", tmp_path / "large.png"], [0, 0], ["small", "large"])
    with pytest.raises(MemoryFullError, match=r"large\.png: 20 x 20 pixels"):
        prepare_split(tmp_path, "all", listing, Source("toy", ["a"], 8, {}, {}, Options()), 1)
    kept, facts = prepare_split(
        tmp_path, "all", listing, Source("toy", ["a"], 8, {}, {}, Options(skip_corrupt=True)), 1
    )
    assert kept.ids.tolist() == ["small"] and len(facts["skipped"]) == 1 and "20 x 20" in facts["skipped"][0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_turned_pictures_are_shrunk_before_they_are_turned(tmp_path, orientation, kind):
    """Reduced decoding and the turn commute: what comes out is what turning at full size gives, nearly."""
    path = tmp_path / "photo"
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    stored = np.stack([np.tile(ramp, (600, 1)), np.tile(ramp[:600, None], (1, 800)), np.full((600, 800), 90)], axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored.astype(np.uint8)).save(path, kind, exif=exif)
    plain = io.BytesIO()
    from PIL import ImageOps

    with Image.open(path) as picture:
        ImageOps.exif_transpose(picture).save(plain, "PNG")
    wanted, _ = load_image(plain.getvalue(), None, 16, Options(reduced=False))
    found, about = load_image(path, None, 16, Options(upright=True))
    assert np.abs(found.astype(int) - wanted).mean() < 2
    assert about == ((600, 800) if orientation >= 5 else (800, 600)) + (orientation,)
    shown = load_picture(path, 100)
    assert shown.shape == ((100, 75, 3) if orientation >= 5 else (75, 100, 3))


@on_linux
def test_a_photograph_of_48_megapixels_takes_little_memory(tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (8000, 6000), (10, 20, 30)).save(path, compress_level=1)
    script = (
        "import sys; from pathlib import Path; from ltpa.data.decode import load_input, load_picture\n"
        "print(load_picture(Path(sys.argv[1]), 346).shape, load_input(Path(sys.argv[1]), 32).shape)\n"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    shapes, peak = done.stdout.splitlines()
    assert shapes == "(260, 346, 3) (32, 32, 3)" and int(peak) < 500_000  # kB


# --- masks ---

SHAPE = np.zeros((6, 8), np.uint8)
SHAPE[1:4, 2:6] = 1
PALETTE = [0, 0, 0, 128, 0, 0, *[0] * 3 * 253, 224, 224, 192]  # VOC's: black, red, ..., the void colour


def with_palette(values, palette):
    picture = Image.fromarray(values, "L")
    picture = picture.convert("P") if palette is None else picture
    if palette is not None:
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette(palette)
    return picture


WHITE = SHAPE * 255
KINDS = {
    "1-bit": Image.fromarray(WHITE).convert("1"),
    "grey": Image.fromarray(WHITE),
    "grey labels": Image.fromarray(SHAPE * 7),
    "grey + alpha": Image.fromarray(WHITE).convert("LA"),
    "soft grey": Image.fromarray(np.where(SHAPE, 255, 0).astype(np.uint8)),
    "16 bit": Image.fromarray(SHAPE.astype(np.uint16) * 300),
    "colour": Image.fromarray(np.stack([SHAPE * 0, SHAPE * 3, SHAPE * 0], axis=2)),
    "white": Image.fromarray(WHITE).convert("RGB"),
    "colour + alpha": Image.fromarray(WHITE).convert("RGBA"),
    "alpha alone": Image.merge("RGBA", [Image.new("L", (8, 6), 255)] * 3 + [Image.fromarray(WHITE)]),
    "palette": with_palette(SHAPE, PALETTE),
    "grey palette": with_palette(WHITE, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_every_kind_mark_the_same_object(tmp_path, kind):
    KINDS[kind].save(tmp_path / "mask.png")
    found = load_mask(tmp_path / "mask.png", None, None, Stored(8, 6))
    np.testing.assert_array_equal(found, SHAPE)


VOIDED = SHAPE.copy()
VOIDED[0, :3] = 255


@pytest.mark.parametrize(
    "picture",
    [
        with_palette(VOIDED, PALETTE),
        with_palette(VOIDED, PALETTE).convert("RGB"),
        Image.fromarray(VOIDED),
        Image.fromarray(VOIDED).convert("LA"),
        Image.fromarray(VOIDED).convert("RGB"),
    ],
    ids=["palette", "palette in colour", "grey labels", "with alpha", "labels in three channels"],
)
def test_void_pixels_of_voc_are_neither_object_nor_background(picture):
    np.testing.assert_array_equal(marks(picture), VOIDED)
    assert (marks(picture) == VOID).sum() == 3 and (marks(picture) == OBJECT).sum() == 12


def test_soft_edges_are_no_labels():
    soft = Image.fromarray(np.array([[0, 90, 255, 12, 255]], np.uint8))
    assert marks(soft).tolist() == [[0, 1, 1, 1, 1]]


def test_void_pixels_are_left_out_of_every_score():
    rng = np.random.default_rng(0)
    maps = rng.random((2, 6, 8))
    void = np.zeros((2, 6, 8), bool)
    void[0, :, 6:] = void[1, 5] = True
    masks = np.where(void, VOID, SHAPE).astype(np.uint8)
    found = score_maps({"a": maps}, masks, None)
    for row in range(2):
        seen, truth = ~void[row], SHAPE.astype(bool)
        whole = score_maps({"a": maps[row : row + 1]}, SHAPE[None], None)
        assert whole.jaccard["a"][0] != found.jaccard["a"][row]
        inside = maps[row][seen & truth]
        assert found.area[row] == (seen & truth).sum() / seen.sum()
        np.testing.assert_allclose(found.mass["a"][row], inside.sum() / maps[row][seen].sum())
        assert found.pointing["a"][row] == (inside.max() == maps[row][seen].max())


def test_scores_with_void_are_those_of_the_rest_of_the_picture():
    """Cutting void columns off an image changes nothing, once the binary mask is the same."""
    maps = np.zeros((1, 6, 8))
    maps[0, 1:3, 2:7] = 1
    masks = SHAPE[None].copy()
    masks[:, :, 6:] = VOID
    cut, voided = score_maps({"a": maps[:, :, :6]}, SHAPE[None, :, :6], None), score_maps({"a": maps}, masks, None)
    for name in ("jaccard", "pointing", "mass"):
        np.testing.assert_allclose(getattr(voided, name)["a"], getattr(cut, name)["a"])
    assert voided.area == cut.area
    assert squashed([masks[0]], 8).max() == 1


def test_masks_say_when_they_have_void_pixels_or_their_image_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png", exif=exif)
    with_palette(VOIDED, PALETTE).save(tmp_path / "m.png")
    with_palette(np.ascontiguousarray(VOIDED.T), PALETTE).save(tmp_path / "turned.png")

    def prepared(mask, upright):
        listing = Listing([tmp_path / "a.png"], [0], ["a"], masks=[tmp_path / mask])
        source = Source("toy", ["a"], 8, {}, {}, Options(upright=upright, mask_size="native"))
        return prepare_split(tmp_path / mask[:-4], "all", listing, source, 1)

    for mask, upright, words in (("m.png", False, "neither they nor"), ("turned.png", True, "their masks must be too")):
        _, facts = prepared(mask, upright)
        assert facts["void_masks"] == 1 and facts["turned"] == ["a"]
        notes = mask_notes(facts, upright)
        assert "1 masks have void pixels" in notes[0] and words in notes[1]
    with pytest.raises(DataError, match=r"8 × 6 and 6 × 8.*EXIF orientation, 6, turns it"):
        prepared("m.png", True)


def test_nothing_that_a_terminal_obeys_is_printed():
    hostile = "a\x1b[31m\r\nb\x9b\u202ec\u2028\udcff\x7f"
    shown = printable(hostile)
    assert shown == "a\\x1b[31m\\r\\nb\\x9b\\u202ec\\u2028\\udcff\\x7f"
    assert shown.isprintable() and shown.encode()
    assert printable("Gürtel 日本 é\u0301 100 %") == "Gürtel 日本 é\u0301 100 %"
