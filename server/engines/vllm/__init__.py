"""Generation by vLLM: one resident base, and the tasks of a store switched into it in place.

Nothing outside this folder imports vLLM. What it relies on inside vLLM 0.32, by the file it is in:

| module here | what it relies on | below `vllm/` |
|---|---|---|
| `recorder` | a model's `load_weights` | `model_executor/models/utils.py` |
| | parameters' `weight_loader` | `model_executor/parameter.py`, `layers/linear.py` |
| | `default_weight_loader` | `model_executor/model_loader/weight_utils.py` |
| `cpu_weights` | ways of quantisation by name | `model_executor/layers/quantization/__init__.py` |
| | unquantised layers, `cpu_linear` | `model_executor/layers/linear.py`, `layers/utils.py` |
| | embeddings and output layers | `model_executor/layers/vocab_parallel_embedding.py` |
| `routing` | `LoRARequest` | `lora/request.py` |
| | its name and path in the cache's keys | `v1/core/kv_cache_utils.py` |
| `worker` | loading, steps, `add_lora` | `v1/worker/gpu_worker.py`, `cpu_worker.py` |
| | fields of a step | `v1/core/sched/output.py` |
| `scheduler` | `schedule`, its queues, `_preempt_request` | `v1/core/sched/scheduler.py` |
| | the one that schedules ahead | `v1/core/sched/async_scheduler.py` |
| `options`, `start` | `additional_config`, `worker_cls`, `scheduler_cls` | `config/` |
| `offline` | `LLM`, its engine's `add_lora` | `entrypoints/llm.py`, `v1/engine/llm_engine.py` |
| `serve` | the server's command | `entrypoints/cli/serve.py`, `launchers/cli_args.py` |
| `plugin` | the entry point `vllm.general_plugins` | `plugins/__init__.py` |

`layout`, `placement`, `placed_model`, `time_slices`, `fit` and `version` know nothing of it.
"""
