"""Any text, any parameters of an extractor: they identify it, or are refused in one line."""

import runpy
from pathlib import Path

from featx.cache import Hints, fingerprint_of
from featx.engine import identify, read_extractors
from featx.errors import UsageError
from featx.extractors.spec import parse

cases = runpy.run_path(str(Path(__file__).with_name("cases.py")))
NUMBERS, in_one_line = cases["NUMBERS"], cases["in_one_line"]


WORDS = [
    *(
        "hog",
        "lbp",
        "glcm",
        "gabor",
        "pixels",
        "color_histogram",
        "resnet18",
        "timm",
        "descriptor",
        "nowhere",
    ),
    *(":", ":", "=", "=", "+", "/", "%", "%2B", "%3A", "%25", " ", "\n", ",", "."),
    *(
        "size",
        "cell",
        "block",
        "orientations",
        "radii",
        "grid",
        "levels",
        "weights",
        "layer",
        "pool",
        "pixels",
    ),
    *(
        "0",
        "1",
        "2",
        "8",
        "16",
        "64",
        "1024",
        "-1",
        "1e3",
        "0.35",
        "nan",
        "inf",
        "1e999",
        "9" * 5000,
        "\uff11",
    ),
    *(
        "none",
        "/a/b.pth",
        "~/x.pth",
        "~nobody/x.pt",
        "a.safetensors",
        "IMAGENET1K_V1",
        "\0",
        "\udcff",
        "\ud800",
    ),
    *("\x1b[2J", "\u202e", "蜂", "é", "'", '"', "\\", "\t", "\xa0", "\x85"),
]


def some_text(chance):
    if chance.random() < 0.5:  # near to what is meant
        parts = []
        for _ in range(chance.choice([1, 1, 2, 3])):
            keys = chance.choices(WORDS, k=2 * chance.randrange(4))
            pairs = [f":{key}={value}" for key, value in zip(keys[::2], keys[1::2], strict=True)]
            parts.append(chance.choice(WORDS[:10]) + "".join(pairs))
        return "+".join(parts)
    return "".join(chance.choices(WORDS, k=chance.randrange(1, 12)))


def test_any_text_names_extractors_that_are_written_back_or_is_refused_in_one_line(fuzz):
    def one(chance):
        text = some_text(chance)
        try:
            requests = parse(text)
            assert parse("+".join(request.text for request in requests)) == requests
            assert [parse(request.text) for request in requests] == [(request,) for request in requests]
            asked = read_extractors(text)
        except UsageError as error:
            return in_one_line(error)
        assert read_extractors("+".join(request.text for request in asked)) == asked
        return "read"

    outcomes = fuzz(one, 3000)
    assert min(outcomes.values()) > 300


def test_any_parameters_of_a_descriptor_identify_it_or_are_refused_in_one_line(fuzz):
    def one(chance):
        name = chance.choice(["hog", "lbp", "glcm", "gabor", "pixels", "color_histogram"])
        keys = {
            **dict.fromkeys(chance.choices(WORDS, k=chance.choice([0, 0, 0, 1])), "1"),
            **{key: chance.choice(WORDS) for key in chance.choices(list(KEYS), k=chance.randrange(3))},
            **{key: str(chance.choice(NUMBERS)) for key in chance.choices(list(KEYS), k=chance.randrange(3))},
        }
        text = name + "".join(f":{key}={value}" for key, value in keys.items())
        try:
            asked = read_extractors(text)[0]
            spec = identify(asked, device="cpu", precision="float32", hints=Hints(None))
        except UsageError as error:
            return in_one_line(error)
        assert spec.n_features > 0
        assert fingerprint_of(spec.identity) == spec.fingerprint
        return "identified"

    outcomes = fuzz(one, 250)
    assert min(outcomes["identified"], outcomes["UsageError"]) > 20


KEYS = ("size", "cell", "block", "orientations", "radii", "grid", "levels", "hue", "frequency", "scales")
