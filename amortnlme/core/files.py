"""Files that are either there as a whole or not there at all."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from amortnlme.core.errors import ArtefactError


def write_error(path: Path, cause: OSError) -> ArtefactError:
    """Return the error that says why a path could not be written.

    Parameters
    ----------
    path : Path
        The target.
    cause : OSError
        What the operating system said.

    Returns
    -------
    ArtefactError
        With code ``E_IO_WRITE``.
    """
    reason = cause.strerror or str(cause)
    return ArtefactError(
        "E_IO_WRITE",
        f"Cannot write {path}: {reason}. Nothing was changed there. Free some space, or choose a folder that "
        "exists and is writable.",
    )


def make_folder(path: Path | str) -> Path:
    """Make a folder and its parents, or keep it as it is.

    Parameters
    ----------
    path : Path or str
        Folder.

    Returns
    -------
    Path
        The folder, which now exists.

    Raises
    ------
    ArtefactError
        If there cannot be a folder, for instance because a file has the name (``E_IO_WRITE``).
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise write_error(folder, cause) from cause
    return folder


def write_bytes_atomic(path: Path | str, content: bytes) -> None:
    """Write a file through a temporary neighbor and a rename: a crash leaves the old file or the new one.

    Parameters
    ----------
    path : Path or str
        Target; its folder must exist.
    content : bytes
        The whole content.

    Raises
    ------
    ArtefactError
        If the file cannot be written (``E_IO_WRITE``).
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        publish(temporary, target)
    except OSError as cause:
        raise write_error(target, cause) from cause
    finally:
        # after the rename there is nothing left under this name
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def publish(temporary: Path, target: Path) -> None:
    """Rename a finished temporary file to its target and make the rename durable.

    Parameters
    ----------
    temporary : Path
        Finished, synchronized file in the folder of the target.
    target : Path
        Final name; replaced if it exists.
    """
    # mkstemp makes files private; a published file gets what the user's umask grants
    temporary.chmod(0o666 & ~_umask())
    temporary.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    """Return the umask, if possible without setting it: other threads may create files meanwhile."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_text_atomic(path: Path | str, text: str) -> None:
    """Write UTF-8 text like `write_bytes_atomic`.

    Parameters
    ----------
    path : Path or str
        Target; its folder must exist.
    text : str
        The whole content.

    Raises
    ------
    ArtefactError
        If the file cannot be written (``E_IO_WRITE``).
    """
    write_bytes_atomic(path, text.encode())


def write_json_atomic(path: Path | str, value: object) -> None:
    """Write a value as strict, indented JSON like `write_bytes_atomic`.

    Parameters
    ----------
    path : Path or str
        Target; its folder must exist.
    value : object
        JSON-able; NaN and infinity are refused because JSON has no word for them.

    Raises
    ------
    ArtefactError
        If the file cannot be written (``E_IO_WRITE``).
    """
    write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file.

    Parameters
    ----------
    path : Path or str
        A readable file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    ArtefactError
        If the file cannot be read (``E_IO_READ``).
    """
    try:
        with Path(path).open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as cause:
        raise ArtefactError(
            "E_IO_READ", f"Cannot read {path}: {cause.strerror or cause}. Check the path."
        ) from cause
