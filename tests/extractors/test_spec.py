"""The text form, read and written back; the identity, and all that must or must not change the fingerprint."""

import hashlib
import json
import pickle
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featx.cache import fingerprint_of
from featx.errors import UsageError
from featx.extractors.spec import ExtractorSpec, Request, parse, path_of

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
KEYS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
VALUES = (
    st.lists(
        st.sampled_from(["%", "%2B", "%3A", "%25", "25", "+", ":", "=", "/"])
        | st.characters(exclude_categories=[]),
        min_size=1,
        max_size=12,
    )
    .map("".join)
    .filter(lambda value: value and value == value.strip())
)
REQUESTS = st.builds(
    Request,
    source=st.none() | NAMES,
    name=NAMES,
    keys=st.dictionaries(KEYS, VALUES, max_size=4).map(lambda keys: tuple(sorted(keys.items()))),
)

SPEC = ExtractorSpec(
    source="torchvision",
    name="resnet18",
    kind="image",
    weights="ab" * 32,
    layer=("layer3", "input:fc"),
    pool="avg,none",
    preprocessing={"resize": 256, "crop": 224, "mean": [0.485, 0.456, 0.406]},
    decode={"version": 1},
    pixels="exact",
    precision="float32",
    parameters={"mode": "ü"},
    n_features=768,
    text="resnet18:layer=layer3",
)

CHANGED = {
    "source": "timm",
    "name": "resnet34",
    "kind": "text",
    "weights": "cd" * 32,
    "layer": ("input:fc", "layer3"),
    "pool": "max,none",
    "preprocessing": {"resize": 232, "crop": 224, "mean": [0.485, 0.456, 0.406]},
    "decode": {"version": 2},
    "pixels": "fast",
    "precision": "bfloat16",
    "parameters": {"mode": "u"},
    "schema": 2,
}
RECORDED_ONLY = {"n_features": 512, "text": "resnet18"}


@given(st.lists(REQUESTS, min_size=1, max_size=3))
def test_what_is_written_is_read_back(requests):
    assert list(parse("+".join(request.text for request in requests))) == requests


def test_a_bare_name_has_neither_source_nor_keys():
    assert parse("resnet50") == (Request(None, "resnet50"),)


def test_a_name_may_carry_its_source_and_a_tag():
    (request,) = parse("timm/vit_small_patch14_dinov2.lvd142m:size=224")
    assert request == Request("timm", "vit_small_patch14_dinov2.lvd142m", (("size", "224"),))


def test_blanks_around_a_plus_are_no_part_of_a_value():
    assert [request.text for request in parse("resnet50:pool=max + hog")] == ["resnet50:pool=max", "hog"]


def test_the_order_of_keys_does_not_matter_and_the_order_of_a_fusion_does():
    assert parse("a:x=1:y=2") == parse("a:y=2:x=1")
    assert parse("a+b") != parse("b+a")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("/data%2B1/a%3Ab.pth", "/data+1/a:b.pth"),
        ("/100%25/50%.pth", "/100%/50%.pth"),
        ("/a%252Bb.pth", "/a%2Bb.pth"),
        ("/a%20b.pth", "/a%20b.pth"),
        ("/a=b.pth", "/a=b.pth"),
        ("/a%2b%3a.pth", "/a+:.pth"),
    ],
)
def test_plus_colon_and_percent_are_escaped_in_values_and_nothing_else_is(written, meant):
    (request,) = parse(f"resnet50:weights={written}")
    assert request.options == {"weights": meant}


@pytest.mark.parametrize(
    "text", ["", "+", "hog+", "/hog", "timm/", "a/b/c", "resnet 50", ".hidden", "resnet50;rm", ":pool=avg"]
)
def test_what_is_no_name_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match=r"expected NAME\[:key=value\].*Write for example") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "resnet18:weights=/a/b+c.pth",
        "resnet18:weights=b+c.safetensors",
        "resnet18:weights=/a+b/c.pt:pool=max",
        "resnet18:weights=/a/b+c+d.pth",
        "timm/vit:weights=/a/b+c.pth+hog",
    ],
)
def test_a_plus_in_a_path_that_is_not_escaped_is_named_with_its_escape(text):
    with pytest.raises(UsageError, match=r"looks like the rest of weights=.*In a path write %2B for '\+'"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "acme/yolo.pt",
        "resnet18:weights=V1+acme/yolo.pt",
        "resnet18:weights=/a/b.pth+acme/yolo.pt",
        "hog+yolo.pt",
    ],
)
def test_a_name_that_looks_like_a_file_is_a_name_where_no_path_breaks_off(text):
    assert parse(text)[-1].name == "yolo.pt"


@pytest.mark.parametrize("pair", ["pool", "pool=", "=avg", ""])
def test_a_pair_that_is_none_is_named(pair):
    with pytest.raises(UsageError, match=rf"expected key=value after ':', got '{pair}'.*%3A for ':'"):
        parse(f"resnet50:{pair}")


def test_a_key_given_twice_is_refused():
    with pytest.raises(UsageError, match=r"key 'pool' is given twice"):
        parse("resnet50:pool=avg:pool=max")


def test_blanks_around_a_pair_are_no_part_of_it():
    (request,) = parse("resnet50 : weights=/a b.pth :pool=max".replace(" :", ":", 1))
    assert request.options == {"weights": "/a b.pth", "pool": "max"}
    assert parse(request.text) == (request,)


def test_a_refusal_is_one_line_whatever_was_written():
    for text in ("a\nb", "a:pool\n", "a:b\nc=1:b\nc=2", "a:weights=/x\ny+b.pth"):
        with pytest.raises(UsageError) as caught:
            parse(text)
        assert "\n" not in str(caught.value)


def test_a_path_is_made_absolute_and_tilde_is_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert path_of("a/b.pth") == tmp_path / "a/b.pth"
    assert path_of("b.safetensors") == tmp_path / "b.safetensors"
    assert path_of("~/b.pth") == tmp_path / "home/b.pth"
    assert path_of("~no-such-user/b.pth") == tmp_path / "~no-such-user/b.pth"


@pytest.mark.parametrize("name", ["", "none", "DEFAULT", "IMAGENET1K_V1", "b.bin"])
def test_what_names_weights_otherwise_is_no_path(name):
    assert path_of(name) is None


def test_the_fingerprint_is_the_sha256_of_canonical_json():
    canonical = (
        '{"decode":{"version":1},"kind":"image","layer":["layer3","input:fc"],"name":"resnet18",'
        '"parameters":{"mode":"ü"},"pixels":"exact","pool":"avg,none","precision":"float32",'
        '"preprocessing":{"crop":224,"mean":[0.485,0.456,0.406],"resize":256},"schema":1,'
        '"source":"torchvision","weights":"' + "ab" * 32 + '"}'
    )
    assert SPEC.fingerprint == hashlib.sha256(canonical.encode()).hexdigest()


def test_the_fingerprint_of_yesterday_is_the_fingerprint_of_today():
    # A change here makes every cache there is useless: raise SCHEMA and say so instead.
    assert SPEC.fingerprint == "835f969ad6623fd7fd7904d059de92e2cbeea18a2deb87dd319b009663910c95"


def test_the_cache_takes_the_same_fingerprint_from_an_identity():
    assert fingerprint_of(SPEC.identity) == SPEC.fingerprint


def test_every_field_is_either_identity_or_only_recorded():
    assert {field.name for field in fields(ExtractorSpec)} == CHANGED.keys() | RECORDED_ONLY.keys()


@pytest.mark.parametrize("field", CHANGED)
def test_a_change_of_this_field_changes_the_fingerprint(field):
    changed = replace(SPEC, **{field: CHANGED[field]})
    assert changed.fingerprint != SPEC.fingerprint
    assert changed.identity[field] != SPEC.identity[field]


@pytest.mark.parametrize("field", RECORDED_ONLY)
def test_a_change_of_this_field_leaves_the_fingerprint_alone(field):
    changed = replace(SPEC, **{field: RECORDED_ONLY[field]})
    assert changed.fingerprint == SPEC.fingerprint
    assert field not in SPEC.identity


def test_a_spec_survives_json_and_pickle():
    copied = ExtractorSpec.from_json(json.loads(json.dumps(SPEC.to_json())))
    assert copied == SPEC
    assert copied.fingerprint == SPEC.fingerprint
    assert pickle.loads(pickle.dumps(SPEC)) == SPEC


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({**SPEC.to_json(), "colour": "red"}, TypeError),
        ({k: v for k, v in SPEC.to_json().items() if k != "layer"}, KeyError),
        ({k: v for k, v in SPEC.to_json().items() if k != "weights"}, KeyError),
        ({**SPEC.to_json(), "name": ["resnet18"]}, TypeError),
        ({**SPEC.to_json(), "n_features": "768"}, TypeError),
        ({**SPEC.to_json(), "n_features": 0}, ValueError),
        ({**SPEC.to_json(), "layer": "layer3"}, TypeError),
        ({**SPEC.to_json(), "layer": [3]}, TypeError),
        ({**SPEC.to_json(), "parameters": None}, TypeError),
        ({**SPEC.to_json(), "precision": "float8"}, ValueError),
    ],
)
def test_a_spec_with_missing_or_unknown_fields_is_not_read(values, error):
    with pytest.raises(error):
        ExtractorSpec.from_json(values)


@pytest.mark.parametrize("pixels", ["gpu", "", None, ["exact"]])
def test_a_spec_of_pixels_that_are_none_is_not_read(pixels):
    with pytest.raises(ValueError, match=r"pixels: expected one of exact, fast, nvjpeg, got"):
        ExtractorSpec.from_json({**SPEC.to_json(), "pixels": pixels})


def test_a_value_that_json_cannot_hold_is_never_hashed_by_its_repr():
    with pytest.raises(TypeError, match="not JSON serializable"):
        _ = replace(SPEC, parameters={"function": len}).fingerprint
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = replace(SPEC, parameters={"scale": float("nan")}).fingerprint


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", "float32"), ("float16", "float16"), ("bfloat16", "float16")]
)
def test_half_precision_is_stored_as_float16(precision, dtype):
    assert replace(SPEC, precision=precision).dtype == dtype
