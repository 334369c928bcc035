"""MATLAB 5 files, read with an error that a user can act on."""

from pathlib import Path

import numpy as np

from ltpa.core.errors import DataError


def read_matlab(path: Path, *names: str) -> dict[str, np.ndarray]:
    """The named variables of a MATLAB file.

    Raises:
        DataError: the file is missing, damaged, or lacks one of them.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=list(names))
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; extract the dataset's archives anew") from error
    except Exception as error:  # scipy raises whatever its parser stumbles over
        raise DataError(f"{path}: not a readable MATLAB file ({error}); fetch it anew") from error
    if missing := [name for name in names if name not in content]:
        raise DataError(f"{path}: lacks {', '.join(missing)}; not the file it should be")
    return {name: content[name] for name in names}
