"""The run configuration and the plan made of it."""

import shutil
from pathlib import Path

import pytest
import yaml

from ltpa.cli import main
from ltpa.core.declared import config_dir, load_declaration
from ltpa.core.errors import ConfigError
from ltpa.models.variants import declared_variants
from ltpa.plan import Plan, jobs, summary, views
from ltpa.plan.config import load_config, parse_config
from ltpa.plan.products import products
from ltpa.protocols.base import Target
from ltpa.tables.declaration import parse_declaration
from ltpa.tables.published import from_dicts
from ltpa.tables.slots import place
from ltpa.training.recipe import read_recipe

ROOT = Path(__file__).parents[2]
SCALES = ("config", "reduced", "paper", "extensions", "trial", "finegrained")  # those that ship; users may add files
DEMO = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
ALL_DECLARED = {name: load_declaration(name) for name in ("variants", "datasets", "recipes", "patches", "tables")}
ONE_STREAM = [name for name in DEMO["variants"] if declared_variants()[name].learning == "cross-entropy"]
STAGES = ("train", "transfer", "fgsm", "segmentation", "query", "patches")


def plan(**changes):
    """The demo with other keys; without two-stream networks where their patch sources or their rivals would be gone."""
    given = changes
    if "protocols" in changes or "variants" in changes:
        protocols = {key: value for key, value in DEMO["protocols"].items() if key != "finegrained"}
        given = {"variants": ONE_STREAM, "protocols": protocols, **changes}
    return Plan(parse_config({**DEMO, **given}, "test.yaml"), "test.yaml")


def laid(**settings):
    """The demo's scale with settings laid over the recipes of two-stream networks."""
    training = {**DEMO["scale"]["training"]["two-stream"], **settings}
    return {"scale": {**DEMO["scale"], "training": {"two-stream": training}}}


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_file_is_valid_and_plans_every_job(scale):
    path = ROOT / "config" / f"{scale}.yaml"
    whole = Plan(load_config(path), str(path))
    runs = views.all_runs(whole)
    stages = {
        "trial": {"train", "transfer"},
        "extensions": {"train"},
        "finegrained": {"train", "patches", "finegrained"},
        "config": {*STAGES, "finegrained"},
    }
    assert {run.stage for run in runs} >= stages.get(scale, set(STAGES))
    for run in runs:
        jobs.spec(whole, *run)
    for table in whole.config.tables:
        views.table_spec(whole, table)
    assert len(runs) * len(whole.config.seeds) < 4000


def test_without_a_first_source_set_there_are_no_figures_of_its_networks():
    whole = Plan(load_config(ROOT / "config" / "finegrained.yaml"), "finegrained.yaml")
    assert views.figure_files(whole) == [] and views.figure_models(whole) == []
    assert summary.views(whole) == len(whole.config.tables) + 4
    assert views.figure_files(plan()) == ["results/demo/figures/index.json"]
    assert summary.views(plan()) == len(DEMO["tables"]) + 5


def test_demo_trains_every_variant_of_the_paper_on_two_seeds():
    demo = plan()
    assert len(demo.config.seeds) == 2
    trained = {run.variant for run in views.all_runs(demo) if run.stage == "train" and run.dataset == "digits10"}
    assert trained == {name for name, entry in demo.variants.items() if not entry.extension}
    assert len(trained) == 13


def test_what_a_variant_lays_over_its_recipe_is_all_that_tells_it_from_another():
    recipes = {**DEMO["recipes"], "vgg": {"default": "vgg-demo"}}  # the demo gives vgg a recipe of its own
    whole = plan(variants=["vgg", "vgg-crop"], recipes=recipes)
    plain, cropped = (whole.train_spec("digits10", name) for name in ("vgg", "vgg-crop"))
    assert cropped.recipe == {**plain.recipe, "crop": 4} and cropped.recipe != plain.recipe
    assert cropped.architecture == plain.architecture and cropped.hash() != plain.hash()


def test_a_slip_in_what_a_variant_lays_over_its_recipe_is_named(monkeypatch):
    declared = declared_variants()
    slipped = declared["vgg"].model_copy(update={"training": {"corp": 4}})
    monkeypatch.setattr("ltpa.plan.plan.declared_variants", lambda: {**declared, "vgg": slipped})
    with pytest.raises(ConfigError, match=r"recipe vgg-demo-plain of vgg on digits10: .* did you mean crop"):
        plan()


def test_specs_do_not_depend_on_seeds_or_on_other_variants():
    base = plan().train_spec("digits10", "vgg").hash()
    assert plan(seeds=[5, 6, 7]).train_spec("digits10", "vgg").hash() == base
    assert plan(variants=["vgg"]).train_spec("digits10", "vgg").hash() == base
    smaller = {**DEMO["scale"], "networks": {**DEMO["scale"]["networks"], "vgg": {"width": 0.125}}}
    assert plan(scale=smaller).train_spec("digits10", "vgg").hash() != base


@pytest.mark.parametrize(
    ("stage", "choice"),
    [
        ("segmentation", {"levels": "last"}), ("segmentation", {"root": "never"}),
        ("segmentation", {"upsampling": "nearest"}), ("segmentation", {"threshold": 0.5}),
        ("segmentation", {"cam_class": "predicted"}),
        ("transfer", {"multiclass": "ovo"}), ("transfer", {"solver": "liblinear"}), ("transfer", {"normalise": ["l2"]}),
        ("transfer", {"preprocessing": "zca"}), ("transfer", {"storage": "float16"}), ("transfer", {"C": 2.0}),
        ("transfer", {"loss": "hinge", "solver": "liblinear"}),
        ("fgsm", {"loss": "true"}), ("fgsm", {"clip": False}), ("fgsm", {"round": True}), ("fgsm", {"epsilons": [3]}),
        ("query", {"pairs": 3}), ("query", {"query": "first"}),
    ],
)  # fmt: skip
def test_every_reading_of_a_protocol_reaches_its_jobs_and_is_named_below_its_table(stage, choice):
    table, dataset = {"segmentation": ("figure9", "digits10"), "transfer": ("table3", "digits10"),
                      "fgsm": ("figure6", "digits-marks"), "query": ("query", "digits10")}[stage]  # fmt: skip
    base, other = plan(), plan(protocols={stage: choice})
    hashes = {each.evaluation_spec(stage, dataset, "vgg-att2-concat-pc").hash() for each in (base, other)}
    assert len(hashes) == 2
    key = next(iter(choice))
    notes = [views.table_spec(each, table).declaration["notes"][-1] for each in (base, other)]
    assert (f"protocols.{stage}.{key} " in notes[1]) is (key != "storage") and f"{stage}.{key}" not in notes[0]


def test_a_loss_that_the_solver_does_not_know_is_refused_before_anything_runs():
    with pytest.raises(
        ConfigError, match=r"test.yaml: key 'protocols.transfer'.*loss hinge goes with solver liblinear"
    ):
        plan(protocols={"transfer": {"loss": "hinge"}})
    assert (
        plan(protocols={"transfer": {"loss": "hinge", "multiclass": "ovo"}}).config.protocols.transfer.loss == "hinge"
    )


def test_maps_are_held_against_every_set_that_says_where_its_objects_are():
    chosen = plan(protocols={"maps": {"datasets": ["action40"]}}).targets("maps", "digits10", "vgg")
    assert [target.name for target in chosen] == ["digits-noisy"]
    every = plan(protocols={"maps": {}}).targets("maps", "digits10", "vgg")
    targets = {target.name: target for target in every}
    assert targets.pop("digits-masked") == Target("digits-masked", "masks")
    whole = {"digits-inverted", "digits-cluttered", "digits-pale", "digits-noisy", "digits-scenes"}
    own = {"digits10", "digits-marks", "digits-parts"}
    assert targets == {name: Target(name, "pointing") for name in whole} | {
        name: Target(name, "pointing", {"split": "test"}) for name in own
    }
    path = ROOT / "config" / "paper.yaml"
    paper = yaml.safe_load(path.read_text())
    for options, names in (
        ({}, {"objectdiscovery", "action40"}),
        ({"cub200": {"crop": "none"}}, {"objectdiscovery", "action40", "cub200"}),
    ):
        found = Plan(parse_config({**paper, "data": options}, "p"), "p").targets("maps", "cifar10", "vgg")
        assert {target.name for target in found} == names


def test_a_variant_may_lay_settings_over_the_recipe():
    whole = Plan(load_config(ROOT / "config" / "finegrained.yaml"), "finegrained.yaml")
    specs = {name: whole.train_spec("cub200-448", name).recipe for name in whole.config.variants}
    plain = specs["twostream-attention"]
    changed = {name for name, recipe in specs.items() if {**recipe, "patches": ""} != {**plain, "patches": ""}}
    assert changed == {"twostream-attention-flip-crop"}
    assert read_recipe(specs["twostream-attention-flip-crop"], "r") == read_recipe(
        {**plain, "augment": "flip_crop"}, "r"
    )
    assert specs["vgg19"]["patches"] == "" and specs["twostream-attention-full"]["patches"] == "full"


def test_options_lie_over_a_profile_and_the_variants_own_over_both():
    options = plan().train_spec("digits-marks", "twostream-cnn").architecture
    assert (options["trunk"], options["image_size"], options["local"]) == ("vgg6_bn", 8, "cnn")
    scale = {**DEMO["scale"], "networks": {"two-stream": {"profile": "demo", "hidden": 16}}}
    assert plan(scale=scale).train_spec("digits-marks", "twostream-lstm").architecture["hidden"] == 16
    spec = plan().train_spec("digits-marks", "twostream-cnn")
    assert spec.image_size == 8 and plan().train_spec("digits-marks", "vgg").image_size == 20


def test_two_stream_networks_are_trained_on_fine_grained_sets_alone():
    whole = plan()
    two = [run for run in views.all_runs(whole) if run.stage != "patches" and run.variant not in ONE_STREAM]
    runs = {run.dataset for run in two}
    assert runs == {"digits-marks", "digits-parts"}
    assert "learns by two-stream" in whole.inapplicable("fgsm", "digits-parts", "vgg19")
    assert "is not trained on" in whole.inapplicable("finegrained", "digits10", "vgg19")


def test_a_configuration_may_ask_for_the_validation_split():
    held_out = {**DEMO["protocols"], "finegrained": {}}  # its checks are of test images
    chosen = plan(**laid(split="validation"), protocols=held_out, variants=DEMO["variants"])
    assert chosen.train_spec("digits-parts", "twostream-cnn").recipe["split"] == "validation"
    with pytest.raises(ConfigError, match=r"'split' is 'dev'"):
        plan(**laid(split="dev"))


def test_two_datasets_for_one_role_are_refused():
    with pytest.raises(ConfigError, match=r"both stand for cifar10"):
        plan(datasets=[*DEMO["datasets"], "cifar10"])


def test_missing_recipe_for_a_family_is_named():
    with pytest.raises(ConfigError, match=r"add resnet: \{default: NAME\}"):
        plan(recipes={"vgg": {"default": "vgg-demo"}})


def test_the_most_specific_recipe_holds():
    chosen = {"default": "vgg-cifar", "cub200": "vgg-svhn", "vgg-pan": "vgg-smoke", "vgg-pan on cub200": "vgg-trial"}
    planned = plan(recipes={**DEMO["recipes"], "vgg": chosen})
    found = {
        (variant, dataset): planned.train_spec(dataset, variant).recipe
        for variant in ("vgg", "vgg-pan")
        for dataset in ("digits10", "digits-marks")
    }
    assert found == {
        ("vgg", "digits10"): ALL_DECLARED["recipes"]["vgg-cifar"],
        ("vgg", "digits-marks"): ALL_DECLARED["recipes"]["vgg-svhn"],
        ("vgg-pan", "digits10"): ALL_DECLARED["recipes"]["vgg-smoke"],
        ("vgg-pan", "digits-marks"): ALL_DECLARED["recipes"]["vgg-trial"],
    }


@pytest.mark.parametrize(
    ("family", "key", "message"),
    [
        ("vgg", "vgg-pam", "'recipes.vgg.vgg-pam': unknown variant or role 'vgg-pam'; did you mean vgg-pan"),
        ("vgg", "vgg-pan on cub20", "unknown role 'cub20'; did you mean cub200"),
        ("vgg", "vgg-pam on cub200", "unknown variant 'vgg-pam'; did you mean vgg-pan"),
        ("vgg", "rn164", "unknown variant or role 'rn164'"),
        ("vggs", "default", "'recipes': unknown group of recipes 'vggs'; did you mean vgg"),
    ],
)
def test_unknown_keys_of_recipes_are_refused(family, key, message):
    with pytest.raises(ConfigError, match=message):
        plan(recipes={**DEMO["recipes"], family: {"default": "vgg-demo", key: "vgg-demo"}})


def test_impossible_network_option_names_the_key():
    with pytest.raises(ConfigError, match=r"'scale.networks'.*widht"):
        plan(scale={"name": "demo", "networks": {"vgg": {"widht": 0.5}}})
    with pytest.raises(ConfigError, match=r"'scale.networks'.*compatibility is 'dp', and this network's is 'pc'"):
        plan(scale={"name": "demo", "networks": {"vgg": {"compatibility": "pc"}}}, variants=["vgg-att-dp"])


BAD = [
    ({"tabels": ["table1"]}, "unknown key 'tabels'; did you mean tables"),
    ({"variants": ["vgg-atn"]}, "unknown variant 'vgg-atn'; did you mean"),
    ({"datasets": ["cifar11"]}, "unknown dataset 'cifar11'; did you mean"),
    ({"tables": ["tabel1"]}, "unknown table 'tabel1'; did you mean"),
    ({"seeds": []}, "'seeds'"),
    ({"seeds": [1, 1]}, "stands twice"),
    ({"seeds": [-1]}, "'seeds.0'"),
    ({"seeds": ["1"]}, "'seeds.0'"),
    ({"jobs": {"threads": 0}}, "'jobs.threads'"),
    ({"protocols": {"fgsm": {"epsilons": [-1]}}}, "'protocols.fgsm.epsilons.0'"),
    ({"protocols": {"fgsm": {"epsilons": ["1e-4"]}}}, "write 1.0e-4"),
    ({"protocols": {"fgsm": {"loss": "hinge"}}}, "'protocols.fgsm.loss'"),
    ({"protocols": {"fgsm": {"pgd": {"step": 1}}}}, "did you mean steps or step_size"),
    ({"variants": ONE_STREAM, "protocols": {"fgsm": {"transferred": {"vgg": "vgh"}}}}, "unknown variant 'vgh'"),
    ({"variants": ONE_STREAM, "protocols": {"query": {"variants": ["vgg-x"]}}}, "unknown variant 'vgg-x'"),
    ({"recipes": {"vgg": {"default": "fast"}}}, "unknown recipe 'fast'"),
    ({"seeds": "zero"}, "'seeds'"),
    ({"scale": {"name": "$(touch x)"}}, "'scale.name'"),
    ({"scale": {"name": "../elsewhere"}}, "'scale.name'"),
    (laid(boxes=4), "two-stream.boxes' is 4, but protocols.patches.boxes is 3"),
    (laid(patches="here"), "unknown patch source of protocols.patches.sources 'here'"),
    (laid(patches=""), "two-stream.patches': twostream-cnn looks at patches"),
    (laid(weights="no/such.pth"), "'no/such.pth': no such file"),
    ({"scale": {**DEMO["scale"], "networks": {"two-stream": {"profile": "dem"}}}}, "unknown profile 'dem'"),
    ({"scale": {**DEMO["scale"], "training": {"twostream": {}}}}, "unknown group of recipes 'twostream'"),
    ({"recipes": {**DEMO["recipes"], "two-stream": {"default": "vgg-demo"}}}, "name a recipe of that kind"),
    ({"variants": [*ONE_STREAM, "vgg19"]}, "'protocols.finegrained.local_beats': unknown two-stream network"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_values_are_one_line_with_the_key(tmp_path, capsys, change, message):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({**DEMO, **change}))
    assert main(["plan", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ltpa: error: ") and error.count("\n") == 1
    assert "bad.yaml" in error and message in error


@pytest.mark.parametrize("text", ["", "- a list", "a: [1", "\x00", "scale: {name: demo}"])
def test_what_is_no_configuration_is_one_line(tmp_path, capsys, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert main(["plan", "--config", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_configuration_is_named(capsys):
    assert main(["plan", "--config", "no/such.yaml"]) == 2
    assert "no/such.yaml" in capsys.readouterr().err


def test_plan_and_status_print_tables(capsys):
    assert main(["plan"]) == 0
    assert "| train | 88 |" in capsys.readouterr().out
    assert main(["status"]) == 0
    assert "| train | digits10 | vgg |" in capsys.readouterr().out


FGSM_CHOICES = [{"loss": loss} for loss in ("predicted", "true", "score")]
FGSM_CHOICES += [
    {"clip": False},
    {"round": True},
    {"pgd": {"steps": 3, "step_size": 0.5, "random_start": False, "seed": 2}},
]


@pytest.mark.parametrize("chosen", FGSM_CHOICES, ids=str)
def test_every_choice_of_the_attack_reaches_the_spec(chosen):
    spec = plan(protocols={"fgsm": chosen}).evaluation_spec("fgsm", "digits-marks", "vgg")
    for key, value in chosen.items():
        found = spec.settings[key]
        assert (found if not isinstance(value, dict) else {name: found[name] for name in value}) == value
    assert spec.companion["variant"] == spec.inputs["transferred"] == "vgg-att2-concat-pc"


def test_true_in_yaml_is_the_loss_of_the_true_class(tmp_path):
    path = tmp_path / "mine.yaml"
    base = (ROOT / "config" / "config.yaml").read_text()
    path.write_text(base.replace("fgsm: {epsilons: [1, 2, 4, 8, 16]}", "fgsm: {loss: true}"))
    assert load_config(path).protocols.fgsm.loss == "true"
    path.write_text(base.replace("fgsm: {epsilons: [1, 2, 4, 8, 16]}", "fgsm: {loss: false}"))
    with pytest.raises(ConfigError, match=r"'protocols\.fgsm\.loss' is False"):
        load_config(path)


def test_panels_of_a_setting_that_is_empty_are_left_out_and_named():
    titles = {}
    for name, fgsm in (("none", {"transferred": {}}), ("all", {"pgd": {}})):
        declaration = views.table_spec(plan(protocols={"fgsm": fgsm}), "figure6").declaration
        titles[name] = [panel["title"] for panel in declaration["panels"]]
        left_out = [note for note in declaration["notes"] if note.startswith("Left out, as protocols.fgsm.")]
        assert len(titles[name]) + len(left_out) == 7
    assert len(titles["none"]) == 2 and len(titles["all"]) == 7


def test_a_table_without_published_values_has_a_row_for_each_network_and_group():
    chosen = plan(variants=["vgg", "vgg-att-pc", "vgg-att3-concat-pc", "rn164-att2"], tables=["causal"])
    spec = views.table_spec(chosen, "causal")
    rows = dict.fromkeys((entry.group, entry.variant) for entry in from_dicts(spec.published))
    assert list(rows) == [
        ("all", "vgg-att-pc"), ("all", "vgg-att3-concat-pc"), ("all", "rn164-att2"), ("conv7", "vgg-att3-concat-pc"),
        ("conv10", "vgg-att3-concat-pc"), ("conv13", "vgg-att3-concat-pc"), ("stage2", "rn164-att2"),
        ("stage3", "rn164-att2"),
    ]  # fmt: skip
    runs = [views.Run("causal", "digits10", name) for name in ("vgg-att-pc", "vgg-att3-concat-pc", "rn164-att2")]
    assert views.table_runs(chosen, "causal") == runs
    declaration = parse_declaration(spec.declaration, "causal")
    slots = place(declaration, from_dicts(spec.published))
    own = {declaration.columns[slot.column].title for slot in slots if slot.panel and slot.metric != "accuracy_pct"}
    assert "uniform" in own and not own & {"own map", "entropy of the map", "uniform, refitted"}
    assert {slot.panel for slot in slots} == {0, 1, 2}
    assert {(s.metric, s.measure) for s in slots if s.entry.condition == "uniform" and s.entry.group == "conv10"} == {
        (metric, "uniform conv10") for metric in ("accuracy_pct", "agreement_pct", "output_moved_pct")
    }
    named = plan(protocols={"causal": {"variants": ["vgg-att-pc"]}}, variants=["vgg-att-pc", "rn164-att2"])
    assert views.table_runs(named, "causal") == runs[:1]


def test_only_a_table_beyond_the_paper_can_do_without_published_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(config_dir(), tmp_path / "config")
    (tmp_path / "config" / "published" / "table1.csv").unlink()
    monkeypatch.setattr("ltpa.plan.declared_tables.config_dir", lambda: tmp_path / "config")
    with pytest.raises(ConfigError, match=r"table1\.csv: cannot read the published values"):
        views.table_spec(plan(), "table1")


def test_maps_are_compared_with_those_of_another_seed():
    chosen = plan(seeds=[3, 5, 8], variants=["vgg-att-pc"])
    for seed, other in ((3, 5), (5, 3), (8, 3)):
        files = jobs.inputs(chosen, "sanity", "digits10", "vgg-att-pc", str(seed))
        assert {path.split("/")[-2] for path in files if "/train/" in path} == {f"seed-{seed}", f"seed-{other}"}
    assert chosen.evaluation_spec("sanity", "digits10", "vgg-att-pc").companion_seeds == [3, 5]
    alone = plan(seeds=[3], variants=["vgg-att-pc"])
    assert alone.companion("sanity", "digits10", "vgg-att-pc") is None
    assert "/seed-3/" in jobs.inputs(alone, "sanity", "digits10", "vgg-att-pc", "3")[0]


def test_a_network_is_trained_for_its_perturbations_alone():
    chosen = plan(protocols={"fgsm": {"transferred": {"vgg": "vgg-pan"}}})
    assert (
        chosen.companion("fgsm", "digits-marks", "vgg") == "vgg-pan"
        and chosen.companion("fgsm", "digits-marks", "vgg-att2-concat-pc") is None
    )
    assert chosen.companion("query", "digits-marks", "vgg") is None
    files = jobs.inputs(chosen, "fgsm", "digits-marks", "vgg", 0)
    assert {path.split("/")[4] for path in files if "/train/" in path} == {"vgg", "vgg-pan"}
    assert views.Run("train", "digits-marks", "vgg-pan") in views.all_runs(chosen)
    assert plan(variants=["vgg"]).companion("fgsm", "digits-marks", "vgg") is None


@pytest.mark.parametrize("name", ["config", "paper", "reduced", "extensions", "finegrained", "trial"])
def test_shipped_scales_ask_for_strict_checks(name):
    loaded = load_config(ROOT / "config" / f"{name}.yaml")
    assert loaded.protocols.checks.strict


def test_a_configuration_of_ones_own_is_warned():
    own = {key: value for key, value in DEMO.items() if key != "protocols"}
    assert not parse_config(own, "own").protocols.checks.strict


def test_all_tables_asks_for_every_output_of_every_job():
    made = plan()
    asked = set(products(made))
    assert set(views.records(made, views.all_runs(made))) <= asked
    for name in ("model.safetensors", "history.csv", "logits.npy", "hits.npy", "boxes.parquet", "boxes.json"):
        assert any(path.endswith(f"/seed-1/{name}") for path in asked), name
    tables = {f"results/demo/tables/table1.{suffix}" for suffix in ("csv", "tidy.csv", "md", "tex", "html")}
    views_of_all = {
        f"results/demo/{name}"
        for name in ("checks.md", "checks.json", "tracking.json", "report/index.html", "report.zip")
    }
    pictures = {"results/demo/figures/index.json", "results/demo/figures/fooling-rate.png"}
    assert tables | views_of_all | pictures <= asked
    assert {"results/demo/data/digits10/manifest.json", "results/demo/figures/paper/index.json"} <= asked
