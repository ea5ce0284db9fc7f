"""Image files: those that a command line's words stand for, and those that a package ships."""

import glob
import importlib.util
import pathlib
from collections.abc import Sequence

from PIL import Image

_PHOTOGRAPHS = ("imagenet_03_990.jpg", "imagenet_15_99.jpg", "imagenet_18_317.jpg")


def image_endings() -> set[str]:
    """How the names of image files end that Pillow reads, in lower case, with the dot."""
    return {e for e, kind in Image.registered_extensions().items() if Image.MIME.get(kind, "").startswith("image/")}


def find_images(paths: Sequence[str]) -> list[pathlib.Path]:
    """The image files that files, folders and globs stand for, each once, in the order given.

    Args:
        paths: a file; a folder, for the files in it that end like an image; or a pattern with `*`, `?`, `[…]`
            or `**`, for files in sorted order.

    Returns:
        The files. A file that is named but missing is among them: reading it says so.

    Raises:
        ValueError: a folder holds no image, or a pattern matches no file.

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
                raise ValueError(f"folder '{text}' holds no image; for those in its folders give '{text}/**/*.jpg'")
            found += inside
        elif path.exists() or not glob.has_magic(text):
            found.append(path)
        else:
            matches = [p for p in map(pathlib.Path, sorted(glob.glob(text, recursive=True))) if p.is_file()]
            if not matches:
                raise ValueError(f"no file matches '{text}'")
            found += matches
    return list(dict.fromkeys(found))


def demo_photographs() -> list[pathlib.Path]:
    """Three photographs of ImageNet's classes that the package foolbox ships, found without importing it.

    Returns:
        The files.

    Raises:
        ValueError: foolbox is not installed, or a version without them.

    Example:
        >>> [file.name for file in demo_photographs()]
        ['imagenet_03_990.jpg', 'imagenet_15_99.jpg', 'imagenet_18_317.jpg']
    """
    spec = importlib.util.find_spec("foolbox")  # of a top-level package this runs nothing
    folders = [] if spec is None else [pathlib.Path(folder, "data") for folder in spec.submodule_search_locations or ()]
    found = [file for folder in folders for name in _PHOTOGRAPHS if (file := folder / name).is_file()]
    if len(found) < len(_PHOTOGRAPHS):
        raise ValueError(
            "the photographs are those of foolbox 3.3.4, which is not installed: pip install 'sscam_jax[demo]'"
        )
    return found
