"""Pictures come in through this file, and finished files go out through it.

`load_image` turns whatever a person has (a path, the bytes of a file, a PIL picture, a numpy array)
into one thing: an upright 8-bit RGB picture. `write_atomically` puts finished bytes on disk, whole
or not at all. This file knows file formats; it knows no model, mask or question, and it does not
resize: the model's geometry belongs to the processor.
"""

import base64
import io
import os
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image
import PIL.ImageOps
from PIL import ExifTags

from lisa.errors import ImageError
from lisa.files import one_line

ImageSource = str | os.PathLike[str] | bytes | PIL.Image.Image | np.ndarray

MAX_PIXELS = 200_000_000

# What cameras, phones and the web produce. The list is closed: Pillow knows more formats, and some
# of those start other programs (EPS) or hide a second size inside (ICO).
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_EXPECTED = "expected a picture such as jpg, png, webp, gif or tiff"
_EXPECTED_ARRAY = (
    "expected uint8, uint16 or float values in [0, 1] of shape [H, W], [H, W, 3] or [H, W, 4]"
)
_PILLOW_LIMIT = threading.Lock()


def load_image(source: ImageSource) -> PIL.Image.Image:
    """Read a picture and return it upright, in RGB with 8 bits per channel.

    Args:
        source: a path; the bytes of a picture file; a PIL picture (the frame it stands at); or an
            array [H, W], [H, W, 3] or [H, W, 4] of uint8, uint16, or floats in [0, 1].

    The EXIF orientation is applied, transparency is composited on white, 16-bit grey is scaled to
    8 bits, and CMYK and palette pictures are converted. Of an animation or a document of several
    pages the first frame is taken, with a `UserWarning` that says so. The result never shares
    memory with `source`, and carries no metadata.

    Raises:
        ImageError: nothing there, a folder, an empty or damaged file, not a picture, no area, or
            more than `MAX_PIXELS` pixels. The message names the source.
    """
    label = _label(source)
    if isinstance(source, np.ndarray):
        return _from_array(source, label)
    if isinstance(source, PIL.Image.Image):
        return _decode(source, label)
    with _open_stream(source, label) as stream, _open_image(stream, label) as image:
        plain = _decode(image, label)
        _warn_about_frames(image, label)
    return plain


def upright_size(source: str | os.PathLike[str] | bytes) -> tuple[int, int]:
    """(width, height) of the picture that `load_image` would give; only the header is read.

    Raises:
        ImageError: as `load_image`, but for damage behind the header.
    """
    label = _label(source)
    with _open_stream(source, label) as stream, _open_image(stream, label) as image:
        _check_size(*image.size, label)
        try:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        except Exception:  # damaged metadata; Pillow's own transposition ignores them, too
            turned = False
    return image.size[::-1] if turned else image.size


def _label(source: object) -> str:
    """How messages name the source."""
    if isinstance(source, str | os.PathLike):
        return repr(os.fsdecode(source))  # on one line, whatever the name holds
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, np.ndarray):
        return f"<array {source.dtype} {list(source.shape)}>"
    if isinstance(source, PIL.Image.Image):
        return f"<PIL image {source.mode} {source.width}x{source.height}>"
    raise ImageError(
        f"cannot read image of type {type(source).__name__}; "
        "expected a path, bytes, a PIL image or a numpy array"
    )


def _unreadable(label: str, reason: str, expected: str = _EXPECTED) -> ImageError:
    return ImageError(f"cannot read image {label}: {reason}; {expected}")


def _open_stream(source: str | os.PathLike[str] | bytes, label: str) -> BinaryIO:
    """The bytes of a file, from its beginning; at least one."""
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else _open_file(source, label)
        if not stream.read(1):
            stream.close()
            raise _unreadable(label, "the file is empty")
        stream.seek(0)
        return stream
    except FileNotFoundError as error:
        raise _unreadable(label, "no such file") from error
    except OSError as error:
        raise _unreadable(label, one_line(error.strerror or error)) from error
    except ValueError as error:  # a null character in the path
        raise _unreadable(label, "not a valid path") from error


def _open_file(source: str | os.PathLike[str], label: str) -> BinaryIO:
    path = Path(os.fsdecode(source))
    if path.is_dir():
        raise _unreadable(label, "it is a folder")
    if path.exists() and not path.is_file():
        raise _unreadable(label, "it is not a regular file")
    return path.open("rb")


def _open_image(stream: BinaryIO, label: str) -> PIL.Image.Image:
    """Read the header and say what it is; the pixels are not read yet.

    Pillow's own pixel limit is set aside: it is lower than ours, and warns on stderr.
    """
    PIL.Image.init()
    formats = [name for name in _FORMATS if name in PIL.Image.OPEN]  # older builds lack some
    with _PILLOW_LIMIT:
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            return PIL.Image.open(stream, formats=formats)
        except PIL.UnidentifiedImageError as error:
            raise _unreadable(label, "not a picture") from error
        except Exception as error:  # Pillow's header parsers raise many types on damaged files
            raise _unreadable(label, f"damaged or cut short ({one_line(error)})") from error
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit


def _decode(image: PIL.Image.Image, label: str) -> PIL.Image.Image:
    """An opened picture of any mode -> upright RGB."""
    _check_size(*image.size, label)
    try:
        image.load()
        return _to_rgb(PIL.ImageOps.exif_transpose(image), label)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        raise _unreadable(label, f"damaged or cut short ({one_line(error)})") from error


def _check_size(width: int, height: int, label: str) -> None:
    if width < 1 or height < 1:
        raise _unreadable(label, f"{width}x{height} pixels have no area", "expected at least 1x1")
    if width * height > MAX_PIXELS:
        raise _unreadable(
            label,
            f"{width}x{height} is {width * height:,} pixels",
            f"expected at most {MAX_PIXELS:,}",
        )


def _warn_about_frames(image: PIL.Image.Image, label: str) -> None:
    """Say that frames were left out. The extra pictures of MPO (jpg) are previews, not frames."""
    try:
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Exception:  # a later frame is damaged; the first one was read and is good
        return
    if frames > 1:
        message = f"image {label} has {frames} frames; only the first frame is used"
        warnings.warn(message, UserWarning, stacklevel=3)


def _to_rgb(image: PIL.Image.Image, label: str) -> PIL.Image.Image:
    """A loaded picture of any mode -> RGB, transparency on white, without metadata."""
    if image.mode.startswith("I;16"):
        return _from_array(np.asarray(image, dtype=np.uint16), label)
    if image.mode == "I":
        return _from_array(_as_uint16(np.asarray(image), label), label)
    if image.mode == "F":
        return _from_array(np.asarray(image), label)
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    plain = image.convert("RGB")
    plain.info.clear()
    return plain


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    canvas = PIL.Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas


def _as_uint16(values: np.ndarray, label: str) -> np.ndarray:
    """Pillow's 32-bit integers hold 16-bit grey of PGM and TIFF; anything beyond has no scale."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise _unreadable(label, f"grey values {low} to {high}", "expected 0 to 65535")
    return values.astype(np.uint16)


def _from_array(values: np.ndarray, label: str) -> PIL.Image.Image:
    """[H, W], [H, W, 3] or [H, W, 4] -> RGB."""
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise _unreadable(label, f"shape {list(values.shape)}", _EXPECTED_ARRAY)
    _check_size(values.shape[1], values.shape[0], label)
    image = PIL.Image.fromarray(np.ascontiguousarray(_to_uint8(values, label)))
    return _on_white(image) if image.mode == "RGBA" else image.convert("RGB")


def _to_uint8(values: np.ndarray, label: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    if not np.issubdtype(values.dtype, np.floating):
        raise _unreadable(label, f"values of type {values.dtype}", _EXPECTED_ARRAY)
    low, high = float(values.min()), float(values.max())
    if not 0.0 <= low <= high <= 1.0:  # also false for NaN
        raise _unreadable(label, f"values {low:g} to {high:g}", _EXPECTED_ARRAY)
    return (values * 255.0 + 0.5).astype(np.uint8)


def image_bytes(image: PIL.Image.Image, format_name: str) -> bytes:
    """The picture as a file of the format "PNG" (lossless) or "JPEG"."""
    stream = io.BytesIO()
    image.save(stream, format_name, quality=95)  # quality: of JPEG; PNG is lossless and ignores it
    return stream.getvalue()


def base64_image(image: PIL.Image.Image, format_name: str) -> str:
    """The same file as text."""
    return base64.b64encode(image_bytes(image, format_name)).decode("ascii")
