"""Sealed work gives what it would give open, and a scheduler imports nothing of it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from dask.delayed import delayed

pytest.importorskip("distributed")

from bigunet.cluster.sealing import opened, sealed, sealed_graph

# In another process: where sealed work was unpickled, as a scheduler does, and not run.
UNPICKLE = """
import pickle, sys
pickle.load(sys.stdin.buffer)
assert not {"torch", "zarr", "bigunet.pipeline"} & set(sys.modules), sys.modules
"""


def test_a_call() -> None:
    assert opened(sealed(divmod, 17, 5)) == (3, 2)


def test_a_graph() -> None:
    """Of dask arrays, shared keys, lists and plain values."""
    array = da.arange(24, chunks=5).reshape(4, 6).rechunk((2, 3))
    parts = [part for row in array.to_delayed() for part in row]
    add = delayed(lambda arrays, times=1: sum(one.sum() for one in arrays) * times)
    for value in (add(parts), add(parts[:2], times=delayed(3)), parts[3], delayed(7)):
        same = sealed_graph(value)
        assert same.key == value.key
        assert set(same.__dask_graph__()) <= set(value.__dask_graph__())
        found, expected = dask.compute(same, value, scheduler="sync")
        np.testing.assert_array_equal(found, expected)


def _heavy() -> Any:
    from bigunet.images.planes import Plane
    from bigunet.work import check_place

    return check_place, Plane


def test_a_scheduler_imports_nothing_of_it() -> None:
    function, kind = _heavy()
    graph = dict(sealed_graph(delayed(function)(delayed(kind), [])).__dask_graph__())
    work = pickle.dumps((graph, opened, sealed(function, kind)))
    subprocess.run([sys.executable, "-c", UNPICKLE], input=work, check=True)
