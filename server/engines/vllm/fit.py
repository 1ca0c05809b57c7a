"""What belongs to a task besides weights, where vLLM would use the base's for every task.

vLLM has one tokenizer, one chat template and one configuration for all that is routed through it.
A task that differs in any of them would be answered wrongly without a word, and is refused.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nps_store.errors import UnsupportedTaskError

if TYPE_CHECKING:
    from nps_store.store import Store

_SHARED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "config.json",
)
_WITHOUT_EFFECT = {
    "_name_or_path", "name_or_path", "transformers_version", "_from_model_config", "use_cache",
    "dtype", "torch_dtype", "_commit_hash", "problem_type", "id2label", "label2id",
}  # fmt: skip
"""Keys that say nothing of how a text is read or made; the dtype is compared with the model's."""


def check_fit(store: Store, name: str) -> None:
    """Refuse a task that vLLM would read or answer with what is the base's.

    Raises:
        TaskNotFoundError: There is no such task.
        UnsupportedTaskError: It has another tokenizer, chat template, generation configuration or
            architecture than the base (names the file, and the key in it).
    """
    files, of_base = store.files(name), store.base.files()
    for file in _SHARED:
        ours = files.read(file)
        theirs = of_base[file].read_bytes() if file in of_base else None
        if ours != theirs and (different := _difference(file, ours, theirs)) is not None:
            raise UnsupportedTaskError(
                f"task {name!r} has another {different} than the base, whose vLLM would use for "
                "it; `nps export` it and serve it by itself, or with --engine torch"
            )


def _difference(file: str, ours: bytes | None, theirs: bytes | None) -> str | None:
    """What differs, by name; None if nothing that has an effect does."""
    if not file.endswith(".json") or file == "tokenizer.json":
        return file
    one, other = _parsed(ours), _parsed(theirs)
    for key in sorted({*one, *other} - _WITHOUT_EFFECT):
        if one.get(key) != other.get(key):
            return f"{key!r} in {file}"
    return None


def _parsed(content: bytes | None) -> dict[str, Any]:
    return {} if content is None else dict(json.loads(content))
