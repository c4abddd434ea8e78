"""What the clients of trackers raise beside the errors of their libraries."""


class LostRows(Exception):
    """A tracker does not have rows any more that it took: the job must be sent from its start."""
