"""SigLIP of jax-image-models (Flax NNX, scanned blocks, explicit sharding) with texts as targets, random weights."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sscam_jax as sscam
from sscam_jax import adapt

IMAGES = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
WORDS = np.array([[1, 2, 3, 0], [4, 5, 6, 0], [7, 8, 9, 0]], np.int32)
LABEL, WIDTH, GRID = 1, 64, 4


@pytest.fixture
def siglip():
    """The model, under the mesh whose axes it asks for, as its users run it."""
    jimm = pytest.importorskip("jimm.models.siglip")
    axes = ("data", "fsdp", "tensor")
    mesh = jax.make_mesh((1, 1, 1), axes, axis_types=(jax.sharding.AxisType.Explicit,) * 3)
    promotion = jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard")
    with warnings.catch_warnings(), promotion[0], promotion[1], jax.set_mesh(mesh):
        warnings.simplefilter("ignore")
        yield jimm.SigLIP(
            image_resolution=32,
            vision_layers=2,
            vision_hidden_size=WIDTH,
            vision_patch_size=32 // GRID,
            context_length=WORDS.shape[1],
            vocab_size=10,
            text_hidden_size=WIDTH,
            num_text_heads=1,
            num_text_layers=1,
            rngs=nnx.Rngs(0),
        )


def on_the_mesh(array: np.ndarray) -> jax.Array:
    """The model asks its inputs for their mesh."""
    return jax.device_put(array, jax.sharding.PartitionSpec())


def similarities(embeddings, texts, scale, bias):
    # The small number is for a black image, whose embedding may be zero: it is a baseline of Score-CAM.
    embeddings, texts = (x * jax.lax.rsqrt((x**2).sum(-1, keepdims=True) + 1e-12) for x in (embeddings, texts))
    return scale * embeddings @ texts.T + bias


def by_hand(model) -> np.ndarray:
    """Grad-CAM of the model's own similarity, by the gradient at a zero that is added to the last norm's output."""
    found = {}

    class Changed(nnx.Module):
        def __init__(self, inner) -> None:
            self.inner = inner

        def __call__(self, x):
            found["tokens"] = self.inner(x)
            return found["tokens"] + found["zero"]

    def similarity(zero):
        found["zero"] = zero
        # Made inside the gradient's trace: NNX's scan takes no variables from outside of it.
        merged = nnx.merge(graph, jax.tree.unflatten(tree, leaves))
        return merged(on_the_mesh(IMAGES), on_the_mesh(WORDS))[0, LABEL], found["tokens"]

    encoder = model.vision_model.encoder
    encoder.ln_post = Changed(encoder.ln_post)
    graph, state = nnx.split(model)
    leaves, tree = jax.tree.flatten(state)
    gradient, tokens = jax.grad(similarity, has_aux=True)(jnp.zeros((1, GRID**2, WIDTH)))
    gradient, tokens = (np.asarray(each[0]).reshape(GRID, GRID, WIDTH) for each in (gradient, tokens))
    return np.einsum("c,hwc->hw", gradient.mean((0, 1)), tokens)


def test_siglip(siglip):
    """Cut after the last block: all tokens are pooled by an attention that comes after it."""
    images, words = on_the_mesh(IMAGES), on_the_mesh(WORDS)
    texts, scale, bias = siglip.encode_text(words), jnp.exp(siglip.logit_scale[...]), siglip.logit_bias[...]
    apply, params = adapt.flax_nnx(siglip.vision_model, "encoder.ln_post")
    target = adapt.target(apply, params, similarities, texts, scale, bias)
    saliency = sscam.grad_cam(*target, images, [LABEL])
    np.testing.assert_allclose(saliency.logits, siglip(images, words), rtol=1e-4, atol=1e-5)
    expected = by_hand(siglip)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(saliency.raw[0], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    scored = sscam.score_cam(*target, images, [LABEL], score="sigmoid", budget=4)
    assert scored.raw.any() and np.isfinite(scored.raw).all()
