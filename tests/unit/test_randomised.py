"""Parameters drawn anew: which they are, what they can move, and the null beside them."""

import numpy as np
import pytest
import torch
from networks import DISTINCT, narrow, unsettled
from scipy.stats import spearmanr
from tiny_networks import random_images

from ltpa.data.arrays import PreparedDataset, Split
from ltpa.evaluation import randomised as drawn_anew
from ltpa.evaluation.inference import log_attention_maps
from ltpa.evaluation.randomised import BRANCH, HEAD, STEPS, UNITS, layers, of_other_images, of_randomised, randomised
from ltpa.models import get_variant
from ltpa.models.registry import parse_options
from ltpa.protocols.base import Context, Target
from ltpa.protocols.sanity import Sanity, SanitySettings

ATTENDING = [name for name in DISTINCT if parse_options(get_variant(name).architecture).map_levels]
IMAGES, STATISTICS = random_images(6, 20), random_images(16, 20, seed=1)


def network(variant):
    return unsettled(variant).float()


def after(variant, steps=STEPS):
    """Mean correlations by name and level."""
    model = network(variant)
    maps = log_attention_maps(model, IMAGES, 250)
    found = of_randomised(model, maps, IMAGES, STATISTICS, 250, 0)
    return {name: {level: float(each.mean()) for level, each in levels.items()} for name, levels in found}


@pytest.mark.parametrize("variant", ATTENDING)
def test_every_parameter_belongs_to_one_step(variant: str):
    model = narrow(variant)
    found = [id(weight) for layer in layers(model) for weight in layer.module.parameters(recurse=False)]
    assert sorted(found) == sorted(map(id, model.parameters()))
    assert {layer.step for layer in layers(model)} <= set(STEPS)
    sizes = [sum(isinstance(layer.module, torch.nn.Conv2d) for layer in layers(model) if layer.step == step)
             for step in STEPS[3:]]  # fmt: skip
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


def test_only_the_step_is_redrawn_and_only_what_follows_is_estimated_anew():
    model = network("vgg-att2-concat-pc")
    other = randomised(model, [UNITS], 3, STATISTICS, 250)
    changed = {name for name, value in other.state_dict().items() if not torch.equal(value, model.state_dict()[name])}
    assert {name.split(".")[0] for name in changed} == {"units"}
    assert {"units.conv10.compatibility.u.weight", "units.conv13.compatibility.u.weight"} <= changed
    other = randomised(model, ["trunk4"], 3, STATISTICS, 250)
    changed = {name for name, value in other.state_dict().items() if not torch.equal(value, model.state_dict()[name])}
    weights = {name for name in changed if "running" not in name and "num_batches" not in name}
    assert {name.split(".")[1] for name in weights} == {"section3"} and {name.split(".")[2] for name in weights} == {
        "conv11", "conv12", "conv13",
    }  # fmt: skip
    assert {name.split(".")[0] for name in changed - weights} == {"trunk", "branches"}
    assert not other.training and all(norm.momentum is not None for norm in norms(other))


def norms(model):
    return [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]


def test_statistics_are_those_of_the_images():
    model = network("vgg-att-pc")
    other = randomised(model, ["trunk1"], 0, STATISTICS, 5)  # batches of unequal size
    first = other.trunk.section1.conv1
    with torch.no_grad():
        pixels = torch.from_numpy(STATISTICS).permute(0, 3, 1, 2).float()
        wanted = torch.stack([first.conv(part).mean(dim=(0, 2, 3)) for part in pixels.split(5)]).mean(dim=0)
    torch.testing.assert_close(first.norm.running_mean, wanted, rtol=1e-4, atol=1e-4)


def test_the_head_cannot_move_a_map_and_the_global_branch_cannot_under_pc():
    for variant in ("vgg-att3-concat-pc", "rn164-att2"):
        found = after(variant)
        for name in ("cascade_head", "alone_head", "cascade_branch", "alone_branch"):
            assert set(found[name].values()) == {1.0}, (variant, name)
        assert max(found["cascade_trunk1"].values()) < 0.9
    assert max(after("vgg-att2-concat-dp")["alone_branch"].values()) < 1


def test_steps_without_parameters_change_nothing_and_have_no_row_of_their_own():
    found = after("vgg-att2-concat-dp")
    assert found["cascade_units"] == found["cascade_branch"] and "alone_units" not in found
    assert "alone_branch" not in after("vgg-att2-concat-local")


def test_the_gate_follows_its_branch_and_what_lies_behind_it_does_too():
    found = after("vgg-pan")
    assert found["alone_branch"]["conv13"] < 1 and found["alone_trunk4"]["conv10"] == 1
    steps = [layer.step for layer in layers(narrow("vgg-pan"))]
    assert steps.index("trunk4") > steps.index(UNITS) > steps.index(BRANCH) > steps.index("trunk1")
    assert steps[-1] == HEAD


def test_the_null_is_the_correlation_with_another_images_map():
    maps = {"conv13": np.random.default_rng(0).random((5, 3, 3))}
    maps["conv13"][3] = 0.5  # constant
    found = of_other_images(maps)["conv13"]
    flat = maps["conv13"].reshape(5, 9)
    assert found[0] == pytest.approx(spearmanr(flat[0], flat[2]).statistic)
    assert np.isnan(found).tolist() == [False, True, False, True, False]


def test_draws_depend_on_seed_and_step_alone():
    model = network("vgg-att-pc")
    same, other = (randomised(model, ["trunk1"], seed, STATISTICS, 250) for seed in (0, 1))
    cascade = randomised(model, STEPS, 0, STATISTICS, 250)
    weight = "trunk.section1.conv1.conv.weight"
    assert torch.equal(same.state_dict()[weight], cascade.state_dict()[weight])
    assert not torch.equal(same.state_dict()[weight], other.state_dict()[weight])


def measured(companion=None, splits=("test", "train"), seed=0):
    labels = np.zeros(6, dtype=np.int64)
    parts = {name: Split(IMAGES, labels, labels.astype(str)) for name in splits}
    dataset = PreparedDataset("toy", ["a"], parts, "0" * 64, {})
    context = Context([Target("toy")], {}, seed, None, companion=companion)
    found = Sanity().measure(network("vgg-att-pc"), [dataset], SanitySettings(draws=2, images=4), context)
    return {metric.name: metric for metric in found.metrics}, found.extra


def test_the_protocol_reports_the_null_the_seed_and_every_step(monkeypatch: pytest.MonkeyPatch):
    seeds = []
    draw = drawn_anew.of_randomised
    monkeypatch.setattr(drawn_anew, "of_randomised", lambda *all: seeds.append(all[-1]) or draw(*all))
    metrics, extra = measured(companion=network("vgg-att-pc"))
    assert metrics["other_seed_correlation"].value == 1 and metrics["cascade_head_correlation"].value == 1
    assert {f"cascade_{step}_correlation" for step in STEPS} < metrics.keys()
    beyond = metrics["cascade_trunk1_correlation"].value - metrics["other_image_correlation"].value
    assert metrics["beyond_null_correlation"].value == pytest.approx(beyond)
    assert {metric.n for metric in metrics.values()} == {4} and extra == {}
    metrics, extra = measured(splits=("test",), seed=1)
    assert "other_seed_correlation" not in metrics and extra["notes"][0].startswith("no training images")
    assert len(set(seeds)) == 4
