import inspect
import json
import os
import subprocess
import sys
from dataclasses import fields
from typing import get_args

import pytest

from featx.cli.extract import extract
from featx.engine import OnError, Settings
from featx.engine.hardware import PrecisionChoice, RuntimeChoice
from featx.errors import ExtractionError, UsageError

COMMANDS = [
    ["extract"],
    ["fit"],
    ["predict"],
    ["compare"],
    ["fewshot"],
    ["report"],
    ["doctor"],
    ["demo"],
    ["cache", "list"],
    ["cache", "verify"],
    ["cache", "export"],
    ["cache", "prune"],
    ["list", "backbones"],
    ["list", "descriptors"],
    ["list", "heads"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_every_command_shows_an_example_and_the_common_options(words, text):
    shown = text(*words, "--help").out
    assert "Example: featx " + " ".join(words) in " ".join(shown.split())
    for option in ("--cache", "--json", "--verbose", "--quiet"):
        assert option in shown


@pytest.mark.parametrize("words", [["extract"], ["fit"], ["predict"], ["compare"], ["fewshot"]], ids=" ".join)
def test_every_command_that_extracts_takes_the_options_of_a_run(words, text):
    shown = text(*words, "--help").out
    for option in ("--device", "--runtime", "--batch-size", "--workers", "--on-error", "--max-error-rate"):
        assert option in shown
    assert "--stall-seconds" in shown
    assert "--precision" in shown


def test_the_choices_of_the_command_line_are_those_of_the_engine():
    taken = inspect.signature(extract).parameters
    for name, choice in [("runtime", RuntimeChoice), ("precision", PrecisionChoice), ("on_error", OnError)]:
        assert get_args(get_args(taken[name].annotation)[0]) == get_args(choice)


def test_the_options_of_a_run_are_the_fields_of_its_settings_with_their_defaults():
    taken = inspect.signature(extract).parameters
    for field in fields(Settings):
        expected = "record" if field.name == "on_error" else field.default
        assert taken[field.name].default == expected


def test_help_and_version_load_nothing_heavy():
    program = (
        "import sys; sys.argv = ['featx', '--help']\n"
        "from featx.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'h5py', 'sklearn', 'pandas', 'pyarrow', 'PIL', 'skimage', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: featx" in done.stdout


def test_version(featx):
    from featx import __version__

    assert featx("--version").stdout == f"featx {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract"], "Missing argument 'DATA'. See: featx extract --help"),
        (["extract", "photos"], "Missing option"),
        (["extract", "--nonsense"], "No such option: --nonsense. See: featx extract --help"),
        (["nonsense"], "No such command 'nonsense'. See: featx --help"),
        (["fitt"], "No such command 'fitt'. Did you mean 'fit'? See: featx --help\n"),
        (["cache", "nonsense"], "No such command 'nonsense'. See: featx cache --help"),
        (
            ["fit", "photos", "-x", "hog", "--cv", "2.5"],
            "Invalid value for '--cv': expected a whole number, got '2.5'. See: featx fit --help\n",
        ),
        (
            ["cache", "prune", "--older-than", "x"],
            "expected a valid number, got 'x'. See: featx cache prune --help",
        ),
        (["extract", "nowhere", "-x", "hog"], "no such file or folder. Check the path."),
        (["extract", "nowhere.csv", "-x", "hog"], "no such file or folder"),
        (["extract", "photos", "-x", "squeezenet1_1:weights=nowhere.pth"], "Check the path after 'weights='"),
        (["extract", "photos", "-x", "squeezenet1_1:weights=/a/b+c.pth"], "write %2B for '+'"),
        (["predict", "nowhere.featx", "photos"], "model 'nowhere.featx' cannot be read: No such file"),
        (["fit", "photos", "-x", "hog", "--head", "nowhere.py"], "head 'nowhere.py' is not a file"),
        (["fit", "photos", "-x", "hog", "--out", "nowhere/m.featx"], "no folder"),
        (["predict", "m.featx", "photos", "--out", "nowhere/p.csv"], "no folder"),
        (
            ["fit", "photos", "-x", "hog", "--out", "photos/m.pkl"],
            "cannot write 'photos/m.pkl': expected a name that ends in .featx, got .pkl, which is another format. "
            "Name it 'm.featx'.",
        ),
        (["predict", "m.featx", "photos", "--out", "p.parquet"], "Name it 'p.csv'"),
        (["extract", "photos", "-x", "hog", "--export", "f.NPZ"], "ends in .h5, got .NPZ"),
        (["extract", "photos", "-x", "hogg"], "Did you mean hog"),
        (["extract", "photos", "-x", "hog:cell=7"], "a divisor of size=128"),
        (["extract", "photos", "-x", "hog", "--workers", "0"], "from 1 to 1024, got 0"),
        (["extract", "photos", "-x", "hog", "--on-error", "skip"], "'skip' is not one of 'raise', 'record'"),
        (["extract", "photos", "-x", "hog", "--max-error-rate", "2"], "from 0 to 1"),
        (
            ["extract", "photos", "-x", "hog", "--precision", "half"],
            "'auto', 'float32', 'float16', 'bfloat16'",
        ),
        (["extract", "photos", "-x", "hog", "--runtime", "onnx"], "'auto', 'torch'"),
        (["extract", "photos", "-x", "hog", "-x", "lbp", "--export", "f.h5"], "-x 'hog+lbp'"),
        (["extract", "photos", "-x", "hog", "--export", "nowhere/f.h5"], "no folder"),
        (["fit", "photos", "-x", "hog", "-x", "lbp"], "expected one -x"),
        (["fit", "photos", "-x", "hog", "--head", "logregg"], "Did you mean logreg"),
        (
            ["fit", "photos", "-x", "hog", "--class-weight", "heavy"],
            "'--class-weight': 'heavy' is not one of",
        ),
        (["fit", "photos", "-x", "hog", "--cv", "50"], "50"),
        (["extract", "photos", "-x", "hog", "--export", "photos"], "it is a folder"),
        (["extract", "photos", "-x", "hog", "--cache", "photos/red/0.png"], "expected a folder"),
        (["extract", "photos", "-x", "hog", "--cache", "photos/red/0.png/c"], "'photos/red/0.png' is a file"),
        (["fit", "photos", "-x", "hog", "--cache", "photos/red/0.png/c"], "'photos/red/0.png' is a file"),
        (["predict", "m.featx", "photos", "--cache", "photos/red/0.png/c"], "'photos/red/0.png' is a file"),
        (["demo", "--cache", "photos/red/0.png"], "'photos/red/0.png' is a file"),
        (["cache", "list", "--cache", "nowhere"], "there is no cache 'nowhere'"),
        (["cache", "verify", "--cache", "nowhere"], "there is no cache 'nowhere'"),
        (["cache", "prune", "--cache", "nowhere"], "featx extract makes a cache"),
        (
            ["cache", "export", "photos", "-x", "hog", "--out", "f.h5", "--cache", "nowhere"],
            "no cache 'nowhere'",
        ),
        (["cache", "prune", "--older-than", "-1"], "number of days from 0"),
        (["list", "descriptors", "zebra"], "no name matches 'zebra'"),
        (["list", "backbones", "--source", "nowhere"], "no source of extractors"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line_and_exits_with_2(arguments, message, photos, tmp_path, monkeypatch, capsys):
    from featx.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["featx", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert shown.out == ""
    error = shown.err
    assert error.startswith("featx: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "f.h5").exists()


def test_failed_work_exits_with_1_and_says_so_in_one_line(featx, photos, tmp_path):
    (tmp_path / "bad.featx").write_bytes(b"not a zip")
    done = featx("predict", "bad.featx", "photos")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "bad.featx" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_that_cannot_be_made_is_one_line(featx, photos):
    assert featx("fit", "photos", "-x", "pixels", "--cv", "3", "--out", "m.featx").returncode == 0
    for command in (
        ["extract", "photos", "-x", "pixels"],
        ["fit", "photos", "-x", "pixels", "--cv", "3"],
        ["predict", "m.featx", "photos"],
    ):
        done = featx(*command, "--cache", "/proc/cache", "-q")
        assert done.returncode == 1
        assert done.stderr.startswith("featx: error: cannot write '/proc/cache/")
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""


def test_json_is_the_only_thing_on_standard_output_also_when_verbose(featx, photos):
    done = featx("extract", "photos", "-x", "pixels", "--json", "-vv")
    assert json.loads(done.stdout)["extracted"] == 20
    assert done.stderr != ""


def test_quiet_shows_results_and_nothing_else(featx, photos):
    done = featx("extract", "photos", "-x", "pixels", "-q")
    assert done.stderr == ""
    assert "20 extracted" in done.stdout


@pytest.mark.parametrize("words", [[], ["cache"], ["list"]])
def test_a_command_without_arguments_shows_its_help(words, monkeypatch, capsys):
    from featx.cli import main

    monkeypatch.setattr(sys, "argv", ["featx", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert "\nCommands:\n" in shown.out
    assert shown.err == ""


def test_a_folder_in_the_way_of_the_demo_is_one_line(featx, tmp_path):
    (tmp_path / "file").write_text("")
    done = featx("demo", "--directory", "file")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'file' is a file" in done.stderr


def test_a_file_of_another_kind_is_never_replaced(command, text, photos, tmp_path):
    model = ["fit", photos, "-x", "pixels", "--cv", "2", "--out"]
    export = ["extract", photos, "-x", "pixels", "--export"]
    command(*model, "m.featx")
    table = ["predict", "m.featx", photos, "--out"]
    command(*export, "f.h5")
    command(*table, "p.csv")
    (tmp_path / "data.csv").write_text("path,label\n")
    kinds = {"m.featx": model, "f.h5": export, "p.csv": table}
    for name, arguments in kinds.items():
        command(*arguments, name)  # its own kind is
        for other in {*kinds, "data.csv", "photos/red/0.png"} - {name}:
            before = (tmp_path / other).read_bytes()
            with pytest.raises(
                UsageError, match=f"'{other}' is there, and is no file that this command wrote"
            ):
                text(*arguments, other)
            assert (tmp_path / other).read_bytes() == before


def test_what_is_no_file_is_not_written_to(text, photos, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, what in (("fifo", "no regular file"), ("photos", "a folder")):
        with pytest.raises(UsageError, match=f"cannot write '{name}': it is {what}"):
            text("extract", photos, "-x", "pixels", "--export", name)


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(text, photos, tmp_path):
    with pytest.raises(UsageError, match=r"cannot write '/proc/m\.featx'"):
        text("fit", photos, "-x", "pixels", "--out", "/proc/m.featx")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "photos", "-x", "pixels", "--jobs", "0"],
        ["fit", "photos", "-x", "pixels", "--random-state", "-1"],
        ["fit", "photos", "-x", "pixels", "--random-state", "4294967296"],
        ["extract", "photos", "-x", "pixels", "--workers", "100000"],
        ["predict", "m.featx", "photos", "-x", "pixels", "-x", "hog"],
    ],
)
def test_numbers_out_of_range_and_options_given_twice_are_wrong_use(arguments, featx, photos, command):
    command("fit", photos, "-x", "pixels", "--cv", "2", "--out", "m.featx")
    done = featx(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_long_path_is_shortened_in_every_message(featx, tmp_path):
    (tmp_path / "list.txt").write_text("/".join(["a" * 100] * 50) + "\n")
    done = featx("extract", "list.txt", "-x", "hog")
    assert done.returncode == 1
    remark, error = done.stderr.splitlines()
    assert remark.startswith("left out aaa")
    assert "failed" in error
    for line in (remark, error):
        assert "a...a" in line
        assert max(map(len, line.split())) == 200


def test_more_processes_than_cores_are_not_started():
    from featx.cli.options import processes

    assert processes(5000) == os.cpu_count()
    assert processes(-1) == -1


def test_a_run_in_which_nothing_succeeds_fails_however_small_it_is(text, photos):
    for path in photos.rglob("*.png"):
        path.write_bytes(b"nothing")
    with pytest.raises(ExtractionError, match="20 of 20 samples failed"):
        text("extract", photos, "-x", "pixels")
    text("extract", photos, "-x", "pixels", "--max-error-rate", "1")


def test_an_error_rate_of_nothing_means_none(text, photos, broken):
    text("extract", photos, "-x", "pixels")
    with pytest.raises(ExtractionError, match="1 of 20 samples failed"):
        text("extract", photos, "-x", "pixels", "--max-error-rate", "0")
