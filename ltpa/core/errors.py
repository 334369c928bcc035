"""Errors a user can act on: each is one line that names the file or key and the remedy."""


class LtpaError(Exception):
    """Base of every expected failure. The command line prints the message alone and exits with `exit_code`."""

    exit_code = 1


class ConfigError(LtpaError):
    """A configuration or declaration is wrong; the message names file, key and the allowed values."""

    exit_code = 2


class DataError(LtpaError):
    """An input dataset or prepared array is missing, corrupt or not what it claims to be."""

    exit_code = 3


class NotFiniteError(DataError):
    """A network gave numbers that are not finite. The message begins with `its`; the stage names the file before it."""


class RecordError(LtpaError):
    """A result record is truncated, edited or of another kind."""

    exit_code = 4


class ModelError(LtpaError):
    """A model file or request does not fit: another variant, class count, input size or preprocessing."""

    exit_code = 5


class TrainingError(LtpaError):
    """Training could not go on, for example because the loss stopped being finite."""

    exit_code = 6


class DiskFullError(LtpaError):
    """A file does not fit on its disk; what was there before is intact."""

    exit_code = 7


class MemoryFullError(LtpaError):
    """Something does not fit into memory: a training (the message names a batch size that does), or a huge picture."""

    exit_code = 8
