"""Checkpoints of Orbax: what was saved from a model in training gives the same maps when it is restored."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx

import sscam_jax as sscam
from sscam_jax import adapt

KEY = jax.random.key(0)
IMAGES = jax.random.normal(KEY, (1, 8, 8, 3))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.BatchNorm(not train)(nn.Conv(4, (3, 3))(x)))
        return nn.Dense(3)(x.mean((1, 2)))


class Net(nnx.Module):
    """Twelve layers: Orbax writes the indices of a list as text, in which 10 sorts before 2."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv, self.norm = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(12)])

    def __call__(self, x):
        x = jax.nn.relu(self.norm(self.conv(x)))
        for block in self.blocks:
            x = jnp.tanh(block(x))
        return x.mean((1, 2))


@pytest.fixture
def restored(tmp_path):
    """Save a tree, and read it again as users do: without a target, and into a target."""

    def through_a_file(tree, **options):
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "checkpoint", tree)
            checkpointer.wait_until_finished()
            return checkpointer.restore(tmp_path / "checkpoint", **options)

    return through_a_file


def same_maps(apply, restored, params) -> None:
    expected = sscam.grad_cam(apply, params, IMAGES, [1])
    assert expected.raw.any()
    np.testing.assert_array_equal(sscam.grad_cam(apply, restored, IMAGES, [1]).raw, expected.raw)


def test_linen(restored):
    variables = LinenNet().init(KEY, IMAGES)
    variables["batch_stats"] = jax.tree.map(lambda leaf: leaf + 0.5, variables["batch_stats"])
    apply, params = adapt.linen(LinenNet(), variables, "Conv_0")
    read = restored(variables)
    assert type(read) is dict
    same_maps(apply, read, params)


def test_nnx_into_the_model(restored):
    model = Net(nnx.Rngs(0))
    model.norm.mean[...] = jnp.full(4, 0.5)
    graph, state = nnx.split(model)
    other = nnx.split(Net(nnx.Rngs(1)))[1]
    read = nnx.merge(graph, restored(state, target=other))
    same_maps(adapt.flax_nnx(model, "blocks.0")[0], *(adapt.flax_nnx(each, "blocks.0")[1] for each in (read, model)))


def test_nnx_as_plain_dictionaries(restored):
    apply, params = adapt.flax_nnx(Net(nnx.Rngs(0)), "blocks.0")
    read = restored(nnx.to_pure_dict(nnx.split(Net(nnx.Rngs(0)))[1]))
    assert set(read["blocks"]) == {str(index) for index in range(12)}
    same_maps(apply, read, params)
