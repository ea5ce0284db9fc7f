"""Adapters: plain functions, layouts, targets, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import adapt
from tests import toy

KEY = jax.random.key(3)
PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images())
LABELS = jnp.array([1, 3])
METHODS = {
    "grad_cam": sscam.grad_cam,
    "grad_cam_pp": sscam.grad_cam_pp,
    "score_cam": functools.partial(sscam.score_cam, chunk_size=4),
    "ss_cam": functools.partial(sscam.ss_cam, key=KEY, n_samples=2, chunk_size=4),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def close(left: sscam.Saliency, right: sscam.Saliency, atol: float = 1e-5) -> None:
    for name, a, b in zip(left._fields, left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol, err_msg=name)


def network(params, images, tap):
    """`toy.MLP`, not cut."""
    maps, _ = toy.features(params, images)
    return toy.mlp_head(params, tap(maps), ())


@every_method
def test_a_plain_function_is_its_true_cut(method):
    apply, params = adapt.plain(network, PARAMS)
    assert params is PARAMS
    close(method(apply, params, IMAGES, LABELS), method(toy.MLP, PARAMS, IMAGES, LABELS))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_any_rank(rank):
    images = jnp.asarray(toy.images(rank=rank))
    apply, params = adapt.plain(network, PARAMS)
    close(sscam.grad_cam(apply, params, images, None), sscam.grad_cam(toy.MLP, PARAMS, images, None))


def test_cam_knows_a_head_that_is_affine():
    def linear(params, images, tap):
        return toy.linear_head(params, tap(toy.features(params, images)[0]), ())

    apply, params = adapt.plain(linear, PARAMS)
    close(sscam.cam(apply, params, IMAGES, LABELS), sscam.cam(toy.LINEAR, PARAMS, IMAGES, LABELS))
    with pytest.raises(ValueError, match="not affine"):
        sscam.cam(*adapt.plain(network, PARAMS), IMAGES, LABELS)


def test_it_costs_what_a_true_cut_costs():
    """The passes up to the layer are left out of the head, and the head out of the features."""
    apply, params = adapt.plain(network, PARAMS)

    def flops(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

    jax.config.update("jax_disable_most_optimizations", False)
    activations, carry = apply.features(params, IMAGES)
    for part, arguments in (("features", (params, IMAGES)), ("head", (params, activations, carry))):
        true = (*arguments[:2], ()) if part == "head" else arguments
        assert flops(getattr(apply, part), *arguments) == flops(getattr(toy.MLP, part), *true), part
    assert flops(apply, params, IMAGES) == flops(toy.MLP, params, IMAGES)


def residual(params, images, tap):
    """A network with a skip around the cut, as every transformer has."""
    before, _ = toy.features(params, images)
    maps = before + jnp.tanh(tap(before * 2))
    return toy.mlp_head(params, maps, ())


def residual_features(params, images):
    before, _ = toy.features(params, images)
    return before * 2, before


def residual_head(params, activations, carry):
    return toy.mlp_head(params, carry + jnp.tanh(activations), ())


def test_nothing_before_the_cut_runs_again_where_something_flows_around_it():
    apply, params = adapt.plain(residual, PARAMS)
    true = sscam.Apply(residual_features, residual_head)
    for method in METHODS.values():
        close(method(apply, params, IMAGES, LABELS), method(true, PARAMS, IMAGES, LABELS))
    activations, carry = apply.features(params, IMAGES)
    assert [leaf.size for leaf in jax.tree.leaves(carry)] == [activations.size], "the skip, and nothing else"
    traced = str(jax.make_jaxpr(apply.head)(params, activations, carry))
    assert traced.count("dot_general") == 2, "the hidden and the last layer, not the first"


def test_a_layer_without_influence_is_refused():
    def ignored(params, images, tap):
        tap(toy.features(params, images)[0])
        return network(params, images, lambda maps: maps)

    with pytest.raises(ValueError, match="no output of the network depends on layer 'tap': cut at another"):
        sscam.grad_cam(*adapt.plain(ignored, PARAMS), IMAGES, LABELS)


@pytest.mark.parametrize("end", [jax.nn.softmax, jax.nn.sigmoid, jax.jit(lambda y: jax.nn.softmax(y)[:, ::1])])
def test_probabilities_are_noticed(end):
    def probabilities(params, images, tap):
        return end(network(params, images, tap))

    with pytest.warns(UserWarning, match="the network ends in a (softmax|sigmoid), but methods expect logits"):
        sscam.grad_cam(*adapt.plain(probabilities, PARAMS), IMAGES, LABELS)


def test_adapted_twice_is_compiled_once():
    traces = []

    def counted(params, images, tap):
        traces.append(1)
        return network(params, images, tap)

    for _ in range(2):
        apply, params = adapt.plain(counted, PARAMS)
        sscam.grad_cam(apply, params, IMAGES, LABELS)
        traces.append("call")
    assert traces[-2:] == ["call", "call"] and traces[0] == 1


def test_channels_first():
    def first(params, images, tap):
        maps, _ = toy.features(params, jnp.moveaxis(images, 1, -1))
        return toy.mlp_head(params, jnp.moveaxis(tap(jnp.moveaxis(maps, -1, 1)), 1, -1), ())

    apply, params = adapt.plain(first, PARAMS, channels_first=True)
    for method in (METHODS["grad_cam"], METHODS["score_cam"]):
        # Sums in another order: scaled to [0, 1], small differences of scores show their rounding (5e-5 on JAX 0.12).
        close(method(apply, params, IMAGES, LABELS), method(toy.MLP, PARAMS, IMAGES, LABELS), atol=2e-4)


def tokens(params, images, tap, before=1):
    """`toy.MLP` on tokens; what comes before the patches is their mean, and adds to every logit."""
    maps, _ = toy.features(params, images)
    patches = maps.reshape(maps.shape[0], -1, maps.shape[-1])
    others = jnp.repeat(patches.mean(1, keepdims=True), before, axis=1)
    given = tap(jnp.concatenate([others, patches], axis=1))
    logits = toy.mlp_head(params, given[:, before:].reshape(maps.shape), ())
    return logits + given[:, :before].sum((1, 2))[:, None]


@pytest.mark.parametrize("before", [0, 1, 5])
def test_tokens_on_a_grid_with_the_others_carried(before):
    def features(params, images):
        maps, _ = toy.features(params, images)
        return maps, maps.reshape(maps.shape[0], -1, maps.shape[-1]).mean(1) * before

    def head(params, activations, carry):
        return toy.mlp_head(params, activations, ()) + carry.sum(1, keepdims=True)

    apply, params = adapt.plain(functools.partial(tokens, before=before), PARAMS, tokens=before)
    assert apply.features(params, IMAGES)[0].shape == (2, 4, 5, toy.CHANNELS)
    for method in [METHODS["grad_cam"]] + [METHODS["score_cam"]] * (before == 1):
        close(method(apply, params, IMAGES, LABELS), method(sscam.Apply(features, head), PARAMS, IMAGES, LABELS))


def test_a_grid_of_ones_own():
    wide = jnp.asarray(toy.images())[:, :, :2]

    def network(params, images, tap):  # patches of 1 × 2 pixels
        pairs = images.reshape(*images.shape[:2], -1, 2, 3).mean(3)
        return tap(pairs.reshape(images.shape[0], -1, 3)).mean(1)

    apply, params = adapt.plain(network, PARAMS, tokens=0, grid=(8, 1))
    assert apply.features(params, wide)[0].shape == (2, 8, 1, 3)
    with pytest.raises(
        ValueError, match=r"8 patches, which follow 0 other tokens of 8, do not fill a grid of \(6, 1\)"
    ):
        adapt.plain(network, PARAMS, tokens=0)[0].features(PARAMS, wide)
    with pytest.raises(ValueError, match=r"do not fill a grid of \(8,\) over images of \(8, 2\): set tokens, or grid"):
        adapt.plain(network, PARAMS, tokens=0, grid=(8,))[0].features(PARAMS, wide)


def test_layouts_that_make_no_sense():
    with pytest.raises(ValueError, match="tokens=-1 is negative: it counts the tokens before the patches"):
        adapt.plain(network, PARAMS, tokens=-1)
    with pytest.raises(
        ValueError, match=r"the layer gives shape \(2, 4, 5, 6\); tokens=1, grid=None expect \[b, tokens, c\]"
    ):
        adapt.plain(network, PARAMS, tokens=1)[0].features(PARAMS, IMAGES)


def test_tokens_are_counted_where_only_one_number_fits():
    square = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)
    for before in (0, 1, 5):
        apply, params = adapt.plain(functools.partial(tokens, before=before), PARAMS)
        assert apply.features(params, square)[0].shape == (2, 8, 8, toy.CHANNELS)


def test_tokens_that_can_not_be_counted():
    def many(n):
        return adapt.plain(lambda params, images, tap: tap(images.mean() + jnp.ones((1, n, 6))).mean(1), {})[0]

    images = jnp.ones((1, 12, 12, 3))
    with pytest.raises(ValueError, match=r"10 tokens per image, .* is ambiguous: set tokens= .*, such as tokens=6 "):
        many(10).features({}, images)
    with pytest.raises(ValueError, match=r"60 tokens .* not clear: set tokens= to the number of class and register"):
        many(60).features({}, images)


def outputs_of(make):
    return lambda params, images, tap: make(network(params, images, tap))


@pytest.mark.parametrize(
    ("make", "logits"),
    [
        (lambda y: {"logits": y, "aux": y * 2, "loss": 0.0}, "logits"),
        (lambda y: (y * 2, y), 1),
        (lambda y: [y, None], 0),
        (lambda y: {"cls": {"p4": y, "p5": y * 2}, "box": y}, ("cls", "p4")),
    ],
    ids=["dict", "tuple", "list", "nested"],
)
def test_logits_among_the_outputs(make, logits):
    apply, params = adapt.plain(outputs_of(make), PARAMS, logits=logits)
    close(sscam.grad_cam(apply, params, IMAGES, LABELS), sscam.grad_cam(toy.MLP, PARAMS, IMAGES, LABELS))


@pytest.mark.parametrize(
    ("make", "logits", "message"),
    [
        (lambda y: {"a": y, "b": y}, None, "logits=None is not an array .* outputs, a dict; choose from 'a', 'b'"),
        (lambda y: {"a": y}, "logits", "logits='logits' is not an array .* outputs, a dict; choose from 'a'"),
        (lambda y: (None, y), 0, "logits=0 is not an array .* outputs, a tuple; choose from 1"),
        (lambda y: y, "a", "logits='a' is not an array .* choose from nothing: return an array, or a tuple or dict"),
    ],
)
def test_logits_that_are_not_there(make, logits, message):
    apply, params = adapt.plain(outputs_of(make), PARAMS, logits=logits)
    with pytest.raises(ValueError, match=message):
        sscam.grad_cam(apply, params, IMAGES, LABELS)


def test_a_target_sees_all_outputs():
    def two_scales(params, images, tap):
        logits = network(params, images, tap)
        return {"cls": (logits, logits * 2), "name": None}

    def of_both(outputs):
        return outputs["cls"][1] - outputs["cls"][0]

    apply, params = adapt.target(*adapt.plain(two_scales, PARAMS), of_both)
    expected = sscam.grad_cam(toy.MLP, PARAMS, IMAGES, LABELS)
    np.testing.assert_allclose(sscam.grad_cam(apply, params, IMAGES, LABELS).raw, expected.raw, rtol=1e-4, atol=1e-6)


def scaled(params, images, tap, scale, shift):
    """`toy.MLP` with two more inputs: a factor of the hidden layer's maps, and what is added to the logits."""
    maps = tap(toy.features(params, images)[0]) * scale[:, None, None]
    return toy.mlp_head(params, maps, ()) + shift


def test_several_inputs():
    scale, shift = jnp.linspace(0.5, 2, toy.CHANNELS), jnp.arange(toy.CLASSES, dtype=jnp.float32)
    apply, params = adapt.plain(scaled, PARAMS, inputs=(scale, shift))

    def head(params, activations, carry):
        return toy.mlp_head(params, activations * scale.reshape(1, 1, 1, -1), ()) + shift[None]

    for method in (METHODS["grad_cam"], METHODS["score_cam"]):
        close(
            method(apply, params, IMAGES, LABELS),
            method(sscam.Apply(toy.features, head), PARAMS, IMAGES, LABELS),
        )


def test_an_input_for_each_image():
    shift = jnp.zeros(toy.CLASSES)
    scales = jnp.stack([jnp.linspace(0.5, 2, toy.CHANNELS), jnp.linspace(2, 0.5, toy.CHANNELS)])
    apply, params = adapt.plain(scaled, PARAMS, inputs=(scales[0], shift))

    def one(scale, image, label):
        return sscam.score_cam(apply, params | {"inputs": (scale, shift)}, image[None], label[None], chunk_size=4).maps[
            0
        ]

    together = jax.vmap(one)(scales, IMAGES, LABELS)
    for i in range(2):
        np.testing.assert_allclose(together[i], one(scales[i], IMAGES[i], LABELS[i]), rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(together[1] - one(scales[0], IMAGES[1], LABELS[1])).max()) > 1e-3


def test_the_tap_is_passed_once():
    def never(params, images, tap):
        return network(params, images, lambda maps: maps)

    def twice(params, images, tap):
        return network(params, images, lambda maps: tap(tap(maps)))

    for function, times in ((never, 0), (twice, 2)):
        with pytest.raises(ValueError, match=f"layer 'tap' runs {times} times in one pass of the network: cut at"):
            sscam.grad_cam(*adapt.plain(function, PARAMS), IMAGES, LABELS)


def test_the_cut_is_an_array():
    def nothing(params, images, tap):
        return network(params, images, lambda maps: tap({}) or maps)

    with pytest.raises(ValueError, match="layer 'tap' gives dict, expected an array of maps"):
        sscam.grad_cam(*adapt.plain(nothing, PARAMS), IMAGES, LABELS)


@pytest.mark.parametrize(
    "transform",
    [jax.jit, jax.checkpoint, jax.vmap, lambda f: lambda x: jax.lax.scan(lambda c, x: (c, f(x)), 0, x[None])[1][0]],
    ids=["jit", "remat", "vmap", "scan"],
)
def test_a_cut_inside_a_transformation_is_refused(transform):
    def inside(params, images, tap):
        return network(params, images, lambda maps: transform(tap)(maps))

    with pytest.raises(ValueError, match="layer 'tap' runs inside a transformation of the network .*: cut outside it"):
        sscam.grad_cam(*adapt.plain(inside, PARAMS), IMAGES, LABELS)


def test_settings_without_a_hash():
    """Such a network is equal to itself only, and works."""

    class Unhashable(dict):
        __call__ = staticmethod(network)

    apply, params = adapt.plain(Unhashable(), PARAMS)
    close(sscam.grad_cam(apply, params, IMAGES, LABELS), sscam.grad_cam(toy.MLP, PARAMS, IMAGES, LABELS))
    assert apply == apply and apply != adapt.plain(Unhashable(), PARAMS)[0]


def difference(logits, first, second):
    return logits[:, first] - logits[:, second]


def test_difference_of_two_classes():
    """Its Grad-CAM weights are the difference of the classes' weights, on a built-in network with all its parts."""
    apply, params = adapt.target(toy.MLP, PARAMS, difference, jnp.array([2, 0]), jnp.array([3, 1]))
    weights = [sscam.grad_cam(toy.MLP, PARAMS, IMAGES, [c, c]).weights for c in range(4)]
    for label, (first, second) in enumerate([(2, 3), (0, 1)]):
        saliency = sscam.grad_cam(apply, params, IMAGES, [label, label])
        np.testing.assert_allclose(saliency.weights, weights[first] - weights[second], rtol=1e-4, atol=1e-6)


def single(logits):
    return logits[:, :1]


def two(logits):
    return jnp.concatenate([jnp.zeros_like(logits), logits], axis=1)


def sigmoid(logits, label):
    return jax.nn.sigmoid(logits[label])


def test_a_single_logit_and_several_labels():
    """The two-class form of one logit scores by its sigmoid; so does a score of one's own over many."""
    one, params = adapt.target(toy.MLP, PARAMS, single)
    pair, pair_params = adapt.target(one, params, two)
    ones, zeros = jnp.ones(2, jnp.int32), jnp.zeros(2, jnp.int32)
    logit = one(params, IMAGES)[:, 0]
    np.testing.assert_allclose(jax.nn.softmax(pair(pair_params, IMAGES))[:, 1], jax.nn.sigmoid(logit), rtol=1e-5)
    of_pair = sscam.score_cam(pair, pair_params, IMAGES, ones, chunk_size=4)
    of_many = sscam.score_cam(toy.MLP, PARAMS, IMAGES, zeros, score=sigmoid, chunk_size=4)
    np.testing.assert_allclose(of_pair.weights, of_many.weights, rtol=1e-4, atol=1e-6)
    assert float(of_pair.weights.std()) > 0


def similarity(logits, embeddings):
    unit = functools.partial(jnp.linalg.norm, axis=-1, keepdims=True)
    return (logits / unit(logits)) @ (embeddings / unit(embeddings)).T


@every_method
def test_similarity_to_embeddings(method):
    """What the function takes is traced: other embeddings, the same compilation, the values of a head by hand."""
    traces = []

    def counted(logits, embeddings):
        traces.append(1)
        return similarity(logits, embeddings)

    apply, params = adapt.target(toy.MLP, PARAMS, counted, jnp.eye(toy.CLASSES)[:3])
    method(apply, params, IMAGES, [0, 1])
    before = len(traces)
    others = jnp.asarray(np.random.default_rng(0).normal(size=(3, toy.CLASSES)), jnp.float32)
    saliency = method(apply, params | {"target": (others,)}, IMAGES, [0, 1])
    assert len(traces) == before > 0

    def head(params, activations, carry):
        return similarity(toy.mlp_head(params, activations, carry), others)

    close(saliency, method(sscam.Apply(toy.features, head), PARAMS, IMAGES, [0, 1]))


def segment(params, images, tap):
    """Logits of every pixel of the grid: [b, h, w, classes]."""
    maps = tap(toy.features(params, images)[0])
    return (maps @ params["hidden"]).clip(0) @ params["out"]


def region(outputs, masks):
    return jnp.einsum("bhwc,nhwc->bn", outputs, masks)


@every_method
def test_a_region_of_a_segmentation(method):
    """The sum over a region has a gradient in that region alone; each image may have its own."""
    if isinstance(method, functools.partial):
        method = functools.partial(method, score="logit")  # regions do not exclude one another
    masks = np.zeros((2, 4, 5, toy.CLASSES), np.float32)
    masks[0, :2, :, 1] = 1  # class 1 in the upper half
    masks[1, 2:, 3:, 2] = 1  # class 2 in a corner
    apply, params = adapt.target(*adapt.plain(segment, PARAMS), region, jnp.asarray(masks))
    saliency = method(apply, params, IMAGES, [0, 1])
    assert saliency.logits.shape == (2, 2) and not saliency.flat.all()
    activations, carry = apply.features(params, IMAGES)
    gradient = jax.grad(lambda a: apply.head(params, a, carry)[0, 0])(activations)
    assert not gradient[0, 2:].any() and not gradient[1].any() and gradient[0, :2].any()


def early(params, images):
    return toy.mlp_hidden(params, toy.features(params, images)[0])


def halved(params):
    return params | {"hidden": params["hidden"] * 2, "out": params["out"] / 2}


def test_a_target_keeps_what_makes_a_network_fast():
    apply = sscam.Apply(toy.features, toy.mlp_head, sscam.Sections(early, toy.mlp_out), halved)
    targeted, params = adapt.target(apply, PARAMS, difference, jnp.array([0]), jnp.array([1]))
    expected = difference(toy.MLP(PARAMS, IMAGES), jnp.array([0]), jnp.array([1]))
    quick = targeted.for_cpu(params)
    assert quick["network"]["out"][0, 0] == PARAMS["out"][0, 0] / 2
    rest = toy.in_sections(targeted.sections, params, IMAGES)
    for logits in (targeted(params, IMAGES), targeted(quick, IMAGES), rest):
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    again, _ = adapt.target(apply, PARAMS, difference, jnp.array([2]), jnp.array([3]))
    assert again == targeted and hash(again) == hash(targeted)
    bare, _ = adapt.target(toy.MLP, PARAMS, difference)
    assert bare.sections is None and bare.for_cpu is None
