"""Verification: whatever is spoilt in a folder of results is found, and the guilty file is named with what mends it."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tables_support as support
from tables_support import put, record

from ltpa.core import layout
from ltpa.core.errors import RecordError
from ltpa.core.hashing import digest, sha256_file
from ltpa.core.per_image import save_hits
from ltpa.core.records import Metric, read_record, write_record
from ltpa.core.specs import ProtocolSpec, TrainSpec
from ltpa.data.arrays import Split, write_prepared
from ltpa.report.index import write_index
from ltpa.stages import check, table, verify, verify_views
from ltpa.tables.spec import CheckSpec, TrackSpec
from ltpa.tracking.compare import compare
from ltpa.tracking.content import read_source
from ltpa.tracking.naming import TAG_SEAL
from ltpa.tracking.rows import Kept

SEEDS = [0, 1]
VARIANTS = ("vgg", "vgg-gap")
TRAINED = "train/digits10/vgg/seed-0"


def train_spec(variant):
    return TrainSpec("demo", "digits10", 1, variant, {}, 10, 8, {})


def attack_spec(variant):
    return ProtocolSpec(
        "demo", "digits10", 1, variant, "fgsm", train_spec(variant).hash(), [{"name": "digits10"}], {}, {}
    )


def data_hash(results):
    return json.loads((layout.data_dir(results, "digits10") / layout.MANIFEST).read_text())["data_hash"]


def prepare(results, label=None):
    """A dataset of ten classes, ten images in each split."""
    labels = np.arange(10) if label is None else np.full(10, label)
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    splits = {name: Split(images, labels, np.array([f"{name}/{i}" for i in range(10)])) for name in ("train", "test")}
    write_prepared(layout.data_dir(results, "digits10"), "digits10", list("0123456789"), splits, {})


def train(results, variant, seed):
    """The files of one training: everything true but that no network is behind them."""
    folder = layout.run_dir(results, "train", "digits10", variant, seed)
    folder.mkdir(parents=True)
    (folder / layout.MODEL).write_text(f"network of {variant}, seed {seed}")
    (folder / layout.HISTORY).write_text("epoch,test_error_pct\n1,10.0\n")
    hits = save_hits(folder, {("test_error_pct", ""): np.arange(10) != seed})
    metrics = [Metric("test_error_pct", 10.0, 10, "digits10"), Metric("chance_error_pct", 90.0, 10, "digits10")]
    extra = {
        "model_sha256": sha256_file(folder / layout.MODEL),
        "history_sha256": sha256_file(folder / layout.HISTORY),
        "hits": hits,
    }
    made = {"config_hash": train_spec(variant).hash(), "data_hash": data_hash(results), "extra": extra}
    put(results, record("train", "digits10", variant, seed, metrics, **made))


def attack(results, variant, seed):
    model = layout.run_dir(results, "train", "digits10", variant, seed) / layout.MODEL
    network = {"learning": "cross-entropy", "dataset": "digits10", "variant": variant, "seed": seed, "error_pct": 10.0}
    extra = {"networks": [{**network, "chance_pct": 90.0, "model_sha256": sha256_file(model)}]}
    made = {"config_hash": attack_spec(variant).hash(), "data_hash": digest([data_hash(results)]), "extra": extra}
    metrics = [Metric("fooling_rate_pct", 30.0, 10, "digits10", "eps=1")]
    put(results, record("fgsm", "digits10", variant, seed, metrics, **made))


def names(stage):
    return [f"{stage}/digits10/{variant}/seed-{seed}/result.json" for variant in VARIANTS for seed in SEEDS]


def fooling():
    """A table of attacks."""
    changes = {"stage": "fgsm", "metric": "fooling_rate_pct", "columns": [{"title": "1", "source": "cifar10"}]}
    entries = [support.entry(label, "cifar10", 5.0, condition="eps=1") for label in ("VGG", "VGG-GAP")]
    published = [dataclasses.asdict(each) for each in entries]
    declared = {**support.DECLARATION, **changes}
    return support.spec(declaration=declared, published=published, table="fooling", records=names("fgsm"))


def expected(**changes):
    def runs(stage, spec, outputs):
        return [
            verify.ExpectedRun(stage, "digits10", each, spec(each), SEEDS, outputs, "ltpa.core.text")
            for each in VARIANTS
        ]

    limits = {"max_error_of_chance": {"cross-entropy": 0.5}}
    values = {
        "prepared": ["digits10"],
        "runs": [
            *runs("train", train_spec, [layout.RECORD, layout.MODEL, layout.HISTORY, layout.HITS]),
            *runs("fgsm", attack_spec, [layout.RECORD]),
        ],
        "tables": [support.spec(records=names("train")), fooling()],
        "check": CheckSpec(scale="demo", strict=True, records=names("train"), **limits),
        "figures": False,
        "track": None,
        "remake": "snakemake all_tables",
        "track_again": "ltpa track",
    }
    return verify.Expected(**{**values, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole folder of results."""
    results = tmp_path_factory.mktemp("whole") / "demo"
    prepare(results)
    for variant in VARIANTS:
        for seed in SEEDS:
            train(results, variant, seed)
            attack(results, variant, seed)
    wanted = expected()
    for spec in wanted.tables:
        table.run(spec, results, [results / path for path in spec.records])
    check.run(wanted.check, results, [results / path for path in wanted.check.records])
    folder = results / "figures" / "paper"
    folder.mkdir(parents=True)
    (folder / "figure3.png").write_text("a picture")
    sources = [results / TRAINED / layout.MODEL]
    write_index(folder, [folder / "figure3.png"], {"figure3": "what it shows"}, results, sources)
    return results


@pytest.fixture
def results(made, tmp_path):
    shutil.copytree(made, tmp_path / "demo")
    return tmp_path / "demo"


def found(results, deep=False, **changes):
    """The lines of a verification, paths relative to the folder of results; notes left out."""
    lines = []
    count = verify.run(expected(**changes), results, deep, lines.append)
    lines = [line.replace(f"{results}/", "") for line in lines]
    wrong = [line for line in lines if not line.startswith("note: ")]
    assert len(wrong) == count and not any("\n" in line for line in lines)
    return wrong


def reseal(path, change, seal="sha256"):
    """Change a sealed file so that its seal is good."""
    content = json.loads(path.read_text())
    content.pop(seal)
    change(content)
    path.write_text(json.dumps({**content, seal: digest(content)}))


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def set_metric(key, value):
    return lambda content: content["metrics"][0].update({key: value})


def swap(one, other):
    one.rename(one.parent / "aside")
    other.rename(one)
    (one.parent / "aside").rename(other)


def copy(source, target):
    shutil.copy2(source, target)


ATTACK = "fgsm/digits10/vgg/seed-0/result.json"
RECORD, OTHER = f"{TRAINED}/result.json", "train/digits10/vgg/seed-1"
REMADE = "`rm {} && snakemake all_tables`"
SPOILT = {
    "NaN in a record": (lambda r: edit(r / RECORD, '"value": 10.0', '"value": NaN'), RECORD, "NaN is no number"),
    "a record cut off": (lambda r: (r / RECORD).write_text("{"), RECORD, "not readable"),
    "an edited record": (lambda r: edit(r / RECORD, "10.0", "9.0"), RECORD, "does not match its SHA-256"),
    "a key of another version": (
        lambda r: reseal(r / RECORD, lambda c: c.update(colour=1)), RECORD, "unknown key 'colour'",
    ),
    "metrics of a wrong shape": (
        lambda r: reseal(r / RECORD, lambda c: c.update(metrics={"a": 1})), RECORD, "key 'metrics' is {'a': 1}",
    ),
    "facts of a wrong shape": (
        lambda r: reseal(r / RECORD, lambda c: c["extra"].update(hits=[])), RECORD, "key 'hits' is []: must be",
    ),
    "no images": (lambda r: reseal(r / RECORD, set_metric("n", 0)), RECORD, "comes from 0 items"),
    "less than no error": (lambda r: reseal(r / RECORD, set_metric("value", -5.0)), RECORD, "unit does not allow"),
    "another error": (lambda r: reseal(r / RECORD, set_metric("value", 9.0)), RECORD, "hits.npy beside it gives 10"),
    "another scale": (lambda r: reseal(r / RECORD, lambda c: c.update(scale="x")), RECORD, "of scale 'x'"),
    "another recipe": (
        lambda r: reseal(r / RECORD, lambda c: c.update(config_hash="0")), RECORD, "made under another configuration",
    ),
    "a record of another seed": (
        lambda r: copy(r / OTHER / "result.json", r / RECORD), RECORD, f"the record of another run ({OTHER})",
    ),
    "a record of another variant": (
        lambda r: copy(r / "train/digits10/vgg-gap/seed-0/result.json", r / RECORD), RECORD, "of another run (",
    ),
    "a network of another seed": (
        lambda r: copy(r / OTHER / layout.MODEL, r / TRAINED), f"{TRAINED}/model.safetensors", "not the file that",
    ),
    "an empty network": (
        lambda r: (r / TRAINED / layout.MODEL).write_text(""), f"{TRAINED}/model.safetensors", "empty",
    ),
    "no network": (
        lambda r: (r / TRAINED / layout.MODEL).unlink(), f"{TRAINED}/model.safetensors", "missing, though",
    ),
    "no history": (lambda r: (r / TRAINED / layout.HISTORY).unlink(), f"{TRAINED}/history.csv", "missing, though"),
    "an edited history": (
        lambda r: edit(r / TRAINED / layout.HISTORY, "10", "8"), f"{TRAINED}/history.csv", "not the file that",
    ),
    "other hits": (
        lambda r: np.save(r / TRAINED / layout.HITS, np.ones((1, 10), bool)), f"{TRAINED}/hits.npy", "not the file",
    ),
    "labels of zero": (
        lambda r: np.save(r / "data/digits10/test.labels.npy", np.zeros(10, np.int64)),
        "data/digits10/manifest.json", "test.labels.npy: content does not match",
    ),
    "labels of zero, and a manifest for them": (
        lambda r: prepare(r, label=0), "data/digits10/manifest.json", "not the arrays that 8 results were made of",
    ),
    "a seed that is gone": (
        lambda r: shutil.rmtree(r / OTHER), "train/digits10/vgg", "seed 1 missing, though the configuration wants it",
    ),
    "a dataset that is gone": (
        lambda r: shutil.rmtree(r / "data/digits10"), "data/digits10/manifest.json", "missing, though",
    ),
    "an edited table": (lambda r: edit(r / "tables/small.md", "10.00", "9.00"), "tables/small.md", "not what its"),
    "a table that is gone": (lambda r: (r / "tables/small.tex").unlink(), "tables/small.tex", "missing, though"),
    "edited checks": (lambda r: edit(r / "checks.md", "10.0", "9.0"), "checks.md", "not what its records give"),
    "an edited picture": (
        lambda r: edit(r / "figures/paper/figure3.png", "a", "b"), "figures/paper/figure3.png", "not the picture that",
    ),
    "an edited caption": (
        lambda r: edit(r / "figures/paper/index.json", "what it shows", "x"), "figures/paper/index.json", "SHA-256",
    ),
    "a picture of another network": (
        lambda r: reseal(r / "figures/paper/index.json", lambda c: c["drawn_from"].update({RECORD: "0" * 64})),
        "figures/paper/index.json", f"drawn from another {RECORD}",
    ),
    "an attack on another network": (
        lambda r: reseal(
            r / ATTACK, lambda c: c["extra"]["networks"][0].update(model_sha256="0" * 64)
        ),
        ATTACK, f"made from another {TRAINED}/model.safetensors",
    ),
}  # fmt: skip


def test_whole_results_have_no_difference(results):
    assert found(results) == []


@pytest.mark.parametrize("spoil, guilty, words", SPOILT.values(), ids=SPOILT)
def test_what_is_spoilt_is_found_and_the_guilty_file_named(results, spoil, guilty, words):
    spoil(results)
    (line,) = found(results)
    assert words in line and guilty in line and "snakemake all_tables`" in line
    assert line.startswith(guilty) or ("labels of zero" in str(SPOILT) and line.startswith("data/digits10/"))


def test_swapped_seeds_are_both_named(results):
    swap(results / TRAINED, results / OTHER)
    lines = found(results)
    assert [line.split(":")[0] for line in lines] == [RECORD, f"{OTHER}/result.json"]
    assert all("to be put back there" in line for line in lines)


def test_what_is_missing_everywhere_is_counted(results):
    many = [dataclasses.replace(expected().runs[0], variant=f"other-{number}") for number in range(25)]
    lines = found(results, runs=[*expected().runs, *many])
    assert len(lines) == 21 and lines[0].startswith("train/digits10/other-0: seeds 0, 1 missing")
    assert lines[-1] == "5 more runs are missing; `snakemake all_tables`"


def kept(results):
    """The runs of a store that is in line with the results."""
    runs = {}
    for path in results.glob("*/*/*/*/result.json"):
        each = read_record(path)
        metrics = {f"{m.name}/{m.target}{m.condition.replace('eps=', '/eps:')}": m.value for m in each.metrics}
        runs[f"{each.stage}/{each.dataset}/{each.variant}/seed-{each.seed}"] = Kept(
            "", {TAG_SEAL: read_source(path).seal}, metrics
        )
    return runs


@pytest.fixture
def store(results, monkeypatch):
    """Results with a store beside them; what it holds can be changed."""
    runs = kept(results)
    monkeypatch.setattr(verify_views, "kept_runs", lambda *_: runs)
    for name in ("mlflow.db", "tracking.json"):
        (results / name).touch()
    return runs


def with_store(results):
    return found(results, track=TrackSpec(scale="demo"))


def test_a_store_in_line_has_no_difference(results, store):
    assert with_store(results) == []


def test_a_record_that_neither_table_nor_store_knows_is_to_blame(results, store):
    reseal(results / ATTACK, set_metric("value", 20.0))
    (line,) = with_store(results)
    assert line == f"{ATTACK}: its numbers are neither those of fooling nor those of mlflow.db; " + REMADE.format(
        results / ATTACK
    ).replace(f"{results}/", "")


def test_a_record_made_anew_leaves_the_store_behind(results, store):
    """Its numbers are as before, so that the table still holds; only what was made when differs."""
    reseal(results / ATTACK, lambda content: content.update(seconds=2.0))
    (line,) = with_store(results)
    assert line == f"mlflow.db: holds another version of 1 records, such as {ATTACK}; `ltpa track`"


def test_other_numbers_in_the_store_and_runs_that_it_lacks(results, store):
    key = "fgsm/digits10/vgg/seed-0"
    store[key] = Kept("", store[key].tags, {"fooling_rate_pct/digits10/eps:1": 29.0})
    (line,) = with_store(results)
    assert line == f"mlflow.db: holds other numbers than 1 records, such as {ATTACK}; `ltpa track --rebuild`"
    del store[key]
    assert with_store(results) == [f"mlflow.db: lacks 1 records, such as {ATTACK}; `ltpa track`"]


def test_a_store_that_is_gone_is_missing(results, store):
    (results / "mlflow.db").unlink()
    assert with_store(results) == ["mlflow.db: missing; `ltpa track --rebuild`"]


def test_records_are_compared_with_runs_by_every_metric(tmp_path):
    path = put(
        tmp_path, record("train", "d", "vgg", 0, [Metric("test_error_pct", 5.0, 10), Metric("train_loss", 0.1, 10)])
    )
    records, seal = {path: read_record(path)}, read_source(path).seal
    good = {"test_error_pct/d": 5.0, "train_loss/d": 0.1}
    key = "train/d/vgg/seed-0"
    assert compare(records, {key: Kept("", {TAG_SEAL: seal}, good)}) == ([], [], [])
    for metrics in ({"test_error_pct/d": 5.0}, {**good, "train_loss/d": 0.2}):
        assert compare(records, {key: Kept("", {TAG_SEAL: seal}, metrics)}) == ([], [], [path])
    assert compare(records, {key: Kept("", {TAG_SEAL: "other"}, good)}) == ([path], [], [])
    assert compare(records, {}) == ([], [path], [])


def test_a_record_is_not_written_to_the_place_of_another(tmp_path):
    place = layout.run_dir(tmp_path, "train", "digits10", "vgg", 1) / layout.RECORD
    with pytest.raises(RecordError, match=r"the record of another run \(train/digits10/vgg/seed-0\)"):
        write_record(place, record("train", "digits10", "vgg", 0, []))
    assert not place.exists()
    assert layout.run_of(Path("result.json")) is None and layout.run_of(tmp_path / "seed-1" / "other.json") is None


def test_deep_looks_into_files_whose_hashes_are_right(results):
    """The networks of these results are mere text."""
    networks = [f"train/digits10/{variant}/seed-{seed}/model.safetensors" for variant in VARIANTS for seed in SEEDS]
    assert found(results) == []
    assert sorted(line.split(": ")[0] for line in found(results, deep=True)) == sorted(networks)


def test_deep_hashes_arrays_of_any_size(results, monkeypatch):
    monkeypatch.setattr("ltpa.data.arrays.HASHED_BELOW", 0)
    images = results / "data" / "digits10" / "test.images.npy"
    np.save(images, 255 - np.load(images))
    assert found(results) == []
    assert any("test.images.npy: content does not match" in line for line in found(results, deep=True))
