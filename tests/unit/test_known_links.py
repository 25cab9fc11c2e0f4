"""What is remembered of links by their names and numbers."""

from weft.drivers.surroundings import Indexes


def test_of_some_links_the_numbers_are_taken_along_and_of_no_others() -> None:
    known = Indexes()
    known.learn("cni0", 7)
    known.learn("wf1", 8)
    some = known.of(("cni0", "", "gone"))
    assert some.numbers == {"lo": 1, "cni0": 7}
    assert some.name(8) is None
