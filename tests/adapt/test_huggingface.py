"""Flax models of Hugging Face (transformers before 5), with random weights, against gradients made by hand."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import sscam_jax as sscam
from sscam_jax import adapt

transformers = pytest.importorskip("transformers", "4.0", exc_type=ImportError)
if not hasattr(transformers, "FlaxPreTrainedModel"):
    pytest.skip("transformers has had no Flax since 5.0", allow_module_level=True)

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 3)), jnp.float32)


@pytest.fixture(autouse=True)
def as_its_users_run_it():
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        yield


def resnet():
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], num_labels=5)
    return transformers.FlaxResNetForImageClassification(config, input_shape=(1, 32, 32, 3), seed=0)


def vit():
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    return transformers.FlaxViTForImageClassification(config, seed=0)


def by_hand(number, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Activations and gradient of a number at a layer: the gradient at a zero that is added to the layer's output."""
    found = {}

    def with_zero(zero):
        def intercept(method, args, kwargs, context):
            output = method(*args, **kwargs)
            if context.method_name != "__call__" or ".".join(context.module.path) != layer:
                return output
            first, *rest = output if isinstance(output, tuple) else (output,)
            found["activations"] = first
            return (first + zero, *rest) if isinstance(output, tuple) else first + zero

        with nn.intercept_methods(intercept):
            return number(), found["activations"]

    zero = jnp.zeros(jax.eval_shape(lambda: with_zero(0.0)[1]).shape)
    gradient, activations = jax.grad(with_zero, has_aux=True)(zero)
    return np.asarray(activations[0]), np.asarray(gradient[0])


def logit(model, variables, label: int):
    return lambda: model.module.apply(variables, IMAGES, deterministic=True).logits[0, label]


def test_resnet():
    model = resnet()
    layer = "resnet.encoder.stages.1"
    # The call of the model takes channels first and turns them round; its module takes channels last.
    apply, params = adapt.linen(model.module, model.params, layer, logits="logits", deterministic=True)
    activations, gradient = by_hand(logit(model, params, 3), layer)
    expected = np.einsum("c,hwc->hw", gradient.mean((0, 1)), activations)
    raw = sscam.grad_cam(apply, params, IMAGES, [3]).raw[0]
    np.testing.assert_allclose(raw, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_vit():
    model = vit()
    layer = "vit.encoder.layer.0"
    apply, params = adapt.linen(
        model.module, {"params": model.params}, layer, logits="logits", deterministic=True, tokens=1
    )
    activations, gradient = (each[1:].reshape(4, 4, 16) for each in by_hand(logit(model, params, 1), layer))
    expected = np.einsum("c,hwc->hw", gradient.mean((0, 1)), activations)
    raw = sscam.grad_cam(apply, params, IMAGES, [1]).raw[0]
    np.testing.assert_allclose(raw, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_clip():
    """Similarities to two texts: those of the model itself, and their gradients at a block of the image's side."""
    size = dict(hidden_size=16, num_attention_heads=2, intermediate_size=32)
    image_side = dict(size, num_hidden_layers=3, image_size=32, patch_size=8)
    text_side = dict(size, num_hidden_layers=1, vocab_size=50, max_position_embeddings=8)
    config = transformers.CLIPConfig(text_config=text_side, vision_config=image_side, projection_dim=12)
    model = transformers.FlaxCLIPModel(config, input_shape=((1, 8), (1, 32, 32, 3)), seed=0)
    variables, words = {"params": model.params}, jnp.array([[1, 2, 3, 49], [4, 5, 6, 49]])
    texts, scale = model.get_text_features(words), jnp.exp(model.params["logit_scale"])

    def embed(module, pixels, deterministic):
        tokens = module.vision_model(pixel_values=pixels, deterministic=deterministic)
        return module.visual_projection(tokens[1])

    def similarities(embeddings, texts, scale):
        embeddings, texts = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (embeddings, texts))
        return scale * embeddings @ texts.T

    layer = "vision_model.encoder.layers.1"  # the class token reads the patches once more after it
    options = dict(method=embed, deterministic=True)
    target = adapt.target(*adapt.linen(model.module, variables, layer, **options), similarities, texts, scale)
    saliency = sscam.grad_cam(*target, IMAGES, [1])
    own = model(words, pixel_values=IMAGES.transpose(0, 3, 1, 2)).logits_per_image
    np.testing.assert_allclose(saliency.logits, own, rtol=1e-4, atol=1e-5)

    def number():
        return similarities(model.module.apply(variables, IMAGES, **options), texts, scale)[0, 1]

    tokens, gradient = (each[1:].reshape(4, 4, 16) for each in by_hand(number, layer))
    expected = np.einsum("c,hwc->hw", gradient.mean((0, 1)), tokens)
    np.testing.assert_allclose(saliency.raw[0], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("make", "variables"), [(resnet, "model.params"), (vit, '{"params": model.params}')], ids=["resnet", "vit"]
)
def test_the_message_is_the_call_that_works(make, variables):
    """As the tests above write it: with batch normalisation, `params` has the statistics beside the parameters."""
    message = f'use adapt.linen(model.module, {variables}, layer, logits="logits", deterministic=True)'
    with pytest.raises(ValueError, match=re.escape(message)):
        adapt.linen(make(), {}, "resnet")
