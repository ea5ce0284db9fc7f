"""Find image files: from the paths of a command line, and in the installed package foolbox."""

import glob
import importlib.util
import pathlib
from collections.abc import Sequence

from PIL import Image

from sscam_jax._support import install

_PHOTOGRAPHS = ("imagenet_03_990.jpg", "imagenet_15_99.jpg", "imagenet_18_317.jpg")


def image_endings() -> set[str]:
    """Return the suffixes of the image formats that Pillow reads, in lower case and with the dot."""
    return {e for e, kind in Image.registered_extensions().items() if Image.MIME.get(kind, "").startswith("image/")}


def find_images(paths: Sequence[str]) -> list[pathlib.Path]:
    """List the image files that files, folders and patterns stand for, each once, in the order given.

    Args:
        paths: each is a file, a folder, or a pattern with `*`, `?`, `[…]` or `**`. A folder stands for its files with
            the suffix of an image, a pattern for its matches. Both are sorted.

    Returns:
        The files. A named file is included even if it does not exist: reading it raises the error.

    Raises:
        ValueError: a folder has no image, or a pattern matches no file.

    Example:
        >>> find_images(["cat.jpg", "dog.jpg", "cat.jpg"])
        [PosixPath('cat.jpg'), PosixPath('dog.jpg')]
    """
    endings = image_endings()
    found: list[pathlib.Path] = []
    for text in paths:
        path = pathlib.Path(text)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in endings and p.name[0] != ".")
            if not inside:
                raise ValueError(f"folder '{text}' has no image; for images in its subfolders give '{text}/**/*.jpg'")
            found += inside
        elif path.exists() or not glob.has_magic(text):
            found.append(path)
        else:
            matches = [p for p in map(pathlib.Path, sorted(glob.glob(text, recursive=True))) if p.is_file()]
            if not matches:
                raise ValueError(f"no file matches '{text}'; expected a file, a folder or a pattern such as '*.jpg'")
            found += matches
    return list(dict.fromkeys(found))


def demo_photographs() -> list[pathlib.Path]:
    """Return three photographs of ImageNet's classes from the installed package foolbox.

    The package is not imported.

    Returns:
        The files.

    Raises:
        ValueError: foolbox is not installed, or its version does not include them.

    Example:
        >>> [file.name for file in demo_photographs()]
        ['imagenet_03_990.jpg', 'imagenet_15_99.jpg', 'imagenet_18_317.jpg']
    """
    spec = importlib.util.find_spec("foolbox")  # for a top-level package this runs no code of it
    folders = [] if spec is None else [pathlib.Path(folder, "data") for folder in spec.submodule_search_locations or ()]
    found = [file for folder in folders for name in _PHOTOGRAPHS if (file := folder / name).is_file()]
    if len(found) < len(_PHOTOGRAPHS):
        raise ValueError(
            f"the demo photographs are in the package foolbox 3.3.4, which is not installed: {install('demo')}"
        )
    return found
