"""Vision transformers against plain PyTorch, their cuts with a carried class token, and both namings of checkpoints."""

import dataclasses
import pathlib
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import sscam_jax as sscam
from sscam_jax import convert, networks, ops
from sscam_jax.convert import rules
from sscam_jax.networks import network as shared
from sscam_jax.networks import registry
from sscam_jax.networks.vit import ViT
from tests import toy
from tests.golden.random_tensors import summary, uniform, weight
from tests.networks.test_networks import every_stage, relative_error

GOLDEN = dict(np.load(pathlib.Path(__file__).parent.parent / "golden/vit.npz"))
CLASSES, LABEL = 7, 3
TINY = ViT(width=24, depth=2, heads=3, patch=4, image=16).network("tiny")
TABLE = convert.RULES["vit_b_16"]
BLOCK = "encoder.layers.encoder_layer_"
CUTS = ("conv_proj", "encoder.dropout", f"{BLOCK}0.ln_1", f"{BLOCK}0", f"{BLOCK}1.ln_1", f"{BLOCK}1")


def timm_name(name: str) -> str:
    """timm's name of torchvision's tensor."""
    for theirs, timms in (
        (r"class_token", "cls_token"),
        (r"encoder\.pos_embedding", "pos_embed"),
        (r"encoder\.dropout", "pos_drop"),
        (r"conv_proj", "patch_embed.proj"),
        (r"encoder\.layers\.encoder_layer_", "blocks."),
        (r"self_attention\.in_proj_", "attn.qkv."),
        (r"self_attention\.out_proj", "attn.proj"),
        (r"mlp\.0", "mlp.fc1"),
        (r"mlp\.3", "mlp.fc2"),
        (r"encoder\.ln\b", "norm"),
        (r"\bln_", "norm"),
        (r"heads\.head", "head"),
    ):
        name = re.sub(theirs, timms, name)
    return name


def names_and_shapes(network: shared.Network = TINY) -> dict[str, tuple[int, ...]]:
    return rules.torchvision_shapes(TABLE, shared.template(network, CLASSES))


def tiny_params(seed: str = ""):
    tensors = {name: weight(seed + name, shape) for name, shape in names_and_shapes().items()}
    params = rules.torchvision_to_flax(tensors, TABLE, shared.template(TINY, CLASSES))
    return jax.tree.map(jnp.asarray, params)


def tiny(layer: str | None = None):
    return shared.cut(TINY, CLASSES, layer), tiny_params()


def images(batch: int, side: int = 16) -> jax.Array:
    return jnp.asarray(uniform("images", (batch, side, side, 3)))


def tokens(state) -> np.ndarray:
    """All tokens [b, n, c] of a state, the class token, where it is there yet, first."""
    maps, carry = state if isinstance(state, tuple) else (state, ())
    patches = np.asarray(maps).reshape(maps.shape[0], -1, maps.shape[-1])
    return np.concatenate([*(np.asarray(part) for part in carry[:1]), patches], axis=1)


@pytest.mark.parametrize(
    ("name", "batch", "rename"), [pytest.param("vit_b_16", 1, str, marks=pytest.mark.slow), ("vit_s_16", 2, timm_name)]
)
def test_every_layer_the_logits_and_grad_cam_equal_pytorchs(name, batch, rename):
    network = registry.find(name)
    tensors = {rename(key): weight(rename(key), shape) for key, shape in names_and_shapes(network).items()}
    apply, params = networks.load(name, checkpoint=tensors, num_classes=CLASSES)
    x = images(batch, 224)
    seen, logits = every_stage(network, CLASSES, params, x)
    assert {rename(stage) for stage in seen} | {"logits"} == {
        key.partition("/")[2] for key in GOLDEN if key.startswith(name) and key != f"{name}/grad_cam"
    }
    for stage, state in seen.items():
        assert relative_error(summary(tokens(state)), GOLDEN[f"{name}/{rename(stage)}"]) <= 2e-6, stage
    assert relative_error(logits, GOLDEN[f"{name}/logits"]) <= 2e-6
    if f"{name}/grad_cam" in GOLDEN:
        saliency = sscam.grad_cam(apply, params, x, [LABEL] * batch)
        assert relative_error(saliency.logits, GOLDEN[f"{name}/logits"]) <= 2e-6
        assert relative_error(saliency.raw, GOLDEN[f"{name}/grad_cam"]) <= 2e-5


@pytest.mark.parametrize(
    ("name", "count", "tensors"),
    [
        ("vit_b_16", 152, {f"{BLOCK}11.self_attention.in_proj_weight": (2304, 768), "class_token": (1, 1, 768)}),
        ("vit_s_16", 152, {"encoder.pos_embedding": (1, 197, 384), f"{BLOCK}0.mlp.0.weight": (1536, 384)}),
    ],
)
def test_names_and_shapes_are_torchvisions(name, count, tensors):
    shapes = names_and_shapes(registry.find(name))
    assert len(shapes) == count
    assert tensors.items() <= shapes.items()
    parameters = sum(np.prod(shape) for shape in shapes.values())
    # torchvision's and timm's own counts, of 1000 classes.
    width = shapes["class_token"][2]
    assert parameters + (1000 - CLASSES) * (width + 1) == {"vit_b_16": 86_567_656, "vit_s_16": 22_050_664}[name]


def test_conversion_is_a_bijection_under_three_namings():
    tensors = {name: weight(name, shape) for name, shape in names_and_shapes().items()}
    older = {re.sub(r"mlp\.([03])", lambda m: f"mlp.linear_{1 + int(m[1]) // 3}", k): v for k, v in tensors.items()}
    timms = {timm_name(name): tensor for name, tensor in tensors.items()}
    assert len(timms) == len(tensors) == len(older) and f"{BLOCK}1.mlp.linear_2.weight" in older
    assert not timms.keys() & tensors.keys()
    for checkpoint in (tensors, older, timms):
        params = rules.torchvision_to_flax(checkpoint, TABLE, shared.template(TINY, CLASSES))
        back = rules.flax_to_torchvision(params, TABLE)
        assert back.keys() == tensors.keys()
        for name, tensor in back.items():
            np.testing.assert_array_equal(tensor, tensors[name])
    with pytest.raises(rules.ConversionError, match=r"filled twice: heads.head.bias by \['heads.head.bias', 'head.bia"):
        rules.torchvision_to_flax(tensors | {"head.bias": np.zeros(CLASSES)}, TABLE, shared.template(TINY, CLASSES))
    del timms["blocks.1.attn.qkv.weight"]
    expected = rf"missing: {BLOCK}1.self_attention.in_proj_weight \(72, 24\)\n  unmatched: fc_norm.bias \(24,\)"
    with pytest.raises(rules.ConversionError, match="2 tensors do not fit") as caught:
        rules.torchvision_to_flax(timms | {"fc_norm.bias": np.zeros(24)}, TABLE, shared.template(TINY, CLASSES))
    assert set(re.split(r"\n  ", str(caught.value))[1:]) == set(re.sub(r"\\", "", expected).split("n  "))


def test_registered_tiny_loads_converts_and_starts_at_random(monkeypatch, tmp_path):
    monkeypatch.setitem(registry.NETWORKS, "tiny", TINY)
    monkeypatch.setitem(convert.RULES, "tiny", TABLE)
    tensors = {timm_name(name): weight(name, shape) for name, shape in names_and_shapes().items()}
    theirs, ours = tmp_path / "theirs.npz", tmp_path / "ours.safetensors"
    convert.write_checkpoint(theirs, tensors)
    networks.convert_checkpoint(theirs, "tiny", ours, num_classes=CLASSES)
    loads = [networks.load("tiny", checkpoint=c, num_classes=CLASSES) for c in (theirs, ours, tensors, tiny_params())]
    for apply, params in loads:
        assert apply == pickle.loads(pickle.dumps(loads[0][0])) and hash(apply) == hash(loads[0][0])
        jax.tree.map(np.testing.assert_array_equal, params, loads[0][1])
    random = networks.init_params("tiny", jax.random.key(0), num_classes=CLASSES)
    logits = jax.jit(loads[0][0])(random, images(2))
    assert 0.1 < float(jnp.std(logits)) < 10


@pytest.mark.parametrize("name", ["vit_b_16", "vit_s_16"])
def test_default_layer_is_the_last_attentions_input(name):
    network = registry.find(name)
    apply, params = shared.cut(network, CLASSES, None), shared.template(network, CLASSES)
    maps, carry = jax.eval_shape(apply.features, params, jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32))
    width = params["class_token"].shape[2]
    assert maps.shape == (2, 14, 14, width)
    assert [part.shape for part in carry] == [(2, 1, width), (2, 197, width)]
    for layer in ("blocks.11.norm1", f"{BLOCK}11.ln_1"):
        assert shared.cut(network, CLASSES, layer) == apply
    for layer in ("blocks.11", f"{BLOCK}11", "blocks", "encoder.layers"):
        assert shared.cut(network, CLASSES, layer) == shared.cut(network, CLASSES, f"{BLOCK}11") != apply
    assert shared.cut(network, CLASSES, "patch_embed.proj") == shared.cut(network, CLASSES, "conv_proj")
    assert shared.cut(network, CLASSES, "pos_drop") == shared.cut(network, CLASSES, "encoder.dropout")
    with pytest.raises(ValueError, match=f"network '{name}' has no layer 'blocks.12'; choose from 'encoder.layers', "):
        shared.cut(network, CLASSES, "blocks.12")


def test_images_of_other_sizes_are_refused():
    network = registry.find("vit_s_16")
    apply, params = shared.cut(network, CLASSES, None), shared.template(network, CLASSES)
    for shape in ((1, 256, 256, 3), (1, 224, 208, 3), (1, 224, 224, 1)):
        with pytest.raises(
            ValueError, match=r"expected \[b, 224, 224, 3\]: 'vit_s_16' has a position embedding for this size only"
        ):
            jax.eval_shape(apply, params, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_known_checkpoints():
    listed = {model.name: model for model in networks.models()}
    assert listed["vit_b_16"].default_checkpoint == "vit_b_16-c867db91"
    assert listed["vit_s_16"].default_checkpoint is None and listed["vit_s_16"].checkpoints == ()
    with pytest.raises(ValueError, match="no checkpoint of 'vit_s_16' is known; give a file or a URL"):
        networks.load("vit_s_16")
    with pytest.raises(
        FileNotFoundError, match="not a file, a URL or a known name; the known names of 'vit_s_16' are none"
    ):
        networks.load("vit_s_16", checkpoint="nowhere")


def test_every_cut_gives_the_same_logits():
    assert shared.stage_names(TINY) == CUTS
    params, x = tiny_params(), images(3)
    reference = jax.jit(tiny()[0])(params, x)
    applies = [tiny(layer)[0] for layer in CUTS]
    for logits in jax.jit(lambda params, x: [apply(params, x) for apply in applies])(params, x):
        np.testing.assert_allclose(logits, reference, rtol=1e-5, atol=1e-5)
    apply = applies[-1]
    assert apply.sections is not None and apply.for_cpu is not None
    np.testing.assert_allclose(toy.in_sections(apply.sections, params, x), reference, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, apply.for_cpu(params), params)


def test_images_do_not_mix():
    apply, params = tiny()
    together = jax.jit(apply)(params, images(3))
    for i in (0, 2):
        alone = jax.jit(apply)(params, images(3)[i : i + 1])
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-5)


def test_batch_may_be_symbolic():
    [b] = export.symbolic_shape("b")
    args = shared.template(TINY, CLASSES), jax.ShapeDtypeStruct((b, 16, 16, 3), jnp.float32)
    [logits] = export.export(jax.jit(tiny()[0]))(*args).out_avals
    assert logits.shape == (b, CLASSES)


def test_gradients_end_at_the_last_attention():
    """Why the default layer is the attention's input: behind it the class token alone is read."""
    params = tiny_params()
    tapped = {layer: tiny(layer)[0] for layer in CUTS}

    @jax.jit
    def gradients(params, x):
        def of(apply):
            maps, carry = apply.features(params, x)
            return jax.grad(lambda maps: apply.head(params, maps, carry)[:, LABEL].sum())(maps)

        return {layer: of(apply) for layer, apply in tapped.items()}

    nonzero = {layer: bool(gradient.any()) for layer, gradient in gradients(params, images(2)).items()}
    assert nonzero == {layer: layer != f"{BLOCK}1" for layer in CUTS}
    assert tiny()[0] == tapped[f"{BLOCK}1.ln_1"]
    saliency = sscam.grad_cam(tapped[f"{BLOCK}1"], params, images(2), [0, 1])
    assert bool(saliency.flat.all()) and not bool(saliency.maps.any())


def test_gradient_based_methods_run():
    apply, params = tiny()
    for method in (sscam.grad_cam, sscam.grad_cam_pp):
        saliency = method(apply, params, images(2), None)
        assert saliency.maps.shape == (2, 16, 16) and saliency.raw.shape == (2, 4, 4)
        assert float(saliency.maps.min()) == 0 and float(saliency.maps.max()) == 1
        np.testing.assert_allclose(saliency.logits, jax.jit(apply)(params, images(2)), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="the head of this network is not affine in the activations"):
        sscam.cam(apply, params, images(2), None)


def test_score_cam_scores_masked_images():
    apply, params = tiny()
    x = images(1)
    saliency = sscam.score_cam(apply, params, x, [LABEL], score="probability", channel_softmax=False, baseline="none")
    activations = jax.jit(apply.features)(params, x)[0]
    masks = ops.unit(ops.resize(jnp.moveaxis(activations[0], -1, 0), (16, 16)))
    probabilities = jax.nn.softmax(jax.jit(apply)(params, x * masks[..., None]))[:, LABEL]
    np.testing.assert_allclose(saliency.weights[0], probabilities, rtol=1e-4, atol=1e-6)
    assert saliency.passes.tolist() == [1 + 24]


@pytest.mark.parametrize("preset", ["paper", pytest.param("algorithm1", marks=pytest.mark.slow)])
def test_ss_cam_runs(preset):
    apply, params = tiny()
    saliency = sscam.ss_cam(apply, params, images(2), [0, 1], key=jax.random.key(0), preset=preset, n_samples=2)
    assert bool(jnp.isfinite(saliency.maps).all() & jnp.isfinite(saliency.weights).all())
    assert saliency.maps.shape == (2, 16, 16) and not bool(saliency.flat.all())


def test_ss_cam_through_the_stem_and_in_half_precision():
    apply, params = tiny()

    def run(apply, **options):
        key = jax.random.key(0)
        return sscam.ss_cam(apply, params, images(1), [LABEL], key=key, n_samples=2, noise="common", **options)

    reference = run(apply)
    without = run(dataclasses.replace(apply, sections=None))
    np.testing.assert_allclose(reference.weights, without.weights, rtol=1e-3, atol=1e-5)
    half = run(apply, precision="bfloat16")
    assert relative_error(half.weights, np.asarray(reference.weights)) < 0.05


def test_vmap_over_parameters_is_an_ensemble():
    apply, _ = tiny()
    members = [tiny_params(), tiny_params("other ")]
    together = jax.jit(jax.vmap(apply, (0, None)))(jax.tree.map(lambda *p: jnp.stack(p), *members), images(2))
    for member, logits in zip(members, together, strict=True):
        np.testing.assert_allclose(jax.jit(apply)(member, images(2)), logits, rtol=1e-4, atol=1e-5)
