from blackswan.seeds import generator


def draw(*arguments):
    return generator(*arguments).integers(0, 2**63, 4).tolist()


def test_a_seed_and_its_names_give_one_sequence_on_every_machine():
    assert draw(0, "splits") == draw(0, "splits")
    assert generator(0, "splits").permutation(6).tolist() == [0, 5, 3, 4, 2, 1]


def test_other_seeds_and_other_names_give_other_sequences():
    drawn = [
        draw(0), draw(1), draw(0, "a"), draw(0, "b"), draw(0, "a", "b"), draw(0, "ab"),
        draw(0, "b", "a"), draw(1, "a"), draw(0, ""),
    ]  # fmt: skip
    assert len({tuple(numbers) for numbers in drawn}) == len(drawn) - 1
    assert draw(0) == draw(0, "")
