"""Chunks that are cut off, changed or gone fail loudly."""

from __future__ import annotations

from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

from bigunet.errors import RunError
from bigunet.images.open import image_planes, open_image
from tests.images.made_images import (
    ALL,
    random_pixels,
    write_image,
)


def break_chunk(file: Path, keep: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])


CODECS = {
    "none": None,
    "zstd": zarr.codecs.ZstdCodec(),
    "blosc": zarr.codecs.BloscCodec(),
    "gzip": zarr.codecs.GzipCodec(),
}


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
@pytest.mark.parametrize("codec", CODECS)
def test_a_truncated_chunk_is_named(tmp_path: Path, codec: str, keep: float) -> None:
    """Blosc is the trap: numcodecs decodes a truncated container to garbage in silence."""
    pixels = random_pixels(2, 2, 24, 24)
    a = write_image(
        tmp_path / "a.zarr", pixels, "czyx", chunks=(1, 1, 8, 8), compressors=CODECS[codec]
    )
    break_chunk(a / "0/c/1/1/0/2", keep)
    first, second = image_planes(open_image(a), 0, (0, 1))
    assert np.array_equal(first.read(ALL, ALL), pixels[:, 0])
    assert np.array_equal(second.read(slice(8, 24), ALL), pixels[:, 1, 8:])
    for read in (lambda: second.read(ALL, ALL), second.lazy().compute):
        with pytest.raises(RunError) as failed:
            read()
        assert f"{a}/0, plane z=1: cannot read chunk (1, 1, 0, 2): " in str(failed.value)
        assert "\n" not in str(failed.value)
        assert failed.value.exit_code == 1


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_truncated_chunk_of_version_04_is_named(tmp_path: Path, keep: float) -> None:
    a = write_image(
        tmp_path / "a.zarr",
        random_pixels(24, 24),
        "yx",
        zarr_format=2,
        compressors=numcodecs.Blosc(cname="lz4"),
    )
    break_chunk(a / "0/1.2", keep)
    (plane,) = image_planes(open_image(a), 0, (0,))
    with pytest.raises(RunError, match=r"a\.zarr/0: cannot read chunk \(1, 2\): "):
        plane.read(ALL, ALL)


@pytest.mark.parametrize("codec", CODECS)
def test_a_truncated_shard_is_named(tmp_path: Path, codec: str) -> None:
    a = write_image(
        tmp_path / "a.zarr", random_pixels(40, 40), "yx", shards=(16, 16), compressors=CODECS[codec]
    )
    break_chunk(a / "0/c/1/0", 0.7)
    (plane,) = image_planes(open_image(a), 0, (0,))
    for window in (ALL, slice(20, 23)):
        with pytest.raises(RunError, match=r"a\.zarr/0: cannot read chunk \(1, 0\): "):
            plane.read(window, ALL)


def test_a_flipped_byte_is_noticed_where_there_is_a_checksum(tmp_path: Path) -> None:
    a = write_image(
        tmp_path / "a.zarr",
        random_pixels(16, 16),
        "yx",
        compressors=[zarr.codecs.ZstdCodec(checksum=True)],
    )
    file = a / "0/c/0/1"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (plane,) = image_planes(open_image(a), 0, (0,))
    with pytest.raises(RunError, match=r"chunk \(0, 1\)"):
        plane.read(ALL, ALL)


def test_a_blosc_header_that_claims_too_much_is_not_believed(tmp_path: Path) -> None:
    a = write_image(
        tmp_path / "a.zarr", random_pixels(16, 16), "yx", compressors=zarr.codecs.BloscCodec()
    )
    file = a / "0/c/0/1"
    content = bytearray(file.read_bytes())
    content[4:8] = (2**31 - 1).to_bytes(4, "little")
    file.write_bytes(content)
    (plane,) = image_planes(open_image(a), 0, (0,))
    with pytest.raises(RunError, match="decodes to 2147483647 bytes"):
        plane.read(ALL, ALL)


def test_many_broken_chunks_are_not_all_listed(tmp_path: Path) -> None:
    a = write_image(tmp_path / "a.zarr", random_pixels(40, 40), "yx")
    for file in (a / "0/c").rglob("*"):
        if file.is_file():
            break_chunk(file, 0.3)
    (plane,) = image_planes(open_image(a), 0, (0,))
    with pytest.raises(RunError) as failed:
        plane.read(ALL, ALL)
    assert all(f"(0, {i}): " in str(failed.value) for i in range(3))
    assert str(failed.value).endswith(" and more")


def test_a_store_that_is_gone(tmp_path: Path) -> None:
    a = write_image(tmp_path / "a.zarr", random_pixels(8, 8), "yx")
    (plane,) = image_planes(open_image(a), 0, (0,))
    a.rename(tmp_path / "b.zarr")
    with pytest.raises(RunError, match=r"a\.zarr/0: cannot be read: .*No such file"):
        plane.read(ALL, ALL)
