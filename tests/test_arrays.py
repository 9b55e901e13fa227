"""Sequences from NumPy's files, and what malformed ones are told."""

import pickle

import numpy as np
import pytest

from elman.data import arrays
from elman.data.arrays import read_arrays, read_named_arrays
from elman.errors import FileError


@pytest.mark.parametrize("kind", ["<f4", ">f8", "i2", "?"])
@pytest.mark.parametrize("shape", [(4, 5, 3), (5, 3), (5,)])
def test_npy(tmp_path, kind, shape):
    whole = np.random.default_rng(0).integers(0, 2, shape).astype(kind)
    np.save(tmp_path / "a.npy", whole)
    found = read_arrays(tmp_path / "a.npy")
    expected = {1: [whole.reshape(-1, 1)], 2: [whole], 3: list(whole)}[len(shape)]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other)


def test_npz_in_its_order(tmp_path):
    given = {"b": np.ones((3, 2)), "a": np.zeros((2, 4, 2)), "c": np.arange(3)}
    np.savez_compressed(tmp_path / "a.npz", **given)
    found = read_arrays(tmp_path / "a.npz")
    assert [array.shape for array in found] == [(3, 2), (4, 2), (4, 2), (3, 1)]
    assert list(read_named_arrays(tmp_path / "a.npz")) == ["b", "a", "c"]


def test_fortran_order_and_a_mapped_file(tmp_path):
    whole = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    np.save(tmp_path / "a.npy", whole)
    (found,) = read_arrays(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, whole)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.array([["a"]]), "expected numbers, got <U1"),
        (np.array([[1j]]), "expected numbers, got complex128"),
        (np.zeros((0, 3)), r"its shape is \(0, 3\)"),
        (np.zeros((2, 0)), r"its shape is \(2, 0\)"),
        (np.float32(3), r"its shape is \(\)"),
        (np.zeros((1, 1, 1, 1)), r"its shape is \(1, 1, 1, 1\)"),
        (np.array([[[0, 1]], [[np.nan, 2]]]), r"entry \[1, 0, 0\] is nan"),
        (np.array([1, 2, -np.inf]), r"entry \[2\] is -inf"),
    ],
    ids=["text", "complex", "no-rows", "no-features", "scalar", "four", "nan", "inf"],
)
def test_arrays_that_are_no_sequences(tmp_path, value, says):
    np.save(tmp_path / "a.npy", value)
    np.savez(tmp_path / "a.npz", good=np.ones((2, 2)), bad=value)
    with pytest.raises(FileError, match=f"^{tmp_path / 'a.npy'}: {says}"):
        read_arrays(tmp_path / "a.npy")
    with pytest.raises(FileError, match=f"^{tmp_path / 'a.npz'}: bad: {says}"):
        read_arrays(tmp_path / "a.npz")


def test_nan_is_found_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "_PIECE", 7)
    value = np.zeros((100, 3))
    value[58, 1] = np.nan
    np.save(tmp_path / "a.npy", value)
    with pytest.raises(FileError, match=r"entry \[58, 1\] is nan"):
        read_arrays(tmp_path / "a.npy")


class Trap:
    """Unpickling it would raise."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file ran')",))


def test_no_code_of_a_file_runs(tmp_path):
    value = np.array([Trap(), 1], dtype=object)
    np.save(tmp_path / "a.npy", value, allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=value, allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(FileError, match="its entries are Python objects"):
            read_arrays(tmp_path / name)
    with pytest.raises(FileError, match=r"b.npy: is no .npy or .npz file"):
        read_arrays(tmp_path / "b.npy")


def test_damaged_files(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((50, 2)))
    np.savez(tmp_path / "a.npz", x=np.ones((50, 2)))
    for name in ("a.npy", "a.npz"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(FileError, match=f"{name}: damaged"):
            read_arrays(path)
    whole = bytearray((tmp_path / "a.npy").read_bytes())
    np.savez(tmp_path / "b.npz", x=np.ones((50, 2)))
    whole = bytearray((tmp_path / "b.npz").read_bytes())
    whole[300] ^= 255
    (tmp_path / "b.npz").write_bytes(whole)
    with pytest.raises(FileError, match=r"b.npz: x: damaged"):
        read_arrays(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz")
    with pytest.raises(FileError, match=r"c.npz: holds no array"):
        read_arrays(tmp_path / "c.npz")
