"""Links in a cache that somebody else made: nothing behind them is changed or deleted."""

import os
import shutil

from PIL import Image


def test_a_foreign_cache_deletes_nothing_behind_its_links(cache, pictures, featx, tmp_path, subtests):
    home = tmp_path / "home"
    for folder in (home, home / "tmp", home / "shards"):
        folder.mkdir()
        for name in ("thesis.tex", "turn", f"{'a' * 64}.h5"):
            (folder / name).write_text("years of work")
            os.utime(folder / name, (1e9, 1e9))
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    for part, target in (
        (".", home),
        ("tmp", home),
        ("shards", home),
        ("spec.json", home / "thesis.tex"),
        ("turn", home / "thesis.tex"),
        (f"shards/{'a' * 64}.h5", home / "thesis.tex"),
    ):
        with subtests.test(part):
            root = tmp_path / "copies" / part.replace("/", " ")
            shutil.copytree(cache.root, root)
            linked = root / cache.folder.name / part
            if linked.is_dir():
                shutil.rmtree(linked)
            else:
                linked.unlink(missing_ok=True)
            linked.symlink_to(target)
            Image.new("RGB", (2, 2), (9, 9, len(part))).save(pictures / "new.png")
            for command in (
                ["extract", pictures, "-x", "pixels:size=1"],
                ["cache", "verify", "--repair"],
                ["cache", "prune"],
                ["cache", "prune", "--older-than", "0"],
            ):
                featx(*command, "--cache", root, code=None)
            assert {path: path.read_bytes() for path in before if path.exists()} == before
