"""Running trainings in the MLflow store, and state folders that nothing refers to."""

import json
import time
import types

from mlflow.tracking import MlflowClient

from ltpa.core import layout
from ltpa.core.declared import config_dir
from ltpa.core.hashing import sha256_file
from ltpa.core.provenance import computing_libraries
from ltpa.core.specs import TrainSpec
from ltpa.plan import Plan, views
from ltpa.plan.config import load_config
from ltpa.runtime.lock import exclusive_folder
from ltpa.stages import clean_state, track
from ltpa.tables.spec import TrackSpec
from ltpa.tracking.naming import TAG_KEY
from ltpa.tracking.store import open_store
from ltpa.training.journal import ABOUT, METRICS

KEY = "a" * 64


def state(results, epochs=3, stage="train"):
    folder = results / "state" / stage / KEY
    folder.mkdir(parents=True)
    about = {"dataset": "noise", "variant": "vgg", "seed": 3, "recipe": {"epochs": epochs}}
    (folder / ABOUT).write_text(json.dumps(about))
    return folder


def write(folder, count, torn=""):
    rows = [{"epoch": e, "train_loss": 1 / e, "test_error_pct": None if e < 3 else 9.0} for e in range(1, count + 1)]
    (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)


def test_epochs_reach_the_store_while_a_training_runs(tmp_path):
    folder = state(tmp_path)
    said = []
    turns = iter([1, 2, 2, 3])  # epochs done at each look; the third sees nothing new

    with exclusive_folder(folder):

        def stop():
            """Between turns: another epoch, and after the last one the end."""
            done = next(turns, None)
            if done is not None:
                write(folder, done, torn='{"epoch": 9, "trai')
            return done is None

        track.follow(TrackSpec(scale="small"), tmp_path, stop, 60, said.append, interval=0.0)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "ltpa/small/train"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags[TAG_KEY] == "train/noise/vgg/seed-3" and run.info.status == "RUNNING"
    history = client.get_metric_history(run.info.run_id, "epoch/train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert [point.step for point in client.get_metric_history(run.info.run_id, "epoch/test_error_pct")] == [3]
    assert len(said) == 3
    # One more look, now that it has ended; and then nothing runs, which ends the following.
    follower = track.Follower(tmp_path, "small")
    follower._seen = {folder}
    with open_store(tmp_path) as connection:
        assert follower.look(connection) == 0
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"


def test_following_ends_by_itself_and_waits_for_a_busy_store(tmp_path):
    said = []
    with track.exclusive(tmp_path):
        started = time.monotonic()
        track.follow(TrackSpec(scale="small"), tmp_path, lambda: False, 0.3, said.append, interval=0.1)
    assert time.monotonic() - started < 20
    assert said and all("another process (" in text and "writes this MLflow store" in text for text in said)


def test_only_states_that_nothing_refers_to_are_removed(tmp_path, monkeypatch):
    spec = TrainSpec("small", "noise", 1, "vgg", {}, 2, 16, {"epochs": 1})
    monkeypatch.setattr(clean_state, "code_hash", lambda code: "code")
    about = {"dataset": "noise", "variant": "vgg", "seed": 0, "config_hash": spec.hash(), "code_hash": "code"}
    about["libraries"] = computing_libraries()
    folders = {}
    for name, change in {
        "wanted": {},
        "held": {"seed": 7},
        "other seed": {"seed": 7},
        "other recipe": {"config_hash": "x"},
        "other code": {"code_hash": "x"},
        "other torch": {"libraries": {**computing_libraries(), "torch": "1.0"}},
        "other data": {"data_hash": "x"},
        "unknown": None,
    }.items():
        folders[name] = tmp_path / "state" / "train" / name
        folders[name].mkdir(parents=True)
        (folders[name] / "step-000000001.pt").write_bytes(b"1234")
        if change is not None:
            (folders[name] / ABOUT).write_text(json.dumps({**about, "data_hash": "data", **change}))
    said = []
    with exclusive_folder(folders["held"]):
        # Without prepared data nobody can tell whether the data is other data: that state stays.
        clean_state.run(tmp_path, {"train": [(spec, 0)]}, True, said.append)
        assert all(folder.is_dir() for folder in folders.values()) and len(said) == 6
        freed = clean_state.run(tmp_path, {"train": [(spec, 0)]}, False, said.append)
    assert freed > 4 * 4
    left = {name for name, folder in folders.items() if folder.exists()}
    assert left == {"wanted", "held", "other data"}
    opened = types.SimpleNamespace(data_hash="data")
    monkeypatch.setattr(clean_state.PreparedDataset, "open", lambda folder: opened)
    clean_state.run(tmp_path, {"train": [(spec, 0)]}, False, said.append)
    assert folders["wanted"].is_dir() and not folders["other data"].exists()


def test_states_of_every_kind_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(clean_state, "code_hash", lambda code: " ".join(code))
    opened = types.SimpleNamespace(data_hash="data")
    monkeypatch.setattr(clean_state.PreparedDataset, "open", lambda folder: opened)
    train = TrainSpec(
        "small", "noise", 1, "vgg", {}, 2, 16, {"normalise": "gcn-zca", "epochs": 1, "batch_size": 2, "lr": 0.1}
    )
    recipe = {"learning": "two-stream", "epochs": 1, "batch_size": 2, "lr": 0.1, "lr_local": 0.1, "patches": "cut"}
    fine = TrainSpec("small", "birds", 1, "row", {}, 2, 16, recipe)
    boxes = layout.boxes_path(tmp_path, "birds", "cut", 0)
    boxes.parent.mkdir(parents=True)
    boxes.write_bytes(b"boxes")
    about = {
        "dataset": "birds",
        "variant": "row",
        "seed": 0,
        "config_hash": fine.hash(),
        "data_hash": "data",
        "libraries": computing_libraries(),
    }
    about |= {"code_hash": "ltpa.stages.train", "start": {"boxes": sha256_file(boxes), "weights": "w"}}
    fitted = {"dataset": "noise", "scheme": "gcn-zca", "data_hash": "data", "code_hash": "ltpa.data.normalise"}
    monkeypatch.setattr(clean_state, "fitting_code", lambda: "ltpa.data.normalise")
    kept = {
        "train/wanted": about,
        "train/held": {**about, "seed": 7},
        "preprocessing/wanted": fitted,
        "elsewhere/unknown": None,
    }
    gone = {
        "train/another row": {**about, "variant": "row2"},
        "train/other recipe": {**about, "config_hash": "x"},
        "train/other boxes": {**about, "start": {"boxes": "x"}},
        "train/other code": {**about, "code_hash": "x"},
        "preprocessing/other set": {**fitted, "dataset": "birds"},
        "preprocessing/other data": {**fitted, "data_hash": "x"},
        "preprocessing/other code": {**fitted, "code_hash": "x"},
        "preprocessing/of an old version": None,
        "patches/not wanted": {**about, "variant": "protopnet"},
    }
    for name, content in (kept | gone).items():
        (tmp_path / "state" / name).mkdir(parents=True)
        if content is not None:
            (tmp_path / "state" / name / ABOUT).write_text(json.dumps(content))
    said = []
    wanted = {"train": [(train, 0), (fine, 0)], "patches": []}
    with exclusive_folder(tmp_path / "state" / "train" / "held"):
        clean_state.run(tmp_path, wanted, True, said.append)
        assert all((tmp_path / "state" / name).is_dir() for name in kept | gone)
        clean_state.run(tmp_path, wanted, False, said.append)
    left = {str(folder.relative_to(tmp_path / "state")) for folder in (tmp_path / "state").glob("*/*")}
    assert left == set(kept)
    assert any("elsewhere: this version saves no such states" in text for text in said)


def test_what_the_demo_resumes_stands_in_its_plan(tmp_path):
    """A state that a job leaves is wanted by the configuration that the job belongs to: hashes agree."""
    plan = Plan(load_config(config_dir() / "config.yaml"), "config.yaml")
    found = views.resumable(plan)
    hashes = {(stage, spec.hash()) for stage, spec in found}
    for dataset in plan.fine_datasets:
        assert {("train", plan.train_spec(dataset, name).hash()) for name in plan.config.variants} <= hashes
    assert {stage for stage, _ in found} == {"train", "patches"}
