"""Replaced maps: the seam of the networks, each replacement by hand, what must not change anything."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import DISTINCT, images, narrow, unsettled
from scipy.stats import kendalltau
from sklearn.linear_model import LogisticRegression
from tiny_networks import linear_network, random_images

from ltpa.core.errors import ModelError, NotFiniteError
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.evaluation import causal, map_probes
from ltpa.evaluation.map_statistics import total_variation
from ltpa.evaluation.randomised import BRANCH, randomised
from ltpa.evaluation.readout import fit_readout
from ltpa.models import build_model, get_variant, list_models
from ltpa.models.base import AttentionClassifier
from ltpa.models.registry import parse_options
from ltpa.protocols.base import Context, Target
from ltpa.protocols.causal import Causal, CausalSettings

ATTENDING = [name for name in DISTINCT if parse_options(get_variant(name).architecture).map_levels]
SOME = ("vgg-att2-concat-dp", "vgg-att2-indep-pc", "rn164-att2", "vgg-pan")
LABELS = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 0])
PICTURES = random_images(len(LABELS), 20)


def settled(variant):
    """Such a network as `pixel_batches` feeds: in float32."""
    return unsettled(variant).float()


def replaced(model, batch_size=250, draws=2):
    vectors, mean_maps = causal.training_vectors(model, PICTURES[:6], batch_size)
    return causal.replace_maps(model, PICTURES, LABELS, mean_maps, batch_size, draws, 0), vectors, mean_maps


@pytest.mark.parametrize("variant", ATTENDING)
def test_own_weights_give_the_networks_own_output(variant: str):
    model, x = unsettled(variant, image_size=32), images(3, 32)
    with torch.no_grad():
        maps = model.weighted_maps(x)
        own = {level: weights for level, (_, weights) in maps.items()}
        for weights in ({}, own):
            torch.testing.assert_close(model.classify(model.vectors_under(maps, weights)), model(x), rtol=0, atol=1e-10)
        assert list(maps) == list(model.attention_levels)
        for level, attention in model.attention(x).items():
            torch.testing.assert_close(own[level], attention, rtol=0, atol=1e-12)


def test_other_weights_reach_the_head_and_nothing_else():
    model, x = unsettled("vgg-att2-concat-pc"), images(2, 20)
    with torch.no_grad():
        maps = model.weighted_maps(x)
        weights = torch.rand_like(maps["conv13"][1])
        vectors = model.vectors_under(maps, {"conv13": weights})
        joined = torch.cat([norm(vector) for norm, vector in zip(model.head.norms, vectors, strict=True)], dim=1)
        torch.testing.assert_close(model.classify(vectors), model.head.linear(joined))
    np.testing.assert_allclose(vectors[1], np.einsum("nchw,nhw->nc", maps["conv13"][0], weights))
    np.testing.assert_allclose(vectors[0], np.einsum("nchw,nhw->nc", *maps["conv10"]))


def test_what_lies_behind_the_gate_is_computed_anew():
    model, x = unsettled("vgg-pan"), images(2, 20)
    with torch.no_grad():
        maps = model.weighted_maps(x)
        shut = {"conv10": torch.zeros_like(maps["conv10"][1])}
        model.gate.u.bias -= 1e6  # shuts the gate of the network itself
        torch.testing.assert_close(model.classify(model.vectors_under(maps, shut)), model(x), rtol=0, atol=1e-12)


def test_networks_without_attention_say_so():
    model = narrow("vgg").eval()
    assert model.weighted_maps(images(1, 32, dtype=torch.float32)) == {} and model.flow() == []
    for call in (lambda: model.vectors_under({}, {}), lambda: model.classify([])):
        with pytest.raises(ModelError, match="a vgg network has no att"):
            call()


def test_replacements_by_hand():
    own = torch.tensor([[[0.1, 0.4], [0.3, 0.2]]])
    assert causal.uniform(own).tolist() == [[[0.25, 0.25], [0.25, 0.25]]]
    np.testing.assert_allclose(causal.inverse(own), [[[0.4, 0.1], [0.2, 0.3]]])
    np.testing.assert_allclose(causal.peak(own * 3), [[[0, 3], [0, 0]]], rtol=1e-6)
    drawn = [causal.permuted(own, seed) for seed in range(9)]
    assert all(sorted(each.flatten().tolist()) == sorted(own.flatten().tolist()) for each in drawn)
    assert len({str(each) for each in drawn}) > 1
    torch.testing.assert_close(causal.permuted(own, 4), drawn[4], rtol=0, atol=0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=600))
def test_every_image_gets_a_map_of_the_class_it_asks_for(labels):
    labels = np.array(labels)
    rows = causal.groups(labels)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(labels)))
    assert max(map(len, rows)) <= causal.GROUP
    for group in rows:
        here = labels[group]
        for kind, found in causal.partners(here).items():
            asked = (here[:, None] == here) == (kind == causal.SAME_CLASS)
            np.fill_diagonal(asked, False)
            np.testing.assert_array_equal(found >= 0, asked.any(axis=1))
            known = found >= 0
            assert asked[np.flatnonzero(known), found[known]].all()


@pytest.mark.parametrize("variant", SOME)
def test_neither_batches_nor_the_order_of_images_change_anything(variant: str):
    model = settled(variant)
    (one, *_), (other, *_) = replaced(model), replaced(model, batch_size=3)
    for key, effect in one.effects.items():
        np.testing.assert_array_equal(effect.predicted, other.effects[key].predicted)
        np.testing.assert_allclose(effect.distance, other.effects[key].distance, atol=1e-5)
    with torch.no_grad():
        pixels = torch.from_numpy(PICTURES).permute(0, 3, 1, 2).float()
        np.testing.assert_array_equal(one.predicted, model(pixels).argmax(dim=1))
    assert one.effects["all", "same_class"].known.tolist() == [True] * 4 + [False] + [True] * 5


def test_maps_of_other_images_and_of_the_training_set():
    model = settled("vgg-att-dp")
    found, vectors, mean_maps = replaced(model)
    with torch.no_grad():
        pixels = torch.from_numpy(PICTURES).permute(0, 3, 1, 2).float()
        maps = model.weighted_maps(pixels)
        local, own = maps["conv13"]
        own_output = model(pixels).softmax(dim=1)
        np.testing.assert_allclose(mean_maps["conv13"], own[:6].mean(dim=0), rtol=1e-5)
        np.testing.assert_allclose(vectors["own"], np.einsum("nchw,nhw->nc", local, own)[:6], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(vectors["all"], local[:6].mean(dim=(2, 3)), rtol=1e-5, atol=1e-5)
        for kind, weights in (
            ("mean", own[:6].mean(dim=0).expand_as(own)),
            ("same_class", own[[5, 6, 7, 8, 4, 9, 1, 2, 3, 0]]),
        ):
            other = model.classify(model.vectors_under(maps, {"conv13": weights})).softmax(dim=1)
            effect = found.effects["all", kind]
            wanted = total_variation(other, own_output).numpy()
            np.testing.assert_allclose(effect.distance[0][effect.known], wanted[effect.known], atol=1e-5)


def test_under_a_constant_map_only_a_peak_changes_anything():
    model = settled("vgg-att2-concat-local")
    for unit in model.units.values():
        torch.nn.init.zeros_(unit.compatibility.u.weight)
    found, *_ = replaced(model)
    for (_, kind), effect in found.effects.items():
        moved = effect.distance[:, effect.known]
        assert (moved.min() > 1e-4) if kind == "peak" else (moved.max() < 1e-5)
    assert all(entropy.min() > 1 - 1e-6 for entropy in found.entropy.values())


def test_another_global_vector_changes_no_row_under_pc():
    model = settled("vgg-att2-concat-pc")
    other = randomised(model, [BRANCH], 0, PICTURES, 250)
    (one, *_), (two, *_) = replaced(model), replaced(other)
    assert any((a != b).any() for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    np.testing.assert_array_equal(one.predicted, two.predicted)
    for key, effect in one.effects.items():
        np.testing.assert_array_equal(effect.predicted, two.effects[key].predicted)
        np.testing.assert_allclose(effect.distance, two.effects[key].distance, atol=1e-5)


def test_every_replacement_keeps_the_sum_of_a_gate(monkeypatch: pytest.MonkeyPatch):
    model = settled("vgg-pan")
    kept, weigh = [], model.vectors_under

    def watched(maps, weights):
        kept.extend((weights[level].sum(dim=(1, 2)) / maps[level][1].sum(dim=(1, 2))).tolist() for level in weights)
        return weigh(maps, weights)

    monkeypatch.setattr(model, "vectors_under", watched)
    replaced(model)
    known = [each for each in kept if len(each) == len(LABELS)]
    assert len(known) > 20
    np.testing.assert_allclose(known, 1, rtol=1e-6)


def exact_maps(variant, count=4):
    model = unsettled(variant)
    with torch.no_grad():
        return model, model.weighted_maps(images(count, 20))


@pytest.mark.parametrize("level", ["conv10", "conv13"])
def test_leaving_out_by_another_hand(level: str):
    model, maps = exact_maps("vgg-att2-indep-pc")
    found = map_probes.leave_one_out_tau(model, maps, level)
    with torch.no_grad():
        own = model.classify(model.vectors_under(maps, {})).softmax(dim=1)
        for row in range(2):
            local = {name: (each[row : row + 1], weights[row : row + 1]) for name, (each, weights) in maps.items()}
            weights, moved = maps[level][1][row], []
            for cell in range(weights.numel()):
                left = weights.clone().flatten()
                left[cell] = 0
                other = {level: (left / left.sum()).view_as(weights)[None]}
                output = model.classify(model.vectors_under(local, other)).softmax(dim=1)
                moved.append(float((output - own[row]).abs().sum() / 2))
            assert found[row].item() == pytest.approx(kendalltau(weights.flatten(), moved).statistic, abs=0.01)


def test_adversarial_maps_are_as_far_as_the_output_allows(monkeypatch: pytest.MonkeyPatch):
    model, maps = exact_maps("vgg-att2-concat-pc", 2)
    allowed = map_probes.adversarial_divergence(model, maps, ["conv10"], range(2))
    assert allowed.min() > 0 and allowed.max() < np.log(2)
    monkeypatch.setattr(map_probes, "MOVED", 0.0)
    assert map_probes.adversarial_divergence(model, maps, ["conv10"], range(2)).tolist() == [0, 0]
    with torch.no_grad():
        model.head.linear.weight[:, : model.units["conv10"].channels] = 0  # the output ignores this level
    ignored = map_probes.adversarial_divergence(model, maps, ["conv10"], range(2))
    assert (ignored >= allowed).all() and ignored.min() > 0.4


def test_an_adversarial_map_is_that_of_its_image_whatever_the_batch():
    model = settled("vgg-att-pc")
    (tau, whole), (other_tau, single) = (map_probes.probe(model, PICTURES[:2], size, 0) for size in (250, 1))
    assert whole.keys() == {"conv13", "all"} and tau.keys() == {"conv13"}
    for scope, values in whole.items():
        np.testing.assert_allclose(values, single[scope], atol=1e-3)
    np.testing.assert_allclose(tau["conv13"], other_tau["conv13"], atol=1e-6)


def test_a_gate_is_not_probed():
    tau, moved = map_probes.probe(settled("vgg-pan"), PICTURES[:2], 250, 0)
    assert tau.keys() == {"conv13"} and moved.keys() == {"conv13", "all"}


def test_the_readout_is_logistic_regression():
    random = np.random.default_rng(0)
    centres = random.normal(size=(4, 6))
    labels = random.integers(0, 4, 300)
    points = (centres[labels] + random.normal(size=(300, 6))) * [1, 5, 0.1, 3, 1, 1] + 2
    points[:, 5] = 1 + 1e-9 * points[:, 5]  # constant but for rounding
    found = fit_readout(points[:200].astype(np.float32), labels[:200], 4)
    wanted = LogisticRegression(tol=1e-10, max_iter=5000).fit((points[:200] - found.mean) / found.scale, labels[:200])
    np.testing.assert_allclose(found.weights[:-1].T, wanted.coef_, atol=1e-3)
    assert found.converged and (found.predict(points[200:]) == labels[200:]).mean() > 0.6
    with pytest.raises(NotFiniteError, match="attended vectors are not finite"):
        fit_readout(points * np.nan, labels, 4)


def measured(model, splits=("test", "train"), **settings):
    parts = {name: Split(PICTURES, LABELS, LABELS.astype(str)) for name in splits}
    dataset = PreparedDataset("toy", list("abcde"), parts, "0" * 64, {})
    context = Context([Target("toy")], {}, 0, None)
    found = Causal().measure(model, [dataset], CausalSettings(probed_images=2, draws=2, **settings), context)
    return {(metric.name, metric.condition): metric for metric in found.metrics}, found.extra


def test_the_protocol_reports_every_scope_and_replacement():
    metrics, facts = measured(settled("vgg-att2-concat-pc"))
    assert facts == {"unconverged_readouts": []}
    for scope in ("all", "conv10", "conv13"):
        for kind in causal.REPLACEMENTS:
            own, other, drop = (metrics[key] for key in (
                ("own_accuracy_pct", ""), ("accuracy_pct", f"{kind} {scope}"), ("drop_pct", f"{kind} {scope}"),
            ))  # fmt: skip
            assert other.n == (9 if kind == "same_class" else 10) and other.target == "toy"
            assert kind == "same_class" or drop.value == pytest.approx(own.value - other.value)
        assert metrics["refit_accuracy_pct", f"uniform {scope}"].n == 10
        assert 0 <= metrics["entropy_pct", scope].value <= 100
        assert metrics["adversarial_jsd", scope].n == 2
        assert metrics["leave_one_out_tau", scope].n == (4 if scope == "all" else 2)
    assert metrics["refit_accuracy_pct", "own"].value == 100  # as many columns as images, on training images


def test_without_training_images_there_are_no_readouts():
    metrics, facts = measured(settled("vgg-att-pc"), splits=("test",))
    assert facts["notes"][0].startswith("no training images: no readouts")
    assert not any(name == "refit_accuracy_pct" for name, _ in metrics)
    assert metrics["accuracy_pct", "mean all"].n == 10


@pytest.mark.parametrize("name", [name for name in list_models() if get_variant(name).learning == "cross-entropy"])
def test_the_plan_knows_whose_maps_can_be_replaced(name):
    """Else it would plan a job that fails."""
    architecture = get_variant(name).architecture
    with torch.device("meta"):
        model = build_model(architecture, 5, 80)
    takes = parse_options(architecture).takes_other_maps
    assert takes == bool(model.attention_levels and type(model).vectors_under is not AttentionClassifier.vectors_under)


def test_networks_without_attention_are_passed_over():
    assert Causal().lacks_maps(narrow("vgg"), {}) and not Causal().lacks_maps(linear_network(4), {})
