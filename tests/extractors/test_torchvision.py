"""torchvision's zoo: which weights and preset a text names, files by name or by path, downloads, layouts of layers."""

import functools
import hashlib
import http.server
import logging
import subprocess
import sys
import threading
import traceback
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from featx.errors import UsageError, WeightsError
from featx.extractors.spec import parse
from featx.extractors.torchvision import TorchvisionSource, _resolve
from featx.extractors.weights import seeded

SMALL = "shufflenet_v2_x0_5"
MEMBER = models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8))

source = TorchvisionSource()


def resolve(text):
    return source.resolve(parse(text)[0], precision="float32")


def load(text):
    return source.load(parse(text)[0], resolve(text))


def features(text):
    backbone = load(text)
    with torch.inference_mode():
        return backbone(torch.from_numpy(backbone.prepare(PHOTO))[None])[0]


@functools.cache
def network(name):
    """Build torchvision's own network with random weights."""
    with seeded():
        return models.get_model(name).eval()


@pytest.fixture
def saved(tmp_path):
    """Save the random weights of an architecture, by default as they are."""

    def save(name=SMALL, change=dict, file="weights.pth"):
        torch.save(change(network(name).state_dict()), tmp_path / file)
        return tmp_path / file

    return save


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Give torch another folder for downloads, an empty one, and no pause before another attempt."""
    monkeypatch.setattr("featx.extractors.download._PAUSE_SECONDS", 0.0)
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield tmp_path / "hub/checkpoints"
    torch.hub.set_dir(before)


def test_the_source_names_what_torchvision_lists():
    assert source.names() == models.list_models(module=models)
    assert "resnet50" in source.names()


def test_a_description_says_weights_and_which_are_on_disk(hub):
    expected = {"weights": ["IMAGENET1K_V1"], "on_disk": []}
    assert source.describe(SMALL) == expected
    hub.mkdir(parents=True)
    (hub / MEMBER.url.rpartition("/")[2]).touch()
    assert source.describe(SMALL) == {**expected, "on_disk": ["IMAGENET1K_V1"]}


@pytest.mark.parametrize(
    ("name", "n_features"),
    [("resnet18", 512), ("squeezenet1_1", 512), ("convnext_tiny", 768), ("vgg11", 25088), ("vit_b_32", 768)],
)
def test_features_are_counted_without_a_forward_pass(name, n_features):
    """Classifiers that begin with a linear layer, a convolution, a norm, and one that takes a flattened map."""
    assert source.count_features(name) == n_features


def test_a_file_is_one_identity_whether_named_or_given_by_path(saved, hub):
    path = saved()
    hub.mkdir(parents=True)
    official = hub / MEMBER.url.rpartition("/")[2]
    official.write_bytes(path.read_bytes())
    by_path = resolve(f"{SMALL}:weights={path}")
    assert by_path.weights == hashlib.sha256(path.read_bytes()).hexdigest()
    for text in (SMALL, f"{SMALL}:weights=DEFAULT", f"{SMALL}:weights=IMAGENET1K_V1"):
        assert resolve(text).fingerprint == by_path.fingerprint
        assert source.weights_path(parse(text)[0]) == official
    assert source.weights_path(parse(f"{SMALL}:weights={path}")[0]) == path
    assert source.weights_path(parse(f"{SMALL}:weights=none")[0]) is None
    assert torch.equal(features(SMALL), features(f"{SMALL}:weights={path}"))


def test_features_are_what_enters_torchvisions_own_classifier(saved):
    found = features(f"{SMALL}:weights={saved()}")
    own = network(SMALL)
    inputs = []
    with torch.inference_mode(), own.fc.register_forward_pre_hook(lambda _, given: inputs.append(given[0])):
        own(MEMBER.transforms()(PHOTO)[None])
    torch.testing.assert_close(found, inputs[0][0], rtol=0, atol=1e-5 * float(inputs[0].abs().max()))


def test_every_member_brings_its_own_preset(hub):
    hub.mkdir(parents=True)
    for member in models.ResNet50_Weights:
        (hub / member.url.rpartition("/")[2]).write_bytes(member.name.encode())
        found = resolve(f"resnet50:weights={member.name}").preprocessing
        transforms = member.transforms()
        assert (found["resize"], found["crop"]) == (transforms.resize_size[0], transforms.crop_size[0])
    assert resolve("resnet50").weights == hashlib.sha256(b"IMAGENET1K_V2").hexdigest()
    assert resolve("resnet50").preprocessing["resize"] == 232


def test_a_path_and_none_take_the_first_members_preset_unless_told(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"any")
    for weights in (path, "none"):
        assert resolve(f"{SMALL}:weights={weights}").preprocessing["resize"] == 256
    assert resolve(f"mobilenet_v2:weights={path}:preset=IMAGENET1K_V2").preprocessing["resize"] == 232
    first, other = (resolve(f"vit_b_32:weights={path}:{keys}") for keys in ("size=224", "size=64"))
    assert (first.preprocessing["crop"], other.preprocessing["crop"]) == (224, 64)
    assert first.n_features == other.n_features == 768


def test_another_size_scales_crop_and_resize():
    found = resolve(f"{SMALL}:weights=none:size=112").preprocessing
    assert (found["resize"], found["crop"]) == (128, 112)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{SMALL}:weights=V9", r"one of IMAGENET1K_V1, DEFAULT, a path ending in \.pth.*got 'V9'"),
        (f"{SMALL}:weights=none:preset=V9", r"expected preset to be one of IMAGENET1K_V1, DEFAULT, got 'V9'"),
        (
            f"{SMALL}:weights=none:colour=red",
            r"expected keys weights, preset, layer.*got 'colour'. Remove it",
        ),
        (f"{SMALL}:weight=none", r"got 'weight'\. Did you mean 'weights'\?$"),
        (f"{SMALL}:weights=none:size=0", r"size in pixels from 1 to 4096, got '0'"),
        (f"{SMALL}:weights=none:size=big", r"size in pixels from 1 to 4096, got 'big'"),
        (f"{SMALL}:weights=none:pixels=raw", r"one of exact, fast, nvjpeg, got 'raw'"),
        (f"{SMALL}:weights=none:pool=median", r"one of avg, max, cls, gem, flatten, got 'median'"),
        (f"{SMALL}:weights=none:layer=stage9", r"has no layer 'stage9'. Did you mean .*stage4"),
        ("vit_b_32:weights=none:size=100", r"does not take images of 100 pixels"),
        ("alexnet:weights=none:size=16", r"does not take images of 16 pixels"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        resolve(text)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_architecture_is_refused(saved):
    path = saved("mnasnet0_5")
    with pytest.raises(WeightsError, match=rf"weights.pth' for {SMALL} does not fit the architecture"):
        load(f"{SMALL}:weights={path}")


def test_a_file_that_changed_after_it_was_identified_is_refused(saved):
    text = f"{SMALL}:weights={saved()}"
    spec = resolve(text)
    saved(change=lambda tensors: {**tensors, "conv1.0.weight": torch.zeros_like(tensors["conv1.0.weight"])})
    with pytest.raises(WeightsError, match=r"changed while featx was using it"):
        source.load(parse(text)[0], spec)


def test_a_classifier_for_other_classes_does_not_matter(saved):
    expected = features(f"{SMALL}:weights={saved()}")

    def finetuned(tensors):
        return {**tensors, "fc.weight": torch.zeros(2, 1024), "fc.bias": torch.zeros(2)}

    assert torch.equal(features(f"{SMALL}:weights={saved(change=finetuned)}"), expected)


def test_a_layer_of_the_classifier_needs_its_weights(saved):
    assert features(f"{SMALL}:weights={saved()}:layer=fc").shape == (1000,)

    def headless(tensors):
        return {name: value for name, value in tensors.items() if not name.startswith("fc.")}

    text = f"{SMALL}:weights={saved(change=headless)}:layer=fc"
    with pytest.raises(WeightsError, match=r"layer fc needs fc\.weight, which '.*' lacks.*Name an earlier"):
        load(text)


def test_auxiliary_classifiers_of_a_published_file_do_not_matter(saved):
    with seeded():
        published = models.googlenet(aux_logits=True, init_weights=False).state_dict()
    path = saved(SMALL, change=lambda _: published)
    found = features(f"googlenet:weights={path}")
    own = models.googlenet(init_weights=False, transform_input=True, aux_logits=True).eval()
    own.load_state_dict(published)
    inputs = []
    with torch.inference_mode(), own.fc.register_forward_pre_hook(lambda _, given: inputs.append(given[0])):
        own(models.GoogLeNet_Weights.IMAGENET1K_V1.transforms()(PHOTO)[None])
    torch.testing.assert_close(found, inputs[0][0], rtol=0, atol=1e-5 * float(inputs[0].abs().max()))


def test_densenets_published_names_are_read(saved):
    def published(tensors):
        renamed = {}
        for name, value in tensors.items():
            for kind in ("norm", "conv"):
                for number in ("1", "2"):
                    name = (
                        name.replace(f".{kind}{number}.", f".{kind}.{number}.")
                        if "denselayer" in name
                        else name
                    )
            renamed[name] = value
        assert "features.denseblock1.denselayer1.norm.1.weight" in renamed
        return renamed

    expected = features(f"densenet121:weights={saved('densenet121')}:size=64")
    assert torch.equal(features(f"densenet121:weights={saved('densenet121', published)}:size=64"), expected)


def test_random_weights_are_said_loudly_and_are_the_same_in_every_process(caplog):
    text = f"{SMALL}:weights=none"
    with caplog.at_level(logging.WARNING):
        fingerprint = resolve(text).fingerprint
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "RANDOM" in caplog.text
    script = (
        "import torch; torch.manual_seed(99)\n"
        "from featx.extractors.spec import parse\n"
        "from featx.extractors.torchvision import TorchvisionSource\n"
        f"print(TorchvisionSource().resolve(parse('{text}')[0], precision='float32').fingerprint)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == fingerprint


def test_random_weights_that_come_out_otherwise_than_identified_are_not_loaded():
    text = f"{SMALL}:weights=none"
    spec = replace(resolve(text), weights=resolve("mnasnet0_5:weights=none").weights)
    with pytest.raises(WeightsError, match=rf"random weights of {text} are not those that were identified"):
        source.load(parse(text)[0], spec)


def test_random_weights_leave_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    load(f"{SMALL}:weights=none")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_download_that_fails_says_where_the_file_belongs(hub, monkeypatch):
    monkeypatch.setattr(MEMBER.value, "url", "http://127.0.0.1:9/small-f707e7126e.pth")
    with pytest.raises(
        WeightsError, match=r"could not be downloaded from http://127.*Connection refused.*weights=PATH"
    ) as caught:
        resolve(SMALL)
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1
    assert f"Put the file at '{hub / 'small-f707e7126e.pth'}'" in str(caught.value)
    assert not list(hub.glob("*"))


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serve a folder on this machine, and let the small network's weights come from there."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def serve(name, content):
        (folder / name).write_bytes(content)
        monkeypatch.setattr(MEMBER.value, "url", f"http://127.0.0.1:{server.server_port}/{name}")

    yield serve
    server.shutdown()
    thread.join()
    server.server_close()


def test_named_weights_are_downloaded_once_and_said(saved, served, hub, caplog):
    path = saved()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    served(f"small-{digest[:8]}.pth", path.read_bytes())
    with caplog.at_level(logging.WARNING):
        assert resolve(SMALL).weights == digest
        assert resolve(SMALL).weights == digest
    assert caplog.text.count("downloading http://127") == 1
    assert [file.name for file in hub.iterdir()] == [f"small-{digest[:8]}.pth"]


def test_weights_are_fetched_only_for_a_request_that_is_otherwise_sound(saved, served, hub):
    content = saved().read_bytes()
    served("small.pth", content)
    told = []
    with pytest.raises(UsageError, match="layer"):
        source.fetch(parse(f"{SMALL}:layer=nowhere")[0], progress=lambda *one: told.append(one))
    assert not told
    source.fetch(parse(SMALL)[0], progress=lambda *one: told.append(one))
    assert told[-1] == (len(content), len(content))
    assert (hub / "small.pth").read_bytes() == content


def test_a_download_of_other_content_than_promised_is_not_kept(saved, served, hub):
    served("small-0123abcd.pth", saved().read_bytes())
    with pytest.raises(WeightsError, match=r"expected a SHA-256 that begins 0123abcd, got"):
        resolve(SMALL)
    assert not list(hub.iterdir())


LAYOUTS = {
    "resnet18": {"layer2": ("maps", 128)},
    "swin_t": {
        "features.0.0": ("maps", 96),
        "features.0": ("maps_last", 96),
        "features.1.0.mlp": ("maps_last", 96),
        "features.3": ("maps_last", 192),
        "norm": ("maps_last", 768),
        "permute": ("maps", 768),
    },
    "swin_v2_t": {"features.5": ("maps_last", 384)},
    "convnext_tiny": {
        "features.1.0.block.0": ("maps", 96),
        "features.1.0.block.3": ("maps_last", 384),
        "features.1.0.block": ("maps", 96),
        "features.2.0.layer_norm": ("maps_last", 96),
        "features.2": ("maps", 192),
    },
    "maxvit_t": {
        "blocks.0": ("maps", 64),
        "blocks.0.layers.0.layers.window_attention.attn_layer.0": ("maps_last", 64),
        "blocks.0.layers.0.layers.window_attention": ("maps", 64),
        "blocks.1.layers.0.layers.grid_attention.mlp_layer.1": ("maps_last", 512),
    },
    "vit_b_32": {"conv_proj": ("maps", 768), "encoder.layers.encoder_layer_3": ("tokens", 768)},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layers_are_pooled_over_places_and_never_over_channels(name):
    planned = _resolve(parse(f"{name}:weights=none:layer={','.join(LAYOUTS[name])}:pool=avg")[0]).layers
    assert {layer.name: (layer.layout, layer.n_features) for layer in planned} == LAYOUTS[name]


def test_a_window_of_swin_is_no_vector_of_an_image():
    with pytest.raises(UsageError, match=r"expected maps .* for 2 images, got a tensor of shape \(288, 96\)"):
        resolve("swin_t:weights=none:layer=features.1.0.attn.features_1_0_attn_qkv_weight")


@pytest.mark.parametrize(("pool", "expected"), [(None, "cls"), ("cls", "cls"), ("avg", "avg")])
def test_tokens_of_a_transformer_give_the_class_token_by_default(pool, expected):
    keys = "" if pool is None else f":pool={pool}"
    spec = resolve(f"vit_b_32:weights=none:size=32:layer=encoder.layers.encoder_layer_0{keys}")
    assert (spec.pool, spec.n_features) == (expected, 768)


def test_the_encoder_itself_gives_tokens_with_the_class_token_first():
    (layer,) = _resolve(parse("vit_b_32:weights=none:size=32:layer=encoder")[0]).layers
    assert (layer.layout, layer.pool, layer.prefix_tokens) == ("tokens", "cls", 1)


def test_patches_before_the_class_token_joins_them_have_none():
    (layer,) = _resolve(parse("vit_b_32:weights=none:size=64:layer=permute")[0]).layers
    assert (layer.layout, layer.pool, layer.prefix_tokens, layer.n_features) == ("tokens", "avg", 0, 768)


def test_several_layers_are_what_torchvisions_own_extractor_gives(saved):
    found = features(f"{SMALL}:weights={saved()}:layer=stage2,stage4:pool=max")
    own = create_feature_extractor(network(SMALL), ["stage2", "stage4"])
    with torch.inference_mode():
        maps = own(MEMBER.transforms()(PHOTO)[None])
    expected = torch.cat([maps["stage2"].amax((2, 3)), maps["stage4"].amax((2, 3))], dim=1)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
