"""Training steps of the paper's networks at full size: images per second, against the usual loop and against the floor.

    python benchmarks/train.py [VARIANT ...] [--device cpu|cuda] [--ways fp32 bf16 ...] [--threads 2] [--seconds 60]

Every line is one way to take the same steps, on random images, with the variant's own recipe and batch size:

* `usual`: eager float32 in NCHW, networks written plainly (naive_networks.py), `torch.optim.SGD`, a `DataLoader` whose
  workers crop, mirror and normalise image by image, the loss read after every step: how public re-implementations
  train. On a GPU its convolutions use TF32, as PyTorch's do unless told otherwise. The transforms are torchvision's
  written again with Pillow and NumPy, as torchvision does not load beside every build of PyTorch.
* `floor`: what no way can beat that multiplies as often: the slower of all multiplications at the matrix peak measured
  for its number format (on a GPU TF32 is one of its own), and of reading and writing each convolution's input and
  output three times at the measured bandwidth.
* the others: `ltpa.training.step` with the recipe keys named in `WAYS`.

Ways take turns, at least one each and as many as fit into `--seconds`, so that a busy machine disturbs all alike;
medians count. A step that takes more than about ten seconds is not warmed up. `processor ms` is the trainer's own
processor time for an image; with `--threads 1` it is the fairer number where others work on the same cores. Before,
`--device cuda` proves that recorded steps give the bits of direct ones, and ends with an error where they do not.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from pathlib import Path

import naive_networks
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from ltpa.core.declared import load_declaration
from ltpa.core.files import write_text
from ltpa.models import create_model, get_variant
from ltpa.models.describe import network_size
from ltpa.training.arrays import Arrays
from ltpa.training.precision import tensor_cores
from ltpa.training.recipe import Recipe
from ltpa.training.step import Stepper

CLASSES, SIZE = 10, 32
IMAGES = {"vgg-cifar": 50_000, "resnet-cifar": 50_000}
WAYS = {
    "fp32-nchw": {"channels_last": False},
    "fp32": {},
    "fp32+compile": {"compile": True},
    "bf16": {"precision": "bf16"},
    "bf16+compile": {"precision": "bf16", "compile": True},
    "tf32": {"precision": "tf32"},
    "fp32+graph": {"cuda_graph": True},
    "bf16+graph": {"precision": "bf16", "cuda_graph": True},
    "bf16+compile+graph": {"precision": "bf16", "compile": True, "cuda_graph": True},
}
FORMATS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16")}
DEFAULT_WAYS = {
    "cpu": ["fp32", "bf16"],
    "cuda": ["fp32", "tf32", "bf16", "fp32+graph", "bf16+graph", "bf16+compile", "bf16+compile+graph"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", default=["vgg-att2-concat-pc", "rn164"], metavar="VARIANT")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=2, help="loader processes of the usual loop")
    parser.add_argument("--seconds", type=float, default=60, help="time for the turns of one variant")
    parser.add_argument("--steps", type=int, help="steps in a turn; default 1 on a CPU, 50 on a GPU")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, help="images in a step; default that of the recipe")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the first way's speeds for `ltpa plan`")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch sees no GPU here")
    options.steps = options.steps or (50 if device.type == "cuda" else 1)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.deterministic = True
    peaks = {name: matrix_peak(device, name) for name in FORMATS[device.type]}
    bandwidth = memory_bandwidth(device)
    cpu = f"{processor_name()}, {options.threads} threads"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    print(f"{name}, PyTorch {torch.__version__}")
    named = ", ".join(f"{name} {peak / 2e9:.0f}" for name, peak in peaks.items())
    print(f"measured peaks: {named} GMAC/s,", end=" ")
    print(f"memory {bandwidth / 1e9:.0f} GB/s")
    speeds = {}
    for variant in options.variants:
        recipe_name = f"{get_variant(variant).recipe}-cifar"
        recipe = Recipe.from_dict(load_declaration("recipes")[recipe_name])
        recipe = recipe.model_copy(update={"batch_size": options.batch or recipe.batch_size, "normalise": "none"})
        if device.type == "cuda":
            prove_graphs(variant, recipe, device)
        speeds[variant] = measure(variant, recipe, IMAGES[recipe_name], peaks, bandwidth, device, options)
    if options.save:
        command = shlex.join(["python", "benchmarks/train.py", *sys.argv[1:]])
        write_text(options.save, json.dumps({"command": command, "device": name, "variants": speeds}, indent=1) + "\n")


def processor_name():
    """As Linux calls it; what it does not name is a CPU."""
    with open("/proc/cpuinfo", encoding="utf-8") as stream:
        names = [line.partition(":")[2].strip() for line in stream if line.startswith("model name")]
    return names[0] if names else "CPU"


def measure(variant, recipe, images, peaks, bandwidth, device, options):
    flops, traffic = cost(variant, options.width)
    warm_up = flops * recipe.batch_size / peaks["fp32"] < 10
    per_step = options.steps * recipe.batch_size
    raw = random_images(per_step)
    ways = {"usual": usual_steps(variant, recipe, raw, device, options)}
    for way in options.ways or DEFAULT_WAYS[device.type]:
        ways[way] = our_steps(variant, recipe.model_copy(update=WAYS[way]), raw, device, options)
    times, processor = ({way: [] for way in ways} for _ in range(2))
    for way, turn in ways.items():
        if warm_up or "compile" in way:
            turn()
    end = time.perf_counter() + options.seconds
    while not times["usual"] or time.perf_counter() < end:
        for way, turn in ways.items():
            started, worked = time.perf_counter(), time.process_time()
            turn()
            times[way].append(time.perf_counter() - started)
            processor[way].append(time.process_time() - worked)
    print(
        f"\n{variant}: batches of {recipe.batch_size}, {flops / 2e9:.2f} GMAC, {traffic / 1e6:.0f} MB an image,",
        end=" ",
    )
    print(f"{len(times['usual'])} turns of {options.steps} steps")
    print(f"{'':20} {'images/s':>9} {'GMAC/s':>8} {'of peak':>8} {'x usual':>8} {'paper run':>12} {'processor ms':>13}")
    seen = images // recipe.batch_size * recipe.batch_size * recipe.epochs
    usual = per_step / statistics.median(times["usual"])
    for way, values in times.items():
        peak, worked = peaks[number_format(way, device)], statistics.median(processor[way])
        line(way, per_step / statistics.median(values), flops, peak, usual, seen, f"{1e3 * worked / per_step:13.1f}")
    for name in peaks:
        rate = 1 / max(flops / peaks[name], traffic * (2 if name == "bf16" else 4) / 4 / bandwidth)
        line(f"floor, {name}", rate, flops, peaks[name], usual, seen)
    first = next(way for way in ways if way != "usual")
    macs, _ = network_size(json.dumps(create_model(variant, CLASSES, SIZE, options.width).architecture), CLASSES, SIZE)
    return {"way": first, "images_per_second": per_step / statistics.median(times[first]), "macs": macs}


def number_format(way, device):
    """What a way multiplies in."""
    if way == "usual":
        return "tf32" if device.type == "cuda" else "fp32"
    precision = WAYS[way].get("precision", "fp32")
    return precision if precision in FORMATS[device.type] else "fp32"


def line(name, rate, flops, peak, usual, seen, processor=""):
    hours = seen / rate / 3600
    span = f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
    share = rate * flops / peak
    text = f"{name:20} {rate:9.2f} {rate * flops / 2e9:8.1f} {share:8.0%} {rate / usual:8.2f} {span:>12} {processor}"
    print(text.rstrip(), flush=True)


def random_images(count):
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def our_steps(variant, recipe, raw, device, options):
    """A function that takes the turn's steps as `ltpa.training.engine` does."""
    torch.manual_seed(0)
    model = create_model(variant, CLASSES, SIZE, options.width).to(device)
    inputs = torch.from_numpy(raw).permute(0, 3, 1, 2).float().sub(120).div(64).contiguous()
    arrays = Arrays(inputs.to(device), (torch.arange(len(raw)) % CLASSES).to(device))
    stepper = Stepper(model, arrays, recipe, 0)

    def turn():
        stepper.enter_epoch(1, 0)
        for step in range(options.steps):
            stepper.take(1, step)
        stepper.totals()

    return turn


class Transformed(Dataset):
    """RandomCrop(32, padding=4), RandomHorizontalFlip, ToTensor, Normalize, image by image."""

    def __init__(self, raw):
        self.raw = raw

    def __len__(self):
        return len(self.raw)

    def __getitem__(self, index):
        image = Image.fromarray(self.raw[index])
        padded = Image.new("RGB", (SIZE + 8, SIZE + 8))
        padded.paste(image, (4, 4))
        top, left = torch.randint(0, 9, (2,)).tolist()
        image = padded.crop((left, top, left + SIZE, top + SIZE))
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        mean, deviation = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
        return tensor.sub(mean[:, None, None]).div(deviation[:, None, None]), index % CLASSES


def usual_steps(variant, recipe, raw, device, options):
    """A function that takes the turn's steps the usual way."""
    architecture = create_model(variant, CLASSES, SIZE, options.width).architecture
    model = naive_networks.build(architecture, CLASSES).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay
    )
    loader = DataLoader(
        Transformed(np.concatenate([raw] * 20)),  # the workers run ahead, as in an epoch of many steps
        batch_size=recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        pin_memory=device.type == "cuda",
    )

    def batches():
        while True:
            yield from loader

    coming = batches()

    def turn():
        for _ in range(options.steps):
            images, labels = (value.to(device, non_blocking=True) for value in next(coming))
            optimizer.zero_grad()
            loss = sum(F.cross_entropy(logits, labels) for logits in model(images))
            loss.backward()
            optimizer.step()
            loss.item()

    return turn


def cost(variant, width):
    """Floating point operations of forward and backward, and the convolutions' memory traffic in float32, per image."""
    model = create_model(variant, CLASSES, SIZE, width)
    moved = []

    def count(module, given, out):
        moved.append(3 * 4 * (given[0].numel() + out.numel()) / 2)

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    with FlopCounterMode(display=False) as counter:
        model.loss(torch.randn(2, 3, SIZE, SIZE), torch.tensor([0, 1])).backward()
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() / 2, sum(moved)


def best_seconds(function, device, repeats):
    function()
    best = float("inf")
    for _ in range(repeats):
        synchronise(device)
        started = time.perf_counter()
        function()
        synchronise(device)
        best = min(best, time.perf_counter() - started)
    return best


@torch.no_grad()
def matrix_peak(device, name):
    """Operations per second of the faster of a matrix product and a convolution, which use different libraries."""
    dtype = torch.bfloat16 if name == "bf16" else torch.float32
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    count = 256 if device.type == "cuda" else 8
    x = torch.randn(count, 256, SIZE, SIZE, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randn(256, 256, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    operations = 2 * 9 * 256 * 256 * count * SIZE * SIZE
    with tensor_cores(name == "tf32"):
        product = 2 * size**3 / best_seconds(lambda: a @ b, device, 5)
        return max(product, operations / best_seconds(lambda: F.conv2d(x, w, padding=1), device, 5))


def memory_bandwidth(device):
    """Bytes per second read and written by a copy."""
    source = torch.zeros(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / best_seconds(lambda: target.copy_(source), device, 5)


def prove_graphs(variant, recipe, device, steps=12):
    """Exit with an error unless recorded steps give the bits of direct ones, dropout and reset momentum included."""
    schedule = {"kind": "milestones", "milestones": (2,), "factors": (0.5,)}
    for precision in ("fp32", "bf16"):
        weights = {}
        for way, graph in (("direct", False), ("again", False), ("recorded", True)):
            values = {"batch_size": 16, "precision": precision, "cuda_graph": graph, "reset_momentum": True}
            changed = Recipe.from_dict({**recipe.plain(), **values, "schedule": schedule})
            torch.manual_seed(0)
            model = create_model(variant, CLASSES, SIZE, 0.25).to(device)
            arrays = Arrays(
                torch.randn(16 * steps, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(device),
                (torch.arange(16 * steps) % CLASSES).to(device),
            )
            stepper = Stepper(model, arrays, changed, 0)
            for epoch in (1, 2):
                stepper.enter_epoch(epoch, 0)
                for step in range(steps):
                    stepper.take(epoch, step)
            weights[way] = torch.cat([value.detach().flatten().double() for value in model.state_dict().values()])
        for way in ("again", "recorded"):
            if not torch.equal(weights["direct"], weights[way]):
                apart = float((weights["direct"] - weights[way]).abs().max())
                sys.exit(
                    f"{variant}, {precision}: {way} steps end {apart:.3g} from the direct ones; do not use cuda_graph"
                )
        print(f"{variant}, {precision}: {2 * steps} recorded steps gave the bits of direct ones")


if __name__ == "__main__":
    main()
