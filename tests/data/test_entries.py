"""Natural order of names."""

from hypothesis import given
from hypothesis import strategies as st

from pokegan.data.entries import natural_key


def test_numbers_by_value_and_folders_together() -> None:
    names = ["10.png", "2.png", "a/10.png", "a/9.png", "a-b/1.png", "b.png", "1.png", "01.png", "B"]
    assert sorted(names, key=natural_key) == [
        "01.png",
        "1.png",
        "2.png",
        "10.png",
        "B",
        "a/9.png",
        "a/10.png",
        "a-b/1.png",
        "b.png",
    ]


def test_seed_layout_puts_the_png_first() -> None:
    png, jpg = "pokemon/pokemon/1.png", "pokemon_jpg/pokemon_jpg/1.jpg"
    assert natural_key(png) < natural_key(jpg)


@given(st.lists(st.text("a1/0٣ ", max_size=8), unique=True))
def test_order_is_total_and_the_same_for_every_arrangement(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)
