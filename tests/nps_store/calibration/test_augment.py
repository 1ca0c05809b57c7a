"""Variations of texts to learn from."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.calibration.augment import augment

START, END = 101, 102
bodies = st.lists(st.lists(st.integers(0, 100), max_size=12), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(bodies=bodies, count=st.integers(0, 30), longest=st.integers(3, 16), seed=st.integers(0, 9))
def test_frame_length_and_tokens(bodies, count, longest, seed):
    ids = [[START, *body, END] for body in bodies]
    made = augment(ids, count=count, special=(START, END), longest=longest, seed=seed)
    known = {token for body in bodies for token in body}
    assert len(made) == count
    for text in made:
        assert len(text) <= longest
        assert text[0] == START
        assert text[-1] == END
        assert set(text[1:-1]) <= known


def test_variations_vary_and_repeat_by_seed():
    ids = [[START, *range(10 * i, 10 * i + 9), END] for i in range(5)]
    one, same, other = (
        augment(ids, count=50, special=(START, END), longest=20, seed=seed) for seed in (1, 1, 2)
    )
    assert one == same != other
    assert len({tuple(text) for text in one}) > 45
