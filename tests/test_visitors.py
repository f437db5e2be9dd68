from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llama_demo.visitor_errors import OwnerOnly, TooManyAttempts, WrongPassword
from llama_demo.visitors import ATTEMPT_SECONDS, ATTEMPTS, NOBODY, OWNER_COOKIE, VISITOR_COOKIE, Role, Visitors
from tests.test_limits import Clock

PASSWORD = "correct horse"


def request(address: str | None = "10.1.1.1", username: str | None = None, **cookies: str) -> Any:
    client = None if address is None else SimpleNamespace(host=address)
    return SimpleNamespace(cookies=cookies, client=client, username=username)


def test_who_has_a_key_is_one_signed_in_visitor_wherever_the_requests_come_from() -> None:
    visitors = Visitors(public=True, password="")
    asked = [request("10.1.1.1"), request("10.2.2.2"), request("10.2.2.2")]
    for one, caller in zip(asked, ("ann", "ann", "ben"), strict=True):
        one.state = SimpleNamespace(caller=caller)
    first, second, third = (visitors.of(one) for one in asked)
    assert first.role is second.role is Role.SIGNED_IN
    assert first.key == second.key != third.key


def test_on_a_private_start_without_a_password_everybody_is_the_owner() -> None:
    assert Visitors(public=False, password="").of(request()).is_owner
    assert Visitors(public=False, password="").of(None).is_owner


@pytest.mark.parametrize("public", [True, False])
def test_with_a_password_nobody_is_the_owner_until_it_is_given(public: bool) -> None:
    visitors = Visitors(public=public, password=PASSWORD)
    assert visitors.of(request()).role is Role.ANONYMOUS
    cookie = visitors.unlock(PASSWORD, "10.1.1.1")
    assert visitors.of(request(**{OWNER_COOKIE: cookie})).is_owner


def test_on_a_public_start_without_a_password_nobody_is_the_owner() -> None:
    visitors = Visitors(public=True, password="")
    assert not visitors.of(request()).is_owner
    with pytest.raises(WrongPassword):
        visitors.unlock("", "10.1.1.1")
    with pytest.raises(OwnerOnly):
        visitors.of(None).check_owner()


@pytest.mark.parametrize("cookie", ["", ".", "a.b", "é.ü", "owner", "0" * 32 + "." + "0" * 64])
def test_a_forged_owners_cookie_opens_nothing(cookie: str) -> None:
    assert not Visitors(public=True, password=PASSWORD).of(request(**{OWNER_COOKIE: cookie})).is_owner


def test_another_start_asks_for_the_password_again() -> None:
    cookie = Visitors(public=True, password=PASSWORD).unlock(PASSWORD, "a")
    assert not Visitors(public=True, password=PASSWORD).of(request(**{OWNER_COOKIE: cookie})).is_owner


def test_a_browser_is_told_apart_by_its_cookie_wherever_it_is() -> None:
    visitors = Visitors(public=True, password="")
    cookies = {VISITOR_COOKIE: visitors.new_cookie()}
    here, there = visitors.of(request("10.1.1.1", **cookies)), visitors.of(request("10.2.2.2", **cookies))
    assert here.key == there.key
    assert here.key != visitors.of(request("10.1.1.1", **{VISITOR_COOKIE: visitors.new_cookie()})).key
    assert cookies[VISITOR_COOKIE] not in here.key


@pytest.mark.parametrize("cookie", ["", "x", "a" * 100_000, "0" * 31 + "\n"])
def test_without_a_cookie_that_the_server_made_the_address_counts(cookie: str) -> None:
    visitors = Visitors(public=True, password="")
    asked = visitors.of(request("10.1.1.1", **{VISITOR_COOKIE: cookie}))
    assert asked == visitors.of(request("10.1.1.1"))
    assert asked != visitors.of(request("10.2.2.2"))
    assert visitors.of(request(None)).key != NOBODY.key


def test_an_address_is_that_of_the_network_and_never_this_machines_own() -> None:
    visitors = Visitors(public=True, password="")
    assert visitors.of(request("10.1.1.1")).address == visitors.of(request("10.1.1.1", **{VISITOR_COOKIE: "x"})).address
    assert visitors.of(request("10.1.1.1")).address
    assert not visitors.of(request("127.0.0.1")).address


def test_all_addresses_of_one_ipv6_line_are_one_and_ipv4_is_itself_in_either_form() -> None:
    visitors = Visitors(public=True, password="right")

    def address(host: str) -> str:
        return visitors.of(request(host)).address

    assert address("2001:db8:1:2::1") == address("2001:db8:1:2:ffff:ffff:ffff:ffff")
    assert address("2001:db8:1:2::1") != address("2001:db8:1:3::1")
    assert address("::ffff:10.1.1.1") == address("10.1.1.1") != address("::ffff:10.1.1.2")
    assert address("::1") == address("::ffff:127.0.0.1") == address("127.0.0.1") == ""
    assert address("fe80::1%eth0") == address("fe80::2%eth1")


def test_who_signed_in_is_no_owner_but_more_than_anybody() -> None:
    assert Visitors(public=True, password="").of(request(username="mina")).role is Role.SIGNED_IN


def test_the_password_is_refused_unheard_after_too_many_attempts_from_one_address() -> None:
    clock = Clock()
    visitors = Visitors(public=True, password=PASSWORD, clock=clock)
    for _ in range(ATTEMPTS):
        with pytest.raises(WrongPassword):
            visitors.unlock("wrong", "10.1.1.1")
    with pytest.raises(TooManyAttempts) as caught:
        visitors.unlock(PASSWORD, "10.1.1.1")
    assert caught.value.seconds == pytest.approx(ATTEMPT_SECONDS)
    assert visitors.unlock(PASSWORD, "10.2.2.2")
    clock.now += ATTEMPT_SECONDS
    assert visitors.unlock(PASSWORD, "10.1.1.1")
