"""MATLAB files, read with an error that a user can act on."""

from pathlib import Path

import numpy as np

from ltpa.core.errors import DataError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MOST_BYTES = 2**32  # of one array; a file of version 7.3 may claim any size and hold nothing
_HEADER = 512  # bytes that MATLAB writes before the HDF5 file of its version 7.3


def read_matlab(path: Path, *names: str) -> dict[str, np.ndarray]:
    """The named variables of a MATLAB file. Of version 7.3 plain arrays are read, by h5py where it is installed.

    Raises:
        DataError: the file is missing, damaged, of version 7.3 without h5py, or lacks one of the variables.
    """
    from scipy.io import loadmat

    if not path.is_file():  # which scipy reports as one of its own failures
        raise DataError(f"{path}: missing; extract the dataset's archives anew")
    try:
        content = _read_hdf5(path, names) if _is_hdf5(path) else loadmat(path, variable_names=list(names))
    except DataError:
        raise
    except Exception as error:  # scipy and h5py raise errors of many kinds
        raise DataError(f"{path}: not a readable MATLAB file ({error}); fetch it anew") from error
    if missing := [name for name in names if name not in content]:
        raise DataError(f"{path}: lacks {', '.join(missing)}; not the file it should be")
    return {name: content[name] for name in names}


def _is_hdf5(path: Path) -> bool:
    with open(path, "rb") as stream:
        head = stream.read(_HEADER + len(_HDF5))
    return head.startswith(_HDF5) or head[_HEADER:] == _HDF5


def _read_hdf5(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"{path}: saved by MATLAB 7.3; save it with -v7 in MATLAB, or install what reads it: pip install h5py"
        ) from error
    with h5py.File(path, "r") as file:
        variables = {name: file[name] for name in names if name in file}
        if strange := [
            name
            for name, held in variables.items()
            if not isinstance(held, h5py.Dataset) or held.dtype.kind not in "biuf"
        ]:
            raise DataError(f"{path}: {strange[0]} is no plain array, and of MATLAB 7.3 only these are read; use -v7")
        if huge := [name for name, held in variables.items() if held.nbytes > _MOST_BYTES]:
            raise DataError(f"{path}: {huge[0]} claims {variables[huge[0]].nbytes} bytes; not the file it should be")
        return {name: held[()].T for name, held in variables.items()}  # HDF5 has the axes in the opposite order
