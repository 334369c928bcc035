"""What `ltpa plan` says a configuration costs, against numbers worked out by hand."""

import json
from pathlib import Path

import pytest

from ltpa.cli import main
from ltpa.core.errors import ConfigError
from ltpa.core.records import Record, write_record
from ltpa.plan import Plan
from ltpa.plan.budget import Budget, Facts, Throughput
from ltpa.plan.config import load_config
from ltpa.plan.plan import Run

ROOT = Path(__file__).parents[2]


def plan(name: str, root: Path = Path()) -> Plan:
    path = ROOT / "config" / f"{name}.yaml"
    return Plan(load_config(path), str(path), root)


def facts(spec) -> Facts:
    return Facts(macs=1000, parameters=10)


def record(run: Run, seed: int, seconds: float) -> Record:
    return Record(
        stage="train", scale="demo", dataset=run.dataset, variant=run.variant, seed=seed, metrics=[], config_hash="",
        data_hash="", code_hash="", code_version="", libraries={}, device="cpu", threads=1, seconds=seconds,
        peak_memory_mb=0.0,
    )  # fmt: skip


def test_a_table_of_the_demo_by_hand(tmp_path: Path):
    cost = Budget(plan("config", tmp_path), facts, None).of_table("figure6")
    # digits-marks and digits20, whose networks those of digits-marks start from; VGG and VGG-att2-concat-pc, two seeds:
    # 2 prepare, 8 train, 4 fgsm, table, target
    assert cost.jobs == 16
    assert cost.unknown == 8 and not cost.seconds and cost.download_bytes == 0
    splits = [plan("config").datasets[name]["splits"] for name in ("digits-marks", "digits20")]
    images = sum(split["count"] for each in splits for split in each.values())
    assert cost.disk_bytes == images * 20 * 20 * 3 + 8 * 10 * 4


def test_hours_follow_from_measured_speed_or_from_finished_trainings(tmp_path: Path):
    config = load_config(ROOT / "config" / "config.yaml")
    routines = {"vgg": "vgg-demo", "resnet": "resnet-demo", "two-stream": "two-stream-demo"}
    recipes = {group: {"default": name} for group, name in routines.items()}  # none starts from another network
    demo = Plan(config.model_copy(update={"recipes": recipes}), "demo", tmp_path)
    speeds = Throughput("a machine", {"vgg-att2-concat-pc": (500.0, 2001)}, "a file")
    cost = Budget(demo, facts, speeds).of_table("figure6")
    assert cost.unknown == 4 and not cost.seconds, "a network of less than half the measured arithmetic is not guessed"
    speeds = Throughput("a machine", {"vgg": (500.0, 2000), "rn164": (9.0, 1000)}, "a file")
    cost = Budget(demo, facts, speeds).of_table("figure6")
    epochs = demo.train_spec("digits-marks", "vgg").recipe["epochs"]
    images = demo.datasets["digits-marks"]["splits"]["train"]["count"]
    assert cost.unknown == 0, "a network that was not measured goes by one of its routine"
    assert cost.seconds == {"a machine": pytest.approx(4 * epochs * images * 1000 / (500 * 2000))}
    speeds = Throughput("a machine", {"vgg": (500.0, 2000), "vgg-att2-concat-pc": (50.0, 1000)}, "a file")
    cost = Budget(demo, facts, speeds).of_table("figure6")
    assert cost.seconds["a machine"] == pytest.approx(2 * epochs * images * (1 / 1000 + 1 / 50)), (
        "its own speed goes first"
    )
    run = Run("train", "digits-marks", "vgg")
    for seed, seconds in ((0, 100.0), (1, 140.0)):
        write_record(Path(demo.records(run, [seed])[0]), record(run, seed, seconds))
    cost = Budget(demo, facts, speeds).of_table("figure6")
    assert cost.seconds == {"cpu": 240, "a machine": pytest.approx(2 * epochs * images / 50)}, "no sum across devices"


def test_the_paper_downloads_each_archive_once():
    paper = plan("paper")
    budget = Budget(paper, facts, None)
    sizes = {
        (name, archive["name"]): archive.get("size") or 0
        for name in paper.config.datasets
        for archive in paper.datasets[name]["archives"]
        if not archive.get("optional")
    }
    assert budget.total().download_bytes == sum(sizes.values())
    assert budget.of_table("table4").download_bytes == sum(sizes.values())
    assert 0 < budget.of_table("table1").download_bytes < budget.total().download_bytes
    assert budget.total().jobs < 4000


def test_the_command_prints_every_table_and_says_what_was_not_measured(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan"]) == 0
    said = capsys.readouterr().out
    assert all(f"| {table} |" in said for table in ("table1", "table4", "figure9", "all_tables"))
    assert "as measured on" in said and "throughput.json, written by `python benchmarks/train.py" in said
    path = tmp_path / "speeds.json"
    path.write_text(
        json.dumps({"command": "c", "device": "a card", "variants": {"vgg": {"images_per_second": 1e4, "macs": 3e8}}})
    )
    assert main(["plan", "--configfile", str(ROOT / "config" / "paper.yaml"), "--throughput", str(path)]) == 0
    assert "vgg as measured on a card" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "[]", "{}", '{"device": 1, "variants": {"vgg": {}}}'])
def test_a_wrong_throughput_file_is_named(tmp_path: Path, content):
    path = tmp_path / "speeds.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"speeds.json: no throughput file"):
        Throughput.read(path)


def test_the_speeds_that_ship_are_those_of_the_measurements_page():
    """One measurement, two places: the file of its command, and the table below the same command."""
    shipped = json.loads((ROOT / "config" / "throughput.json").read_text())
    page = (ROOT / "docs" / "measurements.md").read_text()
    table = page.split(f"`{shipped['command']}`, two threads")[1].split("\n\n")[1]
    network, found = "", {}
    for line in table.splitlines():
        name, way, rate = (cell.strip() for cell in line.split("|")[1:4])
        network = name or network
        found[network, way] = rate
    for name, speed in shipped["variants"].items():
        assert float(found[name, speed["way"]]) == speed["images_per_second"]
