from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from llama_demo.errors import InvalidSetting
from llama_demo.settings import Settings, add_arguments, options, read_settings


def test_without_flags_and_environment_the_defaults_hold() -> None:
    assert read_settings({}, {}) == Settings(cache_dir=Path("~/.cache/llama-demo").expanduser())


def test_a_flag_wins_over_our_variable_and_that_over_gradios() -> None:
    environment = {"LLAMA_DEMO_PORT": "2000", "GRADIO_SERVER_PORT": "3000"}
    assert read_settings({"port": "1000"}, environment).port == 1000
    assert read_settings({}, environment).port == 2000
    assert read_settings({}, {"GRADIO_SERVER_PORT": "3000", "GRADIO_SERVER_NAME": "0.0.0.0"}).port == 3000


def test_an_empty_variable_counts_as_unset() -> None:
    assert read_settings({}, {"LLAMA_DEMO_PORT": ""}).port == Settings.port


@pytest.mark.parametrize(
    ("given", "environment", "source"),
    [
        ({"port": "http"}, {}, "--port"),
        ({"port": "70000"}, {}, "--port"),
        ({}, {"LLAMA_DEMO_SHARE": "maybe"}, "LLAMA_DEMO_SHARE"),
        ({}, {"GRADIO_SERVER_PORT": "-1"}, "GRADIO_SERVER_PORT"),
        ({"memory_gb": "nan"}, {}, "--memory-gb"),
        ({"memory_gb": "inf"}, {}, "--memory-gb"),
        ({"idle_minutes": "soon"}, {}, "--idle-minutes"),
        ({"cached_conversations": "0"}, {}, "--cached-conversations"),
        ({}, {"LLAMA_DEMO_CACHED_CONVERSATIONS": "many"}, "LLAMA_DEMO_CACHED_CONVERSATIONS"),
    ],
)
def test_a_bad_value_is_refused_naming_where_it_came_from(
    given: dict[str, str], environment: dict[str, str], source: str
) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_settings(given, environment)
    assert caught.value.name == source
    assert caught.value.expected


def test_every_setting_is_a_flag_and_a_variable_with_an_explanation() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    for option in options():
        assert option.flag in text
        assert option.variable == "LLAMA_DEMO_" + option.name.upper()
        assert option.help


def test_a_switch_needs_no_value_on_the_command_line() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parsed = vars(parser.parse_args(["--reproducible", "--share", "off"]))
    settings = read_settings(parsed, {})
    assert settings.reproducible
    assert not settings.share


@pytest.mark.parametrize("environment", [{"LLAMA_DEMO_SHARE": "on"}, {"SPACE_ID": "owner/space"}])
def test_a_public_link_and_a_space_are_public_unless_refused(environment: dict[str, str]) -> None:
    assert read_settings({}, environment).public
    assert read_settings({}, environment).trusted_proxies
    assert not read_settings({"public": "off"}, environment).public
    assert not read_settings({}, {}).public
    assert not read_settings({}, {"LLAMA_DEMO_PUBLIC": "on"}).trusted_proxies


def test_whether_a_gpu_is_lent_is_said_by_the_space() -> None:
    assert read_settings({}, {"SPACE_ID": "owner/space", "SPACES_ZERO_GPU": "true"}).zero_gpu
    assert not read_settings({}, {"SPACE_ID": "owner/space", "SPACES_ZERO_GPU": "false"}).zero_gpu
    assert not read_settings({}, {"SPACE_ID": "owner/space"}).zero_gpu


def test_the_owners_password_comes_from_the_environment_alone_and_is_not_shown() -> None:
    settings = read_settings({"owner_password": "given"}, {"LLAMA_DEMO_OWNER_PASSWORD": "correct horse"})
    assert settings.owner_password == "correct horse"
    assert "correct" not in repr(settings)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert "OWNER_PASSWORD" not in parser.format_help().upper().replace("-", "_")


@pytest.mark.parametrize("proxies", ["*", "example.com", "10.0.0.0/99", "10.0.0.1/8"])
def test_only_addresses_and_networks_are_trusted(proxies: str) -> None:
    with pytest.raises(InvalidSetting):
        read_settings({"trusted_proxies": proxies}, {})
    assert read_settings({"trusted_proxies": "10.0.0.0/8, ::1"}, {}).trusted_proxies == "10.0.0.0/8,::1/128"
