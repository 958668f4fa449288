"""Checks of hyper-parameters, made when a method is built."""


def at_least(name: str, value: float, least: float) -> None:
    """Raise ValueError unless ``value >= least``."""
    if not value >= least:
        raise ValueError(f"{name} is {value!r}; it must be at least {least}.")


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is among `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")
