"""Generation by vLLM: one resident base, and the tasks of a store switched into it in place.

Nothing outside this folder imports vLLM, and what it relies on inside vLLM 0.32 is this:

| module here | relies on (paths below `vllm/`) |
|---|---|
| `recorder` | a model's `load_weights` and its parameters' `weight_loader` (`model_executor/models/utils.py`, `model_executor/parameter.py`, `model_executor/layers/linear.py`, `model_executor/layers/vocab_parallel_embedding.py`); `default_weight_loader` (`model_executor/model_loader/weight_utils.py`) |
"""  # noqa: E501 (a table's row is one line)
