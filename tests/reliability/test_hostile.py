"""Files that were made to harm: bombs, pickles of every instruction, paths that climb, links; and damaged ones."""

import os
import pathlib
import pickletools
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from sscam_jax.convert import CheckpointError, read_checkpoint
from sscam_jax.data import source
from sscam_jax.data.images import open_image
from sscam_jax.data.layouts import read_annotation
from sscam_jax.evaluation import run_folder
from tests.evaluation.test_run_folder import NOTED, PRINT, SEAL, part
from tests.reliability import mutations
from tests.torch_files import Raw, dumps, floats, tensor, write_zip

pytestmark = [pytest.mark.xdist_group("hostile"), pytest.mark.usefixtures("as_users_run_it")]


@pytest.fixture(scope="module", autouse=True)
def _watched():
    """An audit hook stays for the life of the process."""
    sys.addaudithook(mutations._watch)


def test_damaged_files_raise_the_documented_errors_only(tmp_path):
    """The short form of the campaign, in a process whose functions are not wrapped by checks of annotations."""
    environment = os.environ | dict(PYTHONPATH=str(pathlib.Path(__file__).parents[2]), JAX_PLATFORMS="cpu")
    command = [sys.executable, "-m", "tests.reliability.mutations", "500", "300"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (
        done.stdout + done.stderr + "\n".join(each.read_text() for each in tmp_path.glob("failures/*.json"))
    )
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:] if line[0] == "|"]
    assert len(rows) == 11 and sum(int(row[1]) for row in rows) == 800
    # A run of which one part is damaged is read: its other parts are shown.
    assert all(int(row[3]) > 0 for row in rows[:-1]), "some of every kind are refused"


def test_the_campaign_notices_what_it_looks_for(tmp_path):
    """A reader that runs code, one that fails in its own way, one without words."""

    def runs(path):
        exec("1 + 1")

    def fails(path):
        raise KeyError("name")

    def silent(path):
        raise ValueError

    kinds = [mutations.Kind("x", "x", [b"x"], read, (ValueError,)) for read in (runs, fails, silent)]
    told = [mutations.tried(kind, b"x", tmp_path)[1] for kind in kinds]
    assert (
        told[0].startswith("the reader did exec") and "KeyError" in told[1] and told[2].startswith("an empty message")
    )


# ---- bombs ----

LAUGHS = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a0 "lol">{}]><annotation><object><name>&a{};</name></object>
</annotation>"""
XML_BOMBS = {
    "billion laughs": LAUGHS.format("".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12)), 11),
    "quadratic": f'<!DOCTYPE x [<!ENTITY a "{"x" * 100_000}">]><annotation>{"&a;" * 100_000}</annotation>',
    "deep": "<a>" * 200_000 + "</a>" * 200_000,
    "external": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><object><name>&a;</name></object></annotation>',
}  # fmt: skip


@pytest.mark.parametrize("name", XML_BOMBS)
def test_bombs_of_xml_entities(tmp_path, name):
    file = tmp_path / "a.xml"
    file.write_text(XML_BOMBS[name])
    began, before = time.process_time(), mutations._peak()
    told = read_annotation(file)
    assert isinstance(told, str) and told.startswith("its annotation a.xml ") and "root:" not in told
    assert time.process_time() - began < mutations.SECONDS and mutations._peak() - before < mutations.MEMORY


def test_an_npz_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """0.3 MB that would be 301 MB."""
    path, numbers = tmp_path / "a.npz", 75_000_000
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("w.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, dict(descr="<f4", fortran_order=False, shape=(numbers,)))
        for _ in range(75):
            stream.write(bytes(4_000_000))
    before = mutations._peak()
    with pytest.raises(CheckpointError, match=r"has \d{6} bytes and unpacks to 300000128: refused"):
        read_checkpoint(path)
    assert mutations._peak() - before < 2**26


def test_a_header_that_claims_more_than_there_is(tmp_path):
    """An exabyte in the header of an .npy entry, under a right checksum."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("w.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, dict(descr="<f4", fortran_order=False, shape=(2**58,)))
    with pytest.raises(CheckpointError, match=r"is an .npz file that cannot be read"):
        read_checkpoint(path)


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (100_000, 100_000)])
def test_a_picture_that_claims_to_be_huge(tmp_path, size):
    file, before = tmp_path / "a.png", mutations._peak()
    file.write_bytes(_png(*size))
    with pytest.raises(ValueError, match=r"a.png (is refused as a decompression bomb|is truncated or damaged)"):
        open_image(file)
    assert mutations._peak() - before < 2**26


# ---- pickles ----


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: opcode.name)
def test_every_instruction_of_pickles(tmp_path, monkeypatch, opcode):
    """Alone, and on a stack with a mark, a list, a dict and a global that it may take: read or refused."""
    monkeypatch.chdir(tmp_path)
    arguments = {
        "stringnl_noescape_pair": b"os\nsystem\n", "stringnl": b"'echo'\n", "stringnl_noescape": b"0\n",
        "decimalnl_short": b"1\n", "decimalnl_long": b"1L\n", "floatnl": b"1.0\n", "unicodestringnl": b"a\n",
    }  # fmt: skip
    argument = b""
    if opcode.arg is not None:
        argument = arguments.get(opcode.arg.name, bytes(abs(opcode.arg.n) if abs(opcode.arg.n) < 9 else 1))
    stacks = [b"", b"(", b"](", b"}(", b"N", b"NN", b"(NN", b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system"]
    stacks += [b"ctorch\nSize\n)", b"ctorch\nSize\n", b"ccollections\nOrderedDict\n)R}"]
    for stack in stacks:
        tree = {"w": tensor("0", 4, 0, (2, 2), (2, 1)), "x": Raw(stack + opcode.code.encode("latin1") + argument)}
        path = write_zip(tmp_path / "a.pth", tree, {"0": floats(1, 2, 3, 4)})
        for data in (path.read_bytes(), dumps(tree["x"])):
            path.write_bytes(data)
            try:
                assert all(isinstance(each, np.ndarray) for each in read_checkpoint(path).values())
            except CheckpointError as error:
                assert len(str(error)) > len(f"checkpoint {path}: ")
    assert [each.name for each in tmp_path.iterdir()] == ["a.pth"]


# ---- paths and links ----


def test_paths_that_climb_out_of_an_archive_lead_nowhere(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(16))
    for key in ("../../secret", f"/{tmp_path}/secret", "..\\secret"):
        path = write_zip(tmp_path / "a.pth", {"w": tensor(key, 4, 0, (4,), (1,))}, {})
        with pytest.raises(CheckpointError, match="refers to the storage '.*secret' but has no entry"):
            read_checkpoint(path)
    inside = tmp_path / "in"
    inside.mkdir()
    with zipfile.ZipFile(inside / "a.npz", "w") as archive:
        with archive.open("../../w.npy", "w") as stream:
            np.lib.format.write_array(stream, np.ones(2))
    assert list(read_checkpoint(inside / "a.npz")) == ["../../w"]
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["a.npz", "a.pth", "in", "secret"]


def test_links_in_a_run_folder_are_replaced_and_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    with run_folder.Run(tmp_path / "run", PRINT, NOTED) as run:
        run.write(0, part(9, 0), [], SEAL)
        (run.parts / "000001.npz").symlink_to(victim)
        run.write(1, part(5, 4), [], SEAL)
    assert victim.read_text() == "mine" and not (run.parts / "000001.npz").is_symlink()


def test_links_that_lead_in_a_circle_or_nowhere(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    found = source(f"folder:{tmp_path}")
    assert [each.name for each in found] == ["a.png", "gone.png", "self.png"]
    for name, message in (("gone.png", "No such file"), ("self.png", "symbolic links")):
        with pytest.raises((OSError, ValueError), match=f"{name}.*{message}"):
            open_image(tmp_path / name)


def test_a_name_with_every_odd_character_stays_in_its_folder(tmp_path):
    names = ["a b.png", "ü.png", "-rf.png", "$(touch x).png", "a\nb.png", "..png"]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / name, "PNG")
    assert {each.name for each in source(f"folder:{tmp_path}")} == {name for name in names if name[0] != "."}
    assert sorted(each.name for each in pathlib.Path(tmp_path).iterdir()) == sorted(names)
