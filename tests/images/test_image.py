"""Facts of an image, and the memory that its chunks need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bigunet.errors import MemoryLimitError
from bigunet.images.image import check_chunk_memory
from bigunet.images.open import open_image
from tests.images.made_images import (
    bare_image,
    made_up,
)


def test_pixel_size_is_in_micrometres() -> None:
    assert made_up([0.25]).pixel_size(0) == 0.25
    assert made_up([250.0], "nanometer").pixel_size(0) == 0.25
    assert made_up([0.25], None).pixel_size(0) is None
    level = replace(made_up([1.0]).levels[0], scale=(4.0, 9.0))
    assert replace(made_up([1.0]), levels=(level,)).pixel_size(0) == pytest.approx(6)


def test_giant_chunks_are_refused_with_both_figures(tmp_path: Path) -> None:
    group = bare_image(tmp_path / "a.zarr", "cyx", ("0", "1"))
    # 16 pixels that decode to 1 GiB, and a shard of 32 GiB
    group.create_array("0", shape=(1, 4, 4), chunks=(1, 2**15, 2**15), dtype="u1")
    group.create_array(
        "1", shape=(1, 2**17, 2**17), chunks=(1, 512, 512), shards=(1, 2**17, 2**17), dtype="u2"
    )
    image = open_image(tmp_path / "a.zarr")
    check_chunk_memory(image, 0, 2**30)
    with pytest.raises(
        MemoryLimitError, match=r"chunk of 1 × 32768 × 32768 uint8.*1\.07 GB.*0\.54 GB"
    ):
        check_chunk_memory(image, 0, 2**29)
    with pytest.raises(MemoryLimitError, match=r"shard of 1 × 131072 .*34\.36 GB.* 1\.07 GB"):
        check_chunk_memory(image, 1, 2**30)
