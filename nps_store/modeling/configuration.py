"""What a `config.json` says, as transformers understands it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoConfig

from nps_store.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def parse_config(config: dict[str, Any]) -> PretrainedConfig:
    """A configuration object from the content of a `config.json`.

    Raises:
        ModelLoadError: The model type is missing or unknown to the installed transformers.
    """
    model_type = config.get("model_type")
    try:
        return AutoConfig.for_model(**config)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelLoadError(
            f"config.json names model type {model_type!r}, which the installed transformers "
            f"cannot build ({error})"
        ) from error
