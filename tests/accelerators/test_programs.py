"""What is checked of programs for TPUs and GPUs can fail, and every method is compiled."""

import itertools

import pytest

from tests.accelerators.programs import (
    FIRST,
    GPUS,
    NETWORKS,
    TPUS,
    Cell,
    Figures,
    covering,
    every_method,
    problems,
)

PLAIN = Figures(10.0, 1e9, 1e9, 1 << 20, (), ())
FINE = Figures(20.0, 1e9, 1e9, 1 << 20, (("all-gather", 1),), ("AllocateBuffer",))
CELL = Cell("ss-cam:paper", "squeezenet1_1", devices=4)


def test_a_good_program_has_no_problems():
    assert problems(CELL, FINE, PLAIN) == []
    assert (
        problems(CELL._replace(method="ss-cam:algorithm1"), FINE._replace(collectives=(("all-gather", 1),) * 2), PLAIN)
        == []
    )


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        (dict(seconds=26.0), "compiles in 26 s of processor time, a plain pass in 10 s"),
        (dict(temporaries=1 << 32), "has 4096 MiB of temporaries"),
        (dict(calls=("xla_ffi_python_callback",)), "leaves the device: xla_ffi_python_callback"),
        (dict(calls=("outfeed",)), "leaves the device: outfeed"),
        (dict(collectives=(("all-gather", 1),) * 2), "expected at most 1"),
        (dict(collectives=(("all-reduce", 2),)), "outside of the passes' loop"),
    ],
)
def test_a_bad_program_is_found(worse, said):
    [problem] = problems(CELL, FINE._replace(**worse), PLAIN)
    assert said in problem


def test_one_device_meets_nobody():
    assert problems(CELL._replace(devices=1), FINE, PLAIN)
    assert problems(Cell("grad-cam", "squeezenet1_1", devices=4, chunk=8), FINE, PLAIN)


@pytest.mark.parametrize("devices", [TPUS, GPUS])
def test_every_method_is_compiled_and_those_asked_for_first_on_every_network(devices):
    cells = covering(devices)
    assert {cell.method for cell in cells} == set(every_method())
    assert {(cell.method, cell.network) for cell in cells} >= set(itertools.product(FIRST, NETWORKS))
    assert ("cam", "vgg16") not in {(cell.method, cell.network) for cell in cells}  # not defined for its head


@pytest.mark.parametrize(("devices", "count"), [(TPUS, 18), (GPUS, 6)])
def test_every_place_gets_several_methods(devices, count):
    places = [(cell.dtype, cell.device, cell.devices) for cell in covering(devices)]
    assert len(set(places)) == count and min(places.count(place) for place in places) >= 2


def test_the_compilation_for_a_gpu_has_no_bound():
    assert problems(CELL._replace(device="h100"), FINE._replace(seconds=26.0, flops=None, moved=None), PLAIN) == []
