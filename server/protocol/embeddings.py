"""`/v1/embeddings` in OpenAI's shape."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from server.protocol.pooling import PoolingRequest, Usage


class EmbeddingRequest(PoolingRequest):
    """Texts to embed by the base or by one task."""

    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="base64 is that of the little-endian float32 values."
    )
    dimensions: int | None = Field(
        default=None, description="Only the model's own dimension is accepted."
    )
    embed_dtype: Literal["float32"] = "float32"
    endianness: Literal["native", "little"] = "native"


class EmbeddingData(BaseModel):
    """The vector of one input."""

    index: int
    object: Literal["embedding"] = "embedding"
    embedding: list[float] | str


class EmbeddingResponse(BaseModel):
    """Vectors in the order of the inputs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[EmbeddingData]
    usage: Usage
