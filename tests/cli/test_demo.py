def test_the_demo_does_the_whole_job_and_its_second_extraction_computes_nothing(command, tmp_path):
    done = command("demo")
    assert done["extracted_again"] == 0
    extraction, *_, prediction, again = done["results"]
    assert extraction["extracted"] == 400
    assert prediction["scores"]["accuracy"] > 0.9
    assert again["cached"] == 400
    assert all(line.startswith("featx ") for line in done["commands"])
    assert (tmp_path / "featx-demo" / "digits.featx").exists()
    assert (tmp_path / "featx-demo" / "predictions.csv").exists()
