"""Errors of the domain: models, tasks, calibration and search. The tree's root is in `formats`."""

from __future__ import annotations

from formats.errors import NpsError, StoreExistsError, StoreLockedError, TaskNotFoundError

__all__ = [
    "BadOptionError",
    "BaseMismatchError",
    "BaseNotFoundError",
    "BudgetTooSmallError",
    "CalibrationError",
    "DiskFullError",
    "InputOutputError",
    "JournalDamagedError",
    "JournalMismatchError",
    "ModelDirectoryMissingError",
    "ModelLoadError",
    "NoSuchFileError",
    "NonFiniteObjectiveError",
    "NonFiniteWeightError",
    "NotAModelDirectoryError",
    "NpsError",
    "RecipeCycleError",
    "RecipeError",
    "ShapeMismatchError",
    "StoreExistsError",
    "StoreLockedError",
    "TaskExistsError",
    "TaskInUseError",
    "TaskNotFoundError",
    "UnrelatedModelError",
    "UnsupportedTaskError",
    "WeightsUnsettledError",
    "WorkerLostError",
]


class ModelDirectoryMissingError(NpsError, FileNotFoundError):
    """A base or task directory does not exist."""

    id = "model.directory_missing"
    exit_code = 30


class NotAModelDirectoryError(NpsError, ValueError):
    """A directory is no Hugging Face model directory with safetensors."""

    id = "model.not_a_model_directory"
    exit_code = 31


class BaseMismatchError(NpsError, ValueError):
    """The base given is not the base that the store was made for."""

    id = "store.base_mismatch"
    exit_code = 32


class NonFiniteWeightError(NpsError, ValueError):
    """A checkpoint holds NaN or Inf."""

    id = "model.non_finite_weight"
    exit_code = 33


class ShapeMismatchError(NpsError, ValueError):
    """A body tensor of the fine-tune has another shape than the base's."""

    id = "model.shape_mismatch"
    exit_code = 34


class TaskExistsError(NpsError, ValueError):
    """A task of that name is in the store (or named twice in one command)."""

    id = "store.task_exists"
    exit_code = 35


class BaseNotFoundError(NpsError, FileNotFoundError):
    """The store's base is external and was not found."""

    id = "store.base_not_found"
    exit_code = 37


class UnsupportedTaskError(NpsError, ValueError):
    """The task is stored, but cannot be used in the way that was asked."""

    id = "task.unsupported"
    exit_code = 38


class CalibrationError(NpsError, ValueError):
    """Calibration or evaluation data cannot be used."""

    id = "data.calibration"
    exit_code = 40


class NonFiniteObjectiveError(NpsError, ArithmeticError):
    """A search objective returned NaN or Inf."""

    id = "search.non_finite_objective"
    exit_code = 41


class BudgetTooSmallError(NpsError, ValueError):
    """No encoding of the task fits the byte budget."""

    id = "search.budget_too_small"
    exit_code = 42


class ModelLoadError(NpsError, RuntimeError):
    """The model of a base or task cannot be built from its files."""

    id = "model.load"
    exit_code = 43


class UnrelatedModelError(NpsError, ValueError):
    """The task is no fine-tune of the base: its weights have other names, or nothing in common."""

    id = "model.unrelated"
    exit_code = 44


class DiskFullError(NpsError, OSError):
    """The disk filled up while writing."""

    id = "io.disk_full"
    exit_code = 45


class NoSuchFileError(NpsError, FileNotFoundError):
    """A file that was named does not exist."""

    id = "io.no_such_file"
    exit_code = 46


class InputOutputError(NpsError, OSError):
    """The system refused to read or write."""

    id = "io.error"
    exit_code = 47


class JournalDamagedError(NpsError, ValueError):
    """A line of a search's journal cannot be read."""

    id = "search.journal_damaged"
    exit_code = 39


class JournalMismatchError(NpsError, ValueError):
    """The journal is of another search: other models, data, options or versions."""

    id = "search.journal_mismatch"
    exit_code = 49


class WorkerLostError(NpsError, RuntimeError):
    """A process that worked on a task ended before it was done."""

    id = "job.worker_lost"
    exit_code = 48


class WeightsUnsettledError(NpsError, RuntimeError):
    """A switch of weights failed and could not be reverted: what is in place is no task's."""

    id = "weights.unsettled"
    exit_code = 60


class RecipeError(NpsError, ValueError):
    """A virtual task cannot be made of what it names."""

    id = "recipe.invalid"
    exit_code = 64


class RecipeCycleError(RecipeError):
    """A virtual task is made of itself."""

    id = "recipe.cycle"
    exit_code = 65


class TaskInUseError(NpsError, ValueError):
    """A recipe is made of the task that is to be removed."""

    id = "store.task_in_use"
    exit_code = 66


class BadOptionError(NpsError, ValueError):
    """Options that contradict each other or lie out of range."""

    id = "usage.option"
    exit_code = 2
