"""Checks of hyper-parameters, made when a method is built."""

import numbers


def at_least(name: str, value: float, least: float) -> None:
    """Raise ValueError unless ``value >= least``."""
    if not value >= least:
        raise ValueError(f"{name} is {value!r}; it must be at least {least}.")


def whole(name: str, value: int, least: int = 1) -> None:
    """Raise ValueError unless `value` is a whole number and at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} is {value!r}; it must be a whole number.")
    at_least(name, value, least)


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is among `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")
