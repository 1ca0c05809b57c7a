"""Hugging Face models on torch: classification and embedding, on a CPU or one GPU."""

from server.engines.torch.engine import TorchEngine

__all__ = ["TorchEngine"]
