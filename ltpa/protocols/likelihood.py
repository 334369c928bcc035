"""Bits per pixel of networks over pixels, how far they see, what they complete, and the proof by a coder."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ltpa.core.checks import Check
from ltpa.core.errors import ConfigError
from ltpa.core.records import Metric, Record
from ltpa.core.seeds import derive
from ltpa.protocols.base import BatchSize, Context, Measurement, MetricKind, Protocol, Scene, Settings, Target

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.models.base import AttentionClassifier

_CODE = "code without a network"
_COPIES = "drawn or most likely level"
_SPARE_BITS = 16  # two bytes
_CONTEXT = "left-upper"


class LikelihoodSettings(Settings):
    """How networks over pixels are judged.

    Attributes:
        batch_size: images per pass.
        coded: test images that go through the arithmetic coder.
        completed: test images whose lower half is drawn.
        changed: test images in which pixels are changed, for the reach.
    """

    no_reading = frozenset({"batch_size", "coded", "completed", "changed"})

    batch_size: BatchSize = 250
    coded: Annotated[int, Field(ge=1, le=10**5)] = 16
    completed: Annotated[int, Field(ge=1, le=10**5)] = 100
    changed: Annotated[int, Field(ge=1, le=10**5)] = 8


class Likelihood(Protocol):
    """Bits per pixel beside codes without a network, measured reach, completions, images coded and restored."""

    name = "likelihood"
    title = "Likelihood of pixels"
    about = "bits per pixel, measured reach, completions"
    section = "van den Oord et al. 2016; Parmar et al. 2018"
    Settings = LikelihoodSettings
    learning = ("likelihood",)
    metrics = (
        MetricKind("bits_per_dim", "bits per pixel", "", "lower", "split"),
        MetricKind("row_bits_per_dim", "bits per pixel of a row", "", "lower", "row, from 1"),
        MetricKind("lower_half_bits_per_dim", "bits per pixel of the lower half, given the upper", "", "lower"),
        MetricKind("first_bits_per_dim", "bits per pixel of the rows that are repeated later", "", "lower"),
        MetricKind("repeated_bits_per_dim", "bits per pixel of the repeated rows", "", "lower"),
        MetricKind("code_bits_per_dim", "bits per pixel without a network", "", "", _CODE),
        MetricKind("parameters", "weights that no mask hides", "", ""),
        MetricKind("leaks", "pairs in which a pixel matters to itself or an earlier one", "", "lower"),
        MetricKind("seen_past_pct", "earlier pixels that matter, of all", "%", "higher"),
        MetricKind("reach_rows", "most rows up from which a pixel matters", "", "higher"),
        MetricKind("restored_pct", "coded images that came back exactly", "%", "higher"),
        MetricKind("coded_bits_per_dim", "bits per pixel of the coded images, in whole bytes", "", "lower"),
        MetricKind(
            "most_spare_bits", "most bits by which a coded image in whole bytes exceeds its stated bits", "", ""
        ),
        MetricKind("kept_pct", "given pixels that stand in the completions", "%", "higher", _COPIES),
        MetricKind("copy_pct", "repeated pixels in completions that equal their original", "%", "higher", _COPIES),
    )
    about_checks = (
        "network beats context: bits per pixel below those with the left and the upper pixel as context.",
        f"coder restores: coded images come back exactly, within {_SPARE_BITS} bits of their stated bits; no leaks.",
    )

    def inapplicable(self, scene: Scene, dataset: str, variant: str) -> str:
        """Sets of pixels alone, and networks that were tested on their test images."""
        if dataset not in scene.using("pixels"):
            return "not a set of pixels"
        split = scene.training(dataset, variant).split
        return "" if split == "test" else f"its training is judged on {split} images, for choices"

    def folder_target(self, name: str, class_ids: list[int] | None) -> Target:
        """None: a folder of images has no levels."""
        raise ConfigError(f"{self.name}: reads levels, which a folder of images does not have; prepare it as a dataset")

    def checks(
        self, facts: Mapping[str, Any], subject: str, records: Sequence[Record], others: Mapping[str, list[Record]]
    ) -> Iterator[Check]:
        """Every network beats its best simple context, and its probabilities are those of a code that works."""
        values = [{(m.name, m.condition): m.value for m in record.metrics} for record in records]
        margin, own, other = min(
            (v["code_bits_per_dim", _CONTEXT] - v["bits_per_dim", "test"], v["bits_per_dim", "test"],
             v["code_bits_per_dim", _CONTEXT]) for v in values
        )  # fmt: skip
        detail = f"worst of {len(values)} seeds: {own:.3f} bits per pixel, by context {other:.3f}"
        yield Check("network beats context", subject, margin, "> 0", margin > 0, detail)
        restored = min(v["restored_pct", ""] for v in values)
        spare, leaks = (max(v[name, ""] for v in values) for name in ("most_spare_bits", "leaks"))
        detail = f"{restored:.0f} % restored, at most {spare:.1f} bits beyond what is stated, {leaks:.0f} leaks"
        holds = restored == 100 and spare <= _SPARE_BITS and leaks == 0
        yield Check("coder restores", subject, spare, f"<= {_SPARE_BITS}", holds, detail)

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: LikelihoodSettings,
        context: Context,
    ) -> Measurement:
        """Measure in double precision, on the test split; codes without a network are fitted to the training split."""
        import copy

        import numpy as np
        import torch

        from ltpa.data.levels import levels_of
        from ltpa.evaluation import codes, likelihood
        from ltpa.models.pixels import PixelNetwork

        assert isinstance(model, PixelNetwork)
        (dataset,) = datasets
        name, test = dataset.name, dataset.split("test")
        train_levels, levels = (levels_of(part, name) for part in (dataset.split("train"), test))
        repeats = np.asarray(test.more["repeats"]).astype(bool)
        network = copy.deepcopy(model).double().eval()
        device = network.head.weight.device
        pixels = torch.from_numpy(levels.astype(np.int64)).to(device)
        count, height, width = levels.shape
        metrics: list[Metric] = []

        def add(metric: str, value: float, n: int = count, condition: str = "") -> None:
            metrics.append(Metric(metric, float(value), n, name, condition))

        bits = likelihood.bits(network, pixels, settings.batch_size)
        add("bits_per_dim", bits.mean(), condition="test")
        trained_on = torch.from_numpy(train_levels.astype(np.int64)).to(device)
        train_bits = likelihood.bits(network, trained_on, settings.batch_size)
        add("bits_per_dim", train_bits.mean(), len(train_bits), "train")
        for row in range(height):
            add("row_bits_per_dim", bits[:, row].mean(), condition=str(row + 1))
        add("lower_half_bits_per_dim", bits[:, height // 2 :].mean())
        if repeats.any():
            add("first_bits_per_dim", bits[~repeats].mean())
            add("repeated_bits_per_dim", bits[repeats].mean())
        for code in codes.CONTEXTS:
            fitted = codes.context_bits(train_levels, levels, network.num_classes, code)
            add("code_bits_per_dim", fitted.mean(), condition=code)
        add("code_bits_per_dim", codes.lzma_bits_per_dim(levels), condition="lzma")
        add("parameters", network.weights_used(), 1)
        found = likelihood.reach(likelihood.influence(network, pixels[: settings.changed]), width)
        few = min(settings.changed, count)
        add("leaks", found.leaks, few)
        add("seen_past_pct", found.seen_pct, few)
        add("reach_rows", found.rows, few)

        sent = pixels[: settings.coded]
        messages = likelihood.encode(network, sent)
        back = likelihood.decode(network, messages, height, width)
        whole = np.array([8 * -(-length // 8) for _, length in messages])
        add("restored_pct", 100 * float((back == sent).all(2).all(1).double().mean()), len(sent))
        add("coded_bits_per_dim", whole.mean() / (height * width), len(sent))
        add("most_spare_bits", (whole - bits[: len(sent)].sum((1, 2))).max(), len(sent))

        given = pixels[: settings.completed]
        half = height // 2
        stream = np.random.default_rng(derive(context.seed, self.name, "complete"))
        originals = _originals(repeats[0], height)
        for way, draws in (("drawn", stream.random((len(given), height * width))), ("most likely", None)):
            made = likelihood.complete(network, given, half, draws)
            add("kept_pct", 100 * float((made[:, :half] == given[:, :half]).double().mean()), len(given), way)
            if originals:
                pairs = [(made[:, row], made[:, original]) for row, original in originals]
                same = torch.stack([one == other for one, other in pairs]).double().mean()
                add("copy_pct", 100 * float(same), len(given), way)
        return Measurement(metrics)


def _originals(repeats: "Any", height: int) -> list[tuple[int, int]]:
    """Rows of the lower half that repeat one, and that row; the rows that are repeated come first, once each."""
    period = int((~repeats).sum())
    return [(row, row % period) for row in range(height // 2, height) if repeats[row]]
