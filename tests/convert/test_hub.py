"""Repositories of the Hugging Face Hub, by its own client, from a server in this process."""

import hashlib
import http.server
import json
import pathlib
import threading

import jax
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import convert, networks
from sscam_jax.convert import hub, rules
from sscam_jax.networks import network as shared
from sscam_jax.networks import registry
from tests.golden.random_tensors import weight
from tests.networks import test_torchvision_networks as mobilenets

constants = pytest.importorskip("huggingface_hub.constants")
COMMIT, CLASSES = "0" * 40, 3


class Server(http.server.ThreadingHTTPServer):
    """The part of the Hub that a download needs: `files` by /OWNER/NAME/resolve/REVISION/FILE."""

    files: dict[str, bytes]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.server.files.get(self.path)
            repository = any(path.startswith("/".join(self.path.split("/")[:3]) + "/") for path in self.server.files)
            self.send_response(200 if body is not None else 404)
            if body is None:
                self.send_header("X-Error-Code", "EntryNotFound" if repository else "RepoNotFound")
            body = body or b""
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An empty Hub, and an empty cache of its client."""
    with Server(("127.0.0.1", 0), Server.Handler) as server:
        server.files = {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server
        server.shutdown()


def timm_tensors(model: str) -> dict[str, np.ndarray]:
    shapes = rules.torchvision_shapes(convert.RULES[model], shared.template(registry.find(model), CLASSES))
    return {name: weight(name, shape) for name, shape in shapes.items()}


def put(server, tmp_path: pathlib.Path, repository: str, config: dict, tensors: dict | None, **metadata: str) -> None:
    """Publish a repository."""
    server.files[f"/{repository}/resolve/main/config.json"] = json.dumps(config).encode()
    if tensors is not None:
        convert.write_checkpoint(tmp_path / "model.safetensors", tensors, metadata=metadata or None)
        server.files[f"/{repository}/resolve/main/model.safetensors"] = (tmp_path / "model.safetensors").read_bytes()


def test_a_network_of_timm_with_its_own_number_of_classes(server, tmp_path, monkeypatch):
    tensors = timm_tensors("resnet18")
    put(server, tmp_path, "timm/resnet18.x", {"architecture": "resnet18", "num_classes": CLASSES}, tensors)
    apply, params = sscam.load("timm/resnet18.x", layer="layer3")
    expected, theirs = sscam.load("resnet18", layer="layer3", checkpoint=tensors, num_classes=CLASSES)
    assert apply == expected
    with pytest.raises(ValueError, match="num_classes is 10, but 'timm/resnet18.x' has 3 classes"):
        sscam.load("timm/resnet18.x", num_classes=10)
    jax.tree.map(np.testing.assert_array_equal, params, theirs)
    server.files.clear()  # from now on only the cache has it
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    jax.tree.map(np.testing.assert_array_equal, sscam.load("timm/resnet18.x")[1], theirs)


def test_a_mobilenet_under_timms_own_names(server, tmp_path):
    tensors = mobilenets.timm_tensors("mobilenet_v3_small")
    config = {"architecture": "mobilenetv3_small_100", "num_classes": mobilenets.CLASSES}
    put(server, tmp_path, "timm/mobilenetv3_small_100.x", config, tensors)
    apply, params = sscam.load("timm/mobilenetv3_small_100.x")
    expected, theirs = sscam.load("mobilenet_v3_small", checkpoint=tensors, num_classes=mobilenets.CLASSES)
    assert apply == expected
    jax.tree.map(np.testing.assert_array_equal, params, theirs)


def test_a_converted_file_says_its_network(server, tmp_path):
    params = networks.init_params("squeezenet1_1", jax.random.key(0), num_classes=CLASSES)
    flat = {path: np.asarray(leaf) for path, leaf in rules.flatten(params).items()}
    put(server, tmp_path, "me/mine", {"num_classes": CLASSES}, flat, format="sscam_jax", model="squeezenet1_1")
    jax.tree.map(np.testing.assert_array_equal, sscam.load("hf:me/mine")[1], params)


def test_another_normalisation_is_said(server, tmp_path):
    config = {
        "architecture": "resnet18",
        "num_classes": CLASSES,
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    put(server, tmp_path, "timm/half", config, timm_tensors("resnet18"))
    with pytest.warns(UserWarning, match=r"images for 'timm/half' .* sscam.preprocess\(images, mean=\(0.5, 0.5, 0.5\)"):
        sscam.load("timm/half")


def test_refusals(server, tmp_path):
    tensors = {"a": np.ones(2, np.float32)}
    put(server, tmp_path, "timm/other", {"architecture": "regnety_032"}, tensors)
    put(server, tmp_path, "them/torch", {"architectures": ["ResNetForImageClassification"]}, tensors)
    put(server, tmp_path, "timm/pickle", {"architecture": "resnet18"}, None)
    server.files["/timm/pickle/resolve/main/pytorch_model.bin"] = b"never read"
    for name, message in (
        ("timm/other", "the network of 'timm/other' is 'regnety_032', and of timm's networks only 'resnet18', "),
        ("hf:them/torch", r"the network of 'hf:them/torch' is \['ResNetFor.*'\] of transformers, .* adapt.torch takes"),
        ("timm/pickle", "'timm/pickle' has no model.safetensors: only safetensors .* are read, no pickles"),
        ("hf:no/where", "http://127.0.0.1:.* has no repository 'no/where', or it is private"),
        ("hf:name", "'hf:name' is not a repository, expected hf:OWNER/NAME or timm/NAME"),
    ):
        with pytest.raises(convert.CheckpointError, match=message):
            sscam.load(name)
    with pytest.raises(ValueError, match="'timm/other' has its own weights: leave `checkpoint` out"):
        sscam.load("timm/other", checkpoint=tensors)


def test_no_connection(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client tries six times, for half a minute
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    message = "config.json of 'timm/resnet18.x' is not in the cache, and http://127.0.0.1:9 can't be reached: download"
    with pytest.raises(convert.CheckpointError, match=message):
        sscam.load("timm/resnet18.x")


def test_damaged_weights_are_refused(server, tmp_path):
    put(server, tmp_path, "timm/resnet18.x", {"architecture": "resnet18", "num_classes": 3}, timm_tensors("resnet18"))
    weights = hub.fetch_repository("timm/resnet18.x").weights.resolve()
    content = weights.read_bytes()
    weights.chmod(0o600)
    weights.write_bytes(content[:-4] + b"\0\0\0\1")
    with pytest.raises(convert.CheckpointError, match="the weights of 'timm/resnet18.x' have sha256 .*: remove"):
        sscam.load("timm/resnet18.x")
