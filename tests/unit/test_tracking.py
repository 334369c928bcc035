"""The MLflow view of the records, on a real SQLite store that the tests share (creating one takes seconds)."""

import errno
import fcntl
import json
import math
import shutil
import sqlite3
import sys

import pytest
import tables_support as support
from mlflow.entities import Metric as MlflowMetric
from mlflow.entities import Param
from mlflow.tracking import MlflowClient
from tables_support import put, record, small_records, trained

from ltpa.core import layout
from ltpa.core.errors import LtpaError, RecordError
from ltpa.core.records import Metric
from ltpa.stages import table as table_stage
from ltpa.stages import track as stage
from ltpa.tracking import rows, store
from ltpa.tracking.content import parent_seal, read_source, run_content
from ltpa.tracking.naming import metric_key
from ltpa.tracking.pictures import keep_pictures

SPEC = stage.TrackSpec(scale="demo")
HISTORY = "epoch,lr,train_loss,test_error_pct\n1,0.1,2.25,\n2,0.05,1.5,40.0\n"


def history(path):
    (path.parent / layout.HISTORY).write_text(HISTORY)
    draw(path.parents[4], b"png")
    (path.parent / layout.MODEL).write_bytes(b"weights")
    return path


def draw(results, content):
    overlay = layout.overlay_path(results, "digits10", "vgg", 0)
    overlay.parent.mkdir(parents=True, exist_ok=True)
    overlay.unlink(missing_ok=True)
    overlay.write_bytes(content)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A results folder with records, tables and a store that holds them. Tests copy it."""
    results = tmp_path_factory.mktemp("demo")
    records = small_records(results)
    history(records[0])
    fooled = [Metric("fooling_rate_pct", 12.5, 500, "digits10", "eps=1")]
    records.append(put(results, record("fgsm", "digits10", "vgg", 0, fooled)))
    table_stage.run(support.spec(), results, records[:6])
    stage.run(SPEC, results, records, [layout.table_path(results, "small", "tidy.csv")])
    return results


@pytest.fixture
def results(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "demo")
    return tmp_path / "demo"


def records_of(results):
    return sorted(results.glob("*/*/*/seed-*/result.json"))


def tables_of(results):
    return [layout.table_path(results, "small", "tidy.csv")]


def client_of(results):
    """MLflow's own client."""
    return MlflowClient(f"sqlite:///{results}/{store.DATABASE}")


def runs_of(results):
    """Every active run by its key, as MLflow sees it."""
    client = client_of(results)
    experiments = [item.experiment_id for item in client.search_experiments() if item.name.startswith("ltpa/")]
    runs = list(client.search_runs(experiments))
    by_key = {run.data.tags["ltpa.key"]: run for run in runs}
    assert len(by_key) == len(runs)
    return by_key


def test_every_record_is_a_run_with_its_numbers(results):
    runs = runs_of(results)
    mapping = json.loads((results / "tracking.json").read_text())
    assert len(mapping) == 7
    run = runs["train/digits10/vgg/seed-0"]
    assert run.info.run_id == mapping["train/digits10/vgg/seed-0/result.json"]
    assert run.data.metrics["test_error_pct/digits10"] == 7.25
    assert run.data.metrics["epoch/train_loss"] == 1.5
    path = layout.run_dir(results, "train", "digits10", "vgg", 0) / layout.RECORD
    assert run.data.tags["ltpa.record_sha256"] == json.loads(path.read_text())["sha256"]
    assert (run.data.params["variant"], run.data.params["seed"]) == ("vgg", "0")
    assert run.data.tags["ltpa.config_hash"] == "c"
    assert run.data.tags["mlflow.parentRunId"] == runs["train/digits10/vgg"].info.run_id
    assert runs["fgsm/digits10/vgg/seed-0"].data.metrics["fooling_rate_pct/digits10/eps:1"] == 12.5


def test_failed_records_are_failed_runs_with_the_reason(results):
    run = runs_of(results)["train/digits10/vgg-gap/seed-1"]
    assert run.info.status == "FAILED"
    assert "epoch 3 is not finite" in run.data.tags["ltpa.reason"]


def test_history_has_a_point_per_epoch_and_artefacts_are_kept(results):
    run = runs_of(results)["train/digits10/vgg/seed-0"]
    client = client_of(results)
    points = client.get_metric_history(run.info.run_id, "epoch/train_loss")
    assert [(point.step, point.value) for point in points] == [(1, 2.25), (2, 1.5)]
    assert [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, "epoch/test_error_pct")] == [
        (2, 40.0)
    ]
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert names == {"result.json", "history.csv", "digits10-vgg-seed-0.png", "model.safetensors"}


def test_a_picture_that_is_drawn_after_the_store_was_written_or_anew_is_kept(results):
    draw(results, b"another")
    keep_pictures(results)
    run = runs_of(results)["train/digits10/vgg/seed-0"]
    kept = results / "mlruns" / "train" / run.info.run_id / "artifacts" / "digits10-vgg-seed-0.png"
    assert kept.read_bytes() == b"another"
    (results / "tracking.json").unlink()
    draw(results, b"third")
    keep_pictures(results)
    assert kept.read_bytes() == b"another", "no store was finished that it could belong to"


def test_rows_are_those_that_the_client_of_mlflow_writes(results):
    """Including values that SQLite cannot hold, and a metric that is not given in order."""
    points = [
        ("a/b", 1.5, 0),
        ("epoch/x", 2.0, 2),
        ("epoch/x", math.nan, 1),
        ("big", math.inf, 0),
        ("low", -math.inf, 0),
    ]
    points.append(("none", math.nan, 0))
    tags, params, written = {"ltpa.key": "k", "other": "ü"}, {"p": "1", "q": "x" * 100}, []
    with store.open_store(results) as connection:
        (folder,) = {path.parent for path in (results / "mlruns").glob("train")}
        experiment = rows.experiment_id(connection, "ltpa/demo/train", folder)
        run_id = rows.create_run(connection, experiment, "a name", 1000, tags)
        rows.set_params(connection, run_id, params)
        rows.add_points(connection, run_id, [rows.Point(*point) for point in points], 2000)
        rows.end_run(connection, run_id, "FINISHED", 2000)
        written.append(run_id)
    client = client_of(results)
    run = client.create_run(str(experiment), start_time=1000, tags=tags, run_name="a name")
    written.append(run.info.run_id)
    metrics = [MlflowMetric(name, value, 2000, step) for name, value, step in points]
    client.log_batch(written[1], metrics=metrics, params=[Param(*item) for item in params.items()])
    client.set_terminated(written[1], "FINISHED", 2000)

    def held(run_id):
        found = {}
        with sqlite3.connect(results / store.DATABASE) as connection:
            for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
                lines = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", [run_id]).fetchall()
                found[table] = sorted(str(line).replace(run_id, "ID") for line in lines)
        return found

    ours, theirs = map(held, written)
    assert ours == theirs and len(ours["metrics"]) == 6
    with store.open_store(results) as connection:
        for run_id in written:
            rows.delete_run(connection, run_id)
    assert client.get_run(written[0]).info.lifecycle_stage == "deleted"


def test_what_fails_half_way_leaves_the_store_as_it_was(results, monkeypatch):
    before = {key: run.info.run_id for key, run in runs_of(results).items()}
    folders = set((results / "mlruns").glob("*/*"))
    for seed in (0, 1):
        put(results, trained("digits10", "vgg", seed, 9.25))
    ended = []

    def fail(*arguments):
        ended.append(arguments)
        if len(ended) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rows, "end_run", fail)
    with pytest.raises(OSError):
        stage.run(SPEC, results, records_of(results), tables_of(results))
    assert {key: run.info.run_id for key, run in runs_of(results).items()} == before
    assert set((results / "mlruns").glob("*/*")) == folders


def test_a_copied_store_leaves_the_folder_alone_that_it_came_from(pristine, results):
    before = {path: path.stat().st_mtime_ns for path in (pristine / "mlruns").rglob("*")}
    put(results, record("fgsm", "digits10", "vgg", 0, [Metric("fooling_rate_pct", 50.0, 500, "digits10", "eps=1")]))
    stage.run(SPEC, results, records_of(results))
    for run in runs_of(results).values():
        assert run.info.artifact_uri.startswith((results / "mlruns").as_uri() + "/")
    client = client_of(results)
    changed = runs_of(results)["fgsm/digits10/vgg/seed-0"]
    assert [item.path for item in client.list_artifacts(changed.info.run_id)] == ["result.json"]
    assert {path: path.stat().st_mtime_ns for path in (pristine / "mlruns").rglob("*")} == before


def test_a_store_that_cannot_be_written_is_one_line(results, monkeypatch):
    lock = results / ".mlflow.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()  # as a folder of another user: what stops root as well
    with pytest.raises(LtpaError, match=r"\.mlflow\.lock: cannot write here"):
        stage.run(SPEC, results, records_of(results))
    lock.rmdir()

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LtpaError, match=r"\.mlflow\.lock: .*No locks available"):
        stage.run(SPEC, results, records_of(results))
    assert (results / "tracking.json").is_file()


def test_parent_holds_mean_and_spread(results):
    parent = runs_of(results)["train/digits10/vgg"]
    metrics = {name.rpartition("/")[2]: value for name, value in parent.data.metrics.items()}
    assert (metrics["mean"], metrics["n"]) == (7.5, 2)
    assert metrics["sd"] == pytest.approx(0.125**0.5)


def test_a_second_pass_changes_nothing(results, monkeypatch):
    """And asks MLflow for nothing."""
    monkeypatch.setattr(store, "_create", None)
    monkeypatch.setattr("ltpa.tracking.writer.run_content", pytest.fail)
    before = {key: run.info.run_id for key, run in runs_of(results).items()}
    mapping = (results / "tracking.json").read_bytes()
    stage.run(SPEC, results, records_of(results), tables_of(results))
    assert {key: run.info.run_id for key, run in runs_of(results).items()} == before
    assert (results / "tracking.json").read_bytes() == mapping


def test_a_changed_record_replaces_its_run_and_the_parents_mean(results):
    before = runs_of(results)
    put(results, trained("digits10", "vgg", 1, 9.25))
    stage.run(SPEC, results, records_of(results))
    after = runs_of(results)
    assert set(after) == set(before)
    changed = {key for key in after if after[key].info.run_id != before[key].info.run_id}
    assert changed == {"train/digits10/vgg/seed-1", "train/digits10/vgg"}
    assert after["train/digits10/vgg"].data.metrics["test_error_pct/digits10/mean"] == 8.25
    parents = {after[f"train/digits10/vgg/seed-{seed}"].data.tags["mlflow.parentRunId"] for seed in (0, 1)}
    assert parents == {after["train/digits10/vgg"].info.run_id}


def test_an_unfinished_run_of_an_interrupted_writer_is_replaced(results):
    run = runs_of(results)["train/svhn/vgg/seed-0"]
    client = client_of(results)
    client.delete_tag(run.info.run_id, "ltpa.record_sha256")
    stage.run(SPEC, results, records_of(results), tables_of(results))
    after = runs_of(results)["train/svhn/vgg/seed-0"]
    assert after.info.run_id != run.info.run_id
    assert after.data.metrics["test_error_pct/svhn"] == 4.0


@pytest.mark.parametrize(
    ("suffix", "old", "new", "message"),
    [
        (
            "tidy.csv",
            "7.25",
            "6.25",
            r"train/digits10/vgg/seed-0 test_error_pct/digits10: 6.25 in the table, 7.25 in MLflow",
        ),
        (
            "csv",
            "7.5,0.3535",
            "7.4,0.3535",
            "mean of train/digits10/vgg test_error_pct/digits10: 7.4 in the table, 7.5",
        ),
        ("csv", "7.5,0.3535", "7.5,0.4535", "standard deviation of train/digits10/vgg"),
        ("csv", "4.0,,1,2", "4.0,,2,2", "count of train/svhn/vgg"),
    ],
)
def test_a_tampered_table_is_found(results, suffix, old, new, message):
    path = layout.table_path(results, "small", suffix)
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(LtpaError, match=message) as caught:
        stage.run(SPEC, results, records_of(results), tables_of(results))
    assert "\n" not in str(caught.value)
    assert not (results / "tracking.json").exists()


def test_a_number_that_mlflow_lacks_is_found(results):
    client = client_of(results)
    client.delete_run(runs_of(results)["train/svhn/vgg/seed-0"].info.run_id)
    others = [path for path in records_of(results) if "svhn" not in str(path)]
    with pytest.raises(LtpaError, match=r"4\.0 in the table, nothing in MLflow"):
        stage.run(SPEC, results, others, tables_of(results))


def test_counts_of_datasets_are_not_looked_for_in_mlflow(results):
    tidy = layout.table_path(results, "table4", "tidy.csv")
    for path in (tidy, layout.table_path(results, "table4", "csv")):
        path.write_text(
            "stage,dataset,variant,target,condition,metric,seed,value,mean\nprepare,d,,d,train,count,,5,5\n"
        )
    stage.run(SPEC, results, records_of(results), [tidy])
    assert (results / "tracking.json").exists()


@pytest.mark.parametrize(("text", "message"), [(None, "cannot be read"), ("a,b\n1,2\n", "not a table")])
def test_a_missing_or_foreign_table_is_named(results, text, message):
    path = layout.table_path(results, "other", "tidy.csv")
    if text:
        path.write_text(text)
    with pytest.raises(LtpaError, match=rf"other\.tidy\.csv: {message}"):
        stage.run(SPEC, results, records_of(results), [path])


def test_a_damaged_store_names_the_remedy_and_rebuild_cures_it(results):
    database = results / store.DATABASE
    database.write_bytes(database.read_bytes()[:5000])
    with pytest.raises(LtpaError, match=r"mlflow\.db: .*ltpa track --rebuild"):
        stage.run(SPEC, results, records_of(results))
    stage.run(SPEC, results, records_of(results), tables_of(results), rebuild=True)
    assert len(json.loads((results / "tracking.json").read_text())) == 7


def test_a_database_of_something_else_names_the_remedy(tmp_path):
    with sqlite3.connect(tmp_path / store.DATABASE) as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(LtpaError, match="not a usable MLflow store"):
        store.open_store(tmp_path).__enter__()


def test_a_store_of_another_mlflow_version_names_the_remedy(results):
    with sqlite3.connect(results / store.DATABASE) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
    with pytest.raises(LtpaError, match="ltpa track --rebuild"):
        store.open_store(results).__enter__()


def test_a_second_writer_is_told_to_wait(tmp_path):
    with (
        store.exclusive(tmp_path),
        pytest.raises(LtpaError, match=r"another process \(\d+\) writes"),
        store.exclusive(tmp_path),
    ):
        pass


def test_missing_mlflow_is_explained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(LtpaError, match=r"mlflow is not installed.*tables do not need it"):
        store.open_store(tmp_path).__enter__()
    assert not (tmp_path / store.DATABASE).exists()


def test_edited_and_foreign_and_doubled_records_are_refused(results):
    records = records_of(results)
    with pytest.raises(RecordError, match="the same run as"):
        stage.run(SPEC, results, [records[0], records[0]])
    with pytest.raises(RecordError, match="this store is of 'paper'"):
        stage.run(stage.TrackSpec(scale="paper"), results, records)
    records[0].write_text(records[0].read_text().replace("12.5", "13.5"))
    with pytest.raises(RecordError, match="SHA-256"):
        stage.run(SPEC, results, records)


def test_metric_names_are_ones_that_mlflow_takes():
    assert metric_key("fooling_rate_pct", "cub200", "eps=1") == "fooling_rate_pct/cub200/eps:1"
    assert (
        metric_key("jaccard_pct", "masked", "digit 0 (plays airplane)") == "jaccard_pct/masked/digit 0 _plays airplane_"
    )
    assert metric_key("relative_change", "", "") == "relative_change"


def test_two_metrics_of_one_name_are_refused(tmp_path):
    metrics = [Metric("a", 1.0, 1, "d", "x(y"), Metric("a", 2.0, 1, "d", "x)y")]
    source = read_source(put(tmp_path, record("train", "d", "vgg", 0, metrics)))
    with pytest.raises(RecordError, match="would both be a/d/x_y"):
        run_content(source, "r", models=False)


def test_large_networks_are_left_out_unless_asked_for(tmp_path):
    path = put(tmp_path, trained("d", "vgg", 0, 1.0))
    with open(path.parent / layout.MODEL, "wb") as stream:
        stream.truncate(5_000_000)
    source = read_source(path)
    assert layout.MODEL not in {item.name for item in run_content(source, "r", models=False).artefacts}
    assert layout.MODEL in {item.name for item in run_content(source, "r", models=True).artefacts}


def test_extra_facts_become_parameters(tmp_path):
    extra = {"recipe": {"lr": 0.1, "drops": [25, 50]}, "note": "x" * 9000}
    source = read_source(put(tmp_path, trained("d", "vgg", 0, 1.0, extra=extra)))
    params = run_content(source, "r", models=False).params
    assert (params["extra.recipe.lr"], params["extra.recipe.drops"]) == ("0.1", "[25, 50]")
    assert len(params["extra.note"]) == 6000


def test_parents_change_when_a_child_does(tmp_path):
    first, second = (read_source(put(tmp_path, trained("d", "vgg", seed, 1.0))) for seed in (0, 1))
    changed = read_source(put(tmp_path, trained("d", "vgg", 1, 2.0)))
    assert parent_seal([first, second]) != parent_seal([first, changed])


def test_history_that_is_not_numeric_is_named(tmp_path):
    path = put(tmp_path, trained("d", "vgg", 0, 1.0))
    (path.parent / layout.HISTORY).write_text("epoch,train_loss\n1,abc\n")
    with pytest.raises(RecordError, match=r"history\.csv: row 1 is not numeric"):
        run_content(read_source(path), "r", models=False)


def test_nothing_to_track_is_one_error_and_writes_nothing(tmp_path):
    with pytest.raises(LtpaError, match="no result records to track"):
        stage.run(SPEC, tmp_path, [])
    assert not any(tmp_path.iterdir())


def test_fits_that_did_not_converge_are_a_tag(tmp_path):
    facts = {"protocol": {"folds": 5}, "unconverged_fits": {"plain/raw": 0, "plain/l2": 3}}
    doubtful = put(tmp_path, record("transfer", "digits10", "vgg", 0, [], extra=facts))
    sound = put(tmp_path, record("transfer", "digits10", "vgg", 1, []))
    tags = run_content(read_source(doubtful), "r", models=False).tags
    assert tags["ltpa.unconverged"] == "plain l2: the SVM of 3 of 5 folds did not converge"
    assert "ltpa.unconverged" not in run_content(read_source(sound), "r", models=False).tags
