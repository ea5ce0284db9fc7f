"""Sanity checks: which parameters are randomised, how, and what methods that ignore them score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import metrics
from tests import toy

KEY = jax.random.key(0)
PARAMS = {
    "features": {"0": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.arange(7.0)}, "10": jnp.arange(8.0)},
    "head": {"kernel": jnp.arange(9.0), "variance": jnp.full(5, 2.0)},
}


def changed(params) -> list[str]:
    """The paths of arrays that are not as they were."""
    before, after = (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (PARAMS, params))
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, old), (_, new) in zip(before, after, strict=True)
        if (old != new).any()
    ]


class TestCascade:
    def test_layers_come_on_top_of_one_another(self):
        steps = list(metrics.cascade(PARAMS, ["head", "features/10", "features"], key=KEY))
        assert [layer for layer, _ in steps] == ["head", "features/10", "features"]
        assert changed(steps[0][1]) == ["head/kernel"]  # a constant has no order to lose
        assert changed(steps[1][1]) == ["features/10", "head/kernel"]
        assert changed(steps[2][1]) == ["features/0/bias", "features/0/kernel", "features/10", "head/kernel"]
        np.testing.assert_array_equal(steps[0][1]["head"]["kernel"], steps[2][1]["head"]["kernel"])
        assert changed(PARAMS) == []

    def test_values_are_permuted(self):
        [(_, params)] = metrics.cascade(PARAMS, ["features"], key=KEY)
        for old, new in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(params), strict=True):
            assert new.shape == old.shape and new.dtype == old.dtype
            np.testing.assert_array_equal(np.sort(new, axis=None), np.sort(old, axis=None))

    def test_the_key_and_the_array_alone_decide(self):
        def bias(layers, key=KEY):
            *_, (_, params) = metrics.cascade(PARAMS, layers, key=key)
            return params["features"]["0"]["bias"]

        np.testing.assert_array_equal(bias(["head", "features"]), bias(["features/0"]))
        assert (bias(["features"]) != bias(["features"], jax.random.key(1))).any()

    def test_a_name_is_not_its_beginning(self):
        params = {"layer1": jnp.arange(5.0), "layer10": jnp.arange(5.0)}
        [(_, found)] = metrics.cascade(params, ["layer1"], key=KEY)
        assert (found["layer1"] != params["layer1"]).any()
        np.testing.assert_array_equal(found["layer10"], params["layer10"])

    def test_refused(self):
        with pytest.raises(
            ValueError, match="layer 'fc' is not in params; choose from 'features', 'features/0', 'head'"
        ):
            list(metrics.cascade(PARAMS, ["fc"], key=KEY))
        with pytest.raises(ValueError, match="layer 'head' has only parameters of layers before it"):
            list(metrics.cascade(PARAMS, ["head", "head"], key=KEY))


class TestSimilarity:
    params = toy.on_device(toy.params())
    images = jnp.asarray(toy.images(batch=2, size=12))
    labels = jnp.array([0, 2], jnp.int32)

    def explain(self, params, labels=None):
        labels = self.labels if labels is None else labels
        edges = jnp.abs(self.images).mean(-1)  # looks at neither network nor class
        return jnp.stack([sscam.grad_cam(toy.LINEAR, params, self.images, labels).maps, edges / edges.max()])

    def test_randomised_parameters(self):
        found = metrics.cascading_randomisation(self.explain, self.params, ["linear", "conv"], key=KEY)
        assert list(found) == ["linear", "conv"]
        for layer, params in metrics.cascade(self.params, ["linear", "conv"], key=KEY):
            before, after = (np.asarray(self.explain(each)) for each in (self.params, params))
            np.testing.assert_allclose(
                found[layer].rank_correlation, metrics.spearman(jnp.asarray(before), jnp.asarray(after)), rtol=1e-5
            )
            for similarity in found[layer]:
                assert similarity.shape == (2, 2)
                assert (similarity[0] < 0.95).all()
                np.testing.assert_allclose(similarity[1], 1, rtol=1e-5)

    def test_another_class(self):
        asked = []

        def explain(labels):
            asked.append(labels.tolist())
            return self.explain(self.params, labels)

        found = metrics.random_logit(explain, self.labels, toy.CLASSES, key=KEY)
        assert asked[0] == self.labels.tolist()
        for similarity in found:
            assert (similarity[0] < 0.95).all()
            np.testing.assert_allclose(similarity[1], 1, rtol=1e-5)

    def test_the_other_class_is_another_and_hangs_on_the_id(self):
        drawn = []

        def explain(labels):
            drawn.append(labels)
            return jnp.zeros((1, labels.shape[0], 11, 11))

        labels = jnp.arange(300, dtype=jnp.int32) % 4
        metrics.random_logit(explain, labels, 4, key=KEY)
        assert np.bincount((drawn[1] - labels) % 4, minlength=4).min(initial=300, where=[False, True, True, True]) > 70
        assert not (drawn[1] == labels).any() and set(drawn[1].tolist()) == {0, 1, 2, 3}
        metrics.random_logit(explain, labels[7:9], 4, key=KEY, ids=jnp.array([7, 8]))
        np.testing.assert_array_equal(drawn[3], drawn[1][7:9])

    def test_one_class_has_no_other(self):
        with pytest.raises(ValueError, match="n_classes=1 is too small, expected at least 2"):
            metrics.random_logit(lambda labels: self.images, self.labels, 1, key=KEY)
