"""What the plan accepts, the jobs accept: patch settings, prototypes and sources at and beyond their limits."""

import copy
import dataclasses
from pathlib import Path

import pytest
import yaml

from ltpa.core.errors import ConfigError
from ltpa.core.patches import PatchSettings, PatchSource, PrototypeTraining
from ltpa.core.schema import read_plain
from ltpa.models import create_model
from ltpa.plan import Plan
from ltpa.plan.config import load_config, parse_config

DEMO = yaml.safe_load((Path(__file__).parents[2] / "config" / "config.yaml").read_text())
BOUNDARY = (
    0, -1, 1, 2, 3, 0.0, 0.5, 1.0, 1.5, 10**30, 1e300, float("nan"), float("inf"), "", "Clean", "clean", "CONV7",
    "conv7",
    "conv99", True, None, [], [0.4], [0.4, 0.4], [0.6, 0.4], [[0, 0.5], [0.2, 0.1]], [[0, 0.1], [1, 1]], {}, {"a": 1},
)  # fmt: skip


def parsed(**patches):
    config = {**DEMO, "protocols": {**DEMO["protocols"], "patches": {**DEMO["protocols"]["patches"], **patches}}}
    return parse_config(config, "test.yaml")


def planned(**patches):
    return Plan(parsed(**patches), "test.yaml")


@pytest.fixture(scope="module")
def spec():
    """The job of source `protopnet`, which has settings of both kinds."""
    sources = {**DEMO["protocols"]["patches"]["sources"], "protolite": "vgg", "protopnet": "vgg"}
    plan = planned(sources=sources, limits={})
    spec = plan.patch_spec("digits-parts", "protopnet")
    return type(spec).from_json(spec.to_json())


def read_job(spec):
    """As the job does."""
    return read_plain(PatchSource, spec.source, "patches"), read_plain(PatchSettings, spec.settings, "patches")


def is_accepted(read, *values):
    try:
        read(*values)
    except ConfigError as error:
        assert "\n" not in str(error)
        return False
    return True


@pytest.mark.parametrize("key", PatchSettings.model_fields)
def test_plan_and_job_agree_on_settings_of_patches(spec, key):
    outcomes = set()
    for value in BOUNDARY:
        job = dataclasses.replace(spec, settings={**spec.settings, key: value})
        planned_too = is_accepted(lambda value=value: parsed(**{key: value}))
        assert planned_too == is_accepted(read_job, job), value
        outcomes.add(planned_too)
    assert outcomes == {True, False}


@pytest.mark.parametrize("key", PrototypeTraining.model_fields)
def test_plan_and_job_agree_on_settings_of_prototypes(spec, key):
    outcomes = set()
    for value in (*BOUNDARY, 200, "protopnet"):
        training = {**PrototypeTraining().model_dump(mode="json"), key: value}
        job = dataclasses.replace(spec, source={**spec.source, "protopnet": training})
        planned_too = is_accepted(lambda value=value: parsed(protopnet={key: value}))
        assert planned_too == is_accepted(read_job, job), value
        outcomes.add(planned_too)
    assert outcomes == {True, False}


def test_the_plan_gives_jobs_what_they_read(spec):
    source, settings = read_job(spec)
    assert source.protopnet == PrototypeTraining() and source.network == "vgg"
    assert settings.boxes == DEMO["protocols"]["patches"]["boxes"] and settings.min_side == PatchSettings().min_side


SOURCES = [
    ({"protolite": "none"}, "mode protolite needs the network behind it"),
    ({"protolite": "vgg", "center": "vgg"}, "mode center has no network behind it"),
    ({"protolite": "vgg", "released": "none"}, "set protocols.patches.released, train: PATH"),
    ({"protolite": "vgg", "cam_window-cam": "vgg"}, "vgg makes no map 'cam'"),
    ({"protolite": "vgg", "cam_window-attention": "vgg"}, "vgg makes no map 'attention'"),
    ({"protolite": "vgg", "cam_window-gradcam": "vgg-pan"}, "vgg-pan makes no map 'gradcam'"),
    ({"protolite": "rn164"}, "rn164, which is behind source protolite"),
]


@pytest.mark.parametrize(("sources", "message"), SOURCES)
def test_impossible_sources_are_refused_by_the_plan(sources, message):
    with pytest.raises(ConfigError, match=message):
        planned(sources=sources, limits={})


@pytest.mark.parametrize("variant", ["vgg", "vgg-gap", "vgg-pan", "vgg-att2-concat-pc", "rn164"])
def test_the_layers_that_a_family_declares_are_those_that_it_has(variant):
    import torch

    from ltpa.models import get_variant
    from ltpa.models.registry import parse_options

    options = {"blocks_per_stage": 1} if variant == "rn164" else {}
    network = create_model(variant, 3, image_size=32, width=1 / 16, **options).eval()
    found = tuple(network.local_features(torch.zeros(1, 3, 32, 32)))
    assert found == parse_options(get_variant(variant).architecture).layers


CHECKS = [
    ({"limits": {"protolite": {"fallback_rate": [1, 0]}}}, "lowest value and then the highest"),
    ({"limits": {"protolite": {}}}, "limits.protolite"),
    ({"limits": {"protolite": {"fallback": [0, 1]}}}, "unknown statistic 'fallback'"),
    ({"limits": {"protopnet": {"fallback_rate": [0, 1]}}}, "unknown source"),
]


@pytest.mark.parametrize(("change", "message"), CHECKS)
def test_limits_that_limit_nothing_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        planned(**change)


@pytest.mark.parametrize(
    ("compared", "message"),
    [
        ({"digits10": {"twostream-cnn": []}}, "unknown fine-grained dataset 'digits10'"),
        ({"digits-parts": {}}, "local_beats"),
        ({"digits-parts": {"vgg19": []}}, "vgg19 has no local stream"),
        ({"digits-parts": {"twostream-cnn": ["twostream-cnn"]}}, "its own control"),
    ],
)
def test_comparisons_of_nothing_are_refused(compared, message):
    config = copy.deepcopy(DEMO)
    config["protocols"]["finegrained"]["local_beats"] = compared
    with pytest.raises(ConfigError, match=message):
        Plan(parse_config(config, "test.yaml"), "test.yaml")


def test_a_key_twice_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(DEMO) + "\nseeds: [7]\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: .*key 'seeds' stands twice, in lines \d+ and \d+"):
        load_config(path)
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: [*a, *a]\n")
    from ltpa.plan.config import read_config_file

    assert read_config_file(path)["b"] == {"x": 3, "y": 2}
