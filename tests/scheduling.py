"""How pytest-xdist hands out the tests to its worker processes."""

from xdist.scheduler import LoadFileScheduling

# What shares an installation (`running_stack`), by the beginnings of the tests' names: starting one takes 50 seconds of
# computing time, and an idle one 6 percent of a processor.
ONE_INSTALLATION = (
    ("tests/faults/",),
    ("tests/browser/",),
    (
        "tests/bench/test_benchmarks.py::test_a_benchmark_of_an_installation",
        "tests/journeys/test_client.py",
        "tests/journeys/test_openai",
        "tests/journeys/test_rest.py",
        "tests/app/jobs/test_journey.py",
    ),
)


class FolderScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Gives each file to one worker process, and all tests that share an installation too."""

    def _split_scope(self, nodeid: str) -> str:
        return next((names[0] for names in ONE_INSTALLATION if nodeid.startswith(names)), nodeid.split("::")[0])
