"""What all commands do before they compute."""

import os
import subprocess
import sys

import jax
import pytest

PROGRAM = """
import os, jax
from sscam_jax.cli import _terminal
_terminal.prepare_jax()
assert jax.local_device_count("cpu") == _terminal._cores()
print(os.environ["XLA_FLAGS"])
"""


@pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="this JAX does not know the flags")
def test_a_device_waits_for_a_slow_core_and_the_users_flags_win():
    """XLA accepts the flags, or the process would end here; of two that are alike it takes the last."""
    mine = "--xla_cpu_collective_call_terminate_timeout_seconds=7"
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | {"XLA_FLAGS": mine}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    flags = run.stdout.split()
    assert len(flags) == 3 and flags[1].startswith(mine.partition("=")[0]) and flags[2] == mine
