"""HDF5 files of plain arrays plus one JSON header, written atomically and verified when read."""

import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import h5py
import hdf5plugin
import numpy as np

from amortnlme.core.errors import AmortNlmeError, ArtefactError
from amortnlme.core.files import publish, write_error

_FORMAT = 1
# Real arrays shrink a few times; a file that claims to swell beyond both is made to exhaust the memory.
_MOST_SWELLING, _ALWAYS_ALLOWED = 1000, 2**28
# Packed arrays are cut into whole rows of about this many bytes: small enough to stay in the cache while they
# are shuffled and packed, which takes half the time of the pieces h5py would choose.
_CHUNK_BYTES, _LARGEST_ROW = 2**18, 2**24


def is_hdf5(path: Path | str) -> bool:
    """Whether a file is HDF5 by its first bytes.

    Parameters
    ----------
    path : Path or str
        An existing file.

    Returns
    -------
    bool
    """
    return bool(h5py.is_hdf5(os.fspath(path)))


def checksum(array: np.ndarray) -> int:
    """Return the CRC-32 of an array's little-endian bytes.

    Parameters
    ----------
    array : ndarray
        Numeric or boolean, any shape.

    Returns
    -------
    int
        Unsigned, 32 bit.
    """
    values = np.ascontiguousarray(array)
    return zlib.crc32(values.astype(values.dtype.newbyteorder("<"), copy=False).data)


def write_h5_atomic(
    path: Path | str,
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, object],
    *,
    compress: bool = True,
) -> None:
    """Write arrays and a JSON header to an HDF5 file that is there as a whole or not at all.

    Parameters
    ----------
    path : Path or str
        Target; its folder must exist.
    arrays : mapping of str to ndarray
        Numeric or boolean arrays of any shape; a name may hold ``/``.
    attributes : mapping
        JSON-able header; its ``"kind"`` says what the file holds (``"draws"``, ``"fit"``...) and is
        checked when it is read.
    compress : bool
        Whether arrays of a kilobyte and more are packed with blosc-lz4.

    Raises
    ------
    ArtefactError
        If the file cannot be written (``E_IO_WRITE``), or an array holds objects or text (``E_H5_DTYPE``).
    """
    target = Path(path)
    _refuse_objects(arrays)
    header = json.dumps(dict(attributes), sort_keys=True, allow_nan=False)
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(descriptor)
        temporary = Path(name)
        with _create(temporary, arrays) as file:
            file.attrs["kind"] = str(attributes["kind"])
            file.attrs["format"] = _FORMAT
            file.attrs["meta"] = header
            file.attrs["meta_crc32"] = zlib.crc32(header.encode())
            for label, array in arrays.items():
                values = np.asarray(array)
                options = _packing(values) if compress and values.nbytes >= 1024 and values.ndim else {}
                dataset = file.create_dataset(label, data=values, track_times=False, **options)
                dataset.attrs["crc32"] = checksum(values)
            file.attrs["names"] = json.dumps(list(arrays))
            file.attrs["complete"] = True
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        publish(temporary, target)
    except OSError as cause:
        raise write_error(target, cause) from cause
    finally:
        # after the rename there is nothing left under this name
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _packing(values: np.ndarray) -> dict[str, object]:
    row = values.nbytes // values.shape[0]
    rows = min(values.shape[0], max(1, _CHUNK_BYTES // row))
    # a chunk may not exceed 4 GiB, so gigantic rows are left to h5py to cut
    chunks = (rows, *values.shape[1:]) if row <= _LARGEST_ROW else True
    return {**hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.SHUFFLE), "chunks": chunks}


def _create(path: Path, arrays: Mapping[str, np.ndarray]) -> h5py.File:
    """Create a file with the groups of `arrays`; h5py's own way stamps them with the time of writing.

    Without the stamps equal content makes equal bytes.
    """
    timeless = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    timeless.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    file = h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, timeless, access))
    untimed = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    untimed.set_obj_track_times(False)
    groups = {str(folder) for label in arrays for folder in PurePosixPath(label).parents if folder.name}
    for name in sorted(groups):
        h5py.h5g.create(file.id, name.encode(), gcpl=untimed)
    return file


def _refuse_objects(arrays: Mapping[str, np.ndarray]) -> None:
    strange = [label for label, array in arrays.items() if np.asarray(array).dtype.kind not in "biufc"]
    if strange:
        raise ArtefactError(
            "E_H5_DTYPE",
            f"{', '.join(strange)} hold neither numbers nor booleans. Put text into the attributes.",
        )


def read_h5(path: Path | str, kind: str) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Read and verify a file of `write_h5_atomic`.

    Parameters
    ----------
    path : Path or str
        The file.
    kind : str
        What it must hold.

    Returns
    -------
    arrays : dict of str to ndarray
        As written.
    attributes : dict
        The JSON header.

    Raises
    ------
    ArtefactError
        ``E_H5_MISSING`` (no file), ``E_H5_TRUNCATED`` (not a whole HDF5 file), ``E_H5_KIND`` (holds
        something else),
        ``E_H5_CHECKSUM`` (bytes changed).
    """
    source = Path(path)
    if not os.path.isfile(source):
        raise ArtefactError("E_H5_MISSING", f"There is no file {source}. Check the path.")
    try:
        with h5py.File(source, "r") as file:
            return _verified(file, source, kind)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError) as cause:
        raise ArtefactError(
            "E_H5_TRUNCATED",
            f"{source} is not a whole HDF5 file of amortnlme ({cause}). It may be cut off, damaged or of "
            "another program; make it again.",
        ) from cause


def _verified(file: h5py.File, source: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    if not bool(file.attrs.get("complete", False)):
        raise ArtefactError(
            "E_H5_TRUNCATED",
            f"{source} was never finished by amortnlme, or another program wrote it. Make it again.",
        )
    if file.attrs["kind"] != kind:
        raise ArtefactError(
            "E_H5_KIND",
            f"{source} holds {file.attrs['kind']!r}, but {kind!r} is needed here. Pass the right file.",
        )
    header = str(file.attrs["meta"])
    arrays: dict[str, np.ndarray] = {}
    bad = [] if zlib.crc32(header.encode()) == _whole(file.attrs["meta_crc32"]) else ["meta"]
    size = 0
    for label in json.loads(str(file.attrs["names"])):
        dataset = file[label]
        if not isinstance(dataset, h5py.Dataset):
            raise TypeError(f"{label} is no array")
        if _lies_elsewhere(file, label, dataset):
            raise ValueError(f"{label} points into another file")
        size += dataset.nbytes
        if size > max(_ALWAYS_ALLOWED, _MOST_SWELLING * source.stat().st_size):
            raise ValueError(f"its arrays would take {size} bytes")
        arrays[label] = np.asarray(dataset[()])
        if checksum(arrays[label]) != _whole(dataset.attrs["crc32"]):
            bad.append(label)
    if bad:
        raise ArtefactError(
            "E_H5_CHECKSUM",
            f"{source} is damaged: the checksum of {', '.join(bad)} does not match. Make it again or restore "
            "a copy.",
        )
    return arrays, json.loads(header)


def _lies_elsewhere(file: h5py.File, label: str, dataset: h5py.Dataset) -> bool:
    linked = not isinstance(file.get(label, getlink=True), h5py.HardLink)
    return linked or dataset.file.filename != file.filename or dataset.is_virtual or bool(dataset.external)


@contextmanager
def understood(path: Path | str, what: str) -> Iterator[None]:
    """Name the file whose content, though undamaged, makes no sense.

    Parameters
    ----------
    path : Path or str
        The file that was read.
    what : str
        What it should describe, for instance "posterior draws".

    Yields
    ------
    None

    Raises
    ------
    ArtefactError
        ``E_H5_CONTENT`` in place of the Python error that missing or strange content causes.
    """
    try:
        yield
    except AmortNlmeError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as cause:
        raise ArtefactError(
            "E_H5_CONTENT",
            f"{path} does not describe {what} ({type(cause).__name__}: {cause}). Make it again.",
        ) from cause


def _whole(attribute: object) -> int:
    if not isinstance(attribute, np.integer):
        raise TypeError(f"a checksum is {attribute!r}, not a number")
    return int(attribute)
