"""The registry of methods, and methods by one line of text."""

import dataclasses
import functools
from types import MappingProxyType
from typing import TypedDict, Unpack

import pytest

import sscam_jax as sscam
from sscam_jax import cams
from sscam_jax.cams import registry


def _preset(method: str, name: str) -> dict:
    """A preset's values, as far as they are options."""
    return registry.options(method, preset=name)


def test_a_name_alone_is_the_method_itself():
    assert registry.parse("grad-cam") == (cams.grad_cam, {})
    method, choices = registry.parse("ss-cam")
    assert method is sscam.ss_cam
    assert choices == _preset("ss-cam", "light") and choices["sigma"] == 0.5 and choices["budget"] is None


def test_presets_and_options_are_bound_and_told():
    method, choices = registry.parse("ss-cam:authors,sigma=1.5,prior_in_sum=false,prior=none,score=logit,n_samples=3")
    given = dict(preset="authors", sigma=1.5, prior_in_sum=False, prior=None, score="logit", n_samples=3)
    assert isinstance(method, functools.partial) and method.func is sscam.ss_cam and method.keywords == given
    del given["preset"]
    assert choices == _preset("ss-cam", "authors") | given
    assert registry.parse("score-cam:score=logit")[0].keywords == dict(score="logit")


@pytest.mark.parametrize(
    "text,value",
    [
        ("score-cam:channel_softmax=False", False),
        ("recipro-cam:gaussian=TRUE", True),
        ("eigen-cam:center=false", False),
        ("ss-cam:baseline=none", "none"),  # a word of the option, not Python's None
        ("ss-cam:prior=None", None),
        ("ss-cam:budget=12", 12),
        ("ss-cam:sigma=1", 1.0),
        ("occlusion:window=3", 3),
    ],
)
def test_values_have_the_type_of_their_option(text, value):
    [given] = registry.parse(text)[0].keywords.values()
    assert given == value and type(given) is type(value)


@pytest.mark.parametrize("name", registry.ENTRIES)
def test_every_option_has_a_default_that_its_text_gives_back(name):
    for preset in registry.ENTRIES[name].presets or (None,):
        for option, default in registry.options(name, preset=preset).items():
            assert default is not ...
            text = f"{name}:{f'{preset},' if preset else ''}{option}={default}"
            assert registry.parse(text)[1][option] == default


def test_options_of_a_typed_dictionary_and_a_dataclass(monkeypatch):
    class Changes(TypedDict, total=False):
        softmax: bool
        n_samples: int

    @dataclasses.dataclass(frozen=True)
    class Choices:
        softmax: bool = False
        n_samples: int = 10
        no_option_of_this_method: int = 0

    def method(apply, params, images, labels, *, key, preset: str = "a", ids=None, **changes: Unpack[Changes]):
        raise NotImplementedError

    entry = registry.Entry("A", method, MappingProxyType({"a": Choices(), "b": Choices(n_samples=3)}))
    monkeypatch.setattr(registry, "ENTRIES", {"a-cam": entry})
    assert registry.options("a-cam") == dict(softmax=False, n_samples=10)
    bound, choices = registry.parse("a-cam:b,softmax=true")
    assert bound.keywords == dict(preset="b", softmax=True) and choices == dict(softmax=True, n_samples=3)


def test_titles():
    assert registry.title("ss-cam") == "SS-CAM" and registry.title("rise:keep=0.3") == "RISE (keep=0.3)"


@pytest.mark.parametrize("name,method", registry.METHODS.items())
def test_who_draws_takes_a_key(name, method):
    assert registry.draws(registry.parse(name)[0]) == (name in ("ss-cam", "random", "rise", "smooth-grad-cam++"))


@pytest.mark.parametrize(
    "spec,message",
    [
        ("gradcam", "method 'gradcam' is not known; choose from 'cam', 'grad-cam', "),
        ("ss-cam:wang", "preset of ss-cam 'wang' is not known; choose from 'light', 'paper', 'paper_mean', "),
        ("ss-cam:paper,N=3", "'N=3' is not an option of ss-cam; choose from .*n_samples="),
        ("ss-cam:sigma=1,paper", "'paper' is not an option of ss-cam"),
        ("ss-cam:sigma=1,sigma=2", "option 'sigma' of ss-cam is given twice"),
        ("grad-cam:sigma=1", "'sigma=1' is not an option of grad-cam; it has none"),
        ("ss-cam:key=1", "'key=1' is not an option of ss-cam"),
        ("eigen-cam:center=no", "center=no is not possible for eigen-cam; choose true or false"),
        ("score-cam:channel_softmax=0", "channel_softmax=0 is not possible for score-cam; choose true or false"),
        ("ss-cam:n_samples=1.5", "n_samples=1.5 is not possible for ss-cam; choose a whole number"),
        ("ss-cam:sigma=nan", "sigma=nan is not possible for ss-cam; choose a number"),
        ("ss-cam:sigma=none", "sigma=none is not possible for ss-cam; choose a number"),
        ("ss-cam:reduce=min", "reduce=min is not possible for ss-cam; choose 'max', 'mean'"),
    ],
)
def test_what_is_not_known_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        registry.parse(spec)
