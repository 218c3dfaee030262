"""A spec.json that somebody else wrote: refused in one line, whatever it is, and repaired away."""

import json
import os


def specs(spec, secret, tmp_path):
    """What may stand in for a spec.json: bytes, or a path to link to."""
    os.mkfifo(tmp_path / "fifo")

    def changed(**changes):
        return json.dumps(spec | changes).encode()

    return {
        "nothing": b"",
        "no JSON": b"\x80\x04" * 100,
        "20 MB of nothing": b" " * (20 << 20) + b"{}",
        "2 million lists": b'{"identity":[' + b"[]," * 2_000_000 + b"[]]}",
        "no bottom": b'{"identity":' + b"[" * 100_000,
        "hardly a bottom": changed(identity={"a": eval("[" * 90 + "]" * 90)}),
        "a number of a million digits": b'{"schema": ' + b"1" * 1_000_000 + b"}",
        "an infinite number": changed(identity={**spec["identity"], "a": 1}).replace(
            b'"a": 1', b'"a": 1e999'
        ),
        "not a number": changed(identity={**spec["identity"], "a": 1}).replace(b'"a": 1', b'"a": NaN'),
        "half a character": changed(identity={**spec["identity"], "name": "\ud800"}),
        "a list": b"[1, 2]",
        "schema in words": changed(schema="1"),
        "no schema": changed(schema=None),
        "a fingerprint that is a list": changed(fingerprint=[spec["fingerprint"]]),
        "an identity in words": changed(identity="pixels"),
        "more than is known": changed(evil="\x1b[2J"),
        "another extractor": changed(fingerprint="f" * 64),
        "a link to the secret": secret,
        "a link to a FIFO": tmp_path / "fifo",
        "a link to what never ends": "/dev/zero",
    }


def test_a_foreign_spec_is_refused_and_repaired_away(cache, pictures, secret, featx, tmp_path, subtests):
    path = cache.folder / "spec.json"
    before = secret.read_bytes()
    hostile = specs(cache.spec, secret, tmp_path)
    for name, content in hostile.items():
        with subtests.test(name):
            path.unlink(missing_ok=True)
            path.write_bytes(content) if isinstance(content, bytes) else path.symlink_to(content)
            may_open = name == "a link to the secret"  # which is looked at as JSON, and that is all
            told = featx(
                "extract", pictures, "-x", "pixels:size=1", "--cache", "cache", code=1, may_open=may_open
            )
            assert "spec.json' is damaged" in told.err
            assert "Run `featx cache verify --repair" in told.err
            if name.startswith("a "):
                featx("cache", "list", "--cache", "cache", may_open=may_open)
            checked = featx("cache", "verify", "--repair", "--cache", "cache", "--json", may_open=may_open)
            [problem] = json.loads(checked.out)["problems"]
            assert problem["path"].endswith("spec.json")
            assert not os.path.lexists(path)
    assert len(hostile) == 20
    assert secret.read_bytes() == before
    done = featx("extract", pictures, "-x", "pixels:size=1", "--cache", "cache", "--json", may_open=True)
    assert json.loads(done.out)["cached"] == 4
