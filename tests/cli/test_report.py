import json
import re

import pytest
from PIL import Image

from featx.errors import UsageError


@pytest.fixture
def run(photos, command):
    command(
        "compare", photos, "-x", "pixels:size=2", "--head", "centroid", "--cv", "2", "--out", "runs/first"
    )
    return "runs/first"


def test_report_writes_a_page_into_the_run_and_says_where(run, command, text, tmp_path):
    page = tmp_path / run / "report.html"
    page.unlink(missing_ok=True)
    assert command("report", run) == {"path": f"{run}/report.html", "notes": []}
    assert page.read_text().startswith("<!doctype html>")
    shown = text("report", run)
    assert shown.out == f"wrote {run}/report.html\n"
    assert shown.err == ""


def test_pictures_that_are_gone_are_told(run, text, photos, tmp_path):
    (tmp_path / photos).rename(tmp_path / "elsewhere")
    shown = text("report", run, "--quiet")  # a note on the page is no remark
    assert shown.out == f"wrote {run}/report.html\n"
    assert re.fullmatch(
        r"note: (\d+) of \1 pictures below '.*' are gone or have changed since the run; .* by name only\n",
        shown.err,
    )


def test_a_picture_that_has_changed_is_not_shown_under_the_old_name(run, command, photos, tmp_path):
    before = (tmp_path / run / "results.json").read_bytes()
    sample = next(iter(json.loads(before)["inspection"]["samples"].values()))
    Image.new("RGB", (20, 20), "white").save(sample["path"], format="PNG")
    note = (
        f"below '{tmp_path / photos}' is gone or has changed since the run; the page shows them by name only"
    )
    found = command("report", run)["notes"]
    assert [one.partition(" pictures ")[2] for one in found] == [note]
    assert found[0].startswith("1 of ")
    assert "its file has changed since the run" in (tmp_path / run / "report.html").read_text()


def test_the_results_are_read_once(run, command, monkeypatch):
    from featx import tracking

    read, folders = tracking.read_run, []
    monkeypatch.setattr(tracking, "read_run", lambda folder: folders.append(str(folder)) or read(folder))
    monkeypatch.setattr("featx.report.page.read_run", tracking.read_run)
    command("report", run)
    assert folders == [run]


def test_the_cache_is_taken_and_not_touched(run, command, text, tmp_path):
    (tmp_path / "file").touch()
    command("report", run, "--cache", str(tmp_path / "file"))
    assert "not used by this one" in " ".join(text("report", "--help").out.replace("\u2502", " ").split())


def test_the_page_names_the_command_that_made_the_run(run, command, tmp_path):
    command("report", run)
    line = json.loads((tmp_path / run / "results.json").read_text())["command"]
    assert line.startswith("featx compare ")
    assert line in (tmp_path / run / "report.html").read_text()


def test_report_loads_neither_torch_nor_h5py(run, featx, tmp_path):
    program = (
        "import sys; sys.argv = ['featx', 'report', sys.argv[1]]\n"
        "from featx.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'h5py', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / run)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the run"),
        ("{", "is not JSON"),
        ("{}", "is no run of featx"),
        ('{"schema": 99, "kind": "compare"}', "newer featx"),
        (
            '{"schema": 1, "kind": "compare"}',
            r"is not as featx writes it: 'data' is missing\. Make the run again\.$",
        ),
        ('{"schema": 1, "kind": "fewshot", "data": 3}', "is not as featx writes it: 'data' has another form"),
    ],
)
def test_what_is_no_run_is_told_in_one_line(command, tmp_path, content, message):
    (tmp_path / "run").mkdir()
    if content is not None:
        (tmp_path / "run" / "results.json").write_text(content)
    with pytest.raises(UsageError, match=message) as raised:
        command("report", "run")
    assert "\n" not in str(raised.value)
    assert "Error" not in str(raised.value)
    assert not (tmp_path / "run" / "report.html").exists()


def test_help_shows_an_example_and_the_common_options(text):
    shown = text("report", "--help").out
    assert "Example: featx report runs/first" in " ".join(shown.split())
    for option in ("--cache", "--json", "--verbose", "--quiet"):
        assert option in shown
