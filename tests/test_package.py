import subprocess
import sys

import pytest

import featx


def test_importing_featx_loads_nothing_heavy():
    code = (
        "import sys, featx; dir(featx); featx.__version__; "
        "print([name for name in ('torch', 'h5py', 'sklearn', 'PIL', 'numpy', 'pyarrow', 'typer') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", featx.__all__)
def test_every_public_name_is_there_and_listed(name):
    assert getattr(featx, name) is not None
    assert name in dir(featx)


def test_a_name_is_that_of_its_home():
    from featx.features import extract

    assert featx.extract is extract
    assert set(featx._HOMES) == set(featx.__all__) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'featx' has no attribute 'extracts'"):
        _ = featx.extracts
