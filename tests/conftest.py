"""Strict JAX for every test, eight virtual devices, and the assets' folder."""

import os
import pathlib
import subprocess
import sys

import jax
import jaxtyping
import pytest

# Most of the tests' time is compilation, and their networks are so small that slow code is quick enough. The fusion
# emitters of this XLA take half of the rest; 0.11 knows no such flag. Variables, so that processes which tests start
# compile as quickly. Whoever sets XLA_FLAGS, be it to nothing, gets the compiler that users have.
if "XLA_FLAGS" not in os.environ:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.config.update("jax_disable_most_optimizations", True)
    if jax.__version_info__ < (0, 11):
        os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: of two processes none has minutes to go when the other ends."""
    long = ("test_notebooks", "test_app", "test_study", "test_site")
    items.sort(key=lambda item: not any(name in item.nodeid for name in long))


@pytest.fixture(scope="session")
def assets() -> pathlib.Path:
    """The folder of real weights and images, named by the variable SSCAM_ASSETS."""
    folder = os.environ.get("SSCAM_ASSETS")
    if not folder:
        pytest.skip("SSCAM_ASSETS is not set: it names the folder of real weights and images")
    path = pathlib.Path(folder)
    assert path.is_dir(), f"SSCAM_ASSETS={folder} is not a folder"
    return path


@pytest.fixture
def as_users_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks of annotations that only tests switch on: the package's own messages must come."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def full_compilation():
    """Compile as users do: for numbers that are compared with other libraries', and for networks of full size."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True, scope="module")
def _programs_are_let_go():
    """A compiled program holds mappings of memory, of which Linux gives a process 65,530; past that XLA crashes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The documentation site, built without a warning. Tests of the xdist group "docs" share it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    # Its authors' notice about a successor, which is no warning of ours.
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(
        command, cwd=pathlib.Path(__file__).parent.parent, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "WARNING" not in run.stderr
    return folder
