"""The configuration of a model with an adapter, which peft does not write down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from nps_store.errors import UnsupportedTaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nps_store.adapters.settings import AdapterSettings

HEADS = ("classifier.weight", "score.weight", "classifier.out_proj.weight")
"""Last layers of classifiers: their rows are the classes."""


def config_of(
    base: Mapping[str, Any],
    settings: AdapterSettings,
    new: Mapping[str, tuple[int, ...]],
    *,
    where: str,
) -> dict[str, Any]:
    """The base's configuration, with the head that the adapter brings.

    Args:
        base: Content of the base's `config.json`.
        settings: Of the adapter.
        new: Shapes of the tensors that the base lacks.
        where: The adapter's file.

    Raises:
        UnsupportedTaskError: No class can be told from the adapter.
    """
    config = dict(base)
    model_class = settings.model_class or _class_of(config, settings)
    if model_class is not None:
        config["architectures"] = [model_class]
    if not new:
        return config
    heads = [new[name] for name in HEADS if name in new]
    is_classifier = str((config.get("architectures") or [""])[0]).endswith(
        "ForSequenceClassification"
    )
    if not heads or not is_classifier:
        raise UnsupportedTaskError(
            f"{where}: tensor {min(new)!r} is not in the base, and task type "
            f"{settings.task_type!r} does not tell what model it is of; put the model's "
            "config.json beside it"
        )
    labels = [f"LABEL_{index}" for index in range(heads[0][0])]
    config["id2label"] = {str(index): label for index, label in enumerate(labels)}
    config["label2id"] = {label: index for index, label in enumerate(labels)}
    return config


def _class_of(config: Mapping[str, Any], settings: AdapterSettings) -> str | None:
    """Class of the model by the adapter's task; None is the base's own."""
    if settings.task_type != "SEQ_CLS":
        return None
    classes = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    found: str | None = classes.get(str(config.get("model_type")))
    return found
