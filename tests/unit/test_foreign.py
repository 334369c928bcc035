"""Networks that are not of this package, under the protocols."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ltpa
from ltpa.cli import main
from ltpa.core.errors import ConfigError, DataError, LtpaError, ModelError, NotFiniteError
from ltpa.evaluation.inference import logits_of
from ltpa.evaluation.maps import GIVEN, GRADCAM, network_maps
from ltpa.evaluation.untrained import untrained_networks
from ltpa.models.foreign import Foreign, redraw
from ltpa.models.twostream.vision import torchvision_models
from ltpa.protocols.registry import built_in

FEW = {
    "fgsm": {"epsilons": [8]},
    "faithfulness": {"steps": 2, "removed": [0.5], "random_maps": 1, "subsets": 2},
    "robustness": {"epsilons": [8], "attacks": ["fgsm", "pgd"], "steps": 4},
    "transfer": {"folds": 2},
    "sanity": {"images": 8, "statistics_images": 8},
    "corruptions": {"images": 4},
    "causal": {"draws": 1, "probed_images": 2},
}


class Reimplementation(nn.Module):
    """In the manner of public re-implementations of trainable attention: it returns logits and scores in one list."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.late = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.dense = nn.Conv2d(12, 12, 8)
        self.score = nn.Conv2d(12, 1, 1, bias=False)
        self.classify = nn.Linear(12, 3)

    def forward(self, x):
        local = self.late(self.early(x))
        scores = self.score(local + self.dense(local))
        weights = scores.flatten(2).softmax(2)
        return [self.classify((weights * local.flatten(2)).sum(2)), scores]


class Patches(nn.Module):
    """In the manner of a transformer: no maps but those of patches, and a parameter that no part draws."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.arange(8.0))
        self.mix = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.LayerNorm(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.mix(self.patches(x).flatten(2).mT + self.token).mean(1))


def scores_of(network, inputs, classes):
    return network(inputs)[1]


def images(count=32, size=16):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def labels(count=32):
    return np.arange(count) % 3


def seeded(make):
    torch.manual_seed(0)
    return make()


def test_every_protocol_that_applies_runs_on_a_reimplementation_with_attention():
    network = seeded(Reimplementation)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    masks = np.zeros((32, 16, 16), np.uint8)
    masks[:, 4:12, 4:12] = 1
    found = ltpa.evaluate(network, images(), labels(), maps=scores_of, masks=masks, settings=FEW)
    assert found.keys() == set(built_in())
    run = {name for name, each in found.items() if not each.inapplicable}
    assert run == {
        "calibration", "corruptions", "faithfulness", "fgsm", "gaze", "maps", "robustness", "sanity", "transfer",
    }  # fmt: skip
    assert "has no attention map" in found["causal"].inapplicable and "two streams" in found["finegrained"].inapplicable
    assert found["sanity"].value("cascade_head_correlation", GIVEN) == pytest.approx(1)  # scores do not depend on it
    assert found["sanity"].value("cascade_trunk1_correlation", GIVEN) < 0.9
    kinds = {metric.condition for metric in found["faithfulness"].metrics if metric.name == "road_pct"}
    assert {GIVEN, GRADCAM, "gradient", "random", "centre", "other", "untrained", "oracle"} <= kinds
    clean = found["fgsm"].value("clean_accuracy_pct")
    assert found["robustness"].value("clean_accuracy_pct") == found["calibration"].value("accuracy_pct") == clean
    assert network.training and all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_torchvision_network_gives_its_own_logits_features_and_gradcam():
    network = seeded(lambda: torchvision_models().resnet18(num_classes=3)).eval()
    pictures = images(4, 64)
    model = Foreign(network, 64)
    assert model.num_classes == 3 and model.map_layers == ["layer3", "layer4"]
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        np.testing.assert_allclose(logits_of(model, pictures, 3), network(x), rtol=1e-4, atol=1e-4)
        features = model.features(x)
        assert features.shape == (4, 512)
        torch.testing.assert_close(network.fc(features), network(x))
        local = model.local_features(x)
        assert [tuple(maps.shape) for maps in local.values()] == [(4, 256, 4, 4), (4, 512, 2, 2)]
    last = local["layer4"].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(network.fc(last.mean((2, 3))).max(1).values.sum(), last)
    expected = (gradient.mean((2, 3), keepdim=True) * last).sum(1).relu().detach()
    np.testing.assert_allclose(network_maps(model, pictures, 3)[GRADCAM], expected, rtol=1e-3, atol=1e-6)


def test_maps_of_a_function_that_needs_gradients():
    def gradient(network, inputs, classes):
        (found,) = torch.autograd.grad(network(inputs).gather(1, classes[:, None]).sum(), inputs)
        return found.abs().sum(1)

    found = ltpa.evaluate(seeded(Patches), images(), labels(), ["sanity"], maps=gradient, settings=FEW)
    assert found["sanity"].value("cascade_trunk1_correlation", GIVEN) < 0.9


def test_a_network_without_maps_is_asked_for_a_function():
    model = Foreign(seeded(Patches), 16)
    assert model.map_layers == [] and not model.shows_maps
    with pytest.raises(LtpaError, match="faithfulness: its layers give no map; add a function"):
        ltpa.evaluate(seeded(Patches), images(), labels(), ["faithfulness"])


def test_weights_before_training_are_drawn_anew_and_the_rest_is_permuted():
    network = seeded(Patches)
    (fresh,) = untrained_networks(Foreign(network, 16), draws=1)
    assert sorted(fresh.network.token.tolist()) == sorted(network.token.tolist()) != fresh.network.token.tolist()
    assert not torch.equal(fresh.network.head.weight, network.head.weight)
    before = network.mix[1].weight.clone()
    redraw(network.mix)
    assert torch.equal(before, network.mix[1].weight)  # parts are drawn anew on their own


def test_a_network_of_this_package_keeps_its_preprocessing_and_has_all_protocols():
    model = ltpa.create_model("vgg-att2-concat-pc", num_classes=3, image_size=32, width=0.0625)
    found = ltpa.evaluate(model, images(size=32), labels(), ["causal", "query"], settings=FEW)
    assert not found["causal"].inapplicable
    assert found["query"].value("relative_change", "conv13") < 1e-4


class Broken(nn.Module):
    def __init__(self, output) -> None:
        super().__init__()
        self.weight, self.output = nn.Parameter(torch.ones(1)), output

    def forward(self, x):
        return self.output(x)


@pytest.mark.parametrize(
    ("network", "arguments", "error", "text"),
    [
        (lambda x: x, {}, ConfigError, "network is a function"),
        (nn.Identity(), {}, ModelError, "has no parameters"),
        (Broken(lambda x: x), {}, ModelError, r"returns \(2, 3, 16, 16\)"),
        (Broken(lambda x: {"logits": x}), {}, ModelError, "returns dict"),
        (Broken(lambda x: x.flatten(1)[:, :1]), {}, ModelError, "at least two classes"),
        (Broken(lambda x: x.flatten(1)[:, :4] / 0), {}, NotFiniteError, "not finite; check its weights"),
        (Broken(lambda x: x @ x[:, 0, 0, :1]), {}, ModelError, r"does not run on images \(N, 3, 16, 16\)"),
        (None, {"labels": np.full(32, 3)}, DataError, "there is class 3; the network has 3"),
        (None, {"labels": [0.5] * 32}, DataError, "whole numbers"),
        (None, {"images": images()[..., 0]}, DataError, r"give \(N, S, S, 3\) uint8"),
        (None, {"images": images(0)}, DataError, "none"),
        (None, {"protocols": ["fgms"]}, ConfigError, "fgsm"),
        (None, {"protocols": ["maps"]}, LtpaError, "maps: needs masks"),
        (None, {"protocols": ["transfer"], "labels": np.zeros(32, int)}, DataError, "at least two classes"),
        (None, {"protocols": ["calibration"], "labels": None}, LtpaError, "needs the true class"),
        (None, {"protocols": ["causal"]}, LtpaError, "no attention map"),
        (None, {"preprocessing": "imagnet"}, ConfigError, "preprocessing imagnet: unknown"),
        (None, {"maps": lambda n, x, y: x, "protocols": ["sanity"]}, ModelError, r"give numbers \(N, h, w\)"),
        (None, {"maps": lambda n, x, y: 1 / 0, "protocols": ["sanity"]}, ModelError, "ZeroDivisionError"),
        (None, {"maps": lambda n, x, y: x[:, 0] / 0, "protocols": ["sanity"]}, NotFiniteError, "maps of these images"),
        (None, {"masks": images()[..., 0]}, DataError, "other values than 0"),
        (None, {"settings": {"fgsm": {"epsilon": 1}}}, ConfigError, "epsilon"),
    ],
)
def test_what_does_not_fit_is_one_line(network, arguments, error, text):
    given = {"images": images(), "labels": labels(), "protocols": ["fgsm"], **arguments}
    with pytest.raises(error, match=text) as caught:
        ltpa.evaluate(seeded(Reimplementation) if network is None else network, **given)
    assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for row, pixels in enumerate(images(9)):
        (tmp_path / "pictures" / "abc"[row % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "pictures" / "abc"[row % 3] / f"{row}.png")
    (tmp_path / "theirs.py").write_text(
        "import sys\n"
        f"sys.path.append({str(Path(__file__).parent)!r})\n"
        "from test_foreign import Reimplementation as build, scores_of, Broken\n"
        "from torch import nn\n"
        "def number(): return 3\n"
        "def fails(): raise OSError('no weights\\nhere')\n"
        "some = 4\n"
    )
    return tmp_path


def command(*options: str) -> int:
    return main(["evaluate", "fgsm", "--images", "pictures", "--size", "16", *options])


def test_command_line_measures_the_network_that_a_function_returns(folder: Path, capsys):
    assert command("--model", "theirs.py:build", "--json", "--maps", "theirs.py:scores_of") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "theirs.py:build" and found["preprocessing"] == "imagenet" and found["count"] == 9
    assert "alphabetical" in found["note"] and "clean_accuracy_pct" in {each["name"] for each in found["metrics"]}
    (folder / "classes.txt").write_text("x\ny\nz\n")
    assert command("--model", "theirs:build", "--json", "--classes", "classes.txt") == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["name"] for each in found["metrics"]} == {"fooling_rate_pct"}


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--model", "no_such_module:build"], 2, "ModuleNotFoundError"),
        (["--model", "theirs:built"], 2, "AttributeError"),
        (["--model", "theirs.py:built"], 2, "defines no built"),
        (["--model", "missing.py:build"], 2, "cannot be read"),
        (["--model", "theirs:some"], 2, "is a int; name a function"),
        (["--model", "theirs:number"], 2, "returns a int; it must return a torch.nn.Module"),
        (["--model", "theirs:fails"], 2, "OSError: no weights here"),
        (["--model", "theirs:build", "--maps", "theirs"], 2, "not MODULE:NAME"),
        (["--model", "theirs:build", "--preprocessing", "lab"], 2, "use imagenet, none or a function"),
        (["--model", "theirs:build", "--classes", "theirs.py"], 3, "the network has 3"),
        (["--model", "model.safetensors"], 2, "--size goes with --model MODULE:FACTORY"),
    ],
)
def test_command_line_says_in_one_line_what_is_wrong(folder: Path, capsys, options, code, text):
    assert command(*options) == code
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1


def test_a_file_of_a_network_runs_no_code(folder: Path, capsys):
    (folder / "odd:name").write_text("print('run')")
    assert main(["evaluate", "fgsm", "--images", "pictures", "--model", "odd:name"]) != 0
    assert "run" not in capsys.readouterr().out
