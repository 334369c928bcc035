"""What the evaluation protocols cost beside the passes through the network that they cannot do without.

    python benchmarks/evaluation.py [attack] [segmentation] [maps] [--threads 1] [--repeats 5] [--width 0.125]

attack: the sweep of five epsilons against one forward and backward pass and five forward passes of the same images, in
turns, so that a busy machine disturbs both alike; medians of wall and of processor time. The aim is a ratio of at most
1.5.
segmentation, maps: 300 images of 32 px with masks of 340 x 240, from maps to metrics; the aim is seconds.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch.nn import functional as F

from ltpa.evaluation.controls import CONTROLS
from ltpa.evaluation.fgsm import Attack, attack
from ltpa.evaluation.maps import network_maps
from ltpa.evaluation.pgd import IteratedAttack, attack_iterated
from ltpa.evaluation.saliency import Saliency
from ltpa.evaluation.segmentation import score_maps
from ltpa.models import create_model
from ltpa.models.variants import get_variant

PARTS = ("attack", "segmentation", "maps")
ATTACKED = ("vgg", "vgg-att2-concat-pc", "rn164-att2")
SEGMENTING = ("vgg-gap", "vgg-pan", "vgg-att2-concat-pc", "vgg-att3-concat-pc", "rn164-att2")
EPSILONS = (1, 2, 4, 8, 16)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART")
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--variants", nargs="+", help="networks in place of those of the tables")
    parser.add_argument("--no-pgd", action="store_true", help="leave the iterated attack out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    for part in options.parts:
        {"attack": time_attack, "segmentation": time_segmentation, "maps": time_maps}[part](options)


def pictures(count, size):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def network(variant, options, size=32):
    torch.manual_seed(0)
    return create_model(variant, 10, size, options.width).eval()


def time_attack(options, count=100, batch=50):
    images, labels = pictures(count, 32), np.arange(count) % 10
    settings = Attack(EPSILONS, "predicted", clip=True, round=False, batch_size=batch)
    for variant in options.variants or ATTACKED:
        model = network(variant, options)
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2)).float().split(batch)

        def passes(model=model, pixels=pixels):
            for block in pixels:
                inputs = block.clone().requires_grad_(True)
                F.cross_entropy(model(inputs), torch.zeros(len(block), dtype=torch.int64), reduction="sum").backward()
                for parameter in model.parameters():
                    parameter.grad = None
                with torch.no_grad():
                    for _ in EPSILONS:
                        model(block)

        def sweep(model=model):
            attack(model, images, labels, settings)

        def iterated(model=model):
            attack_iterated(
                model,
                images,
                labels,
                settings,
                IteratedAttack([8], steps=10, step_size=0.25, random_start=True, seed=0),
            )

        steps = {"passes": passes, "sweep": sweep}
        steps |= {} if options.no_pgd else {"pgd, one epsilon, 10 steps": iterated}
        times = alternate(steps, options.repeats)
        print(f"attack, {variant}, width {options.width:g}, {count} images: wall, processor seconds, and their ratios")
        for name, both in times.items():
            ratios = [seconds / base for seconds, base in zip(both, times["passes"], strict=True)]
            print(f"  {name:28} {both[0]:7.3f} {both[1]:7.3f}  {ratios[0]:5.2f} {ratios[1]:5.2f}", flush=True)


def alternate(steps, repeats):
    """Median wall and processor seconds of each step, taken in turns, after one turn that does not count."""
    times = {name: ([], []) for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            started = time.perf_counter(), time.process_time()
            step()
            if turn:
                for values, clock, begin in zip(
                    times[name], (time.perf_counter, time.process_time), started, strict=True
                ):
                    values.append(clock() - begin)
    return {name: tuple(map(statistics.median, values)) for name, values in times.items()}


def object_masks(count, height=240, width=340):
    """Ellipses of many places and sizes."""
    generator = np.random.default_rng(1)
    rows, columns = np.mgrid[:height, :width]
    for _ in range(count):
        y, x = generator.uniform(60, height - 60), generator.uniform(80, width - 80)
        a, b = generator.uniform(20, 60), generator.uniform(20, 80)
        yield ((((rows - y) / a) ** 2 + ((columns - x) / b) ** 2) < 1).astype(np.uint8)


def time_segmentation(options, count=300):
    images, masks = pictures(count, 32), list(object_masks(count))
    for variant in options.variants or SEGMENTING:
        model = network(variant, options)
        saliency = Saliency.from_declaration(get_variant(variant).saliency, "benchmark")
        maps, making = timed(lambda model=model, how=saliency: how.maps(model, images, 250))
        _, scoring = timed(lambda maps=maps, how=saliency: score_maps(maps, masks, how))
        print(f"segmentation, {variant}: maps {making}, scores {scoring}")


def timed(work):
    """What `work` returns, and its wall and processor seconds as text."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, f"{time.perf_counter() - wall:.2f} s wall, {time.process_time() - processor:.2f} s processor"


def time_maps(options, count=300):
    images, masks = pictures(count, 32), list(object_masks(count))
    model = network("vgg-att2-concat-pc", options)
    maps, making = timed(lambda: network_maps(model, images, 250))
    print(f"maps of vgg-att2-concat-pc: {making}")
    for name, control in CONTROLS.items():
        maps[name], making = timed(lambda control=control: control(images))
        print(f"{name}: {making}")
    _, scoring = timed(lambda: score_maps(maps, masks, None))
    print(f"scores of {len(maps)} kinds: {scoring}")


if __name__ == "__main__":
    main()
