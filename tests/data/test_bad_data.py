"""Data no claim can rest on is refused, with the value and the remedy."""

import gzip
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from saddlepoint import data
from saddlepoint.core.errors import DataError, RefusedFile

X = np.random.default_rng(0).random((6, 4)).astype(np.float32)
Y = [0, 1, 2, 0, 1, 2]


def changed(row, value, dtype=np.float32):
    x = X.astype(dtype)
    x[row, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (changed(4, np.nan), Y, r"nan \(row 4"),
        (changed(5, -np.inf), Y, r"-inf \(row 5"),
        (changed(3, 1e300, np.float64), Y, r"1e\+300 \(row 3"),
        (X, [0, 1, -1, 0, 1, 1], "Label -1 .*row 2.*negative"),
        (X, [0, 1, 0.5, 0, 1, 1], "0.5 .*not an integer"),
        (X, [0, 1, np.nan, 0, 1, 1], "nan .*not an integer"),
        (X, ["a", "b"] * 3, "Labels .*type"),
        (X, np.eye(6), "argmax"),
        (X, [0, 1], "6 inputs and 2 labels"),
        (X, [3] * 6, "one class only"),
        (X[:0], [], "no samples"),
        (X[:, :0], Y, "Every axis"),
        (X[:, 0], Y, "one row per sample"),
        (X.astype(complex), Y, "complex"),
        (X.astype(object), Y, "object"),
        (X.astype(str), Y, "type <U"),
    ],
)
def test_bad_arrays(x, y, says):
    with pytest.raises(DataError, match=says):
        data.from_arrays(x, y)


def test_bad_ids_positions_and_class_counts():
    with pytest.raises(DataError, match="repeat"):
        data.from_arrays(X, Y, ["a"] * 6)
    with pytest.raises(DataError, match="5 ids"):
        data.from_arrays(X, Y, list("abcde"))
    with pytest.raises(DataError, match=r"Label 2 .*outside 0\.\.1"):
        data.from_arrays(X, Y, classes=2)
    samples = data.from_arrays(X, Y)
    for at in ([6], [-1], np.array([[0]]), np.array([0.5])):
        with pytest.raises(DataError):
            samples.take(at)
    assert samples.take([]).x.shape == (0, 4)


# -- files -----------------------------------------------------------------------------------------------
def test_archives_with_missing_members(tmp_path):
    file = tmp_path / "f.npz"
    np.savez(file, x_test=X, y_test=Y, z=X)
    with pytest.raises(DataError, match=r"no member 'x'.*x_test.*FILE.npz:test"):
        data.load(str(file))
    with pytest.raises(DataError, match="x_valid"):
        data.load(f"{file}:valid")
    np.savez(file, images=X)
    with pytest.raises(DataError, match=r"numpy\.savez"):
        data.load(str(file))


def test_object_arrays_are_not_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemError('code ran while loading')",))

    file = tmp_path / "f.npz"
    np.savez(file, x=np.array([Evil()] * 6, object), y=Y)
    with pytest.raises(DataError, match="unpickling"):
        data.load(str(file))
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RefusedFile, match="pickle"):
        data.load(str(tmp_path / "f.pkl"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keep", [0, 50, 0.5, 0.99])
def test_truncated_archives(tmp_path, save, keep):
    file = tmp_path / "f.npz"
    save(file, x=X, y=Y)
    whole = file.read_bytes()
    file.write_bytes(whole[: keep if keep in (0, 50) else int(keep * len(whole))])
    with pytest.raises(DataError, match="truncated"):
        data.load(str(file))


def test_members_that_lie_about_their_size(tmp_path):
    file = tmp_path / "f.npz"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        np.savez(tmp_path / "ok.npz", x=X, y=Y)
        with zipfile.ZipFile(tmp_path / "ok.npz") as old, zipfile.ZipFile(file, "w", method) as new:
            new.writestr("x.npy", old.read("x.npy")[:-10])
            new.writestr("y.npy", old.read("y.npy"))
        with pytest.raises(DataError, match="header says 96"):
            data.load(str(file))


def test_a_flipped_byte_in_a_compressed_member_is_noticed(tmp_path):
    file = tmp_path / "f.npz"
    np.savez_compressed(file, x=np.random.default_rng(0).random((50, 40)), y=np.arange(50) % 2)
    raw = bytearray(file.read_bytes())
    raw[3000] ^= 1
    file.write_bytes(bytes(raw))
    with pytest.raises(DataError, match="damaged"):
        data.load(str(file))


def test_a_file_that_shrinks_after_loading(tmp_path):
    file = tmp_path / "f.npz"
    np.savez(file, y=Y, x=np.random.default_rng(0).random((6, 400)))
    samples = data.load(str(file))
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(DataError, match="truncated"):
        samples.take(slice(None))


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_idx_files(tmp_path, packed):
    ending = ".gz" if packed else ""
    images, labels = tmp_path / f"a-images-idx3-ubyte{ending}", tmp_path / f"a-labels-idx1-ubyte{ending}"
    head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (6, 2, 2))
    whole = head + bytes(24)

    def write(raw, cut=None):
        raw = gzip.compress(raw) if packed else raw
        images.write_bytes(raw[:cut])

    write(whole)
    with pytest.raises(DataError, match="no file of labels"):
        data.load(str(images))
    raw = bytes([0, 0, 8, 1]) + (6).to_bytes(4, "big") + bytes([0, 1, 2, 0, 1, 2])
    labels.write_bytes(gzip.compress(raw) if packed else raw)
    assert len(data.load(str(images))) == 6
    write(whole[:-3])
    with pytest.raises(DataError, match="header says 24"):
        data.load(str(images))
    write(b"GIF89a and so on")
    with pytest.raises(DataError, match="begin like an IDX"):
        data.load(str(images))
    write(whole, -12)
    with pytest.raises(DataError, match="truncated"):
        data.load(str(images))


def test_bad_folders(tmp_path):
    with pytest.raises(DataError, match="FOLDER/CLASS"):
        data.load(str(tmp_path))
    for kind in "ab":
        (tmp_path / kind).mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "1.png")
    with pytest.raises(DataError, match="one class only"):
        data.load(str(tmp_path))
    Image.new("RGB", (4, 5)).save(tmp_path / "b" / "2.png")
    with pytest.raises(DataError, match=r"b/2\.png is 5 x 4.*4 x 4"):
        data.load(str(tmp_path))
    (tmp_path / "b" / "2.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="no readable image"):
        data.load(str(tmp_path))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for kind in "ab":
        Image.fromarray(noise).save(tmp_path / kind / f"{'1' if kind == 'a' else '2'}.png")
    cut = tmp_path / "b" / "2.png"
    cut.write_bytes(cut.read_bytes()[:4000])
    with pytest.raises(DataError, match="truncated"):
        data.load(str(tmp_path)).take([1])


@pytest.mark.parametrize("spec", ["no/such/folder", "nothing.csv", "missing.npz", "missing.npz:test", "*?"])
def test_specs_that_name_nothing(spec, monkeypatch):
    def offline(*args, **kwargs):
        pytest.fail("a path was looked up in the network")

    monkeypatch.setattr("saddlepoint.data.openml.fetch_openml", offline)
    with pytest.raises(DataError):
        data.load(spec)


def test_an_unknown_name_without_network_says_what_data_can_be(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("saddlepoint.data.openml.fetch_openml", offline)
    with pytest.raises(DataError, match=r"digts.*FILE\.npz"):
        data.load("digts")


def test_float64_is_kept_only_where_asked():
    assert data.load("digits", dtype=torch.float64).take([0]).x.dtype == torch.float64
