"""The two-stream network on real photographs: speed of a training step, cost of the readouts, and a trial training.

    python benchmarks/twostream.py DIR            # DIR: CUB_200_2011 or some of its classes, in the official layout
    python benchmarks/twostream.py DIR --epochs 40 --row twostream-cnn --json trial.json

Speed: a step on arrays decoded once, channels innermost, beside a plain loop that opens the JPEG files anew, resizes
and cuts them with Pillow. Both take the same images and boxes and equal networks in turn, compute the local feature
once a patch, and the medians of their times are compared.
Readouts: the 30 evaluations of table 6.2 and figure 6.1 (sums, means, single steps) are sums of what one pass over the
test images and all their patches gives. That pass is what the mean over patches, the headline of every table, takes by
itself; its time and that of the 30 beyond it are held against a training epoch, one by one.
Trial: random first weights, central patches; the numbers stand in docs/measurements.md.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ltpa.core.declared import load_declaration
from ltpa.evaluation.twostream import _collect, blocks, readouts, score
from ltpa.models import build_model, get_variant
from ltpa.models.twostream.inputs import DEVIATION, MEAN
from ltpa.models.twostream.losses import two_stream_loss
from ltpa.training.fine_data import FineData
from ltpa.training.loop import Watch
from ltpa.training.two_stream_recipe import TwoStreamRecipe
from ltpa.training.twostream import TwoStreamTrainer

SIDES = (0.5, 0.65, 0.8)  # of the central patches


def listed(folder: Path, name: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in (folder / name).read_text().splitlines())


def photographs(folder: Path) -> tuple[dict[str, list[Path]], dict[str, np.ndarray]]:
    paths, labels, train = (listed(folder, f"{n}.txt") for n in ("images", "image_class_labels", "train_test_split"))
    kept = [key for key in paths if (folder / "images" / paths[key]).is_file()]
    classes = sorted({int(labels[key]) for key in kept})
    files, targets = {}, {}
    for split, flag in (("train", "1"), ("test", "0")):
        chosen = [key for key in kept if train[key].strip() == flag]
        files[split] = [folder / "images" / paths[key] for key in chosen]
        targets[split] = np.array([classes.index(int(labels[key])) for key in chosen], dtype=np.int64)
    return files, targets


def decode(path: Path, size: int) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def central(count: int, size: int) -> np.ndarray:
    rows = []
    for share in SIDES:
        low = round(size * (1 - share) / 2)
        rows.append([low, low, size - low, size - low])
    return np.tile(np.array(rows, dtype=np.int64), (count, 1, 1))


def plain_step(model, optimizer, files, boxes, labels, size):
    """What a straightforward training loop does for one batch."""
    options = model.options
    images, patches = [], []
    for path, (y0, x0, y1, x1) in zip(files, boxes, strict=True):
        image = Image.fromarray(decode(path, size))
        for kept, part, side in (
            (images, image, options.image_size),
            (patches, image.crop((x0, y0, x1, y1)), options.patch_size),
        ):
            small = np.asarray(part.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32) / 255
            kept.append(torch.from_numpy((small - MEAN) / DEVIATION).permute(2, 0, 1).float())
    optimizer.zero_grad()
    outputs = model.outputs(torch.stack(images), torch.stack(patches))
    loss = two_stream_loss(outputs, torch.from_numpy(labels), options)
    loss.backward()
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=128, help="side of the prepared images")
    parser.add_argument("--epochs", type=int, default=0, help="of the trial training; 0 for none")
    parser.add_argument("--row", default="twostream-attention", help="of the trial training")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    files, labels = photographs(arguments.folder)
    images = {split: np.stack([decode(path, arguments.size) for path in paths]) for split, paths in files.items()}
    boxes = {split: central(len(paths), arguments.size) for split, paths in files.items()}
    declared = load_declaration("profiles")["two-stream"]["trial"]
    classes = int(labels["train"].max()) + 1
    report = {"images": {split: len(paths) for split, paths in files.items()}, "classes": classes}
    report["speed"] = speed(arguments, declared, files, images, boxes, labels, classes)
    print(json.dumps(report, indent=1), flush=True)
    if arguments.epochs:
        report["trial"] = trial(arguments, declared, images, boxes, labels, classes)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def built(declared, row, classes):
    torch.manual_seed(0)
    architecture = {**declared, **get_variant(row).architecture}
    return build_model(architecture, classes, architecture["image_size"])


def no_test(model, part):
    """What stands for the logits of test images where none are looked at."""
    return np.zeros((part.stop - part.start, 2))


def made_trainer(declared, row, images, boxes, labels, classes, epochs, folder, on_epoch=lambda row: None):
    recipe = TwoStreamRecipe.from_dict({**load_declaration("recipes")["two-stream-trial"], "epochs": epochs})
    data = FineData(images["train"], labels["train"], boxes["train"])
    model = built(declared, row, classes)
    watch = Watch(on_epoch=on_epoch)
    return TwoStreamTrainer(model, data, labels["test"][:1], no_test, recipe, 0, folder, torch.device("cpu"), watch)


def speed(arguments, declared, files, images, boxes, labels, classes):
    ours, theirs = [], []
    row = "twostream-attention"
    model = built(declared, row, classes).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    with tempfile.TemporaryDirectory() as folder:
        trainer = made_trainer(declared, row, images, boxes, labels, classes, 1, Path(folder))
        trainer.stepper.enter_epoch(1, 0)
        batch = np.sort(trainer.stepper.batches[0])
        for turn in range(arguments.repeats + 1):
            started = time.perf_counter()
            trainer.stepper.take(1, 0)
            middle = time.perf_counter()
            plain_step(
                model, optimizer, [files["train"][i] for i in batch], boxes["train"][batch, 0],
                labels["train"][batch], arguments.size,
            )  # fmt: skip
            if turn:
                ours.append(middle - started)
                theirs.append(time.perf_counter() - middle)
        pass_seconds, readout_seconds = evaluations(trainer.model, images, boxes, labels)
    epoch = statistics.median(ours) * (len(labels["train"]) // 32)
    return {
        "step_seconds": statistics.median(ours),
        "plain_step_seconds": statistics.median(theirs),
        "ratio": statistics.median(theirs) / statistics.median(ours),
        "epoch_seconds": epoch,
        "pass_seconds": pass_seconds,
        "pass_of_epoch_pct": 100 * pass_seconds / epoch,
        "readout_seconds": readout_seconds,
        "readouts_of_epoch_pct": 100 * readout_seconds / epoch,
    }


def evaluations(model, images, boxes, labels):
    """Seconds of the one pass over the test images, and of all readouts of all policies on what it gave."""
    started = time.perf_counter()
    cached = list(blocks(model, images["test"], boxes["test"], 32))
    passed = time.perf_counter()
    bias = model.local_head.classifier.bias.detach().double().numpy()
    start = 0
    for block in cached:
        truth = labels["test"][start : start + len(block.global_logits)]
        drawn = np.zeros((10, len(truth)), dtype=np.int64)
        found = {}
        for name, local in readouts(block, bias).items():
            _collect(found, name, block.global_logits[:, None] + local, truth, drawn)
        start += len(truth)
    return passed - started, time.perf_counter() - passed


def trial(arguments, declared, images, boxes, labels, classes):
    rows = []

    def tell(row):
        rows.append(row)
        print(f"epoch {row.epoch}: loss {row.train_loss:.3f}, training error {row.train_error_pct:.1f} %", flush=True)

    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        trainer = made_trainer(
            declared,
            arguments.row,
            images,
            boxes,
            labels,
            classes,
            arguments.epochs,
            Path(folder),
            tell,
        )
        trainer.run()
    found = score(trainer.model, images["test"], labels["test"], boxes["test"], 0).correct
    result = {f"{policy} {readout}": 100 * float(hits.mean()) for (policy, readout), hits in found.items()}
    kept = {name: value for name, value in result.items() if name.split()[1] in ("joint", "global", "local")}
    summary = {"cpu_seconds": time.process_time() - started, "chance": 100 / classes, "accuracy_pct": kept}
    print(json.dumps(summary, indent=1))
    return {**summary, "loss": [row.train_loss for row in rows], "steps": result}


if __name__ == "__main__":
    main()
