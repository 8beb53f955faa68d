"""Jobs of the sysadmin page; what RQ calls has its name here, for it must not move."""


def run(id: str) -> None:
    """The job of an id, in a worker's process. Raises what its operation raises."""
    from .worker import run as work

    work(id)
