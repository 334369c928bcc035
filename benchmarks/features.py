"""Feature extraction against plain inference: images per second, in turns, and the ratio.

    OMP_NUM_THREADS=2 python benchmarks/features.py [--width 0.125] [--images 1000] [--device cuda]

Plain inference is the network's forward pass over pixels that are there as float tensors already, channels innermost,
which is the faster layout; extraction starts from stored uint8 images, preprocesses them and keeps every feature
vector. Rates count processor time on a CPU, wall time on a GPU.
"""

import argparse
import time

import numpy as np
import torch

from ltpa.data.normalise import fit_normaliser
from ltpa.evaluation.inference import extract_features
from ltpa.models import create_model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=["vgg", "vgg-att2-concat-pc"])
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = np.random.default_rng(0).integers(0, 256, (options.images, 32, 32, 3), dtype=np.uint8)
    print("| network | plain images/s | extraction images/s | ratio |\n|---|---:|---:|---:|")
    for variant in options.variants:
        model = create_model(variant, 10, 32, options.width).to(options.device).eval()
        model.preprocessing = fit_normaliser("meanstd", images).to(options.device)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().to(options.device)

        def plain(model=model, pixels=pixels):
            with torch.inference_mode():
                for batch in pixels.split(options.batch):
                    model(batch)
            if options.device != "cpu":
                torch.cuda.synchronize()

        def extraction(model=model):
            extract_features(model, images, options.batch)

        best = {}
        for _ in range(options.repeats):
            for name, work in (("plain", plain), ("extraction", extraction)):
                started = time.perf_counter() if options.device != "cpu" else time.process_time()
                work()
                seconds = (time.perf_counter() if options.device != "cpu" else time.process_time()) - started
                best[name] = min(seconds, best.get(name, np.inf))
        rates = {name: len(images) / seconds for name, seconds in best.items()}
        ratio = rates["extraction"] / rates["plain"]
        print(f"| {variant} | {rates['plain']:.0f} | {rates['extraction']:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
