"""What the plan accepts, the jobs accept: settings at and beyond their limits."""

import copy
import dataclasses
import json
import typing
from pathlib import Path

import pytest
import yaml

from ltpa.archives.declare import Archive
from ltpa.core.declared import load_declaration
from ltpa.core.errors import ConfigError
from ltpa.core.hashing import canonical_json
from ltpa.core.patches import PatchSettings, PatchSource, PrototypeTraining
from ltpa.core.schema import PlainData, read_plain
from ltpa.models import create_model
from ltpa.models.registry import families, family
from ltpa.plan import Plan
from ltpa.plan.config import load_config, parse_config
from ltpa.protocols.registry import built_in, find
from ltpa.tables.declaration import Declaration
from ltpa.training.recipe import KINDS, read_recipe

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


SETTINGS = [(name, key) for name in built_in() for key in find(name).Settings.model_fields]


@pytest.mark.parametrize(("name", "key"), SETTINGS)
def test_plan_and_job_agree_on_settings_of_protocols(name, key):
    kind = find(name).Settings
    for value in (*BOUNDARY, "true", "predicted", [1, 1], ["vgg", "vgg"]):
        job = {**kind().of_job(), key: value}
        try:
            config = parse_config({**DEMO, "protocols": {name: {key: value}}}, "test.yaml")
        except ConfigError:
            assert key not in kind().of_job() or not is_accepted(read_plain, kind, job, name), value
            continue
        given = json.loads(canonical_json(getattr(config.protocols, name).of_job()))
        assert is_accepted(read_plain, kind, given, name), value
        assert key not in given or is_accepted(read_plain, kind, job, name), value


ROUTINES = [
    (recipe, key)
    for recipe in ("vgg-cifar", "resnet-cifar", "two-stream-paper")
    for key in read_recipe(load_declaration("recipes")[recipe], recipe).plain()
]


@pytest.mark.parametrize(("recipe", "key"), ROUTINES)
def test_plan_and_job_agree_on_settings_of_recipes(recipe, key):
    group = "two-stream" if recipe.startswith("two-stream") else recipe.partition("-")[0]
    declared = load_declaration("recipes")[recipe]
    changed = copy.deepcopy(DEMO)
    changed["variants"] = {"vgg": ["vgg"], "resnet": ["rn164"], "two-stream": ["vgg19"]}[group]
    changed["datasets"] = ["digits-marks", "digits20"]
    changed["tables"] = ["thesis_table5_1" if group == "two-stream" else "table2"]
    changed["recipes"] = {group: {"default": recipe}}
    changed["protocols"] = {"query": {"variants": []}}
    alone = {} if group == "two-stream" else {"initialise": ""}
    for value in (-1, 10**30, float("nan"), "Clean"):
        changed["scale"]["training"] = {group: {**alone, key: value}}
        planned_too = is_accepted(lambda: Plan(parse_config(changed, "test.yaml"), "test.yaml"))
        job = {**declared, **changed["scale"]["training"][group]}
        if planned_too:
            assert is_accepted(read_recipe, job, recipe), value
        elif key not in ("initialise", "learning", "weights", "patches", "boxes"):  # which name what must be there
            assert not is_accepted(read_recipe, job, recipe), value


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


# Lists that need no limit of their own, and why.
NAMES = "names that must exist, each once"
PER_CLASS = "one entry for each class"
BOUNDED_OTHERWISE = {
    "variants": NAMES, "datasets": NAMES, "tables": NAMES, "roles": NAMES, "maps": NAMES, "controls": NAMES,
    "levels": NAMES, "normalise": NAMES, "attention_beats": NAMES, "must_attend": NAMES, "local_beats": NAMES,
    "baselines": NAMES, "attacks": NAMES, "class_map": PER_CLASS, "subset_roles": PER_CLASS, "class_ids": PER_CLASS,
    "tasks": "words of a description", "notes": "lines of text",
}  # fmt: skip


def settings_classes():
    """All that a user's configuration or a declaration is read by."""
    for names, load in ((built_in(), find), (families(), family), (KINDS, KINDS.load)):
        for name in names:
            load(name)
    read_back = ("ltpa.core.", "ltpa.data.", "ltpa.report.", "ltpa.models.header")  # what ltpa itself has written

    def below(base):
        for kind in base.__subclasses__():
            yield from (kind, *below(kind))

    declared = {PatchSettings, PatchSource, PrototypeTraining, Declaration, Archive, *below(PlainData)}
    own = [kind for kind in declared if kind.__module__.startswith("ltpa.")]
    return [kind for kind in own if kind.__module__ == "ltpa.core.patches" or not kind.__module__.startswith(read_back)]


def unbounded(schema, metadata):
    """The kinds of value in a field's JSON schema that have no upper bound."""
    if isinstance(schema, list):
        for part in schema:
            yield from unbounded(part, metadata)
    elif isinstance(schema, dict):
        kind = schema.get("type")
        if kind in ("integer", "number") and not schema.keys() & {"maximum", "exclusiveMaximum", "const", "enum"}:
            yield kind
        if kind == "array" and "maxItems" not in schema and not any(hasattr(each, "max_length") for each in metadata):
            yield kind
        for key, part in schema.items():
            if key not in ("default", "$defs", "title", "type"):
                yield from unbounded(part, metadata)


def test_every_count_and_every_list_has_an_upper_bound():
    checked, without = 0, []
    for kind in settings_classes():
        properties = kind.model_json_schema().get("properties", {})
        for key, field in kind.model_fields.items():
            checked += 1
            limits = [*field.metadata, *(part for each in typing.get_args(field.annotation) for part in _limits(each))]
            for what in set(unbounded(properties.get(key, {}), limits)):
                if what != "array" or key not in BOUNDED_OTHERWISE:
                    without.append(f"{kind.__module__}.{kind.__name__}.{key}: {what}")
    assert checked > 200
    assert not without, without


def _limits(annotation):
    return getattr(annotation, "__metadata__", ())
