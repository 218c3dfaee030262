import pytest
from PIL import Image

from featx.cli.demo import _check_folder, _write_digits
from featx.errors import UsageError


def test_the_demo_does_the_whole_job_and_its_second_extraction_computes_nothing(command, tmp_path):
    done = command("demo")
    assert done["extracted_again"] == 0
    extraction, compared, few_shot, alone, fused, prediction, again = done["results"]
    assert extraction["extracted"] == 200
    assert {(row["extractor"], row["head"]) for row in compared["results"] if row["head"] != "majority"} == {
        (extractor, head)
        for extractor in ("nano", "hog:cell=32", "nano+hog:cell=32")
        for head in ("logreg", "svm")
    }
    assert {row["shots"] for row in few_shot["results"]} == {1, 5}
    assert alone["cv"]["accuracy"]["mean"] > 0.7
    assert fused["cv"]["accuracy"]["mean"] > 0.9
    assert prediction["scores"]["accuracy"] > 0.9
    assert again["cached"] == 200
    assert all(line.startswith("featx ") for line in done["commands"])
    assert all(line.endswith("--cache featx-demo/cache") for line in done["commands"])
    assert (tmp_path / "featx-demo" / "digits.featx").exists()
    assert (tmp_path / "featx-demo" / "predictions.csv").exists()
    assert (tmp_path / "featx-demo" / "run" / "report.html").exists()


def test_a_cache_of_another_name_in_the_folder_is_the_demos_own(tmp_path):
    (tmp_path / "vectors").mkdir()
    _check_folder(tmp_path, tmp_path / "vectors")
    with pytest.raises(UsageError, match="got 'vectors'"):
        _check_folder(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("stranger", ["notes.txt", "digits/cats/1.png", "new/0.png"])
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(command, tmp_path, stranger):
    path = tmp_path / "featx-demo" / stranger
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"is not of a demo: .* got '(notes\.txt|cats|0\.png)'.*--directory"):
        command("demo")
    assert sorted(tmp_path.rglob("*")) == before


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
    assert len([*digits.rglob("[!.]*.png"), *new.rglob("[!.]*.png")]) == 29
    _write_digits(digits, new)
    written = [*digits.rglob("*.png"), *new.rglob("*.png")]
    assert len(written) == 500
    for path in written:
        with Image.open(path) as image:
            image.load()
