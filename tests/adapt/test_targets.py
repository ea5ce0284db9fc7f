"""Targets that people ask for, each against `jax.grad` of the number that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import adapt

D, CLASSES = 6, 4
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
DRAW = np.random.default_rng(1)
PARAMS = {
    "conv": jnp.asarray(DRAW.normal(size=(3, D)), jnp.float32),
    "dense": jnp.asarray(DRAW.normal(size=(D, CLASSES)), jnp.float32),
    "scale": jnp.float32(3.0),
    "bias": jnp.float32(-1.0),
}
TEXTS = jnp.asarray(DRAW.normal(size=(3, D)), jnp.float32)


def backbone(params, images, tap):
    return tap(jax.nn.relu(images[:, ::2, ::2] @ params["conv"]))


def image_tower(params, images, tap):
    """The image's side of CLIP or SigLIP: an embedding, and the learnt scale and bias of the similarities."""
    embedding = jnp.tanh(backbone(params, images, tap)).mean((1, 2))
    shape = (images.shape[0], 1)
    return {
        "embedding": embedding,
        "scale": jnp.broadcast_to(jnp.exp(params["scale"]), shape),
        "bias": jnp.broadcast_to(params["bias"], shape),
    }


def clip(outputs, texts):
    # A black image has an embedding of zeros here, which has no direction.
    image, texts = (x * jax.lax.rsqrt((x**2).sum(-1, keepdims=True) + 1e-12) for x in (outputs["embedding"], texts))
    return outputs["scale"] * (image @ texts.T)


def siglip(outputs, texts):
    return clip(outputs, texts) + outputs["bias"]


def detector(params, images, tap):
    maps = backbone(params, images, tap)
    return {"cls": {"p4": maps @ params["dense"]}, "box": maps[..., :4]}


def score_of_a_box(outputs, rows, columns, classes):
    return outputs["cls"]["p4"][:, rows, columns, classes]


def segmenter(params, images, tap):
    return backbone(params, images, tap) @ params["dense"]


def where_predicted(outputs):
    """Of each class, the sum of its logits over the places where it is predicted; the places have no gradient."""
    places = jax.nn.one_hot(outputs.argmax(-1), outputs.shape[-1], dtype=outputs.dtype)
    return (outputs * places).sum((1, 2))


def in_a_region(outputs, masks):
    return jnp.einsum("bhwc,nhw->bnc", outputs, masks).reshape(outputs.shape[0], -1)


def classifier(params, images, tap):
    return backbone(params, images, tap).mean((1, 2)) @ params["dense"]


def several(outputs, groups):
    return outputs @ groups.T


def far_from(outputs, goals):
    return -jnp.abs(outputs[:, :1] - goals[None, :])


CASES = {
    "clip": (image_tower, clip, (TEXTS,)),
    "siglip": (image_tower, siglip, (TEXTS,)),
    "box": (detector, score_of_a_box, (jnp.array([1, 3]), jnp.array([2, 0]), jnp.array([0, 3]))),
    "segmentation": (segmenter, where_predicted, ()),
    "region": (segmenter, in_a_region, (jnp.zeros((1, 4, 4)).at[0, 1:3, 2:].set(1.0),)),
    "several labels": (classifier, several, (jnp.asarray([[1.0, 1, 0, 0], [0, 0, 0.5, 0.5]]),)),
    "regression": (classifier, far_from, (jnp.asarray([2.0, -1.0]),)),
}


def by_hand(network, function, arrays, image, label: int) -> np.ndarray:
    """Grad-CAM: the gradient of the number at a zero that is added to the activations."""
    found = {}

    def number(zero):
        def tap(maps):
            found["maps"] = maps
            return maps + zero

        return function(network(PARAMS, image, tap), *arrays)[0, label], found["maps"]

    shape = jax.eval_shape(lambda: number(0.0)[1]).shape
    gradient, activations = jax.grad(number, has_aux=True)(jnp.zeros(shape))
    return np.einsum("c,hwc->hw", gradient[0].mean((0, 1)), activations[0])


@pytest.mark.parametrize("name", CASES)
def test_grad_cam_of_a_target_is_that_of_the_number(name):
    network, function, arrays = CASES[name]
    targeted, params = adapt.target(*adapt.plain(network, PARAMS), function, *arrays)
    saliency = sscam.grad_cam(targeted, params, IMAGES, [1, 0])
    for i, label in enumerate([1, 0]):
        expected = by_hand(network, function, arrays, IMAGES[i : i + 1], label)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(saliency.raw[i], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_siglip_has_independent_probabilities_and_clip_does_not():
    """A softmax over texts is CLIP's probability, a sigmoid of each is SigLIP's: `score=` says which."""
    apply, params = adapt.plain(image_tower, PARAMS)
    pair, pair_params = adapt.target(apply, params, siglip, TEXTS)
    alone, alone_params = adapt.target(apply, params, siglip, TEXTS[:1])
    options = dict(score="sigmoid")
    both = sscam.score_cam(pair, pair_params, IMAGES, [0, 0], **options)
    one = sscam.score_cam(alone, alone_params, IMAGES, [0, 0], **options)
    np.testing.assert_allclose(both.raw, one.raw, rtol=1e-4, atol=1e-6)  # other texts change nothing
    soft = sscam.score_cam(pair, pair_params, IMAGES, [0, 0], score="probability")
    assert both.raw.any() and not np.allclose(soft.raw, both.raw, rtol=1e-2)
