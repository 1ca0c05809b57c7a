"""Every setting of the service in one place, from `NPS_*` variables or keyword arguments."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PositiveInt = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]
Key = Annotated[SecretStr, Field(min_length=1)]


class Settings(BaseSettings):
    """Settings of one application; immutable once read."""

    model_config = SettingsConfigDict(env_prefix="NPS_", frozen=True, extra="forbid")

    memory_budget: PositiveInt | None = Field(
        default=None,
        description="Bytes that resident tasks may occupy beside the base. Unset: as many as the "
        "base's weights (at least 256 MiB), used for sparse patches only, which are switched in "
        "place. Set: a task gets its own copy of the body, which needs no switch, wherever a whole "
        "copy fits into what is free, and a patch otherwise. Idle tasks leave in LRU order; a task "
        "with requests in flight never does. A task's need is known once it has been loaded; the "
        "first time its bytes in the store are taken for it, so a first load may overshoot.",
    )
    quantum_s: PositiveSeconds = Field(
        default=0.05,
        description="Seconds that one task may keep the model while another waits. A task waits at "
        "most this times the number of active tasks, plus one batch.",
    )
    max_batch_inputs: PositiveInt = Field(default=32, description="Inputs in one forward pass.")
    max_batch_tokens: PositiveInt = Field(
        default=8192, description="Tokens in one forward pass, padding included."
    )
    max_queued_inputs: PositiveInt = Field(
        default=2048, description="Inputs that may be waiting or running; beyond it 429."
    )
    max_queued_inputs_per_task: PositiveInt = Field(
        default=1024, description="The same for one task, so that one task cannot fill the queue."
    )
    max_inputs: PositiveInt = Field(
        default=256, description="Inputs of one request; beyond it 400."
    )
    max_body_nbytes: PositiveInt = Field(
        default=4 << 20, description="Bytes of a request's body; beyond it 413."
    )
    refresh_s: PositiveSeconds = Field(
        default=0.5, description="Seconds between looks at the store for a newer generation."
    )
    load_wait_s: PositiveSeconds = Field(
        default=30.0,
        description="Seconds that a request waits for room in the memory budget; then 503.",
    )
    drain_s: PositiveSeconds = Field(
        default=30.0, description="Seconds that running requests get after SIGTERM."
    )
    api_key: Key | None = Field(
        default=None,
        description="Key that every route but /health and /ready asks for (Authorization: Bearer).",
    )
    admin_key: Key | None = Field(
        default=None, description="Key of the admin routes; without it they answer 403."
    )
