"""Pictures: every kind of file as the pixels that one sees, in one size and mode, or refused."""

import os
import threading

import numpy as np
import pytest
from PIL import Image

from aejax.data.sources import decode, images, open_source
from aejax.data.sources.base import names
from aejax.errors import InputError

MODES = {"L": 1, "RGB": 3, "RGBA": 4}


def picture(path, value: int, size: tuple[int, int] = (5, 4), mode: str = "RGB") -> np.ndarray:
    """Writes random pixels and returns them, [height, width, ...]."""
    random, shape = np.random.RandomState(value), (size[1], size[0])
    if mode == "I;16":
        return save(path, random.randint(0, 65536, shape).astype(np.uint16))
    shape = shape if mode == "L" else (*shape, MODES[mode])
    return save(path, random.randint(0, 256, shape).astype(np.uint8))


def save(path, image: np.ndarray | Image.Image, **options) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return np.asarray(image)


def rows(folder, options: str = "") -> np.ndarray:
    return open_source(f"images:{folder}{options}", "all")[:].x


def refused(text: str, *words: object, split: str = "train", read: bool = False):
    """Asserts that opening (and reading) fails in one line with all these words in it."""
    with pytest.raises(InputError) as caught:
        source = open_source(text, split)
        if read:
            source[:]
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"data.source={text}: ")
    for word in words:
        assert str(word) in message, message


# --- which files, splits and classes ---


def test_pictures_are_read_in_the_order_of_their_paths(tmp_path):
    second = picture(tmp_path / "b.bmp", 2)
    first = picture(tmp_path / "a" / "deep" / "z.PNG", 1)
    third = picture(tmp_path / "c.tif", 3)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._b.png").write_text("no picture either")
    source = open_source(f"images:{tmp_path}", "all")
    assert (source.spec.shape, source.spec.dtype, source.spec.maximum) == ((4, 5, 3), "uint8", 255)
    assert not source.spec.labelled and source.spec.classes == ()
    assert source[:].x.tolist() == [first.tolist(), second.tolist(), third.tolist()]
    assert source[np.array([2, 0])].x.tolist() == [third.tolist(), first.tolist()]
    assert names(source, np.array([2, 0])) == ["c.tif", "a/deep/z.PNG"]


def test_sub_folders_are_classes_and_are_shuffled_into_both_splits(tmp_path):
    for name in ("owl", "cat"):
        for number in range(20):
            picture(tmp_path / name / f"{number:02}.png", number, mode="L")
    whole = open_source(f"images:{tmp_path}", "all")
    assert whole[:].label.tolist() == [0] * 20 + [1] * 20
    assert whole.spec.classes == ("cat", "owl")
    train, test = (open_source(f"images:{tmp_path}", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (36, 4)
    assert set(train[:].label) == {0, 1}
    order = np.random.RandomState(0).permutation(40)
    assert np.concatenate([train[:].x, test[:].x]).tolist() == whole[order].x.tolist()
    assert np.concatenate([train[:].label, test[:].label]).tolist() == whole[order].label.tolist()
    files = names(train, np.arange(36)) + names(test, np.arange(4))
    assert files == names(whole, order)


def test_sub_folders_train_and_test_are_the_splits(tmp_path):
    for path in ("train/b/1.png", "train/c/2.png", "test/c/3.png", "test/a/4.png"):
        picture(tmp_path / path, int(path[-5]))
    train, test = (open_source(f"images:{tmp_path}", split) for split in ("train", "test"))
    assert train[:].label.tolist() == [1, 2]  # one numbering, though train has no class a
    assert test[:].label.tolist() == [0, 2]
    assert train.spec.classes == test.spec.classes == ("a", "b", "c")
    joined = open_source(f"images:{tmp_path}", "train+test[:1]")
    assert joined[:].label.tolist() == [1, 2, 0]
    assert names(joined, np.array([2, 0])) == ["test/a/4.png", "train/b/1.png"]
    refused(
        f"images:{tmp_path}", "no split validation; accepted: all, train, test", split="validation"
    )
    picture(tmp_path / "more" / "5.png", 5)
    refused(f"images:{tmp_path}", "more/5.png", "outside")


def test_links_are_followed_but_not_in_circles(tmp_path):
    x = picture(tmp_path / "far" / "größe 1.png", 1)
    folder = tmp_path / "a folder=#1 ü"
    folder.mkdir()
    (folder / "inner").symlink_to(tmp_path / "far")
    (folder / "one.png").symlink_to(tmp_path / "far" / "größe 1.png")
    (folder / "circle").symlink_to(folder)
    (tmp_path / "far" / "back").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    (tmp_path / "link").symlink_to(folder)
    for path in (folder, tmp_path / "link"):
        source = open_source(f"images:{path}", "all")
        assert source[:].x.tolist() == [x.tolist()] * 2
        assert names(source, np.arange(2)) == ["inner/größe 1.png", "one.png"]
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    refused(f"images:{folder}", folder / "gone.png", "cannot be read")


# --- pixels ---


def test_grey_stays_grey_and_becomes_rgb_among_colours(tmp_path):
    x = picture(tmp_path / "grey" / "a.png", 1, mode="L")
    assert rows(tmp_path / "grey").tolist() == [x[..., None].tolist()]
    # whichever comes first
    for name in ("0.png", "z.png"):
        folder = tmp_path / name
        colours = picture(folder / name, 2)
        picture(folder / "a.png", 1, mode="L")
        wanted = [colours, np.repeat(x[..., None], 3, axis=2)]
        assert rows(folder).tolist() == [w.tolist() for w in wanted[:: 1 if name < "a" else -1]]
        assert rows(folder, "?mode=grey").shape == (2, 4, 5, 1)


def test_modes_become_what_one_sees(tmp_path):
    red = Image.new("RGB", (2, 2), (200, 10, 20))
    palette = red.quantize(4)
    cases = {
        "palette.png": (palette, {}, (200, 10, 20)),
        "opaque.png": (red.convert("RGBA"), {}, (200, 10, 20)),
        # half of black on white
        "half.png": (Image.new("RGBA", (2, 2), (0, 0, 0, 128)), {}, (127, 127, 127)),
        "clear.png": (Image.new("RGBA", (2, 2), (9, 9, 9, 0)), {}, (255, 255, 255)),
        "clear_palette.png": (palette, {"transparency": 0}, (255, 255, 255)),
        "cmyk.tif": (Image.new("CMYK", (2, 2), (0, 255, 0, 0)), {}, (255, 0, 255)),
    }
    for name, (image, options, wanted) in cases.items():
        save(tmp_path / name / name, image, **options)
        (x,) = rows(tmp_path / name)
        assert x.dtype == np.uint8 and (x == wanted).all(), (name, x[0, 0])
    grey = {
        "bits.png": (Image.new("1", (2, 2), 1), {}, 255),
        "la.png": (Image.new("LA", (2, 2), (7, 255)), {}, 7),
        "la_half.png": (Image.new("LA", (2, 2), (0, 128)), {}, 127),
        "keyed.png": (Image.new("L", (2, 2), 7), {"transparency": 7}, 255),
    }
    for name, (image, options, wanted) in grey.items():
        save(tmp_path / name / name, image, **options)
        (x,) = rows(tmp_path / name)
        assert x.shape == (2, 2, 1) and (x == wanted).all(), (name, x[0, 0])


def test_greyscale_of_16_bits_is_read_as_numbers(tmp_path):
    first = picture(tmp_path / "deep" / "a.png", 1, mode="I;16")
    second = picture(tmp_path / "deep" / "b.tif", 2, mode="I;16")
    source = open_source(f"images:{tmp_path}/deep", "all")
    assert (source.spec.dtype, source.spec.maximum) == ("uint16", 65535)
    x = source[:].x
    assert x.dtype == np.uint16 and x[..., 0].tolist() == [first.tolist(), second.tolist()]
    eight = rows(tmp_path / "deep", "?mode=grey")
    assert eight.dtype == np.uint8
    np.testing.assert_array_equal(eight[0, ..., 0], np.rint(first / 257))
    assert rows(tmp_path / "deep", "?mode=rgb").shape == (2, 4, 5, 3)
    # values between those of 8 bits survive a change of size
    Image.fromarray(np.full((9, 9), 12345, np.uint16)).save(tmp_path / "even.png")
    form = decode.Form("grey16", (3, 4), "stretch")
    assert (decode.pixels(str(tmp_path / "even.png"), form) == 12345).all()
    shallow = picture(tmp_path / "deep" / "c.png", 3, mode="L")
    refused(
        f"images:{tmp_path}/deep", "a.png has 16 bits", "c.png has 8", "mode=grey16", "mode=rgb"
    )
    np.testing.assert_array_equal(
        rows(tmp_path / "deep", "?mode=grey16")[2, ..., 0], shallow.astype(np.uint16) * 257
    )


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_pictures_are_turned_as_the_camera_says(tmp_path, suffix, orientation):
    # four plain corners, which JPEG keeps
    stored = np.kron(np.array([[0, 80], [160, 240]]), np.ones((8, 16))).astype(np.uint8)
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[274] = orientation
    lossless = {"lossless": True} if suffix == "webp" else {}
    save(tmp_path / f"a.{suffix}", image, exif=exif, **lossless)
    # what EXIF says of the side that holds row 0, and of the one that holds column 0
    turns = [
        lambda x: x,
        lambda x: x[:, ::-1],
        lambda x: x[::-1, ::-1],
        lambda x: x[::-1],
        lambda x: x.T,
        lambda x: x.T[:, ::-1],
        lambda x: x.T[::-1, ::-1],
        lambda x: x.T[::-1],
    ]
    (x,) = rows(tmp_path, "?mode=grey")
    np.testing.assert_allclose(x[..., 0].astype(int), turns[orientation - 1](stored), atol=2)


def test_sizes(tmp_path):
    """A picture that is white but for a black third on either side."""
    wide = np.full((20, 60), 255, np.uint8)
    wide[:, :20] = wide[:, 40:] = 0
    save(tmp_path / "wide.png", wide)
    picture(tmp_path / "other.png", 1, size=(33, 47), mode="L")
    refused(
        f"images:{tmp_path}", "wide.png is 60x20, but", "other.png is 33x47", "size=64", "fit=crop"
    )

    def sized(options: str) -> np.ndarray:
        return rows(tmp_path, options)[1, ..., 0]

    assert (sized("?size=20") == 255).all()  # crop: its middle
    padded = sized("?size=30&fit=pad")
    assert (padded[:10] == 0).all() and (padded[20:] == 0).all() and padded[15, 15] == 255
    assert padded[15, 3] == 0
    stretched = sized("?size=30x40&fit=stretch")
    assert stretched.shape == (40, 30) and (stretched[:, 13:17] == 255).all()
    assert (stretched[:, [0, -1]] == 0).all()
    (same,) = open_source(f"images:{tmp_path}?size=60x20", "all")[np.array([1])].x
    assert same[..., 0].tolist() == wide.tolist()


def test_a_large_jpeg_is_the_same_as_if_decoded_whole(tmp_path):
    y, x = np.mgrid[:800, :1000]
    smooth = (127 + 60 * np.sin(x / 90) + 60 * np.cos(y / 70)).astype(np.uint8)
    for suffix in ("jpg", "png"):
        save(tmp_path / f"a.{suffix}", smooth)
    jpeg, png = rows(tmp_path, "?size=50x40").astype(int)
    assert np.abs(jpeg - png).max() <= 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("size=0", ("size=0: must be a number of pixels or WIDTHxHEIGHT",)),
        ("size=64x", ("size=64x: must be",)),
        ("size=8&fit=crob", ("fit=crob: must be one of crop, pad, stretch; did you mean crop?",)),
        ("mode=gray", ("mode=gray: must be one of rgb, grey, grey16; did you mean grey?",)),
        ("broken=yes", ("broken=yes: must be one of refuse, skip",)),
        ("sise=8", ("no option 'sise'", "did you mean size?", "images:FOLDER?size=64")),
        ("fit=pad", ("fit=pad: needs a size",)),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, options, words):
    picture(tmp_path / "a.png", 1)
    refused(f"images:{tmp_path}?{options}", *words)


# --- what cannot be read ---


def test_pictures_that_do_not_fit_are_named(tmp_path):
    source = f"images:{tmp_path}"
    refused(source, tmp_path, "no pictures", ".png")
    picture(tmp_path / "a.png", 1)
    other = tmp_path / "b.tif"
    Image.fromarray(np.ones((4, 5), np.float32)).save(other)
    refused(source, other, "32 bits (mode F)", "greyscale of 16")
    other.write_text("no picture")
    refused(source, other, "cannot be read", "1 of 2", "broken=skip")
    other.unlink()
    opened = open_source(source, "all")
    picture(tmp_path / "a.png", 1, size=(7, 4))
    with pytest.raises(InputError, match=r"a\.png is 7x4, but was 5x4 before"):
        _ = opened[:]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_a_picture_that_is_cut_off_is_named_at_the_start(tmp_path, suffix):
    picture(tmp_path / "a.png", 1, size=(40, 40))
    path = tmp_path / f"b.{suffix}"
    picture(path, 2, size=(40, 40))
    assert len(rows(tmp_path)) == 2
    os.truncate(path, path.stat().st_size - 100)
    refused(f"images:{tmp_path}", path, "cannot be read", "1 of 2", "broken=skip", split="all")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_whole_pictures_are_not_decoded_at_the_start(tmp_path, suffix, monkeypatch):
    picture(tmp_path / f"a.{suffix}", 1, size=(40, 40))
    with Image.open(tmp_path / f"a.{suffix}") as image:
        monkeypatch.setattr(type(image), "load", lambda self: pytest.fail("decoded"))
    assert open_source(f"images:{tmp_path}", "all").spec.shape == (40, 40, 3)


def test_damage_in_the_middle_is_named_when_it_is_read(tmp_path):
    picture(tmp_path / "a.png", 1, size=(40, 40))
    path = tmp_path / "b.png"
    picture(path, 2, size=(40, 40))
    data = bytearray(path.read_bytes())
    data[100:400] = bytes(300)
    path.write_bytes(data)
    source = f"images:{tmp_path}"
    refused(source, path, "cannot be read", "broken=skip leaves out", split="all", read=True)


def test_broken_pictures_are_left_out_and_told_of(tmp_path, capsys):
    good = {}
    for name in ("cat", "dog", "owl"):
        for number in range(10):
            path = tmp_path / name / f"{number}.png"
            good[f"{name}/{number}.png"] = picture(path, number, size=(20, 20), mode="L")
    for number in range(10):  # a whole class, which keeps its number
        (tmp_path / "dog" / f"{number}.png").write_bytes(b"")
    path = tmp_path / "owl" / "3.png"
    data = bytearray(path.read_bytes())
    data[90:200] = bytes(110)
    path.write_bytes(data)
    source = open_source(f"images:{tmp_path}?broken=skip", "all")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "11 of 30 pictures cannot be read and are left out: dog/0.png, dog/1.png" in said
    assert said.endswith("dog/4.png, ...\n")
    kept = names(source, np.arange(len(source)))
    assert kept == [each for each in good if not each.startswith("dog") and each != "owl/3.png"]
    assert source[:].label.tolist() == [0] * 10 + [2] * 9
    assert source.spec.classes == ("cat", "dog", "owl")
    for x, name in zip(source[:].x, kept, strict=True):
        assert x[..., 0].tolist() == good[name].tolist()
    for each in tmp_path.glob("*/*.png"):
        each.write_bytes(b"")
    refused(f"images:{tmp_path}?broken=skip", "30 of 30 pictures cannot be read")


def test_many_pictures_are_decoded_by_several_threads(tmp_path, monkeypatch):
    for number in range(6):
        picture(tmp_path / f"{number}.png", number)
    one = rows(tmp_path)
    seen, pixels = set(), decode.pixels

    def watched(path, form):
        seen.add(threading.current_thread().name.partition("_")[0])
        return pixels(path, form)

    monkeypatch.setattr(decode, "pixels", watched)
    monkeypatch.setattr(images, "_MANY", 6)
    assert rows(tmp_path).tolist() == one.tolist()
    assert seen == {"pictures"}
    picture(tmp_path / "9.png", 9, size=(2, 2))
    refused(f"images:{tmp_path}", "9.png is 2x2")
