"""The two-stream network: counts of the published sizes, shapes, equations in float64, trunks, weights, files."""

import hashlib
import math
import zipfile

import numpy as np
import pytest
import torch
from networks import two_stream, two_stream_options
from safetensors.torch import save_file
from torch.nn import functional

from ltpa.core.errors import ModelError
from ltpa.models.describe import count_macs, count_parameters
from ltpa.models.store import load, save_model
from ltpa.models.twostream.inputs import shown
from ltpa.models.twostream.losses import ranking_loss, two_stream_loss
from ltpa.models.twostream.spatial import cosine_basis
from ltpa.models.twostream.trunks import build_trunk
from ltpa.models.twostream.vision import torchvision_models
from ltpa.models.twostream.weights import start_trunk

CODE = {"global_head": "conv1x1", "time_attention": "shared"}
SPATIAL = {"local": "spatial", "local_trunk": "resnet34"}
# Options, parameters with 200 and 120 classes, 10^9 multiply-accumulates with 200.
COUNTS = [
    ({"local": "none"}, 20_126_984, 20_085_944, 78.034),
    ({"local": "none", "global_head": "conv1x1"}, 21_804_296, 21_722_296, 78.342),
    ({"local": "cnn"}, 40_253_968, 40_171_888, 97.542),
    ({"local": "lstm"}, 44_456_464, 44_374_384, 97.584),
    ({}, 44_461_584, 44_379_504, 97.584),
    (CODE, 46_134_289, 46_011_249, 97.893),
    (SPATIAL, 46_838_128, 46_756_048, 81.750),
    ({"local": "spatial", "trunk": "resnet34"}, 48_098_416, 48_016_336, 18.370),
]
SMALL = {"trunk": "vgg11_bn", "width": 0.0625, "image_size": 32, "patch_size": 32, "steps": 3, "hidden": 8}
FORMS = ("none", "cnn", "mlp", "lstm", "attention", "spatial")


def small(**options):
    torch.manual_seed(0)
    return two_stream(5, **{**SMALL, "key_channels": 8, "basis_size": 2, **options})


def save(path, model):
    save_model(
        path, model, variant="row", architecture=model.architecture, num_classes=5, image_size=32, classes=list("abcde")
    )


def counted(num_classes=200, **options):
    """Parameters and multiply-accumulates of an image with one patch."""
    with torch.device("meta"):
        model = two_stream(num_classes, **options)
    return {"parameters": count_parameters(model), "macs": count_macs(model)}


def pictures(count=2, size=32, seed=1):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("options", "birds", "dogs", "macs"), COUNTS)
def test_published_sizes(options, birds, dogs, macs):
    sizes = counted(**options)
    assert sizes["parameters"] == birds
    assert counted(120, **options)["parameters"] == dogs
    # Sums over positions, 0.0003, are left out of what was published.
    assert sizes["macs"] / 1e9 == pytest.approx(macs, abs=6e-4)


def test_the_local_stream_of_chapter_7_alone():
    with torch.device("meta"):
        streams = two_stream(200, **SPATIAL).streams()
    assert sum(p.numel() for p in streams["local"]) == 26_711_144
    assert sum(p.numel() for p in streams["global"]) == 20_126_984


def test_published_sizes_of_the_parts():
    """Trunks with and without batch normalisation, the LSTM, the local stream of chapter 7, ten patches per image."""
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in build_trunk(name).parameters()) for name in ("vgg19", "vgg19_bn")]
        lstm = two_stream(200).local_head.lstm
        local_of_dogs = two_stream(120, **SPATIAL).streams()["local"]
    assert sizes == [20_024_384, 20_035_392] and sum(p.numel() for p in lstm.parameters()) == 4_202_496
    assert sum(p.numel() for p in local_of_dogs) == 26_670_104
    alone, resnet, cnn, attention, spatial = (
        counted(**options)["macs"] / 1e9
        for options in ({"local": "none"}, {"local": "none", "trunk": "resnet34"}, {"local": "cnn"}, {}, SPATIAL)
    )
    assert round(cnn - alone - 512 * 200 / 1e9, 3) == 19.508  # VGG19 at 224 pixels, without its classifier
    assert round(attention - cnn, 4) == 0.0419  # the ten steps of the LSTM
    assert spatial - alone == pytest.approx(3.717, abs=5e-4)
    assert round(resnet, 2) == 14.65
    assert round(alone + 10 * (attention - alone), 1) == 273.5


def test_the_control_has_as_many_parameters_as_what_it_replaces():
    attention = counted()["parameters"]
    assert abs(counted(local="mlp")["parameters"] - attention) <= 1025 / 2


@pytest.mark.parametrize("trunk", ["vgg19", "vgg19_bn", "resnet34"])
def test_trunks_compute_what_torchvision_computes(trunk, tmp_path):
    torch.manual_seed(0)
    models = torchvision_models()
    if trunk == "resnet34":
        theirs = models.resnet34(weights=None).eval()
    else:  # without the classifier, most of whose 120 million weights it takes seconds to draw
        theirs = torch.nn.Module().eval()
        theirs.features = models.vgg.make_layers(models.vgg.cfgs["E"], batch_norm=trunk == "vgg19_bn").eval()
    ours = build_trunk(trunk).eval()
    weights = str(tmp_path / "theirs.pth")
    torch.save(theirs.state_dict(), weights)
    start_trunk(ours, trunk, weights)
    x = pictures(1, 64)
    if trunk == "resnet34":
        stem = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(stem))))
    else:
        expected = theirs.features(x)
    with torch.no_grad():
        assert torch.equal(ours(x), expected)
        if trunk != "resnet34":
            without = build_trunk(trunk, last_pool=False).eval()
            start_trunk(without, trunk, weights)
            assert torch.equal(functional.max_pool2d(without(x), 2), expected)


def test_shapes_at_the_published_size():
    with torch.device("meta"):
        model = two_stream(200).eval()
        spatial = two_stream(200, **SPATIAL).eval()
        images, patches = torch.empty(2, 3, 448, 448), torch.empty(2, 3, 224, 224)
        assert model.global_trunk(images).shape == (2, 512, 14, 14)
        assert model.patch_maps(patches).shape == (2, 512, 14, 14)
        outputs = model.outputs(images, patches)
        assert spatial.outputs(images, patches).local.maps.shape == (2, 10, 7, 7)
    assert outputs.global_logits.shape == outputs.local.logits.shape == (2, 200)
    assert outputs.local.states.shape == (2, 10, 512) and outputs.local.weights.shape == (2, 10)


@pytest.mark.parametrize("local", FORMS)
def test_every_form_answers_and_learns(local):
    model = small(local=local)
    targets = torch.tensor([0, 3])
    outputs = model.outputs(pictures(), None if local == "none" else pictures(seed=2))
    two_stream_loss(outputs, targets, model.options).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent
    assert (outputs.local is None) == (local == "none")
    inputs = (pictures(),) if local == "none" else (pictures(), pictures(seed=2))
    again = model.eval().outputs(*inputs)
    joint = again.global_logits if local == "none" else again.global_logits + again.local.logits
    torch.testing.assert_close(model(*inputs), joint)
    torch.testing.assert_close(model.global_head.classifier(model.features(pictures())), model.see_image(pictures()))
    assert model.features(pictures()).shape == (2, model.feature_dim)
    if local in ("attention", "spatial"):
        torch.testing.assert_close(outputs.local.weights.sum(1), torch.ones(2))
    if local == "spatial":
        torch.testing.assert_close(outputs.local.maps.sum((2, 3)), torch.ones(2, 3))


@pytest.mark.parametrize("local", ["lstm", "spatial"])
def test_an_lstm_may_start_from_orthogonal_weights(local):
    head = small(local=local, lstm_start="orthogonal", state_std=0.3).local_head
    for name, weight in head.lstm.named_parameters():
        if name.startswith("weight_hh"):
            torch.testing.assert_close(weight.T @ weight, torch.eye(weight.shape[1]))
    assert float(head.classifier.weight.detach().std()) == pytest.approx(0.3, rel=0.3)
    assert float(small(local=local).local_head.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.3)


def test_without_its_last_pool_the_global_trunk_is_the_local_one():
    model = small(local="cnn", last_pool=False)
    assert str(model.global_trunk) == str(model.local_trunk)
    assert str(small(local="cnn").global_trunk) != str(model.local_trunk)


def test_attention_over_steps_in_float64():
    model = small(local="attention").double().eval()
    maps = model.patch_maps(pictures().double())
    with torch.no_grad():
        found = model.see_map(maps)
        feature = maps.mean((2, 3))
        states, carry = [], None
        for _ in range(3):
            state, carry = model.local_head.lstm(feature[:, None], carry)
            states.append(state[:, 0].numpy())
    phi = np.stack(states, 1)
    scores = (phi * model.local_head.attention.vectors.detach().numpy()).sum(-1)
    alpha = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    logits = (alpha[..., None] * phi).sum(1) @ model.local_head.classifier.weight.detach().numpy().T
    np.testing.assert_allclose(found.weights.numpy(), alpha, atol=1e-7)  # the softmax runs in float32
    np.testing.assert_allclose(found.logits.numpy(), logits, atol=1e-7)


def test_with_equal_scores_attention_is_the_mean_over_steps():
    model = small(local="attention").eval()
    torch.nn.init.zeros_(model.local_head.attention.vectors)
    with torch.no_grad():
        found = model.see_patch(pictures())
        torch.testing.assert_close(found.logits, model.local_head.classifier(found.states.mean(1)))


def test_the_bias_of_the_shared_score_has_no_effect():
    model = small(local="attention", time_attention="shared").eval()
    with torch.no_grad():
        before = model.see_patch(pictures()).logits
        model.local_head.attention.score.bias += 3
        torch.testing.assert_close(model.see_patch(pictures()).logits, before)


def test_the_local_stream_without_lstm_trains_on_every_step():
    model = small(local="lstm")
    outputs, targets = model.outputs(pictures(), pictures(seed=2)), torch.tensor([1, 4])
    steps = torch.stack([functional.cross_entropy(outputs.local.step_logits[:, t], targets) for t in range(3)])
    expected = functional.cross_entropy(outputs.global_logits, targets) + steps.mean()
    options = two_stream_options(**{**SMALL, "local": "lstm", "rank_weight": 0.0})
    torch.testing.assert_close(two_stream_loss(outputs, targets, options), expected)
    assert model.eval().outputs(pictures(), pictures(seed=2)).local.step_logits is None


@pytest.mark.parametrize("sign", ["plus", "minus"])
@pytest.mark.parametrize("detach", [False, True])
def test_the_ranking_loss_and_its_gradient(sign, detach):
    options = two_stream_options(**{"rank_sign": sign, "rank_detach": detach, "rank_margin": 0.5})
    z_global = torch.tensor([[3.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    z_local = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    loss = ranking_loss(z_global, z_local, torch.tensor([0]), options)
    p_global, p_local = math.exp(3) / (math.exp(3) + 2), 1 / 3
    margin = 0.5 if sign == "plus" else -0.5
    assert float(loss.detach()) == pytest.approx(max(0.0, p_global - p_local + margin), abs=1e-6)
    loss.backward()
    assert float(z_local.grad[0, 0]) == pytest.approx(-p_local * (1 - p_local), abs=1e-6)
    if detach:
        assert z_global.grad is None
    else:
        assert float(z_global.grad[0, 0]) == pytest.approx(p_global * (1 - p_global), abs=1e-6)


def test_as_printed_the_ranking_loss_holds_the_global_stream_down():
    """At equal predictions it takes from the global logit what it gives to the local one (3 classes: 2/9)."""
    logits = [torch.zeros(1, 3, requires_grad=True) for _ in range(2)]
    ranking_loss(*logits, torch.tensor([0]), two_stream_options()).backward()
    assert float(logits[0].grad[0, 0]) == pytest.approx(2 / 9) and float(logits[1].grad[0, 0]) == pytest.approx(-2 / 9)


def test_the_joint_prediction_weighs_logits():
    model = small(local="cnn", local_weight=0.25)
    z_global, z_local = torch.randn(2, 5), torch.randn(2, 5)
    torch.testing.assert_close(model.joint(z_global, z_local), z_global + 0.25 * z_local)
    assert model.joint(z_global, None) is z_global


def test_the_cosine_basis():
    found = cosine_basis(7, 5, 3).reshape(7, 5, 3, 3)
    assert float(found[2, 4, 1, 2]) == pytest.approx(math.cos(math.pi * 2 * 3 / 7) * math.cos(math.pi * 3 * 5 / 5))


def test_first_look_is_the_same_query_for_every_patch():
    """The LSTM starts from zero, so the first query is made of biases; the maps differ by the keys alone."""
    model = small(local="spatial").eval()
    with torch.no_grad():
        maps = model.patch_maps(pictures(2))
        flat = torch.ones_like(maps) * torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1)
        looks = model.see_map(flat).maps
    torch.testing.assert_close(looks[0, 0], looks[1, 0])


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"trunk": "vgg12"}, "must be one of vgg6, vgg6_bn, vgg11"),
        ({"local": "gru"}, "must be 'attention'"),
        ({"stepps": 3}, "did you mean steps"),
        ({"steps": 0}, "at least 1"),
        ({"trunk": "torchvision:nothing"}, "torchvision has no classification network 'nothing'"),
        ({"trunk": "torchvision:vit_b_16", "local": "none"}, "do not end in one map"),
        ({"local": "spatial", "key_channels": 512}, "take fewer"),
    ],
)
def test_options_that_are_not_possible(options, part):
    with torch.device("meta"), pytest.raises(ModelError, match=part):
        two_stream(10, **options)


def test_any_trunk_of_torchvision():
    sizes = counted(trunk="torchvision:resnet18", local="none")
    assert sizes["parameters"] == 11_176_512 + 512 * 200 + 200


def test_inputs_of_another_size_are_refused():
    model = small()
    with pytest.raises(ModelError, match="image_size 32"):
        model(pictures(size=64), pictures())
    with pytest.raises(ModelError, match="patches belong to"):
        model(pictures())
    with pytest.raises(ModelError, match="no local stream"):
        small(local="none").see_map(torch.zeros(1, 32, 2, 2))


def trunk_weights(trunk="vgg11_bn", width=0.0625):
    torch.manual_seed(3)
    return build_trunk(trunk, width).state_dict() | {"classifier.0.weight": torch.zeros(1)}


@pytest.mark.parametrize("form", ["zip.pth", "old.pth", "trunk.safetensors"])
def test_weights_from_a_file_start_both_streams_alike(tmp_path, form):
    path = tmp_path / form
    if form.endswith(".pth"):
        torch.save(trunk_weights(), path, _use_new_zipfile_serialization=form == "zip.pth")
    else:
        save_file(trunk_weights(), path)
    model = small()
    for trunk in (model.global_trunk, model.local_trunk):
        facts = start_trunk(trunk, "vgg11_bn", str(path))
        assert facts == {"source": "file", "file": form, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    given = trunk_weights()
    for name, value in model.global_trunk.state_dict().items():
        assert torch.equal(value, given[name]) and torch.equal(model.local_trunk.state_dict()[name], given[name])


def test_weights_that_do_not_serve(tmp_path, monkeypatch):
    trunk = small().global_trunk

    def refused(says, path, name="vgg11_bn"):
        with pytest.raises(ModelError, match=says):
            start_trunk(trunk, name, str(path))

    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    assert start_trunk(trunk, "vgg19", "scratch") == {"source": "scratch", "file": "", "sha256": ""}
    wide, foreign = tmp_path / "wide.pth", tmp_path / "complex.safetensors"
    torch.save(trunk_weights(width=0.125), wide)
    refused("another trunk than vgg11_bn", wide)
    save_file({"features.0.weight": torch.zeros(4, 3, 3, 3, dtype=torch.complex64)}, foreign)
    refused("is of type C64", foreign)
    save_file(trunk_weights() | {"features.0.weight": torch.zeros(4, 3, 3, 3, dtype=torch.int64)}, foreign)
    refused(r"another trunk than vgg11_bn \(1 tensors differ, first features.0.weight\)", foreign)
    refused("cannot read the weights", tmp_path / "missing.pth")
    refused("a folder, pipe or device", tmp_path)
    renamed = wide.rename(tmp_path / "vgg11_bn-00000000.pth")
    refused("not 00000000; delete it and fetch it again", renamed)
    torn = tmp_path / "torn.pth"
    torn.write_bytes(renamed.read_bytes()[:500])
    refused("fetch it again", torn)
    assert all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    refused(r"cannot be fetched \(no route to host\); put vgg19-dcbb9e9d.pth at", "imagenet", "vgg19")


def test_compressed_weights_are_not_unpacked(tmp_path):
    """A few kilobytes of zeros would take gigabytes."""
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save(trunk_weights(), plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ModelError, match=r"packed\.pth: not a readable weight file .compressed"):
        start_trunk(small().global_trunk, "vgg11_bn", str(packed))


@pytest.mark.parametrize("local", FORMS)
def test_files_give_the_network_back(tmp_path, local):
    model, path = small(local=local).eval(), tmp_path / "model.safetensors"
    save(path, model)
    first = path.read_bytes()
    loaded = load(path, expect_variant="row")
    patches = None if local == "none" else pictures(seed=2)
    with torch.no_grad():
        one, other = model(pictures(), patches), loaded(pictures(), patches)
    assert torch.equal(one, other)
    raw = 255 * torch.rand(1, 3, 50, 50)
    assert torch.equal(loaded.preprocessing(raw), shown(raw, 32))
    save(path, loaded)
    assert path.read_bytes() == first
    with pytest.raises(ModelError, match="but other was asked for"):
        load(path, expect_variant="other")
    path.write_bytes(first[:-3] + b"abc")
    with pytest.raises(ModelError, match="train again"):
        load(path)
