"""Keras models, with maps made by hand beside them: a model of the layer and the outputs, and `jax.grad`."""

import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import adapt

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")

KEY = jax.random.key(0)
APPLICATIONS = {  # the layer, and the size of the images
    "MobileNetV3Small": ("expanded_conv_10_add", 64),
    "ResNet50": ("conv5_block3_out", 32),
    "EfficientNetV2B0": ("top_activation", 32),
    "ConvNeXtTiny": ("convnext_tiny_stage_3_block_2_identity", 32),
    "VGG16": ("block5_conv3", 32),
    "DenseNet121": ("relu", 32),
    "Xception": ("block14_sepconv2_act", 71),
}
QUICK = ("MobileNetV3Small", "ResNet50")


@pytest.fixture(autouse=True)
def as_its_users_run_it():
    """Keras promotes types and ranks, and warns."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        yield


def pictures(size: int, batch: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(batch, size, size, 3)), jnp.float32)


def small(end: str | None = None) -> "keras.Model":
    """A convolution inside a nested model, a skip around it, and a dense layer."""
    keras.utils.set_random_seed(0)
    inner_inputs = keras.Input((8, 8, 4))
    inner = keras.Model(inner_inputs, keras.layers.Conv2D(4, 3, padding="same", name="conv")(inner_inputs), name="body")
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, padding="same", name="stem")(inputs))
    x = keras.layers.ReLU(name="relu")(keras.layers.Add(name="add")([x, inner(x)]))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(5, activation=end, name="dense")(x), name="small")


def by_hand(model, layer, images, label: int) -> np.ndarray:
    """Grad-CAM of one image: the gradient at a zero that is added to the output of the layer."""
    found = {}

    def logit(zero):
        call = layer.call

        def patched(*args, **kwargs):
            found["activations"] = call(*args, **kwargs)
            return found["activations"] + zero

        vars(layer)["call"] = patched
        try:
            outputs, _ = model.stateless_call(
                [each.value for each in model.trainable_variables],
                [each.value for each in model.non_trainable_variables],
                images,
                training=False,
            )
        finally:
            del vars(layer)["call"]
        return outputs[0, label], found["activations"]

    shape = jax.eval_shape(lambda: logit(0.0)[1]).shape
    gradient, activations = jax.jit(jax.grad(logit, has_aux=True))(jnp.zeros(shape))
    return np.einsum("c,hwc->hw", gradient[0].mean((0, 1)), activations[0])


def agrees(raw: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(raw, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in APPLICATIONS]
)
def test_applications(name):
    layer, size = APPLICATIONS[name]
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=7, classifier_activation=None
    )
    apply, params = adapt.keras(model, layer)
    saliency = sscam.grad_cam(apply, params, pictures(size), [3])
    np.testing.assert_allclose(saliency.logits, model(pictures(size), training=False), rtol=1e-3, atol=1e-4)
    agrees(saliency.raw[0], by_hand(model, model.get_layer(layer), pictures(size), 3))


@pytest.mark.parametrize("layer", ["relu", "body/conv", "norm"])
def test_functional_nested_and_across_a_skip(layer):
    model = small()
    inner = model.get_layer("body").get_layer("conv") if "/" in layer else model.get_layer(layer)
    apply, params = adapt.keras(model, layer)
    agrees(sscam.grad_cam(apply, params, pictures(8), [2]).raw[0], by_hand(model, inner, pictures(8), 2))
    assert "call" not in vars(inner), "the user's model stays as it was"
    assert apply == adapt.keras(model, layer)[0]


def test_score_cam_and_a_file(tmp_path):
    model = small()
    model.save(tmp_path / "small.keras")
    maps = [
        sscam.score_cam(*adapt.keras(each, "relu"), pictures(8, 2), [0, 1], chunk_size=4).maps
        for each in (model, keras.saving.load_model(tmp_path / "small.keras"))
    ]
    assert np.asarray(maps[0]).any()
    np.testing.assert_allclose(*maps, rtol=1e-4, atol=1e-5)


def test_subclassed():
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.stem = keras.layers.Conv2D(4, 3, name="stem")
            self.dense = keras.layers.Dense(5)

        def call(self, x, training=None):
            return self.dense(keras.ops.mean(keras.ops.relu(self.stem(x)), axis=(1, 2)))

    model = Net()
    with pytest.raises(ValueError, match="model 'net' is not built, so it has no weights: call it on images once"):
        adapt.keras(model, "stem")
    model(pictures(8))
    saliency = sscam.grad_cam(*adapt.keras(model, "stem"), pictures(8), [2])
    agrees(saliency.raw[0], by_hand(model, model.stem, pictures(8), 2))


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
def test_probabilities_are_refused_and_the_remedy_is_exact(end):
    model = small(end)
    with pytest.raises(ValueError, match=f"model 'small' ends in a {end}, in layer 'dense', .*: set its attribute"):
        adapt.keras(model, "relu")
    model.get_layer("dense").activation = keras.activations.linear
    apply, params = adapt.keras(model, "relu")
    np.testing.assert_allclose(apply(params, pictures(8)), small()(pictures(8), training=False), rtol=1e-4, atol=1e-5)


def test_mistakes(monkeypatch):
    with pytest.raises(ValueError, match="layer 'rely' is not a module of small, .*; choose from 'relu'"):
        adapt.keras(small(), "rely")
    shared = keras.layers.Dense(4, name="shared")
    inputs = keras.Input((8, 8, 4))
    model = keras.Sequential([inputs, shared, shared, keras.layers.GlobalAveragePooling2D()])
    images = jnp.ones((1, 8, 8, 4))
    with pytest.raises(ValueError, match="layer 'shared' runs 2 times in one pass"):
        sscam.grad_cam(*adapt.keras(model, "shared"), images, [0])
    with pytest.raises(ValueError, match="adapt.flax_nnx is given a keras.* use adapt.keras"):
        adapt.flax_nnx(model, "shared")
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="backend 'tensorflow', expected 'jax': set .* KERAS_BACKEND=jax before"):
        adapt.keras(small(), "relu")
