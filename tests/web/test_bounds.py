"""Limits of requests and connections."""

import asyncio

import pytest

from worker.web.bounds import Rate
from worker.web.connections import Connections, Crowd, Handler, peer_name


class _Peer(Handler):
    """A connection of which only the peer matters."""

    def __init__(self, peer: str, number: int) -> None:
        self.peer = peer
        self.number = number
        self.transport = None

    def __repr__(self) -> str:
        return f"{self.peer}{self.number}"


def _peers(crowd: Crowd) -> list[str]:
    return [repr(handler) for of_peer in crowd._of_peer.values() for handler in of_peer]


def test_one_connection_too_many_ends_the_oldest_of_the_peer_with_the_most() -> None:
    crowd = Crowd(3)
    a, b, c = _Peer("a", 1), _Peer("b", 1), _Peer("b", 2)
    for handler in (a, b, c, _Peer("c", 1)):
        crowd.add(handler)
    assert _peers(crowd) == ["a1", "b2", "c1"]
    crowd.discard(b)  # it is none of these any more
    crowd.discard(a)
    assert (len(crowd), _peers(crowd)) == (2, ["b2", "c1"])
    for number in range(9):
        crowd.add(_Peer("d", number))
    assert _peers(crowd) == ["b2", "c1", "d8"]
    for number in range(9):
        crowd.add(_Peer("c", number))
    assert _peers(crowd) == ["b2", "c8", "d8"]
    crowd.add(_Peer("e", 1))  # where each has one, the oldest goes
    assert _peers(crowd) == ["c8", "d8", "e1"]


def test_each_peer_has_so_many_a_second_and_all_together_have_more() -> None:
    now = 0.0
    rate = Rate(2, 5, lambda: now)
    assert [rate.takes("a") for _ in range(9)] == [True] * 2 + [False] * 7
    assert [rate.takes("b") for _ in range(3)] == [True, True, False]
    assert [rate.takes("c") for _ in range(2)] == [True, False]  # what was refused to others counts for nothing
    now = 1.0
    assert rate.takes("a")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (("127.0.0.1", 5), "127.0.0.1"),
        (("::1", 5, 0, 0), "::1"),
        (("::ffff:10.0.0.1", 5, 0, 0), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        (None, ""),
        ("", ""),
    ],
)
def test_a_machine_has_one_name_for_all_its_addresses(address: object, name: str) -> None:
    assert peer_name(address) == name


async def test_what_has_ended_leaves_nothing_behind() -> None:
    connections = Connections()
    handlers = [_Peer("a", number) for number in range(1_000)]
    for handler in handlers:
        connections.came(handler)
        connections.know(handler)
    for handler in handlers:
        connections.went(handler)
        connections.know(handler)  # an answer may come too late
    await asyncio.sleep(0)
    assert repr(connections) == "<Connections [0 strangers, 0 known]>"
