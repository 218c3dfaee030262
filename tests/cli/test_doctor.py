import re


def test_doctor_says_device_precision_versions_and_write_access(command, tmp_path):
    found = command("doctor")
    assert found["precision"] in ("float32", "float16", "bfloat16")
    assert found["runtime"] in found["runtimes"]
    assert found["versions"]["featx"]
    assert found["cache"] == str(tmp_path / "cache")
    assert found["cache_writable"] is True
    assert set(found["sources"]) >= {"descriptor", "torchvision"}


def test_a_cache_that_cannot_be_made_is_not_writable(command, tmp_path):
    (tmp_path / "file").write_text("")
    assert command("doctor", "--cache", tmp_path / "file" / "cache")["cache_writable"] is False
    assert command("doctor", "--cache", tmp_path / "file")["cache_writable"] is False
    assert command("doctor", "--cache", "/proc/featx")["cache_writable"] is False


def test_a_package_that_is_not_there_is_said_to_be_missing(command, text, monkeypatch):
    monkeypatch.setattr("featx.cli.doctor._PACKAGES", ("featx", "no-such-package"))
    assert command("doctor")["versions"]["no-such-package"] is None
    assert re.search(r"^no-such-package +not installed$", text("doctor").out, re.MULTILINE)
