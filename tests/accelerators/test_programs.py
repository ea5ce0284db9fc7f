"""What is checked of programs for TPUs can fail, and every method is compiled on every network."""

import itertools

import pytest

from tests.accelerators.programs import Cell, Figures, covering, every_method, problems

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


def test_every_method_meets_every_network_and_every_place_several_methods():
    cells = covering()
    pairs = {(cell.network, cell.method) for cell in cells}
    assert pairs == set(itertools.product(("resnet18", "squeezenet1_0", "vgg16"), every_method())) - {("vgg16", "cam")}
    places = [(cell.dtype, cell.device, cell.devices) for cell in cells]
    assert len(set(places)) == 18 and min(places.count(place) for place in places) >= 4
