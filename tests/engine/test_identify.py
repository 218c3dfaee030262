import importlib.metadata
import json
import shutil
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from featx.cache import Hints
from featx.engine import Progress, identify, read_extractors
from featx.engine.identify import package_versions, rules
from featx.errors import UsageError
from featx.extractors import registry
from featx.extractors.descriptor import DESCRIPTORS
from featx.extractors.module import ModuleExtractor

MODULE = sys.modules["featx.engine.identify"]  # the package exports its function under the same name
RANDOM = "squeezenet1_1:weights=none:size=64"


@pytest.fixture
def resolutions(monkeypatch):
    """Return the list of requests that had to be resolved, as it grows."""
    found = []
    real = registry.find_source
    monkeypatch.setattr(registry, "find_source", lambda asked: found.append(asked.text) or real(asked))
    return found


def test_a_fusion_is_read_from_text_or_list():
    texts = [
        [one.text for one in read_extractors(given)] for given in ("hog+lbp", ["hog", "lbp"], ("hog+lbp",))
    ]
    assert texts == [["hog", "lbp"]] * 3


def test_keywords_become_keys_and_win():
    [one] = read_extractors("resnet50:layer=layer3", layer=["layer3", "layer4"], size=64, pool=None)
    assert one.text == "resnet50:layer=layer3,layer4:size=64"


def test_weights_given_as_a_path_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("./w.pth", "w.pth", str(tmp_path / "w.pth")):
        [one] = read_extractors("resnet50", weights=given)
        assert one.options["weights"] == str(tmp_path / "w.pth")
    [named] = read_extractors("resnet50", weights="IMAGENET1K_V2")
    assert named.options["weights"] == "IMAGENET1K_V2"


@pytest.mark.parametrize(
    ("given", "keys", "message"),
    [
        ([], {}, "expected a text such as 'resnet50'.*got nothing"),
        (3, {}, "got int"),
        (["hog", None], {}, "got NoneType"),
        ("hog+lbp", {"size": 8}, "keywords size go with one extractor's name, got 2 extractors"),
    ],
)
def test_what_is_no_extractor_is_refused(given, keys, message):
    with pytest.raises(UsageError, match=message):
        read_extractors(given, **keys)


def test_an_extractor_named_twice_is_refused(counted):
    other = replace(counted[0].preprocessing, mean=(0.5, 0.5, 0.5))
    namesake = ModuleExtractor(counted[0].module, name="mean", preprocessing=other)
    for given, text in (
        ("hog+lbp+hog", "hog"),
        (["lbp", "hog:cell=8:size=64+lbp", "hog:size=64:cell=8"], "lbp"),
        ([counted[0], counted[0]], "module/mean"),
        ([counted[0], namesake], "module/mean"),
    ):
        with pytest.raises(UsageError, match=f"extractor '{text}' is named twice.*Name it once"):
            read_extractors(given)
    assert len(read_extractors("hog+hog:cell=8")) == 2


def test_a_module_takes_no_keywords(counted):
    with pytest.raises(UsageError, match="or a module"):
        read_extractors(counted[0], pool="max")


def test_an_identity_is_remembered_until_something_it_depends_on_changes(tmp_path, resolutions, monkeypatch):
    [asked] = read_extractors(RANDOM)
    path = tmp_path / "hints.sqlite"

    def found(**changed):
        return identify(asked, **{"device": "cpu", "precision": "float32", "hints": Hints(path)} | changed)

    first = found()
    assert found() == first
    assert len(resolutions) == 1
    assert found(precision="bfloat16").fingerprint != first.fingerprint
    assert len(resolutions) == 2
    monkeypatch.setattr(sys.modules["featx.engine.identify"], "package_versions", lambda: {"torch": "99"})
    assert found() == first
    assert len(resolutions) == 3


def test_what_is_remembered_of_one_extractor_is_no_answer_for_another():
    hints = Hints(None)
    texts = ["hog", "lbp", "hog:cell=8", RANDOM, f"{RANDOM}:layer=features"]
    for _ in range(2):
        specs = [
            identify(read_extractors(text)[0], device="cpu", precision="float32", hints=hints)
            for text in texts
        ]
        assert [spec.text for spec in specs] == [read_extractors(text)[0].text for text in texts]
        assert len({spec.fingerprint for spec in specs}) == len(texts)


def test_what_is_remembered_on_one_device_or_machine_is_no_answer_on_another(monkeypatch):
    hints = Hints(None)
    [asked] = read_extractors(RANDOM)
    monkeypatch.setattr(MODULE, "choose_device", str)  # as if there were a GPU
    for has_amx, expected in ((False, "float32"), (True, "bfloat16")):
        monkeypatch.setattr("featx.engine.hardware.has_amx", lambda has_amx=has_amx: has_amx)
        for device, precision in (("cpu", expected), ("cuda", "float16")):
            assert identify(asked, device=device, precision="auto", hints=hints).precision == precision


@pytest.mark.parametrize("room", ["extractors", "samples"])
def test_a_line_more_in_the_sources_of_featx_is_another_rule(room, tmp_path, monkeypatch):
    for one in ("extractors", "samples"):
        shutil.copytree(Path(MODULE.__file__).parents[1] / one, tmp_path / one)
    monkeypatch.setattr(MODULE, "__file__", str(tmp_path / "engine" / "identify.py"))
    try:
        seen = set()
        for path in [None, *sorted((tmp_path / room).glob("*.py"))]:
            if path is not None:
                path.write_text(f"{path.read_text()}# one line more\n")
            rules.cache_clear()
            seen.add(rules())
        assert len(seen) == 1 + len(list((tmp_path / room).glob("*.py")))
    finally:
        rules.cache_clear()


def test_a_remembered_identity_that_is_none_is_found_anew(tmp_path, resolutions):
    [asked] = read_extractors("hog")

    def found():
        return identify(asked, device="cpu", precision="float32", hints=Hints(tmp_path / "hints.sqlite"))

    right = found()
    values = right.to_json()
    deep = []
    for _ in range(800):
        deep = [deep]
    bad = [
        *({**values, "name": name} for name in (["hog"], None, "\ud800")),
        *({**values, "parameters": parameters} for parameters in (3, {"a": 1e999}, {"a": deep})),
        {**values, "n_features": -1},
        {**values, "precision": "float8"},
        [values],
        {},
    ]
    hints = [{"weights_path": None, "weights_stat": None, "spec": json.dumps(one)} for one in bad]
    hints += [{}, {"weights_path": 3, "weights_stat": None, "spec": "{}"}]
    hints += [{"weights_path": "\0", "weights_stat": [-1], "spec": "["}]
    hints += [{"weights_path": None, "weights_stat": None, "spec": spec} for spec in ([], "[" * 100_000)]
    database = sqlite3.connect(tmp_path / "hints.sqlite")
    [[question]] = database.execute("SELECT spec FROM identities")
    database.close()
    for hint in hints:
        with Hints(tmp_path / "hints.sqlite") as written:
            written.remember_identity(question.decode(), hint)
        before = len(resolutions)
        assert found() == right
        assert len(resolutions) == before + 1


def test_weights_that_change_behind_the_same_name_are_another_identity(tmp_path, resolutions, monkeypatch):
    import torch
    from torchvision.models import squeezenet1_1

    monkeypatch.setattr(MODULE, "_RACY_SECONDS", -60.0)  # as if the files were older than that
    path, hints = tmp_path / "w.pth", Hints(None)
    [asked] = read_extractors("squeezenet1_1:size=64", weights=path)
    fingerprints = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(squeezenet1_1().state_dict(), path)
        fingerprints.append(identify(asked, device="cpu", precision="float32", hints=hints).fingerprint)
        fingerprints.append(identify(asked, device="cpu", precision="float32", hints=hints).fingerprint)
    assert len(set(fingerprints)) == 2
    assert len(resolutions) == 2


def test_an_identity_that_came_with_a_download_is_not_remembered_without_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "_RACY_SECONDS", -60.0)  # as if the files were older than that
    file, hints = tmp_path / "hub.safetensors", Hints(None)

    class Hub:
        """Says where its weights are once they are there, as timm's hub does."""

        def weights_path(self, request):
            return file if file.exists() else None

        def resolve(self, request, *, precision):
            if not file.exists():
                file.write_bytes(b"published")
            spec = registry.load_source("descriptor").resolve(request, precision=precision)
            return replace(spec, weights=file.read_text())

    monkeypatch.setattr(registry, "find_source", lambda asked: Hub())
    [asked] = read_extractors("hog")

    def found():
        return identify(asked, device="cpu", precision="float32", hints=hints).weights

    assert found() == "published"
    file.write_bytes(b"published anew")
    assert found() == "published anew"
    monkeypatch.setattr(registry, "find_source", None)  # from here on it is remembered
    assert found() == "published anew"


def test_weights_that_are_not_there_are_fetched_once_and_told_in_mebibytes(tmp_path, monkeypatch):
    file, fetched, told = tmp_path / "weights.pth", [], []

    class Zoo:
        """Knows where its weights will be, and brings them there, as torchvision's source does."""

        def weights_path(self, request):
            return file

        def fetch(self, request, *, progress):
            fetched.append(request.name)
            progress(3 << 20, 12 << 20)
            file.touch()

        def resolve(self, request, *, precision):
            return registry.load_source("descriptor").resolve(request, precision=precision)

    monkeypatch.setattr(registry, "find_source", lambda asked: Zoo())
    for text in ("hog", "hog:cell=32"):
        [asked] = read_extractors(text)
        identify(asked, device="cpu", precision="float32", hints=Hints(None), progress=told.append)
    assert fetched == ["hog"]
    assert told == [Progress(3, 12, 0, work="downloading")]


def test_a_descriptor_is_float32_on_the_cpu_whatever_is_asked():
    [asked] = read_extractors("pixels")
    specs = {
        identify(asked, device=device, precision=precision, hints=Hints(None)).fingerprint
        for precision in ("auto", "float32", "bfloat16")
        for device in ("cpu", "cuda:63")
    }
    assert len(specs) == 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [({"on_device": True}, "bfloat16"), ({}, "bfloat16"), ({"on_device": False}, "float32")],
    ids=["on the device", "nothing", "not on the device"],
)
def test_a_source_says_itself_whether_precision_concerns_it(monkeypatch, said, expected):
    asked_for = []

    class Acme:
        def weights_path(self, request):
            return None

        def resolve(self, request, *, precision):
            asked_for.append(precision)
            return registry.load_source("descriptor").resolve(request, precision=precision)

    source = type("Source", (Acme,), said)()
    monkeypatch.setattr(registry, "find_source", lambda asked: source)
    [asked] = read_extractors("hog")
    identify(asked, device="cpu", precision="bfloat16", hints=Hints(None))
    assert asked_for == [expected]


def test_versions_cover_every_package_that_offers_extractors(monkeypatch):
    class Point:
        dist = type("Distribution", (), {"name": "pytest"})

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Point])
    package_versions.cache_clear()
    try:
        versions = package_versions()
        assert versions["pytest"] == pytest.__version__
        assert versions["torch"] == importlib.metadata.version("torch")
    finally:
        package_versions.cache_clear()


def test_weights_that_may_still_be_changing_are_digested_each_time(tmp_path, resolutions):
    import torch
    from torchvision.models import squeezenet1_1

    hints = Hints(None)
    torch.save(squeezenet1_1().state_dict(), tmp_path / "w.pth")
    [asked] = read_extractors("squeezenet1_1:size=64", weights=tmp_path / "w.pth")
    for _ in range(2):
        identify(asked, device="cpu", precision="float32", hints=hints)
    assert len(resolutions) == 2


def test_another_rule_of_featx_itself_is_not_answered_from_a_hint(monkeypatch):
    hints = Hints(None)
    [asked] = read_extractors("hog")
    before = identify(asked, device="cpu", precision="float32", hints=hints)
    descriptor = DESCRIPTORS["hog"]
    monkeypatch.setattr(
        "featx.extractors.descriptor_source.DESCRIPTORS",
        {**DESCRIPTORS, "hog": replace(descriptor, version=descriptor.version + 1)},
    )
    monkeypatch.setattr(MODULE, "rules", lambda: "other sources")
    after = identify(asked, device="cpu", precision="float32", hints=hints)
    assert after.fingerprint != before.fingerprint
