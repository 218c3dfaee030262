import logging

import numpy as np
import pytest
import torch
from PIL import Image

from featx.errors import DecodeError, UsageError
from featx.samples import decode, key_of, read_samples

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (4, 6, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (4, 6), dtype=np.uint8)


class Pictures(torch.utils.data.Dataset):
    """A map-style dataset of a list of items."""

    def __init__(self, items, **attributes):
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def test_images_of_every_form_become_rgb_pixels():
    on_white = COLOUR.copy()
    with_alpha = np.dstack([COLOUR, np.full((4, 6), 255, dtype=np.uint8)])
    with_alpha[0, 0, 3] = 0
    on_white[0, 0] = 255
    grey = np.stack([GREY] * 3, axis=-1)
    cases = [
        (COLOUR, COLOUR),
        (Image.fromarray(COLOUR), COLOUR),
        (torch.from_numpy(COLOUR).permute(2, 0, 1), COLOUR),
        (with_alpha, on_white),
        (Image.fromarray(with_alpha), on_white),
        (GREY, grey),
        (GREY[..., None], grey),
        (Image.fromarray(GREY), grey),
        (torch.from_numpy(GREY)[None], grey),
        (torch.from_numpy(GREY), grey),
        (COLOUR[:, ::-1], COLOUR[:, ::-1]),
    ]
    table = read_samples([image for image, _ in cases])
    for row, (_, expected) in enumerate(cases):
        raw = table.read(row)
        assert raw.dtype == np.uint8
        assert np.array_equal(raw, expected), row
        assert np.array_equal(np.asarray(decode(raw)), expected)


def test_the_same_picture_has_the_same_key_in_every_form():
    forms = [
        COLOUR,
        Image.fromarray(COLOUR),
        torch.from_numpy(COLOUR).permute(2, 0, 1),
        np.asfortranarray(COLOUR),
    ]
    table = read_samples(forms)
    assert len({key_of(table.read(row)) for row in range(len(table))}) == 1


def test_images_in_memory_have_their_positions_as_ids():
    table = read_samples([COLOUR, GREY], labels=["x", "y"])
    assert table.ids.tolist() == ["0", "1"]
    assert table.uri_at(1) == "memory:1"
    assert table.read_with_stat(1)[1] is None
    taken = table.take([1, 0])
    assert taken.ids.tolist() == ["1", "0"]
    assert np.array_equal(taken.read(1), COLOUR)
    assert taken.y.tolist() == ["y", "x"]


def test_one_array_holds_many_images():
    stack = np.stack([COLOUR, COLOUR[::-1]])
    assert np.array_equal(read_samples(stack).read(1), COLOUR[::-1])
    assert np.array_equal(read_samples(np.stack([GREY, GREY + 1])).read(1)[..., 0], GREY + 1)
    assert len(read_samples(torch.from_numpy(stack).permute(0, 3, 1, 2))) == 2


def test_a_pil_image_is_turned_by_its_exif_orientation():
    image = Image.fromarray(COLOUR)
    image.getexif()[0x0112] = 6
    assert np.array_equal(read_samples([image]).read(0), COLOUR.transpose(1, 0, 2)[:, ::-1])


@pytest.mark.parametrize(
    ("item", "got"),
    [
        (torch.zeros(3, 4, 6), "got float32; drop ToTensor and normalisation"),
        (np.zeros((4, 6, 3)), "got float64; drop ToTensor"),
        (np.zeros((4, 6), bool), "got bool"),
        (np.zeros((4, 6, 2), np.uint8), r"got shape \(4, 6, 2\)"),
        (np.zeros((0, 6, 3), np.uint8), r"got shape \(0, 6, 3\)"),
        (torch.zeros(5, 6, 3, dtype=torch.uint8), r"got shape \(5, 6, 3\)"),
        ({"image": COLOUR}, "got dict"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_image_is_refused_at_once_or_row_by_row(item, got):
    with pytest.raises(UsageError, match=got):
        read_samples(Pictures([item]))
    table = read_samples(Pictures([COLOUR, item]))
    with pytest.raises(DecodeError, match=f"item 1: .*{got}"):
        table.read(1)


def test_labels_of_a_dataset_come_from_its_targets_and_class_names(caplog):
    items = [(COLOUR, 1), (GREY, 0)]
    with caplog.at_level(logging.INFO):
        assert read_samples(Pictures(items, targets=[1, 0])).y.tolist() == [1, 0]
        assert read_samples(Pictures(items, labels=np.array([1, 0]))).y.tolist() == [1, 0]
        named = read_samples(Pictures(items, targets=torch.tensor([1, 0]), classes=["ant", "bee"]))
    assert caplog.text == ""
    assert named.y.tolist() == ["bee", "ant"]
    assert named.classes == ["ant", "bee"]


@pytest.mark.parametrize("classes", [["only one"], [("ant",), ("bee",)], None])
def test_class_names_that_do_not_fit_leave_the_numbers(classes):
    assert read_samples(Pictures([(COLOUR, 1)], targets=[1], classes=classes)).y.tolist() == [1]


@pytest.mark.parametrize("label", [1, torch.tensor(1), np.int64(1)])
def test_labels_are_else_collected_from_the_items_and_said(caplog, label):
    with caplog.at_level(logging.INFO):
        table = read_samples(
            Pictures([(COLOUR, label), (GREY, 0)], targets=[1, 2, 3], classes=["ant", "bee"])
        )
    assert table.y.tolist() == ["bee", "ant"]
    assert "collecting labels, one pass over its items" in caplog.text


def test_items_without_a_label_need_no_pass():
    calls = []

    class Counting(Pictures):
        def __getitem__(self, index):
            calls.append(index)
            return super().__getitem__(index)

    assert read_samples(Counting([COLOUR] * 50)).y is None
    assert calls == [0]


@pytest.mark.parametrize("broken", [0, 1])
def test_one_item_that_cannot_be_had_does_not_take_the_others_with_it(broken):
    items = [(COLOUR, 1), (COLOUR, 1)]
    items[broken] = OSError("disk\non fire")
    table = read_samples(Pictures(items))
    assert table.labelled.tolist() == [broken != 0, broken != 1]
    with pytest.raises(DecodeError, match=f"item {broken} cannot be had: OSError: disk on fire"):
        table.read(broken)
    assert np.array_equal(table.read(1 - broken), COLOUR)


def test_an_iterable_dataset_is_refused():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([COLOUR])

    with pytest.raises(UsageError, match="map-style dataset"):
        read_samples(Stream())


def test_a_torchvision_dataset_is_read_with_its_class_names(tmp_path):
    from torchvision.datasets import ImageFolder

    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        Image.fromarray(COLOUR).save(tmp_path / name / "a.png")
    dataset = ImageFolder(tmp_path)
    table = read_samples(dataset)
    assert table.y.tolist() == ["ant", "bee"]
    assert np.array_equal(table.read(0), COLOUR)
    assert read_samples(torch.utils.data.Subset(dataset, [1])).y.tolist() == [1]
