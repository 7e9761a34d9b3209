"""The address of a shared database: what is refused, and that its password is never shown."""

import socket
import sys

import pytest

from studies.engine import slots
from studies.engine.dispatching import storage
from studies.engine.errors import StudyError


def given(monkeypatch: pytest.MonkeyPatch, address: str) -> storage.Server | None:
    monkeypatch.setenv(slots.STORAGE_VARIABLE, address)
    return storage.configured()


def test_without_an_address_there_is_no_server(monkeypatch) -> None:
    monkeypatch.delenv(slots.STORAGE_VARIABLE, raising=False)
    assert storage.configured() is None
    assert given(monkeypatch, "  ") is None


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_any_spelling_of_postgresql_means_one_driver(monkeypatch, scheme: str) -> None:
    server = given(monkeypatch, f"{scheme}://ada:hush%2Fhush@db.example:5433/zoo")
    assert server.address == "postgresql+psycopg://ada:hush%2Fhush@db.example:5433/zoo"
    assert str(server) == "postgresql://ada@db.example:5433/zoo"
    assert "hush" not in f"{server!r} {server}"


def test_a_password_among_the_options_is_hidden_too(monkeypatch) -> None:
    server = given(monkeypatch, "postgresql:///zoo?host=/run/pg&user=ada&password=hush")
    assert "hush" not in f"{server!r} {server}" and "password" not in server.url.query
    assert server.url.password == "hush"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hush", "not an address"),
        ("postgresql//ada:hush@host/zoo", "not an address"),
        ("postgresql://ada:hush@host:port/zoo", "not an address"),
        ("postgresql://ada:hu@sh@host/zoo", "write an @ within the password as %40"),
        ("postgresql://ada:hush@host", "the database's name is missing"),
        ("sqlite:///hush.db", "expected postgresql://.*unset it for the sqlite file"),
        ("mysql://ada:hush@host/zoo", "got mysql://..."),
    ],
)
def test_an_address_in_error_is_refused_without_quoting_it(monkeypatch, address, message) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        given(monkeypatch, address)
    assert str(caught.value).startswith("BASIS_ZOO_STORAGE: ")
    assert "hush" not in str(caught.value) and "sh@" not in str(caught.value)


def test_every_form_of_the_password_is_masked(monkeypatch) -> None:
    server = given(monkeypatch, "postgresql://ada:a%2Fb%20c@host/zoo")
    text = server.masked(f"said 'a/b c', a%2Fb%20c,\na%2Fb+c, a/b%20c to {server.address}")
    assert text == "said '***', ***, ***, *** to postgresql+psycopg://ada:***@host/zoo"


def test_a_server_that_is_not_there_is_named(monkeypatch) -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = given(monkeypatch, f"postgresql://ada:hush@127.0.0.1:{port}/zoo")
    expected = rf"ada@127.0.0.1:{port}/zoo cannot be used: .*refused.* Start the server or correct"
    with pytest.raises(StudyError, match=expected) as caught:
        server.check()
    assert "hush" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_driver_is_named_with_the_command_that_installs_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    server = given(monkeypatch, "postgresql://ada:hush@127.0.0.1/zoo")
    with pytest.raises(StudyError, match=r"pip install 'basis-zoo\[cluster\]'"):
        server.check()


def test_trials_do_not_get_the_secrets(monkeypatch) -> None:
    monkeypatch.setattr(slots, "gpus", lambda: 0)
    monkeypatch.setenv(slots.STORAGE_VARIABLE, "postgresql://ada:hush@host/zoo")
    monkeypatch.setenv("PGPASSWORD", "hush")
    assert not any("hush" in value for value in slots.environment(0, 1).values())
