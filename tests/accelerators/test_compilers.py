"""Every method compiles for TPUs and GPUs, in the memory of its chunk, and leaves the device only where it must.

`make accelerators` runs this; it takes hours of processor time, most of it in the compilers.
"""

import jax
import pytest

from tests.accelerators.programs import GPUS, TPUS, Cell, bare, compiled, covering, problems

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def as_users_compile(full_compilation):
    """Without what the other tests set for exact numbers: on a TPU, "highest" is six passes instead of one."""
    before = jax.config.jax_default_matmul_precision
    jax.config.update("jax_default_matmul_precision", None)
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.mark.parametrize("cell", covering(TPUS) + covering(GPUS), ids=lambda cell: "-".join(map(str, cell)))
def test_compiles(cell: Cell):
    pytest.importorskip("jax_plugins.xla_cuda12" if cell.device in GPUS else "libtpu")
    plain = bare(cell.network, cell.dtype, cell.device, cell.chunk)
    assert not problems(cell, compiled(cell), plain)
