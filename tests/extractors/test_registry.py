"""Finding a source by name: without importing the others, with close matches, from third parties, never twice."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from featx.errors import UsageError
from featx.extractors import registry
from featx.extractors.spec import parse


def find(text):
    return registry.find_source(parse(text)[0])


def test_a_name_without_source_is_a_descriptor_first_and_then_torchvisions():
    assert find("hog").name == "descriptor"
    assert find("resnet18").name == "torchvision"
    assert find("torchvision/resnet18") is find("resnet18")


def test_the_extra_sources_are_known_without_importing_them():
    assert {"descriptor", "timm", "torchvision"} <= set(registry.source_names())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "resnet5",
            r"^no extractor is called 'resnet5'\. Did you mean resnet50\?$",
        ),
        ("hogg", r"^no extractor is called 'hogg'\. Did you mean hog\?$"),
        ("mobilnet", r"Did you mean mobilenet_v2\?$"),
        ("VGG", r"Did you mean vgg11 or vgg11_bn or vgg13\?$"),
        (
            "torchvision/resnet51",
            r"called 'torchvision/resnet51'\. Did you mean .*torchvision/resnet50 or torchvision/",
        ),
        ("zzzzzzzzz", r"timm's models are written timm/zzzzzzzzz and need: pip install timm$"),
        ("descriptor/zzzzzz", r"called 'descriptor/zzzzzz'\. See: featx list descriptors$"),
        ("torchvision/zzzzzz", r"See: featx list backbones --source torchvision$"),
        ("tim/resnet50", r"no source of extractors is called 'tim'; there are .*Did you mean timm\?"),
        ("zzzzzzz/x", r"no source .* 'zzzzzzz'.*Install the package that offers it"),
    ],
)
def test_an_unknown_name_is_answered_with_what_may_be_meant(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        find(text)
    assert "\n" not in str(caught.value)


@pytest.fixture
def install(tmp_path):
    """Write a package with entry points, as pip would leave it, into a folder for `sys.path`."""

    def installed(name, entry_points, **modules):
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[featx.extractors]\n{entry_points}\n")
        for module, code in modules.items():
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))

    return installed


@pytest.fixture
def python(tmp_path):
    """Run Python in a process that sees what was installed, and return its last line."""

    def ran(code, *arguments):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        return (done.stdout + done.stderr).strip().splitlines()[-1]

    return ran


def test_a_descriptor_is_resolved_without_torch(python):
    answer = python("""
        import sys
        from featx.extractors import registry
        from featx.extractors.spec import parse
        (request,) = parse("hog")
        spec = registry.find_source(request).resolve(request, precision="float32")
        registry.load(request, spec)
        print(spec.name, sorted({"torch", "torchvision", "timm", "h5py"} & set(sys.modules)))
    """)
    assert answer == "hog []"


ACME = """
    import torch
    from torch import nn
    from featx.extractors.backbone import Backbone, backbone_spec
    from featx.extractors.layers import plan_layers, tap
    from featx.extractors.preprocessing import Preprocessing

    PREPROCESSING = Preprocessing(8, 8, mean=(0, 0, 0), std=(1, 1, 1))

    class Source:
        name = "acme"

        def names(self):
            return ["mean_colour"]

        def describe(self, name):
            return {"weights": [], "on_disk": []}

        def count_features(self, name):
            return 3

        def weights_path(self, request):
            return None

        def resolve(self, request, *, precision):
            return backbone_spec(
                request, source=self.name, weights="", layers=self.layers(), preprocessing=PREPROCESSING,
                pixels=None, precision=precision,
            )

        def load(self, request, spec):
            return Backbone(tap(nn.Identity(), self.layers()), spec, PREPROCESSING)

        def layers(self):
            return plan_layers(nn.Identity(), name="acme/mean_colour", layers=[], pool=None, crop=8)
"""


def test_a_third_partys_source_is_found_by_its_entry_point_and_extracts(install, python, tmp_path):
    install("acme-featx", "acme = acme_featx:Source", acme_featx=ACME)
    colours = np.random.default_rng(0).integers(0, 256, (4, 3), dtype=np.uint8)
    for number, colour in enumerate(colours):
        Image.new("RGB", (6, 5), tuple(colour.tolist())).save(tmp_path / f"{number}.png")
    answer = python(
        """
        import sys, featx
        paths = [f"{sys.argv[1]}/{number}.png" for number in range(4)]
        X = featx.extract(paths, "acme/mean_colour", precision="float32", device="cpu").X
        print((255 * X).round().astype(int).tolist())
        """,
        tmp_path,
    )
    assert answer == str(colours.tolist())


FIND = """
    import sys
    from featx.errors import FeatxError
    from featx.extractors import registry
    from featx.extractors.spec import parse
    try:
        print(registry.find_source(parse(sys.argv[1])[0]))
    except FeatxError as error:
        print(type(error).__name__, error)
"""


def test_a_missing_package_names_the_extra_that_brings_it(install, python):
    install("acme-featx", "acme = acme_featx:Source [gpu]", acme_featx="import package_that_is_not_there")
    answer = python(FIND, "acme/mean_colour")
    assert answer == (
        "MissingDependencyError source 'acme' of acme-featx cannot be imported (No module named "
        "'package_that_is_not_there'). Try: pip install 'acme-featx[gpu]'"
    )


def test_timm_without_timm_names_the_package(install, python, tmp_path):
    (tmp_path / "timm.py").write_text("raise ModuleNotFoundError(\"No module named 'timm'\", name='timm')")
    answer = python(FIND, "timm/resnet18")
    assert answer.endswith("(No module named 'timm'). Try: pip install timm")


def test_a_source_of_that_name_from_two_packages_is_refused_loudly(install, python):
    install("acme-featx", "hog = acme_featx:Source\ndescriptor = acme_featx:Source", acme_featx=ACME)
    answer = python(FIND, "hog")
    assert answer.startswith("FeatxError two installed packages offer extractors as 'descriptor': ")
    assert "acme_featx:Source" in answer
    assert answer.endswith("Uninstall one of them.")


def test_one_package_that_is_seen_twice_is_one(install, python):
    install("acme-featx", "acme = acme_featx:Source", acme_featx=ACME)
    install("acme-again", "acme = acme_featx:Source")
    assert "Source object" in python(FIND, "acme/mean_colour")
