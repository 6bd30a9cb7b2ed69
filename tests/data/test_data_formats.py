"""Every DATA form gives the same samples with stable ids, and memory that does not grow with their number."""

import gzip
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paths import SHARED
from saddlepoint import data
from saddlepoint.core.errors import DataError, InputOutsideDomain
from saddlepoint.data.openml import from_bunch, is_openml
from saddlepoint.data.rows import FileRows
from saddlepoint.geometry import Box
from saddlepoint.spec import Access, Model

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (12, 6, 5, 3), np.uint8)
LABELS = np.arange(12) % 3


def idx_bytes(a):
    code = {"uint8": 8, "float32": 0x0D}[str(a.dtype)]
    head = bytes([0, 0, code, a.ndim]) + b"".join(n.to_bytes(4, "big") for n in a.shape)
    return head + a.astype(a.dtype.newbyteorder(">")).tobytes()


# -- digits ----------------------------------------------------------------------------------------------
def test_digits_and_their_fixed_split():
    whole, train, test = (data.load(s) for s in ("digits", "digits:train", "digits:test"))
    assert (len(whole), len(train), len(test)) == (1797, 1438, 359)
    assert whole.shape == (1, 8, 8)
    assert whole.classes == 10
    assert set(train.ids) | set(test.ids) == set(whole.ids)
    assert not set(train.ids) & set(test.ids)
    batch = test.take([0, 7])
    assert torch.equal(batch.x, whole.take([int(i) for i in batch.ids]).x)  # ids are rows of the whole
    assert whole.value_range == (0.0, 1.0)
    assert whole.digest == data.load("digits").digest != train.digest
    with pytest.raises(DataError, match="digits:train"):
        data.load("digits:valid")


# -- npz -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_members_are_read_alike(tmp_path, save):
    save(tmp_path / "f.npz", x=IMAGES, y=LABELS, x_test=IMAGES[:5], y_test=LABELS[:5, None])
    samples = data.load(str(tmp_path / "f.npz"))
    part = data.load(f"{tmp_path / 'f.npz'}:test")
    expected = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255
    batch = samples.take([3, 4, 5, 1])
    assert torch.equal(batch.x, expected[[3, 4, 5, 1]])
    assert batch.y.tolist() == LABELS[[3, 4, 5, 1]].tolist()
    assert batch.ids == ("3", "4", "5", "1")
    assert len(part) == 5
    assert samples.digest == data.from_arrays(IMAGES, LABELS).digest
    assert [len(b) for b in samples.batches(5)] == [5, 5, 2]


def test_npz_of_other_layouts(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "f.npz"
        wide = np.asfortranarray(RNG.normal(size=(9, 4)))
        np.savez(file, x=wide, y=LABELS[:9].astype(np.float64))
        samples = data.load(str(file), dtype=torch.float64)
        assert np.array_equal(samples.take(slice(None)).x.numpy(), wide)
        assert samples.labels.dtype == np.int64
        np.savez(file, x=wide.astype(">f4"), y=LABELS[:9] > 0)
        assert np.allclose(data.load(str(file)).take([8]).x.numpy(), wide[8])


def test_real_archives():
    mnist = data.load(f"{SHARED / 'mnist.npz'}:test")
    assert (len(mnist), mnist.shape, mnist.classes) == (10_000, (1, 28, 28), 10)
    assert mnist.labels[:4].tolist() == [7, 2, 1, 0]
    spam = data.load(str(SHARED / "tabular" / "spambase.npz"))
    assert (len(spam), spam.shape, spam.classes) == (4601, (57,), 2)
    assert spam.value_range[1] == 15_841  # floats stay


def test_unpacked_members_disappear_with_their_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    np.savez_compressed(tmp_path / "f.npz", x=IMAGES, y=LABELS)
    samples = data.load(str(tmp_path / "f.npz"))
    assert len(list(tmp_path.glob("*.rows"))) == 1
    samples.take([0])
    samples.close()
    assert not list(tmp_path.glob("*.rows"))
    again = data.load(str(tmp_path / "f.npz"))
    del again
    assert not list(tmp_path.glob("*.rows"))


@pytest.mark.parametrize("save", ["savez", "savez_compressed"])
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path, save):
    code = """
import sys, resource, numpy as np, torch
from saddlepoint import data
torch.set_num_threads(1)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
for n in ("small", "large"):
    samples = data.load(f"{sys.argv[1]}/{n}.npz")
    samples.digest
    for batch in samples.batches(): pass
    print(peak())
"""
    rng = np.random.default_rng(0)
    for name, n in (("small", 300), ("large", 6000)):
        x = rng.integers(0, 8, (n, 3, 32, 32), np.uint8)  # 18 MB
        getattr(np, save)(tmp_path / f"{name}.npz", x=x, y=np.arange(n) % 7)
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    small, large = map(int, out.stdout.split())
    assert large - small < 8e6  # holding the archive would take 17 MB more, a float copy 70 MB


# -- IDX -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_find_their_labels(tmp_path, packed):
    grey = IMAGES[..., 0].copy()
    for part, n in (("train", 12), ("t10k", 6)):
        for kind, a in (("images-idx3", grey[:n]), ("labels-idx1", LABELS[:n].astype(np.uint8))):
            raw = idx_bytes(a)
            name = f"{part}-{kind}-ubyte" + (".gz" if packed else "")
            (tmp_path / name).write_bytes(gzip.compress(raw) if packed else raw)
    samples = data.load(f"{tmp_path}:test")
    direct = data.load(str(tmp_path / ("t10k-images-idx3-ubyte" + (".gz" if packed else ""))))
    assert samples.shape == (1, 6, 5)
    assert torch.equal(samples.take([2]).x, torch.from_numpy(grey[2:3, None]).float() / 255)
    assert samples.digest == direct.digest
    assert len(data.load(f"{tmp_path}:train")) == 12
    with pytest.raises(DataError, match="FOLDER:train"):
        data.load(str(tmp_path))


def test_idx_of_floats_is_big_endian(tmp_path):
    x = RNG.normal(size=(6, 4)).astype(np.float32)
    (tmp_path / "a-images-idx2-float").write_bytes(idx_bytes(x))
    (tmp_path / "a-labels-idx1-float").write_bytes(idx_bytes(LABELS[:6].astype(np.uint8)))
    assert np.array_equal(data.load(str(tmp_path / "a-images-idx2-float")).take(range(6)).x.numpy(), x)


def test_fashion_mnist_of_debian():
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("the package dataset-fashion-mnist is not installed")
    assert len(data.load(f"{folder}:test")) == 10_000


# -- folders ---------------------------------------------------------------------------------------------
def test_folders_of_images_by_class(tmp_path):
    for i, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        folder = tmp_path / ("cat", "ant", "bee")[label] / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02}.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    samples = data.load(str(tmp_path))
    assert samples.class_names == ("ant", "bee", "cat")
    assert samples.classes == 3
    assert samples.ids[0] == "ant/deep/01.png"
    batch = samples.take([0, 11])
    assert torch.equal(batch.x[0], torch.from_numpy(IMAGES[1]).permute(2, 0, 1).float() / 255)
    assert batch.y.tolist() == [0, 2]
    mark = samples.digest
    Image.fromarray(IMAGES[0]).save(tmp_path / "ant" / "deep" / "01.png")
    assert data.load(str(tmp_path)).digest != mark


def test_a_folder_of_grey_images(tmp_path):
    for i, kind in enumerate("ab"):
        (tmp_path / kind).mkdir()
        Image.fromarray(IMAGES[i, ..., 0]).save(tmp_path / kind / "x.png")
    assert data.load(str(tmp_path)).shape == (1, 6, 5)


# -- arrays and layouts ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ((7, 5, 3), (3, 7, 5)),  # NHWC
        ((7, 5, 1), (1, 7, 5)),
        ((3, 7, 5), (3, 7, 5)),  # NCHW stays
        ((1, 7, 3), (1, 7, 3)),  # axis 1 is a channel axis already
        ((3, 5, 3), (3, 5, 3)),
        ((7, 5, 4), (7, 5, 4)),  # neither
        ((28, 28), (1, 28, 28)),
        ((784, 1), (784, 1)),  # a column is no image
        ((57,), (57,)),
    ],
)
def test_layouts(raw, seen):
    x = RNG.random((4, *raw)).astype(np.float32)
    samples = data.from_arrays(x, [0, 1, 0, 1])
    assert samples.shape == seen
    assert samples.take([2]).x.shape == (1, *seen)
    assert np.isclose(samples.take(range(4)).x.numpy().sum(), x.sum())


@given(st.lists(st.integers(0, 11), max_size=30))
def test_take_gives_what_is_asked_for_in_that_order(at):
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"12345" + IMAGES.tobytes())
        file.flush()
        rows = FileRows(Path(file.name), 5, 12, (6, 5, 3), np.dtype(np.uint8))
        assert np.array_equal(rows.read(np.array(at, np.int64)), IMAGES[np.array(at, np.int64)])
    batch = data.from_arrays(IMAGES, LABELS).take(at)
    assert batch.ids == tuple(str(i) for i in at)
    assert batch.y.tolist() == [int(LABELS[i]) for i in at]


def test_values_and_types():
    x = np.array([[0, 255], [51, 102]], np.uint8)
    assert data.from_arrays(x, [0, 1]).take([0, 1]).x.tolist() == (torch.tensor([[0.0, 1.0], [0.2, 0.4]])).tolist()
    assert data.from_arrays(x.astype(bool), [0, 1]).take([0]).x.tolist() == [[0.0, 1.0]]
    ints = data.from_arrays(x.astype(np.int32), [0, 1])
    assert ints.take([0]).x.tolist() == [[0.0, 255.0]]
    assert "used as they are" in ints.notes[0]
    bits = data.from_arrays((x > 60).astype(np.uint8), [0, 1])
    assert "save bool" in bits.notes[0]
    third = np.array([[1 / 3], [2 / 3]])
    assert data.from_arrays(third, [0, 1], dtype=torch.float64).take([0]).x.item() == 1 / 3
    assert data.from_arrays(third, [0, 1]).take([0]).x.dtype == torch.float32
    tensors = data.from_arrays(torch.tensor(third), torch.tensor([1, 0]), ["a", "b"])
    assert tensors.take([1]).ids == ("b",)


def test_taking_does_not_change_the_data():
    samples = data.from_arrays(RNG.random((4, 3)), [0, 1, 0, 1], dtype=torch.float64)
    before = samples.take([1]).x.clone()
    samples.take(slice(None)).x.zero_()
    assert torch.equal(samples.take([1]).x, before)


def test_another_shape_of_the_same_values():
    samples = data.from_arrays(IMAGES[..., 0], LABELS).with_shape((30,))
    assert samples.take([4]).x.shape == (1, 30)
    with pytest.raises(DataError, match="sizes differ"):
        samples.with_shape((31,))


def test_openml_tables_and_names():
    samples = from_bunch(RNG.random((40, 3)), np.array(["no", "yes"] * 20, object), "spam")
    assert samples.class_names == ("no", "yes")
    assert samples.labels[:3].tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="no numbers"):
        from_bunch(np.array([["a"], ["b"]], object), ["x", "y"], "words")
    with pytest.raises(DataError, match="Regression"):
        from_bunch(RNG.random((500, 2)), RNG.random(500), "prices")
    assert is_openml("mnist_784")
    assert is_openml("openml:credit-g@1")
    assert not is_openml("a/b")


# -- against a model -------------------------------------------------------------------------------------
def model(lower=0.0, upper=1.0, shape=(1, 6, 5), classes=3):
    return Model(lambda x: x.flatten(1)[:, :classes], Box(lower, upper), classes, Access.SCORES, "d", shape)


def test_data_that_fits_a_model_passes():
    data.check_against(data.from_arrays(IMAGES[..., 0], LABELS), model())
    data.check_against(data.from_arrays(IMAGES[..., 0] / 255.0, LABELS), model())


@pytest.mark.parametrize(
    ("x", "of", "says"),
    [
        ((IMAGES[..., 0] / 255.0 - 0.5) / 0.2, model(), "mean= and std="),
        (IMAGES[..., 0].astype(np.float32), model(), "Divide by 255"),
        (IMAGES[..., 0], model(0.25, 0.75), "--domain"),
    ],
)
def test_images_outside_the_domain_say_how_to_mend_it(x, of, says):
    with pytest.raises(InputOutsideDomain, match=says):
        data.check_against(data.from_arrays(x, LABELS), of)


def test_shapes_and_labels_that_do_not_fit():
    samples = data.from_arrays(IMAGES[..., 0], LABELS)
    with pytest.raises(DataError, match="with_shape"):
        data.check_against(samples, model(shape=(30,)))
    with pytest.raises(DataError, match="Resize"):
        data.check_against(samples, model(shape=(1, 28, 28)))
    with pytest.raises(DataError, match=r"Label 2 .*2 classes"):
        data.check_against(samples, model(classes=2))
