"""Files written tensor by tensor are what the library would have written, in the memory of one."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from benchmarks.memory import HostMemory
from nps_store.checkpoint import DTYPE_NAMES, DTYPES
from nps_store.compress import Options, TaskSource, compress
from nps_store.export import export_task
from nps_store.shards import TensorSpec, write_shards
from nps_store.store import Store
from tests.nps_store.models import edit, same


def specs_of(tensors):
    return [TensorSpec(n, DTYPE_NAMES[t.dtype], tuple(t.shape)) for n, t in tensors.items()]


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.sampled_from([(), (0,), (1,), (3, 5), (0, 4), (17,)]), max_size=6),
    dtypes=st.lists(st.sampled_from(list(DTYPES.values())), min_size=6, max_size=6),
)
def test_a_file_is_the_librarys_own(tmp_path_factory, shapes, dtypes):
    directory = tmp_path_factory.mktemp("shards")
    tensors = {
        f'tensor "é" {number}': (torch.arange(shape.numel()) % 2).reshape(shape).to(dtype)
        for number, (shape, dtype) in enumerate(zip(map(torch.Size, shapes), dtypes, strict=False))
    }
    write_shards(directory, specs_of(tensors), tensors.items(), max_shard_nbytes=1 << 20)
    assert same(load_file(directory / "model.safetensors"), tensors)
    save_file(tensors, directory / "theirs", metadata={"format": "pt"})
    assert described(directory / "model.safetensors") == described(directory / "theirs")


def described(path):
    """What a file says of its tensors, and how many bytes they take; the order is a file's own."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    assert start % 8 == 0
    header = json.loads(content[8:start])
    for name in header.keys() - {"__metadata__"}:
        header[name].pop("data_offsets")
    return header, len(content) - start


def test_a_tensor_that_is_not_as_announced_is_refused(tmp_path):
    tensors = {"a": torch.ones(3), "b": torch.ones(4)}
    for specs in (specs_of(tensors)[::-1], specs_of(tensors | {"b": torch.ones(4).half()})):
        with pytest.raises(ValueError, match="expected TensorSpec"):
            write_shards(tmp_path, specs, tensors.items(), max_shard_nbytes=1 << 20)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A store of a body of many tensors, none of which is a large part."""
    from transformers import BertConfig, BertModel

    root = tmp_path_factory.mktemp("large")
    model = BertModel(BertConfig(vocab_size=2000, hidden_size=512, num_hidden_layers=8,
                                 num_attention_heads=8, intermediate_size=2048))  # fmt: skip
    model.save_pretrained(root / "base")
    task = edit(root / "base", root / "task", lambda t: [v.add_(v * 0.01) for v in t.values()])
    compress(root / "base", [TaskSource("t", task)], root / "s.nps",
             options=Options(method="dither", keep=0.02))  # fmt: skip
    return root / "s.nps"


def test_a_task_is_made_and_exported_in_the_memory_of_one_tensor(large, tmp_path):
    with Store.open(large) as store:
        specs = list(store.specs("t"))
        total, largest = sum(s.nbytes for s in specs), max(s.nbytes for s in specs)
        assert total > 20 * largest
        list(itertools.islice(store.tensors("t"), 3))  # loads what is loaded once
        memory = HostMemory()
        before = memory.held()
        with memory.peak() as peak:
            made = store.materialize("t")
        assert peak.nbytes - before < total + 4 * largest
        del made
        before = memory.held()
        with memory.peak() as peak:
            export_task(store, "t", tmp_path / "out")
        assert peak.nbytes - before < 4 * largest
        assert same(load_file(tmp_path / "out" / "model.safetensors"), store.materialize("t"))


def test_specs_are_what_the_tensors_are(zoo, tmp_path):
    compress(zoo.base, [zoo.source("two", calibrated=False)], tmp_path / "s.nps",
             options=Options(keep=0.1, dtype="BF16"))  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        assert list(store.specs("two")) == specs_of(dict(store.tensors("two")))
