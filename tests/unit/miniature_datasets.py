"""Miniature archives of every real dataset, in its true layout with its true traps; each gives a declaration to match.

Every image is `picture(number)`: a colour that tells its number, with a bright top left and a dark bottom left quarter
that tell whether it stands upright. `MAKERS[name](folder)` writes the archives and returns the declaration, and the
numbers in the order in which they must come out, by split.
"""

import copy
import gzip
import io
import pickle
import struct

import numpy as np
from archive_makers import make_tar, make_targz, make_zip
from PIL import Image
from scipy.io import savemat

from ltpa.data.registry import dataset_declaration

BRIGHT, DARK = 250, 5


def colour(number):
    return (40 + number * 53 % 160, number * 97 % 200, number * 29 % 200)


def pixels(number, width=32, height=32):
    image = np.empty((height, width, 3), np.uint8)
    image[:] = colour(number)
    image[: height // 2, : width // 2] = BRIGHT
    image[height // 2 :, : width // 2] = DARK
    return image


def picture(number, width=48, height=32, kind="JPEG", mode="RGB"):
    stream = io.BytesIO()
    image = Image.fromarray(pixels(number, width, height))
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    image.save(stream, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    return stream.getvalue()


def declaration(name, classes=None, **counts):
    """The declaration of a dataset without sizes and checksums, with fewer classes and the given counts."""
    declared = copy.deepcopy(dataset_declaration(name))
    for archive in declared["archives"]:
        for key in ("size", "sha256", "md5"):
            archive.pop(key, None)
    if classes:
        declared["classes"] = classes
    for split, count in counts.items():
        kept = {
            k: v for k, v in declared["splits"][split].items() if k not in ("per_class", "paper_count", "paper_slack")
        }
        declared["splits"][split] = {**kept, "count": count}
    return declared


def cifar10(folder):
    declared = declaration("cifar10", train=10, test=2)
    content = {"cifar-10-batches-py/readme.html": b"<html>"}
    meta = {"num_cases_per_batch": 10000, "label_names": declared["classes"], "num_vis": 3072}
    content["cifar-10-batches-py/batches.meta"] = pickle.dumps(meta, protocol=2)
    names = [f"data_batch_{i}" for i in range(1, 6)]
    for start, name in zip(range(0, 12, 2), [*names, "test_batch"], strict=True):
        batch = {"batch_label": f"{name} of 6", "labels": [start % 10, (start + 1) % 10], **_planes([start, start + 1])}
        content[f"cifar-10-batches-py/{name}"] = pickle.dumps(batch, protocol=2)
    (folder / "cifar-10-python.tar.gz").write_bytes(make_targz(content))
    return declared, {"train": range(10), "test": [10, 11]}


def cifar100(folder):
    declared = declaration("cifar100", train=3, test=2)
    content = {"cifar-100-python/file.txt~": b""}
    meta = {"fine_label_names": declared["classes"], "coarse_label_names": ["fish"]}
    content["cifar-100-python/meta"] = pickle.dumps(meta, protocol=2)
    for name, numbers in (("train", [0, 1, 2]), ("test", [3, 4])):
        batch = {"fine_labels": [n + 90 for n in numbers], "coarse_labels": [1] * len(numbers), **_planes(numbers)}
        content[f"cifar-100-python/{name}"] = pickle.dumps(batch, protocol=2)
    (folder / "cifar-100-python.tar.gz").write_bytes(make_targz(content))
    return declared, {"train": [0, 1, 2], "test": [3, 4]}


def _planes(numbers):
    rows = [pixels(number).transpose(2, 0, 1).reshape(-1) for number in numbers]
    return {"data": np.array(rows), "filenames": [f"thing_s_{number:06d}.png" for number in numbers]}


def svhn(folder):
    """Label 10 is the digit 0; the extra images lie there, too, and are not asked for."""
    for split, numbers in (("train", [0, 1, 2]), ("test", [3, 4]), ("extra", [5, 6])):
        images = np.stack([pixels(number) for number in numbers], axis=3)
        savemat(folder / f"{split}_32x32.mat", {"X": images, "y": np.array([[10], [1], [9]][: len(numbers)], np.uint8)})
    return declaration("svhn", train=3, test=2), {"train": [0, 1, 2], "test": [3, 4]}


def cub200(folder):
    """Images are not in the order of their names; one is grey, one box sticks out; a stray file lies beside the folder.

    Inside the images, all boxes are the left three quarters.
    """
    classes = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
    names = [
        "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
        "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg",
        "002.Laysan_Albatross/Laysan_Albatross_0003_1033.jpg",
        "002.Laysan_Albatross/Laysan_Albatross_0082_524.jpg",
    ]
    boxes = ["0.0 0.0 36.0 32.0", "0.0 0.0 36.0 32.0", "0.0 0.0 36.0 35.5", "-2.0 0.0 38.0 32.0"]
    lists = {
        "images": names,
        "image_class_labels": ["1", "1", "2", "2"],
        "train_test_split": ["0", "1", "0", "1"],
        "bounding_boxes": boxes,
        "classes": classes,
    }
    content = {f"CUB_200_2011/{name}.txt": _numbered(lines) for name, lines in lists.items()}
    heads = ["2 12.0 8.0 1", "5 24.0 16.0 1", "14 40.0 30.0 1", "11 1.0 1.0 0"]  # beak, crown, tail, hidden eye
    located = [f"{number} {head}" for number in (1, 2, 3) for head in heads] + ["4 14 5.0 5.0 1"]
    content["CUB_200_2011/parts/part_locs.txt"] = "\n".join(located).encode()
    content["attributes.txt"] = b"1 has_bill_shape::curved\n"
    for number, name in enumerate(names):
        content[f"CUB_200_2011/images/{name}"] = picture(number, mode="L" if number == 3 else "RGB")
    (folder / "CUB_200_2011.tgz").write_bytes(make_targz(content))
    return declaration("cub200", classes, train=2, test=2), {"train": [1, 3], "test": [0, 2]}


def _numbered(lines):
    return "".join(f"{number} {line}\n" for number, line in enumerate(lines, 1)).encode()


def stl10(folder):
    """Planes are stored column by column, labels counted from 1."""
    declared = declaration("stl10", train=2, test=3)
    content = {"stl10_binary/class_names.txt": "\n".join(declared["classes"]).encode()}
    for split, numbers, labels in (("train", [0, 1], [1, 3]), ("test", [2, 3, 4], [10, 8, 7])):
        images = [pixels(number, 96, 96).transpose(2, 1, 0).tobytes() for number in numbers]
        content[f"stl10_binary/{split}_X.bin"] = b"".join(images)
        content[f"stl10_binary/{split}_y.bin"] = bytes(labels)
    content["stl10_binary/unlabeled_X.bin"] = b"x" * 100
    (folder / "stl10_binary.tar.gz").write_bytes(make_targz(content))
    return declared, {"train": [0, 1], "test": [2, 3, 4]}


def caltech101(folder):
    """A tar in a zip; a background folder with a stray file; capitals sort before small letters."""
    names = [
        "Faces/image_0001.jpg",
        "Faces_easy/image_0001.jpg",
        "Motorbikes/image_0001.jpg",
        "accordion/image_0001.jpg",
    ]
    content = {f"101_ObjectCategories/{name}": picture(number) for number, name in enumerate(names)}
    content["101_ObjectCategories/BACKGROUND_Google/image_0001.jpg"] = picture(9)
    content["101_ObjectCategories/BACKGROUND_Google/tmp"] = b"stray"
    outer = {
        "caltech-101/101_ObjectCategories.tar.gz": make_targz(content),
        "caltech-101/Annotations.tar": make_tar({}),
    }
    (folder / "caltech-101.zip").write_bytes(make_zip(outer))
    declared = declaration("caltech101", ["Faces", "Faces_easy", "Motorbikes", "accordion"], all=4)
    return declared, {"all": range(4)}


def caltech256(folder):
    """A script among the images, a folder among the images, clutter."""
    content = {
        "256_ObjectCategories/056.dog/056_0001.jpg": picture(0),
        "256_ObjectCategories/056.dog/056_0002.jpg": picture(1, mode="L"),
        "256_ObjectCategories/056.dog/greg/vision309/056_0003.jpg": picture(9),
        "256_ObjectCategories/198.spider/198_0001.jpg": picture(2),
        "256_ObjectCategories/198.spider/RENAME2": b"#!/bin/sh\n",
        "256_ObjectCategories/257.clutter/257_0001.jpg": picture(9),
    }
    (folder / "256_ObjectCategories.tar").write_bytes(make_tar(content))
    return declaration("caltech256", ["056.dog", "198.spider"], all=3), {"all": range(3)}


def event8(folder):
    """Names that end in .JPG, which the paper did not count. As a zip: not every machine can make or open a rar."""
    content = {
        "event_img/badminton/Easy_Close_badminton_320.JPG": picture(9),
        "event_img/badminton/Medium_Mid_badminton_57.jpg": picture(0),
        "event_img/rowing/Easy_Mid_Rowing_1.jpg": picture(1),
        "event_img/rowing/Thumbs.db": b"x",
    }
    (folder / "event_dataset.rar").write_bytes(make_zip(content))
    declared = declaration("event8", ["badminton", "rowing"])
    declared["archives"][0]["kind"] = "zip"
    declared["splits"]["all"] = {"count": 3, "per_class": [2, 1], "paper_count": 2}
    return declared, {"all": [0, 1]}


def action40(folder):
    """Labels are in the names, which hold underscores; a box gives the greater corner first."""
    train, test = ["blowing_bubbles_063.jpg", "watching_TV_010.jpg"], ["watching_TV_004.jpg", "blowing_bubbles_159.jpg"]
    images = {f"JPEGImages/{name}": picture(number) for number, name in enumerate(train + test)}
    lists = {
        "ImageSplits/actions.txt": b"action_name number_of_train\n",
        "ImageSplits/train.txt": "\n".join(train).encode(),
        "ImageSplits/test.txt": ("\r\n".join(test) + "\r\n").encode(),
        "ImageSplits/watching_TV_train.txt": train[1].encode(),
    }
    box = "<xmax>24</xmax><xmin>6</xmin><ymax>16</ymax><ymin>4</ymin>"
    xml = f"<annotation><object><name>person</name><bndbox>{box}</bndbox></object></annotation>"
    notes = {f"XMLAnnotations/{name[:-4]}.xml": xml.encode() for name in train + test}
    for part, content in (("JPEGImages", images), ("ImageSplits", lists), ("XMLAnnotations", notes)):
        (folder / f"Stanford40_{part}.zip").write_bytes(make_zip(content))
    declared = declaration("action40", ["blowing_bubbles", "watching_TV"], train=2, test=2)
    return declared, {"train": [0, 1], "test": [2, 3]}


def scene67(folder):
    """Files that are not what their names say, and names with spaces."""
    content = {
        "Images/auditorium/auditorium986_120.jpg": picture(0, kind="BMP"),
        "Images/auditorium/theatre_gif.jpg": picture(1, kind="GIF", mode="P"),
        "Images/mall/Meeting Room.JPG": picture(9),
        "Images/mall/shopping mall.jpg": picture(2, kind="PNG", mode="RGBA"),
    }
    (folder / "indoorCVPR_09.tar").write_bytes(make_tar(content))
    declared = declaration("scene67", ["auditorium", "mall"])
    declared["splits"]["all"] = {"count": 4, "per_class": [2, 2], "paper_count": 4, "paper_slack": 1}
    return declared, {"all": range(3)}


def scene67_lists(folder):
    """The authors' lists: names with spaces, no newline at the end."""
    scene67(folder)
    (folder / "TrainImages.txt").write_text("mall/Meeting Room.JPG\nauditorium/theatre_gif.jpg")
    (folder / "TestImages.txt").write_text("mall/shopping mall.jpg")
    return declaration("scene67-lists", ["auditorium", "mall"], train=2, test=1), {"train": [9, 1], "test": [2]}


OBJECT_DISCOVERY_MASKS = (("0002", "L", (32, 48)), ("0005", "1", (32, 48)), ("0018", "RGB", (60, 36)))


def _object_discovery(folder):
    """The one archive of both: masks as grey, colour and 1-bit images, some empty; gaps in numbers; full sets beside
    the subsets; pairs that share an object, one of them not declared.
    """
    base, content, number = "ObjectDiscovery-data/Data", {}, 0
    for subset in ("Airplane100", "Car100", "Horse100"):
        for stem, mode, (height, width) in OBJECT_DISCOVERY_MASKS:
            content[f"{base}/{subset}/{stem}.jpg"] = picture(number, width, height)
            mask = np.zeros((height, width), np.uint8)
            mask[: height // 2, : width // 2] = 0 if (subset, stem) == ("Car100", "0005") else 255
            stream = io.BytesIO()
            Image.fromarray(mask).convert(mode).save(stream, "PNG")
            content[f"{base}/{subset}/GroundTruth/{stem}.png"] = stream.getvalue()
            number += 1
    content[f"{base}/Airplane/0001.jpg"] = picture(99)
    for pair in ("person_bearperson", "bear_bearperson", "person_elephantperson", "cat_catdog"):
        for stem in ("1", "2"):
            content[f"{base}/Extra_coseg/{pair}/{stem}.jpg"] = picture(number)
            number += 1
    (folder / "ObjectDiscovery-data.zip").write_bytes(make_zip(content))


def objectdiscovery(folder):
    _object_discovery(folder)
    return declaration("objectdiscovery", test=9), {"test": range(9)}


def objectdiscovery_coseg(folder):
    _object_discovery(folder)
    return declaration("objectdiscovery-coseg"), {"all": range(9, 15)}


def stanforddogs(folder):
    """Lists as MATLAB cells of names; a PNG with the name of a JPEG."""
    breeds = ["n02085620-Chihuahua", "n02105855-Shetland_sheepdog"]
    lists = {
        "train": [(f"{breeds[1]}/n02105855_2933.jpg", 2), (f"{breeds[0]}/n02085620_5927.jpg", 1)],
        "test": [(f"{breeds[0]}/n02085620_2650.jpg", 1)],
    }
    images, files, number = {}, {}, 0
    for split, entries in lists.items():
        for name, _ in entries:
            images[f"Images/{name}"] = picture(number, kind="PNG" if number == 0 else "JPEG")
            number += 1
        cells = np.array([[name] for name, _ in entries], dtype=object)
        stream = io.BytesIO()
        savemat(stream, {"file_list": cells, "annotation_list": cells, "labels": np.array([[n] for _, n in entries])})
        files[f"{split}_list.mat"] = stream.getvalue()
    (folder / "images.tar").write_bytes(make_tar(images))
    (folder / "lists.tar").write_bytes(make_tar(files))
    declared = declaration("stanforddogs", breeds, train=2, test=1)
    declared["image_size"] = 64
    return declared, {"train": [0, 1], "test": [2]}


def mnist(folder):
    """Grey images: the red of what the others are."""
    for stem, numbers in (("train", range(3)), ("t10k", range(3, 5))):
        images, count = np.stack([pixels(number, 28, 28)[..., 0] for number in numbers]), len(numbers)
        header = struct.pack(">HBB3I", 0, 8, 3, count, 28, 28)
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
        labels = struct.pack(">HBBI", 0, 8, 1, count) + bytes(range(count))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return declaration("mnist", train=3, test=2), {"train": range(3), "test": range(3, 5)}


MAKERS = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "cub200": cub200,
    "stl10": stl10,
    "caltech101": caltech101,
    "caltech256": caltech256,
    "event8": event8,
    "action40": action40,
    "scene67": scene67,
    "scene67-lists": scene67_lists,
    "objectdiscovery": objectdiscovery,
    "objectdiscovery-coseg": objectdiscovery_coseg,
    "stanforddogs": stanforddogs,
    "mnist": mnist,
}
LABELS = {
    "cifar10": {"train": list(range(10)), "test": [0, 1]},
    "cifar100": {"train": [90, 91, 92], "test": [93, 94]},
    "svhn": {"train": [0, 1, 9], "test": [0, 1]},
    "cub200": {"train": [0, 1], "test": [0, 1]},
    "stl10": {"train": [0, 2], "test": [9, 7, 6]},
    "caltech101": {"all": [0, 1, 2, 3]},
    "caltech256": {"all": [0, 0, 1]},
    "event8": {"all": [0, 1]},
    "action40": {"train": [0, 1], "test": [1, 0]},
    "scene67": {"all": [0, 0, 1]},
    "scene67-lists": {"train": [1, 0], "test": [1]},
    "objectdiscovery": {"test": [0, 0, 0, 1, 1, 1, 2, 2, 2]},
    "objectdiscovery-coseg": {"all": [0, 0, 1, 1, 2, 2]},
    "stanforddogs": {"train": [1, 0], "test": [0]},
    "mnist": {"train": [0, 1, 2], "test": [0, 1]},
}
