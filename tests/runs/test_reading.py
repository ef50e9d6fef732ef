"""Arrays of a checkpoint come back on any devices, in little more memory than they need."""

import ctypes
import gc
import threading
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aejax.mesh import with_sharding
from aejax.runs import checkpoint, manifests
from aejax.runs.checkpoint import Saver
from aejax.runs.progress import Progress

MIB = 2**20
LIBC = ctypes.CDLL(None)


def over(sizes: tuple[int, int], spec: PartitionSpec) -> NamedSharding:
    devices = np.asarray(jax.devices()[: sizes[0] * sizes[1]]).reshape(sizes)
    return NamedSharding(Mesh(devices, ("a", "b")), spec)


ONE = over((1, 1), PartitionSpec())
PLACES = {
    "one": ONE,
    "whole": over((4, 2), PartitionSpec()),
    "rows": over((4, 2), PartitionSpec(("a", "b"))),
    "columns": over((5, 1), PartitionSpec(None, "a")),
    "tiles": over((4, 2), PartitionSpec("a", "b")),
    "some": over((2, 4), PartitionSpec("a")),
}


def save(workdir: str, arrays: dict[str, jax.Array]) -> None:
    saver = Saver(workdir, keep=1, say=print)
    saver.save(1, {"params": arrays}, Progress(step=1))
    saver.wait()


def load(workdir: str, shardings, shared: bool = False) -> dict[str, jax.Array]:
    target = with_sharding(manifests.shapes(workdir, 1, "params"), shardings)
    return checkpoint.load(workdir, 1, {"params": target}, shared)["params"]


@pytest.fixture(scope="module", params=["one", "tiles"])
def stored(request, tmp_path_factory) -> tuple[str, np.ndarray]:
    """A matrix in 16 chunks or more, written from one device or in 8 shards; a number beside it."""
    workdir = str(tmp_path_factory.mktemp(f"{request.param} #1 100%25?"))
    matrix = np.arange(240 * 400, dtype=np.float32).reshape(240, 400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_CHUNK_BYTES", matrix.nbytes // 16)
        small = {"number": jnp.int32(7), "half": jnp.arange(80, dtype=jnp.bfloat16)}
        save(workdir, {"matrix": jax.device_put(matrix, PLACES[request.param]), **small})
    return workdir, matrix


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_arrays_come_back_on_other_devices(stored, place, shared):
    workdir, matrix = stored
    read = load(workdir, {"matrix": PLACES[place], "number": ONE, "half": ONE}, shared)
    assert read["matrix"].sharding == PLACES[place] and read["half"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(read["matrix"], matrix)
    np.testing.assert_array_equal(read["half"], np.arange(80))
    assert int(read["number"]) == 7


def test_devices_share_equal_shards_only_where_nothing_is_donated(stored):
    def addresses(array: jax.Array) -> set[int]:
        return {shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards}

    workdir, matrix = stored
    places = {"matrix": PLACES["some"], "number": ONE, "half": ONE}
    assert len(addresses(load(workdir, places, shared=True)["matrix"])) == 2
    own = load(workdir, places)["matrix"]
    before = addresses(own)
    assert len(before) == 8
    # A donated array that JAX had not copied would be copied now.
    assert addresses(jax.jit(lambda x: x + 1, donate_argnums=0)(own)) == before


def peak(function: Callable[[], object]) -> float:
    """How much more memory, in MiB, this process has at most while the function runs."""

    def resident() -> float:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["VmRSS"].split()[0]) / 1024

    gc.collect()
    if hasattr(LIBC, "malloc_trim"):  # glibc would use again what was freed
        LIBC.malloc_trim(0)
    found, end = [resident()], threading.Event()

    def watch():
        while not end.is_set():
            found.append(resident())
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        function()
    finally:
        end.set()
        thread.join()
    return max(found) - found[0]


@pytest.mark.parametrize(
    ("before", "after", "shared", "most"),
    [
        ("one", "whole", True, 1.2),
        ("rows", "tiles", True, 1.2),
        # Arrays that may be donated are copied, one after the other.
        ("rows", "one", False, 1.7),
        ("one", "rows", False, 1.7),
    ],
)
def test_two_large_arrays_need_little_more_memory_than_they_have(
    tmp_path, before, after, shared, most
):
    row = np.random.default_rng(0).standard_normal(2048, np.float32)
    whole = np.resize(row, (16384, 2048))
    save(str(tmp_path), {name: jax.device_put(whole, PLACES[before]) for name in ("one", "two")})
    size, read = 2 * whole.nbytes / MIB, {}
    del whole
    needed = peak(lambda: read.update(load(str(tmp_path), PLACES[after], shared)))
    np.testing.assert_array_equal(read["two"].addressable_shards[-1].data[-1, -1], row[-1])
    assert 0.9 * size <= needed <= most * size


@pytest.mark.parametrize(
    ("shape", "place", "chunk"),
    [
        ((512, 512), "one", (128, 128)),
        ((512, 512), "rows", (32, 512)),
        ((90, 90), "one", (90, 90)),
        ((2 * 521, 40), "one", (521, 40)),
        ((4099, 8), "one", (4099, 8)),  # a prime: chunks of a row each would be too many
    ],
)
def test_large_arrays_are_stored_in_chunks_neither_large_nor_many(
    tmp_path, monkeypatch, shape, place, chunk
):
    monkeypatch.setattr(checkpoint, "_CHUNK_BYTES", 2**16)
    save(str(tmp_path), {"x": jax.device_put(np.ones(shape, np.float32), PLACES[place])})
    folder = manifests.step_folder(str(tmp_path), 1)
    store = {"driver": "ocdbt", "base": f"file://{folder}/state/", "path": "params/x/"}
    stored = tensorstore.open({"driver": "zarr3", "kvstore": store}).result()
    assert stored.chunk_layout.read_chunk.shape == chunk
