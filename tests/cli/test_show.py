import pytest

from featx.cli.show import Screen
from featx.engine import Progress


def test_a_value_that_json_does_not_have_is_refused_and_not_written(capsys):
    with pytest.raises(ValueError, match="not JSON compliant"):
        Screen(as_json=True).result({"accuracy": float("nan")}, "")
    assert capsys.readouterr().out == ""


def test_a_note_on_a_result_is_shown_however_quiet_unless_the_result_holds_it(capsys):
    Screen(as_json=False, quiet=True).note("the estimate flatters")
    assert capsys.readouterr().err == "note: the estimate flatters\n"
    Screen(as_json=True).note("the estimate flatters")
    assert capsys.readouterr().err == "note: the estimate flatters\n"
    Screen(as_json=True, quiet=True).note("the estimate flatters")
    assert capsys.readouterr().err == ""


def test_what_opens_a_run_is_said_once_it_is_on_its_way(capsys):
    with Screen(as_json=False).progress("2 classes") as callback:
        assert capsys.readouterr().err == ""
        for done in (1, 2):
            callback(Progress(done, 3, 0))
        assert capsys.readouterr().err == "2 classes\n"
    assert capsys.readouterr().err == ""


def test_what_opens_a_run_is_said_of_one_without_work_and_not_of_one_that_is_refused(capsys):
    with Screen(as_json=False).progress("2 classes"):
        pass
    assert capsys.readouterr().err == "2 classes\n"
    with pytest.raises(ValueError, match="refused"), Screen(as_json=False).progress("2 classes"):
        raise ValueError("refused")
    assert capsys.readouterr().err == ""
