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
| | a step takes one attribute more | `v1/core/sched/output.py` |
| `worker` | loading, `execute_model`, sampling | `v1/worker/gpu_worker.py`, `cpu_worker.py` |
| `cpu_worker`, `gpu_worker` | the classes that have them | the same |
| | fields of a step | `v1/core/sched/output.py` |
| | processes of one model | `distributed/parallel_state.py` |
| `failed_step` | a step's output | `v1/outputs.py` |
| | requests that end | `v1/core/sched/scheduler.py` |
| | what clients are told | `v1/engine/__init__.py` |
| `scheduler` | `schedule`, its queues, `_preempt_request` | `v1/core/sched/scheduler.py` |
| | the one that schedules ahead | `v1/core/sched/async_scheduler.py` |
| `queues` | `RequestQueue` | `v1/core/sched/request_queue.py` |
| `options`, `start` | `additional_config`, `worker_cls`, `scheduler_cls` | `config/` |
| `offline` | `LLM`, `collective_rpc` | `entrypoints/llm.py` |
| `serve` | the server's command | `entrypoints/cli/serve.py`, `launchers/cli_args.py` |
| `endpoints` | the entry point `vllm.endpoint_plugins` | `plugins/endpoint_plugins/interface.py` |
| | `openai_serving_models.lora_requests` | `entrypoints/openai/models/serving.py` |
| | the registry of metrics | `v1/metrics/prometheus.py` |
| `observed_engine` | the client's `generate` | `v1/engine/async_llm.py`, `outputs.py` |
| `workers` | `collective_rpc` | `engine/protocol.py` |
| `plugin` | the entry point `vllm.general_plugins` | `plugins/__init__.py` |

`contents`, `fit`, `layout`, `metrics`, `placed_model`, `placement`, `residency`, `served_tasks`,
`time_slices` and `version` know nothing of it.
"""
