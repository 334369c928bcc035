"""Captions: grammar and scenes, the captioner against loops and enumerations, decoding, and what captions are worth."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from ltpa.core import layout
from ltpa.core.errors import ConfigError, DataError, ModelError
from ltpa.core.per_image import load_hits
from ltpa.core.records import metric_value, read_record
from ltpa.core.specs import TrainSpec
from ltpa.data import grammar
from ltpa.data.arrays import PreparedDataset, write_prepared
from ltpa.data.captioned import generate
from ltpa.evaluation.captions import WordMaps, bleu, cell_shares, slots_right
from ltpa.models import load, resolve_architecture
from ltpa.models.captioner import Told, greedy, penalty, word_log_p
from ltpa.models.decoding import beam
from ltpa.models.registry import build_model, parse_options
from ltpa.models.starting import warm_start
from ltpa.protocols.base import Context
from ltpa.protocols.registry import find
from ltpa.stages import train
from ltpa.training.caption_recipe import CaptionRecipe
from ltpa.training.captions import Captioned, CaptionTrainer
from ltpa.training.loop import Interrupted, Watch

WORDS = list(grammar.WORDS)
END = len(WORDS) - 1


def scenes(style=None, count=60, **other):
    declaration = {"style": style or {}, "image_size": 32, "classes": WORDS, "seed": 3,
                   "splits": {"train": {"count": count, "pool": "train"}}, **other}  # fmt: skip
    return generate("scenes", declaration)[1]["train"]


@pytest.fixture(scope="module")
def made():
    return scenes()


# --- the language ----------------------------------------------------------------------------------------------------


def test_every_caption_parses_back_to_its_scene():
    found = list(grammar.scenes())
    assert len(found) == 3200 == len(set(found))
    assert all(grammar.parse(scene.words()) == scene for scene in found)
    assert {len(scene.words()) for scene in found} == {10, 11}


@pytest.mark.parametrize("text", [
    "",
    "a",
    "a small dark three of above a",
    "a small dark three above a large light seven",
    "a dark small three above a large light seven <end>",
    "a small dark three left a large light seven <end>",
    "a small dark three above a large light seven <end> <end>",
])  # fmt: skip
def test_what_is_no_caption_is_none(text):
    assert grammar.parse(text.split()) is None


def test_each_word_of_a_phrase_speaks_of_its_object():
    words = ["a", "small", "dark", "three", "left", "of", "a", "large", "light", "seven", "<end>"]
    assert grammar.referents(words) == [0, 0, 0, 0, -1, -1, 1, 1, 1, 1, -1]


@pytest.mark.parametrize(("text", "says"), [
    ("a purple three above a large light seven <end>", "the vocabulary lacks 'purple'"),
    ("a small dark three above a large light seven", "must end with <end>"),
    ("", "must end with <end>"),
    ("a <end> <end>", "nowhere else"),
    (" ".join(["a"] * 11) + " <end>", "12 words with its end; at most 11"),
])  # fmt: skip
def test_captions_that_cannot_be_stored_are_refused(text, says):
    with pytest.raises(DataError, match=says) as caught:
        grammar.encode([text.split()])
    assert "\n" not in str(caught.value)


def test_captions_come_back_from_their_indices():
    captions = [scene.words() for scene in itertools.islice(grammar.scenes(), 0, 3200, 97)]
    assert [grammar.decode(row) for row in grammar.encode(captions)] == captions


# --- the scenes ------------------------------------------------------------------------------------------------------


def test_captions_say_what_is_in_the_image(made):
    more = made.more
    for image, row, spoken, (first, second) in zip(
        made.images, more["captions"], more["referents"], more["objects"], strict=True
    ):
        words = grammar.decode(row)
        scene = grammar.parse(words)
        assert scene is not None and spoken[: len(words)].tolist() == grammar.referents(words)
        assert (spoken[len(words) :] == -1).all()
        across, down = ((second - first)[[0, 2]].sum(), (second - first)[[1, 3]].sum())
        assert (down if scene.relation == "above" else across) > 0
        for thing, box in ((scene.first, first), (scene.second, second)):
            x0, y0, x1, y1 = box.astype(int)
            inside = image[y0:y1, x0:x1].astype(float) @ [0.299, 0.587, 0.114]
            assert inside.min() < 60 if thing.tone == "dark" else inside.max() > 190
            assert (y1 - y0 > 11) == (thing.size == "large")
        apart = (first[2] <= second[0]) or (second[2] <= first[0]) or (first[3] <= second[1]) or (second[3] <= first[1])
        assert apart


def test_exchanged_and_blanked_scenes_differ_where_the_digits_are(made):
    more = made.more
    for index, image in enumerate(made.images.astype(int)):
        first, second = more["objects"][index].astype(int)
        for gone in (0, 1):
            changed = (np.abs(more["blanked"][index, gone].astype(int) - image) > 60).any(2)  # more than soft edges
            for which, (x0, y0, x1, y1) in enumerate((first, second)):
                assert changed[y0:y1, x0:x1].any() == (which == gone)
        old, new = more["objects"][index], more["exchanged_objects"][index]
        assert np.abs((new[:, :2] + new[:, 2:]) - (old[::-1, :2] + old[::-1, 2:])).max() <= 8  # their middles, twice
    sides = [more[name][:, :, 2:] - more[name][:, :, :2] for name in ("objects", "exchanged_objects")]
    assert np.abs(sides[0] - sides[1]).max() <= 2


def test_splits_have_streams_of_their_own_and_equal_bits(made):
    again = scenes()
    assert all((again.arrays()[name] == array).all() for name, array in made.arrays().items())


@pytest.mark.parametrize(("change", "says"), [
    ({"style": {"objects": 3}}, "objects"),
    ({"style": {"colour": "red"}}, "colour"),
    ({"classes": ["a", "b"]}, "its classes must be a, small"),
    ({"image_size": 28}, "image_size 28; large digits need 32 pixels"),
    ({"splits": {"train": {"count": 0, "pool": "train"}}}, "count"),
])  # fmt: skip
def test_scenes_that_cannot_be_made_are_refused(change, says):
    with pytest.raises(ConfigError, match=says) as caught:
        scenes(**change)
    assert "\n" not in str(caught.value)


def test_single_objects_have_the_class_of_their_digit_and_tone():
    classes = [f"{tone} {digit}" for digit in grammar.DIGITS for tone in grammar.TONES]
    split = scenes({"objects": 1}, classes=classes)
    assert np.bincount(split.labels, minlength=20).tolist() == [3] * 20 and not split.more
    for image, label, box in zip(split.images, split.labels, split.boxes, strict=True):
        x0, y0, x1, y1 = box.astype(int)
        inside = image[y0:y1, x0:x1].astype(float) @ [0.299, 0.587, 0.114]
        assert inside.min() < 60 if label % 2 == 0 else inside.max() > 190


# --- the network -----------------------------------------------------------------------------------------------------


def captioner(words=5, image_size=8, **options):
    torch.manual_seed(1)
    small = {"width": 1 / 16, "word": 3, "hidden": 4, "score": 3, "length": 3, **options}
    return build_model({"family": "captioner", **small}, words, image_size).double().eval()


def given(model, count=2, seed=2):
    random = torch.Generator().manual_seed(seed)
    cells = torch.randn(count, model.side**2, model.trunk.channels, generator=random, dtype=torch.float64)
    captions = torch.tensor([[1, 2, model.end], [0, model.end, -1]])[:count]
    return cells, captions


def test_a_step_is_the_equations_of_the_paper():
    model = captioner(image_size=12, attention="soft")
    cells, captions = given(model)
    with torch.no_grad():
        told = model.tell(cells, captions, "expectation")
    p = {name: value.numpy() for name, value in model.state_dict().items()}
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    for image in range(2):
        a = cells[image].numpy() + p["position"]
        h = np.tanh(p["first_hidden.weight"] @ a.mean(0) + p["first_hidden.bias"])
        c = np.tanh(p["first_memory.weight"] @ a.mean(0) + p["first_memory.bias"])
        e_y = np.zeros(3)
        for at in range(3):
            scores = []
            for cell in a:
                inner = p["eye.of_cells.weight"] @ cell + p["eye.of_state.weight"] @ h + p["eye.of_state.bias"]
                scores.append(float(p["eye.score.weight"][0] @ np.tanh(inner)))
            alpha = np.exp(scores) / np.exp(scores).sum()
            z = sum(weight * cell for weight, cell in zip(alpha, a, strict=True))
            z = z * sigmoid(p["eye.gate.weight"][0] @ h + p["eye.gate.bias"][0])
            gates = p["lstm.weight_ih"] @ np.concatenate([e_y, z]) + p["lstm.bias_ih"]
            i, f, g, o = np.split(gates + p["lstm.weight_hh"] @ h + p["lstm.bias_hh"], 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            inner = np.tanh(e_y + p["out_state.weight"] @ h + p["out_state.bias"] + p["out_seen.weight"] @ z)
            logits = p["head.weight"] @ inner + p["head.bias"]
            log_p = logits - np.log(np.exp(logits).sum())
            assert np.abs(told.log_p[image, at].numpy() - log_p).max() < 1e-12
            assert np.abs(told.maps[image, at].numpy() - alpha).max() < 1e-12
            word = int(captions[image, at])
            e_y = p["embedding.weight"][word] if word >= 0 else np.zeros(3)


def test_without_attention_every_step_sees_the_mean_and_there_are_no_maps():
    model = captioner(attention="none")
    cells, captions = given(model)
    told = model.tell(cells, captions, "expectation")
    assert told.maps is None and model.attention_levels == () and model.attention(torch.zeros(1, 3, 8, 8)) == {}
    order = torch.randperm(model.side**2, generator=torch.Generator().manual_seed(0))
    model.position.data = model.position[order]
    assert torch.allclose(model.tell(cells[:, order], captions, "expectation").log_p, told.log_p, atol=1e-12)


def test_moved_cells_move_the_maps_only_without_positions():
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    for position in (True, False):
        model = captioner(position=position)
        cells, captions = given(model)
        before = model.tell(cells, captions, "expectation").maps
        after = model.tell(cells[:, order], captions, "expectation").maps
        assert torch.allclose(after, before[..., order], atol=1e-12) is not position


def test_padding_and_batch_mates_do_not_count():
    model = captioner()
    cells, captions = given(model)
    both = word_log_p(model.tell(cells, captions, "expectation").log_p, captions).sum(1)
    alone = captions[1:, :2]
    assert torch.allclose(word_log_p(model.tell(cells[1:], alone, "expectation").log_p, alone).sum(1), both[1:])
    assert torch.allclose(model.caption_loss(cells, captions)[0], -both.mean())


def test_probabilities_of_all_captions_sum_to_1():
    model = captioner(words=3)
    cells, _ = given(model, 1)
    every = [[2, -1, -1]] + [[w, 2, -1] for w in (0, 1)]
    every += [[v, w, u] for v, w in itertools.product((0, 1), repeat=2) for u in range(3)]
    captions = torch.tensor(every)
    found = word_log_p(model.tell(cells.expand(len(every), -1, -1), captions, "expectation").log_p, captions)
    assert abs(found.sum(1).exp().sum().item() - 1) < 1e-12


def gradient(value, model):
    parts = torch.autograd.grad(
        value, [model.eye.of_state.weight, model.eye.score.weight, model.out_seen.weight], retain_graph=True
    )
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("credit", ["all", "to-go"])
@pytest.mark.parametrize("baseline", [0.0, -3.0])
def test_the_hard_estimate_is_in_expectation_the_gradient_of_the_bound(credit, baseline):
    model = captioner(attention="hard", credit=credit, entropy=0.0, length=2)
    model.baseline.fill_(baseline)
    cells, _ = given(model, 1)
    captions = torch.tensor([[1, model.end]])
    bound, estimate = 0.0, 0.0
    for path in itertools.product(range(4), repeat=2):
        told = model.tell(cells, captions, "sample", torch.tensor([path]))
        log_q = told.log_maps[0, 0, path[0]] + told.log_maps[0, 1, path[1]]
        bound = bound + log_q.exp() * word_log_p(told.log_p, captions).sum()
        estimate = estimate + log_q.exp().detach() * gradient(-model.estimate(told, captions), model)
    assert (estimate - gradient(bound, model)).abs().max() < 1e-12
    assert float(bound.exp()) <= 1


def test_credit_for_the_own_word_alone_is_biased():
    model = captioner(attention="hard", length=2)
    cells, _ = given(model, 1)
    captions = torch.tensor([[1, model.end]])
    bound, estimate = 0.0, 0.0
    for path in itertools.product(range(4), repeat=2):
        told = model.tell(cells, captions, "sample", torch.tensor([path]))
        taken = told.log_maps.gather(2, told.cells[..., None]).squeeze(2)
        found = word_log_p(told.log_p, captions)
        bound = bound + taken.sum().exp() * found.sum()
        wrong = found.sum() + (found.detach() * taken).sum()
        estimate = estimate + taken.sum().exp().detach() * gradient(wrong, model)
    assert (estimate - gradient(bound, model)).abs().max() > 1e-6


def test_a_drawn_cell_is_the_one_that_is_seen_and_expectation_always_is_soft():
    hard, soft = captioner(attention="hard", coin=1.0), captioner(attention="soft")
    cells, captions = given(hard)
    assert torch.equal(hard.caption_loss(cells, captions)[0], soft.caption_loss(cells, captions)[0])
    told = hard.tell(cells, captions, "sample")
    again = hard.tell(cells, captions, "expectation", told.cells)
    assert torch.equal(told.log_p, again.log_p) and told.cells.shape == (2, 3)
    best = hard.tell(cells, captions, "argmax")
    assert torch.equal(best.cells, best.maps.argmax(2))


def test_the_baseline_moves_towards_what_the_words_are_worth_in_training_alone():
    model = captioner(attention="hard", coin=0.0, credit="all", baseline_decay=0.9)
    cells, captions = given(model)
    told = model.tell(cells, captions, "sample")
    model.estimate(told, captions)
    assert not model.baseline.any()
    model.train().estimate(told, captions)
    worth = word_log_p(told.log_p, captions).sum(1).detach()
    assert torch.allclose(model.baseline, 0.1 * torch.stack([worth.mean(), worth.mean(), worth[0]]))


def test_the_penalty_is_least_for_even_maps():
    cells, words = 64, 12
    captions = torch.zeros(1, words, dtype=torch.int64)
    even = torch.full((1, words, cells), 1 / cells, dtype=torch.float64)
    assert float(penalty(even, captions)) == pytest.approx((cells - words) ** 2 / cells) == pytest.approx(42.25)
    one = torch.zeros(1, words, cells, dtype=torch.float64)
    one[..., 0] = 1
    assert float(penalty(one, captions)) == (1 - words) ** 2 + cells - 1
    drawn = torch.rand(1, words, cells, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(2)
    assert float(penalty(drawn, captions)) > 42.25
    assert float(penalty(even, captions, "words-over-cells")) == pytest.approx(0)
    short = captions.clone()
    short[0, 4:] = -1
    assert float(penalty(one, short)) == (1 - 4) ** 2 + cells - 1  # maps behind the end do not count


# --- decoding --------------------------------------------------------------------------------------------------------


def test_telling_the_greedy_caption_gives_the_greedy_caption_back():
    model = captioner(words=6, length=5)
    cells, _ = given(model, 2)
    found = greedy(model, cells)
    told = model.tell(cells, found.words, "expectation")
    again = torch.where(found.words >= 0, told.log_p.argmax(2), -1)
    assert torch.equal(again, found.words)
    assert torch.allclose(word_log_p(told.log_p, found.words).sum(1), found.log_p)
    assert torch.equal(found.ended, (found.words == model.end).any(1))


def test_a_beam_of_one_is_greedy_and_none_is_less_likely():
    model = captioner(words=6, length=5)
    model.head.weight.data *= 4  # so that words differ in likelihood
    random = torch.Generator().manual_seed(5)
    cells = 3 * torch.randn(40, 4, model.trunk.channels, generator=random, dtype=torch.float64)
    found = greedy(model, cells)
    assert torch.equal(beam(model, cells, 1).words, found.words)
    better = [beam(model, cells, width) for width in (2, 6)]
    assert all((each.log_p >= found.log_p).all() for each in better)
    assert (better[1].log_p > found.log_p + 1e-6).any()
    for each in better:
        told = model.tell(cells, each.words, "expectation")
        assert torch.allclose(word_log_p(told.log_p, each.words).sum(1), each.log_p)


def test_a_beam_as_wide_as_all_beginnings_finds_the_best_caption():
    model = captioner(words=3, length=2)
    model.head.weight.data *= 4
    cells = given(model, 2)[0]
    every = torch.tensor([[2, -1], *([v, w] for v in (0, 1) for w in range(3))])
    for image in range(2):
        told = model.tell(cells[image : image + 1].expand(len(every), -1, -1), every, "expectation")
        scores = word_log_p(told.log_p, every).sum(1)
        found = beam(model, cells[image : image + 1], 3)
        assert torch.equal(found.words[0], every[scores.argmax()]) and float(found.log_p - scores.max()) == 0


@pytest.mark.parametrize("width", [0, 6])
def test_an_impossible_beam_is_refused(width):
    model = captioner()
    with pytest.raises(ConfigError, match=f"a beam of width {width}; it can be 1 to 5"):
        beam(model, given(model)[0], width)


def test_drawn_cells_do_not_depend_on_the_batch():
    model = captioner(attention="hard")
    cells, _ = given(model)
    draws = torch.rand(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = greedy(model, cells, draws=draws)
    alone = greedy(model, cells[1:], draws=draws[1:])
    assert torch.allclose(both.steps[1:], alone.steps, atol=1e-12)
    last = greedy(model, cells, draws=torch.full_like(draws, 1 - 1e-16))
    assert last.steps.isfinite().all()


# --- starting --------------------------------------------------------------------------------------------------------


def test_a_captioner_starts_from_the_trunk_of_cells_and_from_another_captioner():
    torch.manual_seed(7)
    encoder = build_model({"family": "cells", "width": 1 / 16, "bn_weight": "one"}, 20, 8).double()
    soft = captioner()
    before = soft.state_dict()["head.weight"].clone()
    warm_start(soft, encoder)
    assert all(torch.equal(v, encoder.trunk.state_dict()[n]) for n, v in soft.trunk.state_dict().items())
    assert torch.equal(soft.state_dict()["head.weight"], before)
    hard = captioner(attention="hard")
    torch.nn.init.normal_(hard.head.weight)
    warm_start(hard, soft)
    assert all(torch.equal(v, soft.state_dict()[n]) for n, v in hard.state_dict().items() if n != "baseline")


@pytest.mark.parametrize(("own", "other", "says"), [
    ({}, {"hidden": 5}, "hidden is 4 here and 5 there"),
    ({"attention": "none"}, {}, "with attention from one without"),
    ({"width": 0.125}, None, "of width 0.125 for 8 px from a cells network of width 0.0625 for 8 px"),
])  # fmt: skip
def test_a_start_from_a_network_of_other_shape_is_refused(own, other, says):
    source = build_model({"family": "cells", "width": 1 / 16}, 20, 8) if other is None else captioner(**other)
    with pytest.raises(ModelError, match=says):
        warm_start(captioner(**own), source)


@pytest.mark.parametrize(("options", "says"), [
    ({"penalty": -1.0}, "penalty"),
    ({"penalty": 1.0, "attention": "hard"}, "penalty is 1 with hard attention"),
    ({"coin": 1.5}, "coin"),
    ({"attention": "both"}, "attention"),
    ({"length": 0}, "length"),
])  # fmt: skip
def test_impossible_options_are_refused(options, says):
    with pytest.raises(ModelError, match=says) as caught:
        parse_options({"family": "captioner", **options})
    assert "\n" not in str(caught.value)


# --- training ---------------------------------------------------------------------------------------------------------


def recipe(**changes):
    values = {"learning": "captions", "epochs": 2, "batch_size": 4, "lr": 0.01, "optimizer": "adam", "clip": 1.0,
              "evaluation_batch": 5, "checkpoint_seconds": 0, "initialise": "glyphs", **changes}  # fmt: skip
    return CaptionRecipe.from_dict(values, "test")


def run(folder, attention, stop_at=None):
    """A training of two epochs, or what is left of one, up to the `stop_at`th question whether to stop."""
    torch.manual_seed(3)
    model = captioner(attention=attention, dropout=0.1, coin=0.3).float()
    random = torch.Generator().manual_seed(4)
    captions = torch.tensor([[1, 2, model.end], [0, model.end, -1], [2, 1, model.end]]).repeat(4, 1)
    data = Captioned(captions, torch.randn(12, 4, model.trunk.channels, generator=random))
    asked = itertools.count(1)
    watch = Watch(should_stop=lambda: next(asked) == stop_at)
    trainer = CaptionTrainer(model, data, data, recipe(), 7, folder, watch)
    return trainer, trainer.run


@pytest.mark.parametrize("attention", ["soft", "hard"])
def test_a_training_that_is_cut_off_ends_with_the_same_bits(tmp_path, attention):
    whole, go = run(tmp_path / "whole", attention)
    go()
    for stop in (2, 5, 8):  # within an epoch, in an evaluation, in the second epoch
        _, go = run(tmp_path / str(stop), attention, stop)
        with pytest.raises(Interrupted):
            go()
        again, go = run(tmp_path / str(stop), attention)
        go()
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, again.model.state_dict()[name]), name
        for one, other in zip(whole.history, again.history, strict=True):
            assert dataclasses.replace(one, seconds=0) == dataclasses.replace(other, seconds=0)
        assert torch.equal(whole.test_logits(), again.test_logits())


def test_the_trunk_stays_and_the_loss_falls(tmp_path):
    trainer, go = run(tmp_path, "soft")
    before = {name: value.clone() for name, value in trainer.model.trunk.state_dict().items()}
    history = go()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.trunk.state_dict().items())
    assert history[1].train_loss < history[0].train_loss
    assert trainer.test_logits().shape == (12, 3)


def test_a_recipe_without_a_network_to_start_from_is_refused():
    with pytest.raises(ConfigError, match="initialise"):
        recipe(initialise="")


# --- what captions are worth -----------------------------------------------------------------------------------------


def corpora(count=200):
    rng = np.random.default_rng(4)
    for _ in range(count):
        words = lambda: [f"w{index}" for index in rng.integers(4, size=rng.integers(0, 9))]  # noqa: E731
        said = [words() for _ in range(rng.integers(1, 8))]
        yield said, [[words() or ["w0"] for _ in range(2)] for _ in said]


def test_bleu_is_that_of_the_definition():
    said = [["the", "cat", "sat", "on", "the", "mat"]]
    assert bleu(said, [said]) == pytest.approx(100)
    # "the" is clipped at the most that one reference has (Papineni et al. 2002, example 2): 2 of 7
    the = [["the"] * 7]
    true = [[["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]]
    assert bleu(the, true, 1) == pytest.approx(100 * 2 / 7)
    # 5 of 6 words, 3 of 5 pairs, 1 of 4 triples
    near = [["the", "cat", "sat", "on", "the", "mat"]], [[["the", "cat", "is", "on", "the", "mat"]]]
    assert bleu(*near, 1) == pytest.approx(100 * 5 / 6)
    assert bleu(*near, 3) == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4) ** (1 / 3))
    assert bleu(*near, 4) == 0  # no quadruple
    short = [["the", "cat"]], [[["the", "cat", "is", "on"]]]
    assert bleu(*short, 1) == pytest.approx(100 * math.exp(1 - 4 / 2)) and bleu(*short, 1, brevity=False) == 100
    # the length of the closest reference counts, the shorter of two as close: 3 of 3 and 5
    assert bleu([list("abcd")], [[list("abc"), list("abcde")]], 1) == pytest.approx(100)
    assert bleu([[]], [[["a"]]], 1) == 0 == bleu([["a"]], [[["a"]]], 2)


def test_bleu_equals_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    for said, references in corpora():
        lines, others = [" ".join(words) for words in said], [[" ".join(r[k]) for r in references] for k in range(2)]
        for order in (1, 2, 4):
            theirs = sacrebleu.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order)
            assert bleu(said, references, order) == pytest.approx(theirs.corpus_score(lines, others).score, abs=1e-9)


def test_slots_are_judged_one_by_one():
    true = ["a", "small", "dark", "three", "above", "a", "large", "light", "seven", "<end>"]
    said = ["a", "small", "light", "three", "left", "of", "a", "large", "light", "nine", "<end>"]
    assert slots_right(true, true) == {"size": [True] * 2, "tone": [True] * 2, "digit": [True] * 2, "relation": [True]}
    assert slots_right(said, true) == {
        "size": [True, True], "tone": [False, True], "digit": [True, False], "relation": [False],
    }  # fmt: skip
    assert not any(itertools.chain(*slots_right(true[:-1], true).values()))


def test_shares_of_cells_in_boxes_add_up_to_their_area(made):
    boxes = made.more["objects"]
    shares = cell_shares(boxes, 8, 32)
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    assert np.allclose(shares.sum(2) * 16, area) and shares.max() <= 1
    assert cell_shares(np.array([2.0, 4.0, 6.0, 8.0]), 2, 8).tolist() == [0, 0, 0.5, 0.5]


def test_maps_on_the_right_object_and_evenly_spread_ones(made):
    more = made.more
    shares = cell_shares(more["objects"], 8, 32)
    own = np.maximum(more["referents"], 0).astype(int)
    exact = shares[np.arange(len(own))[:, None], own]
    args = (more["captions"], more["referents"], more["objects"], 8, 32)
    found = WordMaps(exact / exact.sum(2, keepdims=True), *args)
    assert len(found.kind) == 6 * len(own) and found.right().all() and (found.mass() > found.mass(other=True)).all()
    assert found.pointing(other=True).mean() == 0 and found.pointing().mean() > 0.8
    assert found.pointing(shift=1).mean() < 0.5
    even = WordMaps(np.full(exact.shape, 1 / 64), *args)
    assert np.allclose(even.entropy_bits(), 6) and np.allclose(even.pointing(), even.chance())
    assert even.right().mean() == pytest.approx(0.5)  # what one word of a pair gains the other one loses


def test_an_untrained_network_looks_at_the_right_object_half_of_the_time(made):
    model = build_model({"family": "captioner", "width": 0.25}, len(WORDS), 32).eval()
    with torch.no_grad():
        cells = model.cells(torch.from_numpy(made.images).permute(0, 3, 1, 2) / 128.0 - 1)
        told: Told = model.tell(cells, torch.from_numpy(made.more["captions"].astype(np.int64)), "expectation")
    maps = WordMaps(told.maps.numpy(), made.more["captions"], made.more["referents"], made.more["objects"], 8, 32)
    assert abs(maps.right().mean() - 0.5) < 0.25


# --- from data to record ---------------------------------------------------------------------------------------------


ROUTINE = {"epochs": 1, "batch_size": 16, "lr": 0.01, "optimizer": "adam", "clip": 5.0}
SMALL = {"width": 0.25, "word": 8, "hidden": 12, "score": 8}


def trained(results, variant, dataset, recipe, start=None, **options):
    architecture = resolve_architecture(variant, **options)
    classes = 20 if dataset == "digits-single" else len(WORDS)
    spec = TrainSpec("small", dataset, 1, variant, architecture, classes, 32, {**ROUTINE, **recipe}, start)
    train.run(spec, results, [0])
    return spec, {"dataset": dataset, "variant": variant, "training": spec.hash()}


def test_a_hard_captioner_comes_from_a_soft_one_and_that_from_single_digits(tmp_path, made):
    single = [f"{tone} {digit}" for digit in grammar.DIGITS for tone in grammar.TONES]
    objects = scenes({"objects": 1}, count=40, classes=single)
    for name, classes, split in (("digits-single", single, objects), ("digits-captioned", WORDS, made)):
        write_prepared(layout.data_dir(tmp_path, name), name, list(classes), {"train": split, "test": split}, {})
    captions = {"learning": "captions", "initialise": "any"}
    _, cells = trained(tmp_path, "cells", "digits-single", {"flip": "none"}, width=0.25)
    _, soft = trained(tmp_path, "caption-soft", "digits-captioned", captions, cells, **SMALL)
    spec, _ = trained(tmp_path, "caption-hard", "digits-captioned", captions, soft, **SMALL)
    folders = {name: layout.run_dir(tmp_path, "train", on, name, 0)
               for name, on in (("cells", "digits-single"), ("caption-soft", "digits-captioned"),
                                ("caption-hard", "digits-captioned"))}  # fmt: skip
    models = {name: load(folder / layout.MODEL) for name, folder in folders.items()}
    for name in ("caption-soft", "caption-hard"):
        for key, value in models[name].trunk.state_dict().items():
            assert torch.equal(value, models["cells"].trunk.state_dict()[key]), key
        assert repr(models[name].preprocessing) == repr(models["cells"].preprocessing)
    record = read_record(folders["caption-hard"] / layout.RECORD)
    assert record.extra["start"]["variant"] == "caption-soft" and record.config_hash == spec.hash()
    hits = load_hits(folders["caption-hard"], record, "test_error_pct", "")
    assert 100 * (1 - hits.mean()) == pytest.approx(metric_value(record, "test_error_pct"))
    measured(models["caption-soft"], tmp_path)


def measured(model, results):
    """What the protocol says of a network that has learned little: every number is there, and in its bounds."""
    protocol = find("captions")
    dataset = PreparedDataset.open(layout.data_dir(results, "digits-captioned"))
    settings = protocol.Settings(batch_size=7, beams=(3,))
    context = Context([], {}, 0, results)
    found = protocol.measure(model, [dataset], settings, context)
    values = {(m.name, m.condition): m.value for m in found.metrics}
    assert {kind.name for kind in protocol.metrics} == {name for name, _ in values}
    assert set(found.hits) == {("exact_match_pct", way)
                               for way in ("greedy", "beam-3", "greedy argmax", "greedy sample")}  # fmt: skip
    other = protocol.measure(model, [dataset], protocol.Settings(batch_size=60, beams=(3,)), context)
    for one, two in zip(found.metrics, other.metrics, strict=True):
        assert one.value == pytest.approx(two.value, rel=1e-4, abs=1e-4), (one.name, one.condition)
    pairs = [values["exchanged_right_object_pct", "all"], values["right_object_pct", "all"]]
    assert pairs[0] <= pairs[1]
    none = build_model(resolve_architecture("caption-none", **SMALL), len(WORDS), 32).eval()
    without = {m.name for m in protocol.measure(none, [dataset], settings, context).metrics}
    assert "exact_match_pct" in without and not {"right_object_pct", "pointing_in_box_pct", "penalty"} & without
