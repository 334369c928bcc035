"""Parameters, multiply-accumulates and feature sizes of every network of the paper, against known counts."""

import functools
import json

import pytest
import torch

from ltpa.cli import main
from ltpa.core.errors import ModelError
from ltpa.models import create_model
from ltpa.models.describe import count_macs, count_parameters
from ltpa.models.describe import describe as describe_afresh

describe = functools.cache(describe_afresh)

# variant: parameters for 10 and 100 classes, MACs of a 32 x 32 image for 100 classes, length of the features.
# The first count of VGG and of RN-164 is the one that cifar.torch and wide-residual-networks print in their logs.
COUNTS = {
    "vgg": (14_991_946, 15_038_116, 313_509_888, 512),
    "vgg-gap": (14_728_266, 14_774_436, 3_738_945_536, 512),
    "vgg-pan": (24_698_956, 24_745_126, 3_834_169_344, 512),
    "vgg-att-dp": (19_713_610, 19_759_780, 3_786_459_136, 512),
    "vgg-att2-indep-dp": (19_719_764, 19_812_104, 3_786_772_480, 1024),
    "vgg-att2-concat-dp": (19_719_754, 19_812_004, 3_786_772_480, 1024),
    "vgg-att-pc": (19_714_123, 19_760_293, 3_786_459_136, 512),
    "vgg-att2-indep-pc": (19_720_790, 19_813_130, 3_786_772_480, 1024),
    "vgg-att2-concat-pc": (19_720_780, 19_813_030, 3_786_772_480, 1024),
    "vgg-att3-concat-pc": (19_856_461, 19_971_751, 3_787_453_440, 1280),
    "rn164": (1_703_258, 1_726_388, 244_524_032, 256),
    "rn164-att": (2_360_411, 2_383_541, 254_059_520, 256),
    "rn164-att2": (2_395_484, 2_430_134, 254_170_624, 384),
}
# Parameters that remain without the branch that a softmax over pc scores makes inert, for 10 and 100 classes.
LIVE = {
    "vgg-att-pc": (14_729_802, 14_775_972),
    "vgg-att2-concat-pc": (14_736_458, 14_828_708),
    "vgg-att3-concat-pc": (14_739_786, 14_855_076),
    "rn164-att2": (1_705_178, 1_739_828),
}
# 80 x 80 images of 200 birds: parameters and MACs (10^9).
BIRDS = {
    "vgg": (15_089_416, 1.920),
    "vgg-att2-concat-pc": (19_915_530, 13.111),
    "vgg-att3-concat-pc": (20_099_851, 13.111),
    "vgg-pan": (24_796_426, 13.158),
}


@pytest.mark.parametrize("variant", COUNTS)
def test_counts_at_32_pixels(variant):
    for_10, for_100, macs, feature_dim = COUNTS[variant]
    with torch.device("meta"):
        assert count_parameters(create_model(variant, 10)) == for_10
    facts = describe(variant, 100)
    assert facts["parameters"] == for_100
    assert facts["feature_dim"] == feature_dim
    assert facts["macs"] == pytest.approx(macs, rel=1e-3)


@pytest.mark.parametrize("variant", BIRDS)
def test_counts_at_80_pixels(variant):
    parameters, giga_macs = BIRDS[variant]
    with torch.device("meta"):
        model = create_model(variant, 200, image_size=80, pools="cub")
    assert count_parameters(model) == parameters
    assert round(count_macs(model) / 1e9, 3) == giga_macs


def test_the_command_line_counts_what_options_change(capsys):
    birds = ["model", "vgg-att2-concat-pc", "--classes", "200", "--image-size", "80", "--json"]
    assert main([*birds, "--option", "pools=cub", "--option", "dropout=0.5"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["parameters"], round(facts["macs"] / 1e9, 3)) == BIRDS["vgg-att2-concat-pc"]
    assert (facts["architecture"]["pools"], facts["architecture"]["dropout"]) == ("cub", 0.5)
    assert main([*birds, "--option", "levels=[conv13]"]) == 0
    assert list(json.loads(capsys.readouterr().out)["map_sizes"]) == ["conv13"]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("pool=cub", "unknown key 'pool'; did you mean pools"),
        ("pools=birds", "'cifar' or 'cub'"),
        ("width=2", "--width"),
        ("variant=vgg", "VARIANT"),
        ("num_classes=3", "--classes"),
        ("family=resnet", "family is 'vgg'"),
    ],
)
def test_the_command_line_refuses_options_that_are_not_there(option, says, capsys):
    assert main(["model", "vgg", "--option", option]) != 0
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


@pytest.mark.parametrize("option", ["pools", "=cub", "pools=[cub"])
def test_the_command_line_takes_options_as_key_and_value(option, capsys):
    with pytest.raises(SystemExit):
        main(["model", "vgg", "--option", option])
    assert option in capsys.readouterr().err


@pytest.mark.parametrize("variant", LIVE)
def test_live_parameters(variant):
    for classes, live in zip((10, 100), LIVE[variant], strict=True):
        facts = describe(variant, classes)
        assert facts["live_parameters"] == live
        assert facts["live_parameters"] + facts["dead_parameters"] == facts["parameters"]


def test_nothing_is_dead_where_the_global_vector_matters():
    for variant in ("vgg", "rn164", "vgg-att2-concat-dp", "vgg-att2-concat-pctanh", "vgg-att2-concat-pcsigmoid"):
        assert describe(variant, 100)["dead_parameters"] == 0
    assert describe("vgg-pan", 100)["dead_parameters"] == 4_984_321  # one of its two global branches


def test_extensions_differ_by_what_they_change():
    def parameters(variant):
        return describe(variant, 100)["parameters"]

    base = parameters("vgg-att2-concat-pc")
    branch = 2 * (512 * 512 * 9 + 512 + 1024) + 512 * 512 + 512
    assert parameters("vgg-att2-concat-pcsigmoid") == base
    assert parameters("vgg-att2-concat-pctanh") == base - 2  # the biases of u
    assert parameters("vgg-att2-concat-local") == base - branch - 2
    assert parameters("vgg-att2-concat-pc-globals2") == base + branch
    projection_down, projection_up = 2 * 512 + 512 * 256 + 256, 256 * 512 + 512
    wider = 256 * (1 + 2 + 100)  # u, batch normalisation and classifier of a level with 512 instead of 256 channels
    assert (
        parameters("vgg-att3-concat-pc-up")
        == parameters("vgg-att3-concat-pc") - projection_down + projection_up + wider
    )


def test_the_re_implementation_has_the_size_of_its_original():
    with torch.device("meta"):
        sizes = [count_parameters(create_model("vgg-att3-concat-pc-plain", classes)) for classes in (10, 100)]
    assert sizes == [19_855_434, 19_993_764]


def test_map_sizes():
    assert describe("vgg-att3-concat-pc", 100)["map_sizes"] == {
        "conv7": [256, 32, 32],
        "conv10": [512, 16, 16],
        "conv13": [512, 8, 8],
    }
    assert describe("rn164-att2", 100)["map_sizes"] == {"stage2": [128, 16, 16], "stage3": [256, 8, 8]}
    assert describe("vgg", 10, width=0.5)["map_sizes"]["conv13"] == [256, 2, 2]


def test_counting_leaves_the_mode_alone():
    with torch.device("meta"):
        model = create_model("vgg", 10, width=1 / 16)
    count_macs(model)
    assert model.training
    count_macs(model.eval())
    assert not model.training


def test_describing_what_is_not_there():
    with pytest.raises(ModelError, match="did you mean"):
        describe("vgg-att4", 10)
