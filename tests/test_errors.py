import pytest

from featx import errors
from featx.errors import FeatxError

KINDS = {
    "CacheError": (OSError, 1),
    "DecodeError": (ValueError, 1),
    "ExtractionError": (RuntimeError, 1),
    "FeatxError": (Exception, 1),
    "MissingDependencyError": (ImportError, 2),
    "ModelError": (ValueError, 1),
    "SampleIOError": (OSError, 1),
    "UsageError": (ValueError, 2),
    "WeightsError": (OSError, 1),
}


def test_the_list_is_complete():
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, FeatxError)
    }
    assert defined == set(errors.__all__) == set(KINDS)


@pytest.mark.parametrize(
    ("opening", "exit_code"),
    [
        (FileNotFoundError, 2),
        (NotADirectoryError, 2),
        (IsADirectoryError, 2),
        (PermissionError, 1),
        (OSError, 1),
    ],
)
def test_a_path_that_names_no_file_is_wrong_use(opening, exit_code):
    for kind in (errors.ModelError, errors.WeightsError):
        assert kind("what happened", opening=opening()).exit_code == exit_code
        assert kind("what happened").exit_code == 1


@pytest.mark.parametrize(("name", "builtin", "exit_code"), [(name, *kind) for name, kind in KINDS.items()])
def test_each_error_is_also_the_builtin_and_knows_its_exit_code(name, builtin, exit_code):
    kind = getattr(errors, name)
    with pytest.raises(builtin, match=r"^what happened$") as caught:
        raise kind("what happened")
    assert isinstance(caught.value, FeatxError)
    assert caught.value.exit_code == exit_code


@pytest.mark.parametrize("name", KINDS)
def test_a_message_is_one_line_whatever_it_quotes(name):
    error = getattr(errors, name)("'a\nb' cannot be read:\r\n  why\u2028not")
    assert str(error) == "'a b' cannot be read: why not"
