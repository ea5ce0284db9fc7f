"""The head learns what can be learned, and what comes before the cut stays as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sscam_jax import data, networks, training
from sscam_jax.convert import rules
from sscam_jax.training import head, measure


def coloured(label: int, random: np.random.RandomState) -> np.ndarray:
    """A noisy square of one colour per class."""
    colour = np.eye(3)[label] * 200
    return np.clip(colour + random.normal(0, 30, (32, 32, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs() -> data.Source:
    random = np.random.RandomState(0)
    examples = [data.Example(f"{i}", Image.fromarray(coloured(i % 3, random)), label=i % 3) for i in range(30)]
    return data.listed("colours", ("red", "green", "blue"), examples)


@pytest.fixture(scope="module")
def base():
    return networks.init_params("resnet18", jax.random.key(0))


@pytest.fixture(scope="module")
def trained(photographs, base):
    return training.train_head("resnet18", photographs, checkpoint=base, size=32, epochs=25, batch_size=8)


def test_the_head_learns_and_the_rest_stays(photographs, base, trained):
    assert trained.metric == "accuracy" and trained.value == max(trained.history) > 90
    assert trained.classes == ("red", "green", "blue")
    assert set(trained.head) == {"fc.kernel", "fc.bias"}
    before, after = rules.flatten(base), rules.flatten(trained.params)
    assert before.keys() == after.keys()
    for path in before.keys() - set(trained.head):
        np.testing.assert_array_equal(before[path], after[path])
    apply, params = networks.load("resnet18", checkpoint=trained.params, num_classes=3)
    assert training.evaluate_head(apply, params, photographs, size=32) > 90


def test_an_earlier_layer_trains_more():
    apply, params = networks.load(
        "resnet18", layer="layer3", checkpoint=networks.init_params("resnet18", jax.random.key(0))
    )
    activations = jnp.zeros((1, 2, 2, 256))
    paths = head._head_paths(apply, params, activations, ())
    assert {path.partition(".")[0] for path in paths} == {"layer4", "fc"}
    assert not any(path.endswith((".mean", ".var")) for path in paths)


def test_a_saved_head_loads_on_its_base_only(tmp_path, base, trained, monkeypatch):
    file, base_file = tmp_path / "colours.safetensors", tmp_path / "base.safetensors"
    from sscam_jax import convert

    convert.write_checkpoint(
        base_file,
        {path: np.asarray(leaf) for path, leaf in rules.flatten(base).items()},
        metadata={"format": "sscam_jax", "model": "resnet18"},
    )
    networks.save_head(file, trained.params, trained.head, model="resnet18", base=base_file, classes=trained.classes)
    assert file.stat().st_size < 20_000
    _, params = networks.load("resnet18", checkpoint=file)
    jax.tree.map(np.testing.assert_array_equal, params, trained.params)
    with pytest.raises(ValueError, match="is a head of 'resnet18', not of 'squeezenet1_0'"):
        networks.load("squeezenet1_0", checkpoint=file)
    base_file.write_bytes(base_file.read_bytes() + b" ")
    monkeypatch.setenv("SSCAM_HOME", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="belongs to the weights 'base.safetensors' .* put the file into"):
        networks.load("resnet18", checkpoint=file)


def test_several_labels(base):
    """Every image twice, once per class, as VOC lists them."""
    random, examples = np.random.RandomState(1), []
    for i in range(24):
        first, second = i % 3, (i + 1) % 3
        halves = [coloured(first, random)[:16], coloured(second, random)[:16]]
        image = Image.fromarray(np.concatenate(halves))
        examples += [data.Example(f"{i}:{label}", image, label=label) for label in (first, second)]
    source = data.listed("pairs", ("red", "green", "blue"), examples)
    seen = measure.pictures(source)
    assert seen.targets.shape == (24, 3) and (seen.targets.sum(1) == 2).all()
    trained = training.train_head("resnet18", source, checkpoint=base, size=32, epochs=3, multi_label=True)
    assert trained.metric == "mAP" and 0 < trained.value <= 100


@pytest.mark.parametrize(
    ("examples", "classes", "message"),
    [
        ([data.Example("a", b"")], None, "has no list of classes"),
        ([data.Example("a", b"")], ("x",), "example 'a' of letters has no class"),
        ([data.Example("a", b"no image", 0), data.Example("b", b"none", 0)], ("x",), "cannot be read, the first is a"),
    ],
)
def test_refusals(base, examples, classes, message):
    with pytest.raises(ValueError, match=message):
        training.train_head("resnet18", data.listed("letters", classes, examples), checkpoint=base, size=32)


def test_metrics_against_a_plain_loop():
    random = np.random.RandomState(2)
    scores, targets = random.rand(20, 4), random.rand(20, 4) < 0.3
    targets[:, 3] = False  # no positive: it does not count
    values = []
    for c in range(3):
        order, found, precisions = sorted(range(20), key=lambda i: -scores[i, c]), 0, []
        for place, i in enumerate(order, 1):
            if targets[i, c]:
                found += 1
                precisions.append(found / place)
        values.append(np.mean(precisions))
    assert training.mean_average_precision(scores, targets) == pytest.approx(100 * np.mean(values))
