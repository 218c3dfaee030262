"""Manifests that somebody else wrote: they may name any file, and show none that is no picture."""

import json
import os

import pytest


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.txt", "m.lst"])
def test_a_manifest_may_name_any_file_and_shows_none(name, secret, pictures, featx, tmp_path):
    fifo = tmp_path / "fifo.png"
    os.mkfifo(fifo)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    paths = ["../../secret", str(secret), "../../../../../../../../etc/passwd", "/dev/zero", str(fifo), "."]
    header = [] if name in ("m.txt", "m.lst") else ["path"]
    (inner / name).write_text("\n".join([*header, *paths, str(pictures / "0.png")]) + "\n")
    for more in (["--json"], []):
        done = featx("extract", inner / name, "-x", "pixels:size=1", "--cache", "cache", *more, may_open=True)
        told = done.err.splitlines()
        assert len(told) == 6
        assert all(line.startswith("left out ") for line in told)
        assert "root:" not in done.out + done.err
        if more:
            reasons = [one["reason"] for one in json.loads(done.out)["failures"]]
            assert reasons[:3] == ["not an image (starts like text)"] * 3
            assert [reason.split("it is ")[1].split(",")[0] for reason in reasons[3:]] == [
                "a device",
                "a FIFO",
                "a folder",
            ]
