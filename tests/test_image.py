"""Every kind of picture a person may have, and everything that only looks like one."""

import io
import os
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lisa import image as image_module
from lisa.errors import ImageError, OutputError
from lisa.files import write_atomically
from lisa.image import MAX_PIXELS, load_image, upright_size

UPRIGHT = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10  # [2, 3, 3], all different
ORIENTATION = 0x0112

# How a camera stores an upright picture under each EXIF orientation (EXIF 2.3, section 4.6.4).
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.transpose(1, 0, 2),
    6: np.rot90,  # a quarter turn against the clock, to be undone clockwise
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


def encoded(image: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photograph(width: int = 64, height: int = 48) -> PIL.Image.Image:
    y, x = np.mgrid[:height, :width]
    return PIL.Image.fromarray(np.stack([x * 3, y * 5, x + y], axis=2).astype(np.uint8))


def noise() -> PIL.Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return PIL.Image.fromarray(values)


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def header_of_png(width: int, height: int) -> bytes:
    """A valid PNG header for a size that nobody would want to allocate, and no pixels."""
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + fields + struct.pack(">I", zlib.crc32(fields))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\x35\xaf\x06\x1e"


def refusal(source: object) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source)  # type: ignore[arg-type]
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "expected" in message
    return message


# What is read


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_path_text_and_bytes_give_the_same_picture(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.any"
    path.write_bytes(encoded(PIL.Image.fromarray(UPRIGHT), kind))
    for source in (path, str(path), path.read_bytes()):
        loaded = load_image(source)
        assert loaded.mode == "RGB"
        assert np.array_equal(np.asarray(loaded), UPRIGHT)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_come_close(kind: str) -> None:
    loaded = np.asarray(load_image(encoded(photograph(), kind)), dtype=int)
    assert np.abs(loaded - np.asarray(photograph(), dtype=int)).mean() < 12


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PIL"])
def test_exif_orientation_is_applied_once(orientation: int, kind: str) -> None:
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    stored = PIL.Image.fromarray(np.ascontiguousarray(STORED[orientation](UPRIGHT)))
    data = encoded(stored, "PNG" if kind == "PIL" else kind, exif=exif)
    loaded = load_image(PIL.Image.open(io.BytesIO(data)) if kind == "PIL" else data)
    assert np.array_equal(np.asarray(loaded), UPRIGHT)
    assert np.array_equal(np.asarray(load_image(loaded)), UPRIGHT)


def test_a_phone_jpeg_stands_upright() -> None:
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    assert load_image(encoded(photograph(64, 48), "JPEG", exif=exif)).size == (48, 64)


def test_broken_exif_does_not_hide_a_good_picture() -> None:
    data = encoded(photograph(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\x00\x00\xff\xff broken")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow remarks on the tags
        assert load_image(data).size == (64, 48)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 51), (244, 204, 204)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("LA", (100, 0), (255, 255, 255)),
        ("LA", (100, 255), (100, 100, 100)),
        ("RGBa", (0, 0, 0, 0), (255, 255, 255)),
        ("L", 7, (7, 7, 7)),
        ("1", 1, (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (255, 128, 128), (255, 255, 255)),
        ("HSV", (0, 0, 51), (51, 51, 51)),
        ("I;16", 257 * 9, (9, 9, 9)),
        ("I;16B", 257 * 9, (9, 9, 9)),
        ("I", 257 * 9, (9, 9, 9)),
        ("F", 0.2, (51, 51, 51)),
    ],
)
def test_every_mode_becomes_rgb(mode: str, colour: object, expected: tuple[int, int, int]) -> None:
    loaded = load_image(PIL.Image.new(mode, (2, 3), colour))  # type: ignore[arg-type]
    assert loaded.mode == "RGB"
    assert loaded.size == (2, 3)
    assert set(loaded.get_flattened_data()) == {expected}


def test_a_transparent_palette_entry_is_white() -> None:
    palette = PIL.Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    loaded = load_image(encoded(palette, "GIF", transparency=1))
    assert list(loaded.get_flattened_data()) == [(10, 20, 30), (255, 255, 255)]


def test_a_transparent_colour_of_a_png_without_alpha_is_white() -> None:
    data = encoded(PIL.Image.fromarray(UPRIGHT), transparency=tuple(UPRIGHT[0, 0].tolist()))
    loaded = np.asarray(load_image(data))
    assert loaded[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(loaded[1], UPRIGHT[1])


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    red = PIL.Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixel = np.asarray(load_image(encoded(red, "JPEG", quality=95)), dtype=int)[8, 8]
    assert np.abs(pixel - (255, 0, 0)).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_not_cut(kind: str) -> None:
    grey = np.array([[0, 128, 129, 257, 32_768, 65_535]], dtype=np.uint16)
    loaded = load_image(encoded(PIL.Image.fromarray(grey), kind))
    assert np.asarray(loaded)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_16_bit_grey_follows_exif() -> None:
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    grey = PIL.Image.fromarray(np.zeros((2, 5), dtype=np.uint16))
    assert load_image(encoded(grey, exif=exif)).size == (2, 5)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 20), (1, 3000)])
def test_odd_but_honest_sizes_are_fine(size: tuple[int, int]) -> None:
    assert load_image(encoded(PIL.Image.new("RGB", size, "teal"))).size == size


# Frames


@pytest.mark.parametrize(("kind", "frames"), [("GIF", 3), ("WEBP", 2), ("PNG", 2), ("TIFF", 2)])
def test_of_several_frames_the_first_is_taken_and_said(
    kind: str, frames: int, tmp_path: Path
) -> None:
    red, *others = (PIL.Image.new("RGB", (8, 8), c) for c in ("red", "blue", "lime")[:frames])
    path = tmp_path / "moving"
    red.save(path, kind, save_all=True, append_images=others)
    with pytest.warns(UserWarning, match=f"moving' has {frames} frames; only the first frame"):
        loaded = load_image(path)
    assert np.abs(np.asarray(loaded, dtype=int)[4, 4] - (255, 0, 0)).max() < 6


def test_the_warning_points_at_the_caller() -> None:
    frames = [PIL.Image.new("L", (2, 2), grey) for grey in (0, 255)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning) as caught:
        load_image(data)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_pil_picture_is_taken_at_its_frame_without_a_word() -> None:
    frames = [PIL.Image.new("L", (2, 2), grey) for grey in (0, 255)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with PIL.Image.open(io.BytesIO(data)) as moving, warnings.catch_warnings():
        warnings.simplefilter("error")
        moving.seek(1)
        assert load_image(moving).getpixel((0, 0)) == (255, 255, 255)
        assert moving.tell() == 1


def test_still_pictures_and_the_previews_of_a_phone_are_silent() -> None:
    preview = photograph(16, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(encoded(photograph(), "GIF"))
        mpo = encoded(photograph(), "MPO", save_all=True, append_images=[preview])
        assert load_image(mpo).size == (64, 48)


# Arrays and PIL pictures


@settings(deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_uint8_rgb_arrays_pass_unchanged(values: np.ndarray) -> None:
    assert np.array_equal(np.asarray(load_image(values)), values)


@settings(deadline=None)
@given(arrays.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_uint16_arrays_round_to_the_nearest(values: np.ndarray) -> None:
    loaded = np.asarray(load_image(values), dtype=float)
    assert np.array_equal(loaded[..., 0], loaded[..., 2])
    assert np.abs(loaded[..., 0] - values / 257.0).max() <= 0.5


@settings(deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)),
        elements=st.floats(0, 1, width=32),
    )
)
def test_float_arrays_round_to_the_nearest(values: np.ndarray) -> None:
    loaded = np.asarray(load_image(values), dtype=float)
    assert np.abs(loaded - values * 255.0).max() <= 0.5 + 1e-4


def test_a_fourth_channel_is_alpha() -> None:
    values = np.zeros((1, 2, 4))
    values[0, 0, 3] = 1.0
    assert list(load_image(values).get_flattened_data()) == [(0, 0, 0), (255, 255, 255)]


def test_views_with_strides_are_read_as_they_look() -> None:
    turned = UPRIGHT[::-1, ::-1, ::-1]
    assert np.array_equal(np.asarray(load_image(turned)), turned)


def test_the_result_shares_nothing_with_its_source() -> None:
    picture, values = photograph(), np.zeros((4, 4, 3), np.uint8)
    for source in (picture, values):
        loaded = load_image(source)
        loaded.paste("white", (0, 0, *loaded.size))
    assert np.array_equal(np.asarray(picture), np.asarray(photograph()))
    assert not values.any()


def test_the_result_carries_no_metadata() -> None:
    data = encoded(photograph(), "JPEG", icc_profile=b"profile", comment=b"a private remark")
    assert load_image(data).info == {}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((3, 8, 8), np.uint8), "shape [3, 8, 8]"),
        (np.zeros((8, 8, 1), np.uint8), "shape [8, 8, 1]"),
        (np.zeros(8, np.uint8), "shape [8]"),
        (np.zeros((0, 8, 3), np.uint8), "8x0 pixels have no area"),
        (np.zeros((8, 0), np.uint8), "0x8 pixels have no area"),
        (np.zeros((8, 8), np.int64), "values of type int64"),
        (np.zeros((8, 8), bool), "values of type bool"),
        (np.full((8, 8), 1.5), "values 1.5 to 1.5"),
        (np.full((8, 8), -0.1), "values -0.1 to -0.1"),
        (np.full((8, 8), np.nan), "values nan to nan"),
    ],
)
def test_arrays_that_are_no_pictures(values: np.ndarray, said: str) -> None:
    message = refusal(values)
    assert said in message
    assert f"<array {values.dtype} {list(values.shape)}>" in message


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (PIL.Image.new("RGB", (0, 5)), "<PIL image RGB 0x5>: 0x5 pixels have no area"),
        (PIL.Image.new("I", (2, 2), 70_000), "grey values 70000 to 70000; expected 0 to 65535"),
        (PIL.Image.new("I", (2, 2), -1), "grey values -1 to -1"),
        (PIL.Image.new("F", (2, 2), 255.0), "values 255 to 255"),
    ],
)
def test_pil_pictures_without_a_meaning(picture: PIL.Image.Image, said: str) -> None:
    assert said in refusal(picture)


def test_another_type_is_refused_by_its_name() -> None:
    assert "type list; expected a path, bytes, a PIL image or a numpy array" in refusal([1, 2])


# Files that are no pictures


def test_the_message_for_a_missing_file() -> None:
    assert refusal("nowhere/x.jpg") == (
        "cannot read image 'nowhere/x.jpg': no such file; "
        "expected a picture such as jpg, png, webp, gif or tiff"
    )


def test_a_folder(tmp_path: Path) -> None:
    assert f"'{tmp_path}': it is a folder" in refusal(tmp_path)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    assert f"'{pipe}': it is not a regular file" in refusal(pipe)


def test_a_file_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "x.jpg"
    assert f"'{below}': " in refusal(below)


def test_a_path_with_a_null_character() -> None:
    assert "not a valid path" in refusal("x\0.jpg")


@pytest.mark.parametrize("name", ["two\nlines.jpg", "caf\udce9.jpg", "tab\t.jpg"])
def test_a_strange_name_still_gives_one_printable_line(name: str) -> None:
    assert refusal(name).encode("utf-8").isascii()


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b"once upon a time there was a text file " * 20, "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not a picture"),
        (halved(encoded(noise(), "JPEG")), "damaged or cut short"),
        (halved(encoded(noise(), "PNG")), "damaged or cut short"),
        (encoded(photograph(), "JPEG")[:200], "damaged or cut short"),
        (header_of_png(20_000, 20_000), "20000x20000 is 400,000,000 pixels"),
    ],
    ids=["empty", "text", "eps", "cut jpg", "cut png", "jpg header", "huge"],
)
def test_a_bad_file_is_named_and_explained(
    data: bytes, said: str, as_bytes: bool, tmp_path: Path
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    label = f"<{len(data)} bytes>" if as_bytes else f"'{path}'"
    assert f"cannot read image {label}: {said}" in refusal(data if as_bytes else path)


@settings(deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]), st.data())
def test_damage_never_raises_anything_else(kind: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(photograph(24, 16), kind))
    del whole[data.draw(st.integers(1, len(whole)), label="length") :]
    for _ in range(data.draw(st.integers(0, 4), label="damages")):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own remarks on damaged tags
        try:
            assert load_image(bytes(whole)).mode == "RGB"
        except ImageError as error:
            assert len(str(error).splitlines()) == 1


# The pixel limit


def test_the_limit_is_ours_for_every_kind_of_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "MAX_PIXELS", 11)
    small, large = PIL.Image.new("RGB", (11, 1)), PIL.Image.new("RGB", (3, 4))
    for convert in (encoded, np.asarray, PIL.Image.Image.copy):
        assert load_image(convert(small)).size == (11, 1)
        assert "3x4 is 12 pixels; expected at most 11" in refusal(convert(large))


def test_pillows_limit_neither_warns_nor_stops_nor_is_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 4)  # from 5 it warns, from 9 it raises
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(encoded(PIL.Image.new("RGB", (3, 2)))).size == (3, 2)
        assert load_image(encoded(PIL.Image.new("RGB", (9, 9)))).size == (9, 9)
    refusal(b"not a picture")
    assert PIL.Image.MAX_IMAGE_PIXELS == 4
    assert MAX_PIXELS == 200_000_000


def test_many_threads_can_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_open = PIL.Image.open

    def open_slowly(*arguments: Any, **options: Any) -> PIL.Image.Image:
        time.sleep(0.002)  # long enough for the other threads to come in between
        return pillow_open(*arguments, **options)

    monkeypatch.setattr(PIL.Image, "open", open_slowly)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 4)
    data, sizes = encoded(photograph()), []
    threads = [
        threading.Thread(target=lambda: sizes.append(load_image(data).size)) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [(64, 48)] * 16
    assert PIL.Image.MAX_IMAGE_PIXELS == 4


# Writing


def test_bytes_arrive_and_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_permissions_that_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "out.bin", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "out.bin").stat().st_mode & 0o777 == 0o640


def test_a_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", b"data")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"data"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "out.png"
    with pytest.raises(OutputError, match="expected a writable folder") as caught:
        write_atomically(path, b"data")
    assert f"cannot write '{path}': No such file or directory" in str(caught.value)


def test_a_null_character_in_the_path() -> None:
    with pytest.raises(OutputError, match=r"cannot write 'x\\x00\.png'"):
        write_atomically(Path("x\0.png"), b"data")


def test_a_folder_or_pipe_is_never_replaced(tmp_path: Path) -> None:
    folder, pipe = tmp_path / "folder", tmp_path / "pipe"
    folder.mkdir()
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="it is a folder; expected a file name"):
        write_atomically(folder, b"data")
    with pytest.raises(OutputError, match="it is not a regular file"):
        write_atomically(pipe, b"data")
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == [folder, pipe]


def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write everywhere (root)")
        with pytest.raises(OutputError, match="Permission denied"):
            write_atomically(tmp_path / "out.png", b"data")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("raised", "seen"),
    [(OSError(28, "No space left on device"), OutputError), (KeyboardInterrupt(), None)],
)
def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    raised: BaseException,
    seen: type[Exception] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"old")

    def interrupt(_: int) -> None:
        raise raised

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(seen or KeyboardInterrupt) as caught:
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    if seen:
        assert f"'{path}': No space left on device" in str(caught.value)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_upright_size_is_that_of_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[274] = orientation
    PIL.Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert upright_size(tmp_path / "a.jpg") == load_image(tmp_path / "a.jpg").size


def test_the_upright_size_of_what_is_no_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        upright_size(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="not a picture"):
        upright_size(b"what")
