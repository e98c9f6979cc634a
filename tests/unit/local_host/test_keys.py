import pytest

from deployr_serve.local_host.keys import AuthLevel, HostKeys, opens

KEYS = HostKeys(master="master-key", function="function-key")


@pytest.mark.parametrize(
    ("level", "offered", "open_"),
    [
        (AuthLevel.ANONYMOUS, None, True),
        (AuthLevel.ANONYMOUS, "wrong", True),
        (AuthLevel.FUNCTION, None, False),
        (AuthLevel.FUNCTION, "", False),
        (AuthLevel.FUNCTION, "wrong", False),
        (AuthLevel.FUNCTION, "function-ke", False),
        (AuthLevel.FUNCTION, "schlüssel", False),
        (AuthLevel.FUNCTION, "function-key", True),
        (AuthLevel.FUNCTION, "master-key", True),
        (AuthLevel.ADMIN, None, False),
        (AuthLevel.ADMIN, "function-key", False),
        (AuthLevel.ADMIN, "master-key", True),
    ],
)
def test_which_key_opens_which_level(level, offered, open_):
    assert opens(level, offered=offered, keys=KEYS) is open_


def test_keys_do_not_show_themselves():
    assert "key" not in repr(KEYS).replace("HostKeys", "")


@pytest.mark.parametrize("bad", ["", "with\nnewline", "schlüssel"])
def test_a_key_that_no_header_could_carry_is_refused(bad):
    with pytest.raises(ValueError, match=r"HostKeys\.master"):
        HostKeys(master=bad, function="function-key")


def test_the_two_keys_must_differ():
    with pytest.raises(ValueError, match="two different keys"):
        HostKeys(master="same", function="same")
