"""Methods by one line of text."""

import functools

import pytest

import sscam_jax as sscam
from sscam_jax import cams
from sscam_jax.cams import registry


def test_a_name_alone_is_the_method_itself():
    assert registry.parse("grad-cam") == (cams.grad_cam, {})
    method, choices = registry.parse("ss-cam")
    assert method is sscam.ss_cam
    assert choices.items() >= dict(sscam.SS_CAM_PRESETS["light"], noise="independent", budget=None).items()


def test_presets_and_options_are_bound_and_told():
    method, choices = registry.parse("ss-cam:authors,sigma=1.5,prior_in_sum=false,prior=none,score=logit,n_samples=3")
    given = dict(preset="authors", sigma=1.5, prior_in_sum=False, prior=None, score="logit", n_samples=3)
    assert isinstance(method, functools.partial) and method.func is sscam.ss_cam and method.keywords == given
    assert choices.items() >= (dict(sscam.SS_CAM_PRESETS["authors"]) | given).items()
    assert registry.parse("score-cam:score=logit")[0].keywords == dict(score="logit")


@pytest.mark.parametrize("name,method", registry.METHODS.items())
def test_who_draws_takes_a_key(name, method):
    assert registry.draws(registry.parse(name)[0]) == (name in ("ss-cam", "random", "rise", "smooth-grad-cam++"))


@pytest.mark.parametrize(
    "spec,message",
    [
        ("gradcam", "method 'gradcam' is not known; choose from 'cam', 'grad-cam', "),
        ("ss-cam:wang", "preset 'wang' is not one of ss-cam; choose from 'light', 'paper', 'paper_mean', "),
        ("ss-cam:paper,N=3", "'N=3' is not an option of ss-cam; choose from .*n_samples="),
        ("ss-cam:sigma=1,paper", "'paper' is not an option of ss-cam"),
        ("grad-cam:sigma=1", "'sigma=1' is not an option of grad-cam; it has none"),
        ("ss-cam:key=1", "'key=1' is not an option of ss-cam"),
    ],
)
def test_what_is_not_known_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        registry.parse(spec)
