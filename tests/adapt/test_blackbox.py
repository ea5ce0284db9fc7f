"""Functions of NumPy arrays: the same maps as of the network in JAX, and what such a function can't do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import adapt
from tests import toy
from tests.marks import quick

NUMPY = toy.params()
PARAMS = toy.on_device(NUMPY)
IMAGES = jnp.asarray(toy.images())
LABELS = [1, 3]


def maps(images: np.ndarray) -> np.ndarray:
    return toy.features(NUMPY, images)[0]


def logits(images: np.ndarray) -> np.ndarray:
    assert isinstance(images, np.ndarray)
    return toy.mlp_head(NUMPY, maps(images), ())


METHODS = {
    "score_cam": functools.partial(sscam.score_cam, chunk_size=4),
    "ss_cam": functools.partial(sscam.ss_cam, key=jax.random.key(0), n_samples=2, chunk_size=4),
    "is_cam": functools.partial(sscam.is_cam, chunk_size=4),
    "rise": functools.partial(sscam.rise, key=jax.random.key(0), n_samples=4, cells=2),
    "occlusion": functools.partial(sscam.occlusion, window=4, stride=4),
    "eigen_cam": sscam.eigen_cam,
}


@pytest.mark.parametrize("name", quick(["score_cam"], METHODS))
def test_methods_that_read_scores(name):
    method = METHODS[name]
    apply, params = adapt.black_box(logits, maps)
    assert apply == adapt.black_box(logits, maps)[0]
    left, right = method(apply, params, IMAGES, LABELS), method(toy.MLP, PARAMS, IMAGES, LABELS)
    for name, a, b in zip(left._fields, left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=name)


def test_vmap_joins_its_axis_with_the_batch():
    apply, params = adapt.black_box(logits, maps)
    together = jax.vmap(lambda image: apply(params, image[None])[0])(IMAGES)
    np.testing.assert_allclose(together, logits(np.asarray(IMAGES)), rtol=1e-5, atol=1e-6)


def test_what_a_black_box_can_not_do():
    apply, params = adapt.black_box(logits, maps)
    with pytest.raises(ValueError, match="a black box has no gradients: use a method without, such as score_cam"):
        sscam.grad_cam(apply, params, IMAGES, LABELS)
    with pytest.raises(Exception, match="a black box has no head to run on changed activations: use score_cam"):
        jax.block_until_ready(sscam.ablation_cam(apply, params, IMAGES, LABELS))


def test_results_in_double_precision():
    """As NumPy makes them of a division by an integer; JAX has float32 only, unless told otherwise."""
    apply, params = adapt.black_box(
        lambda images: logits(images).astype(np.float64), lambda images: images / np.ones(3)
    )
    assert apply.features(params, IMAGES)[0].dtype == apply(params, IMAGES).dtype == jnp.float32
    np.testing.assert_allclose(apply(params, IMAGES), logits(np.asarray(IMAGES)), rtol=1e-5, atol=1e-6)


def test_results_of_another_shape():
    apply, params = adapt.black_box(maps, maps)
    with pytest.raises(
        ValueError, match=r"'maps' gives shape \(1, 4, 5, 6\) for images of .*, expected \[n, classes\]"
    ):
        sscam.score_cam(apply, params, IMAGES, LABELS)


@pytest.fixture
def onnx_session(tmp_path):
    """A convolution, a ReLU, the mean and a dense layer as a file, with the maps as a second output."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(size=(6, 3, 3, 3)), "dense": rng.normal(size=(6, 4))}
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            node("Conv", ["images", "kernel"], ["before"], pads=[1, 1, 1, 1], strides=[2, 2]),
            node("Relu", ["before"], ["maps"]),
            node("GlobalAveragePool", ["maps"], ["pooled"]),
            node("Flatten", ["pooled"], ["flat"]),
            node("MatMul", ["flat", "dense"], ["logits"]),
        ],
        "toy",
        [info("images", onnx.TensorProto.FLOAT, ["n", 3, 8, 10])],
        [
            info("logits", onnx.TensorProto.FLOAT, ["n", 4]),
            info("maps", onnx.TensorProto.FLOAT, ["n", 6, 4, 5]),
        ],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "model.onnx")
    return runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"]), weights


def test_a_session_of_onnx_runtime(onnx_session):
    """The example of docs/targets.md, against the same network in JAX."""
    session, weights = onnx_session

    def session_logits(images):
        return session.run(["logits"], {"images": images.transpose(0, 3, 1, 2)})[0]

    def session_maps(images):
        return session.run(["maps"], {"images": images.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)

    def features(params, images):
        kernel, layouts = params["kernel"].transpose(2, 3, 1, 0), ("NHWC", "HWIO", "NHWC")
        padding = ((1, 1), (1, 1))
        maps = jax.lax.conv_general_dilated(images, kernel, (2, 2), padding, dimension_numbers=layouts)
        return jax.nn.relu(maps), ()

    def head(params, maps, carry):
        return maps.mean((1, 2)) @ params["dense"]

    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)
    images = jax.random.normal(jax.random.key(0), (2, 8, 10, 3))
    left = sscam.score_cam(*adapt.black_box(session_logits, session_maps), images, None)
    right = sscam.score_cam(sscam.Apply(features, head), params, images, None)
    for name, a, b in zip(left._fields, left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=name)
