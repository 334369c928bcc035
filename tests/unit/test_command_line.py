"""What the command line says of itself, and how it prints tables."""

from pathlib import Path

import pytest

import ltpa
from ltpa.cli import main
from ltpa.cli.output import markdown_table, print_text
from ltpa.core.text import duration_text

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"


def test_alone_it_prints_its_help_without_what_the_pipeline_calls(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert said.index("Look:") < said.index("Do:") < said.index("Measure trained networks:")
    listed = [line.split()[0] for line in said.splitlines() if line.startswith("  ")]
    assert {"list", "attend", "train", "fgsm"} <= set(listed)
    assert not {"table", "check", "figures", "gallery"} & set(listed)


def test_the_version_names_the_package(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"ltpa {ltpa.__version__}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tain"], "no command 'tain'; did you mean train"),
        (["train", "vgg", "digits10", "--seed", "one"], "'one' is not a whole number"),
        (["train", "vgg", "digits10", "--seed", "-1"], "-1 is no seed"),
        (["train", "--max-seconds", "soon"], "'soon' is not a number of seconds above 0"),
        (["model", "vgg", "--classes", "ten"], "'ten' is not a whole number"),
    ],
)
def test_wrong_words_are_named_plainly(arguments, says, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_the_list_names_everything_and_what_is_done(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("## ")] == [
        "## Variants", "## Datasets", "## Tables", "## Protocols",
    ]  # fmt: skip
    assert "| vgg-att2-concat-pc | vgg-att | yes | 0 of " in said
    table = tmp_path / "results" / "demo" / "tables" / "table1.csv"
    table.parent.mkdir(parents=True)
    table.touch()
    assert main(["list", "tables", "table[12]"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| table")]
    assert [(row[0], row[-1]) for row in rows] == [("| table1", "done |"), ("| table2", "missing |")]
    assert main(["list", "tables", "nothing"]) != 0
    assert "nothing is called 'nothing'" in capsys.readouterr().err


def test_tables_are_markdown_in_a_pipe_and_columns_on_a_terminal(capsys, monkeypatch):
    text = "one * two\n\n" + markdown_table(["name", "count:"], [["a|b_c", 5], ["d", 12]]) + "\n\nend"
    print_text(text)
    assert (
        capsys.readouterr().out == "one * two\n\n| name | count |\n|---|---:|\n| a\\|b\\_c | 5 |\n| d | 12 |\n\nend\n"
    )
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_text(text)
    assert capsys.readouterr().out == (
        "one * two\n\nname      count\n------  -------\na|b_c         5\nd            12\n\nend\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (40, "40 s"), (119, "119 s"), (120, "2.0 min"), (7200, "2.0 h"), (3.5 * 86400, "3.5 days"),
     (2.699e8, "3,124 days")],
)  # fmt: skip
def test_durations_are_in_the_unit_that_people_would_name(seconds, text):
    assert duration_text(seconds) == text


def test_the_package_shows_what_it_offers():
    assert {"create_model", "list_models", "load"} <= set(dir(ltpa))
    assert {"create_model", "save_model", "warm_start"} <= set(dir(ltpa.models))
    assert all("att" in name for name in ltpa.list_models("*att*"))


def test_what_belongs_to_another_user_is_one_line(tmp_path, monkeypatch, capsys):
    """As `Path.is_file` says of what lies in a folder that is closed to this user."""

    known = Path.is_file

    def closed(path):
        if path.name == "table1.csv":
            raise PermissionError(13, "Permission denied", str(path))
        return known(path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pathlib.Path.is_file", closed)
    assert main(["show", "table1", "--config", str(CONFIG)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ltpa: error: ") and said.count("\n") == 1
    assert "table1.csv: Permission denied; it is closed to this user" in said
