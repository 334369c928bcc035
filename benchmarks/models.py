"""Images per second, forward and backward, of every network against a plain writing of it (naive_networks.py).

    python benchmarks/models.py [VARIANT ...] [--width 0.125] [--image-size 32] [--batch 32] [--seconds 5] [--threads 1]
    python benchmarks/models.py --width 1 --batch 4 --seconds 2 --threads 2     # full width, three turns or a few more

The plain network is eager float32 in NCHW; ours runs as `ltpa.training.engine` trains it, in channels-last. Both hold
the same weights and their logits are compared first. Steps alternate between the two and medians are compared, so that
a busy machine disturbs both alike. `attention` is the share of our step that the attention modules take; the global
branch does not count. docs/measurements.md has figures, with hardware.
"""

import argparse
import statistics
import time

import naive_networks
import torch
from torch.nn import functional as F

from ltpa.models import create_model, list_models
from ltpa.models.attention import AttentionUnit, Parametrised
from ltpa.models.pan import PanClassifier

CLASSES = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", default=list_models(), metavar="VARIANT")
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0, help="time spent on each network")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    print(f"{options.threads} threads, width {options.width:g}, {options.image_size} px, batches of {options.batch}")
    print(f"{'images per second':30} {'plain':>8} {'ours':>8} {'ratio':>6} {'attention':>10}")
    for variant in options.variants:
        measure(variant, options)


def measure(variant, options):
    torch.manual_seed(0)
    ours = create_model(variant, CLASSES, options.image_size, options.width)
    plain = naive_networks.build(ours.architecture, CLASSES)
    naive_networks.copy_weights(plain, ours)
    x = torch.randn(options.batch, 3, options.image_size, options.image_size)
    y = torch.randint(CLASSES, (options.batch,))
    compare(plain.eval(), ours.eval(), x)
    plain.train()
    ours.train().to(memory_format=torch.channels_last)
    last = x.contiguous(memory_format=torch.channels_last)
    steps = {
        "plain": lambda: sum(F.cross_entropy(logits, y) for logits in plain(x)).backward(),
        "ours": lambda: ours.loss(last, y).backward(),
    }
    times = alternate(steps, options.seconds)
    rates = {name: options.batch / seconds for name, seconds in times.items()}
    share = attention_seconds(ours, last) / times["ours"]
    ratio = rates["ours"] / rates["plain"]
    shown = f"{100 * share:9.1f}%" if ours.attention_levels else f"{'–':>10}"
    print(f"{variant:30} {rates['plain']:8.3g} {rates['ours']:8.3g} {ratio:6.2f} {shown}", flush=True)


def compare(plain, ours, x):
    """Stop unless both networks predict the same distributions."""
    with torch.no_grad():
        expected = torch.stack([logits.softmax(1) for logits in plain(x)]).mean(0)
        torch.testing.assert_close(ours(x).softmax(1), expected, atol=1e-4, rtol=1e-3)


def alternate(steps, seconds):
    """Median seconds of each step, taken in turns for `seconds` in all, after one turn that does not count."""
    times = {name: [] for name in steps}
    for step in steps.values():
        step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["ours"]) < 3:
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def attention_seconds(model, x):
    """Median seconds that forward and backward of the attention modules take, on the inputs they get in `model`."""
    parts = [module for module in model.modules() if isinstance(module, AttentionUnit)]
    parts += [model.gate] if isinstance(model, PanClassifier) else []
    inputs = {}
    hooks = [part.register_forward_pre_hook(lambda part, given: inputs.update({part: given})) for part in parts]
    model(x)
    for hook in hooks:
        hook.remove()

    def step():
        for part, given in inputs.items():
            fresh = [None if value is None else value.detach().requires_grad_() for value in given]
            out = part(*fresh)
            if isinstance(part, Parametrised):
                out = (out.sigmoid().unsqueeze(1) * fresh[0],)
            out[0].backward(torch.ones_like(out[0]))

    return alternate({"ours": step}, 0.3)["ours"]


if __name__ == "__main__":
    main()
