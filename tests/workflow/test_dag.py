"""The whole DAG through the real Snakemake on a mini configuration."""

import csv
import hashlib
import json
import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import yaml
from conftest import MINI, Checkout

from ltpa.protocols.registry import built_in

pytestmark = pytest.mark.workflow

STAGES = ("train", "transfer", "fgsm", "segmentation", "query", "patches")
TABLES = ("table1", "table2", "table3", "table4", "figure6", "figure9")


def raw_metrics(results: Path) -> dict[tuple[str, ...], dict[int, float]]:
    """Every metric of every record, read with nothing but json: key -> seed -> value."""
    found: dict[tuple[str, ...], dict[int, float]] = {}
    for path in results.glob("*/*/*/seed-*/result.json"):
        record = json.loads(path.read_text())
        for metric in record["metrics"]:
            key = (
                record["stage"], record["dataset"], record["variant"],
                metric["name"], metric["target"], metric["condition"],
            )  # fmt: skip
            found.setdefault(key, {})[record["seed"]] = metric["value"]
    return found


def tidy(results: Path, table: str) -> list[dict[str, str]]:
    with open(results / "tables" / f"{table}.tidy.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def changed(config: dict, path: Path) -> Path:
    """A configuration file with some top-level keys of the mini one replaced."""
    path.write_text(yaml.safe_dump({**yaml.safe_load(MINI.read_text()), **config}, sort_keys=False))
    return path


@pytest.mark.parametrize("table", [name for name in TABLES if name != "table4"])
def test_every_number_of_a_table_follows_from_the_records(finished: Checkout, table: str):
    metrics = raw_metrics(finished.results)
    compared = 0
    with open(finished.results / "tables" / f"{table}.csv", newline="") as stream:
        cells = list(csv.DictReader(stream))
    by_cell = {}
    for row in tidy(finished.results, table):
        if row["value"]:
            key = tuple(row[name] for name in ("stage", "dataset", "variant", "metric", "target", "condition"))
            assert float(row["value"]) == metrics[key][int(row["seed"])]
            by_cell.setdefault(key, []).append(float(row["value"]))
    for cell in cells:
        if not cell["mean"]:
            assert cell["missing"], f"an empty cell of {table} does not say why: {cell}"
            continue
        key = tuple(cell[name] for name in ("stage", "dataset", "variant", "metric", "target", "condition"))
        values = list(metrics[key].values())
        assert math.isclose(float(cell["mean"]), statistics.fmean(values), rel_tol=1e-12)
        assert math.isclose(float(cell["sd"]), statistics.stdev(values), rel_tol=1e-9, abs_tol=1e-12)
        assert int(cell["n"]) == len(values) == 2
        if cell["published"]:
            assert math.isclose(float(cell["delta"]), float(cell["mean"]) - float(cell["published"]), abs_tol=1e-9)
        compared += 1
    assert compared >= 4


def test_dataset_table_counts_what_is_on_disk(finished: Checkout):
    text = (finished.results / "tables" / "table4.md").read_text()
    images = len(numpy.load(finished.results / "data" / "digits10" / "train.labels.npy"))
    row = next(line for line in text.splitlines() if line.startswith("| CIFAR-10 "))
    cells = [cell.strip() for cell in row.split("|")]
    assert str(images) in cells and "50000" in cells


def test_tables_say_that_they_are_not_comparable(finished: Checkout):
    for table in TABLES:
        for suffix in ("md", "tex", "html"):
            text = (finished.results / "tables" / f"{table}.{suffix}").read_text()
            assert "not comparable" in text, f"{table}.{suffix}"
    with open(finished.results / "tables" / "table1.csv", newline="") as stream:
        assert {cell["verdict"] for cell in csv.DictReader(stream)} == {"withheld (mini scale)", ""}


def test_second_run_does_nothing(finished: Checkout):
    output = finished.snakemake("all_tables")
    assert output.returncode == 0
    assert "Nothing to be done" in output.stdout


def test_every_job_leaves_a_log_and_beside_it_what_it_cost(finished: Checkout):
    logs = {path.with_suffix("") for path in finished.results.glob("logs/**/*.log")}
    costs = list(finished.results.glob("logs/**/*.tsv"))
    assert {path.with_suffix("") for path in costs} == logs and len(logs) > 50
    for path in costs:
        with open(path, newline="") as stream:
            (row,) = csv.DictReader(stream, delimiter="\t")
        assert float(row["s"]) > 0


def test_what_jobs_cost_may_be_deleted(spoiled: Checkout):
    for path in spoiled.results.glob("logs/**/*.tsv"):
        path.unlink()
    assert spoiled.planned("all_tables") == {}


def test_deleted_outputs_of_every_kind_are_made_anew(spoiled: Checkout):
    """Whether or not something that is there was made from them."""
    results, seed = spoiled.results, "digits10/vgg-att2-concat-dp/seed-1"
    (record,) = results.glob(f"query/{seed}/result.json")
    gone = [record, results / "checks.json", results / "tables/table4.tidy.csv", results / "figures/fooling-rate.png"]
    gone += [next(results.glob("patches/*/center/seed-0/boxes.json")), next(results.glob("figures/paper/*.svg"))]
    for path in gone:
        path.unlink()
    planned = spoiled.planned("all_tables")
    assert {"query": 1, "patches": 1, "table": planned["table"]}.items() <= planned.items()
    assert {"check", "figures", "gallery"} <= planned.keys() and "train" not in planned
    (results / "train" / seed / "history.csv").unlink()
    assert spoiled.planned("all_tables")["train"] == 1


def test_touched_sources_rerun_nothing(finished: Checkout):
    for path in (finished.root / "ltpa").rglob("*.py"):
        path.touch()
    assert finished.planned("all_tables") == {}


STATIC = {
    "all_tables", "all_figures", "prepare", "train", *built_in(), "patches", "table", "check", "track", "report",
    "figures", "gallery", "patch_picture", "step_picture",
}  # fmt: skip


@pytest.mark.parametrize("scale", ["config", "paper", "finegrained", "mini"])
def test_the_list_of_rules_is_the_same_at_every_scale(fresh: Checkout, scale: str):
    path = MINI if scale == "mini" else fresh.root / "config" / f"{scale}.yaml"
    listed = fresh.snakemake("--list-rules", config=path).stdout.splitlines()
    assert set(listed) >= STATIC and len(STATIC) - len(built_in()) <= 15
    assert {line for line in listed if line.isidentifier()} == STATIC


def test_a_dry_run_writes_nothing_of_ours(fresh: Checkout):
    assert fresh.planned("all_tables")["train"] > 10
    assert not (fresh.root / "results").exists()


def test_a_spec_is_a_file_named_by_its_hash(finished: Checkout):
    """And the job's command names the file instead of holding what is in it."""
    records = list(finished.results.glob("train/*/*/seed-*/result.json"))
    assert records
    for path in records:
        record = json.loads(path.read_text())
        where = finished.results / "specs" / "train" / record["dataset"] / record["variant"]
        spec = json.loads((where / f"{record['config_hash']}.json").read_text())
        canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(canonical.encode()).hexdigest() == record["config_hash"]
    output = finished.snakemake("-n", "-p", "--forceall", "--", "all_tables").stdout
    commands = [line for line in output.splitlines() if line.startswith("Shell command: exec")]
    assert len(commands) > 50 and max(map(len, commands)) < 400


def test_a_spec_file_alone_is_enough_for_another_machine(finished: Checkout, tmp_path: Path):
    """No Snakemake and no configuration: prepared arrays, the spec, the seed."""
    name = "train/digits-marks/vgg/seed-0"
    record = json.loads((finished.results / name / "result.json").read_text())
    shutil.copytree(finished.results / "data" / "digits-marks", tmp_path / "data" / "digits-marks")
    spec = finished.results / "specs" / "train" / "digits-marks" / "vgg" / f"{record['config_hash']}.json"
    words = ["train", "--spec", f"@{spec}", "--results", str(tmp_path), "--seed", "0"]
    done = subprocess.run([sys.executable, "-m", "ltpa", *words], cwd=finished.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / name / "result.json").read_text())
    assert (again["metrics"], again["config_hash"], again["code_hash"]) == (
        record["metrics"], record["config_hash"], record["code_hash"],
    )  # fmt: skip
    model = "model.safetensors"
    assert (tmp_path / name / model).read_bytes() == (finished.results / name / model).read_bytes()


def test_changing_one_protocol_reruns_only_that_protocol(finished: Checkout, tmp_path: Path):
    protocols = yaml.safe_load(MINI.read_text())["protocols"]
    config = changed({"protocols": {**protocols, "fgsm": {"epsilons": [1, 2, 4, 8, 16, 32]}}}, tmp_path / "more.yaml")
    planned = finished.planned("all_tables", config=config)
    assert planned.pop("fgsm") == 4
    assert set(planned) == {"table", "figures", "track", "report", "all_tables"}


def test_an_added_seed_runs_only_its_own_jobs_and_the_aggregations(finished: Checkout, tmp_path: Path):
    config = changed({"seeds": [0, 1, 2]}, tmp_path / "three.yaml")
    planned = finished.planned("all_tables", config=config)
    views = {"table", "check", "track", "report", "figures", "all_tables"}
    assert all(rule in {*views, *STAGES} for rule in planned), planned
    assert planned["train"] == finished_trainings(finished)
    assert planned["table"] == 5  # table 4 counts images and knows no seeds


def finished_trainings(checkout: Checkout) -> int:
    return len(list(checkout.results.glob("train/*/*/seed-0/result.json")))


def test_a_single_table_runs_only_its_ancestors(fresh: Checkout):
    assert set(fresh.planned("figure6")) == {"prepare", "train", "fgsm", "table", "figure6"}
    planned = fresh.planned("table3")
    assert set(planned) == {"prepare", "train", "transfer", "table", "table3"}


def test_the_fine_grained_scale_trains_its_own_networks_only(fresh: Checkout):
    """No dataset of it plays the first source set, so there are no networks to draw figures of."""
    planned = fresh.planned("all_tables", config=Path(__file__).parents[2] / "config" / "finegrained.yaml")
    assert planned["table"] == 5 and planned["check"] == planned["track"] == planned["gallery"] == 1
    assert "figures" not in planned and planned["train"] == 39, "thirteen networks of birds and dogs, three seeds"


def test_one_core_and_two_cores_give_the_same_bytes(finished: Checkout, fresh: Checkout):
    done = fresh.snakemake("table2", cores=1)
    assert done.returncode == 0, done.stdout
    for suffix in ("csv", "md", "tex", "html", "tidy.csv"):
        name = f"tables/table2.{suffix}"
        assert (fresh.results / name).read_bytes() == (finished.results / name).read_bytes()
    models = sorted(fresh.results.glob("train/*/*/seed-*/model.safetensors"))
    assert len(models) >= 8
    for model in models:
        assert model.read_bytes() == (finished.results / model.relative_to(fresh.results)).read_bytes()


def test_report_holds_tables_and_figures(finished: Checkout):
    output = finished.snakemake("all_tables", "--report", "report.zip")
    assert output.returncode == 0, output.stdout
    import zipfile

    with zipfile.ZipFile(finished.root / "report.zip") as archive:
        names = archive.namelist()
    assert any(name.endswith(".html") for name in names)
    assert sum(name.endswith("attention.png") for name in names) == 1


def test_tables_build_and_tracking_explains_itself_without_mlflow(spoiled: Checkout):
    (spoiled.root / "mlflow.py").write_text("raise ImportError('blocked by a test')\n")
    (spoiled.results / "mlflow.db").unlink()
    done = spoiled.snakemake(
        "--forcerun", "table", "track", "--keep-going", "--", "table1", "results/mini/tracking.json"
    )
    assert done.returncode != 0
    assert "mlflow" in done.stdout and "Traceback" not in done.stdout
    assert "Finished jobid" in done.stdout and "Error in rule track" in done.stdout


def test_bad_configuration_is_one_clear_line_and_makes_nothing(fresh: Checkout, tmp_path: Path):
    """tests/unit/test_config.py has the messages."""
    output = fresh.snakemake("-n", "all_tables", config=changed({"variants": ["vgg-atn"]}, tmp_path / "bad.yaml"))
    assert output.returncode != 0
    assert "Traceback" not in output.stdout
    assert all(word in output.stdout for word in ("bad.yaml", "'variants'", "vgg-atn", "did you mean"))
    assert not (fresh.root / "results").exists()


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and "logs" not in p.parts)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("damage", ["truncated", "edited"])
def test_a_damaged_record_stops_its_table_and_harms_nothing(spoiled: Checkout, damage: str):
    record = spoiled.results / "train" / "digits10" / "vgg" / "seed-0" / "result.json"
    text = record.read_text()
    record.write_text(text[: len(text) // 2] if damage == "truncated" else text.replace('"value": ', '"value": 1', 1))
    before = digests(spoiled.results / "train")
    output = spoiled.snakemake("--forcerun", "table", "--", "table1")
    assert output.returncode != 0
    assert str(Path("train/digits10/vgg/seed-0/result.json")) in output.stdout
    assert "Traceback" not in output.stdout
    assert digests(spoiled.results / "train") == before


def test_a_model_of_another_variant_is_refused(spoiled: Checkout):
    train = spoiled.results / "train" / "digits-marks"
    name = "seed-0/model.safetensors"
    shutil.copyfile(train / "vgg" / name, train / "vgg-att2-concat-pc" / name)
    target = "results/mini/fgsm/digits-marks/vgg-att2-concat-pc/seed-0/result.json"
    output = spoiled.snakemake("--forcerun", "fgsm", "--", target)
    assert output.returncode != 0
    assert "holds variant vgg, but vgg-att2-concat-pc was asked for" in output.stdout
    assert "Traceback" not in output.stdout


def test_an_unusable_results_folder_is_named(fresh: Checkout):
    (fresh.root / "results").write_text("not a folder")
    output = fresh.snakemake("table4")
    assert output.returncode != 0
    assert "results: not a folder that can be read" in output.stdout
    assert "Traceback" not in output.stdout
    assert (fresh.root / "results").read_text() == "not a folder"
