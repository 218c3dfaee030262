import pytest
from PIL import Image

from featx.cli.demo import _write_digits


def test_the_demo_does_the_whole_job_and_its_second_extraction_computes_nothing(command, tmp_path):
    done = command("demo")
    assert done["extracted_again"] == 0
    extraction, *_, prediction, again = done["results"]
    assert extraction["extracted"] == 400
    assert prediction["scores"]["accuracy"] > 0.9
    assert again["cached"] == 400
    assert all(line.startswith("featx ") for line in done["commands"])
    assert all(line.endswith("--cache featx-demo/cache") for line in done["commands"])
    assert (tmp_path / "featx-demo" / "digits.featx").exists()
    assert (tmp_path / "featx-demo" / "predictions.csv").exists()


def test_a_demo_that_was_interrupted_while_it_wrote_an_image_can_be_run_again(tmp_path, monkeypatch):
    digits, new = tmp_path / "digits", tmp_path / "new"
    real, saved = Image.Image.save, []

    def interrupted(image, path):
        saved.append(path)
        if len(saved) == 30:
            path.write_bytes(b"half an ima")
            raise KeyboardInterrupt
        real(image, path)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _write_digits(digits, new)
    assert len(list(digits.rglob("[!.]*.png"))) == 29
    _write_digits(digits, new)
    written = [*digits.rglob("*.png"), *new.rglob("*.png")]
    assert len(written) == 500
    for path in written:
        with Image.open(path) as image:
            image.load()
