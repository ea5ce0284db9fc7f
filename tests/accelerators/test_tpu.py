"""Every method compiles for TPUs, in the memory of its chunk, and leaves the device only where it must.

`make accelerators` runs this; it takes hours of processor time, most of it in the compiler.
"""

import jax
import pytest

pytest.importorskip("libtpu")
from tests.accelerators.programs import Cell, bare, compiled, covering, problems

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def as_users_compile():
    """Without what the other tests set for exact numbers: on a TPU, "highest" is six passes instead of one."""
    before = jax.config.jax_default_matmul_precision
    jax.config.update("jax_default_matmul_precision", None)
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.mark.parametrize("cell", covering(), ids=lambda cell: "-".join(map(str, cell)))
def test_compiles_for_a_tpu(cell: Cell):
    plain = bare(cell.network, cell.dtype, cell.device, cell.chunk)
    assert not problems(cell, compiled(cell), plain)
