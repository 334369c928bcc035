"""Every declared network, by enumeration: it builds, runs, learns, and refuses what it cannot do."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from networks import DISTINCT, EVERY, NARROW, images, narrow, options_of

from ltpa.core.declared import config_dir, load_declaration, near_matches
from ltpa.core.errors import ConfigError, ModelError
from ltpa.models import build_model, create_model, get_variant, list_models, resolve_architecture
from ltpa.models.describe import describe
from ltpa.models.registry import families, family, parse_options
from ltpa.models.variants import published_size

PAPER = [
    *("vgg", "vgg-gap", "vgg-pan", "rn164", "vgg-att-dp", "vgg-att2-indep-dp", "vgg-att2-concat-dp", "vgg-att-pc"),
    *("vgg-att2-indep-pc", "vgg-att2-concat-pc", "vgg-att3-concat-pc", "rn164-att", "rn164-att2"),
]


def test_the_networks_of_the_paper_are_all_there():
    assert list_models(extensions=False) == PAPER
    assert list_models("*att3*", extensions=False) == ["vgg-att3-concat-pc"] and list_models("att3") == []
    assert len(EVERY) == len({get_variant(name).label for name in EVERY})
    for name in EVERY:
        assert get_variant(name).extension == (name not in PAPER)
        assert get_variant(name).recipe in ("vgg", "resnet")


@pytest.mark.parametrize("name", EVERY)
def test_resolved_architecture_is_complete_plain_data(name):
    architecture = resolve_architecture(name, width=0.5)
    assert json.loads(json.dumps(architecture)) == architecture
    assert architecture["width"] == 0.5
    assert build_model(architecture, 3, 20).architecture == architecture


@pytest.mark.parametrize("name", DISTINCT)
def test_saliency_declares_maps_that_the_network_has(name):
    saliency = get_variant(name).saliency
    with torch.device("meta"):
        levels = narrow(name).attention_levels
    if saliency is None or saliency["source"] == "cam":
        assert levels == ()
    else:
        assert tuple(saliency["levels"]) == levels[-2:]


@pytest.mark.parametrize("size", [20, 24, 32])
@pytest.mark.parametrize("name", DISTINCT)
def test_forward_features_attention(name, size):
    model = narrow(name, num_classes=7, image_size=size).eval()
    x = images(3, size, dtype=torch.float32)
    with torch.no_grad():
        logits, features, maps = model(x), model.features(x), model.attention(x)
        one = model(x[:1])
        locals_ = model.local_features(x)
    assert logits.shape == (3, 7)
    assert features.shape == (3, model.feature_dim)
    assert tuple(maps) == model.attention_levels
    assert one.shape == (1, 7) and torch.allclose(one, logits[:1], atol=1e-5)
    for level, weights in maps.items():
        assert weights.shape == (3, *locals_[level].shape[2:])
        assert (weights >= 0).all() and (weights <= 1).all()
        if (name, level) != ("vgg-pan", "conv10"):
            assert torch.allclose(weights.sum(dim=(1, 2)), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("name", DISTINCT)
def test_it_learns_three_colours(name):
    model = narrow(name, num_classes=3, image_size=20, bn_weight="one", u_std=0.2)  # at sqrt 2 PAN's gate may saturate
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    y = torch.arange(12) % 3
    x = images(12, 20, dtype=torch.float32) + 2 * torch.nn.functional.one_hot(y)[:, :, None, None]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    inert = [key for key, parameter in model.named_parameters() if not parameter.grad.any()]
    dead = sum(dict(model.named_parameters())[key].numel() for key in inert)
    assert dead == describe(name, 3, 20, NARROW, **options_of(name))["dead_parameters"], inert


@pytest.mark.parametrize("size", [24, 80, 96])
@pytest.mark.parametrize("name", ["vgg", "vgg-gap", "vgg-pan", "vgg-att3-concat-pc", "rn164-att2"])
def test_other_image_sizes(name, size):
    with torch.no_grad():
        assert narrow(name, image_size=size).eval()(images(1, size, dtype=torch.float32)).shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "sides"),
    [("vgg-att2-concat-pc", [80, 16, 8]), ("vgg-att3-concat-pc", [32, 16, 8]), ("vgg-pan", [80, 16, 8])],
)
def test_pools_for_birds(name, sides):
    with torch.device("meta"):
        maps = narrow(name, image_size=80, pools="cub").local_features(torch.empty(1, 3, 80, 80))
    assert [value.shape[2] for value in maps.values()] == sides


@pytest.mark.parametrize("pools", ["cifar", "cub"])
@pytest.mark.parametrize("name", [name for name in DISTINCT if name.startswith("vgg")])
def test_the_smallest_images_leave_every_pool_and_every_softmax_more_than_one_value(name, pools, monkeypatch):
    def fewest_values(size):
        with torch.device("meta"):
            model, x, sides = narrow(name, image_size=size, pools=pools).eval(), torch.empty(1, 3, size, size), []
            for module in model.modules():
                if isinstance(module, torch.nn.MaxPool2d | torch.nn.AdaptiveMaxPool2d):
                    module.register_forward_hook(lambda module, args, out: sides.append(args[0].shape[2]))
            model(x)
            maps = model.local_features(x)
        return min([*sides, *(maps[level].shape[2] for level in model.attention_levels)])

    smallest = parse_options(resolve_architecture(name, pools=pools)).smallest_image
    assert fewest_values(smallest) >= 2
    with pytest.raises(ModelError, match=f"at least {smallest}, so that"):
        narrow(name, image_size=smallest - 1, pools=pools)
    if smallest in (17, 33, 41):  # the others have a reason of their own
        monkeypatch.setattr("ltpa.models.options.ClassifierOptions.check_image_size", lambda *_: None)
        assert fewest_values(smallest - 1) == 1


@pytest.mark.parametrize(
    ("name", "levels"),
    [("vgg-att2-concat-pc", level) for level in (["conv7"], ["conv10"], ["conv7", "conv10"], ["conv7", "conv13"])]
    + [("rn164-att2", ["stage2"])],
)
@pytest.mark.parametrize("compatibility", ["pc", "dp"])
def test_nothing_is_built_behind_the_last_level(name, levels, compatibility):
    """Every parameter takes part in the loss, and those `describe` calls live get a gradient that is not zero."""
    options = {"levels": levels, "compatibility": compatibility, "dropout": 0.0}
    model = narrow(name, bn_weight="one", image_size=20, **options)
    assert tuple(model.local_features(images(1, 20, dtype=torch.float32)))[-1] == levels[-1]
    model.loss(images(8, 20, dtype=torch.float32), torch.arange(8) % 5).backward()
    live = sum(value.numel() for value in model.parameters() if value.grad.any())
    facts = describe(name, 5, 20, NARROW, **options_of(name), **options, bn_weight="one")
    assert facts["live_parameters"] == live
    assert (facts["dead_parameters"] == 0) == (compatibility == "dp")


def test_vgg_halves_its_map_at_every_pool():
    model = narrow("vgg").eval()
    sides = []
    for module in model.modules():
        if isinstance(module, torch.nn.MaxPool2d | torch.nn.AdaptiveMaxPool2d):
            module.register_forward_hook(lambda module, args, out: sides.extend([args[0].shape[2], out.shape[2]]))
    model(images(1, 32, dtype=torch.float32))
    assert sides == [32, 16, 16, 8, 8, 4, 4, 2, 2, 1]


def test_the_classes_of_a_map_are_those_of_the_linear_layer():
    model = narrow("vgg-gap").eval()
    x = images(4, 32, dtype=torch.float32)
    with torch.no_grad():
        for label in range(5):
            maps = model.class_activation_map(x, torch.full((4,), label))
            score = maps.mean(dim=(1, 2)) + model.head.bias[label]
            assert torch.allclose(score, model(x)[:, label], atol=1e-5)
        predicted = model(x).argmax(dim=1)
        assert torch.equal(model.class_activation_map(x), model.class_activation_map(x, predicted))


def test_initial_weights_follow_the_published_code():
    torch.manual_seed(0)
    model = create_model("vgg-att2-concat-pc", 10, width=0.5)
    conv, u = model.trunk.section2.conv9.conv, model.units["conv13"].compatibility.u
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.02)
    assert u.weight.std().item() == pytest.approx(math.sqrt(2), rel=0.1)
    assert not conv.bias.any() and not u.bias.any()
    bound = 1 / math.sqrt(256)
    fc16 = model.branches["shared"].fc16
    for values in (fc16.weight, fc16.bias):
        assert values.abs().max() <= bound and values.abs().max() > 0.9 * bound
    gamma = model.trunk.section2.conv9.norm.weight
    assert 0 <= gamma.min() < 0.1 and 0.9 < gamma.max() <= 1 and gamma.mean().item() == pytest.approx(0.5, abs=0.1)
    ones = create_model("vgg-att2-concat-pc", 10, width=0.5, bn_weight="one").trunk.section2.conv9.norm.weight
    assert (ones == 1).all()
    assert not narrow("rn164").head.bias.any() and narrow("rn164-att2").head.linear.bias.all()


@pytest.mark.parametrize("name", DISTINCT)
def test_options_read_back_what_they_wrote(name):
    options = parse_options(resolve_architecture(name, width=1))
    assert options.width == 1.0 and isinstance(options.width, float)
    assert parse_options(options.plain()) == options
    assert parse_options({"family": options.family}).family == options.family


def test_same_seed_same_weights():
    first, second = narrow("vgg-att2-concat-dp").state_dict(), narrow("vgg-att2-concat-dp").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_dropout_stands_where_the_published_code_has_it():
    model = narrow("vgg-att3-concat-pc")
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    conv = {name.split(".")[-2]: p for name, p in rates.items() if name.startswith("trunk")}
    assert conv == {"conv1": 0.3} | {f"conv{i}": 0.4 for i in (3, 5, 6, 8, 9, 11, 12)}
    assert [rates[f"branches.shared.conv{i}.dropout"] for i in (14, 15)] == [0.4, 0.4]
    assert rates["branches.shared.dropout"] == 0.5
    assert rates["units.conv7.project_global.2"] == 0.5
    assert [rates[f"head.norms.{i}.2"] for i in range(3)] == [0.5] * 3
    assert len(rates) == 8 + 3 + 1 + 3
    assert narrow("rn164-att2").head.norms[0][2].p == 0.3
    pan = [module.p for module in narrow("vgg-pan").modules() if isinstance(module, torch.nn.Dropout)]
    assert sorted(pan) == [0.3] + [0.4] * 11 + [0.5] * 3


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("vgg-att2-concat-cp", 10), {}, "vgg-att2-concat-pc"),
        (("vgg-att2-concat-pc", 10), {"compatability": "dp"}, "compatibility"),
        (("vgg-att2-concat-pc", 10), {"compatibility": "cosine"}, "'pc', 'dp'"),
        (("vgg-att2-concat-pc", 10), {"compatibility": "tahn"}, "did you mean tanh"),
        (("vgg-att2-concat-pc", 10), {"width": -1}, "greater than 0"),
        (("vgg-att-dp", 10), {"head": "indep"}, "concat"),
        (("vgg-att2-concat-pc", 10), {"prediction": "sum-log-probability"}, "head 'concat' has one; leave"),
        (("vgg-att2-concat-pc", 10), {"levels": ["conv13", "conv10"]}, "in order"),
        (("vgg-att2-concat-pc", 10), {"levels": []}, "at least 1"),
        (("vgg-att2-concat-pc", 10), {"levels": ["conv4"]}, "'conv10'"),
        (("vgg-att3-concat-pc", 10, 16), {}, "images of size 16; use a whole number of at least 17"),
        (("vgg-att3-concat-pc", 10, 31), {"pools": "cub"}, "at least 32"),
        (("vgg-gap", 10, 15), {}, "at least 16"),
        (("rn164", 10, 18), {}, "divisible by 4"),
        (("rn164", 10), {"blocks_per_stage": 0}, "blocks_per_stage' is 0: must be at least 1"),
        (("rn164", 10), {"blocks_per_stage": True}, "a whole number"),
        (("rn164", 10), {"blocks_per_stage": 10**9}, "at most 200"),
        (("vgg", 10), {"width": "wide"}, "'width' is 'wide': must be a number"),
        (("vgg", 10), {"width": float("nan")}, "a finite number"),
        (("vgg", 10), {"width": 1e9}, "at most 16"),
        (("vgg", "ten"), {}, "a whole number"),
        (("vgg", 10), {"dropout": 1.5}, "at most 1"),
        (("vgg", 10), {"u_std": float("inf")}, "a finite number"),
        (("vgg-pan", 10), {"legacy_grad_avg": "yes"}, "true or false"),
        (("vgg-att2-concat-pc", 10), {"levels": "conv7"}, "a list"),
        (("vgg-att-dp", 10), {"head": ["indep"]}, "'concat' or 'indep'"),
        (("vgg", 1), {}, "at least 2 classes"),
        (("vgg", 10), {"family": "vit"}, "family is 'vgg', and no option makes it 'vit'"),
        (("vgg", 10), {"family": "resnet"}, "take a variant of that family"),
        ((None, 10), {}, "unknown variant None: did you mean caption-none"),
        ((["vgg"], 10), {}, r"unknown variant .'vgg'.: did you mean vgg"),
        (("VGG", 10), {}, "unknown variant 'VGG': did you mean vgg"),
        (("vgg", 10, "32"), {}, "images of size '32'; use a whole number"),
        (("vgg", 10, 32.0), {}, r"images of size 32\.0"),
        (("vgg", True), {}, "at least 2 classes"),
        (("vgg", np.float64(10)), {}, "a whole number"),
    ],
)
def test_what_is_not_possible_says_what_is(arguments, options, says):
    with pytest.raises(ModelError, match=says) as caught:
        create_model(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", DISTINCT)
def test_wrong_input_is_refused(name):
    model = narrow(name, image_size=20)
    for shape in [(2, 3, 24, 24), (2, 3, 20, 24), (2, 1, 20, 20), (3, 20, 20)]:
        for method in (model, model.features, model.local_features):
            with pytest.raises(ModelError, match=r"does not fit: this network takes \(N, 3, 20, 20\)"):
                method(torch.zeros(shape))


def test_sizes_may_be_numpys_integers():
    model = narrow("vgg", num_classes=np.int64(7), image_size=np.uint8(20))
    assert (type(model.num_classes), type(model.image_size)) == (int, int)
    assert model.head.out_features == 7


def test_networks_without_a_global_vector_say_so():
    x = images(1, 20, dtype=torch.float32)
    for name in ("vgg", "rn164", "vgg-att2-concat-local"):
        with pytest.raises(ModelError, match="no global descriptor"):
            narrow(name, image_size=20).eval().global_descriptor(x)
    for name in ("vgg-att2-concat-dp", "vgg-pan", "rn164-att2", "vgg-att2-concat-pc-globals2"):
        model = narrow(name, image_size=20).eval()
        first, last = model.attention_levels
        assert model.global_descriptor(x).shape[0] == 1
        assert torch.equal(model.global_descriptor(x), model.global_descriptor(x, last))
        assert torch.equal(model.global_descriptor(x), model.global_descriptor(x, first)) == (
            name in ("vgg-att2-concat-dp", "rn164-att2")
        )
        with pytest.raises(ModelError, match="no global descriptor at 'conv1'"):
            model.global_descriptor(x, "conv1")


def test_narrow_networks_keep_their_layout():
    for name in EVERY:
        with torch.device("meta"):
            full = create_model(name, 5, **options_of(name)).state_dict()
            small = create_model(name, 5, width=NARROW, **options_of(name)).state_dict()
        if not name.startswith(("vgg-att3-concat-pc-up", "vgg-att3-concat-pc-plain")):
            assert full.keys() == small.keys()
        assert all(value.dim() == small[key].dim() for key, value in full.items() if key in small)


def test_declarations_are_read_once_and_checked(tmp_path, monkeypatch):
    files = [config_dir() / "variants.yaml", *sorted((config_dir() / "variants").glob("*.yaml"))]
    assert list(load_declaration("variants")) == [name for file in files for name in yaml.safe_load(file.read_text())]
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load_declaration("nothing")
    monkeypatch.setattr("ltpa.core.declared.config_dir", lambda: tmp_path)
    (tmp_path / "a.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: holds list"):
        load_declaration("a")
    (tmp_path / "b.yaml").write_text("a: [1\nb: 2")
    with pytest.raises(ConfigError, match=r"b\.yaml: not valid YAML") as caught:
        load_declaration("b")
    assert "\n" not in str(caught.value)
    assert near_matches("gap", ["vgg", "vgg-gap", "rn164"]) == "did you mean vgg-gap?"
    assert near_matches("VGG-Gap", ["vgg-gap", "rn164"]) == "did you mean vgg-gap?"
    assert near_matches("vggg", ["VGG", "rn164"]) == "did you mean VGG?"
    assert near_matches("zzz", ["vgg", "rn164"]) == "known: vgg, rn164"


TWO_STREAM = [name for name in list_models() if get_variant(name).family == "two-stream"]


def test_two_stream_networks_are_variants_like_any_other():
    assert {"vgg19", "twostream-cnn", "twostream-attention"} < set(TWO_STREAM) and not set(TWO_STREAM) & set(EVERY)
    for name in TWO_STREAM:
        with torch.device("meta"):
            model = create_model(name, 7, 64, 0.0625, patch_size=64, key_channels=2)
        logits = model.eval()(*model.example())
        assert logits.shape == (1, 7) and model.image_size == model.options.image_size == 64
        assert model.architecture["family"] == "two-stream"
    assert describe("vgg19", 200, published_size("vgg19"))["parameters"] == 20_126_984
    assert (published_size("vgg19"), published_size("rn164")) == (448, 32)
    with pytest.raises(ModelError, match="image_size is 448 in the architecture, and 32 is asked for"):
        build_model({"family": "two-stream"}, 7, 32)


def test_a_family_is_one_file_of_a_folder_and_is_read_alone(tmp_path, monkeypatch):
    code = "import sys; from ltpa.models.registry import family; family('resnet'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    found = {name for name in loaded if name.startswith("ltpa.models.families.")}
    assert found == {"ltpa.models.families.resnet"} and "torch" not in loaded
    assert families() == (
        "captioner", "cells", "conv2", "mlp", "pixels", "ram", "reader", "resnet", "stn", "two-stream", "vgg",
        "vgg-att", "vgg-block", "vgg-gap", "vgg-pan",
    )  # fmt: skip
    (tmp_path / "my_net.py").write_text(
        "from typing import ClassVar\nfrom ltpa.models.options import ClassifierOptions\n"
        "class Options(ClassifierOptions):\n    builder: ClassVar[str] = 'ltpa.models.vgg:build_gap'\n"
        "    recipes: ClassVar[str] = 'vgg'\n    pools: str = 'cifar'\n"
    )
    import ltpa.models.families as folder

    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    families.cache_clear()
    assert "my-net" in families()
    assert build_model({"family": "my-net", "width": NARROW}, 4, 32).architecture["family"] == "my-net"
    families.cache_clear()
    monkeypatch.undo()
    with pytest.raises(ModelError, match=r"unknown family 'resnett': did you mean resnet\?"):
        family("resnett")


@pytest.mark.parametrize(
    ("name", "maps", "queries", "follows"),
    [
        ("vgg", 0, 0, False),
        ("vgg-pan", 2, 2, True),
        ("vgg-att3-concat-pc", 3, 3, False),
        ("vgg-att2-concat-dp", 2, 2, True),
        ("vgg-att2-concat-pcsigmoid", 2, 2, True),
        ("vgg-att2-concat-local", 2, 0, False),
        ("rn164", 0, 0, False),
        ("rn164-att2", 2, 2, False),
        ("twostream-attention", 0, 0, False),
    ],
)
def test_families_say_what_their_maps_depend_on(name, maps, queries, follows):
    options = parse_options(get_variant(name).architecture)
    assert (len(options.map_levels), len(options.query_levels), options.map_follows_query) == (maps, queries, follows)
    if name in EVERY:
        assert options.map_levels == narrow(name).attention_levels
