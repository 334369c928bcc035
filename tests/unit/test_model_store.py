"""Model files: what is saved comes back, and nothing else is accepted."""

import json

import pytest
import torch
from networks import DISTINCT, images, narrow, unsettled
from safetensors import safe_open
from safetensors.torch import save_file

from ltpa.core.errors import ModelError
from ltpa.data.normalise import build_normaliser
from ltpa.models import create_model, load, save_model, warm_start

CLASSES = ["ant", "bee", "cat", "dog", "eel"]


def save(path, model, variant, **changes):
    facts = {
        "variant": variant,
        "architecture": model.architecture,
        "num_classes": 5,
        "image_size": model.image_size,
        "classes": CLASSES,
        "extra": {"seed": 3},
    }
    save_model(path, model, **(facts | changes))
    return path


@pytest.fixture
def saved(tmp_path):
    return save(tmp_path / "model.safetensors", narrow("vgg-att-pc", image_size=20), "vgg-att-pc")


@pytest.mark.parametrize("variant", DISTINCT)
def test_round_trip(variant, tmp_path):
    model = unsettled(variant).float()
    loaded = load(save(tmp_path / "a" / "model.safetensors", model, variant), expect_variant=variant, expect_classes=5)
    x = images(2, 20, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert not loaded.training and loaded.architecture == model.architecture
    assert all(value.requires_grad for value in loaded.parameters())
    assert loaded.metadata["variant"] == variant and loaded.metadata["classes"] == CLASSES
    assert loaded.metadata["extra"] == {"seed": 3}


def test_equal_models_give_equal_bytes_in_any_memory_format(tmp_path):
    model = narrow("vgg-att2-concat-pc", image_size=20)
    first = save(tmp_path / "first", model, "vgg-att2-concat-pc").read_bytes()
    model.to(memory_format=torch.channels_last)
    assert save(tmp_path / "second", model, "vgg-att2-concat-pc").read_bytes() == first


@pytest.mark.parametrize("scheme", ["none", "meanstd", "yuv-lcn", "gcn-zca"])
def test_preprocessing_travels_with_the_network(scheme, tmp_path):
    model = narrow("vgg", image_size=20).eval()
    model.preprocessing = build_normaliser(scheme, 20)
    for value in model.preprocessing.state_dict().values():
        value.uniform_(0.5, 1.5)
    loaded = load(save(tmp_path / "model", model, "vgg"))
    pixels = images(2, 20, dtype=torch.float32).abs() * 100
    assert torch.equal(loaded.preprocessing(pixels), model.preprocessing(pixels))
    assert loaded.metadata["normalisation"] == scheme


def test_a_model_file_is_readable_by_others(saved):
    with safe_open(saved, framework="np") as file:
        assert file.get_tensor("trunk.section1.conv1.conv.weight").shape == (4, 3, 3, 3)
        header = json.loads(file.metadata()["ltpa"])
    assert header["variant"] == "vgg-att-pc" and header["num_classes"] == 5


def test_missing(tmp_path):
    with pytest.raises(ModelError, match="no such model file"):
        load(tmp_path / "none")


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_truncated(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ModelError, match="not a complete safetensors file") as caught:
        load(saved)
    assert str(saved) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_one_flipped_bit_is_noticed(saved, place):
    content = bytearray(saved.read_bytes())
    header = int.from_bytes(content[:8], "little") + 8
    content[header + int((len(content) - header) * place)] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256"):
        load(saved)


def test_an_edited_header_is_noticed(saved):
    content = saved.read_bytes()
    assert content.count(b'"ant') == 1
    saved.write_bytes(content.replace(b'"ant', b'"ape'))
    with pytest.raises(ModelError, match="SHA-256"):
        load(saved)


def test_other_files_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "plain", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not a model written by ltpa"):
        load(tmp_path / "plain")
    (tmp_path / "text").write_text("hello " * 100)
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        load(tmp_path / "text")


def test_both_sides_are_named(saved):
    with pytest.raises(ModelError, match="vgg-att-pc, but vgg-gap was asked for"):
        load(saved, expect_variant="vgg-gap")
    with pytest.raises(ModelError, match="num_classes 5, but 10 was asked for"):
        load(saved, expect_classes=10)
    with pytest.raises(ModelError, match="normalisation None, but gcn-zca was asked for"):
        load(saved, expect_normalisation="gcn-zca")


@pytest.mark.parametrize(
    "change", [{"num_classes": 10}, {"image_size": 32}, {"classes": ["a"]}, {"architecture": {"family": "vgg"}}]
)
def test_a_wrong_description_is_not_written(tmp_path, change):
    with pytest.raises(ModelError, match="will not save"):
        save(tmp_path / "model", narrow("vgg-att-pc", image_size=20), "vgg-att-pc", **change)
    assert not list(tmp_path.iterdir())


def test_a_warm_start_copies_all_but_the_head():
    source = unsettled("vgg-att3-concat-pc", num_classes=5).float()
    model = narrow("vgg-att3-concat-pc", num_classes=7, image_size=80, pools="cub")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    warm_start(model, source)
    donor = source.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith("head.") else donor[name])
    assert not torch.equal(
        donor["trunk.section1.conv1.norm.running_var"], before["trunk.section1.conv1.norm.running_var"]
    )


@pytest.mark.parametrize(
    ("variant", "source", "says"),
    [
        ("vgg-att3-concat-pc", "vgg-att2-concat-pc", "levels is .*'conv7', 'conv10', 'conv13'. here and .'conv10'"),
        ("vgg-att2-concat-pc", "vgg-att2-concat-pctanh", "compatibility is 'pc' here and 'tanh' there"),
        ("vgg-att2-concat-pc", "vgg-att2-concat-pcsigmoid", "normalisation is 'softmax' here and 'sigmoid' there"),
        ("vgg-att2-concat-pc", "vgg-att2-indep-pc", "head is 'concat' here and 'indep' there"),
        ("vgg-att2-concat-pc", "rn164-att2", "family is 'vgg-att' here and 'resnet' there"),
    ],
)
def test_a_warm_start_from_another_network_is_refused(variant, source, says):
    """Most of these have the same tensors in the same shapes, and mean something else by them."""
    with pytest.raises(ModelError, match=f"{says}.*same variant and width"):
        warm_start(narrow(variant), narrow(source))


def test_a_warm_start_may_differ_in_what_only_training_sees():
    others = {"pools": "cub", "dropout": 0.0, "bn_weight": "one", "u_std": 1.0, "legacy_grad_avg": True}
    source, model = narrow("vgg-att-pc"), narrow("vgg-att-pc", image_size=48, **others)
    warm_start(model, source)
    assert torch.equal(model.units["conv13"].compatibility.u.weight, source.units["conv13"].compatibility.u.weight)
    with pytest.raises(ModelError, match=r"width is 0\.0625 here and 0\.125 there"):
        warm_start(model, create_model("vgg-att-pc", 5, width=1 / 8))
