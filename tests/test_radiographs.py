"""Radiograph files in every format and bit depth, and what must be refused."""

import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from fracsurv.images import dicom, radiographs
from fracsurv.images.radiographs import full_image_shape, read_radiograph, resize, source_kind
from fracsurv.utils.errors import UserError

rng = np.random.default_rng(0)
EIGHT = rng.integers(0, 256, (23, 17), dtype=np.uint8)
TWELVE = rng.integers(0, 4096, (23, 17), dtype=np.uint16)
SIXTEEN = rng.integers(0, 65536, (23, 17), dtype=np.uint16)


def write_dicom(path, pixels, *, stored=None, photometric="MONOCHROME2", signed=False, **extra):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.PatientName = "Secret^Name"
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    colour = photometric == "RGB"
    file.Rows, file.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 3 if colour else 1, photometric
    if colour:
        file.PlanarConfiguration = 0
    file.BitsAllocated = pixels.dtype.itemsize * 8
    file.BitsStored = stored or file.BitsAllocated
    file.HighBit = file.BitsStored - 1
    file.PixelRepresentation = int(signed)
    for name, value in extra.items():
        setattr(file, name, value)
    file.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    file.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("pixels", [EIGHT, TWELVE, SIXTEEN], ids=["8", "12", "16"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_lossless_pictures_come_back_as_they_were(tmp_path, pixels, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    read = read_radiograph(path)
    assert read.dtype == pixels.dtype == source_kind(path)[0]
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize(("pixels", "stored"), [(EIGHT, 8), (TWELVE, 12), (SIXTEEN, 16)], ids=["8", "12", "16"])
def test_dicom_photometric_round_trip(tmp_path, pixels, stored):
    top = 2**stored - 1
    plain = write_dicom(tmp_path / "a.dcm", pixels, stored=stored)
    turned = write_dicom(
        tmp_path / "b.dcm", (top - pixels).astype(pixels.dtype), stored=stored, photometric="MONOCHROME1"
    )
    for path in (plain, turned):
        read = read_radiograph(path)
        assert read.dtype == pixels.dtype == source_kind(path)[0]
        np.testing.assert_array_equal(read, pixels)


RESCALED = {"RescaleSlope": "2", "RescaleIntercept": "100"}


@pytest.mark.parametrize(
    ("pixels", "how", "wanted"),
    [
        (TWELVE, {"stored": 12} | RESCALED, TWELVE * 2 + 100),
        # stored 0 shows brightest: 4095 · 2 + 100; stored 4095 darkest: 100
        (TWELVE, {"stored": 12, "photometric": "MONOCHROME1"} | RESCALED, (4095 - TWELVE) * 2 + 100),
        (EIGHT, {"RescaleSlope": "4", "RescaleIntercept": "0"}, EIGHT.astype(np.uint16) * 4),
        (
            (TWELVE.astype(np.int32) - 2048).astype(np.int16),
            {"stored": 12, "signed": True, "RescaleIntercept": "2048", "RescaleSlope": "1"},
            TWELVE,
        ),
    ],
    ids=["12", "12 turned", "8", "signed"],
)
def test_rescale_is_applied_and_gives_16_bit(tmp_path, pixels, how, wanted):
    path = write_dicom(tmp_path / "a.dcm", pixels, **how).rename(tmp_path / "a.png")  # known by its content
    read = read_radiograph(path)
    assert (read.dtype, read.shape) == source_kind(path) == (np.uint16, pixels.shape)
    np.testing.assert_array_equal(read, wanted)


def test_jpeg_is_close_and_colour_copies_are_reduced(tmp_path):
    smooth = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (40, 1))
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(np.stack([smooth] * 3, -1)).save(tmp_path / "rgb.png")
    Image.fromarray(np.stack([smooth] * 3 + [np.full_like(smooth, 255)], -1)).save(tmp_path / "rgba.png")
    Image.fromarray(smooth).convert("P").save(tmp_path / "p.png")
    assert np.abs(read_radiograph(tmp_path / "a.jpg").astype(int) - smooth).max() <= 3
    for name in ("rgb.png", "rgba.png", "p.png"):
        np.testing.assert_array_equal(read_radiograph(tmp_path / name), smooth)


@pytest.mark.parametrize("pixels", [EIGHT, SIXTEEN], ids=["8", "16"])
def test_white_is_zero_tiff_is_turned_over(tmp_path, pixels):
    # Pillow writes the array's bytes unchanged for 16 bit, and inverts 8 bit on writing as on reading;
    # so the 16-bit file is darkest where the array is highest, the 8-bit one comes back as it was.
    path = tmp_path / "a.tif"
    Image.fromarray(pixels).save(path, tiffinfo={262: 0})
    expected = pixels if pixels.dtype == np.uint8 else 65535 - pixels
    np.testing.assert_array_equal(read_radiograph(path), expected)


def test_32_bit_integers_within_16_bits_are_read_others_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(SIXTEEN.astype(np.int32)).save(path)
    np.testing.assert_array_equal(read_radiograph(path), SIXTEEN)
    Image.fromarray(SIXTEEN.astype(np.int32) * 2).save(path)
    with pytest.raises(UserError, match=r"a\.tif: .* 0 to 65535"):
        read_radiograph(path)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "dcm"])
def test_truncated_files_name_themselves_and_nothing_else(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    if suffix == "dcm":
        write_dicom(path, SIXTEEN)
    else:
        Image.fromarray(SIXTEEN if suffix != "jpg" else EIGHT).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if suffix != "dcm" else data[:-200])
    with pytest.raises(UserError, match=rf"^images/x\.{suffix}: ") as caught:
        read_radiograph(path, name=f"images/x.{suffix}")
    assert "Secret" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("pixels", "extra", "message"),
    [
        (np.stack([SIXTEEN] * 2), {"NumberOfFrames": "2"}, "2 frames"),
        (SIXTEEN, {"RescaleIntercept": "-1024", "RescaleSlope": "1"}, "expected 0 to 65535"),
        (SIXTEEN, {"RescaleIntercept": "0", "RescaleSlope": "0.001"}, "fewer than 256 grey levels"),
        (np.zeros((4, 4, 3), np.uint8), {"photometric": "RGB"}, "colour DICOM"),
        (TWELVE << 4, {"stored": 12, "HighBit": 15}, "highest bit is 15 of 12"),
        (SIXTEEN, None, "holds no picture"),
    ],
)
def test_unfit_dicom_is_refused(tmp_path, pixels, extra, message):
    path = write_dicom(tmp_path / "a.dcm", pixels, **extra or {})
    if extra is None:
        header = pydicom.dcmread(path)
        del header.PixelData
        header.save_as(path)
    with pytest.raises(UserError, match=message):
        read_radiograph(path)


def test_odd_header_values_are_not_quoted(tmp_path, capsys):
    # pydicom warns of excess padding behind the pixels, and an undecodable name is no reason to refuse
    path = write_dicom(tmp_path / "a.dcm", SIXTEEN)
    header = pydicom.dcmread(path)
    header.PixelData += b"\0" * 64
    header.save_as(path)
    path.write_bytes(path.read_bytes().replace(b"Secret^Name", b"Secret\xffName"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_radiograph(path), SIXTEEN)
    assert "Secret" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("name", "content"),
    [("none.png", None), ("empty.png", ""), ("text.png", "no picture"), ("text.dcm", "no picture")],
)
def test_missing_empty_and_foreign_files(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_text(content)
    for function in (read_radiograph, source_kind):
        with pytest.raises(UserError, match=f"^{name}: "):
            function(tmp_path / name)
        with pytest.raises(UserError, match="cannot be opened"):
            function(tmp_path)


def test_floats_frames_and_bombs_are_refused(tmp_path, monkeypatch):
    Image.fromarray(EIGHT.astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UserError, match="pixel type F"):
        read_radiograph(tmp_path / "f.tif")
    page = Image.fromarray(EIGHT)
    page.save(tmp_path / "two.tif", save_all=True, append_images=[page])
    with pytest.raises(UserError, match="2 frames"):
        read_radiograph(tmp_path / "two.tif")
    page.save(tmp_path / "a.png")
    write_dicom(tmp_path / "a.dcm", EIGHT)
    for module in (radiographs, dicom):
        monkeypatch.setattr(module, "MAX_PIXELS", 100)
    for name in ("a.png", "a.dcm"):
        with pytest.raises(UserError, match="17×23 pixels; at most 100"):
            read_radiograph(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow's own error, raised from twice its limit
    with pytest.raises(UserError, match="more than 100 pixels"):
        read_radiograph(tmp_path / "a.png")


@pytest.mark.parametrize("pixels", [EIGHT, SIXTEEN, *(np.full((23, 17), n, np.uint16) for n in (0, 1, 4095, 65535))])
def test_resize_keeps_dtype_range_and_mean(pixels):
    large = np.kron(pixels, np.ones((8, 8), pixels.dtype))
    small, up = resize(large, (46, 34)), resize(pixels, (100, 90))  # a quarter, and larger
    assert (small.dtype, small.shape) == (pixels.dtype, (46, 34))
    assert small.mean() == pytest.approx(large.mean(), rel=0.01)
    assert pixels.min() <= min(small.min(), up.min())
    assert max(small.max(), up.max()) <= pixels.max()


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 65535], np.uint16), (64, 32))
    # every output pixel covers as many dark as bright columns; taking single pixels would keep stripes
    assert np.ptp(resize(stripes, (16, 16)).astype(int)[:, 1:-1]) < 0.02 * 65535


def test_wrong_arguments_are_refused():
    for function, arguments in ((resize, (EIGHT.astype(float), (2, 2))), (resize, (EIGHT, (0, 2))),
                                (full_image_shape, (0,))):  # fmt: skip
        with pytest.raises(ValueError, match="must be"):
            function(*arguments)


def test_full_image_shape_is_the_protocols():
    assert full_image_shape(1) == ((1024, 512), (1121, 759))
    # python -c "from math import *; c, s = cos(pi/12), sin(pi/12); print(256*c+128*s, 128*c+256*s)"
    # 280.406… 189.896…
    assert full_image_shape(0.25) == ((256, 128), (280, 189))


# Pictures that lie on their side, or upside down

UPRIGHT = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.T, 2),
    8: np.rot90,
}
"""What EXIF's orientations ask for: 6, the first row is the right side; 8, the first row is the left side."""
XMP = '<rdf:Description tiff:Orientation="{}"/>'


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags.tobytes()


def behind_the_pixels(path, kind, data):
    """Add a chunk to the end of a PNG."""
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    whole = path.read_bytes()
    path.write_bytes(whole[:-12] + chunk + whole[-12:])


def in_text(path, pixels, turn, key, value):
    text = PngInfo()
    text.add_itxt(key, value)
    Image.fromarray(pixels).save(path, pnginfo=text)


TURNED = {
    "EXIF.png": lambda path, pixels, turn: Image.fromarray(pixels).save(path, exif=exif(turn)),
    "XMP.png": lambda path, pixels, turn: in_text(path, pixels, turn, "XML:com.adobe.xmp", XMP.format(turn)),
    "late EXIF.png": lambda path, pixels, turn: (
        Image.fromarray(pixels).save(path), behind_the_pixels(path, b"eXIf", exif(turn)[6:])
    ),
    "late XMP.png": lambda path, pixels, turn: (
        Image.fromarray(pixels).save(path),
        behind_the_pixels(path, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.format(turn).encode()),
    ),
    **{
        f"{name}.tif": lambda path, pixels, turn, how=how: Image.fromarray(pixels).save(
            path, tiffinfo={274: turn}, compression=how
        )
        for name, how in (("uncompressed", None), ("LZW", "tiff_lzw"), ("PackBits", "packbits"))
    },
    "XMP.tif": lambda path, pixels, turn: Image.fromarray(pixels).save(
        path, tiffinfo={700: XMP.format(turn).encode()}
    ),
}  # fmt: skip


@pytest.mark.parametrize("turn", UPRIGHT)
@pytest.mark.parametrize("name", TURNED)
@pytest.mark.parametrize("pixels", [EIGHT, SIXTEEN], ids=["8", "16"])
def test_pictures_are_read_upright(tmp_path, name, pixels, turn):
    TURNED[name](tmp_path / name, pixels, turn)
    read = read_radiograph(tmp_path / name)
    assert (read.dtype, read.shape) == source_kind(tmp_path / name)
    np.testing.assert_array_equal(read, UPRIGHT[turn](pixels))


@pytest.mark.parametrize("turn", UPRIGHT)
@pytest.mark.parametrize("how", ["exif", "xmp"])
def test_jpegs_are_read_upright(tmp_path, how, turn):
    smooth = np.add.outer(np.arange(40), np.arange(0, 180, 3)).astype(np.uint8)
    mark = exif(turn) if how == "exif" else XMP.format(turn).encode()
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95, **{how: mark})
    read = read_radiograph(tmp_path / "a.jpg")
    assert (read.dtype, read.shape) == source_kind(tmp_path / "a.jpg")
    np.testing.assert_allclose(read.astype(int), UPRIGHT[turn](smooth), atol=3)


@pytest.mark.parametrize("odd", [b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\4abcd"])
def test_odd_exif_is_no_fault(tmp_path, odd):
    Image.fromarray(EIGHT).save(tmp_path / "a.jpg", exif=odd)
    Image.fromarray(EIGHT).save(tmp_path / "a.tif", tiffinfo={274: 9})  # there are eight
    for name in ("a.jpg", "a.tif"):
        assert read_radiograph(tmp_path / name).shape == source_kind(tmp_path / name)[1] == EIGHT.shape


def test_signed_bytes_are_refused(tmp_path):
    Image.fromarray(EIGHT).save(tmp_path / "a.tif", tiffinfo={339: 2})
    with pytest.raises(UserError, match=r"^a\.tif: signed 8-bit pixels"):
        read_radiograph(tmp_path / "a.tif")


# DICOM as hospitals have it


def compressed(path, pixels, stored, syntax, encode, **extra):
    """A DICOM file whose picture is this encoder's stream."""
    header = pydicom.dcmread(write_dicom(path, pixels, stored=stored, **extra))
    header.PixelData = encapsulate([encode(pixels, stored)])
    header["PixelData"].VR = "OB"
    header.file_meta.TransferSyntaxUID = syntax
    header.save_as(path)
    return path


def lossless(pixels, stored):
    """JPEG Lossless, process 14."""
    return imagecodecs.ljpeg_encode(pixels, bitspersample=stored)


SYNTAXES = {
    "JPEG Lossless": (uid.JPEGLossless, lossless),
    "JPEG Lossless SV1": (uid.JPEGLosslessSV1, lossless),
    "JPEG-LS": (uid.JPEGLSLossless, lambda pixels, _: imagecodecs.jpegls_encode(pixels)),
    "JPEG 2000": (
        uid.JPEG2000Lossless,  # the bare code stream
        lambda pixels, stored: imagecodecs.jpeg2k_encode(
            pixels, codecformat="J2K", reversible=True, bitspersample=stored
        ),
    ),
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("pixels", "stored"), [(TWELVE, 12), (SIXTEEN, 16)], ids=["12", "16"])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_lossless_compressions_give_the_same_pixels(tmp_path, syntax, pixels, stored, photometric):
    path = compressed(tmp_path / "a.dcm", pixels, stored, *SYNTAXES[syntax], photometric=photometric)
    found = read_radiograph(path)
    assert (found.dtype, found.shape) == source_kind(path)
    np.testing.assert_array_equal(found, pixels if photometric == "MONOCHROME2" else 2**stored - 1 - pixels)


WIDE = {name: (syntax, lambda pixels, _, how=how: how(pixels, 16)) for name, (syntax, how) in SYNTAXES.items()}
"""The same with 16 bits, whatever the header says."""
WIDE |= {"RLE": (uid.RLELossless, None), "native": (ExplicitVRLittleEndian, None)}


def write_wide(path, name, pixels, **extra):
    """A DICOM file whose pixels have 16 bits and its header fewer."""
    syntax, encode = WIDE[name]
    if encode:
        return compressed(path, pixels, extra.pop("stored"), syntax, encode, **extra)
    write_dicom(path, pixels, **extra)
    if name == "RLE":
        header = pydicom.dcmread(path)
        header.compress(syntax)
        header.save_as(path)
    return path


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(("name", "stored"), [*((name, 12) for name in WIDE), ("JPEG-LS", 8), ("native", 8)])
def test_pixels_of_more_bits_than_the_header_says_are_kept(tmp_path, name, stored, photometric):
    path = write_wide(tmp_path / "a.dcm", name, SIXTEEN, stored=stored, photometric=photometric)
    if name == "JPEG 2000":  # the only one of them that pydicom alone decodes and leaves as it is
        np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, SIXTEEN)
    read = read_radiograph(path)
    assert (read.dtype, read.shape) == source_kind(path)
    np.testing.assert_array_equal(read, SIXTEEN if photometric == "MONOCHROME2" else 65535 - SIXTEEN)


@pytest.mark.parametrize(("name", "bits"), [("native", 13), *((name, 14) for name in SYNTAXES)])
def test_pixels_of_more_bits_are_turned_over_within_the_fewest_that_hold_them(tmp_path, name, bits):
    pixels = TWELVE if bits == 13 else SIXTEEN >> 2
    pixels = np.where(np.arange(pixels.size).reshape(pixels.shape) == 9, 2 ** (bits - 1), pixels).astype(np.uint16)
    extra = {"stored": 12, "photometric": "MONOCHROME1"}
    if name == "native":
        write_dicom(tmp_path / "a.dcm", pixels, **extra)
    else:
        syntax, encode = SYNTAXES[name]
        compressed(tmp_path / "a.dcm", pixels, 12, syntax, lambda *_: encode(pixels, bits), photometric="MONOCHROME1")
    beyond = []
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a.dcm", beyond=beyond), 2**bits - 1 - pixels)
    assert beyond == [(pixels.max(), 4095)]


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_few_pixels_of_more_bits_do_not_leave_sixteen_bits_by_their_slope(tmp_path, photometric):
    extra = {"stored": 12, "photometric": photometric, "RescaleSlope": "16", "RescaleIntercept": "0"}
    pixels = TWELVE.copy()
    pixels[5, 5] = 4096
    beyond = []
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", pixels, **extra), beyond=beyond)
    pixels[5, 5] = 4095
    np.testing.assert_array_equal(found, 16 * (pixels if photometric == "MONOCHROME2" else 4095 - pixels))
    assert beyond == [(4096, 4095)]
    with pytest.raises(UserError, match="rescaled pixel values run from"):  # many: the header is wrong
        read_radiograph(write_dicom(tmp_path / "a.dcm", SIXTEEN, **extra))


@pytest.mark.parametrize(
    ("slope", "intercept", "signed", "photometric", "stored", "wanted"),
    [
        (8, 0, False, "MONOCHROME2", 4096, 8 * 4096),
        (8, 0, False, "MONOCHROME1", 4096, 8 * 4095),
        (-1, 4095, False, "MONOCHROME2", 4096, 0),
        (1, 2048, True, "MONOCHROME2", 2048, 4096),
        (1, 2048, True, "MONOCHROME1", 2048, 0),
        (1, 4096, True, "MONOCHROME2", -2049, 2047),
    ],
)
def test_one_pixel_of_more_bits_is_cut_off_only_where_it_does_not_fit(
    tmp_path, slope, intercept, signed, photometric, stored, wanted
):
    pixels = TWELVE.astype(int) - 2048 * signed
    pixels[5, 5] = stored
    path = write_dicom(
        tmp_path / "a.dcm", pixels.astype(np.int16 if signed else np.uint16), stored=12, signed=signed,
        photometric=photometric, RescaleSlope=str(slope), RescaleIntercept=str(intercept),
    )  # fmt: skip
    beyond = []
    assert read_radiograph(path, beyond=beyond)[5, 5] == wanted
    assert [value for value, _ in beyond] == [stored]


@pytest.mark.parametrize(("padding", "wanted"), [(65535, 5), (4095, 5), (0, 5)])
def test_padding_is_compared_with_the_values_in_the_file(tmp_path, padding, wanted):
    pixels = TWELVE.clip(5, 4094)
    pixels[5, 5], pixels[:3] = 5, padding
    saturated = 4095 if padding == 65535 else 4094
    pixels[8:12] = saturated
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", pixels, stored=12, PixelPaddingValue=padding))
    assert (found[:3] == wanted).all()
    np.testing.assert_array_equal(found[3:], pixels[3:])
    if padding == 0:  # no padding, though its lower bits are
        pixels[9, 9] = 4096
        found = read_radiograph(write_dicom(tmp_path / "a.dcm", pixels, stored=12, PixelPaddingValue=padding))
        np.testing.assert_array_equal(found[3:], pixels[3:])


@pytest.mark.parametrize("name", SYNTAXES)
def test_a_header_of_eight_bits_over_sixteen_and_the_other_way_round(tmp_path, name):
    syntax, encode = SYNTAXES[name]
    for pixels, stream in ((EIGHT, SIXTEEN), (TWELVE, EIGHT)):
        bits = stream.dtype.itemsize * 8
        stored = 8 if pixels is EIGHT else 12
        path = compressed(tmp_path / "a.dcm", pixels, stored, syntax, lambda *_, s=stream, b=bits: encode(s, b))
        read = read_radiograph(path)
        assert (read.dtype, read.shape) == source_kind(path) == (np.uint16, stream.shape)
        np.testing.assert_array_equal(read, stream)


@pytest.mark.parametrize("name", ["native", "JPEG-LS", "JPEG Lossless"])
def test_signed_pixels_of_more_bits_keep_their_sign(tmp_path, name):
    signed = (SIXTEEN.astype(int) - 32768).astype(np.int16)
    rescale = {"RescaleSlope": "1", "RescaleIntercept": "32768"}
    encode = None if name == "native" else lambda pixels, _: SYNTAXES[name][1](pixels.view(np.uint16), 16)
    if encode:
        path = compressed(tmp_path / "a.dcm", signed, 12, SYNTAXES[name][0], encode, signed=True, **rescale)
    else:
        path = write_dicom(tmp_path / "a.dcm", signed, stored=12, signed=True, **rescale)
    np.testing.assert_array_equal(read_radiograph(path), SIXTEEN)


def test_overlays_and_padding_above_the_stored_bits_are_no_pixels(tmp_path):
    overlaid = TWELVE.copy()
    overlaid[3:9] |= np.uint16(0x8000)
    overlaid[5:7] |= np.uint16(0x4000)
    header = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", overlaid, stored=12))
    for group, bit in ((0x6000, 15), (0x6002, 14)):
        header.add_new((group, 0x0100), "US", 16)
        header.add_new((group, 0x0102), "US", bit)
    header.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a.dcm"), TWELVE)
    padded = TWELVE.clip(7, 4000)
    padded[:3] = 65535
    extra = {"photometric": "MONOCHROME1", "PixelPaddingValue": 65535}
    found = read_radiograph(write_dicom(tmp_path / "b.dcm", padded, stored=12, **extra))
    np.testing.assert_array_equal(found[3:], 4095 - padded[3:])
    assert (found[:3] == found[3:].min()).all()


def with_restarts(strip, bits, n):
    """JPEG Lossless with a restart after every `strip`, of which there are `n`."""
    stream = imagecodecs.ljpeg_encode(strip, bitspersample=bits)
    frame, scan = stream.index(b"\xff\xc3"), stream.index(b"\xff\xda")
    pixels = scan + 2 + int.from_bytes(stream[scan + 2 : scan + 4], "big")
    height = (n * len(strip)).to_bytes(2, "big")
    interval = b"\xff\xdd\0\4" + strip.size.to_bytes(2, "big")
    marked = [stream[pixels:-2] + bytes([0xFF, 0xD0 + k % 8]) for k in range(n)]
    return stream[: frame + 5] + height + stream[frame + 7 : scan] + interval + stream[scan:pixels] + (
        b"".join(marked)[:-2] + b"\xff\xd9"
    )  # fmt: skip


@pytest.mark.parametrize(("strip", "bits"), [(EIGHT[:2], 8), (TWELVE[:1], 12), (SIXTEEN[:3], 16)])
def test_jpeg_lossless_with_restart_intervals(tmp_path, strip, bits):
    pixels = np.tile(strip, (11, 1))
    stream = with_restarts(strip, bits, 11)

    def read(cut):
        return read_radiograph(compressed(tmp_path / "a.dcm", pixels, bits, uid.JPEGLosslessSV1, lambda *_: cut))

    np.testing.assert_array_equal(read(stream), pixels)
    third = stream.index(b"\xff\xd2")
    for cut in (stream[:-2], stream[: len(stream) // 2], stream[:third] + stream[stream.index(b"\xff\xd5") :]):
        with pytest.raises(UserError, match=r"^a\.dcm: cannot be read as a radiograph"):
            read(cut)


def test_jpeg_of_twelve_bits_is_read(tmp_path):
    smooth = np.add.outer(np.arange(23) * 90, np.arange(17) * 50).astype(np.uint16)
    path = compressed(
        tmp_path / "a.dcm", smooth, 12, uid.JPEGExtended12Bit,
        lambda pixels, stored: imagecodecs.jpeg8_encode(pixels, level=100, bitspersample=stored),
    )  # fmt: skip
    np.testing.assert_allclose(read_radiograph(path).astype(int), smooth, atol=3)


@pytest.mark.parametrize(
    ("shape", "photometric", "turned"),
    [
        ("INVERSE", "MONOCHROME2", True),
        ("INVERSE", "MONOCHROME1", True),
        ("IDENTITY", "MONOCHROME2", False),
        ("IDENTITY", "MONOCHROME1", True),
    ],
)
@pytest.mark.parametrize("windowed", [False, True])
def test_an_inverse_presentation_is_turned_over_once(tmp_path, shape, photometric, turned, windowed):
    extra = {"WindowCenter": "2048", "WindowWidth": "4096"} if windowed else {}
    plain = write_dicom(tmp_path / "a.dcm", TWELVE, stored=12, **extra)
    path = write_dicom(
        tmp_path / "b.dcm", TWELVE, stored=12, photometric=photometric, PresentationLUTShape=shape, **extra
    )
    dark, found = (read_radiograph(each, windowed=windowed).astype(int) for each in (plain, path))
    np.testing.assert_allclose(found, (65535 if windowed else 4095) - dark if turned else dark, atol=windowed)


@pytest.mark.parametrize(
    ("extra", "ratio"),
    [
        ({"PixelSpacing": ["0.2", "0.1"]}, "2"),
        ({"ImagerPixelSpacing": ["0.1", "0.2"]}, "0.5"),
        ({"NominalScannedPixelSpacing": ["0.3", "0.2"]}, "1.5"),
        ({"PixelAspectRatio": ["2", "1"]}, "2"),
        ({"PixelSpacing": ["0.171", "0.175"]}, None),
        ({"PixelSpacing": ["0.1", "0.1"], "PixelAspectRatio": ["2", "1"]}, None),  # of which the first counts
        ({"PixelSpacing": "0.2", "PixelAspectRatio": ["0", "0"]}, None),
    ],
)
def test_pixels_that_are_not_square_are_refused(tmp_path, extra, ratio):
    path = write_dicom(tmp_path / "a.dcm", TWELVE, stored=12, **extra)
    if ratio is None:
        np.testing.assert_array_equal(read_radiograph(path), TWELVE)
    else:
        with pytest.raises(UserError, match=rf"^a\.dcm: its pixels are {ratio} times as high as wide; resample"):
            read_radiograph(path)


def test_run_length_encoding_is_read(tmp_path):
    header = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", TWELVE, stored=12))
    header.compress(uid.RLELossless)
    header.save_as(tmp_path / "b.dcm")
    np.testing.assert_array_equal(read_radiograph(tmp_path / "b.dcm"), TWELVE)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_damaged_compressed_pictures_are_one_line(tmp_path, syntax):
    path = compressed(tmp_path / "a.dcm", TWELVE, 12, *SYNTAXES[syntax])
    whole = path.read_bytes()
    random = np.random.default_rng(5)
    faults = []
    for turn in range(40):
        data = bytearray(whole[: len(whole) - random.integers(2, 300)] if turn % 2 else whole)
        for at in random.integers(len(whole) - 400, len(data), 5):
            data[at] = random.integers(256)
        path.write_bytes(data)
        try:
            assert read_radiograph(path).shape == TWELVE.shape
        except UserError as error:
            (fault,) = error.faults
            faults.append(fault)
    assert len(faults) > 5
    assert all(fault.startswith("a.dcm: ") and "Secret" not in fault for fault in faults)


def test_a_compressed_picture_of_another_size_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    def never(_):
        raise AssertionError("unpacked")

    for name in ("JPEG Lossless", "JPEG-LS"):
        syntax, encode = SYNTAXES[name]
        path = compressed(tmp_path / "a.dcm", TWELVE, 12, syntax, encode)
        header = pydicom.dcmread(path)
        header.Rows += 1
        header.save_as(path)
        monkeypatch.setitem(dicom.DECODERS, syntax, never)
        with pytest.raises(UserError, match="not of the same size"):
            read_radiograph(path)


def test_bits_that_hold_no_pixel_are_cleared(tmp_path):
    overlaid = TWELVE | np.uint16(0xF000)
    np.testing.assert_array_equal(read_radiograph(write_dicom(tmp_path / "a.dcm", overlaid, stored=12)), TWELVE)
    signed = (TWELVE.astype(np.int16) - 1024).view(np.uint16) & np.uint16(0x1FFF)  # 13 bits, the sign cut off above
    path = write_dicom(tmp_path / "b.dcm", signed, stored=13, signed=True, RescaleSlope="1", RescaleIntercept="1024")
    np.testing.assert_array_equal(read_radiograph(path), TWELVE)


def table_of(values, bits, words=False, first=0):
    """A lookup table of a header; `words`: as bytes."""
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [len(values) % 65536, first, bits])
    if words:
        item.add_new("LUTData", "OW", np.asarray(values, "<u2").tobytes())
    else:
        item.add_new("LUTData", "US", [int(value) for value in values])
    return pydicom.Sequence([item])


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_the_modalitys_table_is_applied(tmp_path, photometric, words):
    table = np.sqrt(np.arange(3000) * 256).round().astype(int)
    last = table[-1]  # of values beyond the table
    path = write_dicom(
        tmp_path / "a.dcm", TWELVE, stored=12, photometric=photometric,
        ModalityLUTSequence=table_of(table, 10, words, first=100),
    )  # fmt: skip
    wanted = np.where(TWELVE < 100, table[0], table[(TWELVE.astype(int) - 100).clip(0, 2999)])
    assert (TWELVE > 3100).any()
    np.testing.assert_array_equal(read_radiograph(path), wanted if photometric == "MONOCHROME2" else last - wanted)


def window_by_hand(values, centre, width):
    """The linear window of the DICOM standard, PS3.3 C.11.2.1.2, over 0 to 65535."""
    below, above = values <= centre - 0.5 - (width - 1) / 2, values > centre - 0.5 + (width - 1) / 2
    inside = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 65535
    return np.where(below, 0, np.where(above, 65535, inside))


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, 100), (-1, 4095)])
def test_a_window_is_applied_only_where_asked_for(tmp_path, photometric, slope, intercept):
    extra = {"WindowCenter": ["2000", "7"], "WindowWidth": ["1500", "3"]}
    if slope != 1:
        extra |= {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}
    path = write_dicom(tmp_path / "a.dcm", TWELVE, stored=12, photometric=photometric, **extra)
    values = TWELVE.astype(float) * slope + intercept
    wanted = window_by_hand(values, 2000, 1500)
    found = read_radiograph(path, windowed=True)
    assert (found.dtype, found.shape) == source_kind(path, windowed=True)
    np.testing.assert_allclose(found, wanted if photometric == "MONOCHROME2" else 65535 - wanted, atol=0.51)
    ends = sorted([intercept, 4095 * slope + intercept])
    plain = values if photometric == "MONOCHROME2" else sum(ends) - values
    np.testing.assert_array_equal(read_radiograph(path), plain)


def test_a_voi_table_goes_before_a_window_and_a_header_without_either_is_refused(tmp_path):
    table = (4095 - np.arange(4096)) // 16
    extra = {"VOILUTSequence": table_of(table, 8), "WindowCenter": "1", "WindowWidth": "2"}
    path = write_dicom(tmp_path / "a.dcm", TWELVE, stored=12, **extra)
    np.testing.assert_array_equal(read_radiograph(path, windowed=True), table[TWELVE] * 257)
    bare = write_dicom(tmp_path / "b.dcm", TWELVE, stored=12)
    with pytest.raises(UserError, match=r"b\.dcm: no window or VOI table in its header; leave"):
        read_radiograph(bare, windowed=True)


@pytest.mark.parametrize(("photometric", "wanted"), [("MONOCHROME2", 5), ("MONOCHROME1", 4095 - 4090)])
def test_padding_is_as_dark_as_the_darkest_of_the_picture(tmp_path, photometric, wanted):
    pixels = TWELVE.clip(5, 4090)
    pixels[:3] = 4095
    pixels[5, 5], pixels[6, 6] = 5, 4090
    path = write_dicom(
        tmp_path / "a.dcm", pixels, stored=12, photometric=photometric, PixelPaddingValue=4095,
        PixelPaddingRangeLimit=4093,
    )  # fmt: skip
    found = read_radiograph(path)
    assert (found[:3] == wanted).all()
    np.testing.assert_array_equal(found[3:], pixels[3:] if photometric == "MONOCHROME2" else 4095 - pixels[3:])


@pytest.mark.parametrize("n", [4096, 4095])
def test_a_table_of_bytes_is_read_a_byte_an_entry(tmp_path, n):
    """Some programs pack entries of eight bits two to a word."""
    table = (255 - np.arange(n) // 16).astype(np.uint8)

    def read_with(data):
        item = pydicom.Dataset()
        item.add_new("LUTDescriptor", "US", [n, 0, 8])
        item.add_new("LUTData", "OW", data)
        return read_radiograph(
            write_dicom(tmp_path / "a.dcm", TWELVE, stored=12, VOILUTSequence=[item]), windowed=True
        )

    shown = table[TWELVE.clip(0, n - 1)].astype(float)
    wanted = np.rint((shown - table.min()) * (65535 / (255 - table.min())))
    np.testing.assert_array_equal(read_with(table.tobytes() + b"\0" * (n % 2)), wanted)
    with pytest.raises(UserError, match=r"a\.dcm: cannot be read"):
        read_with(table.tobytes()[: n // 2 * 2 - 100])


@pytest.mark.parametrize(
    ("function", "of"),
    [("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * x))), ("LINEAR_EXACT", lambda x: (x + 0.5).clip(0, 1))],
)
def test_other_windows_are_the_standards(tmp_path, function, of):
    """DICOM PS3.3 C.11.2.1.3."""
    extra = {"WindowCenter": "2000", "WindowWidth": "900", "VOILUTFunction": function}
    path = write_dicom(tmp_path / "a.dcm", TWELVE, stored=12, **extra)
    wanted = 65535 * of((TWELVE.astype(float) - 2000) / 900)
    np.testing.assert_allclose(read_radiograph(path, windowed=True), wanted, atol=0.51)


@pytest.mark.parametrize(("photometric", "darkest"), [("MONOCHROME2", "min"), ("MONOCHROME1", "max")])
def test_padding_is_dark_in_windowed_radiographs_too(tmp_path, photometric, darkest):
    pixels = TWELVE.clip(5, 4090)
    pixels[:3] = 4095
    extra = {"WindowCenter": "2000", "WindowWidth": "9000", "PixelPaddingValue": 4095}
    path = write_dicom(tmp_path / "a.dcm", pixels, stored=12, photometric=photometric, **extra)
    found = read_radiograph(path, windowed=True)
    shown = window_by_hand(float(getattr(pixels[3:], darkest)()), 2000, 9000)
    np.testing.assert_allclose(found[:3], shown if darkest == "min" else 65535 - shown, atol=0.51)
    assert found[:3].max() <= found[3:].min()


@pytest.mark.parametrize(("value", "vr"), [(0x1C00, "US"), (0xFC00, "US"), (-1024, "SS"), (0x1C00, "SS")])
@pytest.mark.parametrize("limit", [False, True])
def test_padding_of_signed_pixels_is_found_however_the_header_writes_it(tmp_path, value, vr, limit):
    """-1024 in 13 bits: as these bits, with the sign carried on, and unsigned; an empty limit is none."""
    values = TWELVE.astype(np.int16).clip(20, 4000) - 1000
    values[:3] = -1024
    path = write_dicom(
        tmp_path / "a.dcm", values.view(np.uint16) & np.uint16(0x1FFF), stored=13, signed=True, RescaleSlope="1",
        RescaleIntercept="1024",
    )  # fmt: skip
    header = pydicom.dcmread(path)
    header.add_new("PixelPaddingValue", vr, value)
    if limit:
        header.add_new("PixelPaddingRangeLimit", vr, None)
    header.save_as(path)
    found = read_radiograph(path)
    assert (found[:3] == found[3:].min()).all()
    np.testing.assert_array_equal(found[3:], values[3:] + 1024)
