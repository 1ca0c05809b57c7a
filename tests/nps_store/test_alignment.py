"""Which tensor is which, from names and shapes alone."""

from __future__ import annotations

import pytest

from nps_store.alignment import align
from nps_store.errors import ShapeMismatchError, UnrelatedModelError

BODY = {
    "embeddings.word.weight": (10, 4),
    "encoder.0.weight": (4, 4),
    "encoder.0.bias": (4,),
    "encoder.1.weight": (4, 4),
    "pooler.weight": (4, 4),
}
HEAD = {"classifier.weight": (3, 4), "classifier.bias": (3,)}


class Table:
    def __init__(self, shapes):
        self._shapes = shapes
        self.names = tuple(sorted(shapes))

    def shape(self, name):
        return self._shapes[name]


def prefixed(prefix, shapes):
    return {prefix + name: shape for name, shape in shapes.items()}


def run(base, task, **options):
    return align(Table(base), Table(task), **options)


@pytest.mark.parametrize("prefix", ["", "bert.", "model.decoder."])
def test_a_fine_tune_wraps_the_body(prefix):
    found = run(BODY, {**prefixed(prefix, BODY), **HEAD})
    assert found.prefix == prefix
    assert dict(found.shared) == {prefix + name: name for name in BODY}
    assert found.new == tuple(sorted(HEAD))
    assert found.grown == found.absent == ()


@pytest.mark.parametrize("prefix", ["bert.", "model.decoder."])
def test_the_base_may_be_the_one_that_wraps(prefix):
    base = {**prefixed(prefix, BODY), **HEAD}
    found = run(base, BODY, base_has_head=True)
    assert found.prefix == ""
    assert dict(found.shared) == {name: prefix + name for name in BODY}
    assert found.absent == tuple(sorted(HEAD))
    assert found.new == ()


@pytest.mark.parametrize("rows", [11, 20])
def test_appended_rows(rows):
    found = run(BODY, {**prefixed("bert.", BODY), "bert.embeddings.word.weight": (rows, 4)})
    assert found.grown == (("bert.embeddings.word.weight", "embeddings.word.weight"),)
    assert len(found.shared) == len(BODY) - 1


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("embeddings.word.weight", (9, 4)),  # rows gone
        ("embeddings.word.weight", (10, 5)),
        ("embeddings.word.weight", (40,)),
        ("encoder.0.bias", (5,)),
        ("encoder.1.weight", (4, 4, 1)),
    ],
)
def test_another_shape_in_the_body_is_refused_by_name(name, shape):
    with pytest.raises(ShapeMismatchError) as caught:
        run(BODY, {**prefixed("bert.", BODY), f"bert.{name}": shape})
    text = str(caught.value)
    assert f"'bert.{name}'" in text
    assert str(list(shape)) in text
    assert str(list(BODY[name])) in text


@pytest.mark.parametrize("n_labels", [2, 5, 3])
def test_a_base_with_a_head_and_tasks_with_others(n_labels):
    base = {**prefixed("bert.", BODY), **HEAD}
    head = {"classifier.weight": (n_labels, 4), "classifier.bias": (n_labels,)}
    found = run(base, {**prefixed("bert.", BODY), **head}, base_has_head=True)
    assert found.grown == ()  # more labels are no vocabulary
    if n_labels == 3:
        assert (found.new, found.absent) == ((), ())
    else:
        assert set(found.new) == set(found.absent) == set(HEAD)


@pytest.mark.parametrize(("rows", "grows"), [(12, True), (11, False), (9, False)])
def test_an_output_layer_grows_with_the_vocabulary(rows, grows):
    output = "lm_head.weight"
    base = {**prefixed("model.", BODY), output: (10, 4)}
    task = base | {"model.embeddings.word.weight": (12, 4), output: (rows, 4)}
    found = run(base, task, base_has_head=True)
    assert ((output, output) in found.grown) == grows
    assert (output in found.new) == (output in found.absent) == (not grows)


def test_absent_tensors():
    task = {name: shape for name, shape in BODY.items() if not name.startswith("pooler")}
    found = run(BODY, {**prefixed("roberta.", task), **HEAD})
    assert found.absent == ("pooler.weight",)


def test_unrelated_models_are_refused():
    for task in ({"gpt.h.0.weight": (4, 4)}, {}, HEAD, {"encoder.0.weight": (4, 4)}):
        with pytest.raises(UnrelatedModelError, match="of the base's 5 tensors"):
            run(BODY, task)
